"""Hamiltonian steps: one chain in four implementations, the posterior that `gibbs` has, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mf_torch
from mf_numpy import Config, Split, fit, planted, random_split
from mf_numpy.config import Model
from mf_numpy.engine import Backend
from mf_numpy.errors import ConfigError
from mf_numpy.uncertainty import agreement

CHAIN = Config(solver="hmc", n_factors=2, n_epochs=50, burn_in=0, lr=0.25, leapfrog_steps=6, dtype="float64")


@pytest.fixture(scope="module")
def split() -> Split:
    drawn = planted.planted(planted.PlantedConfig(n_users=40, n_items=30, n_ratings=600, n_factors=2))
    return random_split(drawn.ratings, valid=0.2, seed=0)


@pytest.mark.parametrize("model", ["plain", "biased"])
def test_chains_of_all_implementations_are_one(split: Split, model: Model) -> None:
    config = replace(CHAIN, model=model)
    backends: tuple[Backend, ...] = ("loops", "numpy", "numba")
    loops, *others = [fit(split.train, config, backend=backend).state.draws for backend in backends]
    others.append(mf_torch.fit(split.train, config).state.draws)
    assert loops is not None and len(loops) == 50
    for other in others:
        assert other is not None
        for mine, theirs in zip(other.points, loops.points, strict=True):
            for name, x in mine.tensors().items():
                np.testing.assert_allclose(x, theirs.tensors()[name], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(other.precisions, loops.precisions, rtol=1e-10)
    moved = [(a.P != b.P).any() for a, b in zip(loops.points, loops.points[1:], strict=False)]
    # Some trajectories are refused, so that the refusals of all are the same ones.
    assert 0.5 < np.mean(moved) < 1


def test_it_has_the_posterior_of_gibbs(split: Split) -> None:
    settings = {"n_factors": 2, "n_epochs": 500, "burn_in": 100, "dtype": "float64"}
    configs = [
        Config(solver=solver, seed=seed, **settings, **more)  # type: ignore[arg-type]
        for solver, more in (("gibbs", {}), ("hmc", {"lr": 0.3, "leapfrog_steps": 6}))
        for seed in (0, 1)
    ]
    chains = [fit(split.train, config, valid=split.valid) for config in configs]
    pairs = split.valid.users[split.valid.known], split.valid.items[split.valid.known]
    found = agreement([chain.state.draws for chain in chains if chain.state.draws], *pairs)
    assert found.advice is None and found.r_hat < 1.05
    errors = [chain.history[-1].valid_rmse for chain in chains]
    assert None not in errors and np.ptp(errors) < 0.01  # type: ignore[arg-type]
    spread = [chain.interval(*pairs).spread.mean() for chain in chains]
    assert max(spread) < 1.1 * min(spread)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_resumed_chain_is_the_straight_one(split: Split, backend: str) -> None:
    train = mf_torch.fit if backend == "torch" else fit
    straight, half = (train(split.train, replace(CHAIN, n_epochs=n)) for n in (8, 4))
    resumed = train(split.train, replace(CHAIN, n_epochs=8), resume=half)
    for name, x in straight.params.tensors().items():
        np.testing.assert_array_equal(resumed.params.tensors()[name], x)


def test_steps_past_all_numbers_are_refused_one_by_one(split: Split) -> None:
    """The chain stays where it began, which is no reason to stop: the next velocity may be a slower one."""
    result = fit(split.train, replace(CHAIN, lr=1e6, n_epochs=5))
    assert result.status == "max_epochs" and result.state.draws is not None
    first, *others = result.state.draws.points
    assert all((point.P == first.P).all() for point in others) and np.isfinite(first.P).all()


def test_single_precision_goes_the_same_way_for_a_while(split: Split) -> None:
    narrow, wide = (fit(split.train, replace(CHAIN, n_epochs=3, dtype=dtype)) for dtype in ("float32", "float64"))
    assert narrow.params.P.dtype == np.float32
    np.testing.assert_allclose(narrow.params.P, wide.params.P, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"solver": "gibbs", "leapfrog_steps": 5},
            "leapfrog_steps is 5 with solver 'gibbs'; leave it out, or take 'hmc'",
        ),
        ({"solver": "hmc", "leapfrog_steps": 0}, "leapfrog_steps is 0, but must be a whole number, 1 or larger"),
        ({"solver": "hmc", "momentum": 0.9}, "momentum is 0.9 with solver 'hmc', which draws its velocities anew"),
        ({"solver": "hmc", "reg": 0.1}, "reg is 0.1 with solver 'hmc', which draws its priors"),
        ({"solver": "hmc", "loss": "logistic"}, "loss is 'logistic' with solver 'hmc'"),
        ({"solver": "als", "burn_in": 5}, "burn_in is 5 with solver 'als'; leave it out, or take 'gibbs' or 'hmc'"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Config(**settings)  # type: ignore[arg-type]
