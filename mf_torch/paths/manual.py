"""Eq. 6 by hand in torch operations, with no graph; the twin of `mf_numpy.gradients`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mf_numpy.config import Config
from mf_torch import grades
from mf_torch.batch import Batch
from mf_torch.model import MatrixFactorization
from mf_torch.objective import Objective
from mf_torch.paths.base import Path
from mf_torch.paths.layout import SparseBatch, compress

_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Numbers that are widened to float64 together: what stays in a CPU's cache, and what a GPU wants to be busy."""


class Manual(Path):
    """∇J as derived: fewer passes over the ratings than a graph takes, and no more memory than E twice."""

    name = "manual"
    capturable = True

    def lay_out(self, batch: Batch, config: Config) -> Batch:
        return compress(batch)

    @torch.no_grad()
    def _differentiate(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        assert isinstance(batch, SparseBatch)
        predicted = batch.predicted(module.P, module.Q, module.b, module.c)
        predicted += module.mu.to(predicted.dtype)  # Eq. 1
        if module.t is None:
            loss, e, squared_error = loss_and_residual(predicted, batch.values, config)
        else:
            loss, e, squared_error, of_t = grades.by_hand(predicted, batch.values, module)
            module.t.grad = of_t / len(batch)  # Eq. 58

        e_q, et_p, e_1, et_1 = batch.pulled(e, module.P, module.Q)  # Eq. 4
        share, reg = 1 / len(batch), 2 * config.reg
        w_u, w_i = penalty_weights(module, batch, config)
        module.P.grad = e_q * share + (reg * w_u)[:, None] * module.P  # Eq. 6
        module.Q.grad = et_p * share + (reg * w_i)[:, None] * module.Q  # Eq. 6
        if module.b is not None and module.c is not None:
            module.b.grad = e_1 * share + reg * w_u * module.b  # Eq. 6
            module.c.grad = et_1 * share + reg * w_i * module.c  # Eq. 6
        if config.loss == "all_pairs":
            of_p, of_q = module.Q.T @ module.Q, module.P.T @ module.P
            module.P.grad += 2 * share * (module.P @ of_p)  # Eq. 47
            module.Q.grad += 2 * share * (module.Q @ of_q)  # Eq. 47
            loss = loss + (of_p * of_q).sum(dtype=torch.float64)  # Eq. 46
        return Objective(loss * share + penalty(module, w_u, w_i, config), squared_error)


def loss_and_residual(predicted: Tensor, values: Tensor, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Σ ℓ (Eq. 2) in float64, E (Eq. 3) and Σ (E[r] - r)² in float64 of predictions (B,), which are used up."""
    if config.loss == "logistic":
        sign = 1 - 2 * values
        away = sign * predicted
        loss, e = -F.logsigmoid(-away), sign * torch.sigmoid(away)  # Eq. 42
        return loss.sum(dtype=torch.float64), e, sum_of_squares(e)
    if config.loss == "all_pairs":
        sure, miss = config.loss_scale * values, predicted - 1
        loss, e = sure * miss**2 + 1 - 2 * predicted, 2 * sure * miss - 2  # Eq. 46
        return loss.sum(dtype=torch.float64), e, sum_of_squares(miss)
    if config.loss == "poisson":
        rate = torch.exp(predicted)
        loss, e = rate - values * predicted, rate - values  # Eq. 43
        return loss.sum(dtype=torch.float64), e, sum_of_squares(e)
    error = predicted.sub_(values)
    squared_error = sum_of_squares(error)
    if config.loss == "squared":
        return squared_error, error.mul_(2), squared_error  # Eq. 3
    root = torch.sqrt(1 + (error / config.loss_scale) ** 2)
    loss = 2 * error**2 / (1 + root)  # Eq. 17
    return loss.sum(dtype=torch.float64), error.mul_(2).div_(root), squared_error  # Eq. 17


def penalty_weights(module: MatrixFactorization, batch: Batch, config: Config) -> tuple[Tensor, Tensor]:
    """w_u (m,) and w_i (n,) of Eq. 2: all 1, or n_u/B and n_i/B (Eq. 8)."""
    if config.penalty == "total":
        return module.P.new_ones(len(module.P)), module.Q.new_ones(len(module.Q))
    return batch.shares(module.P.dtype)  # Eq. 8


def penalty(module: MatrixFactorization, w_u: Tensor, w_i: Tensor, config: Config) -> Tensor:
    """λ Σ_u w_u(|p_u|² + b_u²) + λ Σ_i w_i(|q_i|² + c_i²), the second half of Eq. 2, in float64."""
    norms = _weighted(w_u, module.P) + _weighted(w_i, module.Q)
    if module.b is not None and module.c is not None:
        norms += _weighted(w_u, module.b[:, None]) + _weighted(w_i, module.c[:, None])
    return config.reg * norms


def _weighted(weights: Tensor, table: Tensor) -> Tensor:
    return ((table**2).sum(dim=1) * weights).sum(dtype=torch.float64)


def sum_of_squares(x: Tensor) -> Tensor:
    """Σ x² of a vector in float64, widened piece by piece."""
    pieces = torch.split(x, _AT_ONCE[x.device.type])
    return torch.stack([_square(piece.double()) for piece in pieces]).sum()


def _square(x: Tensor) -> Tensor:
    return (x * x).sum()
