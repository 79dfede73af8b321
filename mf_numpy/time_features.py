"""Blocks of features that change with time (Eq. 41): what a user or an item is on a day; a part of `mf_numpy.features`.

Time is counted in whole days. Rows with days are made by `mf_numpy.timed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mf_numpy.errors import ConfigError
from mf_numpy.ratings import Array, IdMap

if TYPE_CHECKING:
    from mf_numpy.features import Block, Encoder, Rows

EXPONENT = 0.4
"""Of a drift: tastes move fast at first and ever more slowly (Koren 2009)."""

TIMED = ("day", "drift", "time_bins", "popularity")
"""Kinds of blocks that need days."""


@dataclass(frozen=True, eq=False)
class Moments:
    """When rows are what they are.

    Attributes:
        days: (rows,) int64, a day of each row.
        counts: (rows,) training ratings of each row; none of a row that was not trained on.
        first, last: day of the first and of the last training rating.
    """

    days: Array
    counts: Array
    first: int
    last: int

    def bins(self, n: int) -> Array:
        """(rows,) in [0, n): which of n equal parts of the training period; what lies outside is in the nearest."""
        parts: Array = np.clip((self.days - self.first) * n // (self.last - self.first + 1), 0, n - 1)
        return parts


def cells(block: Block, moments: Moments) -> Array:
    """What a block can tell apart: (rows,) bins or days."""
    return moments.bins(block.n) if block.n else moments.days


def fit_cells(block: Block, rows: Rows, others: IdMap) -> tuple[Encoder, list[str]]:
    """A feature for each row in each bin, or on each day, in which training has ratings of it."""
    moments = moments_of(block, rows)
    trained = moments.counts > 0
    keys = pd.MultiIndex.from_arrays([rows.ids[trained], cells(block, moments)[trained]]).unique()

    def encode(more: Rows) -> sp.csr_array:
        at = keys.get_indexer(pd.MultiIndex.from_arrays([more.ids, cells(block, moments_of(block, more))]))
        return _ones(at, len(keys))

    what = "day" if block.kind == "day" else f"of {block.n}"
    return encode, [f"id={raw} {what} {cell}" for raw, cell in keys]


def fit_drift(block: Block, rows: Rows, others: IdMap) -> tuple[Encoder, list[str]]:
    """sign(t - t̄)|t - t̄|^0.4 of the row's own mean day t̄, divided by the largest of training (Eq. 41)."""
    moments = moments_of(block, rows)
    index, at = _own(rows)
    total = np.bincount(at, moments.days * moments.counts, len(index))
    mean = total / np.maximum(np.bincount(at, moments.counts, len(index)), 1)

    def deviation(place: Array, days: Array) -> Array:
        away = days - mean[place]
        return np.sign(away) * np.abs(away) ** EXPONENT

    trained = moments.counts > 0
    largest = float(np.abs(deviation(at[trained], moments.days[trained])).max(initial=0.0)) or 1.0

    def encode(more: Rows) -> sp.csr_array:
        place = index.get_indexer(pd.Index(more.ids))
        out = _ones(place, len(index))
        known = place >= 0
        out.data = deviation(place[known], moments_of(block, more).days[known]) / largest  # Eq. 41
        return out

    return encode, [f"id={raw} drift" for raw in index]


def fit_popularity(block: Block, rows: Rows, others: IdMap) -> tuple[Encoder, list[str]]:
    """log(1 + training ratings of the row in the bin), divided by the largest: one feature that all rows share."""
    moments = moments_of(block, rows)
    trained = moments.counts > 0
    keys = pd.MultiIndex.from_arrays([rows.ids[trained], cells(block, moments)[trained]])
    counts = pd.Series(moments.counts[trained], index=keys).groupby(level=[0, 1]).sum()
    size = np.log1p(counts.to_numpy(np.float64))
    size /= size.max(initial=0.0) or 1.0

    def encode(more: Rows) -> sp.csr_array:
        at = counts.index.get_indexer(pd.MultiIndex.from_arrays([more.ids, cells(block, moments_of(block, more))]))
        known = np.flatnonzero(at >= 0)
        return sp.csr_array((size[at[known]], (known, np.zeros_like(known))), shape=(len(at), 1))

    return encode, [f"popularity in one of {block.n}"]


def moments_of(block: Block, rows: Rows) -> Moments:
    """When the rows are what they are.

    Raises:
        ConfigError: rows of no time.
    """
    if rows.moments is None:
        raise ConfigError(f"{block.kind} asks for days, which these rows have none of; make the design with timed(...)")
    return rows.moments


def _own(rows: Rows) -> tuple[pd.Index[Any], Array]:
    """The different ids of the rows, and each row's place among them."""
    at, index = pd.factorize(rows.ids)
    return pd.Index(index), at


def _ones(at: Array, width: int) -> sp.csr_array:
    """A 1 in column `at` of each row; nothing where it is -1."""
    known = np.flatnonzero(at >= 0)
    return sp.csr_array((np.ones(len(known)), (known, at[known])), shape=(len(at), width))


FIT: dict[str, Callable[[Any, Any, IdMap], tuple[Any, list[str]]]] = {
    "day": fit_cells,
    "drift": fit_drift,
    "time_bins": fit_cells,
    "popularity": fit_popularity,
}
