"""LIBMF: P·Q by SGD on blocks with AdaGrad's rate for each row; λ is that of L2, per rating.

Its wrapper regularises by L1 unless told otherwise, reads the pairs of ``predict`` column by column, and prints. A
model of m' < m rows lacks the users after the last one seen; K is rounded up to whole registers inside.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from bench.peers.adapter import Array, Each, Library, Order, RefusedError, dots, main


class Libmf(Library):
    """``extra``: ``nr_bins`` (blocks a side), ``center`` (subtract the mean first)."""

    name = "libmf"
    distribution = "libmf"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        from libmf import mf

        if max(order.n_users, order.n_items) > 1 << 24:
            raise RefusedError("libmf takes ids as float32, which holds whole numbers up to 16,777,216 only")
        least = 2 * order.threads + 1
        options = order.options(nr_bins=max(10, least), center=False)
        if options["nr_bins"] < least:
            raise RefusedError(f"nr_bins is {options['nr_bins']}, but {order.threads} threads need {least} or more")
        self._mf, self._bins = mf, int(options["nr_bins"])
        self._mean = float(order.values.mean(dtype=np.float64)) if options["center"] else 0.0
        columns = order.users, order.items, order.values - np.float32(self._mean)
        self._table = np.stack(columns, axis=1).astype(np.float32, order="C")
        self.model: Any = None

    def run(self, n_epochs: int, each: Each) -> None:
        order = self.order
        self.model = self._mf.MF(
            k=order.n_factors, nr_threads=order.threads, nr_bins=self._bins, nr_iters=n_epochs, eta=order.lr,
            lambda_p1=0.0, lambda_q1=0.0, lambda_p2=order.reg, lambda_q2=order.reg, quiet=True,
        )  # fmt: skip
        self.model.fit(self._table)
        each(n_epochs)

    def factors(self) -> tuple[Array, Array]:
        """P (m', K') and Q (n', K')."""
        return self.model.p_factors(), self.model.q_factors()

    def predict(self, users: Array, items: Array) -> Array:
        out: Array = dots(*self.factors(), users, items) + self._mean
        return out


if __name__ == "__main__":
    sys.exit(main(Libmf, sys.argv[1:]))
