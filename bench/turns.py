"""Systems that take turns, each turn a process of its own: their rounds put together, and ratios between them."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import numpy as np

from bench import machine, result
from bench.cases import Case
from bench.launch import Json, Launch


def take(launch: Launch, case: Case, order: Json, folder: Path) -> Json:
    """A turn's outcome, with the cores that other programs held meanwhile."""
    began = machine.clock()
    outcome, _ = launch(case, order, folder)
    return outcome | {"others_busy_cores": machine.others_busy(began, machine.clock())}


def merged(outcomes: list[Json], n_ratings: int) -> Json:
    """What all rounds of a system say; a round that failed is the reason.

    Returns:
        {status, reason, samples_ms (by round), timing (None for fewer than two samples), about, others_busy_cores}.
    """
    failed = next((outcome for outcome in outcomes if outcome["status"] != "ok"), None)
    verdict = {"status": "ok", "reason": None} if failed is None else {k: failed[k] for k in ("status", "reason")}
    rounds = [outcome["samples_ms"] for outcome in outcomes if outcome["status"] == "ok"]
    busy = [outcome.get("others_busy_cores") for outcome in outcomes]
    flat = [ms for samples in rounds for ms in samples]
    return verdict | {
        "samples_ms": rounds,
        "timing": result.timing(flat, n_ratings) if len(flat) > 1 else None,
        "about": outcomes[-1].get("about"),
        "others_busy_cores": max((b for b in busy if b is not None), default=None),
    }


def ratio(mine: Json, other: Json) -> Json:
    """How many times as long the other's median takes; low and high are its quartiles over all pairs of rounds."""
    medians = [[statistics.median(samples) for samples in row["samples_ms"]] for row in (mine, other)]
    pairs = [b / a for a, b in itertools.product(*medians)]
    low, high = (float(np.quantile(pairs, q)) for q in (0.25, 0.75))
    return {"ratio": other["timing"]["median_ms"] / mine["timing"]["median_ms"], "low": low, "high": high}
