"""Every way to the gradient gives the same numbers, and wrong ways are caught by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mf_numpy import Config, Ratings, check, gradients, kernels, loops
from mf_numpy.batch import Batch, full_batch
from mf_numpy.check import GRADIENT_TOLERANCE, METHODS, Case, applies, cases, relative_difference
from mf_numpy.losses import residual
from mf_numpy.model import Params, Tensors, predict, start
from mf_numpy.objective import objective, penalty_weights
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
    assert seen.objective == pytest.approx(float(np.real(objective(case.params, case.batch, case.config))), rel=1e-13)
    error = predict(case.params, case.batch.users, case.batch.items) - case.batch.values
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


def _hand_written(batch: Batch, config: Config, params: Params, *, broken: str) -> Tensors:
    """`mf_numpy.gradients.gradient`, written again with one fault."""
    e = residual(predict(params, batch.users, batch.items), batch.values, config)
    p, q = params.P, params.Q
    share, reg = 1 / len(batch), 2 * config.reg
    w_u, w_i = penalty_weights(batch, config)
    if broken == "count for total":
        w_u, w_i = batch.user_counts.astype(float), batch.item_counts.astype(float)
    if broken == "dropped 2":
        e = e / 2
    if broken == "penalty's 2 dropped":
        reg = config.reg
    if broken == "penalty's sign":
        reg = -reg
    if broken == "mean over a part":
        share = 2 / len(batch)
    if broken == "clipped prediction":
        e = residual(np.clip(predict(params, batch.users, batch.items), 1, 10), batch.values, config)
    matrix = batch.sparse(e)
    if broken == "lost duplicates":
        dense = np.zeros(batch.shape)
        dense[batch.users, batch.items] = e
        d_p = dense @ q * share + reg * w_u[:, None] * p
    elif broken == "transposed":
        flipped = np.zeros(batch.shape)
        flipped[batch.items % batch.shape[0], batch.users % batch.shape[1]] = e
        d_p = flipped @ q * share + reg * w_u[:, None] * p
    else:
        d_p = matrix @ q * share + reg * w_u[:, None] * p
    if broken == "sequential update":
        p = p - 0.1 * d_p
    d_q = matrix.T @ p * share + reg * w_i[:, None] * q
    grads: Tensors = {"P": d_p, "Q": d_q}
    if params.b is not None and params.c is not None:
        pull = 0.0 if broken == "biases unpenalised" else reg
        grads["b"] = matrix.sum(axis=1) * share + pull * w_u * params.b
        grads["c"] = matrix.sum(axis=0) * share + pull * w_i * params.c
    return grads


FAULTS = [
    "dropped 2",
    "penalty's 2 dropped",
    "penalty's sign",
    "mean over a part",
    "clipped prediction",
    "count for total",
    "lost duplicates",
    "transposed",
    "sequential update",
    "biases unpenalised",
]


def test_the_hand_written_twin_without_a_fault_passes() -> None:
    rows = check.check_gradients({"twin": lambda p, b, c: _hand_written(b, c, p, broken="")})
    assert all(row.ok for row in rows)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_gradient_turns_the_table_red(fault: str) -> None:
    rows = check.check_gradients({fault: lambda p, b, c: _hand_written(b, c, p, broken=fault)})
    assert any(not row.ok for row in rows)
    assert all(row.method == fault for row in rows)


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
        exact = Params(**{k: v.astype(np.float64) for k, v in params.tensors().items()}, mu=params.mu)
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
    positive = Params(**{k: np.abs(v) for k, v in params.tensors().items()}, mu=params.mu)
    negated = replace(ratings, values=-np.abs(ratings.values))
    return positive, full_batch(negated, config), config


def test_out_of_range_and_negative_ids_are_refused_not_wrapped() -> None:
    params = Params(np.ones((3, 2)), np.ones((4, 2)))
    guess: Callable[..., object]
    for guess in (predict, kernels.predict):
        for users, items in (([0, -1], [0, 0]), ([0, 3], [0, 0]), ([0, 0], [0, -1]), ([0, 0], [4, 0])):
            with pytest.raises(IndexError, match=r"outside 0\.\."):
                guess(params, np.array(users), np.array(items))
