"""LensKit: damped biases first, then P·Q of what they leave by ALS with Cholesky, or factor by factor by SGD (FunkSVD).

λ of ALS is weighted by a row's ratings. An epoch of FunkSVD is a pass over all ratings for each of the K factors: it
trains the first to its end before the second begins, so there is nothing to pause.
"""

from __future__ import annotations

import sys
from typing import Any

from bench.peers.adapter import Array, Each, Library, Order, dots, main


class LensKit(Library):
    """``extra``: ``method`` (``als`` or ``funksvd``), ``damping`` (ratings' worth of pull on the biases)."""

    name = "lenskit"
    distribution = "lenskit"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self._steps = order.one_of("method", ("als", "funksvd")) == "als"
        if self._steps:
            self.epochs_by = "the library's trainer, asked for one epoch after the other"
        import pandas as pd
        from lenskit import parallel
        from lenskit.als import BiasedMFScorer
        from lenskit.data import from_interactions_df
        from lenskit.funksvd import FunkSVDScorer
        from lenskit.training import TrainingOptions

        parallel.initialize(processes=1, threads=order.threads, backend_threads=1)
        table = {"user_id": order.users, "item_id": order.items, "rating": order.values}
        self._set = parallel.get_parallel_config().threads
        self._data = from_interactions_df(pd.DataFrame(table))
        self._options = TrainingOptions(rng=order.seed)
        self._damping = float(order.options(method="als", damping=5.0)["damping"])
        self._make = BiasedMFScorer if self._steps else FunkSVDScorer
        self.scorer: Any = None

    def run(self, n_epochs: int, each: Each) -> None:
        order = self.order
        rate = {} if self._steps else {"learning_rate": order.lr}
        self.scorer = scorer = self._make(
            embedding_size=order.n_factors, epochs=n_epochs, regularization=order.reg, damping=self._damping, **rate
        )
        if not self._steps:
            scorer.train(self._data, self._options)
            each(n_epochs)
            return
        trainer = scorer.create_trainer(self._data, self._options)
        for epoch in range(1, n_epochs + 1):
            trainer.train_epoch()
            each(epoch)
        trainer.finalize()

    def predict(self, users: Array, items: Array) -> Array:
        made = self.scorer
        u, i = made.users.numbers(users), made.items.numbers(items)
        bias = made.bias
        scores = dots(made.user_embeddings, made.item_embeddings, u, i)
        out: Array = scores + bias.global_bias + bias.user_biases[u] + bias.item_biases[i]
        return out

    def threads(self) -> int:
        return int(self._set)


if __name__ == "__main__":
    sys.exit(main(LensKit, sys.argv[1:]))
