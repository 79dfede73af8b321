"""The tour's figures as inline SVG. Ink is the page's own colour, so that they read on light and on dark."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from mf_numpy.ratings import Array
from mf_numpy.result import FitResult
from mf_numpy.tour_experiments import OneRating, Path, TitleMap

_INK, _GRID = "#010203", "#040506"
BLUE, ORANGE, PINK, GREEN, GREY = "#3f88d8", "#dd7f1f", "#c9508f", "#2fa36f", "#8b8f98"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def side_by_side(*figures: str) -> str:
    """Figures in a row where the page is wide enough, below each other where it is not."""
    inner = "".join(f"<div>{figure}</div>" for figure in figures)
    columns = "repeat(auto-fit, minmax(min(100%, 22rem), 1fr))"
    return f'<div style="display: grid; grid-template-columns: {columns}; gap: 1rem">{inner}</div>'


def picture(about: str, draw: Callable[[Axes], None], *, size: tuple[float, float] = (5.0, 3.5)) -> str:
    """One figure as an SVG element that fills its column; `about` is what a screen reader says."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": about}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # type: ignore[no-untyped-call]
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor").replace(_GRID, "rgb(128 128 128 / 30%)")
    head, _, rest = svg.partition(">")
    view = head[head.index("viewBox=") :].split('"')[1]
    width = size[0] * 96 * 1.35
    opening = (
        f'<svg viewBox="{view}" role="img" aria-label="{escape(about)}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" style="width: 100%; max-width: {width:.0f}px; height: auto">'
    )
    return opening + rest


def learning(hand: FitResult, autograd: FitResult) -> str:
    """J by epoch (Eq. 2): the hand-written version as a wide line, autograd as a dashed one on top."""

    def draw(axes: Axes) -> None:
        _both(axes, hand, autograd, lambda record: record.objective)
        axes.set_ylabel("objective J (rating²)")
        first = hand.history[0].objective if hand.history else 1.0
        axes.set_ylim(0, 1.08 * min(max((r.objective for r in hand.history), default=1.0), 3 * first))
        axes.legend(loc="upper right")

    return picture("objective by epoch, by hand and by autograd", draw)


def held_out(hand: FitResult, autograd: FitResult, levels: Mapping[str, float]) -> str:
    """RMSE on held-out ratings by epoch, with levels to beat and to reach."""

    def draw(axes: Axes) -> None:
        _both(axes, hand, autograd, lambda record: record.valid_rmse)
        top = max(levels.values())
        for name, level in levels.items():
            axes.axhline(level, color=GREY, linewidth=1.2)
            side = "top" if name == "bias-only" else "bottom"
            axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va=side)
        axes.set_ylabel("held-out RMSE (rating)")
        axes.set_ylim(0, 1.35 * top)

    return picture("held-out RMSE by epoch, by hand and by autograd", draw)


def _both(axes: Axes, hand: FitResult, autograd: FitResult, value: Callable[[Any], float | None]) -> None:
    runs = ((hand, 7.0, BLUE, "-", "by hand"), (autograd, 2.0, ORANGE, (0, (3, 2)), "by autograd"))
    for result, width, colour, dash, name in runs:
        epochs = [record.epoch for record in result.history]
        values = [np.nan if (y := value(record)) is None else y for record in result.history]
        axes.plot(epochs, values, color=colour, linewidth=width, linestyle=dash, label=name, solid_capstyle="round")
    axes.set_xlabel("epoch (passes over the ratings)")
    axes.set_xlim(0, max(hand.config.n_epochs, 1))


def difference(differences: Array, n_steps: int, allowed: float) -> str:
    """The largest relative difference of the two versions after each step, on a log axis."""

    def draw(axes: Axes) -> None:
        # A difference of 0 has no place on a log axis; it stands at the axis' foot.
        axes.semilogy(np.arange(1, len(differences) + 1), np.maximum(differences, 1e-18), color=PINK, linewidth=2)
        axes.axhline(allowed, color=GREY, linewidth=1.2)
        axes.annotate(
            f"allowed: {allowed:g}", (1, allowed), xycoords=("axes fraction", "data"), ha="right", va="bottom"
        )
        axes.set_xlim(0, max(n_steps, 1))
        axes.set_ylim(1e-18, 1e-8)
        axes.set_xlabel("step")
        axes.set_ylabel("largest relative difference")

    return picture("largest relative difference of the two versions by step", draw)


