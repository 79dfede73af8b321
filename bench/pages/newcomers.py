"""The section of `bench.newcomers`: users and items that training has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes

from bench.figures import Picture, picture
from bench.newcomer_systems import BASELINE, PLAIN
from bench.newcomers import DRAWN, as_drawn
from bench.pages import plots, words
from bench.race import in_words
from bench.section import NOTHING, Cell, Column, Fold, Row, Section, Table, machine_lines, number, text

Json = dict[str, Any]

COLUMNS = (
    *(Column(name, numeric=False) for name in ("hidden", "system")),
    Column("ratings given"),
    Column("picked", numeric=False),
    *map(Column, ("rows", "pairs", "RMSE", "95 % interval", "beside the compared")),
    Column("compared", numeric=False),
)
CHOSEN = (Column("hidden", numeric=False), Column("system", numeric=False), Column("settings, draw by draw", False))
METHOD = (
    "A tenth of the users, or of the items, is hidden with all its ratings; of the ratings that are left a tenth is "
    "held out and called warm. Half of each hidden row's ratings may be given to a system, in a drawn order; it folds "
    "in the first of them, and predicts the other half. All numbers of given ratings are scored on the same pairs. "
    "Rows with too few to give are hidden and not scored.",
    "Settings are chosen without a look at what is hidden: inside the training ratings the same is done once more, and "
    "the settings with the least mean of RMSEs, warm and with each number of given ratings, are fitted to all of them. "
    "Fits are of one K by L-BFGS. Predictions are clipped to the rating scale.",
    f"Mean is the training mean; {BASELINE} are the mean, the other side's bias and the damped mean of what a "
    "newcomer's ratings leave, so that without ratings they are popularity. Features alone are rows made of facts and "
    "nothing else, and take no rating. The other rows take what is given as the rows of training let expect (Eq. 60); "
    "half-step is what the penalty alone would make of it (Eq. 37), without facts, as ids are.",
    "Picked are ratings in a drawn order, those of the most rated (of items: by the most active), or those that the "
    "system itself would ask for (Eq. 61), each time out of the half that may be given.",
    "Intervals are of 95 %, by a bootstrap that draws hidden rows, and for warm ratings users. Differences are paired: "
    f"cold ones are from {BASELINE}, warm ones from {PLAIN}, given the same ratings; the most rated from the "
    "drawn, and the suggested from the most rated.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    problem = result["problem"]
    return Section(
        kind="Users and items that training has not seen",
        data=problem["data"],
        verdict=_verdict(result["rows"]),
        about=f"{words.sizes(problem)}; K = {problem['n_factors']}; {_hidden(result['sides'])}.",
        table=Table(COLUMNS, tuple(_rows(result["rows"]))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(result["rows"])),
        warnings=words.notices(result),
        folds=tuple(_folds(result["sides"])),
        hint="user features 5",
    )


def _hidden(sides: list[Json]) -> str:
    parts = []
    for side in sides:
        hidden, scored = (sum(draw[key] for draw in side["draws"]) for key in ("n_hidden", "n_rows"))
        facts = f", known by {side['facts']}" if side["facts"] else ", of whom nothing is known"
        parts.append(f"{hidden:,} {side['side']}s hidden in {len(side['draws'])} draws, {scored:,} scored{facts}")
    return "; ".join(parts) or "nothing finished"


def featured(rows: Sequence[Json], side: str) -> str | None:
    """The system with features that also has ids, if it was fitted."""
    names = [row["system"] for row in rows if row["side"] == side]
    return next((name for name in names if name == "ids and features"), None)


def _verdict(rows: list[Json]) -> str:
    said = []
    for side in dict.fromkeys(row["side"] for row in rows):
        name = featured(rows, side) or PLAIN
        given = words.ordered(row["given"] for row in rows if row["side"] == side and row["given"] is not None)
        found = [as_drawn(rows, side, name, n) for n in given]
        parts = [
            f"{_change(row)} with {row['given']}" for row in found if row is not None and row["against"] is not None
        ]
        if not parts:
            continue
        warm = as_drawn(rows, side, name, None)
        beside = f"; warm ratings {_change(warm)} beside {PLAIN}" if warm is not None and warm["against"] else ""
        said.append(f"of hidden {side}s, {name} change the RMSE of {BASELINE} by {', '.join(parts)} ratings{beside}")
    return "; ".join(said) + "." if said else "nothing was scored."


def _change(row: Json) -> str:
    low, high = row["against"]["interval"]
    return f"{low:+.4f} to {high:+.4f}"


def _rows(rows: list[Json]) -> Iterator[Row]:
    before = None
    for row in rows:
        against = row["against"]
        low, high = row["interval"]
        beside = NOTHING if against is None else Cell(_change(row), sum(against["interval"]) / 2)
        yield Row(
            (
                text(f"{row['side']}s"),
                text(row["system"]),
                text("warm") if row["given"] is None else number(row["given"]),
                text("" if row["given"] is None else row["way"]),
                number(row["n_rows"], ","),
                number(row["n_pairs"], ","),
                number(row["rmse"], ".4f"),
                Cell(f"{low:.4f} to {high:.4f}", low),
                beside,
                text("" if against is None else _compared(row)),
            ),
            off=row["system"] == "mean",
            apart=before not in (None, (row["side"], row["system"])),
        )
        before = row["side"], row["system"]


def _compared(row: Json) -> str:
    against = row["against"]
    return str(against["system"] if against["way"] == row["way"] else against["way"])


def _folds(sides: list[Json]) -> Iterator[Fold]:
    lines = [
        Row((text(f"{side['side']}s"), text(name), text("; ".join(in_words(one) for one in each))))
        for side in sides
        for name, each in side["tuned"].items()
        if any(each)
    ]
    if lines:
        about = "Weight is what a row's facts are multiplied by, beside an id of 1."
        yield Fold("Settings that were chosen", about, Table(CHOSEN, tuple(lines)))


def _pictures(rows: list[Json]) -> Iterator[Picture]:
    for side in dict.fromkeys(row["side"] for row in rows):
        here = [row for row in rows if row["side"] == side and row["way"] == DRAWN]
        yield _curves(
            f"RMSE of hidden {side}s against the ratings given", here, "system", f"newcomers-{side}",
            f"RMSE over ratings of {side}s that training has not seen.",
        )  # fmt: skip
        name = featured(rows, side) or PLAIN
        picked = [row for row in rows if (row["side"], row["system"]) == (side, name) and row["given"]]
        if len({row["way"] for row in picked}) > 1:
            yield _curves(
                f"RMSE of hidden {side}s by how the ratings given are picked", picked, "way", f"newcomers-{side}-asked",
                f"RMSE of {name} over ratings of {side}s that training has not seen.",
            )  # fmt: skip


def _curves(title: str, rows: list[Json], name: str, key: str, about: str) -> Picture:
    """A curve for each of what `name` names, over the numbers of given ratings."""
    given = words.ordered(row["given"] for row in rows)
    curves = {
        each: [(given.index(row["given"]), row) for row in rows if row[name] == each]
        for each in dict.fromkeys(row[name] for row in rows)
    }
    styles = plots.styles(curves, ours="ids and features" if name == "system" else "suggested")

    def draw(axes: Axes) -> None:
        for each, points in curves.items():
            style = styles[each]
            at, rmse = [x for x, _ in points], [row["rmse"] for _, row in points]
            axes.plot(at, rmse, color=style.colour, marker=style.mark, markersize=4.5, linewidth=1.5, label=each)
            low, high = ([row["interval"][end] for _, row in points] for end in (0, 1))
            axes.fill_between(at, low, high, color=style.colour, alpha=0.1, linewidth=0)
        axes.set_xticks(range(len(given)), [str(n) for n in given])
        axes.set_xlabel("ratings given")
        axes.set_ylabel("RMSE")

    told = "; ".join(
        f"{each} " + ", ".join(f"{row['rmse']:.4f} with {row['given']}" for _, row in points)
        for each, points in curves.items()
    )
    return picture(title, f"{about} Bands are 95 % intervals. {told}.", draw, key)
