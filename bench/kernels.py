"""Each Numba kernel alone, against what the machine could do: the roofline of Eq. 28 with a line a cache level.

``python -m bench roofline`` writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment, others_busy_cores
    caches [{level, bytes, shared_by}]
    levels, peaks: see `bench.roofline`
    problem {data, n_users, n_items, n_ratings}
    rows [{kernel, n_factors, dtype, threads, flops_per_rating, bytes_per_rating, resident_bytes, place, samples_ms,
           timing, gflops_per_s, gbytes_per_s, bound (flops or bytes), share (of the bound, 0 to 1)}]

A kernel's line is that of the nearest place which holds what it comes back to: for gradient and prediction the item
rows (and, of the gradient, a thread's own sums of them), for single steps a share of the items and a group of users,
for least squares the larger side's rows, for the update all that it passes over.
"""

from __future__ import annotations

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

from bench import cost, machine, result, roofline, worker
from bench.cases import Case, as_holdout
from bench.launch import Json, Launch, in_fresh_process
from mf_numpy import Config, Ratings, kernels, model
from mf_numpy.batch import full_batch
from mf_numpy.engine import State
from mf_numpy.errors import ConfigError
from mf_numpy.kernels.grid import USERS_AT_ONCE, side_of
from mf_numpy.solvers import engine_for

SCHEMA, VERSION = "mf-roofline", 1
FACTORS = (16, 64)
DTYPES = ("float32", "float64")
KERNELS = ("gradient", "update", "predict", "sgd", "als")

Say = Callable[[str], None]


def measure(
    train: Ratings,
    name: str,
    *,
    factors: tuple[int, ...] = FACTORS,
    samples: int = 9,
    launch: Launch | None = None,
    say: Say = lambda text: None,
) -> Json:
    """The machine's lines and every kernel's place among them, from one fresh process.

    Args:
        train: what the kernels run on, called `name` in the result.
        factors: values of K.
        samples: timed calls of each kernel, 5 or more; what counts is their median.
        launch: how the process is started.

    Raises:
        ConfigError: fewer than 5 samples, or a K below 1.
        RuntimeError: the process failed, with its reason.
    """
    if samples < 5 or not factors or min(factors) < 1:
        raise ConfigError(f"{samples} samples of K = {factors} came; a spread needs 5 samples, and K is 1 or larger")
    threads = machine.usable_cores()
    say(f"the machine's lines, then {', '.join(KERNELS)} for K = {', '.join(map(str, factors))}")
    with tempfile.TemporaryDirectory(prefix="mf-roofline-") as scratch:
        folder = Path(scratch)
        worker.save_data(folder / "data.npz", train, as_holdout(train.take(np.arange(1))))
        order = {"threads": threads, "factors": factors, "samples": samples, "data": "data.npz"}
        began = machine.clock()
        start = launch or partial(in_fresh_process, module="bench.kernels")
        outcome, _ = start(Case("roofline", "numba", "cpu", "float64"), order, folder)
        busy = machine.others_busy(began, machine.clock())
    if outcome["status"] != "ok":
        raise RuntimeError(f"the kernels could not be measured: {outcome['reason']}")
    cleaned: Json = result.clean(
        {
            "schema": SCHEMA,
            "schema_version": VERSION,
            **machine.record(threads),
            "others_busy_cores": busy,
            "caches": machine.caches(),
            "problem": {"data": name} | {"n_users": train.n_users, "n_items": train.n_items, "n_ratings": len(train)},
            **{key: outcome[key] for key in ("levels", "peaks", "rows")},
        }
    )
    return cleaned


