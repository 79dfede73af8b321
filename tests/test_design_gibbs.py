"""The Gibbs sampler over features: ids, threads, resuming, both packages, and what is predicted from its draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import mf_numpy
import mf_torch
from bench import accuracy_worker, designs
from mf_numpy import Config, FitResult, Ratings, gibbs, store
from mf_numpy import design as by_hand
from mf_numpy.check import relative_difference
from mf_numpy.design import Design, Side
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.features import Features, design_of
from mf_numpy.kernels import als
from mf_numpy.model import Params, predict
from mf_numpy.solvers import design_gibbs
from mf_numpy.split import Split, random_split
from mf_numpy.timed import timed
from tests.same_fits import by_one_thread_and_by_all
from tests.test_gibbs import _bits, _ratings

FACTS = pd.DataFrame({"kind": ["a", "b"] * 20, "tags": ["x, y", "y", ""] * 13 + ["x"]}, index=range(40))


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(_ratings(), valid=0.2, seed=1)


@pytest.fixture(scope="module")
def design(split: Split) -> Design:
    return _design(split.train)


def _design(train: Ratings) -> Design:
    """Of both sides, blocks whose features share rows and blocks whose features do not; two features in one block."""
    return design_of(
        train, Features().id().rated().category("kind"), Features().rated().tags("tags").id(),
        user_info=FACTS, item_info=FACTS,
    )  # fmt: skip


def _config(**settings: Any) -> Config:
    return Config(**{"solver": "gibbs", "n_factors": 3, "dtype": "float64", "burn_in": 2, "n_epochs": 9, **settings})


def _same(mine: Params | None, theirs: Params | None) -> float:
    assert mine is not None and theirs is not None
    return max(relative_difference(x, theirs.tensors()[k]) for k, x in mine.tensors().items())


def _load(train: Ratings, design: Design, **settings: Any) -> design_gibbs.Whole:
    return design_gibbs.DesignGibbsEngine(design, "numba").load(train, _config(**settings))


def _every_draw(mine: FitResult, theirs: FitResult) -> float:
    one, two = mine.state.draws, theirs.state.draws
    assert one is not None and two is not None and len(one) == len(two) > 0
    np.testing.assert_allclose(one.precisions, two.precisions, rtol=1e-8)
    return max(_same(a, b) for a, b in zip(one.points, two.points, strict=True))


@pytest.mark.parametrize("model", ["biased", "plain"])
def test_ids_alone_are_the_sampler_without_features(model: Any, split: Split) -> None:
    config = _config(model=model, n_epochs=20, burn_in=0)
    plain = mf_numpy.fit(split.train, config, valid=split.valid)
    ids = Design.identity(split.train)
    for backend in ("numba", "loops"):
        by_ids = mf_numpy.fit(split.train, config, valid=split.valid, design=ids, backend=backend)
        assert _every_draw(by_ids, plain) < 1e-8
        assert by_ids.history[-1].valid_rmse == pytest.approx(plain.history[-1].valid_rmse, rel=1e-8)
    first = replace(config, n_epochs=1)
    one, other = (mf_numpy.fit(split.train, first, design=d) for d in (None, ids))
    assert _same(other.params, one.params) < 1e-12


@pytest.mark.parametrize(("model", "sweeps"), [("biased", 50), ("plain", 8)])
def test_chains_by_kernels_by_features_and_by_torch_are_one(model: Any, sweeps: int) -> None:
    config, split = _config(model=model, n_epochs=sweeps, burn_in=0), random_split(_ratings(15, 12, 500), valid=0.2)
    design = _design(split.train)
    given: dict[str, Any] = {"valid": split.valid, "design": design}
    gold = mf_numpy.fit(split.train, config, backend="loops", **given)
    for found in (mf_numpy.fit(split.train, config, **given), mf_torch.fit(split.train, config, **given)):
        # Every sweep, not the last one alone: burn_in is 0, and each draw is kept.
        assert _every_draw(found, gold) < 1e-8 and _same(found.params, gold.params) < 1e-8
        for a, b in zip(found.history, gold.history, strict=True):
            assert (a.objective, a.train_rmse, a.valid_rmse) == pytest.approx(
                (b.objective, b.train_rmse, b.valid_rmse), rel=1e-8
            )


@pytest.mark.cuda
@pytest.mark.parametrize("model", ["biased", "plain"])
def test_chains_are_equal_on_cuda(model: Any, split: Split, design: Design) -> None:
    config = _config(model=model, n_epochs=30, burn_in=0)
    mine = mf_numpy.fit(split.train, config, design=design)
    theirs = mf_torch.fit(split.train, config, design=design, device="cuda")
    assert _every_draw(theirs, mine) < 1e-8


def test_float32_rounds_what_is_kept_and_nothing_else(split: Split, design: Design) -> None:
    """A sweep is computed in float64, from parameters and to parameters in float32."""
    config = _config(n_epochs=1, dtype="float32")
    found = [mf_numpy.fit(split.train, config, design=design), mf_torch.fit(split.train, config, design=design)]
    for one in found:
        assert one.of_features is not None and one.of_features.P.dtype == one.params.P.dtype == np.float32
        assert _same(one.of_features, found[0].of_features) < 4 * np.finfo(np.float32).eps


def test_the_conditional_of_a_feature_is_the_slope_and_bend_of_the_whole_density(split: Split, design: Design) -> None:
    """Minus its logarithm over all parameters, by a complex step: A is its second derivative, and h - Aw̃ its slope."""
    train, config, alpha = split.train, _config(), 0.7
    rng = np.random.default_rng(2)
    theta = by_hand.start(train, design, config)
    theta = theta.with_tensors({k: np.array(rng.normal(size=x.shape)) for k, x in theta.tensors().items()})
    prior = gibbs.Prior(rng.normal(size=4), np.diag([1.0, 2.0, 3.0, 4.0]) + 0.1)

    def cost(j: int, row: Any) -> Any:
        moved = {name: x.astype(complex) for name, x in theta.tensors().items()}
        moved["P"][j], moved["b"][j] = row[:3], row[3]
        error = predict(by_hand.rows(theta.with_tensors(moved), design), train.users, train.items) - train.values
        return (alpha * (error * error).sum() + (row - prior.mean) @ prior.precision @ (row - prior.mean)) / 2

    engine = design_gibbs.DesignGibbsEngine(design, "loops")
    whole, items = engine.load(train, config), engine.rows_of(theta, "item")
    sums = engine.sums(whole, "user", engine.rows_of(theta, "user"), items, theta)
    # An id, a rated item of many users, and the second kind.
    for j in (3, design.users.blocks[0] + 1, design.users.shape[1] - 1):
        column = design.users.transposed[[j]]
        here = np.append(theta.P[j], theta.b[j])  # type: ignore[index]
        A, h = gibbs.feature_conditional(
            column.data, sums.normal[column.indices], sums.left[column.indices], here, prior, alpha
        )
        assert column.nnz > 1 or j == 3
        unit, step = np.eye(4), 1e-30
        slope = [cost(j, here + 1j * step * e).imag / step for e in unit]
        np.testing.assert_allclose(A @ here - h, slope, rtol=1e-10, atol=1e-9)
        # It is quadratic: slopes a whole step apart are the bend.
        bend = [[cost(j, here + e + 1j * step * d).imag / step for d in unit] - np.array(slope) for e in unit]
        np.testing.assert_allclose(A, bend, rtol=1e-9)
        stays = gibbs.what_stays(column.data, sums.normal[column.indices], sums.left[column.indices], unit[1])
        moved = theta.copy()
        moved.P[j, 1] += 1
        after = engine.sums(whole, "user", engine.rows_of(moved, "user"), items, moved)
        np.testing.assert_allclose(stays, after.left[column.indices], atol=1e-9)


def test_bits_are_those_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that few features are many chunks.
    monkeypatch.setattr(als, "LEAST_CHUNK", 32)
    train, config = _ratings(300, 200, 20_000), _config(n_epochs=4)
    design = design_of(train, Features().id().rated(), Features().id().rated())
    ids, rated = _load(train, design).blocks["user"]
    assert len(ids.bounds) > 20 and len(rated.bounds) == 2
    one, more = by_one_thread_and_by_all(train, config, design)
    assert _bits(one) == _bits(more)
    assert _bits(one) != _bits(mf_numpy.fit(train, replace(config, seed=1), design=design))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_resumed_chain_is_the_straight_one(dtype: Any, split: Split, design: Design, tmp_path: Path) -> None:
    def run(n_epochs: int, resume: FitResult | None = None, fit: Any = mf_numpy.fit) -> FitResult:
        config = _config(n_epochs=n_epochs, dtype=dtype)
        given = design if resume is None else resume.design
        found: FitResult = fit(split.train, config, valid=split.valid, design=given, resume=resume)
        return found

    straight = run(9)
    for half in (1, 5):
        run(half).save(tmp_path / "half.safetensors")
        assert _bits(run(9, store.load(tmp_path / "half.safetensors"))) == _bits(straight)
    if dtype == "float64":
        assert _same(run(9, run(5), mf_torch.fit).params, straight.params) < 1e-10


def test_the_mean_over_draws_is_what_is_predicted_saved_and_scored(
    split: Split, design: Design, tmp_path: Path
) -> None:
    found = mf_numpy.fit(split.train, _config(), valid=split.valid, design=design)
    draws = found.draws
    assert draws is not None and len(draws) == 7 and found.params.shape == (39, 28, 21)
    assert found.of_features is not None and found.of_features.P.shape == (design.users.shape[1], 21)
    users, items = split.train.users, split.train.items
    mean = np.mean([predict(point, users, items) for point in draws.points], axis=0)
    np.testing.assert_allclose(predict(found.params, users, items), mean, rtol=1e-12)  # Eq. 70
    assert found.score(split.valid).rmse == pytest.approx(found.history[-1].valid_rmse, rel=1e-12)
    found.save(tmp_path / "model.safetensors")
    again = store.load(tmp_path / "model.safetensors")
    assert _bits(again) == _bits(found) and again.config == found.config
    assert again.design is not None and again.design.same_as(design) and again.design.users.blocks == (39, 28, 2)
    assert _same(again.of_features, found.of_features) == 0
    np.testing.assert_array_equal(again.recommend(7)["predicted"], found.recommend(7)["predicted"])
    one, two = (model.interval([7, 8], [1, 2]) for model in (found, again))
    np.testing.assert_array_equal(one.low, two.low)
    assert (one.low < found.predict([7, 8], [1, 2]).values).all() and (one.high > one.mean).all()
    np.testing.assert_allclose(one.mean, found.predict([7, 8], [1, 2]).values)
    expected = found.predict([7, 8], [1, 2]).values
    at = split.train.user_ids.encode([7, 8]), split.train.item_ids.encode([1, 2])
    module = mf_torch.load(tmp_path / "model.safetensors")
    import torch

    np.testing.assert_allclose(module(*map(torch.as_tensor, at)).detach().numpy(), expected)


def test_blocks_are_those_of_the_builder_and_hold_every_feature() -> None:
    train = _ratings()
    made = Features().id().rated().category("kind").bins("year", 3)
    table = FACTS.assign(year=np.arange(40.0))
    side = made.fit(train, "users", table).side
    assert side.blocks == (40, 30, 2, 3) and sum(side.blocks) == side.shape[1]
    assert [apart for _, apart in design_gibbs.exclusive(side)] == [True, False, True, True]
    assert Side.identity(4).blocks == (4,)
    other = replace(side, blocks=())
    assert not Design(side, side).same_as(Design(other, other))
    with pytest.raises(DataError, match=r"blocks of \(3, 2\) features came for 4; give each feature to one block"):
        Side(sp.csr_array(np.eye(4)), blocks=(3, 2))


def test_users_at_a_time_are_drawn_and_predicted_at_any(tmp_path: Path) -> None:
    ratings = replace(_ratings(), timestamps=np.arange(900) // 60 * 86_400)
    split = random_split(ratings, valid=0.2, seed=1)
    made = timed(split.train, Features().id().rated().day(), valid=split.valid)
    assert made.valid is not None
    found = mf_numpy.fit(made.train, _config(), valid=made.valid, design=made.design)
    # Days of a user are alike but for the day, and pooled by the kernels alone.
    pools = [block.pool is not None for block in _load(made.train, made.design).blocks["user"]]
    assert pools == [False, True, False]
    for other in (
        mf_numpy.fit(made.train, _config(), backend="loops", design=made.design),
        mf_torch.fit(made.train, _config(), design=made.design),
    ):
        assert _every_draw(other, found) < 1e-8
    assert found.score(made.valid).rmse == pytest.approx(found.history[-1].valid_rmse, rel=1e-12)
    day = made.at(found, 86_400)
    assert day.params.shape == (39, 28, 21) and day.draws is not None and day.draws.points[0].P.shape == (39, 3)
    raw = split.train.user_ids.raw[:5], split.train.item_ids.raw[:5]
    expected = made.predict(found, *raw, [86_400] * 5).values
    np.testing.assert_allclose(day.predict(*raw).values, expected)
    np.testing.assert_allclose(day.interval(*raw).mean, expected)
    found.save(tmp_path / "chain.safetensors")
    back = store.load(tmp_path / "chain.safetensors").at(86_400)
    np.testing.assert_array_equal(back.interval(*raw).low, day.interval(*raw).low)


def test_features_that_made_the_ratings_are_found() -> None:
    """Users are their kinds and nothing else: told the kinds, a chain predicts nearly as well as can be."""
    rng = np.random.default_rng(0)
    kinds, n = rng.integers(0, 5, 400), 60
    users, items = rng.integers(0, 400, 4000), rng.integers(0, n, 4000)
    tastes, traits = rng.normal(size=(5, 2)), rng.normal(size=(n, 2))
    values = (tastes[kinds[users]] * traits[items]).sum(axis=1) + 0.5 * rng.normal(size=4000)
    parts = random_split(Ratings.of_indices(users, items, values), valid=0.2, seed=0)
    facts = pd.DataFrame({"kind": kinds}, index=range(400))
    design = design_of(parts.train, Features().id().category("kind"), user_info=facts)
    config = _config(n_epochs=60, burn_in=20)
    told, untold = (
        mf_numpy.fit(parts.train, config, valid=parts.valid, design=d).history[-1].valid_rmse for d in (design, None)
    )
    assert told is not None and untold is not None
    assert told < 0.54 < 0.6 < untold


def test_in_the_comparison_the_mean_over_its_draws_is_scored(split: Split) -> None:
    design = design_of(split.train, Features().id().rated())
    config = _config(n_epochs=9, burn_in=3, thin=4)
    points, predictions = accuracy_worker.fitted(split.train, split.valid, config, "numba", [2, 5, 9], None, design)
    history = mf_numpy.fit(split.train, config, valid=split.valid, design=design).history
    assert [point["rmse"] for point in points] == pytest.approx([history[epoch - 1].valid_rmse for epoch in (2, 5, 9)])
    assert set(predictions) == {2, 5, 9}


def test_the_comparison_keeps_blocks_in_its_files(split: Split, design: Design, tmp_path: Path) -> None:
    designs.save(tmp_path, "case", design)
    back = designs.read(tmp_path, "case")
    assert (back.users.blocks, back.items.blocks) == (design.users.blocks, design.items.blocks)
    assert designs.drawn(split.train, design.users).users.blocks == (*design.users.blocks, *designs.FACTS)


def test_where_it_does_not_run(split: Split, design: Design, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="backend is 'numpy' with solver 'gibbs', which runs on 'numba' or 'loops'"):
        mf_numpy.fit(split.train, _config(), backend="numpy", design=design)
    monkeypatch.setattr(design_gibbs, "MOST_BYTES", 8 * 39 * 16 - 1)
    for fit in (mf_numpy.fit, mf_torch.fit):
        with pytest.raises(
            ConfigError, match=r"a design of 39 rows, whose normal matrices .* take fewer n_factors \(now 3"
        ):
            fit(split.train, _config(), design=design)


def test_parameters_past_all_numbers_are_a_divergence() -> None:
    train = Ratings.of_indices([1, 0, 0], [1, 0, 1], [1e30, 1e30, -1e30])
    design = design_of(train, Features().id().rated())
    for backend in ("numba", "loops"):
        found = mf_numpy.fit(train, Config(solver="gibbs", n_factors=3), design=design, backend=backend)
        assert found.status == "diverged" and "ratings out of all proportion" in found.message
