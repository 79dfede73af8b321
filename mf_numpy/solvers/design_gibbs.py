"""``gibbs`` of features: a sweep draws the row of every feature from its conditional (Eq. 73), one after the other.

A sweep draws the noise's precision (Eq. 69), then of users and of items, block by block, the prior (Eq. 67, 68) and the
features. What a side's ratings say of its rows is added up once, at the beginning of its half (Eq. 74). Where ratings
are grades, cut points and the noise of the scores are drawn before that (Eq. 79 to 83), and α is 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from mf_numpy import design as by_hand
from mf_numpy import gibbs
from mf_numpy.config import Config
from mf_numpy.curvature import Side
from mf_numpy.design import Design
from mf_numpy.engine import Backend, OfFeatures, State
from mf_numpy.errors import ConfigError
from mf_numpy.gibbs import Prior, SideNoise
from mf_numpy.kernels import als, design_gibbs, predict
from mf_numpy.kernels.compiling import over_rows
from mf_numpy.kernels.gibbs import moments
from mf_numpy.kernels.vector import form
from mf_numpy.metrics import Predictor
from mf_numpy.model import Params
from mf_numpy.posterior import Draws, is_kept, so_far
from mf_numpy.ratings import Array, Ratings
from mf_numpy.solvers import probit
from mf_numpy.solvers.als import AlsEngine, Rows
from mf_numpy.solvers.probit import Grading, by_item

MOST_BYTES = 4 << 30
"""Of the normal matrices of a side's rows, which are all there at once."""


@dataclass(frozen=True, eq=False)
class Block:
    """Features of one side that are alike before any rating is seen.

    Attributes:
        at: where they are among the features of the side.
        indptr, rows, amounts: the rows that have each feature, and how much of it (CSR).
        bounds: chunks of features that threads take; one where a row may have two of the features.
        pool: where many rows are made alike of these features, such as a user's days, which of the different ones each
            row is (rows,), and `rows` are those; else None.
    """

    at: slice
    indptr: Array
    rows: Array
    amounts: Array
    bounds: Array
    pool: Array | None = None


@dataclass(frozen=True, eq=False)
class Whole:
    """All N ratings by user and by item, σ of them, and the blocks of features of both sides.

    Where ratings are grades σ is 1, and `by_item` (N,) says where those by item are among those by user.
    """

    user: Rows
    item: Rows
    scale: float
    blocks: dict[Side, tuple[Block, ...]]
    by_item: Array | None = None

    def __len__(self) -> int:
        return len(self.user.values)


@dataclass(frozen=True, eq=False)
class Point:
    """A point of the chain.

    Attributes:
        theta: the parameters of the features.
        epoch: sweeps finished.
        squared_error: Σ (r̂ - r)² before the last sweep; `objective` is the mean of it.
        precision: α of the last sweep.
        grading: the grades, or None where ratings are numbers; `objective` is the mean of -log P of them then.
        draws: what is kept of the chain so far.
    """

    theta: Params
    epoch: int
    objective: float = math.nan
    squared_error: float = math.nan
    precision: float = math.nan
    grading: Grading | None = None
    draws: Draws = field(default_factory=Draws)


@dataclass(frozen=True, eq=False)
class Sums:
    """What the ratings of a side say of its rows (Eq. 73).

    Attributes:
        normal: (rows, D, D), G.
        left: (rows, D), g as it was when the rows were `moved` (rows, D) less far.
        squares: (rows,), Σ e² as it was.
    """

    normal: Array
    left: Array
    moved: Array
    squares: Array


