"""Coordinate descent: each step against the minimiser it should be, kernels against plain Python, where it leads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import pytest

from mf_numpy import Config, Ratings, curvature, fit, gradients, model
from mf_numpy.batch import Batch, full_batch
from mf_numpy.engine import Backend
from mf_numpy.errors import ConfigError
from mf_numpy.model import Params
from mf_numpy.objective import objective, penalty_weights
from mf_numpy.solvers import engine_for
from mf_numpy.solvers.cd import CHUNKS, CdEngine
from mf_numpy.train import init


def _ratings(m: int = 40, n: int = 30, size: int = 600, seed: int = 0) -> Ratings:
    rng = np.random.default_rng(seed)
    # The first and last user and the last item have no rating; pairs repeat.
    users, items = rng.integers(1, m - 1, size), np.minimum(rng.geometric(0.1, size) - 1, n - 2)
    return Ratings.of_indices(users, items, rng.integers(1, 11, size), m=m, n=n)


@pytest.fixture(autouse=True)
def n_threads() -> Iterator[int]:
    """Passes here are tiny: on a busy machine, waiting for a second thread would take longer than they do."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield before
    numba.set_num_threads(before)


KINDS: dict[str, dict[str, Any]] = {
    "biased": {},
    "biased, total": {"penalty": "total", "reg": 0.001},
    "plain": {"model": "plain", "init": "mean"},
    "plain, total, 3 sweeps": {"model": "plain", "penalty": "total", "reg": 0.001, "inner_sweeps": 3},
    "no penalty, 2 sweeps": {"reg": 0.0, "inner_sweeps": 2},
}


def _config(**settings: Any) -> Config:
    given: dict[str, Any] = {"solver": "cd", "n_factors": 3, "n_epochs": 3, "dtype": "float64"}
    return Config(**given | settings)


def _norm_of_gradient(params: Params, train: Ratings, config: Config) -> float:
    slope = gradients.gradient(params, full_batch(train, config), config).gradient
    return float(np.sqrt(sum(float((g**2).sum()) for g in slope.values())))


def _minimise(params: Params, name: str, at: tuple[int, ...], batch: Batch, config: Config) -> None:
    """Move one number to where J, a parabola in it alone, is smallest, found from r̂ with it at 0 and at 1."""
    theta = params.tensors()[name]
    mine = (batch.users if name in "Pb" else batch.items) == at[0]
    weight = penalty_weights(batch, config)[0 if name in "Pb" else 1][at[0]]
    before, pairs = theta[at], (batch.users[mine], batch.items[mine])
    theta[at] = 0.0
    without = model.predict(params, *pairs)
    theta[at] = 1.0
    slope = model.predict(params, *pairs) - without
    lower = slope @ slope + len(batch) * config.reg * weight
    theta[at] = slope @ (batch.values[mine] - without) / lower if lower else before


