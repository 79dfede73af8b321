"""The machine's own lines: bytes/s of copy and triad, and flops/s of multiply-adds.

Eq. 28: a pass takes at least max(flops / peak, bytes / bandwidth) seconds.
Runs in a process of its own: ``python -m bench.roofline CASE.json OUT.json``.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import prange

from bench import machine
from mf_numpy.ratings import Array

Json = dict[str, Any]

MEMORY_BYTES, CACHE_BYTES = 256 << 20, 48 << 10
"""Bytes of each of the three arrays: past every cache, and three a core that its second-level cache holds."""

LANES = 64
"""Numbers of the first multiply-add kernel: eight vector registers of float32, all independent."""


@numba.njit(parallel=True)
def _copy(out, a, b, times):  # type: ignore[no-untyped-def]
    for chunk in prange(len(out)):
        # There and back: a copy that is repeated as it is would be made once.
        for turn in range(times):
            source, target = (a, out) if turn % 2 == 0 else (out, a)
            for k in range(out.shape[1]):
                target[chunk, k] = source[chunk, k]


@numba.njit(parallel=True, fastmath={"contract"})
def _triad(out, a, b, times):  # type: ignore[no-untyped-def]
    for chunk in prange(len(out)):
        for turn in range(times):
            for k in range(out.shape[1]):
                out[chunk, k] = a[chunk, k] + turn * b[chunk, k]


@numba.njit(parallel=True, fastmath={"contract"})
def _one_row(y, m, c, times):  # type: ignore[no-untyped-def]
    """`LANES` chains y ← ym + c, which stay in registers."""
    for thread in prange(len(y)):
        row = np.empty(LANES, y.dtype)
        row[:] = y[thread, :LANES]
        for _ in range(times * (y.shape[1] // LANES)):
            for k in range(LANES):
                row[k] = row[k] * m + c
        y[thread, :LANES] = row


@numba.njit(parallel=True, fastmath={"contract"})
def _eight_rows(y, m, c, times):  # type: ignore[no-untyped-def]
    """Eight chains of vectors, each moved on 16 times between a load and a store."""
    n = y.shape[1] // 8
    for thread in prange(len(y)):
        x = y[thread]
        for _ in range(times):
            for k in range(n):
                a, b, d, e = x[k], x[n + k], x[2 * n + k], x[3 * n + k]
                f, g, h, i = x[4 * n + k], x[5 * n + k], x[6 * n + k], x[7 * n + k]
                for _ in range(16):
                    a, b, d, e = a * m + c, b * m + c, d * m + c, e * m + c
                    f, g, h, i = f * m + c, g * m + c, h * m + c, i * m + c
                x[k], x[n + k], x[2 * n + k], x[3 * n + k] = a, b, d, e
                x[4 * n + k], x[5 * n + k], x[6 * n + k], x[7 * n + k] = f, g, h, i


def measure(threads: tuple[int, ...], *, samples: int = 7, seconds: float = 0.2) -> Json:
    """The lines for each number of threads.

    Args:
        threads: numbers of Numba threads, each at most what the process was started with.
        samples: repetitions, whose median counts.
        seconds: about how long one takes.

    Returns:
        ``bandwidth``: {place (memory or cache), kernel (copy or triad), threads, gbytes_per_s, samples}, where a copy
        counts 2 numbers and a triad 3; ``peak``: {dtype, threads, by, gflops_per_s, samples}.
    """
    out: Json = {"bandwidth": [], "memory_bytes": 3 * MEMORY_BYTES, "cache_bytes": 3 * CACHE_BYTES}
    with threads_kept():
        for n in threads:
            numba.set_num_threads(n)
            for place, each in (("memory", MEMORY_BYTES), ("cache", CACHE_BYTES * n)):
                arrays = [np.full((n, each // 8 // n), float(k)) for k in range(3)]
                for name, kernel, moved in (("copy", _copy, 2), ("triad", _triad, 3)):
                    rates = _rates(partial(kernel, *arrays), moved * each, samples, seconds)
                    out["bandwidth"].append({"place": place, "kernel": name, "threads": n} | _of("gbytes", rates))
    out["peak"] = peaks(threads, samples=samples, seconds=seconds)
    return out


def levels(threads: tuple[int, ...], *, samples: int = 7, seconds: float = 0.1) -> list[Json]:
    """Triads/s from each cache and from memory.

    The three arrays fill half of a thread's share of a cache, so that they lie in it and not in the one before.

    Returns:
        {place (L1, L2, ..., memory), threads, bytes_per_thread (what the place holds of one thread; None: all),
        gbytes_per_s, samples}, nearest first for each number of threads.
    """
    out = []
    with threads_kept():
        for n in threads:
            numba.set_num_threads(n)
            places: list[tuple[str, int | None, int]] = []
            for cache in machine.caches():
                held = cache["bytes"] // min(n, cache["shared_by"])
                places.append((f"L{cache['level']}", held, held // 6))
            for place, held, each in (*places, ("memory", None, MEMORY_BYTES // n)):
                arrays = [_whole_lines(n, each, float(k)) for k in range(3)]
                rates = _rates(partial(_triad, *arrays), 3 * arrays[0].nbytes, samples, seconds)
                out.append({"place": place, "threads": n, "bytes_per_thread": held} | _of("gbytes", rates))
    return out


@contextmanager
def threads_kept() -> Iterator[None]:
    """Gives Numba its number of threads back."""
    before = numba.get_num_threads()
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _whole_lines(rows: int, bytes_per_row: int, value: float) -> Array:
    """A table whose rows begin and end with a cache line of 64 bytes: NumPy's own may begin within one."""
    width = bytes_per_row // 64 * 8
    room = np.full(rows * width + 8, value)
    begin = -room.ctypes.data % 64 // 8
    return room[begin : begin + rows * width].reshape(rows, width)


