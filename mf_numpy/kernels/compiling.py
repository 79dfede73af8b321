"""How kernels are compiled: one for each form, kept in memory and on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from itertools import count, pairwise
from types import ModuleType
from typing import Any

import numba

from mf_numpy.kernels import vector

_made: dict[tuple[Any, ...], Any] = {}
_OPERATIONS = {f"{__package__}.{name}" for name in ("lanes", "normal", "tiles", "vector")}
_changed: frozenset[str] = frozenset()
_fingerprints = (n & 0xFFFFFFFF for n in count(vector.fingerprint + 1))


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for as many threads as Numba has, and keep the result on disk; `afresh`, for one and in memory."""
    return _compiled(function, parallel=_stays(function), fastmath=vector.FAST)


def jit_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel (first, last, ...) of a range of rows, for `over_rows`.

    It takes half as long as `jit`.
    """
    return _compiled(function, error_model="numpy")


def _compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    # Nothing in C calls a kernel, and what would let it takes long to compile.
    kept = _stays(function)
    options |= {"cache": kept, "nogil": True, "no_cfunc_wrapper": True}
    compiled: Callable[..., Any] = numba.njit(function, **options)
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
def afresh(module: str) -> Iterator[None]:
    """Compile kernels that a module has a part in anew, from the sources as they stand in memory; keep none on disk.

    Args:
        module: of this package, by its full name.
    """
    global _changed
    kept, before = dict(_made), (_changed, vector.fingerprint)
    if module in _OPERATIONS:
        # In every kernel, in another form than any so far: Numba remembers what it has compiled of them, too.
        module, vector.fingerprint = vector.__name__, next(_fingerprints)
    _changed |= {module}
    _forget()
    try:
        yield
    finally:
        _forget()
        _made.update(kept)
        _changed, vector.fingerprint = before


def _stays(function: Callable[..., Any]) -> bool:
    """Whether no module that is compiled `afresh` has a part in it."""
    return not _changed or function.__module__ not in _made_of(_changed)


def _forget() -> None:
    changed = _made_of(_changed)
    for key in [key for key in _made if key[0].__module__ in changed]:
        del _made[key]


def _made_of(modules: frozenset[str]) -> frozenset[str]:
    """The modules of this package that refer to something of these, or to one that does, and these."""
    loaded = {name: vars(module) for name, module in sys.modules.items() if name.startswith(f"{__package__}.")}
    found, more = frozenset[str](), modules
    while more:
        found |= more
        more = frozenset(
            name for name in loaded.keys() - found if not found.isdisjoint(map(_origin, loaded[name].values()))
        )
    return found


def _origin(value: Any) -> Any:
    """The module that a value is, or comes from."""
    return value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
