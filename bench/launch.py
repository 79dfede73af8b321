"""Starting a case in a fresh process, and making a reason of whatever becomes of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.cases import Case
from mf_numpy.ratings import Array

Json = dict[str, Any]
Launch = Callable[[Case, Json, Path], tuple[Json, dict[str, Array]]]
"""Runs one case: (case, what its CASE.json holds, folder of the data) → its outcome, and arrays by ``epoch/name``."""

TIME_LIMIT = 1800.0
"""Seconds after which a case counts as hung."""


def in_fresh_process(
    case: Case, order: Json, folder: Path, module: str = "bench.worker", limit: float | None = None
) -> tuple[Json, dict[str, Array]]:
    """Run ``python -m bench.worker`` on one case; never raises for what the worker does. Ctrl-C ends it.

    Args:
        limit: seconds for all of it; by default `TIME_LIMIT`.
    """
    source, target = folder / f"{case.key}.case.json", folder / f"{case.key}.out.json"
    source.write_text(json.dumps(order), encoding="utf-8")
    command = [sys.executable, "-m", module, str(source), str(target)]
    # An earlier turn's answer must not be taken for this one's.
    for old in (target, target.with_suffix(".npz")):
        old.unlink(missing_ok=True)
    failure = run_to_end(
        command, machine.environment(order["threads"], folder / "numba"), folder / f"{case.key}.err", target, limit
    )
    if failure:
        return _failed(failure), {}
    outcome: Json = json.loads(target.read_text(encoding="utf-8"))
    arrays: dict[str, Array] = {}
    if target.with_suffix(".npz").exists():
        with np.load(target.with_suffix(".npz")) as file:
            arrays = {name: file[name] for name in file.files}
    return outcome, arrays


def run_to_end(
    command: list[str], variables: Mapping[str, str], errors_to: Path, target: Path, limit: float | None = None
) -> str | None:
    """Run a worker from the checkout and wait for it; Ctrl-C ends it.

    Args:
        variables: its whole environment.
        errors_to: the file that receives what it prints.
        target: the file that it should leave behind.
        limit: seconds after which it counts as hung; by default `TIME_LIMIT`.

    Returns:
        Why there is no result, with the last line it printed, or None.
    """
    limit = TIME_LIMIT if limit is None else limit
    # A session of its own, so that Ctrl-C reaches this process alone, which then decides.
    with errors_to.open("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            cwd=machine.ROOT,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return f"no result after {limit:g} s"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        errors.seek(0)
        last = errors.read().strip().splitlines()[-1:]
    return ": ".join([_meaning(code), *last]) if code != 0 or not target.exists() else None


def _failed(reason: str) -> Json:
    return {"status": "failed", "reason": reason}


def _meaning(code: int) -> str:
    if code >= 0:
        return f"the worker ended with code {code}"
    try:
        return f"the worker was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the worker was ended by signal {-code}"
