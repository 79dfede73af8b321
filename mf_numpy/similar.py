"""Items like an item and users like a user: rows of factors that point the same way.

Shapes: factors (m, K), of either side; B rows asked about; n neighbours each.

``cosine`` compares directions, ``dot`` lengths, too: who has long factors, as popular items often do, comes first. A
product of factors has a meaning up to a rotation only because the penalty holds P and Q in balance (Eq. 23): other
factors with the same predictions have other cosines (Steck, Ekanadham and Kallus 2024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from mf_numpy.diversity import unit_rows
from mf_numpy.errors import DataError, choose
from mf_numpy.model import Params, check_range
from mf_numpy.ratings import Array, IdMap
from mf_numpy.recommend import best_first, check_length, named_table

if TYPE_CHECKING:
    from mf_numpy.result import Catalogue

Measure = Literal["cosine", "dot"]

_SCORES_AT_ONCE = 1 << 23


def nearest(factors: Array, rows: Array, n: int, *, measure: Measure = "cosine") -> tuple[Array, Array]:
    """The n other rows most like each of `rows` (B,): indices (B, n) int64 and similarities (B, n), best first.

    Ties go to the smaller index. Where there are fewer than n others the rest is index -1 and -inf. A row of zeros has
    cosine 0 with every row.

    Raises:
        ConfigError: an unknown measure.
        IndexError: a row outside 0..m-1.
        ValueError: n below 1.
    """
    choose("measure", measure, get_args(Measure))
    check_range("rows", rows, len(factors))
    check_length(n)
    compared = unit_rows(factors) if measure == "cosine" else factors
    kept = min(n, len(factors))
    best = np.full((len(rows), n), -1, dtype=np.int64)
    values = np.full((len(rows), n), -np.inf, dtype=factors.dtype)
    size = max(1, _SCORES_AT_ONCE // max(1, len(factors)))
    for begin in range(0, len(rows), size):
        block = rows[begin : begin + size]
        scores = compared[block] @ compared.T
        scores[np.arange(len(block)), block] = -np.inf
        order = best_first(scores, kept)
        found = np.take_along_axis(scores, order, axis=1)
        values[begin : begin + size, :kept] = found
        best[begin : begin + size, :kept] = np.where(np.isneginf(found), -1, order)
    return best, values


def similar_items(
    params: Params, catalogue: Catalogue, item: Any, n: int = 10, *, measure: Measure = "cosine"
) -> pd.DataFrame:
    """A table of the `n` items most like one (raw id): ``item``, ``title`` when known, ``similarity``.

    Raises:
        ConfigError: an unknown measure.
        DataError: an item that was not in the training set.
        ValueError: n below 1.
    """
    at = _index("item", catalogue.item_ids, item)
    best, values = nearest(params.Q, at, n, measure=measure)
    return named_table("item", catalogue.item_ids, best[0], catalogue.titles, {"similarity": values[0]})


def similar_users(
    params: Params, catalogue: Catalogue, user: Any, n: int = 10, *, measure: Measure = "cosine"
) -> pd.DataFrame:
    """A table of the `n` users most like one (raw id): ``user`` and ``similarity``.

    Raises:
        ConfigError: an unknown measure.
        DataError: a user who was not in the training set.
        ValueError: n below 1.
    """
    at = _index("user", catalogue.user_ids, user)
    best, values = nearest(params.P, at, n, measure=measure)
    return named_table("user", catalogue.user_ids, best[0], None, {"similarity": values[0]})


def _index(side: str, ids: IdMap, raw: Any) -> Array:
    """Index (1,) of one id.

    Raises:
        DataError: an id without factors.
    """
    at = ids.encode([raw])
    if at[0] < 0:
        raise DataError(
            f"{side} {raw!r} was not in the training set, so the model has no factors to compare; "
            f"give one of its {side}s, such as {ids.raw[:3].tolist()}"
        )
    return at
