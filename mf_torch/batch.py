"""The observed pairs on the device; the twin of `mf_numpy.batch`, with the same permutations drawn by NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mf_numpy import batch as by_hand
from mf_numpy.config import Config


@dataclass(eq=False)
class Batch:
    """B observed ratings as tensors.

    Attributes:
        users, items: (B,) int64 indices.
        values: (B,) ratings in the dtype of the parameters.
        shape: (m, n).
    """

    users: Tensor
    items: Tensor
    values: Tensor
    shape: tuple[int, int]
    _shares: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return self.values.shape[0]

    def shares(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """n_u/N (m,) and n_i/N (n,) of the batch, counted once."""
        if self._shares is None:
            m, n = self.shape
            share = 1.0 / len(self)
            w_u = torch.bincount(self.users, minlength=m).double() * share
            w_i = torch.bincount(self.items, minlength=n).double() * share
            self._shares = w_u.to(dtype), w_i.to(dtype)
        return self._shares


def to_device(batch: by_hand.Batch, device: torch.device | str) -> Batch:
    """Copy a batch of the hand-written version to the device, in one transfer an array."""
    return Batch(
        torch.tensor(batch.users, dtype=torch.int64, device=device),
        torch.tensor(batch.items, dtype=torch.int64, device=device),
        torch.tensor(batch.values, device=device),
        batch.shape,
    )


def mini_batches(whole: Batch, epoch: int, config: Config) -> Iterator[Batch]:
    """The epoch's batches, the same pairs in the same order as by hand; gathered on the device."""
    if config.batch_size is None or config.batch_size >= len(whole):
        yield whole
        return
    order = torch.as_tensor(by_hand.order_of(epoch, len(whole), config), device=whole.values.device)
    for begin in range(0, len(whole), config.batch_size):
        at = order[begin : begin + config.batch_size]
        yield Batch(whole.users[at], whole.items[at], whole.values[at], whole.shape)
