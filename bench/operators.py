"""Where an iteration's time goes: self time by torch's operators, from torch's own profiler."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]

MOST = 8
"""Operators that are kept; the rest are one entry."""

REST, OUTSIDE = "other operators", "outside torch's operators"


def profiled(iteration: Callable[[], object], device: str = "cpu") -> Json:
    """One iteration under the profiler, which makes it slower; compare shares, not times.

    Args:
        iteration: waits for its device before it returns.
        device: where it computes; on ``cuda`` kernels' own times count, else those of the operators on the host.

    Returns:
        ``wall_ms``, ``busy_ms`` (all self times), ``calls`` (on CUDA: kernels and copies) and ``operators``
        [{operator, share (of the wall time, 0 to 1), ms, calls}], largest first, with what is outside torch last.
    """
    from torch.profiler import ProfilerActivity, profile

    on_device = device != "cpu"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_device else [ProfilerActivity.CPU]
    with profile(activities=activities) as found:
        began = time.perf_counter()
        iteration()
        wall = 1e3 * (time.perf_counter() - began)
    spent = {}
    for event in found.key_averages():
        # On CUDA an operator's device time is its kernels', which have entries of their own, as has what marks several.
        if on_device and ("CUDA" not in str(event.device_type) or getattr(event, "is_user_annotation", False)):
            continue
        microseconds = event.self_device_time_total if on_device else event.self_cpu_time_total
        if microseconds > 0:
            spent[event.key] = (microseconds / 1e3, int(event.count))
    return shares(spent, wall)


def shares(spent: dict[str, tuple[float, int]], wall_ms: float) -> Json:
    """What `profiled` returns of self times and calls by operator."""
    ordered = sorted(spent.items(), key=lambda item: -item[1][0])
    kept, rest = ordered[:MOST], ordered[MOST:]
    busy = sum(ms for _, (ms, _) in ordered)
    lines = [(short(name), ms, calls) for name, (ms, calls) in kept]
    if rest:
        lines.append((REST, sum(ms for _, (ms, _) in rest), sum(calls for _, (_, calls) in rest)))
    # Kernels that overlap may add up to more than the time that passed.
    lines.append((OUTSIDE, max(0.0, wall_ms - busy), 0))
    operators = [{"operator": name, "share": ms / wall_ms, "ms": ms, "calls": calls} for name, ms, calls in lines]
    return {"wall_ms": wall_ms, "busy_ms": busy, "calls": sum(n for _, (_, n) in ordered), "operators": operators}


def short(name: str) -> str:
    """An operator's or kernel's name without what only a compiler reads."""
    fused = re.match(r"(?:graph_\d+_)?(?:cpp|triton)_\w*?fused_(\w+?)(?:_\d+)?$", name)
    if fused:
        return f"fused {'backward' if 'backward' in fused[1] else 'forward'} kernel"
    if name.startswith("## Call CompiledFxGraph"):  # and a hash
        return "compiled graph"
    name = re.sub(r"^(?:aten|torch)::", "", name)
    return re.split(r"[<(]", name.removeprefix("void "), maxsplit=1)[0][:60] or name[:60]
