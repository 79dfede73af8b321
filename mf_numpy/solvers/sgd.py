"""``sgd``: one step for each rating (Eq. 29), over the grid of `mf_numpy.kernels.grid`.

Cut points between grades are in every rating's gradient. Steps for one rating at a time would leave them where the last
few ratings want them, and blocks that run beside each other share no row, but would share these: they stand still over
an epoch, and then take a Newton step over all ratings (Eq. 59), which has no η.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mf_numpy import grades, loops
from mf_numpy.adaptive import FLOOR
from mf_numpy.config import Config
from mf_numpy.engine import Backend, State
from mf_numpy.grades import Cuts
from mf_numpy.kernels import grades as cutting
from mf_numpy.kernels import predict, sgd
from mf_numpy.kernels.gradients import loss_kind
from mf_numpy.kernels.grid import Grid, grid
from mf_numpy.kernels.model import biases
from mf_numpy.kernels.optim import weight_of_gradient
from mf_numpy.kernels.penalty import penalty
from mf_numpy.kernels.vector import aligned_empty, form
from mf_numpy.metrics import Predictor
from mf_numpy.model import Params, Tensors
from mf_numpy.objective import penalty_weights
from mf_numpy.optim import Memory
from mf_numpy.ratings import Array, Ratings


@dataclass(frozen=True, eq=False)
class Dealt:
    """All ratings in the order of the grid, with each row's penalty.

    Attributes:
        grid: the ratings.
        w_u, w_i: (m,) and (n,) float64, the weights of Eq. 2 of each place.
        pull_u, pull_i: (m,) and (n,), 2λ N w / n of each place: the penalty's part in one rating's gradient (Eq. 29).
        idle_u, idle_i: the places without a rating, which no step meets.
    """

    grid: Grid
    w_u: Array
    w_i: Array
    pull_u: Array
    pull_i: Array
    idle_u: Array
    idle_i: Array

    def __len__(self) -> int:
        return len(self.grid)


@dataclass(frozen=True, eq=False)
class SgdState:
    """A point of the trajectory, its rows in the order of the grid; `step` moves them in place.

    Attributes:
        params: the parameters.
        velocity: one array a parameter, velocities or AdaGrad's sums; empty ones for plain steps.
        epoch: epochs finished.
        objective: J at the beginning of the last epoch's steps, each rating's ℓ taken just before its own step.
        squared_error: Σ (r̂ - r)², likewise.
    """

    params: Params
    velocity: Tensors
    epoch: int
    whole: Dealt
    objective: float = math.nan
    squared_error: float = math.nan


class SgdEngine:
    """Stochastic gradient descent; `mf_numpy.engine.Engine` says what each method does.

    With the backend ``loops`` the same steps are taken in the same order in plain Python.
    """

    device = "cpu"
    predict: Predictor = staticmethod(predict)

    def __init__(self, backend: Backend) -> None:
        self.backend: str = backend

    def load(self, train: Ratings, config: Config) -> Dealt:
        laid = grid(train, config)
        w_u, w_i = penalty_weights(train, config)
        pulls, idle = [], []
        for weights, counts, order in ((w_u, train.user_counts, laid.user_of), (w_i, train.item_counts, laid.item_of)):
            # No step reads the number of a row without ratings.
            pull = 2 * config.reg * len(train) * weights / np.maximum(counts, 1)  # Eq. 29
            pulls.append(pull[order].astype(config.numpy_dtype))
            idle.append(np.flatnonzero(counts[order] == 0))
        return Dealt(laid, w_u[laid.user_of], w_i[laid.item_of], *pulls, *idle)

    def start(self, state: State, whole: Dealt, config: Config) -> SgdState:
        tensors = {name: _dealt(theta, name, whole.grid) for name, theta in state.params.tensors().items()}
        params = state.params.with_tensors(tensors)
        if sgd.rule_of(config) == sgd.PLAIN:
            velocity = {name: theta[:0] for name, theta in tensors.items()}
        elif state.velocity is None:
            velocity = {name: np.zeros_like(theta) for name, theta in tensors.items()}
        else:
            velocity = {name: _dealt(v, name, whole.grid) for name, v in state.velocity.items()}
        return SgdState(params, velocity, state.epoch, whole)

    def batches(self, whole: Dealt, epoch: int, config: Config) -> Iterator[Dealt]:
        yield whole

    def step(self, state: SgdState, batch: Dealt, config: Config) -> SgdState:
        """An epoch: every rating once; then the cut points, if there are any (Eq. 59)."""
        order = np.random.default_rng([config.seed, state.epoch + 1]).permutation(batch.grid.side)
        penalised = penalty(state.params, batch.w_u, batch.w_i, config.reg)
        epoch = _epoch_in_loops if self.backend == "loops" else _epoch
        with np.errstate(over="ignore", invalid="ignore"):
            loss, squared_error = epoch(state, batch, order, config)
            _shrink_idle(state.params, batch, config, config.lr_at(state.epoch + 1))
            if state.params.cuts is not None:
                sums = _tally_in_loops if self.backend == "loops" else _tally
                cuts = grades.settled(state.params.cuts, *sums(state.params, state.params.cuts, batch.grid))
                state = replace(state, params=replace(state.params, cuts=cuts))
        return replace(state, objective=loss / len(batch) + penalised, squared_error=squared_error)

    def seen(self, state: SgdState) -> tuple[float, float]:
        return state.objective, state.squared_error

    def next_epoch(self, state: SgdState) -> SgdState:
        return replace(state, epoch=state.epoch + 1)

    def synchronize(self) -> None:
        return None

    def export(self, state: SgdState) -> State:
        laid = state.whole.grid
        moving = any(v.size for v in state.velocity.values())
        memory = Memory({name: _undealt(v, name, laid) for name, v in state.velocity.items()}) if moving else None
        return State(_undealt_params(state.params, laid), memory, state.epoch)


def _shrink_idle(params: Params, whole: Dealt, config: Config, lr: float) -> None:
    """An epoch's N steps of the penalty on rows that no rating meets, as one implicit step: it cannot overshoot 0."""
    for name, theta in params.tensors().items():
        if name == "t":
            continue
        idle, weights = (whole.idle_u, whole.w_u) if name in ("P", "b") else (whole.idle_i, whole.w_i)
        if not len(idle):
            continue
        shrunk = 1 / (1 + lr * len(whole) * 2 * config.reg * weights[idle])
        theta[idle] *= shrunk.reshape(-1, *[1] * (theta.ndim - 1)).astype(theta.dtype)


