"""How good every system's predictions are: tuned on a part of the training ratings, scored once on each test.

``python -m bench run --suite peers`` writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment
    protocol {name, folds, fingerprint}
    identity: what a run must share with a file that it resumes
    complete, cases {key: {status, reason, ...}}: the finished fits, in the order of the plan
    tests [{n_train, n_scored, n_cold, n_users, n_items, fingerprint, noise_floor, baselines {mean, bias-only}}]
    systems [{system, method, licence, version, precision, threads, install_mib, status, reason,
              tuned {settings, epochs, rmse, tried},
              folds [{rmse, mae, rmse_all, seconds, wall_s, peak_bytes, joules}],
              rmse, mae, rmse_all, interval, seconds, behind {interval, p}, by_user, by_item, calibration}]
    pairs [{a, b, rmse {interval, p, adjusted}, mae {...}}]: every two systems, a's error less b's

Every point of a system's grid is fitted to nine tenths of the first test's training ratings and scored on the rest,
at several numbers of epochs, by one thread and beside other points, so that its seconds say little. The best goes to
all tests as it is, and each of their fits has the machine and all threads to itself. A system sees encoded ids and
hands predictions back; all are clipped to the rating scale, and scored here. ``rmse`` is of the squared errors of all
tests together, ``behind`` compares it with the best system's over the same draws, ``adjusted`` allows for the number
of pairs, ``seconds`` is a fit's median over the tests.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import mf_numpy
from bench import designs, machine, scores, worker
from bench.accuracy_plan import LIMIT, Step, left, limit_of, plan, tuned
from bench.accuracy_rows import judged
from bench.cases import Case
from bench.journal import Journal
from bench.launch import HUNG, Json, Launch, end_all, in_fresh_process
from bench.peers.run import fit_peer
from bench.protocols import Fold, Protocol
from bench.systems import SYSTEMS, System
from mf_numpy import Split, random_split
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.ratings import Array

SCHEMA, VERSION = "mf-accuracy", 1
Say = Callable[[str], None]
FitPeer = Callable[..., Json]


@dataclass
class _Bench:
    """What all steps share."""

    protocol: Protocol
    threads: int
    folder: Path
    launch: Launch
    peers: FitPeer
    _folds: dict[int, Fold] = field(default_factory=dict)
    _tuning: Split | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _writing: Lock = field(default_factory=Lock)

    def fold(self, k: int) -> Fold:
        """A test with its training ratings; the same every time."""
        if k not in self._folds:
            self._folds[k] = self.protocol.fold(k)
        return self._folds[k]

    def folds(self) -> list[Fold]:
        """All tests."""
        return [self.fold(k) for k in range(self.protocol.folds)]

    def split(self, fold: int | None) -> Split:
        """What a step trains on and is scored on: without a fold the first training side, divided once more."""
        if fold is not None:
            return self.fold(fold).split
        if self._tuning is None:
            self._tuning = random_split(self.fold(0).split.train, valid=0.1, seed=1)
        return self._tuning

    def data(self, fold: int | None, design: str = "") -> str:
        """The file in the scratch folder that holds a split; written when it is first asked for, with its design.

        Raises:
            ConfigError, DataError: as `designs.make`.
        """
        stem = " ".join(filter(None, ("tuning" if fold is None else f"test-{fold}", design)))
        with self._writing:
            if not (self.folder / f"{stem}.npz").exists():
                split = self.split(fold)
                train, valid = split.train, split.valid
                if design:
                    made = designs.make(design, train, valid)
                    train, valid = made.train, valid if made.valid is None else made.valid
                    designs.save(self.folder, stem, made.design)
                worker.save_data(self.folder / f"{stem}.npz", train, valid)
        return f"{stem}.npz"

    def fit(
        self, system: System, settings: Mapping[str, Any], fold: int | None, epochs: tuple[int, ...], limit: float
    ) -> tuple[Json, dict[int, Array]]:
        """A fit's outcome with ``points`` [{epochs, seconds, rmse, mae, rmse_all}], and the predictions of each.

        A test's fit takes all threads, a point of a grid one.
        """
        split, threads = self.split(fold), 1 if fold is None else self.threads
        began = time.perf_counter()
        if system.solver:
            out, predictions = self._ours(system, settings, fold, epochs, threads)
        else:
            out, predictions = self._theirs(system, settings, split, epochs, threads, limit)
            if str(out["reason"]).startswith(HUNG):
                # What waits for itself now and then may do its work the next time.
                out, predictions = self._theirs(system, settings, split, epochs, threads, limit)
                out["notes"] = [*out.get("notes", []), "hung once, and was begun anew"]
        out["wall_s"] = time.perf_counter() - began
        if out["status"] == "ok":
            try:
                clipped = {k: scores.checked(p, split.valid, self.protocol.scale) for k, p in predictions.items()}
            except ConfigError as error:
                return {"status": "failed", "reason": str(error)}, {}
            for point in out["points"]:
                point |= scores.scores(clipped[point["epochs"]], split.train, split.valid)
            return out, clipped
        return out, {}

    def _ours(
        self, system: System, settings: Mapping[str, Any], fold: int | None, epochs: tuple[int, ...], threads: int
    ) -> tuple[Json, dict[int, Array]]:
        try:
            data = self.data(fold, system.design)
        except (ConfigError, DataError) as error:
            return {"status": "not run", "reason": str(error)}, {}
        order: Json = {
            "config": system.config(settings).to_dict() | {"n_epochs": max(epochs)},
            "backend": system.backend,
            "epochs": epochs,
            "scale": self.protocol.scale,
            "threads": threads,
            "data": data,
            "members": system.members,
        }
        if system.design:
            order["design"] = data.removesuffix(".npz")
        # Fits beside each other must not write the same files.
        case = Case(f"accuracy-{next(self._numbers)}", system.backend, "cpu", "float32")
        out, arrays = self.launch(case, order, self.folder)
        out |= {"version": mf_numpy.__version__, "precision": order["config"]["dtype"], "threads": threads}
        return out, {int(epoch): predictions for epoch, predictions in arrays.items()}

    def _theirs(
        self,
        system: System,
        settings: Mapping[str, Any],
        split: Split,
        epochs: tuple[int, ...],
        threads: int,
        limit: float,
    ) -> tuple[Json, dict[int, Array]]:
        asked = system.settings(settings, threads=threads)
        scale = self.protocol.scale
        out = self.peers(
            system.peer, split.train, split.valid, asked, epochs=epochs, clip=scale, predictions=True, limit=limit
        )
        return out, {point["epochs"]: point.pop("predictions") for point in out.get("points", [])}


def measure(
    protocol: Protocol,
    path: Path,
    *,
    systems: tuple[System, ...] = SYSTEMS,
    threads: int | None = None,
    resume: bool = False,
    launch: Launch | None = None,
    peers: FitPeer = fit_peer,
    say: Say = lambda text: None,
) -> Json:
    """Tune and score every system; `path` grows fit by fit, and holds what is finished whatever happens.

    Ctrl-C keeps what is done; a later run with `resume` goes on from there.

    Args:
        threads: of every system; by default every core.
        resume: go on with the file at `path`.
        launch, peers: how our processes and the peers' are started.

    Raises:
        ConfigError: no system, fewer than one thread, or a file that is there or of another run.
        DataError: the protocol's data set is not here.
    """
    threads = machine.usable_cores() if threads is None else threads
    if not systems or threads < 1:
        raise ConfigError(f"{len(systems)} systems and threads {threads} came; each must be 1 or more")
    steps = plan(systems, protocol.folds)
    with tempfile.TemporaryDirectory(prefix="mf-accuracy-") as scratch:
        start = launch or partial(in_fresh_process, module="bench.accuracy_worker", limit=LIMIT)
        bench = _Bench(protocol, threads, Path(scratch), start, peers)
        journal = Journal(path, _head(bench, systems), resume=resume)
        if journal.outcome["complete"]:
            say(f"{path.name} is complete")
            return journal.outcome
        missing = [step for step in steps if step.key not in journal.cases]

        def begin(step: Step) -> None:
            at = steps.index(step)
            say(f"{at + 1} of {len(steps)}{left(missing, journal.cases, threads)}: {step.key}")

        def keep(step: Step, outcome: Json, arrays: dict[str, Array] | None = None) -> None:
            journal.keep(step.key, outcome, arrays)
            if outcome["status"] != "ok":
                say(f"  {step.key} {outcome['status']}: {outcome['reason']}")

        try:
            _tune([step for step in missing if step.fold is None], bench, journal, begin, keep)
            for step in missing:
                if step.fold is not None:
                    begin(step)
                    keep(step, *_tested(step, bench, journal))
        except KeyboardInterrupt:
            say("interrupted: what was measured is kept; --resume goes on")
            return journal.note(judged(bench.folds(), systems, journal))
        return journal.finish(judged(bench.folds(), systems, journal))


def _head(bench: _Bench, systems: tuple[System, ...]) -> Json:
    about = machine.record(bench.threads)
    first = bench.fold(0).split
    identity = {
        "protocol": bench.protocol.name,
        "data": first.train.fingerprint,
        "code": about["code"],
        "machine": about["machine"],
        "packages": about["packages"],
        "threads": bench.threads,
        "systems": [
            {"system": s.name, "grid": [dict(point) for point in s.grid], "epochs": s.epochs, "extra": dict(s.extra)}
            | ({"design": s.design} if s.design else {})
            | ({"members": s.members} if s.members > 1 else {})
            for s in systems
        ],
    }
    protocol = {"name": bench.protocol.name, "folds": bench.protocol.folds, "fingerprint": first.train.fingerprint}
    # A run that is killed has judged nothing yet.
    nothing: Json = {"tests": [], "systems": [], "pairs": []}
    return {"schema": SCHEMA, "schema_version": VERSION, **about, "protocol": protocol, "identity": identity} | nothing


def _tune(
    steps: list[Step],
    bench: _Bench,
    journal: Journal,
    begin: Callable[[Step], None],
    keep: Callable[..., None],
) -> None:
    """Fit points of grids, as many beside each other as there are threads."""
    waiting = list(steps)
    if waiting:
        # Both are made here, before threads ask for them.
        bench.split(None), bench.data(None)
    running: dict[Future[tuple[Json, dict[int, Array]]], Step] = {}
    with ThreadPoolExecutor(bench.threads) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < bench.threads:
                    step = waiting.pop(0)
                    # A peer that is not installed is so for all of its grid.
                    first = journal.cases.get(Step(step.system, point=0).key)
                    if first and first["status"] == "not run":
                        journal.keep(step.key, first)
                        continue
                    begin(step)
                    limit = limit_of(step.system, journal.cases)
                    running[pool.submit(bench.fit, step.system, _point(step), None, step.system.epochs, limit)] = step
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step = running.pop(future)
                    keep(step, _kept(future.result()[0]) | {"settings": dict(_point(step))})
        except BaseException:
            # A thread ends once its process has, and may just be starting one.
            while wait(running, timeout=0.1).not_done:
                end_all()
            raise


def _point(step: Step) -> Mapping[str, Any]:
    """The settings of a step of the tuning."""
    assert step.point is not None
    return step.system.grid[step.point]


def _tested(step: Step, bench: _Bench, journal: Journal) -> tuple[Json, dict[str, Array]]:
    """The outcome of the best settings on a test with its predictions, or why there is none."""
    system = step.system
    best = tuned(system, journal.cases)
    if best is None:
        why = journal.cases[Step(system, point=0).key]
        return {"status": why["status"], "reason": why["reason"]}, {}
    limit = limit_of(system, journal.cases)
    out, predictions = bench.fit(system, best["settings"], step.fold, (best["epochs"],), limit)
    if out["status"] != "ok":
        return _kept(out), {}
    last = out["points"][-1]
    return _kept(out) | last, {"predictions": predictions[last["epochs"]]}


def _kept(out: Json) -> Json:
    """What of a fit's outcome is worth a place in the file."""
    names = ("status", "reason", "points", "wall_s", "peak_bytes", "joules", "version", "precision", "threads", "notes")
    return {name: out[name] for name in names if name in out}
