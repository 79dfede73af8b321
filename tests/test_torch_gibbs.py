"""The Gibbs sampler in torch is the one by hand, sweep by sweep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import mf_numpy
import mf_torch
from mf_numpy import Config, Ratings
from mf_numpy.check import relative_difference
from mf_numpy.errors import ConfigError
from mf_numpy.model import Params
from mf_numpy.split import Split, random_split
from mf_torch.gibbs import BothSides, GibbsEngine
from mf_torch.gibbs_groups import FILL
from tests.test_gibbs import _ratings

SWEEPS = 50


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(_ratings(), valid=0.2, seed=1)


def _config(**settings: Any) -> Config:
    about = {"solver": "gibbs", "n_factors": 3, "n_epochs": SWEEPS, "burn_in": 0, "dtype": "float64"}
    return Config(**{**about, **settings})


def _same(mine: Params, theirs: Params) -> float:
    tensors = theirs.tensors()
    return max(relative_difference(x, tensors[name]) for name, x in mine.tensors().items())


def _check_chains(split: Split, config: Config, device: str = "cpu") -> None:
    by_hand = mf_numpy.fit(split.train, config, valid=split.valid)
    by_torch = mf_torch.fit(split.train, config, valid=split.valid, device=device)
    one, two = by_hand.state.draws, by_torch.state.draws
    assert one is not None and two is not None and len(one) == len(two) == SWEEPS
    # Every sweep, not the last one alone: burn_in is 0, and each draw is kept.
    assert max(_same(a, b) for a, b in zip(two.points, one.points, strict=True)) < 1e-8
    np.testing.assert_allclose(two.precisions, one.precisions, rtol=1e-8)
    for a, b in zip(by_torch.history, by_hand.history, strict=True):
        assert (a.objective, a.train_rmse, a.valid_rmse) == pytest.approx(
            (b.objective, b.train_rmse, b.valid_rmse), rel=1e-8
        )
    assert _same(by_torch.params, by_hand.params) < 1e-8


@pytest.mark.parametrize("model", ["biased", "plain"])
def test_chains_are_equal_step_by_step(model: str, split: Split) -> None:
    _check_chains(split, _config(model=model))


@pytest.mark.cuda
@pytest.mark.parametrize("model", ["biased", "plain"])
def test_chains_are_equal_on_cuda(model: str, split: Split) -> None:
    _check_chains(split, _config(model=model), "cuda")


def test_a_chain_begun_by_hand_goes_on_in_torch(split: Split) -> None:
    straight = mf_numpy.fit(split.train, _config(n_epochs=8), valid=split.valid)
    begun = mf_numpy.fit(split.train, _config(n_epochs=3), valid=split.valid)
    went_on = mf_torch.fit(split.train, _config(n_epochs=8), valid=split.valid, resume=begun)
    assert _same(went_on.params, straight.params) < 1e-10
    assert went_on.history[-1].valid_rmse == pytest.approx(straight.history[-1].valid_rmse)


def test_float32_chains_begin_alike(split: Split) -> None:
    """One sweep: later ones amplify what float32 rounds. The bound is that of `test_gibbs`."""
    config = _config(n_epochs=1, dtype="float32", n_factors=5)
    by_hand, by_torch = mf_numpy.fit(split.train, config), mf_torch.fit(split.train, config)
    assert by_torch.params.P.dtype == np.float32
    assert _same(by_torch.params, by_hand.params) < 40 * (3 * 5 + 4 + 256) * float(np.finfo(np.float32).eps)


def test_groups_hold_every_rating_once_and_little_else() -> None:
    train, config = _ratings(300, 200, 20_000), _config()
    whole = GibbsEngine().load(train, config)
    assert isinstance(whole, BothSides) and len(whole) == len(train)
    for groups, own, others, length in (
        (whole.user, train.users, train.items, train.n_users),
        (whole.item, train.items, train.users, train.n_items),
    ):
        rows = np.concatenate([np.repeat(g.rows.numpy(), g.weight.sum(1).int().numpy()) for g in groups])
        there = [g.weight.numpy() > 0 for g in groups]
        partners = np.concatenate([g.others.numpy()[at] for g, at in zip(groups, there, strict=True)])
        left = np.concatenate([g.left.numpy()[at] for g, at in zip(groups, there, strict=True)])
        key = np.lexsort((left, partners, rows))
        gold = np.lexsort((train.values - train.mean, others, own))
        np.testing.assert_array_equal(rows[key], own[gold])
        np.testing.assert_array_equal(partners[key], others[gold])
        np.testing.assert_allclose(left[key], (train.values - train.mean)[gold])
        assert sorted(np.concatenate([g.rows.numpy() for g in groups])) == list(range(length))
        assert sum(g.others.numel() for g in groups) <= FILL * len(train) + 64 * len(groups)


@pytest.mark.parametrize("given", [{"path": "sparse"}, {"graph": True}, {"storage": "float16"}, {"sparse_grad": True}])
def test_what_the_chain_in_torch_does_not_take(given: dict[str, Any], split: Split) -> None:
    with pytest.raises(ConfigError, match="solver is 'gibbs' with a path"):
        mf_torch.fit(split.train, _config(), **given)


def test_a_table_with_rows_that_have_no_rating() -> None:
    train = Ratings.of_indices([1, 0], [1, 0], [3.0, 4.0], m=3, n=4)
    config = replace(_config(), n_epochs=3)
    assert _same(mf_torch.fit(train, config).params, mf_numpy.fit(train, config).params) < 1e-10