def _order(name: str, laid: Grid) -> Array:
    return laid.user_of if name in ("P", "b") else laid.item_of


def _dealt(theta: Array, name: str, laid: Grid) -> Array:
    if name == "t":
        return theta.copy()
    out = aligned_empty(theta.shape, theta.dtype)
    np.take(theta, _order(name, laid), axis=0, out=out)
    return out


def _undealt(theta: Array, name: str, laid: Grid) -> Array:
    if name == "t":
        return theta.copy()
    out = np.empty_like(theta)
    out[_order(name, laid)] = theta
    return out


def _undealt_params(params: Params, laid: Grid) -> Params:
    return params.with_tensors({name: _undealt(theta, name, laid) for name, theta in params.tensors().items()})


def _epoch(state: SgdState, whole: Dealt, order: Array, config: Config) -> tuple[float, float]:
    laid, params, speed = whole.grid, state.params, state.velocity
    as_type = params.P.dtype.type
    none, biased = np.empty(0, params.P.dtype), params.b is not None
    losses, squares = np.empty((laid.side, laid.side)), np.empty((laid.side, laid.side))
    sgd.epoch_kernel(form(params.shape[2]), sgd.rule_of(config), int(params.cuts is not None))(
        order, laid.begins, laid.user_bounds, laid.item_bounds, laid.users, laid.items, laid.values,
        params.P, params.Q, params.b if biased else none, params.c if biased else none,
        speed["P"], speed["Q"], speed.get("b", none), speed.get("c", none), as_type(params.mu), biased,
        whole.pull_u, whole.pull_i, as_type(config.lr_at(state.epoch + 1)), as_type(config.momentum),
        as_type(weight_of_gradient(config)), config.momentum_form == "nesterov",
        loss_kind(config), as_type(config.loss_scale), losses, squares,
        *cutting.tables(params.cuts, params.P.dtype), cutting.nothing_yet(params.cuts, laid.side),
    )  # fmt: skip
    return float(losses.sum()), float(squares.sum())


