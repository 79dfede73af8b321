"""The rungs of the derivation, each timed against the one below, with the machine's lines and what each idea gains.

``python -m bench rungs`` writes ``rungs.json`` of this machine's committed results, version 1:
    schema, schema_version, created, ok, git, code, machine, gpu, packages, environment, data
    problems {K8|K8-slice|K64|…|fill-5|fill-1: {config, n_ratings, n_users, n_items, float64_drift}}
    rows [as in `bench.result`, with n_threads and rounds [{samples_ms, others_busy_cores}]; without history]
    ladder {K8|K64: [{rung, row, ratings_per_s, ratio_to_below, ratio_is_clear}]}
    lines {bandwidth, peak}, see `bench.roofline`
    quality {biases, penalty, momentum, batches, start, post, loss}, see `bench.quality`

Every case runs in several rounds, each time in a fresh process; the rounds go through all cases before any is run
again, so that a slow minute of the machine does not fall on one rung.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from bench import committed, judge, machine, quality, result, worker
from bench.cases import PRESETS, Case, as_holdout, full_config, learning_rate, slice_config, sliced, snapshots
from bench.judge import Problem
from bench.launch import Json, Launch, in_fresh_process
from mf_numpy import Ratings
from mf_numpy.errors import ConfigError
from mf_numpy.planted import DEFAULT, PlantedConfig, planted

SCHEMA = "mf-rungs"
VERSION = 1

FACTORS = (8, 64)
SLICE_RATINGS = 2_000
SPARSER = {5: (4_000, 2_000), 1: (10_000, 4_000)}
"""Users and items of the tables that the same number of ratings fills to so many per cent."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Rung(Case):
    """A case with threads of its own.

    Attributes:
        n_threads: for every library of the process.
    """

    n_threads: int = 1

    @property
    def key(self) -> str:
        return f"{super().key}-{self.n_threads}"

    @property
    def is_reference(self) -> bool:
        return super().is_reference and self.n_threads == 1


@dataclass(frozen=True)
class Step:
    """A rung as the ladder names it; `all_threads` takes every usable core."""

    name: str
    backend: str
    dtype: str = "float64"
    all_threads: bool = False
    device: str = "cpu"

    def case(self, problem: str, threads: int) -> Rung:
        """The rung on a problem; plain Python on the slice that it can bear."""
        where = f"{problem}-slice" if self.backend == "loops" else problem
        return Rung(where, self.backend, self.device, self.dtype, threads if self.all_threads else 1)


LADDER = (
    Step("loops", "loops"),
    Step("add_at", "add_at"),
    Step("dense", "dense"),
    Step("csr", "numpy"),
    Step("numba", "numba"),
    Step("numba_threads", "numba", all_threads=True),
    Step("numba_float32", "numba", "float32", all_threads=True),
    Step("torch", "torch", "float32", all_threads=True),
    Step("cuda", "torch", "float32", all_threads=True, device="cuda"),
)
"""From the ground up: a rung's ratio is to the one before it."""


def cases(threads: int) -> list[Rung]:
    """Every case once: the ladder on each problem, the other dtype of each rung, and the emptier tables."""
    found: list[Rung] = []
    for k in FACTORS:
        found += [Rung(f"K{k}-slice", "numpy", "cpu", "float64", 1)]
        found += [step.case(f"K{k}", threads) for step in LADDER]
        found += [replace(rung, dtype=_other(rung.dtype)) for rung in found if rung.problem == f"K{k}"]
    for per_cent in SPARSER:
        found += [Rung(f"fill-{per_cent}", backend, "cpu", "float64", 1) for backend in ("numpy", "dense", "numba")]
    return list(dict.fromkeys(found))


def run_rungs(
    *,
    rounds: int = 3,
    epochs: int = 6,
    only: tuple[str, ...] = (),
    with_quality: bool = True,
    drawn: PlantedConfig = DEFAULT,
    before: Json | None = None,
    launch: Launch = in_fresh_process,
    lines: Launch | None = None,
    say: Say = lambda text: None,
) -> Json:
    """Measure everything; the result is described in the module.

    Args:
        rounds, epochs: fresh processes a case, and timed iterations in each; at least 5 samples in all.
        only: parts to measure, of ``rows``, ``lines`` and ``quality``; none of them means all. Other parts are taken
            from `before`.
        drawn: the ratings of the problems K8 and K64.
        before: an earlier result, for the parts that are not measured.
        launch: how a case is run.
        lines: how the machine's lines are measured.
        say: called with a line of progress.

    Raises:
        ConfigError: too few samples, an unknown part, or a part that is neither asked for nor in `before`.
    """
    wanted = _parts(only, before)
    if rounds * epochs < 5 or epochs < 2:
        raise ConfigError(
            f"{rounds} rounds of {epochs} iterations came; a median with its spread needs 5 samples, 2 or more a round"
        )
    threads = machine.usable_cores()
    out: Json = dict(before or {})
    out |= {"schema": SCHEMA, "schema_version": VERSION, **machine.record(threads)}
    with tempfile.TemporaryDirectory(prefix="mf-rungs-") as name:
        folder = Path(name)
        if "lines" in wanted:
            say("the machine's lines")
            out["lines"] = _lines(threads, folder, lines or partial(in_fresh_process, module="bench.roofline"))
        if "rows" in wanted:
            out |= _rows(threads, rounds, epochs, drawn, folder, launch, say)
            out["ladder"] = ladder(out, threads)
    if "quality" in wanted:
        out["quality"] = quality.measure(say=say)
    out["ok"] = all(row["status"] != "FAILED" for row in out["rows"])
    cleaned: Json = result.clean(out)
    return cleaned


