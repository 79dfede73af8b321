"""The figure of section 16: what is left open of a newcomer, by what is known of her and by what she is asked.

Nothing is measured or trained: rows are drawn from a Gaussian that is known, so that Eq. 60 has the expected error of
the best prediction, which does not depend on any rating's value.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from matplotlib.figure import Figure

from bench.canvas import Theme, drawing
from bench.launch import Json
from mf_numpy.asking import falls, settled
from mf_numpy.prior import Prior
from mf_numpy.ratings import Array

MOST = 20
NOISE = 0.9
"""σ, in ratings."""
SPREAD = np.array([0.5, 0.35, 0.25, 0.3])
"""Variances of three factors and a bias over all users; within a group they are `WITHIN` times as large."""
WITHIN = 0.4


@drawing(
    "asking",
    "Expected RMSE against a newcomer's ratings: facts about her help before the first, chosen questions after it.",
    "新用户的期望 RMSE 随其评分条数的变化：对她的了解在第一条之前有用，挑选问题在其后有用。",
)
def _asking(figure: Figure, theme: Theme, outcome: Json) -> None:
    axes = figure.add_subplot()
    axes.axhline(NOISE, color=theme.soft, linewidth=1.1, linestyle=":")
    axes.annotate(
        f"noise, {NOISE}", (MOST, NOISE), xytext=(0, 3), textcoords="offset points", ha="right", fontsize=9
    )  # fmt: skip
    dashes = ("-", (0, (5, 2)), (0, (1.5, 1.5)), "-.")
    for (name, errors), hue, dash in zip(_curves(), theme.hues, dashes, strict=True):
        axes.plot(range(MOST + 1), errors, color=hue, linestyle=dash, label=name)
    axes.set_xlim(0, MOST)
    axes.set_xticks([0, 1, 5, 10, 15, 20])
    axes.set_xlabel("ratings of the newcomer")
    axes.set_ylabel("expected RMSE, rating")
    axes.legend(loc="upper right")


@cache
def _curves() -> tuple[tuple[str, Array], ...]:
    """(name, expected RMSE with 0 to `MOST` ratings)."""
    rng = np.random.default_rng(6)
    items = np.column_stack([rng.normal(0, 0.8, (150, 3)), np.ones(150)])
    weights = 1 / (np.arange(150) + 8.0)
    weights /= weights.sum()
    everybody, group = (Prior(np.diag(np.sqrt(share * SPREAD)), NOISE**2) for share in (1.0, WITHIN))
    as_they_come = [
        _errors(everybody, items, weights, rng.choice(150, MOST, replace=False, p=weights)) for _ in range(60)
    ]
    return (
        ("ratings as they come", np.sqrt(np.mean(np.square(as_they_come), axis=0))),
        ("the most rated items first", _errors(everybody, items, weights, np.argsort(-weights))),
        ("asked for by Eq. 61", _errors(everybody, items, weights, None)),
        ("the same, her group known", _errors(group, items, weights, None)),
    )


def _errors(prior: Prior, items: Array, weights: Array, order: Array | None) -> Array:
    """√(σ² + V) after each rating, of items in an order or for None as they are asked for."""
    covariance = prior.covariance(items[:0])
    open_ = [_open(covariance, items, weights)]
    left = np.ones(len(items), dtype=np.bool_)
    for at in range(MOST):
        fall = falls(covariance, items, weights, prior.variance)
        best = int(np.argmax(np.where(left, fall, -np.inf)) if order is None else order[at])
        covariance, left[best] = settled(covariance, items[best], prior.variance), False
        open_.append(_open(covariance, items, weights))
    return np.sqrt(prior.variance + np.array(open_))


def _open(covariance: Array, items: Array, weights: Array) -> float:
    return float(((items @ covariance) * items).sum(axis=1) @ weights)
