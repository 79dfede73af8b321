"""Wrong on purpose: one line of the real source, edited in memory, so that the checks can be seen to reject it.

The faults themselves are in `mf_numpy.catalogue`; the checks are in `mf_numpy.suite`. No file is touched.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numba
from numba.core.registry import CPUDispatcher

from mf_numpy import kernels
from mf_numpy.errors import ConfigError
from mf_numpy.kernels import compiling

_EQUATION = re.compile(r"Eq\. \d+")
_PART = re.compile(r"\[\w+\]|\w+")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A line as it stands, and the same line as someone got it wrong.

    Attributes:
        name: in kebab case, such as ``dropped-2``.
        function: where the line is, such as ``mf_numpy.engine:NumpyEngine.step``; a key in brackets finds a lambda in
            a dictionary, as in ``mf_numpy.losses:LOSSES[squared].residual``.
        right: the line or lines as they stand; indentation and trailing comments do not count.
        wrong: what stands there instead, indented to fit.
        origin: one sentence on who made the mistake, or why one makes it.
        caught_by: names of the independent checks (at least two) that must reject it.
    """

    name: str
    function: str
    right: str
    wrong: str
    origin: str
    caught_by: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where a fault's right line stands.

    Attributes:
        file: path from the root of the checkout, such as ``mf_numpy/gradients.py``.
        line: of its first line, from 1.
        n_lines: how many lines are replaced.
        equations: what they cite, or what their function's docstring cites, such as ``Eq. 6``.
    """

    file: str
    line: int
    n_lines: int
    equations: tuple[str, ...]


def location(fault: Fault) -> Place:
    """Find the right line in the source as it is now.

    Raises:
        ConfigError: the function is not there, or the line is not in it exactly once.
    """
    module = _module(fault)
    function = _plain(_resolve(fault, module))
    lines = _source(module).splitlines()
    wanted = [_bare(line) for line in fault.right.strip().splitlines()]
    starts = [
        at
        for at in range(function.__code__.co_firstlineno, _last_line(function.__code__) + 1)
        if [_bare(line) for line in lines[at - 1 : at - 1 + len(wanted)]] == wanted
    ]
    file = module.__name__.replace(".", "/") + ".py"
    if len(starts) != 1:
        raise ConfigError(
            f"fault {fault.name!r} expects {fault.right.strip()!r} once in {fault.function}, but {file} has it "
            f"{len(starts)} times; bring the fault's `right` in line with the source"
        )
    cited = _EQUATION.findall(" ".join(lines[starts[0] - 1 : starts[0] - 1 + len(wanted)]))
    cited = cited or _EQUATION.findall(function.__doc__ or "")[:1]
    return Place(file, starts[0], len(wanted), tuple(dict.fromkeys(cited)))


def source_of(fault: Fault) -> str:
    """The text of the function that the fault lies in, as it is now.

    Raises:
        ConfigError: the function is not there.
    """
    module = _module(fault)
    code = _plain(_resolve(fault, module)).__code__
    lines = _source(module).splitlines()
    return "\n".join(lines[code.co_firstlineno - 1 : _last_line(code)])


@contextmanager
def broken(fault: Fault) -> Iterator[None]:
    """Run the block with the fault's line in place of the right one, wherever the function is referred to.

    A Python function is given other code and stays the same object, so that every reference to it follows. A function
    compiled by Numba is compiled anew, without cache or threads, and put in the place of the old one in its module,
    with those that call it; kernels that are made for each K are made afresh where its module has a part in them. All
    is as before when the block ends, also by an error.

    Raises:
        ConfigError: the right line is not in the source exactly once.
        SyntaxError: the wrong line is no Python.
    """
    module = _module(fault)
    target = _resolve(fault, module)
    code = _edited(fault, module, _plain(target).__code__)
    with ExitStack() as undo:
        if module.__name__.startswith(kernels.__name__):
            undo.enter_context(compiling.afresh(module.__name__))
        if isinstance(target, CPUDispatcher):
            for name, dispatcher in _recompiled(module, target, code).items():
                undo.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, dispatcher)
        else:
            undo.callback(setattr, target, "__code__", target.__code__)
            target.__code__ = code
        yield


def _edited(fault: Fault, module: ModuleType, old: CodeType) -> CodeType:
    """Compile the module's text with the fault in it, and take the function's code out; nothing is executed."""
    place = location(fault)
    lines = _source(module).splitlines()
    first = lines[place.line - 1]
    indent = first[: len(first) - len(first.lstrip())]
    new = [indent + line for line in fault.wrong.strip("\n").splitlines()]
    lines[place.line - 1 : place.line - 1 + place.n_lines] = new
    code = compile("\n".join(lines) + "\n", str(module.__file__), "exec", dont_inherit=True)
    same = [inner for inner in _within(code) if inner.co_qualname == old.co_qualname]
    if len(same) > 1:
        # Lambdas share a name; the edit is on the line of the right one.
        same = [inner for inner in same if inner.co_firstlineno == old.co_firstlineno]
    (found,) = same
    return found


def _within(code: CodeType) -> Iterator[CodeType]:
    for inner in (c for c in code.co_consts if isinstance(c, CodeType)):
        yield inner
        yield from _within(inner)


def _last_line(code: CodeType) -> int:
    return max(line for c in (code, *_within(code)) for _, _, line in c.co_lines() if line)


def _recompiled(module: ModuleType, target: Any, code: CodeType) -> Mapping[str, Any]:
    """Replacements by name: the faulty function, and those that would have bound the old one when compiled."""
    compiled = {name: value for name, value in vars(module).items() if isinstance(value, CPUDispatcher)}
    codes = {name: code for name, value in compiled.items() if value is target}
    while callers := {
        name: value.py_func.__code__
        for name, value in compiled.items()
        if name not in codes and not codes.keys().isdisjoint(value.py_func.__code__.co_names)
    }:
        codes |= callers
    return {
        # The cache's key does not see constants, so it would hand out the right code for the wrong one.
        name: numba.njit(
            FunctionType(changed, vars(module), name),
            fastmath=compiled[name].targetoptions.get("fastmath", False),
            nogil=True,
        )
        for name, changed in codes.items()
    }


def _resolve(fault: Fault, module: ModuleType) -> Any:
    """The plain function, or Numba's dispatcher, under all that decorators have put around it."""
    found: Any = module
    try:
        for part in _PART.findall(fault.function.partition(":")[2]):
            # Not getattr: a property or a class method must come out as it was defined.
            found = found[part[1:-1]] if part.startswith("[") else inspect.getattr_static(found, part)
    except (AttributeError, KeyError):
        raise ConfigError(
            f"fault {fault.name!r} is in {fault.function}, which is not there; bring the fault's `function` in line "
            "with the source"
        ) from None
    while not isinstance(found, CPUDispatcher):
        if isinstance(found, property):
            found = found.fget
        elif isinstance(found, cached_property):
            found = found.func
        elif isinstance(found, staticmethod | classmethod):
            found = found.__func__
        elif hasattr(found, "__wrapped__"):
            found = found.__wrapped__
        else:
            break
    return found


def _plain(target: Any) -> FunctionType:
    function = target.py_func if isinstance(target, CPUDispatcher) else target
    assert isinstance(function, FunctionType)
    return function


def _module(fault: Fault) -> ModuleType:
    return importlib.import_module(fault.function.partition(":")[0])


def _source(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")


def _bare(line: str) -> str:
    """A line without its indentation and its trailing comment."""
    return line.split("  #")[0].strip()
