"""How good predictions of a test are: errors with bootstrap intervals, differences, errors by activity, calibration.

Symbols: M held-out pairs, of which S have both sides in training; B draws of the bootstrap.

A user's errors hang together, so the bootstrap draws users, not pairs: each draw takes as many users as there are, with
replacement, and the RMSE over all their pairs (Field and Welsh 2007, the cluster bootstrap). Intervals are percentiles.
Every system is scored with the same draws, so that differences between two systems are paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mf_numpy import Holdout, Ratings
from mf_numpy.errors import ConfigError, counted
from mf_numpy.metrics import score_predictions
from mf_numpy.ratings import Array

Json = dict[str, Any]

DRAWS = 1000
LEVEL = 0.95
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


def draws(found: list[Errors], seed: int = 0, n: int = DRAWS) -> Array:
    """(B,) RMSE of each draw of the bootstrap, over all tests of one system together.

    The same tests get the same draws, whatever the errors are.
    """
    squares, sizes = np.zeros(n), np.zeros(n)
    for fold, one in enumerate(found):
        users, of_pair = np.unique(one.users, return_inverse=True)
        square = np.bincount(of_pair, weights=one.square)
        size = np.bincount(of_pair)
        rng = np.random.default_rng([seed, fold])
        for draw in range(n):
            taken = np.bincount(rng.integers(0, len(users), len(users)), minlength=len(users))
            squares[draw] += taken @ square
            sizes[draw] += taken @ size
    return np.asarray(np.sqrt(squares / sizes))


def interval(drawn: Array) -> list[float]:
    """Low and high of the middle `LEVEL` of draws."""
    return [float(x) for x in np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]


def versus(mine: Array, other: Array) -> Json:
    """The difference of two systems' RMSE over the same draws, mine less the other's, and a two-sided p-value.

    The p-value is twice the smaller share of draws on either side of 0, with one added to each count so that it is
    never 0 (Davison and Hinkley 1997, section 4.2).
    """
    difference = mine - other
    below, above = int((difference <= 0).sum()), int((difference >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (len(difference) + 1))
    return {"interval": interval(difference), "p": p}


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
