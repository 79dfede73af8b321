"""Numba twins of `gradients` and `optim`: one fused, parallel pass over the ratings.

Bits do not depend on the number of threads: the work is cut into chunks by the data alone, each chunk
adds in a fixed order, and partial sums are reduced in a fixed order. Losses add up in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba import prange

from mf_numpy import losses
from mf_numpy.batch import Batch
from mf_numpy.config import Config
from mf_numpy.model import Params, Tensors, check_range
from mf_numpy.objective import Evaluation, penalty_weights
from mf_numpy.ratings import Array

# Sums may be reassociated so that LLVM can vectorise them; infinities and NaN keep their meaning.
_FAST = {"reassoc", "contract", "nsz"}


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = numba.njit(function, parallel=True, cache=True, fastmath=_FAST, nogil=True)
    return compiled


@numba.njit(inline="always")
def _loss_and_residual(error, squared, delta):  # type: ignore[no-untyped-def]
    """ℓ (Eq. 2) in float64 and E (Eq. 3) in the precision of `error`."""
    if squared:
        return np.float64(error) * np.float64(error), error + error  # Eq. 3
    z = error / delta
    root = np.sqrt(z * z + type(z)(1))
    return 2 * np.float64(error) * np.float64(error) / (1 + np.float64(root)), (error + error) / root  # Eq. 17


@_jit
def _predict_kernel(P, Q, b, c, mu, biased, users, items, out):  # type: ignore[no-untyped-def]
    for k in prange(len(out)):
        p, q = P[users[k]], Q[items[k]]
        dot = mu
        if biased:
            dot += b[users[k]] + c[items[k]]
        for f in range(len(p)):
            dot += p[f] * q[f]  # Eq. 1
        out[k] = dot


@_jit
def _rows_kernel(  # type: ignore[no-untyped-def]
    indptr, items, values, bounds, P, Q, b, c, mu, biased, squared, delta, dP, db, dQ_parts, dc_parts, losses, squares
):
    """Σ over each chunk of users of E Q, Eᵀ P, E 1, Eᵀ 1 and ℓ (Eq. 2 to 4), unscaled."""
    K = P.shape[1]
    for chunk in prange(len(losses)):
        dQ, dc = dQ_parts[chunk], dc_parts[chunk]
        dQ[:] = 0
        dc[:] = 0
        loss = square = 0.0
        for u in range(bounds[chunk], bounds[chunk + 1]):
            p, dp = P[u], dP[u]
            dp[:] = 0
            d_b = mu - mu
            base = mu
            if biased:
                base += b[u]
            for k in range(indptr[u], indptr[u + 1]):
                i = items[k]
                q, dq = Q[i], dQ[i]
                error = base - values[k]
                if biased:
                    error += c[i]
                for f in range(K):
                    error += p[f] * q[f]  # Eq. 1
                square += np.float64(error) * np.float64(error)
                cost, e = _loss_and_residual(error, squared, delta)  # Eq. 2, Eq. 3
                loss += cost
                for f in range(K):
                    dp[f] += e * q[f]  # Eq. 4
                for f in range(K):
                    dq[f] += e * p[f]  # Eq. 4
                d_b += e
                dc[i] += e
            if biased:
                db[u] = d_b
        losses[chunk], squares[chunk] = loss, square


@_jit
def _add_parts_kernel(parts, out):  # type: ignore[no-untyped-def]
    """out = Σ parts, chunk 0 first: a fixed order for every row."""
    for row in prange(out.shape[0]):
        out[row] = parts[0, row]
        for chunk in range(1, parts.shape[0]):
            out[row] += parts[chunk, row]


@_jit
def _pairs_kernel(users, items, e, P, Q, dP, dQ, db, dc, biased):  # type: ignore[no-untyped-def]
    """The same sums over unsorted pairs: one thread a side, each adding in the batch's order."""
    K = P.shape[1]
    for side in prange(2):
        rows, others = (users, items) if side == 0 else (items, users)
        theta, grad = (Q, dP) if side == 0 else (P, dQ)
        bias = db if side == 0 else dc
        grad[:] = 0
        bias[:] = 0
        for k in range(len(rows)):
            row, other = rows[k], others[k]
            for f in range(K):
                grad[row, f] += e[k] * theta[other, f]  # Eq. 4
            if biased:
                bias[row] += e[k]


@_jit
def _finish_kernel(grad, theta, weights, share, twice_reg, norms):  # type: ignore[no-untyped-def]
    """∇ = share · sums + 2λ w θ (Eq. 4) in place; norms[row] = w |θ_row|² (Eq. 2)."""
    for row in prange(theta.shape[0]):
        pull = twice_reg * weights[row]
        norm = 0.0
        for f in range(theta.shape[1]):
            norm += np.float64(theta[row, f]) * np.float64(theta[row, f])
            grad[row, f] = share * grad[row, f] + pull * theta[row, f]
        norms[row] = norm * np.float64(weights[row])


@_jit
def _momentum_kernel(theta, v, g, lr, beta, kept, ahead, first):  # type: ignore[no-untyped-def]
    """v ← βv + kept·g, then θ ← θ - η v, or θ - η(g + βv) when `ahead` (Eq. 12, 13, 14); in place."""
    for row in prange(theta.shape[0]):
        for f in range(theta.shape[1]):
            if first:
                v[row, f] = g[row, f]
            else:
                v[row, f] = beta * v[row, f] + kept * g[row, f]
            if ahead:
                theta[row, f] -= lr * (g[row, f] + beta * v[row, f])
            else:
                theta[row, f] -= lr * v[row, f]


