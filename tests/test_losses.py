"""Losses of clicks and counts: one model by every solver and both packages, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mf_numpy
import mf_torch
from mf_numpy import Config, Ratings, Split, gradients, kernels, losses, model
from mf_numpy.batch import full_batch
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.list_losses import sigmoid
from mf_numpy.split import Holdout
from tests.same_fits import assert_same_way

CLICKS, COUNTS = "logistic", "poisson"
SOLVERS: dict[str, dict[str, Any]] = {
    "momentum": {"lr": 0.5, "momentum_form": "nesterov"},
    "batches": {"lr": 0.3, "batch_size": 50},
    "adam": {"step_rule": "adam"},
    "adagrad": {"step_rule": "adagrad", "lr": 0.1},
    "sgd": {"solver": "sgd"},
    "sgd adagrad": {"solver": "sgd", "step_rule": "adagrad"},
    "lbfgs": {"solver": "lbfgs", "history_size": 4},
}


def _table(loss: str, size: int = 150) -> Ratings:
    """Clicks or counts that two factors have a part in, of 12 users and 9 items; some pairs repeat."""
    rng = np.random.default_rng(5)
    users, items = rng.integers(0, 12, size), rng.integers(0, 9, size)
    p, q, c = rng.normal(size=(12, 2)), rng.normal(size=(9, 2)), rng.normal(size=9)
    told = (p[users] * q[items]).sum(axis=1) + c[items] - 0.5
    drawn = rng.random(size) < sigmoid(told) if loss == CLICKS else rng.poisson(np.exp(0.5 * told))
    return Ratings.of_indices(users, items, drawn, m=12, n=9)


def _config(loss: Any, **settings: Any) -> Config:
    given: dict[str, Any] = {"n_factors": 3, "reg": 0.02, "dtype": "float64", "n_epochs": 6, "init_scale": 0.3}
    return Config(loss=loss, **given | settings)


@pytest.mark.parametrize("rule", SOLVERS)
@pytest.mark.parametrize("loss", [CLICKS, COUNTS])
def test_every_solver_goes_one_way_by_every_backend(loss: str, rule: str) -> None:
    train, config = _table(loss), _config(loss, **SOLVERS[rule])
    gold = mf_numpy.fit(train, config, backend="loops")
    found = [mf_numpy.fit(train, config, backend="numba")]
    if config.solver != "sgd":
        found.append(mf_numpy.fit(train, config, backend="numpy"))
    if config.solver == "gd":
        found.append(mf_torch.fit(train, config))
    assert gold.history[-1].objective < gold.history[0].objective
    assert_same_way(found, gold)


@pytest.mark.parametrize("kind", ["plain", "biased"])
@pytest.mark.parametrize("loss", [CLICKS, COUNTS])
def test_a_long_fit_ends_where_the_gradient_is_zero(loss: str, kind: str) -> None:
    train, config = _table(loss), _config(loss, model=kind, solver="lbfgs", n_epochs=400)
    found = mf_numpy.fit(train, config)
    left = gradients.gradient(found.params, full_batch(train, config), config).gradient
    assert max(abs(g).max() for g in left.values()) < 1e-7
    expected = losses.mean_of(model.predict(found.params, train.users, train.items), config)
    assert found.history[-1].train_rmse == pytest.approx(float(np.sqrt(((expected - train.values) ** 2).mean())))


@pytest.mark.parametrize("loss", [CLICKS, COUNTS])
def test_predictions_are_what_is_expected_and_the_order_is_that_of_scores(loss: str) -> None:
    train, config = _table(loss), _config(loss, n_epochs=60, solver="lbfgs")
    found = mf_numpy.fit(train, config)
    scores = model.predict(found.params, train.users, train.items)
    expected = 1 / (1 + np.exp(-scores)) if loss == CLICKS else np.exp(scores)
    assert found.predict(train.users, train.items).values == pytest.approx(expected)
    # A stranger and an unknown item are expected to have the mean.
    assert found.predict([99], [99]).values == pytest.approx(train.mean)
    pairs = Holdout(train.users, train.items, train.values)
    assert found.score(pairs).rmse == pytest.approx(float(np.sqrt(((expected - train.values) ** 2).mean())))
    best = found.recommend(3, n=4, with_seen=True)
    assert best["predicted"].tolist() == pytest.approx(sorted(found.predict([3] * 9, range(9)).values)[::-1][:4])


@pytest.mark.parametrize("loss", [CLICKS, COUNTS])
def test_a_newcomer_with_a_users_ratings_gets_that_users_row(loss: str) -> None:
    train, config = _table(loss), _config(loss, penalty="total", solver="lbfgs", n_epochs=400)
    once = train.take(np.unique(train.users * 9 + train.items, return_index=True)[1])
    found = mf_numpy.fit(once, config)
    own = once.users == 4
    newcomer = found.fold_in_user(dict(zip(once.items[own].tolist(), once.values[own].tolist(), strict=True)))
    known = found.predict([4] * 9, range(9)).values
    # She comes beside the others, so that λ is spread over more ratings.
    assert newcomer.predict(range(9)) == pytest.approx(known, rel=0.1)
    assert newcomer.recommend(9)["predicted"].is_monotonic_decreasing
    with pytest.raises(DataError, match="is -1, but loss"):
        found.fold_in_user({0: -1.0})


@pytest.mark.parametrize("far", [-800.0, 800.0])
def test_what_is_certain_costs_nothing_and_its_opposite_no_more_than_it_must(far: float) -> None:
    config = _config(CLICKS, model="plain", n_factors=3, reg=0.0)
    params = model.Params(np.full((1, 3), far / 3), np.ones((2, 3)))
    batch = full_batch(Ratings.of_indices([0, 0], [0, 1], [0.0, 1.0]), config)
    for module in (gradients, kernels, mf_numpy.loops):
        seen = module.gradient(params, batch, config)
        assert seen.objective == pytest.approx(400.0)
        assert seen.gradient["Q"] == pytest.approx(np.array([[far > 0], [-(far < 0)]]) * far / 6 * np.ones((1, 3)))


def test_small_residuals_are_not_lost_beside_the_rating() -> None:
    config = _config(CLICKS)
    e = losses.residual(np.array([30.0]), np.array([1.0]), config)
    assert e[0] == pytest.approx(-np.exp(-30.0), rel=1e-12)
    assert losses.value(np.array([30.0]), np.array([1.0]), config)[0] == pytest.approx(np.exp(-30.0), rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "values", "words"),
    [
        (CLICKS, [0, 1, 5], "rating 2 is 5, but loss 'logistic' is for ratings that are 0 or 1"),
        (CLICKS, [1, -1], "rating 1 is -1, but loss 'logistic'"),
        (CLICKS, [1, 1], "all ratings are 1, which loss 'logistic' would predict with an infinite mean"),
        (COUNTS, [0, 2, -1], "rating 2 is -1, but loss 'poisson' is for ratings that are 0 or larger"),
        (COUNTS, [0, 0], "all ratings are 0, which loss 'poisson'"),
    ],
)
def test_ratings_that_a_loss_is_not_made_for(loss: Any, values: list[float], words: str) -> None:
    ratings = Ratings.of_indices(np.arange(len(values)), np.zeros(len(values), int), values)
    with pytest.raises(DataError, match=words):
        mf_numpy.fit(ratings, _config(loss))


def test_settings_that_do_not_go_with_a_loss() -> None:
    for solver in ("als", "cd"):
        with pytest.raises(ConfigError, match="whose steps are for 'squared'"):
            Config(loss="logistic", solver=solver)
    with pytest.raises(ConfigError, match="init is 'mean', but with loss 'poisson'"):
        Config(loss="poisson", init="mean", model="plain")
    earlier = mf_numpy.fit(_table(CLICKS), _config(CLICKS, n_epochs=1))
    with pytest.raises(ConfigError, match="cannot resume: loss was 'logistic' and is now 'squared'"):
        mf_numpy.fit(_table(CLICKS), _config("squared", n_epochs=2), resume=earlier)


def test_several_processes_refuse_them(tmp_path: Path, small: Split) -> None:
    from mf_torch import distributed

    distributed.partition(small.train, tmp_path / "parts", parts=1)
    with pytest.raises(ConfigError, match="loss is 'logistic', which several processes do not have"):
        distributed.fit(tmp_path / "parts", _config(CLICKS))


def test_rates_past_all_numbers_are_a_divergence_with_a_remedy() -> None:
    train = _table(COUNTS)
    found = mf_numpy.fit(train, replace(_config(COUNTS), lr=1e4, momentum=0.0))
    assert found.status == "diverged" and "Lower lr" in found.message
    assert np.isfinite(found.predict(train.users, train.items).values).all()


def test_float32_learns_as_float64_does() -> None:
    train, config = _table(CLICKS), _config(CLICKS, lr=0.5, n_epochs=50)
    wide, narrow = (mf_numpy.fit(train, replace(config, dtype=d)) for d in ("float64", "float32"))
    assert narrow.history[-1].objective == pytest.approx(wide.history[-1].objective, rel=1e-5)
    assert narrow.params.P.dtype == np.float32


def test_the_command_line_fits_clicks(tmp_path: Path, mf: Any) -> None:
    train = _table(CLICKS, 400)
    rows = [f"{u},{i},{r:g}" for u, i, r in zip(train.users, train.items, train.values, strict=True)]
    (tmp_path / "clicks.csv").write_text("\n".join(["user,item,clicked", *rows]), encoding="utf-8")
    told: tuple[str, ...] = (
        "--rating",
        "clicked",
        "--duplicates",
        "first",
        "--loss",
        "logistic",
        "--n-factors",
        "3",
        "--n-epochs",
        "5",
    )
    told = (*told, "--dtype", "float64")
    code, out, _ = mf("fit", str(tmp_path / "clicks.csv"), "-o", str(tmp_path / "m.safetensors"), "--lr", "1", *told)
    assert code == 0 and "valid RMSE" in out
    code, out, _ = mf("predict", str(tmp_path / "m.safetensors"), "3", "4")
    assert code == 0 and 0 < float(out) < 1


def test_later_clicks_are_learned_even_where_all_of_them_are_ones() -> None:
    train = _table(CLICKS)
    found = mf_numpy.fit(train, _config(CLICKS, lr=0.5))
    later = train.take(train.values == 1)
    went_on = mf_numpy.partial_fit(found, later, n_epochs=3)
    assert (
        went_on.score(Holdout(later.users, later.items, later.values)).rmse
        < found.score(Holdout(later.users, later.items, later.values)).rmse
    )
    stranger = went_on.recommend(99, n=9)["predicted"]
    assert stranger.is_monotonic_decreasing and stranger.between(0, 1).all()


def test_all_pairs_of_fewer_items_than_factors_go_the_shortest_way() -> None:
    """No row of users has one minimiser then; the shortest is taken, and predicts what that of full rank does."""
    ratings = Ratings.of_indices([0, 0, 1, 2, 3], [0, 1, 2, 1, 0], [1.0, 2.0, 1.0, 3.0, 1.0])
    of = {"model": "plain", "loss": "all_pairs", "loss_scale": 2.0, "reg": 0.0, "dtype": "float64", "solver": "als"}
    few, many = (mf_numpy.fit(ratings, Config(n_factors=k, n_epochs=30, init_scale=1.0, **of)) for k in (3, 5))  # type: ignore[arg-type]
    assert few.status != "diverged" != many.status
    np.testing.assert_allclose(many.params.P @ many.params.Q.T, few.params.P @ few.params.Q.T, atol=1e-9)