def peaks(threads: tuple[int, ...], *, samples: int = 7, seconds: float = 0.2) -> list[Json]:
    """Multiply-adds/s: {dtype, threads, by, gflops_per_s, samples}, the fastest of three ways to spend them."""
    out = []
    with threads_kept():
        for n in threads:
            numba.set_num_threads(n)
            out += [
                {"dtype": np.dtype(dtype).name, "threads": n} | _peak(dtype, n, samples, seconds)
                for dtype in (np.float64, np.float32)
            ]
    return out


def _peak(dtype: Any, threads: int, samples: int, seconds: float) -> Json:
    """The fastest of three ways to spend nothing but multiply-adds: compilers keep none of them busy everywhere."""
    y, m, c = np.ones((threads, 1024), dtype), dtype(0.999), dtype(0.001)
    square = np.ones((1024, 1024), dtype)
    product = np.empty_like(square)

    def multiply(times: int) -> None:
        for _ in range(times):
            np.matmul(square, square, out=product)

    ways: list[tuple[str, Callable[[int], Any], float]] = [
        ("one row", lambda times: _one_row(y, m, c, times), 2.0 * y.size),
        ("eight rows", lambda times: _eight_rows(y, m, c, times), 32.0 * y.size),
        ("matrix product", multiply, 2.0 * 1024**3),
    ]
    tried = []
    with importlib.import_module("threadpoolctl").threadpool_limits(threads):
        for name, run, work in ways:
            tried.append({"by": name} | _of("gflops", _rates(run, work, samples, seconds)))
    best: Json = max(tried, key=lambda found: float(found["gflops_per_s"]))
    return best


def _rates(run: Callable[[int], Any], work: float, samples: int, seconds: float) -> list[float]:
    """Work a second of each sample, in 10⁹; `run(times)` does it `times` over."""
    run(1)
    times, spent = 1, 0.0
    while True:
        began = time.perf_counter()
        run(times)
        spent = time.perf_counter() - began
        if spent > seconds / 4:
            break
        times *= 2
    times = max(1, round(times * seconds / spent))
    out = []
    for _ in range(samples):
        began = time.perf_counter()
        run(times)
        out.append(work * times / (time.perf_counter() - began) / 1e9)
    return out


def _of(unit: str, rates: list[float]) -> Json:
    return {f"{unit}_per_s": statistics.median(rates), "samples": rates}


def run_case(order: Json, folder: Path) -> tuple[Json, dict[str, Array]]:
    """The worker's answer: ``lines`` for one thread and for all."""
    every = sorted({1, int(order["threads"])})
    return {"status": "ok", "reason": None, "lines": measure(tuple(every), samples=order.get("samples", 7))}, {}


if __name__ == "__main__":
    from bench.worker import main

    sys.exit(main(sys.argv[1:], run_case))
