"""What `check_module` can still tell: predictions that are hidden, wide scales, small tables, tables exchanged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mf_numpy import Ratings
from mf_torch import check_module
from mf_torch.module_check import hints
from tests.test_module_check import FACTORS
from tests.test_module_hints import R, factors, mse
from tests.user_modules import Dot, EmbeddingDotBias, K, M, N


def test_an_objective_that_hides_its_predictions_is_compared_as_a_whole() -> None:
    def objective(module: Dot, users: Tensor, items: Tensor, ratings: Tensor) -> Tensor:
        p, q = module.user_factors.weight, module.item_factors.weight
        return mse((p[users] * q[items]).sum(1), ratings) + 0.05 * ((p**2).sum() + (q**2).sum())

    report = check_module(Dot(), R, objective=objective, reg=0.05)
    assert report.passed and [row.quantity for row in report.rows] == ["r̂", "J", "∇P", "∇Q"]
    report = check_module(Dot(), R, objective=objective, reg=0.0)
    assert report["∇P"].hint == "0.1 θ is in it: a penalty with λ = 0.05"
    report = check_module(Dot(), R, objective=lambda m, u, i, r: objective(m, u, i, r) + 0.05 * (
        m.user_factors(u) ** 2).sum(1).mean(), reg=0.05)  # fmt: skip
    assert report["∇P"].hint == "0.1 (n/N) θ is in it: a per_rating penalty with λ = 0.05"


def test_sigmoids_on_a_wide_scale_do_not_overflow() -> None:
    wide = Ratings(R.users, R.items, R.values * 1e4, R.user_ids, R.item_ids)
    assert not check_module(EmbeddingDotBias(K, M, N, (0, 5e4)), wide)
    assert not check_module(factors(lambda p, q: (p * q).sum(1) ** 2)(), wide)


def test_small_tables_are_told_apart_too() -> None:
    few = Ratings.of_indices([0, 1, 2], [0, 1, 0], [1.0, 2.0, 4.0], m=3, n=2)
    module = nn.Module()

    def call(module: nn.Module, users: Tensor, items: Tensor) -> Tensor:
        p, q = module.get_parameter("p"), module.get_parameter("q")
        return (p[users] * q[items]).mean(1)

    module.p, module.q = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2, 2))
    report = check_module(module, few, names={"P": "p", "Q": "q"}, call=call)
    assert "p·q is a mean over the factors" in report["r̂"].hint


def test_least_squares_names_nothing_that_it_leaves_something_of() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=50)
    found = hints.fitted(3 * x - 2 * y, x, y)
    assert found is not None and found.tolist() == pytest.approx([3, -2], rel=1e-12)
    assert hints.fitted(3 * x - 2 * y + 1e-6 * rng.normal(size=50), x, y) is None
    assert hints.fitted(x, x, 2 * x) is None  # not unique
    assert hints.fitted(x, np.zeros(50)) is None
    assert hints.fitted(np.full(50, np.nan), x) is None


def test_names_of_the_wrong_table_are_no_false_pass() -> None:
    square = Ratings.of_indices(R.users % N, R.items, R.values, m=N, n=N)
    exchanged = {"P": FACTORS["Q"], "Q": FACTORS["P"]}
    report = check_module(Dot(m=N), square, names=exchanged)
    assert not report and "users and items are swapped" in report["r̂"].hint
