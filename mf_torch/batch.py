"""The observed pairs on the device; the twin of `mf_numpy.batch`, with the same permutations drawn by NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mf_numpy import batch as by_hand
from mf_numpy.config import DRAWN, Config
from mf_numpy.model import check_range


@dataclass(eq=False)
class Batch:
    """B observed ratings as tensors.

    Attributes:
        users, items: (B,) int64 indices.
        values: (B,) ratings in the dtype of the parameters.
        shape: (m, n).
        per_list: as in `mf_numpy.batch.Batch`.
    """

    users: Tensor
    items: Tensor
    values: Tensor
    shape: tuple[int, int]
    _shares: tuple[Tensor, Tensor] | None = None
    _in_range: bool = False
    per_list: int = 1

    def __len__(self) -> int:
        return self.values.shape[0] // self.per_list

    def shares(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """n_u/N (m,) and n_i/N (n,) of the batch, counted once."""
        if self._shares is None:
            m, n = self.shape
            share = 1.0 / len(self)
            w_u = torch.bincount(self.users[:: self.per_list], minlength=m).double() * share
            w_i = torch.bincount(self.items, minlength=n).double() * share
            self._shares = w_u.to(dtype), w_i.to(dtype)
        return self._shares

    def check(self, m: int, n: int) -> None:
        """Refuse indices outside 0..m-1 and 0..n-1, negative ones too; looked at once, which waits for the device.

        Raises:
            IndexError: with the first offending position and value.
        """
        if self.shape != (m, n):
            came = f"{self.shape[0]} users and {self.shape[1]} items"
            raise IndexError(f"the batch is of {came}, but the module has {m} and {n}; make both from the same ratings")
        if not self._in_range:
            check_range("users", self.users.cpu(), m)
            check_range("items", self.items.cpu(), n)
            self._in_range = True


def to_device(batch: by_hand.Batch, device: torch.device | str) -> Batch:
    """Copy a batch of the hand-written version to the device, in one transfer an array.

    Raises:
        IndexError: an index outside the batch's shape.
    """
    m, n = batch.shape
    check_range("users", batch.users, m)
    check_range("items", batch.items, n)
    return Batch(
        torch.tensor(batch.users, dtype=torch.int64, device=device),
        torch.tensor(batch.items, dtype=torch.int64, device=device),
        torch.tensor(batch.values, device=device),
        batch.shape,
        _in_range=True,
        per_list=batch.per_list,
    )


def in_parts(whole: Batch, config: Config) -> bool:
    """As `mf_numpy.batch.in_parts`."""
    return by_hand.in_parts(len(whole), config)


def mini_batches(whole: Batch, epoch: int, config: Config) -> Iterator[Batch]:
    """The epoch's batches, the same pairs in the same order as by hand; gathered on the device.

    Lists are drawn on the host (Eq. 50), and moved.
    """
    if config.loss in DRAWN:
        users, items, values = (x.cpu().numpy() for x in (whole.users, whole.items, whole.values))
        for lists in by_hand.mini_batches(by_hand.Batch(users, items, values, whole.shape), epoch, config):
            yield to_device(lists, whole.values.device)
        return
    if config.batch_size is None or not in_parts(whole, config):
        yield whole
        return
    whole.check(*whole.shape)
    order = torch.as_tensor(by_hand.order_of(epoch, len(whole), config), device=whole.values.device)
    for begin in range(0, len(whole), config.batch_size):
        at = order[begin : begin + config.batch_size]
        yield Batch(whole.users[at], whole.items[at], whole.values[at], whole.shape, _in_range=True)
