"""What a right gradient and a right optimiser must satisfy: named checks that know the truth in different ways.

Each takes the implementations to be judged, by name, and returns the largest difference found in each of them.
`mf_numpy.safeguards` has those of data and training; `mf_numpy.suite` runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mf_numpy import check, gradients, kernels, loops, model, optim
from mf_numpy.batch import Batch, full_batch, mini_batches
from mf_numpy.check import GRADIENT_TOLERANCE, TRAJECTORY_TOLERANCE, Case, Check, Observe, relative_difference
from mf_numpy.config import Config
from mf_numpy.engine import Engine, NumpyEngine, State
from mf_numpy.model import Params, Tensors
from mf_numpy.objective import Evaluation
from mf_numpy.optim import Memory
from mf_numpy.ratings import Array, Ratings

Moves = Callable[[Config, Array, list[Array], list[float]], list[tuple[Array, Array]]]


@dataclass(frozen=True, eq=False)
class Way:
    """One implementation of the model.

    Attributes:
        evaluate: J, Σ squared errors and ∇J over a batch.
        engine: what trains with it.
        look: what an engine's state shows after a step, as in `mf_numpy.check.ENGINES`.
        moves: parameter and velocity after each of T updates by given gradients (rows, K) and learning rates.
    """

    evaluate: Callable[[Params, Batch, Config], Evaluation]
    engine: Engine[Any]
    look: Observe
    moves: Moves


Ways = Mapping[str, Way]


def _moves_by(update: Callable[..., tuple[Tensors, Memory | None]]) -> Moves:
    def moves(config: Config, theta: Array, grads: list[Array], lrs: list[float]) -> list[tuple[Array, Array]]:
        tensors: Tensors = {"P": theta.copy()}
        memory: Memory | None = None
        seen = []
        for g, lr in zip(grads, lrs, strict=True):
            tensors, memory = update(tensors, memory, {"P": g}, lr, config)
            seen.append((tensors["P"].copy(), (memory.velocity if memory else {"P": g})["P"].copy()))
        return seen

    return moves


def _in_place(
    tensors: Tensors, old: Memory | None, grads: Tensors, lr: float, config: Config
) -> tuple[Tensors, Memory | None]:
    return tensors, kernels.update(tensors, old, grads, lr, config)


WAYS: Ways = {
    "loops": Way(loops.gradient, *check.ENGINES["loops"], _moves_by(loops.update)),
    "numpy": Way(gradients.gradient, *check.ENGINES["numpy"], _moves_by(optim.update)),
    "numba": Way(kernels.gradient, *check.ENGINES["numba"], _moves_by(_in_place)),
}


class Worst:
    """The largest difference of each quantity and way."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self._seen: dict[tuple[str, str], tuple[float, str]] = {}

    def see(self, way: str, quantity: str, mine: Any, expected: Any, where: str) -> None:
        """Compare two arrays of one shape, or two numbers, relative to the largest number expected."""
        self.note(way, quantity, relative_difference(np.asarray(mine), np.asarray(expected)), where)

    def see_all(self, way: str, mine: Mapping[str, Array], expected: Mapping[str, Array], where: str) -> None:
        """Compare arrays by name; one that is missing is a failure."""
        for name, y in expected.items():
            self.see(way, name, mine[name] if name in mine else np.full_like(y, np.nan), y, where)

    def note(self, way: str, quantity: str, difference: float, where: str) -> None:
        """Keep a difference if it is the largest so far; a NaN, once met, stays."""
        check.keep_worst(self._seen, (quantity, way), difference, where)

    def checks(self) -> list[Check]:
        """One `Check` a quantity and way."""
        return [Check("property", q, way, d, self.tolerance, at) for (q, way), (d, at) in self._seen.items()]


