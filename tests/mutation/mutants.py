"""Every faulty version of a module, less those that cannot matter by rule."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

from tests.mutation.operators import Node, all_operators, enclosing


@dataclass(frozen=True)
class Mutant:
    """One faulty version of a module.

    Attributes:
        module: the file, relative to the root.
        function: dotted name of the function or class the fault is in; empty at module level.
        line: 1, 2, ... in the original.
        family, operator: what was done.
        before, after: the line without and with the fault, stripped.
        source: the whole faulty module.
    """

    module: str
    function: str
    line: int
    family: str
    operator: str
    before: str
    after: str
    source: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What names the mutant, whatever happens to other lines."""
        return self.module, self.function, self.before, self.after

    @property
    def digest(self) -> str:
        """SHA-256 of what the faulty source means."""
        return hashlib.sha256((meaning(self.source) or "").encode()).hexdigest()


def mutants_of(root: Path, module: str) -> tuple[list[Mutant], Counter[str]]:
    """The mutants of one file in the order of its lines, and how many each rule excluded."""
    source = (root / module).read_text(encoding="utf-8")
    tree = get_ast(source)
    nodes = list(ast_nodes(tree))
    seen = {meaning(source)}
    found: list[Mutant] = []
    left_out: Counter[str] = Counter()
    for family, name, operator in all_operators():
        places = [node for node in nodes for _ in operator.mutation_positions(node)]
        for occurrence, node in enumerate(places):
            rule = _rule(node) or _orders_text(node, name)
            faulty = None if rule else mutate_code(source, operator, occurrence)
            if faulty is not None:
                code = meaning(faulty)
                rule = "no Python" if code is None else "same code" if code in seen else None
                seen.add(code)
            if rule or faulty is None:
                left_out[rule or "same code"] += 1
                continue
            before, after, line = _difference(source, faulty)
            found.append(Mutant(module, _function(node), line, family, name, before, after, faulty))
    return sorted(found, key=lambda mutant: mutant.line), left_out


def _rule(node: Node) -> str | None:
    """The rule by which a place is left alone, or None."""
    child = node
    while (parent := child.parent) is not None:
        if parent.type in ("funcdef", "param", "annassign", "tfpdef") and _annotates(parent, child):
            return "annotation"
        if parent.type in ("decorator", "decorators") or child.type in ("decorator", "decorators"):
            return "decorator"
        if parent.type == "raise_stmt" or child.type == "raise_stmt":
            return "error text"
        if parent.type == "simple_stmt" and child.type == "string":
            return "docstring"
        if parent.type == "expr_stmt":
            target = parent.children[0].get_code().strip()
            if target == "__all__":
                return "exports"
            if target.endswith("_AT_ONCE"):
                return "chunk size"
        child = parent
    return None


def _orders_text(node: Node, operator: str) -> str | None:
    kind, *ends = operator.split("_")
    if kind != "ReplaceComparisonOperator" or not any(child.type == "string" for child in node.children):
        return None
    return "text order" if ends[1] not in ("Eq", "NotEq") else None


def _annotates(parent: Node, child: Node) -> bool:
    """Whether `child` is the type in ``name: type`` or ``-> type``."""
    if parent.type == "annassign":
        return child is parent.children[1]
    return child is (parent.children[2] if parent.type == "tfpdef" else parent.annotation)


def meaning(source: str) -> str | None:
    """The source without comments and layout, or None where it is no Python."""
    try:
        return ast.dump(ast.parse(source))
    except (SyntaxError, ValueError):
        return None


def _function(node: Node) -> str:
    names: list[str] = []
    scope = enclosing(node)
    while scope.type in ("funcdef", "classdef"):
        names.insert(0, scope.name.value)
        scope = enclosing(scope)
    return ".".join(names)


def _difference(source: str, faulty: str) -> tuple[str, str, int]:
    """The first line that differs, both ways, and its number."""
    old, new = source.splitlines(), faulty.splitlines()
    at = next(k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    return old[at].strip(), new[at].strip(), at + 1
