"""A fitted model as one safetensors file: named arrays, and text as JSON. Nothing in it is executed when it is read.

Symbols: m users, n items, K factors, N training ratings. Arrays of the file:

- ``params.P`` (m, K), ``params.Q`` (n, K) and, in the biased model, ``params.b`` (m,), ``params.c`` (n,);
- ``velocity.*``, in the same shapes, when there is a velocity, or what stands in its place (`mf_numpy.optim.Memory`);
- ``second.*``, in the same shapes, Adam's running means of g²;
- ``last.*``, in the same shapes, when the last parameters are not the kept ones (``patience``);
- of a chain, in place of ``params.*``, which follow from them (Eq. 67), its S draws: ``draws.P`` (m, S, K), ``draws.Q``
  (n, S, K), ``draws.b`` (m, S), ``draws.c`` (n, S) and ``draws.precision`` (S,) float64;
- of a loss of G grades ``params.t`` (G - 1,) and ``grades`` (G,), see `mf_numpy.grades.Cuts`;
- with a design ``features.*``, (f, K), (g, K), (f,) and (g,), in which shapes velocity, second and last are then, and
  draws, from which features follow; and ``design.users.*`` (m, f) and ``design.items.*`` (n, g): a CSR matrix's indptr,
  indices and data, names, and how many features each block has;
- of users and items at a time also ``time.days`` (N,) int64, the day of each rating, and under ``time.`` all of what is
  below once more, of those without a time; the text ``time`` has their features, and the facts that these need;
- ``user_ids``, ``item_ids`` (int64), or ``*.bytes`` (uint8, UTF-8) with ``*.offsets`` (int64); ``titles`` likewise;
- ``seen.indptr`` (m + 1,) int64 and ``seen.indices`` (N,), the items that each user rated.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mf_numpy import feature_words
from mf_numpy.errors import ConfigError, DataError, FileFormatError, nearest
from mf_numpy.model import Params, Tensors
from mf_numpy.ratings import Array
from mf_numpy.result import Catalogue, FitResult
from mf_numpy.unpack import Unpacker

FORMAT = "mf-model"
VERSION, WITH_DESIGN, WITH_DRAWS, WITH_GRADES, WITH_TIME = 1, 2, 3, 4, 5
"""Format versions of files without and with a design, draws, grades or times, so that a reader which knows none refuses
it."""

_MAPPED = {"F32": np.float32, "F64": np.float64}


def save(result: FitResult, path: str | os.PathLike[str]) -> None:
    """Write a fitted model, with all that ``fit(resume=load(path))`` needs to go on bit for bit.

    The file appears under its name only when it is whole; until then an older file of that name stays as it was.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: `path` is a folder.
        OSError: the file cannot be written.
    """
    tensors, metadata = _pack(result)
    with replacing(path) as partial:
        try:
            save_file(tensors, partial, metadata)
        except SafetensorError as error:
            raise OSError(f"cannot write {str(path)!r}: {error}") from error


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
    """Refuse a path that `save` could not write to, so that nobody learns it only after a long fit.

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


def load(path: str | os.PathLike[str]) -> FitResult:
    """Read a fitted model; the inverse of `save`.

    ``catalogue.seen.order`` is None: the ratings count as sorted by user, since the original table is not in the file.
    The draws of a chain stay in the file, of which those parts are read that are asked for.

    Raises:
        FileNotFoundError: no such file, with the nearest name in its folder.
        FileFormatError: another kind of file, a truncated or damaged one, or one of a newer format version.
    """
    source = Path(path)
    metadata, places = _header(source)
    try:
        with safe_open(source, framework="numpy") as file:
            names = [name for name in file.keys() if name not in places]  # noqa: SIM118 (not a dict)
            tensors = {name: file.get_tensor(name) for name in names}
        tensors |= {name: _mapped(source, place) for name, place in places.items()}
        return Unpacker(tensors, metadata).result()
    except FileFormatError as error:
        raise FileFormatError(f"{str(source)!r} {error}; save the model again") from error
    except (SafetensorError, ConfigError, DataError, ValueError, TypeError, LookupError) as error:
        raise FileFormatError(f"{str(source)!r} is damaged: {error}; save the model again") from error