class DesignGibbsEngine(OfFeatures):
    """The Gibbs sampler over features; `mf_numpy.engine.Engine` says what each method does.

    With the backend ``loops`` rows and features are taken one after the other, in NumPy.

    Raises:
        ConfigError: another backend than ``numba`` and ``loops``.
    """

    device = "cpu"
    predict: Predictor = staticmethod(predict)

    def __init__(self, design: Design, backend: Backend) -> None:
        if backend == "numpy":
            raise ConfigError(f"backend is {backend!r} with solver 'gibbs', which runs on 'numba' or 'loops'")
        self.backend: str = backend
        self.design = design

    def load(self, train: Ratings, config: Config) -> Whole:
        self.design.check(train)
        check_room(self.design, config)
        both = AlsEngine(self.backend).load(train, replace(config, dtype="float64"))  # type: ignore[arg-type]
        user, item = (replace(rows, others=rows.others.astype(np.int32, copy=False)) for rows in (both.user, both.item))
        blocks: dict[Side, tuple[Block, ...]] = {
            "user": tuple(_blocks(self.design.users, config, self.backend == "numba")),
            "item": tuple(_blocks(self.design.items, config, self.backend == "numba")),
        }
        if config.loss == "ordinal":
            return Whole(user, item, 1.0, blocks, by_item(train))
        return Whole(user, item, gibbs.scale_of(user.values), blocks)

    def start(self, state: State, whole: Whole, config: Config) -> Point:
        cuts, grading = state.params.cuts, None
        if whole.by_item is not None:
            assert cuts is not None
            grading = Grading.of(whole.user, whole.by_item, cuts)
        return Point(state.params, state.epoch, grading=grading, draws=so_far(state.draws))

    def batches(self, whole: Whole, epoch: int, config: Config) -> Iterator[Whole]:
        yield whole

    def step(self, state: Point, batch: Whole, config: Config) -> Point:
        """A sweep: α, or cut points and noise, then all features of the users, then all of the items."""
        sizes = self.design.users.blocks, self.design.items.blocks
        noise = gibbs.noise_of_features(state.epoch + 1, sizes, len(batch), config)
        theta, squared_error, objective, alpha = state.theta, math.nan, math.nan, 1.0
        halves: tuple[tuple[Side, tuple[SideNoise, ...]], ...] = (("user", noise.user), ("item", noise.item))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            items = self.rows_of(theta, "item")
            if state.grading is not None:
                made = self._wide(theta, items)
                seen = probit.draw(made, state.grading, state.epoch + 1, config, in_loops=self.backend == "loops")
                user, item = seen.in_place_of_ratings(batch.user, batch.item, state.grading)
                batch, theta = replace(batch, user=user, item=item), replace(theta, cuts=seen.cuts)
                squared_error, objective = seen.squared_error, -seen.log_chance / len(batch)
            for side, drawn in halves:
                sums = self.sums(batch, side, self.rows_of(theta, "user"), items, theta)
                if side == "user" and state.grading is None:
                    squared_error = float(sums.squares.sum())
                    alpha, objective = (
                        gibbs.noise_precision(squared_error, batch.scale, noise),
                        squared_error / len(batch),
                    )
                table = table_of(theta, side)
                for block, z in zip(batch.blocks[side], drawn, strict=True):
                    own = table[block.at]
                    prior = gibbs.prior_of(len(own), *_moments(own), batch.scale, z, config)
                    draw = _draw_in_loops if self.backend == "loops" else _draw
                    draw(own, block, sums, prior, z.rows, alpha)
                theta = _put(theta, side, table)
        kept = state.draws
        if is_kept(state.epoch + 1, config):
            kept = kept.with_draw(theta, alpha)
        return replace(
            state, theta=theta, objective=objective, squared_error=squared_error, precision=alpha, draws=kept
        )  # fmt: skip

    def sums(self, whole: Whole, side: Side, users: Array, items: Array, theta: Params) -> Sums:
        """What the ratings say of the rows of a side, given the rows (m, D) and (n, D) of both."""
        rows, own, others = (whole.user, users, items) if side == "user" else (whole.item, items, users)
        tilde, bias = others, np.zeros(len(others))
        if theta.b is not None:
            tilde, bias = others.copy(), others[:, -1].copy()
            tilde[:, -1] = 1
        by = _sums_in_loops if self.backend == "loops" else _sums
        return by(rows, own, tilde, bias, theta.mu)

    def _wide(self, theta: Params, items: Array) -> Params:
        """The parameters of users and items, these (n, D), in float64."""
        tables, k = (self.rows_of(theta, "user"), items), theta.shape[2]
        P, Q = (np.ascontiguousarray(table[:, :k]) for table in tables)
        if theta.b is None:
            return Params(P, Q, mu=theta.mu, cuts=theta.cuts)
        b, c = (np.ascontiguousarray(table[:, k]) for table in tables)
        return Params(P, Q, b, c, theta.mu, theta.cuts)

    def rows_of(self, theta: Params, side: Side) -> Array:
        """The rows (rows, D) of a side that its features make, in float64."""
        made_of = self.design.users if side == "user" else self.design.items
        out: Array = made_of.matrix @ table_of(theta, side)  # Eq. 33
        return out

    def seen(self, state: Point) -> tuple[float, float]:
        return state.objective, state.squared_error

    def next_epoch(self, state: Point) -> Point:
        return replace(state, epoch=state.epoch + 1)

    def synchronize(self) -> None:
        return None

    def export(self, state: Point) -> State:
        return State(state.theta.copy(), epoch=state.epoch, draws=state.draws)


