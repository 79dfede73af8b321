"""How our solvers' time and memory grow: with the ratings, with K, and what a second thread is worth.

``python -m bench scaling`` writes version 2 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment, others_busy_cores
    identity: what a run must share with a file that it resumes
    complete: whether every case had its turn; cases {case: outcome} until then
    rows [{solver, n_ratings, n_users, n_items, n_factors, threads, status, reason, samples_ms, timing,
           parameter_bytes, rating_bytes, peak_bytes, spare_bytes_per_rating,
           unsorted_peak_bytes, unsorted_spare_bytes_per_rating}]
    slopes [{solver, over (N or K), threads, fixed, slope}]: of log time over the log of what grows, by least squares
    threads [{solver, n_ratings, n_factors, ratio}]: seconds by one thread over those by the most, which take turns

Ratings are planted, about 90 a user over 5,000 items, so that N grows by its users. ``peak_bytes`` is the most that a
whole fit held above the ratings themselves; ``spare_bytes_per_rating`` is what of it three copies of the parameters
leave, for each rating. Ratings come sorted by user; what is called unsorted is the same of ratings in a random order.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np

from bench import machine, progress, result, worker
from bench.cases import Case, as_holdout
from bench.journal import Journal
from bench.launch import Json, Launch, in_fresh_process
from mf_numpy import Config, FitResult, Ratings, fit
from mf_numpy.errors import ConfigError
from mf_numpy.planted import PlantedConfig, planted
from mf_numpy.result import EpochRecord

SCHEMA, VERSION = "mf-scaling", 2

SOLVERS: dict[str, dict[str, Any]] = {
    "gd": {"solver": "gd"},
    "sgd": {"solver": "sgd"},
    "als": {"solver": "als"},
    "als-cg": {"solver": "als", "cg_steps": 3},
    "cd": {"solver": "cd"},
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """Which sizes are tried.

    Attributes:
        ratings: values of N, with `k_fixed` factors.
        factors: values of K, with `n_fixed` ratings, one of `ratings`.
    """

    ratings: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
    factors: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    n_fixed: int = 1_000_000
    k_fixed: int = 16

    def points(self) -> list[tuple[int, int]]:
        """(N, K) of all cases, N by N."""
        chosen = {(n, self.k_fixed) for n in self.ratings} | {(self.n_fixed, k) for k in self.factors}
        return sorted(chosen)


@dataclass(frozen=True)
class Step:
    """A solver's turn at a size."""

    n_ratings: int
    n_factors: int
    kind: str

    @property
    def key(self) -> str:
        """Its name in the file."""
        return f"{self.n_ratings:,} ratings, K = {self.n_factors}: {self.kind}"

    @property
    def work(self) -> float:
        """What its seconds grow with, about."""
        return float(self.n_ratings * self.n_factors)


def measure(
    plan: Plan | None = None,
    *,
    solvers: tuple[str, ...] = tuple(SOLVERS),
    threads: tuple[int, ...] = (),
    launch: Launch | None = None,
    path: Path | None = None,
    resume: bool = False,
    say: Say = lambda text: None,
) -> Json:
    """Every case in a process of its own; `path` grows case by case.

    Ctrl-C keeps what is done; a later run with `resume` goes on from there.

    Args:
        solvers: names of `SOLVERS`.
        threads: by default 1 and every core.
        path: the result file.
        resume: go on with the file at `path`.

    Raises:
        ConfigError: an unknown solver, a size below 1, or a file that is there, unfinished, or of another run.
    """
    plan = plan or Plan()
    threads = threads or tuple(sorted({1, machine.usable_cores()}))
    unknown = [name for name in solvers if name not in SOLVERS]
    if unknown:
        raise ConfigError(f"solvers has {unknown[0]!r}, but must be among {', '.join(SOLVERS)}")
    if min(*plan.ratings, *plan.factors, *threads) < 1:
        raise ConfigError(f"{plan} with threads {threads} came; each size must be 1 or larger")
    start = launch or partial(in_fresh_process, module="bench.scaling")
    steps = [Step(n, k, name) for n, k in plan.points() for name in solvers]
    with tempfile.TemporaryDirectory(prefix="mf-scaling-") as scratch:
        folder, written = Path(scratch), 0
        journal = Journal(path or folder / "scaling.json", _head(plan, solvers, threads), resume=resume, anew=True)
        if journal.outcome["complete"]:
            say(f"{journal.path.name} is complete")
            return journal.outcome
        try:
            for step in steps:
                if step.key in journal.cases:
                    continue
                if step.n_ratings != written:
                    say(f"drawing {step.n_ratings:,} ratings")
                    train, written = drawn(step.n_ratings), step.n_ratings
                    worker.save_data(folder / "data.npz", train, as_holdout(train.take(np.arange(1))))
                say(f"{progress.said(steps, journal.cases)}: {step.key}")
                shape = {"n_users": train.n_users, "n_items": train.n_items}
                journal.keep(step.key, _taken(step, threads, start, folder) | shape)
        except KeyboardInterrupt:
            if not journal.cases:
                raise
            say(f"interrupted: what was measured is kept{'; --resume goes on' if path else ''}")
            return journal.note(_found(plan, steps, threads, journal.cases))
        # Rows say all that the cases do, but for the seconds each took.
        return journal.finish(_found(plan, steps, threads, journal.cases) | {"cases": {}})


