"""Words that the sections of several kinds of results share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench import machine
from bench.section import Cell, number, significant
from mf_numpy.errors import counted

Json = dict[str, Any]


def sizes(problem: Json) -> str:
    """How many ratings, users and items."""
    return f"{problem['n_ratings']:,} ratings, {problem['n_users']:,} users, {problem['n_items']:,} items"


def notices(result: Json) -> tuple[str, ...]:
    """What a reader must know first: that a run was cut short, or that other programs disturbed it."""
    busy = [result.get("others_busy_cores"), *(row.get("others_busy_cores") for row in result["rows"])]
    short = [] if result["complete"] else ["The run was cut short: what was measured until then is shown."]
    return (*short, *machine.disturbance(max((one for one in busy if one is not None), default=None)))


def reason(row: Json) -> str:
    """Why a row has nothing to show, or lacks a round."""
    return "" if row["status"] == "ok" else f"{row['status']}: {row['reason']}"


def ordered(values: Iterable[Any]) -> list[Any]:
    """Each value once, from the smallest."""
    return sorted(set(values))


def listed(values: Iterable[object]) -> str:
    """``1, 2 and 3``."""
    texts = [str(value) for value in values]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def span(values: Iterable[float], form: str = ".3g") -> str:
    """``0.8–1.2``: from the least to the most, or the one value that there is."""
    found = list(values)
    low, high = (format(pick(found), form) for pick in (min, max))
    return low if low == high else f"{low}–{high}"


def threads(n: int) -> str:
    """``1 thread``, ``2 threads``."""
    return counted(n, "thread")


def timed(timing: Json) -> tuple[Cell, Cell, Cell]:
    """Median in ms, middle half, and M ratings/s."""
    middle = f"{significant(timing['q1_ms']).text}–{significant(timing['q3_ms']).text}"
    rate = significant(timing["ratings_per_s"] / 1e6)
    return significant(timing["median_ms"]), Cell(middle, timing["q1_ms"]), rate


def times(found: Json | None) -> Cell:
    """A ratio with its quartiles."""
    if found is None:
        return number(None)
    # One round has no spread.
    spread = "" if found["low"] == found["high"] else f" ({found['low']:.2f}–{found['high']:.2f})"
    return Cell(f"{found['ratio']:.2f}{spread}", found["ratio"])
