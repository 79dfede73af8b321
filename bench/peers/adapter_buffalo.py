"""Buffalo: ALS on implicit data, the ratings taken for confidences; only its iterations are timed.

Unless told otherwise it keeps 1 % of the ratings back and computes the loss in every iteration: both are off here.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.peers.adapter import Array, Each, Library, Order, dots, main


class Buffalo(Library):
    """``extra``: ``optimizer`` (``manual_cg`` with 3 steps, ``ldlt``, ...), ``alpha``."""

    name = "buffalo"
    distribution = "buffalo"
    epochs_by = "a method that the library calls after every iteration"
    ranks = True

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        from buffalo import ALS, ALSOption, MatrixMarketOptions, log
        from scipy.sparse import csr_matrix

        log.set_log_level(log.WARN)
        self._options = order.options(optimizer="manual_cg", alpha=1.0)
        self._base, self._defaults = ALS, ALSOption().get_default_option
        # A folder, not a file, as the library makes files of its own beside the one that is named.
        self._folder = tempfile.TemporaryDirectory(prefix="mf-buffalo-")
        data = MatrixMarketOptions().get_default_option()
        data.input.main = csr_matrix((order.values, (order.users, order.items)), shape=(order.n_users, order.n_items))
        data.data.validation = {}
        data.data.tmp_dir = self._folder.name
        data.data.path = str(Path(self._folder.name) / "ratings.h5py")
        self._data = data
        self.model: Any = None

    def run(self, n_epochs: int, each: Each) -> None:
        order, options = self.order, self._defaults()
        options.update(
            d=order.n_factors, num_iters=n_epochs, num_workers=order.threads, reg_u=order.reg, reg_i=order.reg,
            random_seed=order.seed or 0, compute_loss_on_training=False, validation={}, evaluation_on_learning=False,
            **self._options,
        )  # fmt: skip
        self.model = model = _told(self._base, each)(options, data_opt=self._data)
        model.initialize()
        model.train()

    def predict(self, users: Array, items: Array) -> Array:
        return dots(*self.rows(), users, items)

    def rows(self) -> tuple[Array, Array]:
        return self.model.P, self.model.Q


def _told(base: Any, each: Each) -> Any:
    """The library's class, which says when an iteration has ended."""

    class Told(base):  # type: ignore[misc]
        def save_best_only(self, loss: float, best: float, at: int) -> float:
            each(at + 1)
            kept: float = super().save_best_only(loss, best, at)
            return kept

    return Told


if __name__ == "__main__":
    sys.exit(main(Buffalo, sys.argv[1:]))