def check_room(design: Design, config: Config) -> None:
    """Refuse rows whose normal matrices take too much room.

    Raises:
        ConfigError: they take more than `MOST_BYTES`.
    """
    rows, width = max(design.shape), config.n_factors + (config.model == "biased")
    if 8 * rows * width**2 > MOST_BYTES:
        raise ConfigError(
            f"solver is 'gibbs' with a design of {rows:,} rows, whose normal matrices take "
            f"{8 * rows * width**2 / 2**30:.1f} GiB of at most {MOST_BYTES / 2**30:g}; take fewer n_factors (now "
            f"{config.n_factors}), or solver='sgd'"
        )


def exclusive(made_of: by_hand.Side) -> Iterator[tuple[slice, bool]]:
    """Each block's place, and whether no row has two of its features."""
    begin = 0
    for size in made_of.blocks:
        at = slice(begin, begin + size)
        yield at, int(made_of.has[at].sum(axis=0).max(initial=0)) <= 1
        begin += size


def _blocks(made_of: by_hand.Side, config: Config, pooled: bool) -> Iterator[Block]:
    for at, apart in exclusive(made_of):
        part, pool = made_of.transposed[at], None
        if pooled and part.nnz > 2 * made_of.shape[0]:
            pool, first = _alike(made_of.matrix[:, at])
            # To pool rows and to let them follow costs as much as two numbers a row.
            if part.nnz - part[:, first].nnz > 2 * len(pool):
                part = part[:, first]
            else:
                pool = None
        indptr, rows = (np.asarray(x, np.int64) for x in (part.indptr, part.indices))
        bounds = als.chunks(indptr, config.n_factors) if apart else np.array([0, len(indptr) - 1])
        yield Block(at, indptr, rows, part.data, bounds, pool)


def _alike(matrix: sp.csr_array) -> tuple[Array, Array]:
    """Which of the different rows of a matrix each row is (rows,), and where each of these is met first."""
    ends, index, data = matrix.indptr.tolist(), matrix.indices, matrix.data
    seen: dict[tuple[bytes, bytes], int] = {}
    keys = ((index[a:b].tobytes(), data[a:b].tobytes()) for a, b in pairwise(ends))
    pool = np.array([seen.setdefault(key, len(seen)) for key in keys], np.int64)
    return pool, np.unique(pool, return_index=True)[1]


def table_of(theta: Params, side: Side) -> Array:
    """The features' rows (features, D) of a side in float64, factors and then the bias."""
    factors, bias = (theta.P, theta.b) if side == "user" else (theta.Q, theta.c)
    table = factors if bias is None else np.column_stack([factors, bias])
    return table.astype(np.float64)


