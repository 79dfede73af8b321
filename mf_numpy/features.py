"""Design matrices from tables: what users and items are made of, said block by block.

``Features().id().tags("genres").bins("year", 8).rated()`` names the blocks of one side; `fit` makes the matrix of the
training rows (X or Y of Eq. 33) and remembers how, so that `Described.rows` can describe rows that come later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mf_numpy import time_features
from mf_numpy.design import Design, Side
from mf_numpy.errors import ConfigError, DataError, choose, nearest
from mf_numpy.ratings import Array, IdMap, Ratings
from mf_numpy.time_features import Moments

Which = Literal["users", "items"]
SIDES: tuple[Which, ...] = ("users", "items")


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one side that are to be described.

    Attributes:
        ids: raw id of each row.
        table: facts, one line a row in the same order; missing where nothing is known.
        rated: (rows, other side) sparse, an entry where there is a rating; None where nothing is known of any.
        moments: when the rows are what they are; None where they are always the same.
    """

    ids: Array
    table: pd.DataFrame
    rated: sp.csr_array | None = None
    moments: Moments | None = None


Encoder = Callable[[Rows], sp.csr_array]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Columns that belong together.

    Attributes:
        kind: ``id``, ``category``, ``tags``, ``bins``, ``number`` or ``rated``; or one of `time_features.TIMED`.
        column: of the table, where the kind needs one.
        n: number of bins.
        separator: between tags.
        weight: every number of the block is times this. Twice the weight is λ divided by 4 for the block.
    """

    kind: str
    column: str = ""
    n: int = 0
    separator: str = ","
    weight: float = 1.0


@dataclass(frozen=True)
class Features:
    """What the rows of one side are made of.

    Each method gives a new `Features` with one more block. A row without a fact has nothing in that block.
    """

    blocks: tuple[Block, ...] = ()

    def id(self, *, weight: float = 1.0) -> Features:
        """Each row a feature of its own. Without it a row is nothing but its features, and a new one needs no fit."""
        return self._and(Block(kind="id", weight=weight))

    def category(self, column: str, *, weight: float = 1.0) -> Features:
        """One feature a value of a column."""
        return self._and(Block(kind="category", column=column, weight=weight))

    def tags(self, column: str, *, separator: str = ",", weight: float = 1.0) -> Features:
        """One feature a tag of a column of texts such as ``"Action, Drama"``; T tags of a row count 1/√T each."""
        if not separator:
            raise ConfigError("separator is '', but must be what stands between two tags, such as ','")
        return self._and(Block(kind="tags", column=column, separator=separator, weight=weight))

    def bins(self, column: str, n: int, *, weight: float = 1.0) -> Features:
        """One feature a bin of a column of numbers, cut where the bins hold as many rows each."""
        if n < 2:
            raise ConfigError(f"n is {n} bins for {column!r}, but must be 2 or more")
        return self._and(Block(kind="bins", column=column, n=n, weight=weight))

    def number(self, column: str, *, weight: float = 1.0) -> Features:
        """A column of numbers as one feature, with mean 0 and standard deviation 1."""
        return self._and(Block(kind="number", column=column, weight=weight))

    def rated(self, *, weight: float = 1.0) -> Features:
        """What the row has ratings of, one feature each: R of them count 1/√R each (SVD++, Eq. 36)."""
        return self._and(Block(kind="rated", weight=weight))

    def day(self, *, weight: float = 1.0) -> Features:
        """The row on each day with ratings a feature of its own. This and the next three need `mf_numpy.timed`."""
        return self._and(Block(kind="day", weight=weight))

    def drift(self, *, weight: float = 1.0) -> Features:
        """How long before or after the row's mean day it is, a feature for each row (timeSVD++, Eq. 41)."""
        return self._and(Block(kind="drift", weight=weight))

    def time_bins(self, n: int, *, weight: float = 1.0) -> Features:
        """The row in each of n equal parts of the training period a feature of its own."""
        return self._and(Block(kind="time_bins", n=_parts(n), weight=weight))

    def popularity(self, n: int, *, weight: float = 1.0) -> Features:
        """How many ratings the row had in its one of n equal parts of the training period, as one feature."""
        return self._and(Block(kind="popularity", n=_parts(n), weight=weight))

    @property
    def of_time(self) -> tuple[Block, ...]:
        """The blocks that change with time."""
        return tuple(block for block in self.blocks if block.kind in time_features.TIMED)

    def _and(self, block: Block) -> Features:
        if not (np.isfinite(block.weight) and block.weight > 0):
            raise ConfigError(f"weight is {block.weight!r}, but must be a finite number above 0")
        if any((b.kind, b.column) == (block.kind, block.column) for b in self.blocks):
            raise ConfigError(f"{block.kind} {block.column!r} came twice; name each block once")
        return Features((*self.blocks, block))

    def fit(self, train: Ratings, which: Which, table: pd.DataFrame | None = None) -> Described:
        """Describe the users or the items of a training set.

        Args:
            table: facts, indexed by raw id; of items by default the set's own ``item_info``.

        Raises:
            ConfigError: no block at all, or a column that the table lacks.
            DataError: an id twice in the table, a column that is no number where one is needed, or no scikit-learn.
        """
        return self.describe(*rows_of(train, which, table), which)

    def describe(self, rows: Rows, others: IdMap, which: Which) -> Described:
        """`fit` for rows that are made already."""
        if not self.blocks:
            raise ConfigError(f"no block was named for the {which}; begin with Features().id()")
        encoders, names, sizes = [], [], []
        for block in self.blocks:
            encode, found_names = _FIT[block.kind](block, rows, others)
            encoders.append((block.weight, encode))
            names += found_names
            sizes.append(len(found_names))
        return Described(tuple(encoders), Side(_encoded(encoders, rows), tuple(names), tuple(sizes)))


