"""What a prediction costs: ℓ of Eq. 2, E of Eq. 3 and the second derivative that the Hessian needs.

A loss here is a function of one prediction and one rating, of both and of cut points between grades
(`mf_numpy.grades`, where ``ordinal`` is), or of a list of predictions (`mf_numpy.list_losses`).
Changing it changes E and nothing else of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mf_numpy import grades
from mf_numpy.config import Config
from mf_numpy.duplicates import Pairs
from mf_numpy.errors import DataError
from mf_numpy.grades import Cuts
from mf_numpy.list_losses import LISTS, in_lists, sigmoid, softplus
from mf_numpy.ratings import Array, Ratings

Of = Callable[[Array, Array, float], Array]
"""A function of r̂ (B,), r (B,) and `Config.loss_scale`; (B,)."""


@dataclass(frozen=True)
class Loss:
    """ℓ and its derivatives by r̂, and what a prediction says of the rating.

    Attributes:
        value: ℓ.
        residual: E = ∂ℓ/∂r̂.
        curvature: ∂²ℓ/∂r̂².
        mean: the rating that r̂ (B,) lets expect, in rating units; increasing.
        link: the inverse of `mean`.
        target: what is to be predicted where r (B,) was observed, r itself but for ``all_pairs``.
        takes: which ratings (B,) it is made for, as a mask.
        asks: those ratings in words.
    """

    value: Of
    residual: Of
    curvature: Of
    mean: Callable[[Array], Array] = lambda predicted: predicted
    link: Callable[[Any], Any] = lambda mean: mean
    target: Callable[[Array], Array] = lambda values: values
    takes: Callable[[Array], Array] = np.isfinite
    asks: str = "finite"


def _root(error: Array, delta: float) -> Array:
    out: Array = np.sqrt(1 + (error / delta) ** 2)
    return out


def _away(predicted: Array, values: Array) -> tuple[Array, Array]:
    """1 - 2r, which is -1 for a 1 and 1 for a 0, and how far r̂ leans to the other of the two: (1 - 2r) r̂."""
    sign = 1 - 2 * values
    return sign, sign * predicted


def _leaning(predicted: Array, values: Array) -> Array:
    sign, away = _away(predicted, values)
    return sign * sigmoid(away)  # Eq. 42


def _spread(predicted: Array) -> Array:
    return sigmoid(predicted) * sigmoid(-predicted)  # Eq. 42


LOSSES: Mapping[str, Loss] = {
    "squared": Loss(
        value=lambda predicted, values, delta: (predicted - values) ** 2,
        residual=lambda predicted, values, delta: 2 * (predicted - values),  # Eq. 3
        curvature=lambda predicted, values, delta: np.full_like(predicted, 2),
    ),
    # ℓ = 2δ²(√(1 + (error/δ)²) - 1), written so that no small error cancels against the 1.
    "pseudo_huber": Loss(
        value=lambda predicted, values, delta: (
            2 * (predicted - values) ** 2 / (1 + _root(predicted - values, delta))  # Eq. 17
        ),
        residual=lambda predicted, values, delta: 2 * (predicted - values) / _root(predicted - values, delta),  # Eq. 17
        curvature=lambda predicted, values, delta: 2 / _root(predicted - values, delta) ** 3,  # Eq. 17
    ),
    # E = σ(r̂) - r, written so that no probability near 1 cancels against the rating.
    "logistic": Loss(
        value=lambda predicted, values, _: softplus(_away(predicted, values)[1]),  # Eq. 42
        residual=lambda predicted, values, _: _leaning(predicted, values),  # Eq. 42
        curvature=lambda predicted, values, _: _spread(predicted),  # Eq. 42
        mean=sigmoid,  # Eq. 44
        link=lambda mean: np.log(mean / (1 - mean)),  # Eq. 44
        takes=lambda values: (values == 0) | (values == 1),
        asks="0 or 1",
    ),
    "poisson": Loss(
        value=lambda predicted, values, _: np.exp(predicted) - values * predicted,  # Eq. 43
        residual=lambda predicted, values, _: np.exp(predicted) - values,  # Eq. 43
        curvature=lambda predicted, values, _: np.exp(predicted),  # Eq. 43
        mean=np.exp,  # Eq. 44
        link=np.log,  # Eq. 44
        takes=lambda values: values >= 0,
        asks="0 or larger",
    ),
    # What an observed pair adds to r̂², which `mf_numpy.objective.background` adds up over all pairs:
    # (1 + αr)(r̂ - 1)² - r̂².
    "all_pairs": Loss(
        value=lambda predicted, values, alpha: alpha * values * (predicted - 1) ** 2 + 1 - 2 * predicted,  # Eq. 46
        residual=lambda predicted, values, alpha: 2 * alpha * values * (predicted - 1) - 2,  # Eq. 46
        curvature=lambda predicted, values, alpha: 2 * alpha * values + 0 * predicted,  # Eq. 46
        # In the plain model nothing is predicted before a factor is.
        link=lambda mean: 0.0,
        target=np.ones_like,
        takes=lambda values: values > 0,
        asks="above 0",
    ),
}

ON_THE_SCALE = ("squared", "pseudo_huber")
"""Losses whose predictions are ratings themselves."""


def value(predicted: Array, values: Array, config: Config, cuts: Cuts | None = None) -> Array:
    """ℓ of each pair (Eq. 2, 17, 42, 43, 46, 55) or list (Eq. 48, 49, 53); in squared rating units where r̂ is a rating.

    Args:
        cuts: those of the parameters, here and below.
    """
    if cuts is not None:
        return grades.value(predicted, values, cuts)
    if config.loss in LISTS:
        return LISTS[config.loss].value(in_lists(predicted, config), in_lists(values, config))
    return LOSSES[config.loss].value(predicted, values, config.loss_scale)


def residual(predicted: Array, values: Array, config: Config, cuts: Cuts | None = None) -> Array:
    """E = ∂ℓ/∂r̂ of each pair (Eq. 3, 17, 42, 43, 46, 48, 49, 53, 56), (B,) in rating units where r̂ is a rating."""
    if cuts is not None:
        return grades.residual(predicted, values, cuts)
    if config.loss in LISTS:
        return LISTS[config.loss].residual(in_lists(predicted, config), in_lists(values, config)).ravel()
    return LOSSES[config.loss].residual(predicted, values, config.loss_scale)


def curvature(predicted: Array, values: Array, config: Config, cuts: Cuts | None = None) -> Array:
    """∂²ℓ/∂r̂² of each pair (Eq. 18), (B,), for losses of one prediction."""
    if cuts is not None:
        return grades.curvature(predicted, values, cuts)
    return LOSSES[config.loss].curvature(predicted, values, config.loss_scale)


def change(predicted: Array, values: Array, moved: Array, config: Config) -> Array:
    """How E (B,) changes along a direction that moves r̂ by `moved` (B,): ∂²ℓ times it (Eq. 18)."""
    if config.loss in LISTS:
        scores, offsets, along = (in_lists(x, config) for x in (predicted, values, moved))
        return LISTS[config.loss].change(scores, offsets, along).ravel()
    return curvature(predicted, values, config) * moved


def mean_of(predicted: Array, config: Config, cuts: Cuts | None = None) -> Array:
    """The rating to expect where r̂ (B,) is predicted: a probability, a rate (Eq. 44), a mean grade (Eq. 54), or r̂."""
    if cuts is not None:
        return grades.expected(predicted, cuts)
    if config.loss in LISTS:
        return predicted
    # A rate past all numbers is infinite, and the training loop says what to do.
    with np.errstate(over="ignore"):
        return LOSSES[config.loss].mean(predicted)


def prediction_of(mean: float, config: Config) -> float:
    """The r̂ that lets expect the rating `mean`, the inverse of `mean_of` (Eq. 44); infinite at the ends.

    Where lists are ordered nothing depends on it, and where cut points are trained they hold the level: it is 0.
    """
    if config.loss in LISTS or config.loss == "ordinal":
        return 0.0
    with np.errstate(divide="ignore"):
        return float(LOSSES[config.loss].link(np.float64(mean)))


def squared_errors(predicted: Array, values: Array, config: Config, cuts: Cuts | None = None) -> Array:
    """(E[r] - r)² of each pair or list, in squared rating units where r̂ is a rating: what an RMSE is made of.

    Of a list it is what the chosen item's probability lacks to 1; of ``warp`` 1 where an item is too near.
    """
    if config.loss in LISTS:
        chosen: Array = LISTS[config.loss].lacks(in_lists(predicted, config), in_lists(values, config)) ** 2
        return chosen
    target = values if cuts is not None else LOSSES[config.loss].target(values)
    out: Array = (mean_of(predicted, config, cuts) - target) ** 2
    return out


def check_ratings(train: Ratings, config: Config, *, begins: bool = True, cuts: Cuts | None = None) -> None:
    """Refuse training ratings that the loss is not made for.

    Args:
        begins: whether a fit begins with them, and so with their mean.
        cuts: of the model that goes on with them, if it has any.

    Raises:
        DataError: as `check_each`; ratings whose mean no prediction of the biased model begins at; and pairs that come
            twice where every pair counts once.
    """
    values = train.values
    check_each(values, config, cuts)
    if begins and config.model == "biased" and not np.isfinite(prediction_of(float(values.mean()), config)):
        raise DataError(
            f"all ratings are {values[0]:g}, which loss {config.loss!r} would predict with an infinite mean; give "
            "others beside them, or use model='plain'"
        )
    if config.loss == "all_pairs":
        repeated = Pairs.find(train.users, train.items, values, train.n_items)
        if repeated.n_duplicates:
            first, second = repeated.first_repeat
            raise DataError(
                f"ratings {first} and {second} are of one pair, but loss 'all_pairs' counts every pair once; read the "
                "table with duplicates='mean', or add them up"
            )


def check_each(values: Array, config: Config, cuts: Cuts | None = None) -> None:
    """Refuse ratings (B,) that the loss is not made for.

    Raises:
        DataError: the first of them; of ``ordinal`` as `mf_numpy.grades.check`.
    """
    if config.loss in LISTS:
        return
    if config.loss == "ordinal":
        grades.check(values, config, cuts)
        return
    loss = LOSSES[config.loss]
    wrong = ~loss.takes(values)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(
            f"rating {at} is {values[at]:g}, but loss {config.loss!r} is for ratings that are {loss.asks}; "
            "make them so, or use loss='squared'"
        )
