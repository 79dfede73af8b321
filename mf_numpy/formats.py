"""The kinds of rating table that are known by sight, and how a column's name tells its role."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mf_numpy.errors import DataError, nearest

ROLES = ("user", "item", "rating", "timestamp")
"""What a column can be, in the order of files without a header."""

_ALIASES = {
    "user": "user userid uid userno reviewerid customerid memberid profileid",
    "item": "item itemid iid movieid movie animeid anime productid bookid isbn asin parentasin artistid trackid songid",
    "rating": "rating ratings score stars overall value userrating",
    "timestamp": "timestamp time ts unixtime unixreviewtime ratedat",
}


@dataclass(frozen=True, kw_only=True)
class Format:
    """How one kind of rating table is written.

    Attributes:
        name: what `read_ratings` calls it.
        separator: between fields, or None for a binary format or one that is found in the first line.
        columns: column names of a table without a header line.
        header: columns by which a table with a header is recognised.
        not_rated: the rating that means "seen, not rated", or None.
        duplicates: what is done with a second rating of a pair unless the caller says otherwise.
        scale: smallest and largest rating, or None.
        item_file: name of the table of titles beside it, if any.
    """

    name: str
    separator: str | None = None
    columns: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    not_rated: float | None = None
    duplicates: str = "error"
    scale: tuple[float, float] | None = None
    item_file: str | None = None


FORMATS = {
    f.name: f
    for f in (
        Format(
            name="anime",
            separator=",",
            header=("user_id", "anime_id", "rating"),
            not_rated=-1.0,
            duplicates="last",
            scale=(1.0, 10.0),
            item_file="anime.csv",
        ),
        Format(name="ml-100k", separator="\t", columns=ROLES, scale=(1.0, 5.0), item_file="u.item"),
        Format(name="ml-dat", separator="::", columns=ROLES, scale=(0.5, 5.0), item_file="movies.dat"),
        Format(
            name="ml-csv",
            separator=",",
            header=("userId", "movieId", "rating"),
            scale=(0.5, 5.0),
            item_file="movies.csv",
        ),
        Format(name="csv"),
        Format(name="tsv", separator="\t"),
        Format(name="npz"),
        Format(name="parquet"),
    )
}
BINARY = ("npz", "parquet")


def known_header(names: Sequence[str]) -> Format | None:
    """The format whose header has these column names, if any."""
    return next((f for f in FORMATS.values() if f.header and set(f.header) <= set(names)), None)


def find_columns(names: Sequence[str], named: Mapping[str, str | None], owner: str) -> dict[str, int]:
    """Position in `names` of each role; the timestamp may be missing.

    Raises:
        DataError: a named column that is not there, a role that no column seems to have, or that several seem to have.
    """
    found = {}
    for role in ROLES:
        wanted = named.get(role)
        if wanted is not None:
            if wanted not in names:
                raise DataError(f"{owner} has no column {wanted!r}; it has {list(names)}.{nearest(wanted, names)}")
            found[role] = names.index(wanted)
            continue
        taken = {named.get(r) for r in ROLES}
        usual = _ALIASES[role].split()
        like = [i for i, name in enumerate(names) if name not in taken and re.sub(r"[\W_]", "", name).lower() in usual]
        if len(like) > 1:
            raise DataError(
                f"{owner} has several columns that may be the {role}: {[names[i] for i in like]}; "
                f"say which with {role}='...'"
            )
        if like:
            found[role] = like[0]
        elif role != "timestamp":
            raise DataError(f"{owner} has no {role} column; it has {list(names)}: name it with {role}='...'")
    return found
