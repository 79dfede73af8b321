"""Eq. 73 and 74 over the rows and the features of one side; all in float64, whatever the parameters are kept in.

Shapes: rows of D numbers, factors and then the bias, if there is one; g (rows, D), and G of all rows one below the
other (rows · D, D), each of which is symmetric.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mf_numpy.kernels.compiling import jit_rows, per_form
from mf_numpy.kernels.vector import add, dot, load, store


@per_form
def sums_kernel(form: int) -> Any:
    """The kernel of a side's rows: G = Σ q̃ q̃ᵀ, g = Σ q̃ e and Σ e² over each row's ratings, e = r - r̂ (Eq. 73).

    `own` (rows, D) are the rows of this side, `tilde` (others, D) those of the other with 1 in the place of a bias,
    which is in `other_bias`. G and g come as zeros.
    """

    @jit_rows
    def kernel(  # type: ignore[no-untyped-def]
        first_row, last_row, indptr, others, values, own, tilde, other_bias, mu, normal, left, squares
    ):
        width = own.shape[1]
        for row in range(first_row, last_row):
            here, told, square = load(own, np.uint64(row), form), load(left, np.uint64(row), form), 0.0
            for k in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
                # Unsigned places need no check for negative ones.
                i = np.uint64(others[k])
                y = load(tilde, i, form)
                error = values[k] - mu - other_bias[i] - dot(here, y)
                told = add(told, error, y)
                for a in range(np.uint64(width)):
                    at = np.uint64(row * width) + a
                    store(normal, at, add(load(normal, at, form), tilde[i, a], y))
                square += error * error
            store(left, np.uint64(row), told)
            squares[row] = square

    return kernel


@per_form
def features_kernel(form: int) -> Any:
    """The kernel of a block's features: each is drawn given all others (Eq. 66, 73), and its rows move along (Eq. 74).

    Features that no row has two of may be drawn by several threads. `indptr` and `rows` say which rows have a feature,
    and `amounts` how much. `left` is g where the rows were, and `moved` (rows, D) how far they have moved since: what g
    is now is found where G is read. `table` (features, D) is drawn in place; `precision` and `pull` are Λ and Λm.
    """

    @jit_rows
    def kernel(  # type: ignore[no-untyped-def]
        first, last, indptr, rows, amounts, normal, left, moved, table, precision, pull, alpha, noise
    ):
        width = table.shape[1]
        bend, root, room = np.empty((width, width)), np.empty((width, width)), np.empty((2, width))
        half = np.empty(width)
        for j in range(first, last):
            for a in range(width):
                room[0, a] = room[1, a] = 0
                for b in range(width):
                    bend[a, b] = 0
            told = load(room, np.uint64(0), form)
            for k in range(np.uint64(indptr[j]), np.uint64(indptr[j + 1])):
                u, x = np.uint64(rows[k]), amounts[k]
                square = x * x
                told = add(told, x, load(left, u, form))  # Eq. 73
                for a in range(np.uint64(width)):
                    bent = load(normal, u * np.uint64(width) + a, form)
                    told = add(told, -x * moved[u, a], bent)  # Eq. 74
                    store(bend, a, add(load(bend, a, form), square, bent))  # Eq. 73
            for a in range(np.uint64(width)):
                told = add(told, table[j, a], load(bend, a, form))  # Eq. 73
            store(room, np.uint64(0), told)
            for a in range(width):
                for b in range(a + 1):
                    total = precision[a, b] + alpha * bend[a, b]  # Eq. 73
                    for c in range(b):
                        total -= root[a, c] * root[b, c]
                    # The root of a negative number is none, which the training loop reports.
                    root[a, b] = total / root[b, b] if b < a else np.sqrt(total)
                total = pull[a] + alpha * room[0, a]  # Eq. 73
                for b in range(a):
                    total -= root[a, b] * half[b]
                half[a] = total / root[a, a]
            for a in range(width - 1, -1, -1):
                total = half[a] + noise[j, a]  # Eq. 66
                for b in range(a + 1, width):
                    total -= root[b, a] * table[j, b]
                room[1, a] = total / root[a, a] - table[j, a]
                table[j, a] = total / root[a, a]
            step = load(room, np.uint64(1), form)
            for k in range(np.uint64(indptr[j]), np.uint64(indptr[j + 1])):
                u = np.uint64(rows[k])
                store(moved, u, add(load(moved, u, form), amounts[k], step))  # Eq. 74

    return kernel


@per_form
def left_kernel(form: int) -> Any:
    """The kernel of g where the rows are now: `left` less what `moved` makes of it, which becomes 0 (Eq. 74)."""

    @jit_rows
    def kernel(first_row, last_row, normal, left, moved):  # type: ignore[no-untyped-def]
        width = left.shape[1]
        for row in range(first_row, last_row):
            told = load(left, np.uint64(row), form)
            for a in range(np.uint64(width)):
                told = add(told, -moved[row, a], load(normal, np.uint64(row * width) + a, form))  # Eq. 74
                moved[row, a] = 0
            store(left, np.uint64(row), told)

    return kernel
