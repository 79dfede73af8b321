"""Runs of fake systems that are there to be killed: ``python -m tests.suites_killed SUITE FILE``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from bench import cuda, machine, scaling, speed
from bench.cases import Case
from bench.cuda_cases import Sizes
from bench.launch import Json
from mf_numpy.planted import PlantedConfig, planted

TRAIN = planted(PlantedConfig(n_users=40, n_items=30, n_ratings=600, n_factors=1)).ratings
PAUSE = 0.0
"""Seconds of a case."""


def _epochs(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    time.sleep(PAUSE)
    return {"status": "ok", "reason": None, "samples_ms": [2.0, 4.0, 3.0, 2.0, 5.0], "about": None}, {}


def _peer(name: str, train: Any, settings: Any, **more: Any) -> Json:
    time.sleep(PAUSE)
    if name == "cornac":
        return {"status": "not run", "reason": "not installed"}
    return {"status": "ok", "reason": None, "samples_ms": [6.0] * 5}


def _growing(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    time.sleep(PAUSE)
    memory = dict.fromkeys(("parameter_bytes", "rating_bytes", "peak_bytes", "unsorted_peak_bytes"), 100)
    return {"status": "ok", "reason": None, "samples_ms": {str(n): [3.0] * 5 for n in order["each"]}} | memory, {}


def _rows(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """As the worker: a line for each case, of which the last may be half written when it is killed."""
    with Path(order["rows"]).open("a", encoding="utf-8") as file:
        for one in order["cases"]:
            line = json.dumps(one | {"status": "ok", "reason": None, "samples_ms": [1.0] * 5, "timing": None})
            for part in (line[:20], line[20:] + "\n"):
                file.write(part)
                file.flush()
                time.sleep(PAUSE / 2)
    return {"status": "ok", "reason": None}, {}


def run_speed(path: Path, **more: Any) -> Json:
    """Three rounds of two contests: 18 turns."""
    asked: dict[str, Any] = {"contests": ("gradient", "sgd"), "factors": (3,), "threads": (1,), "rounds": 3}
    return speed.measure(TRAIN, "planted", path=path, **asked | {"launch": _epochs, "peers": _peer} | more)


def run_scaling(path: Path, **more: Any) -> Json:
    """Two solvers at eight sizes: 16 cases."""
    plan = scaling.Plan(ratings=(1000, 2000), factors=(2, 3, 4, 5, 6, 7, 8), n_fixed=1000, k_fixed=2)
    asked: dict[str, Any] = {"solvers": ("gd", "als"), "threads": (1, 2)}
    return scaling.measure(plan, path=path, **asked | {"launch": _growing} | more)


def run_cuda(path: Path, **more: Any) -> Json:
    """The cases that a machine without a GPU has, in a few processes."""
    sizes = Sizes(main=3000, ratings=(1000, 2000), k_main=3, factors=(2,), batches=(500, 1000), k_target=2)
    asked: dict[str, Any] = {"sizes": sizes, "launch": _rows}
    return cuda.measure(path=path, **asked | more)


SUITES: dict[str, Callable[..., Json]] = {"speed": run_speed, "scaling": run_scaling, "cuda": run_cuda}

if __name__ == "__main__":
    # Long enough for whoever kills it to look.
    PAUSE = 0.1
    with mock.patch.object(machine, "others_busy", return_value=0.0):
        SUITES[sys.argv[1]](Path(sys.argv[2]), resume=True)
