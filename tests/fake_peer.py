"""A library which the tests of `bench.peers` run in a process of its own: means of items, or a fault asked for."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np

from bench.peers.adapter import DIFFERENCE, Array, Each, Library, Order, main


class Fake(Library):
    """``extra``: ``how`` (a fault by name), ``steps`` (says when an epoch ends), ``ranks``, ``set`` (threads)."""

    name = "fake"
    distribution = "numpy"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self.asked = order.options(how="good", steps=True, ranks=False, set=order.threads)
        self.epochs_by = "steps" if self.asked["steps"] else DIFFERENCE
        self.ranks = self.asked["ranks"]  # type: ignore[misc]
        how = self.asked["how"]
        if how == "absent":
            raise ImportError("No module named 'fake'")
        if how == "raises":
            raise RuntimeError("the fake is out of order")
        if how == "dies":
            print("a last word", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "hangs":
            time.sleep(60)
        if how == "leaves":
            sys.exit(3)
        self.done = 0

    def run(self, n_epochs: int, each: Each) -> None:
        for self.done in range(1, n_epochs + 1):
            time.sleep(0.0 if self.asked["how"] == "instant" else 0.004)
            if self.asked["steps"]:
                each(self.done)
        if not self.asked["steps"]:
            each(n_epochs)

    def predict(self, users: Array, items: Array) -> Array:
        order, how = self.order, self.asked["how"]
        mean = float(order.values.mean(dtype=np.float64))
        if how == "ranks":
            rated = set(zip(order.users.tolist(), order.items.tolist(), strict=True))
            return np.array([pair in rated for pair in zip(users.tolist(), items.tolist(), strict=True)], np.float64)
        if how in ("mean", "idle"):
            return np.full(len(users), mean)
        sums = np.bincount(order.items, order.values - mean, minlength=order.n_items)
        means = sums / np.maximum(np.bincount(order.items, minlength=order.n_items), 1)
        # Half of it after one epoch, nearly all of it after many.
        out: Array = mean + means[items] * self.done / (self.done + 1)
        if how == "nan":
            out[:2] = np.nan
        return out[1:] if how == "short" else out

    def rows(self) -> tuple[Array, Array]:
        order = self.order
        items = self.predict(np.zeros(order.n_items, np.int64), np.arange(order.n_items))
        return np.ones((order.n_users, 1)), items[:, None]

    def threads(self) -> int:
        return int(self.asked["set"])


if __name__ == "__main__":
    sys.exit(main(Fake, sys.argv[1:]))
