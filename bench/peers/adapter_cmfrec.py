"""cmfrec: μ + b + c + P·Q by ALS or by L-BFGS.

The mean is subtracted here, as the library's own centring is not to be relied on.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from bench.peers.adapter import Array, Each, Library, Order, main


class Cmfrec(Library):
    """``extra``: ``method`` (``als`` or ``lbfgs``), ``use_float``, ``biases``.

    Of ``als`` also ``use_cg`` (else Cholesky) and ``scale_lam`` (λ times a row's ratings).
    """

    name = "cmfrec"
    distribution = "cmfrec"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        method = order.one_of("method", ("als", "lbfgs"))
        from cmfrec import CMF
        from scipy.sparse import coo_matrix

        self._options = order.options(method=method, use_cg=True, scale_lam=False, use_float=True, biases=True)
        self.precision = "float32" if self._options["use_float"] else "float64"
        self._mean = float(order.values.mean(dtype=np.float64))
        centred = (order.values - self._mean).astype(self.precision)
        shape = order.n_users, order.n_items
        self._matrix = coo_matrix((centred, (order.users, order.items)), shape=shape)
        self._make = CMF
        self.model: Any = None

    def run(self, n_epochs: int, each: Each) -> None:
        order, options = self.order, self._options
        biases = bool(options["biases"])
        model = self._make(
            k=order.n_factors, lambda_=order.reg, method=options["method"], niter=n_epochs, maxiter=n_epochs,
            use_cg=options["use_cg"], finalize_chol=False, scale_lam=options["scale_lam"],
            use_float=options["use_float"], center=False,
            user_bias=biases, item_bias=biases, nthreads=order.threads, verbose=False,
            random_state=1 if order.seed is None else order.seed, precompute_for_predictions=False,
        )  # fmt: skip
        self.model = model.fit(self._matrix)
        each(n_epochs)

    def predict(self, users: Array, items: Array) -> Array:
        out: Array = self.model.predict(users, items).astype(np.float64) + self._mean
        return out

    def threads(self) -> int:
        return int(self.model.nthreads)


if __name__ == "__main__":
    sys.exit(main(Cmfrec, sys.argv[1:]))
