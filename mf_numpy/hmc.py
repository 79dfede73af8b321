"""Eq. 75 to 78: all rows moved at once along the explicit gradient, and none drawn from a conditional.

Symbols: θ stands for the rows of both sides, m and Λ for the prior of each, α for the precision of the ratings
(`mf_numpy.gibbs`); v is the velocity, of the shapes of θ, times the masses M. Tables of a side are (rows, D).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mf_numpy.config import Config
from mf_numpy.gibbs import Noise, Prior
from mf_numpy.model import Params, Tensors
from mf_numpy.ratings import Array

Sides = tuple[Array, Array]
"""Of users (m, D) and of items (n, D)."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where a trajectory is, in arrays of NumPy or of torch.

    Attributes:
        theta: of users and of items.
        energy: U (Eq. 75).
        slope: ∇U of both (Eq. 76).
    """

    theta: tuple[Any, Any]
    energy: float
    slope: tuple[Any, Any]


Look = Callable[[Any], Place]
"""What makes a `Place` of θ."""


def tables(tensors: Tensors) -> Sides:
    """Factors, and biases where there are any, of users and of items."""
    if "b" not in tensors:
        return tensors["P"], tensors["Q"]
    return np.column_stack([tensors["P"], tensors["b"]]), np.column_stack([tensors["Q"], tensors["c"]])


def params_of(theta: Sides, like: Params) -> Params:
    """The inverse of `tables`, with the mean of `like`."""
    user, item = theta
    if like.b is None:
        return like.with_tensors({"P": user, "Q": item})
    P, Q = (np.ascontiguousarray(side[:, :-1]) for side in theta)
    return like.with_tensors({"P": P, "Q": Q, "b": user[:, -1].copy(), "c": item[:, -1].copy()})


def masses(counts: Sides, priors: tuple[Prior, Prior], alpha: float, config: Config) -> Sides:
    """M: about the curvature of U in each number (Eq. 77), so that all of them go round in about the same time.

    It may depend on what stays as it is while θ moves, and on nothing else: an item's factor counts as its prior has
    it.
    """
    user, item = (np.diag(np.linalg.inv(prior.precision)) + prior.mean**2 for prior in priors)
    if config.model == "biased":
        # A bias meets 1 at every rating.
        user[-1] = item[-1] = 1.0
    own_user, own_item = (np.diag(prior.precision) for prior in priors)
    by_user, by_item = (count[:, None].astype(np.float64) for count in counts)
    return own_user + alpha * by_user * item, own_item + alpha * by_item * user  # Eq. 77


def potential(theta: Sides, squared_error: float, priors: tuple[Prior, Prior], alpha: float) -> float:
    """U, minus the logarithm of the density of θ given α, m, Λ and the ratings, without its constant (Eq. 75)."""
    out = alpha * squared_error / 2  # Eq. 75
    for side, prior in zip(theta, priors, strict=True):
        away = side.astype(np.float64) - prior.mean
        out += float(((away @ prior.precision) * away).sum()) / 2  # Eq. 75
    return out


def slope(theta: Sides, gradient: Tensors, n_ratings: int, priors: tuple[Prior, Prior], alpha: float) -> Sides:
    """∇U (Eq. 76), of which ∇J (Eq. 6) without a penalty is the part of the ratings."""
    pull_user, pull_item = (alpha * n_ratings / 2 * side.astype(np.float64) for side in tables(gradient))  # Eq. 76
    back_user, back_item = (
        (side.astype(np.float64) - prior.mean) @ prior.precision for side, prior in zip(theta, priors, strict=True)
    )
    return pull_user + back_user, pull_item + back_item  # Eq. 76


def start(mass: Sides, noise: Noise) -> Sides:
    """Mv ~ N(0, M), drawn anew for every trajectory."""
    return np.sqrt(mass[0]) * noise.user.rows, np.sqrt(mass[1]) * noise.item.rows


def kinetic(momentum: tuple[Any, Any], mass: tuple[Any, Any]) -> float:
    """½ vᵀMv of momenta Mv."""
    return sum(float((one**2 / of).sum()) for one, of in zip(momentum, mass, strict=True)) / 2


def trajectory(
    here: Place, momentum: tuple[Any, Any], mass: tuple[Any, Any], lr: float, n_steps: int, look: Look
) -> tuple[Place, tuple[Any, Any]]:
    """Leapfrog steps of length η (Eq. 77): where they end, and with which momentum."""
    (user, item), (of_user, of_item) = momentum, mass
    there = here
    for _ in range(n_steps):
        user, item = user - lr / 2 * there.slope[0], item - lr / 2 * there.slope[1]  # Eq. 77
        there = look((there.theta[0] + lr * user / of_user, there.theta[1] + lr * item / of_item))  # Eq. 77
        user, item = user - lr / 2 * there.slope[0], item - lr / 2 * there.slope[1]  # Eq. 77
    return there, (user, item)


def accepted(rise: float, uniform: float) -> bool:
    """Whether a trajectory's end is taken (Eq. 78); one that went past all numbers is not.

    Args:
        rise: of U and the kinetic energy together.
    """
    return math.log(uniform) < -rise  # Eq. 78


def uniform_of(epoch: int, config: Config) -> float:
    """The draw in (0, 1] by which epoch 1, 2, ... accepts, from seed and epoch alone."""
    return 1.0 - float(np.random.default_rng([config.seed, epoch, 1]).random())


def swept(
    here: Place, momentum: tuple[Any, Any], mass: tuple[Any, Any], epoch: int, config: Config, look: Look
) -> Place:
    """Where the chain is after a trajectory: at its end, or still where it began."""
    there, end = trajectory(here, momentum, mass, config.lr_at(epoch), config.leapfrog_steps, look)
    rise = there.energy - here.energy + kinetic(end, mass) - kinetic(momentum, mass)
    return there if accepted(rise, uniform_of(epoch, config)) else here
