"""Rating tables as they come: a file or a set of columns becomes a `Table` of raw columns with known roles.

Nothing here judges a rating or an id; `mf_numpy.readers` does.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mf_numpy.errors import DataError, choose
from mf_numpy.formats import BINARY, FORMATS, ROLES, Format, find_columns, known_header
from mf_numpy.ratings import Array
from mf_numpy.sources import Source, fields_of, records


@dataclass(frozen=True)
class Table:
    """Raw columns of a rating table, before any check.

    Attributes:
        columns: by role (``user``, ``item``, ``rating`` and perhaps ``timestamp``): (rows,) arrays or Categoricals.
        labels: by role, what the table itself calls the column.
        where: names the place of a row (from 0) for an error message, such as "line 7 of rating.csv".
        format: how the table was written.
        is_text: whether every field was text, so that the types of ids are read off their spelling.
        source: the file, or None.
    """

    columns: Mapping[str, Any]
    labels: Mapping[str, str]
    where: Callable[[int], str]
    format: Format
    is_text: bool = False
    source: Source | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def keep(self, rows: Array) -> Table:
        """Only the rows at `rows` (positions in rising order), each of which still knows its place."""
        whole = self.where
        return replace(
            self,
            columns={role: column[rows] for role, column in self.columns.items()},
            where=lambda row: whole(int(rows[row])),
        )

    def without(self, *roles: str) -> Table:
        """The table without the columns of some roles."""
        return replace(self, columns={role: column for role, column in self.columns.items() if role not in roles})

    def fault(self, row: int, role: str, problem: str) -> DataError:
        """The error for one bad field: its place, its column, its value, and the `problem` with its cure."""
        value = self.columns[role][row]
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return DataError(f"{self.where(row)}, column {self.labels[role]!r}: {value!r} {problem}")


def read_table(source: Source, format: str, named: Mapping[str, str | None], id_type: str | None) -> Table:
    """Read the columns of a ratings file.

    Args:
        source: the file.
        format: a name in `FORMATS`, or ``"auto"`` to go by the look of the file.
        named: by role, the column that the caller named, or None to recognise the usual names.
        id_type: ``"text"`` reads ids as text even where they look like integers.

    Raises:
        DataError: a file of no known kind, without rows, or without one of the columns.
        ConfigError: an unknown format.
    """
    choose("format", format, ["auto", *FORMATS])
    with source.open() as stream:
        start = stream.read(1 << 16)
    binary = _binary_kind(start, source)
    if (format in BINARY or binary) and format not in ("auto", binary):
        raise DataError(f"{source.label} is {binary or 'a text file'}, not {format!r}; pass format='auto'")
    if binary == "npz":
        return _read_npz(source, named)
    if binary == "parquet":
        return _read_parquet(source, named)
    return _read_text(source, start, format, named, id_type)


def table_of_columns(
    columns: Mapping[str, Any], named: Mapping[str, str | None], form: Format, where: Callable[[int], str], owner: str
) -> Table:
    """A `Table` of typed columns by their own names, with the roles found among the names."""
    names = list(columns)
    at = find_columns(names, named, owner)
    labels = {role: names[i] for role, i in at.items()}
    return Table(
        {role: _plain(columns[label]) for role, label in labels.items()}, labels, where, known_header(names) or form
    )


def _plain(column: Any) -> Any:
    """A pandas column as an array of NumPy's own types, or as a `pandas.Categorical`; other things unchanged."""
    if not isinstance(column, pd.Series):
        return column
    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        return pd.Categorical(column)
    if isinstance(kind, np.dtype):
        return column.to_numpy()
    if isinstance(kind, pd.DatetimeTZDtype):
        return column.dt.tz_convert(None).to_numpy()
    if pd.api.types.is_integer_dtype(kind) and not column.isna().any():
        return column.to_numpy(dtype=np.uint64 if pd.api.types.is_unsigned_integer_dtype(kind) else np.int64)
    if pd.api.types.is_float_dtype(kind):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return column.to_numpy(dtype=object)


