"""What is in a model file → a fitted model; `mf_numpy.store` says what each array is."""

from __future__ import annotations

import itertools
import json
from typing import Any, get_args

import numpy as np
import scipy.sparse as sp

from mf_numpy import feature_words
from mf_numpy.averaging import Average
from mf_numpy.config import Config
from mf_numpy.design import Design, Side
from mf_numpy.engine import State
from mf_numpy.errors import FileFormatError
from mf_numpy.grades import Cuts
from mf_numpy.model import Params, Tensors
from mf_numpy.optim import Memory
from mf_numpy.posterior import Draws
from mf_numpy.ratings import Array, IdMap, Layout
from mf_numpy.result import Catalogue, EpochRecord, FitResult, Status
from mf_numpy.timed import Times


class Unpacker:
    """Arrays and text of a file → `FitResult`; every array is checked before anything indexes with it."""

    def __init__(self, tensors: Tensors, metadata: dict[str, str], beside: Draws | None = None) -> None:
        """`beside` are the draws that lie in a file of their own."""
        self.tensors = tensors
        self.metadata = metadata
        self.beside = beside

    def result(self) -> FitResult:
        config = Config.from_dict(self.fact("config"))
        mu, epoch = float(self.fact("mu")), int(self.fact("epoch"))
        catalogue = self.catalogue()
        users, items = catalogue.user_ids, catalogue.item_ids
        shapes: dict[str, tuple[int, ...]] = {
            "P": (len(users), config.n_factors),
            "Q": (len(items), config.n_factors),
        }
        if config.model == "biased":
            shapes |= {"b": (len(users),), "c": (len(items),)}
        cuts = self.cuts(config) if config.loss == "ordinal" else None
        if cuts is not None:
            shapes["t"] = cuts.t.shape
        design, of_features, of_rows = None, None, shapes
        if self.has("design"):
            times = self.times() if self.has("time") else None
            design = Design(self.side("users", len(users)), self.side("items", len(items)), times)
            rows = {"P": design.users, "b": design.users, "Q": design.items, "c": design.items}
            shapes = shapes | {name: (rows[name].shape[1], *shapes[name][1:]) for name in rows if name in shapes}
        draws = self.draws(shapes, config, mu, cuts) if self.has("draws") else None
        params = draws.mean() if draws else Params.of(self.group("params", of_rows, config), mu, cuts)
        if design is not None:
            of_features = params if draws else Params.of(self.group("features", shapes, config), mu, cuts)
            params = draws.rows(params, design) if draws else params
        last, memory, average = of_features or params, None, None
        if self.has("last"):
            last = Params.of(self.group("last", shapes, config), mu, cuts)
        if self.has("velocity"):
            memory = self.memory(shapes, config)
        if self.has("average"):
            means = {name: self.tensor(f"average.{name}", np.float64, shape) for name, shape in shapes.items()}
            count = int(self.fact("averaged"))
            if count < 1:
                raise FileFormatError(f"is damaged: its mean is of {count} epochs")
            average = Average(means, count)
        status: Status = self.fact("status")
        if status not in get_args(Status):
            raise FileFormatError(f"is damaged: status is {status!r}")
        return FitResult(
            params,
            config,
            tuple(_record(row) for row in self.fact("history")),
            status,
            self.fact("message"),
            self.fact("backend"),
            self.fact("device"),
            catalogue,
            State(last, memory, epoch, draws=draws, average=average),
            # Files of earlier versions have none.
            json.loads(self.metadata.get("details", "{}")),
            of_features,
            design,
        )

    def catalogue(self, prefix: str = "") -> Catalogue:
        users, items = self.ids(f"{prefix}user_ids"), self.ids(f"{prefix}item_ids")
        titles = self.text(f"{prefix}titles") if f"{prefix}titles.bytes" in self.tensors else None
        if titles is not None and len(titles) != len(items):
            raise FileFormatError(f"is damaged: {len(titles)} titles for {len(items)} items")
        scale = self.fact("scale")
        return Catalogue(
            users,
            items,
            float(self.fact("mean")),
            None if scale is None else (scale[0], scale[1]),
            titles,
            self.seen(f"{prefix}seen", len(users), len(items)),
        )

    def times(self) -> Times:
        catalogue = self.catalogue("time.")
        days = self.tensor("time.days", np.int64, catalogue.seen.indices.shape)
        return feature_words.times(self.fact("time"), catalogue, days)

    def fact(self, name: str) -> Any:
        if name not in self.metadata:
            raise FileFormatError(f"is damaged: it lacks {name!r}")
        return json.loads(self.metadata[name])

    def tensor(self, name: str, dtype: Any, shape: tuple[int, ...] | None = None) -> Array:
        if name not in self.tensors:
            raise FileFormatError(f"is damaged: it lacks the array {name!r}")
        array = self.tensors[name]
        if shape is not None and array.shape != shape:
            raise FileFormatError(f"is damaged: {name!r} has shape {array.shape}, not {shape}")
        if not np.issubdtype(array.dtype, dtype):
            raise FileFormatError(f"is damaged: {name!r} has dtype {array.dtype}")
        return array

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix + ".") for name in self.tensors)

    def group(self, prefix: str, shapes: dict[str, tuple[int, ...]], config: Config) -> Tensors:
        return {name: self.tensor(f"{prefix}.{name}", config.numpy_dtype, shape) for name, shape in shapes.items()}

    def draws(self, shapes: dict[str, tuple[int, ...]], config: Config, mu: float, cuts: Cuts | None) -> Draws:
        precisions = self.tensor("draws.precision", np.float64)
        if precisions.ndim != 1 or not len(precisions):
            raise FileFormatError(f"is damaged: 'draws.precision' has shape {precisions.shape}")
        shapes = {name: (shape[0], len(precisions), *shape[1:]) for name, shape in shapes.items()}
        if self.beside is not None:
            found = {name: array.shape for name, array in (self.beside.stacked or {}).items()}
            if found != shapes:
                raise FileFormatError(f"is damaged: its draws have the shapes {found}, not {shapes}")
            return self.beside
        return Draws.of(self.group("draws", shapes, config), precisions, mu, cuts)

    def cuts(self, config: Config) -> Cuts:
        """What of cut points is no parameter."""
        grades = self.tensor("grades", config.numpy_dtype)
        if grades.ndim != 1 or len(grades) < 2 or not (np.diff(grades) > 0).all():
            raise FileFormatError("is damaged: 'grades' are not two or more in ascending order")
        nothing = np.zeros(len(grades) - 1, config.numpy_dtype)
        return Cuts(nothing, grades, float(self.fact("unit")), config.solver == "gibbs")

    def memory(self, shapes: dict[str, tuple[int, ...]], config: Config) -> Memory:
        velocity = self.group("velocity", shapes, config)
        if config.step_rule != "adam":
            return Memory(velocity)
        return Memory(velocity, self.group("second", shapes, config), int(self.fact("steps")))

    def ids(self, name: str) -> IdMap:
        return IdMap(self.text(name) if f"{name}.bytes" in self.tensors else self.tensor(name, np.int64))

    def text(self, name: str) -> Array:
        raw = self.tensor(f"{name}.bytes", np.uint8).tobytes()
        offsets = self.tensor(f"{name}.offsets", np.int64)
        _check_offsets(f"{name}.offsets", offsets, len(raw))
        out = np.empty(len(offsets) - 1, dtype=object)
        ends = offsets.tolist()
        for at, (begin, end) in enumerate(itertools.pairwise(ends)):
            out[at] = raw[begin:end].decode("utf-8", "surrogatepass")
        return out

    def side(self, name: str, rows: int) -> Side:
        prefix = f"design.{name}"
        indptr = self.tensor(f"{prefix}.indptr", np.int64, (rows + 1,))
        data = self.tensor(f"{prefix}.data", np.float64)
        indices = self.tensor(f"{prefix}.indices", np.int64, data.shape)
        _check_offsets(f"{prefix}.indptr", indptr, len(data))
        names = tuple(self.text(f"{prefix}.names"))
        if len(indices) and (indices.min() < 0 or indices.max() >= len(names)):
            raise FileFormatError(f"is damaged: '{prefix}.indices' goes outside 0..{len(names) - 1}")
        blocks = self.tensor(f"{prefix}.blocks", np.int64).ravel() if f"{prefix}.blocks" in self.tensors else ()
        return Side(sp.csr_array((data, indices, indptr), shape=(rows, len(names))), names, tuple(blocks))

    def seen(self, name: str, m: int, n: int) -> Layout:
        indptr, indices = self.tensor(f"{name}.indptr", np.int64, (m + 1,)), self.tensor(f"{name}.indices", np.integer)
        _check_offsets(f"{name}.indptr", indptr, len(indices))
        if len(indices) and (indices.min() < 0 or indices.max() >= n):
            raise FileFormatError(f"is damaged: '{name}.indices' goes outside 0..{n - 1}")
        return Layout(indptr, indices, None)


def _check_offsets(name: str, offsets: Array, length: int) -> None:
    if (
        offsets.ndim != 1
        or not len(offsets)
        or offsets[0] != 0
        or offsets[-1] != length
        or (np.diff(offsets) < 0).any()
    ):
        raise FileFormatError(f"is damaged: {name!r} does not rise from 0 to {length}")


def _record(row: dict[str, Any]) -> EpochRecord:
    # Numbers that JSON lacks were written as text.
    numbers: dict[str, Any] = {name: float(x) if isinstance(x, str) else x for name, x in row.items()}
    return EpochRecord(**numbers)
