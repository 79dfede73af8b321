"""A fitted model as one safetensors file: named arrays, and text as JSON. Nothing in it is executed when it is read.

Symbols: m users, n items, K factors, N training ratings. Arrays of the file:

- ``params.P`` (m, K), ``params.Q`` (n, K) and, in the biased model, ``params.b`` (m,), ``params.c`` (n,);
- ``velocity.*``, in the same shapes, when there is a velocity, or what stands in its place (`mf_numpy.optim.Memory`);
- ``second.*``, in the same shapes, Adam's running means of g²;
- ``last.*``, in the same shapes, when the last parameters are not the kept ones (``patience``, ``average_from``);
- ``average.*``, in the same shapes, float64, the mean over epochs; the text ``averaged`` says over how many;
- of a chain, in place of ``params.*``, which follow from them (Eq. 70), its S draws: ``draws.P`` (m, S, K), ``draws.Q``
  (n, S, K), ``draws.b`` (m, S), ``draws.c`` (n, S) and ``draws.precision`` (S,) float64; where these lie in a file of
  their own (`mf_numpy.draws_file`), the last alone, and the text ``draws`` has where that file is;
- of a loss of G grades ``params.t`` (G - 1,), or ``draws.t`` (G - 1, S), and ``grades`` (G,), see
  `mf_numpy.grades.Cuts`;
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
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mf_numpy import draws_file, feature_words
from mf_numpy.errors import ConfigError, DataError, FileFormatError
from mf_numpy.files import Kind, mapped, read_header, replacing
from mf_numpy.model import Params, Tensors
from mf_numpy.ratings import Array
from mf_numpy.result import Catalogue, FitResult
from mf_numpy.unpack import Unpacker

FORMAT = "mf-model"
VERSION, WITH_DESIGN, WITH_DRAWS, WITH_GRADES, WITH_TIME, WITH_DRAWS_BESIDE, WITH_NORMAL = 1, 2, 3, 4, 5, 6, 7
"""Format versions of files without and with a design, draws, grades, times, draws in a file of their own, or grades by
normal noise, so that a reader which knows none refuses it."""

_KIND = Kind(FORMAT, WITH_NORMAL, "model file", "a file that save() or `fit --output` wrote", "save the model again")


def save(result: FitResult, path: str | os.PathLike[str]) -> None:
    """Write a fitted model, with all that ``fit(resume=load(path))`` needs to go on bit for bit.

    The file appears under its name only when it is whole; until then an older file of that name stays as it was. Draws
    that lie in a file of their own stay there, and the model has the way to it from its own folder.

    Raises:
        FileExistsError: `path` is the file of the draws.
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: `path` is a folder.
        OSError: the file cannot be written.
    """
    tensors, metadata = _pack(result)
    if result.state.draws and result.state.draws.kept is not None:
        metadata["draws"] = json.dumps(draws_file.told(result.state.draws, Path(path)))
    with replacing(path) as partial:
        try:
            save_file(tensors, partial, metadata)
        except SafetensorError as error:
            raise OSError(f"cannot write {str(path)!r}: {error}") from error


def load(path: str | os.PathLike[str], *, draws: str | os.PathLike[str] | None = None) -> FitResult:
    """Read a fitted model; the inverse of `save`.

    ``catalogue.seen.order`` is None: the ratings count as sorted by user, since the original table is not in the file.
    The draws of a chain stay in the file, of which those parts are read that are asked for.

    Args:
        draws: the file of the draws that ``fit(draws_to=...)`` wrote, where it is no longer where it was.

    Raises:
        ConfigError: `draws` for a model that has none in a file of their own.
        FileNotFoundError: no such file, with the nearest name in its folder.
        FileFormatError: another kind of file, a truncated or damaged one, one of a newer format version, or draws of
            another fit.
    """
    source = Path(path)
    metadata, places = read_header(source, _KIND)
    places = {name: place for name, place in places.items() if name in ("draws.P", "draws.Q") and place.maps}
    with _named(source):
        with safe_open(source, framework="numpy") as file:
            names = [name for name in file.keys() if name not in places]  # noqa: SIM118 (not a dict)
            tensors = {name: file.get_tensor(name) for name in names}
        tensors |= {name: mapped(source, place) for name, place in places.items()}
        told = json.loads(metadata.get("draws", "null"))
    beside = None
    if told is not None:
        beside = draws_file.of_model(source, draws, told, tensors.get("draws.precision", np.empty(0)))
    elif draws is not None:
        raise ConfigError(f"draws is {str(draws)!r}, but {str(source)!r} has none in another file; leave it out")
    with _named(source):
        return Unpacker(tensors, metadata, beside).result()


@contextlib.contextmanager
def _named(source: Path) -> Iterator[None]:
    """Give what is wrong with a file its name."""
    try:
        yield
    except FileFormatError as error:
        raise FileFormatError(f"{str(source)!r} {error}; save the model again") from error
    except (SafetensorError, ConfigError, DataError, ValueError, TypeError, LookupError) as error:
        raise FileFormatError(f"{str(source)!r} is damaged: {error}; save the model again") from error


def _pack(result: FitResult) -> tuple[Tensors, dict[str, str]]:
    catalogue, state = result.catalogue, result.state
    beside = state.draws.kept if state.draws else None
    tensors = _prefixed("params", result.params.tensors())
    if state.draws:
        precision = {"precision": np.array(state.draws.precisions)}
        tensors = _prefixed("draws", state.draws.tensors() if beside is None else precision)
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
    if state.average is not None:
        tensors |= _prefixed("average", state.average.tensors)
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
    if state.average is not None:
        facts["averaged"] = state.average.count
    if cuts is not None:
        facts["unit"] = cuts.unit
    if times is not None:
        facts["time"] = feature_words.remembered(times)
    metadata = {name: json.dumps(_plain(value), allow_nan=False) for name, value in facts.items()}
    # safetensors writes the memory behind an array as it lies there, strides or not.
    whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    version = WITH_DRAWS if state.draws else VERSION if result.design is None else WITH_DESIGN
    version = version if cuts is None else WITH_GRADES
    version = WITH_TIME if times else version
    version = version if beside is None else WITH_DRAWS_BESIDE
    version = WITH_NORMAL if cuts is not None and cuts.normal else version
    return whole, {"format": FORMAT, "version": str(version)} | metadata


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
    if {name: x.shape for name, x in left.items()} != {name: x.shape for name, x in right.items()}:
        return False
    # Bytes, not values: 0.0 == -0.0 would lose a sign, and NaN != NaN would write twice.
    return all(left[k].tobytes() == right[k].tobytes() for k in left)


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
