"""The training loop: learning, statuses, early stopping, divergence, interruption, configuration."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import mf_numpy
import mf_torch
from mf_numpy import Config, ConfigError, DataError, FitResult, Ratings, Split, gradients, model
from mf_numpy.batch import full_batch
from mf_numpy.objective import objective
from mf_numpy.planted import DEFAULT, planted
from mf_numpy.result import EpochRecord

Fit = Callable[..., FitResult]
BACKENDS: dict[str, Fit] = {
    "numpy": lambda *a, **k: mf_numpy.fit(*a, backend="numpy", **k),
    "numba": lambda *a, **k: mf_numpy.fit(*a, backend="numba", **k),
    "torch": mf_torch.fit,
}


@pytest.fixture(params=BACKENDS)
def fit(request: pytest.FixtureRequest) -> Fit:
    return BACKENDS[request.param]


def test_it_learns(fit: Fit, small: Split, quick: Config) -> None:
    result = fit(small.train, replace(quick, n_epochs=150), valid=small.valid)
    spread = float(np.std(small.valid.values))
    assert result.status == "max_epochs"
    assert result.history[-1].valid_rmse is not None
    assert result.history[-1].valid_rmse < 0.6 * spread
    assert result.score(small.valid).rmse == pytest.approx(result.history[-1].valid_rmse, rel=1e-9)
    assert len(result.history_frame()) == 150


def test_loops_learn_as_well(small: Split, quick: Config) -> None:
    few = small.train.take(np.arange(200)).compact()
    config = replace(quick, n_epochs=3)
    slow, fast = mf_numpy.fit(few, config, backend="loops"), mf_numpy.fit(few, config)
    for name, theta in slow.params.tensors().items():
        np.testing.assert_allclose(fast.params.tensors()[name], theta, rtol=1e-10, atol=1e-13)


def test_early_stopping_restores_the_best_parameters(fit: Fit, small: Split, quick: Config) -> None:
    config = replace(quick, n_factors=8, reg=0.0, n_epochs=400, patience=7)
    result = fit(small.train, config, valid=small.valid)
    scores = [record.valid_rmse for record in result.history]
    best = int(np.argmin(np.array(scores, float)))
    assert result.status == "stopped"
    assert "patience" not in result.message and "no better validation RMSE in 7 epochs" in result.message
    assert len(scores) == best + 1 + 7 < 400
    assert result.score(small.valid).rmse == pytest.approx(scores[best], rel=1e-9)
    assert f"of epoch {best + 1}" in result.message


def test_convergence_is_noticed(fit: Fit, small: Split, quick: Config) -> None:
    result = fit(small.train, replace(quick, reg=0.3, n_epochs=2000, tol=1e-9))
    assert result.status == "converged"
    assert len(result.history) < 2000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [None, 800])
def test_divergence_keeps_the_last_finite_parameters(
    fit: Fit, small: Split, quick: Config, dtype: Any, batch_size: int | None
) -> None:
    config = replace(quick, lr=500.0, n_epochs=500, dtype=dtype, batch_size=batch_size)
    result = fit(small.train, config, valid=small.valid)
    assert result.status == "diverged"
    assert all(np.isfinite(theta).all() for theta in result.params.tensors().values())
    assert all(np.isfinite(record.objective) for record in result.history)
    assert "Lower lr (now 500; try 125)" in result.message
    # Not only finite themselves: the objective can still be computed from them.
    assert np.isfinite(objective(result.params, full_batch(small.train, config), config))


@pytest.mark.parametrize("n_epochs", range(1, 8))
def test_a_last_step_that_leaves_all_numbers_is_divergence_however_many_epochs_were_asked_for(
    fit: Fit, n_epochs: int
) -> None:
    few = Ratings.of_indices([0, 0, 1], [0, 1, 2], [3.0, 4.0, 5.0])
    result = fit(few, Config(lr=1000.0, n_epochs=n_epochs, seed=0))
    predicted = result.predict(few.users, few.items).values
    assert np.isfinite(predicted**2).all()
    if n_epochs == 7:
        assert result.status == "diverged"
    if result.status == "diverged":
        assert result.state.epoch < n_epochs and "Lower lr (now 1000; try 250)" in result.message


def test_the_callback_sees_each_epoch_and_can_stop(fit: Fit, small: Split, quick: Config) -> None:
    seen: list[EpochRecord] = []

    def watch(record: EpochRecord) -> bool:
        seen.append(record)
        return record.epoch == 4

    result = fit(small.train, quick, callback=watch)
    assert [record.epoch for record in seen] == [1, 2, 3, 4]
    assert tuple(seen) == result.history
    assert result.status == "stopped"
    assert "callback" in result.message
    assert all(record.seconds > 0 for record in seen)


def test_ctrl_c_keeps_the_last_whole_epoch(fit: Fit, small: Split, quick: Config) -> None:
    def interrupt(record: EpochRecord) -> None:
        if record.epoch == 5:
            raise KeyboardInterrupt

    result = fit(small.train, quick, callback=interrupt)
    straight = fit(small.train, replace(quick, n_epochs=5))
    assert result.status == "stopped"
    assert "interrupted" in result.message and "epoch 5" in result.message
    for name, theta in straight.params.tensors().items():
        assert np.array_equal(result.params.tensors()[name], theta)


def test_errors_before_training(fit: Fit, small: Split, quick: Config) -> None:
    with pytest.raises(DataError, match="no training ratings"):
        fit(small.train.take(np.zeros(len(small.train), bool)), quick)
    with pytest.raises(ConfigError, match="patience is set"):
        fit(small.train, replace(quick, patience=3))
    done = fit(small.train, replace(quick, n_epochs=1))
    with pytest.raises(ConfigError, match="n_factors was 3 and is now 4"):
        fit(small.train, replace(quick, n_factors=4), resume=done)
    with pytest.raises(ConfigError, match="other users or items"):
        fit(small.train.take(np.arange(50)).compact(), quick, resume=done)


def test_a_backend_misspelt() -> None:
    ratings = Ratings.of_indices([0], [0], [1.0])
    with pytest.raises(ConfigError, match="Did you mean 'numba'"):
        mf_numpy.fit(ratings, backend="numbaa")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lr": -1}, "lr is -1, but must be a finite number above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"momentum": 1.0}, "momentum is 1.0, but must be a finite number 0 or larger and below 1"),
        ({"n_factors": 0}, "n_factors is 0, but must be a whole number, 1 or larger"),
        ({"n_factors": 2.5}, "n_factors is 2.5"),
        ({"model": "bised"}, "Did you mean 'biased'"),
        ({"init": "mean"}, "use init='normal'"),
        ({"momentum_form": "nesterov", "momentum": 0.0}, "nesterov"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr_schedule": ((0, 0.5),)}, "an epoch of lr_schedule is 0"),
    ],
)
def test_configuration_errors(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**setting)
    assert message in str(caught.value)


def test_a_configuration_goes_to_plain_values_and_back() -> None:
    config = Config(lr_schedule=((3, 0.5), (9, 0.1)), lr_decay=0.5)
    assert Config.from_dict(config.to_dict()) == config
    assert [config.lr_at(e) / config.lr for e in (1, 2, 3, 9)] == [1.0, 0.5, 0.125, 0.1 * 0.5**8]
    with pytest.raises(ConfigError, match="Did you mean 'n_factors'"):
        Config.from_dict({"n_factor": 3})


def test_starts_have_the_distribution_they_name() -> None:
    n = 20_000
    ratings = Ratings.of_indices(np.arange(n) % 100, np.arange(n), np.full(n, 7.0))

    def q(**settings: Any) -> Any:
        return model.start(ratings, Config(n_factors=3, dtype="float64", **settings)).Q

    post = q(init="uniform", model="plain")
    assert post.min() >= 0 and post.max() <= 11 / 3
    assert post.mean() == pytest.approx(11 / 6, rel=0.01)
    assert q(init="normal", init_scale=0.2).std() == pytest.approx(0.2, rel=0.02)
    cut = q(init="truncated_normal", init_scale=0.2)
    assert np.abs(cut).max() <= 0.4
    assert cut.std() == pytest.approx(0.2 * 0.8796, rel=0.02)  # σ of a normal cut at two σ
    even = model.start(ratings, Config(n_factors=3, dtype="float64", init="mean", model="plain"))
    assert (even.P.mean(0) * even.Q.mean(0)).sum() == pytest.approx(7.0, rel=0.1)
    assert model.start(ratings, Config(model="biased")).mu == 7.0
    assert model.start(ratings, Config(model="plain")).mu == 0.0


@pytest.mark.parametrize("n_factors", [8, 64])
def test_numpy_gradient_holds_less_than_three_times_the_data(n_factors: int) -> None:
    """The data: users, items, values and E; never a dense (m, n) or a (N, K) array."""
    rng = np.random.default_rng(0)
    size = 500_000
    ratings = Ratings.of_indices(rng.integers(0, 2000, size), rng.integers(0, 1000, size), rng.uniform(1, 5, size))
    config = Config(n_factors=n_factors)
    params, batch = model.start(ratings, config), full_batch(ratings, config)
    gradients.gradient(params, batch, config)
    data = sum(a.nbytes for a in (batch.users, batch.items, batch.values)) + size * 4
    rows = 4 * sum(theta.nbytes for theta in params.tensors().values())
    chunk = 4 * model._CELLS_AT_ONCE * 4
    tracemalloc.start()
    gradients.gradient(params, batch, config)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * data + rows + chunk
    assert peak < size * n_factors * 4 or n_factors < 16


@pytest.mark.parametrize("name", BACKENDS)
def test_planted_ratings_are_predicted_within_three_percent_of_their_noise_floor(name: str) -> None:
    made = planted(DEFAULT)
    split = mf_numpy.random_split(made.ratings, valid=0.2)
    config = Config(n_factors=4, reg=0.03, lr=60.0, n_epochs=100, momentum_form="nesterov", eval_every=100)
    result = BACKENDS[name](split.train, config, valid=split.valid)
    ratio = result.score(split.valid).rmse / made.noise_floor_of(split.train, split.valid)
    assert 0.99 < ratio < 1.03


def test_a_run_that_patience_stopped_stays_stopped_when_resumed(fit: Fit, small: Split, quick: Config) -> None:
    config = replace(quick, n_factors=8, reg=0.0, n_epochs=400, patience=5)
    stopped = fit(small.train, config, valid=small.valid)
    again = fit(small.train, config, valid=small.valid, resume=stopped)
    assert (again.status, again.message) == (stopped.status, stopped.message)
    assert again.history == stopped.history
    assert np.array_equal(again.params.P, stopped.params.P)


def test_numpy_scalars_in_a_configuration_become_plain_numbers() -> None:
    config = Config(n_factors=np.int64(3), lr=np.float32(0.5))  # type: ignore[arg-type]
    assert type(config.n_factors) is int
    assert type(config.lr) is float


def test_a_diverged_run_resumed_more_slowly_has_each_epoch_once(fit: Fit, small: Split, quick: Config) -> None:
    config = replace(quick, lr=500.0, n_epochs=500)
    diverged = fit(small.train, config)
    resumed = fit(small.train, replace(config, lr=1e-9, n_epochs=diverged.state.epoch + 2), resume=diverged)
    assert [record.epoch for record in resumed.history] == list(range(1, len(resumed.history) + 1))
