"""How kernels are compiled: one for each form, kept in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import count
from typing import Any

import numba

from mf_numpy.kernels import vector

_made: dict[tuple[Callable[..., Any], int], Any] = {}
_on_disk = True
_fingerprints = (n & 0xFFFFFFFF for n in count(vector.fingerprint + 1))


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for as many threads as Numba has, and keep the result on disk."""
    compiled: Callable[..., Any] = numba.njit(function, parallel=True, cache=_on_disk, fastmath=vector.FAST, nogil=True)
    return compiled


def per_form(make: Callable[[int], Any]) -> Callable[[int], Any]:
    """Call `make` once for each form, whatever becomes of its code."""

    @wraps(make)
    def once(form: int) -> Any:
        if (make, form) not in _made:
            _made[make, form] = make(form)
        return _made[make, form]

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
