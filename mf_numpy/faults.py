"""Wrong on purpose: one line of the real source, edited in memory, so that the checks can be seen to reject it.

The faults themselves are in `mf_numpy.catalogue`; the checks are in `mf_numpy.suite`. No file is touched.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numba
from numba.core.registry import CPUDispatcher

from mf_numpy.errors import ConfigError

_EQUATION = re.compile(r"Eq\. \d+")
_OURS = ("mf_numpy", "mf_torch")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A line as it stands, and the same line as someone got it wrong.

    Attributes:
        name: in kebab case, such as ``dropped-2``.
        function: where the line is, such as ``mf_numpy.optim:update`` or ``mf_numpy.engine:NumpyEngine.step``.
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
        ConfigError: the line is not there exactly once.
    """
    module = _module(fault)
    lines = _source(module).splitlines()
    node = _definition(fault, ast.parse("\n".join(lines)))
    wanted = [_bare(line) for line in fault.right.strip().splitlines()]
    assert node.end_lineno is not None
    starts = [
        at
        for at in range(node.lineno, node.end_lineno - len(wanted) + 2)
        if [_bare(line) for line in lines[at - 1 : at - 1 + len(wanted)]] == wanted
    ]
    file = "/".join(Path(str(module.__file__)).parts[-2:])
    if len(starts) != 1:
        raise ConfigError(
            f"fault {fault.name!r} expects {fault.right.strip()!r} once in {fault.function}, but {file} has it "
            f"{len(starts)} times; bring the fault's `right` in line with the source"
        )
    cited = _EQUATION.findall(" ".join(lines[starts[0] - 1 : starts[0] - 1 + len(wanted)]))
    cited = cited or _EQUATION.findall(ast.get_docstring(node) or "")[:1]
    return Place(file, starts[0], len(wanted), tuple(dict.fromkeys(cited)))


@contextmanager
def broken(fault: Fault) -> Iterator[None]:
    """Run the block with the fault's line in place of the right one, wherever the function is referred to.

    A Python function is given other code and stays the same object, so that every reference to it follows. A function
    compiled by Numba is compiled anew, without cache or threads, and put in the place of the old one in its module, with
    those that call it. All is as before when the block ends, also by an error.

    Raises:
        ConfigError: the right line is not in the source exactly once.
        SyntaxError: the wrong line is no Python.
    """
    module = _module(fault)
    code = _edited(fault, module)
    target = _resolve(fault, module)
    with ExitStack() as undo:
        if isinstance(target, CPUDispatcher):
            for name, dispatcher in _recompiled(module, target, code).items():
                undo.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, dispatcher)
        else:
            undo.callback(setattr, target, "__code__", target.__code__)
            target.__code__ = code
        yield


def _edited(fault: Fault, module: ModuleType) -> CodeType:
    """Compile the module's text with the fault in it, and take the function's code out; nothing is executed."""
    place = location(fault)
    lines = _source(module).splitlines()
    old = lines[place.line - 1]
    indent = old[: len(old) - len(old.lstrip())]
    new = [indent + line for line in fault.wrong.strip("\n").splitlines()]
    lines[place.line - 1 : place.line - 1 + place.n_lines] = new
    code = compile("\n".join(lines) + "\n", str(module.__file__), "exec", dont_inherit=True)
    found = _code_named(code, fault.function.partition(":")[2])
    assert found is not None
    return found


def _code_named(code: CodeType, name: str) -> CodeType | None:
    for inner in (c for c in code.co_consts if isinstance(c, CodeType)):
        if inner.co_qualname == name:
            return inner
        if (found := _code_named(inner, name)) is not None:
            return found
    return None


def _recompiled(module: ModuleType, target: Any, code: CodeType) -> Mapping[str, Any]:
    """Replacements by name: the faulty function, and those that would have bound the old one when compiled."""
    names = {name: value for name, value in vars(module).items() if isinstance(value, CPUDispatcher)}
    codes = {name: code for name, value in names.items() if value is target}
    while callers := {
        name: value.py_func.__code__
        for name, value in names.items()
        if name not in codes and not codes.keys().isdisjoint(value.py_func.__code__.co_names)
    }:
        codes |= callers
    return {
        # The cache's key does not see constants, so it would hand out the right code for the wrong one.
        name: numba.njit(
            FunctionType(changed, vars(module), name),
            fastmath=names[name].targetoptions.get("fastmath", False),
            nogil=True,
        )
        for name, changed in codes.items()
    }


def _resolve(fault: Fault, module: ModuleType) -> Any:
    """The plain function, or Numba's dispatcher, under all that decorators have put around it."""
    found: Any = module
    for part in fault.function.partition(":")[2].split("."):
        # Not getattr: a property or a class method must come out as it was defined.
        found = inspect.getattr_static(found, part)
    while not isinstance(found, FunctionType | CPUDispatcher) or hasattr(found, "__wrapped__"):
        if isinstance(found, CPUDispatcher):
            break
        if isinstance(found, property):
            found = found.fget
        elif isinstance(found, cached_property):
            found = found.func
        elif isinstance(found, staticmethod | classmethod):
            found = found.__func__
        else:
            found = found.__wrapped__
    return found


def _module(fault: Fault) -> ModuleType:
    name = fault.function.partition(":")[0]
    assert name.startswith(_OURS)
    return sys.modules.get(name) or importlib.import_module(name)


def _source(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")


def _definition(fault: Fault, tree: ast.Module) -> ast.FunctionDef:
    node: Any = tree
    for part in fault.function.partition(":")[2].split("."):
        node = next(
            (n for n in node.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == part),
            None,
        )
        if node is None:
            raise ConfigError(
                f"fault {fault.name!r} is in {fault.function}, which is not there; bring the fault's `function` in line "
                "with the source"
            )
    assert isinstance(node, ast.FunctionDef)
    return node


def _bare(line: str) -> str:
    """A line without its indentation and its trailing comment."""
    return line.split("  #")[0].strip()
