"""Every way to the gradient, side by side: loops, NumPy, Numba, complex step, central difference.

`mf_torch.check` adds autograd. Differences are relative: max|x - y| / max|y| over a tensor, y from `loops`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mf_numpy import gradients, kernels, loops, losses, model
from mf_numpy.batch import Batch, full_batch
from mf_numpy.config import Config
from mf_numpy.engine import Engine, NumpyEngine, State
from mf_numpy.model import Params, Tensors
from mf_numpy.objective import objective
from mf_numpy.optim import Memory
from mf_numpy.ratings import Array, Ratings

GRADIENT_TOLERANCE = 1e-12
TRAJECTORY_TOLERANCE = 1e-10
N_STEPS = 200

OTHER_LOSSES = {
    "pseudo_huber": "pseudo-Huber",
    "logistic": "logistic",
    "poisson": "Poisson",
    "all_pairs": "all pairs",
}
"""All losses of single pairs but the squared one, as cases are called after them."""

Method = Callable[[Params, Batch, Config], Tensors]
Observe = Callable[[Any, Any, Config], dict[str, Array]]


@dataclass(frozen=True)
class Check:
    """One comparison: the largest difference found over all cases (and steps).

    Attributes:
        kind: ``gradient``, ``trajectory`` or ``property``.
        quantity: ``P``, ``Q``, ``b``, ``c``, or ``objective``, ``E``, ``gradient P``, ``velocity P``, ...
        method: what was compared, with the loops or with what the property asks.
        difference: relative; NaN counts as a failure.
        tolerance: what `difference` may not exceed.
        where: the case of the largest difference.
    """

    kind: str
    quantity: str
    method: str
    difference: float
    tolerance: float
    where: str

    @property
    def ok(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.difference <= self.tolerance


@dataclass(frozen=True, eq=False)
class Case:
    """A small problem in float64 on which every method must agree."""

    name: str
    params: Params
    batch: Batch
    config: Config


def suited(ratings: Ratings, config: Config) -> Ratings:
    """The same pairs with ratings that the loss is made for: 0 and 1 where it takes no others, each pair once."""
    if config.loss == "all_pairs":
        pairs = ratings.users.astype(np.int64) * ratings.n_items + ratings.items
        return ratings.take(np.sort(np.unique(pairs, return_index=True)[1]))
    if config.loss != "logistic":
        return ratings
    return replace(ratings, values=(ratings.values > np.median(ratings.values)).astype(np.float64))


def cases(seed: int = 0) -> Iterator[Case]:
    """Plain and biased × both penalties × empty rows, duplicates, a single rating; sorted and not; every loss."""
    rng = np.random.default_rng(seed)
    m, n = 9, 7
    tables = {
        "empty user and item": (rng.integers(1, m, 30), rng.integers(0, n - 1, 30)),
        "duplicate pairs": (rng.integers(0, 3, 40), rng.integers(0, 2, 40)),
        "single rating": (np.array([4]), np.array([3])),
    }
    for kind in ("plain", "biased"):
        for penalty in ("total", "per_rating"):
            config = Config(model=kind, penalty=penalty, n_factors=3, reg=0.07, dtype="float64", init_scale=0.8)
            for name, (users, items) in tables.items():
                ratings = Ratings.of_indices(users, items, rng.integers(1, 11, len(users)), m=m, n=n)
                params = model.start(ratings, config)
                if params.b is not None and params.c is not None:
                    params = replace(params, b=rng.normal(size=m), c=rng.normal(size=n))
                whole = full_batch(ratings, config)
                yield Case(f"{kind}, {penalty}, {name}", params, whole, config)
                shuffled = rng.permutation(len(whole))
                batch = Batch(whole.users[shuffled], whole.items[shuffled], whole.values[shuffled], whole.shape)
                yield Case(f"{kind}, {penalty}, {name}, unsorted", params, batch, config)
                if name == "empty user and item":
                    for loss, label in OTHER_LOSSES.items():
                        if loss == "all_pairs" and kind == "biased":
                            continue
                        given = replace(config, loss=loss, loss_scale=1.5)  # type: ignore[arg-type]
                        other = suited(ratings, given)
                        start = params if params.b is None else replace(params, mu=model.start(other, given).mu)
                        whole = full_batch(other, given)
                        at = shuffled if len(other) == len(ratings) else np.arange(len(other))[::-1]
                        batch = Batch(whole.users[at], whole.items[at], whole.values[at], whole.shape)
                        yield Case(f"{kind}, {penalty}, {name}, {label}", start, whole, given)
                        yield Case(f"{kind}, {penalty}, {name}, unsorted, {label}", start, batch, given)


def graded(seed: int = 2) -> Iterator[Case]:
    """Grades, with cut points that have left their start: both models and penalties, sorted and not, two and many."""
    rng = np.random.default_rng(seed)
    for kind, penalty, n_grades in (("plain", "total", 2), ("biased", "per_rating", 5), ("biased", "total", 9)):
        config = Config(
            model=kind, penalty=penalty, loss="ordinal", n_factors=3, reg=0.07, dtype="float64", init_scale=0.8,  # type: ignore[arg-type]
        )  # fmt: skip
        drawn = np.append(np.arange(n_grades), rng.integers(0, n_grades, 30)) / 2 + 1
        ratings = Ratings.of_indices(rng.integers(1, 9, len(drawn)), rng.integers(0, 6, len(drawn)), drawn, m=9, n=7)
        start = model.start(ratings, config)
        shaken = {name: theta + 0.4 * rng.normal(size=theta.shape) for name, theta in start.tensors().items()}
        params, whole, at = start.with_tensors(shaken), full_batch(ratings, config), rng.permutation(len(drawn))
        yield Case(f"{kind}, {penalty}, {n_grades} grades", params, whole, config)
        batch = Batch(whole.users[at], whole.items[at], whole.values[at], whole.shape)
        yield Case(f"{kind}, {penalty}, {n_grades} grades, unsorted", params, batch, config)


def knows(method: str, config: Config) -> bool:
    """Whether a method has the loss: ``fused`` takes no cut points."""
    return method != "fused" or config.loss != "ordinal"


def complex_step(params: Params, batch: Batch, config: Config) -> Tensors:
    """∂J/∂θ = Im J(θ + ih)/h for every parameter: exact to rounding, since nothing is subtracted."""
    step = 1e-30

    def slope(name: str, at: tuple[int, ...]) -> float:
        moved = {key: theta.astype(complex) for key, theta in params.tensors().items()}
        moved[name][at] += 1j * step
        return complex(objective(params.with_tensors(moved), batch, config)).imag / step

    return _each_parameter(params, slope)


def central_difference(params: Params, batch: Batch, config: Config) -> Tensors:
    """(J(θ+1) - J(θ-1))/2 for every parameter: a squared loss is quadratic in each one, so nothing is truncated."""

    def slope(name: str, at: tuple[int, ...]) -> float:
        values: list[float] = []
        for h in (1.0, -1.0):
            moved = {key: theta.copy() for key, theta in params.tensors().items()}
            moved[name][at] += h
            values.append(objective(params.with_tensors(moved), batch, config))
        return (values[0] - values[1]) / 2

    return _each_parameter(params, slope)


def _each_parameter(params: Params, slope: Callable[[str, tuple[int, ...]], float]) -> Tensors:
    return {
        name: np.array([slope(name, at) for at in np.ndindex(*theta.shape)]).reshape(theta.shape)
        for name, theta in params.tensors().items()
    }


METHODS: Mapping[str, Method] = {
    "loops": lambda params, batch, config: loops.gradient(params, batch, config).gradient,
    "numpy": lambda params, batch, config: gradients.gradient(params, batch, config).gradient,
    "numba": lambda params, batch, config: kernels.gradient(params, batch, config).gradient,
    "complex step": complex_step,
    "central difference": central_difference,
}


def applies(method: str, case: Case) -> bool:
    """Whether a method is exact for a case: the central difference is so for the squared loss only."""
    return knows(method, case.config) and (method != "central difference" or case.config.loss == "squared")


def observe(state: State, batch: Batch, config: Config, backend: str = "numpy") -> dict[str, Array]:
    """What a trajectory is compared by, after a step: loss and gradient it saw, and E, velocity, parameters now."""
    assert state.evaluation is not None
    if backend == "loops":
        errors = loops.residuals(state.params, batch, config)
    else:
        predict = kernels.predict if backend == "numba" else model.predict
        errors = losses.residual(
            predict(state.params, batch.users, batch.items), batch.values, config, state.params.cuts
        )
    seen = {"objective": np.array(state.evaluation.objective), "E": errors}
    return seen | by_name(state.evaluation.gradient, state.memory, state.params.tensors())


def by_name(gradient: Tensors, memory: Memory | None, params: Tensors) -> dict[str, Array]:
    """The tensors of one step under the names that the table shows; what stands for a velocity is called one."""
    seen = {f"gradient {name}": g for name, g in gradient.items()}
    if memory is not None:
        seen |= {f"velocity {name}": v for name, v in memory.velocity.items()}
        seen |= {f"second {name}": s for name, s in (memory.second or {}).items()}
    return seen | params


ENGINES: Mapping[str, tuple[Engine[Any], Observe]] = {
    name: (NumpyEngine(name), lambda state, batch, config, name=name: observe(state, batch, config, name))  # type: ignore[misc]
    for name in ("loops", "numpy", "numba")
}


def trajectory_configs() -> Iterator[tuple[str, Config]]:
    """Every form of momentum in both models and penalties, and the other rules; η halves midway."""
    forms = {"gradient descent": ("ema", 0.0), "ema": ("ema", 0.9), "heavy ball": ("heavy_ball", 0.8)}
    for name, (form, beta) in (forms | {"nesterov": ("nesterov", 0.8)}).items():
        for kind, penalty in (("plain", "total"), ("biased", "per_rating")):
            yield (
                f"{name}, {kind}, {penalty}",
                Config(
                    model=kind, penalty=penalty, momentum_form=form, momentum=beta,  # type: ignore[arg-type]
                    n_factors=2, lr=0.15, reg=0.02, dtype="float64", init_scale=0.5, n_epochs=N_STEPS,
                    lr_schedule=((N_STEPS // 2, 0.5),),
                ),
            )  # fmt: skip
        if name == "nesterov":
            huber = Config(
                loss="pseudo_huber", loss_scale=2.0, momentum_form="nesterov", momentum=beta, lr=0.15, reg=0.02,
                n_factors=2, dtype="float64", init_scale=0.5, n_epochs=N_STEPS, lr_schedule=((N_STEPS // 2, 0.5),),
            )  # fmt: skip
            yield "nesterov, biased, per_rating, pseudo-Huber", huber
            yield "nesterov, biased, per_rating, logistic", replace(huber, loss="logistic", reg=0.005)
            yield "nesterov, biased, per_rating, ordinal", replace(huber, loss="ordinal", reg=0.005)
    for rule, kind, penalty in (("adam", "biased", "per_rating"), ("adagrad", "plain", "total")):
        yield (
            f"{rule}, {kind}, {penalty}",
            Config(
                model=kind, penalty=penalty, step_rule=rule, n_factors=2, lr=0.1, reg=0.02, dtype="float64",  # type: ignore[arg-type]
                init_scale=0.5, n_epochs=N_STEPS, lr_schedule=((N_STEPS // 2, 0.5),),
            ),
        )  # fmt: skip


def check_gradients(methods: Mapping[str, Method] = METHODS) -> list[Check]:
    """Compare each method's gradient with the loops', tensor by tensor, on all `cases` and those `graded`."""
    worst: dict[tuple[str, str], tuple[float, str]] = {}
    for case in (*cases(), *graded()):
        gold = METHODS["loops"](case.params, case.batch, case.config)
        for method, gradient in methods.items():
            if not applies(method, case):
                continue
            mine = gradient(case.params, case.batch, case.config)
            for name, expected in gold.items():
                keep_worst(worst, (name, method), relative_difference(mine[name], expected), case.name)
    return [Check("gradient", name, method, d, GRADIENT_TOLERANCE, at) for (name, method), (d, at) in worst.items()]


def check_trajectories(engines: Mapping[str, tuple[Engine[Any], Observe]] = ENGINES) -> list[Check]:
    """Compare loss, E, gradients, velocities and parameters with the loops' at every one of `N_STEPS` steps."""
    rng = np.random.default_rng(1)
    numbers = Ratings.of_indices(rng.integers(0, 6, 25), rng.integers(0, 5, 25), rng.integers(1, 6, 25), m=6, n=5)
    worst: dict[tuple[str, str], tuple[float, str]] = {}
    for label, config in trajectory_configs():
        ratings = suited(numbers, config)
        gold = list(trajectory(*ENGINES["loops"], ratings, config))
        for method, (engine, look) in engines.items():
            if not knows(method, config):
                continue
            for at, (mine, expected) in enumerate(zip(trajectory(engine, look, ratings, config), gold, strict=True)):
                for name in expected:
                    # A quantity that is missing, such as a velocity never kept, is a failure: NaN.
                    difference = relative_difference(mine[name], expected[name]) if name in mine else float("nan")
                    keep_worst(worst, (name, method), difference, f"{label}, step {at + 1}")
    return [Check("trajectory", name, method, d, TRAJECTORY_TOLERANCE, at) for (name, method), (d, at) in worst.items()]


