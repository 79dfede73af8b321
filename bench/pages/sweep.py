"""The section of `bench.sweep`: what other values of the kernels' constants would do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.figures import Picture
from bench.pages import plots, words
from bench.section import Column, Row, Section, Table, machine_lines, number, text

Json = dict[str, Any]

COLUMNS = (
    Column("kernel", numeric=False),
    Column("constant", numeric=False),
    *map(Column, ("value", "K", "threads", "ms a call", "middle half", "M ratings/s", "speed over the chosen")),
)
METHOD = (
    "Each value is measured in a process of its own, which compiles the kernels with it; processes take turns, round "
    "by round; float32. The median of all calls counts. Above 1 the other value would be faster than the chosen one.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    return Section(
        kind="Constants of the kernels",
        data=result["problem"]["data"],
        verdict=_verdict(result["rows"]),
        about=f"{words.sizes(result['problem'])}.",
        table=Table(COLUMNS, tuple(_rows(result["rows"]))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(result["rows"])),
        warnings=words.notices(result),
        hint="SIDE 64",
    )


def _others(rows: list[Json]) -> list[Json]:
    return [row for row in rows if row["ratio"] is not None and not row["chosen"]]


def _verdict(rows: list[Json]) -> str:
    found = _others(rows)
    if not found:
        return "no other value was measured."
    best = max(found, key=lambda row: float(row["ratio"]))
    worst = min(found, key=lambda row: float(row["ratio"]))
    gain, loss = (
        f"{row['ratio']:.2f} times as fast as the chosen ({row['constant']} = {row['value']:,}, "
        f"K = {row['n_factors']}, {words.threads(row['threads'])})"
        for row in (best, worst)
    )
    return f"of {len(found)} measurements of another value the best is {gain}, the worst {loss}."


def _rows(rows: list[Json]) -> Iterator[Row]:
    before = None
    for row in rows:
        names = text(row["kernel"]), text(row["constant"])
        begin = *names, *(number(row[key], ",") for key in ("value", "n_factors", "threads"))
        apart = before not in (None, row["constant"])
        before = row["constant"]
        if row["timing"] is None:
            yield Row(begin, words.reason(row), off=True, apart=apart)
            continue
        ratio = text("chosen") if row["chosen"] else number(row["ratio"], ".2f")
        yield Row((*begin, *words.timed(row["timing"]), ratio), words.reason(row), apart=apart)


def _pictures(rows: list[Json]) -> Iterator[Picture]:
    found = _others(rows)
    for n in words.ordered(row["threads"] for row in found)[::-1]:
        here = [row for row in found if row["threads"] == n]
        keys = dict.fromkeys((row["constant"], row["value"]) for row in here)
        lines = [
            (
                f"{constant} = {value:,}",
                [
                    (f"K = {row['n_factors']}", row["ratio"])
                    for row in here
                    if (row["constant"], row["value"]) == (constant, value)
                ],
            )
            for constant, value in keys
        ]
        told = "; ".join(f"{name}: " + ", ".join(f"{k} {ratio:.2f}" for k, ratio in points) for name, points in lines)
        yield plots.dots(
            f"Speed with another value, {words.threads(n)}", lines, x="speed over that with the chosen value",
            key=f"sweep-{n}", beside=1.0,
            about=f"Speed with another value of a constant over that with the chosen one, the dotted line. {told}.",
        )  # fmt: skip
