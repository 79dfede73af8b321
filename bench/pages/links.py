"""The section of `bench.links`: what a fit on several processes sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.figures import Picture
from bench.pages import plots, words
from bench.section import NOTHING, Cell, Column, Row, Section, Table, machine_lines, number, text

Json = dict[str, Any]

COLUMNS = (
    Column("Q", numeric=False),
    *map(Column, ("processes", "ms an iteration", "middle half", "M ratings/s", "a process sends, MB")),
    *map(Column, ("loopback, all, MB", "rows of Q a process keeps", "items touched")),
)
METHOD = (
    "Everything is of one iteration. What a process sends is counted where it is handed over, an all-reduce as a ring; "
    "the loopback is what all processes together put on it, headers too. Q is replicated on each process, goes round "
    "in a ring, or is gathered and scattered by DTensor, whose transfers are its own and not counted. Items touched: "
    "the share of all items that a process's ratings touch, so what an exchange of needed rows alone would still send.",
    "Each process has one thread; processes that share cores show what is sent, not how well they scale.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    problem = result["problem"]
    return Section(
        kind="What several processes send",
        data="",
        verdict=_verdict(result["rows"]),
        about=f"{words.sizes(problem)}; K = {problem['n_factors']}, {problem['dtype']}.",
        table=Table(COLUMNS, tuple(map(_row, result["rows"]))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(result["rows"])),
        warnings=words.notices(result),
        hint="ring, replicated",
    )


def _verdict(rows: list[Json]) -> str:
    counting = [row for row in rows if row["wire_bytes"] is not None and row["timing"]]
    if not counting:
        return "no transfer was counted."
    most = max(row["processes"] for row in counting)
    here = [f"{row['wire_bytes'] / 1e6:.2f} MB ({row['form']})" for row in counting if row["processes"] == most]
    return f"in an iteration {most} process{'es' * (most > 1)} together put {words.listed(here)} on the loopback."


def _row(row: Json) -> Row:
    begin = text(row["form"]), number(row["processes"])
    if row["timing"] is None:
        return Row(begin, words.reason(row), off=True)
    sent = [number(None if row[key] is None else row[key] / 1e6, ".2f") for key in ("sent_bytes", "wire_bytes")]
    kept = number(row["item_rows"], ","), _share(row["touched_share"])
    return Row((*begin, *words.timed(row["timing"]), *sent, *kept), words.reason(row))


def _share(share: float | None) -> Cell:
    return NOTHING if share is None else Cell(f"{share:.0%}", share)


def _pictures(rows: list[Json]) -> Iterator[Picture]:
    forms = list(dict.fromkeys(row["form"] for row in rows))
    sent = [plots.Curve(form, _of(rows, form, "wire_bytes")) for form in forms]
    sent = [curve for curve in sent if curve.points]
    if sent:
        yield plots.growth(
            "What all processes send against their number", sent, x="processes", y="MB on the loopback",
            key="links-sent", about="Megabytes of an iteration on the loopback.", unit=" MB",
        )  # fmt: skip
    timed = [plots.Curve(form, _of(rows, form, "timing")) for form in forms]
    timed = [curve for curve in timed if curve.points]
    if timed:
        yield plots.growth(
            "Time against the number of processes", timed, x="processes", y="ms an iteration", key="links-time",
            about="Milliseconds of the median iteration, on cores that the processes share.", unit=" ms",
        )  # fmt: skip


def _of(rows: list[Json], form: str, key: str) -> list[tuple[float, float]]:
    found = [(row["processes"], row[key]) for row in rows if row["form"] == form and row[key]]
    return sorted((n, value["median_ms"] if key == "timing" else value / 1e6) for n, value in found)
