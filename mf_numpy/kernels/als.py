"""Eq. 26 and 47 for every row of one side, in parallel: what alternating least squares is made of.

A row depends on its own ratings alone, which are added up in their order: bits do not depend on the number of threads.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from typing import Any

import numba
import numpy as np

from mf_numpy.kernels.compiling import jit_rows, per_form
from mf_numpy.kernels.normal import accumulate, ask, back_substitute, copy_row, dots, factor
from mf_numpy.ratings import Array

PANEL_BYTES = 16 << 10
"""Partner rows that are gathered before they are multiplied: half of the nearest cache."""

AHEAD = 8
"""Ratings ahead of the one under way whose rows are asked for."""

CHUNKS = 128
"""Chunks of rows at most."""

LEAST_CHUNK = 16384
"""Ratings' worth of work in a chunk at least: to wake a thread for less takes longer than to do it."""


def panel_rows(width: int, itemsize: int) -> int:
    """How many rows of W numbers a panel holds, a multiple of 4."""
    return max(32, min(256, PANEL_BYTES // (width * itemsize) // 4 * 4))


def chunks(indptr: Array, n_factors: int) -> Array:
    """Bounds of chunks of rows that cost about the same, (C + 1,) int64; set by the data and K alone."""
    # A Cholesky factor costs as much as the products of K / 3 ratings.
    cost = np.concatenate([[0.0], np.cumsum(np.diff(indptr) + n_factors / 3.0 + 1.0)])
    n_chunks = max(1, min(CHUNKS, len(indptr) - 1, int(cost[-1] // LEAST_CHUNK)))
    cuts = np.linspace(0.0, cost[-1], n_chunks + 1)
    bounds = np.searchsorted(cost, cuts)
    bounds[-1] = len(indptr) - 1
    return bounds.astype(np.int64)


def least_pivot(n_factors: int, dtype: Any) -> float:
    """The share of its diagonal that a pivot must keep: as much as rounding leaves of a singular matrix's."""
    return float((n_factors + 1) * np.finfo(dtype).eps)


def no_draws(dtype: Any) -> tuple[Array, Array, Array, Array]:
    """What minimisers are handed in the place of a prior's pull and of noise."""
    table, line = np.empty((0, 0), dtype), np.empty(0, dtype)
    return table, line, table, line


@numba.njit
def norm_of(factors, bias, row, biased):  # type: ignore[no-untyped-def]
    """|θ|² of a row, in float64."""
    norm = np.float64(bias[row]) * np.float64(bias[row]) if biased else 0.0
    for f in range(factors.shape[1]):
        norm += np.float64(factors[row, f]) * np.float64(factors[row, f])
    return norm


@numba.njit(inline="always")
def room(n_rows, width, like):  # type: ignore[no-untyped-def]
    """Scratch that begins on a cache line."""
    numbers = np.empty(n_rows * width + 64 // like.itemsize, like.dtype)
    skip = (-numbers.ctypes.data % 64) // like.itemsize
    return numbers[skip : skip + n_rows * width].reshape(n_rows, width)


@per_form
def rows_kernel(form: int, draws: int = 0) -> Any:
    """The kernel of one side: each row that has ratings becomes its minimiser (Eq. 26, 47).

    Where a normal matrix is as good as singular, the row stays and `failed` says so. norms[row] is |θ|² of the row
    before it moved and, with `measure`, squares[row] Σ (r̂ - r)² of its ratings.

    `gram` is what the matrix begins with, in the shape of A: zeros or, with `all_pairs`, Σ q qᵀ over all partners. A
    rating is then r times α = `alpha` surer than what was not rated, and what is to be predicted is 1 (Eq. 45).

    With `draws` = 1 each row becomes a draw from its conditional (Eq. 64, 66) instead. The prior over the noise's
    precision, Λ/α and Λm/α, comes bordered as a row's normal matrix does: `gram`, pull (2, W) and corner (2,), the last
    coordinate's; the ridge is then 0. noise (·, W) and noise_bias are z/√α. Without, these four are not looked at.
    """

    @jit_rows
    def kernel(  # type: ignore[no-untyped-def]
        first_row, last_row, indptr, others, values, own, own_bias, table, other_bias, mu, biased, ridge,
        gram, all_pairs, alpha, n_factors, n_rows, n_panel, least, measure, squares, norms, failed,
        pull, corner, noise, noise_bias,
    ):  # fmt: skip
        width, one = own.shape[1], type(mu)(1)
        A, B, S, F = room(n_rows, width, own), room(2, width, own), room(n_rows, 2, own), room(8, 8, own)
        panel, pairs, predicted = room(n_panel, width, own), room(n_panel, 2, own), room(1, n_panel, own)[0]
        roots, z, x = room(1, n_rows, own)[0], room(1, n_rows, own)[0], room(1, width, own)[0]
        for row in range(first_row, last_row):
            begin, end = indptr[row], indptr[row + 1]
            failed[row] = False
            norms[row] = norm_of(own, own_bias, row, biased)
            squares[row] = 0
            if begin == end and not draws:
                if all_pairs or ridge[row] > 0:
                    own[row] = 0
                    if biased:
                        own_bias[row] = 0
                continue
            for k in range(n_rows):
                for c in range(width):
                    A[k, c] = gram[k, c]
            for k in range(2):
                for c in range(width):
                    B[k, c] = pull[k, c] if draws else 0
            for k in range(n_rows):
                # What fills the last tile up must not be singular.
                A[k, k] += ridge[row] if k < n_factors else 1
            total, square = mu - mu, 0.0
            for first in range(begin, end, n_panel):
                count = min(n_panel, end - first)
                for j in range(count):
                    ask(table, others[min(first + j + AHEAD, end - 1)], form)
                    i = others[first + j]
                    copy_row(panel, j, table, i, form)
                    left = values[first + j] - mu
                    if biased:
                        left -= other_bias[i]
                    if all_pairs:
                        # q qᵀ αr and q (1 + αr), both from one row: q √(αr), and (1 + αr)/√(αr) times it.
                        sure = alpha * values[first + j]
                        root = np.sqrt(sure)
                        left = (one + sure) / root  # Eq. 47
                        for c in range(width):
                            panel[j, c] *= root  # Eq. 47
                    pairs[j, 0], pairs[j, 1] = left, 1
                    total += left
                whole = (count + 3) // 4 * 4
                for j in range(count, whole):
                    panel[j] = 0
                    pairs[j] = 0
                if measure:
                    dots(panel, own[row], whole, predicted, form)
                    for j in range(count):
                        error = predicted[j] - pairs[j, 0]  # Eq. 1
                        if biased:
                            error += own_bias[row]
                        square += np.float64(error) * np.float64(error)
                accumulate(A, B, panel, pairs, whole, form)
            if measure:
                squares[row] = square
            if not factor(A, B, S, F, roots, least, form):
                failed[row] = True
                continue
            bias = mu - mu
            if biased:
                alone = own.dtype.type(end - begin)
                if draws:
                    alone += corner[0]
                    total += corner[1]
                else:
                    alone += ridge[row]
                pivot = alone
                for k in range(n_rows):
                    pivot -= S[k, 1] * S[k, 1]
                    total -= S[k, 0] * S[k, 1]
                if not pivot > least * alone:
                    failed[row] = True
                    continue
                bias = total / pivot
                if draws:
                    bias += noise_bias[row] / np.sqrt(pivot)  # Eq. 66
                own_bias[row] = bias
            for k in range(n_rows):
                z[k] = S[k, 0] - bias * S[k, 1]
                if draws:
                    z[k] += noise[row, k]  # Eq. 66
            back_substitute(A, roots, z, x, form)  # Eq. 26
            for c in range(width):
                own[row, c] = x[c]

    return kernel
