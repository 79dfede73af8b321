"""Scores of predictions: one scorer for every backend, float64, cold pairs counted and never lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mf_numpy import model
from mf_numpy.model import Params
from mf_numpy.ratings import Array
from mf_numpy.split import Holdout

Predictor = Callable[[Params, Array, Array], Array]
MeanOf = Callable[[Array], Array]
"""What rating a prediction lets expect, as `mf_numpy.losses.mean_of`."""


@dataclass(frozen=True)
class Scores:
    """Errors in rating units.

    Attributes:
        rmse, mae: over the `n_scored` pairs whose user and item were both seen in training; NaN if there are none.
        n_scored, n_cold: pairs with both sides seen, and pairs with a side unseen.
        rmse_all, mae_all: over all pairs, cold ones predicted by the mean plus the known side's bias.
    """

    rmse: float
    mae: float
    n_scored: int
    n_cold: int
    rmse_all: float
    mae_all: float


def score(
    params: Params,
    holdout: Holdout,
    mean: float,
    predict: Predictor = model.predict,
    mean_of: MeanOf = lambda predicted: predicted,
) -> Scores:
    """Score `params` on held-out pairs.

    Args:
        mean: what is predicted of a pair of which nothing is known: the training mean where r̂ is a rating.
        mean_of: makes ratings of predictions where they are none.
    """
    predicted, known = predict_known_and_cold(params, holdout.users, holdout.items, mean, predict)
    return score_predictions(mean_of(predicted), holdout.values, known)


def score_predictions(predicted: Array, values: Array, known: Array) -> Scores:
    """Score predictions (B,) against ratings (B,); `known` (B,) marks the pairs that are not cold."""
    error = predicted.astype(np.float64) - values
    both = error[known]
    return Scores(rmse(both), _mae(both), int(known.sum()), int((~known).sum()), rmse(error), _mae(error))


def predict_known_and_cold(
    params: Params, users: Array, items: Array, mean: float, predict: Predictor = model.predict
) -> tuple[Array, Array]:
    """Predictions (B,) for indices in which -1 means unseen, and the mask (B,) of pairs with both sides seen.

    A cold pair gets the mean plus the bias of its known side (Eq. 1 without the terms nobody knows).
    """
    known = (users >= 0) & (items >= 0)
    out = np.full(len(users), mean, dtype=params.P.dtype)
    out[known] = predict(params, users[known], items[known])
    if params.b is not None and params.c is not None:
        only_user, only_item = (users >= 0) & (items < 0), (users < 0) & (items >= 0)
        out[only_user] += params.b[users[only_user]]
        out[only_item] += params.c[items[only_item]]
    return out, known


def rmse(error: Array) -> float:
    """√(mean of squared errors), accumulated in float64; NaN for no errors."""
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64)))) if len(error) else float("nan")


def _mae(error: Array) -> float:
    return float(np.mean(np.abs(error), dtype=np.float64)) if len(error) else float("nan")
