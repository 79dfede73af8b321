"""What became of the mutants: verdicts kept between runs, declared equivalents, the result file and its table."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.mutation.judge import Judge, Settings, Verdict
from tests.mutation.mutants import Mutant, meaning

FAMILIES = {
    "arithmetic": "`+ - * / // % **` each replaced by every other, `& | << >>` by every operator, `@` by `*`",
    "comparison": "`< <= > >= == !=` each replaced by every other, `is` by `is not`",
    "logic": "a condition negated, `and` for `or`, `True` for `False`",
    "number": "a number one larger, one smaller",
    "unary": "a sign changed or dropped",
    "loop": "a loop that never runs, `break` for `continue`",
    "side": "users for items, P for Q, b for c, m for n, and back",
    "text": "a string that means something replaced by one that means nothing",
    "call": "`.method(...)` or `.T` dropped, `f(x, ...)` replaced by x",
    "argument": "a keyword argument dropped, two neighbours exchanged",
    "index": "`a[i, j]` replaced by `a[j, i]`",
    "statement": "a call or an augmented assignment left out",
}
RULES = {
    "annotation": "a type annotation: not evaluated, or checked only while tests run",
    "decorator": "a decorator: it says what a class or property is, not what is computed",
    "error text": "a `raise` statement: what the message says",
    "docstring": "a docstring",
    "exports": "the list of exported names",
    "chunk size": "a constant `*_AT_ONCE`: memory and speed; tests compare chunks of 7 with the whole",
    "text order": "equality with a text made an order: the allowed texts are names, which have none",
    "no Python": "the mutant does not compile",
    "same code": "the mutant compiles to the code of the original, or of another mutant",
}
Key = tuple[str, str, str, str]


def load_settings(root: Path) -> Settings:
    """``tests/mutation/settings.toml`` under `root`."""
    return Settings(root, **tomllib.loads((root / "tests/mutation/settings.toml").read_text(encoding="utf-8")))


def load_equivalents(root: Path) -> dict[Key, str]:
    """The reason by mutant key of ``tests/mutation/equivalent.toml``.

    Raises:
        ValueError: a mutant declared twice, or without a reason.
    """
    path = root / "tests/mutation/equivalent.toml"
    declared: dict[Key, str] = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", []):
        for after in entry["after"]:
            key = (entry["module"], entry["function"], entry["before"], after)
            if key in declared or not entry["reason"].strip():
                raise ValueError(f"{path.name}: {key} is declared twice or has no reason; keep one entry with a reason")
            declared[key] = entry["reason"]
    return declared


class Memory:
    """Verdicts of earlier runs that still hold, in a file that grows by a line a mutant.

    A kill holds while the code that the tests load and the file of the test that killed are as they were, comments
    apart; a survival holds while no test file has changed either.
    """

    def __init__(self, path: Path, judge: Judge) -> None:
        self.path = path
        code = {name: meaning((judge.snapshot / name).read_text(encoding="utf-8")) for name in judge.loaded}
        # A single test of a file stands for the file.
        files = dict.fromkeys(name.split("::")[0] for name in judge.settings.tests)
        self._files = {name: _hash([code.pop(name, "") or ""]) for name in files}
        self._code = _hash(text or "" for text in code.values())
        path.parent.mkdir(parents=True, exist_ok=True)

    def recall(self) -> dict[tuple[str, str], Verdict]:
        """Verdicts that hold, by module and digest of the faulty source."""
        held: dict[tuple[str, str], Verdict] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                kept = json.loads(line)
                verdict = Verdict(kept["outcome"], kept["by"], kept["seconds"])
                if kept["context"] == self._context(verdict):
                    held[kept["module"], kept["digest"]] = verdict
        return held

    def keep(self, mutant: Mutant, verdict: Verdict) -> None:
        """Add one verdict, at once."""
        entry = {"module": mutant.module, "digest": mutant.digest, "context": self._context(verdict), **asdict(verdict)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _context(self, verdict: Verdict) -> str:
        by = verdict.by.split("::")[0]
        return _hash([self._code, *([self._files[by]] if by in self._files else self._files.values())])


@dataclass(frozen=True)
class Judged:
    """A mutant and what became of it: ``killed``, ``timeout``, ``equivalent`` or ``survived``."""

    mutant: Mutant
    outcome: str
    reason: str = ""


def classify(verdicts: Iterable[tuple[Mutant, Verdict]], declared: Mapping[Key, str]) -> list[Judged]:
    """Survivors that are declared equivalent are told apart from those that are not."""
    return [
        Judged(mutant, "equivalent", declared[mutant.key])
        if verdict.outcome == "survived" and mutant.key in declared
        else Judged(mutant, verdict.outcome)
        for mutant, verdict in verdicts
    ]


def stale(judged: Iterable[Judged], declared: Mapping[Key, str], modules: Iterable[str]) -> Iterator[str]:
    """Declarations about `modules` that do not hold: the mutant is noticed by a test, or there is none."""
    outcomes: dict[Key, set[str]] = {}
    for one in judged:
        outcomes.setdefault(one.mutant.key, set()).add(one.outcome)
    for key in declared:
        if key[0] in modules and "equivalent" not in outcomes.get(key, set()):
            why = "is noticed by a test" if key in outcomes else "is no longer made"
            place = f"{key[0]}, {key[1] or 'module level'}"
            yield f"{place}: `{key[2]}` -> `{key[3]}` {why}; delete it from equivalent.toml"


def summary(judged: list[Judged], left_out: Counter[str], source: str) -> dict[str, Any]:
    """The entry of one module in the result file."""
    counts: dict[str, Counter[str]] = {}
    for one in judged:
        counts.setdefault(one.mutant.family, Counter())[one.outcome] += 1
    listed = [
        {
            "outcome": one.outcome, "function": one.mutant.function, "before": one.mutant.before,
            "after": one.mutant.after, "reason": one.reason,
        }
        for one in judged
        if one.outcome != "killed"
    ]  # fmt: skip
    return {
        "sha256": hashlib.sha256(source.encode()).hexdigest(),
        "counts": {family: dict(sorted(counts[family].items())) for family in FAMILIES if family in counts},
        "left_out": dict(sorted(left_out.items())),
        "listed": listed,
    }


def table(result: Mapping[str, Any]) -> str:
    """The committed table, in Markdown."""
    modules: Mapping[str, Any] = result["modules"]
    families = [f for f in FAMILIES if any(f in entry["counts"] for entry in modules.values())]
    outcomes = ["killed", "timeout", "equivalent", "survived"]
    by_module = [
        [f"`{name}`", *(_cell(entry["counts"].get(family, {})) for family in families)]
        + [str(n) for n in _totals([entry], outcomes)]
        for name, entry in modules.items()
    ]
    total = _totals(modules.values(), outcomes)
    by_family = [_cell(_added(entry["counts"].get(family, {}) for entry in modules.values())) for family in families]
    head = ["module", *families, "**mutants**", *(f"**{name}**" for name in outcomes)]
    lines = [
        "# Mutants",
        "",
        "Written by `make mutate`. Each cell counts the mutants that a test noticed; `+ n` are equivalent: they cannot",
        "change a result, for the reasons below. **n alive** would be a missing test.",
        "",
        *_grid(head, [*by_module, ["all", *by_family, *(str(n) for n in total)]]),
        "",
        *(f"- **{family}**: {FAMILIES[family]}" for family in families),
        "",
        "Left alone by rule:",
        "",
    ]
    left_out = Counter[str]()
    for entry in modules.values():
        left_out.update(entry["left_out"])
    lines += [f"- {left_out[rule]} in {text}" for rule, text in RULES.items() if left_out[rule]]
    for outcome, title in (("survived", "Survivors"), ("equivalent", "Equivalent mutants"), ("timeout", "Timeouts")):
        if total[1 + outcomes.index(outcome)]:
            lines += ["", f"## {title}", "", *_listed(modules, outcome)]
    return "\n".join(lines) + "\n"


def _listed(modules: Mapping[str, Any], outcome: str) -> Iterator[str]:
    """One group a reason: the reason, then the mutants it covers."""
    for name, entry in modules.items():
        groups: dict[tuple[str, str], list[str]] = {}
        for one in entry["listed"]:
            if one["outcome"] == outcome:
                groups.setdefault((one["function"], one["reason"]), []).append(
                    f"  - `{one['before']}`<br>`{one['after']}`"
                )
        for (function, reason), mutants in groups.items():
            yield f"- `{name}`, `{function or 'module level'}`{': ' + reason if reason else ''}"
            yield from mutants


def _cell(counts: Mapping[str, int]) -> str:
    noticed = counts.get("killed", 0) + counts.get("timeout", 0)
    same, alive = counts.get("equivalent", 0), counts.get("survived", 0)
    return f"{noticed}{f' + {same}' if same else ''}{f' **{alive} alive**' if alive else ''}" if counts else ""


def _added(many: Iterable[Mapping[str, int]]) -> Counter[str]:
    total = Counter[str]()
    for counts in many:
        total.update(counts)
    return total


def _totals(entries: Iterable[Mapping[str, Any]], outcomes: list[str]) -> list[int]:
    counts = _added(c for entry in entries for c in entry["counts"].values())
    return [sum(counts.values()), *(counts[name] for name in outcomes)]


def _grid(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" + "|--:" * (len(head) - 1) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