def _binary_kind(start: bytes, source: Source) -> str | None:
    """``"npz"``, ``"parquet"`` or None for text.

    Raises:
        DataError: nothing in the file, or bytes of no known kind.
    """
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PK\x03\x04"):
        if source.member is None and not zipfile.is_zipfile(source.path):
            raise DataError(f"{source.label} is a zip archive cut short; download or pack it again")
        return "npz"
    if not start.strip():
        raise DataError(f"{source.label} is empty; give a table with one rating a line")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{source.label} is UTF-16 text; save it as UTF-8")
    if b"\0" in start or start.startswith(b"\x80"):
        raise DataError(
            f"{source.label} is a binary file of no known kind (it starts with {start[:8]!r}); "
            "give CSV, TSV, NPZ or Parquet (pickles are never loaded)"
        )
    return None


def _read_npz(source: Source, named: Mapping[str, str | None]) -> Table:
    with source.open() as stream:
        content = io.BytesIO(stream.read())
    try:
        with np.load(content, allow_pickle=False) as arrays:
            names = list(arrays.files)
            at = find_columns(names, named, source.label)
            columns = {role: arrays[names[i]] for role, i in at.items()}
    except DataError:
        raise
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{source.label} cannot be read as NPZ ({error}); save plain integer, float or string arrays with np.savez"
        ) from error
    shapes = {names[i]: columns[role].shape for role, i in at.items()}
    if len(set(shapes.values())) > 1 or len(columns["rating"].shape) != 1:
        raise DataError(f"{source.label} has arrays of shapes {shapes}; give one-dimensional arrays of one length")
    labels = {role: names[i] for role, i in at.items()}
    return Table(columns, labels, _row_of(source), FORMATS["npz"], source=source)


