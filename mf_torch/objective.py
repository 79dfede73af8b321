"""Eq. 2 in torch operations, for autograd to differentiate; the twin of `mf_numpy.objective`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mf_numpy.config import Config
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
    predicted = module(batch.users, batch.items) if predicted is None else predicted
    error = predicted - batch.values
    data_term = loss(error, config).mean()  # Eq. 2
    # float64 sums, as in the hand-written version: an RMSE over 10⁸ ratings needs more than 24 bits.
    squared_error = (error.detach().double() ** 2).sum()
    return Objective(data_term + penalty(module, batch, config), squared_error)


def loss(error: Float[Tensor, " B"], config: Config) -> Float[Tensor, " B"]:
    """ℓ of each error r̂ - r in rating units (Eq. 2, 17); its derivatives are autograd's to find."""
    if config.loss == "squared":
        return error**2
    delta = config.loss_scale
    return 2 * error**2 / (1 + torch.sqrt(1 + (error / delta) ** 2))  # Eq. 17


def penalty(module: MatrixFactorization, batch: Batch, config: Config) -> Float[Tensor, ""]:
    """λ Σ_u w_u(|p_u|² + b_u²) + λ Σ_i w_i(|q_i|² + c_i²), the second half of Eq. 2."""
    norms_u, norms_i = (module.P**2).sum(dim=1), (module.Q**2).sum(dim=1)
    if module.b is not None and module.c is not None:
        norms_u, norms_i = norms_u + module.b**2, norms_i + module.c**2
    if config.penalty == "total":
        return config.reg * (norms_u.sum() + norms_i.sum())
    w_u, w_i = batch.shares(norms_u.dtype)  # Eq. 8
    return config.reg * (torch.dot(w_u, norms_u) + torch.dot(w_i, norms_i))
