"""The observed pairs that one gradient looks at: all of Ω, or a mini-batch of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp

from mf_numpy import sampling
from mf_numpy.config import DRAWN, Config
from mf_numpy.ratings import Array, Ratings


@runtime_checkable
class Counted(Protocol):
    """What the penalty needs to know of a batch, whatever its layout; see `Batch`."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def values(self) -> Array: ...
    @property
    def user_counts(self) -> Array: ...
    @property
    def item_counts(self) -> Array: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Batch:
    """B observed ratings. Duplicate pairs are separate entries: their gradients add up.

    Attributes:
        users, items: (B,) indices in [0, m) and [0, n).
        values: (B,) ratings in the dtype of the parameters; of lists each item's log q (Eq. 49), or with ``warp`` what
            its place in the list is worth (Eq. 52).
        shape: (m, n).
        indptr: (m + 1,) int64 when the pairs are sorted by user, else None.
        per_list: pairs of a list that counts as one rating: 1, or 1 + S where S items were drawn beside each (Eq. 48);
            a list's user is that of all its pairs, and its chosen item comes first.
    """

    users: Array
    items: Array
    values: Array
    shape: tuple[int, int]
    indptr: Array | None = None
    per_list: int = 1

    def __len__(self) -> int:
        return len(self.values) // self.per_list

    @cached_property
    def user_counts(self) -> Array:
        """n_u within the batch, (m,)."""
        return np.bincount(self.users[:: self.per_list], minlength=self.shape[0])

    @cached_property
    def item_counts(self) -> Array:
        """n_i within the batch, (n,); with lists how often an item is in one."""
        return np.bincount(self.items, minlength=self.shape[1])

    def sparse(self, data: Array) -> sp.csr_array | sp.coo_array:
        """The (m, n) sparse matrix of `data` (B,) at the batch's pairs; duplicates add up in its products (Eq. 7)."""
        if self.indptr is None:
            return sp.coo_array((data, (self.users, self.items)), shape=self.shape)  # Eq. 7
        matrix = self._pattern.copy() if self._pattern.dtype != data.dtype else self._pattern
        matrix.data = data
        return matrix

    @cached_property
    def _pattern(self) -> sp.csr_array:
        assert self.indptr is not None
        return sp.csr_array((self.values, self.items, self.indptr), shape=self.shape)


def full_batch(train: Ratings, config: Config) -> Batch:
    """All N ratings, sorted by user."""
    view = train.csr
    values = view.arranged(train.values).astype(config.numpy_dtype)
    return Batch(view.arranged(train.users), view.indices, values, (train.n_users, train.n_items), view.indptr)


def in_parts(n_ratings: int, config: Config) -> bool:
    """Whether an epoch has other batches than all ratings as they are: several, or lists drawn anew."""
    return config.loss in DRAWN or _several(n_ratings, config)


def _several(n_ratings: int, config: Config) -> bool:
    return config.batch_size is not None and config.batch_size < n_ratings


def order_of(epoch: int, n_ratings: int, config: Config) -> Array:
    """The permutation of epoch 1, 2, ... (Eq. 16), from seed and epoch alone: a resumed run draws the same."""
    return np.random.default_rng([config.seed, epoch]).permutation(n_ratings)


def mini_batches(whole: Batch, epoch: int, config: Config) -> Iterator[Batch]:
    """The epoch's batches (Eq. 16): each rating once, `batch_size` at a time, the last one smaller.

    With a loss of lists each rating is a list with items drawn beside it (Eq. 50).
    """
    if config.loss in DRAWN:
        yield from _lists(whole, epoch, config)
        return
    if config.batch_size is None or config.batch_size >= len(whole):
        yield whole
        return
    order = order_of(epoch, len(whole), config)
    for begin in range(0, len(whole), config.batch_size):
        at = order[begin : begin + config.batch_size]
        yield Batch(whole.users[at], whole.items[at], whole.values[at], whole.shape)


def _lists(whole: Batch, epoch: int, config: Config) -> Iterator[Batch]:
    n_items, width = whole.shape[1], 1 + config.n_negatives
    drawn = sampling.negatives(whole.users, whole.items, n_items, epoch, config)
    offsets, worths = sampling.offsets(whole.items, n_items, config), sampling.worths(n_items, config)
    order = order_of(epoch, len(whole), config) if _several(len(whole), config) else np.arange(len(whole))
    size = config.batch_size or len(whole)
    for begin in range(0, len(whole), size):
        at = order[begin : begin + size]
        items = np.column_stack([whole.items[at], drawn[at]]).ravel()
        values = np.tile(worths, len(at)) if config.loss == "warp" else offsets[items]
        values = values.astype(whole.values.dtype)
        yield Batch(np.repeat(whole.users[at], width), items, values, whole.shape, per_list=width)
