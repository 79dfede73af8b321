"""The machine a result came from, without names of people, hosts or folders; and the environment of the workers."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
REMOVED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that would make OpenBLAS run as if on another processor; no worker sees them."""
THREADS = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
PACKAGES = (
    "numpy", "scipy", "pandas", "numba", "llvmlite", "torch", "matplotlib", "jinja2", "rich", "cyclopts",
    "threadpoolctl",
)  # fmt: skip


def usable_cores() -> int:
    """Cores this process may use: those of its affinity, fewer where a control group grants less time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def environment(threads: int, cache: Path, before: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables for a worker: thread counts set, `REMOVED` gone, and compilers' caches that this run starts empty."""
    kept = {name: value for name, value in before.items() if name not in REMOVED}
    caches = {"NUMBA_CACHE_DIR": str(cache)} | {
        f"{name}_CACHE_DIR": str(cache.with_name(name.lower())) for name in ("TORCHINDUCTOR", "TRITON")
    }
    return kept | dict.fromkeys(THREADS, str(threads)) | caches | {"PYTHONHASHSEED": "0"}


def environment_record(threads: int, before: Mapping[str, str] = os.environ) -> Json:
    """What `environment` set and removed."""
    return {"set": dict.fromkeys(THREADS, threads), "removed": [name for name in REMOVED if name in before]}


@dataclass(frozen=True)
class Clock:
    """Readings from which the share of other programs follows: wall and own processor seconds, idle and all ticks."""

    wall: float
    own: float
    ticks: tuple[int, int] | None


def clock() -> Clock:
    """Readings now; a worker's time counts as own once it has ended."""
    spent = os.times()
    own = spent.user + spent.system + spent.children_user + spent.children_system
    return Clock(time.perf_counter(), own, _ticks())


def others_busy(before: Clock, after: Clock) -> float | None:
    """Cores that other programs held between two readings, on average; None where the system does not say."""
    if before.ticks is None or after.ticks is None or after.ticks[1] <= before.ticks[1]:
        return None
    busy = 1.0 - (after.ticks[0] - before.ticks[0]) / (after.ticks[1] - before.ticks[1])
    own = (after.own - before.own) / (after.wall - before.wall)
    return max(0.0, (os.cpu_count() or 1) * busy - own)


def disturbance(cores: float | None) -> list[str]:
    """A line for the end of a summary, or none, for what `others_busy` says: an idle desktop uses a quarter."""
    if (cores or 0.0) <= 0.25:
        return []
    return [f"Others kept up to {cores:.2f} cores busy meanwhile: measure again on a quiet machine."]


def machine() -> Json:
    """Processor, cores, memory, operating system and Python.

    A virtual machine may name no more of its processor than the family: ``microarchitecture`` is LLVM's name of what it
    compiles for, as ``znver3``, or None without llvmlite.
    """
    return {
        "cpu": _cpu_model(),
        "microarchitecture": _microarchitecture(),
        "cores": {"logical": os.cpu_count(), "physical": _psutil("cpu_count", logical=False), "usable": usable_cores()},
        "memory_bytes": memory(),
        "system": platform.system(),
        "system_release": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def record(threads: int) -> Json:
    """When, from what and on what a result was made: created, git, code, machine, gpu, packages, environment."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": git(),
        "code": code_hash(),
        "machine": machine(),
        "gpu": gpus(),
        "packages": packages(),
        "environment": environment_record(threads),
    }


def caches(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> list[Json]:
    """Data caches of the first core, smallest first: {level, bytes, shared_by (cores)}; empty where nobody says."""
    found = []
    for at in sorted(folder.glob("index*")):
        try:
            level, kind, size, cores = (
                (at / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size", "shared_cpu_list")
            )
            if kind != "Instruction":
                found.append({"level": int(level), "bytes": _bytes(size), "shared_by": _count(cores)})
        except (OSError, ValueError):
            continue
    return sorted(found, key=lambda cache: int(cache["bytes"]))


def memory() -> int | None:
    """Memory of the machine, in bytes; None where the system does not say."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def gpus() -> list[Json] | None:
    """NVIDIA GPUs as the driver names them, or None: without a driver, a GPU, or nvidia-ml-py."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:
        return None
    try:
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        return [
            {"name": _text(nvml.nvmlDeviceGetName(h)), "driver": driver, "memory_bytes": int(_total_memory(nvml, h))}
            for h in handles
        ] or None
    except Exception:
        return None
    finally:
        nvml.nvmlShutdown()


def packages() -> dict[str, str | None]:
    """Version of each package that a timing can depend on; None where it is not installed."""
    return {name: _version(name) for name in PACKAGES}


def git() -> Json | None:
    """Commit and whether the tree differs from it; None outside a checkout or without git."""
    top = _git("rev-parse", "--show-toplevel")
    commit = _git("rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != ROOT:
        return None
    return {"commit": commit, "dirty": bool(_git("status", "--porcelain"))}


def code_hash() -> str:
    """SHA-256 over the sources of the three packages: results with another hash timed other code."""
    digest = hashlib.sha256()
    for package in ("mf_numpy", "mf_torch", "bench"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def thread_pools() -> list[Json] | None:
    """BLAS and OpenMP libraries loaded in this process, through threadpoolctl; None without it."""
    try:
        found = importlib.import_module("threadpoolctl").threadpool_info()
    except ImportError:
        return None
    return [{key: value for key, value in pool.items() if key != "filepath"} for pool in found]


def threads_in_use(with_torch: bool) -> Json:
    """Thread counts as the libraries of this process report them."""
    numba = sys.modules.get("numba")
    out: Json = {"variables": {name: os.environ.get(name) for name in THREADS}}
    out["numba"] = None if numba is None else int(numba.get_num_threads())
    out["torch"] = int(importlib.import_module("torch").get_num_threads()) if with_torch else None
    return out


def peak_memory() -> int | None:
    """Largest resident memory of this process so far, in bytes; None where the system does not say."""
    # On Linux ru_maxrss survives exec, so a child would report its parent's peak; VmHWM is the program's own.
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return None
    most = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return most if sys.platform == "darwin" else most * 1024


def forget_peak() -> int | None:
    """Resident memory of this process now, in bytes, from which `peak_memory` counts anew; None where it cannot."""
    try:
        # What was freed goes back to the system first, or the next arrays would hide in it.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, AttributeError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _bytes(size: str) -> int:
    """32K or 32M as the kernel writes it, in bytes."""
    return int(size.rstrip("KM")) << {"K": 10, "M": 20}.get(size[-1:], 0)


def _count(cores: str) -> int:
    """How many cores a list such as 0-3,8 names."""
    ends = [part.split("-") for part in cores.split(",")]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in ends)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _microarchitecture() -> str | None:
    try:
        name = str(importlib.import_module("llvmlite.binding").get_host_cpu_name())
    except (ImportError, OSError):
        return None
    return None if name in ("", "generic") else name


def _ticks() -> tuple[int, int] | None:
    """Idle time and all time of all cores so far, in ticks."""
    try:
        ticks = [int(x) for x in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    return (ticks[3] + ticks[4], sum(ticks)) if len(ticks) > 4 else None


def _psutil(name: str, **arguments: Any) -> Any:
    try:
        return getattr(importlib.import_module("psutil"), name)(**arguments)
    except ImportError:
        return None


def _total_memory(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