def _put(theta: Params, side: Side, table: Array) -> Params:
    """The parameters with those of a side as `table` has them, rounded to what they are kept in."""
    k, dtype = theta.shape[2], theta.P.dtype
    factors, bias = ("P", "b") if side == "user" else ("Q", "c")
    moved = {factors: table[:, :k].astype(dtype)}
    if theta.b is not None:
        moved[bias] = table[:, k].astype(dtype)
    return theta.with_tensors(theta.tensors() | moved)


def _moments(table: Array) -> tuple[Array, Array]:
    return moments(table, np.empty(0), False, table.shape[1])


def _sums(rows: Rows, own: Array, tilde: Array, bias: Array, mu: float) -> Sums:
    count, width = own.shape
    normal, left, squares = np.zeros((count * width, width)), np.zeros((count, width)), np.zeros(count)
    over_rows(
        design_gibbs.sums_kernel(form(width)), rows.bounds, rows.indptr, rows.others, rows.values, own, tilde, bias, mu,
        normal, left, squares,
    )  # fmt: skip
    return Sums(normal.reshape(count, width, width), left, np.zeros((count, width)), squares)


def _sums_in_loops(rows: Rows, own: Array, tilde: Array, bias: Array, mu: float) -> Sums:
    normal, left, squares = [], [], []
    for row, theta in enumerate(own):
        at = slice(rows.indptr[row], rows.indptr[row + 1])
        y = tilde[rows.others[at]]
        error = rows.values[at] - mu - bias[rows.others[at]] - y @ theta  # Eq. 1
        normal.append(y.T @ y)
        left.append(y.T @ error)
        squares.append(error @ error)
    return Sums(np.array(normal), np.array(left), np.zeros_like(own), np.array(squares))


def _draw(own: Array, block: Block, sums: Sums, prior: Prior, z: Array, alpha: float) -> None:
    """Draw the features (f, D) of a block in place; the sums follow."""
    width, (normal, left, moved) = own.shape[1], (sums.normal, sums.left, sums.moved)
    if block.pool is not None:
        over_rows(
            design_gibbs.left_kernel(form(width)), np.array([0, len(left)]), normal.reshape(-1, width), left, moved
        )  # fmt: skip
        normal, left = _pooled(sums, block.pool)
        moved = np.zeros_like(left)
    over_rows(
        design_gibbs.features_kernel(form(width)), block.bounds, block.indptr, block.rows, block.amounts,
        normal.reshape(-1, width), left, moved, own, prior.precision, prior.precision @ prior.mean, alpha, z,
    )  # fmt: skip
    if block.pool is not None:
        sums.moved[:] = moved[block.pool]


def _pooled(sums: Sums, pool: Array) -> tuple[Array, Array]:
    """G and g of rows that are alike, added up."""
    count, width = sums.left.shape
    together = sp.csr_array((np.ones(count), (pool, np.arange(count))), shape=(int(pool.max()) + 1, count))
    normal: Array = together @ sums.normal.reshape(count, -1)
    left: Array = together @ sums.left
    return normal.reshape(-1, width, width), left


def _draw_in_loops(own: Array, block: Block, sums: Sums, prior: Prior, z: Array, alpha: float) -> None:
    """`_draw`, feature by feature."""
    for j, here in enumerate(own):
        at = slice(block.indptr[j], block.indptr[j + 1])
        rows, x = block.rows[at], block.amounts[at]
        normal, left = sums.normal[rows], sums.left[rows]
        precision, pull = gibbs.feature_conditional(x, normal, left, here, prior, alpha)
        finite = np.isfinite(precision).all() and np.isfinite(pull).all()
        drawn = gibbs.row_draw(precision, pull, z[j]) if finite else np.full(len(pull), np.nan)
        sums.left[rows] = gibbs.what_stays(x, normal, left, drawn - here)
        own[j] = drawn
