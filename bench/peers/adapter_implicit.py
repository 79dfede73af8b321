"""implicit: ALS on implicit data, the ratings taken for confidences, and BPR; only its iterations are timed."""

from __future__ import annotations

import sys
from typing import Any

from bench.peers.adapter import Array, Each, Library, Order, RefusedError, dots, main


class Implicit(Library):
    """``extra``: ``method`` (``als`` or ``bpr``); of ALS ``use_cg`` (3 steps of conjugate gradients; without it
    Cholesky) and ``alpha``, by which a rating becomes a confidence.
    """

    name = "implicit"
    distribution = "implicit"
    epochs_by = "the library's callback"
    ranks = True

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        method = order.one_of("method", ("als", "bpr"))
        usual = {"als": {"use_cg": True, "alpha": 1.0}, "bpr": {}}[method]
        self._options = order.options(method=method, **usual)
        del self._options["method"]
        if method == "bpr":
            if not order.lr > 0:
                raise RefusedError(f"lr is {order.lr:g}, but bpr needs one above 0")
            self._options["learning_rate"] = order.lr
        else:
            self._options["calculate_training_loss"] = False

        from implicit.cpu.als import AlternatingLeastSquares
        from implicit.cpu.bpr import BayesianPersonalizedRanking
        from scipy.sparse import csr_matrix
        from threadpoolctl import threadpool_limits

        # Each thread of the library calls BLAS; of more than one thread each, they would wait for one another.
        threadpool_limits(1, "blas")
        self._make = AlternatingLeastSquares if method == "als" else BayesianPersonalizedRanking
        self.model: Any = None
        self._matrix = csr_matrix((order.values, (order.users, order.items)), shape=(order.n_users, order.n_items))

    def run(self, n_epochs: int, each: Each) -> None:
        order = self.order
        model = self._make(
            factors=order.n_factors, regularization=order.reg, iterations=n_epochs, num_threads=order.threads,
            random_state=order.seed, **self._options,
        )  # fmt: skip
        self.model = model
        # ALS says more than BPR does.
        model.fit(self._matrix, show_progress=False, callback=lambda at, *said: each(at + 1))

    def predict(self, users: Array, items: Array) -> Array:
        return dots(*self.rows(), users, items)

    def rows(self) -> tuple[Array, Array]:
        # Those of BPR have a column of ones beside the items' biases.
        return self.model.user_factors, self.model.item_factors


if __name__ == "__main__":
    sys.exit(main(Implicit, sys.argv[1:]))
