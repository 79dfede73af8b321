"""Eq. 2 to 4 in one parallel pass over the ratings: the twin of `mf_numpy.gradients`.

Bits do not depend on the number of threads: the work is cut into chunks by the data alone, each chunk
adds in a fixed order, and partial sums are reduced in a fixed order. Losses add up in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba import prange

from mf_numpy import grades, losses
from mf_numpy.batch import Batch
from mf_numpy.config import DRAWN, Config
from mf_numpy.kernels import grades as cutting
from mf_numpy.kernels.compiling import jit, per_form
from mf_numpy.kernels.layout import Blocks, blocks, items_per_block
from mf_numpy.kernels.model import biases, predict
from mf_numpy.kernels.vector import add, aligned_empty, dot, form, load, store
from mf_numpy.model import Params, Tensors
from mf_numpy.objective import Evaluation, background, background_pull, penalty_weights
from mf_numpy.ratings import Array

SQUARED, PSEUDO_HUBER, ALL_PAIRS, LOGISTIC, POISSON, ORDINAL = range(6)
"""The losses as kernels know them: numbers that are given to them, so that one kernel serves all."""

_KINDS = {
    "squared": SQUARED,
    "pseudo_huber": PSEUDO_HUBER,
    "all_pairs": ALL_PAIRS,
    "logistic": LOGISTIC,
    "poisson": POISSON,
    "ordinal": ORDINAL,
}


def loss_kind(config: Config) -> int:
    """The number of the configured loss."""
    return _KINDS[config.loss]


@numba.njit
def _of_choices(predicted, value, kind, delta):  # type: ignore[no-untyped-def]
    """`loss_and_residual` of the losses that are not of grades, which keep their scalars out of the others' loop."""
    one = type(predicted)(1)
    if kind == ALL_PAIRS:
        miss, sure = predicted - one, delta * value
        cost = np.float64(sure) * np.float64(miss) * np.float64(miss) + 1 - 2 * np.float64(predicted)  # Eq. 46
        return cost, sure * (miss + miss) - (one + one)  # Eq. 46
    if kind == LOGISTIC:
        sign = one - value - value
        away = sign * predicted
        small = np.exp(-abs(away))
        share = (one if away > 0 else small) / (one + small)
        return np.float64(max(away, away - away)) + np.log1p(np.float64(small)), sign * share  # Eq. 42
    rate = np.exp(predicted)
    return np.float64(rate) - np.float64(value) * np.float64(predicted), rate - value  # Eq. 43


@numba.njit(inline="always")
def loss_and_residual(predicted, value, kind, delta):  # type: ignore[no-untyped-def]
    """ℓ (Eq. 2) in float64 and E (Eq. 3) in the precision of `predicted`."""
    if kind >= ALL_PAIRS:
        return _of_choices(predicted, value, kind, delta)
    error = predicted - value
    if kind == SQUARED:
        return np.float64(error) * np.float64(error), error + error  # Eq. 3
    z = error / delta
    root = np.sqrt(z * z + type(z)(1))
    return 2 * np.float64(error) * np.float64(error) / (1 + np.float64(root)), (error + error) / root  # Eq. 17


@numba.njit(inline="always")
def error_of_mean(predicted, value, e, kind):  # type: ignore[no-untyped-def]
    """E[r] - r (Eq. 44), given E."""
    if kind == ALL_PAIRS:
        return predicted - type(predicted)(1)
    return e if kind >= LOGISTIC else predicted - value


@per_form
def block_kernel(form: int, graded: int = 0) -> Any:
    """The kernel of one item block: Σ over each chunk of E Q, Eᵀ P, E 1, Eᵀ 1 and ℓ (Eq. 2 to 4), unscaled.

    Where it is `graded` by cut points, `of_grades` (chunks, 3, G) gets what belongs to them (Eq. 57).
    """

    @jit
    def kernel(  # type: ignore[no-untyped-def]
        seg_user, seg_length, bounds, first_rating, items, values, P, Q, b, c, mu, biased, kind, delta,
        dP, db, dQ_parts, dc_parts, losses, squares, grades, points, own, of_grades,
    ):  # fmt: skip
        for chunk in prange(len(losses)):
            dQ, dc = dQ_parts[chunk], dc_parts[chunk]
            dQ[: len(Q)] = 0
            dc[: len(Q)] = 0
            loss = square = 0.0
            # Unsigned places need no check for negative ones.
            k = np.uint64(first_rating[chunk])
            for segment in range(bounds[chunk], bounds[chunk + 1]):
                u = np.uint64(seg_user[segment])
                p, dp = load(P, u, form), load(dP, u, form)
                base, d_b = mu, mu - mu
                if biased:
                    base += b[u]
                for _ in range(seg_length[segment]):
                    i = items[k]
                    q = load(Q, i, form)
                    predicted = base + dot(p, q)  # Eq. 1
                    if biased:
                        predicted += c[i]
                    if graded:
                        cost, e, error = cutting.of_grade(predicted, values[k], grades, points, own, of_grades[chunk])
                    else:
                        cost, e = loss_and_residual(predicted, values[k], kind, delta)  # Eq. 2, Eq. 3
                        error = error_of_mean(predicted, values[k], e, kind)
                    loss += cost
                    square += np.float64(error) * np.float64(error)
                    dp = add(dp, e, q)  # Eq. 4
                    store(dQ, i, add(load(dQ, i, form), e, p))  # Eq. 4
                    d_b += e
                    dc[i] += e
                    k += np.uint64(1)
                store(dP, u, dp)
                if biased:
                    db[u] += d_b
            losses[chunk] = loss
            squares[chunk] = square

    return kernel