def _read_parquet(source: Source, named: Mapping[str, str | None]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with source.open() as stream:
        try:
            file = pq.ParquetFile(io.BytesIO(stream.read()) if source.member else source.path)
            names = file.schema_arrow.names
            at = find_columns(names, named, source.label)
            read = file.read(columns=[names[i] for i in at.values()])
        except pa.ArrowException as error:
            raise DataError(f"{source.label} cannot be read as Parquet ({error}); write it again") from error
    table = table_of_columns(
        {name: read.column(name).to_pandas() for name in read.column_names},
        named,
        FORMATS["parquet"],
        _row_of(source),
        source.label,
    )
    return replace(table, source=source)


def _row_of(source: Source) -> Callable[[int], str]:
    return lambda row: f"row {row} of {source.label} (counting from 0)"


def _read_text(
    source: Source, start: bytes, format: str, named: Mapping[str, str | None], id_type: str | None
) -> Table:
    lines = start.decode("utf-8-sig", errors="replace").splitlines()
    n_blank = next(k for k, line in enumerate(lines) if line.strip())
    form, separator, names, n_header_lines = _layout(lines[n_blank], format, source)
    at = find_columns(names, named, source.label)
    columns = _parse(source, separator, len(names), n_blank + n_header_lines, at, id_type)
    return Table(
        columns,
        {role: names[i] for role, i in at.items()},
        lambda row: f"line {source.line_of(row, separator, n_header_lines)} of {source.label}",
        form,
        is_text=True,
        source=source,
    )


def _layout(first_line: str, format: str, source: Source) -> tuple[Format, str, list[str], int]:
    """The format, the separator, the column names and the number of header lines, from the first line with text."""
    separator = FORMATS[format].separator if format != "auto" else None
    if separator is None:
        separator = "::" if "::" in first_line else max("\t,;|", key=first_line.count)
    fields = fields_of(first_line, separator)
    begins = f"the first line of {source.label} is {first_line[:80]!r}"
    if len(fields) < 3:
        raise DataError(
            f"{begins}: fewer than 3 columns split at {separator!r}; give a table of user, item and rating (1 for a "
            "click), separated by tab, comma, semicolon, bar or '::'"
        )
    form = FORMATS[format] if format != "auto" else _recognise(fields, separator)
    if form.columns:
        # Such files have no header, so a first row that is damaged must not be mistaken for one.
        if len(fields) > len(form.columns):
            raise DataError(f"{begins}: {len(fields)} columns, but {form.name!r} has {', '.join(form.columns)}")
        return form, separator, list(form.columns[: len(fields)]), 0
    if all(_is_number(field) for field in fields):
        raise DataError(
            f"{begins}, which is data and not a header; put a first line with the column names, such as "
            "user,item,rating"
        )
    return form, separator, fields, 1


def _recognise(fields: list[str], separator: str) -> Format:
    """The format of a text file by the fields of its first line."""
    known = known_header(fields)
    if known is not None:
        return known
    if separator == "::":
        return FORMATS["ml-dat"]
    if separator == "\t":
        is_data = all(_is_number(field) for field in fields) and len(fields) <= len(ROLES)
        return FORMATS["ml-100k" if is_data else "tsv"]
    return FORMATS["csv"]


def _parse(
    source: Source, separator: str, width: int, skip: int, at: Mapping[str, int], id_type: str | None
) -> dict[str, Any]:
    """Columns by role: typed at one go where every field allows it, otherwise as text, for the checks to judge."""
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    id_columns = text if id_type == "text" else pa.int64()
    types = {"user": id_columns, "item": id_columns, "rating": pa.float64(), "timestamp": pa.int64()}
    attempts = [types, {**types, "user": text, "item": text}, dict.fromkeys(ROLES, text)]
    for attempt in attempts:
        try:
            read = _arrow_csv(source, separator, width, skip, {i: attempt[role] for role, i in at.items()})
        except pa.ArrowInvalid as error:
            failure = error
            continue
        if not len(read):
            raise DataError(f"{source.label} has a header but no rows; give a table with one rating a line")
        if attempt is attempts[-1] or not any(column.null_count for column in read.columns):
            columns = {}
            for role, i in at.items():
                columns[role] = _to_numpy(read.column(str(i)))
                read = read.drop_columns(str(i))  # else the whole table would be in memory twice
            pa.default_memory_pool().release_unused()
            return columns
    _refuse_ragged(source, separator, width)
    raise DataError(f"{source.label} cannot be read ({failure}); save it as UTF-8 text, one rating a line")


def _arrow_csv(source: Source, separator: str, width: int, skip: int, types: Mapping[int, Any]) -> Any:
    """A pyarrow table whose columns are called by their position."""
    import pyarrow.csv as pc

    # Arrow splits at one character only, so '::' is read as ':' with an empty column between every two.
    step, mark = len(separator), separator[0]
    is_quoted = mark in ",;"
    names = [str(i // step) if i % step == 0 else f"gap {i}" for i in range((width - 1) * step + 1)]
    with source.open() as stream:
        return pc.read_csv(
            stream,
            read_options=pc.ReadOptions(column_names=names, skip_rows=skip),
            parse_options=pc.ParseOptions(
                delimiter=mark, quote_char='"' if is_quoted else False, newlines_in_values=is_quoted
            ),
            convert_options=pc.ConvertOptions(
                column_types={str(i): kind for i, kind in types.items()}, include_columns=[str(i) for i in types]
            ),
        )


def _to_numpy(column: Any) -> Any:
    """A column of a pyarrow table as an array, or as a `pandas.Categorical` if it is text."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return column.to_numpy()
    whole = column.unify_dictionaries().combine_chunks()
    codes = np.asarray(whole.indices.fill_null(-1))
    return pd.Categorical.from_codes(codes, categories=pd.Index(whole.dictionary.to_pylist(), dtype=object))


def _refuse_ragged(source: Source, separator: str, width: int) -> None:
    """Raise for the first line that has not `width` fields, if there is one."""
    with source.open() as stream:
        for line, fields in records(stream, separator):
            if len(fields) != width:
                raise DataError(
                    f"line {line} of {source.label} has {len(fields)} columns, but the first line has {width} "
                    f"({separator.join(fields)[:80]!r}); mend or drop that line"
                )


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
