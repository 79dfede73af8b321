"""What solvers that go where a gradient is zero must satisfy (Eq. 26, 31 and 32): named checks beside `properties`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mf_numpy import gradients
from mf_numpy.batch import full_batch
from mf_numpy.check import Check
from mf_numpy.config import Config
from mf_numpy.engine import Backend
from mf_numpy.model import Params
from mf_numpy.objective import objective
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Ratings
from mf_numpy.sgd_checks import after_epochs

_SOLVERS: dict[str, dict[str, Any]] = {
    "als": {"solver": "als"},
    "als, 2 steps": {"solver": "als", "cg_steps": 2},
    "cd": {"solver": "cd"},
    "cd, twice": {"solver": "cd", "inner_sweeps": 2},
    "als, all pairs": {"solver": "als", "loss": "all_pairs", "loss_scale": 0.4, "model": "plain"},
}
_BACKENDS: tuple[Backend, ...] = ("numba", "loops")


def sweeps_in_loops(ways: Ways) -> list[Check]:
    """Two epochs by the kernels are those row by row, or number by number, in float64."""
    worst = Worst(1e-9)
    for label, ratings, params, config in _problems(_SOLVERS):
        mine, theirs = (after_epochs(backend, ratings, params, config, 2).params for backend in _BACKENDS)
        worst.see_all("numba", mine.tensors(), theirs.tensors(), label)
    return worst.checks()


def slope_after_a_sweep(ways: Ways) -> list[Check]:
    """What moved last has no slope: of als the items' rows (Eq. 26), of cd the items' last factor (Eq. 31)."""
    worst = Worst(1e-9)
    exact = {name: _SOLVERS[name] for name in ("als", "cd", "cd, twice", "als, all pairs")}
    # As many steps as there are numbers in a row (Eq. 32).
    exact["als, all steps"] = {"solver": "als", "cg_steps": 4}
    for label, ratings, params, config in _problems(exact):
        for backend in _BACKENDS:
            here = after_epochs(backend, ratings, params, config, 1).params
            slope = gradients.gradient(here, full_batch(ratings, config), config).gradient
            if config.solver == "cd":
                worst.see(backend, "Q", slope["Q"][:, -1], np.zeros(len(here.Q)), label)
                continue
            for name in {"Q", "c"} & slope.keys():
                worst.see(backend, name, slope[name], np.zeros_like(slope[name]), label)
    return worst.checks()


def at_rest_in_the_end(ways: Ways) -> list[Check]:
    """Epoch by epoch J falls, to where no parameter has a slope."""
    worst = Worst(1e-6)
    for label, ratings, params, config in _problems(_SOLVERS, reg=0.5):
        batch, here = full_batch(ratings, config), params
        levels = [objective(params, batch, config)]
        for _ in range(12):
            here = after_epochs("numba", ratings, here, config, 50).params
            levels.append(objective(here, batch, config))
        rises = np.maximum(np.diff(levels), 0)
        worst.see("numba", "rise of J", rises, np.zeros_like(rises), label)
        slope = gradients.gradient(here, batch, config).gradient
        worst.see_all("numba", slope, {name: np.zeros_like(g) for name, g in slope.items()}, label)
    return worst.checks()


def _problems(solvers: dict[str, dict[str, Any]], **settings: Any) -> Iterator[tuple[str, Ratings, Params, Config]]:
    """`problem` for both models and penalties, with rows and columns without a rating."""
    for name, given in solvers.items():
        for kind, penalty in (("plain", "total"), ("biased", "per_rating")):
            about: dict[str, Any] = {"model": kind, "penalty": penalty, "reg": 0.02}
            yield f"{name}, {kind}, {penalty}", *problem(3, size=60, **about | given | settings)
