"""Eq. 12 to 14 in place and in parallel: the twin of `mf_numpy.optim`."""

from __future__ import annotations

import numpy as np
from numba import prange

from mf_numpy.config import Config
from mf_numpy.kernels.compiling import jit
from mf_numpy.kernels.gradients import columns
from mf_numpy.model import Tensors


@jit
def _momentum_kernel(theta, v, g, lr, beta, kept, ahead, first):  # type: ignore[no-untyped-def]
    """v ← βv + kept·g, then θ ← θ - η v, or θ - η(g + βv) when `ahead` (Eq. 12, 13, 14); in place."""
    for row in prange(theta.shape[0]):
        for f in range(theta.shape[1]):
            if first:
                v[row, f] = g[row, f]
            else:
                v[row, f] = beta * v[row, f] + kept * g[row, f]
            if ahead:
                theta[row, f] -= lr * (g[row, f] + beta * v[row, f])
            else:
                theta[row, f] -= lr * v[row, f]


def weight_of_gradient(config: Config) -> float:
    """What a new gradient counts for in the velocity: 1 - β in the post's form (Eq. 12), else 1 (Eq. 13)."""
    return 1 - config.momentum if config.momentum_form == "ema" else 1.0


def update(tensors: Tensors, old: Tensors | None, grads: Tensors, lr: float, config: Config) -> Tensors | None:
    """`mf_numpy.optim.update` in place: parameters and velocities are overwritten; returns the velocities."""
    beta, kept = config.momentum, weight_of_gradient(config)
    ahead = config.momentum_form == "nesterov"
    new = {name: np.empty_like(theta) for name, theta in tensors.items()} if old is None else old
    for name, theta in tensors.items():
        as_type = theta.dtype.type
        _momentum_kernel(
            columns(theta), columns(new[name]), columns(grads[name]),
            as_type(lr), as_type(beta), as_type(kept), ahead, old is None,
        )  # fmt: skip
    return new if beta else None