def problem(
    seed: int = 0, *, m: int = 9, n: int = 7, size: int = 40, **settings: Any
) -> tuple[Ratings, Params, Config]:
    """Ratings in no order with duplicates, float64 parameters with biases of any size, and a configuration."""
    rng = np.random.default_rng(seed)
    given: dict[str, Any] = {"n_factors": 3, "reg": 0.07, "dtype": "float64", "init_scale": 0.8}
    config = Config(**given | settings)
    users, items = rng.integers(0, m - 1, size), rng.integers(0, n - 1, size)
    ratings = check.suited(Ratings.of_indices(users, items, rng.integers(1, 11, size), m=m, n=n), config)
    params = model.start(ratings, config)
    if params.b is not None:
        params = replace(params, b=rng.normal(size=m), c=rng.normal(size=n))
    return ratings, params, config


def both_penalties(**settings: Any) -> Iterator[tuple[str, Ratings, Params, Config]]:
    """`problem` for both models and penalties, with what to call it."""
    for kind in ("plain", "biased"):
        for penalty in ("total", "per_rating"):
            yield f"{kind}, {penalty}", *problem(model=kind, penalty=penalty, **settings)


def against_loops(ways: Ways) -> list[Check]:
    """Gradient, J and Σ squared errors are those of plain loops."""
    worst = Worst(GRADIENT_TOLERANCE)
    for case in check.cases():
        gold = _numbers(loops.gradient(case.params, case.batch, case.config))
        for name, way in ways.items():
            worst.see_all(name, _numbers(way.evaluate(case.params, case.batch, case.config)), gold, case.name)
    return worst.checks()


def _numbers(seen: Evaluation) -> Tensors:
    return {"J": np.array(seen.objective), "Σ error²": np.array(seen.squared_error), **seen.gradient}


def by_complex_step(ways: Ways) -> list[Check]:
    """Gradient is Im J(θ + ih)/h of the objective as written."""
    return _by_slope(ways, "complex step")


def by_central_difference(ways: Ways) -> list[Check]:
    """Gradient is (J(θ+1) - J(θ-1))/2, exact since a squared loss is quadratic in each parameter."""
    return _by_slope(ways, "central difference")


def _by_slope(ways: Ways, method: str) -> list[Check]:
    worst = Worst(GRADIENT_TOLERANCE)
    for case in check.cases():
        if not check.applies(method, case):
            continue
        gold = check.METHODS[method](case.params, case.batch, case.config)
        for name, way in ways.items():
            worst.see_all(name, way.evaluate(case.params, case.batch, case.config).gradient, gold, case.name)
    return worst.checks()


def along_a_line(ways: Ways) -> list[Check]:
    """⟨∇J, d⟩ is the slope of the same code's own J along d: a quartic, which five points give exactly (Eq. 5)."""
    worst = Worst(1e-10)
    rng = np.random.default_rng(1)
    for case in check.cases():
        if not check.applies("central difference", case):
            continue  # no polynomial
        d = {key: np.array(rng.normal(size=theta.shape)) for key, theta in case.params.tensors().items()}
        for name, way in ways.items():
            slope = gradients.differential(way.evaluate(case.params, case.batch, case.config).gradient, d)
            j = {h: way.evaluate(moved(case, d, h), case.batch, case.config).objective for h in STENCIL}
            worst.see(name, "⟨∇J, d⟩", slope, quartic_slope(j), case.name)
    return worst.checks()


STENCIL = (-1.0, -0.5, 0.5, 1.0)


def moved(case: Case, d: Tensors, h: float) -> Params:
    """The case's parameters, h further along d."""
    return case.params.with_tensors({key: theta + h * d[key] for key, theta in case.params.tensors().items()})


def quartic_slope(values: Mapping[float, Any]) -> Any:
    """The slope at 0 of a polynomial of degree 4 or less, from its values at `STENCIL`; exact to rounding."""
    return (8 * (values[0.5] - values[-0.5]) - (values[1.0] - values[-1.0])) / 6


