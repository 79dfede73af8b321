"""Scores of predictions: intervals that cover, differences that are paired, parts that add up."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bench import scores
from mf_numpy import Holdout, Ratings, random_split
from mf_numpy.errors import ConfigError
from mf_numpy.planted import PlantedConfig, planted


@pytest.fixture(scope="module")
def sides() -> tuple[Ratings, Holdout]:
    truth = planted(PlantedConfig(n_users=80, n_items=60, n_ratings=2_000, n_factors=2))
    split = random_split(truth.ratings, valid=0.3, seed=0)
    return split.train, split.valid


def test_scores_are_those_of_the_errors(sides: tuple[Ratings, Holdout]) -> None:
    train, test = sides
    predicted = np.full(test.n_scored, train.mean)
    error = train.mean - test.values[test.known]
    found = scores.scores(predicted, train, test)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert found["mae"] == pytest.approx(np.mean(np.abs(error)))
    one = scores.errors(predicted, test)
    assert np.sqrt(one.square.mean()) == pytest.approx(found["rmse"])


def test_predictions_are_clipped_to_the_scale_and_must_be_numbers(sides: tuple[Ratings, Holdout]) -> None:
    _, test = sides
    predicted = np.linspace(-3, 9, test.n_scored)
    assert scores.checked(predicted, test, (1.0, 5.0)).min() == 1.0
    assert scores.checked(predicted, test, (1.0, 5.0)).max() == 5.0
    assert scores.checked(predicted, test, None) is predicted
    with pytest.raises(ConfigError, match=rf"{test.n_scored} predictions were asked for, but \(3,\) came"):
        scores.checked(predicted[:3], test, None)
    predicted[4] = np.nan
    with pytest.raises(ConfigError, match="1 prediction not finite"):
        scores.checked(predicted, test, None)


def test_the_interval_covers_the_rmse_of_the_population_as_often_as_it_says() -> None:
    """Users with a level of error each: a bootstrap over pairs would cover far too seldom."""
    covered, runs, users, each = 0, 200, 60, 20
    of_pair = np.repeat(np.arange(users), each)
    for run in range(runs):
        rng = np.random.default_rng(run)
        level = rng.gamma(2.0, 0.5, users)
        square = level[of_pair] * rng.chisquare(1, len(of_pair))
        (drawn,) = scores.draws([[scores.Errors(of_pair, square)]], n=200)
        low, high = scores.interval(drawn.rmse)
        # E level = 1, E χ² = 1.
        covered += low <= 1.0 <= high
    # 95 % nominal; percentile intervals of 60 skewed clusters fall a little short. Binomial standard error: 1.5 %.
    assert 0.87 <= covered / runs <= 0.99


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(50), 10)
    hard = rng.gamma(1.0, 1.0, 500)
    worse, better = scores.Errors(users, hard + 0.05), scores.Errors(users, hard)
    a, b = scores.draws([[worse], [better]])
    found = scores.versus(a.rmse, b.rmse)
    # Far wider than the difference, each alone; together they tell.
    assert scores.interval(a.rmse)[0] < scores.interval(b.rmse)[1]
    assert found["interval"][0] > 0 and found["p"] == pytest.approx(2 / (scores.DRAWS + 1))
    assert scores.versus(b.rmse, a.rmse)["interval"][1] < 0
    assert scores.versus(a.rmse, a.rmse)["p"] == 1.0
    (pair,) = scores.pairs({"worse": a, "better": b})
    assert pair["rmse"] == found | {"adjusted": found["p"]} and pair["mae"]["interval"][0] > 0


def test_a_draw_is_of_whole_users_and_the_same_for_every_system() -> None:
    """Two tests, one of them with a user of a single pair: each draw by hand."""
    first = scores.Errors(np.array([4, 4, 7]), np.array([1.0, 4.0, 9.0]))
    second = scores.Errors(np.array([2, 3, 3]), np.array([16.0, 0.0, 1.0]))
    alone, _ = scores.draws([[first, second], [second, first]], seed=5, n=40)
    rngs = [np.random.default_rng([5, fold]) for fold in (0, 1)]
    for draw in range(40):
        pairs = [
            one.square[one.users == np.unique(one.users)[user]]
            for one, rng in zip((first, second), rngs, strict=True)
            for user in rng.integers(0, 2, 2)
        ]
        square = np.concatenate(pairs)
        assert alone.rmse[draw] == pytest.approx(np.sqrt(square.mean()))
        assert alone.mae[draw] == pytest.approx(np.sqrt(square).mean())
    assert scores.draws([]) == []


def test_many_comparisons_are_adjusted_for() -> None:
    # Worked by hand: 4 · .01, 3 · .02, then 2 · .03 and 1 · .04, neither below the one before.
    assert scores.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert scores.holm([0.6, 0.9]) == [1.0, 1.0] and scores.holm([]) == []
    # Twenty systems that are equally good: none is told from another, in 19 of 20 worlds.
    false, worlds = 0, 20
    for world in range(worlds):
        rng = np.random.default_rng(world)
        users = np.repeat(np.arange(60), 5)
        drawn = scores.draws([[scores.Errors(users, rng.chisquare(1, 300))] for _ in range(20)], n=4000)
        found = scores.pairs({str(k): one for k, one in enumerate(drawn)})
        assert len(found) == 190
        false += any(pair["rmse"]["adjusted"] < 0.05 for pair in found)
    assert false <= 4


def test_activity_and_calibration_take_every_pair_once(sides: tuple[Ratings, Holdout]) -> None:
    train, test = sides
    known = test.known
    rng = np.random.default_rng(1)
    predicted = test.values[known] + rng.normal(0, 1, test.n_scored)
    one = scores.errors(predicted, test)
    parts = scores.by_activity([one], [train.user_counts], [test.users[known]])
    assert len(parts) == scores.PARTS and sum(part["n"] for part in parts) == test.n_scored
    assert np.average([p["rmse"] ** 2 for p in parts], weights=[p["n"] for p in parts]) == pytest.approx(
        one.square.mean()
    )
    assert all(a["to"] <= b["from"] for a, b in pairwise(parts))
    exact = scores.calibration([test.values[known]], [test])
    assert exact["slope"] == pytest.approx(1.0) and exact["intercept"] == pytest.approx(0.0, abs=1e-9)
    assert scores.calibration([2 * test.values[known]], [test])["slope"] == pytest.approx(0.5)
    assert scores.calibration([np.full(test.n_scored, 3.0)], [test])["slope"] is None
