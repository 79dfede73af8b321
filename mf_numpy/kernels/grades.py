"""Eq. 54 to 57 a rating at a time: the twin of `mf_numpy.grades`, for the kernels that walk ratings."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import prange

from mf_numpy.grades import Cuts, of_widths
from mf_numpy.kernels.compiling import jit, per_form
from mf_numpy.kernels.vector import dot, load
from mf_numpy.ratings import Array

SLOPE, BEND, COUNT = range(3)
"""Rows of the sums (3, G): of the cut points slope and bend, and the ratings of each grade."""


@numba.njit
def _behind(x):  # type: ignore[no-untyped-def]
    """log(1 + eˣ) in float64, and its derivative σ(x)."""
    one, small = type(x)(1), np.exp(-abs(x))
    share = (one if x > 0 else small) / (one + small)
    return np.float64(max(x, x - x)) + np.log1p(np.float64(small)), share


@numba.njit
def of_grade(score, value, grades, points, own, sums):  # type: ignore[no-untyped-def]
    """ℓ (Eq. 55) in float64, E (Eq. 56) and E[r] - r (Eq. 54); what the cut points get is added to `sums` (3, G)."""
    error, g = grades[0] - value, 0
    for j in range(len(points)):
        if grades[j] < value:
            g = j + 1
        error += (grades[j + 1] - grades[j]) * _behind(score - points[j])[1]  # Eq. 54
    cost, e = own[g], score - score
    sums[COUNT, g] += 1
    if g < len(points):
        past, up = _behind(score - points[g])
        cost += past  # Eq. 55
        e += up  # Eq. 56
        sums[SLOPE, g] -= up  # Eq. 57
        sums[BEND, g] += up * (1 - up)
    if g > 0:
        short, down = _behind(points[g - 1] - score)
        cost += short  # Eq. 55
        e -= down  # Eq. 56
        sums[SLOPE, g - 1] += down  # Eq. 57
        sums[BEND, g - 1] += down * (1 - down)
    return cost, e, error


def tables(cuts: Cuts | None, dtype: Any) -> tuple[Array, Array, Array]:
    """What `of_grade` takes of cut points: grades (G,), points (G - 1,) and the widths' part of ℓ (G,) in float64."""
    if cuts is None:
        return np.empty(0, dtype), np.empty(0, dtype), np.empty(0)
    return cuts.grades, cuts.points, of_widths(cuts).astype(np.float64)


def nothing_yet(cuts: Cuts | None, *parts: int) -> Array:
    """Sums (…, 3, G) of 0 for each of the parts of a pass."""
    return np.zeros((*parts, 3, 0 if cuts is None else len(cuts.grades)))


@per_form
def tally_kernel(form: int) -> Any:
    """The kernel of `mf_numpy.grades.tally` over the blocks of a grid: the sums of each share of users."""

    @jit
    def kernel(  # type: ignore[no-untyped-def]
        begins, user_bounds, item_bounds, users, items, values, P, Q, b, c, mu, biased, grades, points, own, sums
    ):  # fmt: skip
        side = len(sums)
        for share in prange(side):
            for other in range(side):
                first_u, first_i = np.uint64(user_bounds[share]), np.uint64(item_bounds[other])
                for k in range(begins[share * side + other], begins[share * side + other + 1]):
                    u, i = first_u + np.uint64(users[k]), first_i + np.uint64(items[k])
                    score = mu + dot(load(P, u, form), load(Q, i, form))  # Eq. 1
                    if biased:
                        score += b[u] + c[i]
                    of_grade(score, values[k], grades, points, own, sums[share])  # Eq. 57

    return kernel
