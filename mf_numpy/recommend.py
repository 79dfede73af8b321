"""Top-N items of users: scores over all items in blocks, without the items already rated, and only those asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mf_numpy.diversity import CANDIDATES, check_diversity, diversify
from mf_numpy.errors import DataError, counted
from mf_numpy.model import Params, check_range
from mf_numpy.ratings import Array, IdMap, Layout

if TYPE_CHECKING:
    from mf_numpy.result import Catalogue

_SCORES_AT_ONCE = 1 << 23


def score_all(params: Params, users: Array) -> Array:
    """r̂ of every item for `users` (B,): (B, n), by one matrix product (Eq. 1)."""
    k = params.P.shape[1]
    scores = np.empty((len(users), len(params.Q)), params.P.dtype)
    # Of a mean over draws a row has many factors.
    for begin in range(0, len(users), size := max(1, _SCORES_AT_ONCE // max(1, k))):
        part = slice(begin, begin + size)
        scores[part] = params.P[users[part]] @ params.Q.T + params.mu
    if params.b is not None and params.c is not None:
        scores += params.b[users][:, None] + params.c
    return scores


def top_n(
    params: Params,
    catalogue: Catalogue,
    users: Array,
    n: int,
    *,
    with_seen: bool = False,
    items: Array | None = None,
    without: Array | None = None,
    diversity: float = 0.0,
    score: Callable[[Array], Array] | None = None,
) -> tuple[Array, Array]:
    """Best items of many users: indices (B, n) int64 and predictions (B, n), best first.

    Ties go to the smaller index. Where a user has fewer than n unrated items the rest is index -1 and -inf.

    Args:
        items: the only items to rank: indices, or a mask (n_items,) bool; all if None.
        without: items to leave out, likewise.
        diversity: in [0, 1): how much it counts that the items of a list differ; see `mf_numpy.diversity`. The list
            is then in the order in which they were chosen.
        score: what items are ranked by, users (B,) → (B, n_items); `score_all` if None.

    Raises:
        ConfigError: a diversity outside [0, 1).
        IndexError: a user index outside 0..m-1, or an item index outside 0..n_items-1.
        ValueError: n below 1, or a mask of another length.
    """
    m, n_items, k = params.shape
    check_range("users", users, m)
    check_length(n)
    check_diversity(diversity)
    hidden = hidden_items(n_items, items, without)
    best = np.full((len(users), n), -1, dtype=np.int64)
    values = np.full((len(users), n), -np.inf, dtype=params.P.dtype)
    width = max(n_items, CANDIDATES * n * k) if diversity else n_items
    size = max(1, _SCORES_AT_ONCE // max(1, width))
    for begin in range(0, len(users), size):
        block = users[begin : begin + size]
        scores = (score or partial(score_all, params))(block)
        if not with_seen:
            leave_out_seen(scores, catalogue.seen, block)
        order, found = _lists(scores, params.Q, n, hidden, diversity)
        best[begin : begin + size, : order.shape[1]] = order
        values[begin : begin + size, : order.shape[1]] = found
    return best, values


def recommend(
    params: Params,
    catalogue: Catalogue,
    user: Any,
    n: int = 10,
    *,
    with_seen: bool = False,
    items: Iterable[Any] | None = None,
    without: Iterable[Any] | None = None,
    diversity: float = 0.0,
    score: Callable[[Array], Array] | None = None,
) -> pd.DataFrame:
    """A table of the best `n` items of one user (raw id): ``item``, ``title`` when known, ``predicted``.

    A user nobody has seen gets the items with the highest bias, or, in the plain model, an error.

    Args:
        items: the only items to rank: raw ids, or a mask (n_items,) bool; all if None.
        without: items to leave out, likewise.
        diversity, score: as in `top_n`; -1 stands for a user nobody has seen.

    Raises:
        ConfigError: a diversity outside [0, 1).
        DataError: an unknown user in the plain model, where nothing can be said (cold start), or an unknown item.
        ValueError: n below 1, or a mask of another length.
    """
    at = known_items(catalogue.item_ids, items), known_items(catalogue.item_ids, without)
    index = int(catalogue.user_ids.encode([user])[0])
    if index >= 0:
        best, values = (
            x[0]
            for x in top_n(
                params,
                catalogue,
                np.array([index]),
                n,
                with_seen=with_seen,
                items=at[0],
                without=at[1],
                diversity=diversity,
                score=score,
            )
        )
    elif params.c is not None:
        check_length(n)
        check_diversity(diversity)
        scores = params.mu + params.c[None] if score is None else score(np.array([-1]))
        best, values = (x[0] for x in _lists(scores, params.Q, n, hidden_items(len(params.Q), *at), diversity))
    else:
        raise DataError(
            f"user {user!r} was not in the training set, and the plain model has no item biases to fall back on; "
            "train with model='biased'"
        )
    return named_table("item", catalogue.item_ids, best, catalogue.titles, {"predicted": values})


def named_table(side: str, ids: IdMap, at: Array, titles: Array | None, columns: dict[str, Array]) -> pd.DataFrame:
    """A list of indices (n,), -1 where it is short, as a table by rank: raw ids, titles when known, other columns."""
    there = at >= 0
    table: dict[str, Any] = {side: ids.decode(at[there])}
    if titles is not None:
        table["title"] = titles[at[there]]
    table |= {name: column[there] for name, column in columns.items()}
    return pd.DataFrame(table, index=pd.RangeIndex(1, int(there.sum()) + 1, name="rank"))


def check_length(n: int) -> None:
    """Refuse lists of no items.

    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}, but must be 1 or larger")


