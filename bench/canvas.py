"""How a figure of the documents is made: themes for light and dark pages, a register, and an SVG that can be had again.

The same input gives the same SVG: ids are salted by the name, nothing is dated. `bench.drawings` has the figures.
"""

from __future__ import annotations

import importlib.metadata
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bench.result import write_atomically

Json = dict[str, Any]

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")

WIDTH = 5.6
"""Inches; at 10 pt this is 13 px of text in 540 px, and still 9 px on a phone."""


@dataclass(frozen=True)
class Theme:
    """Colours of a page; the hues are told apart by readers of every colour vision, and the labels do not need them.

    Attributes:
        name: ``light`` or ``dark``.
        ink, soft, grid, paper: of text, of what stands back, of lines behind, and of text on a hue.
        hues: four for curves.
    """

    name: str
    ink: str
    soft: str
    grid: str
    paper: str
    hues: tuple[str, str, str, str]


LIGHT = Theme("light", "#1f2328", "#6e7781", "#d8dee4", "#ffffff", ("#0072b2", "#d55e00", "#00795a", "#a2447f"))
DARK = Theme("dark", "#e6edf3", "#8b949e", "#343b44", "#0d1117", ("#56b4e9", "#f0883e", "#3fc79a", "#e58ac2"))
THEMES = (LIGHT, DARK)


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        draw: fills a figure; called with the figure, the theme and the measurement.
        alt: one sentence, in English and in Chinese.
        height: in inches.
    """

    draw: Callable[[Figure, Theme, Json], None]
    alt: tuple[str, str]
    height: float


DRAWINGS: dict[str, Drawing] = {}
"""By name, in the order of the documents."""

Draw = Callable[[Figure, Theme, Json], None]


def drawing(name: str, english: str, chinese: str, *, height: float = 3.4) -> Callable[[Draw], Draw]:
    """Register a figure with its alt text."""

    def register(draw: Draw) -> Draw:
        DRAWINGS[name] = Drawing(draw, (english, chinese), height)
        return draw

    return register


def svg(name: str, theme: Theme, outcome: Json) -> str:
    """The SVG file of a figure.

    Args:
        name: of `DRAWINGS`.
        outcome: what `bench.rungs` wrote.
    """
    found = DRAWINGS[name]
    return svg_of(found.draw, name, theme, outcome, height=found.height)


def svg_of(draw: Draw, name: str, theme: Theme, outcome: Json, *, height: float) -> str:
    """The SVG file of a figure that is in no register; `name` salts its ids."""
    with mpl.rc_context({**_style(theme), "svg.hashsalt": f"mf {name}"}):
        figure = _figure(draw, theme, outcome, height)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return rounded(buffer.getvalue())


def made(name: str, theme: Theme, outcome: Json) -> Figure:
    """The figure itself, drawn in the style of the theme; call it inside `svg`'s style, or for its axes alone."""
    return _figure(DRAWINGS[name].draw, theme, outcome, DRAWINGS[name].height)


def write(outcome: Json, folder: Path) -> list[Path]:
    """Draw every figure in both themes; returns the files."""
    paths = []
    for name in DRAWINGS:
        for theme in THEMES:
            path = folder / f"{name}-{theme.name}.svg"
            write_atomically(path, svg(name, theme, outcome))
            paths.append(path)
    return paths


def stale(outcome: Json, folder: Path) -> Iterator[str]:
    """Every committed figure that the code draws otherwise today, with what to do.

    One that another matplotlib drew, whose layout may be another, is left alone.
    """
    for name in DRAWINGS:
        for theme in THEMES:
            path = folder / f"{name}-{theme.name}.svg"
            if not path.exists():
                yield f"{path.name}: is missing; run make figures"
            elif drawn_here(text := path.read_text(encoding="utf-8")) and not same(text, svg(name, theme, outcome)):
                yield f"{path.name}: is stale; run make figures"


def drawn_here(svg: str) -> bool:
    """Whether the matplotlib that is installed drew an SVG file."""
    found = re.search(r"Matplotlib v([\w.]+)", svg)
    return found is None or found[1] == importlib.metadata.version("matplotlib")


def same(old: str, new: str) -> bool:
    """Whether two SVG files show the same; the last digits of a coordinate may be another machine's."""
    (text, numbers), (other, others) = _skeleton(old), _skeleton(new)
    # Points.
    return text == other and all(abs(a - b) <= 0.05 + 1e-3 * abs(b) for a, b in zip(numbers, others, strict=True))


def _skeleton(svg: str) -> tuple[str, list[float]]:
    """An SVG without its numbers, ids named by the order in which they first appear; and the numbers."""
    order: dict[str, str] = {}
    for name in re.findall(r'\bid="([^"]*)"', svg):
        order.setdefault(name, f"id{'abcdefghij'[len(order) % 10] * (1 + len(order) // 10)}")
    svg = re.sub(r'(\bid="|"#|url\(#)([^")]*)', lambda m: m[1] + order.get(m[2], m[2]), svg)
    # Colours and entities are words, whatever digits they hold.
    colours = iter(_COLOUR.findall(svg))
    text = _NUMBER.sub("0", _COLOUR.sub("COLOUR", svg)) + "".join(colours)
    return text, [float(number) for number in _NUMBER.findall(_COLOUR.sub("COLOUR", svg))]


def _figure(draw: Draw, theme: Theme, outcome: Json, height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasSVG(figure)
    draw(figure, theme, outcome)
    return figure


def rounded(svg: str) -> str:
    """An SVG with its coordinates to a hundredth of a point."""
    return re.sub(r"<[^>]*>", _rounded, svg)


def _rounded(tag: re.Match[str]) -> str:
    """A tag with its coordinates to a hundredth of a point, finer than any screen; text between tags stays."""
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag[0])


def _style(theme: Theme) -> dict[Any, Any]:
    return {
        "svg.fonttype": "none",
        # The drawing must not depend on last digits: no point is dropped.
        "path.simplify": False,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 10,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.titlesize": 10,
        "axes.edgecolor": theme.soft,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": theme.soft,
        "ytick.color": theme.soft,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 9.5,
        "lines.linewidth": 1.8,
    }
