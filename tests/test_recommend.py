"""Top-N lists against a sort of all scores, and what is said of users nobody has seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mf_numpy import Config, DataError, IdMap, Ratings, fit, recommend
from mf_numpy.model import Params
from mf_numpy.result import Catalogue, FitResult

M, N = 14, 11


def table(model: Any = "biased", *, text: bool = False) -> FitResult:
    rng = np.random.default_rng(5)
    users, items = rng.integers(0, M - 1, 60), rng.integers(0, N, 60)
    users[:N] = 2  # rates everything
    items[:N] = np.arange(N)
    users[N:], items[N:] = np.where(users[N:] == 3, 4, users[N:]), items[N:]
    users[N], items[N] = 3, 6  # rates one thing
    item_ids = IdMap(np.array([f"item {i}" for i in range(N)], dtype=object) if text else np.arange(N) * 10)
    info = pd.DataFrame({"title": [f"Title {i}" for i in range(N)]}, index=pd.Index(item_ids.raw))
    ratings = Ratings(users, items, rng.integers(1, 6, 60), IdMap(np.arange(M) + 100), item_ids, item_info=info)
    return fit(ratings, Config(model=model, n_factors=3, n_epochs=5, lr=2.0, dtype="float64"), backend="numpy")


def tied(catalogue: Catalogue) -> tuple[Params, Catalogue]:
    """Few distinct scores, exact in binary, so that most are ties."""
    rng = np.random.default_rng(1)
    p, q = rng.integers(0, 2, (M, 2)).astype(float), rng.integers(0, 2, (N, 2)).astype(float)
    return Params(p, q), catalogue


def brute(params: Params, catalogue: Catalogue, user: int, n: int, with_seen: bool) -> list[tuple[int, float]]:
    b, c = (np.zeros(M), np.zeros(N)) if params.b is None or params.c is None else (params.b, params.c)
    scores = {i: float(params.mu + b[user] + c[i] + params.P[user] @ params.Q[i]) for i in range(N)}
    seen = catalogue.seen
    rated = set(seen.indices[seen.indptr[user] : seen.indptr[user + 1]].tolist())
    allowed = [i for i in scores if with_seen or i not in rated]
    return [(i, scores[i]) for i in sorted(allowed, key=lambda i: (-scores[i], i))[:n]]


@pytest.mark.parametrize("at_once", [1, 3 * N, 1 << 23])
@pytest.mark.parametrize("with_seen", [False, True])
@pytest.mark.parametrize("n", [1, 4, N, N + 5])
@pytest.mark.parametrize("kind", ["plain", "biased", "ties"])
def test_top_n_is_the_sorted_list(
    monkeypatch: pytest.MonkeyPatch, kind: str, n: int, with_seen: bool, at_once: int
) -> None:
    monkeypatch.setattr(recommend, "_SCORES_AT_ONCE", at_once)
    result = table("plain" if kind == "plain" else "biased")
    params, catalogue = tied(result.catalogue) if kind == "ties" else (result.params, result.catalogue)
    users = np.array([5, 2, 3, 13, 2, *range(M)])
    items, values = recommend.top_n(params, catalogue, users, n, with_seen=with_seen)
    assert items.shape == values.shape == (len(users), n)
    for row, user in enumerate(users):
        wanted = brute(params, catalogue, user, n, with_seen)
        assert items[row, : len(wanted)].tolist() == [i for i, _ in wanted]
        np.testing.assert_allclose(values[row, : len(wanted)], [score for _, score in wanted], rtol=1e-12)
        assert (items[row, len(wanted) :] == -1).all()
        assert np.isneginf(values[row, len(wanted) :]).all()


def test_who_has_rated_everything_gets_nothing_new() -> None:
    result = table()
    assert len(result.recommend(102)) == 0
    assert len(result.recommend(102, 4, with_seen=True)) == 4


def test_table_has_raw_ids_titles_and_predictions() -> None:
    for text in (False, True):
        result = table(text=text)
        best = result.recommend(103, 3)
        assert list(best.columns) == ["item", "title", "predicted"]
        assert best.index.tolist() == [1, 2, 3]
        at = result.catalogue.item_ids.encode(best["item"])
        assert best["title"].tolist() == [f"Title {i}" for i in at]
        again = result.predict([103] * 3, best["item"]).values
        np.testing.assert_allclose(best["predicted"], again, rtol=1e-12)
        assert 6 not in at


def test_no_titles_no_column() -> None:
    result = table()
    bare = replace(result, catalogue=replace(result.catalogue, titles=None))
    assert list(bare.recommend(103).columns) == ["item", "predicted"]


def test_unknown_user_gets_the_highest_biases() -> None:
    result = table()
    c = result.params.c
    assert c is not None
    best = result.recommend(999, 4)
    order = np.argsort(-c, kind="stable")[:4]
    assert best["item"].tolist() == (order * 10).tolist()
    np.testing.assert_allclose(best["predicted"], result.catalogue.mean + c[order], rtol=1e-12)


def test_unknown_user_of_the_plain_model_is_an_error() -> None:
    with pytest.raises(DataError, match=r"user 999 .* train with model='biased'"):
        table("plain").recommend(999)


def test_wrong_arguments() -> None:
    result = table()
    with pytest.raises(ValueError, match="n is 0"):
        recommend.top_n(result.params, result.catalogue, np.array([0]), 0)
    with pytest.raises(IndexError, match=r"outside 0\.\.13"):
        recommend.top_n(result.params, result.catalogue, np.array([-1]), 3)
    with pytest.raises(DataError, match="got strings"):
        result.recommend("103")


FILTERS: dict[str, tuple[Any, Any]] = {
    "items": (np.array([7, 2, 9, 2]), None),
    "mask": (np.arange(N) % 2 == 0, None),
    "without": (None, np.array([0, 3])),
    "both": (np.arange(5), np.arange(N) == 4),
    "none left": (np.empty(0, np.int64), None),
}


@pytest.mark.parametrize("with_seen", [False, True])
@pytest.mark.parametrize("name", FILTERS)
def test_filtered_lists_are_the_sorted_list_of_what_is_left(name: str, with_seen: bool) -> None:
    result = table()
    items, without = FILTERS[name]
    kept = set(range(N) if items is None else np.arange(N)[items].tolist())
    kept -= set() if without is None else set(np.arange(N)[without].tolist())
    found, values = recommend.top_n(
        result.params, result.catalogue, np.arange(M), 4, with_seen=with_seen, items=items, without=without
    )
    for user in range(M):
        wanted = [(i, s) for i, s in brute(result.params, result.catalogue, user, N, with_seen) if i in kept][:4]
        assert found[user].tolist() == [i for i, _ in wanted] + [-1] * (4 - len(wanted))
        np.testing.assert_allclose(values[user, : len(wanted)], [score for _, score in wanted], rtol=1e-12)


@pytest.mark.parametrize("text", [False, True])
def test_tables_are_filtered_by_raw_ids_or_masks(text: bool) -> None:
    result = table(text=text)
    name = "item {}" if text else "{}0"

    def raw(*items: int) -> list[Any]:
        return [name.format(i) if text else 10 * i for i in items]

    for user in (103, 999):
        assert set(result.recommend(user, items=raw(1, 2, 8))["item"]) == set(raw(1, 2, 8))
        assert set(result.recommend(user, items=(i for i in raw(1, 2, 8)), without=raw(2))["item"]) == set(raw(1, 8))
        assert set(result.recommend(user, items=np.arange(N) == 5)["item"]) == set(raw(5))
        assert len(result.recommend(user, 99, without=pd.Series(raw(5)), with_seen=True)) == N - 1


def test_unknown_items_in_a_filter_are_an_error() -> None:
    result = table()
    with pytest.raises(DataError, match=r"2 of 3 items not in the training set, such as 7; .* such as \[0, 10, 20\]"):
        result.recommend(103, items=[0, 7, 8])
    with pytest.raises(DataError, match="1 of 1 item not in the training set, such as 777"):
        result.recommend(999, without=[777])
    with pytest.raises(DataError, match="got strings"):
        result.recommend(103, items=["0"])
    with pytest.raises(ValueError, match=r"items is a mask of shape \(3,\); give a truth value for each of 11 items"):
        result.recommend(103, items=np.ones(3, dtype=bool))
    with pytest.raises(IndexError, match=r"without\[0\] is -1, outside"):
        recommend.top_n(result.params, result.catalogue, np.array([0]), 3, without=np.array([-1]))
