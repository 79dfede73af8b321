"""Adam by hand, with weight decay inside the gradient or outside it (Eq. 10, 11), which are not the same; and AdaGrad.

In a fit the penalty is a part of J, so that its gradient is inside: `optim` trains with Eq. 10 and 30, and not with
Eq. 11, which comes to rest where ∇J is not 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mf_numpy.ratings import Array

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
"""β₁, β₂ and ε of Eq. 10, as Kingma and Ba recommend them; those of ``torch.optim.Adam``."""

FLOOR = 1e-10
"""ε of Eq. 30, which keeps it from dividing 0 by 0, in the unit of a gradient; that of ``torch.optim.Adagrad``."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Running means of g and g² in the shape of θ, and the number of steps they hold."""

    first: Array
    second: Array
    steps: int


def adam(
    theta: Array,
    moments: Moments | None,
    grad: Array,
    lr: float,
    *,
    beta1: float = BETA1,
    beta2: float = BETA2,
    eps: float = EPS,
    decay: float = 0.0,
    decoupled: bool = False,
) -> tuple[Array, Moments]:
    """One step of Adam (Kingma and Ba 2015, algorithm 1): (new θ, new moments), nothing in place.

    Args:
        theta: parameters of any shape.
        moments: what the last step returned; None before the first.
        grad: g, without the penalty, in the shape of `theta`.
        decay: δ, what multiplies θ in the penalty's gradient: 2λw of Eq. 2; torch's ``weight_decay``.
        decoupled: False puts δθ into the gradient, as ``torch.optim.Adam`` does (L2, Eq. 10); True shrinks θ
            beside the step, as ``torch.optim.AdamW`` does (Eq. 11; Loshchilov and Hutter 2019, algorithm 2).
    """
    if decoupled:
        theta = (1 - lr * decay) * theta  # Eq. 9, Eq. 11
    else:
        grad = grad + decay * theta  # Eq. 10
    old = moments or Moments(np.zeros_like(theta), np.zeros_like(theta), 0)
    steps = old.steps + 1
    first = beta1 * old.first + (1 - beta1) * grad
    second = beta2 * old.second + (1 - beta2) * grad**2
    mean, spread = first / (1 - beta1**steps), np.sqrt(second / (1 - beta2**steps))
    return theta - lr * mean / (spread + eps), Moments(first, second, steps)  # Eq. 10


def adagrad(theta: Array, sums: Array | None, grad: Array, lr: float) -> tuple[Array, Array]:
    """One step of AdaGrad (Duchi, Hazan and Singer 2011): (new θ, new h), nothing in place; the shapes are one.

    Args:
        sums: h, what the last step returned; None before the first.
    """
    sums = grad**2 if sums is None else sums + grad**2  # Eq. 30
    return theta - lr * grad / (np.sqrt(sums) + FLOOR), sums  # Eq. 30
