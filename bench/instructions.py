"""What each kernel executes for a rating: instructions, reads, writes and simulated cache misses, by callgrind.

``python -m bench instructions`` writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment
    target {cpu, features}: what the kernels were compiled for, the same on every machine that runs x86-64
    problem {data, n_users, n_items, n_ratings}
    complete: whether every kernel was counted
    rows [{kernel, n_factors, dtype, instructions, reads, writes, l1_misses, last_level_misses}]: for each rating

Valgrind runs the interpreter without counting, and counts from just before a kernel's call, its second, to just after
it, one thread. Counts do not depend on what else the machine does; a miss is that of callgrind's model of this
machine's first and last cache. Valgrind knows no AVX-512, so kernels are compiled for AVX2 and fused multiply-adds.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bench import kernels, machine, result, worker
from bench.cases import as_holdout
from bench.launch import Json, run_to_end
from mf_numpy import Config, Ratings, gradients, model
from mf_numpy.batch import full_batch
from mf_numpy.errors import ConfigError, choose

SCHEMA, VERSION = "mf-instructions", 1
TARGET = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2,+f16c,+popcnt,+sse4.2"}
SCIPY = "scipy"
COUNTED = ("gradient", SCIPY, "predict", "sgd", "als")
"""Kernels of `bench.kernels`, and what the first of them is timed against: the same by SciPy's sparse products."""

START, STOP, ZERO, DUMP = (0x43540000 + code for code in (4, 5, 1, 0))
"""Callgrind's client requests, of valgrind's callgrind.h."""

EVENTS = {
    "instructions": ("Ir",),
    "reads": ("Dr",),
    "writes": ("Dw",),
    "l1_misses": ("D1mr", "D1mw"),
    "last_level_misses": ("DLmr", "DLmw"),
}
"""What is reported, as sums of callgrind's events."""

Say = Callable[[str], None]
Count = Callable[[Json, Path], dict[str, dict[str, int]]]


def measure(
    train: Ratings,
    name: str,
    *,
    factors: tuple[int, ...] = kernels.FACTORS,
    only: tuple[str, ...] = COUNTED,
    count: Count | None = None,
    say: Say = lambda text: None,
) -> Json:
    """Count every kernel at each K, in float32. Ctrl-C keeps what is done.

    Args:
        train: what the kernels run on, called `name` in the result; callgrind takes 50 times as long as a kernel.
        only: kernels of `COUNTED`.
        count: runs an order under callgrind and returns each kernel's events.

    Raises:
        ConfigError: a K below 1, an unknown kernel, or no valgrind.
        RuntimeError: a process failed, with its reason.
    """
    for kernel in only:
        choose("kernel", kernel, COUNTED)
    if not factors or min(factors) < 1:
        raise ConfigError(f"factors is {factors}; each K must be 1 or larger")
    if count is None and shutil.which("valgrind") is None:
        raise ConfigError("valgrind is not installed, but callgrind counts; install the package valgrind")
    count = count or under_callgrind
    rows: list[Json] = []
    complete = False
    with tempfile.TemporaryDirectory(prefix="mf-instructions-") as scratch:
        folder = Path(scratch)
        worker.save_data(folder / "data.npz", train, as_holdout(train.take(np.arange(1))))
        try:
            for k in factors:
                say(f"K = {k}: {', '.join(only)}")
                counted = count({"data": "data.npz", "n_factors": k, "kernels": only}, folder)
                for kernel in only:
                    each = {e: sum(counted[kernel][x] for x in of) / len(train) for e, of in EVENTS.items()}
                    rows.append({"kernel": kernel, "n_factors": k, "dtype": "float32"} | each)
            complete = True
        except KeyboardInterrupt:
            if not rows:
                raise
            say("interrupted: what was counted is kept")
    cleaned: Json = result.clean(
        {
            "schema": SCHEMA,
            "schema_version": VERSION,
            **machine.record(1),
            "target": {"cpu": TARGET["NUMBA_CPU_NAME"], "features": TARGET["NUMBA_CPU_FEATURES"]},
            "problem": {"data": name, "n_users": train.n_users, "n_items": train.n_items, "n_ratings": len(train)},
            "complete": complete,
            "rows": rows,
        }
    )
    return cleaned


