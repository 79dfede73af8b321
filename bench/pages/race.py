"""The section of `bench.race`: how soon and how far each system gets, tuned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes

from bench.figures import INK, Picture, front, pareto, picture
from bench.pages import plots, words
from bench.race import in_words
from bench.section import NOTHING, Cell, Column, Row, Section, Table, machine_lines, number, text

Json = dict[str, Any]

METHOD = (
    "All settings of a grid are tried on a validation split carved from the training side. The lowest validation RMSE "
    "of a peer is its target. Then, round by round, every system runs again with the settings that took it to the "
    "target soonest, and its seconds are of training until its validation RMSE is no higher; the median of the rounds "
    "counts. Ours count the laying out of the ratings as well, a peer's do not count what its adapter converts.",
    "The test pairs are scored once, by a fit of the best settings on training and validation pairs together.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    peers = list(dict.fromkeys(target["peer"] for target in result["targets"]))
    about = result["problem"]
    return Section(
        kind="The race to an RMSE",
        data=about["data"],
        verdict=_verdict(result),
        about=(
            f"{about['n_train']:,} ratings to train on, {about['n_valid']:,} to tune by and {about['n_test']:,} to "
            f"test, {about['n_users']:,} users, {about['n_items']:,} items; {words.threads(_threads(result))}."
        ),
        table=Table(_columns(peers), (*_rows(result, peers), *_baselines(result, peers))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(result)),
        warnings=words.notices(result),
        notes=("In brackets: over the peer's own seconds to it. –: no settings of the grid get there.",)
        if peers
        else (),
        hint="16 mf_numpy, 64",
    )


def _threads(result: Json) -> int:
    found: int = max((one["threads"] for one in result["times"]), default=max(result["environment"]["set"].values()))
    return found


def _verdict(result: Json) -> str:
    scored = [row for row in result["rows"] if "rmse" in (row["final"] or {})]
    if not scored:
        return "no system was scored."
    best = min(scored, key=lambda row: float(row["final"]["rmse"]))
    said = (
        f"the lowest test RMSE, {best['final']['rmse']:.4f}, is that of {best['system']} with K = {best['n_factors']}"
    )
    soonest: dict[tuple[str, int], float] = {}
    for one in result["ratios"]:
        key = one["target"], one["n_factors"]
        soonest[key] = min(one["ratio"], soonest.get(key, one["ratio"]))
    if not soonest:
        return f"{said}."
    sooner = sum(ratio < 1 for ratio in soonest.values())
    return (
        f"{said}; the quickest of ours is sooner than a peer at the peer's best validation RMSE in {sooner} of "
        f"{len(result['targets'])} races, in {words.span(soonest.values(), '.2f')} of its time."
    )


def _columns(peers: list[str]) -> tuple[Column, ...]:
    return (
        Column("K"),
        Column("system", numeric=False),
        *map(Column, ("validation RMSE", "test RMSE", "test MAE")),
        *(Column(f"s to {peer}'s best") for peer in peers),
        Column("settings", numeric=False),
    )


def _rows(result: Json, peers: list[str]) -> Iterator[Row]:
    times = {(one["system"], one["target"], one["n_factors"]): one["median_s"] for one in result["times"]}
    ratios = {(one["system"], one["target"], one["n_factors"]): one["ratio"] for one in result["ratios"]}
    before = None
    for row in result["rows"]:
        begin = number(row["n_factors"]), text(row["system"])
        apart = before not in (None, row["n_factors"])
        before = row["n_factors"]
        if row["best"] is None:
            yield Row(begin, words.reason(row), off=True, apart=apart)
            continue
        final, best = row["final"] or {}, row["best"]
        keys = [(row["system"], peer, row["n_factors"]) for peer in peers]
        yield Row(
            (
                *begin,
                number(best["rmse"], ".4f"),
                number(final.get("rmse"), ".4f"),
                number(final.get("mae"), ".4f"),
                *(_taken(times.get(key), ratios.get(key)) for key in keys),
                text(f"{in_words(best['settings'])}, {best['epochs']} epochs"),
            ),
            words.reason(row) or final.get("reason", ""),
            apart=apart,
        )


def _taken(seconds: float | None, ratio: float | None) -> Cell:
    if seconds is None:
        return NOTHING
    return Cell(f"{seconds:.2f}" + ("" if ratio is None else f" ({ratio:.2f})"), seconds)


def _baselines(result: Json, peers: list[str]) -> Iterator[Row]:
    for kind, rmse in result["baselines"].items():
        rest = [NOTHING] * (len(peers) + 2)
        yield Row((NOTHING, text(kind), NOTHING, number(rmse, ".4f"), *rest), off=True)


def _pictures(result: Json) -> Iterator[Picture]:
    for k in words.ordered(row["n_factors"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["n_factors"] == k and row["tried"] and row["best"]]
        targets = [target for target in result["targets"] if target["n_factors"] == k]
        if rows:
            yield _fronts(rows, targets, k)
            yield _ways(rows, targets, k)


def _points(tried: list[Json]) -> list[tuple[float, float]]:
    return [(seconds, rmse) for one in tried for _, seconds, rmse in one["curve"]]


def _fronts(rows: list[Json], targets: list[Json], k: int) -> Picture:
    found = {row["system"]: pareto(_points(row["tried"])) for row in rows}
    best = pareto([point for points in found.values() for point in points])
    styles = plots.styles(found)

    def draw(axes: Axes) -> None:
        front(axes, best)
        for name, points in found.items():
            xs, ys = zip(*points, strict=True)
            axes.plot(
                xs, ys, color=styles[name].colour, marker=styles[name].mark, markersize=3, linewidth=1.4,
                drawstyle="steps-post", label=name,
            )  # fmt: skip
        _finish(axes, rows, targets, [x for points in found.values() for x, _ in points])

    about = (
        f"The lowest validation RMSE that any settings of a system's grid reach within so many seconds, K = {k}. The "
        "wide band is what no system beats (the Pareto front); it runs from "
        f"{best[0][1]:.4f} after {best[0][0]:.3g} s to {best[-1][1]:.4f} after {best[-1][0]:.3g} s. Lowest: "
        + "; ".join(f"{name} {points[-1][1]:.4f} after {points[-1][0]:.3g} s" for name, points in found.items())
        + "."
    )
    return picture(f"RMSE against seconds, K = {k}", about, draw, f"race-front-{k}", height=4.0)


def _ways(rows: list[Json], targets: list[Json], k: int) -> Picture:
    styles = plots.styles(row["system"] for row in rows)
    curves = {
        row["system"]: next(one["curve"] for one in row["tried"] if one["settings"] == row["best"]["settings"])
        for row in rows
    }

    def draw(axes: Axes) -> None:
        for name, curve in curves.items():
            axes.plot(
                [seconds for _, seconds, _ in curve], [rmse for _, _, rmse in curve], color=styles[name].colour,
                marker=styles[name].mark, markersize=3, linewidth=1.4, label=name,
            )  # fmt: skip
        _finish(axes, rows, targets, [seconds for curve in curves.values() for _, seconds, _ in curve])

    ends = "; ".join(f"{row['system']} {row['best']['rmse']:.4f} after {row['best']['epochs']} epochs" for row in rows)
    about = f"Validation RMSE on the way of each system's best settings, K = {k}. The lowest: {ends}."
    return picture(f"The way of the best settings, K = {k}", about, draw, f"race-ways-{k}", height=4.0)


def _finish(axes: Axes, rows: list[Json], targets: list[Json], seconds: list[float]) -> None:
    """Lines of the targets, and what both figures have in common."""
    bests = [row["best"]["rmse"] for row in rows]
    low, worst = min(bests), max(bests)
    top = worst + 1.5 * max(worst - low, 0.004)
    axes.set_xscale("log")
    for at, target in enumerate(sorted(targets, key=lambda target: float(target["rmse"]))):
        axes.axhline(target["rmse"], color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        # Curves come from above on the right; of two lines that are close the lower one has its name below.
        below = at == 0 and len(targets) > 1
        axes.annotate(
            f"{target['peer']}'s best {target['rmse']:.4f}", (min(seconds), target["rmse"]), ha="left",
            va="top" if below else "bottom", fontsize=9, xytext=(0, -2 if below else 1), textcoords="offset points",
        )  # fmt: skip
    plots.log_ticks(axes.xaxis)
    axes.set_ylim(low - 0.06 * (top - low), top)
    axes.set_xlabel("seconds of training, log scale")
    axes.set_ylabel("validation RMSE")
