"""The roofline of a machine with every kernel in it: what `bench.kernels` measured, as an SVG."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.canvas import LIGHT, Json, Theme, svg_of

MARKS = {"gradient": "o", "update": "s", "predict": "^", "sgd": "D", "als": "P"}


def draw(outcome: Json, theme: Theme = LIGHT) -> str:
    """One panel a K, for float32 on all threads that were measured."""
    return svg_of(_panels, "kernels", theme, outcome, height=4.6)


def share(row: Json) -> str:
    """How much of its bound a kernel reaches, and of what."""
    return f"{row['share']:.0%} of {'multiply-adds' if row['bound'] == 'flops' else row['place']}"


def _panels(figure: Figure, theme: Theme, outcome: Json) -> None:
    factors = sorted({row["n_factors"] for row in outcome["rows"]})
    n = max(row["threads"] for row in outcome["rows"])
    panels = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
    for axes, k in zip(panels, factors, strict=True):
        rows = [
            row
            for row in outcome["rows"]
            if (row["n_factors"], row["threads"], row["dtype"]) == (k, n, "float32")
        ]  # fmt: skip
        _roof(axes, theme, outcome, n)
        for number, row in enumerate(rows):
            where = row["flops_per_rating"] / row["bytes_per_rating"], row["gflops_per_s"]
            label = f"{row['kernel']}: {share(row)}"
            style = {"marker": MARKS[row["kernel"]], "color": theme.hues[number % len(theme.hues)], "linestyle": "none"}
            axes.plot(*where, markersize=8, label=label, **style)
        axes.set_title(f"K = {k}, float32, {n} thread{'s' * (n > 1)}", loc="left")
        axes.set_xlabel("flops a byte (Eq. 27)")
        axes.legend(handles=axes.lines[-len(rows) :], loc="upper center", bbox_to_anchor=(0.5, -0.2))
    panels[0].set_ylabel("GFLOP/s")
    lines = panels[0].lines[: -len(rows)]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), handlelength=1.8, columnspacing=1.2)


def _roof(axes: Axes, theme: Theme, outcome: Json, n: int) -> None:
    peak = next(p["gflops_per_s"] for p in outcome["peaks"] if (p["dtype"], p["threads"]) == ("float32", n))
    x = np.geomspace(0.02, 50, 80)
    dashes = [(0, (1, 2)), (0, (4, 2)), (0, (6, 2, 1, 2)), "-"]
    levels = [level for level in outcome["levels"] if level["threads"] == n]
    for level, dash in zip(levels, dashes[-len(levels) :], strict=False):
        rate = level["gbytes_per_s"]
        label = f"{level['place']} {rate:.0f} GB/s"
        axes.plot(x, np.minimum(peak, rate * x), color=theme.ink, linewidth=1.2, linestyle=dash, label=label)
    axes.annotate(
        f"{peak:.0f} GFLOP/s", (x[-1], peak), xytext=(-2, 3), textcoords="offset points", ha="right", fontsize=9
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(x[0], x[-1])
    axes.minorticks_off()
