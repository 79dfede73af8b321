"""What draws of grades say of pairs: the mean, over the draws, of what each lets expect (Eq. 79).

Shapes: B pairs or users, n items, G grades; -1 for a user or an item that nobody knows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mf_numpy import grades
from mf_numpy.metrics import predict_known_and_cold
from mf_numpy.posterior import Draws
from mf_numpy.ratings import Array
from mf_numpy.recommend import score_all


def expected(draws: Draws, users: Array, items: Array) -> Array:
    """The mean grade of each pair (B,)."""
    out = np.zeros(len(users))
    for point in draws.points:
        scores, _ = predict_known_and_cold(point, users, items, 0.0)
        assert point.cuts is not None
        out += grades.expected(scores, point.cuts) / len(draws)
    return out


def probabilities(draws: Draws, users: Array, items: Array) -> Array:
    """How likely each grade of each pair is (B, G)."""
    first = draws.points[0].cuts
    assert first is not None
    out = np.zeros((len(users), len(first.grades)))
    for point in draws.points:
        scores, _ = predict_known_and_cold(point, users, items, 0.0)
        assert point.cuts is not None
        out += grades.probabilities(scores, point.cuts) / len(draws)
    return out


def of_all_items(draws: Draws, users: Array) -> Array:
    """The mean grade of every item for users (B,): (B, n)."""
    out = np.zeros((len(users), len(draws.points[0].Q)))
    strangers = users < 0
    for point in draws.points:
        # The product adds up a view of a file in another order than an array of its own.
        scores = score_all(replace(point, Q=np.ascontiguousarray(point.Q)), users)
        scores[strangers] = 0.0 if point.c is None else point.c
        assert point.cuts is not None
        out += grades.expected(scores, point.cuts) / len(draws)
    return out
