"""Alternating least squares: each row against dense algebra, the sweep against NumPy, and where it leads."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from typing import Any, get_args

import numba
import numpy as np
import pytest

from mf_numpy import Config, Ratings, fit, gradients, planted
from mf_numpy.batch import full_batch
from mf_numpy.check import relative_difference
from mf_numpy.config import DType
from mf_numpy.engine import State
from mf_numpy.errors import ConfigError
from mf_numpy.kernels import als, normal, tiles, vector
from mf_numpy.model import Params, start
from mf_numpy.objective import objective
from mf_numpy.ratings import Array
from mf_numpy.solvers import engine_for
from mf_numpy.split import random_split
from tests.instruction_sets import NARROWER, compiling_for
from tests.same_fits import assert_same_bits, by_one_thread_and_by_all

LENGTHS = (1, 2, 3, 5, 8, 16, 17, 31, 32, 33, 64, 100)
MODELS: list[Any] = [("biased", "per_rating"), ("biased", "total"), ("plain", "per_rating"), ("plain", "total")]


def _ratings(m: int = 40, n: int = 30, size: int = 900, seed: int = 0) -> Ratings:
    rng = np.random.default_rng(seed)
    # Popularity falls steeply, past a panel of ratings; the last user and the last item have none; pairs repeat.
    users, items = rng.integers(0, m - 1, size), np.minimum(rng.geometric(0.15, size) - 1, n - 2)
    users[:300] = 0
    return Ratings.of_indices(users, items, rng.integers(1, 11, size), m=m, n=n)


def _begin(train: Ratings, config: Config, seed: int = 1) -> Params:
    """Rows of length about 1 and biases, so that no part of a row is small."""
    rng, params = np.random.default_rng(seed), start(train, config)
    spread = {"P": config.n_factors**-0.5, "Q": config.n_factors**-0.5, "b": 0.5, "c": 0.5}
    tensors = params.tensors()
    drawn = {name: spread[name] * rng.normal(size=theta.shape) for name, theta in tensors.items()}
    return params.with_tensors({name: theta.astype(config.numpy_dtype) for name, theta in drawn.items()})


def _sweep(train: Ratings, config: Config, params: Params, backend: Any = "numba") -> tuple[Params, Any]:
    engine = engine_for(config, backend)
    whole = engine.load(train, config)
    state = engine.step(engine.start(State(params.copy()), whole, config), whole, config)
    return engine.export(state).params, engine.seen(state)


def _solved(train: Ratings, config: Config, params: Params, side: str) -> Array:
    """Each row's minimiser with the other side as it is, by the dense normal equations in float64."""
    by_user = side == "user"
    rows, others = (train.users, train.items) if by_user else (train.items, train.users)
    partners, own = (params.Q, params.P) if by_user else (params.P, params.Q)
    partners, own = partners.astype(np.float64), own.astype(np.float64)
    left = train.values - params.mu
    if params.b is not None and params.c is not None:
        left = left - (params.c if by_user else params.b)[others]
        partners, own = (np.column_stack([x, np.ones(len(x))]) for x in (partners, own))
    # A row without ratings stays where it has no penalty either: per rating it has none.
    out = _side(params, side).astype(np.float64) if config.penalty == "per_rating" else np.zeros_like(own)
    for row in range(len(own)):
        y, t = partners[others[rows == row]], left[rows == row]
        ridge = config.reg * (len(t) if config.penalty == "per_rating" else len(train))
        if len(t):
            out[row] = np.linalg.solve(y.T @ y + ridge * np.eye(y.shape[1]), y.T @ t)
    return out


def _side(params: Params, side: str) -> Array:
    factors, bias = (params.P, params.b) if side == "user" else (params.Q, params.c)
    return factors if bias is None else np.column_stack([factors, bias])


def _distance(params: Params, other: Params) -> float:
    """The largest difference, relative to the largest number of each array."""
    theirs = other.tensors()
    return max(float(np.abs(x - theirs[k]).max() / np.abs(theirs[k]).max()) for k, x in params.tensors().items())


def _check_rows(
    n_factors: int, model: Any, penalty: Any, dtype: Any, bound: float, train: Ratings | None = None
) -> None:
    reg = 0.05 if penalty == "per_rating" else 0.002
    train = _ratings() if train is None else train
    config = Config(solver="als", n_factors=n_factors, model=model, penalty=penalty, reg=reg, dtype=dtype)
    before = _begin(train, config)
    after, _ = _sweep(train, config, before)
    halfway = before.with_tensors(before.tensors() | {k: v for k, v in after.tensors().items() if k in "Pb"})
    for at, side in ((before, "user"), (halfway, "item")):
        expected, found = _solved(train, config, at, side), _side(after, side)
        assert np.abs(found - expected).max() < bound * np.abs(expected).max(), (n_factors, side)
        empty = (train.user_counts if side == "user" else train.item_counts) == 0
        assert empty.any() and (found[empty] == expected[empty]).all()


