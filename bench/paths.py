"""Every path of `mf_torch.paths` beside the Numba backend: milliseconds of a full-batch iteration, in one run.

``python -m bench paths`` writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment
    problem {data, n_users, n_items, n_ratings}
    complete: whether every system had all its turns
    rows [{system, n_factors, threads, status, reason, samples_ms (by round), timing, warm_up_s (by round), check,
           peak_bytes, profile, about, others_busy_cores}]
    ratios [{system, against (autograd or numba), n_factors, threads, ratio, low, high}]

An iteration is gradient and update over all ratings, in float32. Systems take turns, round by round, each turn a
process of its own, which first compares its first steps with the Numba backend's (`bench.agreement`). ``warm_up_s`` are
of the iterations until then, the first of which compiles; ``peak_bytes`` is the most that layout and iterations held
above the ratings. A slow system has fewer samples: as many as fit into `SECONDS`. ``profile`` is as in
`bench.operators`, of the first round and the most threads. A ratio is how many times as long the other's median takes;
low and high are its quartiles over all pairs of rounds.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np

from bench import agreement, machine, operators, result, turns, worker
from bench.cases import Case, as_holdout
from bench.launch import Json, Launch, in_fresh_process
from mf_numpy import Ratings
from mf_numpy.errors import ConfigError, choose, counted
from mf_numpy.solvers import engine_for

SCHEMA, VERSION = "mf-paths", 1
NUMBA = "numba"
AGAINST = ("autograd", NUMBA)
LIMIT = 400.0
"""Seconds of a turn."""

SECONDS, SAMPLES = 2.0, 5
"""What the samples of one number of threads may take in a turn, and how many there are where they take less."""

LEAST = 3
"""Samples of the slowest system, all rounds together."""

Say = Callable[[str], None]


def systems() -> tuple[str, ...]:
    """The Numba backend and every path."""
    from mf_torch.paths import PATHS

    return (NUMBA, *PATHS)


def measure(
    train: Ratings,
    name: str,
    *,
    only: tuple[str, ...] = (),
    factors: tuple[int, ...] = (16, 64),
    threads: tuple[int, ...] = (),
    rounds: int = 3,
    launch: Launch | None = None,
    say: Say = lambda text: None,
) -> Json:
    """Every system's rows, systems taking turns.

    Ctrl-C keeps what is done.

    Args:
        train: what is trained on, called `name` in the result.
        only: names of `systems`; by default all.
        threads: numbers of threads; by default 1 and every core.
        rounds: turns of each system.
        launch: how a process is started.

    Raises:
        ConfigError: an unknown system, no round, or a K or number of threads below 1.
        RuntimeError: the Numba backend, which the others are compared with, failed.
    """
    for system in only:
        choose("system", system, systems())
    threads = threads or tuple(sorted({1, machine.usable_cores()}))
    if rounds < 1 or not factors or min(*factors, *threads) < 1:
        raise ConfigError(f"rounds {rounds}, factors {factors} and threads {threads} came; each must be 1 or larger")
    start = launch or partial(in_fresh_process, module="bench.paths", limit=LIMIT)
    plan = list(itertools.product(range(rounds), factors, only or systems()))
    taken: dict[tuple[str, int], list[Json]] = {}
    with tempfile.TemporaryDirectory(prefix="mf-paths-") as scratch:
        folder = Path(scratch)
        worker.save_data(folder / "data.npz", train, as_holdout(train.take(np.arange(1))))
        try:
            for turn, k, system in plan:
                say(f"round {turn + 1} of {rounds}: K = {k}, {system}")
                if not (folder / f"expected-{k}.npz").exists():
                    _expect(k, threads, folder, start)
                order = {"system": system, "n_factors": k, "threads": max(threads), "each": sorted(threads)[::-1]}
                order |= {"least": -(-LEAST // rounds), "profile": turn == 0, "data": "data.npz"}
                one = turns.take(start, Case("paths", system, "cpu", "float32"), order, folder)
                taken.setdefault((system, k), []).append(one)
        except KeyboardInterrupt:
            if not taken:
                raise
            say("interrupted: what was measured is kept")
    rows = [row for key, outcomes in taken.items() for row in _rows(*key, outcomes, threads, len(train))]
    cleaned: Json = result.clean(
        {
            "schema": SCHEMA,
            "schema_version": VERSION,
            **machine.record(max(threads)),
            "problem": {"data": name, "n_users": train.n_users, "n_items": train.n_items, "n_ratings": len(train)},
            "complete": sum(map(len, taken.values())) == len(plan),
            "rows": rows,
            "ratios": list(ratios(rows)),
        }
    )
    return cleaned


def _expect(n_factors: int, threads: tuple[int, ...], folder: Path, launch: Launch) -> None:
    """Leave the Numba backend's first steps where the turns find them."""
    # In a folder with a compiler's cache of its own, so that the Numba backend's own turn compiles as the others do.
    beside = folder / "expected"
    beside.mkdir(exist_ok=True)
    order = {"system": None, "n_factors": n_factors, "threads": max(threads), "data": "../data.npz"}
    outcome, arrays = launch(Case("paths", "expected", "cpu", "float64"), order, beside)
    if outcome["status"] != "ok":
        raise RuntimeError(f"the Numba backend could not be run: {outcome['reason']}")
    named: dict[str, Any] = dict(arrays)
    np.savez(folder / f"expected-{n_factors}.npz", **named)


