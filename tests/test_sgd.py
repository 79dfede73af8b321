"""Stochastic gradient descent: the order of the grid, each rule against plain Python, and where it leads."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numba
import numpy as np
import pytest

from mf_numpy import Config, Ratings, fit, gradients, planted
from mf_numpy.batch import full_batch
from mf_numpy.errors import ConfigError
from mf_numpy.kernels.grid import grid, side_of
from mf_numpy.solvers import engine_for
from mf_numpy.split import random_split
from mf_numpy.train import run
from tests.same_fits import assert_same_bits, by_one_thread_and_by_all


def _ratings(m: int = 60, n: int = 40, size: int = 900, seed: int = 0) -> Ratings:
    rng = np.random.default_rng(seed)
    # The last user and the last item have no rating; pairs repeat.
    users, items = rng.integers(0, m - 1, size), np.minimum(rng.geometric(0.1, size) - 1, n - 2)
    return Ratings.of_indices(users, items, rng.integers(1, 11, size), m=m, n=n)


RULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "plain, wide rows": {"n_factors": 43},
    "ema": {"momentum": 0.5, "momentum_form": "ema"},
    "heavy ball": {"momentum": 0.5, "momentum_form": "heavy_ball"},
    "nesterov": {"momentum": 0.5, "momentum_form": "nesterov"},
    "adagrad": {"step_rule": "adagrad", "lr": 0.1},
    "plain model": {"model": "plain", "init": "mean"},
    "total penalty": {"penalty": "total", "reg": 0.0001},
    "pseudo-Huber": {"loss": "pseudo_huber", "momentum": 0.3},
}


@pytest.mark.parametrize("settings", RULES.values(), ids=RULES)
@pytest.mark.parametrize("kernels", ["vectors", "loops"])
def test_steps_are_those_of_plain_python(
    settings: dict[str, Any], kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MF_KERNELS", kernels)
    given: dict[str, Any] = {
        "n_factors": 5,
        "n_epochs": 3,
        "lr": 0.01,
        "reg": 0.05,
        "dtype": "float64",
        "init_scale": None,
    } | settings
    config = Config(solver="sgd", **given)
    mine, theirs = fit(_ratings(), config), fit(_ratings(), config, backend="loops")
    for name, theta in mine.params.tensors().items():
        np.testing.assert_allclose(theta, theirs.params.tensors()[name], rtol=0, atol=1e-11)
        if mine.state.velocity is not None:
            assert theirs.state.velocity is not None
            np.testing.assert_allclose(mine.state.velocity[name], theirs.state.velocity[name], rtol=0, atol=1e-10)
    for a, b in zip(mine.history, theirs.history, strict=True):
        assert a.objective == pytest.approx(b.objective, rel=1e-12) and a.train_rmse == pytest.approx(b.train_rmse)


@pytest.mark.parametrize("side", [1, 3, 8])
def test_the_grid_holds_each_rating_once(side: int) -> None:
    train = _ratings()
    laid = grid(train, Config(dtype="float64"), side)
    assert laid.side == side and laid.begins[0] == 0 and laid.begins[-1] == len(train)
    assert sorted(laid.user_of) == list(range(60)) and sorted(laid.item_of) == list(range(40))
    seen = []
    for block, (begin, end) in enumerate(pairwise(laid.begins)):
        low_u, high_u = laid.user_bounds[block // side : block // side + 2]
        low_i, high_i = laid.item_bounds[block % side : block % side + 2]
        for k in range(begin, end):
            u, i = low_u + laid.users[k], low_i + laid.items[k]
            # Blocks of one diagonal share no row because each keeps to its shares.
            assert u < high_u and i < high_i
            seen.append((laid.user_of[u], laid.item_of[i], laid.values[k]))
    assert sorted(seen) == sorted(zip(train.users, train.items, train.values, strict=True))


def test_ratings_are_shuffled_within_blocks_and_seeds_differ() -> None:
    train = _ratings(size=5000)
    train = train.take(np.argsort(train.users, kind="stable"))
    first, again, other = (grid(train, Config(seed=seed), 1) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.users, again.users)
    assert (first.users != other.users).any()
    # Of 32 users whose ratings are shuffled, neighbours are one user's about once in 32.
    assert (np.diff(first.users.astype(int)) == 0).mean() < 0.1


def test_a_rating_takes_eight_bytes_in_float32() -> None:
    laid = grid(_ratings(), Config())
    assert laid.users.itemsize + laid.items.itemsize + laid.values.itemsize == 8


def test_shares_of_more_than_16_bits() -> None:
    train = Ratings.of_indices([0, 69_999], [1, 0], [3.0, 4.0])
    laid = grid(train, Config(), 1)
    assert sorted(laid.user_of[laid.users]) == [0, 69_999]


def test_sides_follow_the_data_alone() -> None:
    assert side_of(_ratings()) == 4
    assert side_of(Ratings.of_indices([0, 0], [0, 1], [1.0, 2.0])) == 1


def test_bits_are_those_of_one_thread() -> None:
    train, config = _ratings(300, 200, 20_000), Config(solver="sgd", n_factors=9, n_epochs=3)
    one, more = by_one_thread_and_by_all(train, config)
    assert_same_bits(one, more)


@pytest.mark.parametrize("rule", ["plain", "heavy ball", "adagrad"])
def test_a_resumed_fit_is_the_straight_one(rule: str) -> None:
    config = Config(solver="sgd", n_factors=4, n_epochs=5, **RULES[rule])
    straight = fit(_ratings(), config)
    first = fit(_ratings(), Config(solver="sgd", n_factors=4, n_epochs=2, **RULES[rule]))
    resumed = fit(_ratings(), config, resume=first)
    for name, theta in straight.params.tensors().items():
        np.testing.assert_array_equal(theta, resumed.params.tensors()[name])


@pytest.mark.parametrize("penalty", ["total", "per_rating"])
def test_smaller_steps_settle_nearer_to_a_stationary_point(penalty: Any) -> None:
    """A step's mean over the ratings is -η∇J, so that ∇J where the steps settle is of the size of η."""
    train = _ratings(12, 10, 300, seed=4)
    reg = 0.2 if penalty == "per_rating" else 0.01
    norms, before = [], numba.get_num_threads()
    # Thousands of tiny passes: on a busy machine, waiting for a second thread would take longer than they do.
    numba.set_num_threads(1)
    for lr, n_epochs in ((0.01, 600), (0.001, 6000)):
        config = Config(
            solver="sgd", n_factors=2, n_epochs=n_epochs, lr=lr, reg=reg, penalty=penalty, dtype="float64",
            lr_decay=1.0, init_scale=0.1,
        )  # fmt: skip
        seen = gradients.gradient(fit(train, config).params, full_batch(train, config), config)
        norms.append(np.sqrt(sum(float((g**2).sum()) for g in seen.gradient.values())))
    numba.set_num_threads(before)
    assert 5 < norms[0] / norms[1] < 20


