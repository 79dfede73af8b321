"""Plots that the sections of several kinds of results share: curves on log axes, bars, and points by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.figures import HUES, INK, Picture, picture
from bench.section import digits

Json = dict[str, Any]
Points = Sequence[tuple[float, float]]

OURS = HUES[1]
OTHERS = (HUES[0], HUES[2], HUES[3], "#8a6fd1", "#a8862a", "#2aa5b5", "#8b8f98")
MARKS = "osD^vPX*"
DASHES: tuple[Any, ...] = ("-", (0, (1, 1.5)), (0, (4, 2)), (0, (6, 2, 1, 2)))
"""Of the most threads, of one, and of what lies between."""


@dataclass(frozen=True)
class Style:
    """How a name is told from the others: by colour, and without colours by its mark."""

    colour: str
    mark: str


def styles(names: Iterable[str], *, ours: str = "mf_") -> dict[str, Style]:
    """A style for each name; what begins with `ours` has the colour that is ours, if it is the first that does."""
    out: dict[str, Style] = {}
    for name in dict.fromkeys(names):
        mine = name.startswith(ours) and all(style.colour != OURS for style in out.values())
        left = len(out) - sum(style.colour == OURS for style in out.values())
        out[name] = Style(OURS if mine else OTHERS[left % len(OTHERS)], MARKS[len(out) % len(MARKS)])
    return out


@dataclass(frozen=True)
class Curve:
    """Points of a name, in order of x; `dash` tells apart what has the same name."""

    name: str
    points: Points
    dash: int = 0


def rates(rows: Sequence[Json], name: str, x: str, threads: Sequence[int] = ()) -> list[Curve]:
    """M ratings/s of each name against what `x` names, a curve for each of `threads`, where they differ."""
    out = []
    for dash, n in enumerate(threads or [None]):
        for key in dict.fromkeys(row[name] for row in rows):
            here = [row for row in rows if row[name] == key and (n is None or row["threads"] == n)]
            points = sorted((float(row[x]), row["timing"]["ratings_per_s"] / 1e6) for row in here)
            out += [Curve(key, points, dash)] if points else []
    return out


def growth(
    title: str, curves: Sequence[Curve], *, x: str, y: str, key: str, about: str, dashes: Sequence[str] = (),
    unit: str = "",
) -> Picture:  # fmt: skip
    """Curves on two log axes, with a tick at each x.

    Args:
        about: what it shows, to which the ends of each curve are added.
        dashes: what the dashes stand for, where there is more than one.
        unit: of y, in the description.
    """
    found = styles(curve.name for curve in curves)

    def draw(axes: Axes) -> None:
        for curve in curves:
            style = found[curve.name]
            axes.plot(
                *zip(*curve.points, strict=True), color=style.colour, marker=style.mark, markersize=4.5, linewidth=1.5,
                linestyle=DASHES[curve.dash % len(DASHES)], label=None if curve.dash else curve.name,
            )  # fmt: skip
        if len(dashes) > 1:
            for at, words in enumerate(dashes):
                axes.plot([], [], color=INK, linestyle=DASHES[at % len(DASHES)], linewidth=1.2, label=words)
        axes.set_xscale("log")
        at_x = sorted({x for curve in curves for x, _ in curve.points})
        axes.set_xticks(at_x, [short(x) for x in at_x])
        axes.minorticks_off()
        axes.set_yscale("log")
        log_ticks(axes.yaxis)
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return picture(title, f"{about} {told(curves, dashes, unit)}", draw, key)


def told(curves: Sequence[Curve], dashes: Sequence[str], unit: str) -> str:
    """The ends of each curve, in words."""
    parts = []
    for curve in curves:
        name = f"{curve.name}, {dashes[curve.dash]}" if len(dashes) > 1 else curve.name
        ends = [curve.points[0], curve.points[-1]][: len(curve.points)]
        parts.append(f"{name} " + " and ".join(f"{digits(y)}{unit} at {short(x)}" for x, y in ends))
    return "; ".join(parts) + "."


def bars(
    title: str, rows: Sequence[tuple[str, float, str]], *, names: Iterable[str], x: str, key: str, about: str,
    unit: str = "",
) -> Picture:  # fmt: skip
    """Horizontal bars of (words, value, one of the names, by which it is coloured), on a log axis."""
    found = styles(names)

    def draw(axes: Axes) -> None:
        places = range(len(rows))[::-1]
        for place, (_, value, of) in zip(places, rows, strict=True):
            axes.barh(place, value, height=0.68, color=found[of].colour)
            axes.annotate(digits(value), (value, place), xytext=(5, 0), textcoords="offset points", va="center")
        values = [value for _, value, _ in rows]
        axes.set_xscale("log")
        axes.set_xlim(10 ** math.floor(math.log10(min(values) * 0.7)), max(values) * 4)
        log_ticks(axes.xaxis)
        named(axes, places, [name for name, _, _ in rows])
        axes.set_xlabel(f"{x}, log scale")

    listed = "; ".join(f"{name} {digits(value)}{unit}" for name, value, _ in rows)
    return picture(title, f"{about} {listed}.", draw, key, height=1.1 + 0.27 * len(rows))


def dots(
    title: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], *, x: str, key: str, about: str,
    beside: float, log: bool = False,
) -> Picture:  # fmt: skip
    """For each name, points of (series, value), beside a line at the value that they are compared with."""
    found = styles(series for _, points in rows for series, _ in points)

    def draw(axes: Axes) -> None:
        places = range(len(rows))[::-1]
        axes.axvline(beside, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        for series, style in found.items():
            at = [(place, points) for place, (_, points) in zip(places, rows, strict=True)]
            spots = [(value, place) for place, points in at for name, value in points if name == series]
            axes.plot(
                *zip(*spots, strict=True), linestyle="none", color=style.colour, marker=style.mark, markersize=5,
                label=series,
            )  # fmt: skip
        if log:
            axes.set_xscale("log")
            log_ticks(axes.xaxis)
        named(axes, places, [name for name, _ in rows])
        axes.set_xlabel(x)

    return picture(title, about, draw, key, height=1.5 + 0.23 * len(rows))


def named(axes: Axes, places: Sequence[int], names: Sequence[str]) -> None:
    """Names instead of numbers on the y axis."""
    axes.set_yticks(places, names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def log_ticks(axis: Axis) -> None:
    """Plain numbers on a log axis, at 1, 2 and 5 where they are neither too many nor too few."""
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    if decades < 0.7:
        axis.set_major_locator(MaxNLocator(5))
    else:
        axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_locator(NullLocator())


def short(value: float) -> str:
    """A number for a tick: 0.1 M, 2,000, 16, 0.05."""
    if value >= 1e5:
        return f"{value / 1e6:g} M"
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"