@dataclass(frozen=True, eq=False)
class Described:
    """One side of a training set with its features, and how to describe more rows.

    Attributes:
        side: the training rows.
    """

    _encoders: tuple[tuple[float, Encoder], ...]
    side: Side

    @property
    def names(self) -> tuple[str, ...]:
        """What each feature is called, (features,), such as ``genres=Drama``."""
        return self.side.names

    def rows(self, table: pd.DataFrame, rated: sp.csr_array | None = None) -> sp.csr_array:
        """(rows, features) of rows that come later, one a line of `table`; what training has not seen counts nothing.

        Args:
            table: facts, indexed by raw id.
            rated: (rows, other side) with an entry where there is a rating.

        Raises:
            DataError: another number of rows in `rated`.
        """
        if rated is not None and rated.shape[0] != len(table):
            raise DataError(f"rated has {rated.shape[0]} rows, but the table has {len(table)}; give one a line")
        return self.encoded(Rows(table.index.to_numpy(), table, rated))

    def encoded(self, rows: Rows) -> sp.csr_array:
        """`rows` of what is made already."""
        return _encoded(self._encoders, rows)


def design_of(
    train: Ratings,
    users: Features | None = None,
    items: Features | None = None,
    *,
    user_info: pd.DataFrame | None = None,
    item_info: pd.DataFrame | None = None,
) -> Design:
    """The design of a training set; a side without features is one of ids alone. Errors are those of `Features.fit`."""
    by_id = Features().id()
    return Design(
        (users or by_id).fit(train, "users", user_info).side, (items or by_id).fit(train, "items", item_info).side
    )


def rows_of(train: Ratings, which: Which, table: pd.DataFrame | None = None) -> tuple[Rows, IdMap]:
    """The users or the items of a training set, and the ids of the other side; see `Features.fit`."""
    choose("which", which, SIDES)
    ids, others = (train.user_ids, train.item_ids) if which == "users" else (train.item_ids, train.user_ids)
    return Rows(ids.raw, facts_of(train, which, table), _rated(train, which)), others


def facts_of(train: Ratings, which: Which, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """The facts about the users or the items of a training set, one line each; see `Features.fit`."""
    if table is None:
        found = train.item_info if which == "items" else None
        table = pd.DataFrame(index=pd.Index([], dtype=object)) if found is None else found
    return _aligned(table, (train.user_ids if which == "users" else train.item_ids).raw)


def _parts(n: int) -> int:
    if n < 1:
        raise ConfigError(f"n is {n} parts of the training period, but must be 1 or more")
    return n


def _encoded(encoders: Sequence[tuple[float, Encoder]], rows: Rows) -> sp.csr_array:
    """The blocks side by side, (rows, features)."""
    return sp.csr_array(sp.hstack([weight * encode(rows) for weight, encode in encoders], format="csr"))


def _aligned(table: pd.DataFrame, ids: Array) -> pd.DataFrame:
    if not table.index.is_unique:
        twice = table.index[table.index.duplicated()].tolist()[0]
        raise DataError(f"id {twice!r} appears twice in the table of facts; give each id one line")
    return table.reindex(pd.Index(ids))


def _rated(train: Ratings, which: Which) -> sp.csr_array:
    """An entry where there is a rating, of the users or of the items; several of a pair are one."""
    pairs = sp.csr_array((np.ones(len(train)), (train.users, train.items)), shape=train.shape)
    pairs.sum_duplicates()
    return pairs if which == "users" else pairs.T.tocsr()


def _column(block: Block, rows: Rows) -> pd.Series[Any]:
    if block.column not in rows.table.columns:
        have = [str(name) for name in rows.table.columns]
        listing = ", ".join(have) or "none"
        raise ConfigError(
            f"{block.kind} asks for column {block.column!r}, but the table of facts has {listing}."
            f"{nearest(block.column, have)}"
        )
    return rows.table[block.column]


def _numbers(block: Block, rows: Rows) -> pd.Series[Any]:
    column = _column(block, rows)
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = column[numbers.isna() & column.notna()]
    if len(wrong):
        raise DataError(f"column {block.column!r} holds {wrong.iloc[0]!r}, which is no number; use category or tags")
    return numbers.astype(np.float64)


def _of_present(column: pd.Series[Any], encode: Callable[[Any], Any], width: int) -> sp.csr_array:
    """The encoded rows where the column holds something, and empty ones between them."""
    present = np.flatnonzero(column.notna().to_numpy())
    if not len(present):
        return sp.csr_array((len(column), width))
    inner = sp.csr_array(encode(column.iloc[present]))
    place = sp.csr_array((np.ones(len(present)), (present, np.arange(len(present)))), shape=(len(column), len(present)))
    return sp.csr_array(place @ inner)


def _fit_id(block: Block, rows: Rows, others: IdMap) -> tuple[Encoder, list[str]]:
    index = pd.Index(rows.ids).unique()

    def encode(more: Rows) -> sp.csr_array:
        at = index.get_indexer(pd.Index(more.ids))
        known = np.flatnonzero(at >= 0)
        return sp.csr_array((np.ones(len(known)), (known, at[known])), shape=(len(more.ids), len(index)))

    return encode, [f"id={raw}" for raw in index]


def _fit_category(block: Block, rows: Rows, others: IdMap) -> tuple[Encoder, list[str]]:
    preprocessing = _sklearn()
    encoder = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=True)
    present = _column(block, rows).dropna()
    if present.empty:
        raise DataError(f"column {block.column!r} is empty for every row; leave the block out")
    encoder.fit(_as_column(present))
    names = [f"{block.column}={value}" for value in encoder.categories_[0]]

    def encode(more: Rows) -> sp.csr_array:
        return _of_present(_column(block, more), lambda values: encoder.transform(_as_column(values)), len(names))

    return encode, names


