"""How far a run with a known plan is, and how long the rest may take, by the steps that are done."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Json = dict[str, Any]


class Step(Protocol):
    """A case of a plan."""

    @property
    def key(self) -> str:
        """Its name in the file, where its outcome has ``wall_s``."""

    @property
    def kind(self) -> str:
        """Steps of one kind take alike."""

    @property
    def work(self) -> float:
        """What the seconds of a kind grow with."""


def said(steps: Sequence[Step], cases: Mapping[str, Json]) -> str:
    """The place of the next step, and the time that is left: ``3 of 40, about 5 min left``."""
    done = sum(step.key in cases for step in steps)
    seconds = left(steps, cases)
    about = "" if seconds is None else f", about {max(1, round(seconds / 60))} min left"
    return f"{done + 1} of {len(steps)}{about}"


def left(steps: Sequence[Step], cases: Mapping[str, Json]) -> float | None:
    """Seconds that the steps without a case may take; None before any is done."""
    took: dict[str, list[tuple[float, float]]] = {}
    for step in steps:
        if step.key in cases:
            took.setdefault(step.kind, []).append((step.work, cases[step.key]["wall_s"]))
    every = [one for known in took.values() for one in known]
    if not every:
        return None
    return sum(_expected(took.get(step.kind, every), step.work) for step in steps if step.key not in cases)


def _expected(known: list[tuple[float, float]], work: float) -> float:
    """Seconds of so much work: on the line through those that are known, or their mean where all did the same."""
    works, seconds = [one[0] for one in known], [one[1] for one in known]
    mean = statistics.mean(seconds)
    if min(works) == max(works):
        return mean
    slope = max(0.0, float(np.polyfit(works, seconds, 1)[0]))
    return max(min(seconds), mean + slope * (work - statistics.mean(works)))
