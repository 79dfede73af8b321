"""What the kernels' constants are worth: each set to other values, beside the value that it has.

``python -m bench sweep`` writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment, others_busy_cores
    problem {data, n_users, n_items, n_ratings}
    complete: whether every value had its turn
    rows [{kernel, constant, value, chosen, n_factors, threads, status, reason, samples_ms, timing, ratio}]

A value is measured in a process of its own, which compiles the kernels with it; processes take turns, round by round.
``ratio`` is the median time with the chosen value over that with this one: above 1 this one would be faster.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np

from bench import kernels, machine, result, worker
from bench.cases import Case, as_holdout
from bench.launch import Json, Launch, in_fresh_process
from mf_numpy import Config, Ratings
from mf_numpy.errors import ConfigError, choose

SCHEMA, VERSION = "mf-sweep", 1
SAMPLES = 7

Say = Callable[[str], None]


@dataclass(frozen=True)
class Constant:
    """A constant of a kernel and the values that are tried for it.

    Attributes:
        kernel: of `bench.kernels.KERNELS`, the one that it changes.
        module, name: where it is.
        values: what is tried beside the value that it has.
        about: what it says, for a person.
    """

    kernel: str
    module: str
    name: str
    values: tuple[int, ...]
    about: str

    @property
    def chosen(self) -> int:
        """The value that it has."""
        return int(getattr(importlib.import_module(self.module), self.name))


CONSTANTS: tuple[Constant, ...] = (
    Constant("gradient", "mf_numpy.kernels.layout", "ITEMS_PER_BLOCK", (500, 1000, 4000, 1 << 16), "items of a block"),
    Constant("gradient", "mf_numpy.kernels.layout", "BY_POPULARITY", (0,), "items numbered by popularity"),
    Constant("gradient", "mf_numpy.kernels.layout", "CHUNKS", (16, 256), "chunks of a block at most"),
    Constant("sgd", "mf_numpy.kernels.grid", "SIDE", (4, 16, 32), "shares of users and of items"),
    Constant("sgd", "mf_numpy.kernels.grid", "USERS_AT_ONCE", (4, 8, 128, 1 << 20), "users shuffled together"),
    Constant("sgd", "mf_numpy.kernels.sgd", "AHEAD_BYTES", (0, 512, 8192), "bytes of rows asked for ahead"),
)  # fmt: skip


def measure(
    train: Ratings,
    name: str,
    *,
    constants: tuple[Constant, ...] = CONSTANTS,
    factors: tuple[int, ...] = kernels.FACTORS,
    rounds: int = 3,
    launch: Launch | None = None,
    say: Say = lambda text: None,
) -> Json:
    """Time each kernel with each value. Ctrl-C keeps what is done.

    Args:
        train: what the kernels run on, called `name` in the result.
        constants: what is swept.
        rounds: processes of each value.
        launch: how a process is started.

    Raises:
        ConfigError: no round, or a K below 1.
    """
    if rounds < 1 or not factors or min(factors) < 1:
        raise ConfigError(f"rounds {rounds} and factors {factors} came; each must be 1 or larger")
    threads = tuple(sorted({1, machine.usable_cores()}))
    start = launch or partial(in_fresh_process, module="bench.sweep")
    turns: dict[tuple[Constant, int], list[Json]] = {}
    complete, began = False, machine.clock()
    with tempfile.TemporaryDirectory(prefix="mf-sweep-") as scratch:
        folder = Path(scratch)
        worker.save_data(folder / "data.npz", train, as_holdout(train.take(np.arange(1))))
        try:
            for turn in range(rounds):
                for constant in constants:
                    for value in (constant.chosen, *(v for v in constant.values if v != constant.chosen)):
                        say(f"round {turn + 1} of {rounds}: {constant.kernel}, {constant.name} = {value:,}")
                        # A cache of its own: what was compiled with another value must not be found.
                        own = folder / f"{constant.name}-{value}"
                        own.mkdir(exist_ok=True)
                        order = {
                            "kernel": constant.kernel, "module": constant.module, "name": constant.name,
                            "value": value, "factors": factors, "threads": max(threads), "each": threads,
                            "data": "../data.npz",
                        }  # fmt: skip
                        outcome, _ = start(Case("sweep", "numba", "cpu", "float32"), order, own)
                        turns.setdefault((constant, value), []).append(outcome)
            complete = True
        except KeyboardInterrupt:
            if not turns:
                raise
            say("interrupted: what was measured is kept")
    cleaned: Json = result.clean(
        {
            "schema": SCHEMA,
            "schema_version": VERSION,
            **machine.record(max(threads)),
            "others_busy_cores": machine.others_busy(began, machine.clock()),
            "problem": {"data": name, "n_users": train.n_users, "n_items": train.n_items, "n_ratings": len(train)},
            "complete": complete,
            "rows": list(_rows(turns, factors, threads, len(train))),
        }
    )
    return cleaned


def _rows(
    turns: dict[tuple[Constant, int], list[Json]], factors: tuple[int, ...], threads: tuple[int, ...], n_ratings: int
) -> Iterator[Json]:
    for (constant, value), outcomes in turns.items():
        for k in factors:
            for n in threads:
                samples = _samples(outcomes, k, n)
                chosen = _samples(turns[constant, constant.chosen], k, n)
                failed = next((out for out in outcomes if out["status"] != "ok"), None)
                yield {
                    "kernel": constant.kernel, "constant": constant.name, "value": value,
                    "chosen": value == constant.chosen, "n_factors": k, "threads": n,
                    "status": "failed" if failed else "ok", "reason": failed["reason"] if failed else None,
                    "samples_ms": samples, "timing": result.timing(samples, n_ratings) if samples else None,
                    "ratio": statistics.median(chosen) / statistics.median(samples) if samples and chosen else None,
                }  # fmt: skip


def _samples(outcomes: list[Json], n_factors: int, threads: int) -> list[float]:
    return [ms for out in outcomes for ms in out.get("samples_ms", {}).get(f"{n_factors}/{threads}", [])]


def run_case(order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """The process's answer: samples by ``K/threads``."""
    constant = importlib.import_module(order["module"])
    # Before anything is compiled: kernels take constants as they are then.
    setattr(constant, order["name"], order["value"])
    train, _ = worker.load_data(folder / order["data"])
    samples: dict[str, list[float]] = {}
    for k in order["factors"]:
        call = kernels.call_of(order["kernel"], train, Config(n_factors=k, dtype="float32"))
        for n in order["each"]:
            numba.set_num_threads(n)
            call()
            kept = samples.setdefault(f"{k}/{n}", [])
            for _ in range(SAMPLES):
                began = time.perf_counter()
                call()
                kept.append(1e3 * (time.perf_counter() - began))
    return {"status": "ok", "reason": None, "samples_ms": samples}, {}


def chosen_of(names: str) -> tuple[Constant, ...]:
    """The constants of a text such as ``AHEAD_BYTES,SIDE``.

    Raises:
        ConfigError: an unknown one.
    """
    known = {constant.name: constant for constant in CONSTANTS}
    asked = [name.strip() for name in names.split(",") if name.strip()]
    return tuple(known[choose("constant", name, tuple(known))] for name in asked)


def summary(outcome: Json) -> list[str]:
    """A line a value, for a terminal: M ratings/s, and against the chosen value."""
    out = [f"{'constant':16}{'value':>12}{'K':>5}{'threads':>8}{'M ratings/s':>13}  against the chosen"]
    for row in outcome["rows"]:
        begin = f"{row['constant']:16}{row['value']:12,}{row['n_factors']:5}{row['threads']:8}"
        if row["timing"] is None:
            out.append(f"{begin}  {row['status']}: {row['reason']}")
            continue
        against = "chosen" if row["chosen"] else f"{row['ratio']:.2f}×"
        out.append(f"{begin}{row['timing']['ratings_per_s'] / 1e6:13.1f}  {against}")
    return out + machine.disturbance(outcome["others_busy_cores"])


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], run_case))
