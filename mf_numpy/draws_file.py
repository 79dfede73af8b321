"""The draws of a chain in a file of their own, so that neither a fit nor a prediction needs room for all of them.

While a chain goes on, each draw is put behind the one before, in a file without a name, which is gone with the process.
When it ends, they are arranged as predictions read them, in a safetensors file that appears under its name when it is
whole, and stay there. Only what compares all rows (`FitResult.similar_items`), makes those of another day
(`FitResult.at`) or moves them to a device (`mf_torch.load`) takes room for all at once. Symbols: m users, n items,
K factors, S draws. Arrays of the file, in the dtype of training:

- ``draws.P`` (m, S, K), ``draws.Q`` (n, S, K), in the biased model ``draws.b`` (m, S) and ``draws.c`` (n, S), and
  ``draws.precision`` (S,) float64, as in a model file (`mf_numpy.store`); with a design they are of features;
- ``mean.Q`` (n, S, K): Q / S, by which products with P add up to the mean (Eq. 70);
- where ratings are grades ``draws.t`` (G - 1, S), which the cut points follow from, and ``grades`` (G,);
- with a design ``rows.P`` (m, S, K) and ``rows.Q`` (n, S, K): what users and items are made of in that mean (Eq. 33).
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mf_numpy import design as by_hand
from mf_numpy.config import SAMPLERS, Config
from mf_numpy.design import Design
from mf_numpy.errors import ConfigError, FileFormatError
from mf_numpy.files import Kind, check_writable, mapped, read_header, replacing, write_header
from mf_numpy.grades import Cuts
from mf_numpy.model import Params, Tensors
from mf_numpy.posterior import Draws, Kept, n_kept
from mf_numpy.ratings import Array

KIND = Kind("mf-draws", 1, "file of draws", "one that fit(draws_to=...) or `fit --draws` wrote", "fit the model again")

_BYTES_AT_ONCE = 1 << 22
"""Of the rows that are arranged together."""


class Spool:
    """Draws one behind the other in a file without a name.

    Attributes:
        path: where they are to lie in the end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _disk(path):
            # Without a buffer, so that nothing is left to be written when it is closed.
            self._file: Any = tempfile.TemporaryFile(dir=path.parent, buffering=0)  # noqa: SIM115
        self._like: Params | None = None
        weakref.finalize(self, self._file.close)

    def put(self, at: int, point: Params) -> None:
        """Write a draw behind `at` others.

        Raises:
            OSError: there is no room for it.
        """
        self._like = point
        tensors = point.tensors()
        with _disk(self.path):
            self._file.seek(at * sum(x.nbytes for x in tensors.values()))
            for tensor in tensors.values():
                left = memoryview(tensor.tobytes())
                while left:
                    left = left[self._file.write(left) :]

    def point(self, at: int) -> Params:
        """A draw."""
        like = self.like
        return like.with_tensors({name: self.part(at, name, slice(0, len(x))) for name, x in like.tensors().items()})

    def part(self, at: int, name: str, rows: slice) -> Array:
        """Some rows of an array of a draw."""
        tensors = self.like.tensors()
        names, sizes = list(tensors), [x.nbytes for x in tensors.values()]
        array, before = tensors[name], sum(sizes[: names.index(name)])
        shape = rows.stop - rows.start, *array.shape[1:]
        self._file.seek(at * sum(sizes) + before + rows.start * array[:1].nbytes)
        return np.fromfile(self._file, array.dtype, math.prod(shape)).reshape(shape)

    @property
    def like(self) -> Params:
        """One of the draws."""
        assert self._like is not None
        return self._like


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Say what to do about a disk that takes no more."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"cannot write draws for {str(path)!r}: {error.strerror or error}; make room on the disk, raise thin, or "
            "take another disk"
        ) from error


def check_new(path: str | os.PathLike[str]) -> Path:
    """Refuse a path to which no draws can be written.

    Raises:
        FileExistsError: something has that name.
        FileNotFoundError: the folder does not exist.
        PermissionError: the folder does not take new files.
    """
    target = Path(path)
    if target.exists():
        raise FileExistsError(f"{str(target)!r} exists already; delete it, or give the draws another name")
    check_writable(target)
    return target


