"""L-BFGS: where it leads, how it ends, and that its thread ends with it."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

import numba
import numpy as np
import pytest

from mf_numpy import Config, Ratings, fit, gradients, model
from mf_numpy.batch import full_batch
from mf_numpy.engine import Backend, SelfEnding
from mf_numpy.errors import ConfigError
from mf_numpy.model import Params
from mf_numpy.objective import Evaluation, objective
from mf_numpy.result import EpochRecord
from mf_numpy.solvers import engine_for
from mf_numpy.solvers.lbfgs import Descent, LbfgsEngine
from mf_numpy.split import random_split
from mf_numpy.train import init

try:
    from threadpoolctl import threadpool_limits
except ModuleNotFoundError:
    # A bare CUDA machine has none; these tests are slower there.
    threadpool_limits = None


def _ratings(m: int = 40, n: int = 30, size: int = 600, seed: int = 0) -> Ratings:
    rng = np.random.default_rng(seed)
    # The first and last user and the last item have no rating; pairs repeat.
    users, items = rng.integers(1, m - 1, size), np.minimum(rng.geometric(0.1, size) - 1, n - 2)
    return Ratings.of_indices(users, items, rng.integers(1, 11, size), m=m, n=n)


def _config(**settings: Any) -> Config:
    given: dict[str, Any] = {"solver": "lbfgs", "n_factors": 3, "n_epochs": 3000, "dtype": "float64", "reg": 0.05}
    return Config(**given | settings)


def _norm_of_gradient(params: Params, train: Ratings, config: Config) -> float:
    slope = gradients.gradient(params, full_batch(train, config), config).gradient
    return float(np.sqrt(sum(float((g**2).sum()) for g in slope.values())))


@pytest.fixture(autouse=True)
def n_threads() -> Iterator[int]:
    """Passes here are tiny; and after each test no thread but those from before may be left."""
    before, others = numba.get_num_threads(), set(threading.enumerate())
    numba.set_num_threads(1)
    with threadpool_limits(1) if threadpool_limits else nullcontext():
        yield before
    numba.set_num_threads(before)
    assert set(threading.enumerate()) <= others


KINDS: dict[str, dict[str, Any]] = {
    "biased": {},
    "biased, total": {"penalty": "total", "reg": 0.002},
    "plain": {"model": "plain", "init": "mean"},
    "plain, total": {"model": "plain", "init": "mean", "penalty": "total", "reg": 0.002},
    "pseudo-Huber": {"loss": "pseudo_huber", "loss_scale": 0.7},
    "no penalty": {"reg": 0.0, "n_factors": 1},
}


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_it_ends_by_itself_where_the_gradient_is_0(settings: dict[str, Any], backend: Any) -> None:
    train, config = _ratings(), _config(**settings)
    result = fit(train, config, backend=backend)
    assert result.status == "converged" and len(result.history) < 3000
    assert "L-BFGS finds no step that lowers the objective further in float64 (SciPy: " in result.message
    assert _norm_of_gradient(model.start(train, config), train, config) > 1e-2
    assert _norm_of_gradient(result.params, train, config) < 2e-6
    assert all(b.objective <= a.objective for a, b in pairwise(result.history))


@pytest.mark.parametrize("n_factors", [1, 2, 3, 16, 17, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_length_of_row(n_factors: int, dtype: Any) -> None:
    train, config = _ratings(), _config(n_factors=n_factors, dtype=dtype, n_epochs=40)
    mine, theirs = fit(train, config), fit(train, config, backend="numpy")
    assert mine.params.P.dtype == np.dtype(dtype)
    rel = 1e-8 if dtype == "float64" else 1e-3
    assert mine.history[-1].objective == pytest.approx(theirs.history[-1].objective, rel=rel)
    assert mine.history[-1].objective < 0.75 * mine.history[0].objective


def test_backends_take_the_same_steps() -> None:
    few, config = _ratings(12, 9, 60), _config(n_epochs=8)
    ways = [fit(few, config, backend=backend) for backend in get_args(Backend)]
    for other in ways[1:]:
        for name, theta in ways[0].params.tensors().items():
            np.testing.assert_allclose(other.params.tensors()[name], theta, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("settings", [{}, {"loss": "pseudo_huber"}, {"dtype": "float32"}])
@pytest.mark.parametrize("backend", ["numba", "numpy", "loops"])
def test_the_objective_seen_is_that_before_the_iteration(settings: dict[str, Any], backend: Any) -> None:
    train, config = _ratings(12, 9, 60), _config(**settings)
    engine = LbfgsEngine(backend)
    whole, batch = engine.load(train, config), full_batch(train, config)
    state = engine.start(init(train, config), whole, config)
    rel = 1e-12 if config.dtype == "float64" else 1e-5
    for _ in range(6):
        before = engine.export(state).params
        state = engine.next_epoch(engine.step(state, whole, config))
        seen, squared_error = engine.seen(state)
        wrong = model.predict(before, batch.users, batch.items) - batch.values
        assert seen == pytest.approx(objective(before, batch, config), rel=rel)
        assert squared_error == pytest.approx(float(wrong @ wrong), rel=rel)
    engine.close(state)


@pytest.mark.parametrize("settings", [{}, {"penalty": "total", "reg": 0.002}])
def test_it_comes_at_least_as_low_as_gradient_descent(settings: dict[str, Any]) -> None:
    train, config = _ratings(), _config(**settings)
    gd = replace(config.with_solver("gd"), n_epochs=5000, lr=1.0, momentum=0.9, momentum_form="nesterov")
    slow, fast = fit(train, gd), fit(train, config)
    assert slow.status == "max_epochs" and len(fast.history) < 1000
    assert fast.history[-1].objective <= slow.history[-1].objective * (1 + 1e-12)


@pytest.mark.parametrize(
    "settings", [{"reg": 0.04, "penalty": "total"}, {"reg": 0.7}, {"reg": 0.05, "penalty": "total", "model": "plain"}]
)
def test_all_solvers_end_at_the_same_predictions(settings: dict[str, Any]) -> None:
    """Where the penalty leaves fewer factors than there are, all minima predict the same (Eq. 24)."""
    train = _ratings(20, 15, 400, seed=1)
    base = _config(n_factors=5, init_scale=0.5, **settings)
    nesterov: dict[str, Any] = {"n_epochs": 4000, "lr": 0.3, "momentum": 0.9, "momentum_form": "nesterov"}
    shrinking: dict[str, Any] = {"n_epochs": 1500, "lr": 0.005, "lr_decay": 1.0}
    shrinking["lr_schedule"] = (500, 0.1), (1000, 0.01)
    found = {
        "lbfgs": base,
        "als": replace(base.with_solver("als"), n_epochs=1000),
        "cd": replace(base.with_solver("cd"), n_epochs=1000),
        "gd": replace(base.with_solver("gd"), **nesterov),
        "sgd": replace(base.with_solver("sgd"), **shrinking),
    }
    params = {name: fit(train, config).params for name, config in found.items()}
    strengths = np.linalg.svd(params["lbfgs"].P @ params["lbfgs"].Q.T)[1]
    assert strengths[2] > 0.1 and strengths[4] < 1e-6
    predicted = {name: model.predict(theta, train.users, train.items) for name, theta in params.items()}
    # What is left of the noise of single steps is of the size of the last learning rate.
    for name, bound in (("als", 1e-5), ("cd", 1e-5), ("gd", 1e-5), ("sgd", 0.2)):
        assert np.abs(predicted[name] - predicted["lbfgs"]).max() < bound, name


def test_a_start_without_a_slope_has_converged() -> None:
    for dtype in ("float32", "float64"):
        result = fit(_ratings(), _config(model="plain", init_scale=0.0, dtype=dtype))
        assert result.status == "converged" and len(result.history) == 1
        assert not result.params.P.any() and not result.params.Q.any()


def test_float32_goes_as_far_as_it_can() -> None:
    result, exact = fit(_ratings(), _config(dtype="float32")), fit(_ratings(), _config())
    assert result.status == "converged" and "in float32" in result.message
    assert result.history[-1].objective == pytest.approx(exact.history[-1].objective, rel=1e-4)


def test_the_fits_own_tolerance_decides_first() -> None:
    result = fit(_ratings(), _config(tol=1e-6))
    assert result.status == "converged" and "the objective's relative change stayed below 1e-06" in result.message
    assert len(result.history) < len(fit(_ratings(), _config()).history)


def test_ctrl_c_keeps_the_last_whole_iteration() -> None:
    def interrupt(record: EpochRecord) -> None:
        if record.epoch == 5:
            raise KeyboardInterrupt

    result, straight = fit(_ratings(), _config(), callback=interrupt), fit(_ratings(), _config(n_epochs=5))
    assert result.status == "stopped" and "interrupted" in result.message and "epoch 5" in result.message
    for name, theta in straight.params.tensors().items():
        np.testing.assert_array_equal(result.params.tensors()[name], theta)


@pytest.mark.parametrize("at", [1, 2, 3, 7])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_ctrl_c_and_errors_within_an_evaluation(at: int, error: type[BaseException], monkeypatch: Any) -> None:
    calls, by_hand = [0], gradients.gradient

    def gradient(*given: Any) -> Evaluation:
        calls[0] += 1
        if calls[0] == at:
            raise error
        return by_hand(*given)

    monkeypatch.setattr(gradients, "gradient", gradient)
    if error is MemoryError:
        with pytest.raises(MemoryError):
            fit(_ratings(), _config(), backend="numpy")
        return
    result = fit(_ratings(), _config(), backend="numpy")
    assert result.status == "stopped"
    monkeypatch.undo()
    straight = fit(_ratings(), _config(n_epochs=len(result.history)), backend="numpy")
    np.testing.assert_array_equal(result.params.P, straight.params.P)


def test_an_error_of_the_callback_passes_and_a_wish_to_stop_is_granted() -> None:
    def fail(record: EpochRecord) -> None:
        raise RuntimeError("as asked")

    with pytest.raises(RuntimeError, match="as asked"):
        fit(_ratings(), _config(), callback=fail)
    result = fit(_ratings(), _config(), callback=lambda record: record.epoch == 4)
    assert result.status == "stopped" and len(result.history) == 4


def test_what_goes_wrong_in_the_thread_is_raised_by_the_fit() -> None:
    descent = Descent(np.zeros(2), 5)
    wrong = Evaluation(0.0, 0.0, {"P": np.array(["a", "b"])})
    with pytest.raises(TypeError, match="cast"):
        descent.advance(lambda x: wrong)
    descent.close()


def test_a_descent_that_never_began_can_be_closed() -> None:
    Descent(np.zeros(2), 5).close()


def test_patience() -> None:
    split = random_split(_ratings(size=900), valid=0.2, seed=0)
    result = fit(split.train, _config(n_factors=8, reg=0.001, patience=5), valid=split.valid)
    scores = [record.valid_rmse for record in result.history]
    best = int(np.argmin(np.array(scores, float)))
    assert result.status == "stopped" and len(scores) == best + 1 + 5
    assert result.score(split.valid).rmse == pytest.approx(scores[best], rel=1e-9)


def test_divergence() -> None:
    for dtype, scale in (("float64", 1e200), ("float64", 1e80), ("float32", 1e18)):
        result = fit(_ratings(), _config(init_scale=scale, dtype=dtype))
        assert result.status == "diverged" and len(result.history) <= 1
        assert all(np.isfinite(theta).all() for theta in result.params.tensors().values())


def test_a_resumed_fit_goes_on_from_where_it_was() -> None:
    first = fit(_ratings(), _config(n_epochs=6))
    resumed = fit(_ratings(), _config(), resume=first)
    assert resumed.history[:6] == first.history and resumed.status == "converged"
    assert resumed.history[6].objective < first.history[-1].objective
    assert _norm_of_gradient(resumed.params, _ratings(), _config()) < 2e-6


def test_the_memory_it_takes() -> None:
    train = _ratings(5000, 2000, 2000)
    one_copy = 8 * sum(theta.size for theta in model.start(train, _config(n_factors=30)).tensors().values())
    fit(train, _config(n_factors=30, n_epochs=1))
    for size in (1, 10):
        tracemalloc.start()
        fit(train, _config(n_factors=30, n_epochs=3, history_size=size))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < (2 * size + 30) * one_copy


def test_a_longer_memory_takes_fewer_iterations() -> None:
    lengths = [len(fit(_ratings(), _config(history_size=size, tol=1e-9)).history) for size in (1, 30)]
    assert lengths[1] < 0.9 * lengths[0]


def test_bits_are_those_of_one_thread(n_threads: int) -> None:
    if n_threads == 1:
        pytest.skip("Numba has one thread here")
    train, config = _ratings(300, 200, 20_000), _config(n_factors=9, dtype="float32", n_epochs=5)
    one = fit(train, config)
    numba.set_num_threads(n_threads)
    more = fit(train, config)
    for name, theta in one.params.tensors().items():
        np.testing.assert_array_equal(theta, more.params.tensors()[name])


def test_only_some_engines_end_by_themselves() -> None:
    assert isinstance(engine_for(_config(), "numba"), SelfEnding)
    assert not isinstance(engine_for(Config(), "numba"), SelfEnding)


def test_what_lbfgs_does_not_take() -> None:
    for settings, message in (
        ({"batch_size": 10}, "batch_size is 10 with solver 'lbfgs'"),
        ({"lr": 0.1}, r"lr is 0\.1 with solver 'lbfgs', which finds its steps itself"),
        ({"lr_decay": 0.9}, r"lr_decay is 0\.9 with solver 'lbfgs'"),
        ({"momentum": 0.5}, r"momentum is 0\.5 with solver 'lbfgs'"),
        ({"step_rule": "adagrad"}, "step_rule is 'adagrad' with solver 'lbfgs'"),
        ({"history_size": 0}, "history_size is 0, but must be a whole number, 1 or larger"),
        ({"inner_sweeps": 2}, "inner_sweeps is 2 with solver 'lbfgs'; leave it out, or take 'cd'"),
        ({"solver": "gd", "history_size": 5}, "history_size is 5 with solver 'gd'; leave it out, or take 'lbfgs'"),
    ):
        with pytest.raises(ConfigError, match=message):
            _config(**settings)
    assert _config(history_size=4).with_solver("gd").history_size == 10
