"""LensKit: damped biases first, then P·Q of what they leave by ALS with Cholesky; λ is weighted by a row's ratings."""

from __future__ import annotations

import sys
from typing import Any

from bench.peers.adapter import Array, Each, Library, Order, dots, main


class LensKit(Library):
    """``extra``: ``damping`` (ratings' worth of pull on the biases)."""

    name = "lenskit"
    distribution = "lenskit"
    epochs_by = "the library's trainer, asked for one epoch after the other"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        import pandas as pd
        from lenskit import parallel
        from lenskit.als import BiasedMFScorer
        from lenskit.data import from_interactions_df
        from lenskit.training import TrainingOptions

        parallel.initialize(processes=1, threads=order.threads, backend_threads=1)
        table = {"user_id": order.users, "item_id": order.items, "rating": order.values}
        self._set = parallel.get_parallel_config().threads
        self._data = from_interactions_df(pd.DataFrame(table))
        self._options = TrainingOptions(rng=order.seed)
        self._make, self._damping = BiasedMFScorer, float(order.options(damping=5.0)["damping"])
        self.scorer: Any = None

    def run(self, n_epochs: int, each: Each) -> None:
        order = self.order
        scorer = self._make(
            embedding_size=order.n_factors, epochs=n_epochs, regularization=order.reg, damping=self._damping
        )
        self.scorer = scorer
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
