"""Whole trajectories agree at every step; wrong optimisers are caught; a resumed run is the straight run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import mf_numpy
import mf_torch
from mf_numpy import Config, FitResult, Ratings, Split
from mf_numpy.check import ENGINES, TRAJECTORY_TOLERANCE, relative_difference, suited, trajectory, trajectory_configs
from mf_numpy.engine import NumpyEngine
from mf_torch.check import observe
from mf_torch.train import TorchEngine

ALL_ENGINES = {**ENGINES, "autograd": (TorchEngine("cpu"), observe)}
CONFIGS = dict(trajectory_configs())
FORMS: list[dict[str, Any]] = [
    {"momentum": 0.0},
    {"momentum": 0.9, "momentum_form": "ema"},
    {"momentum": 0.8, "momentum_form": "heavy_ball"},
    {"momentum": 0.8, "momentum_form": "nesterov"},
]


@pytest.fixture(scope="module")
def few() -> Ratings:
    rng = np.random.default_rng(1)
    return Ratings.of_indices(rng.integers(0, 6, 25), rng.integers(0, 5, 25), rng.integers(1, 6, 25), m=6, n=5)


@pytest.mark.parametrize("label", CONFIGS)
@pytest.mark.parametrize("name", ["numpy", "numba", "autograd"])
def test_200_steps_agree_with_the_loops(few: Ratings, label: str, name: str) -> None:
    config = CONFIGS[label]
    assert config.n_epochs == 200 and config.lr_at(200) == config.lr_at(1) / 2
    ratings = suited(few, config)
    gold = list(trajectory(*ENGINES["loops"], ratings, config))
    mine = list(trajectory(*ALL_ENGINES[name], ratings, config))
    assert len(mine) == len(gold) == 200
    expected_names = {"objective", "E", "gradient P", "P"} | ({"velocity P"} if config.momentum else set())
    assert expected_names <= gold[0].keys() == mine[0].keys()
    for step, (a, b) in enumerate(zip(mine, gold, strict=True)):
        for quantity in b:
            assert relative_difference(a[quantity], b[quantity]) <= TRAJECTORY_TOLERANCE, (quantity, step)
    # Pairs that were given several grades leave some of the surprise, whatever is learned.
    assert gold[-1]["objective"] < (0.8 if config.loss == "ordinal" else 0.5) * gold[0]["objective"]


def _fitters() -> dict[str, Callable[..., FitResult]]:
    def by(backend: Any) -> Callable[..., FitResult]:
        return lambda train, config, **more: mf_numpy.fit(train, config, backend=backend, **more)

    return {"numpy": by("numpy"), "numba": by("numba"), "torch": mf_torch.fit}


FITTERS = _fitters()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.get("momentum_form", "plain"))
@pytest.mark.parametrize("batch_size", [None, 500])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FITTERS)
def test_a_resumed_run_is_the_straight_run_bit_for_bit(
    small: Split, name: str, dtype: Any, batch_size: int | None, form: dict[str, Any]
) -> None:
    config = Config(n_factors=3, n_epochs=7, lr=2.0, lr_decay=0.9, dtype=dtype, batch_size=batch_size, **form)
    straight = FITTERS[name](small.train, config)
    part = FITTERS[name](small.train, replace(config, n_epochs=3))
    resumed = FITTERS[name](small.train, config, resume=part)
    assert [r.objective for r in resumed.history] == [r.objective for r in straight.history]
    for key, theta in straight.params.tensors().items():
        assert np.array_equal(resumed.params.tensors()[key], theta), key


@pytest.mark.parametrize("batch_size", [None, 700])
def test_a_run_begun_by_hand_goes_on_by_autograd(small: Split, quick: Config, batch_size: int | None) -> None:
    config = replace(quick, batch_size=batch_size, n_epochs=8)
    straight = mf_numpy.fit(small.train, config, backend="numpy")
    begun = mf_numpy.fit(small.train, replace(config, n_epochs=4))
    crossed = mf_torch.fit(small.train, config, resume=begun)
    for key, theta in straight.params.tensors().items():
        assert relative_difference(crossed.params.tensors()[key], theta) <= TRAJECTORY_TOLERANCE


@pytest.mark.parametrize("batch_size", [None, 333])
def test_whole_fits_agree_in_float64(small: Split, quick: Config, batch_size: int | None) -> None:
    config = replace(quick, batch_size=batch_size, lr=5.0 if batch_size is None else 0.5)
    gold = mf_numpy.fit(small.train, config, valid=small.valid, backend="numpy")
    for name in ("numba", "torch"):
        mine = FITTERS[name](small.train, config, valid=small.valid)
        for a, b in zip(mine.history, gold.history, strict=True):
            assert a.objective == pytest.approx(b.objective, rel=TRAJECTORY_TOLERANCE)
            assert a.train_rmse == pytest.approx(b.train_rmse, rel=TRAJECTORY_TOLERANCE)
            assert a.valid_rmse == pytest.approx(b.valid_rmse, rel=TRAJECTORY_TOLERANCE)


@pytest.mark.parametrize("name", ["numba", "torch"])
def test_float32_drift_is_the_float64_drift_times_the_ratio_of_roundings(
    small: Split, quick: Config, name: str
) -> None:
    """Both drifts are rounding errors carried by the same dynamics, so they scale as eps does.

    The float64 drift is measured by moving the start by eps64, many times over, which shakes every sum; the
    largest of 20 such drifts, times eps32/eps64, bounds float32 with a factor 2 for its own roundings per step.
    """
    gold = mf_numpy.fit(small.train, quick, backend="numpy").params.tensors()
    narrow = FITTERS[name](small.train, replace(quick, dtype="float32")).params.tensors()
    rng = np.random.default_rng(0)
    drift = dict.fromkeys(gold, 0.0)
    engine = NumpyEngine("numpy")
    whole = engine.load(small.train, quick)
    for _ in range(20):
        state = mf_numpy.init(small.train, quick)
        for _ in range(quick.n_epochs):
            # Every step's result is rounded to eps64 anew, as float32 rounds to eps32.
            shaken = {
                key: theta * (1 + np.finfo(np.float64).eps * rng.uniform(-1, 1, theta.shape))
                for key, theta in state.params.tensors().items()
            }
            state = engine.next_epoch(
                engine.step(replace(state, params=state.params.with_tensors(shaken)), whole, quick)
            )
        for key, theta in state.params.tensors().items():
            drift[key] = max(drift[key], relative_difference(theta, gold[key]))
    ratio = float(np.finfo(np.float32).eps / np.finfo(np.float64).eps)
    for key in gold:
        assert relative_difference(narrow[key].astype(np.float64), gold[key]) <= 2 * drift[key] * ratio, key
