"""Our solvers beside the libraries people use: seconds of one epoch at equal K, threads and precision, in one run.

``python -m bench speed`` writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment
    problem {data, n_users, n_items, n_ratings}
    identity: what a run must share with a file that it resumes
    complete: whether every system had all its turns; cases {turn: outcome} until then
    rows [{contest, system, n_factors, threads, status, reason, samples_ms, timing, about, others_busy_cores}]
    ratios [{contest, system, against, n_factors, threads, ratio, low, high}]

A contest is ``gradient`` (a full-batch iteration, against the same in SciPy's sparse products), ``sgd`` (a pass of
single-rating steps), ``features`` (a full-batch iteration with users and items made of more than ids, beside one
without), ``als`` (all users' and all items' rows, solved exactly) or ``als-cg`` (the same by 3 conjugate
gradient steps a row). Systems take turns, round by round, each turn a process of its own. A ratio is how many times as
long as that of ours, the contest's first, the other's median epoch takes; low and high are its quartiles over all pairs
of rounds.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import designs, machine, progress, turns, worker
from bench.cases import Case, as_holdout
from bench.journal import Journal
from bench.launch import Json, Launch, in_fresh_process
from bench.peers.run import Settings, time_peer
from mf_numpy import Config, Ratings
from mf_numpy.designed import design_engine
from mf_numpy.engine import State
from mf_numpy.errors import ConfigError, choose, counted
from mf_numpy.model import start
from mf_numpy.solvers import engine_for

SCHEMA, VERSION = "mf-speed", 1
PEER_LIMIT = 150.0
"""Seconds of a peer's turn: LIBMF now and then waits for ever."""

Say = Callable[[str], None]
TimePeer = Callable[..., Json]


@dataclass(frozen=True)
class System:
    """Who takes part in a contest: a solver of ours on a backend, or a peer; each with settings of its own.

    Attributes:
        design: of ours, a name of `bench.designs.DESIGNS`; empty for ids alone.
    """

    name: str
    solver: str = ""
    backend: str = ""
    peer: str = ""
    extra: tuple[tuple[str, Any], ...] = ()
    design: str = ""


CONTESTS: dict[str, tuple[System, ...]] = {
    "gradient": (
        System("mf_numpy gd", "gd", "numba"),
        System("SciPy CSR", "gd", "numpy"),
    ),
    "sgd": (
        System("mf_numpy sgd", "sgd", "numba"),
        System("LIBMF, 10 bins", peer="libmf", extra=(("nr_bins", 10),)),
        System("LIBMF, 20 bins", peer="libmf", extra=(("nr_bins", 20),)),
        System("Cornac", peer="cornac"),
    ),
    "features": (
        System("mf_numpy gd", "gd", "numba"),
        System("mf_numpy gd, SVD++", "gd", "numba", design="svd++"),
        System("mf_numpy gd, features", "gd", "numba", design="drawn"),
        System("mf_numpy gd, SVD++ and features", "gd", "numba", design="svd++, drawn"),
    ),
    "als": (
        System("mf_numpy als", "als", "numba"),
        System("cmfrec", peer="cmfrec", extra=(("use_cg", False),)),
        System("LensKit", peer="lenskit"),
        System("implicit", peer="implicit", extra=(("use_cg", False),)),
        System("Buffalo, LDLT", peer="buffalo", extra=(("optimizer", "ldlt"),)),
    ),
    "als-cg": (
        System("mf_numpy als, CG", "als", "numba", extra=(("cg_steps", 3),)),
        System("cmfrec, CG", peer="cmfrec", extra=(("use_cg", True),)),
        System("implicit, CG", peer="implicit", extra=(("use_cg", True),)),
        System("Buffalo, CG", peer="buffalo", extra=(("optimizer", "manual_cg"),)),
    ),
}


@dataclass(frozen=True)
class Turn:
    """A system's turn in a round of a contest."""

    round: int
    contest: str
    n_factors: int
    threads: int
    system: System

    @property
    def row(self) -> tuple[str, System, int, int]:
        """What turns of one row share."""
        return self.contest, self.system, self.n_factors, self.threads

    @property
    def kind(self) -> str:
        """A name for that."""
        return f"{self.contest}, K = {self.n_factors}, {counted(self.threads, 'thread')}, {self.system.name}"

    @property
    def key(self) -> str:
        """Its name in the file."""
        return f"round {self.round + 1}: {self.kind}"

    @property
    def work(self) -> float:
        """Turns of a kind are equal."""
        return 1.0


