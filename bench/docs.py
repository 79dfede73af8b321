"""Fills in what the documents show but do not say: measured tables, figures, and the blocks that two languages share.

In a Markdown file

    <!-- measured: NAME -->        a table of `bench.tables`, from the committed measurement
    <!-- figure: NAME -->          a figure of `bench.drawings` for light and dark pages, with its alt text

stand before the text that is filled in and ``<!-- end -->`` after it. A file ``X.zh.md`` is in Chinese; its n-th
Python block and its n-th display equation are those of ``X.md``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import tables
from bench.machine import ROOT
from bench.result import write_atomically
from mf_numpy.errors import choose

Json = dict[str, Any]

FILES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/performance.md",
    "mf_numpy/derivation.md",
    "mf_numpy/derivation.zh.md",
    "mf_torch/README.md",
)
FIGURES = ROOT / "docs" / "figures"
KINDS = ("measured", "figure")

_MARK = re.compile(r"^<!-- *(?P<kind>\w+)(?:: *(?P<name>[^ ]*))? *-->$", re.MULTILINE)
_SHARED = {
    "Python block": re.compile(r"^```python\n.*?^```$", re.MULTILINE | re.DOTALL),
    "display equation": re.compile(r"^\$\$.*?\$\$$", re.MULTILINE | re.DOTALL),
}


class DocumentError(ValueError):
    """A document that cannot be filled in: an unknown mark, one without an end, or blocks that do not pair up."""


def documents(root: Path = ROOT) -> list[Path]:
    """The documents that are there."""
    return [root / name for name in FILES if (root / name).exists()]


def stale(outcome: Json, paths: Sequence[Path], figures: Path = FIGURES) -> list[str]:
    """Every place where a document differs from what it would be filled with: ``file:line: what``.

    Raises:
        DocumentError: as `filled`.
    """
    found = []
    for path, wanted in filled(outcome, paths, figures).items():
        now = path.read_text(encoding="utf-8")
        for (what, begin, text), (_, _, other) in zip(_places(now, path), _places(wanted, path), strict=True):
            if text != other:
                found.append(f"{path.name}:{now.count(chr(10), 0, begin) + 1}: {what} is stale; run make docs")
    return found


def update(outcome: Json, paths: Sequence[Path], figures: Path = FIGURES) -> list[Path]:
    """Write the documents that change; returns them.

    Raises:
        DocumentError: as `filled`; then nothing was written.
    """
    texts = filled(outcome, paths, figures)
    changed = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        write_atomically(path, texts[path])
    return changed


def filled(outcome: Json, paths: Sequence[Path], figures: Path = FIGURES) -> dict[Path, str]:
    """The text that each document should have.

    Args:
        outcome: what `bench.rungs` wrote.
        paths: Markdown files.
        figures: folder of the figures.

    Raises:
        DocumentError: a mark that is unknown or has no end, or a translation with another number of blocks.
    """
    out = {}
    for path in paths:
        lang = "zh" if path.name.endswith(".zh.md") else "en"
        text = path.read_text(encoding="utf-8")
        if lang == "zh":
            source = path.with_name(path.name.removesuffix(".zh.md") + ".md")
            text = _shared(text, source.read_text(encoding="utf-8"), path.name, source.name)
        out[path] = _fill(text, path, outcome, lang, figures)
    return out


def marks(text: str, name: str) -> Iterator[tuple[str, str, int, int]]:
    """(kind, name, begin, end) of the text between each mark and its end.

    Raises:
        DocumentError: a mark of another kind, one without an end, or an end without a mark.
    """
    open_mark: re.Match[str] | None = None
    for mark in _MARK.finditer(text):
        line = text.count("\n", 0, mark.start()) + 1
        kind = mark["kind"]
        if kind == "skip":  # sybil's
            continue
        if kind == "end":
            if open_mark is None:
                raise DocumentError(f"{name}:{line}: <!-- end --> ends nothing; put a mark before it or take it out")
            yield open_mark["kind"], open_mark["name"] or "", open_mark.end() + 1, mark.start()
            open_mark = None
            continue
        if open_mark is not None:
            raise DocumentError(f"{name}:{line}: {open_mark.group()} has no <!-- end --> before this mark")
        if kind not in KINDS:
            raise DocumentError(f"{name}:{line}: {mark.group()} is no mark; there are {', '.join(KINDS)} and end")
        open_mark = mark
    if open_mark is not None:
        raise DocumentError(f"{name}: {open_mark.group()} has no <!-- end --> after it")


def _fill(text: str, path: Path, outcome: Json, lang: str, figures: Path) -> str:
    from bench.drawings import DRAWINGS

    makers: dict[str, tuple[Any, Callable[[str], str]]] = {
        "measured": (tables.TABLES, lambda name: tables.render(name, outcome, lang)),
        "figure": (DRAWINGS, lambda name: _picture(name, DRAWINGS[name].alt[lang == "zh"], path, figures)),
    }
    parts, at = [], 0
    for kind, name, begin, end in marks(text, path.name):
        known, make = makers[kind]
        try:
            choose(kind, name, known)
        except ValueError as error:
            line = text.count("\n", 0, begin)
            raise DocumentError(f"{path.name}:{line}: {error}") from None
        parts += [text[at:begin], make(name), "\n"]
        at = end
    return "".join([*parts, text[at:]])


def _picture(name: str, alt: str, path: Path, figures: Path) -> str:
    folder = Path(os.path.relpath(figures, path.parent)).as_posix()
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{folder}/{name}-dark.svg">\n'
        f'  <img alt="{alt}" src="{folder}/{name}-light.svg" width="640">\n'
        "</picture>"
    )


def _shared(text: str, source: str, name: str, source_name: str) -> str:
    """`text` with the blocks of `source` in the places of its own."""
    for what, pattern in _SHARED.items():
        theirs, ours = pattern.findall(source), pattern.findall(text)
        if len(theirs) != len(ours):
            raise DocumentError(
                f"{name} has {len(ours)} of a {what}, but {source_name} has {len(theirs)}; each must stand in both"
            )
        given = iter(theirs)
        text = pattern.sub(lambda _, given=given: next(given), text)  # type: ignore[misc]
    return text


def _places(text: str, path: Path) -> Iterator[tuple[str, int, str]]:
    """(what, where, text) of everything in a document that is filled in."""
    for kind, name, begin, end in marks(text, path.name):
        yield f"{kind} {name}", begin, text[begin:end]
    for what, pattern in _SHARED.items():
        for number, block in enumerate(pattern.finditer(text), 1):
            yield f"{what} {number}", block.start(), block.group()
