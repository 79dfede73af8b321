"""The ratings in the order in which stochastic gradient descent walks them: D x D blocks, diagonal by diagonal.

Users and items are dealt out at random to D shares each. Blocks on one diagonal of the grid have neither a user nor an
item in common, so they can run at the same time and the result is that of one after the other (Gemulla et al. 2011).
Within a block the ratings of 32 users at a time are shuffled: their rows stay in the nearest cache, and a row seldom
waits for its own last update.
A rating takes 8 bytes: 2 for the user and 2 for the item within their shares, 4 for its value in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from mf_numpy.config import Config
from mf_numpy.ratings import Array, Ratings

SIDE = 8
"""D of most tables. More would keep more than 8 threads busy, and read every row more often."""

USERS_AT_ONCE = 32
"""Users whose ratings are shuffled together."""


@dataclass(frozen=True, eq=False)
class Grid:
    """D x D blocks over N ratings.

    Attributes:
        user_of, item_of: (m,) and (n,) int64, the user and item of each place; a share is a range of places.
        user_bounds, item_bounds: (D + 1,) int64, where the shares begin.
        begins: (D * D + 1,) int64, the first rating of each block; of user share a and item share b, a * D + b.
        users, items: (N,) unsigned, each rating's places within the shares.
        values: (N,) ratings in the precision of the parameters.
    """

    user_of: Array
    item_of: Array
    user_bounds: Array
    item_bounds: Array
    begins: Array
    users: Array
    items: Array
    values: Array

    @property
    def side(self) -> int:
        """D."""
        return len(self.user_bounds) - 1

    def __len__(self) -> int:
        return len(self.values)


def side_of(train: Ratings) -> int:
    """D, set by the data alone: few blocks where they would be tiny, more where 8 shares are huge."""
    few = min(train.n_users, train.n_items, SIDE if len(train) >= 500_000 else SIDE // 2)
    return max(1, few, SIDE * 2 if len(train) >= 50_000_000 else 1)


def grid(train: Ratings, config: Config, side: int | None = None) -> Grid:
    """Deal users, items and ratings out by ``config.seed``."""
    side = side_of(train) if side is None else side
    rng = np.random.default_rng([config.seed, train.n_users, train.n_items])
    user_of, item_of = rng.permutation(train.n_users), rng.permutation(train.n_items)
    place_u, place_i = np.empty(train.n_users, np.int32), np.empty(train.n_items, np.int32)
    place_u[user_of] = np.arange(train.n_users, dtype=np.int32)
    place_i[item_of] = np.arange(train.n_items, dtype=np.int32)
    user_bounds, item_bounds = (np.arange(side + 1) * size // side for size in (train.n_users, train.n_items))
    share_u, share_i = (np.searchsorted(b, np.arange(b[-1]), "right") - 1 for b in (user_bounds, item_bounds))
    groups = -(-int(np.diff(user_bounds).max(initial=1)) // USERS_AT_ONCE)
    widest = max(int(np.diff(b).max(initial=0)) for b in (user_bounds, item_bounds))
    index = np.uint16 if widest <= 1 << 16 else np.uint32
    bounds = np.zeros(side * side * groups + 1, np.int64)
    users, items = np.empty(len(train), index), np.empty(len(train), index)
    values = np.empty(len(train), config.numpy_dtype)
    _deal(
        train.users, train.items, train.values, place_u, place_i, share_u, share_i, user_bounds, item_bounds,
        groups, bounds, users, items, values,
    )  # fmt: skip
    for block in range(side * side):
        of_groups = bounds[block * groups : (block + 1) * groups + 1]
        draws = rng.integers(0, 1 << 32, of_groups[-1] - of_groups[0], dtype=np.uint32)
        _shuffle(of_groups, draws, users, items, values)
    return Grid(user_of, item_of, user_bounds, item_bounds, bounds[::groups].copy(), users, items, values)


@numba.njit(cache=True, nogil=True)
def _deal(  # type: ignore[no-untyped-def]
    users, items, values, place_u, place_i, share_u, share_i, user_bounds, item_bounds, groups,
    bounds, out_users, out_items, out_values,
):  # fmt: skip
    """Sort the ratings by block and group of users; `bounds` receives where each group begins."""
    side = len(user_bounds) - 1
    for k in range(len(users)):
        u, i = place_u[users[k]], place_i[items[k]]
        block = share_u[u] * side + share_i[i]
        bounds[block * groups + (u - user_bounds[share_u[u]]) // USERS_AT_ONCE + 1] += 1
    for group in range(len(bounds) - 1):
        bounds[group + 1] += bounds[group]
    next_of = bounds[:-1].copy()
    for k in range(len(users)):
        u, i = place_u[users[k]], place_i[items[k]]
        block = share_u[u] * side + share_i[i]
        group = block * groups + (u - user_bounds[share_u[u]]) // USERS_AT_ONCE
        at = next_of[group]
        next_of[group] += 1
        out_users[at] = u - user_bounds[share_u[u]]
        out_items[at] = i - item_bounds[share_i[i]]
        out_values[at] = values[k]


@numba.njit(cache=True, nogil=True)
def _shuffle(bounds, draws, users, items, values):  # type: ignore[no-untyped-def]
    """Shuffle each group of one block by a draw a rating (Fisher and Yates)."""
    for group in range(len(bounds) - 1):
        begin = bounds[group]
        for left in range(bounds[group + 1] - begin, 1, -1):
            a = begin + left - 1
            # A draw of 32 bits is a fraction of `left`.
            b = begin + np.int64((np.uint64(draws[a - bounds[0]]) * np.uint64(left)) >> np.uint64(32))
            users[a], users[b] = users[b], users[a]
            items[a], items[b] = items[b], items[a]
            values[a], values[b] = values[b], values[a]
