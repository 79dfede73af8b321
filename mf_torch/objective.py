"""Eq. 2 in torch operations, for autograd to differentiate; the twin of `mf_numpy.objective`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mf_numpy.config import DRAWN, Config
from mf_torch import grades
from mf_torch.batch import Batch
from mf_torch.model import MatrixFactorization


@dataclass(frozen=True, eq=False)
class Objective:
    """J and the part of it that an RMSE needs, both 0-d tensors on the device."""

    value: Tensor
    squared_error: Tensor

    def detach(self) -> Objective:
        """The same numbers, cut off from the graph."""
        return Objective(self.value.detach(), self.squared_error.detach())


def objective(
    module: MatrixFactorization, batch: Batch, config: Config, predicted: Float[Tensor, " B"] | None = None
) -> Objective:
    """J (Eq. 2) over the batch; ``.value.backward()`` leaves ∇J (Eq. 6) in the parameters' ``grad``.

    Args:
        predicted: r̂ of each pair where it is known already, by another way than the module's own.
    """
    if predicted is None:
        predicted = _scores(module, batch) if config.loss in DRAWN else module(batch.users, batch.items)
    data_term = loss(predicted, batch.values, config, module).mean()  # Eq. 2
    if config.loss == "all_pairs":
        data_term = data_term + background(module) / len(batch)  # Eq. 46
    data_term = data_term + penalty(module, batch, config)
    return Objective(data_term, squared_errors(predicted, batch.values, config, module))


def squared_errors(
    predicted: Float[Tensor, " B"],
    values: Float[Tensor, " B"],
    config: Config,
    module: MatrixFactorization | None = None,
) -> Float[Tensor, ""]:
    """Σ (E[r] - r)² (Eq. 44), cut off from the graph; as `mf_numpy.losses.squared_errors`.

    Args:
        module: that of the cut points, here and below, where ratings are grades.
    """
    predicted = predicted.detach()
    if config.loss in DRAWN:
        error = _lacks(in_lists(predicted, config), in_lists(values, config), config)
    else:
        error = mean_of(predicted, config, module).detach() - (1 if config.loss == "all_pairs" else values)
    # float64 sums, as in the hand-written version: an RMSE over 10⁸ ratings needs more than 24 bits.
    return (error.double() ** 2).sum()


def mean_of(
    predicted: Float[Tensor, " B"], config: Config, module: MatrixFactorization | None = None
) -> Float[Tensor, " B"]:
    """The rating to expect where r̂ is predicted (Eq. 44, 54); the twin of `mf_numpy.losses.mean_of`."""
    if module is not None and module.t is not None:
        return grades.expected(predicted, module)
    if config.loss == "logistic":
        return torch.sigmoid(predicted)  # Eq. 44
    return torch.exp(predicted) if config.loss == "poisson" else predicted  # Eq. 44


def loss(
    predicted: Float[Tensor, " pairs"],
    values: Float[Tensor, " pairs"],
    config: Config,
    module: MatrixFactorization | None = None,
) -> Float[Tensor, " B"]:
    """ℓ of each rating (Eq. 2, 17, 42, 43, 46, 55) or list (Eq. 48, 49, 53); its derivatives are autograd's to find."""
    if module is not None and module.t is not None:
        return grades.loss(predicted, values, module)
    if config.loss == "bpr":
        scores = in_lists(predicted, config)
        return -F.logsigmoid(scores[:, :1] - scores[:, 1:]).mean(dim=1)  # Eq. 48
    if config.loss == "softmax":
        z = in_lists(predicted - values, config)
        return torch.logsumexp(z, dim=1) - z[:, 0]  # Eq. 49
    if config.loss == "warp":
        scores, worths = in_lists(predicted, config), in_lists(values, config)
        return (found(scores) * worths[:, 1:] * (1 + scores[:, 1:] - scores[:, :1])).sum(dim=1)  # Eq. 53
    if config.loss == "all_pairs":
        return config.loss_scale * values * (predicted - 1) ** 2 + 1 - 2 * predicted  # Eq. 46
    if config.loss == "logistic":
        return -F.logsigmoid((2 * values - 1) * predicted)  # Eq. 42
    if config.loss == "poisson":
        return torch.exp(predicted) - values * predicted  # Eq. 43
    error = predicted - values
    if config.loss == "squared":
        return error**2
    delta = config.loss_scale
    return 2 * error**2 / (1 + torch.sqrt(1 + (error / delta) ** 2))  # Eq. 17


def _scores(module: MatrixFactorization, batch: Batch) -> Tensor:
    """r̂ of lists (Eq. 1) without μ and b_u, which are in all scores of a list and cancel."""
    dot = (F.embedding(batch.users, module.P) * F.embedding(batch.items, module.Q)).sum(dim=1)
    return dot if module.c is None else dot + module.c[batch.items]


def in_lists(numbers: Tensor, config: Config) -> Tensor:
    """Numbers of the pairs of B lists as (B, 1 + S); the twin of `mf_numpy.list_losses.in_lists`."""
    return numbers.reshape(-1, 1 + config.n_negatives)


def found(scores: Float[Tensor, "B width"]) -> Bool[Tensor, "B drawn"]:
    """The first drawn item that is too near (Eq. 51), cut off from the graph; the twin of that by hand."""
    wide = scores.detach().double()
    near = wide[:, 1:] > wide[:, :1] - 1  # Eq. 51
    return near & (near.cumsum(dim=1) == 1)  # Eq. 51


def _lacks(scores: Tensor, offsets: Tensor, config: Config) -> Tensor:
    """What the chosen item's probability lacks to 1, or with ``warp`` whether an item is too near; (B,)."""
    if config.loss == "warp":
        return found(scores).any(dim=1)
    if config.loss == "bpr":
        return torch.sigmoid(scores[:, 1:] - scores[:, :1]).mean(dim=1)
    return torch.softmax(scores - offsets, dim=1)[:, 1:].sum(dim=1)


def background(module: MatrixFactorization) -> Float[Tensor, ""]:
    """Σ r̂² over all m·n pairs: ⟨PᵀP, QᵀQ⟩ (Eq. 46); the twin of `mf_numpy.objective.background`."""
    return ((module.P.T @ module.P) * (module.Q.T @ module.Q)).sum()  # Eq. 46


def penalty(module: MatrixFactorization, batch: Batch, config: Config) -> Float[Tensor, ""]:
    """λ Σ_u w_u(|p_u|² + b_u²) + λ Σ_i w_i(|q_i|² + c_i²), the second half of Eq. 2."""
    norms_u, norms_i = (module.P**2).sum(dim=1), (module.Q**2).sum(dim=1)
    if module.b is not None and module.c is not None:
        norms_u, norms_i = norms_u + module.b**2, norms_i + module.c**2
    if config.penalty == "total":
        return config.reg * (norms_u.sum() + norms_i.sum())
    w_u, w_i = batch.shares(norms_u.dtype)  # Eq. 8
    return config.reg * (torch.dot(w_u, norms_u) + torch.dot(w_i, norms_i))
