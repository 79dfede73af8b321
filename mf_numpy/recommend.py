"""Top-N items of users: scores over all items in blocks, without the items already rated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mf_numpy.errors import DataError
from mf_numpy.model import Params, check_range
from mf_numpy.ratings import Array

if TYPE_CHECKING:
    from mf_numpy.result import Catalogue

_SCORES_AT_ONCE = 1 << 23


def score_all(params: Params, users: Array) -> Array:
    """r̂ of every item for `users` (B,): (B, n), by one matrix product (Eq. 1)."""
    scores = params.P[users] @ params.Q.T + params.mu
    if params.b is not None and params.c is not None:
        scores += params.b[users][:, None] + params.c
    out: Array = scores
    return out


def top_n(
    params: Params, catalogue: Catalogue, users: Array, n: int, *, with_seen: bool = False
) -> tuple[Array, Array]:
    """Best items of many users: indices (B, n) int64 and predictions (B, n), best first.

    Ties go to the smaller index. Where a user has fewer than n unrated items the rest is index -1 and -inf.

    Raises:
        IndexError: a user index outside 0..m-1.
        ValueError: n below 1.
    """
    m, n_items, _ = params.shape
    check_range("users", users, m)
    if n < 1:
        raise ValueError(f"n is {n}, but must be 1 or larger")
    kept = min(n, n_items)
    best = np.full((len(users), n), -1, dtype=np.int64)
    values = np.full((len(users), n), -np.inf, dtype=params.P.dtype)
    seen = catalogue.seen
    size = max(1, _SCORES_AT_ONCE // max(1, n_items))
    for begin in range(0, len(users), size):
        block = users[begin : begin + size]
        scores = score_all(params, block)
        if not with_seen:
            for row, u in enumerate(block):
                scores[row, seen.indices[seen.indptr[u] : seen.indptr[u + 1]]] = -np.inf
        order = _best_first(scores, kept)
        found = np.take_along_axis(scores, order, axis=1)
        values[begin : begin + size, :kept] = found
        best[begin : begin + size, :kept] = np.where(np.isneginf(found), -1, order)
    return best, values


def recommend(params: Params, catalogue: Catalogue, user: Any, n: int = 10, *, with_seen: bool = False) -> pd.DataFrame:
    """A table of the best `n` items of one user (raw id): ``item``, ``title`` when known, ``predicted``.

    A user nobody has seen gets the items with the highest bias, or, in the plain model, an error.

    Raises:
        DataError: an unknown user in the plain model, where nothing can be said (cold start).
    """
    index = int(catalogue.user_ids.encode([user])[0])
    if index >= 0:
        items, values = (x[0] for x in top_n(params, catalogue, np.array([index]), n, with_seen=with_seen))
        items, values = items[items >= 0], values[items >= 0]
    elif params.c is not None:
        items = np.argsort(-params.c, kind="stable")[:n]
        values = catalogue.mean + params.c[items]
    else:
        raise DataError(
            f"user {user!r} was not in the training set, and the plain model has no item biases to fall back on; "
            "train with model='biased'"
        )
    table: dict[str, Any] = {"item": catalogue.item_ids.decode(items)}
    if catalogue.titles is not None:
        table["title"] = catalogue.titles[items]
    return pd.DataFrame(table | {"predicted": values}, index=pd.RangeIndex(1, len(items) + 1, name="rank"))


def _best_first(scores: Array, k: int) -> Array:
    """Column indices of the k largest of each row, largest first, ties by index."""
    if k >= scores.shape[1]:
        return np.argsort(-scores, axis=1, kind="stable")
    # argpartition leaves ties at the border open: take every column at least as good as the k-th, then sort.
    border = -np.partition(-scores, k - 1, axis=1)[:, k - 1]
    out = np.empty((len(scores), k), dtype=np.int64)
    for row in range(len(scores)):
        candidates = np.flatnonzero(scores[row] >= border[row])
        out[row] = candidates[np.argsort(-scores[row, candidates], kind="stable")][:k]
    return out
