"""implicit: ALS on implicit data, the ratings taken for confidences; only its iterations are timed."""

from __future__ import annotations

import sys
from typing import Any

from bench.peers.adapter import Array, Each, Library, Order, dots, main


class Implicit(Library):
    """``extra``: ``use_cg`` (3 steps of conjugate gradients; without it Cholesky), ``alpha``."""

    name = "implicit"
    distribution = "implicit"
    epochs_by = "the library's callback"
    ranks = True

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        from implicit.cpu.als import AlternatingLeastSquares
        from scipy.sparse import csr_matrix
        from threadpoolctl import threadpool_limits

        # Each thread of the library calls BLAS; of more than one thread each, they would wait for one another.
        threadpool_limits(1, "blas")
        self._options = order.options(use_cg=True, alpha=1.0)
        self._make = AlternatingLeastSquares
        self.model: Any = None
        self._matrix = csr_matrix((order.values, (order.users, order.items)), shape=(order.n_users, order.n_items))

    def run(self, n_epochs: int, each: Each) -> None:
        order = self.order
        model = self._make(
            factors=order.n_factors, regularization=order.reg, iterations=n_epochs, num_threads=order.threads,
            random_state=order.seed, calculate_training_loss=False, **self._options,
        )  # fmt: skip
        self.model = model
        model.fit(self._matrix, show_progress=False, callback=lambda at, seconds, loss: each(at + 1))

    def predict(self, users: Array, items: Array) -> Array:
        return dots(self.model.user_factors, self.model.item_factors, users, items)


if __name__ == "__main__":
    sys.exit(main(Implicit, sys.argv[1:]))
