"""Eq. 1 as an `nn.Module`; the twin of `mf_numpy.model`.

Shapes: P (m, K), Q (n, K), b (m,), c (n,), t (G - 1,), μ a buffer; ``users`` and ``items`` are (B,) int64.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mf_numpy.grades import Cuts
from mf_numpy.model import Params


class MatrixFactorization(nn.Module):
    """r̂_ui = μ + b_u + c_i + p_u·q_i (Eq. 1); without μ, b and c in the plain model.

    Attributes:
        P, Q: factors, (m, K) and (n, K) parameters.
        b, c: biases, (m,) and (n,) parameters in rating units, or None in the plain model.
        t: what the cut points between grades are made of (Eq. 58), a (G - 1,) parameter, or None.
        mu: training mean in rating units, a buffer that is not trained.
        grades, unit: as in `mf_numpy.grades.Cuts`, buffers, or None.
    """

    mu: Tensor
    grades: Tensor | None
    unit: Tensor | None

    def __init__(self, params: Params, device: torch.device | str = "cpu") -> None:
        super().__init__()

        def trained(array: np.ndarray) -> nn.Parameter:
            return nn.Parameter(torch.tensor(array, device=device))

        self.P = trained(params.P)
        self.Q = trained(params.Q)
        self.b = None if params.b is None else trained(params.b)
        self.c = None if params.c is None else trained(params.c)
        cuts = params.cuts
        self.t = None if cuts is None else trained(cuts.t)
        self.register_buffer("grades", None if cuts is None else torch.tensor(cuts.grades, device=device))
        unit = None if cuts is None else torch.tensor(cuts.unit, dtype=torch.float64, device=device)
        self.register_buffer("unit", unit)
        # float64 in the state dict, so that μ travels to NumPy and back without loss.
        self.register_buffer("mu", torch.tensor(params.mu, dtype=torch.float64, device=device))

    def forward(self, users: Int[Tensor, " B"], items: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Predicted ratings (B,) of pairs (Eq. 1).

        Raises:
            IndexError: on the CPU, an index outside 0..m-1 or 0..n-1; on CUDA a device assertion.
        """
        dot = (F.embedding(users, self.P) * F.embedding(items, self.Q)).sum(dim=1)
        predicted = self.mu.to(dot.dtype) + dot  # Eq. 1
        if self.b is not None and self.c is not None:
            predicted = predicted + self.b[users] + self.c[items]
        return predicted

    def to_params(self) -> Params:
        """A copy of the parameters as NumPy arrays, bit for bit; the inverse of ``MatrixFactorization(params)``."""
        arrays = {name: p.detach().cpu().numpy().copy() for name, p in self.named_parameters()}
        cuts = None
        if self.grades is not None and self.unit is not None:
            cuts = Cuts(arrays["t"], self.grades.cpu().numpy().copy(), float(self.unit))
        return Params.of(arrays, float(self.mu), cuts)
