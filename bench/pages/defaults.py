"""The section of `bench.defaults`: what the solvers' defaults are worth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.defaults import beside, difference
from bench.figures import Picture
from bench.pages import plots, words
from bench.section import Cell, Column, Row, Section, Table, machine_lines, number, significant, text

Json = dict[str, Any]

COLUMNS = (
    *(Column(name, numeric=False) for name in ("data", "solver", "step rule", "setting")),
    *map(Column, ("value", "K", "RMSE", "over the default's", "epochs", "seconds")),
    Column("ended", numeric=False),
)
METHOD = (
    "One setting is moved at a time, all others being the solver's defaults. Fitted is what is left of the training "
    "side of the data after a tenth of it is held out for this; the test side of other benchmarks is not looked at. "
    "RMSE is that after the last epoch, as a user gets it who gives nothing but the data.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    problems = result["problems"]
    return Section(
        kind="What the defaults are worth",
        data="",
        verdict=_verdict(result["rows"]),
        about="; ".join(
            f"{one['data']}: {one['n_train']:,} ratings fitted and {one['n_valid']:,} held out" for one in problems
        )
        + ".",
        table=Table(COLUMNS, tuple(_rows(result["rows"]))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(result)),
        warnings=words.notices(result),
        hint="sgd lr ml-1m",
    )


def _verdict(rows: list[Json]) -> str:
    gains = [
        (other["rmse"] - row["rmse"], row, other)
        for row, others in beside(rows)
        for other in others
        if row["rmse"] is not None and other["rmse"] is not None
    ]
    if not gains:
        return "no default was scored beside another value."
    change, row, other = min(gains, key=lambda gain: gain[0])
    better = sum(one < 0 for one, _, _ in gains)
    name = f"{row['solver']}, {row['setting']} {other['value']:g} for {row['value']:g} on {row['data']}"
    return (
        f"{better} of {len(gains)} other values lower the held-out RMSE of their default; the largest change for the "
        f"better is {change:+.4f} ({name})."
    )


def _rows(rows: list[Json]) -> Iterator[Row]:
    before = None
    for row, others in beside(rows):
        for one in sorted([row, *others], key=lambda one: float(one["value"])):
            over = text("default") if one is row else Cell(difference(one, row), _over(one, row))
            yield Row(
                (
                    *(text(one[key]) for key in ("data", "solver", "step_rule", "setting")),
                    number(one["value"], "g"),
                    number(one["n_factors"]),
                    number(one["rmse"], ".4f"),
                    over,
                    number(one["epochs"]),
                    significant(one["seconds"]),
                    text(one["status"]),
                ),
                apart=before not in (None, (row["data"], row["solver"])),
            )
            before = row["data"], row["solver"]


def _over(other: Json, row: Json) -> float | None:
    return None if None in (other["rmse"], row["rmse"]) else other["rmse"] - row["rmse"]


def _pictures(result: Json) -> Iterator[Picture]:
    for data in dict.fromkeys(row["data"] for row in result["rows"]):
        lines = []
        for row, others in beside([row for row in result["rows"] if row["data"] == data]):
            rule = "" if row["step_rule"] == "momentum" else f" {row['step_rule']}"
            found = [(one, _over(one, row)) for one in others]
            # Which way the value was moved is what a mark can say; the value itself stands in the table.
            points = [
                ("a smaller value" if one["value"] < row["value"] else "a larger value", 1e3 * over)
                for one, over in found
                if over is not None
            ]
            lines.append((f"{row['solver']}{rule}, {row['setting']}", points))
        told = "; ".join(
            f"{name} {min(over for _, over in points):+.1f} to {max(over for _, over in points):+.1f}"
            for name, points in lines
            if points
        )
        yield plots.dots(
            f"What other values add to the RMSE: {data}", lines, x="thousandths over the default's RMSE",
            key=f"defaults-{data}", beside=0.0,
            about=f"Thousandths that another value adds to the held-out RMSE of the default: {told}.",
        )  # fmt: skip
