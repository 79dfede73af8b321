"""What an error costs: ℓ of Eq. 2, E of Eq. 3 and the second derivative that the Hessian needs.

A loss here is a function of the error r̂ - r alone. Changing it changes E and nothing else of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mf_numpy.config import Config
from mf_numpy.ratings import Array


@dataclass(frozen=True)
class Loss:
    """ℓ and its derivatives by r̂, as functions of the error r̂ - r (B,) in rating units and of δ.

    Attributes:
        value: ℓ, in squared rating units.
        residual: E = ∂ℓ/∂r̂, in rating units.
        curvature: ∂²ℓ/∂r̂², a pure number.
    """

    value: Callable[[Array, float], Array]
    residual: Callable[[Array, float], Array]
    curvature: Callable[[Array, float], Array]


def _root(error: Array, delta: float) -> Array:
    out: Array = np.sqrt(1 + (error / delta) ** 2)
    return out


LOSSES: Mapping[str, Loss] = {
    "squared": Loss(
        value=lambda error, delta: error**2,
        residual=lambda error, delta: 2 * error,  # Eq. 3
        curvature=lambda error, delta: np.full_like(error, 2),
    ),
    # ℓ = 2δ²(√(1 + (error/δ)²) - 1), written so that no small error cancels against the 1.
    "pseudo_huber": Loss(
        value=lambda error, delta: 2 * error**2 / (1 + _root(error, delta)),  # Eq. 17
        residual=lambda error, delta: 2 * error / _root(error, delta),  # Eq. 17
        curvature=lambda error, delta: 2 / _root(error, delta) ** 3,  # Eq. 17
    ),
}


def value(predicted: Array, values: Array, config: Config) -> Array:
    """ℓ of each pair (Eq. 2, 17), (B,) in squared rating units."""
    return LOSSES[config.loss].value(predicted - values, config.loss_scale)


def residual(predicted: Array, values: Array, config: Config) -> Array:
    """E = ∂ℓ/∂r̂ of each pair (Eq. 3, 17), (B,) in rating units."""
    return LOSSES[config.loss].residual(predicted - values, config.loss_scale)


def curvature(predicted: Array, values: Array, config: Config) -> Array:
    """∂²ℓ/∂r̂² of each pair (Eq. 18), (B,)."""
    return LOSSES[config.loss].curvature(predicted - values, config.loss_scale)
