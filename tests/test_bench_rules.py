"""What the harness judges by: differences, the bound on an RMSE, and the cost model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench import cost, equality
from mf_numpy.model import Params, predict


def test_relative_difference_never_hides_a_nan() -> None:
    one = {"P": np.ones(2)}
    assert equality.relative(one, one) == 0.0
    assert equality.relative({"P": np.array([1.0, 3.0])}, {"P": np.array([2.0, 4.0])}) == 0.25
    assert equality.relative({"P": np.array([1.0, np.nan])}, one) == math.inf
    assert equality.relative({"Q": np.ones(2)}, one) == math.inf
    assert equality.relative_each([1.0, None], [1.0, 1.0]) == [0.0, math.inf]


def test_rmse_bound_holds_for_random_changes() -> None:
    rng = np.random.default_rng(0)
    u, i, values = rng.integers(0, 9, 200), rng.integers(0, 7, 200), rng.normal(3, 1, 200)
    old = Params(rng.normal(size=(9, 3)), rng.normal(size=(7, 3)), rng.normal(size=9), rng.normal(size=7), mu=3.0)

    def rmse(params: Params) -> float:
        return float(np.sqrt(np.mean((predict(params, u, i) - values) ** 2)))

    for size in (1e-9, 1e-3, 0.3):
        moved = {name: x + size * rng.uniform(-1, 1, x.shape) for name, x in old.tensors().items()}
        new = old.with_tensors(moved)
        difference = equality.relative(new.tensors(), old.tensors())
        assert abs(rmse(new) - rmse(old)) <= equality.rmse_bound(old, difference, "float64")


def test_rmse_range_needs_more_ratings_than_parameters() -> None:
    assert equality.rmse_range(1.0, 100, 100, 50) is None
    found = equality.rmse_range(2.0, 400, 300, 800)
    assert found is not None
    assert found == pytest.approx((2.0 * 0.9, 4.0 * 1.1))


def test_cost_grows_with_factors_and_autograd_moves_more() -> None:
    costs = {
        b: cost.per_rating(b, 8, "float32", rows=10, n_ratings=10**6) for b in ("loops", "numpy", "numba", "torch")
    }
    assert costs["numba"].bytes < costs["numpy"].bytes < costs["torch"].bytes
    assert {round(c.flops) for c in costs.values()} == {6 * 8 + 9}