@pytest.mark.parametrize("n_factors", LENGTHS)
def test_rows_are_the_normal_equations_solution(n_factors: int) -> None:
    for model, penalty in MODELS:
        _check_rows(n_factors, model, penalty, "float64", 1e-11)


@pytest.mark.parametrize("n_factors", LENGTHS)
def test_float32_rows_are_as_near_as_their_rounding(n_factors: int) -> None:
    """The backward error of a Cholesky solution is below (3D + 1)ε, and sums of n terms add nε (Higham 2002, 10.4):
    times the condition number, below (trace + ridge) / ridge = 1 + (1 + |q|²) / λ ≈ 40 of every row here."""
    eps = float(np.finfo(np.float32).eps)
    for model in ("biased", "plain"):
        _check_rows(n_factors, model, "per_rating", "float32", 40 * (3 * n_factors + 4 + als.panel_rows(16, 4)) * eps)


def test_rows_of_more_factors_than_registers_are_unrolled_for() -> None:
    for n_factors in (vector.MAX_FACTORS, vector.MAX_FACTORS + 1):
        _check_rows(n_factors, "biased", "per_rating", "float64", 1e-11, _ratings(6, 5, 340))


@pytest.mark.parametrize(("model", "penalty"), MODELS)
@pytest.mark.parametrize("cg_steps", [None, 2])
def test_sweeps_are_those_of_numpy(model: Any, penalty: Any, cg_steps: int | None) -> None:
    for n_factors in (1, 7):
        config = Config(
            solver="als", n_factors=n_factors, n_epochs=3, model=model, penalty=penalty, cg_steps=cg_steps,
            reg=0.05 if penalty == "per_rating" else 0.002, dtype="float64", init_scale=0.5,
        )  # fmt: skip
        mine, theirs = fit(_ratings(), config), fit(_ratings(), config, backend="loops")
        assert _distance(mine.params, theirs.params) < 1e-9
        for a, b in zip(mine.history, theirs.history, strict=True):
            assert a.objective == pytest.approx(b.objective, rel=1e-12)
            assert a.train_rmse == pytest.approx(b.train_rmse, rel=1e-12)


@pytest.mark.parametrize("backend", ["numba", "loops"])
@pytest.mark.parametrize("cg_steps", [None, 1])
@pytest.mark.parametrize(("model", "penalty"), MODELS)
def test_what_a_sweep_saw_is_where_it_began(model: Any, penalty: Any, cg_steps: int | None, backend: Any) -> None:
    train = _ratings()
    for dtype, rel in (("float64", 1e-13), ("float32", 1e-5)):
        config = Config(
            solver="als", n_factors=5, model=model, penalty=penalty, cg_steps=cg_steps, dtype=dtype,  # type: ignore[arg-type]
        )  # fmt: skip
        before = _begin(train, config)
        batch = full_batch(train, config)
        _, (j, squared_error) = _sweep(train, config, before, backend)
        assert j == pytest.approx(objective(before, batch, config), rel=rel)
        assert squared_error == pytest.approx(gradients.gradient(before, batch, config).squared_error, rel=rel)


@pytest.mark.parametrize("cg_steps", [None, 1, 2, 3])
@pytest.mark.parametrize(("model", "penalty"), MODELS)
def test_the_objective_never_rises(model: Any, penalty: Any, cg_steps: int | None) -> None:
    reg = 0.02 if penalty == "per_rating" else 0.0005
    for n_factors in (2, 20):
        config = Config(
            solver="als", n_factors=n_factors, n_epochs=25, model=model, penalty=penalty, reg=reg, cg_steps=cg_steps,
            dtype="float64", init_scale=0.5,
        )  # fmt: skip
        seen = [record.objective for record in fit(_ratings(), config).history]
        assert all(after <= before * (1 + 1e-14) for before, after in pairwise(seen))
        assert seen[-1] < 0.9 * seen[0]


@pytest.mark.parametrize("cg_steps", [None, 2])
def test_it_ends_where_the_gradient_is_zero(cg_steps: int | None) -> None:
    train = _ratings(12, 10, 400)
    config = Config(solver="als", n_factors=2, n_epochs=600, cg_steps=cg_steps, reg=0.1, dtype="float64")
    batch, result = full_batch(train, config), fit(train, config)
    sizes = [
        np.sqrt(sum(float((g**2).sum()) for g in gradients.gradient(params, batch, config).gradient.values()))
        for params in (start(train, config), result.params)
    ]
    assert sizes[1] < 1e-10 * sizes[0]


