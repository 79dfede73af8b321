"""A run with a known plan: its steps one after the other, how far it is, and how long the rest may take."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from bench.journal import Journal

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


S = TypeVar("S", bound=Step)


def worked_off(
    steps: Sequence[S],
    journal: Journal,
    carry_out: Callable[[S], None],
    judged: Callable[[], Json],
    say: Callable[[str], None],
) -> Json:
    """Carry out what a journal lacks, then judge all of it; Ctrl-C keeps, and judges, what is done.

    Args:
        carry_out: does a step, and keeps its outcome in the journal.
        judged: what is made of the outcomes.
    """
    if journal.outcome["complete"]:
        say(f"{journal.path.name} is complete")
        return journal.outcome
    try:
        for step in steps:
            if step.key not in journal.cases:
                say(f"{said(steps, journal.cases)}: {step.key}")
                carry_out(step)
    except KeyboardInterrupt:
        say("interrupted: what was measured is kept; --resume goes on")
        return journal.note(judged())
    return journal.finish(judged())


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
