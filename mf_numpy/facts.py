"""Tables of facts about users or items from files: one line an id, to make features of (`mf_numpy.features`).

Known are MovieLens' ``u.user`` and ``users.dat`` and every table of items of `mf_numpy.item_info`; any other file is a
CSV, TSV or Parquet table with named columns, of which the first is the id unless another is named.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mf_numpy.errors import DataError, nearest
from mf_numpy.files import not_there
from mf_numpy.item_info import TABLES, read_item_info
from mf_numpy.sources import Source

_USERS = {
    "u.user": ("|", ("user", "age", "gender", "occupation", "zip")),
    "users.dat": ("::", ("user", "gender", "age", "occupation", "zip")),
}
"""Tables of users without a header: what stands between two fields, and what the fields are."""
USER_TABLES = tuple(_USERS)
"""Names of the known tables of users."""
_CODES = ("occupation", "zip")
"""Their columns that may look like numbers and count nothing."""


def read_facts(source: str | Path | Source, *, id_column: str | None = None, text_ids: bool = False) -> pd.DataFrame:
    """Read facts, indexed by raw id.

    Args:
        source: the file, plain or gzipped.
        id_column: which column has the ids, where it is not the first.
        text_ids: ids are text, as those of the ratings are, even where they look like whole numbers.

    Raises:
        DataError: a file that is not there or no table, no such column, an id that is empty, twice, or of another type.
    """
    file = source if isinstance(source, Source) else Source(Path(source))
    name = file.label.rpartition(":")[2].rpartition("/")[2].removesuffix(".gz")
    if not file.path.is_file():
        raise DataError(f"there is no file {file.label!r}; give a table with one line an id")
    if name in TABLES:
        table = read_item_info(file)
    else:
        table = _read(file, name)
        column = table.columns[0] if id_column is None else id_column
        if column not in table.columns:
            have = [str(one) for one in table.columns]
            raise DataError(
                f"{file.label} has no column {column!r}; it has {', '.join(have)}.{nearest(str(column), have)}"
            )
        table = table.set_index(column)
        for one in table.columns:
            if not (name in _USERS and one in _CODES):
                table[one] = _numbers(table[one])
    table.index = _ids(table.index, text_ids, file.label)
    return table


def read_lines(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Read a CSV, TSV or Parquet table that has some columns, each by the option that names another.

    Raises:
        DataError: no file, no table, or one without such a column.
    """
    if not path.is_file():
        raise DataError(not_there(path))
    if path.suffix == ".parquet":
        rows = pd.read_parquet(path, columns=None)
    else:
        try:
            # Text, so that ids such as 007 and NA come out as they went in.
            rows = pd.read_csv(
                path, sep="\t" if path.suffix in (".tsv", ".tab") else ",", dtype=str, keep_default_na=False
            )
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise DataError(f"{str(path)!r} is not a table: {error}; give a CSV with a header") from error
    for name, flag in columns.items():
        if name not in rows:
            have = ", ".join(repr(str(c)) for c in rows.columns)
            raise DataError(f"{str(path)!r} has no column {name!r}; it has {have}; name the right one with {flag}")
    return rows


def _read(file: Source, name: str) -> pd.DataFrame:
    try:
        with file.open() as stream:
            raw = stream.read()
        if raw.startswith(b"PAR1"):
            return pd.read_parquet(io.BytesIO(raw))
        # Text first: an id such as 007 must come out as it went in.
        separator, names = _USERS.get(name, (None, None))
        if separator is None:
            separator = max("\t,;|", key=raw.partition(b"\n")[0].decode("utf-8", "replace").count)
        return pd.read_csv(
            io.BytesIO(raw), sep=separator, names=names, dtype=str, engine="python", encoding="utf-8-sig",
            index_col=False, keep_default_na=False, na_values=[""],
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{file.label} is not a table of facts: {error}; give a CSV with a header") from error


def _numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """The column as numbers, if all that is in it are."""
    if column.dtype.kind in "biuf":
        return column
    found = pd.to_numeric(column, errors="coerce")
    return column if (found.isna() & column.notna()).any() else found


def _ids(index: pd.Index[Any], text_ids: bool, label: str) -> pd.Index[Any]:
    if index.hasnans:
        raise DataError(f"line {int(index.isna().argmax()) + 1} of facts in {label} has no id; give each line one")
    ids = index.astype(str) if text_ids else index
    if not text_ids:
        numbers = pd.to_numeric(pd.Series(index), errors="coerce")
        wrong = numbers.isna() | (numbers % 1 != 0)
        if wrong.any():
            bad = index[int(wrong.to_numpy().argmax())]
            raise DataError(f"{label} has the id {bad!r}, but the ids of the ratings are whole numbers; give those")
        ids = pd.Index(numbers.astype("int64"))
    if not ids.is_unique:
        raise DataError(f"{label} has two lines for id {ids[ids.duplicated()].tolist()[0]!r}; give each id one line")
    return ids
