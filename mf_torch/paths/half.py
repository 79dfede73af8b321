"""`fused` on factors rounded to 16 bits: half the bytes of every row that ratings gather, and 32-bit sums."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mf_numpy.config import Config
from mf_numpy.errors import ConfigError, choose
from mf_numpy.ratings import Ratings
from mf_torch.batch import Batch
from mf_torch.model import MatrixFactorization
from mf_torch.objective import Objective
from mf_torch.paths.base import Path
from mf_torch.paths.fused import Fused, by_triton, gradient

STORAGES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""By name: bfloat16 has float32's range and 8 bits of a number, float16 has 11 and ends at 65,504."""


class Half(Path):
    """A step from θ by ∇J at θ', which is θ with P and Q rounded to `storage`.

    The module keeps θ in float32, as mixed precision's master weights: a step of less than half a unit in the last of 8
    or 11 bits would leave a rounded number where it was. Biases are not rounded; they are one number a row.

    Attributes:
        storage: of `STORAGES`.

    Raises:
        ConfigError: another storage.
    """

    name = "fused"
    capturable = True

    def __init__(self, storage: str) -> None:
        self.storage = choose("storage", storage, STORAGES)
        self._fused = Fused()

    def load(self, train: Ratings, config: Config, device: torch.device | str) -> Batch:
        if config.dtype != "float32":
            raise ConfigError(
                f"storage is {self.storage!r} with dtype {config.dtype!r}, but its sums and steps are of "
                "float32; use dtype='float32', or leave storage out"
            )
        return super().load(train, config, device)

    def lay_out(self, batch: Batch, config: Config) -> Batch:
        return self._fused.lay_out(batch, config)

    def batches(self, whole: Batch, epoch: int, config: Config) -> Iterator[Batch]:
        return self._fused.batches(whole, epoch, config)

    def _differentiate(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        P, Q = self.stored(module.P, batch), self.stored(module.Q, batch)
        return gradient((P, Q, module.b, module.c, module.mu), module, batch, config)

    def stored(self, table: Tensor, batch: Batch) -> Tensor:
        """A table as ratings gather it: of 16 bits on CUDA, and on a CPU the same numbers in 32, which Numba reads."""
        rounded = table.detach().to(STORAGES[self.storage])
        return rounded if by_triton(batch) else rounded.to(table.dtype)