def worked_example(ways: Ways) -> list[Check]:
    """Three ratings, two of one pair, and two steps of each optimiser, worked out on paper."""
    worst = Worst(GRADIENT_TOLERANCE)
    p, q = np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [-1.0]])
    params = Params(p, q, np.array([0.5, 0.0, -0.5]), np.array([0.0, 1.0]), mu=2.0)
    # r̂ = 4.5, 2.5, 4.5, so E = 1, 3, 5.
    ratings = Ratings.of_indices([2, 0, 2], [0, 1, 0], [4.0, 1.0, 2.0])
    total = {
        "J": 8.75 / 3 + 0.3 * (1.25 + 4 + 9.25 + 1 + 2),
        "P": [[-1 + 0.6], [1.2], [2 + 1.8]],
        "Q": [[6 + 0.6], [1 - 0.6]],
        "b": [1 + 0.3, 0, 2 - 0.3],
        "c": [2, 1 + 0.6],
    }
    per_rating = {
        "J": 8.75 / 3 + 0.1 * (1.25 + 2 * 9.25 + 2 * 1 + 2),
        "P": [[-1 + 0.2], [0], [2 + 1.2]],
        "Q": [[6 + 0.4], [1 - 0.2]],
        "b": [1 + 0.1, 0, 2 - 0.2],
        "c": [2, 1 + 0.2],
    }
    for penalty, expected in (("total", total), ("per_rating", per_rating)):
        config = Config(reg=0.3, penalty=penalty, n_factors=1, dtype="float64")  # type: ignore[arg-type]
        batch = full_batch(ratings, config)
        gold = {key: np.array(value, float) for key, value in expected.items()} | {"Σ error²": np.array(8.75)}
        for name, way in ways.items():
            worst.see_all(name, _numbers(way.evaluate(params, batch, config)), gold, penalty)
    # The second rating alone, error 1.5, under pseudo-Huber with δ = 2: the root is 1.25 (Eq. 17).
    config = Config(reg=0.0, loss="pseudo_huber", loss_scale=2.0, n_factors=1, dtype="float64")
    batch = full_batch(Ratings.of_indices([0], [1], [1.0], m=3, n=2), config)
    bent = {"J": 2.0, "Σ error²": 2.25, "P": [[-2.4], [0], [0]], "Q": [[0], [2.4]], "b": [2.4, 0, 0], "c": [0, 2.4]}
    for name, way in ways.items():
        seen = _numbers(way.evaluate(params, batch, config))
        worst.see_all(name, seen, {key: np.array(value, float) for key, value in bent.items()}, "pseudo-Huber")
    # θ = 1, g = 2 and 4, η = 0.1 and 0.05, β = 0.25.
    for form, thetas, speeds in (
        ("ema", (0.8, 0.625), (2.0, 3.5)),
        ("heavy_ball", (0.8, 0.575), (2.0, 4.5)),
        ("nesterov", (0.75, 0.49375), (2.0, 4.5)),
    ):
        config = Config(momentum=0.25, momentum_form=form, dtype="float64")  # type: ignore[arg-type]
        for name, way in ways.items():
            moved = way.moves(config, np.ones((1, 1)), [np.full((1, 1), 2.0), np.full((1, 1), 4.0)], [0.1, 0.05])
            for k, (theta, v) in enumerate(moved):
                worst.see(name, "θ", theta.item(), thetas[k], f"{form}, step {k + 1}")
                worst.see(name, "v", v.item(), speeds[k], f"{form}, step {k + 1}")
    return worst.checks()


def gauge_identity(ways: Ways) -> list[Check]:
    """Without a penalty J depends on P Qᵀ alone, so Pᵀ ∇P = (Qᵀ ∇Q)ᵀ (Eq. 22)."""
    worst = Worst(1e-10)
    for case in check.cases():
        for name, way in ways.items():
            g = way.evaluate(case.params, case.batch, replace(case.config, reg=0.0)).gradient
            worst.see(name, "Pᵀ∇P", case.params.P.T @ g["P"], g["Q"].T @ case.params.Q, case.name)
    return worst.checks()