@jit
def _gather_kernel(table, rows, out):  # type: ignore[no-untyped-def]
    for row in prange(len(rows)):
        # Not out[row] = table[rows[row]], here and below: Numba would compile for seconds what checks the shapes.
        for f in range(table.shape[1]):
            out[row, f] = table[rows[row], f]


@jit
def _clear_kernel(table):  # type: ignore[no-untyped-def]
    for row in prange(len(table)):
        table[row] = 0


@jit
def _add_parts_kernel(parts, rows, out):  # type: ignore[no-untyped-def]
    """Row `rows[j]` of `out` = Σ of row j of the parts, chunk 0 first: a fixed order for every row."""
    for j in prange(len(rows)):
        total = out[rows[j]]
        for f in range(len(total)):
            total[f] = parts[0, j, f]
        for chunk in range(1, len(parts)):
            for f in range(len(total)):
                total[f] += parts[chunk, j, f]


@per_form
def pairs_kernel(form: int) -> Any:
    """The same sums over unsorted pairs: one thread a side, each adding in the batch's order."""

    @jit
    def kernel(users, items, e, P, Q, dP, dQ, db, dc, biased):  # type: ignore[no-untyped-def]
        for side in prange(2):
            rows, others = (users, items) if side == 0 else (items, users)
            theta, grad = (Q, dP) if side == 0 else (P, dQ)
            bias = db if side == 0 else dc
            grad[:] = 0
            bias[:] = 0
            for k in range(len(rows)):
                row = rows[k]
                store(grad, row, add(load(grad, row, form), e[k], load(theta, others[k], form)))  # Eq. 4
                if biased:
                    bias[row] += e[k]

    return kernel


@jit
def _finish_kernel(grad, theta, weights, share, twice_reg, norms):  # type: ignore[no-untyped-def]
    """∇ = share · sums + 2λ w θ (Eq. 4) in place; norms[row] = w |θ_row|² (Eq. 2)."""
    for row in prange(theta.shape[0]):
        pull = twice_reg * weights[row]
        norm = 0.0
        for f in range(theta.shape[1]):
            norm += np.float64(theta[row, f]) * np.float64(theta[row, f])
            grad[row, f] = share * grad[row, f] + pull * theta[row, f]
        norms[row] = norm * np.float64(weights[row])


@dataclass(frozen=True, eq=False)
class Workspace:
    """Arrays that every iteration reuses; what is cut where is set by the data, not by the threads.

    Attributes:
        gradient: one array a parameter.
        norms: (m,) and (n,) float64, w |θ|² of each row.
        blocks: the ratings as the kernel walks them; None for batches in no order.
        Q, c: (n, K) and (n,), the items' parameters in the order of popularity.
        parts_q, parts_c: (C, items per block, K) and (C, items per block), the sums of each chunk of a block.
        losses, squares: (B, C) float64, Σ ℓ and Σ (r̂ - r)² of each chunk.
    """

    gradient: Tensors
    norms: Tensors
    blocks: Blocks | None
    Q: Array
    c: Array
    parts_q: Array
    parts_c: Array
    losses: Array
    squares: Array


def workspace(params: Params, batch: Batch | Blocks, per_block: int | None = None) -> Workspace:
    """Room for `gradient` over batches of this shape.

    Args:
        batch: one that is sorted by user is laid out here, unless it comes so.
        per_block: items of a block, by default what `layout.items_per_block` says.
    """
    _, n, n_factors = params.shape
    dtype = params.P.dtype
    sizes = {name: theta.shape for name, theta in params.tensors().items()}
    grads = {name: aligned_empty(shape, dtype) for name, shape in sizes.items()}
    norms = {name: np.empty(shape[0]) for name, shape in sizes.items()}
    if isinstance(batch, Batch) and batch.indptr is None:
        none, nothing = np.empty((0, 0, n_factors), dtype), np.empty((0, 0))
        return Workspace(grads, norms, None, nothing, nothing.ravel(), none, nothing, nothing, nothing)
    laid = batch if isinstance(batch, Blocks) else blocks(batch, per_block or items_per_block(n))
    n_blocks, chunks = laid.first_rating.shape
    parts = aligned_empty((chunks, laid.items_per_block, n_factors), dtype)
    return Workspace(
        grads, norms, laid, aligned_empty((n, n_factors), dtype), np.empty(n, dtype),
        parts, aligned_empty(parts.shape[:2], dtype), np.empty((n_blocks, chunks)), np.empty((n_blocks, chunks)),
    )  # fmt: skip


