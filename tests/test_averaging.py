"""The mean over epochs: what it is, in both packages, how a fit goes on from one, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import mf_numpy
import mf_torch
from bench import accuracy_worker
from mf_numpy import Config, Features, FitResult, design_of, store
from mf_numpy.check import relative_difference
from mf_numpy.errors import ConfigError, FileFormatError
from mf_numpy.files import read_header
from mf_numpy.model import Params
from mf_numpy.split import Split, random_split
from tests.test_probit import _graded

SOLVERS: dict[str, dict[str, Any]] = {
    "gd": {"lr": 2.0},
    "mini-batches": {"solver": "gd", "lr": 2.0, "batch_size": 50},
    "adam": {"solver": "gd", "step_rule": "adam"},
    "sgd": {},
    "als": {},
    "cd": {},
    "lbfgs": {},
    "ordinal": {"solver": "gd", "loss": "ordinal", "lr": 2.0},
}


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(_graded(), valid=0.2, seed=1)


def _config(kind: str = "gd", **settings: Any) -> Config:
    given: dict[str, Any] = {"solver": kind, "n_factors": 3, "dtype": "float64", "n_epochs": 7, "average_from": 4}
    return Config(**given | SOLVERS[kind] | settings)


def _ends(split: Split, config: Config, **how: Any) -> list[Params]:
    """The parameters after each epoch from the fourth on, by fits that end there."""
    alone = replace(config, average_from=None)
    each = [mf_numpy.fit(split.train, replace(alone, n_epochs=epoch), **how) for epoch in range(4, config.n_epochs + 1)]
    return [one.of_features or one.params for one in each]


def _mean(each: list[Params]) -> dict[str, Any]:
    return {name: np.mean([one.tensors()[name] for one in each], axis=0) for name in each[0].tensors()}


def _apart(mine: Params, theirs: dict[str, Any]) -> float:
    return max(relative_difference(x, theirs[name]) for name, x in mine.tensors().items())


def _bits(result: FitResult) -> list[bytes]:
    average = result.state.average
    parts = [result.params, result.state.params]
    means = [] if average is None else [x.tobytes() for x in average.tensors.values()]
    return [x.tobytes() for part in parts for x in part.tensors().values()] + means


@pytest.mark.parametrize("kind", SOLVERS)
def test_it_is_the_mean_of_the_ends_of_epochs(kind: str, split: Split) -> None:
    config = _config(kind)
    result = mf_numpy.fit(split.train, config, valid=split.valid)
    assert _apart(result.params, _mean(_ends(split, config))) < 1e-10
    assert result.state.average is not None and result.state.average.count == 4
    assert relative_difference(result.params.P, result.state.params.P) > 1e-6
    assert result.history[-1].valid_rmse == pytest.approx(result.score(split.valid).rmse, rel=1e-12)


@pytest.mark.parametrize("kind", ["gd", "mini-batches", "adam", "ordinal"])
@pytest.mark.parametrize("with_design", [False, True])
def test_both_packages_agree(kind: str, with_design: bool, split: Split) -> None:
    if with_design and kind == "ordinal":
        pytest.skip("it takes no design by descent")
    design = design_of(split.train, users=Features().id().rated()) if with_design else None
    config = _config(kind)
    given: dict[str, Any] = {"valid": split.valid, "design": design}
    gold = mf_numpy.fit(split.train, config, **given)
    found = mf_torch.fit(split.train, config, **given)
    assert _apart(found.params, gold.params.tensors()) < 1e-8
    assert _apart(gold.of_features or gold.params, _mean(_ends(split, config, design=design))) < 1e-10
    assert [a.valid_rmse for a in found.history] == pytest.approx([b.valid_rmse for b in gold.history], rel=1e-8)


@pytest.mark.parametrize("fit", [mf_numpy.fit, mf_torch.fit])
@pytest.mark.parametrize("first", [2, 4, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fit_goes_on_bit_for_bit(fit: Any, first: int, dtype: str, split: Split, tmp_path: Path) -> None:
    config = _config(dtype=dtype)
    whole = fit(split.train, config)
    store.save(fit(split.train, replace(config, n_epochs=first)), tmp_path / "m.safetensors")
    half = store.load(tmp_path / "m.safetensors")
    assert (half.state.average is None) == (first < 4)
    assert _bits(fit(split.train, config, resume=half)) == _bits(whole)
    store.save(whole, tmp_path / "m.safetensors")
    assert _bits(store.load(tmp_path / "m.safetensors")) == _bits(whole)


def test_new_ratings_begin_a_mean_of_their_own(split: Split) -> None:
    result = mf_numpy.fit(split.train, _config())
    more = mf_numpy.partial_fit(result, split.train.take(np.arange(len(split.train)) < 60), n_epochs=3)
    assert more.state.epoch == 10 and more.state.average is not None and more.state.average.count == 3


def test_the_best_epoch_is_the_best_mean(split: Split) -> None:
    config = _config("sgd", lr=0.05, n_epochs=80, patience=5)
    result = mf_numpy.fit(split.train, config, valid=split.valid)
    best = min(record.valid_rmse or np.inf for record in result.history)
    assert result.status == "stopped" and "are kept" in result.message
    assert result.score(split.valid).rmse == pytest.approx(best, rel=1e-12)


def test_a_fit_that_ends_before_the_mean_begins_says_so(split: Split) -> None:
    result = mf_numpy.fit(split.train, _config(average_from=9))
    assert result.message == "ran all 7 epochs; no epoch is averaged, as average_from is 9"
    assert result.params is result.state.params


@pytest.mark.parametrize("kind", ["gd", "sgd"])
def test_a_fit_that_diverges_keeps_the_mean_before(kind: str, split: Split) -> None:
    result = mf_numpy.fit(split.train, _config(kind, lr=500.0, n_epochs=60, average_from=1), valid=split.valid)
    assert result.status == "diverged"
    assert all(np.isfinite(x).all() for x in result.params.tensors().values())


def test_what_is_refused(split: Split, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="average_from is 3 with solver 'gibbs'; leave it out, or take 'gd' or 'sgd'"):
        Config(solver="gibbs", average_from=3)
    with pytest.raises(ConfigError, match="average_from is 0, but must be a whole number, 1 or larger"):
        Config(average_from=0)
    assert Config(average_from=3).with_solver("gibbs").average_from is None
    path = tmp_path / "m.safetensors"
    store.save(mf_numpy.fit(split.train, _config()), path)
    tensors, metadata = load_file(path), read_header(path, store._KIND)[0]
    for name, value, said in (
        ("average.P", tensors["average.P"][:-1], "'average.P' has shape"),
        ("average.c", tensors["average.c"].astype(np.float32), "'average.c' has dtype float32"),
    ):
        save_file(tensors | {name: value}, path, metadata)
        with pytest.raises(FileFormatError, match=said):
            store.load(path)
    save_file(tensors, path, metadata | {"averaged": "0"})
    with pytest.raises(FileFormatError, match="its mean is of 0 epochs"):
        store.load(path)
    del metadata["averaged"]
    save_file(tensors, path, metadata)
    with pytest.raises(FileFormatError, match="it lacks 'averaged'"):
        store.load(path)


def test_the_benchmark_scores_the_mean(split: Split) -> None:
    config, scale = _config("sgd"), split.train.scale
    points, predictions = accuracy_worker.fitted(split.train, split.valid, config, "numba", [3, 7], scale)
    result = mf_numpy.fit(split.train, config)
    known = split.valid.known
    ids = result.catalogue
    users, items = ids.user_ids.raw[split.valid.users[known]], ids.item_ids.raw[split.valid.items[known]]
    np.testing.assert_allclose(predictions[7], result.predict(users, items).values, rtol=1e-12)
    assert [point["epochs"] for point in points] == [3, 7]
