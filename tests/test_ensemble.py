"""Several fits as one model: it predicts their mean, is saved and asked like others, and refuses what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mf_torch
from bench import accuracy_worker
from mf_numpy import Config, Features, FitResult, Ratings, design_of, ensemble, fit, store
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.split import Split, random_split
from tests.test_probit import _graded


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(_graded(), valid=0.2, seed=1)


def _fits(split: Split, count: int = 3, **settings: Any) -> list[FitResult]:
    design = settings.pop("design", None)
    given: dict[str, Any] = {"solver": "sgd", "n_factors": 2, "n_epochs": 5, "dtype": "float64"}
    config = Config(**given | settings)
    return [fit(split.train, replace(config, seed=seed), design=design) for seed in range(count)]


def _pairs(result: FitResult) -> tuple[Any, Any]:
    return result.catalogue.user_ids.raw[[0, 1, 2, 3, 3]], result.catalogue.item_ids.raw[[4, 3, 2, 1, 0]]


@pytest.mark.parametrize("settings", [{}, {"model": "plain"}, {"solver": "als"}, {"solver": "gd"}])
def test_it_predicts_the_mean_and_is_saved(settings: dict[str, Any], split: Split, tmp_path: Path) -> None:
    members = _fits(split, **settings)
    whole = ensemble(members)
    pairs = _pairs(whole)
    mean = np.mean([one.predict(*pairs).values for one in members], axis=0)
    assert whole.params.P.shape[1] == whole.config.n_factors == 6
    np.testing.assert_allclose(whole.predict(*pairs).values, mean, rtol=1e-12)
    store.save(whole, tmp_path / "m.safetensors")
    again = store.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.predict(*pairs).values, whole.predict(*pairs).values)
    assert again.recommend(pairs[0][0], n=3).equals(whole.recommend(pairs[0][0], n=3))


def test_those_of_torch_and_those_over_features_are_means_too(split: Split) -> None:
    design = design_of(split.train, users=Features().id().rated())
    for members in (
        _fits(split, design=design, solver="gd"),
        [mf_torch.fit(split.train, Config(n_factors=2, n_epochs=3))],
    ):
        whole = ensemble(members)
        mean = np.mean([one.predict(*_pairs(whole)).values for one in members], axis=0)
        np.testing.assert_allclose(whole.predict(*_pairs(whole)).values, mean, rtol=1e-6)
        assert (whole.of_features is None) == (members[0].design is None)


def test_scores_of_grades_are_averaged(split: Split) -> None:
    members = _fits(split, loss="ordinal")
    whole = ensemble(members)
    cuts = [one.params.cuts.points for one in members if one.params.cuts is not None]
    assert whole.params.cuts is not None
    np.testing.assert_allclose(whole.params.cuts.points, np.mean(cuts, axis=0))


def test_nobody_is_folded_in_and_no_training_goes_on(split: Split) -> None:
    whole = ensemble(_fits(split))
    assert whole.is_mean and not _fits(split, 1)[0].is_mean
    with pytest.raises(ConfigError, match="a mean over draws or over fits, whose rows stand for no single J"):
        whole.fold_in_user({0: 3.0})
    with pytest.raises(ConfigError, match="cannot resume: the model is the mean of several fits"):
        fit(split.train, replace(whole.config, n_epochs=9), resume=whole)
    with pytest.raises(DataError, match="the mean of several fits, whose rows are no prior"):
        whole.suggest_items_to_rate(3)


def test_what_is_no_ensemble(split: Split) -> None:
    one, other = _fits(split, 2)
    few = Ratings.of_indices([0, 1], [0, 1], [3.0, 4.0])
    wrong: tuple[tuple[Any, type[Exception], str], ...] = (
        ([], ConfigError, "no list of fits came"),
        (one, ConfigError, "no list of fits came"),
        ([one, 3], ConfigError, "fit 1 is 3; give what fit returned"),
        ([one, replace(other, status="diverged")], ConfigError, "fit 1 diverged"),
        (_fits(split, 1, solver="gibbs"), ConfigError, "for several chains set chain_length"),
        ([one, *_fits(split, 1, model="plain")], ConfigError, "model of fit 1 is 'plain', and of fit 0 'biased'"),
        ([one, *_fits(split, 1, dtype="float32")], ConfigError, "dtype of fit 1 is 'float32'"),
        ([one, fit(few, one.config)], DataError, "fit 1 is of other users or items"),
        (
            [one, *_fits(split, 1, solver="gd", design=design_of(split.train, users=Features().id().rated()))],
            ConfigError,
            "fit 1 has another design",
        ),
    )
    for members, kind, problem in wrong:
        with pytest.raises(kind, match=problem):
            ensemble(members)


def test_a_measurement_scores_the_mean_and_adds_up_the_seconds(split: Split) -> None:
    config = Config(solver="sgd", n_factors=2, n_epochs=6)
    each = [
        accuracy_worker.fitted(split.train, split.valid, replace(config, seed=k), "numba", [2, 4, 6], (0.5, 5.0))
        for k in range(3)
    ]
    points, predictions = accuracy_worker.together(each, split.valid, (0.5, 5.0))
    assert [point["epochs"] for point in points] == [2, 4, 6]
    for point in points:
        epoch = point["epochs"]
        mean = np.mean([one[1][epoch] for one in each], axis=0)
        np.testing.assert_array_equal(predictions[epoch], mean)
        away = np.clip(mean, 0.5, 5.0) - split.valid.values[split.valid.known]
        assert point["rmse"] == pytest.approx(np.sqrt(np.mean(away**2)))
        seconds = [next(p["seconds"] for p in one[0] if p["epochs"] == epoch) for one in each]
        assert point["seconds"] == pytest.approx(sum(seconds))
