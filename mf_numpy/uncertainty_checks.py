"""What intervals and diagnostics of chains must satisfy (Eq. 71, 72): named checks beside `gibbs_checks`."""

from __future__ import annotations

import math
import statistics

import numpy as np
from scipy import stats

from mf_numpy.check import Check
from mf_numpy.gibbs_checks import ERROR_RATE
from mf_numpy.model import Params
from mf_numpy.posterior import Draws
from mf_numpy.properties import Ways, Worst
from mf_numpy.ratings import Array
from mf_numpy.uncertainty import effective_draws, intervals, predictions, split_r_hat

_LEVELS = (0.5, 0.9)


def ends_of_intervals(ways: Ways) -> list[Check]:
    """Below an interval and above it lies half of what it leaves out of the mixture over the draws (Eq. 71)."""
    worst = Worst(1e-9)
    draws, users, items = _draws(7)
    means = predictions(draws, users, items)
    for level in _LEVELS:
        found = intervals(draws, users, items, level)
        for name, end, share in (("low", found.low, (1 - level) / 2), ("high", found.high, (1 + level) / 2)):
            each = [stats.norm.cdf(end, mean, a**-0.5) for mean, a in zip(means.T, draws.precisions, strict=True)]
            worst.see("uncertainty", name, np.mean(each, axis=0), np.full(len(end), share), f"level {level}")
    return worst.checks()


def ratings_in_intervals(ways: Ways) -> list[Check]:
    """Of ratings that a draw taken at random makes, the stated share lies in the interval (Eq. 71).

    A right interval is rejected once in 1 / `ERROR_RATE` seeds at most (Hoeffding 1963).
    """
    worst, count = Worst(1.0), 4000
    rng = np.random.default_rng(3)
    draws, users, items = _draws(9)
    means, sizes = predictions(draws, users[:1], items[:1])[0], np.array(draws.precisions) ** -0.5
    which = rng.integers(0, len(draws), count)
    made = means[which] + sizes[which] * rng.normal(size=count)
    bound = math.sqrt(math.log(2 * len(_LEVELS) / ERROR_RATE) / (2 * count))
    for level in _LEVELS:
        found = intervals(draws, users[:1], items[:1], level)
        inside = float(((made >= found.low[0]) & (made <= found.high[0])).mean())
        worst.note("uncertainty", "coverage", abs(inside - level) / bound, f"level {level}")
    return worst.checks()


def variances_by_hand(ways: Ways) -> list[Check]:
    """R̂² is the variance within the halves and between them over that within, written down with sums (Eq. 72)."""
    worst = Worst(1e-10)
    table = np.random.default_rng(4).normal(size=(3, 2, 10)).cumsum(axis=2)
    for pair, found in zip(table, split_r_hat(table), strict=True):
        halves = [half.tolist() for chain in pair for half in (chain[:5], chain[5:])]
        within = statistics.mean(statistics.variance(half) for half in halves)
        between = statistics.variance([statistics.mean(half) for half in halves])
        worst.see("uncertainty", "R̂²", found**2, (0.8 * within + between) / within, "10 draws of 2 chains")
    return worst.checks()


def chains_apart(ways: Ways) -> list[Check]:
    """R̂ is near 1 for chains that agree, and not for chains apart or on their way; draws that cling are worth less."""
    worst = Worst(1.0)
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(1, 2, 8000))
    away = np.array([0.0, 1.0])[:, None] + noise
    rising = np.linspace(-1, 1, 8000) + noise
    # Half the halves at 0 and half at 1: their variance is 1/3; of a line from -1 to 1 they lie at ±1/2.
    for name, table, hat in (
        ("agreeing", noise, 1.0),
        ("apart", away, math.sqrt(4 / 3)),
        ("rising", rising, math.sqrt(1 + (1 / 3) / (1 + 1 / 12))),
    ):
        worst.note("uncertainty", "R̂", abs(float(split_r_hat(table)[0]) - hat) / 0.02, name)
    for phi in (0.0, 0.5, 0.9):
        clinging = _autoregressive(rng, phi, 2, 8000)
        expected = 16000 * (1 - phi) / (1 + phi)
        worst.note("uncertainty", "draws", abs(float(effective_draws(clinging)[0]) / expected - 1) / 0.2, f"φ = {phi}")
    return worst.checks()


def _autoregressive(rng: np.random.Generator, phi: float, chains: int, length: int) -> Array:
    out = rng.normal(size=(1, chains, length))
    for k in range(1, length):
        out[0, :, k] = phi * out[0, :, k - 1] + math.sqrt(1 - phi**2) * out[0, :, k]
    return out


def _draws(size: int) -> tuple[Draws, Array, Array]:
    """Draws that differ in all they have, and the pairs of a small table."""
    rng = np.random.default_rng(size)
    points = tuple(
        Params(rng.normal(size=(3, 2)), rng.normal(size=(2, 2)), rng.normal(size=3), rng.normal(size=2), mu=3.0)
        for _ in range(size)
    )
    users, items = np.indices((3, 2)).reshape(2, -1)
    return Draws(points, tuple(rng.uniform(0.5, 4.0, size).tolist())), users, items
