"""Whether what tuning chose lies at the end of its grid, so that a wider grid might do better still."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.race import in_words

Json = dict[str, Any]


def ends(result: Json, row: Json) -> str:
    """What of a system's best point is the least or the most that was tried, ``reg 0.13, 100 epochs``, or nothing.

    A setting that has one value in all points was not tuned, and has no ends; nor is there less than one epoch.

    Args:
        result: of `bench.accuracy`.
        row: one of its systems that was tuned.
    """
    best = row["tuned"]
    tried = [one["settings"] for one in best["tried"]]
    found = {name: value for name, value in best["settings"].items() if _at_end(value, (one[name] for one in tried))}
    planned = next(one["epochs"] for one in result["identity"]["systems"] if one["system"] == row["system"])
    said = [in_words(found)] if found else []
    if _at_end(best["epochs"], planned) and best["epochs"] > 1:
        said.append(f"{best['epochs']} epochs")
    return ", ".join(said)


def _at_end(value: float, values: Iterable[float]) -> bool:
    seen = set(values)
    return len(seen) > 1 and value in (min(seen), max(seen))
