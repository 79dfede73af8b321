"""Runs the tests on one mutant after another, in copies of the checkout, in children forked from a warm parent.

A fresh interpreter takes seconds to load NumPy, Numba and PyTorch; a forked child has them. It imports the project
anew from its copy, so that nothing of an earlier mutant is left.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutation.mutants import Mutant

# Seconds beyond the test's own time. Processor seconds end an endless loop however busy the machine is;
# seconds on the clock end a mutant that waits for what never comes, at the second try, for the machine may have slept.
_PROCESSOR_LIMIT, _CLOCK_LIMIT = 5.0, 120.0
_MEMORY = 8 << 30
_LIMITS = (signal.SIGPROF, signal.SIGALRM)
_NOTES = "notes.txt"


@dataclass(frozen=True)
class Settings:
    """What is mutated and what judges it, all paths relative to `root`; see `settings.toml`."""

    root: Path
    modules: list[str]
    copy: list[str]
    warm: list[str]
    tests: list[str]
    options: list[str]


@dataclass(frozen=True)
class Verdict:
    """What the tests said of a mutant.

    Attributes:
        outcome: ``killed``, ``survived`` or ``timeout``; a timeout is a test that noticed, too.
        by: the test that noticed; empty for a survivor.
        seconds: processor time, which other work on the machine does not stretch.
    """

    outcome: str
    by: str
    seconds: float


class BaselineError(Exception):
    """The tests fail before anything is mutated."""


class _Watch:
    """A pytest plugin: tests that kill and cost little first, a time limit for each, and which test failed first."""

    def __init__(self, costs: dict[str, float], kills: dict[str, int], notes: Path) -> None:
        self.costs, self.kills = costs, kills
        self.notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.seen: dict[str, float] = {}
        self.begin = 0.0

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: self.costs.get(item.nodeid, 1.0) / (1 + 20 * self.kills.get(item.nodeid, 0)))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        cost = self.costs.get(nodeid, 60.0)
        signal.setitimer(signal.ITIMER_PROF, _PROCESSOR_LIMIT + 5 * cost)
        signal.setitimer(signal.ITIMER_REAL, _CLOCK_LIMIT + 20 * cost)
        self._tell(f"?{nodeid}")
        self.begin = time.process_time()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.seen[nodeid] = time.process_time() - self.begin

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._tell(f"!{report.nodeid}")

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._tell(f"!{report.nodeid or 'collection'}")

    def _tell(self, line: str) -> None:
        os.write(self.notes, (line + "\n").encode())


class Judge:
    """Copies of the checkout and the children that run tests in them.

    Args:
        settings: what to copy and which tests to run.
        scratch: an empty folder for the copies.
        jobs: how many tests run at a time.
    """

    def __init__(self, settings: Settings, scratch: Path, jobs: int) -> None:
        self.settings, self.scratch, self.jobs = settings, scratch, jobs
        self.costs: dict[str, float] = {}
        self.loaded: list[str] = []
        self.kills: dict[str, int] = {}
        self.snapshot = scratch / "0"
        os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        for name in ["pytest", *settings.warm]:
            importlib.import_module(name)
        if "numba" in settings.warm:
            # The first call sets up Numba's compiler; a serial function starts no threads, which no fork survives.
            sys.modules["numba"].njit(lambda x: x)(1)
        # What is loaded by now is left alone by the children's garbage collector.
        gc.freeze()

    def prepare(self) -> float:
        """Copy the checkout, run the tests unmutated, note what each costs and loads; returns the seconds it took.

        Raises:
            BaselineError: with the tests' output.
        """
        begin, first, log = time.monotonic(), self.snapshot, self.scratch / "baseline.txt"
        for name in self.settings.copy:
            source = self.settings.root / name
            if source.is_dir():
                shutil.copytree(source, first / name, ignore=shutil.ignore_patterns("*.pyc", ".*"))
            else:
                shutil.copy2(source, first / name)
        self.originals = {name: (first / name).read_text(encoding="utf-8") for name in self.settings.modules}
        notes = self.scratch / "baseline.json"
        _, status = os.waitpid(self._fork(first, log, notes), 0)
        if status:
            raise BaselineError(log.read_text())
        self.costs, self.loaded = json.loads(notes.read_text())
        # Compiled files of mutated modules would stand in for a mutant of the same size and second.
        for module in map(Path, self.settings.modules):
            for compiled in (first / module.parent / "__pycache__").glob(f"{module.stem}.*.pyc"):
                compiled.unlink()
        for k in range(1, self.jobs):
            shutil.copytree(first, self.scratch / str(k))
        return time.monotonic() - begin

    def judge(self, mutants: Iterable[Mutant]) -> Iterator[tuple[Mutant, Verdict]]:
        """Each mutant with its verdict, as they finish."""
        waiting, free = list(mutants)[::-1], list(range(self.jobs))
        tried_again: set[Mutant] = set()
        running: dict[int, tuple[Mutant, Path, int]] = {}
        try:
            while True:
                while free and waiting:
                    mutant, slot = waiting.pop(), free.pop()
                    folder = self.scratch / str(slot)
                    (folder / mutant.module).write_text(mutant.source, encoding="utf-8")
                    running[self._fork(folder)] = mutant, folder, slot
                if not running:
                    return
                pid, status, used = os.wait3(0)
                mutant, folder, slot = running.pop(pid)
                (folder / mutant.module).write_text(self.originals[mutant.module], encoding="utf-8")
                free.append(slot)
                if _ended_by(status) == signal.SIGALRM and mutant not in tried_again:
                    tried_again.add(mutant)
                    waiting.append(mutant)
                    continue
                yield mutant, self._verdict(folder, status, used.ru_utime + used.ru_stime)
        finally:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _verdict(self, folder: Path, status: int, seconds: float) -> Verdict:
        if status == 0:
            return Verdict("survived", "", seconds)
        lines = (folder / _NOTES).read_text().splitlines()
        by = next((line[1:] for line in lines if line.startswith("!")), lines[-1][1:] if lines else "import")
        self.kills[by] = self.kills.get(by, 0) + 1
        return Verdict("timeout" if _ended_by(status) in _LIMITS else "killed", by, seconds)

    def _fork(self, folder: Path, log: Path = Path(os.devnull), baseline: Path | None = None) -> int:
        """A child that runs the tests in `folder`; with `baseline`, the unmutated run, which leaves its notes there."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            status = self._run(folder, log, baseline)
        finally:
            os._exit(status)

    def _run(self, folder: Path, log: Path, baseline: Path | None) -> int:
        import pytest

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, *_LIMITS):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, 600 if baseline else 60)
        signal.setitimer(signal.ITIMER_REAL, 3600 if baseline else 600)
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        sys.path[:0] = [str(folder)]
        own = {Path(name).stem for name in self.settings.copy}
        for name in [name for name in sys.modules if name.split(".")[0] in own]:
            del sys.modules[name]
        importlib.invalidate_caches()
        sys.dont_write_bytecode = baseline is None
        self._steady_hypothesis()
        watch = _Watch(self.costs, self.kills, folder / _NOTES)
        options = ["-q", "-p", "no:cacheprovider", "--assert=plain", f"--rootdir={folder}", *self.settings.options]
        code = pytest.main([*options, *([] if baseline else ["-x", "--tb=no"]), *self.settings.tests], [watch])
        if baseline:
            files = [Path(getattr(module, "__file__", None) or "/") for module in list(sys.modules.values())]
            loaded = sorted(f.relative_to(folder).as_posix() for f in files if f.is_relative_to(folder))
            baseline.write_text(json.dumps([watch.seen, loaded]))
        return int(code)

    def _steady_hypothesis(self) -> None:
        """The same examples for every mutant, and none of them made smaller once one fails."""
        if "hypothesis" in sys.modules:
            from hypothesis import HealthCheck, Phase, settings

            phases = [Phase.explicit, Phase.generate]
            settings.register_profile(
                "mutation", derandomize=True, database=None, phases=phases, suppress_health_check=list(HealthCheck)
            )
            settings.load_profile("mutation")


def _ended_by(status: int) -> int | None:
    """The signal that ended a child, if one did."""
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
