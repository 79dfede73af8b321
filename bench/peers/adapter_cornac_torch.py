"""Cornac's other back end: μ + b + c + P·Q by PyTorch, on shuffled mini-batches, by an optimiser of its own.

A fit is one call, whose optimiser nobody can take up again. Where there is a GPU the library takes it, and it draws a
progress bar whatever it is told: both are kept from it, as every peer is measured on the CPU.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from bench.peers.adapter import Array, Each, Library, Order, dots, main

OPTIMIZERS = ("sgd", "adam", "adagrad", "rmsprop")


class CornacTorch(Library):
    """``extra``: ``optimizer`` (of `OPTIMIZERS`), ``batch_size``, ``use_bias``."""

    name = "cornac-torch"
    distribution = "cornac"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        optimizer = order.one_of("optimizer", OPTIMIZERS)
        # Read where these libraries are first imported.
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TQDM_DISABLE": "1"}
        import torch
        from cornac.data import Dataset
        from cornac.models import MF

        torch.set_num_threads(order.threads)
        self._torch, self._make, self._dataset = torch, MF, Dataset
        self._options = order.options(optimizer=optimizer, batch_size=256, use_bias=True)
        self._names = tuple({str(k): k for k in range(size)} for size in (order.n_users, order.n_items))
        self._table = order.users.astype(np.int64), order.items.astype(np.int64), order.values
        self.model: Any = None

    def run(self, n_epochs: int, each: Each) -> None:
        order = self.order
        # It holds the generator that shuffles, which a second fit would find where the first one left it.
        data = self._dataset(order.n_users, order.n_items, *self._names, self._table, seed=order.seed)
        model = self._make(
            k=order.n_factors, backend="pytorch", max_iter=n_epochs, learning_rate=order.lr, lambda_reg=order.reg,
            seed=order.seed, **self._options,
        )  # fmt: skip
        self.model = model.fit(data)
        each(n_epochs)

    def predict(self, users: Array, items: Array) -> Array:
        made = self.model
        scores = dots(made.u_factors, made.i_factors, users, items)
        out: Array = scores + made.u_biases[users] + made.i_biases[items] + float(made.global_mean)
        return out

    def threads(self) -> int:
        return int(self._torch.get_num_threads())


if __name__ == "__main__":
    sys.exit(main(CornacTorch, sys.argv[1:]))
