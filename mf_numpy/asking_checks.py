"""What a prior of rows and questions that narrow it must satisfy (Eq. 60 to 62): named checks, as in `properties`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mf_numpy import train
from mf_numpy.asking import falls, settled
from mf_numpy.check import Check
from mf_numpy.curvature import extended
from mf_numpy.fold_in import minimiser
from mf_numpy.prior import Prior, prior_of
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Array, Ratings

TOLERANCE = 1e-9


def posterior_by_bayes(ways: Ways) -> list[Check]:
    """A newcomer's row and what it leaves open are those of the row and the ratings as one Gaussian (Eq. 60)."""
    worst = Worst(TOLERANCE)
    for label, ratings, prior, rows, others in _models():
        moment = np.zeros((rows.shape[1], rows.shape[1]))
        for u in ratings.users:
            moment += np.outer(rows[u], rows[u]) / len(ratings)
        rng = np.random.default_rng(51)
        for size in (0, 1, 4):
            seen, surprises = others[rng.choice(len(others), size, replace=False)], rng.normal(size=size)
            # Row and ratings together have this covariance, and a row given ratings is its mean and its rest.
            both = seen @ moment @ seen.T + prior.variance * np.eye(size)
            gain = np.linalg.solve(both, seen @ moment).T
            worst.see("prior", "row", prior.row(seen, surprises), gain @ surprises, f"{label}, {size} ratings")
            left = moment - gain @ seen @ moment
            worst.see("prior", "covariance", prior.covariance(seen), left, f"{label}, {size} ratings")
    return worst.checks()


def spread_of_predictions(ways: Ways) -> list[Check]:
    """Before any rating, predictions vary as those of training did: over its ratings, not over its rows (Eq. 60)."""
    worst = Worst(TOLERANCE)
    for label, ratings, prior, rows, others in _models():
        nothing = prior.covariance(others[:0])
        for item, other in enumerate(others):
            expected = np.mean([(rows[u] @ other) ** 2 for u in ratings.users])
            worst.see("prior", "spread", other @ nothing @ other, expected, f"{label}, item {item}")
    return worst.checks()


def penalty_as_prior(ways: Ways) -> list[Check]:
    """With S = σ²/ν I the row is the one that the penalty finds (Eq. 37, 60)."""
    worst = Worst(TOLERANCE)
    for label, _, prior, _, others in _models():
        ridge = 0.3
        d = others.shape[1]
        wide = Prior(np.sqrt(prior.variance / ridge) * np.eye(d), prior.variance)
        surprises = np.random.default_rng(52).normal(size=len(others))
        _, _, config = problem(50)
        gold = minimiser(others, surprises, np.zeros(len(others)), ridge, config)
        worst.see("prior", "row", wide.row(others, surprises), gold, label)
    return worst.checks()


def fall_of_variance(ways: Ways) -> list[Check]:
    """What a rating takes off the mean variance is what is missing with it (Eq. 61)."""
    worst = Worst(TOLERANCE)
    for label, _, prior, _, others in _models():
        weights = np.random.default_rng(53).dirichlet(np.ones(len(others)))
        asked = others[:2]
        now = prior.covariance(asked)
        found = falls(now, others, weights, prior.variance)
        for item, other in enumerate(others):
            after = prior.covariance(np.vstack([asked, other]))
            gold = _open(now, others, weights) - _open(after, others, weights)
            worst.see("asking", "fall", found[item], gold, f"{label}, item {item}")
    return worst.checks()


def asked_one_by_one(ways: Ways) -> list[Check]:
    """Ratings one by one, in any order, leave what they leave together, and their falls add up (Eq. 61, 62)."""
    worst = Worst(TOLERANCE)
    for label, _, prior, _, others in _models():
        weights = np.full(len(others), 1 / len(others))
        gold = prior.covariance(others)
        for order in (range(len(others)), reversed(range(len(others)))):
            now, fallen = prior.covariance(others[:0]), 0.0
            first = _open(now, others, weights)
            for item in order:
                fallen += falls(now, others, weights, prior.variance)[item]
                now = settled(now, others[item], prior.variance)
            worst.see("asking", "covariance", now, gold, label)
            worst.see("asking", "sum of falls", fallen, first - _open(gold, others, weights), label)
    return worst.checks()


def posterior_step_by_step(ways: Ways) -> list[Check]:
    """The row after the last of several ratings follows from the one before it and what is then open (Eq. 60, 62)."""
    worst = Worst(TOLERANCE)
    for label, _, prior, _, others in _models():
        surprises = np.random.default_rng(54).normal(size=len(others))
        row, now = np.zeros(others.shape[1]), prior.covariance(others[:0])
        for at, (other, surprise) in enumerate(zip(others, surprises, strict=True), 1):
            # Kalman's filter, for a state that stays.
            moved = now @ other
            row = row + moved * (surprise - other @ row) / (prior.variance + other @ moved)
            now = settled(now, other, prior.variance)
            worst.see("prior", "row", prior.row(others[:at], surprises[:at]), row, f"{label}, {at} ratings")
    return worst.checks()


def _open(covariance: Array, others: Array, weights: Array) -> Any:
    """The mean variance of predictions, item by item."""
    return sum(w * (q @ covariance @ q) for w, q in zip(weights, others, strict=True))


def _models() -> Iterator[tuple[str, Ratings, Prior, Array, Array]]:
    """Trained models of both kinds: their ratings, the prior of their users, the rows of these and of the items."""
    for kind in ("plain", "biased"):
        ratings, _, config = problem(50, model=kind, n_epochs=4, lr=0.1)
        found = train.fit(ratings, config, backend="numpy")
        params = found.params
        yield kind, ratings, prior_of(found, "user"), extended(params, "user", own=True), extended(params, "item")
