"""Tables of an accuracy page that some will look for: what each system is, and which differences are sure."""

from __future__ import annotations

import statistics
from typing import Any

from bench.accuracy import ranked

Json = dict[str, Any]

SURE = 0.05
"""Adjusted p-value below which a difference is no chance."""

ABOUT = (
    "system",
    "version",
    "licence",
    "precision",
    "threads",
    "installed, MiB",
    "tuned, s",
    "joules of a fit",
    "method",
)


def about(result: Json) -> list[list[str]]:
    """A line a system under `ABOUT`: what it is, and what it took to tune."""
    return [
        [
            row["system"],
            row["version"] or "–",
            row["licence"] or "–",
            row["precision"] or "–",
            str(row["threads"] or "–"),
            "–" if row["install_mib"] is None else f"{row['install_mib']:,}",
            f"{_tuning(result, row):.0f}",
            _joules(row),
            row["method"] or "this project",
        ]
        for row in ranked(result)
    ]


def matrix(result: Json) -> list[tuple[str, list[str]]]:
    """Every system with its RMSE less that of each other, the best first; empty where it may be chance."""
    names = [row["system"] for row in ranked(result)]
    rmse = {row["system"]: float(row["rmse"]) for row in ranked(result)}
    sure = {frozenset((pair["a"], pair["b"])) for pair in result["pairs"] if pair["rmse"]["adjusted"] < SURE}
    return [
        (name, [f"{rmse[name] - rmse[other]:+.4f}" if frozenset((name, other)) in sure else "" for other in names])
        for name in names
    ]


def sure_of(result: Json) -> str:
    """One sentence on the matrix."""
    found = result["pairs"]
    sure = sum(pair["rmse"]["adjusted"] < SURE for pair in found)
    mae = sum(pair["mae"]["adjusted"] < SURE for pair in found)
    return (
        f"Of {len(found)} pairs of systems {sure} differ surely in RMSE and {mae} in MAE: paired over the same draws "
        f"of users, p below {SURE} after Holm's adjustment for all pairs. Line less "
        "column; what may be chance is left empty."
    )


def _tuning(result: Json, row: Json) -> float:
    """Seconds that trying the grid took, the start of each process included."""
    return sum(
        float(one.get("wall_s", 0.0))
        for key, one in result["cases"].items()
        if key.startswith(f"{row['system']}, point ")
    )


def _joules(row: Json) -> str:
    found = [one["joules"] for one in row["folds"] if one.get("joules") is not None]
    return f"{statistics.median(found):.3g}" if found else "–"
