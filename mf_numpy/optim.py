"""Eq. 12, 13 and 14: how a gradient moves the parameters. The learning rate stays outside the velocity."""

from __future__ import annotations

from mf_numpy.config import Config
from mf_numpy.model import Tensors
from mf_numpy.ratings import Array


def velocity(old: Array | None, grad: Array, config: Config) -> Array:
    """The next velocity of one parameter, in its shape and dtype.

    ``ema`` (Eq. 12, the post's): v ← βv + (1-β)g. ``heavy_ball`` and ``nesterov`` (Eq. 13): v ← βv + g.
    The first velocity is g itself in every form, as in ``torch.optim.SGD``.
    """
    if old is None:
        return grad.copy()
    beta = config.momentum
    kept = 1 - beta if config.momentum_form == "ema" else 1.0
    return beta * old + kept * grad  # Eq. 12, Eq. 13


def update(
    tensors: Tensors, old: Tensors | None, grads: Tensors, lr: float, config: Config
) -> tuple[Tensors, Tensors | None]:
    """One simultaneous update of all parameters: (new parameters, new velocities), nothing in place.

    Without momentum there is no velocity, and θ ← θ - ηg.
    """
    if config.momentum == 0:
        return {name: theta - lr * grads[name] for name, theta in tensors.items()}, None
    new = {name: velocity(old[name] if old else None, grads[name], config) for name in tensors}
    if config.momentum_form == "nesterov":
        steps = {name: grads[name] + config.momentum * new[name] for name in tensors}  # Eq. 14
    else:
        steps = new
    return {name: theta - lr * steps[name] for name, theta in tensors.items()}, new
