"""Tables of items that stand beside the ratings: titles and genres, in one shape whatever the source.

The table is indexed by raw item id (int64) and has the text columns ``title`` and ``genres`` ("Action, Drama"; empty
where none is known); the anime table has ``type`` too.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable

import pandas as pd

from mf_numpy.errors import DataError
from mf_numpy.sources import Source

_Rows = dict[int, tuple[str, ...]]

# fmt: off
_ML_100K_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on


def read_item_info(source: Source) -> pd.DataFrame:
    """Read ``anime.csv``, ``u.item``, ``movies.dat`` or ``movies.csv`` (also gzipped), told apart by name.

    Raises:
        DataError: another name, or a line that does not look as that file should.
    """
    name = source.label.rpartition(":")[2].rpartition("/")[2].removesuffix(".gz")
    if name not in _READERS:
        raise DataError(
            f"{source.label} is no known table of items ({', '.join(_READERS)}); "
            "pass item_info=a DataFrame indexed by item id, or item_info=False to go without"
        )
    with source.open() as stream:
        raw = stream.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:  # MovieLens before 10M
        text = raw.decode("latin-1")
    columns = ["title", "genres", "type"] if name == "anime.csv" else ["title", "genres"]
    try:
        rows = _READERS[name](text)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise DataError(
            f"{source.label} is not a usable table of items ({error!r}); mend it, or pass item_info=False to go without"
        ) from error
    index = pd.Index(list(rows), dtype="int64", name="item")
    return pd.DataFrame(list(rows.values()), index=index, columns=columns)


def _anime(text: str) -> _Rows:
    return {
        int(row["anime_id"]): (html.unescape(row["name"]), row["genre"] or "", row["type"] or "")
        for row in csv.DictReader(io.StringIO(text))
    }


def _u_item(text: str) -> _Rows:
    rows: _Rows = {}
    for line in filter(None, text.split("\n")):
        fields = line.rstrip("\r").split("|")
        flags = fields[5:]
        rows[int(fields[0])] = (
            fields[1],
            ", ".join(name for name, flag in zip(_ML_100K_GENRES, flags, strict=True) if flag == "1"),
        )
    return rows


def _movies_dat(text: str) -> _Rows:
    parts = (line.rstrip("\r").split("::") for line in text.split("\n") if line)
    return {int(fields[0]): (fields[1], _commas(fields[2])) for fields in parts}


def _movies_csv(text: str) -> _Rows:
    return {int(row["movieId"]): (row["title"], _commas(row["genres"])) for row in csv.DictReader(io.StringIO(text))}


def _commas(genres: str) -> str:
    return "" if genres == "(no genres listed)" else genres.replace("|", ", ")


_READERS: dict[str, Callable[[str], _Rows]] = {
    "anime.csv": _anime,
    "u.item": _u_item,
    "movies.dat": _movies_dat,
    "movies.csv": _movies_csv,
}

TABLES = tuple(_READERS)
"""Names of the known tables."""