def _rows(
    system: str, n_factors: int, outcomes: list[Json], threads: tuple[int, ...], n_ratings: int
) -> Iterator[Json]:
    for n in threads:
        each = [outcome | outcome.get("by_threads", {}).get(str(n), {}) for outcome in outcomes]
        row = {"system": system, "n_factors": n_factors, "threads": n} | turns.merged(each, n_ratings)
        row["warm_up_s"] = [one["warm_up_s"] for one in each if one["status"] == "ok"]
        row["check"] = outcomes[-1].get("check")
        peaks = [one["peak_bytes"] for one in each if one.get("peak_bytes") is not None]
        row["peak_bytes"] = max(peaks, default=None)
        profiles = [one["profile"] for one in outcomes if one.get("profile")]
        yield row | {"profile": profiles[0] if profiles and n == max(threads) else None}


def ratios(rows: list[Json]) -> Iterator[Json]:
    """Of every row, how many times as long the reference path and the Numba backend take."""
    for mine, other in itertools.product(rows, rows):
        same = all(other[key] == mine[key] for key in ("n_factors", "threads"))
        if not same or other is mine or other["system"] not in AGAINST or not (mine["timing"] and other["timing"]):
            continue
        about = {key: mine[key] for key in ("system", "n_factors", "threads")}
        yield about | {"against": other["system"]} | turns.ratio(mine, other)


def engine_of(system: str, config: Any) -> Any:
    """The engine of a name of `systems`, on the CPU."""
    if system == NUMBA:
        return engine_for(config, "numba")
    from mf_torch.train import TorchEngine

    return TorchEngine(path=system)


