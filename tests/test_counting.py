"""Counting sort against NumPy's own, and in no more room than its result."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from mf_numpy import counting
from mf_numpy.ratings import compress


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_rows_are_counted_and_ordered_as_numpy_does(size: int) -> None:
    rows = np.random.default_rng(size).integers(0, 40, size).astype(np.int32)
    counted = counting.counts(rows, 45)
    assert counted.tolist() == np.bincount(rows, minlength=45).tolist()
    starts = counting.begins(counted)
    order = counting.order(rows, starts)
    assert order.dtype == np.int32
    assert order.tolist() == np.argsort(rows, kind="stable").tolist()
    halves = counting.deal(rows, starts, np.arange(size) / 2, np.empty(size, np.float32))
    assert halves.tolist() == (order / 2).tolist()


@pytest.mark.parametrize("size", [0, 1, 2, 5000])
@pytest.mark.parametrize("threads", [1, 2])
def test_dealing_in_parts_is_dealing(size: int, threads: int) -> None:
    rows = np.random.default_rng(size).integers(0, 40, size).astype(np.uint16)
    starts = counting.begins(counting.counts(rows, 45))
    numbers = np.random.default_rng(1).normal(size=size)
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    try:
        dealing = counting.dealing(rows, starts)
    finally:
        numba.set_num_threads(before)
    assert len(dealing.first) == min(threads, before) and dealing.first.dtype == np.int32
    for source in (numbers, -numbers):
        out = dealing(source, np.empty(size, np.float32))
        assert out.tolist() == source.astype(np.float32)[np.argsort(rows, kind="stable")].tolist()


def test_counting_goes_on_past_the_numbers_that_it_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_AT_ONCE", 7)
    rows = np.arange(50) // 3
    assert counting.counts(rows, 20).tolist() == np.bincount(rows, minlength=20).tolist()
    assert counting.is_sorted(rows)
    for at in range(49):
        fallen = rows.copy()
        fallen[at], fallen[at + 1] = 9, 8
        assert not counting.is_sorted(fallen)


def test_ratings_that_are_sorted_are_not_copied() -> None:
    rows, others = np.array([0, 0, 2, 2, 3]), np.array([4, 1, 1, 0, 2])
    view = compress(rows, others, 5)
    assert view.order is None and view.indices is others and view.arranged(rows) is rows
    assert view.indptr.tolist() == [0, 2, 2, 4, 5, 5]
    assert compress(rows[::-1], others, 5).order is not None