def begin(path: str | os.PathLike[str] | None, config: Config, start: Params, earlier: Draws | None) -> Draws | None:
    """A chain whose draws go to a file; None without one.

    Args:
        start: parameters of the sizes that are drawn.
        earlier: draws of the run that this one goes on from.

    Raises:
        ConfigError: a solver that draws nothing.
        FileExistsError: something has that name.
        OSError: the folder does not exist or takes no files, or the disk has no room for all draws.
    """
    if path is None:
        return None
    if config.solver not in SAMPLERS:
        raise ConfigError(
            f"draws_to is {str(path)!r} with solver {config.solver!r}, which draws nothing; leave it out, or take "
            "'gibbs' or 'hmc'"
        )
    target = check_new(path)
    count = n_kept(config.n_epochs, config)
    # One behind the other, then arranged, with Q a second time.
    tensors = start.tensors()
    needed = count * (2 * sum(x.nbytes for x in tensors.values()) + tensors["Q"].nbytes)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise OSError(
            f"{count:,} draws take {needed / 2**30:.1f} GiB, but the disk of {str(target)!r} has {free / 2**30:.1f} "
            "GiB free; make room on the disk, raise thin, or take another disk"
        )
    draws = Draws(spool=Spool(target))
    for point, precision in zip(earlier.points, earlier.precisions, strict=True) if earlier else ():
        draws = draws.with_draw(point, precision)
    return draws


def finish(draws: Draws, design: Design | None) -> Draws:
    """The draws of a chain that has ended, in their file; none make no file.

    Raises:
        OSError: the file cannot be written.
    """
    spool, count = draws.spool, len(draws)
    assert spool is not None
    if not count:
        return Draws()
    like, dtype = spool.like.tensors(), spool.like.P.dtype
    share = dtype.type(1 / count)
    parts = [(f"draws.{name}", name, spool, None) for name in like]
    parts.append(("mean.Q", "Q", spool, share))
    if design is not None:
        made = Spool(spool.path)
        for at, point in enumerate(draws.points):
            rows = by_hand.rows(Params(point.P, point.Q * share), design)
            made.put(at, rows)
        parts += [(f"rows.{name}", name, made, None) for name in "PQ"]
    shapes = {out: _stacked(of.like.tensors()[name].shape, count) for out, name, of, _ in parts}
    precisions, cuts = np.array(draws.precisions), spool.like.cuts
    metadata = {"format": KIND.format, "version": str(KIND.newest), "mu": repr(float(spool.like.mu))}
    if cuts is not None:
        shapes, metadata = {"grades": cuts.grades.shape, **shapes}, metadata | {"unit": repr(float(cuts.unit))}
    dtypes = dict.fromkeys(shapes, dtype)
    with replacing(spool.path) as partial, _disk(spool.path), open(partial, "wb") as file:
        # Wide numbers first, so that each array begins at a multiple of its width.
        write_header(
            file,
            {"draws.precision": precisions.shape, **shapes},
            {"draws.precision": precisions.dtype, **dtypes},
            metadata,
        )
        file.write(precisions.tobytes())
        file.write(b"" if cuts is None else cuts.grades.tobytes())
        for _, name, of, factor in parts:
            _arrange(file, of, name, count, factor)
    return read(spool.path)


