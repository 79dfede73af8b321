"""Eq. 37 and 38: a user or an item that training has not seen gets the row that minimises J while all others stay.

Symbols: D = K + 1 numbers of a row in the biased model, its bias last, K in the plain one; R ratings of the newcomer;
q̃ the other side's rows, with a 1 for the bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mf_numpy import losses
from mf_numpy.config import DRAWN, Config
from mf_numpy.curvature import extended
from mf_numpy.errors import ConfigError, DataError, choose
from mf_numpy.grades import Cuts
from mf_numpy.model import Params
from mf_numpy.prior import Which, prior_of
from mf_numpy.ratings import Array, IdMap
from mf_numpy.recommend import check_length, named_table

if TYPE_CHECKING:
    from mf_numpy.result import Catalogue, FitResult

PriorName = Literal["penalty", "rows"]

MOST_STEPS = 100
"""Newton steps; the squared loss takes one."""


@dataclass(frozen=True, eq=False)
class Newcomer:
    """A row that was found for a user or an item after training.

    Attributes:
        which: ``user`` or ``item``.
        factors: (K,).
        bias: in rating units; 0 in the plain model.
        rated: (R,) indices of the other side whose ratings it was found from.
        surprises: (R,) each rating less what was expected without any, in rating units.
    """

    which: Which
    factors: Array
    bias: float
    rated: Array
    surprises: Array
    _normal: Array | None
    _config: Config
    _params: Params
    _catalogue: Catalogue

    def predict(self, others: Iterable[Any]) -> Array:
        """Ratings to expect (B,) with items, or of users, given by raw id; an unknown one counts as the average one."""
        at = self._ids.encode(others)
        scores = np.append(self._scores(), self._base() + self.bias)
        return losses.mean_of(np.asarray(scores[at]), self._config, self._params.cuts)

    def recommend(self, n: int = 10) -> pd.DataFrame:
        """The `n` best that it has no rating with: ``item`` (or ``user``), ``title`` where known, ``predicted``.

        Raises:
            ValueError: n below 1.
        """
        check_length(n)
        scores = self._scores()
        scores[self.rated] = -np.inf
        best = np.argsort(-scores, kind="stable")[:n]
        best = best[np.isfinite(scores[best])]
        return self._table(best, {"predicted": losses.mean_of(scores[best], self._config, self._params.cuts)})

    def why(self, other: Any) -> pd.DataFrame:
        """What each of the newcomer's ratings adds to the prediction with `other`, the largest part first (Eq. 38).

        The parts add up to all that her ratings changed of it.

        Raises:
            DataError: an unknown id, or a model of another loss than the squared one, whose minimiser is no such sum.
        """
        if self._normal is None:
            raise DataError("a prediction is a sum over ratings with the squared loss alone; fit with loss='squared'")
        at = int(self._ids.encode([other])[0])
        if at < 0:
            raise DataError(f"{other!r} was not in the training set, so that nothing speaks for it")
        tilde = extended(self._params, _other(self.which)).astype(np.float64)
        parts = tilde[self.rated] @ np.linalg.lstsq(self._normal, tilde[at])[0] * self.surprises  # Eq. 38
        order = np.argsort(-np.abs(parts), kind="stable")
        return self._table(self.rated[order], {"part": parts[order]})

    @property
    def _ids(self) -> IdMap:
        """Raw ids of the other side."""
        return self._catalogue.item_ids if self.which == "user" else self._catalogue.user_ids

    def _table(self, at: Array, columns: dict[str, Array]) -> pd.DataFrame:
        titles = self._catalogue.titles if self.which == "user" else None
        return named_table(_other(self.which), self._ids, at, titles, columns)

    def _base(self) -> float:
        return self._params.mu if self._params.b is not None else 0.0

    def _scores(self) -> Array:
        """r̂ with everything on the other side (Eq. 1)."""
        table, bias = _others(self._params, self.which)
        out: Array = table @ self.factors + self._base() + self.bias
        return out if bias is None else out + bias


def fold_in(
    result: FitResult,
    which: Which,
    ratings: Mapping[Any, float] | pd.Series[Any],
    features: sp.csr_array | None = None,
    *,
    prior: PriorName = "penalty",
) -> Newcomer:
    """Find the row of a user or an item that training has not seen, without training.

    It minimises J of all ratings, the newcomer's among them, while every other row stays (Eq. 37): one half-step of
    alternating least squares. Without ratings it is nothing, so that the mean and the other side's biases predict.

    Args:
        ratings: ratings by raw id of the other side.
        features: (1, f), what a newcomer is made of where the model has a design (`mf_numpy.features.Described.rows`);
            the row then starts from them, and ratings move it as an id of its own would.
        prior: what holds the row where ratings are few: the ``penalty`` of training, or what training's own ``rows``
            are like (Eq. 60). ``per_rating`` prices a first rating at λ, which is little; their rows know better.

    Raises:
        ConfigError: another prior, or a model of draws or of several fits, which has no single table of rows to hold.
        DataError: an unknown id, a rating that is not finite or that the loss is not made for, a model of a loss whose
            lists are drawn, or features where there is no design, or none where there is one; rows that are no prior,
            see `mf_numpy.prior.prior_of`.
    """
    choose("prior", prior, get_args(PriorName))
    if result.is_mean:
        raise ConfigError(
            "the model is a mean over draws or over fits, whose rows stand for no single J; fit again with the "
            "newcomer's ratings, or with solver='als'"
        )
    if result.config.loss in DRAWN:
        raise DataError(
            f"the model's loss is {result.config.loss!r}, whose lists are drawn, so that no row is the minimiser; fit "
            "with another loss, or with the newcomer's ratings"
        )
    params, catalogue = result.params, result.catalogue
    ids = catalogue.item_ids if which == "user" else catalogue.user_ids
    series = ratings if isinstance(ratings, pd.Series) else pd.Series(dict(ratings), dtype=np.float64)
    at, values = ids.encode(series.index), series.to_numpy(np.float64)
    if (at < 0).any():
        unknown = series.index.tolist()[int(np.argmax(at < 0))]
        raise DataError(f"{_other(which)} {unknown!r} was not in the training set; leave its rating out")
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values)))
        raise DataError(f"the rating of {series.index.tolist()[bad]!r} is {values[bad]}; ratings must be finite")
    losses.check_each(values, result.config, params.cuts)
    _, bias = _others(params, which)
    others = extended(params, _other(which)).astype(np.float64)
    made = _of_features(result, which, features)
    base = others[at] @ made
    if bias is not None:
        base = params.mu + bias[at] + base
    normal: Array | None = None
    if prior == "rows":
        known = prior_of(result, which)
        row = made + known.row(others[at], values - base)
        normal = np.linalg.pinv(known.covariance(others[at]) / known.variance, hermitian=True)
    else:
        ridge = price(len(catalogue.seen.indices) + len(values), len(values), result.config)
        gram = everything(others, result.config)
        row = made + minimiser(others[at], values, base, ridge, result.config, gram, params.cuts)
        if result.config.loss == "squared":
            normal = others[at].T @ others[at] + ridge * np.eye(others.shape[1])
    k = params.shape[2]
    factors, own_bias = row[:k].astype(params.P.dtype), float(row[k]) if bias is not None else 0.0
    surprises = values - losses.mean_of(base, result.config, params.cuts)
    return Newcomer(which, factors, own_bias, at, surprises, normal, result.config, params, catalogue)


def price(n_ratings: int, n_own: int, config: Config) -> float:
    """ν = Nλw of a row with `n_own` of all N ratings: what its squared length costs beside the sum of its losses."""
    return config.reg * (n_ratings if config.penalty == "total" else n_own)  # Eq. 8


def everything(others: Array, config: Config) -> Array | None:
    """Σ q̃ q̃ᵀ over all of the other side (D, D), where J has r̂² of all pairs (Eq. 47); else None."""
    return others.T @ others if config.loss == "all_pairs" else None


def minimiser(
    others: Array,
    values: Array,
    base: Array,
    ridge: float,
    config: Config,
    gram: Array | None = None,
    cuts: Cuts | None = None,
) -> Array:
    """The δ (D,) that minimises Σ ℓ(r, base + q̃·δ) + ν|δ|² + δᵀGδ, by Newton's steps (Eq. 37); 0 without ratings.

    For the squared loss the first step is Eq. 26. The loss is convex, so a step that goes too far is halved.

    Args:
        others: (R, D), q̃ of each rating.
        base: (R,), what is predicted with δ = 0.
        ridge: ν.
        gram: G (D, D), 0 if None.
        cuts: those of the model, if it has any.
    """
    delta = np.zeros(others.shape[1])
    if not len(values):
        return delta
    pulls = np.zeros((len(delta), len(delta))) if gram is None else gram

    def cost(at: Array) -> float:
        predicted = base + others @ at
        return float(losses.value(predicted, values, config, cuts).sum() + ridge * (at @ at) + at @ pulls @ at)

    here = cost(delta)
    for _ in range(MOST_STEPS):
        predicted = base + others @ delta
        slope = others.T @ losses.residual(predicted, values, config, cuts) + 2 * ridge * delta
        slope += 2 * pulls @ delta
        bend = (others.T * losses.curvature(predicted, values, config, cuts)) @ others + 2 * ridge * np.eye(len(delta))
        bend += 2 * pulls
        step = np.linalg.lstsq(bend, slope)[0]  # Eq. 37
        length = 1.0
        while (ahead := cost(delta - length * step)) > here and length > 1e-9:
            length /= 2
        if ahead >= here:
            break
        delta, here = delta - length * step, ahead
    return delta


def _other(which: Which) -> Which:
    """The side that the newcomer is not on."""
    return "item" if which == "user" else "user"


def _others(params: Params, which: Which) -> tuple[Array, Array | None]:
    """Factors and biases of the side that the newcomer is not on."""
    return (params.Q, params.c) if which == "user" else (params.P, params.b)


def _of_features(result: FitResult, which: Which, features: sp.csr_array | None) -> Array:
    """(D,) what the newcomer's features make (Eq. 33); zeros without a design."""
    theta, design = result.of_features, result.design
    k = result.params.shape[2]
    if design is None or theta is None:
        if features is not None:
            raise DataError("features came, but the model has no design; leave them out, or fit with design=")
        return np.zeros(k + (result.params.b is not None))
    table, bias = (theta.P, theta.b) if which == "user" else (theta.Q, theta.c)
    if features is None or features.shape != (1, len(table)):
        came = "none" if features is None else f"shape {features.shape}"
        raise DataError(
            f"the model's {which}s are made of {len(table)} features, but {came} came; give shape (1, {len(table)})"
        )
    factors = (features @ table)[0].astype(np.float64)
    return factors if bias is None else np.append(factors, (features @ bias)[0])
