"""The page of how good every system is: a table that sorts and filters, and figures; one section a protocol."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import Any

from bench import accuracy, accuracy_details, report
from bench.accuracy import ranked
from bench.race import in_words
from bench.result import clean, to_text
from mf_numpy.errors import FileFormatError, counted

Json = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the table; one that is numeric is aligned to the right."""

    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the number it is sorted by."""

    text: str
    value: float | None = None


COLUMNS = (
    Column("system", numeric=False),
    Column("test RMSE"),
    Column("95 % interval"),
    Column("above the best"),
    Column("MAE"),
    Column("RMSE, all pairs"),
    Column("fit, s"),
    Column("peak MiB"),
    Column("settings", numeric=False),
)


def render(results: list[Json]) -> str:
    """The page of one or more results of `bench.accuracy`, a section each. Needs jinja2 and matplotlib.

    Raises:
        ImportError: one of them is not installed.
        FileFormatError: a run that was killed before it had judged anything.
    """
    for one in results:
        if not one["systems"]:
            raise FileFormatError(
                f"the run of {one['protocol']['name']} was killed after {counted(len(one['cases']), 'fit')}; "
                "go on with run --resume, which judges it"
            )
    results = [json.loads(to_text(clean(one))) for one in results]
    held = results[0] if len(results) == 1 else {"schema": accuracy.SCHEMA, "results": results}
    return report.page(
        "accuracy.html.j2",
        held,
        columns=COLUMNS,
        about=accuracy_details.ABOUT,
        version=accuracy.VERSION,
        sections=[_section(one) for one in results],
    )


def _section(result: Json) -> Json:
    from bench import accuracy_figures

    scored = ranked(result)
    return {
        "title": result["identity"]["protocol"],
        "verdict": verdict(result),
        "about": _about(result),
        "warnings": [] if result["complete"] else ["The run was cut short: systems that lack a test have no line."],
        "rows": [_row(row) for row in scored] + _yardsticks(result),
        "missing": [row for row in result["systems"] if row["rmse"] is None],
        "pictures": accuracy_figures.pictures(result),
        "details": accuracy_details.about(result),
        "sure": accuracy_details.sure_of(result),
        "matrix": accuracy_details.matrix(result),
        "machine": report.machine_lines(result),
    }


def verdict(result: Json) -> str:
    """What the run found, in one sentence."""
    scored = ranked(result)
    name = result["identity"]["protocol"]
    if not scored:
        return f"{name}: no system has been scored on every test."
    best, mine = scored[0], next((row for row in scored if ours(row)), None)
    low, high = best["interval"]
    text = f"{name}: {best['system']} has the lowest test RMSE, {best['rmse']:.4f} ({low:.4f} to {high:.4f})"
    if mine is not None and mine is not best:
        low, high = mine["behind"]["interval"]
        sure = "" if low > 0 else ", which may be chance"
        text += (
            f"; {mine['system']}, the best of ours, is {mine['rmse'] - best['rmse']:.4f} above it "
            f"({low:.4f} to {high:.4f}){sure}"
        )
    elif len(scored) > 1:
        second = scored[1]
        sure = "" if second["behind"]["interval"][0] > 0 else ", which may be chance"
        text += f", {second['rmse'] - best['rmse']:.4f} below {second['system']}{sure}"
    return text + "."


def ours(row: Json) -> bool:
    """Whether a row is of one of our packages."""
    return str(row["system"]).startswith("mf_")


def _about(result: Json) -> str:
    tests = result["tests"]
    sizes = f"{len(tests)} tests" if len(tests) > 1 else "one test"
    scored = sum(test["n_scored"] for test in tests)
    cold = sum(test["n_cold"] for test in tests)
    users, items = tests[0]["n_users"], tests[0]["n_items"]
    return (
        f"{sizes}, {scored:,} pairs scored and {cold:,} cold; {tests[0]['n_train']:,} training ratings of {users:,} "
        f"users and {items:,} items; {len(ranked(result))} systems scored, by {result['identity']['threads']} threads."
    )


def _row(row: Json) -> Json:
    low, high = row["interval"]
    behind = row["behind"]
    above = Cell("the best", 0.0)
    if behind is not None:
        least, most = behind["interval"]
        above = Cell(f"{least:+.4f} to {most:+.4f}", (least + most) / 2)
    peaks = [one["peak_bytes"] for one in row["folds"] if one["peak_bytes"]]
    peak = max(peaks, default=None)
    best = row["tuned"]
    cells = [
        Cell(row["system"]),
        Cell(f"{row['rmse']:.4f}", row["rmse"]),
        Cell(f"{low:.4f} to {high:.4f}", low),
        above,
        Cell(f"{row['mae']:.4f}", row["mae"]),
        Cell(f"{row['rmse_all']:.4f}", row["rmse_all"]),
        Cell(f"{row['seconds']:.3g}", row["seconds"]),
        Cell("–") if peak is None else Cell(f"{peak / 2**20:,.0f}", peak),
        Cell(f"{in_words(best['settings'])}, {best['epochs']} epochs; {len(best['tried'])} tried"),
    ]
    return {"off": False, "cells": cells}


def _yardsticks(result: Json) -> list[Json]:
    """Lines of what needs no factors, and of the best that can be."""
    tests = result["tests"]
    found = {kind: [test["baselines"][kind] for test in tests] for kind in tests[0]["baselines"]}
    found["noise floor"] = [test["noise_floor"] for test in tests if test["noise_floor"] is not None]
    rest = [Cell("–")] * (len(COLUMNS) - 2)
    return [
        {"off": True, "cells": [Cell(kind), Cell(f"{statistics.mean(values):.4f}", statistics.mean(values)), *rest]}
        for kind, values in found.items()
        if values
    ]
