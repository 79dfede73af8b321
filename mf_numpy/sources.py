"""Files of ratings: finding and opening them, whatever they are packed in, and counting their lines.

Compression (gzip, zip) is seen by the first bytes of a file. What is in a file is for `mf_numpy.tables` to say.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from mf_numpy.errors import DataError, nearest

_KNOWN_NAMES = ("u.data", "ratings.dat", "ratings.csv", "rating.csv")
_SUFFIXES = (".csv", ".tsv", ".dat", ".data", ".npz", ".parquet")


@dataclass(frozen=True)
class Source:
    """A file, or a member of a zip archive."""

    path: Path
    member: str | None = None

    @property
    def label(self) -> str:
        """The file name, for messages."""
        return self.path.name if self.member is None else f"{self.path.name}:{self.member}"

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes, unpacked.

        Raises:
            DataError: a damaged archive, met here or while reading.
        """
        try:
            if self.member is None:
                with self.path.open("rb") as file, _gunzipped(file) as stream:
                    yield stream
            else:
                with (
                    zipfile.ZipFile(self.path) as archive,
                    archive.open(self.member) as raw,
                    _gunzipped(io.BufferedReader(raw)) as stream,
                ):
                    yield stream
        except EOFError as error:
            raise DataError(
                f"{self.label} is cut short: the compressed data end in the middle; download or pack it again"
            ) from error
        except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{self.label} cannot be unpacked ({error}); download or pack it again") from error

    def sibling(self, name: str) -> Source | None:
        """The file `name`, or its gzipped form, in the same folder or archive; None where there is none."""
        if self.member is None:
            found = [self.path.with_name(n) for n in (name, f"{name}.gz") if self.path.with_name(n).is_file()]
            return Source(found[0]) if found else None
        folder = self.member.rpartition("/")[0]
        beside = f"{folder}/{name}" if folder else name
        with zipfile.ZipFile(self.path) as archive:
            return Source(self.path, beside) if beside in archive.namelist() else None

    def line_of(self, row: int, separator: str, n_header_lines: int) -> int:
        """The 1-based line of data row `row` (from 0); blank lines are no rows, but count as lines."""
        with self.open() as stream:
            return next(islice(records(stream, separator), row + n_header_lines, None))[0]


def locate(path: str | Path) -> Source:
    """The ratings file at `path`: the file itself, the known name in a folder, or the ratings member of a zip archive.

    Raises:
        DataError: nothing there, or several files that might be meant.
    """
    path = Path(path)
    if not path.exists():
        folder = path.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        missing = f"{str(path)!r} does not exist" + ("" if names else f", nor has {str(folder)!r} any files")
        raise DataError(f"{missing}; give a file or folder of ratings.{nearest(path.name, names)}")
    if path.is_dir():
        names = sorted(p.name for p in path.iterdir() if p.is_file())
        return Source(path / _ratings_name(names, str(path)))
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX")]
        if not (names and all(n.endswith(".npy") for n in names)):  # an NPZ file is a zip archive too
            return Source(path, _ratings_name(names, path.name))
    return Source(path)


def records(stream: IO[bytes], separator: str) -> Iterator[tuple[int, list[str]]]:
    """The 1-based line and the fields of every line that is not blank."""
    lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    if len(separator) > 1:
        split = ((k, line.rstrip("\r\n").split(separator)) for k, line in enumerate(lines, start=1))
    else:
        reader = csv.reader(lines, delimiter=separator, quoting=_quoting(separator))
        split = ((reader.line_num, fields) for fields in reader)
    try:
        yield from ((line, fields) for line, fields in split if len(fields) > 1 or "".join(fields).strip())
    finally:
        lines.detach()  # the stream is its opener's to close


def fields_of(line: str, separator: str) -> list[str]:
    """The fields of one line, without the blanks around them."""
    if len(separator) > 1:
        return [field.strip() for field in line.split(separator)]
    return [field.strip() for field in next(csv.reader([line], delimiter=separator, quoting=_quoting(separator)))]


def _quoting(separator: str) -> Any:
    return csv.QUOTE_MINIMAL if separator in ",;" else csv.QUOTE_NONE


@contextmanager
def _gunzipped(raw: Any) -> Iterator[IO[bytes]]:
    if raw.peek(2)[:2] == b"\x1f\x8b":
        with gzip.open(raw, "rb") as stream:
            yield stream
    else:
        yield raw


def _ratings_name(names: Sequence[str], owner: str) -> str:
    """Which of the files is the ratings file."""
    if len(names) == 1:
        return names[0]
    base = {name: name.rpartition("/")[2].removesuffix(".gz") for name in names}
    for candidates in (
        [name for name in names if base[name] in _KNOWN_NAMES],
        [name for name in names if base[name].lower().endswith(_SUFFIXES)],
    ):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            break
    raise DataError(
        f"{owner} holds {len(names)} files, and which has the ratings is not clear ({', '.join(names[:8]) or 'none'}); "
        f"give the path of one file, or name it one of {', '.join(_KNOWN_NAMES)}"
    )