def plan(contests: tuple[str, ...], factors: tuple[int, ...], threads: tuple[int, ...], rounds: int) -> list[Turn]:
    """Every turn, round by round."""
    each = itertools.product(range(rounds), contests, factors, threads)
    return [Turn(at, contest, k, n, system) for at, contest, k, n in each for system in CONTESTS[contest]]


def measure(
    train: Ratings,
    name: str,
    *,
    contests: tuple[str, ...] = tuple(CONTESTS),
    factors: tuple[int, ...] = (16, 64),
    threads: tuple[int, ...] = (),
    rounds: int = 3,
    launch: Launch | None = None,
    path: Path | None = None,
    resume: bool = False,
    peers: TimePeer = time_peer,
    say: Say = lambda text: None,
) -> Json:
    """Every contest's rows, systems taking turns; `path` grows turn by turn.

    Ctrl-C keeps what is done; a later run with `resume` goes on from there.

    Args:
        train: what is trained on, called `name` in the result.
        threads: numbers of threads; by default 1 and every core.
        rounds: turns of each system, 5 epochs each.
        launch, peers: how our processes and the peers' are started.
        path: the result file.
        resume: go on with the file at `path`.

    Raises:
        ConfigError: an unknown contest, no round, a K or number of threads below 1, or a file that is there,
            unfinished, or of another run.
    """
    for contest in contests:
        choose("contest", contest, tuple(CONTESTS))
    threads = threads or tuple(sorted({1, machine.usable_cores()}))
    if rounds < 1 or not factors or min(*factors, *threads) < 1:
        raise ConfigError(f"rounds {rounds}, factors {factors} and threads {threads} came; each must be 1 or larger")
    start_one = launch or partial(in_fresh_process, module="bench.speed")
    steps = plan(contests, factors, threads, rounds)
    with tempfile.TemporaryDirectory(prefix="mf-speed-") as scratch:
        folder = Path(scratch)
        asked = {"contests": contests, "factors": factors, "threads": threads, "rounds": rounds}
        head = _head(train, name, asked)
        journal = Journal(path or folder / "speed.json", head, resume=resume, anew=True)
        if journal.outcome["complete"]:
            say(f"{journal.path.name} is complete")
            return journal.outcome
        worker.save_data(folder / "data.npz", train, as_holdout(train.take(np.arange(1))))
        try:
            for turn in steps:
                if turn.key in journal.cases:
                    continue
                say(f"{progress.said(steps, journal.cases)}: {turn.key}")
                began = time.perf_counter()
                if turn.system.solver:
                    one = _ours(turn.system, turn.n_factors, turn.threads, folder, start_one)
                else:
                    one = _theirs(turn.contest, turn.system, turn.n_factors, turn.threads, train, peers)
                journal.keep(turn.key, one | {"wall_s": time.perf_counter() - began})
        except KeyboardInterrupt:
            if not journal.cases:
                raise
            say(f"interrupted: what was measured is kept{'; --resume goes on' if path else ''}")
            return journal.note(_found(steps, journal.cases, len(train)))
        # Rows say all that the cases do, but for the seconds each took.
        return journal.finish(_found(steps, journal.cases, len(train)) | {"cases": {}})


def _head(train: Ratings, name: str, asked: Json) -> Json:
    about = machine.record(max(asked["threads"]))
    identity = {
        "data": train.fingerprint,
        "code": about["code"],
        "machine": about["machine"],
        "packages": about["packages"],
        **asked,
    }
    problem = {"data": name, "n_users": train.n_users, "n_items": train.n_items, "n_ratings": len(train)}
    # A run that is killed has put nothing together yet.
    nothing: Json = {"rows": [], "ratios": []}
    return {"schema": SCHEMA, "schema_version": VERSION, **about, "problem": problem, "identity": identity} | nothing


def _found(steps: list[Turn], cases: Json, n_ratings: int) -> Json:
    """Rows and ratios of the turns that are done."""
    taken: dict[tuple[str, System, int, int], list[Json]] = {}
    for turn in steps:
        if turn.key in cases:
            taken.setdefault(turn.row, []).append(cases[turn.key])
    rows = [_row(*key, outcomes, n_ratings) for key, outcomes in taken.items()]
    return {"rows": rows, "ratios": list(ratios(rows))}


