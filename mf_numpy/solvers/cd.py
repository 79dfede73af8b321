"""``cd``: coordinate descent by factors, CCD++ (Yu, Hsieh, Si and Dhillon 2012): each number's minimiser, Eq. 31.

Shapes: P (K, m) and Q (K, n) lie factor by factor here; ``e`` (N,) is r - r̂ in rating units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mf_numpy import counting
from mf_numpy.config import Config
from mf_numpy.engine import Backend, State
from mf_numpy.kernels import cd, predict
from mf_numpy.kernels.penalty import penalty
from mf_numpy.kernels.vector import aligned_empty, form
from mf_numpy.metrics import Predictor
from mf_numpy.model import Params, Tensors
from mf_numpy.objective import penalty_weights
from mf_numpy.ratings import Array, Ratings

CHUNKS = 64
"""Chunks of a side, of about equally many ratings."""


@dataclass(frozen=True, eq=False)
class Side:
    """The ratings of one side's rows, row by row.

    Attributes:
        indptr: (rows + 1,) int64.
        others: (N,) unsigned, the other side's row of each rating.
        bounds: (C + 1,) int64, the rows of each chunk.
        weights: (rows,) float64, w of Eq. 2.
        ridge: (rows,) float64, Nλw, the penalty in Eq. 31.
        e: (N,) room for the residuals.
    """

    indptr: Array
    others: Array
    bounds: Array
    weights: Array
    ridge: Array
    e: Array


@dataclass(frozen=True, eq=False)
class TwoOrders:
    """All ratings by user and by item.

    Attributes:
        users, items: the sides.
        values: (N,) float64 ratings as they came.
        to_users: from that order to the one by user, or None where they are the same.
        to_items: from the order by user to that by item.
    """

    users: Side
    items: Side
    values: Array
    to_users: counting.Dealing | None
    to_items: counting.Dealing

    def __len__(self) -> int:
        return len(self.values)

    def by_user(self, out: Array) -> Array:
        """Fill `out` with the ratings by user."""
        if self.to_users is not None:
            return self.to_users(self.values, out)
        np.copyto(out, self.values, casting="same_kind")
        return out


@dataclass(frozen=True, eq=False)
class CdState:
    """A point of the trajectory; `step` moves the tensors in place.

    Attributes:
        tensors: P (K, m), Q (K, n) and, in the biased model, b (m,) and c (n,).
        mu: μ.
        epoch: epochs finished.
        objective, squared_error: J and Σ (r̂ - r)² at the beginning of the last epoch.
    """

    tensors: Tensors
    mu: float
    epoch: int
    objective: float = math.nan
    squared_error: float = math.nan


class CdEngine:
    """Coordinate descent; `mf_numpy.engine.Engine` says what each method does.

    With the backend ``loops`` the same numbers are minimised in the same order in plain Python.
    """

    device = "cpu"
    predict: Predictor = staticmethod(predict)

    def __init__(self, backend: Backend) -> None:
        self.backend: str = backend

    def load(self, train: Ratings, config: Config) -> TwoOrders:
        w_u, w_i = penalty_weights(train, config)
        begins, starts = counting.begins(train.user_counts), counting.begins(train.item_counts)
        items = counting.deal(train.users, begins, train.items, np.empty(len(train), _index(train.n_items)))
        rows = np.repeat(np.arange(train.n_users, dtype=np.int32), train.user_counts)
        users = counting.deal(items, starts, rows, np.empty(len(train), _index(train.n_users)))
        del rows
        sides: list[Side] = []
        for indptr, others, weights in ((begins, items, w_u), (starts, users, w_i)):
            ridge = len(train) * config.reg * weights
            e = aligned_empty((len(train),), config.numpy_dtype)
            sides.append(Side(indptr, others, _bounds(indptr), weights, ridge, e))
        # Ratings are read once an epoch: dealing them anew takes less than holding a copy.
        to_users = None if counting.is_sorted(train.users) else counting.dealing(train.users, begins)
        return TwoOrders(sides[0], sides[1], train.values, to_users, counting.dealing(items, starts))

    def start(self, state: State, whole: TwoOrders, config: Config) -> CdState:
        tensors = {name: np.ascontiguousarray(theta.T) for name, theta in state.params.tensors().items()}
        return CdState(tensors, state.params.mu, state.epoch)

    def batches(self, whole: TwoOrders, epoch: int, config: Config) -> Iterator[TwoOrders]:
        yield whole

    def step(self, state: CdState, batch: TwoOrders, config: Config) -> CdState:
        """An epoch: every number once; of each factor's, `Config.inner_sweeps` times."""
        params = _rows(state)
        penalised = penalty(params, batch.users.weights, batch.items.weights, config.reg)
        epoch = _epoch_in_loops if self.backend == "loops" else _epoch
        with np.errstate(over="ignore", invalid="ignore"):
            squared_error = epoch(state.tensors, params, batch, config)
        return replace(state, objective=squared_error / len(batch) + penalised, squared_error=squared_error)

    def seen(self, state: CdState) -> tuple[float, float]:
        return state.objective, state.squared_error

    def next_epoch(self, state: CdState) -> CdState:
        return replace(state, epoch=state.epoch + 1)

    def synchronize(self) -> None:
        return None

    def export(self, state: CdState) -> State:
        return State(_rows(state), epoch=state.epoch)


