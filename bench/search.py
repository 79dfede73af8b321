"""Settings for tables of a size, by a recorded search on ratings that are held out of a training side.

``python -m bench search`` writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment
    problem {data, n_users, n_items, n_ratings, n_valid}: what is fitted, and how many pairs score it
    search {seconds, sampler, version, seed, spaces {solver: {setting: values}}}
    identity: what a run must share with a file that it resumes
    complete, cases {key: {solver, settings, status (of the fit), rmse, seconds, wall_s}}: every point, in its turn
    rows [{solver, points, seconds, best: key}]: of each solver how many points took how long, and which is the best

The data are the first test's training ratings of a protocol (`bench.protocols`), a tenth of which is held out once
more, as `bench.accuracy` does it; tests are not looked at. A point is one fit with all threads, scored as a user gets
it: a sampler by the draws that it keeps. The solver that has had less time has the next turn, until ``seconds`` are
spent; a fit that has begun is ended. ``random`` draws points by NumPy, ``tpe`` is Optuna's Parzen estimator; what
either proposes follows from the seed and the solver's points so far, so that a run which was cut short just goes on.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.journal import Journal
from bench.launch import Json
from bench.protocols import Protocol
from bench.whole_fit import fit
from mf_numpy import Config, Split, random_split
from mf_numpy.errors import ConfigError, choose

SCHEMA, VERSION = "mf-search", 1
SAMPLERS = ("tpe", "random")

Space = Mapping[str, Sequence[float]]
Point = dict[str, Any]
Say = Callable[[str], None]

SPACES: Mapping[str, Space] = {
    "gibbs": {
        "n_factors": (4, 6, 8, 12, 16, 24, 32, 48, 64),
        "n_epochs": (60, 100, 150, 200, 300, 450),
        "chain_length": (50, 75, 100, 150, 450),
        "burn_in": (10, 20, 40),
        "thin": (2, 4, 8),
    },
    "sgd": {
        "n_factors": (8, 16, 32, 64, 96),
        "lr": (0.003, 0.005, 0.007, 0.01, 0.015, 0.02),
        "reg": (0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.12),
        "n_epochs": (20, 40, 60, 80, 120, 160),
    },
}
"""By solver, what each setting may be, from the least to the most."""


@dataclass(frozen=True)
class Search:
    """How points are looked for.

    Attributes:
        seconds: when no further fit is begun, over all runs of a file.
        sampler: ``tpe``, which needs Optuna, or ``random``.
        seed: of the points.
        spaces: by solver, what each setting may be.

    Raises:
        ConfigError: no time, another sampler, or Optuna is not here.
    """

    seconds: float = 360.0
    sampler: str = "tpe"
    seed: int = 0
    spaces: Mapping[str, Space] = field(default_factory=lambda: SPACES)

    def __post_init__(self) -> None:
        choose("sampler", self.sampler, SAMPLERS)
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ConfigError(f"seconds is {self.seconds!r}, but must be a finite number above 0")
        if self.sampler == "tpe" and importlib.util.find_spec("optuna") is None:
            raise ConfigError(
                "sampler is 'tpe', but optuna is not installed; install the extra 'search', or take 'random'"
            )

    def record(self) -> Json:
        """What the result file says of it."""
        version = np.__version__ if self.sampler == "random" else _optuna().__version__
        spaces = {
            solver: {name: list(values) for name, values in space.items()} for solver, space in self.spaces.items()
        }
        return {
            "seconds": self.seconds, "sampler": self.sampler, "version": version, "seed": self.seed, "spaces": spaces,
        }  # fmt: skip


def measure(
    protocol: Protocol,
    search: Search,
    *,
    path: Path,
    resume: bool = False,
    say: Say = lambda text: None,
) -> Json:
    """Fit point after point until the time is spent; `path` grows fit by fit.

    Ctrl-C keeps what is done; a later run with `resume` goes on from there.

    Raises:
        ConfigError: a file that is there, unfinished, or of another run.
        DataError: the protocol's data set is not here.
    """
    split = random_split(protocol.fold(0).split.train, valid=0.1, seed=1)
    journal = Journal(path, _head(protocol, search, split), resume=resume, anew=True)
    if journal.outcome["complete"]:
        say(f"{path.name} is complete")
        return journal.outcome
    try:
        while (turn := next_point(search, list(journal.cases.values()))) is not None:
            solver, settings = turn
            key = key_of(solver, settings)
            say(f"{len(journal.cases) + 1}, {spent(journal.cases.values()):.0f} of {search.seconds:.0f} s: {key}")
            found = _fitted(split, solver, settings)
            journal.keep(key, {"solver": solver, "settings": settings} | found)
    except KeyboardInterrupt:
        say("interrupted: what was measured is kept; --resume goes on")
        return journal.note({"rows": _rows(search, journal.cases)})
    return journal.finish({"rows": _rows(search, journal.cases)})


def _head(protocol: Protocol, search: Search, split: Split) -> Json:
    about, train = machine.record(machine.usable_cores()), split.train
    identity = {
        "data": train.fingerprint,
        "code": about["code"],
        "machine": about["machine"],
        "packages": about["packages"],
        "search": search.record(),
    }
    problem = {
        "data": protocol.name, "n_users": train.n_users, "n_items": train.n_items, "n_ratings": len(train),
        "n_valid": len(split.valid),
    }  # fmt: skip
    return {
        "schema": SCHEMA, "schema_version": VERSION, **about, "problem": problem, "search": search.record(),
        "identity": identity, "rows": [],
    }  # fmt: skip


def next_point(search: Search, cases: Sequence[Json]) -> tuple[str, Point] | None:
    """Whose turn it is, and what it tries; None when the time is spent or every point was tried."""
    if spent(cases) >= search.seconds:
        return None
    of = {solver: [case for case in cases if case["solver"] == solver] for solver in search.spaces}
    for solver in sorted(of, key=lambda solver: spent(of[solver])):
        settings = propose(search, solver, of[solver])
        if settings is not None:
            return solver, settings
    return None


def propose(search: Search, solver: str, cases: Sequence[Json]) -> Point | None:
    """The point after those that were tried; None when these are all."""
    space, tried = search.spaces[solver], [case["settings"] for case in cases]
    if len(tried) >= math.prod(map(len, space.values())):
        return None
    if search.sampler == "tpe":
        point = _by_tpe(search, space, cases)
        if point not in tried:
            return point
    rng = np.random.default_rng([search.seed, len(tried)])
    while True:
        point = {name: values[int(rng.integers(len(values)))] for name, values in space.items()}
        if point not in tried:
            return point


def _by_tpe(search: Search, space: Space, cases: Sequence[Json]) -> Point:
    """Optuna's proposal, by places in the lists of values, whose order it then knows."""
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    places = {name: optuna.distributions.IntDistribution(0, len(values) - 1) for name, values in space.items()}
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=search.seed + len(cases)))
    for case in cases:
        if case["rmse"] is not None:
            at = {name: list(values).index(case["settings"][name]) for name, values in space.items()}
            study.add_trial(optuna.trial.create_trial(params=at, distributions=places, value=case["rmse"]))
    asked = study.ask(places).params
    return {name: values[asked[name]] for name, values in space.items()}


