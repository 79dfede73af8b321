"""Whether an engine goes the way of the Numba backend in its first steps, asked before the engine is timed.

Compared are J and, after the last step, parameters and velocities, by their largest entries as in `bench.equality`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bench import equality
from bench.cases import learning_rate
from mf_numpy import Config, Ratings
from mf_numpy.engine import State
from mf_numpy.model import Tensors, start
from mf_numpy.solvers import engine_for

Json = dict[str, Any]

STEPS = 2
"""The first gradient, and the gradient where it led."""


def config_of(train: Ratings, n_factors: int) -> Config:
    """What every system is given: the biased model in float32, by steps that suit the table's shape."""
    lr = learning_rate(train, 0.3)
    return Config(n_factors=n_factors, lr=lr, reg=0.1, penalty="per_rating", momentum=0.9, momentum_form="nesterov")


@dataclass(frozen=True, eq=False)
class Way:
    """The first steps: J before each, and every number after the last.

    Attributes:
        objectives: J of each step.
        arrays: parameters and velocities by name.
        bound: how far a float32 engine may be from here, or None where that was not asked.
    """

    objectives: list[float]
    arrays: Tensors
    bound: float | None = None

    def distance(self, other: Way) -> float:
        """The largest relative difference from `other`; inf where a number is not finite."""
        steps = equality.relative_each(list(self.objectives), list(other.objectives))
        return max(equality.relative(self.arrays, other.arrays), *steps)


def way_of(engine: Any, state: Any, whole: Any, config: Config) -> tuple[Any, Way]:
    """The engine's state after `STEPS` iterations over all ratings, and what was seen on the way."""
    objectives = []
    for _ in range(STEPS):
        state = engine.step(state, whole, config)
        objectives.append(float(engine.seen(state)[0]))
        state = engine.next_epoch(state)
    point = engine.export(state)
    return state, Way(objectives, point.params.tensors() | {f"velocity of {k}": v for k, v in point.velocity.items()})


def begun(engine: Any, train: Ratings, config: Config) -> tuple[Any, Any]:
    """All ratings as the engine wants them, and its state at the start."""
    whole = engine.load(train, config)
    return whole, engine.start(State(start(train, config)), whole, config)


def expected(train: Ratings, config: Config) -> Way:
    """The float64 steps of the Numba backend, and how far from them a float32 engine may be.

        bound = SAFETY · max(d, eps32)

    where d is the distance of the Numba backend's own float32 steps: what this many roundings of this problem make. As
    in `bench.equality.bound`, `SAFETY` covers that another engine rounds otherwise, and adds up in another order.
    """

    def by_hand(config: Config) -> Way:
        engine = engine_for(config, "numba")
        whole, state = begun(engine, train, config)
        return way_of(engine, state, whole, config)[1]

    exact = by_hand(replace(config, dtype="float64"))
    drift = max(by_hand(replace(config, dtype="float32")).distance(exact), equality.EPS["float32"])
    return replace(exact, bound=equality.SAFETY * drift)


def loosened(wanted: Way, engine: Any, train: Ratings, config: Config) -> Way:
    """`expected` for engines that compute something coarser on purpose, as `engine` is known to do it.

    The bound is `SAFETY` times the distance that this engine's own steps have.
    """
    whole, state = begun(engine, train, config)
    return replace(wanted, bound=equality.SAFETY * way_of(engine, state, whole, config)[1].distance(wanted))


def verdict(found: Way, wanted: Way) -> Json:
    """{passed, difference, bound, n_steps}."""
    difference = found.distance(wanted)
    assert wanted.bound is not None
    return {
        "passed": difference <= wanted.bound,
        "difference": difference,
        "bound": wanted.bound,
        "n_steps": len(wanted.objectives),
    }


def reason(check: Json) -> str:
    """Why a check that has not passed keeps its engine from being timed."""
    return (
        f"before timing, after {check['n_steps']} steps: off by {check['difference']:.2e} from the Numba backend, but "
        f"at most {check['bound']:.2e} is allowed"
    )
