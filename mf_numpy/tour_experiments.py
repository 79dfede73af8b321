"""What the tour shows, computed by the package's own functions. Nothing is drawn here, and nothing needs PyTorch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any

import numba
import numpy as np

from mf_numpy import check, curvature, gauge, gradients, kernels, optim
from mf_numpy.baselines import mean_and_bias_scores
from mf_numpy.batch import Batch, full_batch
from mf_numpy.check import Observe
from mf_numpy.config import Config, MomentumForm
from mf_numpy.engine import Engine
from mf_numpy.model import Params, Tensors
from mf_numpy.planted import PlantedConfig, planted
from mf_numpy.ratings import Array, Ratings
from mf_numpy.split import random_split
from mf_numpy.train import fit

_ONE_AT_A_TIME = RLock()


@contextmanager
def working() -> Iterator[None]:
    """Hold this while computing: a fault put into the package is seen by every page that one server shows.

    Numba gets one thread: for tables of this size, sharing them out costs more than it saves.
    """
    with _ONE_AT_A_TIME:
        before = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            yield
        finally:
            numba.set_num_threads(before)


CLASSROOM = PlantedConfig(n_users=150, n_items=80, n_ratings=3_000, n_factors=3, factor_sd=1.3, noise=0.8, clip=False)
"""A table so small that a moved slider answers at once."""

NAMELESS = PlantedConfig(n_users=400, n_items=120, n_ratings=12_000, n_factors=2, factor_sd=1.3, noise=0.8, clip=False)
"""Items to place by two factors where no titles are at hand."""

RULES: dict[str, tuple[MomentumForm, bool]] = {
    "gradient descent": ("ema", False),
    "ema (Eq. 12)": ("ema", True),
    "heavy ball (Eq. 13)": ("heavy_ball", True),
    "Nesterov (Eq. 14)": ("nesterov", True),
}
"""The update rules by name: the form, and whether β counts."""


@working()
def differences(ratings: Ratings, config: Config, twin: tuple[Engine[Any], Observe], n_steps: int) -> Array:
    """The largest relative difference of the twin from the hand-written version after each step, (n_steps,).

    Over loss, E, gradients, velocities and parameters, as in `mf_numpy.check`; they end where one is not finite.
    """
    by_hand = check.trajectory(*check.ENGINES["numpy"], ratings, config)
    other = check.trajectory(*twin, ratings, config)
    out: list[float] = []
    with np.errstate(all="ignore"):
        for _, mine, theirs in zip(range(n_steps), by_hand, other, strict=False):
            worst = max(check.relative_difference(theirs[name], mine[name]) for name in mine)
            if not math.isfinite(worst):
                break
            out.append(worst)
    return np.array(out)


@dataclass(frozen=True)
class OneRating:
    """One user, one item and one rating, before and after a step of plain gradient descent (N = 1, λ = 0).

    Attributes:
        p, q: the factors (2,) as they are.
        step_p, step_q: -η∇, (2,) each.
        rating: r.
    """

    p: Array
    q: Array
    step_p: Array
    step_q: Array
    rating: float

    @property
    def predicted(self) -> tuple[float, float]:
        """r̂ before and after (Eq. 1)."""
        return float(self.p @ self.q), float((self.p + self.step_p) @ (self.q + self.step_q))

    @property
    def residual(self) -> tuple[float, float]:
        """E before and after (Eq. 3)."""
        before, after = self.predicted
        return 2 * (before - self.rating), 2 * (after - self.rating)

    @property
    def loss(self) -> tuple[float, float]:
        """(r̂ - r)² before and after."""
        before, after = self.residual
        return (before / 2) ** 2, (after / 2) ** 2


def one_rating(p: Sequence[float], q: Sequence[float], rating: float, lr: float) -> OneRating:
    """The step that Eq. 6 gives for a table of one rating."""
    config = Config(model="plain", n_factors=2, reg=0.0, momentum=0.0, dtype="float64")
    params = Params(np.array([p], float), np.array([q], float))
    seen = gradients.gradient(params, full_batch(Ratings.of_indices([0], [0], [rating]), config), config).gradient
    return OneRating(params.P[0], params.Q[0], -lr * seen["P"][0], -lr * seen["Q"][0], rating)


@dataclass(frozen=True)
class Path:
    """Where a rule went on the surface.

    Attributes:
        points: (T + 1, 2) values of p and q, the start first.
        loss: J at each, (T + 1,).
    """

    points: Array
    loss: Array


def surface(rating: float, reg: float, extent: float, n: int = 121) -> tuple[Array, Array]:
    """J of one rating with K = 1 (Eq. 2) on a square: the grid's axis (n,), and J (n, n) with q down the rows."""
    axis = np.linspace(-extent, extent, n)
    p, q = axis[None, :], axis[:, None]
    return axis, (p * q - rating) ** 2 + reg * (p**2 + q**2)