def _by_definition(params: Params, batch: Batch, config: Config, watch: bool = False) -> None:
    """An epoch, one number after the other, each from predictions made afresh."""
    m, n, n_factors = params.shape
    order: list[tuple[str, tuple[int, ...]]] = []
    if params.b is not None:
        order += [("b", (u,)) for u in range(m)] + [("c", (i,)) for i in range(n)]
    for f in range(n_factors):
        order += ([("P", (u, f)) for u in range(m)] + [("Q", (i, f)) for i in range(n)]) * config.inner_sweeps
    for name, at in order:
        _minimise(params, name, at, batch, config)
        if watch:
            theta = params.tensors()[name]
            least, here = objective(params, batch, config), theta[at]
            for away in (-1.0, -1e-3, 1e-3, 1.0):
                theta[at] = here + away
                assert objective(params, batch, config) >= least - 1e-14
            theta[at] = here


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_each_step_ends_at_the_minimum_along_its_number(settings: dict[str, Any]) -> None:
    train, config = _ratings(12, 9, 50), _config(n_epochs=2, **settings)
    batch, params = full_batch(train, config), model.start(train, config)
    for epoch in range(2):
        _by_definition(params, batch, config, watch=epoch == 0)
    mine = fit(train, config).params
    for name, theta in params.tensors().items():
        np.testing.assert_allclose(mine.tensors()[name], theta, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("penalty", ["total", "per_rating"])
def test_with_one_factor_a_user_is_the_minimiser_of_its_row(penalty: Any) -> None:
    train, config = _ratings(), _config(model="plain", n_factors=1, n_epochs=1, penalty=penalty, reg=0.002)
    batch, params = full_batch(train, config), model.start(train, config)
    moved = fit(train, config).params
    for u in range(train.n_users):
        np.testing.assert_allclose(moved.P[u], curvature.row_minimiser(params, "user", u, batch, config), rtol=1e-10)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("kernels", ["vectors", "loops"])
def test_the_kernels_are_plain_python(settings: dict[str, Any], kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MF_KERNELS", kernels)
    mine, theirs = fit(_ratings(), _config(**settings)), fit(_ratings(), _config(**settings), backend="loops")
    for name, theta in mine.params.tensors().items():
        np.testing.assert_allclose(theta, theirs.params.tensors()[name], rtol=1e-10, atol=1e-10)
    for a, b in zip(mine.history, theirs.history, strict=True):
        assert a.objective == pytest.approx(b.objective, rel=1e-11)
        assert a.train_rmse == pytest.approx(b.train_rmse, rel=1e-11)


@pytest.mark.parametrize("n_factors", [1, 2, 3, 16, 17, 64])
def test_every_length_of_row(n_factors: int) -> None:
    few = _ratings(12, 9, 40)
    wide = _config(n_factors=n_factors, n_epochs=2)
    mine, theirs = fit(few, wide), fit(few, wide, backend="loops")
    short = fit(few, _config(n_factors=n_factors, n_epochs=2, dtype="float32"))
    for name, theta in theirs.params.tensors().items():
        np.testing.assert_allclose(mine.params.tensors()[name], theta, rtol=0, atol=1e-10)
        assert short.params.tensors()[name].dtype == np.float32
    assert short.history[-1].objective == pytest.approx(theirs.history[-1].objective, rel=1e-4)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("backend", ["numba", "loops"])
def test_the_objective_seen_is_that_before_the_epoch(settings: dict[str, Any], backend: Any) -> None:
    train, config = _ratings(), _config(**settings)
    engine = engine_for(config, backend)
    whole = engine.load(train, config)
    state = engine.start(init(train, config), whole, config)
    for _ in range(3):
        before, batch = engine.export(state).params, full_batch(train, config)
        state = engine.next_epoch(engine.step(state, whole, config))
        seen, squared_error = engine.seen(state)
        wrong = model.predict(before, batch.users, batch.items) - batch.values
        assert seen == pytest.approx(objective(before, batch, config), rel=1e-12)
        assert squared_error == pytest.approx(wrong @ wrong, rel=1e-12)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_the_objective_never_rises(settings: dict[str, Any]) -> None:
    for dtype, slack in (("float64", 1e-13), ("float32", 1e-6)):
        history = fit(_ratings(), _config(**settings | {"n_epochs": 100, "dtype": dtype})).history
        assert all(b.objective <= a.objective * (1 + slack) for a, b in pairwise(history))


@pytest.mark.parametrize(
    "settings",
    [
        {"reg": 0.05},
        {"penalty": "total", "reg": 0.002},
        {"model": "plain", "init": "mean", "reg": 0.05},
        {"model": "plain", "init": "mean", "penalty": "total", "reg": 0.002, "inner_sweeps": 2},
    ],
)
def test_it_comes_to_rest_where_the_gradient_is_0(settings: dict[str, Any]) -> None:
    train = _ratings(20, 15, 250)
    config = _config(n_epochs=2500, **settings)
    start, end = model.start(train, config), fit(train, config).params
    assert _norm_of_gradient(start, train, config) > 1e-2
    assert _norm_of_gradient(end, train, config) < 1e-10


def test_bits_are_those_of_one_thread(n_threads: int) -> None:
    if n_threads == 1:
        pytest.skip("Numba has one thread here")
    train, config = _ratings(300, 200, 20_000), _config(n_factors=9, dtype="float32", inner_sweeps=2)
    one = fit(train, config)
    numba.set_num_threads(n_threads)
    more = fit(train, config)
    assert [r.objective for r in one.history] == [r.objective for r in more.history]
    for name, theta in one.params.tensors().items():
        np.testing.assert_array_equal(theta, more.params.tensors()[name])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_resumed_fit_is_the_straight_one(dtype: Any) -> None:
    config = _config(n_epochs=6, n_factors=5, dtype=dtype)
    straight = fit(_ratings(), config)
    resumed = fit(_ratings(), config, resume=fit(_ratings(), _config(n_epochs=2, n_factors=5, dtype=dtype)))
    assert [r.objective for r in straight.history] == [r.objective for r in resumed.history]
    for name, theta in straight.params.tensors().items():
        np.testing.assert_array_equal(theta, resumed.params.tensors()[name])


def test_rows_without_ratings() -> None:
    kept, start = fit(_ratings(), _config()).params, model.start(_ratings(), _config())
    np.testing.assert_array_equal(kept.P[[0, -1]], start.P[[0, -1]])
    np.testing.assert_array_equal(kept.Q[-1], start.Q[-1])
    drawn = fit(_ratings(), _config(penalty="total", n_epochs=1)).params
    assert not drawn.P[[0, -1]].any() and not drawn.Q[-1].any() and drawn.P[1:-1].all()


def test_partners_of_0_and_no_penalty_leave_a_number_as_it_is() -> None:
    config = _config(init_scale=0.0, reg=0.0)
    backends: tuple[Backend, ...] = ("numba", "loops")
    for backend in backends:
        result = fit(_ratings(), config, backend=backend)
        assert not result.params.P.any() and not result.params.Q.any()
        assert result.params.b is not None and np.isfinite(result.params.b).all()


def test_chunks_hold_each_row_once() -> None:
    for train in (_ratings(), _ratings(3000, 20, 5000), Ratings.of_indices([5], [0], [1.0], m=9)):
        whole = CdEngine("numba").load(train, _config())
        for side, rows in ((whole.users, train.n_users), (whole.items, train.n_items)):
            assert side.bounds[0] == 0 and side.bounds[-1] == rows and len(side.bounds) == CHUNKS + 1
            assert (np.diff(side.bounds) >= 0).all()


def test_a_rating_takes_fourteen_bytes_in_float32_and_less_with_few_users() -> None:
    mixed = _ratings(70_000, 20, 5000)
    for train in (mixed, mixed.take(np.argsort(mixed.users, kind="stable")), _ratings(60_000, 20, 5000)):
        whole = CdEngine("numba").load(train, _config(dtype="float32"))
        sides = (whole.users, whole.items)
        assert [side.e.itemsize for side in sides] == [4, 4] and whole.values is train.values
        assert [side.others.itemsize for side in sides] == [2, 4 if train.n_users == 70_000 else 2]
        in_order = bool((np.diff(train.users) >= 0).all())
        assert (whole.to_users is None) == in_order and whole.to_items.rows is whole.users.others
        by_user = whole.by_user(np.empty(len(train), np.float32))
        assert by_user.tolist() == train.values[np.argsort(train.users, kind="stable")].tolist()


def test_what_cd_does_not_take() -> None:
    for settings, message in (
        ({"batch_size": 10}, "batch_size is 10 with solver 'cd'"),
        ({"lr": 0.1}, r"lr is 0\.1 with solver 'cd', which finds its steps itself"),
        ({"momentum": 0.5}, r"momentum is 0\.5 with solver 'cd'"),
        ({"loss": "pseudo_huber"}, "loss is 'pseudo_huber' with solver 'cd'"),
        ({"step_rule": "adagrad"}, "step_rule is 'adagrad' with solver 'cd'"),
        ({"inner_sweeps": 0}, "inner_sweeps is 0, but must be a whole number, 1 or larger"),
        ({"inner_sweeps": 1.5}, r"inner_sweeps is 1\.5, but"),
        ({"history_size": 5}, "history_size is 5 with solver 'cd'; leave it out, or take 'lbfgs'"),
        ({"solver": "gd", "inner_sweeps": 2}, "inner_sweeps is 2 with solver 'gd'; leave it out, or take 'cd'"),
    ):
        with pytest.raises(ConfigError, match=message):
            _config(**settings)
    with pytest.raises(ConfigError, match="backend is 'numpy' with solver 'cd', which runs on 'numba' or 'loops'"):
        fit(_ratings(), _config(), backend="numpy")
    assert _config(inner_sweeps=4).with_solver("gd").inner_sweeps == 1


def test_numbers_past_all_bounds_are_divergence() -> None:
    result = fit(_ratings(), _config(init_scale=1e200, dtype="float64"))
    assert result.status == "diverged" and not result.history
