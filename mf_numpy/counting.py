"""Counting sort: many numbered rows into the order of their numbers, in no more room than the result takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_AT_ONCE = 1 << 20
"""Numbers that are counted together: NumPy widens them to 64 bits first."""


def counts(rows: Array, n_rows: int) -> Array:
    """How often each of 0..n_rows-1 occurs, (n_rows,) int64."""
    out = np.zeros(n_rows, np.int64)
    for begin in range(0, len(rows), _AT_ONCE):
        out += np.bincount(rows[begin : begin + _AT_ONCE], minlength=n_rows)
    return out


def begins(counted: Array) -> Array:
    """Where each row begins once rows lie one behind the other, and where the last one ends: (n_rows + 1,) int64."""
    out = np.zeros(len(counted) + 1, np.int64)
    np.cumsum(counted, out=out[1:])
    return out


def is_sorted(rows: Array) -> bool:
    """Whether no number is followed by a smaller one."""
    return all(
        bool((np.diff(rows[begin : begin + _AT_ONCE + 1]) >= 0).all()) for begin in range(0, len(rows), _AT_ONCE)
    )


def order(rows: Array, starts: Array) -> Array:
    """Positions of the numbers 0, 1, ... in `rows`, equal ones as they stand.

    Args:
        rows: (N,) numbers.
        starts: what `begins` says of their `counts`.

    Returns:
        (N,) int32, or int64 past 2**31 numbers.
    """
    out = np.empty(len(rows), np.int32 if len(rows) < 2**31 else np.int64)
    _order(rows, starts[:-1].copy(), out)
    return out


def deal(rows: Array, starts: Array, source: Array, out: Array) -> Array:
    """Fill `out` with `source` in the order of the rows, in the dtype of `out`."""
    _deal(rows, starts[:-1].copy(), source, out)
    return out


@dataclass(frozen=True, eq=False)
class Dealing:
    """`deal` for numbers that change, again and again and in parallel, without an (N,) array of places.

    Attributes:
        rows: (N,) numbers.
        first: (C, n_rows) int32 or int64, where the first of each row goes, of each of C equal parts of `rows`.
    """

    rows: Array
    first: Array

    def __call__(self, source: Array, out: Array) -> Array:
        """Fill `out` with `source` in the order of the rows, in the dtype of `out`; the same for every C."""
        _deal_parts(self.rows, self.first, source, out)
        return out


def dealing(rows: Array, starts: Array) -> Dealing:
    """A `Dealing` in as many parts as Numba has threads.

    Args:
        rows, starts: as of `order`.
    """
    parts, n = numba.get_num_threads(), len(rows)
    first = np.empty((parts, len(starts) - 1), np.int32 if n < 2**31 else np.int64)
    first[0] = starts[:-1]
    for part in range(parts - 1):
        own = rows[part * n // parts : (part + 1) * n // parts]
        first[part + 1] = first[part] + counts(own, len(starts) - 1)
    return Dealing(rows, first)


@numba.njit(cache=True, nogil=True)
def _order(rows, next_of, out):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        out[next_of[rows[k]]] = k
        next_of[rows[k]] += 1


@numba.njit(cache=True, nogil=True)
def _deal(rows, next_of, source, out):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        out[next_of[rows[k]]] = source[k]
        next_of[rows[k]] += 1


@numba.njit(cache=True, nogil=True, parallel=True)
def _deal_parts(rows, first, source, out):  # type: ignore[no-untyped-def]
    n, parts = len(rows), len(first)
    for part in numba.prange(parts):
        begin, end = part * n // parts, (part + 1) * n // parts
        _deal(rows[begin:end], first[part].copy(), source[begin:end], out)
