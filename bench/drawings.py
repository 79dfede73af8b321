"""The figures of README and derivation, registered with `bench.canvas` in the order of the documents.

A drawing takes a theme and the committed measurement and fills a figure; where it shows the model, the model's own
functions compute it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import newcomer_drawing, tables
from bench.canvas import DARK, DRAWINGS, LIGHT, THEMES, Theme, drawing, made, svg, write
from bench.rungs import FACTORS, LADDER
from mf_numpy import Config, Ratings
from mf_numpy.batch import Batch, full_batch
from mf_numpy.curvature import max_lr, row_block
from mf_numpy.gradients import gradient
from mf_numpy.model import Params, start
from mf_numpy.objective import objective
from mf_numpy.optim import update
from mf_numpy.ratings import Array

Json = dict[str, Any]

__all__ = ["DARK", "DRAWINGS", "LIGHT", "THEMES", "made", "newcomer_drawing", "svg", "write"]

SHORT = {
    "loops": "Python loops",
    "add_at": "np.add.at",
    "dense": "dense + mask",
    "csr": "SciPy sparse",
    "numba": "Numba",
    "numba_threads": "Numba, {threads} threads",
    "numba_float32": "the same, float32",
    "torch": "torch CPU, float32",
    "cuda": "torch CUDA, float32",
}
"""Names of the rungs where there is little room."""


@drawing(
    "ladder",
    "Ratings a second of each rung from Python loops to torch, on a log axis, with the ratio to the rung before.",
    "从 Python 循环到 torch，各级阶梯每秒处理的评分数（对数坐标），并标出与下一级之比。",
)
def _ladder(figure: Figure, theme: Theme, outcome: Json) -> None:
    panels = figure.subplots(1, len(FACTORS), sharey=True, sharex=True)
    source = tables.Source(outcome, "en")
    names = [SHORT[step.name].format(threads=source.threads) for step in LADDER]
    places = np.arange(len(names))[::-1]
    top = max(e["ratings_per_s"] for k in FACTORS for e in outcome["ladder"][f"K{k}"] if e["ratings_per_s"])
    for at, (k, axes) in enumerate(zip(FACTORS, panels, strict=True)):
        for place, entry in zip(places, outcome["ladder"][f"K{k}"], strict=True):
            rate, ratio = entry["ratings_per_s"], entry["ratio_to_below"]
            if rate is None:
                axes.text(2e3 * 1.25, place, "not run here", va="center", color=theme.soft, fontsize=9)
                continue
            axes.barh(place, rate, height=0.7, color=theme.hues[at])
            text = "" if ratio is None else f"×{tables.digits(ratio, 2)}" + " ?" * (not entry["ratio_is_clear"])
            axes.annotate(text, (rate, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_xscale("log")
        axes.set_xlim(2e3, top * 20)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xticks([1e4, 1e6, 1e8])
        axes.minorticks_off()
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_title(f"K = {k}", loc="left")
        axes.set_xlabel("ratings/s")
    panels[0].set_yticks(places, names)


@drawing(
    "one-rating",
    "The factors of one rating as arrows: a step moves p along q and q along p, and p·q towards the rating.",
    "一条评分的两个因子向量：走一步，p 沿 q 移动，q 沿 p 移动，p·q 向评分靠近。",
    height=3.9,
)
def _one_rating(figure: Figure, theme: Theme, outcome: Json) -> None:
    axes = figure.add_subplot()
    params = Params(np.array([[2.0, 0.4]]), np.array([[0.5, 1.7]]))
    config = Config(model="plain", n_factors=2, reg=0.0, dtype="float64", momentum=0.0, momentum_form="ema")
    batch = full_batch(Ratings.of_indices([0], [0], [5.0]), config)
    seen = gradient(params, batch, config).gradient
    moved, _ = update(params.tensors(), None, seen, 0.09, config)
    before, after = float(params.P[0] @ params.Q[0]), float(moved["P"][0] @ moved["Q"][0])
    # Letter at the old arrow's head, words beside the step.
    places = {"P": ("p", "q", (4, -14), (10, -3)), "Q": ("q", "p", (-14, 2), (-46, 14))}
    for at, (name, (letter, other, beside, words)) in enumerate(places.items()):
        colour, old, new = theme.hues[at], params.tensors()[name][0], moved[name][0]
        _arrow(axes, np.zeros(2), new, theme.soft, dashed=False, width=0.9)
        _arrow(axes, np.zeros(2), old, colour, dashed=False)
        _arrow(axes, old, new, colour, dashed=True)
        axes.annotate(letter, old, xytext=beside, textcoords="offset points", color=colour, fontsize=13, weight="bold")
        axes.annotate(
            f"−η∇{letter}, along {other}", (old + new) / 2, xytext=words, textcoords="offset points", color=colour
        )
    text = f"r = 5\nbefore: p·q = {before:.2f}, E = −{2 * (5 - before):.2f}\nafter: p·q = {after:.2f}"
    axes.text(0.99, 0.98, text, transform=axes.transAxes, ha="right", va="top", linespacing=1.5)
    axes.set_xlim(-0.1, 4.0)
    axes.set_ylim(-0.1, 2.9)
    axes.set_aspect("equal")
    axes.set_xlabel("factor 1, √rating")
    axes.set_ylabel("factor 2, √rating")


def _arrow(axes: Axes, begin: Array, end: Array, colour: str, *, dashed: bool, width: float = 1.9) -> None:
    axes.annotate(
        "", (end[0], end[1]), (begin[0], begin[1]),
        arrowprops={
            "arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11,
            "linestyle": (0, (3, 1.6)) if dashed else "-",
        },
    )  # fmt: skip


FORMS: tuple[tuple[str, str, float], ...] = (
    ("gradient descent", "ema", 0.0),
    ("the post's average", "ema", 0.8),
    ("heavy ball", "heavy_ball", 0.8),
    ("Nesterov", "nesterov", 0.8),
)


@cache
def _bowl() -> tuple[Params, Batch, Config, Array]:
    """One user's two factors with the items fixed: J is a long valley in them, and its minimum (2,)."""
    rng = np.random.default_rng(4)
    along, across = np.array([0.8, 0.6]), np.array([-0.6, 0.8])
    q = rng.normal(size=(40, 1)) * 0.25 * along + rng.normal(size=(40, 1)) * 1.6 * across
    config = Config(model="plain", n_factors=2, reg=0.0, dtype="float64")
    best = np.array([1.1, 0.9])
    batch = full_batch(Ratings.of_indices(np.zeros(40, int), np.arange(40), q @ best), config)
    return Params(np.zeros((1, 2)), q), batch, config, best