def load(path: Path | None = None) -> Json:
    """A result; by default the one that the documents show.

    Raises:
        FileFormatError: not such a file, or of another version.
    """
    return result.load(path or committed.path("rungs.json"), SCHEMA, VERSION)


def write(outcome: Json, path: Path) -> None:
    """Write the result in one step."""
    result.write_atomically(path, result.to_text(outcome))


def ladder(outcome: Json, threads: int) -> Json:
    """Ratings/s of each rung that ran, and its ratio to the nearest one below that did.

    A ratio is clear when the two middle halves do not overlap and nothing disturbed either row.
    """
    found: Json = {}
    for k in FACTORS:
        steps: list[Json] = []
        below = None
        for step in LADDER:
            row = row_of(outcome, step.case(f"K{k}", threads))
            timing = row["timing"] if row["status"] == "ok" else None
            entry: Json = {"rung": step.name, "row": row["key"], "ratings_per_s": None, "ratio_to_below": None}
            entry["ratio_is_clear"] = None
            if timing:
                entry["ratings_per_s"] = timing["ratings_per_s"]
                if below is not None:
                    entry["ratio_to_below"] = timing["ratings_per_s"] / below["timing"]["ratings_per_s"]
                    entry["ratio_is_clear"] = _apart(row, below) and not (
                        result.disturbed(outcome, row) or result.disturbed(outcome, below)
                    )
                below = row
            steps.append(entry)
        found[f"K{k}"] = steps
    return found


def row_of(outcome: Json, case: Rung) -> Json:
    """The row of a case."""
    found: Json = next(row for row in outcome["rows"] if row["key"] == case.key)
    return found


def summary(outcome: Json) -> list[str]:
    """A line a row, and what failed or was disturbed, for a terminal."""
    lines = []
    for row in outcome["rows"]:
        timing = row["timing"]
        rate = f"{timing['median_ms']:10.2f} ms  {timing['ratings_per_s'] / 1e6:9.4g} M ratings/s" if timing else ""
        note = row["reason"] or ("disturbed" if result.disturbed(outcome, row) else "")
        lines.append(f"{row['key']:34}{row['status']:9}{rate}  {note}".rstrip())
    return lines


def _parts(only: tuple[str, ...], before: Json | None) -> set[str]:
    every = {"rows", "lines", "quality"}
    for name in only:
        if name not in every:
            raise ConfigError(f"only is {name!r}, but must be of {', '.join(sorted(every))}")
    wanted = set(only or every)
    lacking = sorted(name for name in every - wanted if name not in (before or {}))
    if lacking:
        raise ConfigError(f"{', '.join(lacking)} would be missing; measure everything first")
    return wanted


def _lines(threads: int, folder: Path, launch: Launch) -> Json:
    began = machine.clock()
    outcome, _ = launch(Rung("lines", "numba", "cpu", "float64", threads), {"threads": threads}, folder)
    if outcome["status"] != "ok":
        raise RuntimeError(f"the machine's lines could not be measured: {outcome['reason']}")
    found: Json = outcome["lines"]
    return found | {"others_busy_cores": machine.others_busy(began, machine.clock())}


