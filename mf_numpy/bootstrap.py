"""Intervals for a mean over units that were drawn, such as users: the bootstrap draws the units anew (Efron 1979).

Symbols: S units; M means at once; D draws, each of S units with replacement. Intervals are percentiles.
"""

from __future__ import annotations

import numpy as np

from mf_numpy.ratings import Array

DRAWS = 1000
LEVEL = 0.95
_COUNTS_AT_ONCE = 1 << 22


def times_drawn(rng: np.random.Generator, size: int) -> Array:
    """How often one draw takes each of `size` units, (size,) int64; together `size` times."""
    return np.bincount(rng.integers(0, size, size), minlength=size)


def means(values: Array, *, draws: int = DRAWS, seed: int = 0) -> Array:
    """Means (D, M) of `values` (S, M) in each draw; NaN stands for a unit that has no such value, and is left out.

    All columns share the draws, and so do all values of S units with one seed: their differences are paired.
    """
    size = len(values)
    has = ~np.isnan(values)
    out = np.full((draws, values.shape[1]), np.nan)
    if not size:
        return out
    rng = np.random.default_rng(seed)
    at_once = max(1, _COUNTS_AT_ONCE // size)
    for begin in range(0, draws, at_once):
        part = out[begin : begin + at_once]
        counts = np.array([times_drawn(rng, size) for _ in range(len(part))], dtype=np.float64)
        number = counts @ has
        np.divide(counts @ np.where(has, values, 0.0), number, out=part, where=number > 0)
    return out


def interval(drawn: Array, level: float = LEVEL) -> list[float]:
    """Low and high of the middle `level` of draws."""
    return [float(x) for x in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])]
