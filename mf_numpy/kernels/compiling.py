"""How kernels are compiled: one for each form, kept in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import count
from typing import Any

import numba

from mf_numpy.kernels import vector

_made: dict[tuple[Any, ...], Any] = {}
_on_disk = True
_fingerprints = (n & 0xFFFFFFFF for n in count(vector.fingerprint + 1))


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for as many threads as Numba has, and keep the result on disk."""
    compiled: Callable[..., Any] = numba.njit(function, parallel=True, cache=_on_disk, fastmath=vector.FAST, nogil=True)
    return compiled


def jit_in_order(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jit` for sums that must not be reassociated.

    LLVM optimises a kernel that goes to disk once more than the one that runs in the process which compiled it, so
    that the two may reassociate differently: the bits of a fit would change with the second process.
    """
    compiled: Callable[..., Any] = numba.njit(function, parallel=True, cache=_on_disk, nogil=True)
    return compiled


def per_form(make: Callable[..., Any]) -> Callable[..., Any]:
    """Call `make` once for each form, or form and variant: whole numbers that its kernel closes over."""

    @wraps(make)
    def once(*numbers: int) -> Any:
        if (make, *numbers) not in _made:
            _made[make, *numbers] = make(*numbers)
        return _made[make, *numbers]

    return once


@contextmanager
def afresh() -> Iterator[None]:
    """Compile what the block uses anew, from the sources as they stand in memory; leave no trace on disk."""
    global _on_disk
    kept, before = dict(_made), (_on_disk, vector.fingerprint)
    _made.clear()
    # Other forms than any so far: Numba remembers what it has compiled of the operations, too.
    _on_disk, vector.fingerprint = False, next(_fingerprints)
    try:
        yield
    finally:
        _made.clear()
        _made.update(kept)
        _on_disk, vector.fingerprint = before
