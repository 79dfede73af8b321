"""myFM: a factorisation machine of user and item, w₀ + w_u + w_i + v_u·v_i, by Gibbs sampling; one thread.

An epoch is a sweep over all parameters. What is predicted is the posterior mean: that of the samples after a burn-in.
"""

from __future__ import annotations

import sys

import numpy as np

from bench.peers.adapter import Array, Each, Library, Order, RefusedError, dots, main


class MyFm(Library):
    """``extra``: ``burn_in`` (sweeps whose samples are not kept; before its end the last sample predicts alone).

    ``reg`` is the precision of the prior of w₀; those of all other parameters are sampled.
    """

    name = "myfm"
    distribution = "myfm"
    epochs_by = "the library's callback"
    precision = "float64"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        from myfm import MyFMRegressor
        from scipy.sparse import csr_matrix

        self._burn = int(order.options(burn_in=5)["burn_in"])
        if self._burn < 0:
            raise RefusedError(f"burn_in is {self._burn}, but must be 0 or larger")
        n = len(order.values)
        columns = np.stack((order.users, order.n_users + order.items.astype(np.int64)), axis=1).ravel()
        shape = n, order.n_users + order.n_items
        self._ones = csr_matrix((np.ones(2 * n), columns, np.arange(0, 2 * n + 1, 2)), shape=shape)
        self._make = MyFMRegressor
        self.samples: list[tuple[float, Array, Array]] = []

    def run(self, n_epochs: int, each: Each) -> None:
        order = self.order
        self.samples = []

        def swept(at: int, machine: object, *others: object) -> tuple[bool, None]:
            sample = float(machine.w0), np.array(machine.w), np.array(machine.V)  # type: ignore[attr-defined]
            self.samples = [*self.samples, sample] if at > self._burn else [sample]
            each(at + 1)
            return False, None

        model = self._make(rank=order.n_factors, random_seed=order.seed or 0, reg_0=order.reg)
        model.fit(
            self._ones, order.values, n_iter=n_epochs, n_kept_samples=1, group_shapes=[order.n_users, order.n_items],
            callback=swept,
        )  # fmt: skip

    def predict(self, users: Array, items: Array) -> Array:
        total, at = np.zeros(len(users)), self.order.n_users + items
        for w0, w, v in self.samples:
            total += w0 + w[users] + w[at] + dots(v, v, users, at)
        return total / len(self.samples)

    def threads(self) -> int:
        return 1


if __name__ == "__main__":
    sys.exit(main(MyFm, sys.argv[1:]))