def test_enough_conjugate_gradient_steps_are_the_exact_solution() -> None:
    train = _ratings()
    for n_factors, model in ((1, "plain"), (3, "biased"), (5, "biased")):
        exact = Config(solver="als", n_factors=n_factors, model=model, dtype="float64")  # type: ignore[arg-type]
        before = _begin(train, exact)
        steps = Config(solver="als", n_factors=n_factors, model=model, dtype="float64", cg_steps=n_factors + 1)  # type: ignore[arg-type]
        assert _distance(_sweep(train, steps, before)[0], _sweep(train, exact, before)[0]) < 1e-9
        # Many more change nothing: a row that has arrived stays.
        more = Config(solver="als", n_factors=n_factors, model=model, dtype="float64", cg_steps=300)  # type: ignore[arg-type]
        assert _distance(_sweep(train, more, before)[0], _sweep(train, exact, before)[0]) < 1e-12


@pytest.mark.parametrize("dtype", get_args(DType))
@pytest.mark.parametrize("cg_steps", [None, 3])
def test_bits_are_those_of_one_thread(dtype: Any, cg_steps: int | None) -> None:
    train = _ratings(300, 200, 20_000)
    config = Config(solver="als", n_factors=9, n_epochs=3, dtype=dtype, cg_steps=cg_steps)
    one, more = by_one_thread_and_by_all(train, config)
    assert_same_bits(one, more)


@pytest.mark.parametrize("cg_steps", [None, 2])
def test_a_resumed_fit_is_the_straight_one(cg_steps: int | None) -> None:
    def config(n_epochs: int) -> Config:
        return Config(solver="als", n_factors=4, n_epochs=n_epochs, cg_steps=cg_steps)

    straight = fit(_ratings(), config(5))
    resumed = fit(_ratings(), config(5), resume=fit(_ratings(), config(2)))
    assert [r.objective for r in straight.history] == [r.objective for r in resumed.history]
    for name, theta in straight.params.tensors().items():
        assert theta.tobytes() == resumed.params.tensors()[name].tobytes()


def test_float32_follows_float64() -> None:
    """Three sweeps of rows whose own bound is that of the test above."""
    train = _ratings()
    wide, narrow = (
        fit(train, Config(solver="als", n_factors=6, n_epochs=3, dtype=dtype, init_scale=0.5)).params
        for dtype in ("float64", "float32")
    )
    eps = float(np.finfo(np.float32).eps)
    assert _distance(narrow, wide) < 6 * 40 * (3 * 6 + 4 + als.panel_rows(16, 4)) * eps


_WITH_LOOPS = """
from tests.test_als import _distance, _begin, _ratings, _sweep
from mf_numpy import Config, store
import numpy as np, os
from mf_numpy.kernels import normal, vector
assert (normal.form(5) == vector.LOOPS) == (os.environ["MF_KERNELS"] == "loops")
for n_factors, cg_steps in ((5, None), (16, None), (33, None), (5, 2)):
    config = Config(solver="als", n_factors=n_factors, dtype="float64", cg_steps=cg_steps)
    after, seen = _sweep(_ratings(), config, _begin(_ratings(), config))
    other, _ = _sweep(_ratings(), config, _begin(_ratings(), config), "loops")
    assert _distance(after, other) < 1e-9, n_factors
"""


