"""A GPU's own lines: bytes/s of copy and triad over sizes from its second-level cache to its memory.

By Triton, and where that is absent by torch's operators, whose launches cost small sizes some of their speed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

Json = dict[str, Any]

MIB = 1 << 20
SIZES = tuple(size * MIB for size in (6, 12, 24, 48, 96, 384, 1536))
"""Bytes of all arrays together."""

BLOCK = 1024
SCALE = 3.0


def measure(
    device: str = "cuda", *, sizes: tuple[int, ...] = SIZES, samples: int = 7, seconds: float = 0.02, by: str = ""
) -> Json:
    """The lines.

    Args:
        sizes: bytes of all arrays together.
        samples: launches, whose median counts.
        seconds: about how long one takes.
        by: ``triton`` or ``torch``; by default the first where it can be had.

    Returns:
        ``by``, ``why`` (not Triton, or None), ``cache_bytes`` and ``lines`` [{kernel, bytes, gbytes_per_s, samples}],
        where a copy counts 2 numbers and a triad 3.
    """
    why = None if by else _no_triton(device)
    by = by or ("torch" if why else "triton")
    lines = []
    for size in sizes:
        for kernel, moved in (("copy", 2), ("triad", 3)):
            each = max(1, size // (moved * 4 * BLOCK)) * BLOCK
            out, a, b = (torch.full((each,), float(k), device=device) for k in range(3))
            run = _run_of(by, kernel, out, a, b)
            rates = _rates(run, moved * a.nbytes, device, samples, seconds)
            _check(kernel, out)
            line = {"kernel": kernel, "bytes": moved * a.nbytes, "gbytes_per_s": statistics.median(rates)}
            lines.append(line | {"samples": rates})
    return {"by": by, "why": why, "cache_bytes": cache_bytes(device), "lines": lines}


def cache_bytes(device: str) -> int | None:
    """What the second-level cache of a GPU holds."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device != "cpu" else None


def _run_of(by: str, kernel: str, out: Any, a: Any, b: Any) -> Callable[[int], object]:
    if by == "triton":
        from bench.cuda_triad import passes

        n_blocks = out.numel() // BLOCK
        programs = min(n_blocks, 8 * _processors(out.device))
        about = {"TRIAD": kernel == "triad", "BLOCK": BLOCK}
        return lambda times: passes[(programs,)](out, a, b, SCALE, n_blocks, times, **about)

    def run(times: int) -> None:
        for _ in range(times):
            if kernel == "triad":
                torch.add(a, b, alpha=SCALE, out=out)
            else:
                out.copy_(a)

    return run


def _check(kernel: str, out: Any) -> None:
    expected = 1 + SCALE * 2 if kernel == "triad" else 1
    if not bool((out == expected).all()):
        raise ArithmeticError(f"the {kernel} left other numbers than {expected:g}; its rate would mean nothing")


def _rates(run: Callable[[int], object], moved: int, device: str, samples: int, seconds: float) -> list[float]:
    """10⁹ bytes/s of each sample; `run(times)` moves them `times` over."""

    def spent(times: int) -> float:
        _wait(device)
        began = time.perf_counter()
        run(times)
        _wait(device)
        return time.perf_counter() - began

    spent(1)
    times = 1
    while (taken := spent(times)) < seconds / 4:
        times *= 2
    times = max(1, round(times * seconds / taken))
    return [moved * times / spent(times) / 1e9 for _ in range(samples)]


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def _processors(device: Any) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count) if device.type == "cuda" else 2


def _no_triton(device: str) -> str | None:
    if device == "cpu":
        return "no CUDA device"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "Triton is not installed"
    return None
