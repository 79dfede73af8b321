"""Every way to the gradient gives the same numbers, and wrong ways are caught by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mf_numpy import Config, Ratings, check, gradients, kernels, loops
from mf_numpy.batch import Batch, full_batch
from mf_numpy.check import GRADIENT_TOLERANCE, METHODS, Case, applies, cases, relative_difference
from mf_numpy.model import Params, Tensors, predict, start
from mf_numpy.objective import objective
from mf_torch.check import autograd

ALL_METHODS = {**METHODS, "autograd": autograd}
CASES = list(cases())


PAIRS = [
    pytest.param(case, method, id=f"{case.name}-{method}")
    for case in CASES
    for method in ALL_METHODS
    if method != "loops" and applies(method, case)
]


@pytest.mark.parametrize(("case", "method"), PAIRS)
def test_each_method_gives_the_gradient_of_the_loops(case: Case, method: str) -> None:
    gold = METHODS["loops"](case.params, case.batch, case.config)
    mine = ALL_METHODS[method](case.params, case.batch, case.config)
    assert mine.keys() == gold.keys() == case.params.tensors().keys()
    for name in gold:
        assert relative_difference(mine[name], gold[name]) <= GRADIENT_TOLERANCE, name


@pytest.mark.parametrize("backend", [loops, gradients, kernels])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_objective_and_squared_error_beside_the_gradient(case: Case, backend: object) -> None:
    seen = backend.gradient(case.params, case.batch, case.config)  # type: ignore[attr-defined]
    assert seen.objective == pytest.approx(objective(case.params, case.batch, case.config), rel=1e-13)
    predicted = predict(case.params, case.batch.users, case.batch.items)
    expected = {"logistic": 1 / (1 + np.exp(-predicted)), "poisson": np.exp(predicted)}.get(case.config.loss, predicted)
    error = expected - (1 if case.config.loss == "all_pairs" else case.batch.values)
    assert seen.squared_error == pytest.approx(float((error**2).sum()), rel=1e-13)


def test_gradient_of_one_rating_worked_by_hand() -> None:
    # r = 5, p = (1, 2), q = (3, 0.5), μ = 2, b = 0.5, c = -1: r̂ = 5.5, E = 1; λ = 0.1.
    params = Params(np.array([[1.0, 2.0]]), np.array([[3.0, 0.5]]), np.array([0.5]), np.array([-1.0]), mu=2.0)
    batch = full_batch(Ratings.of_indices([0], [0], [5.0]), Config(dtype="float64"))
    seen = gradients.gradient(params, batch, Config(reg=0.1, penalty="total", n_factors=2, dtype="float64"))
    assert seen.objective == pytest.approx(0.25 + 0.1 * (1 + 4 + 9 + 0.25 + 0.25 + 1))
    np.testing.assert_allclose(seen.gradient["P"], [[3.0 + 0.2, 0.5 + 0.4]])
    np.testing.assert_allclose(seen.gradient["Q"], [[1.0 + 0.6, 2.0 + 0.1]])
    np.testing.assert_allclose(seen.gradient["b"], [1.0 + 0.1])
    np.testing.assert_allclose(seen.gradient["c"], [1.0 - 0.2])


def test_a_gradient_of_nan_turns_the_table_red() -> None:
    def nan(params: Params, batch: Batch, config: Config) -> Tensors:
        return {name: np.full_like(theta, np.nan) for name, theta in params.tensors().items()}

    assert not any(row.ok for row in check.check_gradients({"nan": nan}))


@pytest.mark.parametrize("method", ["numpy", "numba", "autograd"])
def test_float32_gradient_stays_within_the_rounding_of_its_sums(method: str) -> None:
    """A sum of k rounded terms is off by at most k·eps32 times the sum of their sizes (Higham 2002, section 4.2)."""
    rng = np.random.default_rng(5)
    users, items = rng.integers(0, 40, 2000), rng.integers(0, 30, 2000)
    ratings = Ratings.of_indices(users, items, rng.integers(1, 11, 2000), m=40, n=30)
    for penalty in ("total", "per_rating"):
        wide = Config(n_factors=7, dtype="float64", penalty=penalty, init_scale=0.8)
        narrow = replace(wide, dtype="float32")
        params = start(ratings, narrow)
        exact = params.with_tensors({k: v.astype(np.float64) for k, v in params.tensors().items()})
        gold = METHODS["loops"](exact, full_batch(ratings, wide), wide)
        mine = ALL_METHODS[method](params, full_batch(ratings, narrow), narrow)
        magnitude = METHODS["numpy"](*_absolute(exact, ratings, wide))
        terms = max(int(ratings.user_counts.max()), int(ratings.item_counts.max())) + wide.n_factors + 4
        for name, expected in gold.items():
            assert mine[name].dtype == np.float32
            bound = terms * np.finfo(np.float32).eps * magnitude[name]
            assert (np.abs(mine[name] - expected) <= bound).all(), name


def _absolute(params: Params, ratings: Ratings, config: Config) -> tuple[Params, Batch, Config]:
    """The same sums with every term made positive: |θ| for θ, and |r̂| + |r| for r̂ - r."""
    positive = params.with_tensors({k: np.abs(v) for k, v in params.tensors().items()})
    negated = replace(ratings, values=-np.abs(ratings.values))
    return positive, full_batch(negated, config), config


def test_out_of_range_and_negative_ids_are_refused_not_wrapped() -> None:
    params = Params(np.ones((3, 2)), np.ones((4, 2)))
    guess: Callable[..., object]
    for guess in (predict, kernels.predict):
        for users, items in (([0, -1], [0, 0]), ([0, 3], [0, 0]), ([0, 0], [0, -1]), ([0, 0], [4, 0])):
            with pytest.raises(IndexError, match=r"outside 0\.\."):
                guess(params, np.array(users), np.array(items))
