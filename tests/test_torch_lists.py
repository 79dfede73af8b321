"""Filtered and diverse lists on the device, and rankings scored from it: the hand-written ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mf_numpy import ConfigError, Holdout, recommend
from mf_numpy.ranking import score_ranking
from mf_torch import MatrixFactorization
from mf_torch import recommend as on_device
from tests.test_recommend import M, N, table

FILTERS: dict[str, dict[str, Any]] = {
    "items": {"items": np.array([7, 2, 9, 2])},
    "mask": {"items": np.arange(N) % 2 == 0},
    "without": {"without": np.array([0, 3])},
    "both": {"items": np.arange(5), "without": np.arange(N) == 4},
    "none left": {"items": np.empty(0, np.int64)},
    "diverse": {"diversity": 0.6},
    "diverse, filtered": {"without": np.array([1, 8]), "diversity": 0.3, "with_seen": True},
}


def _same_lists(device: str, options: dict[str, Any]) -> None:
    result = table()
    users = np.arange(M)
    for n in (1, 4, N + 5):
        model = MatrixFactorization(result.params, device)
        items, values = on_device.top_n(model, result.catalogue, users, n, **options)
        gold = recommend.top_n(result.params, result.catalogue, users, n, **options)
        assert np.array_equal(items, gold[0])
        np.testing.assert_allclose(values, gold[1], rtol=1e-12)


@pytest.mark.parametrize("at_once", [1, 1 << 23])
@pytest.mark.parametrize("name", FILTERS)
def test_lists_are_the_hand_written_ones(monkeypatch: pytest.MonkeyPatch, name: str, at_once: int) -> None:
    monkeypatch.setattr(on_device, "_SCORES_AT_ONCE", at_once)
    _same_lists("cpu", FILTERS[name])


def test_wrong_arguments_are_refused_as_by_hand() -> None:
    result = table()
    model, users = MatrixFactorization(result.params), np.arange(3)
    with pytest.raises(IndexError, match=r"items\[1\] is 11, outside 0\.\.10"):
        on_device.top_n(model, result.catalogue, users, 2, items=np.array([0, N]))
    with pytest.raises(ValueError, match="without is a mask of shape"):
        on_device.top_n(model, result.catalogue, users, 2, without=np.zeros(3, dtype=bool))
    with pytest.raises(ConfigError, match="diversity is 1"):
        on_device.top_n(model, result.catalogue, users, 2, diversity=1)


def _same_scores(device: str) -> None:
    result = table()
    rng = np.random.default_rng(0)
    held = Holdout(rng.integers(0, M, 80), rng.integers(0, N, 80), rng.integers(1, 6, 80))
    model = MatrixFactorization(result.params, device)
    found = score_ranking(on_device.scorer(model), held, result.catalogue.seen, N, threshold=3.0, k=(2, 5))
    gold = result.score_ranking(held, threshold=3.0, k=(2, 5))
    assert found.coverage == gold.coverage
    for name, values in gold.values.items():
        np.testing.assert_allclose(found.values[name], values, rtol=1e-12, err_msg=name)
    assert torch.is_grad_enabled()


def test_rankings_are_scored_from_the_device() -> None:
    _same_scores("cpu")


@pytest.mark.cuda
def test_lists_and_rankings_of_the_gpu() -> None:
    for options in FILTERS.values():
        _same_lists("cuda", options)
    _same_scores("cuda")