def path(rule: str, begin: tuple[float, float], rating: float, config: Config, n_steps: int) -> Path:
    """`n_steps` updates of p and q by `mf_numpy.optim.update` with Eq. 6 as the gradient.

    A path ends early where J is past 10⁶: it does not come back.
    """
    form, with_momentum = RULES[rule]
    config = replace(config, momentum_form=form, momentum=config.momentum if with_momentum else 0.0)
    batch = full_batch(Ratings.of_indices([0], [0], [rating]), config)
    tensors: Tensors = {"P": np.array([[begin[0]]]), "Q": np.array([[begin[1]]])}
    memory: optim.Memory | None = None
    points, losses = [], []
    for _ in range(n_steps + 1):
        seen = gradients.gradient(Params(tensors["P"], tensors["Q"]), batch, config)
        points.append((tensors["P"].item(), tensors["Q"].item()))
        losses.append(seen.objective)
        if not seen.objective < 1e6:
            break
        tensors, memory = optim.update(tensors, memory, seen.gradient, config.lr, config)
    return Path(np.array(points), np.array(losses))


def least(rating: float, reg: float) -> tuple[float, float]:
    """Where that J is least: p = q (up to signs), and J there. With λ ≥ |r| the penalty wins, and it is at 0."""
    squared = max(abs(rating) - reg, 0.0)
    return math.sqrt(squared), (squared - abs(rating)) ** 2 + 2 * reg * squared


@dataclass(frozen=True, eq=False)
class Minimum:
    """A trained model, and what Eq. 21 needs to know of it.

    Attributes:
        params: where J is least, to rounding.
        batch: the ratings it was trained on.
        config: with the penalty and model it was trained with.
        curvature: L, the largest eigenvalue of ∇²J there.
        steepest: the direction of that eigenvalue, in the parameters' shapes, of length 1.
    """

    params: Params
    batch: Batch
    config: Config
    curvature: float
    steepest: Tensors


@working()
def minimum() -> Minimum:
    """Train a small biased model until nothing moves, and measure the curvature there."""
    ratings = planted(PlantedConfig(n_users=30, n_items=20, n_ratings=300, n_factors=2, clip=False)).ratings
    config = Config(
        n_factors=2, reg=0.1, lr=2.0, momentum=0.95, momentum_form="nesterov", n_epochs=1_000, dtype="float64",
        init_scale=0.5,
    )  # fmt: skip
    result = fit(ratings, config, backend="numpy")
    batch = full_batch(ratings, config)
    steepest = {name: np.ones_like(theta) for name, theta in result.params.tensors().items()}
    for _ in range(300):
        steepest = _unit(curvature.hessian_vector(result.params, steepest, batch, config))
    largest = curvature.largest_curvature(result.params, batch, config)
    return Minimum(result.params, batch, config, largest, steepest)


