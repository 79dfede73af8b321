"""Sums in float64 that a chain draws by: of the rows of one side (Eq. 67), and of the squared errors (Eq. 69)."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from typing import Any

import numba
import numpy as np

from mf_numpy.kernels.als import AHEAD, room
from mf_numpy.kernels.compiling import jit_rows, per_form
from mf_numpy.kernels.normal import ask, copy_row, dots
from mf_numpy.ratings import Array


def moments(table: Array, bias: Array, biased: bool, n_factors: int) -> tuple[Array, Array]:
    """Σ θ (D,) and Σ θθᵀ (D, D) over the rows of a table (rows, W), row by row whatever the number of threads."""
    width = n_factors + biased
    total, square, row = np.zeros(width), np.zeros((width, width)), np.empty(width)
    _moments(table, bias, biased, n_factors, row, total, square)
    return total, square


@numba.njit(cache=True, nogil=True)
def _moments(table, bias, biased, n_factors, row, total, square):  # type: ignore[no-untyped-def]
    for at in range(table.shape[0]):
        for f in range(n_factors):
            row[f] = table[at, f]
        if biased:
            row[n_factors] = bias[at]
        for a in range(len(row)):
            total[a] += row[a]
            for b in range(len(row)):
                square[a, b] += row[a] * row[b]


@per_form
def squares_kernel(form: int) -> Any:
    """The kernel of one side: squares[row] becomes Σ (r̂ - r)² of the row's ratings, in their order."""

    @jit_rows
    def kernel(  # type: ignore[no-untyped-def]
        first_row, last_row, indptr, others, values, own, own_bias, table, other_bias, mu, biased, n_panel, squares
    ):
        panel, predicted = room(n_panel, own.shape[1], own), room(1, n_panel, own)[0]
        for row in range(first_row, last_row):
            begin, end = indptr[row], indptr[row + 1]
            square = 0.0
            for first in range(begin, end, n_panel):
                count = min(n_panel, end - first)
                for j in range(count):
                    ask(table, others[min(first + j + AHEAD, end - 1)], form)
                    copy_row(panel, j, table, others[first + j], form)
                dots(panel, own[row], (count + 3) // 4 * 4, predicted, form)
                for j in range(count):
                    error = mu + predicted[j] - values[first + j]  # Eq. 1
                    if biased:
                        error += own_bias[row] + other_bias[others[first + j]]
                    square += np.float64(error) * np.float64(error)
            squares[row] = square

    return kernel