def _ours(system: System, n_factors: int, threads: int, folder: Path, launch: Launch) -> Json:
    order = {"solver": system.solver, "backend": system.backend, "n_factors": n_factors, "threads": threads}
    order |= {"extra": dict(system.extra), "design": system.design}
    return turns.take(launch, Case("speed", system.backend, "cpu", "float32"), order | {"data": "data.npz"}, folder)


def _theirs(contest: str, system: System, n_factors: int, threads: int, train: Ratings, peers: TimePeer) -> Json:
    # Where an epoch is the difference of two fits, small tables need many epochs for one that can be measured.
    n_epochs = max(2, min(60, (4_000_000 if contest.startswith("als") else 40_000_000) // len(train)))
    settings = Settings(n_factors=n_factors, threads=threads, n_epochs=n_epochs, extra=dict(system.extra))
    out = peers(system.peer, train, settings, samples=5, limit=PEER_LIMIT)
    about = {key: out.get(key) for key in ("peer", "version", "precision", "epochs_by", "threads", "notes", "settings")}
    return {key: out.get(key) for key in ("status", "reason", "samples_ms", "others_busy_cores")} | {"about": about}


def _row(contest: str, system: System, n_factors: int, threads: int, outcomes: list[Json], n_ratings: int) -> Json:
    row: Json = {"contest": contest, "system": system.name, "n_factors": n_factors, "threads": threads}
    return row | turns.merged(outcomes, n_ratings)


def ratios(rows: list[Json]) -> Iterator[Json]:
    """Of each contest, its first against every other: the other's median over its own, with quartiles over both."""
    for mine in rows:
        if mine["system"] != CONTESTS[mine["contest"]][0].name or not mine["timing"]:
            continue
        for other in rows:
            same = all(other[key] == mine[key] for key in ("contest", "n_factors", "threads"))
            if not same or other is mine or not other["timing"]:
                continue
            about = {key: mine[key] for key in ("contest", "system", "n_factors", "threads")}
            yield about | {"against": other["system"]} | turns.ratio(mine, other)


def run_case(order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """The process's answer: samples of our solver's epochs after the first, which compiles."""
    train, _ = worker.load_data(folder / order["data"])
    config = Config(solver=order["solver"], n_factors=order["n_factors"], **order["extra"])
    design = designs.make(order["design"], train).design if order["design"] else None
    engine: Any = engine_for(config, order["backend"])
    if design is not None:
        engine = design_engine(design, config, order["backend"])
    began = time.perf_counter()
    whole = engine.load(train, config)
    first = State(start(train, config)) if design is None else engine.first(train, config)
    state = engine.start(first, whole, config)
    prepared = time.perf_counter() - began
    samples = []
    for _ in range(6):
        began = time.perf_counter()
        for batch in engine.batches(whole, 1, config):
            state = engine.step(state, batch, config)
        state = engine.next_epoch(state)
        samples.append(1e3 * (time.perf_counter() - began))
    about = {"config": config.to_dict(), "prepare_s": prepared, "first_ms": samples[0]}
    return {"status": "ok", "reason": None, "samples_ms": samples[1:], "about": about}, {}


def summary(outcome: Json) -> list[str]:
    """A line a row, with the ratio where it is another's."""
    found = {(r["contest"], r["against"], r["n_factors"], r["threads"]): r for r in outcome["ratios"]}
    out = [f"{'contest':10}{'K':>4}{'threads':>8}  {'system':18}{'ms an epoch':>12}{'M ratings/s':>13}   times ours"]
    for row in outcome["rows"]:
        key = row["contest"], row["system"], row["n_factors"], row["threads"]
        begin = f"{row['contest']:10}{row['n_factors']:4}{row['threads']:8}  {row['system']:18}"
        if row["timing"] is None:
            out.append(f"{begin}  {row['status']}: {row['reason']}")
            continue
        ratio = found.get(key)
        times = f"{ratio['ratio']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})" if ratio else ""
        timing = row["timing"]
        failed = f"   a round {row['status']}: {row['reason']}" if row["status"] != "ok" else ""
        out.append(f"{begin}{timing['median_ms']:12.1f}{timing['ratings_per_s'] / 1e6:13.1f}   {times}{failed}")
    return out + machine.disturbance(max((row["others_busy_cores"] or 0.0 for row in outcome["rows"]), default=0.0))


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], run_case))
