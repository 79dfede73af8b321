"""The section of `bench.search`: the best points of each solver, and how many were tried."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.pages import words
from bench.section import NOTHING, Column, Row, Section, Table, machine_lines, number, significant, text

Json = dict[str, Any]

SHOWN = 50
"""Points of each solver that have a row."""
METHOD = (
    "The data are the first test's training ratings of a protocol, a tenth of which is held out once more; tests are "
    "not looked at. A point is one fit with all threads, scored as a user gets it: a sampler by the draws that it "
    "keeps. The solver that has had less time has the next turn, until the time is spent. tpe is Optuna's Parzen "
    "estimator, random draws points by NumPy; what either proposes follows from the seed and the solver's points so "
    "far.",
    f"Of each solver the best {SHOWN} points have a row; the result that this page carries has all.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    problem, search = result["problem"], result["search"]
    names = list(dict.fromkeys(name for space in search["spaces"].values() for name in space))
    columns = (
        Column("solver", numeric=False),
        *(Column("K" if name == "n_factors" else name) for name in names),
        *map(Column, ("RMSE", "seconds")),
        Column("ended", numeric=False),
    )
    return Section(
        kind="Settings by a search",
        data=problem["data"],
        verdict=_verdict(result),
        about=f"{words.sizes(problem)} fitted; {problem['n_valid']:,} held out; {search['sampler']} with seed "
        f"{search['seed']}, {search['seconds']:g} s.",
        table=Table(columns, tuple(_row(case, names) for case in _ranked(result))),
        machine=machine_lines(result),
        method=METHOD,
        warnings=words.notices(result),
        hint="gibbs",
    )


def _verdict(result: Json) -> str:
    said = []
    for row in result["rows"]:
        if row["best"] is not None:
            rmse = result["cases"][row["best"]]["rmse"]
            said.append(f"of {row['points']} points in {row['seconds']:.0f} s the best is {row['best']}: {rmse:.4f}")
    return "; ".join(said) + "." if said else "nothing was fitted."


def _ranked(result: Json) -> list[Json]:
    """The best of each solver, from the lowest RMSE; what diverged comes last."""
    ranked, shown = sorted(result["cases"].values(), key=lambda case: (case["rmse"] is None, case["rmse"])), []
    left = Counter({row["solver"]: SHOWN for row in result["rows"]})
    for case in ranked:
        if left[case["solver"]]:
            left[case["solver"]] -= 1
            shown.append(case)
    return shown


def _row(case: Json, names: list[str]) -> Row:
    settings = case["settings"]
    return Row(
        (
            text(case["solver"]),
            *(number(settings[name], "g") if name in settings else NOTHING for name in names),
            number(case["rmse"], ".4f"),
            significant(case["seconds"]),
            text(case["status"]),
        )
    )
