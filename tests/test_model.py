"""Starts drawn again by hand, number for number; and what a refused index is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mf_numpy import Config, DataError, Ratings, model
from mf_numpy.model import Params
from mf_numpy.ratings import Array

K = 3


def _ratings(mean: float) -> Ratings:
    return Ratings.of_indices([0, 1, 4, 4], [0, 5, 2, 6], [mean - 1, mean + 1, mean - 0.5, mean + 0.5], m=5, n=7)


def _start(mean: float = 3.25, **settings: Any) -> Params:
    return model.start(_ratings(mean), Config(n_factors=K, seed=11, **settings))


def _draws(distribution: str, *arguments: float) -> tuple[Array, Array]:
    """P (5, K), then Q (7, K), from one generator."""
    rng = np.random.default_rng(11)
    p, q = (getattr(rng, distribution)(*arguments, (rows, K)) for rows in (5, 7))
    return p, q


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("settings", "distribution", "arguments"),
    [
        ({"init": "uniform"}, "uniform", (0.0, 11 / K)),
        ({"init": "uniform", "init_scale": 0.4}, "uniform", (0.0, 0.4)),
        ({"init": "normal"}, "normal", (0.0, 0.1)),
        ({"init": "normal", "init_scale": 0.4}, "normal", (0.0, 0.4)),
        ({"init": "mean"}, "uniform", (0.0, 2 * np.sqrt(3.25 / K))),
    ],
)
def test_a_start_is_its_distribution_drawn_for_p_and_then_for_q(
    dtype: Any, settings: dict[str, Any], distribution: str, arguments: tuple[float, ...]
) -> None:
    p, q = _draws(distribution, *arguments)
    started = _start(dtype=dtype, model="plain", **settings)
    for mine, expected in ((started.P, p), (started.Q, q)):
        assert mine.dtype == dtype
        np.testing.assert_array_equal(mine, expected.astype(dtype))
    assert started.b is None and started.c is None and started.mu == 0.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_biased_start_has_no_bias_yet_and_the_mean_rating(dtype: Any) -> None:
    started = _start(dtype=dtype, model="biased")
    assert started.b is not None and started.c is not None
    for mine, rows in ((started.b, 5), (started.c, 7)):
        np.testing.assert_array_equal(mine, np.zeros(rows))
        assert mine.dtype == dtype
    assert started.P.dtype == started.Q.dtype == dtype
    assert started.mu == 3.25


def test_a_truncated_start_draws_again_what_lies_past_two_sigma_and_nothing_else() -> None:
    n = 400
    ratings = Ratings.of_indices([0], [0], [1.0], m=n, n=1)
    P = model.start(ratings, Config(n_factors=K, seed=11, init="truncated_normal", dtype="float64")).P
    rng = np.random.default_rng(11)
    expected = rng.normal(size=(n, K))
    rounds = 0
    while len(far := np.flatnonzero(np.abs(expected) > 2)):
        expected.flat[far] = rng.normal(size=len(far))
        rounds += 1
    assert rounds > 1
    np.testing.assert_array_equal(P, 0.1 * expected)


@pytest.mark.parametrize(("mean", "top"), [(0.6, 2 * np.sqrt(0.2)), (7.0, 2 * np.sqrt(7 / 3)), (-2.0, 0.0)])
def test_a_start_at_the_mean_for_small_large_and_negative_means(mean: float, top: float) -> None:
    p, q = _draws("uniform", 0.0, top)
    started = _start(mean, init="mean", model="plain", dtype="float64")
    np.testing.assert_allclose(started.P, p, rtol=1e-14)
    np.testing.assert_allclose(started.Q, q, rtol=1e-14)


def test_what_a_refused_index_is_told() -> None:
    params = Params(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(IndexError, match=r"^users\[1\] is 3, outside 0\.\.2;"):
        model.predict(params, np.array([0, 3, -1]), np.array([0, 0, 0]))
    with pytest.raises(IndexError, match=r"^items\[2\] is -1, outside 0\.\.3;"):
        model.predict(params, np.array([0, 1, 2]), np.array([0, 3, -1]))
    for far in (3, 4, 100):
        with pytest.raises(IndexError, match=rf"users\[1\] is {far}, outside"):
            model.predict(params, np.array([0, far]), np.array([0, 0]))
    model.check_range("none at all", [], 0)


def test_biases_on_one_side_only_are_refused() -> None:
    with pytest.raises(DataError, match=r"^c is None and the other side has biases; give both b and c, or neither"):
        Params(np.ones((3, 2)), np.ones((4, 2)), b=np.zeros(3))
    with pytest.raises(DataError, match=r"^b is None"):
        Params(np.ones((3, 2)), np.ones((4, 2)), c=np.zeros(4))
