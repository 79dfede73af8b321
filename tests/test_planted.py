"""Planted ratings: the promised shape, and a noise floor that no predictor can beat."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mf_numpy import ConfigError, DataError, Split, random_split
from mf_numpy.planted import ANIME_FULL, DEFAULT, Planted, PlantedConfig, clipped_mean, planted

SMALL = PlantedConfig(n_users=150, n_items=80, n_ratings=5_000)


@pytest.fixture(scope="module")
def drawn() -> Planted:
    return planted(DEFAULT)


@pytest.fixture(scope="module")
def split(drawn: Planted) -> Split:
    return random_split(drawn.ratings, seed=1)


@st.composite
def configs(draw: st.DrawFn) -> PlantedConfig:
    m, n = draw(st.integers(2, 40)), draw(st.integers(2, 40))
    least = draw(st.integers(1, min(m, n, 5)))
    low = min(least * (m + n), m * n)
    return PlantedConfig(
        n_users=m,
        n_items=n,
        n_ratings=draw(st.integers(low, m * n)),
        min_ratings=least,
        activity_sd=draw(st.floats(0, 2)),
        popularity_exponent=draw(st.floats(0, 2)),
        seed=draw(st.integers(0, 9)),
    )


@settings(deadline=None, max_examples=60)
@given(configs())
def test_any_size_has_just_so_many_distinct_pairs_and_a_handful_each(config: PlantedConfig) -> None:
    ratings = planted(config).ratings
    assert len(ratings) == config.n_ratings
    assert len(np.unique(ratings.users.astype(np.int64) * config.n_items + ratings.items)) == len(ratings)
    assert (ratings.n_users, ratings.n_items) == (config.n_users, config.n_items)
    assert ratings.user_counts.min() >= config.min_ratings
    assert ratings.item_counts.min() >= config.min_ratings


def test_the_seed_decides() -> None:
    one, same, other = (planted(replace(SMALL, seed=seed)).ratings for seed in (3, 3, 4))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_activity_and_popularity_have_long_tails(drawn: Planted) -> None:
    for counts in (drawn.ratings.user_counts, drawn.ratings.item_counts):
        assert counts.max() > 3 * np.median(counts)
        assert counts.mean() > 1.15 * np.median(counts)


def test_the_exponent_makes_popularity_steep() -> None:
    thin = replace(SMALL, n_ratings=2_000)
    flat = planted(replace(thin, popularity_exponent=0.0)).ratings
    steep = planted(replace(thin, popularity_exponent=1.0)).ratings
    assert flat.item_counts.std() < 0.3 * flat.item_counts.mean()
    assert steep.item_counts.std() > 0.5 * steep.item_counts.mean()


def test_items_of_light_users_follow_their_popularity() -> None:
    # With few ratings a user, drawing without replacement is nearly drawing with: counts must match the popularity.
    config = PlantedConfig(n_users=20_000, n_items=100, n_ratings=100_000, min_ratings=1, activity_sd=0.0)
    counts = np.sort(planted(config).ratings.item_counts)[::-1]
    weights = (np.arange(100) + 1 + 5.0) ** -1.0
    share = counts / counts.sum()
    assert share[0] == pytest.approx(weights[0] / weights.sum(), rel=0.25)
    assert share[50] == pytest.approx(weights[50] / weights.sum(), rel=0.25)


def test_the_truth_explains_the_ratings_up_to_the_noise() -> None:
    config = replace(SMALL, clip=False, noise=0.7)
    truth = planted(config)
    ratings = truth.ratings
    signal = truth.mu + truth.b[ratings.users] + truth.c[ratings.items]
    signal = signal + np.einsum("rk,rk->r", truth.P[ratings.users], truth.Q[ratings.items])
    np.testing.assert_allclose(truth.expected(ratings.users, ratings.items), signal, rtol=1e-12)
    assert truth.noise_floor(ratings.users, ratings.items, ratings.values) == pytest.approx(0.7, rel=0.04)
    assert truth.sigma == 0.7
    assert ratings.scale is None
    without = planted(replace(config, noise=0.0))
    assert without.noise_floor(ratings.users, ratings.items, without.ratings.values) == pytest.approx(0.0, abs=1e-12)


def test_the_strengths_are_those_asked_for() -> None:
    truth = planted(replace(SMALL, n_users=3_000, n_items=2_000, n_ratings=50_000, factor_sd=0.9, user_bias_sd=0.3))
    assert (truth.P @ truth.Q.T).std() == pytest.approx(0.9, rel=0.1)
    assert truth.b.std() == pytest.approx(0.3, rel=0.1)
    assert truth.c.std() == pytest.approx(DEFAULT.item_bias_sd, rel=0.1)


def test_clipping_keeps_to_the_scale_and_fills_its_ends(drawn: Planted) -> None:
    values = drawn.ratings.values
    assert drawn.ratings.scale == (1.0, 10.0)
    assert values.min() == 1.0
    assert values.max() == 10.0
    assert 0.001 < np.mean(values == 10.0) < 0.1


@given(st.floats(-8, 20), st.floats(0.05, 4))
def test_the_clipped_mean_is_the_integral(mean: float, sigma: float) -> None:
    low, high = 1.0, 10.0
    # Over z in ±9 the normal density leaves out 1e-19; the trapezoid rule on a kinked function is exact to O(h²).
    z = np.linspace(-9, 9, 200_001)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    integral = np.trapezoid(np.clip(mean + sigma * z, low, high) * density, z)
    assert clipped_mean(np.array([mean]), sigma, low, high)[0] == pytest.approx(integral, abs=1e-7)


def test_without_noise_the_clipped_mean_clips() -> None:
    assert clipped_mean(np.array([-3.0, 4.0, 12.0]), 0.0, 1.0, 10.0).tolist() == [1.0, 4.0, 10.0]


def test_no_shift_of_the_best_prediction_does_better(drawn: Planted) -> None:
    ratings = drawn.ratings
    best = drawn.expected(ratings.users, ratings.items)
    floor = drawn.noise_floor(ratings.users, ratings.items, ratings.values)
    for worse in (
        best + 0.05,
        best - 0.05,
        ratings.mean + 1.05 * (best - ratings.mean),
        0.95 * best + 0.05 * ratings.mean,
    ):
        assert np.sqrt(np.mean((ratings.values - worse) ** 2)) > floor


def test_the_floor_of_a_split_goes_through_raw_ids() -> None:
    truth = planted(SMALL)
    # Sparse enough that compacting drops items, so that indices and raw ids differ.
    few = truth.ratings.take(np.arange(0, len(truth.ratings), 50))
    split = random_split(few, valid=0.3, seed=2)
    assert split.train.n_items < SMALL.n_items
    assert 0 < split.valid.n_cold < len(split.valid)
    known = split.valid.known
    users = split.train.user_ids.raw[split.valid.users[known]]
    items = split.train.item_ids.raw[split.valid.items[known]]
    by_pair = {(u, i): v for u, i, v in zip(*(x.tolist() for x in (few.users, few.items, few.values)), strict=True)}
    errors = [
        by_pair[u, i] - truth.expected(np.array([u]), np.array([i]))[0] for u, i in zip(users, items, strict=True)
    ]
    assert truth.noise_floor_of(split.train, split.valid) == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_the_floor_of_the_default_can_nearly_be_reached(drawn: Planted, split: Split) -> None:
    floor = drawn.noise_floor_of(split.train, split.valid)
    valid, train = split.valid, split.train
    mean_only = np.sqrt(np.mean((valid.values - train.mean) ** 2))
    b, c = np.zeros(train.n_users), np.zeros(train.n_items)
    for _ in range(10):
        left = train.values - train.mean - c[train.items]
        b = np.bincount(train.users, left) / (train.user_counts + 5)
        left = train.values - train.mean - b[train.users]
        c = np.bincount(train.items, left) / (train.item_counts + 5)
    bias_only = np.sqrt(np.mean((valid.values - train.mean - b[valid.users] - c[valid.items]) ** 2))
    fitted = least_squares_rmse(split, n_factors=4, n_sweeps=12, reg=3.0)
    assert mean_only > 1.15 * floor
    assert bias_only > 1.05 * floor
    assert floor < fitted < 1.03 * floor


def least_squares_rmse(split: Split, *, n_factors: int, n_sweeps: int, reg: float) -> float:
    """Validation RMSE of a biased factorisation by alternating least squares."""
    train, valid = split.train, split.valid
    rng = np.random.default_rng(0)
    # Rows are (bias, factors); the other side's row enters as (1, factors).
    user, item = (rng.normal(0, 0.3, (size, n_factors + 1)) for size in (train.n_users, train.n_items))
    user[:, 0] = item[:, 0] = 0.0
    matrix = train.to_scipy()
    seen = matrix.copy()
    seen.data = np.ones_like(seen.data)
    for _ in range(n_sweeps):
        sides = ((user, item, matrix, seen), (item, user, matrix.T.tocsr(), seen.T.tocsr()))
        for own, other, table, mask in sides:
            design = other.copy()
            design[:, 0] = 1.0
            outer = np.einsum("nj,nk->njk", design, design).reshape(len(design), -1)
            gram = np.asarray(mask @ outer).reshape(len(own), n_factors + 1, n_factors + 1)
            target = np.asarray(table @ design) - np.asarray(mask @ ((train.mean + other[:, :1]) * design))
            own[:] = np.linalg.solve(gram + reg * np.eye(n_factors + 1), target[..., None])[..., 0]
    u, i = user[valid.users], item[valid.items]
    predicted = train.mean + u[:, 0] + i[:, 0] + (u[:, 1:] * i[:, 1:]).sum(axis=1)
    return float(np.sqrt(np.mean((valid.values - predicted) ** 2)))


def test_the_full_preset_has_the_facts_of_the_full_file() -> None:
    assert (ANIME_FULL.n_users, ANIME_FULL.n_items, ANIME_FULL.n_ratings) == (69_600, 9_927, 6_337_241)
    # A hundredth of it, because the draw of all takes seconds.
    small = planted(replace(ANIME_FULL, n_users=6_960, n_items=993, n_ratings=63_372)).ratings
    assert len(small) == 63_372


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_users": 1}, "n_users is 1, but must be 2 or larger"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"noise": float("inf")}, "noise is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"mean": float("nan")}, "mean is nan"),
        ({"scale": (5.0, 1.0)}, r"scale is \(5.0, 1.0\)"),
        ({"min_ratings": 81}, "150 users and 80 items allow at most 80"),
        ({"n_ratings": 12_001}, "need between 1150 and 12000"),
        ({"n_ratings": 1_149}, "need between 1150 and 12000"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **change)


def test_an_id_that_was_not_planted_is_refused() -> None:
    with pytest.raises(DataError, match=r"item id 80 was not planted; ids are 0\.\.79"):
        planted(SMALL).expected(np.array([0]), np.array([80]))
