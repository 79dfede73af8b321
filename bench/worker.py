"""One case in a process of its own: ``python -m bench.worker CASE.json OUT.json``.

CASE.json sits beside the data it names; OUT.json receives the outcome and OUT.npz the parameters at some epochs.
The thread variables are set by whoever starts the process, before NumPy is loaded.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

Json = dict[str, Any]


class Recorder:
    """An engine that keeps the points which the training loop asks it to export, at chosen epochs."""

    def __init__(self, engine: Any, epochs: list[int]) -> None:
        self._engine = engine
        self._epochs = set(epochs)
        self.points: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def export(self, state: Any) -> Any:
        point = self._engine.export(state)
        if point.epoch in self._epochs:
            self.points[point.epoch] = point
        return point


def engine_for(backend: str, device: str) -> Any:
    """The backend's engine.

    Raises:
        ConfigError: an unknown backend, or a device that torch does not see.
    """
    if backend == "torch":
        from mf_torch.train import TorchEngine

        return TorchEngine(device)
    from bench import engines
    from mf_numpy import Config, solvers

    if backend in engines.HERE:
        return engines.engine(backend)
    # What a fit by gradient descent would take.
    return solvers.engine_for(Config(), cast(Any, backend))


def run_case(order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """Warm one case up, check it, time it.

    Args:
        order: what CASE.json holds: ``case``, ``config``, ``data``, ``check``, ``snapshots``, ``threads``.
        folder: where the data files lie.

    Returns:
        The outcome (``status`` is ``ok``, ``failed`` or ``not run``, with its ``reason``), and arrays by
        ``epoch/name``.
    """
    case = order["case"]
    outcome: Json = {"status": "ok", "reason": None}
    began = time.perf_counter()
    from mf_numpy import Config

    if case["backend"] == "torch":
        absent = _torch_ready(case["device"], order["threads"])
        if absent:
            return {"status": "not run", "reason": absent}, {}
    engine_for(case["backend"], "cpu")
    imported = time.perf_counter()
    train, valid = load_data(folder / order["data"])
    loaded = time.perf_counter()
    # Before the check, which would compile the kernels unseen. Nothing of this fit is kept.
    config = replace(Config.from_dict(order["config"]), dtype=case["dtype"])
    _fit(case, train, valid, replace(config, n_epochs=2), [])
    warm = time.perf_counter()
    outcome["warm_up"] = {"imports_s": imported - began, "data_s": loaded - imported, "first_fit_s": warm - loaded}

    outcome["check"] = check(case, order["check"], folder)
    if not outcome["check"]["passed"]:
        failed = outcome["check"]
        reason = (
            f"before timing, over {failed['n_epochs']} steps: first gradient off by {failed['gradient']:.2e}, "
            f"trajectory by {failed['trajectory']:.2e}, but at most {failed['bound']:.2e} is allowed"
        )
        return outcome | {"status": "failed", "reason": reason}, {}

    result, points = _fit(case, train, valid, config, order["snapshots"])
    outcome["history"] = [asdict(record) for record in result.history]
    if result.status == "diverged":
        outcome |= {"status": "failed", "reason": f"diverged: {result.message}"}
    outcome |= _final(result, train, valid)
    outcome |= _resources(case)
    arrays = {f"{epoch}/{name}": theta for epoch, point in points.items() for name, theta in _tensors(point).items()}
    return outcome, arrays


def check(case: Json, order: Json, folder: Path) -> Json:
    """Compare gradient and trajectory with the float64 reference on a small problem, at every step.

    The first velocity is the first gradient (Eq. 12), so the exported points hold both. The float32 bound comes
    from this backend's own float64 drift on the same problem (for the reference itself, from `loops`).
    """
    from bench import equality
    from mf_numpy import Config

    train, _ = load_data(folder / order["data"])
    config = Config.from_dict(order["config"])
    epochs = list(range(1, config.n_epochs + 1))

    def differences(backend: str, device: str, dtype: str) -> tuple[float, float]:
        made = {"backend": backend, "device": device}
        result, points = _fit(made, train, None, replace(config, dtype=cast(Any, dtype)), epochs)
        if points.keys() != expected.keys():
            return math.inf, math.inf
        gradient = equality.relative(points[1].velocity or {}, expected[1].velocity)
        steps = [equality.relative(_tensors(points[e]) | _velocity(points[e]), wanted[e]) for e in epochs]
        losses = equality.relative_each([r.objective for r in result.history], objectives)
        return gradient, max(*steps, *losses)

    reference, expected = _fit({"backend": "numpy", "device": "cpu"}, train, None, config, epochs)
    if len(expected) != config.n_epochs:
        raise ValueError(f"the check's reference stopped early ({reference.status}: {reference.message})")
    objectives = [record.objective for record in reference.history]
    wanted = {e: _tensors(point) | _velocity(point) for e, point in expected.items()}
    # The reference itself is checked against plain Python: nothing else is as independent of it.
    witness = "loops" if case["backend"] == "numpy" else case["backend"]
    gradient, trajectory = differences(witness, case["device"], "float64")
    drift = max(gradient, trajectory)
    if case["dtype"] == "float32":
        gradient, trajectory = differences(case["backend"], case["device"], "float32")
    limit = equality.bound(case["dtype"], min(drift, equality.FLOAT64_BOUND))
    assert limit is not None
    return {
        "passed": max(gradient, trajectory) <= limit and drift <= equality.FLOAT64_BOUND,
        "gradient": gradient,
        "trajectory": trajectory,
        "bound": limit,
        "float64_drift": drift,
        "n_ratings": len(train),
        "n_epochs": config.n_epochs,
    }


def save_data(path: Path, train: Any, valid: Any) -> None:
    """Write encoded ratings and held-out pairs, so that every case reads the same ones."""
    import numpy as np

    np.savez(
        path, users=train.users, items=train.items, values=train.values, shape=[train.n_users, train.n_items],
        valid_users=valid.users, valid_items=valid.items, valid_values=valid.values,
    )  # fmt: skip


def load_data(path: Path) -> tuple[Any, Any]:
    """The `Ratings` and `Holdout` that `save_data` wrote."""
    import numpy as np

    from mf_numpy import Holdout, Ratings

    with np.load(path) as file:
        m, n = file["shape"].tolist()
        train = Ratings.of_indices(file["users"], file["items"], file["values"], m=m, n=n)
        return train, Holdout(file["valid_users"], file["valid_items"], file["valid_values"])


def _fit(case: Json, train: Any, valid: Any, config: Any, epochs: list[int]) -> tuple[Any, dict[int, Any]]:
    from mf_numpy.train import run

    recorder = Recorder(engine_for(case["backend"], case["device"]), epochs)
    result = run(cast(Any, recorder), train, config, valid=valid)
    return result, recorder.points


def _tensors(point: Any) -> dict[str, Any]:
    tensors: dict[str, Any] = point.params.tensors()
    return tensors


def _velocity(point: Any) -> dict[str, Any]:
    return {f"velocity of {name}": v for name, v in (point.velocity or {}).items()}


def _final(result: Any, train: Any, valid: Any) -> Json:
    from bench.cases import as_holdout

    scores = result.score(valid)
    return {
        "device_name": result.device,
        "final": {
            "train_rmse": result.score(as_holdout(train)).rmse,
            "valid_rmse": scores.rmse,
            "n_scored": scores.n_scored,
            "n_cold": scores.n_cold,
        },
    }


def _torch_ready(device: str, threads: int) -> str | None:
    """Why torch cannot run this case, or None."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        return "no CUDA device"
    return None


