"""Chunks of rows that threads take: of about the same cost, each once, and an error in one comes out."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from mf_numpy.kernels import als
from mf_numpy.kernels.compiling import over_rows


def test_chunks_cost_about_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(als, "LEAST_CHUNK", 4096)
    indptr = np.concatenate([[0], np.cumsum([5000, *[1] * 5000, 0, 300])]).astype(np.int64)
    bounds = als.chunks(indptr, 9)
    assert bounds[0] == 0 and bounds[-1] == len(indptr) - 1 and (np.diff(bounds) >= 0).all()
    # Nine factors are worth three ratings more a row; one row of 5,000 is more than its share, and stays whole.
    cost = np.diff(indptr[bounds]) + 4 * np.diff(bounds)
    assert len(cost) == cost.sum() // als.LEAST_CHUNK == 7
    assert (np.delete(cost, 0) < cost.sum() / len(cost) + 304).all()
    # More rows than that cut into more chunks, and few ratings are one.
    assert len(als.chunks(np.arange(10**6) * 10, 9)) == als.CHUNKS + 1
    assert len(als.chunks(np.arange(50) * 10, 9)) == 2


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_chunk_has_its_turn_once_and_an_error_comes_out(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba, "get_num_threads", lambda: threads)
    seen: list[int] = []
    over_rows(lambda first, last, more: seen.extend(range(first, last)), np.array([0, 3, 3, 10, 11]), "more")
    assert sorted(seen) == list(range(11))

    def failing(first: int, last: int) -> None:
        if last == 11:
            raise ArithmeticError("no")

    with pytest.raises(ArithmeticError, match="no"):
        over_rows(failing, np.array([0, 3, 10, 11]))
