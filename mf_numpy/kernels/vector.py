"""Rows of K numbers: the few operations that the kernels are written in.

Each is here as the loop that it is, and in `lanes` as instructions on vector registers; which of the two a kernel gets
is settled when it is compiled. A kernel closes over one whole number, its *form*, which `form` makes of K: Numba
compiles the kernel anew for every form, and finds it in its cache on disk by that number.
"""

# mypy: disable-error-code="call-arg"
from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba.extending import overload

from mf_numpy.errors import choose
from mf_numpy.kernels import lanes

LOOPS = -1
"""The form of plain loops, for any K."""

MAX_FACTORS = 512
"""Largest K whose rows are unrolled; more would compile for minutes and spill every register."""

fingerprint = zlib.crc32(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
"""In every form, so that a kernel on disk which was compiled from other sources is not taken for one of these."""

# Products and sums may be fused; infinities and NaN keep their meaning. Sums keep their order: LLVM optimises what goes
# to disk once more than what runs in the process that compiled it, and might add in another one there.
FAST = {"contract", "nsz"}


def form(n_factors: int) -> int:
    """The form of kernels for rows of K numbers: vectors, or `LOOPS` for K above `MAX_FACTORS`.

    With ``loops`` in the environment variable MF_KERNELS it is `LOOPS` for every K.

    Raises:
        ConfigError: MF_KERNELS is neither ``vectors`` nor ``loops``.
    """
    asked = choose("MF_KERNELS", os.environ.get("MF_KERNELS", "vectors"), ("vectors", "loops"))
    if asked == "loops" or n_factors > MAX_FACTORS:
        return LOOPS
    return lanes.pack(fingerprint, n_factors)


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """An array that begins on a cache line: rows of whole lines are then read without crossing one."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    room = np.empty(size + 64, np.uint8)
    begin = -room.ctypes.data % 64
    out: np.ndarray[Any, np.dtype[Any]] = room[begin : begin + size].view(dtype).reshape(shape)
    return out


def load(table: Any, at: Any, form: int) -> Any:
    """Row `at` of a (rows, K) table. With loops it is a view: see `copy`."""
    return table[at]


def copy(row: Any) -> Any:
    """A row that stays what it is when the one it was loaded from is overwritten."""
    return row.copy()


def store(table: Any, at: Any, row: Any) -> None:
    """Write a row back."""
    for f in range(len(row)):
        table[at, f] = row[f]


def exchange(P: Any, u: Any, keep_p: Any, Q: Any, i: Any, keep_q: Any, factor: Any, form: int) -> None:
    """p_u ← keep_p p_u + factor q_i and q_i ← keep_q q_i + factor p_u, both from the old rows.

    Vector by vector, so that two whole rows need not be in registers at once.
    """
    for f in range(P.shape[1]):
        p, q = P[u, f], Q[i, f]
        P[u, f] = keep_p * p + factor * q
        Q[i, f] = keep_q * q + factor * p


def prefetch(table: Any, at: Any, form: int) -> None:
    """Ask for a row that will be read and written soon; loops do without."""


def dot(a: Any, b: Any) -> Any:
    """a·b, in the precision of the rows."""
    total = a[0] * b[0]
    for f in range(1, len(a)):
        total += a[f] * b[f]
    return total


def add(row: Any, factor: Any, other: Any) -> Any:
    """row + factor·other. With loops `row` itself is overwritten, here and below."""
    for f in range(len(row)):
        row[f] += factor * other[f]
    return row


def scale(row: Any, factor: Any) -> Any:
    """factor·row."""
    for f in range(len(row)):
        row[f] *= factor
    return row


def add_squares(row: Any, other: Any) -> Any:
    """row + other², entry by entry."""
    for f in range(len(row)):
        row[f] += other[f] * other[f]
    return row


def over_root(row: Any, other: Any, floor: Any) -> Any:
    """row / (√other + floor), entry by entry."""
    for f in range(len(row)):
        row[f] /= np.sqrt(other[f]) + floor
    return row


def with_twin(loops: Callable[..., Any], vectors: Callable[..., Any], fast: bool = True) -> None:
    """Compile `loops` to itself, or to `vectors` where a row comes in registers or the last argument is a form."""

    def chosen(*kinds: Any) -> Callable[..., Any]:
        in_registers = any(isinstance(kind, lanes.Row) for kind in kinds)
        form = getattr(kinds[-1], "literal_value", LOOPS)
        return vectors if in_registers or form != LOOPS else loops

    options: Any = {"fastmath": FAST if fast else False, "no_cfunc_wrapper": True}
    overload(loops, jit_options=options, strict=False, prefer_literal=True)(chosen)


with_twin(load, lambda table, at, form: lanes.load(table, at, form))
with_twin(copy, lambda row: row)
with_twin(store, lambda table, at, row: lanes.store(table, at, row))
with_twin(
    exchange, lambda P, u, keep_p, Q, i, keep_q, factor, form: lanes.exchange(P, u, keep_p, Q, i, keep_q, factor, form)
)
with_twin(prefetch, lambda table, at, form: lanes.prefetch(table, at, form))
with_twin(dot, lambda a, b: lanes.dot(a, b))
with_twin(add, lambda row, factor, other: lanes.add(row, factor, other))
with_twin(scale, lambda row, factor: lanes.scale(row, factor))
with_twin(add_squares, lambda row, other: lanes.add_squares(row, other))
with_twin(over_root, lambda row, other, floor: lanes.over_root(row, other, floor))
