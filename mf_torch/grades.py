"""Eq. 54 to 58 in torch operations; the twin of `mf_numpy.grades`. Autograd finds E and what the cut points get."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mf_torch.model import MatrixFactorization


def points(module: MatrixFactorization) -> Float[Tensor, " cuts"]:
    """The cut points (G - 1,), ascending."""
    assert module.t is not None and module.unit is not None
    scaled = module.unit.to(module.t.dtype) * module.t
    return torch.cumsum(torch.cat([scaled[:1], torch.exp(scaled[1:])]), dim=0)  # Eq. 58


def loss(scores: Float[Tensor, " B"], values: Float[Tensor, " B"], module: MatrixFactorization) -> Float[Tensor, " B"]:
    """ℓ of each rating (Eq. 55): one logistic loss for each end that its grade has, and what its width costs."""
    cuts, at = points(module), places(values, module)
    last = len(cuts) - 1
    upper, lower = cuts[at.clamp(max=last)] - scores, cuts[(at - 1).clamp(min=0)] - scores
    assert module.t is not None and module.unit is not None
    widths = torch.exp(module.unit.to(module.t.dtype) * module.t[1:])
    of_widths = F.pad(-torch.log(-torch.expm1(-widths)), (1, 1))  # Eq. 55
    ends = -F.logsigmoid(upper) * (at <= last) - F.logsigmoid(-lower) * (at > 0)  # Eq. 55
    return ends + of_widths[at]


def expected(scores: Float[Tensor, " B"], module: MatrixFactorization) -> Float[Tensor, " B"]:
    """The mean grade (Eq. 54)."""
    assert module.grades is not None
    out = module.grades[0].expand_as(scores)
    for point, step in zip(points(module), module.grades.diff(), strict=True):
        out = out + step * torch.sigmoid(scores - point)  # Eq. 54
    return out


@torch.no_grad()
def by_hand(
    scores: Float[Tensor, " B"], values: Float[Tensor, " B"], module: MatrixFactorization
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Σ ℓ in float64, E (B,) (Eq. 56), Σ (E[r] - r)² in float64, and ∂Σℓ/∂t (G - 1,) (Eq. 58)."""
    assert module.t is not None and module.unit is not None
    cuts, at = points(module), places(values, module)
    last = len(cuts) - 1
    has_upper, has_lower = at <= last, at > 0
    above, below = at.clamp(max=last), (at - 1).clamp(min=0)
    up, down = torch.sigmoid(scores - cuts[above]) * has_upper, torch.sigmoid(cuts[below] - scores) * has_lower
    each = loss(scores, values, module).sum(dtype=torch.float64)

    slopes = cuts.new_zeros(len(cuts), dtype=torch.float64)
    slopes.index_add_(0, above, -up.double()).index_add_(0, below, down.double())  # Eq. 57
    from_here_up = slopes.flip(0).cumsum(0).flip(0)
    widths = torch.exp(module.unit * module.t[1:].double())
    # Not bincount, which waits for the device.
    counts = torch.zeros_like(slopes).index_add_(0, above, has_upper.double())[1:]
    of_widths = widths * from_here_up[1:] - counts * widths / torch.expm1(widths)  # Eq. 58
    of_t = module.unit * torch.cat([from_here_up[:1], of_widths])
    error = (expected(scores, module) - values).double()
    return each, up - down, (error**2).sum(), of_t.to(module.t.dtype)  # Eq. 56


def places(values: Float[Tensor, " B"], module: MatrixFactorization) -> Tensor:
    """Which grade each rating is, (B,) from 0 to G - 1."""
    assert module.grades is not None
    return torch.searchsorted(module.grades, values.contiguous())