def trajectory(engine: Engine[Any], look: Observe, ratings: Ratings, config: Config) -> Iterator[dict[str, Array]]:
    """What `look` sees after each full-batch step, ``config.n_epochs`` of them."""
    whole = engine.load(ratings, config)
    state = engine.start(State(model.start(ratings, config)), whole, config)
    for _ in range(config.n_epochs):
        state = engine.step(state, whole, config)
        yield {name: np.array(value) for name, value in look(state, whole, config).items()}
        state = engine.next_epoch(state)


def relative_difference(mine: Array, expected: Array) -> float:
    """max|mine - expected| / max|expected|; absolute where nothing but 0 is expected; NaN if anything is."""
    if mine.shape != expected.shape:
        raise ValueError(f"shapes {mine.shape} and {expected.shape} differ, so the tensors cannot be compared")
    if expected.size == 0:
        return 0.0
    scale = float(np.abs(expected).max())
    return float(np.abs(mine - expected).max()) / (scale if scale > 0 else 1.0)


def keep_worst(
    worst: dict[tuple[str, str], tuple[float, str]], key: tuple[str, str], difference: float, where: str
) -> None:
    """Keep a difference and its place if it is the largest of its key so far; a NaN, once met, stays."""
    if key not in worst or not (math.isnan(worst[key][0]) or difference <= worst[key][0]):
        worst[key] = difference, where
