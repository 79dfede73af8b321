"""``als``: every user's row to its minimiser given the items (Eq. 26), then every item's given the users."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mf_numpy import counting, curvature, losses
from mf_numpy.batch import Batch
from mf_numpy.config import Config
from mf_numpy.curvature import Side
from mf_numpy.engine import Backend, State
from mf_numpy.kernels import als, cg, normal, predict
from mf_numpy.kernels.compiling import over_rows
from mf_numpy.kernels.model import biases
from mf_numpy.kernels.vector import LOOPS, aligned_empty, form
from mf_numpy.metrics import Predictor
from mf_numpy.model import Params
from mf_numpy.objective import background, penalty_weights, total
from mf_numpy.ratings import Array, Ratings


@dataclass(frozen=True, eq=False)
class Rows:
    """One side's rows and their ratings.

    Attributes:
        indptr: (rows + 1,) int64, where each row's ratings begin.
        others: (N,) int32, or uint16 where ratings came in no order and that is enough: the row of the other side.
        values: (N,) ratings in the precision of the parameters.
        bounds: (C + 1,) int64, the chunks of rows that threads take.
        weights: (rows,) float64, w of Eq. 2.
    """

    indptr: Array
    others: Array
    values: Array
    bounds: Array
    weights: Array


@dataclass(frozen=True, eq=False)
class BothSides:
    """All N ratings, by user and by item."""

    user: Rows
    item: Rows

    def __len__(self) -> int:
        return len(self.user.values)


@dataclass(frozen=True, eq=False)
class AlsState:
    """A point of the trajectory; `step` moves it in place.

    Attributes:
        params: the parameters; factors are views of the tables.
        P, Q: (m, W) and (n, W), factors filled up with zeros to whole vectors.
        epoch: sweeps finished.
        objective, squared_error: J and Σ (r̂ - r)² before the last sweep.
    """

    params: Params
    P: Array
    Q: Array
    epoch: int
    objective: float = math.nan
    squared_error: float = math.nan


class AlsEngine:
    """Alternating least squares; `mf_numpy.engine.Engine` says what each method does.

    With the backend ``loops`` rows are moved one after the other, in NumPy and in float64.
    """

    device = "cpu"
    predict: Predictor = staticmethod(predict)

    def __init__(self, backend: Backend) -> None:
        self.backend: str = backend

    def load(self, train: Ratings, config: Config) -> BothSides:
        w_u, w_i = penalty_weights(train, config)
        n_factors, dtype = 0 if config.cg_steps else config.n_factors, config.numpy_dtype
        # Both sides are copies then. Otherwise kernels would be compiled for two kinds of ids to save little.
        in_order = counting.is_sorted(train.users) or counting.is_sorted(train.items)
        rows = []
        for own, others, n_others, counts, weights in (
            (train.users, train.items, train.n_items, train.user_counts, w_u),
            (train.items, train.users, train.n_users, train.item_counts, w_i),
        ):
            starts = counting.begins(counts)
            if not counting.is_sorted(own):
                narrow = not in_order and n_others <= 1 << 16
                others = counting.deal(own, starts, others, np.empty(len(others), np.uint16 if narrow else np.int32))
            values = counting.deal(own, starts, train.values, np.empty(len(train), dtype))
            rows.append(Rows(starts, others, values, als.chunks(starts, n_factors), weights))
        return BothSides(*rows)

    def start(self, state: State, whole: BothSides, config: Config) -> AlsState:
        params = state.params
        shape = LOOPS if self.backend == "loops" else normal.form(config.n_factors)
        tables = {name: _table(params.tensors()[name], shape) for name in ("P", "Q")}
        views = {name: table[:, : config.n_factors] for name, table in tables.items()}
        return AlsState(params.with_tensors(params.tensors() | views), tables["P"], tables["Q"], state.epoch)

    def batches(self, whole: BothSides, epoch: int, config: Config) -> Iterator[BothSides]:
        yield whole

    def step(self, state: AlsState, batch: BothSides, config: Config) -> AlsState:
        """A sweep: all users, then all items."""
        half = _half_in_loops if self.backend == "loops" else _half
        with np.errstate(over="ignore", invalid="ignore"):
            seen = _of_all_pairs(state.params, batch.user, config) if config.loss == "all_pairs" else None
            squared_error, norm_u = half(state, batch, "user", config, measure=seen is None)
            _, norm_i = half(state, batch, "item", config, measure=False)
        data, squared_error = seen or (squared_error, squared_error)
        objective = data / len(batch) + config.reg * (norm_u + norm_i)  # Eq. 2
        return replace(state, objective=objective, squared_error=squared_error)

    def seen(self, state: AlsState) -> tuple[float, float]:
        return state.objective, state.squared_error

    def next_epoch(self, state: AlsState) -> AlsState:
        return replace(state, epoch=state.epoch + 1)

    def synchronize(self) -> None:
        return None

    def export(self, state: AlsState) -> State:
        return State(state.params.copy(), None, state.epoch)


def _of_all_pairs(params: Params, rows: Rows, config: Config) -> tuple[float, float]:
    """N times the data term of Eq. 46, and Σ (r̂ - 1)²."""
    users = np.repeat(np.arange(len(rows.weights), dtype=np.int32), np.diff(rows.indptr))
    predicted = predict(params, users, rows.others)
    loss = total(losses.value(predicted, rows.values, config)) + background(params, config)
    return loss, total(losses.squared_errors(predicted, rows.values, config))


def _table(factors: Array, form: int) -> Array:
    """Factors (rows, K) as a table (rows, W) whose rows are whole vectors."""
    length, n_factors = factors.shape
    out = aligned_empty((length, normal.width(n_factors, factors.itemsize, form)), factors.dtype)
    out[:, :n_factors] = factors
    out[:, n_factors:] = 0
    return out


def _half(state: AlsState, whole: BothSides, side: Side, config: Config, measure: bool) -> tuple[float, float]:
    """Move all rows of a side; returns Σ (r̂ - r)², with `measure`, and Σ w|θ|² of its rows before."""
    b, c, biased = biases(state.params)
    rows, own, own_bias, table, other_bias = (
        (whole.user, state.P, b, state.Q, c) if side == "user" else (whole.item, state.Q, c, state.P, b)
    )
    as_type, n_factors = own.dtype.type, config.n_factors
    ridge = (config.reg * len(whole) * rows.weights).astype(own.dtype)
    squares, norms, failed = np.zeros(len(own)), np.zeros(len(own)), np.zeros(len(own), np.bool_)
    given = (rows.indptr, rows.others, rows.values, own, own_bias, table, other_bias, as_type(state.params.mu), biased)
    if config.cg_steps:
        kernel = cg.steps_kernel(form(n_factors))
        over_rows(kernel, rows.bounds, *given, ridge, config.cg_steps, measure, squares, norms)
        return float(squares.sum()), float((norms * rows.weights).sum())
    shape = normal.form(n_factors)
    n_rows, all_pairs = normal.n_rows(n_factors, shape), config.loss == "all_pairs"
    gram = np.zeros((n_rows, own.shape[1]), own.dtype)
    if all_pairs:
        gram[:n_factors] = table[:, :n_factors].T @ table  # Eq. 47
    over_rows(
        als.rows_kernel(shape), rows.bounds, *given, ridge, gram, all_pairs, as_type(config.loss_scale),
        n_factors, n_rows, als.panel_rows(own.shape[1], own.itemsize), as_type(als.least_pivot(n_factors, own.dtype)),
        measure, squares, norms, failed, *als.no_draws(own.dtype),
    )  # fmt: skip
    for row in np.flatnonzero(failed):
        _least_squares(state, rows, side, int(row), config)
    return float(squares.sum()), float((norms * rows.weights).sum())


def what_is_left(state: AlsState, rows: Rows, side: Side, row: int) -> tuple[Array, Array]:
    """Of one row's n ratings, in float64: the other side's rows there (n, D), 1 in the place of a bias, and what they
    leave for this row to say (n,)."""
    params = state.params
    at = slice(rows.indptr[row], rows.indptr[row + 1])
    partners = params.Q if side == "user" else params.P
    y, left = partners[rows.others[at]].astype(np.float64), rows.values[at] - params.mu
    if params.b is not None and params.c is not None:
        y = np.column_stack([y, np.ones(len(y))])
        left = left - (params.c if side == "user" else params.b)[rows.others[at]]
    return y, left


def _normal(state: AlsState, rows: Rows, side: Side, row: int, config: Config) -> tuple[Array, Array, Array]:
    """Of one row, in float64: where it is (D,), its normal matrix (D, D) and the right-hand side of Eq. 26 (D,)."""
    here = curvature.extended(state.params, side, own=True)[row].astype(np.float64)
    y, left = what_is_left(state, rows, side, row)
    ridge = config.reg * len(rows.values) * rows.weights[row]
    if config.loss == "all_pairs":
        at = slice(rows.indptr[row], rows.indptr[row + 1])
        sure = config.loss_scale * rows.values[at].astype(np.float64)
        every = (state.params.Q if side == "user" else state.params.P).astype(np.float64)
        matrix = every.T @ every + (y.T * sure) @ y + ridge * np.eye(y.shape[1])
        return here, matrix, y.T @ (1 + sure)  # Eq. 47
    return here, y.T @ y + ridge * np.eye(y.shape[1]), y.T @ left


def put(params: Params, side: Side, row: int, theta: Array) -> None:
    """Overwrite a row, factors and bias."""
    factors, bias = (params.P, params.b) if side == "user" else (params.Q, params.c)
    factors[row] = theta[: factors.shape[1]]
    if bias is not None:
        bias[row] = theta[-1]


def _least_squares(state: AlsState, rows: Rows, side: Side, row: int, config: Config) -> None:
    """The shortest minimiser, in float64, of a row whose normal matrix is as good as singular."""
    _, matrix, right = _normal(state, rows, side, row, config)
    finite = np.isfinite(matrix).all() and np.isfinite(right).all()
    theta = np.linalg.lstsq(matrix, right)[0] if finite else np.full(len(right), np.nan)  # Eq. 26
    put(state.params, side, row, theta)


def _half_in_loops(state: AlsState, whole: BothSides, side: Side, config: Config, measure: bool) -> tuple[float, float]:
    """`_half`, row by row and in float64."""
    rows = whole.user if side == "user" else whole.item
    of = np.repeat(np.arange(len(rows.weights)), np.diff(rows.indptr))
    users, items = (of, rows.others) if side == "user" else (rows.others, of)
    params = state.params.with_tensors({k: v.astype(np.float64) for k, v in state.params.tensors().items()})
    pairs = Batch(users, items, rows.values.astype(np.float64), params.shape[:2])
    before = predict(params, users, items) - pairs.values
    factors, bias = (params.P, params.b) if side == "user" else (params.Q, params.c)
    norms = (factors**2).sum(axis=1) + (0 if bias is None else bias**2)
    for row in range(len(rows.weights)):
        if config.cg_steps:
            theta = _steps(*_normal(state, rows, side, row, config), config.cg_steps)
        else:
            theta = curvature.row_minimiser(params, side, row, pairs, config)
        put(state.params, side, row, theta)
    return float(before @ before), float((norms * rows.weights).sum())


def _steps(x: Array, matrix: Array, right: Array, n_steps: int) -> Array:
    """`n_steps` conjugate-gradient steps from x towards the solution of matrix x = right."""
    r = right - matrix @ x
    p = r.copy()
    for _ in range(n_steps):
        bend = p @ matrix @ p
        if not bend > 0:
            break
        step = r @ r / bend  # Eq. 32
        x, after = x + step * p, r - step * (matrix @ p)
        p, r = after + (after @ after) / (r @ r) * p, after  # Eq. 32
    return x
