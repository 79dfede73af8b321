"""How kernels are compiled: one for each form, kept in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from itertools import count, pairwise
from typing import Any

import numba

from mf_numpy.kernels import vector

_made: dict[tuple[Any, ...], Any] = {}
_on_disk = True
_fingerprints = (n & 0xFFFFFFFF for n in count(vector.fingerprint + 1))


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for as many threads as Numba has, and keep the result on disk."""
    return _compiled(function, parallel=True, fastmath=vector.FAST)


def jit_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel (first, last, ...) of a range of rows, for `over_rows`.

    It takes half as long as `jit`.
    """
    return _compiled(function, error_model="numpy")


def _compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    # Nothing in C calls a kernel, and what would let it takes long to compile.
    compiled: Callable[..., Any] = numba.njit(function, cache=_on_disk, nogil=True, no_cfunc_wrapper=True, **options)
    return compiled


def over_rows(kernel: Callable[..., Any], bounds: Any, *arguments: Any) -> None:
    """Call kernel(first, last, ...) for each chunk between `bounds`, on as many threads as Numba would take.

    A thread takes the next chunk when it is done with its last, so that rows must not depend on each other.
    """
    chunks = list(pairwise(bounds.tolist()))
    threads = min(numba.get_num_threads(), len(chunks))
    if threads < 2:
        kernel(chunks[0][0], chunks[-1][1], *arguments)
        return
    left = iter(chunks)

    def work() -> None:
        # One task a thread, not one a chunk: to hand a task over takes as long as a small chunk.
        for chunk in left:
            kernel(*chunk, *arguments)

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()


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
