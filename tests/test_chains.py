"""Several chains in one fit: where each begins, which draws are kept, and that all backends and both packages agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mf_numpy
import mf_torch
from mf_numpy import Config, FitResult, Ratings, engine, model, posterior, solvers, store
from mf_numpy.check import relative_difference
from mf_numpy.errors import ConfigError
from mf_numpy.metrics import rmse
from mf_numpy.posterior import Draws
from mf_numpy.split import Split, random_split
from mf_numpy.uncertainty import agreement, chains_of
from tests.test_design_gibbs import _design
from tests.test_gibbs import _bits
from tests.test_probit import _graded

KINDS: dict[str, dict[str, Any]] = {
    "gibbs": {"solver": "gibbs"},
    "graded": {"solver": "gibbs", "loss": "ordinal"},
    "hmc": {"solver": "hmc", "leapfrog_steps": 3},
}


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(_graded(), valid=0.2, seed=1)


def _config(kind: str = "gibbs", **settings: Any) -> Config:
    given: dict[str, Any] = {"n_factors": 3, "dtype": "float64", "burn_in": 2, "chain_length": 5, "n_epochs": 13}
    return Config(**KINDS[kind] | given | settings)


def _draws(result: FitResult) -> Draws:
    assert result.state.draws is not None
    return result.state.draws


def _apart(mine: FitResult, theirs: FitResult) -> float:
    assert len(_draws(mine)) == len(_draws(theirs))
    return max(
        relative_difference(x, b.tensors()[name])
        for a, b in zip(_draws(mine).points, _draws(theirs).points, strict=True)
        for name, x in a.tensors().items()
    )


@pytest.mark.parametrize("with_design", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_chains_are_the_same_by_every_backend_and_in_torch(kind: str, with_design: bool, split: Split) -> None:
    if with_design and kind == "hmc":
        pytest.skip("hmc takes no design")
    given: dict[str, Any] = {"valid": split.valid}
    if with_design:
        split = random_split(_graded(15, 12, 500), valid=0.2)
        given = {"valid": split.valid, "design": _design(split.train)}
    gold = mf_numpy.fit(split.train, _config(kind), backend="loops", **given)
    assert len(_draws(gold)) == 3 + 3 + 1
    for fit in (mf_numpy.fit, mf_torch.fit):
        found = fit(split.train, _config(kind), **given)
        assert _apart(found, gold) < 1e-8
        for a, b in zip(found.history, gold.history, strict=True):
            assert a.valid_rmse == pytest.approx(b.valid_rmse, rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_is_the_one_chain_and_the_next_begins_elsewhere(kind: str, split: Split) -> None:
    train, config = split.train, _config(kind, burn_in=0, n_epochs=7)
    several, one = mf_numpy.fit(train, config), mf_numpy.fit(train, replace(config, chain_length=None))
    for s in range(7):
        same = np.array_equal(_draws(several).points[s].P, _draws(one).points[s].P)
        assert same == (s < 5), s
    # The second chain by hand: a start of its own, moved by the noise of epochs 6 and 7.
    other = replace(config, seed=posterior.seed_of(1, config))
    assert other.seed != config.seed
    machine = solvers.engine_for(config, "numba")
    whole = machine.load(train, config)
    state = machine.start(engine.State(model.start(train, other), epoch=5), whole, config)
    for epoch in (6, 7):
        state = machine.step(state, next(iter(machine.batches(whole, epoch, config))), config)
        state = machine.next_epoch(state)
        np.testing.assert_array_equal(machine.export(state).params.P, _draws(several).points[epoch - 1].P)


def test_no_two_chains_begin_alike() -> None:
    seeds = [posterior.seed_of(chain, _config(seed=seed)) for seed in range(3) for chain in range(20)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [5, 6, 8])
def test_a_saved_fit_goes_on_bit_for_bit(kind: str, stop: int, split: Split, tmp_path: Path) -> None:
    straight = mf_numpy.fit(split.train, _config(kind))
    begun = mf_numpy.fit(split.train, _config(kind, n_epochs=stop))
    store.save(begun, tmp_path / "m.safetensors")
    later = mf_numpy.fit(split.train, _config(kind), resume=store.load(tmp_path / "m.safetensors"))
    assert _bits(later) == _bits(straight)


def test_the_mean_is_over_the_draws_of_all_chains_and_waits_while_one_begins(split: Split) -> None:
    result = mf_numpy.fit(split.train, _config(), valid=split.valid)
    known = split.valid.known
    pairs, values = (split.valid.users[known], split.valid.items[known]), split.valid.values[known]
    each = [model.predict(point, *pairs) for point in _draws(result).points]
    said = [record.valid_rmse for record in result.history]
    for epoch, count in ((5, 3), (6, 3), (7, 3), (8, 4), (10, 6), (12, 6), (13, 7)):
        assert said[epoch - 1] == pytest.approx(rmse(np.mean(each[:count], axis=0) - values)), epoch
    raw = split.train.user_ids.raw[pairs[0]], split.train.item_ids.raw[pairs[1]]
    np.testing.assert_allclose(result.predict(*raw).values, np.mean(each, axis=0))


def test_every_second_draw_of_each_chain_is_kept(split: Split, tmp_path: Path) -> None:
    config = _config(chain_length=7, n_epochs=17, thin=2)
    assert [epoch for epoch in range(1, 18) if posterior.is_kept(epoch, config)] == [4, 6, 11, 13]
    result = mf_numpy.fit(split.train, config, draws_to=tmp_path / "draws")
    assert len(_draws(result)) == posterior.n_kept(17, config) == 4


def test_chains_are_told_apart(split: Split) -> None:
    result = mf_numpy.fit(split.train, _config(chain_length=24, n_epochs=60))
    first, second = chains_of(_draws(result), result.config)
    assert len(first) == len(second) == 22 and len(_draws(result)) == 22 * 2 + 10
    assert second.points[0] is _draws(result).points[22]
    found = agreement([first, second], split.valid.users[:50], split.valid.items[:50])
    assert found.draws <= 44
    assert chains_of(first, _config(chain_length=None)) == [first]


def test_a_chain_that_ends_before_its_draws_begin() -> None:
    with pytest.raises(
        ConfigError, match="chain_length is 20 with burn_in 20 and thin 1, which leaves no draw of a chain"
    ):
        Config(solver="gibbs", chain_length=20)
    with pytest.raises(ConfigError, match="thin 20, which leaves no draw of a chain; take 40 or more"):
        Config(solver="gibbs", chain_length=39, thin=20)
    with pytest.raises(ConfigError, match="chain_length is 30 with solver 'als'; leave it out, or take 'gibbs'"):
        Config(solver="als", chain_length=30)
    with pytest.raises(ConfigError, match="chain_length is 0, but must be a whole number, 1 or larger"):
        Config(solver="gibbs", chain_length=0)


def test_epochs_that_add_no_draw_are_told(split: Split) -> None:
    said = [mf_numpy.fit(split.train, _config(n_epochs=n)).message for n in (2, 5, 7, 8)]
    assert "the first draw would be kept in epoch 3: this is the chain's last point" in said[0]
    assert "the last chain ended before its first draw, which would be kept in its epoch 3, and added none" in said[2]
    thinned = mf_numpy.fit(split.train, _config(n_epochs=5, chain_length=None, thin=4))
    assert "the first draw would be kept in epoch 6" in thinned.message and not thinned.draws
    assert said[1] == "ran all 5 epochs" and said[3] == "ran all 8 epochs"


def test_a_table_of_two_ratings() -> None:
    train = Ratings.of_indices([0, 1], [0, 1], [3.0, 4.0])
    assert mf_numpy.fit(train, _config(n_epochs=20)).status == "max_epochs"


def test_the_command_line_takes_several_and_says_whether_they_agree(data: str, mf: Any) -> None:
    settings = ("--solver", "gibbs", "--n-factors", "2", "--n-epochs", "60", "--burn-in", "5", "--chain-length", "20")
    assert mf("fit", data, *settings)[0] == 0
    assert store.load("model.safetensors").config.chain_length == 20
    code, out, _ = mf("evaluate", "model.safetensors", data)
    assert code == 0 and "3 chains: " in out and ("they agree" in out or "split-R̂ is" in out)