def _as_with_loops(env: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", _WITH_LOOPS], env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_loops() -> None:
    _as_with_loops({"MF_KERNELS": "loops"})


@pytest.mark.parametrize("cpu", NARROWER)
def test_other_instruction_sets(cpu: str) -> None:
    _as_with_loops(compiling_for(cpu) | {"MF_KERNELS": "vectors"})


@pytest.mark.parametrize("dtype", get_args(DType))
def test_tiles_compile(dtype: str) -> None:
    """Numba falls back on the loops without a word where a twin does not compile."""
    if normal.form(8) == vector.LOOPS:
        pytest.skip("MF_KERNELS asks for loops")
    form, size = normal.form(8), np.dtype(dtype).itemsize
    width, rows = normal.width(8, size, form), normal.n_rows(8, form)
    a, panel = (vector.aligned_empty((rows, width), dtype) for _ in range(2))
    a[:], panel[:] = 0, 1

    @numba.njit
    def probe(a: Any, panel: Any) -> None:
        normal.accumulate(a, a, panel, panel, 4, form)  # type: ignore[no-untyped-call]

    probe(a, panel)
    # Loops leave what is below the diagonal alone; a tile writes its whole vectors.
    assert a[3, 3] == 4 and a[tiles.rows_of(form) - 1, 0] == 4


def test_without_a_penalty_a_singular_row_gets_the_shortest_minimiser() -> None:
    """Users and items with fewer ratings than numbers in a row, and two equal partners."""
    rng = np.random.default_rng(5)
    users, items = rng.integers(0, 30, 120), rng.integers(0, 9, 120)
    train = Ratings.of_indices(users, items, rng.integers(1, 6, 120), m=31, n=10)
    for model in ("plain", "biased"):
        config = Config(solver="als", n_factors=6, reg=0.0, model=model, dtype="float64")
        before = _begin(train, config)
        before.Q[1] = before.Q[0]
        if before.c is not None:
            before.c[1] = before.c[0]
        after, _ = _sweep(train, config, before)
        theirs, _ = _sweep(train, config, before, "loops")
        assert _distance(after, theirs) < 1e-7
        # A row that neither a rating nor a penalty moves stays.
        np.testing.assert_array_equal(_side(after, "user")[30], _side(before, "user")[30])
        np.testing.assert_array_equal(_side(after, "item")[9], _side(before, "item")[9])
        # The user side's rows solve their equations, at the least length.
        for row in range(30):
            at = users == row
            y, left = before.Q[items[at]], train.values[at] - before.mu
            if before.c is not None:
                y, left = np.column_stack([y, np.ones(at.sum())]), left - before.c[items[at]]
            np.testing.assert_allclose(_side(after, "user")[row], np.linalg.pinv(y) @ left, atol=1e-7)


def test_parameters_past_all_numbers_are_a_divergence() -> None:
    train = Ratings.of_indices([0, 0, 1], [0, 1, 1], [1e30, -1e30, 1e30])
    result = fit(train, Config(solver="als", n_factors=2, reg=0.25))
    assert result.status == "diverged" and "Raise reg (now 0.25)" in result.message and "lr" not in result.message


def test_it_converges_by_tol() -> None:
    result = fit(_ratings(), Config(solver="als", n_factors=3, n_epochs=500, tol=1e-4, reg=0.2))
    assert result.status == "converged" and len(result.history) < 500


def test_it_reaches_the_noise_floor_of_planted_ratings() -> None:
    data = planted.PlantedConfig(n_users=600, n_items=300, n_ratings=60_000, n_factors=3)
    drawn = planted.planted(data)
    split = random_split(drawn.ratings, valid=0.1, seed=0)
    floor = drawn.noise_floor_of(split.train, split.valid)
    for cg_steps in (None, 3):
        config = Config(solver="als", n_factors=3, n_epochs=15, reg=0.02, cg_steps=cg_steps)
        rmse = fit(split.train, config, valid=split.valid).history[-1].valid_rmse
        assert rmse is not None and rmse < 1.05 * floor


def test_a_rating_takes_sixteen_bytes_in_float32_or_less() -> None:
    """In order the users' ids of items are the ratings' own; in none, two bytes tell this few rows apart."""
    mixed, config = _ratings(), Config(solver="als")
    ordered = mixed.take(np.argsort(mixed.users, kind="stable"))
    for train, own, each in ((ordered, {"item"}, 4), (mixed, {"user", "item"}, 2)):
        whole = engine_for(config, "numba").load(train, config)
        for name, side in (("user", whole.user), ("item", whole.item)):
            assert side.values.nbytes == 4 * len(train)
            assert side.others.itemsize == each if name in own else side.others is train.items
    many = Ratings.of_indices(mixed.users, mixed.items, mixed.values, m=70_000, n=60_000)
    whole = engine_for(config, "numba").load(many, config)
    assert (whole.user.others.dtype, whole.item.others.dtype) == (np.uint16, np.int32)


@pytest.mark.parametrize("cg_steps", [None, 3])
def test_the_order_of_the_ratings_makes_no_difference(cg_steps: int | None) -> None:
    mixed, config = _ratings(), Config(solver="als", n_factors=5, n_epochs=3, dtype="float64", cg_steps=cg_steps)
    one, two = (fit(train, config).params for train in (mixed, mixed.take(np.argsort(mixed.users, kind="stable"))))
    for name, theta in one.tensors().items():
        assert relative_difference(two.tensors()[name], theta) <= 1e-10


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"loss": "pseudo_huber"}, "loss is 'pseudo_huber' with solver 'als'"),
        ({"lr": 0.5}, r"lr is 0\.5 with solver 'als'"),
        ({"momentum": 0.5}, r"momentum is 0\.5 with solver 'als'"),
        ({"batch_size": 5}, "batch_size is 5 with solver 'als'"),
        ({"solver": "gd", "cg_steps": 3}, "cg_steps is 3 with solver 'gd'; leave it out, or take 'als'"),
        ({"cg_steps": 0}, "cg_steps is 0, but must be a whole number, 1 or larger"),
    ],
)
def test_what_als_does_not_take(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Config(**({"solver": "als"} | settings))


def test_where_als_does_not_run() -> None:
    with pytest.raises(ConfigError, match="backend is 'numpy' with solver 'als', which runs on 'numba' or 'loops'"):
        fit(_ratings(), Config(solver="als"), backend="numpy")
