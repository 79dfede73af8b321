"""Second derivatives: by hand, by autograd, by their blocks; and what lies past the largest learning rate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mf_numpy import Config, ConfigError
from mf_numpy.batch import Batch
from mf_numpy.check import Case, cases, relative_difference
from mf_numpy.curvature import (
    Side,
    cross_block,
    hessian_vector,
    largest_curvature,
    max_lr,
    row_block,
    row_minimiser,
)
from mf_numpy.gradients import differential, gradient
from mf_numpy.model import Params, Tensors
from mf_numpy.optim import update
from mf_torch import curvature as by_autograd
from mf_torch.batch import to_device
from mf_torch.model import MatrixFactorization

CASES = list(cases())


def _direction(params: Params, seed: int = 7) -> Tensors:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(theta.shape)) for name, theta in params.tensors().items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hessian_vector_by_hand_is_the_second_derivative_of_autograd(case: Case) -> None:
    d = _direction(case.params)
    mine = hessian_vector(case.params, d, case.batch, case.config)
    module, batch = MatrixFactorization(case.params), to_device(case.batch, "cpu")
    theirs = by_autograd.hessian_vector(module, d, batch, case.config)
    assert mine.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert relative_difference(mine[name], expected) < 1e-12, name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hessian_vector_is_the_slope_of_the_gradient(case: Case) -> None:
    d, h = _direction(case.params), 1e-4
    sides = []
    for sign in (h, -h):
        moved: Tensors = {name: np.asarray(theta + sign * d[name]) for name, theta in case.params.tensors().items()}
        sides.append(gradient(case.params.with_tensors(moved), case.batch, case.config).gradient)
    for name, product in hessian_vector(case.params, d, case.batch, case.config).items():
        assert relative_difference((sides[0][name] - sides[1][name]) / (2 * h), product) < 1e-6, name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_hessian_is_symmetric(case: Case) -> None:
    a, b = _direction(case.params, 1), _direction(case.params, 2)
    left = differential(hessian_vector(case.params, a, case.batch, case.config), b)
    right = differential(hessian_vector(case.params, b, case.batch, case.config), a)
    assert left == pytest.approx(right, rel=1e-11)


def _unit(params: Params, side: Side, row: int, coordinate: int) -> Tensors:
    """1 at one coordinate of one row, 0 elsewhere."""
    d = {name: np.zeros_like(theta) for name, theta in params.tensors().items()}
    factors, bias = ("P", "b") if side == "user" else ("Q", "c")
    if coordinate < params.shape[2]:
        d[factors][row, coordinate] = 1
    else:
        d[bias][row] = 1
    return d


def _row(tensors: Tensors, side: Side, row: int) -> Any:
    factors, bias = ("P", "b") if side == "user" else ("Q", "c")
    return np.append(tensors[factors][row], tensors[bias][row]) if bias in tensors else tensors[factors][row]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_blocks_are_cut_from_the_hessian(case: Case) -> None:
    params, batch, config = case.params, case.batch, case.config
    u, i = int(batch.users[0]), int(batch.items[0])
    sides: tuple[tuple[Side, int], ...] = (("user", u), ("item", i), ("user", 0))
    for side, row in sides:
        block = row_block(params, side, row, batch, config)
        for f in range(len(block)):
            column = hessian_vector(params, _unit(params, side, row, f), batch, config)
            np.testing.assert_allclose(block[:, f], _row(column, side, row), rtol=1e-12, atol=1e-13)
    for user, item in ((u, i), (0, i)):
        cross = cross_block(params, user, item, batch, config)
        for f in range(len(cross)):
            column = hessian_vector(params, _unit(params, "item", item, f), batch, config)
            np.testing.assert_allclose(cross[:, f], _row(column, "user", user), rtol=1e-12, atol=1e-13)


def test_hessian_of_one_rating_worked_by_hand() -> None:
    # p = (1, 2), q = (3, 0.5), r = 4: r̂ = 4, E = 0; λ = 0.1, w = 1.
    params = Params(np.array([[1.0, 2.0]]), np.array([[3.0, 0.5]]))
    config = Config(model="plain", n_factors=2, reg=0.1, penalty="total", dtype="float64")
    one = Batch(np.array([0]), np.array([0]), np.array([4.0]), (1, 1))
    np.testing.assert_allclose(row_block(params, "user", 0, one, config), [[18.2, 3.0], [3.0, 0.7]])
    np.testing.assert_allclose(cross_block(params, 0, 0, one, config), [[6.0, 12.0], [1.0, 2.0]])
    off = replace(one, values=np.array([3.0]))  # E = 2 joins the diagonal of the cross block
    np.testing.assert_allclose(cross_block(params, 0, 0, off, config), [[8.0, 12.0], [1.0, 4.0]])


@pytest.mark.parametrize("case", [c for c in CASES if c.config.loss == "squared"], ids=lambda case: case.name)
@pytest.mark.parametrize("side", ["user", "item"])
def test_a_row_at_its_minimiser_has_no_gradient_and_is_one_newton_step_away(case: Case, side: Side) -> None:
    params, batch, config = case.params, case.batch, case.config
    row = int((batch.users if side == "user" else batch.items)[0])
    best = row_minimiser(params, side, row, batch, config)
    begun = _row(params.tensors(), side, row)
    newton = begun - np.linalg.solve(
        row_block(params, side, row, batch, config), _row(gradient(params, batch, config).gradient, side, row)
    )
    np.testing.assert_allclose(best, newton, rtol=1e-9, atol=1e-11)
    moved = params.copy()
    factors, bias = (moved.P, moved.b) if side == "user" else (moved.Q, moved.c)
    factors[row] = best[: params.shape[2]]
    if bias is not None:
        bias[row] = best[-1]
    assert np.abs(_row(gradient(moved, batch, config).gradient, side, row)).max() < 1e-12


def test_a_row_without_ratings_is_pulled_to_zero_by_a_total_penalty_and_left_alone_by_a_share() -> None:
    case = next(c for c in CASES if c.name == "biased, total, empty user and item")
    assert case.batch.user_counts[0] == 0
    assert not row_minimiser(case.params, "user", 0, case.batch, case.config).any()
    shared = replace(case.config, penalty="per_rating")
    stays = row_minimiser(case.params, "user", 0, case.batch, shared)
    np.testing.assert_array_equal(stays, _row(case.params.tensors(), "user", 0))


def test_a_side_or_a_row_that_there_is_none_of_is_refused() -> None:
    case = CASES[0]
    m, n, _ = case.params.shape
    assert m != n, "the two sides must not be mistaken for each other"
    for of_row in (row_block, row_minimiser):
        with pytest.raises(ConfigError, match=r"^side is 'users', but must be one of 'user', 'item'\."):
            of_row(case.params, "users", 0, case.batch, case.config)  # type: ignore[arg-type]
        sides: tuple[tuple[Side, int], ...] = (("user", m), ("item", n))
        for side, size in sides:
            for row in (-1, size):
                with pytest.raises(IndexError, match=rf"^{side}\[0\] is {row}, outside 0\.\.{size - 1};"):
                    of_row(case.params, side, row, case.batch, case.config)
    for user, item, told in ((m, 0, "user"), (-1, 0, "user"), (0, n, "item"), (0, -1, "item")):
        with pytest.raises(IndexError, match=rf"^{told}\[0\] is"):
            cross_block(case.params, user, item, case.batch, case.config)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_largest_curvature_is_the_top_eigenvalue_of_the_whole_hessian(case: Case) -> None:
    names = case.params.tensors()
    columns = []
    for name, theta in names.items():
        for at in np.ndindex(*theta.shape):
            d = {key: np.zeros_like(value) for key, value in names.items()}
            d[name][at] = 1
            product = hessian_vector(case.params, d, case.batch, case.config)
            columns.append(np.concatenate([product[key].ravel() for key in names]))
    top = np.linalg.eigvalsh(np.array(columns))[-1]
    assert largest_curvature(case.params, case.batch, case.config) == pytest.approx(top, rel=1e-9)


FORMS: list[dict[str, Any]] = [
    {"momentum": 0.0},
    {"momentum": 0.9, "momentum_form": "ema"},
    {"momentum": 0.8, "momentum_form": "heavy_ball"},
    {"momentum": 0.8, "momentum_form": "nesterov"},
]


def test_largest_curvature_is_one_number_however_often_it_is_asked_for() -> None:
    case = CASES[0]
    first, second = (largest_curvature(case.params, case.batch, case.config) for _ in range(2))
    assert first == second and type(first) is float


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.get("momentum_form", "plain"))
@pytest.mark.parametrize("curvature", [0.3, 4.0])
def test_steps_die_out_just_below_the_bound_and_grow_just_above_it(form: dict[str, Any], curvature: float) -> None:
    config = Config(**form)
    bound = max_lr(curvature, config)
    ends = {}
    for factor in (0.99, 1.01):
        theta, v = {"P": np.array(1.0)}, None
        for _ in range(2000):
            theta, v = update(theta, v, {"P": curvature * theta["P"]}, factor * bound, config)
        ends[factor] = abs(float(theta["P"]))
    assert ends[0.99] < 1e-3
    assert ends[1.01] > 1e3
