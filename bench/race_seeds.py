"""A race of several seeds: which of them a system can be given, and what its turns come to.

A turn that never reaches its target lasts longer than any that does. Of three seeds and more the best and the worst
are dropped: the median stays where it was, and the range is that of the others.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

from bench.peers import registry

Json = dict[str, Any]

UNSEEDED = {
    "one thread": (
        "a seed would force one thread, so it draws another start each time, which nobody can draw again",
        "给定种子会使其只用一个线程，因此每次另取起点，无法重现",
    ),
    "none": (
        "it takes no seed and starts the same each time: its turns differ by how its threads meet",
        "它不接受种子，每次起点相同：各次的差别只来自线程的先后",
    ),
}
"""Why a peer is given no seed, in English and in Chinese."""


def given(peer: str, number: int, threads: int) -> tuple[int | None, str | None]:
    """The seed that a system is given for a number from 0, and of `UNSEEDED` the key that says why it gets none.

    Args:
        peer: its name in the registry; empty of one of ours.
        threads: what it runs with; a seed that forces one thread forces nothing on one.
    """
    how = registry.find(peer).seeding if peer else "honoured"
    if how == "none" or (how == "one thread" and threads > 1):
        return None, how
    return number, None


def settled(seeds: list[Json]) -> Json:
    """What the turns of every seed come to.

    Args:
        seeds: {seed, seconds}, the seconds by round, None of a turn that did not reach the target.

    Returns:
        ``median_s`` over the seeds' medians, None where half of them or more do not reach the target, and ``range_s``,
        [low, high] over those that are kept: None of one seed, and ``high`` is None where one of them gets nowhere.
    """
    turns = [[math.inf if s is None else float(s) for s in one["seconds"]] for one in seeds if one["seconds"]]
    medians = sorted(statistics.median(seconds) for seconds in turns)
    if not medians:
        return {"median_s": None, "range_s": None}
    kept = medians[1:-1] if len(medians) > 2 else medians
    median, low, high = (x if math.isfinite(x) else None for x in (statistics.median(kept), kept[0], kept[-1]))
    return {"median_s": median, "range_s": [low, high] if len(medians) > 1 and low is not None else None}


def missed(seeds: list[Json]) -> str | None:
    """How many turns did not reach the target, in words; None where all did."""
    turns = [seconds for one in seeds for seconds in one["seconds"]]
    short = sum(seconds is None for seconds in turns)
    return f"{short} of {len(turns)} turns did not reach it" if short else None


def notes(times: list[Json]) -> list[str]:
    """A sentence for each system that was given no seed."""
    without = {row["system"]: row["seeding"] for row in times if row["seeding"]}
    return [f"{system}: {UNSEEDED[how][0]}" for system, how in without.items()]
