"""Eq. 10, 12 to 14 and 30 in place and in parallel: the twin of `mf_numpy.optim`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import prange

from mf_numpy.adaptive import BETA1, BETA2, EPS, FLOOR
from mf_numpy.config import Config
from mf_numpy.kernels.compiling import jit
from mf_numpy.kernels.gradients import columns
from mf_numpy.model import Tensors
from mf_numpy.optim import Memory


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


@jit
def _adam_kernel(theta, m, s, g, lr, beta1, beta2, kept1, kept2, share1, share2, eps):  # type: ignore[no-untyped-def]
    """Eq. 10 in place; kept = 1 - β and share = 1 - βᵗ, which keep their digits where β is rounded to float32."""
    for row in prange(theta.shape[0]):
        for f in range(theta.shape[1]):
            m[row, f] = beta1 * m[row, f] + kept1 * g[row, f]
            s[row, f] = beta2 * s[row, f] + kept2 * g[row, f] * g[row, f]
            theta[row, f] -= lr * (m[row, f] / share1) / (np.sqrt(s[row, f] / share2) + eps)


@jit
def _adagrad_kernel(theta, h, g, lr, floor):  # type: ignore[no-untyped-def]
    """Eq. 30 in place."""
    for row in prange(theta.shape[0]):
        for f in range(theta.shape[1]):
            h[row, f] += g[row, f] * g[row, f]
            theta[row, f] -= lr * g[row, f] / (np.sqrt(h[row, f]) + floor)


def weight_of_gradient(config: Config) -> float:
    """What a new gradient counts for in the velocity: 1 - β in the post's form (Eq. 12), else 1 (Eq. 13)."""
    return 1 - config.momentum if config.momentum_form == "ema" else 1.0


def update(tensors: Tensors, old: Memory | None, grads: Tensors, lr: float, config: Config) -> Memory | None:
    """`mf_numpy.optim.update` in place: parameters and memory are overwritten; returns the memory."""
    if config.step_rule != "momentum":
        return _by_size(tensors, old, grads, lr, config)
    beta, kept = config.momentum, weight_of_gradient(config)
    ahead = config.momentum_form == "nesterov"
    new = {name: np.empty_like(theta) for name, theta in tensors.items()} if old is None else old.velocity
    for name, theta in tensors.items():
        as_type = theta.dtype.type
        _momentum_kernel(
            columns(theta), columns(new[name]), columns(grads[name]),
            as_type(lr), as_type(beta), as_type(kept), ahead, old is None,
        )  # fmt: skip
    return Memory(new) if beta else None


def _by_size(tensors: Tensors, old: Memory | None, grads: Tensors, lr: float, config: Config) -> Memory:
    memory = _nothing(tensors, config) if old is None else old
    steps = memory.steps + 1
    for name, theta in tensors.items():
        as_type = theta.dtype.type
        first, g = columns(memory.velocity[name]), columns(grads[name])
        if memory.second is None:
            _adagrad_kernel(columns(theta), first, g, as_type(lr), as_type(FLOOR))
            continue
        _adam_kernel(
            columns(theta), first, columns(memory.second[name]), g, as_type(lr), as_type(BETA1), as_type(BETA2),
            as_type(1 - BETA1), as_type(1 - BETA2), as_type(1 - BETA1**steps), as_type(1 - BETA2**steps), as_type(EPS),
        )  # fmt: skip
    return memory if memory.second is None else replace(memory, steps=steps)


def _nothing(tensors: Tensors, config: Config) -> Memory:
    """What Adam and AdaGrad begin with: zeros."""
    first, second = ({name: np.zeros_like(theta) for name, theta in tensors.items()} for _ in range(2))
    return Memory(first, second) if config.step_rule == "adam" else Memory(first)
