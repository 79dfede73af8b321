"""Diverse lists against the greedy rule in plain loops, and what must hold of them."""

from __future__ import annotations

import numpy as np
import pytest

from mf_numpy import ConfigError, recommend
from mf_numpy.diversity import CANDIDATES, diversify, unit_rows
from mf_numpy.model import Params
from mf_numpy.ratings import Array
from tests.test_recommend import M, N, table


def by_loops(q: Array, items: list[int], scores: list[float], n: int, delta: float) -> list[int]:
    """Carbonell and Goldstein's rule, one candidate after another."""

    def cosine(i: int, j: int) -> float:
        length = np.linalg.norm(q[i]) * np.linalg.norm(q[j])
        return float(q[i] @ q[j] / length) if length else 0.0

    low, high = min(scores), max(scores)
    scaled = {i: (s - low) / (high - low) if high > low else 0.0 for i, s in zip(items, scores, strict=True)}
    chosen: list[int] = []
    while len(chosen) < min(n, len(items)):
        left = [i for i in items if i not in chosen]
        worth = [(1 - delta) * scaled[i] - delta * max((cosine(i, j) for j in chosen), default=0.0) for i in left]
        chosen.append(left[int(np.argmax(worth))])
    return chosen


def drawn(seed: int, lists: int = 20, candidates: int = 15) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(40, 3))
    q[5] = 0
    items = np.array([rng.choice(40, candidates, replace=False) for _ in range(lists)])
    return q, items, -np.sort(-rng.normal(3, 1, (lists, candidates)), axis=1)


@pytest.mark.parametrize("delta", [0.1, 0.5, 0.9])
def test_lists_are_the_greedy_ones(delta: float) -> None:
    q, items, scores = drawn(0)
    items[3, 6:], scores[3, 6:] = -1, -np.inf
    items[4], scores[4] = -1, -np.inf
    scores[7] = 2.0
    best, values = diversify(q, items, scores, 8, delta)
    for row in range(len(items)):
        there = items[row] >= 0
        wanted = by_loops(q, items[row, there].tolist(), scores[row, there].tolist(), 8, delta) if there.any() else []
        assert best[row].tolist() == wanted + [-1] * (8 - len(wanted))
        of = dict(zip(items[row].tolist(), scores[row].tolist(), strict=True))
        assert values[row].tolist() == [of[i] if i >= 0 else -np.inf for i in best[row].tolist()]


def test_more_diversity_makes_items_of_a_list_less_alike() -> None:
    q, items, scores = drawn(1, lists=200)
    unit = unit_rows(q)
    alike, worth = [], []
    for delta in (0.01, 0.3, 0.6, 0.9):
        best, values = diversify(q, items, scores, 5, delta)
        cosines = unit[best] @ unit[best].transpose(0, 2, 1)
        alike.append(cosines[:, *np.triu_indices(5, 1)].mean())
        worth.append(values.mean())
        assert np.array_equal(best[:, 0], items[:, 0])
    assert np.all(np.diff(alike) < 0) and np.all(np.diff(worth) < 0)


def test_the_rating_scale_and_the_lengths_of_factors_do_not_matter() -> None:
    q, items, scores = drawn(2)
    best, _ = diversify(q, items, scores, 6, 0.4)
    again, values = diversify(q * np.linspace(1, 9, 40)[:, None], items, 20 * scores + 100, 6, 0.4)
    assert np.array_equal(best, again)
    assert values.min() > 20


@pytest.mark.parametrize("at_once", [1, 1 << 23])
def test_a_diverse_list_is_chosen_from_ten_times_as_many(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(recommend, "_SCORES_AT_ONCE", at_once)
    result = table()
    users = np.arange(M)
    for n in (1, 3, N + 2):
        candidates = recommend.top_n(result.params, result.catalogue, users, CANDIDATES * n)
        wanted = diversify(result.params.Q, *candidates, n, 0.5)
        got = recommend.top_n(result.params, result.catalogue, users, n, diversity=0.5)
        assert np.array_equal(got[0], wanted[0]) and np.array_equal(got[1], wanted[1])
        plain = recommend.top_n(result.params, result.catalogue, users, n, diversity=0.0)
        assert np.array_equal(plain[0], candidates[0][:, :n])
    # One with few items left gets those, and one with none nothing.
    assert (recommend.top_n(result.params, result.catalogue, np.array([2]), 3, diversity=0.5)[0] == -1).all()


def test_tables_of_known_and_of_unknown_users_are_diverse() -> None:
    """Two kinds of items, the first predicted higher throughout: a diverse list has both."""
    result = table()
    kind = np.repeat([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [6, N - 6], axis=0)
    params = Params(np.ones((M, 3)), kind, np.zeros(M), np.linspace(1, 0, N), mu=3.0)
    for user in (103, 999):
        plain = recommend.recommend(params, result.catalogue, user, 2)["item"] // 10
        mixed = recommend.recommend(params, result.catalogue, user, 2, diversity=0.7)["item"] // 10
        assert (plain < 6).all() and (mixed < 6).tolist() == [True, False]


@pytest.mark.parametrize("diversity", [-0.1, 1.0, float("nan")])
def test_a_diversity_outside_its_range_is_refused(diversity: float) -> None:
    result = table()
    for user in (103, 999):
        with pytest.raises(ConfigError, match=r"diversity is .* below 1"):
            result.recommend(user, diversity=diversity)
