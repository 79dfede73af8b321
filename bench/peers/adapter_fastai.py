"""fastai's collaborative learner: b + c + P·Q, through a sigmoid to the rating scale, by Adam with a cycle of its rate.

The cycle is laid over the epochs that are asked for, so another number of them is another fit. All ratings train: the
learner would keep a fifth of them back.
"""

from __future__ import annotations

import sys
from typing import Any

from bench.peers.adapter import Array, Each, Library, Order, main


class Fastai(Library):
    """``extra``: ``batch_size``, ``y_range`` (the sigmoid, to half a rating beyond the ends of the scale)."""

    name = "fastai"
    distribution = "fastai"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        import pandas as pd
        import torch
        from fastai.collab import CollabDataLoaders, collab_learner

        torch.set_num_threads(order.threads)
        options = order.options(batch_size=64, y_range=True)
        self._torch, self._make = torch, collab_learner
        low, high = float(order.values.min()) - 0.5, float(order.values.max()) + 0.5
        self._range = (low, high) if options["y_range"] else None
        table = pd.DataFrame({"user": order.users, "item": order.items, "rating": order.values})
        self._data = CollabDataLoaders.from_df(table, valid_pct=0, bs=int(options["batch_size"]), device="cpu")
        self.model: Any = None

    def run(self, n_epochs: int, each: Each) -> None:
        order = self.order
        if order.seed is not None:
            self._torch.manual_seed(order.seed)
        learner = self._make(self._data, n_factors=order.n_factors, y_range=self._range)
        with learner.no_bar(), learner.no_logging():
            learner.fit_one_cycle(n_epochs, order.lr, wd=order.reg)
        self.model = learner.model
        each(n_epochs)

    def predict(self, users: Array, items: Array) -> Array:
        torch, classes = self._torch, self._data.classes
        own = [[classes[name].o2i[each] for each in ids.tolist()] for name, ids in (("user", users), ("item", items))]
        with torch.no_grad():
            out: Array = self.model.eval()(torch.tensor(own).T).double().numpy()
        return out

    def threads(self) -> int:
        return int(self._torch.get_num_threads())


if __name__ == "__main__":
    sys.exit(main(Fastai, sys.argv[1:]))
