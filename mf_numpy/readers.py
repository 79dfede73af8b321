"""From any table of ratings to `Ratings`: every id and every rating checked, repeated pairs settled, ids encoded.

A row passes these stations: rating checked → "not rated" dropped → ids checked and encoded in sorted order (so that the
order of the rows does not change the encoding) → repeated pairs settled. What fails gets a `DataError` that names the
row, the column, the value and the cure. Finding and parsing files is for `mf_numpy.sources` and `mf_numpy.tables`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mf_numpy.duplicates import POLICIES, Pairs, settle
from mf_numpy.encode import INTEGER, encode_ids, factorise
from mf_numpy.errors import ConfigError, DataError, choose, counted
from mf_numpy.formats import FORMATS, Format
from mf_numpy.item_info import read_item_info
from mf_numpy.ratings import Array, IdMap, Ratings
from mf_numpy.sources import Source, locate
from mf_numpy.tables import Table, read_table, table_of_columns


@dataclass(frozen=True, kw_only=True)
class _Options:
    scale: tuple[float, float] | None = None
    duplicates: str | None = None
    id_type: str | None = None
    item_info: pd.DataFrame | str | Path | bool | None = None

    def __post_init__(self) -> None:
        if self.duplicates is not None:
            choose("duplicates", self.duplicates, POLICIES)
        if self.id_type is not None:
            choose("id_type", self.id_type, ("int", "text"))
        if self.scale is not None and not (len(self.scale) == 2 and self.scale[0] < self.scale[1]):
            raise ConfigError(f"scale is {self.scale!r}, but must be (smallest, largest) rating, such as (1, 5)")


def read_ratings(
    source: Any,
    *,
    format: str = "auto",
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    timestamp: str | None = None,
    scale: tuple[float, float] | None = None,
    duplicates: str | None = None,
    id_type: str | None = None,
    item_info: pd.DataFrame | str | Path | bool | None = None,
) -> Ratings:
    """Read ratings from a file, a folder, a pandas DataFrame or a SciPy sparse matrix.

    Args:
        source: a path (gzip and zip are unpacked; a folder or archive may hold one ratings file among others), a
            DataFrame, or a sparse matrix whose stored entries, zeros included, are the ratings.
        format: of a file; ``"auto"`` goes by its look. Or a name: ``"anime"`` (Kaggle), ``"ml-100k"`` (u.data),
            ``"ml-dat"`` (ratings.dat), ``"ml-csv"`` (ratings.csv), ``"csv"``, ``"tsv"``, ``"npz"``, ``"parquet"``.
        user, item, rating, timestamp: names of the columns, where they are not the usual ones.
        scale: smallest and largest allowed rating. Known formats bring their own; elsewhere None allows all.
        duplicates: a pair rated more than once is an ``"error"`` (default), or its ``"first"`` or ``"last"`` row (in
            the order of the table; ``"last"`` is the default of the anime format), the ``"mean"`` of its ratings (at
            its first row, with its latest timestamp), or ``"keep"`` for all of its rows.
        id_type: ``"text"`` reads every id as text, ``"int"`` insists on integers, None goes by the table
            (where a file has digits only, these are integers: 007 is 7).
        item_info: a DataFrame indexed by raw item id, or the path of a known table of items. By default the one that
            stands beside a known ratings file; False for none.

    Returns:
        Ratings whose users and items all have ratings (those of a sparse matrix keep its shape). Its notes tell
        ``rows`` of the table, rows ``not_rated`` and dropped, pairs that are ``duplicates``, those of them in
        ``conflicts`` (different ratings), the ``policy`` and the ``format``.

    Raises:
        DataError: a table that cannot be used, with the row, column, value and cure.
        ConfigError: an unknown format, policy or id_type, or a scale that is not one.
    """
    options = _Options(scale=scale, duplicates=duplicates, id_type=id_type, item_info=item_info)
    named = {"user": user, "item": item, "rating": rating, "timestamp": timestamp}
    if isinstance(source, str | Path | Source):
        file = source if isinstance(source, Source) else locate(source)
        return _ratings_of(read_table(file, format, named, id_type), options)
    choose("format", format, ["auto", *FORMATS])
    if isinstance(source, pd.DataFrame):
        return _ratings_of(_table_of_frame(source, named), options)
    if sp.issparse(source):
        return _ratings_of_sparse(source, options)
    raise DataError(
        f"ratings cannot be read from a {type(source).__name__}; give a path, a DataFrame or a sparse matrix, or pass "
        "arrays to from_arrays"
    )


def from_frame(
    frame: pd.DataFrame,
    *,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    timestamp: str | None = None,
    scale: tuple[float, float] | None = None,
    duplicates: str | None = None,
    id_type: str | None = None,
    item_info: pd.DataFrame | str | Path | bool | None = None,
) -> Ratings:
    """Ratings from a DataFrame with one rating a row; arguments and errors as in `read_ratings`."""
    options = _Options(scale=scale, duplicates=duplicates, id_type=id_type, item_info=item_info)
    named = {"user": user, "item": item, "rating": rating, "timestamp": timestamp}
    return _ratings_of(_table_of_frame(frame, named), options)


def from_arrays(
    users: Any,
    items: Any,
    values: Any,
    *,
    timestamps: Any = None,
    scale: tuple[float, float] | None = None,
    duplicates: str | None = None,
    id_type: str | None = None,
    item_info: pd.DataFrame | str | Path | bool | None = None,
) -> Ratings:
    """Ratings from raw ids (N,), ratings (N,) and perhaps timestamps (N,).

    Arguments and errors are those of `read_ratings`.
    """
    options = _Options(scale=scale, duplicates=duplicates, id_type=id_type, item_info=item_info)
    given = {"user": users, "item": items, "rating": values, "timestamp": timestamps}
    columns = {role: _array(column) for role, column in given.items() if column is not None}
    shapes = {role: column.shape for role, column in columns.items()}
    if len(set(shapes.values())) > 1 or columns["rating"].ndim != 1:
        raise DataError(f"the arrays have shapes {shapes}; give one-dimensional arrays of one length")
    table = Table(
        columns, {role: role for role in columns}, lambda row: f"position {row} (from 0)", Format(name="arrays")
    )
    return _ratings_of(table, options)


def from_sparse(
    matrix: Any,
    *,
    scale: tuple[float, float] | None = None,
    duplicates: str | None = None,
    item_info: pd.DataFrame | str | Path | bool | None = None,
) -> Ratings:
    """Ratings from the stored entries, zeros included, of an (m, n) SciPy sparse matrix.

    The ids are 0..m-1 and 0..n-1, also of users and items without ratings. Arguments and errors as in `read_ratings`.
    """
    return _ratings_of_sparse(matrix, _Options(scale=scale, duplicates=duplicates, item_info=item_info))


def _table_of_frame(frame: pd.DataFrame, named: dict[str, str | None]) -> Table:
    labels = {str(label): label for label in frame.columns}
    if len(labels) < len(frame.columns):
        raise DataError(f"the DataFrame has columns of equal names: {list(frame.columns)}; give each its own name")
    columns = {name: frame[label] for name, label in labels.items()}
    return table_of_columns(
        columns, named, Format(name="frame"), lambda row: f"row {row} of the DataFrame (from 0)", "the DataFrame"
    )


def _array(column: Any) -> Array:
    if isinstance(column, list | tuple) and any(isinstance(x, str) for x in column):
        return np.array(column, dtype=object)  # np.array([1, "a"]) would turn the 1 into a string in silence
    array = np.asarray(column)
    return array.astype(object) if array.dtype.kind in "UST" else array


def _ratings_of_sparse(matrix: Any, options: _Options) -> Ratings:
    if options.id_type == "text":
        raise ConfigError("id_type is 'text', but the ids of a sparse matrix are its row and column numbers")
    entries = matrix.tocoo()
    table = Table(
        {"user": entries.row.astype(np.int64), "item": entries.col.astype(np.int64), "rating": entries.data},
        {"user": "row", "item": "column", "rating": "data"},
        lambda row: f"stored entry {row} (from 0)",
        Format(name="sparse"),
    )
    return _ratings_of(table, options, tuple(IdMap.of_range(size) for size in matrix.shape))


def _ratings_of(table: Table, options: _Options, id_maps: tuple[IdMap, ...] | None = None) -> Ratings:
    """The stations named at the top of this file, in their order. `id_maps` stand in for the ids that were seen."""
    n_rows = len(table)
    if not n_rows:
        raise DataError("the table has no rows; give at least one rating of each of two users")
    scale = options.scale or table.format.scale
    values, table = _check_ratings(table, scale)
    n_rated = len(values)
    # Millions of raw fields would stay in memory beside what they became, were they not left behind.
    table = table.without("rating")
    users, user_ids = encode_ids(table, "user", options.id_type)
    table = table.without("user")
    items, item_ids = encode_ids(table, "item", options.id_type)
    table = table.without("item")
    if len(user_ids) < 2:
        raise DataError(
            f"all {len(values)} ratings are by the one user {user_ids.raw.tolist()[0]!r}; factorisation compares "
            "users, so give ratings of at least two (is the user column the right one?)"
        )
    timestamps = _check_timestamps(table)
    if id_maps is not None:
        users, items = user_ids.raw[users], item_ids.raw[items]
        user_ids, item_ids = id_maps
    policy = options.duplicates or table.format.duplicates
    pairs = Pairs.find(users, items, values, len(item_ids))
    if pairs.n_duplicates and policy == "error":
        first, second = pairs.first_repeat
        whose = tuple(ids.raw[[at[second]]].tolist()[0] for ids, at in ((user_ids, users), (item_ids, items)))
        raise _duplicate_fault(table, pairs, whose, (values[first], values[second]))
    if pairs.n_duplicates and policy != "keep":
        kept, values, timestamps = settle(pairs, policy, values, timestamps)
        users, items, values = users[kept], items[kept], values[kept]
        timestamps = None if timestamps is None else timestamps[kept]
    return Ratings(
        users,
        items,
        values,
        user_ids,
        item_ids,
        timestamps=timestamps,
        scale=scale,
        item_info=_item_info(options.item_info, table, item_ids),
        notes={
            "rows": n_rows,
            "not_rated": n_rows - n_rated,
            "duplicates": pairs.n_duplicates,
            "conflicts": pairs.n_conflicts,
            "policy": policy,
            "format": table.format.name,
        },
    )


def _check_ratings(table: Table, scale: tuple[float, float] | None) -> tuple[Array, Table]:
    """Ratings (N,) float64, finite and on the scale, and the table without the rows that are not rated."""
    values = _numbers(table, "rating")
    if (bad := ~np.isfinite(values)).any():
        raise table.fault(int(np.argmax(bad)), "rating", "is not a finite rating; mend or drop that row")
    if (marker := table.format.not_rated) is not None and (rated := values != marker).sum() < len(values):
        if not rated.any():
            raise DataError(f"no rating is left: all {len(values)} rows are {marker:g}, which means 'not rated'")
        table = table.keep(np.flatnonzero(rated))
        values = _numbers(table, "rating")
    if scale is not None and (bad := (values < scale[0]) | (values > scale[1])).any():
        raise table.fault(
            int(np.argmax(bad)),
            "rating",
            f"is outside the scale {scale[0]:g} to {scale[1]:g}; mend or drop that row, or pass scale=(least, most)",
        )
    return values, table


def _check_timestamps(table: Table) -> Array | None:
    """Timestamps (N,) int64, or None; dates become seconds since 1970, fractions are cut."""
    column = table.columns.get("timestamp")
    if column is None:
        return None
    if table.is_text and isinstance(column, pd.Categorical):
        column = _dates(column)
    if isinstance(column, np.ndarray) and column.dtype.kind == "M":
        if (bad := np.isnat(column)).any():
            raise table.fault(int(np.argmax(bad)), "timestamp", "is missing; mend or drop that row")
        return column.astype("datetime64[s]").astype(np.int64)
    if isinstance(column, np.ndarray) and column.dtype.kind in "iu":
        return column.astype(np.int64)
    seconds = _numbers(table, "timestamp")
    if (bad := ~np.isfinite(seconds)).any():
        raise table.fault(
            int(np.argmax(bad)), "timestamp", "is not a time; give whole seconds since 1970 or ISO dates in every row"
        )
    return seconds.astype(np.int64)


def _dates(column: pd.Categorical) -> Any:
    """The column as datetime64 where every field is an ISO date, and otherwise as it came."""
    fields = column.categories
    if column.isna().any() or any(map(INTEGER.fullmatch, fields)):
        return column
    dates = pd.to_datetime(pd.Index(fields), errors="coerce", utc=True, format="ISO8601")
    return column if dates.isna().any() else dates.tz_localize(None).to_numpy()[column.codes]


def _numbers(table: Table, role: str) -> Array:
    """The column as float64 (N,), NaN where it is missing.

    Raises:
        DataError: at the first field that is not a number.
    """
    column = table.columns[role]
    if isinstance(column, np.ndarray) and column.dtype.kind in "iufb":
        return column.astype(np.float64, copy=False)
    codes, fields = factorise(column)
    numbers = np.array([_number(field) for field in fields], dtype=np.float64)
    of_row = np.append(numbers, np.nan)[codes]
    if (bad := np.isnan(of_row)).any():
        row = int(np.argmax(bad))
        what = "is missing" if codes[row] < 0 or fields[codes[row]] in ("", None) else "is not a number"
        raise table.fault(row, role, f"{what}; mend or drop that row")
    return of_row


def _number(field: Any) -> float:
    try:
        return float(field)
    except (TypeError, ValueError):
        return float("nan")


def _duplicate_fault(table: Table, pairs: Pairs, whose: tuple[Any, ...], ratings: tuple[float, float]) -> DataError:
    """The error for the repeated rating that comes first in the table, by user and item `whose`."""
    first, second = pairs.first_repeat
    return DataError(
        f"{table.where(second)}, column {table.labels['rating']!r}: {ratings[1]:g} is a second rating of "
        f"{table.labels['user']} {whose[0]!r} and {table.labels['item']} {whose[1]!r}, after {ratings[0]:g} in "
        f"{table.where(first)}; {counted(pairs.n_duplicates, 'pair')} rated more than once, "
        f"{pairs.n_conflicts} of them differently: pass duplicates= one of {', '.join(map(repr, POLICIES[1:]))}"
    )


def _item_info(asked: pd.DataFrame | str | Path | bool | None, table: Table, item_ids: IdMap) -> pd.DataFrame | None:
    """The table of items, indexed by ids of the type that the ratings have."""
    if asked is False:
        return None
    if isinstance(asked, pd.DataFrame):
        info = asked
    elif isinstance(asked, str | Path):
        info = read_item_info(locate(asked))
    else:
        source, name = table.source, table.format.item_file
        beside = source.sibling(name) if source is not None and name is not None else None
        if beside is None:
            return None
        info = read_item_info(beside)
    if not info.index.is_unique:
        twice = info.index[info.index.duplicated()].tolist()[0]
        raise DataError(f"item_info has item {twice!r} twice; give each item one row")
    return info.set_axis(info.index.astype(str), axis=0) if item_ids.is_text else info
