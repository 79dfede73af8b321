"""What a backend does for the training loop: `loops`, `numpy` and `numba` here, PyTorch in `mf_torch`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

import numpy as np

from mf_numpy import design as by_hand
from mf_numpy import gradients, kernels, loops, model, optim
from mf_numpy.averaging import Average
from mf_numpy.batch import full_batch, in_parts, mini_batches
from mf_numpy.config import Config
from mf_numpy.design import Design
from mf_numpy.errors import choose
from mf_numpy.metrics import Predictor
from mf_numpy.model import Params, Tensors
from mf_numpy.objective import Evaluation
from mf_numpy.optim import Memory
from mf_numpy.posterior import Draws
from mf_numpy.ratings import Ratings

Backend = Literal["loops", "numpy", "numba"]
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)


@dataclass(frozen=True, eq=False)
class State:
    """A point of the training trajectory, in NumPy arrays.

    Attributes:
        params: the parameters.
        memory: what the step rule keeps (Eq. 10, 12, 13, 30), or None before the first step and without momentum.
        epoch: epochs finished.
        evaluation: what the last step saw before it moved: objective, squared error and gradient.
        room: the backend's scratch arrays.
        draws: what is kept of a chain of draws (Eq. 70), or None where there is none.
        average: the mean over epochs so far (Eq. 84), or None where none is taken.
    """

    params: Params
    memory: Memory | None = None
    epoch: int = 0
    evaluation: Evaluation | None = None
    room: Any = None
    draws: Draws | None = None
    average: Average | None = None

    @property
    def averaged(self) -> Params:
        """The mean over epochs as parameters, or these where none is taken."""
        return self.params if self.average is None else self.average.params(self.params)

    @property
    def velocity(self) -> Tensors | None:
        """The velocities of `memory`, or what stands in their place; None where it is None."""
        return None if self.memory is None else self.memory.velocity

    def copy(self) -> State:
        """The same point in arrays of its own, without what the last step saw."""
        memory = None if self.memory is None else self.memory.copy()
        return State(self.params.copy(), memory, self.epoch, draws=self.draws, average=self.average)


class Engine(Protocol[S]):
    """A backend as the training loop drives it; its batches have a length and are otherwise its own.

    A state handed to `step` is used up: keep what `step` returns.
    """

    backend: str
    device: str
    predict: Predictor

    def load(self, train: Ratings, config: Config) -> Any:
        """All ratings, where the backend wants them."""

    def start(self, state: State, whole: Any, config: Config) -> S:
        """The backend's own form of a trajectory point."""

    def batches(self, whole: Any, epoch: int, config: Config) -> Iterator[Any]:
        """The batches of epoch 1, 2, ..."""

    def step(self, state: S, batch: Any, config: Config) -> S:
        """One gradient and one update with the learning rate of the epoch under way."""

    def seen(self, state: S) -> tuple[Any, Any]:
        """Objective and squared error that the last step saw; they may still be on the device."""

    def next_epoch(self, state: S) -> S:
        """The same point, one epoch further."""

    def synchronize(self) -> None:
        """Wait until the device has done its work."""

    def export(self, state: S) -> State:
        """A copy in NumPy arrays, sharing no memory with the state."""


@runtime_checkable
class SelfEnding(Protocol[S_contra]):
    """What an engine has besides `Engine` when it may come to an end by itself, or holds what must be let go."""

    def ended(self, state: S_contra) -> str | None:
        """Why there is no step from here, which makes a fit ``converged``; None while there is."""

    def close(self, state: S_contra) -> None:
        """Let go what the state holds; called once, however the fit ends, and maybe in the middle of a step."""


@runtime_checkable
class Describing(Protocol):
    """What an engine has besides `Engine` when its states hold parameters of features, not of users and items."""

    design: Design

    def first(self, train: Ratings, config: Config) -> State:
        """The trajectory's first point: drawn parameters of the features (Eq. 25), epoch 0."""

    def rows(self, theta: Params) -> Params:
        """The parameters of users and items that they make (Eq. 33)."""


class OfFeatures:
    """How an engine is `Describing`, whatever its backend: NumPy draws the parameters of the features.

    Attributes:
        design: what users and items are made of.
    """

    design: Design

    def first(self, train: Ratings, config: Config) -> State:
        """The trajectory's first point: drawn parameters of the features (Eq. 25)."""
        return State(by_hand.start(train, self.design, config))

    def rows(self, theta: Params) -> Params:
        """The parameters of users and items that those of the features make (Eq. 33)."""
        return by_hand.rows(theta, self.design)


class NumpyEngine:
    """The backends of this package; `Engine` says what each method does."""

    device = "cpu"

    def __init__(self, backend: Backend) -> None:
        self.backend: str = choose("backend", backend, get_args(Backend))
        self.predict: Predictor = kernels.predict if backend == "numba" else model.predict

    def load(self, train: Ratings, config: Config) -> Any:
        return full_batch(train, config)

    def start(self, state: State, whole: Any, config: Config) -> State:
        if self.backend != "numba":
            return state
        return replace(state, room=self._room(state.params, whole, in_parts(len(whole), config)))

    def batches(self, whole: Any, epoch: int, config: Config) -> Iterator[Any]:
        return mini_batches(whole, epoch, config)

    def step(self, state: State, batch: Any, config: Config) -> State:
        lr = config.lr_at(state.epoch + 1)
        tensors = state.params.tensors()
        # An overflow is reported by the training loop as divergence, with the knob to turn.
        with np.errstate(over="ignore", invalid="ignore"):
            if self.backend == "numba":
                seen = self._by_kernels(state, batch, config)
                memory = kernels.update(tensors, state.memory, seen.gradient, lr, config)
                return replace(state, memory=memory, evaluation=seen)
            gradient = self._gradient
            update = loops.update if self.backend == "loops" else optim.update
            seen = gradient(state.params, batch, config)
            moved, memory = update(tensors, state.memory, seen.gradient, lr, config)
        return replace(state, params=state.params.with_tensors(moved), memory=memory, evaluation=seen)

    def _gradient(self, params: Params, batch: Any, config: Config) -> Evaluation:
        by_hand = loops.gradient if self.backend == "loops" else gradients.gradient
        return by_hand(params, batch, config)

    def _room(self, params: Params, whole: Any, parts: bool) -> Any:
        return kernels.workspace(params, replace(whole, indptr=None) if parts else whole)

    def _by_kernels(self, state: State, batch: Any, config: Config) -> Evaluation:
        return kernels.gradient(state.params, batch, config, state.room)

    def seen(self, state: State) -> tuple[float, float]:
        assert state.evaluation is not None
        return state.evaluation.objective, state.evaluation.squared_error

    def next_epoch(self, state: State) -> State:
        return replace(state, epoch=state.epoch + 1)

    def synchronize(self) -> None:
        return None

    def export(self, state: State) -> State:
        return state.copy()
