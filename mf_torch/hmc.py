"""Hamiltonian steps whose gradients autograd finds; the twin of `mf_numpy.hmc` and of its solver."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mf_numpy import gibbs, hmc
from mf_numpy.batch import full_batch
from mf_numpy.config import Config
from mf_numpy.engine import State
from mf_numpy.gibbs import Prior, SideNoise
from mf_numpy.kernels import predict
from mf_numpy.metrics import Predictor
from mf_numpy.posterior import Draws, is_kept, so_far
from mf_numpy.ratings import Array, Ratings
from mf_torch.batch import Batch, to_device
from mf_torch.gibbs import prior_of
from mf_torch.model import MatrixFactorization
from mf_torch.objective import objective

Pair = tuple[Tensor, Tensor]
"""Of users (m, D) and of items (n, D), factors and then the bias, if there is one."""


@dataclass(frozen=True, eq=False)
class Whole:
    """All ratings on the device, σ of them, and how many each user and each item has."""

    batch: Batch
    scale: float
    counts: tuple[Array, Array]

    def __len__(self) -> int:
        return len(self.batch)


@dataclass(frozen=True, eq=False)
class HmcState:
    """A point of the chain on the device; `squared_error` is Σ (r̂ - r)² before the last epoch."""

    module: MatrixFactorization
    epoch: int
    squared_error: Tensor | None = None
    n_ratings: int = 0
    draws: Draws = field(default_factory=Draws)


class HmcEngine:
    """Hamiltonian steps on one device; `mf_numpy.engine.Engine` says what each method does."""

    backend = "torch"
    predict: Predictor = staticmethod(predict)

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def load(self, train: Ratings, config: Config) -> Whole:
        batch = full_batch(train, config)
        counts = batch.user_counts, batch.item_counts
        return Whole(to_device(batch, self.device), gibbs.scale_of(batch.values), counts)

    def start(self, state: State, whole: Whole, config: Config) -> HmcState:
        module = MatrixFactorization(state.params, self.device)
        return HmcState(module, state.epoch, n_ratings=len(whole), draws=so_far(state.draws))

    def batches(self, whole: Whole, epoch: int, config: Config) -> Any:
        yield whole

    def step(self, state: HmcState, whole: Whole, config: Config) -> HmcState:
        """α, the priors of both sides, then a trajectory of all rows."""
        module, epoch = state.module, state.epoch + 1
        sizes = len(module.P), len(module.Q)
        noise = gibbs.noise_of(epoch, sizes, len(whole), config)
        theta = tables(module)
        seen = evaluate(module, whole.batch, config)
        squared_error = float(seen[0])
        alpha = gibbs.noise_precision(squared_error, whole.scale, noise)
        priors = tuple(
            _prior(side, whole.scale, of_side, config)
            for side, of_side in zip(theta, (noise.user, noise.item), strict=True)
        )
        on_device = [(self._tensor(prior.mean), self._tensor(prior.precision)) for prior in priors]

        def placed(theta: Pair, seen: tuple[Tensor, Pair]) -> hmc.Place:
            energy, slope = alpha * float(seen[0]) / 2, []  # Eq. 75
            for side, pull, (mean, precision) in zip(theta, seen[1], on_device, strict=True):
                away = side.double() - mean
                back = away @ precision
                energy += float((back * away).sum()) / 2  # Eq. 75
                slope.append(alpha * len(whole) / 2 * pull.double() + back)  # Eq. 76
            return hmc.Place(theta, energy, (slope[0], slope[1]))

        def look(theta: Pair) -> hmc.Place:
            put(module, theta)
            return placed(tables(module), evaluate(module, whole.batch, config))

        mass = hmc.masses(whole.counts, (priors[0], priors[1]), alpha, config)
        of_user, of_item = map(self._tensor, mass)
        momentum = [self._tensor(one) for one in hmc.start(mass, noise)]
        here = placed(theta, seen)
        there = hmc.swept(here, (momentum[0], momentum[1]), (of_user, of_item), epoch, config, look)
        put(module, there.theta)
        draws = state.draws
        if is_kept(epoch, config):
            draws = draws.with_draw(module.to_params(), alpha)
        return replace(state, squared_error=seen[0], draws=draws)

    def _tensor(self, array: Array) -> Tensor:
        return torch.tensor(array, device=self.device)

    def seen(self, state: HmcState) -> tuple[Tensor, Tensor]:
        assert state.squared_error is not None
        return state.squared_error / state.n_ratings, state.squared_error

    def next_epoch(self, state: HmcState) -> HmcState:
        return replace(state, epoch=state.epoch + 1)

    def synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)

    def export(self, state: HmcState) -> State:
        return State(state.module.to_params(), None, state.epoch, draws=state.draws)


def evaluate(module: MatrixFactorization, batch: Batch, config: Config) -> tuple[Tensor, Pair]:
    """Σ (r̂ - r)², and ∇J of both sides by autograd."""
    module.zero_grad()
    seen = objective(module, batch, config)
    seen.value.backward()  # type: ignore[no-untyped-call]
    grads = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return seen.squared_error, _beside(grads)


def tables(module: MatrixFactorization) -> Pair:
    """A copy of the parameters."""
    user, item = _beside({name: p.detach() for name, p in module.named_parameters()})
    return user.clone(), item.clone()


def _beside(tensors: dict[str, Tensor]) -> Pair:
    if "b" not in tensors:
        return tensors["P"], tensors["Q"]
    return torch.column_stack([tensors["P"], tensors["b"]]), torch.column_stack([tensors["Q"], tensors["c"]])


def put(module: MatrixFactorization, theta: Pair) -> None:
    """Write tables into the parameters, in their precision."""
    with torch.no_grad():
        for side, factors, bias in zip(theta, (module.P, module.Q), (module.b, module.c), strict=True):
            k = factors.shape[1]
            factors.copy_(side[:, :k])
            if bias is not None:
                bias.copy_(side[:, k])


def _prior(theta: Tensor, scale: float, noise: SideNoise, config: Config) -> Prior:
    mean, precision = prior_of(theta, scale, noise, config)
    return Prior(np.asarray(mean.cpu()), np.asarray(precision.cpu()))
