"""Eq. 63 to 69: the posterior of rows with Gaussian priors, by the conditionals that a Gibbs sampler draws from.

Shapes: a row of the user side is θ_u = p_u (K,) in the plain model and (p_u, b_u) (K + 1,) in the biased one; D is
that length. Likewise (q_i, c_i). Where rows are made of features (Eq. 33), each of these has such a row (Eq. 73, 74).
All of it is float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mf_numpy.config import Config
from mf_numpy.ratings import Array

MEAN_WEIGHT = 1.0
"""κ: the rows' mean is as sure to be near 0 as this many rows would make it."""

SHAPE = 1.0
"""Of the noise precision's Gamma prior: it is as sure as two ratings with errors of the size of the scale."""


@dataclass(frozen=True, eq=False)
class SideNoise:
    """Standard draws for one side.

    Attributes:
        wishart: (D, D) lower triangular, normals below a diagonal of roots of χ² (Eq. 68).
        mean: (D,) normals.
        rows: (rows, D) normals.
    """

    wishart: Array
    mean: Array
    rows: Array


@dataclass(frozen=True, eq=False)
class Noise:
    """All that is random in a sweep, whatever the state it begins from.

    Attributes:
        precision: of the standard Gamma distribution.
        user, item: of the sides.
    """

    precision: float
    user: SideNoise
    item: SideNoise


@dataclass(frozen=True, eq=False)
class FeatureNoise:
    """`Noise` of features: of each side that of its blocks, one after the other."""

    precision: float
    user: tuple[SideNoise, ...]
    item: tuple[SideNoise, ...]


@dataclass(frozen=True, eq=False)
class Prior:
    """Rows are N(mean, precision⁻¹) before their ratings are seen: m (D,) and Λ (D, D) of Eq. 63."""

    mean: Array
    precision: Array


def noise_of(epoch: int, rows: tuple[int, int], n_ratings: int, config: Config) -> Noise:
    """The draws of epoch 1, 2, ..., from seed and epoch alone: a resumed run draws the same.

    Args:
        rows: (m, n).
    """
    drawn = noise_of_features(epoch, ((rows[0],), (rows[1],)), n_ratings, config)
    return Noise(drawn.precision, drawn.user[0], drawn.item[0])


def noise_of_features(
    epoch: int, blocks: tuple[tuple[int, ...], tuple[int, ...]], n_ratings: int, config: Config
) -> FeatureNoise:
    """The draws of epoch 1, 2, ...: α's, then block by block those of the users, and those of the items.

    Args:
        blocks: how many features each block has, of users and of items.
    """
    rng = np.random.default_rng([config.seed, epoch])
    width = config.n_factors + (config.model == "biased")
    precision = float(rng.standard_gamma(SHAPE + n_ratings / 2))
    user, item = (tuple(_side_noise(rng, size, width) for size in sizes) for sizes in blocks)
    return FeatureNoise(precision, user, item)


def _side_noise(rng: np.random.Generator, rows: int, width: int) -> SideNoise:
    freedom = width + rows - np.arange(width)
    wishart = np.tril(rng.standard_normal((width, width)), -1) + np.diag(np.sqrt(rng.chisquare(freedom)))
    return SideNoise(wishart, rng.standard_normal(width), rng.standard_normal((rows, width)))


def scale_of(values: Array) -> float:
    """σ, the ratings' standard deviation, by which all priors follow their unit; 1 for equal ratings."""
    return float(np.std(values, dtype=np.float64)) or 1.0


def noise_precision(squared_error: float, scale: float, noise: Noise | FeatureNoise) -> float:
    """α given all parameters (Eq. 69), in 1/rating²; `squared_error` is Σ (r̂ - r)² as they are now."""
    return noise.precision / (SHAPE * scale**2 + squared_error / 2)  # Eq. 69


def prior_of(rows: int, total: Array, square: Array, scale: float, noise: SideNoise, config: Config) -> Prior:
    """m and Λ given the rows of a side (Eq. 67, 68).

    Args:
        rows: how many.
        total: (D,), Σ θ.
        square: (D, D), Σ θθᵀ.
    """
    sure = MEAN_WEIGHT + rows
    center = total / sure
    # V: factors are in √rating units, biases in rating units.
    begin = np.array([scale] * config.n_factors + [scale**2] * (config.model == "biased"))  # Eq. 63
    spread = np.diag(begin) + square - sure * np.outer(center, center)  # Eq. 67
    if not np.isfinite(spread).all():
        # The training loop reports it, with what to do.
        return Prior(np.full_like(center, np.nan), np.full_like(spread, np.nan))
    root = np.linalg.cholesky(spread)
    half = np.linalg.solve(root.T, noise.wishart)
    precision: Array = half @ half.T  # Eq. 68
    mean = center + root @ np.linalg.solve(noise.wishart.T, noise.mean) / np.sqrt(sure)  # Eq. 68
    return Prior(mean, precision)


def row_conditional(others: Array, left: Array, prior: Prior, alpha: float) -> tuple[Array, Array]:
    """A (D, D) and h (D,) of one row: given the rest it is N(A⁻¹h, A⁻¹) (Eq. 64).

    Args:
        others: (n, D), the other side's rows at its ratings, 1 in the place of a bias.
        left: (n,), what the ratings leave for it to say: r - μ and less the others' biases.
        alpha: α.
    """
    precision: Array = prior.precision + alpha * (others.T @ others)  # Eq. 64
    return precision, prior.precision @ prior.mean + alpha * (others.T @ left)  # Eq. 64


def row_draw(precision: Array, pull: Array, noise: Array) -> Array:
    """N(A⁻¹h, A⁻¹) by A = L Lᵀ: the minimiser (Eq. 65), and noise through L⁻ᵀ (Eq. 66)."""
    root = np.linalg.cholesky(precision)
    out: Array = np.linalg.solve(root.T, np.linalg.solve(root, pull) + noise)  # Eq. 66
    return out


def feature_conditional(
    x: Array, normal: Array, left: Array, here: Array, prior: Prior, alpha: float
) -> tuple[Array, Array]:
    """A (D, D) and h (D,) of one feature's row: given the rest it is N(A⁻¹h, A⁻¹) (Eq. 73).

    Args:
        x: (R,), how much each of the R rows that have the feature has of it.
        normal: (R, D, D), G of these rows, Σ q̃ q̃ᵀ over their ratings.
        left: (R, D), g of these rows, Σ q̃ (r - r̂).
        here: (D,), the feature's row as it is.
        alpha: α.
    """
    bend = np.tensordot(x**2, normal, axes=1)  # Eq. 73
    pull = x @ left + bend @ here  # Eq. 73
    return prior.precision + alpha * bend, prior.precision @ prior.mean + alpha * pull  # Eq. 73


def what_stays(x: Array, normal: Array, left: Array, step: Array) -> Array:
    """g (R, D) of `feature_conditional` once the feature has moved by `step` (D,) (Eq. 74)."""
    out: Array = left - x[:, None] * (normal @ step)  # Eq. 74
    return out