def _index(size: int) -> type[np.unsignedinteger[Any]]:
    """The fewest bytes that tell `size` places apart."""
    return np.uint16 if size <= 1 << 16 else np.uint32


def _bounds(indptr: Array) -> Array:
    """Where chunks of about equally many ratings begin and end; set by the data alone."""
    goals = np.arange(CHUNKS + 1) * indptr[-1] // CHUNKS
    bounds: Array = np.searchsorted(indptr, goals)
    # Rows without ratings at either end belong to a chunk, too.
    bounds[0], bounds[-1] = 0, len(indptr) - 1
    return bounds


def _rows(state: CdState) -> Params:
    """The parameters row by row, in arrays of their own."""
    tensors = {}
    for name, theta in state.tensors.items():
        tensors[name] = aligned_empty(theta.T.shape, theta.dtype)
        np.copyto(tensors[name], theta.T)
    return Params.of(tensors, state.mu)


def _epoch(tensors: Tensors, params: Params, whole: TwoOrders, config: Config) -> float:
    """Move the tensors, whose values `params` has row by row; Σ (r̂ - r)² before."""
    users, items = whole.users, whole.items
    P, Q, biased = tensors["P"], tensors["Q"], params.b is not None
    dtype = P.dtype
    m, n, n_factors = params.shape
    nothing = np.empty(0, dtype)
    b, c = tensors.get("b", nothing), tensors.get("c", nothing)
    squares = np.empty(CHUNKS)
    whole.by_user(users.e)
    cd.residual_kernel(form(n_factors))(
        users.bounds, users.indptr, users.others, params.P, params.Q, b, c, dtype.type(params.mu), biased, users.e,
        squares,
    )  # fmt: skip
    # What the residuals of a side have yet to lose, as a product of two numbers.
    last_u, last_u_other = np.ones(m, dtype), np.zeros(n, dtype)
    last_i, last_i_other = np.zeros(n, dtype), np.zeros(m, dtype)
    if biased:
        cd.bias_kernel(users.bounds, users.indptr, users.e, users.ridge, b, np.empty(m, dtype))
    whole.to_items(users.e, items.e)
    if biased:
        cd.bias_kernel(items.bounds, items.indptr, items.e, items.ridge, c, last_u_other)
    for f in range(n_factors):
        p_old, q_old = P[f].copy(), Q[f].copy()
        for sweep in range(config.inner_sweeps):
            cd.factor_kernel(
                users.bounds, users.indptr, users.others, users.e, sweep == 0,
                last_u, last_u_other, p_old, q_old, Q[f], users.ridge, P[f],
            )  # fmt: skip
            cd.factor_kernel(
                items.bounds, items.indptr, items.others, items.e, sweep == 0,
                last_i, last_i_other, q_old, p_old, P[f], items.ridge, Q[f],
            )  # fmt: skip
        last_u = last_i_other = P[f]
        last_i = last_u_other = Q[f]
    return float(squares.sum())


def _epoch_in_loops(tensors: Tensors, params: Params, whole: TwoOrders, config: Config) -> float:
    """The same epoch, one number at a time and in float64."""
    n_ratings = len(whole)
    rows = [np.repeat(np.arange(len(whole.users.indptr) - 1), np.diff(whole.users.indptr)), whole.users.others]
    ratings_of = []
    for row_of, side in zip(rows, (whole.users, whole.items), strict=True):
        ratings_of.append([np.flatnonzero(row_of == row).tolist() for row in range(len(side.indptr) - 1)])
    e, values = [], whole.by_user(np.empty(n_ratings))
    for k in range(n_ratings):
        u, i = rows[0][k], rows[1][k]
        predicted = params.mu + sum(float(x) * float(y) for x, y in zip(params.P[u], params.Q[i], strict=True))  # Eq. 1
        if params.b is not None and params.c is not None:
            predicted += float(params.b[u]) + float(params.c[i])
        e.append(float(values[k]) - predicted)
    squared_error = sum(x**2 for x in e)

    def minimise(side: int, theta: Array, partner: Array | None) -> None:
        ridge = (whole.users, whole.items)[side].ridge
        for row, ratings in enumerate(ratings_of[side]):
            before = float(theta[row])
            xs = [1.0 if partner is None else float(partner[rows[1 - side][k]]) for k in ratings]
            upper = sum((e[k] + before * x) * x for k, x in zip(ratings, xs, strict=True))
            lower = sum(x * x for x in xs) + float(ridge[row])
            if lower > 0:
                theta[row] = upper / lower  # Eq. 31
            for k, x in zip(ratings, xs, strict=True):
                e[k] -= (float(theta[row]) - before) * x

    if "b" in tensors:
        minimise(0, tensors["b"], None)
        minimise(1, tensors["c"], None)
    for p, q in zip(tensors["P"], tensors["Q"], strict=True):
        for _ in range(config.inner_sweeps):
            minimise(0, p, q)
            minimise(1, q, p)
    return squared_error
