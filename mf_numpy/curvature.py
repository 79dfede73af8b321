"""Second derivatives of the objective: the Hessian along a direction, its blocks, and the largest learning rate.

Shapes: a row of the user side is θ_u = p_u (K,) in the plain model and (p_u, b_u) (K + 1,) in the biased one; D is
that length. Likewise (q_i, c_i).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from mf_numpy import grades, losses
from mf_numpy.batch import Batch
from mf_numpy.config import DRAWN, Config
from mf_numpy.errors import ConfigError, choose
from mf_numpy.model import Params, Tensors, check_range, predict
from mf_numpy.objective import penalty_weights
from mf_numpy.ratings import Array

Side = Literal["user", "item"]


def hessian_vector(params: Params, direction: Tensors, batch: Batch, config: Config) -> Tensors:
    """∇²J d, the change of the gradient along a direction, in the parameters' shapes (Eq. 18).

    Costs two gradients and holds nothing larger than one. `direction` has the names and shapes of the parameters.
    """
    u, i = batch.users, batch.items
    d_p, d_q = direction["P"], direction["Q"]
    change = (d_p[u] * params.Q[i]).sum(axis=1) + (params.P[u] * d_q[i]).sum(axis=1)
    if params.b is not None:
        change = change + direction["b"][u] + direction["c"][i]
    predicted = predict(params, u, i)
    e = batch.sparse(losses.residual(predicted, batch.values, config, params.cuts))
    # A second matrix of its own: `sparse` may hand out one pattern again and again.
    e = e.copy()
    if params.cuts is None:
        d_e = batch.sparse(losses.change(predicted, batch.values, change, config))
    else:
        of_e, of_t = grades.change(predicted, batch.values, change, direction["t"], params.cuts)
        d_e = batch.sparse(of_e)

    share, reg = 1 / len(batch), 2 * config.reg
    w_u, w_i = penalty_weights(batch, config)
    out: Tensors = {
        "P": (d_e @ params.Q + e @ d_q) * share + (reg * w_u)[:, None] * d_p,  # Eq. 18
        "Q": (d_e.T @ params.P + e.T @ d_p) * share + (reg * w_i)[:, None] * d_q,  # Eq. 18
    }
    if params.b is not None:
        out["b"] = d_e.sum(axis=1) * share + reg * w_u * direction["b"]  # Eq. 18
        out["c"] = d_e.sum(axis=0) * share + reg * w_i * direction["c"]  # Eq. 18
    if params.cuts is not None:
        out["t"] = of_t * share
    if config.loss == "all_pairs":
        p, q = params.P, params.Q
        out["P"] += 2 * share * (d_p @ (q.T @ q) + p @ (d_q.T @ q + q.T @ d_q))
        out["Q"] += 2 * share * (d_q @ (p.T @ p) + q @ (d_p.T @ p + p.T @ d_p))
    return out


def row_block(params: Params, side: Side, row: int, batch: Batch, config: Config) -> Array:
    """∂²J/∂θ_u², the (D, D) block of one user, or of one item (Eq. 19): symmetric, positive definite for λ > 0.

    Raises:
        ConfigError: a `side` that is neither ``user`` nor ``item``, or a loss of lists.
        IndexError: a `row` that the side does not have.
    """
    _of_pairs(config)
    at, others, _ = _ratings_of(params, side, row, batch)
    w = penalty_weights(batch, config)[0 if side == "user" else 1][row]
    bend = losses.curvature(predict(params, batch.users[at], batch.items[at]), batch.values[at], config, params.cuts)
    block: Array = (others.T * bend) @ others / len(batch)
    if config.loss == "all_pairs":
        partners = params.Q if side == "user" else params.P
        block += 2 * (partners.T @ partners) / len(batch)  # Eq. 47
    block += 2 * config.reg * w * np.eye(others.shape[1])  # Eq. 19
    return block


def cross_block(params: Params, user: int, item: int, batch: Batch, config: Config) -> Array:
    """∂²J/∂θ_u∂θ_i, (D, D) with the user's coordinates as rows (Eq. 20); 0 where the pair does not count.

    Raises:
        ConfigError: a loss of lists.
        IndexError: a user or an item that there is none of.
    """
    _of_pairs(config)
    check_range("user", [user], batch.shape[0])
    check_range("item", [item], batch.shape[1])
    at = (batch.users == user) & (batch.items == item)
    predicted = predict(params, batch.users[at], batch.items[at])
    e = losses.residual(predicted, batch.values[at], config, params.cuts).sum()
    bend = losses.curvature(predicted, batch.values[at], config, params.cuts).sum()
    p, q = extended(params, "user")[user], extended(params, "item")[item]
    if config.loss == "all_pairs":
        e, bend = e + 2 * (p @ q), bend + 2  # Eq. 46: of r̂², which every pair has
    # p·q alone is bilinear: the two biases do not multiply each other.
    meets = np.eye(len(p))
    meets[params.shape[2] :] = 0
    out: Array = (bend * np.outer(q, p) + e * meets) / len(batch)  # Eq. 20
    return out


def row_minimiser(params: Params, side: Side, row: int, batch: Batch, config: Config) -> Array:
    """θ_u (D,) that minimises J with everything else fixed, for the squared loss (Eq. 26): ridge regression.

    A row without ratings gets zeros, or, where it has no penalty either, what it has now. With ``all_pairs`` every
    partner counts, each as sure as it is, and all of them are looked at (Eq. 45).

    Raises:
        ConfigError, IndexError: as `row_block`.
    """
    at, others, fixed = _ratings_of(params, side, row, batch)
    w = penalty_weights(batch, config)[0 if side == "user" else 1][row]
    ridge = len(batch) * config.reg * w
    if config.loss == "all_pairs":
        rows, partners = (batch.items, params.Q) if side == "user" else (batch.users, params.P)
        sure, chosen = np.ones(len(partners)), np.zeros(len(partners))
        sure[rows[at]] += config.loss_scale * batch.values[at]
        chosen[rows[at]] = 1
        matrix = (partners.T * sure) @ partners + ridge * np.eye(partners.shape[1])
        every: Array = np.linalg.lstsq(matrix, partners.T @ (sure * chosen))[0]
        return every
    if not len(at) and not ridge:
        here: Array = extended(params, side, own=True)[row]
        return here
    normal = others.T @ others + ridge * np.eye(others.shape[1])
    out: Array = np.linalg.lstsq(normal, others.T @ (batch.values[at] - fixed))[0]  # Eq. 26
    return out


def largest_curvature(params: Params, batch: Batch, config: Config) -> float:
    """L, the largest eigenvalue of ∇²J at `params`, by Lanczos iteration on Eq. 18."""
    # Slow to import, and needed here alone.
    from scipy.sparse.linalg import LinearOperator, eigsh

    shapes = {name: theta.shape for name, theta in params.tensors().items()}
    size = sum(theta.size for theta in params.tensors().values())

    def times(flat: Array) -> Array:
        return _flatten(hessian_vector(params, _unflatten(flat, shapes), batch, config))

    hessian = LinearOperator((size, size), matvec=times, dtype=np.float64)
    # A fixed start, so that two calls give one answer.
    begin = np.random.default_rng(0).normal(size=size)
    return float(eigsh(hessian, k=1, which="LA", v0=begin, return_eigenvectors=False)[0])


def max_lr(curvature: float, config: Config) -> float:
    """The η at which the steps begin to grow along a direction of second derivative L = `curvature` (Eq. 21).

    Gradient descent 2/L; heavy ball 2(1+β)/L; ema, whose steps are 1-β as long, 2(1+β)/((1-β)L); Nesterov
    2(1+β)/((1+2β)L).
    """
    beta = config.momentum
    bound = 2 * (1 + beta) / curvature  # Eq. 21
    if config.momentum_form == "ema":
        return bound / (1 - beta)
    return bound / (1 + 2 * beta) if config.momentum_form == "nesterov" else bound


def _of_pairs(config: Config) -> None:
    if config.loss in DRAWN:
        raise ConfigError(f"loss is {config.loss!r}, of which this block is not known; use `hessian_vector`")


def _ratings_of(params: Params, side: Side, row: int, batch: Batch) -> tuple[Array, Array, Array]:
    """Where the row's ratings are, the other side's coordinates there (n, D), and the part of r̂ that is fixed."""
    choose("side", side, get_args(Side))
    rows, others = (batch.users, batch.items) if side == "user" else (batch.items, batch.users)
    check_range(side, [row], batch.shape[0 if side == "user" else 1])
    at = np.flatnonzero(rows == row)
    theta = extended(params, "item" if side == "user" else "user")[others[at]]
    bias = params.c if side == "user" else params.b
    fixed = params.mu + (bias[others[at]] if bias is not None else np.zeros(len(at)))
    return at, theta, fixed


def extended(params: Params, side: Side, own: bool = False) -> Array:
    """The side's factors, with a column more in the biased model: 1, which the other side's bias meets, or its own."""
    factors, bias = (params.P, params.b) if side == "user" else (params.Q, params.c)
    if bias is None:
        return factors
    column = bias[:, None] if own else np.ones((len(factors), 1), factors.dtype)
    return np.concatenate([factors, column], axis=1)


def _flatten(tensors: Tensors) -> Array:
    return np.concatenate([theta.ravel() for theta in tensors.values()])


def _unflatten(flat: Array, shapes: dict[str, tuple[int, ...]]) -> Tensors:
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    parts = np.split(flat, ends[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
