"""Eq. 2: what is minimised, the mean loss plus the penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Inexact

from mf_numpy import losses
from mf_numpy.batch import Batch, Counted
from mf_numpy.config import Config
from mf_numpy.model import Params, Tensors, predict
from mf_numpy.ratings import Array


def penalty_weights(batch: Counted, config: Config) -> tuple[Inexact[np.ndarray, " m"], Inexact[np.ndarray, " n"]]:
    """w_u (m,) and w_i (n,) of Eq. 2: all 1, or n_u/N and n_i/N (Eq. 8)."""
    m, n = batch.shape
    if config.penalty == "total":
        return np.ones(m, batch.values.dtype), np.ones(n, batch.values.dtype)
    share = 1.0 / len(batch)
    w_u, w_i = batch.user_counts * share, batch.item_counts * share  # Eq. 8
    return w_u.astype(batch.values.dtype), w_i.astype(batch.values.dtype)


def penalty(params: Params, batch: Batch, config: Config) -> Any:
    """λ Σ_u w_u(|p_u|² + b_u²) + λ Σ_i w_i(|q_i|² + c_i²), the second half of Eq. 2."""
    return config.reg * norms(params, *penalty_weights(batch, config))


def norms(params: Params, w_u: Array, w_i: Array) -> Any:
    """Σ_u w_u(|p_u|² + b_u²) + Σ_i w_i(|q_i|² + c_i²), for weights (m,) and (n,)."""
    out = total((params.P**2).sum(axis=1) * w_u) + total((params.Q**2).sum(axis=1) * w_i)
    if params.b is not None and params.c is not None:
        out += total(params.b**2 * w_u) + total(params.c**2 * w_i)
    return out


def objective(params: Params, batch: Batch, config: Config) -> Any:
    """J (Eq. 2) over the batch: a float, or complex for complex parameters, which a complex step differentiates."""
    loss = losses.value(predict(params, batch.users, batch.items), batch.values, config, params.cuts)
    data = total(loss) + background(params, config)
    return data / len(batch) + penalty(params, batch, config)  # Eq. 2


def background(params: Params, config: Config) -> Any:
    """Σ r̂² over all m·n pairs where the loss has it, else 0: ⟨PᵀP, QᵀQ⟩ (Eq. 46), with nothing of their number."""
    if config.loss != "all_pairs":
        return 0.0
    return total((params.P.T @ params.P) * (params.Q.T @ params.Q))  # Eq. 46


def background_pull(params: Params, config: Config) -> Tensors:
    """Its gradient: 2 P QᵀQ (m, K) and 2 Q PᵀP (n, K) (Eq. 47), or nothing."""
    if config.loss != "all_pairs":
        return {}
    p, q = params.P, params.Q
    return {"P": 2 * p @ (q.T @ q), "Q": 2 * q @ (p.T @ p)}  # Eq. 47


def total(values: Array) -> Any:
    """The sum of an array, accumulated in float64 (or complex128) whatever the dtype: a float or a complex number."""
    wide = np.complex128 if np.iscomplexobj(values) else np.float64
    return values.sum(dtype=wide).item()


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one pass over a batch gives.

    Attributes:
        objective: J of Eq. 2 over the batch.
        squared_error: Σ (E[r] - r)² over the batch whatever the loss (Eq. 44), so that an RMSE can be summed over
            batches.
        gradient: ∂J by parameter name, each in its parameter's shape.
    """

    objective: float
    squared_error: float
    gradient: Tensors
