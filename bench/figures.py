"""The report's figures as inline SVG: the same result gives the same bytes, and both colour schemes can be read.

Text and axes are drawn in colours that stand for CSS: ``currentColor`` and the page's ``--grid``.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bench import roof_figure
from bench.canvas import Theme, rounded

Json = dict[str, Any]
Draw = Callable[[Axes], None]

INK, GRID = "#010203", "#040506"
HUES = ("#3f88d8", "#dd7f1f", "#2fa36f", "#c9508f")
COLOURS = {"loops": "#8b8f98", "numpy": "#3f88d8", "numba": "#dd7f1f", "torch": "#c9508f", "cuda": "#2fa36f"}
THEME = Theme("report", INK, INK, GRID, "#ffffff", HUES)
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class Picture:
    """A figure on the page: its heading, its text description, and the SVG element."""

    title: str
    about: str
    svg: str


def pictures(result: Json) -> list[Picture]:
    """The figures that the result has data for."""
    full = [row for row in result["rows"] if row["problem"] == "full" and row["history"]]
    made = []
    if full:
        made.append(_learning(result, full))
    timed = [row for row in result["rows"] if row["timing"]]
    if timed:
        made.append(_rates(timed))
    drifting = [row for row in full if row["difference"] and not _is_reference(row)]
    if drifting:
        made.append(_drift(drifting))
    if any(record["valid_rmse"] is not None for row in full for record in row["history"]):
        made.append(_quickness(full))
    if result.get("roofline"):
        made.append(roofline(result["roofline"]))
    return made


def _learning(result: Json, rows: list[Json]) -> Picture:
    shown = [row for row in rows if row["dtype"] == "float64"] or rows
    data, baselines = result["data"], result["baselines"]
    lines = [("mean", baselines["mean"]["rmse"]), ("bias-only", baselines["bias-only"]["rmse"])]
    lines += [("noise floor", data["noise_floor"])]
    known = [(name, value) for name, value in lines if value is not None]

    def draw(axes: Axes) -> None:
        # Widest first: a curve that lies on another one stays visible as a core inside it.
        for width, row in zip(np.linspace(7.0, 1.4, len(shown)) if len(shown) > 1 else [2.0], shown, strict=True):
            epochs = [r["epoch"] for r in row["history"]]
            colour = COLOURS[_kind(row)]
            for side, dash in (("valid_rmse", "-"), ("train_rmse", (0, (4, 2)))):
                values = [math.nan if r[side] is None else r[side] for r in row["history"]]
                alpha = 0.5 if width > 2 else 1.0
                axes.plot(epochs, values, color=colour, linestyle=dash, linewidth=width, alpha=alpha)
            axes.plot([], [], color=colour, linewidth=width, alpha=alpha, label=_name(row))
        axes.plot([], [], color=INK, linestyle="-", linewidth=1.4, label="validation")
        axes.plot([], [], color=INK, linestyle=(0, (4, 2)), linewidth=1.4, label="training")
        last = max(len(row["history"]) for row in shown)
        for name, value in known:
            axes.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
            # Curves start high and end low: the floor's label has room on the left, the others' on the right.
            left = name == "noise floor"
            axes.annotate(
                f"{name} {value:.4f}", (1 if left else last, value), ha="left" if left else "right", va="bottom",
                fontsize=9, xytext=(0, 2), textcoords="offset points",
            )  # fmt: skip
        seen = [r[s] for row in shown for r in row["history"] for s in ("valid_rmse", "train_rmse") if r[s] is not None]
        low, high = min(seen + [v for _, v in known]), max(seen + [v for _, v in known])
        axes.set_ylim(low - 0.06 * (high - low), high + 0.12 * (high - low))
        axes.set_xlabel("epoch")
        axes.set_ylabel("RMSE")

    names = ", ".join(_name(row) for row in shown)
    finals = ", ".join(f"{_name(row)} {_number(row['final']['valid_rmse'])}" for row in shown if row["final"])
    about = (
        f"RMSE against epoch of {names}, in {shown[0]['dtype']}. "
        "Equal curves lie on each other: the wide ones are drawn "
        f"first. Final validation RMSE: {finals}; {', '.join(f'{name} {value:.4f}' for name, value in known)}."
    )
    return picture("Learning curves, by hand and by autograd", about, draw, "learning")


def _rates(rows: list[Json]) -> Picture:
    names = [f"{_name(row)}{', slice' if row['problem'] == 'slice' else ''} · {row['dtype']}" for row in rows]

    def draw(axes: Axes) -> None:
        places = np.arange(len(rows))[::-1]
        for place, row in zip(places, rows, strict=True):
            timing = row["timing"]
            rate, n = timing["ratings_per_s"], row["n_ratings"]
            spread = [[rate - n / timing["q3_ms"] * 1e3], [n / timing["q1_ms"] * 1e3 - rate]]
            axes.barh(
                place, rate, height=0.68, color=COLOURS[_kind(row)], alpha=1.0 if row["dtype"] == "float64" else 0.65,
                xerr=np.maximum(spread, 0.0), error_kw={"ecolor": INK, "elinewidth": 1.0, "capsize": 2},
            )  # fmt: skip
            axes.annotate(
                _rate(rate), (rate + spread[1][0], place), xytext=(5, 0), textcoords="offset points", va="center"
            )
        rates = [row["timing"]["ratings_per_s"] for row in rows]
        axes.set_xscale("log")
        axes.set_xlim(10 ** math.floor(math.log10(min(rates) * 0.5)), max(rates) * 8)
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("ratings/s, log scale; whiskers: middle half")

    about = "Ratings a second at the median iteration: " + "; ".join(
        f"{name} {_rate(row['timing']['ratings_per_s'])}" for name, row in zip(names, rows, strict=True)
    )
    return picture("Ratings a second", about + ".", draw, "rates", height=1.3 + 0.27 * len(rows))


def _drift(rows: list[Json]) -> Picture:
    def draw(axes: Axes) -> None:
        for row in rows:
            steps = [(step["epoch"], step["params"]) for step in row["difference"]["steps"] if step["params"]]
            dash = "-" if row["dtype"] == "float64" else (0, (4, 2))
            axes.plot(
                [e for e, _ in steps], [d for _, d in steps], color=COLOURS[_kind(row)], linestyle=dash, linewidth=1.8,
                marker="o", markersize=3.2, label=f"{_name(row)} · {row['dtype']}",
            )  # fmt: skip
        bounds = {row["dtype"]: row["difference"].get("bound") for row in rows}
        for dtype, limit in bounds.items():
            if limit:
                axes.axhline(limit, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
                label = f"allowed in {dtype}"
                axes.annotate(label, (1, limit), va="bottom", fontsize=9, xytext=(0, 2), textcoords="offset points")
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * 10)
        axes.set_xscale("log")
        axes.set_xlabel("step (log scale)")
        axes.set_ylabel("relative difference")

    about = "Largest relative difference of the parameters from float64 NumPy, against the step. At the last step: "
    about += "; ".join(f"{_name(r)} {r['dtype']} {_number(r['difference']['params'], '.1e')}" for r in rows)
    return picture("Drift from the reference", about + ".", draw, "drift")


def _quickness(rows: list[Json]) -> Picture:
    """Validation RMSE against the seconds of training that it took, of every backend and dtype."""
    curves = {}
    for row in rows:
        seconds = np.cumsum([record["seconds"] for record in row["history"]])
        points = zip(seconds.tolist(), (record["valid_rmse"] for record in row["history"]), strict=True)
        curves[f"{_name(row)} · {row['dtype']}"] = [(s, rmse) for s, rmse in points if rmse is not None]
    best = pareto([point for curve in curves.values() for point in curve])

    def draw(axes: Axes) -> None:
        for row, (name, curve) in zip(rows, curves.items(), strict=True):
            dash = "-" if row["dtype"] == "float64" else (0, (4, 2))
            axes.plot(*zip(*curve, strict=True), color=COLOURS[_kind(row)], linestyle=dash, linewidth=1.6, label=name)
        front(axes, best)
        axes.set_xscale("log")
        axes.set_xlabel("seconds of training, log scale")
        axes.set_ylabel("validation RMSE")

    about = (
        "Validation RMSE against the seconds of training that it took. The wide band is what no other backend reaches "
        f"as soon (the Pareto front). {_number(best[-1][1])} is reached after "
        + "; ".join(f"{_reached(curve, best[-1][1])} by {name}" for name, curve in curves.items())
        + "."
    )
    return picture("RMSE against seconds", about, draw, "quickness")


def _reached(curve: list[tuple[float, float]], rmse: float) -> str:
    # The last digits of an RMSE differ with the order of sums.
    seconds = next((s for s, here in curve if here <= rmse + 1e-4), None)
    return "no time" if seconds is None else f"{seconds:.3g} s"


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both numbers, by the first."""
    out: list[tuple[float, float]] = []
    for point in sorted(points):
        if not out or point[1] < out[-1][1]:
            out.append(point)
    return out


