"""Encoded ratings: raw ids mapped to 0..m-1 and 0..n-1, with row and column views built once.

Symbols: m users, n items, N observed pairs (Omega); ``users``, ``items``, ``values`` are (N,) arrays.
Reading files is `mf_numpy.readers`; splitting is `mf_numpy.split`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mf_numpy import counting
from mf_numpy.counting import Array as Array
from mf_numpy.errors import DataError


@dataclass(frozen=True, eq=False)
class IdMap:
    """Raw ids of one kind (all integers or all strings) ↔ contiguous indices.

    Attributes:
        raw: (n,) int64, or (n,) object array of str; the position of an id is its index.
    """

    raw: Array

    def __post_init__(self) -> None:
        raw = np.asarray(self.raw)
        if raw.ndim != 1:
            raise DataError(f"ids have shape {raw.shape}; give a one-dimensional array")
        if raw.dtype.kind in "iu":
            raw = raw.astype(np.int64)
        elif raw.dtype.kind in "OUT":
            raw = raw.astype(object)
            wrong = next((x for x in raw if not isinstance(x, str)), None)
            if wrong is not None:
                raise DataError(
                    f"ids mix types: {wrong!r} is a {type(wrong).__name__} among strings; convert them all to one type"
                )
        else:
            raise DataError(f"ids have dtype {raw.dtype}; integers and strings are allowed, so convert them first")
        object.__setattr__(self, "raw", raw)
        if not self._index.is_unique:
            twice = self._index[self._index.duplicated()].tolist()[0]
            raise DataError(f"id {twice!r} appears twice in an id map; give each id once")

    @classmethod
    def of_range(cls, n: int) -> IdMap:
        """Ids 0..n-1 that map to themselves."""
        return cls(np.arange(n))

    @cached_property
    def _index(self) -> pd.Index[Any]:
        return pd.Index(self.raw)

    @property
    def is_text(self) -> bool:
        """Whether the raw ids are strings."""
        return self.raw.dtype == object

    def __len__(self) -> int:
        return len(self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and np.array_equal(self.raw, other.raw)

    def __hash__(self) -> int:
        return hash((len(self), self.is_text))

    def encode(self, ids: Iterable[Any]) -> Array:
        """Indices (k,) int64 of raw ids; -1 for an id that is not in the map.

        Raises:
            DataError: integers asked of a map of strings, or the reverse: every id would be unknown.
        """
        listed = ids if isinstance(ids, np.ndarray | pd.Series | pd.Index) else list(ids)
        # NumPy's own strings lose trailing NULs, and would turn a stray integer among strings into one.
        has_text = isinstance(listed, list) and any(isinstance(x, str) for x in listed)
        wanted = np.asarray(listed, dtype=object if has_text else None)
        if wanted.size and (wanted.dtype.kind in "OUT") != self.is_text:
            have, got = ("strings", "numbers") if self.is_text else ("integers", "strings")
            example = wanted.ravel()[:1].tolist()[0]
            raise DataError(f"id {example!r}: got {got}, but these ids are {have} (such as {self.raw[:1].tolist()})")
        return self._index.get_indexer(pd.Index(wanted)).astype(np.int64)

    def decode(self, indices: Any) -> Array:
        """Raw ids of indices in [0, n).

        Raises:
            IndexError: an index outside [0, n).
        """
        at = np.asarray(indices)
        if at.size and (at.min() < 0 or at.max() >= len(self)):
            raise IndexError(f"index {at.min() if at.min() < 0 else at.max()} is outside 0..{len(self) - 1}")
        out: Array = self.raw[at]
        return out


@dataclass(frozen=True, eq=False)
class Layout:
    """One compressed view (CSR by user, or CSC by item) of the ratings, duplicates kept.

    Attributes:
        indptr: (rows + 1,) int64, right past 2**31 ratings.
        indices: (N,) the other side's index of each rating.
        order: (N,) int32, or int64 past 2**31 ratings; position in the original arrays of each rating of this view.
            None where the original arrays are in this order already.
    """

    indptr: Array
    indices: Array
    order: Array | None

    def arranged(self, array: Array) -> Array:
        """Something of each rating (N, ...), in the order of this view; the array itself where it is in it."""
        return array if self.order is None else array[self.order]


def compress(rows: Array, others: Array, n_rows: int) -> Layout:
    """Sort pairs by row, stably (equal rows keep their order), into a `Layout`."""
    indptr = counting.begins(counting.counts(rows, n_rows))
    if counting.is_sorted(rows):
        return Layout(indptr, others, None)
    order = counting.order(rows, indptr)
    return Layout(indptr, others[order], order)


@dataclass(frozen=True, eq=False)
class Ratings:
    """N ratings r_ui of m users and n items, encoded.

    Attributes:
        users: (N,) int32 in [0, m).
        items: (N,) int32 in [0, n).
        values: (N,) float64, in the unit of the rating scale.
        user_ids, item_ids: raw ids of the m users and n items.
        timestamps: (N,) int64 or None.
        scale: smallest and largest allowed rating, or None.
        item_info: None, or a table indexed by raw item id with columns such as ``title`` and ``genres``.
        notes: what the reader saw and did: ``rows``, ``not_rated``, ``duplicates``, ...

    Raises:
        DataError: arrays of different lengths, an index out of range, or a rating that is not finite.
    """

    users: Array
    items: Array
    values: Array
    user_ids: IdMap
    item_ids: IdMap
    timestamps: Array | None = None
    scale: tuple[float, float] | None = None
    item_info: pd.DataFrame | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, table in (("users", self.user_ids), ("items", self.item_ids)):
            index = np.asarray(getattr(self, name))
            if index.dtype.kind not in "iu":
                raise DataError(f"{name} has dtype {index.dtype}; give integer indices")
            if index.size and (index.min() < 0 or index.max() >= len(table)):
                bad = int(np.argmax((index < 0) | (index >= len(table))))
                raise DataError(f"{name}[{bad}] is {index[bad]}, outside 0..{len(table) - 1}; encode raw ids first")
            object.__setattr__(self, name, np.ascontiguousarray(index, dtype=np.int32))
        object.__setattr__(self, "values", np.ascontiguousarray(self.values, dtype=np.float64))
        if not len(self.users) == len(self.items) == len(self.values):
            raise DataError(
                f"users, items and values have lengths {len(self.users)}, {len(self.items)} and {len(self.values)}; "
                "give one of each per rating"
            )
        finite = np.isfinite(self.values)
        if not finite.all():
            bad = int(np.argmin(finite))
            raise DataError(f"values[{bad}] is {self.values[bad]}; ratings must be finite, so drop or mend that row")

    @classmethod
    def of_indices(cls, users: Any, items: Any, values: Any, *, m: int | None = None, n: int | None = None) -> Ratings:
        """Ratings whose ids are the indices themselves: users (N,) in [0, m), items (N,) in [0, n)."""
        u, i = np.asarray(users), np.asarray(items)
        m = int(u.max(initial=-1)) + 1 if m is None else m
        n = int(i.max(initial=-1)) + 1 if n is None else n
        return cls(u, i, np.asarray(values), IdMap.of_range(m), IdMap.of_range(n))

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Ratings({len(self):,} ratings, {self.n_users:,} users, {self.n_items:,} items)"

    @property
    def n_users(self) -> int:
        """m, the number of users (with or without ratings)."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """n, the number of items (with or without ratings)."""
        return len(self.item_ids)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.n_users, self.n_items

    @property
    def density(self) -> float:
        """N / (m n), the observed share of the matrix; can pass 1 only with duplicates."""
        cells = self.n_users * self.n_items
        return len(self) / cells if cells else 0.0

    @cached_property
    def mean(self) -> float:
        """μ, the mean rating."""
        return float(self.values.mean()) if len(self) else 0.0

    @cached_property
    def user_counts(self) -> Array:
        """n_u: ratings of each user, (m,) int64."""
        return counting.counts(self.users, self.n_users)

    @cached_property
    def item_counts(self) -> Array:
        """n_i: ratings of each item, (n,) int64."""
        return counting.counts(self.items, self.n_items)

    @cached_property
    def csr(self) -> Layout:
        """Row view: the ratings of each user, built once."""
        return compress(self.users, self.items, self.n_users)

    @cached_property
    def csc(self) -> Layout:
        """Column view: the ratings of each item, built once."""
        return compress(self.items, self.users, self.n_items)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the encoded arrays: equal for equal ratings in equal order."""
        digest = hashlib.sha256()
        for array in (self.users, self.items, self.values):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def to_scipy(self) -> sp.csr_array[np.float64]:
        """The ratings as an (m, n) CSR array; duplicates stay separate entries."""
        view = self.csr
        return sp.csr_array(
            (view.arranged(self.values), view.indices, view.indptr), shape=(self.n_users, self.n_items), copy=False
        )

    def take(self, where: Array) -> Ratings:
        """The ratings at `where` (mask or positions), over the same users and items."""
        return replace(
            self,
            users=self.users[where],
            items=self.items[where],
            values=self.values[where],
            timestamps=None if self.timestamps is None else self.timestamps[where],
        )

    def clicks(self, least: float) -> Ratings:
        """The ratings of at least `least` as clicks, each worth 1; users and items without one are left out.

        Raises:
            DataError: there is none.
        """
        high = self.values >= least
        if not high.any():
            raise DataError(f"no rating is {least:g} or higher, so there are no clicks; take less")
        kept = self.take(high).compact()
        return replace(kept, values=np.ones(len(kept)), scale=None)

    def compact(self) -> Ratings:
        """The same ratings with users and items that have none left out, ids kept in order."""
        user_of, item_of = np.flatnonzero(self.user_counts), np.flatnonzero(self.item_counts)
        if len(user_of) == self.n_users and len(item_of) == self.n_items:
            return self
        new_user, new_item = np.full(self.n_users, -1), np.full(self.n_items, -1)
        new_user[user_of], new_item[item_of] = np.arange(len(user_of)), np.arange(len(item_of))
        return replace(
            self,
            users=new_user[self.users],
            items=new_item[self.items],
            user_ids=IdMap(self.user_ids.raw[user_of]),
            item_ids=IdMap(self.item_ids.raw[item_of]),
        )
