"""Energy that the machine counts: joules of the stretches of a fit, by the counters of its processors and memory.

Linux shows those of Intel and AMD (RAPL) under /sys/class/powercap, mostly to root alone; a virtual machine mostly has
none. They count all that runs there, idle power and other programs included. A peer's own Python imports this, too:
nothing here needs more than the standard library.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
MOST_WATTS = 600.0
"""More than any domain draws for long: how soon a counter may have begun anew twice."""

NONE = "this machine shows no counters; a virtual machine mostly has none"
LOCKED = "its counters cannot be read: mostly root alone may"
ALLOW = "run as root, or have root let others read energy_uj of each zone until the next start"


@dataclass(frozen=True)
class Counter:
    """A domain's energy so far.

    Attributes:
        name: of the domain, such as ``package-0``, or of a GPU.
        read: the microjoules since some moment; None where they cannot be read.
        wraps: the microjoules after which it begins anew, or None.
    """

    name: str
    read: Callable[[], int | None]
    wraps: int | None = None


def processors(root: Path = POWERCAP) -> tuple[list[Counter], str | None]:
    """The counters of every processor and of the memory beside it, or none, and why.

    Some of them would be a part of the truth, so it is all or none.

    Args:
        root: the folder of the zones.
    """
    counters = []
    for path in sorted(root.glob("*/energy_uj")):
        name = _text(path.with_name("name")) or ""
        # Cores and graphics are parts of a package, psys contains it, and mmio is another way to the same counter.
        if path.parent.name.startswith("intel-rapl-mmio") or not name.startswith(("package", "dram")):
            continue
        read, wraps = partial(_number, path), _number(path.with_name("max_energy_range_uj"))
        if read() is None or wraps is None:
            return [], LOCKED
        counters.append(Counter(name, read, wraps))
    return counters, None if counters else NONE


def gpus() -> list[Counter]:
    """The counters of NVIDIA GPUs since Volta; empty without a driver, a GPU, or nvidia-ml-py."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(k) for k in range(nvml.nvmlDeviceGetCount())]
        names = [nvml.nvmlDeviceGetName(handle) for handle in handles]
    except Exception:
        return []
    counters = [
        Counter(name.decode() if isinstance(name, bytes) else str(name), partial(_of_gpu, nvml, handle))
        for name, handle in zip(names, handles, strict=True)
    ]
    return [counter for counter in counters if counter.read() is not None]


class Meter:
    """Joules of the stretches between `go` and `stop`; None once a stretch cannot be told."""

    def __init__(
        self, counters: Sequence[Counter] | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Of some counters; by default the processors'."""
        self._counters = processors()[0] if counters is None else counters
        self._clock = clock
        self._since: tuple[float, list[int | None]] | None = None
        self.joules: float | None = 0.0 if self._counters else None

    def go(self) -> None:
        """Count from here."""
        if self.joules is not None:
            self._since = self._now()

    def stop(self) -> float | None:
        """Count until here; all joules so far."""
        if self.joules is not None and self._since is not None:
            (began, before), now = self._since, self._now()
            spent = [
                _between(counter, old, new, now[0] - began)
                for counter, old, new in zip(self._counters, before, now[1], strict=True)
            ]
            known = [part for part in spent if part is not None]
            self.joules = self.joules + 1e-6 * sum(known) if len(known) == len(spent) else None
            self._since = now
        return self.joules

    def _now(self) -> tuple[float, list[int | None]]:
        return self._clock(), [counter.read() for counter in self._counters]


def _between(counter: Counter, before: int | None, after: int | None, seconds: float) -> int | None:
    """Microjoules between two readings; None where one is missing, or the counter may have begun anew twice."""
    if before is None or after is None:
        return None
    if counter.wraps is None:
        return after - before if after >= before else None
    if 1e6 * MOST_WATTS * seconds >= counter.wraps:
        return None
    return (after - before) % counter.wraps


def _of_gpu(nvml: Any, handle: Any) -> int | None:
    try:
        return 1000 * int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    except Exception:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None