def gradient(params: Params, batch: Batch | Blocks, config: Config, room: Workspace | None = None) -> Evaluation:
    """J and ∇J over the batch (Eq. 2 to 4); the twin of `mf_numpy.gradients.gradient`.

    The gradient arrays belong to `room` and are overwritten by the next call that is given it.
    """
    room = workspace(params, batch) if room is None else room
    if room.blocks is not None:
        loss, squared_error = _sums_of_blocks(params, room.blocks, config, room)
    else:
        assert isinstance(batch, Batch)
        loss, squared_error = _sums_of_pairs(params, batch, config, room.gradient)
    w_u, w_i = penalty_weights(batch, config)
    for name, pull in background_pull(params, config).items():
        room.gradient[name] += pull  # Eq. 47
    loss += background(params, config)
    as_type = params.P.dtype.type
    norms = 0.0
    for name, theta in params.tensors().items():
        if name == "t":
            room.gradient[name] /= len(batch)  # Eq. 58; no penalty
            continue
        weights = w_u if name in ("P", "b") else w_i
        share, pull = as_type(1 / len(batch)), as_type(2 * config.reg)
        _finish_kernel(columns(room.gradient[name]), columns(theta), weights, share, pull, room.norms[name])
        norms += float(room.norms[name].sum())
    return Evaluation(loss / len(batch) + config.reg * norms, squared_error, room.gradient)


def _sums_of_blocks(params: Params, laid: Blocks, config: Config, room: Workspace) -> tuple[float, float]:
    b, c, biased = biases(params)
    as_type = params.P.dtype.type
    grads = room.gradient
    d_b, d_c = grads.get("b", b), grads.get("c", c)
    _gather_kernel(params.Q, laid.item_of, room.Q)
    _clear_kernel(grads["P"])
    if biased:
        np.take(c, laid.item_of, out=room.c)
        d_b[:] = 0
    of_cuts = cutting.tables(params.cuts, params.P.dtype)
    of_grades = cutting.nothing_yet(params.cuts, *room.losses.shape)
    kernel = block_kernel(form(params.shape[2]), int(params.cuts is not None))
    for block, begin in enumerate(range(0, max(1, len(room.Q)), laid.items_per_block)):
        part = slice(begin, begin + laid.items_per_block)
        kernel(
            laid.seg_user, laid.seg_length, laid.seg_bounds[block], laid.first_rating[block], laid.items, laid.values,
            params.P, room.Q[part], b, room.c[part], as_type(params.mu), biased,
            loss_kind(config), as_type(config.loss_scale),
            grads["P"], d_b, room.parts_q, room.parts_c, room.losses[block], room.squares[block],
            *of_cuts, of_grades[block],
        )  # fmt: skip
        _add_parts_kernel(room.parts_q, laid.item_of[part], grads["Q"])
        if biased:
            _add_parts_kernel(room.parts_c[:, :, None], laid.item_of[part], columns(d_c))
    if params.cuts is not None:
        sums = of_grades.sum(axis=(0, 1))
        grads["t"][:] = grades.pull(params.cuts, sums[cutting.SLOPE, :-1], sums[cutting.COUNT])  # Eq. 58
    return float(room.losses.sum()), float(room.squares.sum())


def _sums_of_pairs(params: Params, batch: Batch, config: Config, grads: Tensors) -> tuple[float, float]:
    b, c, biased = biases(params)
    predicted = predict(params, batch.users, batch.items)
    users, items, e = batch.users, batch.items, losses.residual(predicted, batch.values, config, params.cuts)
    if config.loss == "warp":
        # Most of what was drawn is pushed nowhere.
        pushed = np.flatnonzero(e)
        users, items, e = users[pushed], items[pushed], e[pushed]
    pairs_kernel(form(params.shape[2]))(
        users, items, e, params.P, params.Q, grads["P"], grads["Q"],
        grads.get("b", b), grads.get("c", c), biased,
    )  # fmt: skip
    if config.loss in DRAWN and biased:
        grads["b"][:] = 0  # it cancels in a list
    if params.cuts is not None:
        grads["t"][:] = grades.slope(predicted, batch.values, params.cuts)  # Eq. 58
    loss = float(losses.value(predicted, batch.values, config, params.cuts).sum(dtype=np.float64))
    squares = losses.squared_errors(predicted, batch.values, config, params.cuts)
    return loss, float(squares.sum(dtype=np.float64))


def columns(array: Array) -> Array:
    """A two-dimensional view: a bias vector is a table of one column."""
    return array if array.ndim == 2 else array[:, None]
