"""How good predictions of a test are: errors with bootstrap intervals, differences, errors by activity, calibration.

Symbols: M held-out pairs, of which S have both sides in training; B draws of the bootstrap.

A user's errors hang together, so the bootstrap draws users, not pairs: each draw takes as many users as there are, with
replacement, and the RMSE over all their pairs (Field and Welsh 2007, the cluster bootstrap). Intervals are percentiles.
Every system is scored with the same draws, so that differences between two systems are paired. Where many are compared
with one another, Holm's (1979) step-down adjustment keeps the chance of a single false finding at its level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mf_numpy import Holdout, Ratings
from mf_numpy.bootstrap import interval as interval
from mf_numpy.bootstrap import times_drawn
from mf_numpy.errors import ConfigError, counted
from mf_numpy.metrics import score_predictions
from mf_numpy.ratings import Array

Json = dict[str, Any]

DRAWS = 20_000
"""So many that a p-value can be small enough for all pairs of two dozen systems."""
_BLOCK = 32
"""Draws that are summed by one matrix product."""
PARTS = 10
"""Deciles, of rows by activity and of predictions by size."""


@dataclass(frozen=True, eq=False)
class Errors:
    """What one system got wrong on one test.

    Attributes:
        users: (S,) whose pair it is.
        square: (S,) (r̂ - r)².
    """

    users: Array
    square: Array


def checked(predicted: Array, test: Holdout, scale: tuple[float, float] | None) -> Array:
    """Predictions (S,) of the pairs that are not cold, clipped to the scale.

    Raises:
        ConfigError: another number of predictions, or one that is not finite.
    """
    if predicted.shape != (test.n_scored,):
        raise ConfigError(f"{test.n_scored} predictions were asked for, but {predicted.shape} came")
    if not np.isfinite(predicted).all():
        raise ConfigError(f"{counted(int((~np.isfinite(predicted)).sum()), 'prediction')} not finite")
    return predicted if scale is None else np.clip(predicted, *scale)


def scores(predicted: Array, train: Ratings, test: Holdout) -> Json:
    """RMSE, MAE, and RMSE with cold pairs predicted by the training mean, of predictions (S,)."""
    every = np.full(len(test), train.mean)
    every[test.known] = predicted
    found = score_predictions(every, test.values, test.known)
    return {"rmse": found.rmse, "mae": found.mae, "rmse_all": found.rmse_all}


def errors(predicted: Array, test: Holdout) -> Errors:
    """Squared errors of predictions (S,)."""
    known = test.known
    return Errors(test.users[known], np.square(predicted.astype(np.float64) - test.values[known]))


@dataclass(frozen=True, eq=False)
class Drawn:
    """RMSE and MAE of one system in each draw of the bootstrap, over all its tests together, (B,) each."""

    rmse: Array
    mae: Array


def draws(systems: Sequence[Sequence[Errors]], seed: int = 0, n: int = DRAWS) -> list[Drawn]:
    """Of every system, given by its errors on each test, the draws of the bootstrap.

    The same tests get the same draws, whichever systems there are.
    """
    if not systems:
        return []
    totals, sizes = np.zeros((n, 2 * len(systems))), np.zeros(n)
    for fold, ones in enumerate(zip(*systems, strict=True)):
        users, of_pair = np.unique(ones[0].users, return_inverse=True)
        size = np.bincount(of_pair)
        kinds = [one.square for one in ones] + [np.sqrt(one.square) for one in ones]
        sums = np.stack([np.bincount(of_pair, weights=kind) for kind in kinds], axis=1)
        rng = np.random.default_rng([seed, fold])
        for start in range(0, n, _BLOCK):
            block = slice(start, min(start + _BLOCK, n))
            counts = [times_drawn(rng, len(users)) for _ in range(block.start, block.stop)]
            taken = np.stack(counts).astype(np.float64)
            totals[block] += taken @ sums
            sizes[block] += taken @ size
    means = totals / sizes[:, None]
    return [Drawn(np.sqrt(means[:, k]), means[:, len(systems) + k]) for k in range(len(systems))]


def versus(mine: Array, other: Array) -> Json:
    """The difference of two systems' error over the same draws, mine less the other's, and a two-sided p-value.

    The p-value is twice the smaller share of draws on either side of 0, with one added to each count so that it is
    never 0 (Davison and Hinkley 1997, section 4.2).
    """
    difference = mine - other
    below, above = int((difference <= 0).sum()), int((difference >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (len(difference) + 1))
    return {"interval": interval(difference), "p": p}


def pairs(drawn: Mapping[str, Drawn]) -> list[Json]:
    """Every two systems: ``{a, b, rmse {interval, p, adjusted}, mae {...}}``, of a's error less b's.

    ``adjusted`` is the p-value after Holm's adjustment for all pairs of that measure.
    """
    out: list[Json] = [
        {"a": a, "b": b} | {m: versus(getattr(drawn[a], m), getattr(drawn[b], m)) for m in ("rmse", "mae")}
        for a, b in combinations(drawn, 2)
    ]
    for measure in ("rmse", "mae"):
        for one, adjusted in zip(out, holm([one[measure]["p"] for one in out]), strict=True):
            one[measure]["adjusted"] = adjusted
    return out


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): times how many are no smaller, never below a smaller one's."""
    order = sorted(range(len(p)), key=lambda k: p[k])
    out, least = [0.0] * len(p), 0.0
    for rank, k in enumerate(order):
        least = max(least, min(1.0, (len(p) - rank) * p[k]))
        out[k] = least
    return out


def by_activity(found: list[Errors], counts: list[Array], rows: list[Array]) -> list[Json]:
    """RMSE of each tenth of the scored pairs, from the rows with the fewest training ratings to those with the most.

    Args:
        counts: of each test, the training ratings of each row.
        rows: of each test, the row of each scored pair, (S,).
    """
    activity = np.concatenate([count[row] for count, row in zip(counts, rows, strict=True)])
    square = np.concatenate([one.square for one in found])
    return [
        {"from": int(activity[part].min()), "to": int(activity[part].max()), "n": len(part)}
        | {"rmse": float(np.sqrt(square[part].mean()))}
        for part in _tenths(activity)
    ]


def calibration(predicted: list[Array], tests: list[Holdout]) -> Json:
    """Mean rating beside mean prediction of each tenth of the pairs by prediction, and the line through all pairs.

    A calibrated predictor has slope 1 and intercept 0: what it says is what comes, on average.
    """
    said = np.concatenate([np.asarray(p, np.float64) for p in predicted])
    came = np.concatenate([test.values[test.known] for test in tests])
    varies = float(said.var())
    slope = float(((said - said.mean()) * (came - came.mean())).mean() / varies) if varies > 0 else None
    parts = [{"predicted": float(said[p].mean()), "rated": float(came[p].mean()), "n": len(p)} for p in _tenths(said)]
    intercept = None if slope is None else float(came.mean() - slope * said.mean())
    return {"slope": slope, "intercept": intercept, "parts": parts}


def _tenths(values: Array) -> list[Array]:
    """Places of the values in order, in `PARTS` runs of equal length; fewer where there are fewer values."""
    order = np.argsort(values, kind="stable")
    return [part for part in np.array_split(order, PARTS) if len(part)]