def _head(plan: Plan, solvers: tuple[str, ...], threads: tuple[int, ...]) -> Json:
    about = machine.record(max(threads))
    identity = {
        "code": about["code"],
        "machine": about["machine"],
        "packages": about["packages"],
        "solvers": solvers,
        "threads": threads,
        **asdict(plan),
    }
    # A run that is killed has put nothing together yet.
    nothing: Json = {"rows": [], "slopes": [], "threads": []}
    return {"schema": SCHEMA, "schema_version": VERSION, **about, "identity": identity} | nothing


def _taken(step: Step, threads: tuple[int, ...], start: Launch, folder: Path) -> Json:
    """A case's outcome, with what it took and what others held meanwhile."""
    order = {"config": SOLVERS[step.kind] | {"n_factors": step.n_factors}, "threads": max(threads), "each": threads}
    began = machine.clock()
    out, _ = start(Case("scaling", "numba", "cpu", "float32"), order | {"data": "data.npz"}, folder)
    ended = machine.clock()
    return out | {"wall_s": ended.wall - began.wall, "others_busy_cores": machine.others_busy(began, ended)}


def _found(plan: Plan, steps: list[Step], threads: tuple[int, ...], cases: Json) -> Json:
    """What follows from the cases that are done."""
    rows: list[Json] = []
    for step in steps:
        if step.key in cases:
            out = cases[step.key]
            shape = {"n_ratings": step.n_ratings, "n_users": out["n_users"], "n_items": out["n_items"]}
            rows += _rows(step.kind, shape | {"n_factors": step.n_factors}, out, threads)
    known = [one for one in cases.values() if one["others_busy_cores"] is not None]
    busy = [one["others_busy_cores"] for one in known]
    return {
        "others_busy_cores": float(np.average(busy, weights=[one["wall_s"] for one in known])) if known else None,
        "rows": rows,
        "slopes": list(slopes(rows, plan)),
        "threads": list(gains(rows)),
    }