@working()
def departures(at: Minimum, config: Config, lr: float, n_steps: int) -> Array:
    """|θ - θ*| after each step over what it was at the start, (n_steps + 1,): from a small push along the steepest
    direction, by `mf_numpy.optim.update`; infinity from where it is past 10¹²."""
    push = 1e-6
    start = at.params.tensors()
    tensors = {name: theta + push * at.steepest[name] for name, theta in start.items()}
    memory: optim.Memory | None = None
    out = np.full(n_steps + 1, np.inf)
    for step in range(n_steps + 1):
        out[step] = _length({name: tensors[name] - theta for name, theta in start.items()}) / push
        if not out[step] < 1e12:
            out[step:] = np.inf
            break
        grads = kernels.gradient(at.params.with_tensors(tensors), at.batch, at.config).gradient
        tensors, memory = optim.update(tensors, memory, grads, lr, config)
    return out


@dataclass(frozen=True, eq=False)
class End:
    """One end of an axis: the items furthest out, and the genres that are commoner there than among all."""

    axis: int
    sign: int
    titles: tuple[str, ...]
    genres: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TitleMap:
    """Items placed by two factors whose axes are determined (Eq. 22, 24).

    Attributes:
        titles: of the items with the most ratings, (k,).
        places: their item factors, (k, 2) in √rating.
        ends: what stands at the four ends of the two axes, of the `n_known` items with the most ratings.
        strength: the two singular values of P Qᵀ, in rating units times √(mn).
        rmse: on a tenth of the ratings that was held out: of this model, and of biases alone.
    """

    titles: tuple[str, ...]
    places: Array
    ends: tuple[End, ...]
    n_known: int
    strength: tuple[float, float]
    rmse: tuple[float, float]


@working()
def title_map(ratings: Ratings, *, n_shown: int = 30, n_known: int = 300) -> TitleMap:
    """Train a biased model with K = 2 and turn its factors to `mf_numpy.gauge.canonical`."""
    split = random_split(ratings, valid=0.1)
    # A row's share of the ratings, and with it the curvature of its block (Eq. 19), falls as the tables grow.
    lr = min(40.0, min(ratings.n_users, ratings.n_items) / 25)
    config = Config(n_factors=2, reg=0.03, lr=lr, momentum_form="nesterov", n_epochs=150)
    result = fit(split.train, config)
    params = gauge.canonical(result.params)
    info = split.train.item_info
    raw = np.asarray(split.train.item_ids.raw)
    order = np.argsort(-split.train.item_counts, kind="stable")
    known = order[:n_known]
    if info is None:
        titles = [f"item {i}" for i in raw]
        genres = [""] * len(raw)
    else:
        named = info.reindex(raw).fillna("")
        titles = [title or f"item {i}" for title, i in zip(named["title"], raw, strict=True)]
        genres = list(named["genres"])
    ends = tuple(_end(params.Q, known, titles, genres, axis, sign) for axis in (0, 1) for sign in (1, -1))
    strength = np.linalg.norm(params.Q, axis=0) ** 2
    shown = order[:n_shown]
    return TitleMap(
        tuple(titles[i] for i in shown), params.Q[shown], ends, len(known), (float(strength[0]), float(strength[1])),
        (result.score(split.valid).rmse, mean_and_bias_scores(split.train, split.valid)["bias-only"].rmse),
    )  # fmt: skip


def _end(factors: Array, known: Array, titles: list[str], genres: list[str], axis: int, sign: int) -> End:
    outward = known[np.argsort(-sign * factors[known, axis], kind="stable")]
    near = outward[: max(len(known) // 6, 1)]
    here, everywhere = (Counter(g for i in part for g in genres[i].split(", ") if g) for part in (near, known))
    lift = {g: count / len(near) - everywhere[g] / len(known) for g, count in here.items()}
    common = sorted((g for g in lift if lift[g] > 0.1), key=lambda g: -lift[g])
    return End(axis, sign, tuple(titles[i] for i in outward[:6]), tuple(common[:3]))


def _unit(tensors: Tensors) -> Tensors:
    length = _length(tensors)
    return {name: theta / length for name, theta in tensors.items()}


def _length(tensors: Tensors) -> float:
    return math.sqrt(sum(float((theta**2).sum()) for theta in tensors.values()))
