"""The section of `bench.clicks`: how well clicks are ranked, ours beside the same models of a library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes

from bench import grid_ends
from bench.clicks import BY, METRICS, TITLES, in_words
from bench.figures import INK, Picture, picture
from bench.pages import plots, words
from bench.race import in_words as settings_in_words
from bench.section import NOTHING, Cell, Column, Fold, Row, Section, Table, machine_lines, number, significant, text

Json = dict[str, Any]

NAMED = {**TITLES, METRICS[2]: "MAP@10", METRICS[3]: "coverage@10"}
COLUMNS = (
    Column("system", numeric=False),
    *map(Column, (NAMED[BY], "95 % interval", *(NAMED[name] for name in METRICS[1:]), "seconds")),
)
BESIDE = (Column("system", numeric=False), Column("beside", numeric=False), *map(Column, (*TITLES.values(), "p")))
CHOSEN = (
    *(Column(name, numeric=False) for name in ("system", "settings")),
    *map(Column, ("epochs", f"{NAMED[BY]} they were chosen by", "points tried")),
    Column("at an end of its grid", numeric=False),
)
METHOD = (
    "A click is a high rating, and all that is known of it is that it is there. A fifth of the clicks is held out at "
    "random, several times. Each system ranks all items that a user did not click in training, and one scorer says "
    "where those stand that are held out; clicks of users or items that training has not seen are left out.",
    "Settings are chosen by NDCG@10 on a fifth of the first split's training clicks, from a grid of each system's own "
    "and at several numbers of epochs; the best are fitted to the training clicks of every split, once.",
    "All pairs is the confidence-weighted square of Eq. 45, whose function implicit's ALS minimises with alpha = 1 + α "
    "and λ = Nλ; BPR, softmax and WARP are of Eq. 48, 49 and 53. What torch fits has the settings that were tuned for "
    "the same function by hand, and where its solver is another one, steps of its own.",
    "Numbers are means over splits of means over users. Intervals are of 95 %, by a bootstrap that draws users, each "
    "with all that was scored of her; differences are paired. Seconds are of training, with all threads: the median "
    "over splits. Ours were fitted in one process, after an epoch in which kernels are compiled; a library in a "
    "process for each fit.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    problem, rows = result["problem"], result["rows"]
    return Section(
        kind="How well clicks are ranked",
        data=problem["data"],
        verdict=_verdict(rows),
        about=_about(result),
        table=Table(COLUMNS, tuple(map(_line, rows))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(rows)),
        warnings=words.notices(result),
        folds=tuple(_folds(result)),
        hint="BPR",
    )


def _about(result: Json) -> str:
    problem, splits = result["problem"], result["splits"]
    low = problem["threshold"]
    what = "drawn clicks" if low is None else f"ratings of {low:g} and more"
    held = words.span((one["n_relevant"] for one in splits), ",") if splits else "none"
    sizes = words.sizes(problem).replace("ratings", "clicks")
    return f"{sizes}, {what}; {len(splits)} splits, in each {held} clicks to find."


def _verdict(rows: list[Json]) -> str:
    said = [
        f"{row['system']} {judged(other[BY])} {other['system']}, {in_words(other[BY])}"
        for row in rows
        if row["system"].startswith("mf_numpy")
        for other in row["against"]
    ]
    return f"at NDCG@10 {'; '.join(said)}." if said else "nothing was compared."


def judged(found: Json) -> str:
    """What a paired interval says of one beside the other."""
    low, high = found["interval"]
    if low > 0:
        return "is above"
    return "is below" if high < 0 else "is level with"


def _line(row: Json) -> Row:
    if row["status"] != "ok":
        return Row((text(row["system"]),), reason=words.reason(row))
    low, high = row["interval"][BY]
    return Row(
        (
            text(row["system"]),
            number(row[BY], ".4f"),
            Cell(f"{low:.4f} to {high:.4f}", low),
            *(number(row[name], ".4f") for name in METRICS[1:]),
            significant(row["seconds"]),
        ),
        off=row["system"] == "popularity",
    )


def _folds(result: Json) -> Iterator[Fold]:
    rows = [row for row in result["rows"] if row["status"] == "ok"]
    compared = [
        Row(
            (
                text(row["system"]),
                text(other["system"]),
                *(Cell(in_words(other[name]), other[name]["difference"]) for name in TITLES),
                number(other[BY]["p"], ".3g"),
            )
        )
        for row in rows
        for other in row["against"]
    ]
    if compared:
        about = "Differences with their 95 % intervals, and the p-value of the first."
        yield Fold("Beside the same model of a library", about, Table(BESIDE, tuple(compared)))
    chosen = [
        Row(
            (
                text(row["system"]),
                text(settings_in_words(best["settings"])),
                number(best["epochs"]),
                NOTHING if best[BY] is None else number(best[BY], ".4f"),
                number(sum(len(one["curve"]) for one in best["tried"])),
                text(f"those of {best['like']}" if best["like"] and not best["tried"] else grid_ends.ends(result, row)),
            )
        )
        for row in rows
        for best in [row["tuned"]]
        if best["settings"]
    ]
    if chosen:
        yield Fold("Settings that were chosen", "", Table(CHOSEN, tuple(chosen)))


def _pictures(rows: list[Json]) -> Iterator[Picture]:
    scored = sorted((row for row in rows if row["status"] == "ok"), key=lambda row: float(row[BY]))
    if not scored:
        return

    def draw(axes: Axes) -> None:
        styles = plots.styles(["ours", "others"], ours="ours")
        for place, row in enumerate(scored):
            style = styles["ours" if row["system"].startswith("mf_") else "others"]
            axes.plot(row["interval"][BY], (place, place), color=INK, linewidth=1.0)
            axes.plot(row[BY], place, style.mark, color=style.colour, markersize=6)
        plots.named(axes, range(len(scored)), [row["system"] for row in scored])
        axes.set_xlabel("NDCG@10")

    told = "; ".join(f"{row['system']} {row[BY]:.4f}" for row in reversed(scored))
    title = "NDCG@10 of each system"
    about = f"Means over users of all splits, and their 95 % intervals; circles are ours. {told}."
    yield picture(title, about, draw, "clicks", height=1.5 + 0.3 * len(scored))
