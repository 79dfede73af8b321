"""The PyTorch loop of the tutorials: embeddings and biases, shuffled mini-batches, the mean squared error, Adam.

Written as they write it: the mean is a constant, the embeddings start normal with a small spread and the biases at
zero, the gradient is that of the batch, and Adam's ``weight_decay`` shrinks every parameter in every step. They draw
their batches from a ``DataLoader``, which collates rating by rating; indexing a permutation gives the same batches in
a fraction of the time, so that is what is done unless asked otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.peers.adapter import Array, Each, Library, Order, main


class TorchLoop(Library):
    """``extra``: ``batch_size``, ``init_std`` (of the embeddings), ``loader`` (batches from a ``DataLoader``)."""

    name = "torch-loop"
    distribution = "torch"
    epochs_by = "the adapter's own loop"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        import torch

        torch.set_num_threads(order.threads)
        self._torch = torch
        self._options = order.options(batch_size=1024, init_std=0.1, loader=False)
        ids = (torch.from_numpy(x.astype(np.int64)) for x in (order.users, order.items))
        self._table = (*ids, torch.from_numpy(order.values))
        self._mean = float(order.values.mean(dtype=np.float64))
        self.model: Any = None

    def run(self, n_epochs: int, each: Each) -> None:
        torch, order = self._torch, self.order
        if order.seed is not None:
            torch.manual_seed(order.seed)
        self.model = model = _model(torch, order, self._mean, float(self._options["init_std"]))
        adam = torch.optim.Adam(model.parameters(), lr=order.lr, weight_decay=order.reg)
        batches = self._loader() if self._options["loader"] else self._slices
        for epoch in range(1, n_epochs + 1):
            for users, items, values in batches():
                adam.zero_grad()
                loss = torch.nn.functional.mse_loss(model(users, items), values)
                loss.backward()
                adam.step()
            each(epoch)

    def _slices(self) -> Iterator[tuple[Any, ...]]:
        """The ratings in a new random order, a batch at a time."""
        for at in self._torch.split(self._torch.randperm(len(self._table[0])), int(self._options["batch_size"])):
            yield tuple(column[at] for column in self._table)

    def _loader(self) -> Any:
        from torch.utils.data import DataLoader, TensorDataset

        loader = DataLoader(TensorDataset(*self._table), batch_size=int(self._options["batch_size"]), shuffle=True)
        return lambda: loader

    def predict(self, users: Array, items: Array) -> Array:
        torch = self._torch
        with torch.no_grad():
            out: Array = self.model(torch.from_numpy(users).long(), torch.from_numpy(items).long()).double().numpy()
        return out

    def threads(self) -> int:
        return int(self._torch.get_num_threads())


def _model(torch: Any, order: Order, mean: float, std: float) -> Any:
    """μ + b_u + c_i + p_u·q_i as a module."""

    class MatrixFactorization(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.user_factors = torch.nn.Embedding(order.n_users, order.n_factors)
            self.item_factors = torch.nn.Embedding(order.n_items, order.n_factors)
            self.user_biases = torch.nn.Embedding(order.n_users, 1)
            self.item_biases = torch.nn.Embedding(order.n_items, 1)
            for factors in (self.user_factors, self.item_factors):
                torch.nn.init.normal_(factors.weight, std=std)
            for biases in (self.user_biases, self.item_biases):
                torch.nn.init.zeros_(biases.weight)

        def forward(self, users: Any, items: Any) -> Any:
            dot = (self.user_factors(users) * self.item_factors(items)).sum(dim=1)
            return mean + self.user_biases(users).squeeze(1) + self.item_biases(items).squeeze(1) + dot

    return MatrixFactorization()


if __name__ == "__main__":
    sys.exit(main(TorchLoop, sys.argv[1:]))