def _tally(params: Params, cuts: Cuts, laid: Grid) -> tuple[Array, Array, Array]:
    """`mf_numpy.grades.tally` of all ratings."""
    b, c, biased = biases(params)
    sums = cutting.nothing_yet(cuts, laid.side)
    cutting.tally_kernel(form(params.shape[2]))(
        laid.begins, laid.user_bounds, laid.item_bounds, laid.users, laid.items, laid.values,
        params.P, params.Q, b, c, params.P.dtype.type(params.mu), biased, *cutting.tables(cuts, params.P.dtype), sums,
    )  # fmt: skip
    total = sums.sum(axis=0)
    return total[cutting.SLOPE, :-1], total[cutting.BEND, :-1], total[cutting.COUNT]


def _epoch_in_loops(state: SgdState, whole: Dealt, order: Array, config: Config) -> tuple[float, float]:
    """The same epoch, one number at a time and in float64."""
    laid, params = whole.grid, state.params
    lr, beta = config.lr_at(state.epoch + 1), config.momentum
    loss = square = 0.0
    for diagonal in order:
        for share in range(laid.side):
            other = (share + int(diagonal)) % laid.side
            block = share * laid.side + other
            for k in range(laid.begins[block], laid.begins[block + 1]):
                u = int(laid.user_bounds[share]) + int(laid.users[k])
                i = int(laid.item_bounds[other]) + int(laid.items[k])
                p, q = [float(x) for x in params.P[u]], [float(x) for x in params.Q[i]]
                predicted, value = _predicted(params, u, i), float(laid.values[k])
                if params.cuts is None:
                    cost, e, error = loops.loss_and_residual(predicted, value, config)
                else:
                    cost, e, error, _ = loops.of_grade(predicted, value, params.cuts)
                loss += cost
                square += error**2
                r_u, r_i = float(whole.pull_u[u]), float(whole.pull_i[i])
                moves: list[tuple[str, tuple[int, ...], float]] = []
                moves += [("P", (u, f), e * q[f] + r_u * p[f]) for f in range(len(p))]  # Eq. 29
                moves += [("Q", (i, f), e * p[f] + r_i * q[f]) for f in range(len(q))]
                if params.b is not None and params.c is not None:
                    moves += [("b", (u,), e + r_u * float(params.b[u])), ("c", (i,), e + r_i * float(params.c[i]))]
                tensors = params.tensors()
                for name, at, g in moves:
                    step = g
                    if config.step_rule == "adagrad":
                        state.velocity[name][at] += g * g  # Eq. 30
                        step = g / (math.sqrt(state.velocity[name][at]) + FLOOR)  # Eq. 30
                    elif beta:
                        step = beta * float(state.velocity[name][at]) + weight_of_gradient(config) * g  # Eq. 12, Eq. 13
                        state.velocity[name][at] = step
                        if config.momentum_form == "nesterov":
                            step = g + beta * step  # Eq. 14
                    tensors[name][at] -= lr * step
    return loss, square


def _predicted(params: Params, u: int, i: int) -> float:
    predicted = params.mu + sum(float(x) * float(y) for x, y in zip(params.P[u], params.Q[i], strict=True))  # Eq. 1
    if params.b is not None and params.c is not None:
        predicted += float(params.b[u]) + float(params.c[i])
    return predicted


def _tally_in_loops(params: Params, cuts: Cuts, laid: Grid) -> tuple[Array, Array, Array]:
    """The same sums, one number at a time and in float64."""
    points, known = loops.points_of(cuts), [float(x) for x in cuts.grades]
    slopes, bends, counts = np.zeros(len(points)), np.zeros(len(points)), np.zeros(len(known))
    for block in range(laid.side**2):
        for k in range(laid.begins[block], laid.begins[block + 1]):
            u = int(laid.user_bounds[block // laid.side]) + int(laid.users[k])
            i = int(laid.item_bounds[block % laid.side]) + int(laid.items[k])
            score, g = _predicted(params, u, i), known.index(float(laid.values[k]))
            counts[g] += 1
            for at, sign in ((g, -1.0), (g - 1, 1.0)):
                if 0 <= at < len(points):
                    share = loops.behind(sign * (points[at] - score))[1]
                    slopes[at] += sign * share  # Eq. 57
                    bends[at] += share * (1 - share)
    return slopes, bends, counts
