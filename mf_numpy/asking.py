"""Eq. 61 and 62: which items to ask a newcomer about first: those whose ratings leave the least open.

Symbols: C (D, D) and σ² as in `mf_numpy.prior`; q̃ (n, D) the items' rows; w (n,) their shares of the training ratings.
How much a rating settles does not depend on what it will be, so that the whole list can be made before any answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mf_numpy.curvature import extended
from mf_numpy.errors import DataError
from mf_numpy.prior import Which, counts_of, prior_of
from mf_numpy.ratings import Array
from mf_numpy.recommend import check_length, hidden_items, known_items, named_table

if TYPE_CHECKING:
    from mf_numpy.result import FitResult


def falls(covariance: Array, others: Array, weights: Array, variance: float) -> Array:
    """By how much the mean variance of her predictions falls with a rating of each item, (n,) (Eq. 61).

    Args:
        covariance: C (D, D), of her row as it is known now.
        others: q̃ (n, D).
        weights: (n,), what each item's prediction counts.
        variance: σ².
    """
    moved = others @ covariance
    spread = (moved * others).sum(axis=1)
    gram = (others.T * weights) @ others
    out: Array = ((moved @ gram) * moved).sum(axis=1) / (variance + spread)  # Eq. 61
    return out


def settled(covariance: Array, other: Array, variance: float) -> Array:
    """C after a rating of one more item, with q̃ = `other` (D,) (Eq. 62)."""
    moved = covariance @ other
    out: Array = covariance - np.outer(moved, moved) / (variance + other @ moved)  # Eq. 62
    return out


def suggest(
    result: FitResult,
    which: Which,
    n: int = 10,
    *,
    rated: Iterable[Any] = (),
    among: Iterable[Any] | None = None,
    without: Iterable[Any] | None = None,
    sure: bool = False,
) -> pd.DataFrame:
    """The `n` items to ask a new user about, or users to ask about a new item, one after the other.

    Each is the one whose rating lets the mean variance of her predictions, over what training ratings are of, fall
    most (Eq. 61), those before it answered.

    Args:
        rated: raw ids of what she has rated already.
        among: the only ones to ask about: raw ids, or a mask; all if None.
        without: those not to ask about, likewise.
        sure: she has an answer to each. Otherwise a fall counts as often as one of training has rated the item.

    Returns:
        A table by rank: ``item`` (or ``user``), ``title`` where known, and ``left``, the share of the variance that is
        left once this and all before it are answered.

    Raises:
        DataError: an unknown id, or a model whose rows are no prior; see `mf_numpy.prior.prior_of`.
        ValueError: n below 1, or a mask of another length.
    """
    check_length(n)
    other: Which = "item" if which == "user" else "user"
    catalogue = result.catalogue
    ids = catalogue.item_ids if which == "user" else catalogue.user_ids
    known = list(rated)
    at = ids.encode(known)
    if (at < 0).any():
        unknown = known[int(np.argmax(at < 0))]
        raise DataError(f"{other} {unknown!r} was not in the training set; leave it out")
    hidden = hidden_items(len(ids), known_items(ids, among), known_items(ids, without))
    closed = np.zeros(len(ids), dtype=np.bool_) if hidden is None else hidden.copy()
    closed[at] = True
    prior = prior_of(result, which)
    others = extended(result.params, other).astype(np.float64)
    counts = counts_of(catalogue, other)
    weights, chance = counts / counts.sum(), counts / len(catalogue.user_ids if which == "user" else catalogue.item_ids)
    covariance = prior.covariance(others[at])
    first = _open(covariance, others, weights)
    chosen, left = [], []
    for _ in range(min(n, int((~closed).sum()))):
        fall = falls(covariance, others, weights, prior.variance) * (1.0 if sure else chance)
        best = int(np.argmax(np.where(closed, -np.inf, fall)))
        covariance = settled(covariance, others[best], prior.variance)
        closed[best] = True
        chosen.append(best)
        left.append(_open(covariance, others, weights) / first if first else 0.0)
    titles = catalogue.titles if which == "user" else None
    return named_table(other, ids, np.array(chosen, dtype=np.int64), titles, {"left": np.array(left)})


def _open(covariance: Array, others: Array, weights: Array) -> float:
    """The mean variance of predictions."""
    return float(((others @ covariance) * others).sum(axis=1) @ weights)
