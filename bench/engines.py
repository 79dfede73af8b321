"""Two rungs of the ladder that no package should keep: a scatter with `np.add.at`, and dense matrices with a mask.

Both are what tutorials write. Each replaces one thing in `mf_numpy.gradients` and leaves the rest alone.
They know the squared loss only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from mf_numpy import model, optim
from mf_numpy.batch import Batch, full_batch
from mf_numpy.config import Config
from mf_numpy.engine import NumpyEngine, State
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.model import Params, Tensors
from mf_numpy.objective import Evaluation, penalty, penalty_weights
from mf_numpy.ratings import Array, Ratings

HERE = ("add_at", "dense")


@dataclass(frozen=True, eq=False)
class DenseBatch:
    """All ratings as tables.

    Attributes:
        sparse: the same ratings as pairs.
        ratings: (m, n), 0 where nothing was rated.
        mask: (m, n), 1 where something was rated and 0 elsewhere, in the ratings' dtype.
    """

    sparse: Batch
    ratings: Array
    mask: Array

    def __len__(self) -> int:
        return len(self.sparse)


class AddAtEngine(NumpyEngine):
    """Eq. 6 with `np.add.at` in place of the sparse product: the K numbers of every rating are written out first."""

    def __init__(self) -> None:
        super().__init__("numpy")
        self.backend = "add_at"

    def step(self, state: State, batch: Batch, config: Config) -> State:
        return _step(state, add_at_gradient(state.params, batch, config), config)


class DenseEngine(NumpyEngine):
    """Eq. 6 with a dense residual E = mask · 2(r̂ - R) of m·n cells, however few of them are rated."""

    def __init__(self) -> None:
        super().__init__("numpy")
        self.backend = "dense"

    def load(self, train: Ratings, config: Config) -> Any:
        return dense(full_batch(train, config))

    def step(self, state: State, batch: Any, config: Config) -> State:
        return _step(state, dense_gradient(state.params, cast(DenseBatch, batch), config), config)


def engine(backend: str) -> NumpyEngine:
    """The engine of a name in `HERE`."""
    if backend not in HERE:
        raise ConfigError(f"backend is {backend!r}, but must be one of {', '.join(HERE)}")
    return AddAtEngine() if backend == "add_at" else DenseEngine()


def add_at_gradient(params: Params, batch: Batch, config: Config) -> Evaluation:
    """J and ∇J (Eq. 6) by scattering each rating's part; the arrays are those of `mf_numpy.gradients.gradient`."""
    predicted = model.predict(params, batch.users, batch.items)
    e = 2 * (predicted - batch.values)  # Eq. 3
    data: Tensors = {"P": np.zeros_like(params.P), "Q": np.zeros_like(params.Q)}
    # `dP[users] += ...` would keep one rating of each user (Eq. 7).
    np.add.at(data["P"], batch.users, e[:, None] * params.Q[batch.items])
    np.add.at(data["Q"], batch.items, e[:, None] * params.P[batch.users])
    if params.b is not None and params.c is not None:
        data |= {"b": np.zeros_like(params.b), "c": np.zeros_like(params.c)}
        np.add.at(data["b"], batch.users, e)
        np.add.at(data["c"], batch.items, e)
    squared_error = float(np.square(predicted - batch.values).sum(dtype=np.float64))
    return _evaluation(data, squared_error, params, batch, config)


def dense(batch: Batch) -> DenseBatch:
    """The ratings as tables of m·n cells.

    Raises:
        DataError: a pair that occurs twice, which has no two cells to stand in.
    """
    ratings, mask = np.zeros(batch.shape, batch.values.dtype), np.zeros(batch.shape, batch.values.dtype)
    ratings[batch.users, batch.items] = batch.values
    mask[batch.users, batch.items] = 1
    if int(mask.sum(dtype=np.float64)) != len(batch):
        raise DataError("a pair is rated twice, but a dense table has one cell for it; use the sparse form")
    return DenseBatch(batch, ratings, mask)


def dense_gradient(params: Params, batch: DenseBatch, config: Config) -> Evaluation:
    """J and ∇J (Eq. 6) by matrix products over all m·n cells; the arrays are those of `mf_numpy.gradients.gradient`."""
    e = params.P @ params.Q.T
    if params.b is not None and params.c is not None:
        e += (params.mu + params.b)[:, None].astype(e.dtype)
        e += params.c
    e -= batch.ratings
    e *= batch.mask
    squared_error = float(np.square(e, dtype=np.float64).sum())
    e *= 2  # Eq. 3
    data: Tensors = {"P": e @ params.Q, "Q": e.T @ params.P}
    if params.b is not None:
        data |= {"b": e.sum(axis=1), "c": e.sum(axis=0)}
    return _evaluation(data, squared_error, params, batch.sparse, config)


def _evaluation(data: Tensors, squared_error: float, params: Params, batch: Batch, config: Config) -> Evaluation:
    if config.loss != "squared":
        raise ConfigError(f"loss is {config.loss!r}, but these rungs know 'squared' only")
    w_u, w_i = penalty_weights(batch, config)
    share, pull = 1 / len(batch), 2 * config.reg
    grads = {}
    for name, theta in params.tensors().items():
        weights = pull * (w_u if name in ("P", "b") else w_i)
        grads[name] = data[name] * share + (weights[:, None] if theta.ndim == 2 else weights) * theta
    j = squared_error / len(batch) + float(np.real(penalty(params, batch, config)))
    return Evaluation(j, squared_error, grads)


def _step(state: State, seen: Evaluation, config: Config) -> State:
    lr = config.lr_at(state.epoch + 1)
    moved, memory = optim.update(state.params.tensors(), state.memory, seen.gradient, lr, config)
    return replace(state, params=state.params.with_tensors(moved), memory=memory, evaluation=seen)
