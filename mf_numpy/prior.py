"""Eq. 60: what a newcomer's row is before any of her ratings, by the rows of training, and what they leave open.

Symbols: D numbers of a row, its bias last, as in `mf_numpy.fold_in`; δ_u (D,) what row u has beside its features;
S (D, D) the mean of δ_u δ_uᵀ over the training ratings; σ² the mean squared error of training; C (D, D) the covariance
that R ratings leave; q̃ (D,) a row of the other side, with a 1 for the bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mf_numpy.curvature import extended
from mf_numpy.errors import DataError
from mf_numpy.ratings import Array

if TYPE_CHECKING:
    from mf_numpy.result import Catalogue, FitResult

Which = Literal["user", "item"]

LEAST_VARIANCE = 1e-12
"""Of a model that hits every training rating."""


@dataclass(frozen=True, eq=False)
class Prior:
    """What rows are like before any rating.

    Attributes:
        root: (D, rank), L of S = L Lᵀ.
        variance: σ², in squared rating units.
    """

    root: Array
    variance: float

    def covariance(self, others: Array) -> Array:
        """C (D, D) of a row with ratings of `others` (R, D), q̃ of each (Eq. 60)."""
        seen = others @ self.root
        # S may have no inverse: where rows of training never go, a newcomer does not either.
        inner = np.eye(self.root.shape[1]) + seen.T @ seen / self.variance
        out: Array = self.root @ np.linalg.solve(inner, self.root.T)  # Eq. 60
        return out

    def row(self, others: Array, surprises: Array) -> Array:
        """δ (D,) that is expected after ratings that surprise by (R,): Eq. 37 with S for the penalty (Eq. 60)."""
        out: Array = self.covariance(others) @ (others.T @ surprises) / self.variance  # Eq. 60
        return out


def prior_of(result: FitResult, which: Which) -> Prior:
    """The prior of users or of items.

    Raises:
        DataError: another loss than the squared one, a model that was not trained, or rows of shared features alone.
    """
    if result.config.loss != "squared":
        raise DataError(
            f"rows of training are a prior with the squared loss alone, but loss is {result.config.loss!r}; use "
            "prior='penalty' to fold in, and for questions a model of the squared loss"
        )
    if result.is_ensemble:
        raise DataError("the model is the mean of several fits, whose rows are no prior; take one of the fits")
    rmse = result.history[-1].train_rmse if result.history else np.nan
    if not np.isfinite(rmse):
        raise DataError(
            "the model has no training error to weigh ratings by; train it, or fold in with prior='penalty'"
        )
    rows = own_rows(result, which)
    share = counts_of(result.catalogue, which) / len(result.catalogue.seen.indices)
    values, vectors = np.linalg.eigh((rows.T * share) @ rows)
    kept = values > values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    return Prior(vectors[:, kept] * np.sqrt(values[kept]), max(rmse**2, LEAST_VARIANCE))


def own_rows(result: FitResult, which: Which) -> Array:
    """δ of every training row, (m, D) float64: of its features those that no other row has; without a design all of it.

    Raises:
        DataError: rows that share all their features.
    """
    theta, design = result.of_features, result.design
    if design is None or theta is None:
        return extended(result.params, which, own=True).astype(np.float64)
    side = design.users if which == "user" else design.items
    alone = np.flatnonzero(np.diff(side.has.indptr) == 1)
    if not len(alone):
        raise DataError(
            f"the model's {which}s have no features of their own, so that ratings move none of them; "
            "fit with Features().id(), or use prior='penalty'"
        )
    out: Array = side.matrix[:, alone] @ extended(theta, which, own=True)[alone].astype(np.float64)
    return out


def counts_of(catalogue: Catalogue, which: Which) -> Array:
    """Training ratings of each user or item."""
    seen = catalogue.seen
    if which == "user":
        return np.diff(seen.indptr)
    return np.bincount(seen.indices, minlength=len(catalogue.item_ids))