def _path(theta: Array, form: str, beta: float, lr: float, steps: int) -> Array:
    """(steps + 1, 2) points of the user's factors; the items stay where they are."""
    params, batch, config, _ = _bowl()
    config = replace(config, momentum=beta, momentum_form=form)  # type: ignore[arg-type]
    here, memory, out = theta, None, [theta]
    for _ in range(steps):
        g = gradient(Params(here[None], params.Q), batch, config).gradient["P"]
        moved, memory = update({"P": here[None]}, memory, {"P": g}, lr, config)
        here = moved["P"][0]
        out.append(here)
    return np.array(out)


def _user_curvature() -> float:
    """L of the user's own block (Eq. 19)."""
    params, batch, config, _ = _bowl()
    return float(np.linalg.eigvalsh(row_block(params, "user", 0, batch, config)).max())


@drawing(
    "momentum-paths",
    "Thirty steps at one η in a long valley of J: only the heavy ball and Nesterov get far along its floor.",
    "在 J 的狭长山谷中以同一个 η 走三十步：只有重球法与 Nesterov 沿谷底走得远。",
    height=4.6,
)
def _momentum_paths(figure: Figure, theme: Theme, outcome: Json) -> None:
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    params, batch, config, best = _bowl()
    x, y = np.meshgrid(np.linspace(-1.5, 2.3, 39), np.linspace(-1.15, 2.2, 34))
    cells = np.array([
        objective(Params(np.array([[a, b]]), params.Q), batch, config)
        for a, b in zip(x.ravel(), y.ravel(), strict=True)
    ]).reshape(x.shape)  # fmt: skip
    begin = np.array([-1.0, 0.0])
    lr = 0.55 * max_lr(_user_curvature(), replace(config, momentum=0.0, momentum_form="ema"))
    for at, ((name, form, beta), axes) in enumerate(zip(FORMS, panels.ravel(), strict=True)):
        axes.contour(x, y, cells, levels=[0.02, 0.15, 0.8, 3.0], colors=theme.soft, linewidths=0.6)
        path = _path(begin, form, beta, lr, 30)
        axes.plot(*path.T, color=theme.hues[at], linewidth=1.2, marker="o", markersize=2.6)
        axes.plot(*best, marker="+", color=theme.ink, markersize=10, markeredgewidth=1.5)
        axes.set_title(f"{name}{f', β = {beta:g}' if beta else ''}", loc="left")
        axes.grid(visible=False)
        axes.set_xlim(-1.5, 2.3)
        axes.set_ylim(-1.15, 2.2)
        axes.set_ylabel("factor 2, √rating")
        axes.set_xlabel("factor 1, √rating")
        axes.label_outer()


