"""``gibbs``: a sweep of ``als`` in which every row is drawn from its conditional (Eq. 64) instead of minimised.

A sweep draws the noise's precision (Eq. 69), then of users and of items the prior (Eq. 67, 68) and the rows (Eq. 66).
Where ratings are grades it draws cut points and the noise of the scores before that (Eq. 79 to 83), and α is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from mf_numpy import gibbs
from mf_numpy.config import Config
from mf_numpy.curvature import Side
from mf_numpy.engine import State
from mf_numpy.gibbs import Prior, SideNoise
from mf_numpy.kernels import als, normal
from mf_numpy.kernels.compiling import over_rows
from mf_numpy.kernels.gibbs import moments, squares_kernel
from mf_numpy.kernels.model import biases
from mf_numpy.model import predict
from mf_numpy.posterior import Draws, is_kept, so_far
from mf_numpy.ratings import Array, Ratings
from mf_numpy.solvers import probit
from mf_numpy.solvers.als import AlsEngine, AlsState, BothSides, Rows, put, what_is_left
from mf_numpy.solvers.probit import Grading, by_item


@dataclass(frozen=True, eq=False)
class GibbsState(AlsState):
    """A point of the chain; `step` moves it in place.

    Attributes:
        scale: σ of the ratings; 1 where they are grades.
        precision: α of the last sweep.
        grading: the grades, or None where ratings are numbers.
        draws: what is kept of the chain so far.
    """

    scale: float = 1.0
    precision: float = math.nan
    grading: Grading | None = None
    draws: Draws = field(default_factory=Draws)


@dataclass(frozen=True, eq=False)
class GradedSides(BothSides):
    """All N grades, by user and by item; `by_item` (N,) says where the latter are among the former."""

    by_item: Array


class GibbsEngine(AlsEngine):
    """The Gibbs sampler; `mf_numpy.engine.Engine` says what each method does.

    With the backend ``loops`` rows are drawn one after the other, in NumPy and in float64.
    """

    def load(self, train: Ratings, config: Config) -> BothSides:
        both = super().load(train, config)
        return GradedSides(both.user, both.item, by_item(train)) if config.loss == "ordinal" else both

    def start(self, state: State, whole: BothSides, config: Config) -> GibbsState:
        begun, grading, scale = super().start(state, whole, config), None, 1.0
        if isinstance(whole, GradedSides):
            assert begun.params.cuts is not None
            grading = Grading.of(whole.user, whole.by_item, begun.params.cuts)
        else:
            scale = gibbs.scale_of(whole.user.values)
        draws = so_far(state.draws)
        return GibbsState(
            begun.params, begun.P, begun.Q, begun.epoch, scale=scale, grading=grading, draws=draws
        )  # fmt: skip

    def step(self, state: AlsState, batch: BothSides, config: Config) -> GibbsState:
        """A sweep: α, or cut points and noise, then all users, then all items."""
        assert isinstance(state, GibbsState)
        noise = gibbs.noise_of(state.epoch + 1, state.params.shape[:2], len(batch), config)
        by_rows = self.backend == "loops"
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if state.grading is None:
                squared_error = _squares_in_loops(state, batch) if by_rows else _squares(state, batch)
                alpha = gibbs.noise_precision(squared_error, state.scale, noise)
                objective = squared_error / len(batch)
            else:
                drawn = probit.draw(state.params, state.grading, state.epoch + 1, config, in_loops=by_rows)
                batch = BothSides(*drawn.in_place_of_ratings(batch.user, batch.item, state.grading))
                state = replace(state, params=replace(state.params, cuts=drawn.cuts))
                squared_error, alpha, objective = drawn.squared_error, 1.0, -drawn.log_chance / len(batch)
            sides: tuple[tuple[Side, SideNoise], ...] = (("user", noise.user), ("item", noise.item))
            for side, of_side in sides:
                prior = _prior(state, side, of_side, config)
                half = _half_in_loops if by_rows else _half
                half(state, batch, side, prior, of_side.rows, alpha, config)
        kept = state.draws
        if is_kept(state.epoch + 1, config):
            kept = kept.with_draw(state.params.copy(), alpha)
        return replace(state, objective=objective, squared_error=squared_error, precision=alpha, draws=kept)

    def export(self, state: AlsState) -> State:
        assert isinstance(state, GibbsState)
        return State(state.params.copy(), None, state.epoch, draws=state.draws)


def _prior(state: GibbsState, side: Side, noise: SideNoise, config: Config) -> Prior:
    """The prior of a side, drawn given its rows."""
    b, c, biased = biases(state.params)
    table, bias = (state.P, b) if side == "user" else (state.Q, c)
    return gibbs.prior_of(len(table), *moments(table, bias, biased, config.n_factors), state.scale, noise, config)


def _half(state: AlsState, whole: BothSides, side: Side, prior: Prior, z: Array, alpha: float, config: Config) -> None:
    """Draw all rows of a side."""
    b, c, biased = biases(state.params)
    rows, own, own_bias, table, other_bias = (
        (whole.user, state.P, b, state.Q, c) if side == "user" else (whole.item, state.Q, c, state.P, b)
    )
    dtype, n_factors, shape = own.dtype, config.n_factors, normal.form(config.n_factors)
    n_rows = normal.n_rows(n_factors, shape)
    # In units of the ratings' noise a rating weighs 1, as in Eq. 26.
    weight, bias_at = prior.precision / alpha, n_factors
    A, B = np.zeros((n_rows, own.shape[1])), np.zeros((2, own.shape[1]))
    A[:n_factors, :n_factors] = weight[:n_factors, :n_factors]
    pull, corner = weight @ prior.mean, np.zeros(2)
    B[0, :n_factors] = pull[:n_factors]
    if biased:
        B[1, :n_factors] = weight[bias_at, :n_factors]
        corner[:] = weight[bias_at, bias_at], pull[bias_at]
    noise, noise_bias = np.zeros(own.shape, dtype), np.zeros(len(own), dtype)
    noise[:, :n_factors] = z[:, :n_factors] / math.sqrt(alpha)
    if biased:
        noise_bias[:] = z[:, bias_at] / math.sqrt(alpha)
    nothing, failed = np.zeros(len(own)), np.zeros(len(own), np.bool_)
    over_rows(
        als.rows_kernel(shape, 1), rows.bounds, rows.indptr, rows.others, rows.values, own, own_bias, table,
        other_bias, dtype.type(state.params.mu), biased, np.zeros(len(own), dtype), A.astype(dtype), False,
        dtype.type(1), n_factors, n_rows, als.panel_rows(own.shape[1], own.itemsize),
        dtype.type(als.least_pivot(n_factors, dtype)), False, nothing, nothing, failed,
        B.astype(dtype), corner.astype(dtype), noise, noise_bias,
    )  # fmt: skip
    for row in np.flatnonzero(failed):
        _draw(state, rows, side, int(row), prior, z[row], alpha)


def _half_in_loops(
    state: AlsState, whole: BothSides, side: Side, prior: Prior, z: Array, alpha: float, config: Config
) -> None:
    """`_half`, row by row and in float64."""
    rows = whole.user if side == "user" else whole.item
    for row in range(len(z)):
        _draw(state, rows, side, row, prior, z[row], alpha)


def _draw(state: AlsState, rows: Rows, side: Side, row: int, prior: Prior, z: Array, alpha: float) -> None:
    """Draw one row, in float64."""
    precision, pull = gibbs.row_conditional(*what_is_left(state, rows, side, row), prior, alpha)
    finite = np.isfinite(precision).all() and np.isfinite(pull).all()
    put(state.params, side, row, gibbs.row_draw(precision, pull, z) if finite else np.full(len(pull), np.nan))


def _squares(state: AlsState, whole: BothSides) -> float:
    """Σ (r̂ - r)² as the parameters are."""
    b, c, biased = biases(state.params)
    rows, own, mu = whole.user, state.P, state.P.dtype.type(state.params.mu)
    squares = np.zeros(len(own))
    over_rows(
        squares_kernel(normal.form(state.params.shape[2])), rows.bounds, rows.indptr, rows.others, rows.values, own, b,
        state.Q, c, mu, biased, als.panel_rows(own.shape[1], own.itemsize), squares,
    )  # fmt: skip
    return float(squares.sum())


def _squares_in_loops(state: AlsState, whole: BothSides) -> float:
    rows = whole.user
    users = np.repeat(np.arange(len(rows.weights)), np.diff(rows.indptr))
    params = state.params.with_tensors({k: v.astype(np.float64) for k, v in state.params.tensors().items()})
    error = predict(params, users, rows.others) - rows.values
    return float(error @ error)
