"""``hmc``: priors and precision drawn as by `gibbs`, all rows by one trajectory along the gradient (Eq. 75 to 78)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mf_numpy import gibbs, hmc, kernels
from mf_numpy.batch import Batch
from mf_numpy.config import Config
from mf_numpy.engine import NumpyEngine, State
from mf_numpy.gibbs import Noise, Prior, SideNoise
from mf_numpy.model import Params
from mf_numpy.objective import Evaluation
from mf_numpy.posterior import Draws, is_kept, so_far
from mf_numpy.ratings import Array


@dataclass(frozen=True, eq=False)
class HmcState(State):
    """A point of the chain.

    Attributes:
        scale: σ of the ratings.
        precision: α of the last epoch.
    """

    scale: float = 1.0
    precision: float = math.nan
    draws: Draws = field(default_factory=Draws)


@dataclass(frozen=True, eq=False)
class Ground:
    """What a trajectory runs over.

    Attributes:
        noise: the draws of the epoch.
        alpha: α.
        seen: objective and gradient where the epoch begins.
        here: that place.
        mass: M.
        look: what makes a place of θ.
    """

    noise: Noise
    alpha: float
    seen: Evaluation
    here: hmc.Place
    mass: hmc.Sides
    look: hmc.Look


class HmcEngine(NumpyEngine):
    """Hamiltonian steps by the hand-written gradient; `mf_numpy.engine.Engine` says what each method does."""

    def start(self, state: State, whole: Batch, config: Config) -> HmcState:
        room = super().start(state, whole, config).room
        scale = gibbs.scale_of(whole.values)
        return HmcState(state.params, epoch=state.epoch, room=room, scale=scale, draws=so_far(state.draws))

    def step(self, state: State, batch: Batch, config: Config) -> HmcState:
        """α, the priors of both sides, then a trajectory of all rows."""
        assert isinstance(state, HmcState)
        epoch = state.epoch + 1
        with np.errstate(over="ignore", invalid="ignore"):
            ground = self.ground(state, batch, config)
            momentum = hmc.start(ground.mass, ground.noise)
            there = hmc.swept(ground.here, momentum, ground.mass, epoch, config, ground.look)
        params = hmc.params_of(there.theta, state.params)
        draws = state.draws
        if is_kept(epoch, config):
            draws = draws.with_draw(params, ground.alpha)
        return replace(state, params=params, evaluation=ground.seen, precision=ground.alpha, draws=draws)

    def ground(self, state: HmcState, batch: Batch, config: Config) -> Ground:
        """What the next epoch draws besides the rows, and the potential that they make."""
        noise = gibbs.noise_of(state.epoch + 1, state.params.shape[:2], len(batch), config)
        seen = self._evaluation(state.params, batch, config, state.room)
        alpha = gibbs.noise_precision(seen.squared_error, state.scale, noise)
        user, item = theta = hmc.tables(state.params.tensors())
        priors = _prior(user, state.scale, noise.user, config), _prior(item, state.scale, noise.item, config)

        def placed(theta: hmc.Sides, seen: Evaluation) -> hmc.Place:
            energy = hmc.potential(theta, seen.squared_error, priors, alpha)
            return hmc.Place(theta, energy, hmc.slope(theta, seen.gradient, len(batch), priors, alpha))

        def look(theta: hmc.Sides) -> hmc.Place:
            user, item = (side.astype(config.numpy_dtype) for side in theta)
            params = hmc.params_of((user, item), state.params)
            return placed((user, item), self._evaluation(params, batch, config, state.room))

        mass = hmc.masses((batch.user_counts, batch.item_counts), priors, alpha, config)
        return Ground(noise, alpha, seen, placed(theta, seen), mass, look)

    def _evaluation(self, params: Params, batch: Any, config: Config, room: Any) -> Evaluation:
        """Objective and gradient; the arrays are written over by the next."""
        if self.backend == "numba":
            return kernels.gradient(params, batch, config, room)
        return self._gradient(params, batch, config)


def _prior(theta: Array, scale: float, noise: SideNoise, config: Config) -> Prior:
    """The prior of a side, drawn given its rows."""
    wide = theta.astype(np.float64)
    return gibbs.prior_of(len(wide), wide.sum(axis=0), wide.T @ wide, scale, noise, config)