def every_rating_twice(ways: Ways) -> list[Check]:
    """The same table twice over has the same J and the same gradient (Eq. 7)."""
    worst = Worst(1e-11)
    for label, ratings, params, config in both_penalties():
        twice = Ratings.of_indices(
            np.tile(ratings.users, 2), np.tile(ratings.items, 2), np.tile(ratings.values, 2),
            m=ratings.n_users, n=ratings.n_items,
        )  # fmt: skip
        for name, way in ways.items():
            once, both = (_numbers(way.evaluate(params, full_batch(r, config), config)) for r in (ratings, twice))
            worst.see_all(name, both, once | {"Σ error²": 2 * once["Σ error²"]}, label)
    return worst.checks()


def exact_minimiser(ways: Ways) -> list[Check]:
    """At each user's exact minimiser, found by least squares, ∇P and ∇b are 0; likewise for items (Eq. 26)."""
    worst = Worst(1e-10)
    for label, ratings, params, config in both_penalties(reg=0.4):
        for side in ("user", "item"):
            at = _minimised(ratings, params, config, side)
            for name, way in ways.items():
                g = way.evaluate(at, full_batch(ratings, config), config).gradient
                for key in {"user": "Pb", "item": "Qc"}[side]:
                    if key in g:
                        worst.see(name, f"∇{key}", g[key], np.zeros_like(g[key]), label)
    return worst.checks()


def _minimised(ratings: Ratings, params: Params, config: Config, side: str) -> Params:
    users, items = (ratings.users, ratings.items) if side == "user" else (ratings.items, ratings.users)
    mine, other = (("P", "b"), ("Q", "c")) if side == "user" else (("Q", "c"), ("P", "b"))
    old = {key: theta.copy() for key, theta in params.tensors().items()}
    n_biases = int(other[1] in old)
    for row in range(len(old[mine[0]])):
        where = users == row
        design = old[other[0]][items[where]]
        wanted = ratings.values[where] - params.mu
        if n_biases:
            design = np.hstack([design, np.ones((len(design), 1))])
            wanted = wanted - old[other[1]][items[where]]
        weight = len(ratings) if config.penalty == "total" else where.sum()
        pull = np.sqrt(config.reg * weight) * np.eye(design.shape[1])
        solved, *_ = np.linalg.lstsq(np.vstack([design, pull]), np.append(wanted, np.zeros(len(pull))), rcond=None)
        old[mine[0]][row] = solved[: config.n_factors]
        if n_biases:
            old[mine[1]][row] = solved[-1]
    return params.with_tensors(old)


def batch_average(ways: Ways) -> list[Check]:
    """J and gradients of the batches of an epoch, weighted by their sizes, average to those of the whole (Eq. 16)."""
    worst = Worst(1e-11)
    for label, ratings, params, config in both_penalties(batch_size=9):
        whole = full_batch(ratings, config)
        for name, way in ways.items():
            gold = _numbers(way.evaluate(params, whole, config))
            sums = {key: np.zeros_like(value) for key, value in gold.items()}
            for batch in mini_batches(whole, 1, config):
                for key, value in _numbers(way.evaluate(params, batch, config)).items():
                    sums[key] = sums[key] + value * (1.0 if key == "Σ error²" else len(batch) / len(whole))
            worst.see_all(name, sums, gold, label)
    return worst.checks()


def trajectories(ways: Ways) -> list[Check]:
    """Loss, E, gradients, velocities and parameters are those of the loops at each of 20 steps; η halves midway."""
    worst = Worst(TRAJECTORY_TOLERANCE)
    numbers, _, _ = problem(1, m=6, n=5, size=25)
    for label, config in check.trajectory_configs():
        ratings = check.suited(numbers, config)
        config = replace(config, n_epochs=20, lr_schedule=((11, 0.5),))
        gold = list(check.trajectory(NumpyEngine("loops"), check.ENGINES["loops"][1], ratings, config))
        for name, way in ways.items():
            if not check.knows(name, config):
                continue
            for at, mine in enumerate(check.trajectory(way.engine, way.look, ratings, config)):
                worst.see_all(name, mine, gold[at], f"{label}, step {at + 1}")
    return worst.checks()


