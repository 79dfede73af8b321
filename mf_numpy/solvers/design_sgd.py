"""``sgd`` of features: one step for each rating (Eq. 39), all those of a user, or of an item, in a row (Eq. 40)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mf_numpy import design as by_hand
from mf_numpy import loops
from mf_numpy.batch import Batch, full_batch
from mf_numpy.config import Config
from mf_numpy.design import Design, Side
from mf_numpy.engine import Backend, OfFeatures, State
from mf_numpy.errors import ConfigError
from mf_numpy.kernels import design_sgd, predict
from mf_numpy.kernels.gradients import loss_kind
from mf_numpy.kernels.vector import aligned_empty, form
from mf_numpy.metrics import Predictor
from mf_numpy.model import Params
from mf_numpy.objective import norms
from mf_numpy.ratings import Array, Ratings, compress


@dataclass(frozen=True, eq=False)
class Walk:
    """All ratings as they are met: row by row of one side, those of a row in an order drawn once.

    Attributes:
        by_user: whether the rows are users; else items.
        begins: (rows + 1,) int64, where the ratings of each row begin.
        others: (N,) each rating's place on the other side.
        values: (N,) ratings in the precision of the parameters.
        weights: of the features' penalty (Eq. 35), (f,) and (g,).
    """

    by_user: bool
    begins: Array
    others: Array
    values: Array
    weights: tuple[Array, Array]

    def __len__(self) -> int:
        return len(self.values)

    def turns(self, epoch: int, config: Config) -> Array:
        """The rows of epoch 1, 2, ..., from seed and epoch alone: a resumed run draws the same."""
        return np.random.default_rng([config.seed, epoch]).permutation(len(self.begins) - 1)

    def sequence(self, epoch: int, config: Config) -> Iterator[tuple[int, int, float]]:
        """User, item and value of each rating in the order in which the epoch meets them."""
        for row in self.turns(epoch, config).tolist():
            for t in range(int(self.begins[row]), int(self.begins[row + 1])):
                other = int(self.others[t])
                yield (*((row, other) if self.by_user else (other, row)), float(self.values[t]))


@dataclass(frozen=True, eq=False)
class Point:
    """A point of the trajectory; `step` moves the parameters of the features in place.

    Attributes:
        theta: the parameters.
        epoch: epochs finished.
        objective: J at the beginning of the last epoch's steps, each rating's ℓ taken just before its own step.
        squared_error: Σ (r̂ - r)², likewise.
    """

    theta: Params
    epoch: int
    objective: float = math.nan
    squared_error: float = math.nan


class DesignSgdEngine(OfFeatures):
    """Single steps through a design, by one thread; `mf_numpy.engine.Engine` says what each method does.

    With the backend ``loops`` every feature of a rating is moved at once, in plain Python: it knows no Eq. 40.

    Raises:
        ConfigError: another backend than ``numba`` and ``loops``, a penalty or rule that Eq. 40 does not hold for.
    """

    device = "cpu"
    predict: Predictor = staticmethod(predict)

    def __init__(self, design: Design, backend: Backend, config: Config) -> None:
        if backend == "numpy":
            raise ConfigError(f"backend is {backend!r} with solver 'sgd', which runs on 'numba' or 'loops'")
        if config.penalty != "per_rating":
            raise ConfigError(
                f"penalty is {config.penalty!r} with solver 'sgd' and a design; use 'per_rating', or solver='gd'"
            )
        if config.momentum or config.step_rule != "momentum":
            what = f"momentum is {config.momentum:g}" if config.momentum else f"step_rule is {config.step_rule!r}"
            raise ConfigError(f"{what} with solver 'sgd' and a design; leave it out, or take solver='gd'")
        self.backend: str = backend
        self.design = design

    def load(self, train: Ratings, config: Config) -> Walk:
        self.design.check(train)
        by_user = _is_cheaper_by_user(train, self.design)
        drawn = np.random.default_rng([config.seed, len(train)]).permutation(len(train))
        users, items = train.users[drawn], train.items[drawn]
        view = compress(users, items, train.n_users) if by_user else compress(items, users, train.n_items)
        values = view.arranged(train.values[drawn]).astype(config.numpy_dtype)
        weights = by_hand.penalty_weights(full_batch(train, config), self.design, config)
        return Walk(by_user, view.indptr, view.indices, values, weights)

    def start(self, state: State, whole: Walk, config: Config) -> Point:
        tensors = {}
        for name, value in state.params.tensors().items():
            tensors[name] = aligned_empty(value.shape, value.dtype)
            np.copyto(tensors[name], value)
        return Point(state.params.with_tensors(tensors), state.epoch)

    def batches(self, whole: Walk, epoch: int, config: Config) -> Iterator[Walk]:
        yield whole

    def step(self, state: Point, batch: Walk, config: Config) -> Point:
        """An epoch: every rating once."""
        penalised = config.reg * norms(state.theta, *batch.weights)
        epoch = _epoch_in_loops if self.backend == "loops" else _epoch
        with np.errstate(over="ignore", invalid="ignore"):
            loss, squared_error = epoch(state, batch, self.design, config)
        return replace(state, objective=loss / len(batch) + penalised, squared_error=squared_error)

    def seen(self, state: Point) -> tuple[float, float]:
        return state.objective, state.squared_error

    def next_epoch(self, state: Point) -> Point:
        return replace(state, epoch=state.epoch + 1)

    def synchronize(self) -> None:
        return None

    def export(self, state: Point) -> State:
        return State(state.theta.copy(), epoch=state.epoch)


def _is_cheaper_by_user(train: Ratings, design: Design) -> bool:
    """Whether to go user by user: the features of the other side are met at every rating, those of a row once."""
    of_users, of_items = (np.diff(side.matrix.indptr) for side in (design.users, design.items))
    by_user = of_users.sum() + of_items @ train.item_counts
    by_item = of_items.sum() + of_users @ train.user_counts
    return bool(by_user <= by_item)


def _sides(state: Point, whole: Walk, design: Design) -> tuple[tuple[Side, Array, Array], tuple[Side, Array, Array]]:
    """The side whose rows take turns and the other one: what each is made of, with factors and biases."""
    theta, none = state.theta, np.empty(0, state.theta.P.dtype)
    users = design.users, theta.P, none if theta.b is None else theta.b
    items = design.items, theta.Q, none if theta.c is None else theta.c
    return (users, items) if whole.by_user else (items, users)


def _epoch(state: Point, whole: Walk, design: Design, config: Config) -> tuple[float, float]:
    (mine, W, w), (theirs, Z, z) = _sides(state, whole, design)
    dtype = W.dtype
    lr = config.lr_at(state.epoch + 1)
    order, sums = whole.turns(state.epoch + 1, config), np.zeros(2)
    x, y = (side.matrix.data.astype(dtype) for side in (mine, theirs))
    design_sgd.epoch_kernel(form(W.shape[1]))(
        0, len(order), order, whole.begins, whole.others, whole.values, mine.matrix.indptr, mine.matrix.indices, x,
        theirs.matrix.indptr, theirs.matrix.indices, y, W, Z, w, z, dtype.type(state.theta.mu),
        state.theta.b is not None, dtype.type(lr), dtype.type(1 - lr * 2 * config.reg), loss_kind(config),
        dtype.type(config.loss_scale), aligned_empty((3, W.shape[1]), dtype), sums,
    )  # fmt: skip
    return float(sums[0]), float(sums[1])


def _epoch_in_loops(state: Point, whole: Walk, design: Design, config: Config) -> tuple[float, float]:
    """The same epoch: each rating's step is that of gradient descent on a table which holds no other rating."""
    lr, loss, square = config.lr_at(state.epoch + 1), 0.0, 0.0
    theta = state.theta
    for u, i, value in whole.sequence(state.epoch + 1, config):
        one = Batch(np.array([u]), np.array([i]), np.array([value]), design.shape)
        seen = loops.gradient_of_features(theta, one, design, config)
        loss += seen.objective - config.reg * float(norms(theta, *by_hand.penalty_weights(one, design, config)))
        square += seen.squared_error
        for name, moving in theta.tensors().items():
            moving -= lr * seen.gradient[name]  # Eq. 39
    return loss, square
