"""One way of one of our solvers to a target in a process of its own, for `bench.race`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from bench import worker
from bench.energy import Meter
from mf_numpy import Config, model
from mf_numpy.engine import State
from mf_numpy.metrics import score
from mf_numpy.solvers import engine_for

Json = dict[str, Any]


def run_case(order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """The process's answer for one of our solvers: its points, until the validation RMSE is at or below ``until``."""
    train, valid = worker.load_data(folder / order["data"])
    config = Config(**order["config"])
    engine = engine_for(config, "numba")
    for _warm_up in (True, False):
        points: list[Json] = []
        meter = Meter()
        # Energy outside the seconds, which it must not lengthen.
        meter.go()
        began = time.perf_counter()
        whole = engine.load(train, config)
        state = engine.start(State(model.start(train, config)), whole, config)
        spent = time.perf_counter() - began
        meter.stop()
        for epoch in range(1, 2 if _warm_up else config.n_epochs + 1):
            meter.go()
            began = time.perf_counter()
            for batch in engine.batches(whole, epoch, config):
                state = engine.step(state, batch, config)
            state = engine.next_epoch(state)
            spent += time.perf_counter() - began
            meter.stop()
            if epoch in order["epochs"]:
                found = score(engine.export(state).params, valid, train.mean, engine.predict)
                points.append({"epochs": epoch, "seconds": spent, "joules": meter.joules, "rmse": found.rmse})
                points[-1] |= {"mae": found.mae, "rmse_all": found.rmse_all}
                if found.rmse <= order["until"] or _risen(points):
                    break
    return {"status": "ok", "reason": None, "points": points}, {}


def _risen(points: list[Json], patience: int = 4) -> bool:
    """Whether the best of the points is so long ago that none better will come."""
    best = min(range(len(points)), key=lambda k: float(points[k]["rmse"]))
    return len(points) - 1 - best >= patience


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], run_case))
