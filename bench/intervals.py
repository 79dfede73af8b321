"""How sure a ratio of two measured medians is: standard errors, and the ends of an interval around what was found.

A unit is what was measured independently: a process with all its samples, or a sample where all are of one process.
The standard error of a log median is its standard deviation over `DRAWS` bootstrap samples of units, times
√(n / (n − 1)), which is what n units too few make of it; a difference of two adds their squares, and its interval is
Student's, by the degrees of freedom of Welch and Satterthwaite. (Hesterberg, What Teachers Should Know About the
Bootstrap, The American Statistician 69, 2015: percentiles of so few units cover too little. Kalibera and Jones,
arXiv:2007.10899: samples of a process are alike, so that processes must be resampled.) With one process a side the
interval knows nothing of how processes differ; and no interval knows how another day, or another load, does.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from bench.compared import Rounds

DRAWS = 2000
CHANCE = 0.05
"""Of an interval that does not hold the truth, or of any failure among cases that are equal: twice its upper side."""


@dataclass(frozen=True)
class Estimate:
    """A number that was found, its standard error and that error's degrees of freedom."""

    value: float
    error: float
    freedom: float

    def ends(self, chance: float = CHANCE) -> tuple[float, float]:
        """Between these the truth lies, but for the chance given."""
        width = float(stdtrit(self.freedom, 1 - chance / 2)) * self.error if self.error else 0.0
        return self.value - width, self.value + width


def log_median(rounds: Rounds) -> Estimate | None:
    """The log of the median of all samples; None for fewer than two units, or a sample that is not above zero."""
    units = rounds if len(rounds) > 1 else tuple((ms,) for one in rounds for ms in one)
    if len(units) < 2 or not all(0 < ms < math.inf for one in units for ms in one):
        return None
    n, longest = len(units), max(map(len, units))
    table = np.log([[*one, *[math.nan] * (longest - len(one))] for one in units])
    picks = np.random.default_rng(0).integers(0, n, (DRAWS, n))
    drawn = np.nanmedian(table[picks].reshape(DRAWS, -1), axis=1)
    return Estimate(float(np.nanmedian(table)), float(drawn.std()) * math.sqrt(n / (n - 1)), n - 1)


def mean(values: Sequence[float]) -> Estimate | None:
    """The mean of independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    return Estimate(statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values)), len(values) - 1)


def difference(a: Estimate, b: Estimate) -> Estimate:
    """b − a of two that were measured independently."""
    return Estimate(b.value - a.value, math.hypot(a.error, b.error), _freedom([a, b]))


def average(found: Sequence[Estimate]) -> Estimate:
    """The mean of estimates, over just these: their errors count, how they differ from each other does not."""
    n = len(found)
    error = math.sqrt(sum(one.error**2 for one in found)) / n
    return Estimate(sum(one.value for one in found) / n, error, _freedom(found))


def _freedom(parts: Sequence[Estimate]) -> float:
    """Welch and Satterthwaite: of a sum whose parts' squared errors have degrees of freedom of their own."""
    squares = [part.error**2 for part in parts]
    below = sum(square**2 / part.freedom for square, part in zip(squares, parts, strict=True))
    return sum(squares) ** 2 / below if below > 0 else math.inf