def run_case(order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """The process's answer: lines and rows."""
    train, _ = worker.load_data(folder / order["data"])
    threads = tuple(sorted({1, int(order["threads"])}))
    lines = {"levels": roofline.levels(threads), "peaks": roofline.peaks(threads)}
    rows = [
        place(row, lines, train)
        for k in order["factors"]
        for dtype in DTYPES
        for row in timed(train, Config(n_factors=k, dtype=dtype), threads, order["samples"])  # type: ignore[arg-type]
    ]
    return {"status": "ok", "reason": None, **lines, "rows": rows}, {}


def call_of(kernel: str, train: Ratings, config: Config) -> Callable[[], object]:
    """A call of one of `KERNELS` that leaves what the next one starts from as it was, or as good as."""
    # With a step of almost nothing the parameters stay what they are, however often it is timed.
    if kernel == "sgd":
        return _step_of(train, replace(config.with_solver("sgd"), lr=1e-30))
    if kernel == "als":
        return _step_of(train, config.with_solver("als"))
    batch, params = full_batch(train, config), model.start(train, config)
    if kernel == "predict":
        return lambda: kernels.predict(params, batch.users, batch.items)
    room = kernels.workspace(params, batch)
    if kernel == "gradient":
        return lambda: kernels.gradient(params, batch, config, room)
    tensors, slopes = params.tensors(), kernels.gradient(params, batch, config, room).gradient
    memory = kernels.update(tensors, None, slopes, 1e-30, config)
    return lambda: kernels.update(tensors, memory, slopes, 1e-30, config)


def timed(train: Ratings, config: Config, threads: tuple[int, ...], samples: int) -> Iterator[Json]:
    """Every kernel's samples, kernels and numbers of threads taking turns so that a slow moment falls on all."""
    calls = {kernel: call_of(kernel, train, config) for kernel in KERNELS}
    taken: dict[tuple[str, int], list[float]] = {(name, n): [] for name in calls for n in threads}
    with roofline.threads_kept():
        for turn in range(samples + 1):
            for (name, n), kept in taken.items():
                numba.set_num_threads(n)
                began = time.perf_counter()
                calls[name]()
                # The first turn compiles, and wakes the threads.
                if turn:
                    kept.append(1e3 * (time.perf_counter() - began))
    for (name, n), kept in taken.items():
        about = {"kernel": name, "n_factors": config.n_factors, "dtype": config.dtype, "threads": n}
        yield about | {"samples_ms": kept, "timing": result.timing(kept, len(train))}


def _step_of(train: Ratings, config: Config) -> Callable[[], object]:
    """An epoch of a solver."""
    engine = engine_for(config, "numba")
    whole = engine.load(train, config)
    state = engine.start(State(model.start(train, config).copy()), whole, config)
    return lambda: engine.step(state, whole, config)


def place(row: Json, lines: Json, train: Ratings) -> Json:
    """A row with its work, the place it works from, and how much of the bound of Eq. 28 it reaches."""
    k, dtype, n = row["n_factors"], row["dtype"], row["threads"]
    rows = train.n_users + train.n_items
    work = cost.of_kernel(row["kernel"], k, dtype, rows=rows, n_ratings=len(train))
    back_to = {
        "gradient": 2 * train.n_items,
        "predict": train.n_items,
        "als": max(train.n_users, train.n_items),
        "sgd": train.n_items / side_of(train) + USERS_AT_ONCE,
        "update": 3 * rows / n,
    }
    resident = round(back_to[row["kernel"]] * (k + 1) * (4 if dtype == "float32" else 8))
    of_threads = [level for level in lines["levels"] if level["threads"] == n]
    level = next(x for x in of_threads if x["bytes_per_thread"] is None or x["bytes_per_thread"] >= resident)
    peak = next(x["gflops_per_s"] for x in lines["peaks"] if (x["dtype"], x["threads"]) == (dtype, n))
    limits = peak * 1e9, level["gbytes_per_s"] * 1e9
    rate = row["timing"]["ratings_per_s"] / 1e9
    return row | {
        "flops_per_rating": work.flops,
        "bytes_per_rating": work.bytes,
        "resident_bytes": resident,
        "place": level["place"],
        "gflops_per_s": work.flops * rate,
        "gbytes_per_s": work.bytes * rate,
        "bound": "flops" if work.flops / limits[0] > work.bytes / limits[1] else "bytes",
        "share": 1e3 * cost.least_seconds(work, len(train), *limits) / row["timing"]["median_ms"],  # Eq. 28
    }


def numbers(text: str, name: str = "factors") -> tuple[int, ...]:
    """The whole numbers in a text such as ``16,64``, given for the option `name`.

    Raises:
        ConfigError: something else in it.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{name} is {text!r}, but must be whole numbers with commas between them, as 16,64") from None


def summary(outcome: Json) -> list[str]:
    """The lines and a row a kernel, for a terminal."""
    out = []
    for level in outcome["levels"]:
        held = level["bytes_per_thread"]
        room = f"{held / 1024:,.0f} KiB a thread" if held else "everything"
        out.append(f"{_threads(level):>9}  {level['place']:7}{level['gbytes_per_s']:8.0f} GB/s     holds {room}")
    out += [
        f"{_threads(peak):>9}  {peak['dtype']:8}{peak['gflops_per_s']:7.0f} GFLOP/s  multiply-adds"
        for peak in outcome["peaks"]
    ]
    out.append("")
    out.append(f"{'kernel':10}{'K':>4} {'dtype':8} {'':9} {'ms':>8} {'M ratings/s':>12} {'GFLOP/s':>8} {'GB/s':>7}  of")
    for row in outcome["rows"]:
        timing = row["timing"]
        out.append(
            f"{row['kernel']:10}{row['n_factors']:4} {row['dtype']:8} {_threads(row):9} {timing['median_ms']:8.2f} "
            f"{timing['ratings_per_s'] / 1e6:12.1f} {row['gflops_per_s']:8.1f} {row['gbytes_per_s']:7.1f}  "
            f"{row['place']}: {row['share']:.0%} of its {row['bound']}"
        )
    busy = outcome["others_busy_cores"]
    return out + machine.disturbance(busy)


def _threads(entry: Json) -> str:
    return f"{entry['threads']} thread{'s' * (entry['threads'] > 1)}"


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], run_case))
