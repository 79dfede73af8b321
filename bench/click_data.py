"""Clicks: the high ratings of a table, of which no more is known than that they are there; or drawn ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mf_numpy import Ratings
from mf_numpy.datasets import load
from mf_numpy.errors import choose

PLANTED = "planted-clicks"
THRESHOLDS = {"ml-100k": 4.0, "ml-1m": 4.0, "anime": 8.0}
"""The lowest rating that is a click."""


@dataclass(frozen=True, eq=False)
class Clicks:
    """Clicks of users on items, each with the value 1.

    Attributes:
        name: of the data set.
        ratings: users and items without a click are left out.
        threshold: the lowest rating that was taken for a click; None where they were drawn.
    """

    name: str
    ratings: Ratings
    threshold: float | None


def load_data(name: str) -> Clicks:
    """The clicks of a data set.

    Raises:
        ConfigError: an unknown name.
        DataError: the data set is not here.
    """
    choose("data", name, (PLANTED, *THRESHOLDS))
    return drawn() if name == PLANTED else clicks_of(load(name), name, THRESHOLDS[name])


def clicks_of(ratings: Ratings, name: str, threshold: float) -> Clicks:
    """The ratings of at least `threshold`, as clicks.

    Raises:
        DataError: there is none.
    """
    return Clicks(name, ratings.clicks(threshold), threshold)


def drawn(n_users: int = 400, n_items: int = 250, n_clicks: int = 16_000, seed: int = 0) -> Clicks:
    """Clicks drawn without replacement, in proportion to popularity and to the exponential of p·q, of three factors."""
    rng = np.random.default_rng(seed)
    p, q = rng.normal(0, 1.1, (n_users, 3)), rng.normal(0, 1.0, (n_items, 3))
    popularity = -0.8 * np.log(rng.permutation(n_items) + 5.0)
    activity = rng.normal(0, 0.5, (n_users, 1))
    # The largest of logarithms with Gumbel noise are a draw without replacement.
    noisy = popularity + activity + p @ q.T + rng.gumbel(size=(n_users, n_items))
    pairs = np.sort(np.argpartition(-noisy.ravel(), n_clicks)[:n_clicks])
    ratings = Ratings.of_indices(pairs // n_items, pairs % n_items, np.ones(n_clicks), m=n_users, n=n_items)
    return Clicks(PLANTED, ratings.compact(), None)
