"""The fits of an accuracy run: in which order, which settings won, how long one may take and the rest will."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.launch import Json
from bench.systems import System

LIMIT, LEAST_LIMIT = 900.0, 60.0
"""Seconds of a system's first fit; of a later one ten times its longest so far, within the two."""


@dataclass(frozen=True)
class Step:
    """One fit of the plan: a point of the grid, or the best point on a test."""

    system: System
    fold: int | None = None
    point: int | None = None

    @property
    def key(self) -> str:
        """Its name in the file."""
        what = f"point {self.point}" if self.fold is None else f"test {self.fold}"
        return f"{self.system.name}, {what}"


def plan(systems: tuple[System, ...], folds: int) -> list[Step]:
    """Every fit: the grid of every system, then the tests of every system."""
    return [
        *(Step(system, point=k) for system in systems for k in range(len(system.grid))),
        *(Step(system, fold=k) for system in systems for k in range(folds)),
    ]


def tuned(system: System, cases: Json) -> Json | None:
    """The settings and number of epochs with the lowest validation RMSE, and all that was tried; None without any."""
    tried = []
    for k in range(len(system.grid)):
        one = cases.get(Step(system, point=k).key)
        if one and one["status"] == "ok":
            curve = [[p["epochs"], p["seconds"], p["rmse"]] for p in one["points"]]
            tried.append({"settings": one["settings"], "curve": curve})
    points = [(rmse, epochs, one["settings"]) for one in tried for epochs, _, rmse in one["curve"]]
    if not points:
        return None
    rmse, epochs, settings = min(points, key=lambda point: point[:2])
    return {"settings": settings, "epochs": epochs, "rmse": rmse, "tried": tried}


def limit_of(system: System, cases: Json) -> float:
    """Seconds that the next fit may take: a library that hangs now and then must not hold up the rest."""
    took = [
        float(one["wall_s"])
        for key, one in cases.items()
        if key.startswith(f"{system.name}, ") and one["status"] == "ok" and "wall_s" in one
    ]
    return min(LIMIT, max(LEAST_LIMIT, 10 * max(took))) if took else LIMIT


def left(steps: list[Step], cases: Json, beside: int = 1) -> str:
    """How long the steps that are left may take, by those of the same kind that are done.

    Args:
        beside: how many points of grids are fitted at once.
    """
    took: dict[bool, list[float]] = {True: [], False: []}
    for key, one in cases.items():
        if "wall_s" in one:
            took[", point " in key].append(one["wall_s"])
    every = took[True] + took[False]
    if not every:
        return ""
    seconds = sum(
        statistics.mean(took[step.fold is None] or every) / (beside if step.fold is None else 1)
        for step in steps
        if step.key not in cases
    )
    return f", about {max(1, round(seconds / 60))} min left"