def _mapped(source: Path, place: tuple[str, tuple[int, ...], int]) -> Array:
    kind, shape, begin = place
    # A plain view: what is computed from it is no map of a file.
    return np.memmap(source, _MAPPED[kind], "r", begin, shape).view(np.ndarray)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pack(result: FitResult) -> tuple[Tensors, dict[str, str]]:
    catalogue, state = result.catalogue, result.state
    tensors = _prefixed("draws", state.draws.tensors()) if state.draws else _prefixed("params", result.params.tensors())
    times = None if result.design is None else result.design.times
    if result.design is not None and result.of_features is not None:
        if not state.draws:
            tensors |= _prefixed("features", result.of_features.tensors())
        for name, side in (("users", result.design.users), ("items", result.design.items)):
            matrix = side.matrix
            tensors |= {f"design.{name}.data": matrix.data}
            tensors |= {
                f"design.{name}.{part}": getattr(matrix, part).astype(np.int64) for part in ("indptr", "indices")
            }
            tensors |= _pack_text(f"design.{name}.names", np.array(side.names, dtype=object))
            tensors |= {f"design.{name}.blocks": np.array(side.blocks, np.int64)}
    cuts = result.params.cuts
    if cuts is not None:
        tensors["grades"] = cuts.grades
    if not _same(result.of_features or result.params, state.params):
        tensors |= _prefixed("last", state.params.tensors())
    memory = state.memory
    if memory is not None:
        tensors |= _prefixed("velocity", memory.velocity)
        tensors |= _prefixed("second", memory.second or {})
    tensors |= _pack_names(catalogue)
    if times is not None:
        tensors |= _prefixed("time", {"days": times.days, **_pack_names(times.catalogue)})
    facts = {
        "config": result.config.to_dict(),
        "history": [asdict(record) for record in result.history],
        "status": result.status,
        "message": result.message,
        "backend": result.backend,
        "device": result.device,
        "details": dict(result.details),
        "mu": result.params.mu,
        "mean": catalogue.mean,
        "scale": catalogue.scale,
        "epoch": state.epoch,
    }
    if memory is not None and memory.steps:
        facts["steps"] = memory.steps
    if cuts is not None:
        facts["unit"] = cuts.unit
    if times is not None:
        facts["time"] = feature_words.remembered(times)
    metadata = {name: json.dumps(_plain(value), allow_nan=False) for name, value in facts.items()}
    # safetensors writes the memory behind an array as it lies there, strides or not.
    whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    version = WITH_DRAWS if state.draws else VERSION if result.design is None else WITH_DESIGN
    version = version if cuts is None else WITH_GRADES
    return whole, {"format": FORMAT, "version": str(WITH_TIME if times else version)} | metadata


def _pack_names(catalogue: Catalogue) -> Tensors:
    tensors = {"seen.indptr": catalogue.seen.indptr, "seen.indices": catalogue.seen.indices}
    for name, ids in (("user_ids", catalogue.user_ids), ("item_ids", catalogue.item_ids)):
        tensors |= _pack_text(name, ids.raw) if ids.is_text else {name: ids.raw}
    return tensors if catalogue.titles is None else tensors | _pack_text("titles", catalogue.titles)


def _prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}.{name}": array for name, array in tensors.items()}


def _same(a: Params, b: Params) -> bool:
    if a is b:
        return True
    left, right = a.tensors(), b.tensors()
    # Bytes, not values: 0.0 == -0.0 would lose a sign, and NaN != NaN would write twice.
    return left.keys() == right.keys() and all(left[k].tobytes() == right[k].tobytes() for k in left)


def _pack_text(name: str, words: Array) -> Tensors:
    # Lone surrogates come from file names and broken tables; they must survive too.
    encoded = [str(word).encode("utf-8", "surrogatepass") for word in words]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(word) for word in encoded], out=offsets[1:])
    return {f"{name}.bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8), f"{name}.offsets": offsets}


def _plain(value: Any) -> Any:
    """JSON values; a number that JSON lacks becomes the text that ``float`` reads back."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def _header(source: Path) -> tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...], int]]]:
    """The text of a safetensors header, read by hand: the library has one error for every kind of damage.

    Beside it type, shape and place of the arrays that stay in the file.
    """
    if source.is_dir():
        raise FileFormatError(f"{str(source)!r} is a folder; give the model file in it")
    try:
        with open(source, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(9)
            length = int.from_bytes(start[:8], "little")
            # A header is JSON with a length that fits in a file; anything else was never a model.
            if len(start) < 9 or start[8:] != b"{" or length > 1 << 30:
                raise FileFormatError(_not_a_model(source))
            if size < 8 + length:
                raise FileFormatError(_truncated(source, size, 8 + length))
            header = json.loads(start[8:] + file.read(length - 1))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(_not_there(source)) from error
    except ValueError as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(_not_a_model(source)) from error
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise FileFormatError(_not_a_model(source))
    version = str(metadata.get("version"))
    if version not in map(str, (VERSION, WITH_DESIGN, WITH_DRAWS, WITH_GRADES, WITH_TIME)):
        if version.isdecimal() and int(version) > WITH_TIME:
            raise FileFormatError(
                f"{str(source)!r} has format version {version}, and this version of the package reads up to "
                f"{WITH_TIME}; "
                "upgrade the package"
            )
        raise FileFormatError(f"{str(source)!r} has format version {version!r}, which never was; save the model again")
    ends = [entry.get("data_offsets", [0, 0])[-1] for entry in header.values() if isinstance(entry, dict)]
    needed = 8 + length + max(ends, default=0)
    if size < needed:
        raise FileFormatError(_truncated(source, size, needed))
    places = {
        name: (str(entry["dtype"]), tuple(entry["shape"]), 8 + length + int(entry["data_offsets"][0]))
        for name, entry in header.items()
        if name in ("draws.P", "draws.Q") and entry.get("dtype") in _MAPPED and 0 not in entry.get("shape", [0])
    }
    return metadata, places


def _not_a_model(source: Path) -> str:
    return f"{str(source)!r} is not a model file; give a file that save() or `fit --output` wrote"


def _truncated(source: Path, size: int, needed: int) -> str:
    return f"{str(source)!r} is truncated: {size:,} of at least {needed:,} bytes are there; copy or save it again"


def _not_there(source: Path) -> str:
    folder = source.parent
    if not folder.is_dir():
        return f"{str(source)!r} does not exist, nor does its folder; check the path"
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    return f"{str(source)!r} does not exist.{nearest(source.name, names)}"