FORMS = {"ema": 0.9, "heavy_ball": 0.8, "nesterov": 0.8}
"""The forms of momentum, with the β they are checked at."""


def constant_gradient(ways: Ways) -> list[Check]:
    """Under a constant gradient the velocity is a geometric sum, whatever η does (Eq. 12 to 14)."""
    worst = Worst(1e-12)
    theta, g = np.array([[1.0, -2.0]]), np.array([[0.3, 0.7]])
    lrs = [0.1] * 4 + [0.05] * 4
    for form, beta in FORMS.items():
        config = Config(momentum=beta, momentum_form=form, dtype="float64")  # type: ignore[arg-type]
        sums = [1.0 if form == "ema" else (1 - beta ** (t + 1)) / (1 - beta) for t in range(len(lrs))]
        steps = [1 + beta * s if form == "nesterov" else s for s in sums]
        for name, way in ways.items():
            for t, (moved, v) in enumerate(way.moves(config, theta, [g] * len(lrs), lrs)):
                worst.see(name, "v", v, sums[t] * g, f"{form}, step {t + 1}")
                far = sum(lr * s for lr, s in zip(lrs[: t + 1], steps, strict=False))
                worst.see(name, "θ", moved, theta - far * g, f"{form}, step {t + 1}")
    return worst.checks()


def unrolled_velocity(ways: Ways) -> list[Check]:
    """Velocity and step are the weighted sum of all gradients so far; η, which halves, is not in the velocity."""
    worst = Worst(1e-10)
    ratings, _, _ = problem(2, m=6, n=5, size=25)
    for form, beta in FORMS.items():
        config = Config(
            momentum=beta, momentum_form=form, n_factors=2, lr=0.15, reg=0.3, dtype="float64", init_scale=0.5,  # type: ignore[arg-type]
            n_epochs=6, lr_schedule=((4, 0.5),),
        )  # fmt: skip
        kept = 1 - beta if form == "ema" else 1.0
        for name, way in ways.items():
            before = model.start(ratings, config).tensors()
            past: list[dict[str, Array]] = []
            for t, now in enumerate(check.trajectory(way.engine, way.look, ratings, config)):
                past.append(now)
                weights = [kept * beta ** (t - s) if s else beta**t for s in range(t + 1)]
                for key, theta in before.items():
                    g = [p[f"gradient {key}"] for p in past]
                    v = sum(w * x for w, x in zip(weights, g, strict=True))
                    step = g[-1] + beta * v if form == "nesterov" else v
                    where = f"{form}, step {t + 1}"
                    worst.see(name, f"velocity {key}", now[f"velocity {key}"], v, where)
                    worst.see(name, key, now[key], theta - config.lr_at(t + 1) * step, where)
                before = {key: now[key] for key in before}
    return worst.checks()


def first_order_decrease(ways: Ways) -> list[Check]:
    """One small first step lowers J by η|∇J|² to first order, in every form of momentum."""
    worst = Worst(1e-4)
    eta = 1e-6
    for label, ratings, params, config in both_penalties(lr=eta):
        for form, beta in ({"": 0.0} | FORMS).items():
            at = replace(config, momentum=beta, momentum_form=form or "ema")  # type: ignore[arg-type]
            far = 1 + beta if form == "nesterov" else 1.0
            for name, way in ways.items():
                whole = way.engine.load(ratings, at)
                state = way.engine.step(way.engine.start(State(params.copy()), whole, at), whole, at)
                before = way.evaluate(params, full_batch(ratings, at), at)
                after = way.evaluate(way.engine.export(state).params, full_batch(ratings, at), at)
                square = sum(float((g**2).sum()) for g in before.gradient.values())
                fall = (before.objective - after.objective) / (eta * far)
                worst.see(name, "fall of J", fall, square, f"{label}, {form or 'gradient descent'}")
    return worst.checks()