def _stacked(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    return (shape[0], count, *shape[1:])


def _arrange(file: BinaryIO, spool: Spool, name: str, count: int, factor: Any) -> None:
    """Write an array of all draws row by row, which lies draw by draw."""
    array = spool.like.tensors()[name]
    size = max(1, _BYTES_AT_ONCE // max(1, count * array[:1].nbytes))
    for start in range(0, len(array), size):
        rows = slice(start, min(start + size, len(array)))
        out = np.empty(_stacked((rows.stop - rows.start, *array.shape[1:]), count), array.dtype)
        for at in range(count):
            part = spool.part(at, name, rows)
            out[:, at] = part if factor is None else part * factor
        file.write(out.tobytes())


def read(path: str | os.PathLike[str]) -> Draws:
    """The draws of a file, of which those parts are read that are asked for.

    Raises:
        FileNotFoundError: no such file, with the nearest name in its folder.
        FileFormatError: another kind of file, a truncated or damaged one, or one of a newer format version.
    """
    source = Path(path)
    metadata, places = read_header(source, KIND)
    needed = {"draws.P", "draws.Q", "draws.precision", "mean.Q"}
    missing = sorted(needed - {name for name, place in places.items() if place.maps})
    if missing or "mu" not in metadata:
        lacks = missing[0] if missing else "mu"
        raise FileFormatError(f"{str(source)!r} is damaged: it lacks {lacks!r}; {KIND.again}")
    tensors = {name: mapped(source, place) for name, place in places.items() if place.maps}
    stacked = _under("draws", tensors)
    precisions = stacked.pop("precision")
    if any(x.shape[1:2] != precisions.shape for x in (*stacked.values(), tensors["mean.Q"])):
        raise FileFormatError(f"{str(source)!r} is damaged: its arrays are of different numbers of draws; {KIND.again}")
    kept = Kept(Path(os.path.abspath(source)), tensors["mean.Q"], _under("rows", tensors) or None)
    return replace(Draws.of(stacked, precisions, float(metadata["mu"]), _cuts(source, metadata, tensors)), kept=kept)


def _cuts(source: Path, metadata: Mapping[str, str], tensors: Tensors) -> Cuts | None:
    """What of cut points is no draw; None where ratings are numbers."""
    grades, t = tensors.get("grades"), tensors.get("draws.t")
    if grades is None and t is None:
        return None
    if grades is None or t is None or "unit" not in metadata or len(grades) != len(t) + 1:
        raise FileFormatError(f"{str(source)!r} is damaged: its grades and cut points do not fit; {KIND.again}")
    # Few numbers, which all that is asked of a draw needs.
    return Cuts(np.zeros(len(t), t.dtype), grades.copy(), float(metadata["unit"]), normal=True)


def told(draws: Draws, model: Path) -> dict[str, Any]:
    """What the model file `model` says of draws that lie in a file of their own.

    Raises:
        FileExistsError: `model` is that file.
    """
    assert draws.kept is not None
    path = draws.kept.path
    if os.path.realpath(model) == os.path.realpath(path):
        raise FileExistsError(f"{str(model)!r} is the file of the model's draws; save the model under another name")
    return {"file": os.path.relpath(path, model.parent), "shapes": _shapes(draws)}


def of_model(model: Path, path: str | os.PathLike[str] | None, said: Mapping[str, Any], precisions: Array) -> Draws:
    """The draws of which a model file says what `told` has made.

    Args:
        path: where they are; where the model file says if None.

    Raises:
        FileNotFoundError: no such file.
        FileFormatError: no file of draws, a damaged one, or draws of another fit.
    """
    source = model.parent / said["file"] if path is None else Path(path)
    if not source.exists():
        raise FileNotFoundError(
            f"the draws of {str(model)!r} are in {str(source)!r}, which does not exist; put it back there, or in "
            "Python load the model with mf_numpy.load(model, draws=...)"
        )
    found = read(source)
    for name, shape in said["shapes"].items():
        if _shapes(found).get(name) != shape:
            raise FileFormatError(
                f"{str(source)!r} has draws of another fit than {str(model)!r}: its {name} has shape "
                f"{_shapes(found).get(name)}, not {shape}; give the file of its own draws"
            )
    if found.precisions != tuple(precisions.tolist()):
        raise FileFormatError(
            f"{str(source)!r} has draws of another fit than {str(model)!r}; give the file of its own draws"
        )
    return found


def _shapes(draws: Draws) -> dict[str, list[int]]:
    return {name: list(x.shape) for name, x in (draws.stacked or {}).items()}


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(f"{prefix}."): x for name, x in tensors.items() if name.startswith(f"{prefix}.")}
