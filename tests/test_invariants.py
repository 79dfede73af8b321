"""Properties that hold for any ratings: duplicates add, names do not matter, the gauge, chunks, threads."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mf_numpy
from mf_numpy import Config, Ratings, Split, gradients, kernels, model, optim
from mf_numpy.batch import Batch, full_batch, mini_batches
from mf_numpy.metrics import rmse, score_predictions
from mf_numpy.model import Params
from mf_numpy.objective import objective

CONFIG = Config(n_factors=3, reg=0.05, dtype="float64", init_scale=0.7)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Ratings, Params]:
    m, n, size = draw(st.integers(1, 8)), draw(st.integers(1, 8)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ratings = Ratings.of_indices(rng.integers(0, m, size), rng.integers(0, n, size), rng.uniform(1, 10, size), m=m, n=n)
    params = model.start(ratings, CONFIG)
    return ratings, replace(params, b=rng.normal(size=m), c=rng.normal(size=n))


@settings(max_examples=40, deadline=None)
@given(problems())
def test_duplicates_add_up(problem: tuple[Ratings, Params]) -> None:
    """Every rating twice, with N doubled, is the same objective and the same gradient."""
    ratings, params = problem
    twice = Ratings.of_indices(
        np.tile(ratings.users, 2),
        np.tile(ratings.items, 2),
        np.tile(ratings.values, 2),
        m=ratings.n_users,
        n=ratings.n_items,
    )
    for module in (gradients, kernels):
        once = module.gradient(params, full_batch(ratings, CONFIG), CONFIG)
        both = module.gradient(params, full_batch(twice, CONFIG), CONFIG)
        assert both.objective == pytest.approx(once.objective, rel=1e-12)
        for name, g in once.gradient.items():
            np.testing.assert_allclose(both.gradient[name], g, rtol=1e-11, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(0, 1000))
def test_permuting_users_permutes_their_gradient_and_no_other(problem: tuple[Ratings, Params], seed: int) -> None:
    ratings, params = problem
    assert params.b is not None
    order = np.random.default_rng(seed).permutation(ratings.n_users)
    place = np.argsort(order)
    renamed = replace(ratings, users=place[ratings.users])
    moved = replace(params, P=params.P[order], b=params.b[order])
    for module in (gradients, kernels):
        one = module.gradient(params, full_batch(ratings, CONFIG), CONFIG).gradient
        one = {name: g.copy() for name, g in one.items()}
        two = module.gradient(moved, full_batch(renamed, CONFIG), CONFIG).gradient
        for name in one:
            np.testing.assert_allclose(
                two[name], one[name][order] if name in "Pb" else one[name], rtol=1e-11, atol=1e-12
            )


@settings(max_examples=40, deadline=None)
@given(problems())
def test_gauge_identity_without_penalty(problem: tuple[Ratings, Params]) -> None:
    """J depends on P Qᵀ alone at λ = 0, so Pᵀ ∇P = (Qᵀ ∇Q)ᵀ."""
    ratings, params = problem
    g = gradients.gradient(params, full_batch(ratings, CONFIG), replace(CONFIG, reg=0.0)).gradient
    np.testing.assert_allclose(params.P.T @ g["P"], g["Q"].T @ params.Q, rtol=1e-10, atol=1e-11)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 500), st.integers(1, 60))
def test_rmse_whole_is_the_root_of_the_mean_square_over_chunks_of_any_size(size: int, chunk: int) -> None:
    error = np.random.default_rng(size).normal(size=size)
    parts = [error[k : k + chunk] for k in range(0, size, chunk)]
    pooled = np.sqrt(sum(len(p) * rmse(p) ** 2 for p in parts) / size)
    assert rmse(error) == pytest.approx(pooled, rel=1e-12)


def test_predictions_in_chunks_are_the_predictions_whole(monkeypatch: pytest.MonkeyPatch, small: Split) -> None:
    params = model.start(small.train, CONFIG)
    whole = model.predict(params, small.train.users, small.train.items)
    monkeypatch.setattr(model, "_CELLS_AT_ONCE", 7)
    np.testing.assert_array_equal(model.predict(params, small.train.users, small.train.items), whole)
    np.testing.assert_allclose(kernels.predict(params, small.train.users, small.train.items), whole, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 70), st.integers(1, 5))
def test_mini_batches_hold_every_rating_once(size: int, batch_size: int, epoch: int) -> None:
    whole = Batch(np.arange(size), np.zeros(size, int), np.arange(size, dtype=float), (size, 1), np.arange(size + 1))
    parts = list(mini_batches(whole, epoch, Config(batch_size=batch_size)))
    assert sorted(np.concatenate([p.values for p in parts])) == list(range(size))
    assert all(len(p) == batch_size for p in parts[:-1]) or batch_size >= size


def test_each_epoch_has_its_own_permutation_and_the_seed_decides() -> None:
    whole = Batch(np.arange(99), np.zeros(99, int), np.arange(99.0), (99, 1))

    def first(epoch: int, seed: int) -> list[float]:
        return list(next(mini_batches(whole, epoch, Config(batch_size=20, seed=seed))).values)

    assert first(1, 0) == first(1, 0)
    assert first(1, 0) != first(2, 0)
    assert first(1, 0) != first(1, 1)


@pytest.mark.parametrize("batch_size", [None, 400])
def test_numba_gives_the_same_bits_whatever_the_thread_count(small: Split, batch_size: int | None) -> None:
    config = Config(n_factors=5, n_epochs=6, lr=2.0, batch_size=batch_size)
    many = numba.get_num_threads()
    if many < 2:
        pytest.skip("this machine has one thread only, so there is nothing to compare")
    results = []
    try:
        for threads in (1, many):
            numba.set_num_threads(threads)
            results.append(mf_numpy.fit(small.train, config))
    finally:
        numba.set_num_threads(many)
    for name, theta in results[0].params.tensors().items():
        assert np.array_equal(theta, results[1].params.tensors()[name])
    assert [r.objective for r in results[0].history] == [r.objective for r in results[1].history]


def test_cold_pairs_are_counted_and_predicted_by_what_is_known() -> None:
    params = Params(np.ones((2, 1)), np.ones((2, 1)), np.array([0.5, 0.0]), np.array([0.0, -1.0]), mu=3.0)
    holdout = mf_numpy.Holdout(np.array([0, 0, -1, -1]), np.array([1, -1, 1, -1]), np.array([3.5, 3.5, 2.0, 2.0]))
    scores = mf_numpy.metrics.score(params, holdout, mean=3.0)
    assert (scores.n_scored, scores.n_cold) == (1, 3)
    assert scores.rmse == 0.0
    assert scores.rmse_all == pytest.approx(0.5)  # errors 0, 0, 0 and 1
    assert np.isnan(score_predictions(np.array([1.0]), np.array([1.0]), np.array([False])).rmse)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_objective_is_a_plain_float_that_adds_up_in_float64(dtype: str) -> None:
    # 20,000 squares that float32 holds exactly and whose sum it does not.
    values = np.random.default_rng(3).integers(1, 400, 20_000) / 4
    ratings = Ratings.of_indices(np.arange(20_000) % 50, np.arange(20_000) % 40, values, m=50, n=40)
    config = Config(model="plain", n_factors=1, dtype=dtype)  # type: ignore[arg-type]
    nothing = Params(np.zeros((50, 1), dtype), np.zeros((40, 1), dtype))
    j = objective(nothing, full_batch(ratings, config), config)
    assert type(j) is float
    assert j == pytest.approx(math.fsum(value**2 for value in values.tolist()) / 20_000, rel=1e-15)


@pytest.mark.parametrize(("beta", "second"), [(0.25, 3.5), (0.3, 3.4), (0.5, 3.0)])
def test_the_average_keeps_one_minus_beta_of_a_gradient_and_owns_its_first(beta: float, second: float) -> None:
    config = Config(momentum=beta, momentum_form="ema", dtype="float64")
    g = np.array([2.0])
    first = optim.velocity(None, g, config)
    assert not np.shares_memory(first, g)
    np.testing.assert_allclose(optim.velocity(first, np.array([4.0]), config), [second], rtol=1e-15)


_FITS = """
import hashlib
import numpy as np
from mf_numpy import Config, Ratings, fit

rng = np.random.default_rng(0)
users, items, values = np.sort(rng.integers(0, 30, 900)), rng.integers(0, 20, 900), rng.integers(1, 6, 900)
for settings in ({"batch_size": 200, "lr": 1.0}, {"solver": "cd"}):
    config = Config(n_factors=16, n_epochs=3, dtype="float64", **settings)
    found = fit(Ratings.of_indices(users, items, values, m=30, n=20), config)
    print(hashlib.sha256(b"".join(theta.tobytes() for theta in found.params.tensors().values())).hexdigest())
"""


def test_a_kernel_from_disk_gives_the_bits_of_the_process_that_compiled_it(tmp_path: Path) -> None:
    variables = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", _FITS], env=variables, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1] and len(runs[0].split()) == 2