def known_items(ids: IdMap, items: Iterable[Any] | None) -> Array | None:
    """Raw ids as indices; a mask and None as they are.

    Raises:
        DataError: an id that was not in the training set.
    """
    if items is None or (isinstance(items, np.ndarray) and items.dtype == np.bool_):
        return items
    raw = items if isinstance(items, np.ndarray | pd.Series | pd.Index) else list(items)
    at = ids.encode(raw)
    if (at < 0).any():
        unknown = np.asarray(raw, dtype=object)[at < 0]
        raise DataError(
            f"{len(unknown):,} of {counted(len(at), 'item')} not in the training set, such as {unknown[0]!r}; "
            f"give items of the model, such as {ids.raw[:3].tolist()}, or a mask of them"
        )
    return at


def hidden_items(n_items: int, items: Array | None, without: Array | None) -> Array | None:
    """Mask (n_items,) of what is not ranked, from indices or masks of what is and what is not; None for nothing.

    Raises:
        IndexError: an index outside 0..n_items-1.
        ValueError: a mask of another length.
    """
    if items is None and without is None:
        return None
    hidden = np.zeros(n_items, dtype=np.bool_) if items is None else ~_mask("items", items, n_items)
    return hidden if without is None else hidden | _mask("without", without, n_items)


def _mask(name: str, given: Any, n_items: int) -> Array:
    array = np.asarray(given)
    if array.dtype == np.bool_:
        if array.shape != (n_items,):
            raise ValueError(f"{name} is a mask of shape {array.shape}; give a truth value for each of {n_items} items")
        return array
    mask = np.zeros(n_items, dtype=np.bool_)
    if array.size:
        check_range(name, array, n_items)
        mask[array] = True
    return mask


def leave_out_seen(scores: Array, seen: Layout, users: Array) -> None:
    """Set to -inf, in scores (B, n), what each of `users` (B,) rated in training."""
    for row, u in enumerate(users):
        scores[row, seen.indices[seen.indptr[u] : seen.indptr[u + 1]]] = -np.inf


def _lists(scores: Array, q: Array, n: int, hidden: Array | None, diversity: float) -> tuple[Array, Array]:
    """The best n columns of scores (B, n_items), and their scores, each (B, min(n, n_items)); -1 for those at -inf."""
    if hidden is not None:
        scores[:, hidden] = -np.inf
    order = best_first(scores, min(CANDIDATES * n if diversity else n, scores.shape[1]))
    found = np.take_along_axis(scores, order, axis=1)
    order = np.where(np.isneginf(found), -1, order)
    return diversify(q, order, found, n, diversity) if diversity else (order, found)


def best_first(scores: Array, k: int) -> Array:
    """Column indices (B, k) of the k largest of each row, largest first, ties by index."""
    if k >= scores.shape[1]:
        return np.argsort(-scores, axis=1, kind="stable")
    # argpartition leaves ties at the border open: take every column at least as good as the k-th, then sort.
    border = -np.partition(-scores, k - 1, axis=1)[:, k - 1]
    out = np.empty((len(scores), k), dtype=np.int64)
    for row in range(len(scores)):
        candidates = np.flatnonzero(scores[row] >= border[row])
        out[row] = candidates[np.argsort(-scores[row, candidates], kind="stable")][:k]
    return out
