"""Grades: one model by every solver and both packages, cut points that are far, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mf_numpy
import mf_torch
from mf_numpy import Config, Ratings, grades, gradients, kernels, loops, losses, model, store
from mf_numpy.batch import full_batch
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.grades import Cuts
from mf_numpy.split import Holdout
from mf_torch import grades as of_torch
from mf_torch import paths
from mf_torch.store import from_state_dict, to_state_dict, with_module
from tests.same_fits import assert_same_bits, assert_same_way, by_one_thread_and_by_all

STARS = np.array([0.5, 1.0, 2.0, 3.5, 5.0])
SOLVERS: dict[str, dict[str, Any]] = {
    "momentum": {"lr": 2.0, "momentum_form": "nesterov"},
    "ema": {"lr": 2.0},
    "heavy ball": {"lr": 1.0, "momentum_form": "heavy_ball", "momentum": 0.5},
    "batches": {"lr": 1.0, "batch_size": 70},
    "adam": {"step_rule": "adam"},
    "adam in batches": {"step_rule": "adam", "batch_size": 70},
    "adagrad": {"step_rule": "adagrad", "lr": 0.1},
    "sgd": {"solver": "sgd", "lr": 0.05},
    "sgd adagrad": {"solver": "sgd", "step_rule": "adagrad"},
    "lbfgs": {"solver": "lbfgs", "history_size": 4},
}


def _table(size: int = 200) -> Ratings:
    """Stars that two factors have a part in, of 12 users and 9 items; some pairs repeat."""
    rng = np.random.default_rng(5)
    users, items = rng.integers(0, 12, size), rng.integers(0, 9, size)
    p, q, c = rng.normal(size=(12, 2)), rng.normal(size=(9, 2)), rng.normal(size=9)
    told = (p[users] * q[items]).sum(axis=1) + c[items] + rng.logistic(size=size)
    return Ratings.of_indices(users, items, STARS[np.searchsorted([-3.0, -1.0, 0.5, 2.0], told)], m=12, n=9)


def _config(**settings: Any) -> Config:
    given: dict[str, Any] = {"n_factors": 3, "reg": 0.02, "dtype": "float64", "n_epochs": 6, "init_scale": 0.3}
    return Config(loss="ordinal", **given | settings)


@pytest.mark.parametrize("rule", SOLVERS)
def test_every_solver_goes_one_way_by_every_backend(rule: str) -> None:
    train, config = _table(), _config(**SOLVERS[rule])
    gold = mf_numpy.fit(train, config, backend="loops")
    found = [mf_numpy.fit(train, config, backend="numba")]
    if config.solver != "sgd":
        found.append(mf_numpy.fit(train, config, backend="numpy"))
    if config.solver == "gd":
        found += [mf_torch.fit(train, config, path=path) for path in ("autograd", "sparse", "manual")]
    assert gold.history[-1].objective < gold.history[0].objective
    start = model.start(train, config).cuts
    assert gold.params.cuts is not None and start is not None
    assert gold.params.cuts.t.tolist() != start.t.tolist()
    assert_same_way(found, gold)


@pytest.mark.parametrize("kind", ["plain", "biased"])
def test_a_long_fit_ends_where_the_gradient_is_zero_for_the_cut_points_too(kind: str) -> None:
    train, config = _table(), _config(model=kind, solver="lbfgs", n_epochs=400)
    found = mf_numpy.fit(train, config)
    left = gradients.gradient(found.params, full_batch(train, config), config).gradient
    assert max(abs(g).max() for g in left.values()) < 1e-7 and "t" in left
    stepped = mf_numpy.fit(train, replace(config, solver="sgd", lr=0.05, lr_decay=1.0, n_epochs=1))
    assert stepped.params.cuts is not None
    scores = model.predict(stepped.params, train.users, train.items)
    start = model.start(train, stepped.config).cuts
    assert start is not None
    before, after = (grades.slope(scores, train.values, cuts) for cuts in (start, stepped.params.cuts))
    # One Newton step after an epoch leaves them all but where they belong.
    assert abs(after).max() < abs(before).max() / 10


def test_cut_points_stand_in_order_and_predictions_are_means() -> None:
    train = _table()
    found = mf_numpy.fit(train, _config(n_epochs=60, lr=5.0))
    cuts = found.params.cuts
    assert cuts is not None and (np.diff(cuts.points) > 0).all() and cuts.grades.tolist() == STARS.tolist()
    chances = found.probabilities(train.users, train.items)
    assert chances.columns.tolist() == STARS.tolist() and chances.sum(axis=1).to_numpy() == pytest.approx(1.0)
    expected = found.predict(train.users, train.items).values
    assert expected == pytest.approx(chances.to_numpy() @ STARS)
    pairs = Holdout(train.users, train.items, train.values)
    assert found.score(pairs).rmse == pytest.approx(float(np.sqrt(((expected - train.values) ** 2).mean())))
    scores = model.predict(found.params, train.users, train.items)
    assert (np.argsort(scores, kind="stable") == np.argsort(expected, kind="stable")).all()
    best = found.recommend(3, n=4, with_seen=True)
    assert best["predicted"].tolist() == pytest.approx(sorted(found.predict([3] * 9, range(9)).values)[::-1][:4])
    # Of a stranger and an unknown item the cut points alone say something.
    assert found.predict([99], [99]).values == pytest.approx(found.probabilities([99], [99]).to_numpy() @ STARS)
    with pytest.raises(DataError, match="loss 'squared' knows no grades"):
        mf_numpy.fit(train, Config(n_factors=3, n_epochs=1, lr=0.1, dtype="float64")).probabilities([1], [1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("far", [-900.0, 900.0])
def test_scores_far_from_every_cut_cost_no_more_than_they_must(far: float, dtype: Any) -> None:
    config = _config(model="plain", reg=0.0, dtype=dtype)
    t = np.array([-1.0, 0.0, 0.0, 0.0], dtype)  # at -1, 0, 1, 2
    params = model.Params(
        np.full((1, 3), far / 3, dtype), np.ones((5, 3), dtype), cuts=Cuts(t, STARS.astype(dtype))
    )  # fmt: skip
    batch = full_batch(Ratings.of_indices([0] * 5, range(5), STARS), config)
    past = [far + 1, far, far - 1, far - 2] if far > 0 else [-1 - far, -far, 1 - far, 2 - far]
    width = -np.log(-np.expm1(-1.0))
    for seen in (
        *(module.gradient(params, batch, config) for module in (gradients, kernels, loops)),
        *(_by_torch(path, params, batch, config) for path in ("autograd", "manual")),
    ):
        assert seen.objective == pytest.approx((sum(past) + 3 * width) / 5, rel=1e-5)
        sign = 1.0 if far > 0 else -1.0
        e = np.array([1, 1, 1, 1, 0]) if far > 0 else np.array([0, 1, 1, 1, 1])
        assert seen.gradient["Q"] == pytest.approx(np.repeat(sign * e * far / 15, 3).reshape(5, 3), rel=1e-5)
        assert np.isfinite(seen.gradient["t"]).all()


def _by_torch(path: str, params: Any, batch: Any, config: Config) -> Any:
    from mf_torch.check import evaluate

    return evaluate(params, batch, config, path=path)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [1e-6, 80.0])
def test_cut_points_close_together_and_far_apart_lose_no_digits(width: float, dtype: Any) -> None:
    cuts = Cuts(np.array([0.25, np.log(width)], dtype), np.array([1, 2, 3], dtype))
    scores = np.array([0.25, 0.5, -60.0], dtype)
    wide = float(np.exp(np.float64(cuts.t[1])))
    s, upper = scores.astype(np.float64) - 0.25, scores.astype(np.float64) - 0.25 - wide
    gold = np.logaddexp(0, upper) + np.logaddexp(0, -s) - np.log(-np.expm1(-wide))
    rough = 20 * float(np.finfo(dtype).eps)
    two = np.full(3, 2, dtype)
    assert grades.value(scores, two, cuts) == pytest.approx(gold, rel=rough)
    module = mf_torch.MatrixFactorization(model.Params(np.ones((1, 1), dtype), np.ones((1, 1), dtype), cuts=cuts))
    mine = of_torch.loss(torch.tensor(scores), torch.tensor(two), module).detach().numpy()
    assert mine == pytest.approx(gold, rel=rough)
    chances = grades.probabilities(scores, cuts)
    assert chances[:, 1] == pytest.approx(np.exp(-gold), rel=20 * rough, abs=1e-37)
    slope = grades.slope(scores, two, cuts)
    assert np.isfinite(slope).all() and slope[1] == pytest.approx(_slope_of_width(s, upper, wide), rel=20 * rough)


def _slope_of_width(s: Any, upper: Any, wide: float) -> float:
    return float(wide * (-(1 / (1 + np.exp(-upper))).sum() - len(s) / np.expm1(wide)))


def test_float32_learns_as_float64_does() -> None:
    train, config = _table(), _config(lr=5.0, n_epochs=40)
    wide, narrow = (mf_numpy.fit(train, replace(config, dtype=d)) for d in ("float64", "float32"))
    assert narrow.history[-1].objective == pytest.approx(wide.history[-1].objective, rel=1e-5)
    assert narrow.params.cuts is not None and narrow.params.cuts.t.dtype == np.float32


def test_the_usual_learning_rate_suits_the_cut_points() -> None:
    """They hang on every rating: in a unit of 1 the steps that suit a row would throw them about."""
    rng = np.random.default_rng(7)
    users, items = rng.integers(0, 300, 6000), rng.integers(0, 200, 6000)
    told = rng.normal(size=300)[users] + rng.normal(size=200)[items] + rng.logistic(size=6000)
    train = Ratings.of_indices(users, items, 1.0 + np.searchsorted([-2.0, -1.0, 0.5, 2.0], told))
    found = mf_numpy.fit(train, Config(loss="ordinal", n_factors=3, n_epochs=100))
    objectives = [record.objective for record in found.history]
    assert (np.diff(objectives) < 1e-6).all() and found.status == "max_epochs"
    start = model.start(train, found.config).cuts
    assert start is not None and found.params.cuts is not None
    reach = found.params.cuts.points - start.points
    assert reach[0] < -0.2 and reach[-1] > 0.2


@pytest.mark.parametrize("settings", [{"lr": 1e6, "momentum": 0.0}, {"solver": "sgd", "lr": 1e4}])
def test_scores_past_all_numbers_are_a_divergence_with_a_remedy(settings: dict[str, Any]) -> None:
    train = _table()
    found = mf_numpy.fit(train, _config(**settings, n_epochs=40))
    assert found.status == "diverged" and "Lower lr" in found.message
    assert np.isfinite(found.predict(train.users, train.items).values).all()


def test_bits_do_not_depend_on_the_threads() -> None:
    for solver in ({"lr": 2.0}, {"solver": "sgd", "lr": 0.05}):
        assert_same_bits(*by_one_thread_and_by_all(_table(400), _config(**solver)))


@pytest.mark.parametrize("rule", ["momentum", "adam in batches", "sgd"])
def test_a_fit_goes_on_from_a_file_bit_for_bit(tmp_path: Path, rule: str) -> None:
    train, config = _table(), _config(**SOLVERS[rule])
    fits: list[Any] = [mf_numpy.fit] if config.solver == "sgd" else [mf_numpy.fit, mf_torch.fit]
    for fit in fits:
        straight = fit(train, config)
        fit(train, replace(config, n_epochs=3)).save(tmp_path / "half.safetensors")
        half = store.load(tmp_path / "half.safetensors")
        assert_same_bits(straight, fit(train, config, resume=half))
        assert half.params.cuts is not None and straight.params.cuts is not None
        assert half.params.cuts.grades.tobytes() == straight.params.cuts.grades.tobytes()
        assert half.params.cuts.unit == straight.params.cuts.unit


def test_the_best_epoch_keeps_its_cut_points(tmp_path: Path) -> None:
    train = _table()
    valid = Holdout(train.users[:60], train.items[:60], 5.5 - train.values[:60])
    found = mf_numpy.fit(train, _config(lr=10.0, n_epochs=50, patience=3), valid=valid)
    assert found.params.cuts is not None and found.state.params.cuts is not None
    assert found.params.cuts.t.tolist() != found.state.params.cuts.t.tolist()
    found.save(tmp_path / "m.safetensors")
    again = store.load(tmp_path / "m.safetensors")
    assert again.params.cuts is not None and again.state.params.cuts is not None
    assert again.params.cuts.t.tobytes() == found.params.cuts.t.tobytes()
    assert again.state.params.cuts.t.tobytes() == found.state.params.cuts.t.tobytes()


def test_a_module_and_its_state_dict_hold_the_cut_points() -> None:
    found = mf_torch.fit(_table(), _config(lr=2.0))
    params, state = found.params, to_state_dict(found.params)
    assert state.keys() == {"P", "Q", "b", "c", "t", "mu", "grades", "unit"}
    back = from_state_dict(state)
    assert back.cuts is not None and params.cuts is not None and back.cuts.unit == params.cuts.unit
    assert back.cuts.t.tobytes() == params.cuts.t.tobytes()
    assert with_module(found, mf_torch.MatrixFactorization(params)) is found
    with pytest.raises(DataError, match=r"t has shape \(4,\) and grades \(4,\)"):
        from_state_dict(state | {"grades": state["grades"][1:]})
    with pytest.raises(DataError, match="lacks 'unit'"):
        from_state_dict({name: x for name, x in state.items() if name != "unit"})


def test_a_grade_that_training_lacks_is_scored_and_never_predicted() -> None:
    train = _table()
    lacking = train.take(train.values != 2.0)
    valid = Holdout(train.users, train.items, train.values)
    found = mf_numpy.fit(lacking, _config(lr=2.0), valid=valid)
    assert 2.0 not in found.probabilities([3], [4]).columns and np.isfinite(found.history[-1].valid_rmse or np.nan)
    for fit in (mf_numpy.fit, mf_torch.fit):
        with pytest.raises(DataError, match=r"rating 2 is no grade that the model was trained on \(0.5, 1, 3.5, 5\)"):
            fit(train, _config(lr=2.0, n_epochs=9), resume=found)
    with pytest.raises(DataError, match="rating 2 is no grade"):
        found.fold_in_user({3: 2.0})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([3, 3, 3], "all ratings are 3, but loss 'ordinal' needs two grades or more"),
        (
            np.linspace(0, 1, 101),
            "the ratings have 101 distinct values, but loss 'ordinal' takes them for grades, 100 at",
        ),
    ],
)
def test_ratings_that_are_no_grades(values: Any, words: str) -> None:
    ratings = Ratings.of_indices(np.arange(len(values)), np.zeros(len(values), int), values)
    for fit in (mf_numpy.fit, mf_torch.fit):
        with pytest.raises(DataError, match=words):
            fit(ratings, _config())


def test_what_does_not_go_with_grades(tmp_path: Path) -> None:
    solver: Any
    for solver in ("als", "cd", "hmc"):
        with pytest.raises(ConfigError, match="loss is 'ordinal' with solver"):
            Config(loss="ordinal", solver=solver)
    with pytest.raises(ConfigError, match="init is 'mean', but with loss 'ordinal'"):
        Config(loss="ordinal", init="mean", model="plain")
    train = _table()
    with pytest.raises(ConfigError, match="loss is 'ordinal' with path 'fused', which knows no cut points"):
        mf_torch.fit(train, _config(), path="fused")
    with pytest.raises(ConfigError, match="loss is 'ordinal' with path 'fused'"):
        paths.get("fused").lay_out(None, _config())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="sparse_grad is True with loss 'ordinal'"):
        mf_torch.fit(train, _config(momentum=0.0), sparse_grad=True)
    design = mf_numpy.design_of(train)
    for fit in (mf_numpy.fit, mf_torch.fit):
        with pytest.raises(ConfigError, match="loss is 'ordinal' with a design; leave the design out"):
            fit(train, _config(), design=design)
    with pytest.raises(ConfigError, match="loss is 'ordinal', whose cut points no module of yours has"):
        mf_torch.check_module(torch.nn.Linear(2, 2), train, config=_config())
    earlier = mf_numpy.fit(train, _config(n_epochs=1))
    with pytest.raises(ConfigError, match="cannot resume: loss was 'ordinal' and is now 'squared'"):
        mf_numpy.fit(train, replace(_config(), loss="squared"), resume=earlier)
    stepped = mf_numpy.fit(train, _config(solver="sgd", lr=0.05))
    with pytest.raises(ConfigError, match="whose cut points would go to the minimum of the new ratings"):
        mf_numpy.partial_fit(stepped, train.take(np.arange(5)))


def test_newcomers_and_later_ratings_are_placed_among_the_grades() -> None:
    train = _table()
    once = train.take(np.unique(train.users * 9 + train.items, return_index=True)[1])
    found = mf_numpy.fit(once, _config(penalty="total", solver="lbfgs", n_epochs=400))
    own = once.users == 4
    newcomer = found.fold_in_user(dict(zip(once.items[own].tolist(), once.values[own].tolist(), strict=True)))
    assert newcomer.predict(range(9)) == pytest.approx(found.predict([4] * 9, range(9)).values, rel=0.1)
    assert newcomer.recommend(9)["predicted"].is_monotonic_decreasing
    went_on = mf_numpy.partial_fit(mf_numpy.fit(train, _config(lr=2.0)), _stranger(), n_epochs=3)
    assert went_on.predict([77], [0]).values > went_on.predict([77], [1]).values
    assert went_on.params.cuts is not None and len(went_on.params.cuts.t) == 4


def _stranger() -> Ratings:
    ratings = Ratings.of_indices([0, 0, 0, 0], [0, 1, 0, 1], [5.0, 0.5, 5.0, 0.5])
    return replace(ratings, user_ids=replace(ratings.user_ids, raw=np.array([77])))


def test_the_losses_of_other_models_are_what_they_were() -> None:
    """Cut points come with the parameters; without them a loss of one prediction sees none."""
    config = Config(loss="squared", dtype="float64")
    at, r = np.array([1.0, 2.0]), np.array([3.0, 1.0])
    assert losses.value(at, r, config).tolist() == [4.0, 1.0] and losses.prediction_of(3.5, config) == 3.5


def test_the_command_line_fits_grades_and_prints_their_chances(tmp_path: Path, mf: Any) -> None:
    train = _table(400)
    rows = [f"{u},{i},{r:g}" for u, i, r in zip(train.users, train.items, train.values, strict=True)]
    (tmp_path / "stars.csv").write_text("\n".join(["user,item,rating", *rows]), encoding="utf-8")
    told = ("--duplicates", "first", "--loss", "ordinal", "--n-factors", "3", "--n-epochs", "5", "--dtype", "float64")
    code, out, _ = mf("fit", str(tmp_path / "stars.csv"), "-o", str(tmp_path / "m.safetensors"), "--lr", "1", *told)
    assert code == 0 and "valid RMSE" in out
    code, out, _ = mf("predict", str(tmp_path / "m.safetensors"), "3", "4")
    first, *lines = out.split("\n")
    assert code == 0 and 0.5 < float(first) < 5
    chances = {float(line.split()[0]): float(line.split()[1]) for line in lines if line.strip()[:1].isdigit()}
    assert chances.keys() == set(STARS) and sum(chances.values()) == pytest.approx(1, abs=1e-3)
