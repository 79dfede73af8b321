"""The Netflix Prize's files: ratings movie by movie, and the probe, those of them that it set apart as a test.

Its licence forbids passing them on. A folder of somebody's own copy has ``probe.txt`` and, as they came, the files
``training_set/mv_0000001.txt`` and so on, or ``combined_data_1.txt`` and so on, which hold the same one after another.
A line ``1:`` says of which movie the lines after it are: ``user,rating,date`` of ratings, ``user`` alone of the probe.
Dates are left out: a hundred million of them take as much room as the ratings.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mf_numpy.errors import DataError, counted
from mf_numpy.ratings import Array, IdMap, Ratings
from mf_numpy.split import Split, hold_out

SCALE = (1.0, 5.0)
LAYOUTS = ("training_set/mv_*.txt", "combined_data_*.txt")
PROBE = "probe.txt"

BYTES = 1 << 24
"""Of the text that is taken in at a time."""
ROWS = 1 << 22
"""Ratings that are looked through at a time."""

LARGEST = 10**9
"""Ids stay below."""

_LINE = {
    "rating": re.compile(rb"\d{1,9}:|\d{1,9},[1-5],\d{4}-\d{2}-\d{2}|"),
    "pair": re.compile(rb"\d{1,9}:|\d{1,9}|"),
}


def files(folder: Path) -> list[Path]:
    """The files of ratings in a folder, in the order of the movies.

    Raises:
        DataError: no folder, or none that has them.
    """
    for layout in LAYOUTS:
        if found := sorted(folder.glob(layout)):
            return found
    raise DataError(
        f"{folder.name} has neither {LAYOUTS[0]} nor {LAYOUTS[1]}; put the files of the Netflix Prize there, unpacked"
    )


def count(folder: Path) -> int:
    """How many ratings the files of a folder have: their lines less those of movies.

    Raises:
        DataError: as `files`.
    """
    return sum(block.count(b"\n") - block.count(b":") for block in _blocks(files(folder)))


def read(folder: Path) -> Ratings:
    """All ratings, the probe's among them, in the order of the files; without dates.

    Raises:
        DataError: a folder without the files, a line that is none of a rating, or a movie or a pair that comes twice.
    """
    users, movies, values = _table(files(folder), "rating")
    user_of, user_ids = _encoded(users)
    item_of, item_ids = _encoded(movies)
    del users, movies
    ratings = Ratings(
        user_of,
        item_of,
        values,
        user_ids,
        item_ids,
        scale=SCALE,
        notes={
            "rows": len(values),
            "not_rated": 0,
            "duplicates": 0,
            "conflicts": 0,
            "policy": "error",
            "format": "netflix",
        },
    )
    _check_pairs(ratings)
    return ratings


def probe(folder: Path) -> Split:
    """The prize's own test: all ratings but the probe's to train on, and the probe's held out.

    Raises:
        DataError: as `read`, no probe, or one whose pairs are not all ratings, each once.
    """
    path = folder / PROBE
    if not path.is_file():
        raise DataError(f"there is no {PROBE} beside the ratings in {folder.name}; put the one of the prize there")
    users, movies, _ = _table([path], "pair")
    ratings = read(folder)
    u, i = ratings.user_ids.encode(users), ratings.item_ids.encode(movies)
    wanted = np.where((u < 0) | (i < 0), -1, i * ratings.n_users + u)
    ordered = np.unique(wanted[wanted >= 0])
    # What would come after the last one equals no pair.
    padded = np.append(ordered, -1)
    held = np.zeros(len(ratings), dtype=np.bool_)
    rated: list[Array] = []
    for part, keys in _keys(ratings):
        held[part] = padded[np.searchsorted(ordered, keys)] == keys
        rated.append(keys[held[part]])
    if not (found := np.isin(wanted, np.concatenate(rated))).all():
        bad = int(np.argmin(found))
        raise DataError(
            f"{PROBE} has {counted(int((~found).sum()), 'pair')} not among the ratings, such as user {users[bad]} and "
            f"movie {movies[bad]}; take probe and ratings of one copy, whole"
        )
    if len(ordered) < len(wanted):
        raise DataError(f"{PROBE} has {counted(len(wanted) - len(ordered), 'pair')} more than once; take it as it came")
    return hold_out(ratings.take(~held), ratings.take(held))


def _table(paths: Sequence[Path], kind: str) -> tuple[Array, Array, Array]:
    """Users and movies (N,) int32 and, of ratings, values (N,) int8, in the order of the files."""
    users: list[Array] = []
    movies: list[Array] = []
    values: list[Array] = []
    begun: list[Array] = []
    now = -1
    for block in _blocks(paths):
        first, second = _columns(block, paths, kind)
        at = np.flatnonzero(second == 0)
        rows = second != 0
        whole = len(at) == block.count(b":")
        legal = np.isnan(second[rows]) if kind == "pair" else np.isin(second[rows], (1, 2, 3, 4, 5))
        legal_ids = first.min() >= 0 and first.max() < LARGEST
        if not (whole and legal.all() and legal_ids and (now >= 0 or (len(at) and at[0] == 0))):
            raise _fault(paths, kind)
        first = first.astype(np.int32)
        begun.append(first[at])
        # Lines before a block's first movie are of the last one of the block before.
        of_rows = np.concatenate(([now], first[at])).astype(np.int32)
        movies.append(np.repeat(of_rows, np.diff(np.concatenate(([-1], at, [len(first)]))) - 1))
        users.append(first[rows])
        values.append(np.nan_to_num(second[rows]).astype(np.int8))
        now = int(of_rows[-1])
    if not sum(map(len, users)):
        raise DataError(f"{_shown(paths)} has no lines of users; give the files of the prize as they came")
    headers = np.sort(np.concatenate(begun))
    if (twice := headers[1:] == headers[:-1]).any():
        movie = headers[int(np.argmax(twice))]
        raise DataError(f"movie {movie} comes twice in {_shown(paths)}; keep one copy of each file")
    return np.concatenate(users), np.concatenate(movies), np.concatenate(values)


def _columns(block: bytes, paths: Sequence[Path], kind: str) -> tuple[Array, Array]:
    """The first two fields of each line: int64, and float64 with NaN where there is none and 0 after a movie."""
    names = ["first", "second", "date"]
    # A line of all fields goes before, from which pandas takes how many there are, and is left out again.
    text = b"0,0,0\n" + block.replace(b":", b",0")
    try:
        table = pd.read_csv(
            io.BytesIO(text),
            header=None,
            names=names,
            usecols=names[:2],
            dtype={"first": np.int64, "second": np.float64},
        )
    except (ValueError, OverflowError):
        raise _fault(paths, kind) from None
    return table["first"].to_numpy()[1:], table["second"].to_numpy()[1:]


def _fault(paths: Sequence[Path], kind: str) -> DataError:
    """The error for the first line that is none of its kind, which is sought only now that there is one."""
    wanted = "user,rating,date" if kind == "rating" else "user"
    begun = False
    for path in paths:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                text = line.rstrip(b"\r\n")
                begun = begun or text.endswith(b":")
                if not (begun or not text) or not _LINE[kind].fullmatch(text):
                    shown = text[:60].decode("ascii", errors="replace")
                    what = f"is no movie such as '1:' nor {wanted!r} of one"
                    return DataError(f"line {number} of {path.name}: {shown!r} {what}; take the file as it came")
    return DataError(f"{_shown(paths)} cannot be read as lines of {wanted!r}; take the files as they came")


def _blocks(paths: Sequence[Path]) -> Iterator[bytes]:
    """The lines of some files, one file after the other, in pieces of whole lines."""
    held: list[bytes] = []
    size = 0
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(BYTES):
                held.append(part)
                size += len(part)
                if size >= BYTES:
                    text = b"".join(held)
                    end = text.rfind(b"\n") + 1
                    if end:
                        yield text[:end]
                    held, size = [text[end:]], len(text) - end
        # The last line of a file need not end.
        if held and held[-1] and not held[-1].endswith(b"\n"):
            held.append(b"\n")
            size += 1
    if text := b"".join(held):
        yield text


def _encoded(raw: Array) -> tuple[Array, IdMap]:
    """Index (N,) int32 of each id (N,) ≥ 0, and the map of the ids in order; by a table, as N is large."""
    seen = np.zeros(int(raw.max()) + 1, dtype=np.bool_)
    seen[raw] = True
    place = np.cumsum(seen, dtype=np.int32) - 1
    return place[raw], IdMap(np.flatnonzero(seen))


def _keys(ratings: Ratings) -> Iterator[tuple[slice, Array]]:
    """Parts of the ratings, and one number for each pair there."""
    for begin in range(0, len(ratings), ROWS):
        part = slice(begin, begin + ROWS)
        yield part, ratings.items[part].astype(np.int64) * ratings.n_users + ratings.users[part]


def _check_pairs(ratings: Ratings) -> None:
    """Refuse a user with two ratings of a movie: a movie's lie together, so that parts of them can be sorted."""
    # Where each movie's ratings begin, as positions in the table.
    begins = np.flatnonzero(np.diff(ratings.items, prepend=-1))
    edges = [*np.unique(begins[np.searchsorted(begins, np.arange(0, len(ratings), ROWS), "right") - 1]), len(ratings)]
    for begin, end in itertools.pairwise(edges):
        keys = np.sort(ratings.items[begin:end].astype(np.int64) * ratings.n_users + ratings.users[begin:end])
        if (twice := keys[1:] == keys[:-1]).any():
            i, u = divmod(int(keys[int(np.argmax(twice))]), ratings.n_users)
            raise DataError(
                f"user {ratings.user_ids.raw[u]} has two ratings of movie {ratings.item_ids.raw[i]}; take the files as "
                "they came"
            )


def _shown(paths: Sequence[Path]) -> str:
    return paths[0].name if len(paths) == 1 else f"{paths[0].name} and the files after it"
