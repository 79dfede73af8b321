"""Eq. 39 and 40: a step for each rating that moves features, row by row of one side."""

from __future__ import annotations

from typing import Any

import numpy as np

from mf_numpy.kernels.compiling import jit_rows, per_form
from mf_numpy.kernels.gradients import error_of_mean, loss_and_residual
from mf_numpy.kernels.vector import add, dot, load, scale, store


@per_form
def epoch_kernel(form: int) -> Any:
    """The kernel of some turns: Eq. 39 for every rating of their rows, and ℓ of each before its step.

    `order` holds the rows of the side whose turn it is, x their features and W what belongs to these; y and Z are
    those of the other side. `room` is (3, K).
    """

    @jit_rows
    def kernel(  # type: ignore[no-untyped-def]
        first, last, order, begins, others, values, x_begins, x_at, x, y_begins, y_at, y, W, Z, w, z, mu, biased,
        lr, keep, kind, delta, room, sums,
    ):  # fmt: skip
        for turn in range(first, last):
            # Unsigned places need no check for negative ones.
            row = np.uint64(order[turn])
            x_first, x_end = np.uint64(x_begins[row]), np.uint64(x_begins[row + np.uint64(1)])
            for f in range(room.shape[1]):
                room[0, f] = room[1, f] = 0
            p, moved = load(room, np.uint64(0), form), load(room, np.uint64(1), form)
            bias = moved_b = lr - lr
            length, kept = bias, lr / lr
            for k in range(x_first, x_end):
                a = np.uint64(x_at[k])
                p = add(p, x[k], load(W, a, form))  # Eq. 33
                length += x[k] * x[k]
                if biased:
                    bias += x[k] * w[a]  # Eq. 33
            for t in range(np.uint64(begins[row]), np.uint64(begins[row + np.uint64(1)])):
                other = np.uint64(others[t])
                y_first, y_end = np.uint64(y_begins[other]), np.uint64(y_begins[other + np.uint64(1)])
                for f in range(room.shape[1]):
                    room[2, f] = 0
                q, base = load(room, np.uint64(2), form), mu + bias
                for k in range(y_first, y_end):
                    a = np.uint64(y_at[k])
                    q = add(q, y[k], load(Z, a, form))  # Eq. 33
                    if biased:
                        base += y[k] * z[a]  # Eq. 33
                predicted = base + dot(p, q)  # Eq. 1
                cost, e = loss_and_residual(predicted, values[t], kind, delta)  # Eq. 3
                sums[0] += cost
                error = error_of_mean(predicted, values[t], e, kind)
                sums[1] += np.float64(error) * np.float64(error)
                step = -lr * e
                for k in range(y_first, y_end):
                    a = np.uint64(y_at[k])
                    store(Z, a, add(scale(load(Z, a, form), keep), step * y[k], p))  # Eq. 39
                    if biased:
                        z[a] = keep * z[a] + step * y[k]
                p = add(scale(p, keep), step * length, q)  # Eq. 40
                moved = add(scale(moved, keep), step, q)  # Eq. 40
                kept *= keep
                if biased:
                    bias = keep * bias + step * length
                    moved_b = keep * moved_b + step
            for k in range(x_first, x_end):
                a = np.uint64(x_at[k])
                store(W, a, add(scale(load(W, a, form), kept), x[k], moved))  # Eq. 40
                if biased:
                    w[a] = kept * w[a] + x[k] * moved_b

    return kernel