def _rows(threads: int, rounds: int, epochs: int, drawn: PlantedConfig, folder: Path, launch: Launch, say: Say) -> Json:
    problems, checks = _problems(drawn, epochs)
    train = problems[f"K{FACTORS[0]}"].train
    for name, problem in (problems | checks).items():
        worker.save_data(folder / f"{name}.npz", problem.train, as_holdout(problem.train.take(np.arange(500))))
    todo = cases(threads)
    busy: dict[Case, list[float | None]] = {case: [] for case in todo}
    tables: list[list[Json]] = []
    drifts: dict[str, float | None] = {}
    for turn in range(rounds):
        for problem in problems.values():
            problem.outcomes.clear()
            problem.arrays.clear()
        # Back and forth, so that no case always follows the same one.
        for at, case in enumerate(todo if turn % 2 == 0 else reversed(todo), 1):
            say(f"round {turn + 1}/{rounds}, {at}/{len(todo)}: {case.key}")
            problem, check = problems[case.problem], checks[f"{case.problem}-check"]
            order = {
                "case": case.to_dict(),
                "config": problem.config.to_dict(),
                "data": f"{case.problem}.npz",
                "check": {"config": check.config.to_dict(), "data": f"{case.problem}-check.npz"},
                "snapshots": snapshots(problem.config.n_epochs),
                "threads": case.n_threads,
            }
            before = machine.clock()
            outcome, arrays = launch(case, order, folder)
            busy[case].append(machine.others_busy(before, machine.clock()))
            if outcome["status"] != "ok":
                say(f"  {outcome['status']}: {outcome['reason']}")
            problem.outcomes[case], problem.arrays[case] = outcome, arrays
        rows: list[Json] = []
        for name, problem in problems.items():
            judged, drifts[name] = judge.judge(problem, None)
            keys = [case.key for case in problem.outcomes]
            rows += [row | {"key": key} for row, key in zip(judged, keys, strict=True)]
        tables.append(rows)
    environment = {"machine": machine.machine(), "environment": machine.environment_record(threads)}
    return {
        "data": {"name": "planted", "fingerprint": train.fingerprint, "n_users": train.n_users}
        | {"n_items": train.n_items, "n_ratings": len(train)},
        "problems": {name: p.record() | {"float64_drift": drifts[name]} for name, p in problems.items()},
        "rows": [_merge(environment, case, busy[case], tables, problems[case.problem]) for case in todo],
    }


def _merge(about: Json, case: Rung, busy: list[float | None], tables: list[list[Json]], problem: Problem) -> Json:
    """One row of all rounds: FAILED if one failed; timed by the rounds that nothing disturbed, if there are any."""
    found = [next(row for row in rows if row["key"] == case.key) for rows in tables]
    row = dict(next((r for r in found if r["status"] != "ok"), found[0]))
    row["rounds"] = [
        {"samples_ms": r["samples_ms"], "others_busy_cores": held} for r, held in zip(found, busy, strict=True)
    ]
    row["others_busy_cores"] = max((held for held in busy if held is not None), default=None)
    if row["status"] == "ok":
        each = [r | {"others_busy_cores": held} for r, held in zip(found, busy, strict=True)]
        quiet = [r for r in each if not result.disturbed(about, r)] or each
        row["history"] = [record for r in quiet for record in r["history"]]
        judge.time(row, problem)
        row["others_busy_cores"] = max((r["others_busy_cores"] or 0.0 for r in quiet), default=None)
        row["difference"] = {name: row["difference"][name] for name in ("largest", "bound")}
    for name in ("history", "pools", "threads", "final", "samples_ms", "device_name"):
        row.pop(name, None)
    return row


def _problems(drawn: PlantedConfig, epochs: int) -> tuple[dict[str, Problem], dict[str, Problem]]:
    """The problems, and the small ones on which each is checked first."""
    preset = replace(PRESETS["default"], n_epochs=epochs)
    problems: dict[str, Problem] = {}
    checks: dict[str, Problem] = {}
    tables: dict[str, tuple[Ratings, int]] = {f"K{k}": (planted(drawn).ratings, k) for k in FACTORS}
    for per_cent, (m, n) in SPARSER.items():
        # The same ratings in a larger table.
        grown = m * n / (DEFAULT.n_users * DEFAULT.n_items) * (drawn.n_users * drawn.n_items)
        side = (grown / (m * n)) ** 0.5
        shape = {"n_users": round(m * side), "n_items": round(n * side)}
        tables[f"fill-{per_cent}"] = (planted(replace(drawn, **shape)).ratings, FACTORS[0])
    for name, (ratings, k) in tables.items():
        config = full_config(ratings, replace(preset, n_factors=k), seed=0)
        problems[name] = Problem(ratings, config)
        small = sliced(ratings, preset.check_ratings)
        checks[f"{name}-check"] = Problem(small, slice_config(config, small, preset, preset.check_epochs))
        if name.startswith("K"):
            part = sliced(ratings, SLICE_RATINGS)
            problems[f"{name}-slice"] = Problem(part, replace(config, lr=learning_rate(part, preset.step)))
            checks[f"{name}-slice-check"] = checks[f"{name}-check"]
    return problems, checks


def _apart(one: Json, other: Json) -> bool:
    """Whether the middle halves of the two rows' ratings/s do not overlap."""
    spans = []
    for row in (one, other):
        scale = row["timing"]["ratings_per_s"] * row["timing"]["median_ms"]
        spans.append((scale / row["timing"]["q3_ms"], scale / row["timing"]["q1_ms"]))
    return bool(spans[0][0] > spans[1][1] or spans[1][0] > spans[0][1])


def _other(dtype: str) -> str:
    return "float32" if dtype == "float64" else "float64"
