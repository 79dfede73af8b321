"""One fit of one of ours in a process of its own, for `bench.accuracy`: predictions of the pairs that are held out."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from bench import designs, machine, worker
from bench.energy import Meter
from mf_numpy import Config, Holdout, Ratings, averaging, losses
from mf_numpy.config import SAMPLERS
from mf_numpy.design import Design
from mf_numpy.designed import design_engine
from mf_numpy.engine import OfFeatures
from mf_numpy.posterior import RunningMean
from mf_numpy.ratings import Array
from mf_numpy.result import EpochRecord

Json = dict[str, Any]

PATIENCE = 4
"""Points of a curve after its best at which a fit is stopped."""


class _Metered(worker.Recorder):
    """A recorder that counts the energy of the epochs, which lie between its exports, as their seconds do."""

    def __init__(self, engine: Any, epochs: list[int]) -> None:
        super().__init__(engine, epochs)
        self.meter = Meter()

    def export(self, state: Any) -> Any:
        self.meter.stop()
        point = super().export(state)
        self.meter.go()
        return point


class _MeteredDesign(OfFeatures, _Metered):
    """The same of an engine whose states hold parameters of features."""

    def __init__(self, engine: Any, epochs: list[int]) -> None:
        super().__init__(engine, epochs)
        self.design = engine.design


def run_case(order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """The process's answer for one of ours: its points, and the predictions of the pairs that are not cold at each."""
    train, held_out = worker.load_data(folder / order["data"])
    config = Config.from_dict(order["config"])
    scale = order["scale"] and tuple(order["scale"])
    design = designs.read(folder, order["design"]) if "design" in order else None
    fitted(train, held_out, _short(config), order["backend"], [1], scale, design)
    members = [
        fitted(train, held_out, replace(config, seed=config.seed + k), order["backend"], order["epochs"], scale, design)
        for k in range(order.get("members", 1))
    ]
    points, predictions = together(members, held_out, scale) if len(members) > 1 else members[0]
    out = {"status": "ok", "reason": None, "points": points, "peak_bytes": machine.peak_memory()}
    if not points:
        out |= {"status": "failed", "reason": "it diverged before the first of the epochs that are scored"}
    return out, {str(epoch): p for epoch, p in predictions.items()}


def together(
    members: list[tuple[list[Json], dict[int, Array]]], held_out: Holdout, scale: tuple[float, float] | None
) -> tuple[list[Json], dict[int, Array]]:
    """Points and predictions of the mean of several fits, at the epochs that all of them have; costs add up."""
    epochs = sorted(set.intersection(*(set(predictions) for _, predictions in members)))
    mean = {epoch: np.mean([predictions[epoch] for _, predictions in members], axis=0) for epoch in epochs}
    at = [{point["epochs"]: point for point in points} for points, _ in members]
    return [
        {
            "epochs": epoch,
            "seconds": sum(points[epoch]["seconds"] for points in at),
            "joules": _sum([points[epoch]["joules"] for points in at]),
            "rmse": _rmse(mean[epoch], held_out, scale),
        }
        for epoch in epochs
    ], mean


def _sum(parts: list[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _rmse(predicted: Array, held_out: Holdout, scale: tuple[float, float] | None) -> float:
    square = np.square((predicted if scale is None else np.clip(predicted, *scale)) - held_out.values[held_out.known])
    return float(np.sqrt(square.mean()))


def _short(config: Config) -> Config:
    """Of one epoch, which compiles what the fit needs."""
    return Config.from_dict(config.to_dict() | {"n_epochs": 1})


def fitted(
    train: Ratings,
    held_out: Holdout,
    config: Config,
    backend: str,
    epochs: list[int],
    scale: tuple[float, float] | None,
    design: Design | None = None,
) -> tuple[list[Json], dict[int, Array]]:
    """Points and predictions at some epochs, until the RMSE has long been rising.

    A point is {epochs, seconds, joules, rmse}; the machine's joules are None where it does not count them.
    """
    from mf_numpy.train import run

    engine: Any = _engine(config, backend) if design is None else design_engine(design, config, cast(Any, backend))
    recorder = (_Metered if design is None else _MeteredDesign)(engine, list(range(1, config.n_epochs + 1)))
    known = held_out.known
    users, items = held_out.users[known], held_out.items[known]
    rows = None if design is None else engine.rows
    chain = RunningMean(users, items, config, rows=rows) if config.solver in SAMPLERS else None
    points: list[Json] = []
    predictions: dict[int, Array] = {}
    spent, average = 0.0, None

    def keep(epoch: int) -> None:
        params = replace(recorder.points[epoch], average=average).averaged
        if chain is None:
            of_rows = params if rows is None else rows(params)
            scores = np.asarray(engine.predict(of_rows, users, items), np.float64)
            predicted = losses.mean_of(scores, config, params.cuts)
        else:
            predicted = chain.predicted
        cost = {"seconds": spent, "joules": recorder.meter.joules}
        points.append({"epochs": epoch, **cost, "rmse": _rmse(predicted, held_out, scale)})
        predictions[epoch] = predicted

    def each(record: EpochRecord) -> bool:
        nonlocal spent, average
        began = time.perf_counter()
        average = averaging.after(average, recorder.points[record.epoch].params, record.epoch, config)
        # A mean over epochs is a part of training.
        spent += record.seconds + time.perf_counter() - began
        if chain is not None:
            chain.see(recorder.points[record.epoch].params, record.epoch, engine.predict)
        if record.epoch in epochs:
            keep(record.epoch)
        # Parameters take room; the last ones are for a fit that ends by itself.
        for old in [epoch for epoch in recorder.points if epoch < record.epoch]:
            del recorder.points[old]
        # What was scored here is no part of training.
        recorder.meter.go()
        return len(points) > PATIENCE and _best(points) < len(points) - PATIENCE

    found = run(cast(Any, recorder), train, config, callback=each)
    if found.status == "converged" and found.history[-1].epoch not in predictions:
        keep(found.history[-1].epoch)
    return points, predictions


def _best(points: list[Json]) -> int:
    return min(range(len(points)), key=lambda k: float(points[k]["rmse"]))


def _engine(config: Config, backend: str) -> Any:
    if backend == "torch":
        return worker.engine_for("torch", "cpu")
    from mf_numpy.solvers import engine_for

    return engine_for(config, cast(Any, backend))


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], run_case))