def _resources(case: Json) -> Json:
    from bench import machine

    out: Json = {"peak_memory_bytes": machine.peak_memory(), "peak_cuda_bytes": None, "gpu": None}
    out["threads"] = machine.threads_in_use(case["backend"] == "torch")
    out["pools"] = machine.thread_pools()
    if case["device"] == "cuda":
        import torch

        properties = torch.cuda.get_device_properties(0)
        out["peak_cuda_bytes"] = int(torch.cuda.max_memory_allocated())
        out["gpu"] = {"name": properties.name, "memory_bytes": int(properties.total_memory)}
        out["gpu"] |= {"capability": f"{properties.major}.{properties.minor}", "cuda": str(torch.version.cuda)}
    return out


def main(arguments: list[str], run: Callable[[Json, Path], tuple[Json, dict[str, Any]]] = run_case) -> int:
    """Run CASE.json into OUT.json; a case that raises is an outcome with its reason, not a traceback."""
    if len(arguments) != 2:
        print("usage: python -m bench.worker CASE.json OUT.json", file=sys.stderr)
        return 2
    source, target = Path(arguments[0]), Path(arguments[1])
    order = json.loads(source.read_text(encoding="utf-8"))
    arrays: dict[str, Any] = {}
    try:
        outcome, arrays = run(order, source.parent)
    except Exception as error:
        outcome = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    if arrays:
        import numpy as np

        np.savez(target.with_suffix(".npz"), **arrays)
    part = target.with_suffix(".part")
    part.write_text(json.dumps(outcome), encoding="utf-8")
    os.replace(part, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
