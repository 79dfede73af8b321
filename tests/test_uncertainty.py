"""Intervals of ratings, how often they are right, and whether chains agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mf_numpy import Config, FitResult, Ratings, Split, fit, planted, random_split, store
from mf_numpy.datasets import load
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.posterior import Draws
from mf_numpy.uncertainty import agreement, effective_draws, intervals, split_r_hat


@pytest.fixture(scope="module")
def split() -> Split:
    drawn = planted.planted(planted.PlantedConfig(n_users=400, n_items=200, n_ratings=20_000, n_factors=2))
    return random_split(drawn.ratings, valid=0.2, seed=0)


@pytest.fixture(scope="module")
def chains(split: Split) -> list[FitResult]:
    config = Config(solver="gibbs", n_factors=3, n_epochs=120, burn_in=40)
    return [fit(split.train, replace(config, seed=seed)) for seed in (0, 1)]


def test_nine_tenths_of_the_ratings_lie_in_their_intervals(split: Split, chains: list[FitResult]) -> None:
    """Planted ratings are whole numbers within a scale; the model has them normal."""
    draws, valid = chains[0].state.draws, split.valid
    assert draws is not None
    found = intervals(draws, valid.users[valid.known], valid.items[valid.known], 0.9)
    assert 0.88 < found.covered(valid.values[valid.known]) < 0.92
    np.testing.assert_allclose(
        found.mean, chains[0].predict(valid.users[valid.known], valid.items[valid.known]).values, atol=1e-4
    )
    assert (found.low < found.mean).all() and (found.mean < found.high).all()
    # Those of whom less is known are surer to be off.
    few = split.train.user_counts[valid.users[valid.known]] < np.median(split.train.user_counts)
    assert found.spread[few].mean() > 1.1 * found.spread[~few].mean()


@pytest.mark.parametrize("name", ["ml-100k", "anime"])
def test_nine_tenths_of_real_ratings_lie_in_their_intervals(data_dir: Path, name: str) -> None:
    """Grades are no normal numbers, and their errors are not of one size; the intervals bear it."""
    split = random_split(load(name), valid=0.1, seed=0)
    draws = fit(split.train, Config(solver="gibbs", n_factors=8, n_epochs=60, burn_in=20, thin=2)).state.draws
    assert draws is not None
    some = np.flatnonzero(split.valid.known)[::4]
    found = intervals(draws, split.valid.users[some], split.valid.items[some], 0.9)
    assert 0.88 < found.covered(split.valid.values[some]) < 0.92


def test_interval_takes_raw_ids(split: Split, chains: list[FitResult], tmp_path: Path) -> None:
    ids = split.train.user_ids.raw, split.train.item_ids.raw
    users, items = ids[0][[0, 3, 3]], ids[1][[5, 5, 0]]
    found = chains[0].interval(users, items, 0.5)
    draws = chains[0].state.draws
    assert draws is not None
    np.testing.assert_array_equal(found.low, intervals(draws, np.array([0, 3, 3]), np.array([5, 5, 0]), 0.5).low)
    store.save(chains[0], tmp_path / "model.safetensors")
    again = store.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.interval(users, items, 0.5).high, found.high)
    # What is kept of the users stays in the file.
    assert again.state.draws is not None and isinstance(_root(again.params.P), np.memmap)
    with pytest.raises(DataError, match="the item of pair 1 was not in the training set"):
        chains[0].interval(users[:2], [ids[1][0], -77])
    with pytest.raises(ValueError, match="got 3 users and 1 items"):
        chains[0].interval(users, items[:1])
    for level in (0, 1, float("nan")):
        with pytest.raises(ConfigError, match="must lie between 0 and 1, such as"):
            chains[0].interval(users, items, level)


def _root(array: object) -> object:
    while getattr(array, "base", None) is not None and not isinstance(array, np.memmap):
        array = array.base  # type: ignore[attr-defined]
    return array


def test_a_model_without_draws_has_no_intervals(split: Split) -> None:
    result = fit(split.train, Config(n_factors=2, n_epochs=2))
    with pytest.raises(ConfigError, match="holds no draws to be unsure by; fit with solver='gibbs'"):
        result.interval([0], [0])


def test_a_newcomer_has_no_row_in_a_mean_over_draws(chains: list[FitResult]) -> None:
    with pytest.raises(ConfigError, match=r"the model is a mean over draws.*solver='als'"):
        chains[0].fold_in_user({0: 3.0})


def test_chains_of_two_seeds_agree(split: Split, chains: list[FitResult]) -> None:
    users, items = split.valid.users[:200], split.valid.items[:200]
    draws = [chain.state.draws or Draws() for chain in chains]
    found = agreement(draws, users, items)
    assert 1.0 <= found.r_hat < 1.3 and 10 < found.draws <= 160
    # Draws from the beginning, where both chains are on their way.
    begun = [
        fit(split.train, Config(solver="gibbs", n_factors=3, n_epochs=12, burn_in=0, seed=s)).state.draws
        for s in (0, 1)
    ]
    told = agreement([one or Draws() for one in begun], users, items)
    assert told.r_hat > 1.5 and told.advice is not None and "raise burn_in" in told.advice


def test_what_agreement_advises() -> None:
    rng = np.random.default_rng(0)
    iid = rng.normal(size=(5, 2, 1000))
    assert split_r_hat(iid).max() < 1.02 and effective_draws(iid).min() > 1500
    assert effective_draws(np.repeat(iid[:, :, :100], 10, axis=2)).max() < 500
    same = np.ones((1, 2, 10))
    assert split_r_hat(same) == 1.0 and effective_draws(same) <= 20


def test_what_agreement_does_not_take(chains: list[FitResult]) -> None:
    draws = chains[0].state.draws
    assert draws is not None
    short = Draws(draws.points[:3], draws.precisions[:3])
    for given, users in (([draws, short], [0]), ([short], [0]), ([draws], []), ([], [0])):
        with pytest.raises(DataError, match="give chains of one length, four draws or more, and a pair or more"):
            agreement(given, np.array(users, np.int64), np.array(users, np.int64))
    with pytest.raises(ConfigError, match="holds no draws"):
        agreement([Draws()], np.array([0]), np.array([0]))


def test_a_table_of_two_pairs() -> None:
    result = fit(
        Ratings.of_indices([1, 0], [1, 0], [3.0, 4.0]), Config(solver="gibbs", n_factors=1, n_epochs=30, burn_in=5)
    )
    found = result.interval([0], [0])
    assert found.low[0] < found.mean[0] < found.high[0] and found.covered(np.array([])) != found.covered(
        np.array([3.0])
    )