@drawing(
    "lr-cliff",
    "Distance from the minimum after 200 steps against η: each momentum form explodes just past its bound.",
    "200 步后与最小值的距离随 η 的变化：每种动量形式刚越过上界就爆炸。",
)
def _lr_cliff(figure: Figure, theme: Theme, outcome: Json) -> None:
    axes = figure.add_subplot()
    axes.axvline(1.0, color=theme.ink, linewidth=1.0, linestyle=(0, (4, 2)))
    axes.axhline(1.0, color=theme.soft, linewidth=0.8)
    dashes = ("-", (0, (5, 2)), (0, (1.5, 1.5)), "-.")
    for (name, shares, ratios), hue, dash in zip(_cliff(), theme.hues, dashes, strict=True):
        axes.plot(shares, ratios, color=hue, linestyle=dash, label=name)
    axes.set_yscale("log")
    axes.set_ylim(1e-12, 1e12)
    axes.set_xlabel("η / largest η of Eq. 21")
    axes.set_ylabel("distance after 200 steps / before")
    axes.annotate("the bound", (1.0, 1e-11), xytext=(5, 0), textcoords="offset points", ha="left", va="bottom")
    axes.legend(loc="upper left")


@cache
def _cliff() -> tuple[tuple[str, Array, Array], ...]:
    """(momentum form, η in units of its bound, distance from the minimum after 200 steps over that before)."""
    _, _, config, best = _bowl()
    shares = np.concatenate([np.linspace(0.1, 0.9, 17), np.linspace(0.92, 1.08, 17), np.linspace(1.1, 1.2, 3)])
    begin = best + np.array([0.8, 0.6]) * 0.6 + np.array([-0.6, 0.8]) * 0.6
    curvature, out = _user_curvature(), []
    for name, form, beta in FORMS:
        bound = max_lr(curvature, replace(config, momentum=beta, momentum_form=form))  # type: ignore[arg-type]
        ends = np.array([_path(begin, form, beta, share * bound, 200)[-1] for share in shares])
        # Held above rounding errors, which are another machine's own.
        ratios = 1e-11 + np.linalg.norm(ends - best, axis=1) / np.linalg.norm(begin - best)
        out.append((name, shares, ratios))
    return tuple(out)


@drawing(
    "start",
    "Starting predictions of U(0, 11/K): K = 3 starts above the mean rating 7.8, K = 16 and 64 far below it.",
    "U(0, 11/K) 的起始预测值：K = 3 高于平均评分 7.8，K = 16 和 64 远低于它。",
)
def _start(figure: Figure, theme: Theme, outcome: Json) -> None:
    axes = figure.add_subplot()
    factors = (1, 3, 16, 64)
    edges = np.linspace(0.0, 40.0, 161)
    middle = (edges[1:] + edges[:-1]) / 2
    table = Ratings.of_indices(np.arange(600), np.arange(600), np.full(600, 7.8))
    axes.axvspan(1, 10, color=theme.grid, alpha=0.5, linewidth=0, zorder=0)
    axes.axvline(7.8, color=theme.ink, linewidth=1.2, linestyle=(0, (4, 2)))
    for at, k in enumerate(factors):
        config = Config(model="plain", n_factors=k, init="uniform", dtype="float64")
        begun = start(table, config)
        height, _ = np.histogram((begun.P @ begun.Q.T).ravel(), edges)
        base, mean = len(factors) - 1 - at, 30.25 / k
        rise = base + 0.8 * height / height.max()
        shown = slice(0, int(np.flatnonzero(height > 0.004 * height.max()).max()) + 2)
        axes.fill_between(middle[shown], base, rise[shown], color=theme.hues[at], alpha=0.3, linewidth=0)
        axes.plot(middle[shown], rise[shown], color=theme.hues[at], linewidth=1.4)
        axes.plot(mean, base, marker="^", color=theme.hues[at], markersize=8, clip_on=False, zorder=4)
        text = f"mean {mean:.2f}" if at == 0 else f"{mean:.2f}"
        axes.annotate(text, (mean, base), xytext=(7, 6), textcoords="offset points")
    axes.annotate("mean rating of\nthe anime data, 7.8", (7.8, 1.55), xytext=(60, 0), textcoords="offset points",
        va="center", arrowprops={"arrowstyle": "-", "color": theme.soft, "linewidth": 0.8},
    )  # fmt: skip
    axes.annotate(
        "scale 1 to 10", (10, -0.22), xytext=(4, 0), textcoords="offset points", color=theme.soft, va="center"
    )
    axes.set_xlim(0, 40)
    axes.set_ylim(-0.4, len(factors) - 0.1)
    axes.set_yticks(range(len(factors)), [f"K = {k}" for k in reversed(factors)])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("starting prediction p·q, rating")
    axes.set_ylabel("density, each to its own peak")