def front(axes: Axes, points: list[tuple[float, float]]) -> None:
    """The points of a Pareto front as a band behind the curves that it touches."""
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, color=INK, linewidth=6.0, alpha=0.25, drawstyle="steps-post", zorder=1.5, label="Pareto front")


def roofline(found: Json) -> Picture:
    """Every kernel beside the lines of the machine, as `bench.kernels` measured them."""
    n = max(row["threads"] for row in found["rows"])
    rows = [row for row in found["rows"] if (row["threads"], row["dtype"]) == (n, "float32")]
    about = (
        "GFLOP/s of each kernel against its operations a byte, beside what this machine's caches, memory and "
        f"multiply-adds allow; float32, {n} thread{'s' * (n > 1)}. Share of the bound that each reaches: "
    )
    about += "; ".join(f"{row['kernel']} {roof_figure.share(row)}" for row in rows) + "."
    if (found["others_busy_cores"] or 0.0) > 0.25:
        about += f" Others kept {found['others_busy_cores']:.2f} cores busy meanwhile: not to be trusted."
    return of_svg("Roofline", about, roof_figure.draw(found, THEME), "roofline")


def picture(
    title: str, about: str, draw: Draw, key: str, *, height: float = 3.6, finish: Draw | None = None, columns: int = 3
) -> Picture:
    """A figure that `draw` fills the axes of; `key` sets its ids apart from those of others on the page.

    Args:
        finish: what can be drawn only where the axes are laid out.
        columns: of the legend at most, where its labels have room for as many.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": f"mf-bench {key}"}):
        figure = Figure(figsize=(5.6, height))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes)
        if axes.get_legend_handles_labels()[0]:
            for n in range(columns, 0, -1):
                legend = figure.legend(loc="outside lower left", ncols=n, handlelength=1.8, columnspacing=1.2)
                if n == 1 or legend.get_window_extent().width < figure.bbox.width:
                    break
                legend.remove()
        figure.set_layout_engine("constrained")
        if finish:
            figure.draw_without_rendering()
            finish(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Picture(title, about, _inline(buffer.getvalue(), key, title, about))


def _inline(svg: str, key: str, title: str, about: str) -> str:
    """The SVG element alone: as wide as its box, ids of its own, colours left to the page, described for a reader."""
    svg = _set_apart(_slim(rounded(svg[svg.index("<svg") :])), key)
    head = re.search(r"<svg[^>]*>", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert head is not None and box is not None
    svg = svg.replace(INK, "currentColor").replace(GRID, "var(--grid)")
    named = f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-about">{escape(about)}</desc>'
    opening = (
        f'<svg role="img" aria-labelledby="{key}-title {key}-about" {box.group()} xmlns="http://www.w3.org/2000/svg"'
    )
    opening += ' xmlns:xlink="http://www.w3.org/1999/xlink">'
    return opening + named + re.sub(r"^<svg[^>]*>", "", svg).strip()


def _slim(svg: str) -> str:
    """The same without what no reader sees: comments, line breaks, turns by nothing, ids that nothing refers to."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    return re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", svg)


def of_svg(title: str, about: str, svg: str, key: str) -> Picture:
    """A figure of an SVG that is drawn already, in the colours `INK` and `GRID`."""
    return Picture(title, about, _inline(svg, key, title, about))


def apart(made: Picture, key: str) -> Picture:
    """The same figure with other ids, for a page on which it may stand twice."""
    svg = re.sub(r'(aria-labelledby=")(\S+) (\S+)"', rf'\g<1>{key}-\g<2> {key}-\g<3>"', made.svg)
    return replace(made, svg=_set_apart(svg, key))


def _set_apart(svg: str, key: str) -> str:
    svg = re.sub(r'\bid="', f'id="{key}-', svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", svg)


def _kind(row: Json) -> str:
    return "cuda" if row["device"] == "cuda" else str(row["backend"])


def _name(row: Json) -> str:
    place = " on CUDA" if row["device"] == "cuda" else ""
    return f"{row['backend']}{place}"


def _is_reference(row: Json) -> bool:
    return (row["backend"], row["dtype"]) == ("numpy", "float64")


def _rate(value: float) -> str:
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value / 1e3:.3g} k"


def _number(value: float | None, form: str = ".4f") -> str:
    return "unknown" if value is None else format(value, form)