def under_callgrind(order: Json, folder: Path) -> dict[str, dict[str, int]]:
    """The events of a call of each kernel of `order`.

    Raises:
        RuntimeError: the process failed, with its reason.
    """
    source, target, said, dumps = (folder / name for name in ("order.json", "done.json", "said.txt", "counts"))
    source.write_text(json.dumps(order), encoding="utf-8")
    variables = machine.environment(1, folder / "numba") | TARGET
    counter = ("valgrind", "--tool=callgrind", "--cache-sim=yes", "--instr-atstart=no", f"--callgrind-out-file={dumps}")
    # Compiled outside first: inside it would take minutes.
    for tool in ((), counter):
        target.unlink(missing_ok=True)
        command = [*tool, sys.executable, "-m", "bench.instructions", str(source), str(target)]
        failure = run_to_end(command, variables, said, target)
        if not failure:
            done = json.loads(target.read_text(encoding="utf-8"))
            failure = done["reason"] if done["status"] != "ok" else None
        if failure:
            raise RuntimeError(f"the kernels could not be counted: {failure}")
    texts = [Path(f"{dumps}.{n + 1}").read_text(encoding="utf-8") for n in range(len(order["kernels"]))]
    return dict(zip(order["kernels"], map(events, texts), strict=True))


def events(text: str) -> dict[str, int]:
    """The totals of a file that callgrind wrote, by event.

    Raises:
        RuntimeError: there are none.
    """
    names, totals = (re.search(rf"^{word}: (.*)$", text, re.MULTILINE) for word in ("events", "totals"))
    if names is None or totals is None:
        raise RuntimeError(f"callgrind wrote no totals, but ended with {text.strip().splitlines()[-1:]}")
    return dict(zip(names[1].split(), map(int, totals[1].split()), strict=True))


@intrinsic
def _instruction(typing_context: Any, address: Any) -> Any:
    """What valgrind takes for a request and a processor for nothing: turns by 128 bits in all, an exchange with itself.

    `address` is that of the request's six words.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        turns = " ".join(f"rolq $${bits}, %rdi;" for bits in (3, 13, 61, 51))
        function = ir.FunctionType(word, [word, word])
        asm = ir.InlineAsm(function, f"{turns} xchgq %rbx, %rbx", "={rdx},{rax},0,~{cc},~{memory}", side_effect=True)
        return builder.call(asm, [arguments[0], word(0)])

    return types.int64(types.int64), emit


@numba.njit(cache=True)
def _send(address):  # type: ignore[no-untyped-def]
    return _instruction(address)  # type: ignore[call-arg]


def ask(code: int) -> None:
    """Send callgrind a request; without valgrind nothing happens."""
    llvm.initialize_native_asmparser()
    words = np.zeros(6, np.int64)
    words[0] = code
    _send(words.ctypes.data)


def _in_scipy(train: Ratings, config: Config) -> Callable[[], object]:
    batch, params = full_batch(train, config), model.start(train, config)
    return lambda: gradients.gradient(params, batch, config)


def run_case(order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """The process's work: two calls of each kernel, the second one counted and written."""
    train, _ = worker.load_data(folder / order["data"])
    ask(STOP)
    config = Config(n_factors=order["n_factors"], dtype="float32")
    for kernel in order["kernels"]:
        call = _in_scipy(train, config) if kernel == SCIPY else kernels.call_of(kernel, train, config)
        call()
        ask(START)
        ask(ZERO)
        call()
        ask(DUMP)
        ask(STOP)
    return {"status": "ok", "reason": None}, {}


def summary(outcome: Json) -> list[str]:
    """A line a kernel, for a terminal."""
    heads = f"{'instructions':>14}{'reads':>8}{'writes':>8}{'L1 misses':>11}{'of memory':>11}"
    return [f"{'for each rating':16}{'K':>4}{heads}"] + [
        f"{row['kernel']:16}{row['n_factors']:4}{row['instructions']:14.1f}{row['reads']:8.1f}{row['writes']:8.1f}"
        f"{row['l1_misses']:11.2f}{row['last_level_misses']:11.3f}"
        for row in outcome["rows"]
    ]


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], run_case))
