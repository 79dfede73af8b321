"""What every command says its results with: consoles and tables for terminals and pipes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mf_numpy.errors import counted
from mf_numpy.ratings import Ratings

_BROKEN = ("about", "found")
_BROKEN_WIDTH = 16
_GAP = 3


def console() -> Console:
    """Where output goes: as wide as the terminal, and unbroken and without colours in a pipe."""
    # Made per call: tests and pipes exchange sys.stdout.
    return _console(sys.stdout)


def warn(text: str) -> None:
    """Say something beside the output."""
    _console(sys.stderr).print(text, soft_wrap=True)


def _console(file: Any) -> Console:
    return Console(file=file, highlight=False, markup=False, emoji=False, width=None if file.isatty() else 10_000)


def read(data: str, options: Mapping[str, Any]) -> Ratings:
    """The ratings of a data set's name or a file; options that are None are the reader's to choose."""
    from mf_numpy import datasets

    given = {name: value for name, value in options.items() if value is not None and value is not False}
    least = given.pop("clicks", None)
    ratings = datasets.load(data, **given)
    return ratings if least is None else ratings.clicks(least)


def facts(ratings: Ratings) -> str:
    """A data set in one line."""
    parts = [
        counted(len(ratings), "rating"),
        counted(ratings.n_users, "user"),
        counted(ratings.n_items, "item"),
        f"density {100 * ratings.density:.3g} %",
        f"mean {ratings.mean:.4f}",
    ]
    if ratings.scale is not None:
        parts.append(f"scale {ratings.scale[0]:g} to {ratings.scale[1]:g}")
    if ratings.notes.get("not_rated"):
        parts.append(f"{counted(ratings.notes['not_rated'], 'row')} without a rating left out")
    if ratings.notes.get("duplicates"):
        pairs = counted(ratings.notes["duplicates"], "pair")
        parts.append(f"{pairs} rated twice (policy: {ratings.notes.get('policy')})")
    if "noise_floor" in ratings.notes:
        parts.append(f"noise floor {decimals(ratings.notes['noise_floor'])}")
    return ", ".join(parts)


def decimals(number: float) -> str:
    """A rating or an error: four decimals, or four digits once it has run away."""
    return f"{number:.4f}" if abs(number) < 1e6 else f"{number:.4g}"


def table(out: Console, columns: list[str], rows: Iterable[Iterable[object]], *, text: Iterable[str] = ()) -> None:
    """Print a table; the first column and those named in `text` are set left, numbers right. A `Text` keeps its style.

    Where the terminal is too narrow, titles are cut and the columns of `_BROKEN` go on in the next line; where that
    is not enough, every cell gets a line of its own.
    """
    left = {columns[0], *text}
    cells: list[list[Any]] = [[cell if isinstance(cell, Text) else str(cell) for cell in row] for row in rows]
    widths = [max(cell_len(str(line[at])) for line in [columns, *cells]) for at in range(len(columns))]
    least = {"title": len("title"), **dict.fromkeys(_BROKEN, _BROKEN_WIDTH)}
    needed = [min(width, least.get(name, width)) for name, width in zip(columns, widths, strict=True)]
    # Rich would take the room that is missing from all columns alike, numbers too.
    if sum(needed) + _GAP * (len(columns) - 1) > out.width:
        _cell_by_cell(out, columns, cells)
        return
    if "title" in columns:
        at = columns.index("title")
        room = max(out.width - sum(widths) - _GAP * (len(columns) - 1) + widths[at], len("title"))
        for line in cells:
            title = str(line[at])
            line[at] = title if cell_len(title) <= room else set_cell_size(title, room - 1) + "…"
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        grid.add_column(name, justify="left" if name in left else "right", no_wrap=name not in _BROKEN, overflow="fold")
    for row in cells:
        grid.add_row(*row)
    out.print(grid)


def _cell_by_cell(out: Console, columns: list[str], cells: list[list[Any]]) -> None:
    for row in cells:
        for at, (name, cell) in enumerate(zip(columns, row, strict=True)):
            lead = f"{name}: " if name else ""
            out.print(Text.assemble("" if at == 0 else "  ", lead, cell), overflow="fold")


def frame(out: Console, data: Any, *, text: Iterable[str] = ()) -> None:
    """Print a table of pandas."""
    shown = pd.DataFrame(data)
    table(out, [str(name) for name in shown.columns], shown.itertuples(index=False), text=text)
