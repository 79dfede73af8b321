"""Eq. 32 for every row of one side, in parallel: conjugate-gradient steps towards Eq. 26 without a normal matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from mf_numpy.kernels.als import norm_of
from mf_numpy.kernels.compiling import jit_rows, per_form
from mf_numpy.kernels.vector import add, copy, dot, load, prefetch, scale, store

AHEAD = 8
"""Ratings ahead of the one under way whose rows are asked for."""


@per_form
def steps_kernel(form: int) -> Any:
    """The kernel of one side: `n_steps` steps of each row that has ratings, from where it is (Eq. 32).

    norms and, with `measure`, squares are those of `als.rows_kernel`.
    """

    @jit_rows
    def kernel(  # type: ignore[no-untyped-def]
        first_row, last_row, indptr, others, values, own, own_bias, table, other_bias, mu, biased, ridge,
        n_steps, measure, squares, norms,
    ):  # fmt: skip
        one = type(mu)(1)
        for row in range(first_row, last_row):
            # Unsigned places need no check for negative ones.
            begin, end, reg = np.uint64(indptr[row]), np.uint64(indptr[row + 1]), ridge[row]
            norms[row] = norm_of(own, own_bias, row, biased)
            squares[row] = 0
            if begin == end:
                if reg > 0:
                    own[row] = 0
                    if biased:
                        own_bias[row] = 0
                continue
            x, x_b = copy(load(own, row, form)), mu - mu
            if biased:
                x_b += own_bias[row]
            # What is left of the ratings, times q, less the penalty's pull: minus half the slope.
            r, r_b, square = scale(copy(x), -reg), -reg * x_b, 0.0
            for k in range(begin, end):
                prefetch(table, others[min(k + np.uint64(AHEAD), end - np.uint64(1))], form)
                i = np.uint64(others[k])
                q = load(table, i, form)
                left = values[k] - mu - dot(q, x) - x_b
                if biased:
                    left -= other_bias[i]
                square += np.float64(left) * np.float64(left)
                r = add(r, left, q)
                r_b += left
            if not biased:
                r_b = mu - mu
            if measure:
                squares[row] = square
            p, p_b = copy(r), r_b
            size = dot(r, r) + r_b * r_b
            for _ in range(n_steps):
                a, a_b = scale(copy(p), reg), reg * p_b
                for k in range(begin, end):
                    q = load(table, others[k], form)
                    along = dot(q, p) + p_b
                    a = add(a, along, q)
                    a_b += along
                if not biased:
                    a_b = mu - mu
                bend = dot(p, a) + p_b * a_b
                # The row is where it should be, as far as numbers can tell.
                if not bend > 0:
                    break
                step = size / bend  # Eq. 32
                x, x_b = add(x, step, p), x_b + step * p_b
                r, r_b = add(r, -step, a), r_b - step * a_b
                before, size = size, dot(r, r) + r_b * r_b
                share = size / before
                p, p_b = add(scale(p, share), one, r), r_b + share * p_b  # Eq. 32
            store(own, row, x)
            if biased:
                own_bias[row] = x_b

    return kernel
