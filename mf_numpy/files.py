"""Files that appear under their names only when they are whole, and safetensors whose arrays stay in their files."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mf_numpy.errors import FileFormatError, nearest
from mf_numpy.ratings import Array

_DTYPES = {"F32": np.float32, "F64": np.float64}
"""Those of arrays that can stay in their files."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; the file moves to `path` when the block ends well.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: `path` is a folder.
        OSError: the file cannot be written.
    """
    check_writable(path)
    # Through a symbolic link it is the linked file that is replaced, not the link.
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        # Made here, so that the file gets the permissions the user's umask asks for.
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o666))
        allowed = stat.S_IMODE(partial.stat().st_mode)
        yield partial
        # Safetensors puts a file of its own there, which only its owner may read.
        partial.chmod(allowed)
        _flush(partial)
        os.replace(partial, target)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    # Some file systems refuse to flush a folder; the file itself is safe by now.
    with contextlib.suppress(OSError):
        _flush(target.parent)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a path that could not be written to, so that nobody learns it only after a long fit.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: `path` is a folder.
        PermissionError: the folder does not take new files.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{str(target)!r} is a folder; give the name of a file, such as 'model.safetensors'")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"folder {str(target.parent)!r} does not exist; make it first, or save elsewhere")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"folder {str(target.parent)!r} may not be written to; save elsewhere")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        format: what its header calls it.
        newest: the newest format version that is read; all from 1 on are.
        called: what people call it.
        wanted: what to give instead of another kind.
        again: how another one is made.
    """

    format: str
    newest: int
    called: str
    wanted: str
    again: str


@dataclass(frozen=True)
class Place:
    """Where an array lies in a file: its type in the words of safetensors, shape, and first byte."""

    dtype: str
    shape: tuple[int, ...]
    begin: int

    @property
    def maps(self) -> bool:
        """Whether the array can stay there."""
        return self.dtype in _DTYPES and 0 not in self.shape


def read_header(source: Path, kind: Kind) -> tuple[dict[str, str], dict[str, Place]]:
    """The text of a safetensors header and the place of each array, read by hand.

    The library has one error for every kind of damage.

    Raises:
        FileNotFoundError: no such file, with the nearest name in its folder.
        FileFormatError: another kind of file, a truncated one, or one of another format version.
    """
    other = f"{str(source)!r} is not a {kind.called}; give {kind.wanted}"
    if source.is_dir():
        raise FileFormatError(f"{str(source)!r} is a folder; give the {kind.called} in it")
    try:
        with open(source, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(9)
            length = int.from_bytes(start[:8], "little")
            # A header is JSON with a length that fits in a file; anything else was never one.
            if len(start) < 9 or start[8:] != b"{" or length > 1 << 30:
                raise FileFormatError(other)
            if size < 8 + length:
                raise FileFormatError(_truncated(source, size, 8 + length))
            header = json.loads(start[8:] + file.read(length - 1))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(not_there(source)) from error
    except ValueError as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(other) from error
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != kind.format:
        raise FileFormatError(other)
    version = str(metadata.get("version"))
    if version not in map(str, range(1, kind.newest + 1)):
        if version.isdecimal() and int(version) > kind.newest:
            raise FileFormatError(
                f"{str(source)!r} has format version {version}, and this version of the package reads up to "
                f"{kind.newest}; upgrade the package"
            )
        raise FileFormatError(f"{str(source)!r} has format version {version!r}, which never was; {kind.again}")
    entries = {name: entry for name, entry in header.items() if isinstance(entry, dict)}
    needed = 8 + length + max((entry.get("data_offsets", [0, 0])[-1] for entry in entries.values()), default=0)
    if size < needed:
        raise FileFormatError(_truncated(source, size, needed))
    places = {
        name: Place(str(entry["dtype"]), tuple(entry["shape"]), 8 + length + int(entry["data_offsets"][0]))
        for name, entry in entries.items()
        if entry.keys() >= {"dtype", "shape", "data_offsets"}
    }
    return metadata, places


def write_header(
    file: BinaryIO, shapes: Mapping[str, tuple[int, ...]], dtype: Mapping[str, np.dtype[Any]], metadata: dict[str, str]
) -> None:
    """Begin a safetensors file, which the arrays follow in the order of `shapes`, without a gap."""
    names, header, end = {np.dtype(of): name for name, of in _DTYPES.items()}, {"__metadata__": metadata}, 0
    entries: dict[str, Any] = dict(header)
    for name, shape in shapes.items():
        begin, end = end, end + int(np.prod(shape)) * dtype[name].itemsize
        entries[name] = {"dtype": names[dtype[name]], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    # Arrays begin at a multiple of 8 bytes.
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)


def mapped(source: Path, place: Place) -> Array:
    """An array that stays in its file, of which those parts are read that are asked for."""
    # A plain view: what is computed from it is no map of a file.
    return np.memmap(source, _DTYPES[place.dtype], "r", place.begin, place.shape).view(np.ndarray)


def _truncated(source: Path, size: int, needed: int) -> str:
    return f"{str(source)!r} is truncated: {size:,} of at least {needed:,} bytes are there; copy or save it again"


def not_there(source: Path) -> str:
    folder = source.parent
    if not folder.is_dir():
        return f"{str(source)!r} does not exist, nor does its folder; check the path"
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    return f"{str(source)!r} does not exist.{nearest(source.name, names)}"