def one_rating(seen: OneRating) -> str:
    """The factors of one user and one item as arrows, and the step that each takes along the other (Eq. 6)."""

    def draw(axes: Axes) -> None:
        ends = np.stack([seen.p, seen.q, seen.p + seen.step_p, seen.q + seen.step_q])
        reach = max(3.0, math.ceil(1.15 * float(np.abs(ends).max())))
        for name, at, step, along, colour in (
            ("p", seen.p, seen.step_p, seen.q, BLUE), ("q", seen.q, seen.step_q, seen.p, ORANGE),
        ):  # fmt: skip
            if along.any():
                unit = along / np.linalg.norm(along)
                line = np.stack([at - 4 * reach * unit, at + 4 * reach * unit])
                axes.plot(*line.T, color=colour, linewidth=0.8, linestyle=":")
            _arrow(axes, np.zeros(2), at + step, colour, 1.4, (0, (4, 3)))
            _arrow(axes, np.zeros(2), at, colour, 2.6, "-")
            _arrow(axes, at, at + step, GREEN, 2.6, "-")
            _name(axes, at, -step, name, colour, reach)
            if np.linalg.norm(step) > 0.06 * reach:
                _name(axes, at + step, at + step, f"{name}′", colour, reach)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach)
        axes.set_aspect("equal")
        axes.set_xlabel("factor 1 (√rating)")
        axes.set_ylabel("factor 2 (√rating)")

    return picture("factors of one user and one item, before and after a step", draw, size=(4.6, 4.4))


def _arrow(axes: Axes, tail: Array, head: Array, colour: str, width: float, dash: Any) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "linestyle": dash, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", tuple(head), tuple(tail), arrowprops={**style, "mutation_scale": 14})


def _name(axes: Axes, at: Array, towards: Array, text: str, colour: str, reach: float) -> None:
    """Write a name beside the tip of an arrow, a little off in the given direction."""
    x, y = at + 0.1 * reach * towards / (np.linalg.norm(towards) or 1.0)
    axes.text(x, y, text, color=colour, ha="center", va="center", fontsize=13, fontweight="bold")


RULE_COLOURS = (GREY, BLUE, ORANGE, PINK)


def paths(taken: Mapping[str, Path], grid: tuple[Array, Array], minimum: float, extent: float) -> str:
    """Where each rule goes on the surface J(p, q), drawn as lines of equal height."""
    axis, height = grid

    def draw(axes: Axes) -> None:
        levels = np.geomspace(max(height.min(), 1e-3) * 1.2, height.max(), 12)
        axes.contour(axis, axis, height, levels=levels, colors=[GREY], linewidths=0.7)
        for colour, (name, path) in zip(RULE_COLOURS, taken.items(), strict=True):
            axes.plot(*path.points.T, color=colour, linewidth=1.6, marker="o", markersize=3, label=name)
        axes.plot(*taken[next(iter(taken))].points[0], "o", color=_INK, markersize=7)
        for sign in (1, -1) if minimum else (0,):
            axes.plot(sign * minimum, sign * minimum, "*", color=GREEN, markersize=13)
        axes.set_xlim(-extent, extent)
        axes.set_ylim(-extent, extent)
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.set_xlabel("p (√rating)")
        axes.set_ylabel("q (√rating)")

    return picture("paths of four update rules on the surface J(p, q)", draw, size=(4.6, 4.4))


def descent(taken: Mapping[str, Path], least: float, n_steps: int) -> str:
    """How far above its least value J is after each step, on a log axis."""

    def draw(axes: Axes) -> None:
        above = {name: np.maximum(path.loss - least, 1e-14) for name, path in taken.items()}
        for colour, (name, heights) in zip(RULE_COLOURS, above.items(), strict=True):
            axes.semilogy(heights, color=colour, linewidth=2, label=name)
        axes.set_xlim(0, n_steps)
        axes.set_ylim(min(h.min() for h in above.values()) / 30, min(max(h.max() for h in above.values()), 1e6) * 3)
        axes.set_xlabel("step")
        axes.set_ylabel("J above its least value (rating²)")
        axes.legend(loc="lower left")

    return picture("objective above its least value by step, for four update rules", draw, size=(4.6, 4.4))


_TOP, _FOOT = 1e12, 1e-7


