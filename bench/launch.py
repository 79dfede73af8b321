"""Starting a case in a fresh process, and making a reason of whatever becomes of it."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
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

IDLE_LIMIT = 20.0
"""Seconds without any work of the processor after which a case counts as hung."""

HUNG = "hung: no processor time for"
"""How the reason of a case begins that waited for nothing."""

LOOK = 1.0
"""Seconds from one look at a running case to the next."""

MEMORY_SHARE = 0.9
"""Share of the machine's memory that a case may take: beyond it the system would end some process, this one perhaps."""

_running: set[subprocess.Popen[Any]] = set()


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
    command: list[str],
    variables: Mapping[str, str],
    errors_to: Path,
    target: Path,
    limit: float | None = None,
    *,
    idle_limit: float = IDLE_LIMIT,
    memory_limit: float | None = None,
) -> str | None:
    """Run a worker from the checkout and wait for it; Ctrl-C ends it, with all that it started.

    Args:
        variables: its whole environment.
        errors_to: the file that receives what it prints.
        target: the file that it should leave behind.
        limit: seconds after which it counts as hung; by default `TIME_LIMIT`.
        idle_limit: seconds without processor time after which it does; needs psutil.
        memory_limit: bytes that it may hold, with all that it started; by default `MEMORY_SHARE` of the machine's;
            needs psutil.

    Returns:
        Why there is no result, with the last line it printed, or None.
    """
    limit = TIME_LIMIT if limit is None else limit
    if memory_limit is None:
        memory_limit = MEMORY_SHARE * (machine.memory() or float("inf"))
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
        _running.add(process)
        try:
            ended = _watched(process, limit, idle_limit, memory_limit)
        finally:
            _running.discard(process)
            _end(process)
        if ended is not None:
            return ended
        errors.seek(0)
        last = errors.read().strip().splitlines()[-1:]
    code = process.returncode
    return ": ".join([_meaning(code), *last]) if code != 0 or not target.exists() else None


def end_all() -> None:
    """End every worker that `run_to_end` waits for in some thread."""
    for process in list(_running):
        _end(process)


def _end(process: subprocess.Popen[Any]) -> None:
    """End a worker with all that it started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _watched(process: subprocess.Popen[Any], limit: float, idle_limit: float, memory_limit: float) -> str | None:
    """Wait for a process; why it has to be ended, or None once it has ended by itself."""
    began = at = time.monotonic()
    spent, idle = 0.0, 0.0
    while True:
        try:
            process.wait(timeout=max(0.0, min(LOOK, began + limit - at)))
            return None
        except subprocess.TimeoutExpired:
            before, at = at, time.monotonic()
        if at >= began + limit:
            return f"no result after {limit:g} s"
        use = _use(process.pid)
        if use is None:
            continue
        seconds, held = use
        if held > memory_limit:
            return f"it took {held / 2**30:.3g} GiB of memory, and may take {memory_limit / 2**30:.3g}"
        # While the machine slept, or this process was stopped, nobody could work.
        idle += min(at - before, 2 * LOOK)
        # A thread that waits and looks now and then uses a little.
        if abs(seconds - spent) > 0.01 * idle:
            spent, idle = seconds, 0.0
        elif idle >= idle_limit:
            return f"{HUNG} {idle_limit:g} s"


def _use(pid: int) -> tuple[float, int] | None:
    """Processor seconds and resident bytes of a process and all below it; None without psutil, or once it is gone."""
    try:
        psutil = importlib.import_module("psutil")
    except ImportError:
        return None
    seconds, held = 0.0, 0
    try:
        first = psutil.Process(pid)
        for each in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.Error), each.oneshot():
                seconds += sum(each.cpu_times()[:4])
                held += each.memory_info().rss
    except psutil.Error:
        return None
    return seconds, held


def _failed(reason: str) -> Json:
    return {"status": "failed", "reason": reason}


def _meaning(code: int) -> str:
    if code >= 0:
        return f"the worker ended with code {code}"
    try:
        return f"the worker was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the worker was ended by signal {-code}"
