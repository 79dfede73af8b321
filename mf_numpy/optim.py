"""Eq. 10, 12 to 14 and 30: how a gradient moves the parameters. The learning rate stays outside of the memory."""

from __future__ import annotations

from dataclasses import dataclass

from mf_numpy.adaptive import Moments, adagrad, adam
from mf_numpy.config import Config
from mf_numpy.model import Tensors
from mf_numpy.ratings import Array


@dataclass(frozen=True, eq=False)
class Memory:
    """What the updates so far have left behind, one array a parameter.

    Attributes:
        velocity: v (Eq. 12, 13); m under Adam (Eq. 10), h under AdaGrad (Eq. 30).
        second: s under Adam (Eq. 10), else None.
        steps: updates so far, as Adam counts them (Eq. 10), else 0.
    """

    velocity: Tensors
    second: Tensors | None = None
    steps: int = 0

    def copy(self) -> Memory:
        """The same numbers in arrays of their own."""
        velocity = {name: v.copy() for name, v in self.velocity.items()}
        second = None if self.second is None else {name: s.copy() for name, s in self.second.items()}
        return Memory(velocity, second, self.steps)


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
    tensors: Tensors, old: Memory | None, grads: Tensors, lr: float, config: Config
) -> tuple[Tensors, Memory | None]:
    """One simultaneous update of all parameters: (new parameters, new memory), nothing in place.

    Without momentum nothing is remembered, and θ ← θ - ηg.
    """
    if config.step_rule == "adam":
        return _by_adam(tensors, old, grads, lr)
    if config.step_rule == "adagrad":
        return _by_adagrad(tensors, old, grads, lr)
    if config.momentum == 0:
        return {name: theta - lr * grads[name] for name, theta in tensors.items()}, None
    new = {name: velocity(old.velocity[name] if old else None, grads[name], config) for name in tensors}
    if config.momentum_form == "nesterov":
        steps = {name: grads[name] + config.momentum * new[name] for name in tensors}  # Eq. 14
    else:
        steps = new
    return {name: theta - lr * steps[name] for name, theta in tensors.items()}, Memory(new)


def _by_adam(tensors: Tensors, old: Memory | None, grads: Tensors, lr: float) -> tuple[Tensors, Memory]:
    moved, first, second = {}, {}, {}
    steps = 0
    for name, theta in tensors.items():
        moments = None
        if old is not None and old.second is not None:
            moments = Moments(old.velocity[name], old.second[name], old.steps)
        # The penalty is in the gradient already.
        moved[name], now = adam(theta, moments, grads[name], lr)  # Eq. 10
        first[name], second[name], steps = now.first, now.second, now.steps
    return moved, Memory(first, second, steps)


def _by_adagrad(tensors: Tensors, old: Memory | None, grads: Tensors, lr: float) -> tuple[Tensors, Memory]:
    moved, sums = {}, {}
    for name, theta in tensors.items():
        moved[name], sums[name] = adagrad(theta, old.velocity[name] if old else None, grads[name], lr)  # Eq. 30
    return moved, Memory(sums)
