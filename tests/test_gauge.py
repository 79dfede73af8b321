"""The gauge: other factors, the same predictions; the balanced ones; the nuclear norm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mf_numpy
from mf_numpy import Config, Ratings, Split
from mf_numpy.batch import full_batch
from mf_numpy.gauge import canonical, imbalance, nuclear_norm, regauge
from mf_numpy.model import Params
from mf_numpy.objective import objective


@pytest.fixture
def params() -> Params:
    rng = np.random.default_rng(2)
    return Params(rng.normal(size=(9, 3)), rng.normal(size=(6, 3)), rng.normal(size=9), rng.normal(size=6), mu=3.0)


def test_another_gauge_predicts_the_same(params: Params) -> None:
    A = np.array([[2.0, 1.0, 0.0], [0.0, 0.5, -1.0], [1.0, 0.0, 3.0]])
    other = regauge(params, A)
    np.testing.assert_allclose(other.P @ other.Q.T, params.P @ params.Q.T, rtol=1e-12)
    assert np.abs(other.P - params.P).max() > 0.5
    with pytest.raises(np.linalg.LinAlgError):
        regauge(params, np.ones((3, 3)))


def test_canonical_factors_are_balanced_orthogonal_sorted_and_the_same_from_any_gauge(params: Params) -> None:
    mine = canonical(params)
    np.testing.assert_allclose(mine.P @ mine.Q.T, params.P @ params.Q.T, rtol=1e-11, atol=1e-12)
    s = np.linalg.svd(params.P @ params.Q.T, compute_uv=False)[:3]
    np.testing.assert_allclose(mine.P.T @ mine.P, np.diag(s), atol=1e-12)
    np.testing.assert_allclose(mine.Q.T @ mine.Q, np.diag(s), atol=1e-12)
    assert (mine.Q[np.abs(mine.Q).argmax(axis=0), range(3)] > 0).all()
    again = canonical(regauge(params, np.array([[0.0, 2.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, -1.0]])))
    np.testing.assert_allclose(again.Q, mine.Q, atol=1e-12)
    assert mine.b is params.b and mine.mu == params.mu


@pytest.mark.parametrize(("m", "n"), [(2, 3), (3, 2)])
def test_more_factors_than_rows(m: int, n: int) -> None:
    rng = np.random.default_rng(0)
    wide = Params(rng.normal(size=(m, 4)), rng.normal(size=(n, 4)))
    mine = canonical(wide)
    assert mine.P.shape == (m, 2) and mine.Q.shape == (n, 2)
    np.testing.assert_allclose(mine.P @ mine.Q.T, wide.P @ wide.Q.T, rtol=1e-12)


def test_nuclear_norm_is_the_least_half_sum_of_squares(params: Params) -> None:
    norm = nuclear_norm(params)
    assert norm == pytest.approx(np.linalg.norm(params.P @ params.Q.T, "nuc"), rel=1e-12)
    assert type(norm) is float
    least = canonical(params)
    assert ((least.P**2).sum() + (least.Q**2).sum()) / 2 == pytest.approx(norm, rel=1e-12)
    rng = np.random.default_rng(1)
    for _ in range(20):
        other = regauge(least, np.eye(3) + 0.3 * rng.normal(size=(3, 3)))
        assert ((other.P**2).sum() + (other.Q**2).sum()) / 2 > norm


@pytest.mark.parametrize(("p", "q", "expected"), [(1.0, 2.0, 0.75), (2.0, 1.0, 0.75), (2.0, 2.0, 0.0), (0.0, 0.0, 0.0)])
def test_imbalance_of_one_rating_worked_by_hand(p: float, q: float, expected: float) -> None:
    config = Config(model="plain", n_factors=1, dtype="float64")
    batch = full_batch(Ratings.of_indices([0], [0], [3.0], m=1, n=1), config)
    found = imbalance(Params(np.array([[p]]), np.array([[q]])), batch, config)
    assert found == expected and type(found) is float


@pytest.mark.parametrize("penalty", [pytest.param("total", marks=pytest.mark.thorough), "per_rating"])
def test_a_trained_model_is_balanced_and_a_start_is_not(small: Split, penalty: str) -> None:
    lr, reg = (5.0, 0.1) if penalty == "per_rating" else (5.0, 0.001)
    config = Config(
        n_factors=3, penalty=penalty, reg=reg, lr=lr, momentum_form="nesterov", dtype="float64", n_epochs=6000  # type: ignore[arg-type]
    )  # fmt: skip
    batch = full_batch(small.train, config)
    begun = mf_numpy.init(small.train, config).params
    ended = mf_numpy.fit(small.train, config).params
    assert imbalance(begun, batch, config) > 0.1
    assert imbalance(ended, batch, config) < 1e-6
    # What λ costs: with another gauge the same predictions have a larger objective.
    other = regauge(ended, np.diag([1.2, 1.0, 1.0]))
    assert objective(other, batch, config) > objective(ended, batch, config)
    free = replace(config, reg=0.0)
    assert objective(other, batch, free) == pytest.approx(objective(ended, batch, free), rel=1e-12)
