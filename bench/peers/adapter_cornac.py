"""Cornac: μ + b + c + P·Q by SGD in the order of the table, on all of it at once by several threads without locks."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from bench.peers.adapter import Array, Each, Library, Order, dots, main


class Cornac(Library):
    """``extra``: ``shuffle`` (put the table into a random order once), ``use_bias``.

    With a seed Cornac uses one thread whatever it is asked for, which ``threads`` then shows.
    """

    name = "cornac"
    distribution = "cornac"
    epochs_by = "a fit of one epoch each, which goes on from the last one's parameters"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        from cornac.data import Dataset
        from cornac.models import MF

        options = order.options(shuffle=True, use_bias=True)
        self._make, self._bias = MF, bool(options["use_bias"])
        at = np.arange(len(order.values))
        if options["shuffle"]:
            np.random.default_rng(order.seed).shuffle(at)
        table = order.users[at].astype(np.int64), order.items[at].astype(np.int64), order.values[at]
        names = ({str(k): k for k in range(size)} for size in (order.n_users, order.n_items))
        self._data = Dataset(order.n_users, order.n_items, *names, table)
        self.model = self._model({})

    def _model(self, start: dict[str, Array]) -> Any:
        order = self.order
        return self._make(
            k=order.n_factors, max_iter=1, learning_rate=order.lr, lambda_reg=order.reg, use_bias=self._bias,
            num_threads=order.threads, seed=order.seed, init_params=start,
        )  # fmt: skip

    def run(self, n_epochs: int, each: Each) -> None:
        start: dict[str, Array] = {}
        for epoch in range(1, n_epochs + 1):
            self.model = self._model(start).fit(self._data)
            # The very arrays: a fit works on them in place.
            start = {"U": self.model.u_factors, "V": self.model.i_factors}
            start |= {"Bu": self.model.u_biases, "Bi": self.model.i_biases}
            each(epoch)

    def predict(self, users: Array, items: Array) -> Array:
        made = self.model
        scores = dots(made.u_factors, made.i_factors, users, items)
        out: Array = scores + made.u_biases[users] + made.i_biases[items] + float(made.global_mean)
        return out

    def threads(self) -> int:
        return int(self.model.num_threads)


if __name__ == "__main__":
    sys.exit(main(Cornac, sys.argv[1:]))
