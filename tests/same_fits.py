"""Fits that must be one and the same: by one thread and by all, and by every backend."""

from __future__ import annotations

from collections.abc import Iterable

import numba
import pytest

from mf_numpy import Config, FitResult, Ratings, fit
from mf_numpy.check import relative_difference
from mf_numpy.design import Design


def by_one_thread_and_by_all(
    train: Ratings, config: Config, design: Design | None = None
) -> tuple[FitResult, FitResult]:
    """Two fits; the test is skipped where Numba has one thread alone."""
    before = numba.get_num_threads()
    if before == 1:
        pytest.skip("Numba has one thread here")
    try:
        numba.set_num_threads(1)
        one = fit(train, config, design=design)
        numba.set_num_threads(before)
        return one, fit(train, config, design=design)
    finally:
        numba.set_num_threads(before)


def assert_same_bits(one: FitResult, more: FitResult) -> None:
    """Parameters and objectives to the last bit."""
    assert [r.objective for r in one.history] == [r.objective for r in more.history]
    for name, theta in one.params.tensors().items():
        assert theta.tobytes() == more.params.tensors()[name].tobytes()


def assert_same_way(found: Iterable[FitResult], gold: FitResult) -> None:
    """Parameters and history of each are those of the slow reference, to what float64 leaves of many epochs."""
    for result in found:
        for name, theta in result.params.tensors().items():
            assert relative_difference(theta, gold.params.tensors()[name]) < 1e-10, (result.backend, name)
        for mine, expected in zip(result.history, gold.history, strict=True):
            assert mine.objective == pytest.approx(expected.objective, rel=1e-10)
            assert mine.train_rmse == pytest.approx(expected.train_rmse, rel=1e-10)
