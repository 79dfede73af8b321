"""Further tables of an accuracy page: what each system is and took, and which differences between two are sure."""

from __future__ import annotations

import statistics
from typing import Any

from bench.accuracy_rows import ranked
from bench.section import NOTHING, Cell, Column, Fold, Row, Table

Json = dict[str, Any]

SURE = 0.05
"""Adjusted p-value below which a difference is no chance."""

ABOUT = (
    *(Column(title, numeric=False) for title in ("system", "version", "licence", "precision")),
    *map(Column, ("threads", "installed, MiB", "tuned, s", "joules")),
    Column("method", numeric=False),
)


def folds(result: Json) -> tuple[Fold, ...]:
    """What few need and some will look for; nothing of a run that scored nobody."""
    scored = ranked(result)
    if not scored:
        return ()
    rows = tuple(_about(result, row) for row in scored)
    return (
        Fold(
            "What each system is",
            "Seconds of tuning are those of the whole grid, processes included. Threads are busy for as many processor "
            "seconds as a second of training took.",
            Table(ABOUT, rows),
        ),
        Fold("Which differences are sure", sure_of(result), matrix(result)),
    )


def _about(result: Json, row: Json) -> Row:
    joules = [one["joules"] for one in row["folds"] if one.get("joules") is not None]
    tuned = sum(
        float(one.get("wall_s", 0.0))
        for key, one in result["cases"].items()
        if key.startswith(f"{row['system']}, point ")
    )
    words = [Cell(str(row[name])) if row[name] else NOTHING for name in ("version", "licence", "precision")]
    return Row(
        (
            Cell(row["system"]),
            *words,
            _threads(row["threads"]),
            NOTHING if row["install_mib"] is None else Cell(f"{row['install_mib']:,}", row["install_mib"]),
            Cell(f"{tuned:.0f}", tuned),
            Cell(f"{statistics.median(joules):.3g}") if joules else NOTHING,
            Cell(row["method"] or "this project"),
        )
    )


def _threads(threads: int | Json | None) -> Cell:
    """Of ours how many, of a peer how many it says it set and how many of them worked."""
    if isinstance(threads, dict):
        return Cell(f"{threads['set']}, {threads['busy']:.1f} busy")
    return Cell(str(threads)) if threads else NOTHING


def matrix(result: Json) -> Table:
    """Every system's RMSE less that of each other, the best first; an empty cell where it may be chance."""
    rmse = {row["system"]: float(row["rmse"]) for row in ranked(result)}
    sure = {frozenset((pair["a"], pair["b"])) for pair in result["pairs"] if pair["rmse"]["adjusted"] < SURE}

    def cell(name: str, other: str) -> Cell:
        return Cell(f"{rmse[name] - rmse[other]:+.4f}" if frozenset((name, other)) in sure else "")

    columns = (Column("RMSE of", numeric=False), *(Column(f"less {k + 1}") for k in range(len(rmse))))
    rows = (Row((Cell(f"{k + 1} {name}"), *(cell(name, other) for other in rmse))) for k, name in enumerate(rmse))
    return Table(columns, tuple(rows))


def sure_of(result: Json) -> str:
    """One sentence on the matrix."""
    found = result["pairs"]
    sure, mae = (sum(pair[measure]["adjusted"] < SURE for pair in found) for measure in ("rmse", "mae"))
    return (
        f"Of {len(found)} pairs of systems {sure} differ surely in RMSE and {mae} in MAE: paired over the same draws "
        f"of users, p below {SURE} after Holm's adjustment for all pairs. Line less column; what may be chance is "
        "left empty."
    )
