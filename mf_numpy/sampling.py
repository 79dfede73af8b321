"""Eq. 50, 52: items drawn beside each rating, none of the user's own, and their worth; by NumPy, for both packages.

Symbols: N ratings; S items drawn for each; n_i ratings of an item; α `Config.negative_power`.
"""

from __future__ import annotations

import numpy as np

from mf_numpy.config import Config
from mf_numpy.errors import DataError
from mf_numpy.ratings import Array

MOST_ROUNDS = 50
"""How often what was refused is drawn again; who has rated most of what is drawn then draws from the rest alone."""


def weights(items: Array, n_items: int, config: Config) -> Array:
    """n_i^α of each item (n,), float64, to which its probability is proportional (Eq. 50); 0 for 0 ratings if α > 0."""
    out: Array = np.bincount(items, minlength=n_items).astype(np.float64) ** config.negative_power  # Eq. 50
    return out


def offsets(items: Array, n_items: int, config: Config) -> Array:
    """log q of each item (n,) up to a number that all share (Eq. 49): α log n_i; 0 where there is none to draw."""
    counts = np.bincount(items, minlength=n_items)
    out: Array = config.negative_power * np.log(np.maximum(counts, 1))  # Eq. 49
    return out


def worths(n_items: int, config: Config) -> Array:
    """L of the rank that each place of a list tells (Eq. 52), (1 + S,) float64; the chosen item's, the first, has 0."""
    ranks = (n_items - 1) // np.arange(1, config.n_negatives + 1)  # Eq. 52
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n_items))])  # Eq. 52
    return np.concatenate([[0.0], harmonic[ranks]])


def negatives(users: Array, items: Array, n_items: int, epoch: int, config: Config) -> Array:
    """Items drawn for each of N ratings in epoch 1, 2, ... (Eq. 50), (N, S) int32, from seed and epoch alone.

    Raises:
        DataError: a user who has rated every item that can be drawn.
    """
    rng = np.random.default_rng([config.seed, epoch, 1])
    price = weights(items, n_items, config)
    cumulative = np.cumsum(price)
    own = np.unique(users.astype(np.int64) * n_items + items)
    of_list = np.repeat(users.astype(np.int64), config.n_negatives)
    drawn = _by_weight(rng, cumulative, len(of_list))
    refused = np.flatnonzero(_in(own, of_list * n_items + drawn))
    for _ in range(MOST_ROUNDS):
        if not len(refused):
            break
        drawn[refused] = _by_weight(rng, cumulative, len(refused))
        refused = refused[_in(own, of_list[refused] * n_items + drawn[refused])]
    for k in refused:
        left = price.copy()
        begin, end = np.searchsorted(own, [of_list[k] * n_items, (of_list[k] + 1) * n_items])
        left[own[begin:end] - of_list[k] * n_items] = 0
        if not left.any():
            raise DataError(
                f"user {of_list[k]} (an index) has rated every item that can be drawn; leave her out, or use a loss "
                "that draws none"
            )
        drawn[k] = _by_weight(rng, np.cumsum(left), 1)[0]
    return drawn.reshape(-1, config.n_negatives).astype(np.int32)


def _by_weight(rng: np.random.Generator, cumulative: Array, size: int) -> Array:
    """Positions drawn in proportion to the weights whose running sums are given."""
    # Below the last sum, so that no item behind the last weight above 0 is drawn.
    at = rng.random(size) * cumulative[-1]
    out: Array = np.searchsorted(cumulative, at, side="right")
    return out


def _in(keys: Array, wanted: Array) -> Array:
    """Which of `wanted` are among the sorted `keys`."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    out: Array = keys[at] == wanted
    return out
