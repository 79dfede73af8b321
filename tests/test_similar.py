"""Neighbours of items and users against a sort of all products, with their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mf_numpy import ConfigError, DataError, similar
from mf_numpy.similar import Measure, nearest
from tests.test_recommend import M, N, table


@pytest.mark.parametrize("at_once", [1, 1 << 23])
@pytest.mark.parametrize("measure", ["cosine", "dot"])
@pytest.mark.parametrize("ties", [False, True])
def test_neighbours_are_the_sorted_list(
    monkeypatch: pytest.MonkeyPatch, ties: bool, measure: Measure, at_once: int
) -> None:
    monkeypatch.setattr(similar, "_SCORES_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 2, (20, 2)).astype(float) if ties else rng.normal(size=(20, 3))
    factors[4] = 0
    rows = np.array([7, 0, 4, 7, 19])
    length = np.sqrt((factors**2).sum(axis=1, keepdims=True))
    unit = np.divide(factors, length, out=np.zeros_like(factors), where=length > 0)
    products = unit @ unit.T if measure == "cosine" else factors @ factors.T
    for n in (1, 5, 19, 25):
        best, values = nearest(factors, rows, n, measure=measure)
        for at, row in enumerate(rows):
            others = sorted(set(range(20)) - {int(row)}, key=lambda i: (-products[row, i], i))[:n]
            # Equal products may differ in a last bit from block to block, and then stand in another order.
            np.testing.assert_allclose(values[at, : len(others)], products[row, others], rtol=1e-12, atol=1e-15)
            assert ties or best[at, : len(others)].tolist() == others or row == 4
            assert row not in best[at] and (best[at, len(others) :] == -1).all()


def test_tables_have_raw_ids_and_titles() -> None:
    result = table(text=True)
    items = result.similar_items("item 3", 4)
    assert list(items.columns) == ["item", "title", "similarity"] and items.index.tolist() == [1, 2, 3, 4]
    at = result.catalogue.item_ids.encode(items["item"])
    assert items["title"].tolist() == [f"Title {i}" for i in at]
    q = result.params.Q
    cosine = q[at] @ q[3] / np.sqrt((q[at] ** 2).sum(axis=1) * (q[3] @ q[3]))
    np.testing.assert_allclose(items["similarity"], cosine, rtol=1e-12)
    assert items["similarity"].is_monotonic_decreasing and 3 not in at
    users = result.similar_users(103, 4, measure="dot")
    assert list(users.columns) == ["user", "similarity"]
    np.testing.assert_allclose(
        users["similarity"], result.params.P[users["user"] - 100] @ result.params.P[3], rtol=1e-12
    )
    assert len(result.similar_users(103, 99)) == len(result.catalogue.user_ids) - 1 == M - 1
    assert len(result.similar_items("item 3", 99)) == N - 1


def test_a_copy_of_an_item_is_most_like_it() -> None:
    rng = np.random.default_rng(1)
    factors = rng.normal(size=(50, 4)).astype(np.float32)
    factors[31] = 2 * factors[8]
    best, values = nearest(factors, np.array([8, 31]), 1)
    assert best.tolist() == [[31], [8]] and values.dtype == np.float32
    np.testing.assert_allclose(values, 1.0, rtol=1e-6)


def test_who_is_unknown_has_no_neighbours() -> None:
    result = table()
    with pytest.raises(DataError, match=r"item 999 was not in the training set, so .* such as \[0, 10, 20\]"):
        result.similar_items(999)
    with pytest.raises(DataError, match=r"user 7 was not in .* one of its users, such as \[100"):
        result.similar_users(7)
    wrong: Any = "cosin"
    with pytest.raises(ConfigError, match="Did you mean 'cosine'"):
        result.similar_items(0, measure=wrong)
    with pytest.raises(ValueError, match="n is 0"):
        result.similar_items(0, 0)
    with pytest.raises(IndexError, match=r"rows\[0\] is -1"):
        nearest(result.params.Q, np.array([-1]), 2)
