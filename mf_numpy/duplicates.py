"""Pairs that are rated more than once: finding them, and settling them by policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mf_numpy.ratings import Array

POLICIES = ("error", "last", "first", "mean", "keep")
"""What to do with a pair that is rated more than once."""


@dataclass(frozen=True)
class Pairs:
    """Which ratings are of one pair.

    Attributes:
        order: (k,) positions of the ratings of repeated pairs, sorted by pair, then by position.
        starts: (n_duplicates,) where each pair begins in `order`.
        n_ratings: of the whole table.
        n_conflicts: repeated pairs with different ratings.
    """

    order: Array
    starts: Array
    n_ratings: int
    n_conflicts: int

    @property
    def n_duplicates(self) -> int:
        """Number of pairs rated more than once."""
        return len(self.starts)

    @property
    def ends(self) -> Array:
        """(n_duplicates,) where each pair ends in `order`."""
        return np.append(self.starts[1:], len(self.order))

    @property
    def first_repeat(self) -> tuple[int, int]:
        """Positions of the first rating that repeats a pair, preceded by that of the one it repeats."""
        at = int(np.argmin(self.order[self.starts + 1]))
        first, second = self.order[self.starts[at] : self.starts[at] + 2]
        return int(first), int(second)

    @classmethod
    def find(cls, users: Array, items: Array, values: Array, n_items: int) -> Pairs:
        """The repeated pairs among N ratings: users, items and values (N,), items below `n_items`."""
        keys = users.astype(np.int64) * n_items + items
        ordered = np.sort(keys)
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        del ordered
        if not len(repeated):
            empty = np.empty(0, dtype=np.int64)
            return cls(empty, empty, len(keys), 0)
        rows = np.flatnonzero(np.isin(keys, repeated))
        order = rows[np.argsort(keys[rows], kind="stable")]
        starts = np.searchsorted(keys[order], repeated)
        smallest, largest = np.minimum.reduceat(values[order], starts), np.maximum.reduceat(values[order], starts)
        return cls(order, starts, len(keys), int((smallest != largest).sum()))


def settle(pairs: Pairs, policy: str, values: Array, timestamps: Array | None) -> tuple[Array, Array, Array | None]:
    """Positions to keep, in table order, and the values and timestamps (N,) to take there.

    Args:
        policy: ``"first"``, ``"last"`` or ``"mean"``, as in `mf_numpy.readers.read_ratings`.
    """
    chosen = pairs.order[pairs.ends - 1] if policy == "last" else pairs.order[pairs.starts]
    if policy == "mean":
        values = values.copy()
        values[chosen] = np.add.reduceat(values[pairs.order], pairs.starts) / (pairs.ends - pairs.starts)
        if timestamps is not None:
            timestamps = timestamps.copy()
            timestamps[chosen] = np.maximum.reduceat(timestamps[pairs.order], pairs.starts)
    keep = np.ones(pairs.n_ratings, dtype=np.bool_)
    keep[pairs.order] = False
    keep[chosen] = True
    return np.flatnonzero(keep), values, timestamps