def cliff(fractions: Array, ends: Array, chosen: tuple[float, float], n_steps: int) -> str:
    """How far from the minimum a small push has gone after `n_steps`, against η over its bound (Eq. 21)."""

    def draw(axes: Axes) -> None:
        gone = ~np.isfinite(ends)
        axes.semilogy(fractions, np.clip(ends, _FOOT, _TOP), color=BLUE, linewidth=2)
        axes.semilogy(fractions[gone], np.full(gone.sum(), _TOP), "^", color=PINK, markersize=6, label="past 10¹²")
        axes.semilogy(chosen[0], np.clip(chosen[1], _FOOT, _TOP), "o", color=ORANGE, markersize=10, label="chosen η")
        axes.axvline(1, color=GREEN, linewidth=2, label="bound of Eq. 21")
        axes.axhline(1, color=GREY, linewidth=1.2)
        axes.set_ylim(_FOOT / 10, _TOP * 30)
        axes.set_xlabel("η / bound")
        axes.set_ylabel(f"distance after {n_steps} steps / at the start")
        axes.legend(loc="upper left")

    return picture("distance from the minimum against the learning rate over its bound", draw)


def departure(distances: Array, fraction: float) -> str:
    """The distance from the minimum after each step, for one η."""

    def draw(axes: Axes) -> None:
        axes.semilogy(np.clip(distances, _FOOT, _TOP), color=ORANGE, linewidth=2, label=f"η = {fraction:g} · bound")
        axes.axhline(1, color=GREY, linewidth=1.2)
        axes.set_ylim(_FOOT / 10, _TOP * 30)
        axes.set_xlim(0, len(distances) - 1)
        axes.set_xlabel("step")
        axes.set_ylabel("distance / at the start")
        axes.legend(loc="upper left")

    return picture("distance from the minimum by step", draw)


def titles(drawn: TitleMap) -> str:
    """The items with the most ratings at the place that their two factors give them."""

    def draw(axes: Axes) -> None:
        x, y = drawn.places.T
        axes.axhline(0, color=GREY, linewidth=1)
        axes.axvline(0, color=GREY, linewidth=1)
        axes.plot(x, y, "o", color=BLUE, markersize=5)
        axes.margins(0.14, 0.08)
        axes.set_xlabel("axis 1: item factor (√rating)")
        axes.set_ylabel("axis 2: item factor (√rating)")
        _label(axes, drawn.places, [_short(title) for title in drawn.titles])

    svg = picture("items placed by two factors", draw, size=(9.0, 6.6))
    # Thirty titles need their room: a narrow page scrolls this one sideways.
    return f'<div style="overflow-x: auto"><div style="min-width: 46rem">{svg}</div></div>'


def _short(title: str, most: int = 36) -> str:
    return title if len(title) <= most else title[: most - 1].rstrip() + "…"


def _label(axes: Axes, places: Array, names: Sequence[str]) -> None:
    """Write each name beside its point, where it meets no other name and no point; a thin line leads to it."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    per_point = figure.dpi / 72
    points = axes.transData.transform(places)
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in points]
    frame = axes.get_window_extent()
    for (x, y), place, name in zip(points, places, names, strict=True):
        probe = axes.text(0, 0, name, fontsize=9)
        size = probe.get_window_extent(renderer)
        probe.remove()
        free = _free_place(x, y, size.width, size.height, taken, frame)
        taken.append(free)
        centre = ((free.x0 + free.x1) / 2 - x) / per_point, ((free.y0 + free.y1) / 2 - y) / per_point
        far = math.hypot(max(free.x0 - x, 0, x - free.x1), max(free.y0 - y, 0, y - free.y1)) > 12
        leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            name, tuple(place), xytext=centre, textcoords="offset points", ha="center", va="center", fontsize=9,
            arrowprops=leader if far else None,
        )  # fmt: skip


def _free_place(x: float, y: float, width: float, height: float, taken: Sequence[Bbox], frame: Bbox) -> Bbox:
    """The nearest of the places around a point that meets the least of what is there."""
    best, least = Bbox.from_bounds(x, y, width, height), math.inf
    for distance in (7, 14, 24, 36, 50, 66, 84):
        for angle in np.deg2rad([0, 180, 90, 270, 30, 150, 210, 330, 60, 120, 240, 300]):
            middle_x = x + np.cos(angle) * (distance + width / 2)
            middle_y = y + np.sin(angle) * (distance + height / 2)
            box = Bbox.from_bounds(middle_x - width / 2, middle_y - height / 2, width, height)
            outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
            cost = sum(_common(box, other) for other in taken) + (1e6 if outside else 0)
            if cost < least:
                best, least = box, cost
            if not cost:
                return box
    return best


def _common(a: Bbox, b: Bbox) -> float:
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return width * height if width > 0 and height > 0 else 0.0