def _optuna() -> Any:
    return importlib.import_module("optuna")


def _fitted(split: Split, solver: str, settings: Point) -> Json:
    began = time.perf_counter()
    config = Config(solver=solver, **settings)  # type: ignore[arg-type]
    found = fit(split.train, config)
    seconds = sum(record.seconds for record in found.history)
    rmse = None if found.status == "diverged" else found.score(split.valid).rmse
    return {"status": found.status, "rmse": rmse, "seconds": seconds, "wall_s": time.perf_counter() - began}


def key_of(solver: str, settings: Point) -> str:
    """A point in words."""
    return ", ".join([solver, *(f"{name} {value:g}" for name, value in settings.items())])


def spent(cases: Any) -> float:
    """Seconds of fits and their scores."""
    return math.fsum(case["wall_s"] for case in cases)


def best(cases: Mapping[str, Json], solver: str) -> str | None:
    """The point of a solver with the lowest RMSE; None where none was fitted."""
    found = {key: case["rmse"] for key, case in cases.items() if case["solver"] == solver and case["rmse"] is not None}
    return min(found, key=lambda key: found[key], default=None)


def _rows(search: Search, cases: Mapping[str, Json]) -> list[Json]:
    of = {solver: [case for case in cases.values() if case["solver"] == solver] for solver in search.spaces}
    return [
        {"solver": solver, "points": len(of[solver]), "seconds": spent(of[solver]), "best": best(cases, solver)}
        for solver in search.spaces
    ]


def summary(outcome: Json) -> Iterator[str]:
    """The ten best points of each solver, and how many there were."""
    for row in outcome["rows"]:
        yield f"{row['solver']}: {row['points']} points in {row['seconds']:.0f} s"
        cases = [case for case in outcome["cases"].values() if case["solver"] == row["solver"]]
        ranked = sorted((case for case in cases if case["rmse"] is not None), key=lambda case: float(case["rmse"]))
        for case in ranked[:10]:
            yield f"  {case['rmse']:.4f}  {case['seconds']:8.2f} s  {key_of(case['solver'], case['settings'])}"
