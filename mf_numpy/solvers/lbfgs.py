"""``lbfgs``: SciPy's L-BFGS-B (Zhu, Byrd, Lu and Nocedal 1997) on the hand-written gradient, Eq. 2 to 4."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from mf_numpy import gradients, kernels, loops, model
from mf_numpy.batch import full_batch
from mf_numpy.config import Config
from mf_numpy.engine import Backend, State
from mf_numpy.kernels.layout import full_blocks
from mf_numpy.metrics import Predictor
from mf_numpy.model import Params, Tensors
from mf_numpy.objective import Evaluation
from mf_numpy.ratings import Array, Ratings

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

Evaluate = Callable[[Array], Evaluation]

# SciPy counts iterations and evaluations in 32 bits in places.
_MANY = 2**31 - 1


@dataclass(frozen=True)
class _Wanted:
    """J and ∇J are asked for at `x`."""

    x: Array


@dataclass(frozen=True)
class _Reached:
    """An iteration ended at `x` with J = `objective`."""

    x: Array
    objective: float


@dataclass(frozen=True)
class _Ended:
    """SciPy goes no further: its message, or what it raised."""

    why: str | BaseException


class _Closed(Exception):  # noqa: N818
    """Ends the thread."""


@dataclass(frozen=True, eq=False)
class Iteration:
    """One iteration.

    Attributes:
        objective, squared_error: J and Σ (r̂ - r)² where it began.
        to: where it ended, to be read before the next one; None if there was none.
        why: SciPy's reason why there was none, else empty.
    """

    objective: float
    squared_error: float
    to: Array | None = None
    why: str = ""


class Descent:
    """SciPy's minimiser one iteration at a time.

    It runs in a thread of its own, which is at work only while `advance` waits for it: every evaluation takes place
    in the caller's thread, where Ctrl-C arrives and where Numba's number of threads was set.
    """

    def __init__(self, begin: Array, history_size: int) -> None:
        # Slow to import, and needed here alone; not in the thread, where an epoch's time would count it.
        from scipy.optimize import minimize

        self._minimiser = minimize
        self._asked: SimpleQueue[_Wanted | _Reached | _Ended] = SimpleQueue()
        # True goes on after an iteration, False ends the thread.
        self._answers: SimpleQueue[Evaluation | bool] = SimpleQueue()
        self._thread = Thread(target=self._minimise, args=(begin, history_size), name="mf-lbfgs", daemon=True)
        self._here: tuple[float, float] | None = None
        self._end: _Ended | None = None

    def advance(self, evaluate: Evaluate) -> Iteration:
        """The next iteration, with J and ∇J from `evaluate`."""
        before = last = self._here
        if before is None:
            self._thread.start()
        elif self._end is None:
            self._answers.put(True)
        while self._end is None:
            asked = self._asked.get()
            if isinstance(asked, _Ended):
                self._end = asked
                break
            if isinstance(asked, _Reached) and last is not None and last[0] == asked.objective:
                # The line search took what it had tried last.
                self._here = last
            else:
                seen = evaluate(asked.x)
                last = seen.objective, seen.squared_error
                before = before or last
                if isinstance(asked, _Wanted):
                    self._answers.put(seen)
                    continue
                self._here = last
            assert before is not None
            return Iteration(*before, to=asked.x)
        if isinstance(self._end.why, BaseException):
            raise self._end.why
        assert before is not None
        self._here = before
        return Iteration(*before, why=self._end.why)

    def close(self) -> None:
        """End the thread, at whatever point the last `advance` was left."""
        self._answers.put(False)
        if self._thread.is_alive():
            self._thread.join()

    def _minimise(self, begin: Array, history_size: int) -> None:
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                found = self._minimiser(
                    self._evaluated,
                    begin,
                    jac=True,
                    method="L-BFGS-B",
                    callback=self._reached,
                    # Only the fit's own `tol` decides when to stop, as long as there is somewhere to go.
                    options={"maxcor": history_size, "ftol": 0.0, "gtol": 0.0, "maxiter": _MANY, "maxfun": _MANY},
                )
            self._asked.put(_Ended(str(found.message).strip()))
        except _Closed:
            return
        except BaseException as error:
            self._asked.put(_Ended(error))

    def _evaluated(self, x: Array) -> tuple[float, Array]:
        seen = self._ask(_Wanted(x))
        assert isinstance(seen, Evaluation)
        return seen.objective, _flat(seen.gradient)

    def _reached(self, intermediate_result: OptimizeResult) -> None:
        self._ask(_Reached(intermediate_result.x, float(intermediate_result.fun)))

    def _ask(self, what: _Wanted | _Reached) -> Evaluation | bool:
        self._asked.put(what)
        answer = self._answers.get()
        if answer is False:
            raise _Closed
        return answer


@dataclass(frozen=True, eq=False)
class LbfgsState:
    """A point of the trajectory.

    Attributes:
        params: the parameters.
        epoch: epochs finished.
        descent: what goes on from here.
        trial: parameters of the same shapes, where the gradient is taken.
        room: the backend's scratch arrays.
        objective, squared_error: J and Σ (r̂ - r)² before the last iteration.
        ended: why there was no other iteration, or None.
    """

    params: Params
    epoch: int
    descent: Descent
    trial: Params
    room: Any = None
    objective: float = math.nan
    squared_error: float = math.nan
    ended: str | None = None


class LbfgsEngine:
    """Limited-memory BFGS; `mf_numpy.engine.Engine` and `SelfEnding` say what each method does.

    An epoch is one iteration, with as many evaluations as its line search takes, mostly one. SciPy's vectors are in
    float64 and take about 2 `Config.history_size` + 20 times the room of the parameters in that precision; gradients
    are computed in the precision of the configuration. A resumed fit begins with an empty memory, so that it is not
    the straight one bit for bit.
    """

    device = "cpu"

    def __init__(self, backend: Backend) -> None:
        self.backend: str = backend
        self.predict: Predictor = kernels.predict if backend == "numba" else model.predict

    def load(self, train: Ratings, config: Config) -> Any:
        return full_blocks(train, config) if self.backend == "numba" else full_batch(train, config)

    def start(self, state: State, whole: Any, config: Config) -> LbfgsState:
        room = self._room(state.params, whole) if self.backend == "numba" else None
        descent = Descent(_flat(state.params.tensors()), config.history_size)
        return LbfgsState(state.params, state.epoch, descent, state.params.copy(), room)

    def batches(self, whole: Any, epoch: int, config: Config) -> Iterator[Any]:
        yield whole

    def step(self, state: LbfgsState, batch: Any, config: Config) -> LbfgsState:
        """One iteration; where there is none, the same parameters and `LbfgsState.ended`."""

        def evaluate(x: Array) -> Evaluation:
            _fill(state.trial.tensors(), x)
            # An overflow is reported by the training loop as divergence.
            with np.errstate(over="ignore", invalid="ignore"):
                return self._evaluate(state.trial, batch, config, state.room)

        done = state.descent.advance(evaluate)
        state = replace(state, objective=done.objective, squared_error=done.squared_error)
        if done.to is None:
            why = f"L-BFGS finds no step that lowers the objective further in {config.dtype} (SciPy: {done.why})"
            return replace(state, ended=why)
        params = state.params.copy()
        _fill(params.tensors(), done.to)
        return replace(state, params=params)

    def _room(self, params: Params, whole: Any) -> Any:
        return kernels.workspace(params, whole)

    def _evaluate(self, params: Params, batch: Any, config: Config, room: Any) -> Evaluation:
        if self.backend == "numba":
            return kernels.gradient(params, batch, config, room)
        by_hand = loops.gradient if self.backend == "loops" else gradients.gradient
        return by_hand(params, batch, config)

    def seen(self, state: LbfgsState) -> tuple[float, float]:
        return state.objective, state.squared_error

    def next_epoch(self, state: LbfgsState) -> LbfgsState:
        return replace(state, epoch=state.epoch + 1)

    def synchronize(self) -> None:
        return None

    def export(self, state: LbfgsState) -> State:
        return State(state.params.copy(), epoch=state.epoch)

    def ended(self, state: LbfgsState) -> str | None:
        return state.ended

    def close(self, state: LbfgsState) -> None:
        state.descent.close()


def _flat(tensors: Tensors) -> Array:
    """All numbers in one float64 vector."""
    return np.concatenate([theta.ravel() for theta in tensors.values()], dtype=np.float64)


def _fill(tensors: Tensors, flat: Array) -> None:
    """The inverse of `_flat`, into arrays that are there, in their precision."""
    begin = 0
    for theta in tensors.values():
        theta[...] = flat[begin : begin + theta.size].reshape(theta.shape)
        begin += theta.size
