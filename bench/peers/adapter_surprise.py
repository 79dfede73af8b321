"""Surprise: μ + b + c + P·Q by SGD, the ratings taken user by user, or SVD++; one thread.

Its tables map the caller's ids to its own. An id that is asked for as another type than it was given as is unknown, and
its prediction the mean: here its own ids are looked up once, and the parameters are multiplied by hand, unclipped.
"""

from __future__ import annotations

import sys
from itertools import repeat
from typing import Any

import numpy as np

from bench.peers.adapter import Array, Each, Library, Order, RefusedError, dots, main


class Surprise(Library):
    """``extra``: ``method`` (``svd`` or ``svdpp``), ``biased`` (of ``svd``: with μ, b and c)."""

    name = "surprise"
    distribution = "scikit-surprise"
    precision = "float64"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        method = order.one_of("method", ("svd", "svdpp"))
        options = order.options(method=method, biased=True)
        plus, self._biased = method == "svdpp", bool(options["biased"])
        if plus and not self._biased:
            raise RefusedError("biased is False, but svdpp has biases always")
        from scipy.sparse import csr_matrix, diags
        from surprise import SVD, Dataset, Reader, SVDpp

        self._make = SVDpp if plus else SVD
        self._more: dict[str, Any] = {"cache_ratings": True} if plus else {"biased": self._biased}
        table = list(zip(order.users.tolist(), order.items.tolist(), order.values.tolist(), repeat(None)))
        self._data = Dataset(Reader()).construct_trainset(table)
        self._user = _own(self._data.to_inner_uid, order.users, order.n_users)
        self._item = _own(self._data.to_inner_iid, order.items, order.n_items)
        at = self._user[order.users], self._item[order.items]
        rated = csr_matrix((np.ones(len(at[0])), at), shape=(self._data.n_users, self._data.n_items))
        self._rated = diags(1 / np.sqrt(np.bincount(at[0]))) @ rated
        self.model: Any = None

    def run(self, n_epochs: int, each: Each) -> None:
        order = self.order
        model = self._make(
            n_factors=order.n_factors, n_epochs=n_epochs, lr_all=order.lr, reg_all=order.reg, random_state=order.seed,
            **self._more,
        )  # fmt: skip
        self.model = model.fit(self._data)
        each(n_epochs)

    def predict(self, users: Array, items: Array) -> Array:
        made, u, i = self.model, self._user[users], self._item[items]
        p = made.pu + self._rated @ made.yj if hasattr(made, "yj") else made.pu
        out: Array = dots(p, made.qi, u, i)
        return out + self._data.global_mean + made.bu[u] + made.bi[i] if self._biased else out

    def threads(self) -> int:
        return 1


def _own(inner: Any, ids: Array, size: int) -> Array:
    """The library's number of each of our ids, (size,); −1 where it has none."""
    out = np.full(size, -1)
    for known in np.unique(ids).tolist():
        out[known] = inner(known)
    return out


if __name__ == "__main__":
    sys.exit(main(Surprise, sys.argv[1:]))
