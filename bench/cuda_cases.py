"""What the CUDA suite runs, the most telling cases first.

A case belongs to a part:
    roof      bytes/s of copy and triad, from what the second-level cache holds to what only memory does
    full      an iteration over all ratings
    batch     a step over a mini-batch
    target    training until a validation RMSE is reached
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mf_numpy.planted import ANIME_FULL

NUMBA = "numba"
HALVED, STORAGES = "fused", ("bfloat16", "float16")
"""The path that can gather factors of 16 bits, and of which kinds; a graph leaves the device's time alone."""

UNUSABLE = "UnusableError"
"""How the reason of a process begins that ended because the device answers nothing any more."""


@dataclass(frozen=True, kw_only=True)
class CudaCase:
    """One row.

    Attributes:
        part: see the module.
        device: ``cuda`` or ``cpu``.
        system: ``numba``, or a path of `mf_torch.paths`; of a roof ``triad``.
        n_ratings: N, which names the ratings that are drawn; 0 of a roof.
        n_factors: K.
        batch_size: of part ``batch`` and some of ``target``.
        graph: whether a step is recorded as a CUDA graph.
        storage: 16-bit numbers that ratings gather factors from, of `mf_torch.paths.half`, or None.
    """

    part: str
    device: str
    system: str
    n_ratings: int = 0
    n_factors: int = 0
    batch_size: int | None = None
    graph: bool = False
    storage: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def label(self) -> str:
        """A name for a line of progress."""
        size = f"batches of {self.batch_size:,} of " if self.batch_size else ""
        of = f", {size}{self.n_ratings:,} ratings, K = {self.n_factors}" if self.n_ratings else ""
        how = f"{', graph' * self.graph}{f', {self.storage}' if self.storage else ''}"
        return f"{self.part}: {self.system} on {self.device}{how}{of}"


@dataclass(frozen=True)
class Sizes:
    """Which sizes are tried.

    Attributes:
        main: N of the cases that come first: the full anime table's.
        ratings: other values of N, from where launches cost most to where nothing fits into a cache.
        k_main, factors: K of most cases, and the others.
        batches: ratings of a mini-batch.
        most_for: the largest N that a system is tried with, by (device, system); compiling, and a slow system's
            iterations, would take the time of all others.
        k_target: K of the way to a target.
    """

    main: int = ANIME_FULL.n_ratings
    ratings: tuple[int, ...] = (100_000, 1_000_000, 10_000, 1_000, 10_000_000, 100_000_000)
    k_main: int = 64
    factors: tuple[int, ...] = (16, 256, 128, 32)
    batches: tuple[int, ...] = (100_000, 10_000, 1_000_000, 1_000)
    most_for: dict[tuple[str, str], int] = field(
        default_factory=lambda: {
            ("cpu", "autograd"): 1_000_000,
            ("cpu", "compiled"): 0,
            ("cpu", "sparse"): 1_000_000,
            ("cpu", "manual"): 10_000_000,
            ("cuda", "compiled"): ANIME_FULL.n_ratings,
        }
    )
    k_target: int = 16

    def bears(self, device: str, system: str, n_ratings: int) -> bool:
        """Whether a system is tried with so many ratings."""
        return n_ratings <= self.most_for.get((device, system), n_ratings)


def plan(sizes: Sizes, paths: tuple[str, ...], capturable: tuple[str, ...]) -> list[list[CudaCase]]:
    """Groups of cases that share their ratings, in running order; each group is a process.

    Args:
        paths: names of `mf_torch.paths`, the most telling first.
        capturable: those whose step a graph can hold.
    """

    def full(n: int, k: int, systems: tuple[str, ...]) -> Iterator[CudaCase]:
        for system in systems:
            if not sizes.bears("cuda", system, n):
                continue
            one = CudaCase(part="full", device="cuda", system=system, n_ratings=n, n_factors=k)
            yield one
            if system in capturable:
                yield replace(one, graph=True)
            if system == HALVED:
                yield from (replace(one, graph=system in capturable, storage=storage) for storage in STORAGES)

    def on_cpu(n: int, k: int, systems: tuple[str, ...]) -> Iterator[CudaCase]:
        for system in systems:
            if sizes.bears("cpu", system, n):
                yield CudaCase(part="full", device="cpu", system=system, n_ratings=n, n_factors=k)

    def in_parts(part: str, device: str, system: str, k: int, size: int | None) -> CudaCase:
        about = CudaCase(part=part, device=device, system=system, n_ratings=sizes.main, n_factors=k)
        return replace(about, batch_size=size)

    def batches(systems: tuple[str, ...]) -> Iterator[CudaCase]:
        for size in (size for size in sizes.batches if 3 * size <= sizes.main):
            for device, names in (("cuda", systems), ("cpu", (NUMBA, *systems[:1]))):
                for name in names:
                    yield in_parts("batch", device, name, sizes.k_main, size)

    def targets() -> Iterator[CudaCase]:
        for size in (None, *sizes.batches[:1]):
            for device, name in (("cuda", paths[0]), ("cuda", "autograd"), ("cpu", NUMBA)):
                yield in_parts("target", device, name, sizes.k_target, size)

    k, slow = sizes.k_main, ("compiled",)
    quick = tuple(name for name in paths if name not in slow)
    groups = [
        [CudaCase(part="roof", device="cuda", system="triad")],
        [*full(sizes.main, k, quick), *on_cpu(sizes.main, k, (NUMBA,))],
        *([*full(n, k, quick), *on_cpu(n, k, (NUMBA,))] for n in sizes.ratings),
        list(targets()),
        list(batches(quick)),
        *([*full(sizes.main, other, quick), *on_cpu(sizes.main, other, (NUMBA,))] for other in sizes.factors),
        [*full(sizes.main, k, slow)],
        *([*on_cpu(n, k, quick)] for n in (sizes.main, *sizes.ratings)),
        *([*full(n, other, quick), *on_cpu(n, other, (NUMBA,))] for n in sizes.ratings for other in sizes.factors),
    ]
    return [group for group in groups if group]
