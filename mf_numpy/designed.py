"""The engines of users and items that are made of features (Eq. 33 to 35), for every backend of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

from mf_numpy import design as by_hand
from mf_numpy import kernels, loops
from mf_numpy.batch import Batch, full_batch, in_parts, mini_batches
from mf_numpy.config import RANKING, Config
from mf_numpy.design import Design
from mf_numpy.engine import Backend, Engine, NumpyEngine, OfFeatures, State
from mf_numpy.errors import ConfigError, choose
from mf_numpy.kernels.layout import Blocks, full_blocks
from mf_numpy.model import Params
from mf_numpy.objective import Evaluation
from mf_numpy.ratings import Array, Ratings
from mf_numpy.solvers.design_gibbs import DesignGibbsEngine
from mf_numpy.solvers.design_sgd import DesignSgdEngine
from mf_numpy.solvers.lbfgs import LbfgsEngine


@dataclass(frozen=True, eq=False)
class Weighted:
    """A batch with the weights of the features' penalty, (f,) and (g,) (Eq. 35)."""

    batch: Batch | Blocks
    weights: tuple[Array, Array]

    def __len__(self) -> int:
        return len(self.batch)


class _ByGradient(OfFeatures):
    """What the engines below have in common: their states hold parameters of features, and move along a gradient."""

    backend: str

    def __init__(self, design: Design, backend: Backend) -> None:
        super().__init__(backend)  # type: ignore[call-arg]
        self.design = design

    def load(self, train: Ratings, config: Config) -> Weighted:
        self.design.check(train)
        by_blocks = self.backend == "numba" and not in_parts(len(train), config)
        return self._weighted(full_blocks(train, config) if by_blocks else full_batch(train, config), config)

    def _weighted(self, batch: Batch | Blocks, config: Config) -> Weighted:
        return Weighted(batch, by_hand.penalty_weights(batch, self.design, config))

    def _by_hand(self, theta: Params, batch: Weighted, config: Config) -> Evaluation:
        assert isinstance(batch.batch, Batch)
        gradient = loops.gradient_of_features if self.backend == "loops" else by_hand.gradient
        return gradient(theta, batch.batch, self.design, config)


class DesignEngine(_ByGradient, NumpyEngine):
    """``gd`` by every backend of this package."""

    def batches(self, whole: Weighted, epoch: int, config: Config) -> Iterator[Weighted]:
        if isinstance(whole.batch, Blocks):
            yield whole
            return
        for batch in mini_batches(whole.batch, epoch, config):
            yield whole if batch is whole.batch else self._weighted(batch, config)

    def _gradient(self, params: Params, batch: Weighted, config: Config) -> Evaluation:
        return self._by_hand(params, batch, config)

    def _room(self, params: Params, whole: Weighted, parts: bool) -> Any:
        sample = replace(whole.batch, indptr=None) if parts and isinstance(whole.batch, Batch) else whole.batch
        return kernels.design_room(params, sample, self.design)

    def _by_kernels(self, state: State, batch: Weighted, config: Config) -> Evaluation:
        return kernels.gradient_of_features(state.params, batch.batch, batch.weights, config, state.room)


class DesignLbfgsEngine(_ByGradient, LbfgsEngine):
    """``lbfgs`` by every backend of this package."""

    def _room(self, params: Params, whole: Weighted) -> Any:
        return kernels.design_room(params, whole.batch, self.design)

    def _evaluate(self, params: Params, batch: Weighted, config: Config, room: Any) -> Evaluation:
        if self.backend == "numba":
            return kernels.gradient_of_features(params, batch.batch, batch.weights, config, room)
        return self._by_hand(params, batch, config)


def check_loss(config: Config) -> None:
    """Refuse a loss that knows no features.

    Raises:
        ConfigError: one that ranks, or ``ordinal`` by another solver than ``gibbs``.
    """
    if config.loss in RANKING or (config.loss == "ordinal" and config.solver != "gibbs"):
        other = "squared" if config.loss == "ordinal" else "logistic"
        raise ConfigError(f"loss is {config.loss!r} with a design; leave the design out, or use loss={other!r}")


def design_engine(design: Design, config: Config, backend: Backend = "numba") -> Engine[Any]:
    """The engine of the configured solver.

    Raises:
        ConfigError: a solver that has no steps for features, a loss that knows none, no such backend, or settings that
            its steps cannot have.
    """
    check_loss(config)
    choose("backend", backend, get_args(Backend))
    engines: dict[str, Callable[[], Engine[Any]]] = {
        "gd": lambda: DesignEngine(design, backend),
        "sgd": lambda: DesignSgdEngine(design, backend, config),
        "lbfgs": lambda: DesignLbfgsEngine(design, backend),
        "gibbs": lambda: DesignGibbsEngine(design, backend),
    }
    if config.solver not in engines:
        *ways, last = (repr(name) for name in engines)
        listing = f"{', '.join(ways)} or {last}"
        raise ConfigError(f"solver is {config.solver!r} with a design; leave the design out, or take {listing}")
    return engines[config.solver]()
