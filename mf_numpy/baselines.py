"""What any model must beat: the mean, and biases alone."""

from __future__ import annotations

import numpy as np

from mf_numpy.metrics import Scores, score
from mf_numpy.model import Params
from mf_numpy.ratings import Array, Ratings
from mf_numpy.split import Holdout


def bias_only(train: Ratings, *, damping: float = 5.0, sweeps: int = 20) -> Params:
    """μ + b_u + c_i: Eq. 1 without factors, fitted by alternating exact minimisation.

    Minimises Σ (μ + b_u + c_i - r)² + damping (|b|² + |c|²): each bias is the damped mean of what the other
    side leaves (Koren, Bell and Volinsky 2009, section on biases).

    Args:
        damping: ratings' worth of pull towards 0; keeps a row with few ratings near the mean.
        sweeps: alternations.

    Returns:
        Parameters with K = 1 factors that are all 0; b (m,), c (n,) in rating units.
    """
    b, c = np.zeros(train.n_users), np.zeros(train.n_items)
    for _ in range(sweeps):
        c = _damped_mean(train.values - train.mean - b[train.users], train.items, train.item_counts, damping)
        b = _damped_mean(train.values - train.mean - c[train.items], train.users, train.user_counts, damping)
    return Params(np.zeros((train.n_users, 1)), np.zeros((train.n_items, 1)), b, c, mu=train.mean)


def mean_and_bias_scores(train: Ratings, valid: Holdout) -> dict[str, Scores]:
    """Scores of the two baselines, ``mean`` and ``bias-only``, on the held-out pairs."""
    biased = bias_only(train)
    nothing = Params(biased.P, biased.Q, mu=train.mean)
    return {
        "mean": score(nothing, valid, train.mean),
        "bias-only": score(biased, valid, train.mean),
    }


def _damped_mean(values: Array, rows: Array, counts: Array, damping: float) -> Array:
    out: Array = np.bincount(rows, weights=values, minlength=len(counts)) / (counts + damping)
    return out
