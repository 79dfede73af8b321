"""Eq. 31: coordinate descent, one factor of all rows at a time, in parallel over the rows of one side.

Every row adds its own ratings in a fixed order, so that bits do not depend on the number of threads. Residuals
r - r̂ are kept twice, by user and by item, because each side walks its own ratings in a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from mf_numpy.kernels.compiling import jit, per_form
from mf_numpy.kernels.vector import dot, load


@per_form
def residual_kernel(form: int) -> Any:
    """The kernel of e = r - r̂ (Eq. 1), in the order of the users and in the place of r, and of Σ e², in float64."""

    @jit
    def kernel(bounds, indptr, items, P, Q, b, c, mu, biased, e, squares):  # type: ignore[no-untyped-def]
        for chunk in prange(len(squares)):
            square = 0.0
            for u in range(bounds[chunk], bounds[chunk + 1]):
                p, base = load(P, u, form), mu
                if biased:
                    base += b[u]
                for k in range(indptr[u], indptr[u + 1]):
                    i = items[k]
                    error = e[k] - base - dot(p, load(Q, i, form))  # Eq. 1
                    if biased:
                        error -= c[i]
                    e[k] = error
                    square += np.float64(error) * np.float64(error)
            squares[chunk] = square

    return kernel


@jit
def bias_kernel(bounds, indptr, e, ridge, theta, change):  # type: ignore[no-untyped-def]
    """Minimise each row's bias, whose partner is 1 (Eq. 31), in place; `e` follows, `change` is new - old."""
    for chunk in prange(len(bounds) - 1):
        for row in range(bounds[chunk], bounds[chunk + 1]):
            begin, end = indptr[row], indptr[row + 1]
            before = theta[row]
            upper = 0.0
            for k in range(begin, end):
                upper += np.float64(e[k] + before)
            lower = (end - begin) + ridge[row]
            if lower > 0:
                theta[row] = upper / lower  # Eq. 31
            change[row] = theta[row] - before
            for k in range(begin, end):
                e[k] -= change[row]


@jit
def factor_kernel(  # type: ignore[no-untyped-def]
    bounds, indptr, others, e, fresh, last, last_other, old, old_other, other, ridge, theta
):
    """Minimise one factor of each row of a side (Eq. 31) into `theta`; where there is nothing to minimise, leave it.

    In a `fresh` pass, the factor's first over this side, `e` loses the part of the factor `last` and gets that of this
    factor back, as it was: `old`. Arrays with `other` are the other side's, at the places `others`. Sums are in
    float64, which takes no longer: the pass waits for what it reads.
    """
    for chunk in prange(len(bounds) - 1):
        for row in range(bounds[chunk], bounds[chunk + 1]):
            p_last, p_old = last[row], old[row]
            upper = lower = 0.0
            # Unsigned places need no check for negative ones.
            begin, end = np.uint64(indptr[row]), np.uint64(indptr[row + 1])
            if fresh:
                for k in range(begin, end):
                    i = others[k]
                    q = other[i]
                    error = e[k] - p_last * last_other[i] + p_old * old_other[i]
                    e[k] = error
                    upper += error * q
                    lower += q * q
            else:
                for k in range(begin, end):
                    q = other[others[k]]
                    upper += e[k] * q
                    lower += q * q
            lower += ridge[row]
            if lower > 0:
                theta[row] = upper / lower  # Eq. 31