def drawn(n_ratings: int) -> Ratings:
    """Planted ratings, about 90 a user."""
    n_users = max(20, n_ratings // 90)
    n_items = min(5_000, max(20, n_ratings // 20))
    return planted(PlantedConfig(n_users=n_users, n_items=n_items, n_ratings=n_ratings, min_ratings=1)).ratings


def _rows(name: str, shape: Json, out: Json, threads: tuple[int, ...]) -> Iterator[Json]:
    for n in threads:
        row = {"solver": name, **shape, "threads": n, "status": out["status"], "reason": out["reason"]}
        samples = out.get("samples_ms", {}).get(str(n), [])
        row |= {"samples_ms": samples, "timing": result.timing(samples, shape["n_ratings"]) if samples else None}
        for key in ("parameter_bytes", "rating_bytes"):
            row[key] = out.get(key)
        for kind in ("", "unsorted_"):
            peak = row[f"{kind}peak_bytes"] = out.get(f"{kind}peak_bytes")
            spare = None if peak is None else (peak - 3 * row["parameter_bytes"]) / shape["n_ratings"]
            row[f"{kind}spare_bytes_per_rating"] = spare
        yield row


def slopes(rows: list[Json], plan: Plan) -> Iterator[Json]:
    """How the median time of an epoch grows with N at the plan's K, and with K at its N."""
    for name, n in dict.fromkeys((row["solver"], row["threads"]) for row in rows):
        for over, key, fixed, value in (
            ("N", "n_ratings", "n_factors", plan.k_fixed),
            ("K", "n_factors", "n_ratings", plan.n_fixed),
        ):
            points = [
                (row[key], row["timing"]["median_ms"])
                for row in rows
                if (row["solver"], row["threads"], row[fixed]) == (name, n, value) and row["timing"]
            ]
            if len(points) > 1:
                x, y = np.log(np.array(points, dtype=float)).T
                slope = float(np.polyfit(x, y, 1)[0])
                yield {"solver": name, "over": over, "threads": n, "fixed": value, "slope": slope}


def gains(rows: list[Json]) -> Iterator[Json]:
    """Seconds by one thread over those by the most, of each case that has both: the median over the turns."""
    most = max((row["threads"] for row in rows), default=1)
    for one in rows:
        keys = ("solver", "n_ratings", "n_factors")
        for other in rows:
            same = all(one[key] == other[key] for key in keys) and (one["threads"], other["threads"]) == (1, most)
            if same and most > 1 and one["timing"] and other["timing"]:
                ratio = np.median(np.divide(one["samples_ms"], other["samples_ms"]))
                yield {key: one[key] for key in keys} | {"ratio": float(ratio)}


def run_case(order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """The process's answer: samples of each number of threads, and the most memory of a fit."""
    train, _ = worker.load_data(folder / order["data"])
    part = slice(0, min(1000, len(train)))
    # Copies: a view would keep what it is a part of.
    few = Ratings.of_indices(
        train.users[part].copy(), train.items[part].copy(), train.values[part].copy(), m=train.n_users, n=train.n_items
    )
    config = Config(**order["config"], n_epochs=6)
    # What compiling takes is no part of what ratings take; another order may have kernels of its own.
    for some in (few, few.take(np.random.default_rng(0).permutation(len(few)))):
        fit(some, config)
    mixed = train.take(np.random.default_rng(0).permutation(len(train)))
    unsorted_peak, _ = _peak_of_a_fit(mixed, config)
    del mixed
    peak, found = _peak_of_a_fit(train, config)
    parameters = sum(theta.nbytes for theta in found.params.tensors().values())
    return {
        "status": "ok",
        "reason": None,
        "samples_ms": _in_turns(train, config, order["each"]),
        "parameter_bytes": parameters,
        "rating_bytes": train.users.nbytes + train.items.nbytes + train.values.nbytes,
        "peak_bytes": peak,
        "unsorted_peak_bytes": unsorted_peak,
    }, {}


def _in_turns(train: Ratings, config: Config, threads: list[int]) -> dict[str, list[float]]:
    """Milliseconds of five epochs by each number of threads, after one to warm up.

    The numbers take turns, epoch by epoch: a machine that changes its speed does so for all of them.
    """

    def hand_over(record: EpochRecord) -> bool:
        numba.set_num_threads(threads[record.epoch % len(threads)])
        return False

    numba.set_num_threads(threads[0])
    history = fit(train, replace(config, n_epochs=6 * len(threads)), callback=hand_over).history
    numba.set_num_threads(max(threads))
    return {str(n): [1e3 * r.seconds for r in history[len(threads) + k :: len(threads)]] for k, n in enumerate(threads)}


def _peak_of_a_fit(train: Ratings, config: Config) -> tuple[int | None, FitResult]:
    """The most bytes held beside the ratings, where the system tells, and what the fit gave."""
    gc.collect()
    before = machine.forget_peak()
    found = fit(train, config)
    peak = machine.peak_memory()
    return None if before is None or peak is None else peak - before, found


def summary(outcome: Json) -> list[str]:
    """A line a case, then slopes and what threads gain."""
    head = f"{'solver':9}{'ratings':>12}{'K':>5}{'threads':>8}{'ms an epoch':>13}{'M ratings/s':>13}"
    out = [f"{head}{'B a rating':>12}{'unsorted':>10}"]
    for row in outcome["rows"]:
        begin = f"{row['solver']:9}{row['n_ratings']:12,}{row['n_factors']:5}{row['threads']:8}"
        if row["timing"] is None:
            out.append(f"{begin}  {row['status']}: {row['reason']}")
            continue
        spares = row["spare_bytes_per_rating"], row["unsorted_spare_bytes_per_rating"]
        memory, unsorted = ("–" if spare is None else f"{spare:.1f}" for spare in spares)
        speed = f"{row['timing']['median_ms']:13.2f}{row['timing']['ratings_per_s'] / 1e6:13.1f}"
        out.append(f"{begin}{speed}{memory:>12}{unsorted:>10}")
    for one in outcome["slopes"]:
        kept = f"{'K' if one['over'] == 'N' else 'N'} = {one['fixed']:,}"
        out.append(
            f"{one['solver']}, {one['threads']} threads: time grows as {one['over']}^{one['slope']:.2f} ({kept})"
        )
    for name in dict.fromkeys(one["solver"] for one in outcome["threads"]):
        ratios = [one["ratio"] for one in outcome["threads"] if one["solver"] == name]
        out.append(f"{name}: all threads over one, {min(ratios):.2f} to {max(ratios):.2f}")
    return out + machine.disturbance(outcome["others_busy_cores"])


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], run_case))
