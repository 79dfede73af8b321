"""Figures of how good every system is: against seconds, on its way, by activity, and whether it is calibrated."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from bench import labels
from bench.accuracy_page import ours
from bench.accuracy_rows import ranked
from bench.figures import HUES, INK, Picture, picture
from bench.pages import plots

Json = dict[str, Any]

MARK = 5.0
"""Diameter of a point, in points."""


def pictures(result: Json) -> list[Picture]:
    """The figures of one protocol."""
    scored = ranked(result)
    if not scored:
        return []
    few = _chosen(scored)
    name = result["identity"]["protocol"]
    return [
        _front(result, scored, name),
        _ways(few, name),
        _activity(few, "by_user", "users", name),
        _activity(few, "by_item", "items", name),
        _calibration(few, name),
    ]


def _chosen(scored: list[Json]) -> list[Json]:
    """The best of ours, then the best of others: as many as there are hues."""
    mine = [row for row in scored if ours(row)][:1]
    return mine + [row for row in scored if row not in mine][: len(HUES) - len(mine)]


def front(rows: list[Json]) -> list[Json]:
    """The rows that no other beats in both RMSE and seconds, from the quickest to the best (Pareto)."""
    out: list[Json] = []
    for row in sorted(rows, key=lambda row: (float(row["seconds"]), float(row["rmse"]))):
        if not out or row["rmse"] < out[-1]["rmse"]:
            out.append(row)
    return out


def _front(result: Json, scored: list[Json], name: str) -> Picture:
    bias = statistics.mean(test["baselines"]["bias-only"] for test in result["tests"])
    low = float(scored[0]["rmse"])
    top = low + 1.15 * max(bias - low, 1e-3)
    shown = [row for row in scored if row["rmse"] <= top]
    beyond = [row for row in scored if row["rmse"] > top]
    best = front(shown)

    numbers = {row["system"]: k for k, row in enumerate(scored, 1)}
    names = [f"{numbers[row['system']]} {row['system']}" for row in best]

    def draw(axes: Axes) -> None:
        axes.plot(*zip(*map(_spot, best), strict=True), color=INK, linewidth=0.9, linestyle="--")
        for row in shown:
            colour, mark = (plots.OURS, "s") if ours(row) else (HUES[0], "o")
            text = f"{numbers[row['system']]}  {row['system']}"
            axes.plot(*_spot(row), mark, color=colour, markersize=MARK, label=text)
        axes.axhline(bias, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        seconds = [float(row["seconds"]) for row in shown]
        axes.annotate(
            f"bias-only {bias:.4f}", (min(seconds), bias), va="bottom", fontsize=9, xytext=(0, 2),
            textcoords="offset points",
        )  # fmt: skip
        axes.set_xscale("log")
        # Room for the numbers of the first and the last.
        axes.set_xlim(min(seconds) * 0.7, max(seconds) * 1.5)
        plots.log_ticks(axes.xaxis)
        axes.set_ylim(low - 0.06 * (top - low), top)
        axes.set_xlabel("seconds of a fit, log scale")
        axes.set_ylabel("test RMSE")

    def finish(axes: Axes) -> None:
        texts = [str(numbers[row["system"]]) for row in shown]
        labels.label(axes, [_spot(row) for row in shown], texts, mark=MARK, line=[_spot(row) for row in best], size=9)

    about = (
        "Test RMSE against the seconds of a fit with the settings that tuning chose, numbered from the lowest RMSE; "
        f"orange squares are ours. On the dashed line lie those that none beats in both: {', '.join(names)}."
    )
    if beyond:
        about += " Above the figure: " + ", ".join(f"{row['system']} {row['rmse']:.4f}" for row in beyond) + "."
    return picture(
        "RMSE against seconds", about, draw, f"front-{name}", height=3.8 + 0.1 * len(shown), finish=finish, columns=2
    )


def _spot(row: Json) -> tuple[float, float]:
    return float(row["seconds"]), float(row["rmse"])


def _line(axes: Axes, few: list[Json], row: Json, xs: Sequence[float], ys: Sequence[float]) -> None:
    """The curve of a system, which looks the same in every figure."""
    style = plots.styles(one["system"] for one in few)[row["system"]]
    axes.plot(xs, ys, color=style.colour, marker=style.mark, markersize=3.5, linewidth=1.6, label=row["system"])


def _ways(few: list[Json], name: str) -> Picture:
    """The validation RMSE of the chosen settings, point by point."""

    def draw(axes: Axes) -> None:
        for row in few:
            curve = _curve(row)
            _line(axes, few, row, [seconds for _, seconds, _ in curve], [rmse for _, _, rmse in curve])
        axes.set_xscale("log")
        plots.log_ticks(axes.xaxis)
        low = min(row["tuned"]["rmse"] for row in few)
        first = max(rmse for row in few for _, _, rmse in _curve(row))
        axes.set_ylim(low - 0.004, min(first, low + 0.12) + 0.004)
        axes.set_xlabel("seconds of one thread beside other fits, log scale")
        axes.set_ylabel("validation RMSE")

    ends = "; ".join(f"{row['system']} {row['tuned']['rmse']:.4f} after {row['tuned']['epochs']} epochs" for row in few)
    about = f"Validation RMSE while tuning, with the settings that it chose. The lowest: {ends}."
    return picture("The way there", about, draw, f"ways-{name}")


def _curve(row: Json) -> list[list[float]]:
    best = row["tuned"]
    found: list[list[float]] = next(one["curve"] for one in best["tried"] if one["settings"] == best["settings"])
    return found


def _activity(few: list[Json], key: str, side: str, name: str) -> Picture:
    def draw(axes: Axes) -> None:
        for row in few:
            _line(axes, few, row, range(1, len(row[key]) + 1), [p["rmse"] for p in row[key]])
        parts = few[0][key]
        axes.set_xticks(range(1, len(parts) + 1), [_between(part) for part in parts], rotation=40, ha="right")
        axes.set_xlabel(f"training ratings of the {side[:-1]}")
        axes.set_ylabel("test RMSE")

    first, last = few[0][key][0], few[0][key][-1]
    about = (
        f"RMSE of each tenth of the scored pairs, from {side} with the fewest training ratings ({_between(first)}) to "
        f"those with the most ({_between(last)}): "
        + "; ".join(f"{row['system']} {row[key][0]['rmse']:.3f} to {row[key][-1]['rmse']:.3f}" for row in few)
        + "."
    )
    return picture(f"RMSE by activity of {side}", about, draw, f"{key}-{name}")


def _between(part: Json) -> str:
    return f"{part['from']}" if part["from"] == part["to"] else f"{part['from']}–{part['to']}"


def _calibration(few: list[Json], name: str) -> Picture:
    def draw(axes: Axes) -> None:
        axes.axhline(0.0, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        for row in few:
            parts = row["calibration"]["parts"]
            _line(axes, few, row, [p["predicted"] for p in parts], [p["rated"] - p["predicted"] for p in parts])
        axes.set_xlabel("mean prediction of a tenth of the pairs")
        axes.set_ylabel("mean rating less it")

    about = (
        "How far the ratings lie from what was predicted, for each tenth of the pairs by prediction; 0 is calibrated. "
        "Slope of rating on prediction, 1 where nothing is over- or understated: "
        + "; ".join(f"{row['system']} {_slope(row)}" for row in few)
        + "."
    )
    return picture("Calibration", about, draw, f"calibration-{name}")


def _slope(row: Json) -> str:
    slope = row["calibration"]["slope"]
    return "none" if slope is None else f"{slope:.2f}"
