"""The ratings in the order in which the full-batch gradient walks them: item block by item block, user by user.

Items are numbered anew by popularity and cut into blocks, so that the factors and gradients met most stay in a core's
caches together. Within a block the ratings of one user are a *segment*: her factors stay in registers over it.
A rating takes 2 bytes for the item within its block and its value, 6 or 10 in all; a segment takes 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from mf_numpy import counting
from mf_numpy.batch import Batch
from mf_numpy.config import Config
from mf_numpy.ratings import Array, Ratings

ITEMS_PER_BLOCK = 2_000
"""Items of a block, chosen by measurement: see ``bench/results``. Fewer meet every user's row more often."""

BY_POPULARITY = 1
"""1 numbers items by popularity, so that the rows met most lie together; 0 leaves them as they are."""

MAX_ITEMS = 1 << 16
"""Items of a block at most, so that 16 bits tell them apart."""

CHUNKS = 64
"""Chunks of a block at most. What they cost in sums to be added up stays below a twentieth of the work."""

FEW_CHUNKS = 16
"""Chunks that a block may have whatever its sums take; more of them take no more room than twice the parameters."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """B item blocks of S segments in all, each block cut into C chunks of whole segments.

    Attributes:
        item_of: (n,) int64, the item of each place in the order of popularity.
        items: (N,) uint16, each rating's place within its block.
        values: (N,) ratings in the precision of the parameters.
        seg_user: (S,) int32, whose ratings a segment holds.
        seg_length: (S,) int32, how many.
        seg_bounds: (B, C + 1) int64, the segments of each chunk.
        first_rating: (B, C) int64, where each chunk's ratings begin.
        items_per_block: of all blocks but the last, which may have fewer.
        user_counts, item_counts: (m,) and (n,), n_u and n_i.
    """

    item_of: Array
    items: Array
    values: Array
    seg_user: Array
    seg_length: Array
    seg_bounds: Array
    first_rating: Array
    items_per_block: int
    user_counts: Array
    item_counts: Array

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return len(self.user_counts), len(self.item_counts)

    def __len__(self) -> int:
        return len(self.values)


def items_per_block(n_items: int) -> int:
    """How many items a block has; set by the data alone."""
    return max(1, min(n_items, MAX_ITEMS, ITEMS_PER_BLOCK))


def blocks(batch: Batch, per_block: int) -> Blocks:
    """Lay the ratings out, in blocks of `per_block` items.

    Args:
        batch: sorted by user.
    """
    assert batch.indptr is not None
    counts = batch.user_counts, batch.item_counts
    return _laid(batch.indptr, batch.items, batch.values, None, counts, per_block, batch.values.dtype)


def full_blocks(train: Ratings, config: Config) -> Blocks:
    """All N ratings, laid out without a sorted copy of them on the way."""
    indptr, dtype = counting.begins(train.user_counts), config.numpy_dtype
    order = None if counting.is_sorted(train.users) else counting.order(train.users, indptr)
    per_block = items_per_block(train.n_items)
    counts = train.user_counts, train.item_counts
    return _laid(indptr, train.items, train.values, order, counts, per_block, dtype)


def _laid(
    indptr: Array,
    of_items: Array,
    of_values: Array,
    order: Array | None,
    counts: tuple[Array, Array],
    per_block: int,
    dtype: np.dtype[Any],
) -> Blocks:
    """Lay out items and values that are sorted by user, or are so when read in `order`."""
    (m, n), n_ratings = map(len, counts), len(of_items)
    item_of = np.argsort(-counts[1], kind="stable") if BY_POPULARITY else np.arange(n)
    place = np.empty(n, np.int32)
    place[item_of] = np.arange(n, dtype=np.int32)
    n_blocks = max(1, -(-n // per_block))
    ratings_to, segments_to = np.zeros(n_blocks + 1, np.int64), np.zeros(n_blocks + 1, np.int64)
    order = np.empty(0, np.int32) if order is None else order
    _count(indptr, of_items, order, place, per_block, ratings_to[1:], segments_to[1:])
    np.cumsum(ratings_to, out=ratings_to)
    np.cumsum(segments_to, out=segments_to)
    items, values = np.empty(n_ratings, np.uint16), np.empty(n_ratings, dtype)
    seg_user, seg_length = np.empty(segments_to[-1], np.int32), np.empty(segments_to[-1], np.int32)
    _fill(
        indptr, of_items, of_values, order, place, per_block,
        ratings_to[:-1].copy(), segments_to[:-1].copy(), items, values, seg_user, seg_length,
    )  # fmt: skip
    begins = np.concatenate([[0], np.cumsum(seg_length, dtype=np.int64)])
    most = min(CHUNKS, max(FEW_CHUNKS, 2 * (m + n) // per_block))
    chunks = int(np.clip(n_ratings // (20 * max(1, n)), 2, most))
    seg_bounds = np.empty((n_blocks, chunks + 1), np.int64)
    for block in range(n_blocks):
        low, high = ratings_to[block : block + 2]
        first, last = segments_to[block : block + 2]
        goals = low + np.arange(chunks + 1) * (high - low) // chunks
        seg_bounds[block] = np.clip(np.searchsorted(begins, goals), first, last)
    first_rating = begins[seg_bounds[:, :-1]]
    return Blocks(item_of, items, values, seg_user, seg_length, seg_bounds, first_rating, per_block, *counts)


@numba.njit(cache=True, nogil=True)
def _count(indptr, items, order, place, per_block, n_ratings, n_segments):  # type: ignore[no-untyped-def]
    """Ratings and segments of each block; an empty `order` is that of the ratings themselves, here and below."""
    seen = np.full(len(n_ratings), -1, np.int64)
    for u in range(len(indptr) - 1):
        for k in range(indptr[u], indptr[u + 1]):
            block = place[items[order[k] if len(order) else k]] // per_block
            n_ratings[block] += 1
            if seen[block] != u:
                seen[block] = u
                n_segments[block] += 1


@numba.njit(cache=True, nogil=True)
def _fill(  # type: ignore[no-untyped-def]
    indptr, items, values, order, place, per_block, next_rating, next_segment, out_items, out_values, seg_user,
    seg_length,
):  # fmt: skip
    """Put every rating behind those of its block; `next_rating` and `next_segment` begin at the blocks' beginnings."""
    seen = np.full(len(next_rating), -1, np.int64)
    for u in range(len(indptr) - 1):
        for k in range(indptr[u], indptr[u + 1]):
            source = order[k] if len(order) else k
            block = place[items[source]] // per_block
            if seen[block] != u:
                seen[block] = u
                seg_user[next_segment[block]] = u
                seg_length[next_segment[block]] = 0
                next_segment[block] += 1
            seg_length[next_segment[block] - 1] += 1
            out_items[next_rating[block]] = place[items[source]] - block * per_block
            out_values[next_rating[block]] = values[source]
            next_rating[block] += 1
