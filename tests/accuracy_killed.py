"""A run of fake systems that is there to be killed: ``python -m tests.accuracy_killed FILE``."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import accuracy, worker
from bench.cases import Case
from bench.launch import Json
from bench.protocols import Protocol, _planted
from bench.systems import System
from mf_numpy.planted import PlantedConfig

PROTOCOL = Protocol(
    name="tiny",
    about="a few drawn ratings",
    scale=None,
    folds=2,
    fold=partial(_planted, PlantedConfig(n_users=40, n_items=30, n_ratings=600, n_factors=1)),
)

SYSTEMS = (
    System("good", tuple({"reg": reg} for reg in (0.1, 0.2, 0.3)), (1, 2, 3), solver="gd"),
    System("worse", ({"reg": 0.9},), (1, 2, 3), solver="als"),
    System("broken", ({"reg": 0.5},), (1,), solver="cd"),
    System("short", ({"reg": 0.7},), (1,), solver="cd"),
)


class Launch:
    """Predictions that are off by as much as the settings say: least with reg = 0.2 after 2 epochs.

    Attributes:
        seen: what was asked for.
    """

    def __init__(self) -> None:
        self.seen: list[Json] = []

    def __call__(self, case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        time.sleep(0.02)
        train, held_out = worker.load_data(folder / order["data"])
        self.seen.append({"data": order["data"], "n": len(train)})
        reg = order["config"]["reg"]
        if reg == 0.5:
            return {"status": "failed", "reason": "out of luck"}, {}
        values = held_out.values[held_out.known]
        off = 0.75 if reg == 0.9 else 0.5 + abs(reg - 0.2)
        arrays = {str(e): values + off + abs(e - 2) for e in order["epochs"]}
        if reg == 0.7:
            arrays = {epoch: predicted[:3] for epoch, predicted in arrays.items()}
        points = [{"epochs": e, "seconds": float(e)} for e in order["epochs"]]
        return {"status": "ok", "reason": None, "points": points, "peak_bytes": 1}, arrays


launch = Launch()

if __name__ == "__main__":
    np.seterr(all="raise")
    accuracy.measure(PROTOCOL, Path(sys.argv[1]), systems=SYSTEMS, threads=1, resume=True, launch=launch)
