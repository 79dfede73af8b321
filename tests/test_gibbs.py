"""The Gibbs sampler: rows against dense algebra, threads, resuming, and what is predicted from its draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mf_numpy import Config, FileFormatError, Ratings, fit, gibbs, planted, store
from mf_numpy.check import relative_difference
from mf_numpy.engine import State
from mf_numpy.errors import ConfigError
from mf_numpy.kernels.gibbs import moments
from mf_numpy.model import Params, predict, start
from mf_numpy.posterior import Draws
from mf_numpy.ratings import Array
from mf_numpy.result import FitResult
from mf_numpy.solvers import engine_for
from mf_numpy.split import Split, random_split
from tests.same_fits import by_one_thread_and_by_all

MODELS: list[Any] = ["biased", "plain"]


def _ratings(m: int = 40, n: int = 30, size: int = 900, seed: int = 0) -> Ratings:
    rng = np.random.default_rng(seed)
    # Popularity falls steeply, past a panel of ratings; the last user and the last item have none; pairs repeat.
    users, items = rng.integers(0, m - 1, size), np.minimum(rng.geometric(0.15, size) - 1, n - 2)
    users[:300] = 0
    return Ratings.of_indices(users, items, rng.integers(1, 11, size), m=m, n=n)


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(_ratings(), valid=0.2, seed=1)


def _config(n_factors: int = 3, **settings: Any) -> Config:
    return Config(**{"solver": "gibbs", "n_factors": n_factors, "dtype": "float64", "burn_in": 2, **settings})


def _sweep(train: Ratings, config: Config, params: Params, backend: Any = "numba") -> Params:
    engine = engine_for(config, backend)
    whole = engine.load(train, config)
    return engine.export(engine.step(engine.start(State(params.copy()), whole, config), whole, config)).params


def _side(params: Params, side: str) -> Array:
    factors, bias = (params.P, params.b) if side == "user" else (params.Q, params.c)
    return factors if bias is None else np.column_stack([factors, bias])


def _distance(params: Params, other: Params) -> float:
    theirs = other.tensors()
    return max(relative_difference(x, theirs[k]) for k, x in params.tensors().items())


def _drawn(train: Ratings, config: Config, params: Params) -> Params:
    """One sweep, written down from Eq. 64 to 69 with dense matrices and inverses, in float64."""
    noise = gibbs.noise_of(1, (train.n_users, train.n_items), len(train), config)
    error, scale = predict(params, train.users, train.items) - train.values, np.std(train.values)
    alpha = noise.precision / (scale**2 + error @ error / 2)
    here = params.copy()
    for side, given in (("user", noise.user), ("item", noise.item)):
        rows, others = (train.users, train.items) if side == "user" else (train.items, train.users)
        own, y = _side(here, side), (here.Q if side == "user" else here.P)[others]
        bias, left = (here.c if side == "user" else here.b), train.values - here.mu
        units = np.full(config.n_factors, scale)
        if bias is not None:
            y, left = np.column_stack([y, np.ones(len(y))]), left - bias[others]
            units = np.append(units, scale**2)
        n, mean = len(own), own.mean(axis=0)
        spread = (
            np.diag(units) + n * np.cov(own.T, bias=True).reshape(len(units), -1) + n / (n + 1) * np.outer(mean, mean)
        )
        root = np.linalg.inv(np.linalg.cholesky(spread)).T @ given.wishart
        precision = root @ root.T
        center = n / (n + 1) * mean + np.linalg.inv(root).T @ given.mean / np.sqrt(n + 1)
        for row in range(n):
            at = rows == row
            A = precision + alpha * y[at].T @ y[at]
            cov = np.linalg.inv(A)
            theta = (
                cov @ (precision @ center + alpha * y[at].T @ left[at])
                + np.linalg.inv(np.linalg.cholesky(A)).T @ given.rows[row]
            )
            factors, biases = (here.P, here.b) if side == "user" else (here.Q, here.c)
            factors[row] = theta[: config.n_factors]
            if biases is not None:
                biases[row] = theta[-1]
    return here


def _begin(train: Ratings, config: Config) -> Params:
    """Rows of length about 1 and biases, so that no part of a row is small."""
    rng, params = np.random.default_rng(1), start(train, config)
    drawn = {
        k: rng.normal(size=x.shape) / np.sqrt(x.shape[-1] if x.ndim > 1 else 4) for k, x in params.tensors().items()
    }
    return params.with_tensors({k: x.astype(config.numpy_dtype) for k, x in drawn.items()})


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("n_factors", [1, 3, 16, 17, 33])
def test_a_sweep_is_the_conditionals_one_by_one(n_factors: int, model: Any) -> None:
    train, config = _ratings(), _config(n_factors, model=model)
    before = _begin(train, config)
    expected = _drawn(train, config, before)
    for backend in ("numba", "loops"):
        assert _distance(_sweep(train, config, before, backend), expected) < 1e-10


@pytest.mark.parametrize("model", MODELS)
def test_float32_is_as_near_as_its_rounding(model: Any) -> None:
    """The bound of `test_als`, with the rows' prior precision, which is far from 0 here, in the ridge's place."""
    train = _ratings()
    wide, narrow = _config(5, model=model), _config(5, model=model, dtype="float32")
    expected = _sweep(train, wide, _begin(train, wide))
    found = _sweep(train, narrow, _begin(train, narrow))
    assert found.P.dtype == np.float32
    assert _distance(found, expected) < 40 * (3 * 5 + 4 + 256) * float(np.finfo(np.float32).eps)


def test_chains_by_kernels_and_by_rows_are_one(split: Split) -> None:
    config = _config(n_epochs=50)
    by_kernels, by_rows = (fit(split.train, config, valid=split.valid, backend=b) for b in ("numba", "loops"))
    assert _distance(by_kernels.params, by_rows.params) < 1e-8
    for a, b in zip(by_kernels.history, by_rows.history, strict=True):
        assert (a.objective, a.train_rmse, a.valid_rmse) == pytest.approx((b.objective, b.train_rmse, b.valid_rmse))


def test_what_a_sweep_saw_is_where_it_began() -> None:
    train, config = _ratings(), _config()
    before = _begin(train, config)
    error = predict(before, train.users, train.items) - train.values
    for backend in ("numba", "loops"):
        engine = engine_for(config, backend)
        whole = engine.load(train, config)
        state = engine.step(engine.start(State(before.copy()), whole, config), whole, config)
        assert engine.seen(state) == pytest.approx((error @ error / len(train), error @ error))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_are_those_of_one_thread(dtype: Any) -> None:
    train, config = _ratings(300, 200, 20_000), _config(9, n_epochs=4, dtype=dtype)
    one, more = by_one_thread_and_by_all(train, config)
    assert _bits(one) == _bits(more)
    assert _bits(one) != _bits(fit(train, replace(config, seed=1)))


def _bits(result: FitResult) -> list[Any]:
    tensors = {**result.params.tensors(), **{f"last {k}": x for k, x in result.state.params.tensors().items()}}
    history = [(r.objective, r.train_rmse, r.valid_rmse) for r in result.history]
    return [history, {name: theta.tobytes() for name, theta in tensors.items()}]


def test_a_resumed_chain_is_the_straight_one(split: Split, tmp_path: Path) -> None:
    def run(n_epochs: int, resume: FitResult | None = None) -> FitResult:
        return fit(split.train, _config(n_epochs=n_epochs, dtype="float32"), valid=split.valid, resume=resume)

    straight = run(9)
    for half in (1, 5):
        store.save(run(half), tmp_path / "half.safetensors")
        assert _bits(run(9, store.load(tmp_path / "half.safetensors"))) == _bits(straight)


@pytest.mark.parametrize("model", MODELS)
def test_the_mean_over_draws_is_what_is_predicted_saved_and_scored(model: Any, split: Split, tmp_path: Path) -> None:
    result = fit(split.train, _config(n_epochs=9, model=model), valid=split.valid)
    draws = result.state.draws
    assert draws is not None and len(draws) == 7 and result.params.shape == (39, 28, 21)
    users, items = split.train.users, split.train.items
    mean = np.mean([predict(point, users, items) for point in draws.points], axis=0)
    np.testing.assert_allclose(predict(result.params, users, items), mean, rtol=1e-12)  # Eq. 70
    assert result.score(split.valid).rmse == pytest.approx(result.history[-1].valid_rmse, rel=1e-12)
    store.save(result, tmp_path / "model.safetensors")
    again = store.load(tmp_path / "model.safetensors")
    assert _bits(again) == _bits(result) and again.config == result.config
    assert again.state.draws is not None and again.state.draws.precisions == draws.precisions
    np.testing.assert_array_equal(again.recommend(7)["predicted"], result.recommend(7)["predicted"])


def test_draws_are_thinned_and_the_running_mean_is_not(split: Split) -> None:
    every, third = (fit(split.train, _config(n_epochs=11, thin=thin), valid=split.valid) for thin in (1, 3))
    assert [r.valid_rmse for r in every.history] == [r.valid_rmse for r in third.history]
    all_of_them, kept = every.state.draws, third.state.draws
    assert all_of_them is not None and kept is not None and len(kept) == 3
    assert [a.P.tobytes() for a in all_of_them.points[2::3]] == [a.P.tobytes() for a in kept.points]


def test_a_chain_that_ends_while_it_burns_in_predicts_by_its_last_draw(split: Split, tmp_path: Path) -> None:
    result = fit(split.train, _config(n_epochs=2), valid=split.valid)
    assert result.params is result.state.params and not result.state.draws
    assert result.history[-1].valid_rmse == pytest.approx(result.score(split.valid).rmse)
    store.save(result, tmp_path / "model.safetensors")
    assert _bits(store.load(tmp_path / "model.safetensors")) == _bits(result)


def test_a_file_of_draws_that_do_not_fit_is_damaged(split: Split, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    result = fit(split.train, _config(n_epochs=4))
    tensors, metadata = store._pack(result)
    for name, wrong in (("draws.P", np.zeros((40, 3, 3))), ("draws.precision", np.zeros((0,)))):
        save_file(tensors | {name: wrong}, tmp_path / "model.safetensors", metadata)
        with pytest.raises(FileFormatError, match=f"damaged.*{name}"):
            store.load(tmp_path / "model.safetensors")


def test_moments_are_sums_over_rows() -> None:
    rng = np.random.default_rng(0)
    table, bias = rng.normal(size=(9, 4)).astype(np.float32), rng.normal(size=9).astype(np.float32)
    for biased, theta in ((True, np.column_stack([table[:, :3], bias])), (False, table[:, :3])):
        total, square = moments(table, bias, biased, 3)
        wide = theta.astype(np.float64)
        np.testing.assert_allclose(total, wide.sum(axis=0), rtol=1e-13)
        np.testing.assert_allclose(square, wide.T @ wide, rtol=1e-13)


def test_it_predicts_better_than_als_and_knows_the_noise() -> None:
    data = planted.PlantedConfig(n_users=600, n_items=300, n_ratings=18_000, n_factors=3)
    drawn = planted.planted(data)
    sides = random_split(drawn.ratings, valid=0.1, seed=0)
    floor = drawn.noise_floor_of(sides.train, sides.valid)

    def rmse(**settings: Any) -> float:
        found = fit(sides.train, Config(n_factors=6, **settings), valid=sides.valid).history[-1].valid_rmse
        assert found is not None
        return found

    mean_of_draws = rmse(solver="gibbs", n_epochs=100)
    assert mean_of_draws < 1.15 * floor
    assert all(rmse(solver="als", n_epochs=10, reg=reg) > mean_of_draws for reg in (0.1, 0.2, 0.3))


def test_parameters_past_all_numbers_are_a_divergence() -> None:
    train = Ratings.of_indices([1, 0, 0], [1, 0, 1], [1e30, 1e30, -1e30])
    result = fit(train, Config(solver="gibbs", n_factors=2))
    assert result.status == "diverged" and "ratings out of all proportion" in result.message


@pytest.mark.parametrize("values", [[3.0, 3.0, 3.0], [5.0, 1.0, 2.0]])
def test_few_ratings_and_equal_ones(values: list[float]) -> None:
    train = Ratings.of_indices([1, 0, 0], [1, 0, 1], values)
    result = fit(train, Config(solver="gibbs", n_factors=40, n_epochs=30))
    assert result.status == "max_epochs" and all(np.isfinite(x).all() for x in result.params.tensors().values())


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"loss": "pseudo_huber"}, "loss is 'pseudo_huber' with solver 'gibbs'"),
        ({"lr": 0.5}, r"lr is 0\.5 with solver 'gibbs'"),
        ({"reg": 0.1}, r"reg is 0\.1 with solver 'gibbs', which draws its priors"),
        ({"penalty": "total"}, "penalty is 'total' with solver 'gibbs'"),
        ({"patience": 3}, "patience is 3 with solver 'gibbs'"),
        ({"min_delta": 0.1}, r"min_delta is 0\.1 with solver 'gibbs'"),
        ({"tol": 1e-3}, r"tol is 0\.001 with solver 'gibbs'"),
        ({"burn_in": -1}, "burn_in is -1, but must be a whole number, 0 or larger"),
        ({"thin": 0}, "thin is 0, but must be a whole number, 1 or larger"),
        ({"solver": "als", "burn_in": 3}, "burn_in is 3 with solver 'als'; leave it out, or take 'gibbs'"),
        ({"solver": "gd", "thin": 3}, "thin is 3 with solver 'gd'; leave it out, or take 'gibbs'"),
    ],
)
def test_what_gibbs_does_not_take(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Config(**({"solver": "gibbs"} | settings))


def test_a_config_of_another_solver_leaves_its_penalty_behind() -> None:
    before = Config(reg=0.2, penalty="total", patience=3, n_factors=5)
    there = before.with_solver("gibbs")
    assert there == Config(solver="gibbs", n_factors=5)
    assert there.with_solver("als") == Config(solver="als", n_factors=5)


def test_where_gibbs_does_not_run() -> None:
    with pytest.raises(ConfigError, match="backend is 'numpy' with solver 'gibbs', which runs on 'numba' or 'loops'"):
        fit(_ratings(), Config(solver="gibbs"), backend="numpy")


def test_a_chain_has_its_own_file_of_draws() -> None:
    first = Params(np.ones((2, 1)), np.ones((3, 1)))
    one = Draws().with_draw(first, 2.0)
    two = one.with_draw(replace(first, P=3 * first.P), 4.0)
    assert (len(one), len(two)) == (1, 2) and two.mean().P.tolist() == [[1, 3], [1, 3]]
    assert {k: x.shape for k, x in two.tensors().items()} == {"P": (2, 2, 1), "Q": (3, 2, 1), "precision": (2,)}