def _fit_tags(block: Block, rows: Rows, others: IdMap) -> tuple[Encoder, list[str]]:
    encoder = _sklearn().MultiLabelBinarizer(sparse_output=True)
    encoder.fit(_split(_column(block, rows), block))
    known = set(encoder.classes_)
    if not known:
        raise DataError(f"column {block.column!r} holds no tag; leave the block out")

    def encode(more: Rows) -> sp.csr_array:
        tags = [[tag for tag in found if tag in known] for found in _split(_column(block, more), block)]
        return _even(sp.csr_array(encoder.transform(tags)))

    return encode, [f"{block.column}={tag}" for tag in encoder.classes_]


def _fit_bins(block: Block, rows: Rows, others: IdMap) -> tuple[Encoder, list[str]]:
    present = _numbers(block, rows).dropna()
    if present.nunique() < 2:
        raise DataError(f"column {block.column!r} has fewer than two values, which cannot be put in bins")
    encoder = _sklearn().KBinsDiscretizer(
        n_bins=min(block.n, present.nunique()), encode="onehot", strategy="quantile",
        quantile_method="averaged_inverted_cdf", subsample=None,
    )  # fmt: skip
    encoder.fit(_as_column(present))
    edges = encoder.bin_edges_[0]
    names = [f"{block.column} {low:g} to {high:g}" for low, high in pairwise(edges)]

    def encode(more: Rows) -> sp.csr_array:
        return _of_present(_numbers(block, more), lambda values: encoder.transform(_as_column(values)), len(names))

    return encode, names


def _fit_number(block: Block, rows: Rows, others: IdMap) -> tuple[Encoder, list[str]]:
    scaler = _sklearn().StandardScaler()
    present = _numbers(block, rows).dropna()
    if present.empty:
        raise DataError(f"column {block.column!r} is empty for every row; leave the block out")
    scaler.fit(_as_column(present))

    def encode(more: Rows) -> sp.csr_array:
        return _of_present(_numbers(block, more), lambda values: scaler.transform(_as_column(values)), 1)

    return encode, [block.column]


def _fit_rated(block: Block, rows: Rows, others: IdMap) -> tuple[Encoder, list[str]]:
    def encode(more: Rows) -> sp.csr_array:
        if more.rated is None:
            return sp.csr_array((len(more.ids), len(others)))
        if more.rated.shape[1] != len(others):
            raise DataError(f"rated has {more.rated.shape[1]} columns, but training had {len(others)}; use its id map")
        return _even(sp.csr_array(more.rated))

    return encode, [f"rated={raw}" for raw in others.raw]


def _even(pattern: sp.csr_array) -> sp.csr_array:
    """Rows whose R entries are 1/√R each (Eq. 36), so that their squares add up to 1."""
    counts = np.diff(pattern.indptr)
    out = pattern.copy()
    out.data = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts)  # Eq. 36
    return out


def _split(column: pd.Series[Any], block: Block) -> list[list[str]]:
    texts = column.fillna("").astype(str)
    return [[tag for tag in map(str.strip, text.split(block.separator)) if tag] for text in texts]


def _as_column(values: pd.Series[Any]) -> Array:
    return np.asarray(values)[:, None]


def _sklearn() -> Any:
    try:
        from sklearn import preprocessing
    except ImportError as error:
        raise DataError(
            "categories, tags, bins and numbers need scikit-learn; install it with: pip install 'mf[sklearn]'"
        ) from error
    return preprocessing


_FIT: dict[str, Callable[[Block, Rows, IdMap], tuple[Encoder, list[str]]]] = {
    "id": _fit_id,
    "category": _fit_category,
    "tags": _fit_tags,
    "bins": _fit_bins,
    "number": _fit_number,
    "rated": _fit_rated,
    **time_features.FIT,
}