@drawing(
    "post",
    "Validation RMSE against iterations: the post's recipe ends behind biases alone, the biased one near the floor.",
    "验证 RMSE 随迭代的变化：原博文的配方落后于只用偏置，biased 配方接近噪声下限。",
)
def _post(figure: Figure, theme: Theme, outcome: Json) -> None:
    axes = figure.add_subplot()
    entry = outcome["quality"]["post"]
    rmse = {row["name"]: row["rmse"] for row in entry["rows"]}
    last = max(curve[-1][0] for curve in entry["curves"].values())
    lines = (("mean", "the mean", "-."), ("bias-only", "mean and biases alone", "--"), ("floor", "noise floor", ":"))
    for name, text, dash in lines:
        axes.axhline(rmse[name], color=theme.soft, linewidth=1.1, linestyle=dash)
        # Where no curve passes: that of the biased recipe crosses the line of biases early.
        right = name == "bias-only"
        axes.annotate(
            f"{text}, {rmse[name]:.3f}", (last if right else 1.0, rmse[name]), xytext=(-2, -3) if right else (2, 3),
            textcoords="offset points", fontsize=9, ha="right" if right else "left", va="top" if right else "bottom",
        )  # fmt: skip
    for at, name in enumerate(("post", "biased")):
        epochs, values = np.array(entry["curves"][name]).T
        axes.plot(epochs, values, color=theme.hues[1 - at], label=f"recipe {name}, ends at {values[-1]:.3f}")
    axes.set_xscale("log")
    axes.set_xlim(1, last)
    axes.set_xticks([1, 10, 100], ["1", "10", "100"])
    low, high = rmse["floor"], rmse["mean"]
    axes.set_ylim(low - 0.08 * (high - low), high + 0.45 * (high - low))
    axes.set_xlabel("iterations")
    axes.set_ylabel("validation RMSE, rating")
    figure.legend(loc="outside upper left", ncols=2)


@drawing(
    "roofline",
    "GFLOP/s of the rungs against flops a byte, beside the machine's lines of memory, cache and multiply-adds.",
    "各级阶梯的 GFLOP/s 与每字节运算数，以及机器的内存、缓存与乘加界线。",
    height=4.9,
)
def _roofline(figure: Figure, theme: Theme, outcome: Json) -> None:
    axes = figure.add_subplot()
    source = tables.Source(outcome, "en")
    n, k = source.threads, FACTORS[-1]
    x = np.geomspace(0.008, 50, 60)
    limits, ends, box = (0.008, 50), (1e-3, 1e3), 0.66
    angle = np.degrees(np.arctan(box * np.log10(limits[1] / limits[0]) / np.log10(ends[1] / ends[0])))
    peak = tables.peak(source, "float32", n)
    for place, dash in (("cache", (0, (4, 2))), ("memory", "-")):
        rate = tables.bandwidth(source, place, "triad", n)
        axes.plot(x, np.minimum(peak, rate * x), color=theme.ink, linewidth=1.3, linestyle=dash)
        axes.annotate(
            f"{place} {rate:.0f} GB/s", (0.01, rate * 0.01), xytext=(0, 4), textcoords="offset points", fontsize=9,
            rotation=angle, rotation_mode="anchor",
        )  # fmt: skip
    axes.annotate(
        f"multiply-add, float32: {peak:.0f} GFLOP/s", (x[-1], peak), xytext=(-2, 4), textcoords="offset points",
        ha="right", fontsize=9,
    )  # fmt: skip
    # Points of another machine lie elsewhere: numbers in them and a key cannot run into each other's labels.
    for step, entry in zip(LADDER, outcome["ladder"][f"K{k}"], strict=True):
        row = source.row(entry["row"])
        if not row["timing"]:
            continue
        cost, number = row["cost"], LADDER.index(step) + 1
        where = (cost["flops_per_rating"] / cost["bytes_per_rating"], cost["gflops_per_s"])
        name = SHORT[step.name].format(threads=n).replace("the same", f"Numba, {n} threads")
        label = f"{number}  {name}"
        axes.plot(*where, marker="o", color=theme.hues[1], markersize=11, linestyle="none", label=label)
        axes.annotate(
            str(number), where, color=theme.paper, fontsize=9, weight="bold", ha="center", va="center_baseline"
        )
    figure.legend(loc="outside lower left", ncols=2, handlelength=0, handletextpad=0.4, markerscale=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*limits)
    axes.set_ylim(*ends)
    axes.set_box_aspect(box)
    axes.minorticks_off()
    axes.set_title(f"K = {k}", loc="left")
    axes.set_xlabel("flops a byte (Eq. 27)")
    axes.set_ylabel("GFLOP/s")
