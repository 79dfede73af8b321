"""Which cases a suite has, with what settings, and on which data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mf_numpy import Config, Holdout, Ratings
from mf_numpy.errors import ConfigError, choose
from mf_numpy.ratings import Array

BACKENDS = ("loops", "numpy", "numba", "torch", "cuda")
DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Case:
    """One row: a backend on a device in a dtype, on the whole training side or on the slice that `loops` can bear.

    Attributes:
        problem: ``full`` or ``slice``.
        backend: ``loops``, ``numpy``, ``numba`` or ``torch``.
        device: ``cpu`` or ``cuda``.
        dtype: ``float64`` or ``float32``.
    """

    problem: str
    backend: str
    device: str
    dtype: str

    @property
    def key(self) -> str:
        """A name fit for a file."""
        return f"{self.problem}-{self.backend}-{self.device}-{self.dtype}"

    @property
    def is_reference(self) -> bool:
        """Whether the other cases of the problem are compared with this one."""
        return (self.backend, self.dtype) == ("numpy", "float64")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Preset:
    """What a suite asks for.

    Attributes:
        n_factors, n_epochs: K, and iterations of the full problem.
        step: the learning rate in units of the largest row's share, see `learning_rate`.
        reg: λ of Eq. 2, weighted per rating.
        slice_ratings, slice_epochs: size and iterations of the problem that includes `loops`.
        check_ratings, check_epochs: size and iterations of the check before each timing.
    """

    n_factors: int
    n_epochs: int
    step: float
    reg: float
    slice_ratings: int
    slice_epochs: int
    check_ratings: int
    check_epochs: int


PRESETS = {
    "default": Preset(8, 80, 0.3, 0.1, 2_000, 6, 500, 10),
    "smoke": Preset(3, 50, 0.3, 0.1, 400, 5, 200, 10),
}


def choose_cases(only: tuple[str, ...]) -> list[Case]:
    """The cases in running order: the slice first, float64 before float32, the reference before what needs it.

    Args:
        only: backends to keep, of `BACKENDS`; none of them means all. ``torch`` is torch on the CPU and on CUDA,
            ``cuda`` the latter alone. The reference stays, and with it one independent float64 backend.

    Raises:
        ConfigError: a name that is no backend.
    """
    for name in only:
        choose("only", name, BACKENDS)
    wanted = set(only or BACKENDS)
    cases = []
    if "loops" in wanted:
        cases += [Case("slice", backend, "cpu", dtype) for dtype in DTYPES for backend in ("numpy", "loops")]
    full = [("numpy", "cpu"), ("numba", "cpu"), ("torch", "cpu"), ("torch", "cuda")]
    for dtype in DTYPES:
        for backend, device in full:
            asked = backend in wanted or (device == "cuda" and "cuda" in wanted)
            if asked or (dtype == "float64" and backend == "numpy"):
                cases.append(Case("full", backend, device, dtype))
    if not any(case.problem == "full" and case.dtype == "float64" and not case.is_reference for case in cases):
        at = next(i for i, case in enumerate(cases) if case.problem == "full") + 1
        cases.insert(at, Case("full", "numba", "cpu", "float64"))
    return cases


def learning_rate(train: Ratings, step: float) -> float:
    """η = step / max(n_row / N): the curvature along a row is 2 (n_row / N)(|q|² + 1), largest for the largest row.

    So one `step` serves data sets of every shape, where a fixed η would diverge on one and crawl on another.
    """
    most = max(int(train.user_counts.max()), int(train.item_counts.max()))
    return float(f"{step * len(train) / most:.3g}")


def full_config(train: Ratings, preset: Preset, *, seed: int, lr: float | None = None) -> Config:
    """The configuration that every case of the full problem shares; only the dtype differs between rows."""
    return Config(
        model="biased",
        n_factors=preset.n_factors,
        n_epochs=preset.n_epochs,
        lr=learning_rate(train, preset.step) if lr is None else lr,
        reg=preset.reg,
        penalty="per_rating",
        momentum=0.9,
        momentum_form="nesterov",
        init_scale=0.3,
        dtype="float64",
        seed=seed,
    )


def sliced(train: Ratings, size: int) -> Ratings:
    """About `size` ratings of the most active users on the most rated items, so that rows still share ratings."""
    rank = [_rank(counts) for counts in (train.user_counts, train.item_counts)]
    level = np.maximum(rank[0][train.users], rank[1][train.items])
    return train.take(np.sort(np.argsort(level, kind="stable")[:size])).compact()


def slice_config(config: Config, train: Ratings, preset: Preset, n_epochs: int) -> Config:
    """`config` for a slice: fewer iterations, and a learning rate that suits its larger shares."""
    return replace(config, n_epochs=n_epochs, lr=learning_rate(train, preset.step))


def as_holdout(ratings: Ratings) -> Holdout:
    """The ratings themselves as pairs to be scored."""
    return Holdout(ratings.users, ratings.items, ratings.values)


def snapshots(n_epochs: int) -> list[int]:
    """Epochs at which parameters are kept for comparison: 1, 2, 3, 5, 7, 11, ... and the last one."""
    at, out = 1.0, set()
    while at < n_epochs:
        out.add(round(at))
        at = max(at + 1, at * 1.5)
    return sorted(out | {n_epochs})


def check_epochs(n_epochs: int) -> int:
    """`n_epochs`, if it gives enough samples for a median and a spread.

    Raises:
        ConfigError: fewer than 5.
    """
    if n_epochs < 5:
        raise ConfigError(f"epochs is {n_epochs}, but a median with its spread needs at least 5; ask for 5 or more")
    return n_epochs


def _rank(counts: Array) -> Array:
    out = np.empty(len(counts), np.int64)
    out[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return out
