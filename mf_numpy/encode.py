"""Raw ids of one column, of whatever type it came in, to indices and an `IdMap`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from mf_numpy.errors import DataError
from mf_numpy.ratings import Array, IdMap
from mf_numpy.tables import Table

INTEGER = re.compile(r"[+-]?\d+(\.0*)?")
"""How a file may spell an integer."""


def encode_ids(table: Table, role: str, id_type: str | None) -> tuple[Array, IdMap]:
    """Index (N,) of each id, and the map of the ids in sorted order: integers by value, text by code point.

    All checks look at the distinct ids only; the row of a bad one is sought when there is one.

    Args:
        table: N rows.
        role: ``"user"`` or ``"item"``.
        id_type: ``"text"``, ``"int"`` or None, as in `mf_numpy.readers.read_ratings`.

    Raises:
        DataError: a missing id, ids of mixed types, or an id that is neither integer nor text.
    """
    codes, fields = factorise(table.columns[role])
    blank = np.array([isinstance(x, str) and not x.strip() for x in fields], dtype=np.bool_)
    missing = np.append(blank, True)[codes]
    if missing.any():
        raise table.fault(int(np.argmax(missing)), role, f"is no {role} id; drop that row or give it one")

    def refused(bad: Array, problem: str) -> DataError:
        return table.fault(int(np.argmax(bad[codes])), role, problem)

    distinct, rank = np.unique(_ids_of(fields, table.is_text, id_type, refused), return_inverse=True)
    return rank.astype(np.int32)[codes], IdMap(distinct)


def _ids_of(fields: Array, is_text: bool, id_type: str | None, refused: Callable[[Array, str], DataError]) -> Array:
    """Distinct ids as int64 or as an object array of str; `refused` makes the error for a mask of bad ones."""
    if id_type == "text":
        return np.array([x if isinstance(x, str) else str(_whole(x)) for x in fields], dtype=object)
    if fields.dtype.kind in "iu":
        if (large := fields > np.iinfo(np.int64).max).any():
            raise refused(large, "is an id past the largest 64-bit integer; pass id_type='text'")
        return fields.astype(np.int64)
    as_integer = [_integer(x, spelled=is_text or id_type == "int") for x in fields]
    is_integer = np.array([x is not None for x in as_integer], dtype=np.bool_)
    if is_integer.all():
        return np.array(as_integer, dtype=np.int64)
    if id_type == "int":
        raise refused(~is_integer, "is not an integer id; pass id_type='text' to read all ids of the table as text")
    is_string = np.array([isinstance(x, str) for x in fields], dtype=np.bool_)
    if (neither := ~is_string & ~is_integer).any():
        raise refused(neither, "is neither an integer nor a text id; convert it, or pass id_type='text' to read all so")
    if is_integer.any():
        # The distinct fields are in order of appearance: the first one says what the others should be.
        first, other = ("integers", "text") if is_integer[0] else ("text", "an integer")
        raise refused(
            is_integer != is_integer[0],
            f"is {other}, but the ids before it are {first}; pass id_type='text' to read all as text",
        )
    return np.array(fields, dtype=object)


def _integer(field: Any, *, spelled: bool) -> int | None:
    """The field as an integer id, or None; `spelled` allows the spelling of one, such as "7" or "7.0"."""
    if isinstance(field, str):
        field = int(field.partition(".")[0]) if spelled and INTEGER.fullmatch(field.strip()) else None
    whole = _whole(field)
    is_whole = isinstance(whole, int | np.integer) and not isinstance(whole, bool)
    return int(whole) if is_whole and -(2**63) <= whole < 2**63 else None


def _whole(field: Any) -> Any:
    """7 for 7.0: a column of integers with a missing one arrives as floats."""
    return int(field) if isinstance(field, float) and field.is_integer() else field


def factorise(column: Any) -> tuple[Array, Array]:
    """Code (N,) of each field, -1 for a missing one, and the distinct fields in order of appearance."""
    if isinstance(column, pd.Categorical):
        codes, seen = pd.factorize(np.asarray(column.codes))
        seen_codes = np.asarray(seen)
        return np.where(np.append(seen_codes, -1)[codes] < 0, -1, codes), np.asarray(column.categories)[seen_codes]
    codes, fields = pd.factorize(column)
    return codes, np.asarray(fields)
