"""What a newcomer's row is before her ratings, by the rows of training, and whom to ask what first (Eq. 60 to 62)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mf_numpy
from mf_numpy import Config, FitResult, Split
from mf_numpy.asking import falls, settled, suggest
from mf_numpy.curvature import extended
from mf_numpy.design import Design, Side
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.features import Features, design_of
from mf_numpy.prior import Prior, own_rows, prior_of

PLAIN = Config(n_factors=3, n_epochs=60, lr=20.0, momentum=0.9, reg=0.05, dtype="float64")


@pytest.fixture(scope="module")
def fitted(small: Split) -> FitResult:
    return mf_numpy.fit(small.train, PLAIN, backend="numpy")


def mean_variance(covariance: Any, others: Any, weights: Any) -> float:
    """The mean of q̃ᵀ C q̃, item by item."""
    return float(sum(w * q @ covariance @ q for w, q in zip(weights, others, strict=True)))


@pytest.mark.parametrize("which", ["user", "item"])
def test_the_prior_is_what_rows_of_training_are_like(fitted: FitResult, small: Split, which: Any) -> None:
    prior = prior_of(fitted, which)
    rows = extended(fitted.params, which, own=True)
    index = small.train.users if which == "user" else small.train.items
    moment = np.mean([np.outer(rows[k], rows[k]) for k in index], axis=0)
    np.testing.assert_allclose(prior.root @ prior.root.T, moment, atol=1e-12)
    assert prior.variance == fitted.history[-1].train_rmse ** 2
    np.testing.assert_allclose(prior.covariance(np.zeros((0, 4))), moment, atol=1e-12)


def test_ratings_narrow_the_prior_as_the_normal_equations_say(fitted: FitResult) -> None:
    prior = prior_of(fitted, "user")
    rng = np.random.default_rng(0)
    others, surprises = extended(fitted.params, "item")[:7], rng.normal(size=7)
    precision = np.linalg.inv(prior.root @ prior.root.T) + others.T @ others / prior.variance
    np.testing.assert_allclose(prior.covariance(others), np.linalg.inv(precision), rtol=1e-9)
    expected = np.linalg.solve(precision, others.T @ surprises / prior.variance)
    np.testing.assert_allclose(prior.row(others, surprises), expected, rtol=1e-9)

    # It is the minimum of what a Gaussian row and Gaussian errors cost.
    def cost(row: Any) -> float:
        error = surprises - others @ row
        return float(error @ error / prior.variance + row @ np.linalg.solve(prior.root @ prior.root.T, row))

    least = cost(expected)
    assert all(cost(expected + 1e-3 * step) > least for step in (*np.eye(4), *-np.eye(4)))


def test_a_prior_as_wide_as_the_penalty_is_the_half_step(fitted: FitResult) -> None:
    """S = σ²/ν I makes Eq. 37 of Eq. 60."""
    ratings = pd.Series({0: 5.0, 3: 1.0, 8: 4.0})
    ridge = PLAIN.reg * len(ratings)
    variance = 0.7
    prior = Prior(np.sqrt(variance / ridge) * np.eye(4), variance)
    halved = fitted.fold_in_user(ratings)
    found = prior.row(extended(fitted.params, "item")[halved.rated], halved.surprises)
    np.testing.assert_allclose(found, [*halved.factors, halved.bias], rtol=1e-9)


def test_a_newcomer_by_the_rows_of_training(fitted: FitResult) -> None:
    ratings = {0: 5.0, 3: 1.0, 8: 4.0}
    newcomer = fitted.fold_in_user(ratings, prior="rows")
    prior = prior_of(fitted, "user")
    expected = prior.row(extended(fitted.params, "item")[newcomer.rated], newcomer.surprises)
    np.testing.assert_allclose([*newcomer.factors, newcomer.bias], expected)
    before = fitted.fold_in_user({}, prior="rows").predict(range(20))
    np.testing.assert_allclose(before, fitted.fold_in_user({}).predict(range(20)))
    for item in (0, 5, 19):
        parts = newcomer.why(item)
        assert sorted(parts["item"]) == [0, 3, 8]
        assert parts["part"].sum() == pytest.approx(newcomer.predict([item])[0] - before[item], abs=1e-9)
    with pytest.raises(ConfigError, match="prior is 'row', but must be one of 'penalty', 'rows'"):
        fitted.fold_in_user(ratings, prior="row")  # type: ignore[arg-type]


def test_the_plain_model_has_a_prior_without_a_bias(small: Split) -> None:
    found = mf_numpy.fit(small.train, replace(PLAIN, model="plain", lr=1.0), backend="numpy")
    assert prior_of(found, "user").root.shape[0] == 3
    assert np.isfinite(found.fold_in_item({1: 3.0}, prior="rows").predict([2])).all()
    assert len(found.suggest_items_to_rate(3)) == 3


def test_rows_that_are_partly_features_have_a_part_of_their_own(small: Split) -> None:
    design = design_of(small.train, users=Features().id().rated())
    found = mf_numpy.fit(small.train, replace(PLAIN, n_epochs=5), backend="numpy", design=design)
    assert found.of_features is not None and found.of_features.b is not None
    m = small.train.n_users
    own = own_rows(found, "user")
    counts = small.train.item_counts
    assert counts.min() > 1, "an item that one user rated would be her own"
    np.testing.assert_allclose(own, np.column_stack([found.of_features.P[:m], found.of_features.b[:m]]))
    np.testing.assert_allclose(own_rows(found, "item"), extended(found.params, "item", own=True))
    shared = Design(Features().rated().fit(small.train, "users").side, Side.identity(small.train.n_items))
    without = mf_numpy.fit(small.train, replace(PLAIN, n_epochs=2), backend="numpy", design=shared)
    with pytest.raises(DataError, match="the model's users have no features of their own"):
        prior_of(without, "user")


def test_a_model_whose_rows_are_no_prior(small: Split, fitted: FitResult) -> None:
    huber = mf_numpy.fit(small.train, replace(PLAIN, loss="pseudo_huber", n_epochs=1), backend="numpy")
    with pytest.raises(DataError, match="a prior with the squared loss alone, but loss is 'pseudo_huber'"):
        huber.fold_in_user({0: 3.0}, prior="rows")
    with pytest.raises(DataError, match="no training error to weigh ratings by"):
        replace(fitted, history=()).suggest_items_to_rate(2)


def test_the_fall_is_that_of_the_mean_variance(fitted: FitResult) -> None:
    """Eq. 61 and 62 beside the covariance with one more rating, for every item."""
    prior = prior_of(fitted, "user")
    others = extended(fitted.params, "item")
    weights = np.random.default_rng(1).dirichlet(np.ones(len(others)))
    rated = [2, 9]
    now = prior.covariance(others[rated])
    before, fall = mean_variance(now, others, weights), falls(now, others, weights, prior.variance)
    for item in range(0, len(others), 7):
        after = prior.covariance(others[[*rated, item]])
        np.testing.assert_allclose(settled(now, others[item], prior.variance), after, rtol=1e-9, atol=1e-14)
        assert fall[item] == pytest.approx(before - mean_variance(after, others, weights), rel=1e-9)


@pytest.mark.parametrize("sure", [True, False])
def test_each_that_is_asked_for_settles_the_most(fitted: FitResult, small: Split, sure: bool) -> None:
    """The list, greedily by covariances of their own."""
    prior = prior_of(fitted, "user")
    others, counts = extended(fitted.params, "item"), small.train.item_counts
    weights = counts / counts.sum()
    first = mean_variance(prior.covariance(others[[4]]), others, weights)
    chosen: list[int] = []
    for _ in range(3):
        at = [4, *chosen]
        now = mean_variance(prior.covariance(others[at]), others, weights)
        left = {k: mean_variance(prior.covariance(others[[*at, k]]), others, weights) for k in range(len(others))}
        worth = {k: (now - x) * (1 if sure else counts[k]) for k, x in left.items() if k not in at}
        chosen.append(max(worth, key=lambda k: worth[k]))
    found = fitted.suggest_items_to_rate(3, rated=[small.train.item_ids.raw[4]], sure=sure)
    assert found["item"].tolist() == small.train.item_ids.raw[chosen].tolist() and found.index.tolist() == [1, 2, 3]
    expected = [mean_variance(prior.covariance(others[[4, *chosen[:k]]]), others, weights) / first for k in (1, 2, 3)]
    np.testing.assert_allclose(found["left"], expected, rtol=1e-9)
    assert (np.diff(found["left"]) < 0).all() and found["left"].iloc[0] < 1


def test_only_what_may_be_asked_is_asked(fitted: FitResult) -> None:
    ids = fitted.catalogue.item_ids.raw
    among = fitted.suggest_items_to_rate(10, items=ids[:4], without=ids[1:2], rated=(x for x in ids[2:3]))
    assert sorted(among["item"]) == sorted(ids[[0, 3]])
    users = suggest(fitted, "item", 2)
    assert list(users.columns) == ["user", "left"] and len(users) == 2
    with pytest.raises(ValueError, match="n is 0"):
        fitted.suggest_items_to_rate(0)
    with pytest.raises(DataError, match="item 999 was not in the training set; leave it out"):
        fitted.suggest_items_to_rate(1, rated=[999])