def test_it_reaches_the_noise_floor_of_planted_ratings() -> None:
    data = planted.PlantedConfig(n_users=600, n_items=300, n_ratings=60_000, n_factors=3)
    split = random_split(planted.planted(data).ratings, valid=0.1, seed=0)
    sgd = fit(split.train, Config(solver="sgd", n_factors=3, n_epochs=60, lr=0.01, reg=0.02), valid=split.valid)
    gd = fit(split.train, Config(n_factors=3, n_epochs=400, reg=0.02, lr=100.0), valid=split.valid)
    assert sgd.history[-1].valid_rmse is not None and gd.history[-1].valid_rmse is not None
    assert sgd.history[-1].valid_rmse < gd.history[-1].valid_rmse + 0.01


def test_what_sgd_does_not_take() -> None:
    with pytest.raises(ConfigError, match="batch_size is 10 with solver 'sgd'"):
        Config(solver="sgd", batch_size=10)
    with pytest.raises(ConfigError, match="step_rule is 'adam' with solver 'sgd'; use solver='gd'"):
        Config(solver="sgd", step_rule="adam")
    with pytest.raises(ConfigError, match=r"step_rule is 'adagrad' with momentum 0\.5"):
        Config(solver="sgd", step_rule="adagrad", momentum=0.5)
    with pytest.raises(ConfigError, match="backend is 'numpy' with solver 'sgd', which runs on 'numba' or 'loops'"):
        fit(_ratings(), Config(solver="sgd"), backend="numpy")


def test_a_diverging_fit_says_so() -> None:
    result = run(engine_for(Config(solver="sgd"), "numba"), _ratings(), Config(solver="sgd", lr=30.0))
    assert result.status == "diverged" and "Lower lr" in result.message
    assert all(np.isfinite(theta).all() for theta in result.params.tensors().values())
