"""What a path is: how the ratings lie on the device, and how J and ∇J come from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch

from mf_numpy.batch import full_batch
from mf_numpy.config import DRAWN, Config
from mf_numpy.errors import ConfigError
from mf_numpy.ratings import Ratings
from mf_torch.batch import Batch, in_parts, mini_batches, to_device
from mf_torch.model import MatrixFactorization
from mf_torch.objective import Objective


class Path(ABC):
    """One way to J (Eq. 2) and ∇J (Eq. 6).

    A path keeps nothing of a run: what a batch needs beside its pairs lies in the batch, a subclass of `Batch` where
    the path has a layout of its own.

    Attributes:
        name: what selects it.
        capturable: whether a CUDA graph can hold its work on a batch that it has seen before.
    """

    name: ClassVar[str]
    capturable: ClassVar[bool] = False

    def load(self, train: Ratings, config: Config, device: torch.device | str) -> Batch:
        """All N ratings on the device, laid out as the path wants them where a batch is all of them.

        Raises:
            ConfigError: a loss of lists, which ``autograd`` alone has.
        """
        if config.loss in DRAWN and self.name != "autograd":
            raise ConfigError(f"loss is {config.loss!r} with path {self.name!r}; use path='autograd'")
        whole = to_device(full_batch(train, config), device)
        return whole if in_parts(whole, config) else self.lay_out(whole, config)

    def lay_out(self, batch: Batch, config: Config) -> Batch:
        """The same pairs, in any order and with duplicates, in this path's layout; here as they are.

        What lies so already comes back itself.
        """
        return batch

    def batches(self, whole: Batch, epoch: int, config: Config) -> Iterator[Batch]:
        """The batches of epoch 1, 2, ... (Eq. 16), each laid out as `differentiate` wants it."""
        if in_parts(whole, config):
            for batch in mini_batches(whole, epoch, config):
                yield self.lay_out(batch, config)
        else:
            yield whole

    def differentiate(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        """Evaluate J over a batch of `load`, `lay_out` or `batches`, and leave ∇J in the parameters' ``grad``.

        What was in ``grad`` is replaced, not added to. J and Σ squared errors come back cut off from any graph.

        Raises:
            IndexError: an index outside the module's rows, also a negative one.
        """
        batch.check(len(module.P), len(module.Q))
        return self._differentiate(module, batch, config)

    @abstractmethod
    def _differentiate(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        """`differentiate`, with indices known to be in range."""

    def advance(
        self, module: MatrixFactorization, optimizer: torch.optim.Optimizer, batch: Batch, config: Config
    ) -> Objective:
        """`differentiate`, and one update by the optimiser, whose learning rate is set.

        A path that does both in one pass leaves ``grad`` and the optimiser's ``momentum_buffer`` as this does, and does
        what this does where `mf_torch.optim.is_momentum` says that the optimiser is another one.
        """
        seen = self.differentiate(module, batch, config)
        optimizer.step()
        return seen


class ByGraph(Path):
    """A path whose J is a graph: autograd walks it back to ∇J (Eq. 6).

    Attributes:
        twice: whether the gradient is a graph again, so that it can be differentiated too (Eq. 18).
    """

    twice: ClassVar[bool] = False

    @abstractmethod
    def objective(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        """`mf_torch.objective` of a batch in this path's layout."""

    def _differentiate(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        module.zero_grad(set_to_none=True)
        seen = self.objective(module, batch, config)
        seen.value.backward()  # type: ignore[no-untyped-call]
        return seen.detach()
