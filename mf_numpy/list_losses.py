"""Losses of a list of predictions, that of a chosen item first and those of items that were drawn behind it.

Shapes: scores (B, 1 + S), r̂ of B lists with S drawn items each; offsets (B, 1 + S), log q of Eq. 49; worths
(B, 1 + S), L of Eq. 52.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mf_numpy.config import Config
from mf_numpy.ratings import Array


@dataclass(frozen=True)
class ListLoss:
    """ℓ of each list and its derivatives by the scores; convex in them, ``warp`` where it does not jump.

    Attributes:
        value: ℓ (B,) of scores and offsets, or worths.
        residual: E = ∂ℓ/∂r̂, (B, 1 + S).
        change: how E changes, (B, 1 + S), where the scores move along a direction (B, 1 + S).
        lacks: what the chosen item's probability lacks to 1, (B,); of ``warp`` 1 where an item is too near, else 0.
    """

    value: Callable[[Array, Array], Array]
    residual: Callable[[Array, Array], Array]
    change: Callable[[Array, Array, Array], Array]
    lacks: Callable[[Array, Array], Array]


def softplus(x: Array) -> Array:
    """log(1 + eˣ), where eˣ may be past all numbers; complex numbers too, which a complex step differentiates."""
    above = x.real > 0
    out: Array = np.where(above, x, 0) + np.log1p(np.exp(np.where(above, -x, x)))
    return out


def sigmoid(x: Array) -> Array:
    """σ(x) = 1/(1 + e⁻ˣ), to full precision on both sides."""
    above = x.real > 0
    small = np.exp(np.where(above, -x, x))
    out: Array = np.where(above, 1, small) / (1 + small)
    return out


def in_lists(numbers: Array, config: Config) -> Array:
    """Numbers of the pairs of B lists (B · (1 + S),) as (B, 1 + S)."""
    return numbers.reshape(-1, 1 + config.n_negatives)


def _behind(scores: Array) -> Array:
    """How far each drawn item is ahead of the chosen one, (B, S)."""
    out: Array = scores[:, 1:] - scores[:, :1]
    return out


def _with_chosen(of_drawn: Array) -> Array:
    """What drawn items (B, S) are pushed by, and the chosen one by the same in all the other way: (B, 1 + S)."""
    return np.concatenate([-of_drawn.sum(axis=1, keepdims=True), of_drawn], axis=1)


def _pairwise(scores: Array) -> Array:
    ahead = sigmoid(_behind(scores))
    return _with_chosen(ahead / ahead.shape[1])  # Eq. 48


def _pairwise_change(scores: Array, moved: Array) -> Array:
    ahead = _behind(scores)
    bend = sigmoid(ahead) * sigmoid(-ahead)
    return _with_chosen(bend * _behind(moved) / bend.shape[1])  # Eq. 48


def _log_sum(z: Array) -> Array:
    """log Σ eᶻ of each list, (B,)."""
    top = z.real.max(axis=1, keepdims=True)
    out: Array = np.log(np.exp(z - top).sum(axis=1)) + top[:, 0]
    return out


def shares(scores: Array, offsets: Array) -> Array:
    """π, each item's share of its list (Eq. 49), (B, 1 + S)."""
    z = scores - offsets
    powers = np.exp(z - z.real.max(axis=1, keepdims=True))
    out: Array = powers / powers.sum(axis=1, keepdims=True)
    return out


def _listwise(scores: Array, offsets: Array) -> Array:
    e = shares(scores, offsets)
    # π - 1 of the chosen item as what the others have: near 1 it would lose its digits.
    e[:, 0] = -e[:, 1:].sum(axis=1)  # Eq. 49
    return e


def _listwise_change(scores: Array, offsets: Array, moved: Array) -> Array:
    pi = shares(scores, offsets)
    out: Array = pi * (moved - (pi * moved).sum(axis=1, keepdims=True))  # Eq. 49
    return out


def found(scores: Array) -> Array:
    """The first drawn item that is less than 1 behind the chosen one (Eq. 51), as a mask (B, S); one in a row or none.

    Compared in float64: whoever has the same scores finds the same items.
    """
    wide = scores.real.astype(np.float64)
    near = wide[:, 1:] > wide[:, :1] - 1  # Eq. 51
    out: Array = near & (near.cumsum(axis=1) == 1)  # Eq. 51
    return out


def _by_rank(scores: Array, worths: Array) -> Array:
    return _with_chosen(found(scores) * worths[:, 1:])  # Eq. 53


def _cost_of_rank(scores: Array, worths: Array) -> Array:
    out: Array = (found(scores) * worths[:, 1:] * (1 + _behind(scores))).sum(axis=1)  # Eq. 53
    return out


LISTS: Mapping[str, ListLoss] = {
    "bpr": ListLoss(
        value=lambda scores, _: softplus(_behind(scores)).mean(axis=1),  # Eq. 48
        residual=lambda scores, _: _pairwise(scores),
        change=lambda scores, _, moved: _pairwise_change(scores, moved),
        lacks=lambda scores, _: -_pairwise(scores)[:, 0],
    ),
    "softmax": ListLoss(
        value=lambda scores, offsets: _log_sum(scores - offsets) - (scores - offsets)[:, 0],  # Eq. 49
        residual=_listwise,
        change=_listwise_change,
        lacks=lambda scores, offsets: -_listwise(scores, offsets)[:, 0],
    ),
    "warp": ListLoss(
        value=_cost_of_rank,
        residual=_by_rank,
        change=lambda scores, worths, moved: np.zeros_like(moved),
        lacks=lambda scores, _: found(scores).any(axis=1).astype(scores.dtype),
    ),
}
