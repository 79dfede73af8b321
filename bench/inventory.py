"""What is here to measure with: machine, libraries, GPU, energy, data sets, peers, tools; no person or folder is named.

Each function makes findings of what it is given, or of what it looks up where nothing is given; torch, Numba and the
data sets are only touched when asked about.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import energy as counting
from bench import machine
from bench.peers import install, registry
from mf_numpy import datasets, netflix
from mf_numpy.errors import DataError, counted
from mf_numpy.sources import Source, locate

Json = dict[str, Any]

EXTRA = "pip install 'mf[bench]'"

ROWS = {
    "ml-100k": (100_000,),
    "ml-1m": (1_000_209,),
    "ml-10m": (10_000_054,),
    "ml-25m": (25_000_095,),
    "ml-32m": (32_000_204,),
    "netflix": (100_480_507,),
    "anime": (7_813_737, 520_609),
}
"""Rows of each data set; of anime those of the full file, and of a sample of 5,000 users."""

LAYERS = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}
"""Numba's threading layers, and the module that each needs."""

FEATURES = ("avx512f", "avx2", "fma", "sve", "neon")
TOOLS = {"valgrind": "python -m bench instructions counts with it", "chromium": "some tests look at pages with it"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: ``ok``, ``note`` (worth knowing) or ``warn`` (makes timings wrong).
        text: what was found.
        remedy: what to do about it, or empty.
    """

    name: str
    state: str
    text: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """As JSON has it."""
        return asdict(self)


def processor(about: Json) -> list[Finding]:
    """Processor, system, Python and cores, as `machine.machine` has them."""
    cores = about["cores"]
    physical = "" if cores["physical"] is None else f", {cores['physical']} physical"
    return [
        Finding("machine", "ok", f"{about['cpu']}, {about['architecture']}, {about['system']}"),
        Finding("Python", "ok", about["python"]),
        Finding("cores", "ok", f"{cores['logical']} logical{physical}; this process may use {cores['usable']}"),
    ]


def blas(pools: list[Json] | None) -> list[Finding]:
    """BLAS and OpenMP libraries with their threads, as `machine.thread_pools` has them."""
    if pools is None:
        return [Finding("BLAS", "note", "unknown, as threadpoolctl is not installed", EXTRA)]
    found = []
    for pool in sorted(pools, key=lambda pool: str(pool.get("user_api"))):
        kind = "BLAS" if pool.get("user_api") == "blas" else "OpenMP"
        version = f" {pool['version']}" if pool.get("version") else ""
        target = f", for {pool['architecture']}" if pool.get("architecture") else ""
        threads = counted(int(pool["num_threads"]), "thread")
        found.append(Finding(kind, "ok", f"{pool.get('internal_api')}{version}{target}: {threads}"))
    return found or [Finding("BLAS", "note", "threadpoolctl knows none of the libraries that are loaded")]


def numba(environment: Mapping[str, str] = os.environ, package: Path | None = None) -> list[Finding]:
    """Version, threading layer, vectors, and where compiled kernels are kept.

    Args:
        package: the folder of the kernels; by default this checkout's.
    """
    from mf_numpy.kernels.lanes import vector_bytes

    module = importlib.import_module("numba")
    layer = threading_layer(module)
    host = importlib.import_module("llvmlite.binding").get_host_cpu_features()
    simd = ", ".join(name for name in FEATURES if host.get(name)) or "none that is known here"
    found = [
        Finding("Numba", "ok", f"{module.__version__}, threads by {layer}"),
        Finding("vectors", "ok", f"{vector_bytes()} bytes; the processor has {simd}"),
    ]
    named = environment.get("NUMBA_CACHE_DIR")
    place = "where NUMBA_CACHE_DIR says" if named else "beside their sources"
    folder = Path(named) if named else package or machine.ROOT / "mf_numpy" / "kernels"
    if writable(folder):
        return [*found, Finding("kernels", "ok", f"kept {place}")]
    remedy = "set NUMBA_CACHE_DIR to a folder that can be written"
    return [*found, Finding("kernels", "note", f"cannot be kept {place}: each process may compile anew", remedy)]


def threading_layer(module: Any) -> str:
    """The layer that Numba would take: the first of its list that can be loaded, unless one is asked for."""
    asked = str(module.config.THREADING_LAYER)
    wanted = [asked] if asked in LAYERS else module.config.THREADING_LAYER_PRIORITY
    for name in wanted:
        try:
            importlib.import_module(f"numba.np.ufunc.{LAYERS[name]}")
        except (ImportError, KeyError):
            continue
        return str(name)
    return "no layer that can be loaded"


def writable(folder: Path) -> bool:
    """Whether a file could be made in a folder, or the folder itself where it is not there yet."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def torch(load: Callable[[], Any] = lambda: importlib.import_module("torch")) -> list[Finding]:
    """Version, build and threads of torch, and Triton."""
    try:
        module = load()
    except ImportError:
        return [Finding("torch", "note", "not installed: only mf_numpy can be measured", "pip install 'mf[torch]'")]
    build = f"built for CUDA {module.version.cuda}" if module.version.cuda else "built for the CPU"
    threads = counted(int(module.get_num_threads()), "thread")
    found = [Finding("torch", "ok", f"{module.__version__}, {build}, {threads}")]
    if bool(getattr(module.version, "debug", False)):
        found = [Finding("torch", "warn", f"{module.__version__}, a debug build", "install a release build")]
    try:
        return [*found, Finding("Triton", "ok", importlib.metadata.version("triton"))]
    except importlib.metadata.PackageNotFoundError:
        return [*found, Finding("Triton", "note", "not installed: no fused path on CUDA", "pip install triton")]


def cuda(gpus: list[Json] | None, seen: bool) -> list[Finding]:
    """The GPUs that the driver names, and whether torch sees one."""
    if not gpus:
        text = "torch sees a device, but nvidia-ml-py does not name it" if seen else "no CUDA device"
        return [Finding("CUDA", "note", text, EXTRA if seen else "")]
    names = ", ".join(f"{gpu['name']} ({gpu['memory_bytes'] / 2**30:.0f} GiB)" for gpu in gpus)
    text = f"{names}, driver {gpus[0]['driver']}"
    if seen:
        return [Finding("CUDA", "ok", text)]
    return [Finding("CUDA", "note", f"{text}, which torch does not see", "install torch built for CUDA")]


def energy(root: Path = counting.POWERCAP) -> list[Finding]:
    """Whose energy is counted, or why no processor's is.

    Args:
        root: the folder of the zones.
    """
    counters, why = counting.processors(root)
    found = []
    if why is not None:
        found = [Finding("energy", "note", why, counting.ALLOW if why == counting.LOCKED else "")]
    counted_of = [counter.name for counter in counters + counting.gpus()]
    return found + ([Finding("energy", "ok", f"counted of {', '.join(counted_of)}")] if counted_of else [])


def data() -> list[Finding]:
    """Which data sets are here, under MF_DATA or in the user's cache, and whether each has the rows it should have."""
    try:
        named = datasets.find_data_dir()
    except DataError:
        return [
            Finding("data", "warn", "MF_DATA names something that is no folder", "set it to the folder of the data")
        ]
    found, absent = [], []
    for name in ROWS:
        places = [(folder / part, where) for folder, where in _folders(named) for part in (name, f"{name}.zip")]
        here = next(((place, where) for place, where in places if place.exists()), None)
        if here is None:
            absent.append(name)
        else:
            found.append(data_set(name, *here))
    if absent:
        remedy = "" if named else "set MF_DATA to a folder that has them"
        found.append(Finding("data", "note", f"not here: {', '.join(absent)}", remedy))
    return found


def _folders(named: Path | None) -> Iterator[tuple[Path, str]]:
    if named is not None:
        yield named, "MF_DATA"
    yield datasets.cache_dir(), "the user's cache"


def data_set(name: str, place: Path, where: str) -> Finding:
    """Whether what lies at a place has the rows of a data set."""
    try:
        label, n = ("the prize's files", netflix.count(place)) if name == "netflix" else _counted(locate(place))
    except (DataError, OSError, ValueError) as error:
        return Finding(name, "warn", f"in {where}, but cannot be read: {type(error).__name__}", "fetch it again")
    text = f"{n:,} rows of {label} in {where}"
    if n in ROWS[name]:
        return Finding(name, "ok", text)
    wanted = " or ".join(f"{rows:,}" for rows in ROWS[name])
    return Finding(name, "warn", f"{text}, but it has {wanted}", "fetch it again, or give the file by its path")


def _counted(source: Source) -> tuple[str, int]:
    return source.label, rows_of(source)


def rows_of(source: Source) -> int:
    """Lines of a text less a header, or the length of a file of arrays."""
    name = (source.member or source.path.name).removesuffix(".gz")
    if name.endswith(".npz"):
        with np.load(source.path) as arrays:
            return max(len(arrays[key]) for key in arrays.files)
    lines, last = 0, b"\n"
    with source.open() as stream:
        while part := stream.read(1 << 20):
            lines, last = lines + part.count(b"\n"), part[-1:]
    return lines + (last != b"\n") - name.endswith(".csv")


def peers(into: Path | None = None) -> list[Finding]:
    """Which of the libraries that we are compared with are installed as they should be."""
    into = registry.folder() if into is None else into
    there = {peer.name: install.record(peer, into) is not None for peer in registry.PEERS.values()}
    here = [f"{name} {registry.PEERS[name].version}" for name, found in there.items() if found]
    absent = [name for name, found in there.items() if not found]
    found = [Finding("peers", "ok", ", ".join(here))] if here else []
    if absent:
        text = f"not installed: {', '.join(absent)}"
        found.append(Finding("peers", "note", text, f"python -m bench peers install {' '.join(absent)}"))
    return found


def tools(which: Callable[[str], str | None] = shutil.which) -> list[Finding]:
    """Programs that some commands and tests need."""
    found = []
    for name, use in TOOLS.items():
        there = which(name) or which(f"{name}-browser")
        state, text, remedy = ("ok", "found", "") if there else ("note", f"not here: {use}", f"install {name}")
        found.append(Finding(name, state, text, remedy))
    return found
