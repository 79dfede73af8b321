"""The post's own way: P·Q by gradient descent with momentum on all ratings at once, in NumPy and SciPy.

Factors start uniform in [0, 11/K). Every step builds the sparse matrix of the predictions anew, subtracts the ratings'
from it, and multiplies what is left, E, by Q and Eᵀ by P; both gradients are of the old factors. There are no biases,
the penalty is λ(|P|² + |Q|²) whatever a row's ratings, and the velocity starts as the first gradient.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from bench.peers.adapter import Array, Each, Library, Order, dots, main


class Post(Library):
    """``extra``: ``steps`` (of an epoch), ``momentum`` (β of v ← βv + (1 − β)g)."""

    name = "post"
    distribution = "scipy"
    epochs_by = "the adapter's own loop"
    precision = "float64"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        from scipy.sparse import csr_matrix

        self._sparse = csr_matrix
        options = order.options(steps=10, momentum=0.9)
        self._steps, self._momentum = int(options["steps"]), float(options["momentum"])
        self._ratings = self._matrix(order.values.astype(np.float64))
        self.p, self.q = np.zeros((0, 0)), np.zeros((0, 0))

    def run(self, n_epochs: int, each: Each) -> None:
        order, beta = self.order, self._momentum
        rng = np.random.default_rng(order.seed)
        self.p, self.q = (11 * rng.random((size, order.n_factors)) / order.n_factors for size in self._ratings.shape)
        velocity = self._gradients()
        for step in range(1, n_epochs * self._steps + 1):
            velocity = tuple(beta * v + (1 - beta) * g for v, g in zip(velocity, self._gradients(), strict=True))
            self.p, self.q = (x - order.lr * v for x, v in zip((self.p, self.q), velocity, strict=True))
            if step % self._steps == 0:
                each(step // self._steps)

    def _gradients(self) -> tuple[Array, ...]:
        """∇P and ∇Q of the mean squared error and its penalty."""
        order = self.order
        predicted = (self.p[order.users] * self.q[order.items]).sum(axis=1)
        left = self._matrix(predicted) - self._ratings
        scale, twice = 2 / len(order.values), 2 * order.reg
        return scale * (left @ self.q) + twice * self.p, scale * (left.T @ self.p) + twice * self.q

    def _matrix(self, values: Array) -> Any:
        shape = self.order.n_users, self.order.n_items
        return self._sparse((values, (self.order.users, self.order.items)), shape=shape)

    def predict(self, users: Array, items: Array) -> Array:
        return dots(self.p, self.q, users, items)

    def threads(self) -> int:
        return 1


if __name__ == "__main__":
    sys.exit(main(Post, sys.argv[1:]))
