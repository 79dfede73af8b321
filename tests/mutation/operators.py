"""Which faults are made: Cosmic Ray's operators, and those it lacks (sides, indices, arguments, calls, text)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import parso
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider

Node = Any
"""A node of parso's tree, whose classes differ by kind."""

_PAIRS = [
    ("u", "i"), ("m", "n"), ("p", "q"), ("b", "c"), ("P", "Q"), ("users", "items"), ("w_u", "w_i"), ("n_u", "n_i"),
    ("user_counts", "item_counts"), ("n_users", "n_items"), ("norms_u", "norms_i"), ("shape_p", "shape_q"),
    ("user_block", "item_block"), ("d_p", "d_q"), ("d_b", "d_c"),
]  # fmt: skip
_OTHER_SIDE = dict(_PAIRS) | {b: a for a, b in _PAIRS}
_SYMMETRIC = {"max", "min", "maximum", "minimum"}

_ARITHMETIC = {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"}


class _Rewrite(Operator):  # type: ignore[misc]
    """An operator that says which texts may stand in a node's place."""

    def rewrites(self, node: Node) -> Iterator[str]:
        raise NotImplementedError

    def mutation_positions(self, node: Node) -> Iterator[tuple[Any, Any]]:
        for _ in self.rewrites(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Node, index: int) -> Node:
        return parso.parse(_prefix(node) + list(self.rewrites(node))[index])

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class SwapSide(_Rewrite):
    """The other side's name, where it exists: an attribute, or a name of the same function."""

    def rewrites(self, node: Node) -> Iterator[str]:
        if node.type == "string" and node.value[1:-1] in _OTHER_SIDE:
            yield node.value[0] + _OTHER_SIDE[node.value[1:-1]] + node.value[-1]
        if node.type != "name" or node.value not in _OTHER_SIDE or node.is_definition() or _names_argument(node):
            return
        other = _OTHER_SIDE[node.value]
        before = node.get_previous_leaf()
        if (before is not None and before.value == ".") or other in _names_of(enclosing(node)):
            yield other


class ReplaceText(_Rewrite):
    """A string other than a docstring."""

    def rewrites(self, node: Node) -> Iterator[str]:
        if node.type == "string" and node.parent.type != "simple_stmt" and node.value[0] in "'\"":
            yield f'"not {node.value[1:-1]}"'


class DropCall(_Rewrite):
    """``x.f(...)`` and ``x.T`` become ``x``."""

    def rewrites(self, node: Node) -> Iterator[str]:
        parts = _trailers(node)
        first = 2 if parts and _is_module(parts[0]) else 1
        for at in range(first, len(parts)):
            code = parts[at].get_code()
            if code == ".T":
                yield _joined(parts[:at] + parts[at + 1 :])
            elif code.startswith(".") and at + 1 < len(parts) and parts[at + 1].get_code().startswith("("):
                yield _joined(parts[:at] + parts[at + 2 :])


class UnwrapCall(_Rewrite):
    """``f(x, ...)`` becomes ``(x)``."""

    def rewrites(self, node: Node) -> Iterator[str]:
        parts = _trailers(node)
        if not parts or parts[0].type != "name":
            return
        at = 1
        while _is_module(parts[0]) and at < len(parts) and parts[at].get_code().startswith("."):
            at += 1
        positional = [a for a in _arguments(parts[at]) if a.type != "argument"] if at < len(parts) else []
        if positional:
            yield f"({positional[0].get_code().strip()}){_joined(parts[at + 1 :])}"


class DropKeyword(_Rewrite):
    """``f(x, k=v)`` becomes ``f(x)``."""

    def rewrites(self, node: Node) -> Iterator[str]:
        given = _arguments(node)
        for at, argument in enumerate(given):
            if argument.type == "argument" and argument.children[1].get_code() == "=":
                yield _call(given[:at] + given[at + 1 :])


class SwapArguments(_Rewrite):
    """``f(x, y)`` becomes ``f(y, x)``."""

    def rewrites(self, node: Node) -> Iterator[str]:
        given = _arguments(node)
        name = node.get_previous_leaf()
        if name is not None and name.value in _SYMMETRIC:
            return
        for at in range(len(given) - 1):
            a, b = given[at], given[at + 1]
            if a.type != "argument" and b.type != "argument" and a.get_code().strip() != b.get_code().strip():
                yield _call([*given[:at], b, a, *given[at + 2 :]])


class ReplaceMatmul(_Rewrite):
    """``a @ b`` becomes ``a * b``."""

    def rewrites(self, node: Node) -> Iterator[str]:
        if node.type == "operator" and node.value == "@" and node.parent.type != "decorator":
            yield "*"


class SwapIndex(_Rewrite):
    """``a[x, y]`` becomes ``a[y, x]``."""

    def rewrites(self, node: Node) -> Iterator[str]:
        if node.type == "trailer" and node.children[0].value == "[" and node.children[1].type == "subscriptlist":
            yield "[" + ", ".join(c.get_code().strip() for c in reversed(node.children[1].children[::2])) + "]"


class DropStatement(_Rewrite):
    """A call for its effect, or ``x += y``, becomes ``pass``."""

    def rewrites(self, node: Node) -> Iterator[str]:
        if node.parent is None or node.parent.type != "simple_stmt" or node is not node.parent.children[0]:
            return
        augmented = node.type == "expr_stmt" and node.children[1].type == "operator" and node.children[1].value != "="
        if augmented or (_trailers(node) and node.children[-1].get_code().startswith("(")):
            yield "pass"


_OURS = [
    ("arithmetic", ReplaceMatmul),
    ("side", SwapSide), ("text", ReplaceText), ("call", DropCall), ("call", UnwrapCall), ("argument", DropKeyword),
    ("argument", SwapArguments), ("index", SwapIndex), ("statement", DropStatement),
]  # fmt: skip


def all_operators() -> Iterator[tuple[str, str, Operator]]:
    """(family, name, operator) of every operator in use."""
    provider = OperatorProvider()
    for name in provider:
        family = _family(name)
        if family:
            yield family, name, provider[name]()
    for family, ours in _OURS:
        yield family, ours.__name__, ours()


def _family(name: str) -> str | None:
    """Where one of Cosmic Ray's operators belongs, or None for one not used."""
    kind, *ends = name.split("_")
    if kind == "ReplaceBinaryOperator":
        # Floats refuse bit operators with a TypeError, whoever tests.
        return "arithmetic" if ends[0] not in _ARITHMETIC or ends[1] in _ARITHMETIC else None
    if kind == "ReplaceComparisonOperator":
        # Whether two equal strings are one object is Python's affair.
        return "comparison" if ends[0].startswith("Is") or not ends[1].startswith("Is") else None
    if kind in ("RemoveDecorator", "VariableReplacer", "VariableInserter"):
        return None  # decorators hold no mathematics; the variable operators draw at random
    families = {
        "ReplaceUnaryOperator": "unary", "NumberReplacer": "number", "ZeroIterationForLoop": "loop",
        "ReplaceBreakWithContinue": "loop", "ReplaceContinueWithBreak": "loop",
    }  # fmt: skip
    return families.get(kind, "logic")


def enclosing(node: Node) -> Node:
    """The innermost function or class around a node, else the module."""
    while node.parent is not None:
        node = node.parent
        if node.type in ("funcdef", "classdef"):
            break
    return node


def _names_of(scope: Node) -> set[str]:
    if scope.type == "name":
        return {scope.value}
    return set().union(*(_names_of(child) for child in getattr(scope, "children", [])))


def _names_argument(node: Node) -> bool:
    return node.parent.type == "argument" and node.parent.children[0] is node and len(node.parent.children) > 1


def _trailers(node: Node) -> list[Node]:
    """``a.b(c)`` as [a, .b, (c)]; empty for other nodes."""
    return list(node.children) if node.type in ("atom_expr", "power") and node.children[1].type == "trailer" else []


def _is_module(node: Node) -> bool:
    """Whether a name is that of an imported module: ``np``, ``torch``, ``F``."""
    if node.type != "name":
        return False
    imports = [i for i in node.get_root_node().iter_imports() if node.value in {n.value for n in i.get_defined_names()}]
    return any(i.type == "import_name" or node.value in ("F", "nn") for i in imports)


def _arguments(node: Node) -> list[Node]:
    """The arguments of a call's parentheses."""
    if node.type != "trailer" or node.children[0].value != "(" or len(node.children) < 3:
        return []
    inner = node.children[1]
    return [c for c in inner.children if c.get_code().strip() != ","] if inner.type == "arglist" else [inner]


def _call(arguments: list[Node]) -> str:
    return "(" + ", ".join(a.get_code().strip() for a in arguments) + ")"


def _joined(nodes: list[Node]) -> str:
    return "".join(n.get_code() for n in nodes).lstrip()


def _prefix(node: Node) -> str:
    prefix: str = node.get_first_leaf().prefix
    return prefix
