"""Lists whose items differ: maximal marginal relevance (Carbonell and Goldstein 1998) on the item factors.

Shapes: B lists; C candidates each, the best C = 10 n by prediction; Q (n_items, K). The first item of a list is the one
predicted highest. Each further one is the candidate i with the largest

    (1 - δ) (r̂_i - low) / (high - low) - δ max_{j chosen} cos(q_i, q_j),

where δ in [0, 1) is the diversity, and low and high are the lowest and the highest prediction among the candidates, so
that predictions lie beside cosines whatever the rating scale is. Ties go to the candidate predicted higher. With δ = 0
the list is the best n; δ = 1 would forget the predictions. An item without factors, q = 0, is like no other: cosine 0.
"""

from __future__ import annotations

import numpy as np

from mf_numpy.errors import ConfigError
from mf_numpy.ratings import Array

CANDIDATES = 10
"""Candidates to choose from, for each place of a list."""


def check_diversity(diversity: float) -> None:
    """Refuse what is no weight.

    Raises:
        ConfigError: a diversity outside [0, 1).
    """
    if not 0.0 <= diversity < 1.0:
        raise ConfigError(f"diversity is {diversity!r}, but must be 0 or larger and below 1, such as 0.3")


def diversify(q: Array, items: Array, scores: Array, n: int, diversity: float) -> tuple[Array, Array]:
    """Choose n of each list of candidates.

    Args:
        q: item factors (n_items, K).
        items: (B, C) candidates, best first; -1 for none.
        scores: (B, C) their predictions; -inf for none.
        diversity: δ.

    Returns:
        Items and predictions, each (B, min(n, C)), in the order of choice; -1 and -inf where candidates run out.
    """
    lists, candidates = items.shape
    at = np.arange(lists)
    open_ = items >= 0
    gain = (1.0 - diversity) * _scaled(scores, open_)
    directions = unit_rows(q)[items]
    nearest = np.zeros_like(gain)
    best = np.full((lists, min(n, candidates)), -1, dtype=np.int64)
    values = np.full(best.shape, -np.inf, dtype=scores.dtype)
    for place in range(best.shape[1]):
        chosen = np.where(open_, gain - diversity * nearest, -np.inf).argmax(axis=1)
        left = open_[at, chosen]
        best[left, place], values[left, place] = items[at, chosen][left], scores[at, chosen][left]
        open_[at, chosen] = False
        cosine = (directions @ directions[at, chosen][:, :, None])[:, :, 0]
        nearest = cosine if place == 0 else np.maximum(nearest, cosine)
    return best, values


def unit_rows(factors: Array) -> Array:
    """Rows (m, K) divided by their length, so that products are cosines; rows of zeros stay."""
    length = np.sqrt(np.square(factors).sum(axis=1, keepdims=True))
    out: Array = np.divide(factors, length, out=np.zeros_like(factors), where=length > 0)
    return out


def _scaled(scores: Array, there: Array) -> Array:
    """Scores (B, C) moved to 0..1 in each row, among those that are there; 0 where all are equal."""
    high = np.where(there, scores, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    low = np.where(there, scores, np.inf).min(axis=1, initial=np.inf, keepdims=True)
    span = high - low
    out = np.zeros_like(scores)
    np.divide(scores - low, span, out=out, where=there & (span > 0))
    return out
