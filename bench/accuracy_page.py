"""The page of how good every system is: a table that sorts and filters, and figures; one section a protocol."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench import accuracy_details, grid_ends, section
from bench.accuracy_rows import ranked
from bench.race import in_words
from bench.result import clean, to_text
from bench.section import NOTHING, Cell, Column, Row, Section, Table, mib, number
from mf_numpy.errors import FileFormatError, counted

if TYPE_CHECKING:
    from bench.figures import Picture

Json = dict[str, Any]

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


METHOD = (
    "Every system gets the same encoded ids and hands predictions back over a file; one scorer clips them to the "
    "rating scale and scores them. Pairs with a side that has no training rating are shown to none, and counted in "
    "RMSE of all pairs alone, predicted by the training mean.",
    "Each system is tuned over a grid of its own: nine tenths of the first test's training ratings to learn from, one "
    "tenth to choose settings and number of epochs by. What it chooses goes to every test unchanged, trained on all of "
    "that test's training ratings, and each test is scored once. What was chosen at the end of its grid might be "
    "better still on a wider one. While tuning, as many fits run beside each other as there are threads, each by one; "
    "a test's fit has all of them to itself. All that was tried is in the JSON.",
    "Intervals are of 95 %, by a bootstrap that draws users with replacement, since the errors of one user hang "
    "together. All systems are scored with the same draws, so that a difference between two is paired: it can be sure "
    "where both intervals overlap. Seconds are of training alone, the median over the tests.",
)


def render(results: list[Json]) -> str:
    """The page of one or more results of `bench.accuracy`, a section each. Needs jinja2 and matplotlib.

    Raises:
        ImportError: one of them is not installed.
        FileFormatError: a run that was killed before it had judged anything.
    """
    results = [json.loads(to_text(clean(one))) for one in results]
    return section.html([part(one) for one in results], section.held(results))


def part(result: Json) -> Section:
    """The result's section of a page.

    Raises:
        FileFormatError: a run that was killed before it had judged anything.
    """
    if not result["systems"]:
        raise FileFormatError(
            f"the run of {result['protocol']['name']} was killed after {counted(len(result['cases']), 'fit')}; "
            "go on with run --resume, which judges it"
        )

    def draw() -> Sequence[Picture]:
        from bench import accuracy_figures

        return accuracy_figures.pictures(result)

    missing = [
        f"{row['system']} ({row['status']}: {row['reason']})" for row in result["systems"] if row["rmse"] is None
    ]
    return Section(
        kind="Accuracy, ours and others'",
        data=result["identity"]["protocol"],
        verdict=verdict(result),
        about=_about(result),
        table=Table(COLUMNS, (*(_row(result, row) for row in ranked(result)), *_yardsticks(result))),
        machine=section.machine_lines(result),
        method=METHOD,
        draw=draw,
        warnings=() if result["complete"] else ("The run was cut short: systems that lack a test have no line.",),
        notes=(f"Without a score: {'; '.join(missing)}.",) if missing else (),
        folds=accuracy_details.folds(result),
        hint="mf_numpy, Cornac",
    )


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


def _row(result: Json, row: Json) -> Row:
    low, high = row["interval"]
    behind = row["behind"]
    above = Cell("the best", 0.0)
    if behind is not None:
        least, most = behind["interval"]
        above = Cell(f"{least:+.4f} to {most:+.4f}", (least + most) / 2)
    best = row["tuned"]
    said = [f"{in_words(best['settings'])}, {best['epochs']} epochs", f"{len(best['tried'])} tried"]
    at_end = grid_ends.ends(result, row)
    if at_end:
        said.append(f"at the end of its grid: {at_end}")
    return Row(
        (
            Cell(row["system"]),
            number(row["rmse"], ".4f"),
            Cell(f"{low:.4f} to {high:.4f}", low),
            above,
            number(row["mae"], ".4f"),
            number(row["rmse_all"], ".4f"),
            number(row["seconds"], ".3g"),
            mib(max((one["peak_bytes"] for one in row["folds"] if one["peak_bytes"]), default=None)),
            Cell("; ".join(said)),
        )
    )


def _yardsticks(result: Json) -> list[Row]:
    """Lines of what needs no factors, and of the best that can be."""
    tests = result["tests"]
    found = {kind: [test["baselines"][kind] for test in tests] for kind in tests[0]["baselines"]}
    found["noise floor"] = [test["noise_floor"] for test in tests if test["noise_floor"] is not None]
    rest = [NOTHING] * (len(COLUMNS) - 2)
    return [
        Row((Cell(kind), number(statistics.mean(values), ".4f"), *rest), off=True)
        for kind, values in found.items()
        if values
    ]