def run_case(order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """The process's answer: samples by each number of threads, or the steps that are expected."""
    train, _ = worker.load_data(folder / order["data"])
    config = agreement.config_of(train, order["n_factors"])
    if order["system"] is None:
        way = agreement.expected(train, config)
        arrays = way.arrays | {"objectives": np.array(way.objectives), "bound": np.array(way.bound)}
        return {"status": "ok", "reason": None}, arrays
    with np.load(folder / f"expected-{config.n_factors}.npz") as file:
        wanted = {name: file[name] for name in file.files}
    objectives, bound = wanted.pop("objectives").tolist(), float(wanted.pop("bound"))
    return timed(train, config, order, agreement.Way(objectives, wanted, bound)), {}


def timed(train: Ratings, config: Any, order: Json, wanted: agreement.Way) -> Json:
    """Check a system, then take its samples."""
    system = order["system"]
    engine = engine_of(system, config)
    if system == "compiled":
        _name_kernels()
    _use(order["each"][0], system)
    _ = train.csr  # sorted here, so that its memory counts as the ratings'
    gc.collect()
    before = machine.forget_peak()
    began = time.perf_counter()
    whole, state = agreement.begun(engine, train, config)
    prepared = time.perf_counter() - began
    state, way = agreement.way_of(engine, state, whole, config)
    warm = time.perf_counter() - began - prepared
    peak = machine.peak_memory()
    check = agreement.verdict(way, wanted)
    if not check["passed"]:
        return {"status": "failed", "reason": agreement.reason(check), "check": check}
    del way, wanted

    def iteration() -> None:
        nonlocal state
        state = engine.next_epoch(engine.step(state, whole, config))

    by_threads: Json = {}
    profile = None
    for n in order["each"]:
        if by_threads:
            _use(n, system)
            slow = next(iter(by_threads.values()))["samples_ms"][0] > 1e3 * SECONDS / 2
            warm = 0.0
            # A compiler compiles anew for other threads; without one a slow first iteration is as good as any.
            if system == "compiled" or not slow:
                began = time.perf_counter()
                iteration()
                warm = time.perf_counter() - began
        by_threads[str(n)] = {"samples_ms": samples(iteration, order["least"]), "warm_up_s": warm}
        if order["profile"] and profile is None and system != NUMBA:
            profile = operators.profiled(iteration)
    return {
        "status": "ok",
        "reason": None,
        "by_threads": by_threads,
        "check": check,
        "profile": profile,
        "peak_bytes": None if before is None or peak is None else peak - before,
        "about": {"config": replace(config).to_dict(), "prepare_s": prepared},
    }


def samples(iteration: Callable[[], None], least: int) -> list[float]:
    """Milliseconds of iterations: `SAMPLES` of them, or fewer, but `least`, where they take more than `SECONDS`."""
    out: list[float] = []
    while len(out) < SAMPLES and (len(out) < least or sum(out) * (1 + 1 / len(out)) < 1e3 * SECONDS):
        began = time.perf_counter()
        iteration()
        out.append(1e3 * (time.perf_counter() - began))
    return out


def _use(threads: int, system: str) -> None:
    numba.set_num_threads(threads)
    if system != NUMBA:
        import torch

        torch.set_num_threads(threads)


def _name_kernels() -> None:
    """Have the compiler name its kernels to the profiler, and compile in this process: others would stay beside it."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    from torch._inductor import config

    config.compile_threads = 1
    config.cpp.enable_kernel_profile = True


def summary(outcome: Json) -> list[str]:
    """A line a row with its ratios, then where each path's time goes."""
    found = {(r["system"], r["against"], r["n_factors"], r["threads"]): r for r in outcome["ratios"]}
    head = f"{'K':>4}{'threads':>8}  {'system':10}{'ms an iteration':>16}{'M ratings/s':>12}"
    out = [head + "".join(f"{'over ' + name:>24}" for name in AGAINST)]
    for row in outcome["rows"]:
        begin = f"{row['n_factors']:4}{row['threads']:8}  {row['system']:10}"
        if row["timing"] is None:
            out.append(f"{begin}  {row['status']}: {row['reason']}")
            continue
        times = [found.get((row["system"], name, row["n_factors"], row["threads"])) for name in AGAINST]
        ends = [f"{r['ratio']:.2f}x ({r['low']:.2f}-{r['high']:.2f})" if r else "" for r in times]
        failed = f"   a round {row['status']}: {row['reason']}" if row["status"] != "ok" else ""
        timing = row["timing"]
        rate = f"{timing['median_ms']:16.1f}{timing['ratings_per_s'] / 1e6:12.1f}"
        out.append(begin + rate + "".join(f"{end:>24}" for end in ends) + failed)
    for row in outcome["rows"]:
        if row["profile"]:
            lines = sorted(row["profile"]["operators"], key=lambda line: -float(line["share"]))
            named = ", ".join(f"{line['operator']} {line['share']:.0%}" for line in lines[:4])
            out.append(f"K = {row['n_factors']}, {counted(row['threads'], 'thread')}, {row['system']}: {named}")
    return out + machine.disturbance(max((row["others_busy_cores"] or 0.0 for row in outcome["rows"]), default=0.0))


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], run_case))
