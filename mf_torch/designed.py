"""Training by autograd where users and items are made of features; the twin of `mf_numpy.designed`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from mf_numpy import design as by_hand
from mf_numpy.batch import Batch, full_batch, in_parts, mini_batches
from mf_numpy.config import Config
from mf_numpy.design import Design
from mf_numpy.engine import OfFeatures, State
from mf_numpy.errors import ConfigError
from mf_numpy.ratings import Ratings
from mf_torch.batch import to_device
from mf_torch.design import FeatureFactorization, Weighted, objective
from mf_torch.optim import optimizer_of, set_lr, set_memory
from mf_torch.train import TorchEngine, TorchState


class DesignEngine(OfFeatures, TorchEngine):
    """Autograd on one device where a state's parameters are those of features; the twin of `mf_numpy.designed`.

    Raises:
        ConfigError: a path other than ``autograd``.
    """

    def __init__(self, design: Design, device: str = "cpu", path: str = "autograd") -> None:
        super().__init__(device, path)
        if self.path.name != "autograd":
            raise ConfigError(f"path is {path!r} with a design; leave the design out, or use path='autograd'")
        self.design = design

    def load(self, train: Ratings, config: Config) -> Any:
        self.design.check(train)
        whole = full_batch(train, config)
        return whole if in_parts(len(whole), config) else self.weighted(whole, config)

    def start(self, state: State, whole: Any, config: Config) -> TorchState:
        module = FeatureFactorization(state.params, self.design, self.device)
        optimizer = optimizer_of(module, config)
        set_memory(module, optimizer, state.memory)
        return TorchState(module, optimizer, state.epoch)

    def batches(self, whole: Any, epoch: int, config: Config) -> Iterator[Any]:
        if isinstance(whole, Weighted):
            yield whole
            return
        for batch in mini_batches(whole, epoch, config):
            yield self.weighted(batch, config)

    def weighted(self, batch: Batch, config: Config) -> Weighted:
        """A batch on the device."""
        w_f, w_g = by_hand.penalty_weights(batch, self.design, config)
        moved = torch.as_tensor(w_f, device=self.device), torch.as_tensor(w_g, device=self.device)
        return Weighted(to_device(batch, self.device), moved)

    def step(self, state: TorchState, batch: Any, config: Config) -> TorchState:
        module = state.module
        assert isinstance(module, FeatureFactorization)
        set_lr(state.optimizer, config.lr_at(state.epoch + 1))
        module.zero_grad(set_to_none=True)
        seen = objective(module, batch, config)
        seen.value.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        return TorchState(module, state.optimizer, state.epoch, seen.detach())
