"""Adam by hand is torch's Adam, decay inside; AdamW by hand is torch's AdamW, decay outside; they differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mf_numpy.adaptive import adam
from mf_numpy.ratings import Array

OPTIMISERS = {False: torch.optim.Adam, True: torch.optim.AdamW}


def _grad(theta: Array, step: int) -> Array:
    out: Array = np.sin(3 * theta + step) + theta
    return out


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("betas", [(0.8, 0.95), (0.3, 0.4)])
def test_200_steps_are_those_of_torch(decoupled: bool, decay: float, betas: tuple[float, float]) -> None:
    theta = np.random.default_rng(0).normal(size=(4, 3))
    mine, moments = theta, None
    theirs = torch.tensor(theta, requires_grad=True)
    optimizer = OPTIMISERS[decoupled]([theirs], lr=0.05, betas=betas, eps=1e-6, weight_decay=decay)
    for step in range(200):
        g = _grad(mine, step)
        mine, moments = adam(
            mine, moments, g, 0.05, beta1=betas[0], beta2=betas[1], eps=1e-6, decay=decay, decoupled=decoupled
        )  # fmt: skip
        theirs.grad = torch.tensor(_grad(theirs.detach().numpy(), step))
        optimizer.step()
        np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-10, atol=1e-12)
    assert moments is not None and moments.steps == 200


def test_the_defaults_are_those_of_torch() -> None:
    theta = np.array([1.0, -2.0])
    theirs = torch.tensor(theta, requires_grad=True)
    theirs.grad = torch.tensor([0.3, 1e-7], dtype=torch.float64)
    torch.optim.Adam([theirs], lr=0.1).step()
    np.testing.assert_allclose(adam(theta, None, np.array([0.3, 1e-7]), 0.1)[0], theirs.detach().numpy(), rtol=1e-9)


def test_settings_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        adam(np.ones(1), None, np.ones(1), 0.1, 0.8)  # type: ignore[call-arg]


def test_under_adam_a_decay_in_the_gradient_loses_its_strength() -> None:
    """The first step is of length η whatever δ: the pull is divided by its own size (Eq. 10). Outside it counts."""
    theta, g = np.array([5.0]), np.array([1.0])
    inside = [theta - adam(theta, None, g, 0.01, decay=delta)[0] for delta in (0.0, 0.1, 10.0)]
    np.testing.assert_allclose(inside, 0.01, rtol=1e-6)
    outside = [theta - adam(theta, None, g, 0.01, decay=delta, decoupled=True)[0] for delta in (0.0, 0.1, 10.0)]
    np.testing.assert_allclose(outside, [[0.01], [0.015], [0.51]], rtol=1e-6)