@dataclass(frozen=True, eq=False)
class Workspace:
    """Arrays that every iteration reuses; bounds and parts are set by the data, not by the threads."""

    bounds: Array
    gradient: Tensors
    parts_q: Array
    parts_c: Array
    losses: Array
    squares: Array
    norms: Tensors


def workspace(params: Params, batch: Batch) -> Workspace:
    """Room for `gradient` over batches of this shape: parameters' size twice, and item sums per chunk."""
    m, n, n_factors = params.shape
    dtype = params.P.dtype
    # Item sums of all chunks together stay within the size of the ratings (16 bytes each), 2 to 64 chunks.
    room = 16 * len(batch) // max(1, n * (n_factors + 1) * dtype.itemsize)
    n_chunks = int(min(64, max(2, room), max(2, m))) if batch.indptr is not None else 1
    bounds = np.zeros(n_chunks + 1, np.int64)
    if batch.indptr is not None:
        goals = np.arange(1, n_chunks) * len(batch) // n_chunks
        bounds[1:-1] = np.searchsorted(batch.indptr, goals)
        bounds[-1] = m
    sizes = {name: theta.shape for name, theta in params.tensors().items()}
    grads = {name: np.empty(shape, dtype) for name, shape in sizes.items()}
    norms = {name: np.empty(shape[0]) for name, shape in sizes.items()}
    parts = (n_chunks, n, n_factors) if batch.indptr is not None else (0, 0, n_factors)
    sums = np.empty(n_chunks), np.empty(n_chunks)
    return Workspace(bounds, grads, np.empty(parts, dtype), np.empty(parts[:2], dtype), *sums, norms)


def predict(params: Params, users: Array, items: Array) -> Array:
    """Eq. 1 for (B,) pairs in parallel; the twin of `mf_numpy.model.predict`, same errors."""
    m, n, _ = params.shape
    check_range("users", users, m)
    check_range("items", items, n)
    out = np.empty(len(users), params.P.dtype)
    b, c, biased = _biases(params)
    _predict_kernel(params.P, params.Q, b, c, params.P.dtype.type(params.mu), biased, users, items, out)
    return out


def gradient(params: Params, batch: Batch, config: Config, room: Workspace | None = None) -> Evaluation:
    """J and ∇J over the batch (Eq. 2 to 4); the twin of `mf_numpy.gradients.gradient`.

    The gradient arrays belong to `room` and are overwritten by the next call that is given it.
    """
    room = workspace(params, batch) if room is None else room
    b, c, biased = _biases(params)
    dtype = params.P.dtype
    mu = dtype.type(params.mu)
    grads = room.gradient
    d_b, d_c = grads.get("b", np.empty(0, dtype)), grads.get("c", np.empty(0, dtype))
    if batch.indptr is not None:
        _rows_kernel(
            batch.indptr, batch.items, batch.values, room.bounds, params.P, params.Q, b, c, mu, biased,
            config.loss == "squared", dtype.type(config.loss_scale),
            grads["P"], d_b, room.parts_q, room.parts_c, room.losses, room.squares,
        )  # fmt: skip
        _add_parts_kernel(room.parts_q, grads["Q"])
        if biased:
            _add_parts_kernel(room.parts_c[:, :, None], d_c[:, None])
        loss, squared_error = float(room.losses.sum()), float(room.squares.sum())
    else:
        predicted = predict(params, batch.users, batch.items)
        loss = float(losses.value(predicted, batch.values, config).sum(dtype=np.float64))
        squared_error = float(((predicted - batch.values) ** 2).sum(dtype=np.float64))
        e = losses.residual(predicted, batch.values, config)
        _pairs_kernel(batch.users, batch.items, e, params.P, params.Q, grads["P"], grads["Q"], d_b, d_c, biased)
    w_u, w_i = penalty_weights(batch, config)
    norms = 0.0
    for name, theta in params.tensors().items():
        weights = w_u if name in ("P", "b") else w_i
        share, pull = dtype.type(1 / len(batch)), dtype.type(2 * config.reg)
        _finish_kernel(_rows(grads[name]), _rows(theta), weights, share, pull, room.norms[name])
        norms += float(room.norms[name].sum())
    return Evaluation(loss / len(batch) + config.reg * norms, squared_error, grads)


def update(tensors: Tensors, old: Tensors | None, grads: Tensors, lr: float, config: Config) -> Tensors | None:
    """`mf_numpy.optim.update` in place: parameters and velocities are overwritten; returns the velocities."""
    beta = config.momentum
    kept = 1 - beta if config.momentum_form == "ema" else 1.0
    ahead = config.momentum_form == "nesterov"
    new = {name: np.empty_like(theta) for name, theta in tensors.items()} if old is None else old
    for name, theta in tensors.items():
        as_type = theta.dtype.type
        _momentum_kernel(
            _rows(theta), _rows(new[name]), _rows(grads[name]),
            as_type(lr), as_type(beta), as_type(kept), ahead, old is None,
        )  # fmt: skip
    return new if beta else None


def _biases(params: Params) -> tuple[Array, Array, bool]:
    if params.b is None or params.c is None:
        return np.empty(0, params.P.dtype), np.empty(0, params.P.dtype), False
    return params.b, params.c, True


def _rows(array: Array) -> Array:
    """A two-dimensional view: a bias vector is a table of one column."""
    return array if array.ndim == 2 else array[:, None]
