"""Eq. 79 and 80 a rating at a time: the twin of `mf_numpy.probit`, for chains of many ratings; all in float64.

Ratings lie user by user. `ends` (G + 1,) are those of the grades, -∞ and ∞ among them.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from scipy.special import ndtr

from mf_numpy.kernels.compiling import jit_rows, per_form
from mf_numpy.ratings import Array

_ROOT_HALF, _LOG_ROOT = math.sqrt(0.5), 0.5 * math.log(2 * math.pi)

LEAST = 1e-280
"""Probabilities below are known by their logarithms."""

# The rational functions of Wichura (1988), algorithm AS 241, from the highest power down.
_CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_FLANK = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)  # fmt: skip
_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
     0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
     0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)  # fmt: skip


@numba.njit
def _ratio(powers, x):  # type: ignore[no-untyped-def]
    above, below = powers[0][0], powers[1][0]
    for k in range(1, 8):
        above, below = above * x + powers[0][k], below * x + powers[1][k]
    return above / below


@numba.njit
def quantile(p):  # type: ignore[no-untyped-def]
    """Φ⁻¹ of a probability that is no smaller than `LEAST`."""
    away = p - 0.5
    if abs(away) <= 0.425:
        return away * _ratio(_CENTRE, 0.180625 - away * away)
    far = np.sqrt(-np.log(p if away < 0 else 1 - p))
    out = _ratio(_FLANK, far - 1.6) if far <= 5 else _ratio(_TAIL, far - 5)
    return -out if away < 0 else out


_REACH, _PER, _TERMS = 6, 64, 8
_NODES = np.linspace(-_REACH, _REACH, 2 * _REACH * _PER + 1)


def _series() -> Array:
    """Φ's derivatives at the nodes over k!, of orders 0, 1, ..., by Hermite's polynomials: a cache line each."""
    out = np.empty((len(_NODES), _TERMS))
    out[:, 0], out[:, 1] = ndtr(_NODES), np.exp(-_NODES * _NODES / 2 - _LOG_ROOT)
    before = np.zeros_like(_NODES)
    for k in range(1, _TERMS - 1):
        out[:, k + 1] = -(_NODES * out[:, k] + before) / (k + 1)
        before = out[:, k] * (k / (k + 1))
    return out


_TABLE = _series()
"""Nodes are so near each other that few terms of a series reach every place between."""


@numba.njit
def below(x):  # type: ignore[no-untyped-def]
    """Φ, by its Taylor series about the nearest node: a fraction of what `math.erfc` takes."""
    if not abs(x) < _REACH:
        return 0.5 * math.erfc(-x * _ROOT_HALF)
    node = int((x + _REACH) * _PER + 0.5)
    step = x - (node / _PER - _REACH)
    out = _TABLE[node, _TERMS - 1]
    for k in range(_TERMS - 2, -1, -1):
        out = out * step + _TABLE[node, k]
    return out


@numba.njit
def log_below(x):  # type: ignore[no-untyped-def]
    """log Φ, far below 0, by its asymptotic series."""
    if x == -np.inf:
        return x
    s = 1 / (x * x)
    return -0.5 * x * x - np.log(-x) - _LOG_ROOT + np.log1p(-s * (1 - s * (3 - s * (15 - s * (105 - s * 945)))))


@numba.njit
def piece(score, grade, ends):  # type: ignore[no-untyped-def]
    """Where the noise of a rating lies, turned about 0 where that is above it, and whether it is."""
    low, high = ends[grade] - score, ends[grade + 1] - score
    if low + high > 0:
        return -high, -low, True
    return low, high, False


@numba.njit
def log_chance(low, high):  # type: ignore[no-untyped-def]
    """The logarithm of a probability below `LEAST`."""
    whole = log_below(high)
    return whole + np.log1p(-np.exp(log_below(low) - whole))


@numba.njit
def noise_between(low, high, uniform):  # type: ignore[no-untyped-def]
    """A standard normal between two ends on the lower side (Eq. 80)."""
    under, upto = below(low), below(high)
    p = under + uniform * (upto - under)
    if upto - under > LEAST and p > LEAST:
        return min(max(quantile(p), low), high)  # Eq. 80
    whole = log_below(high)
    beyond = np.exp(log_below(low) - whole)
    wanted = whole + np.log(beyond + uniform * (1 - beyond))
    x = high
    for _ in range(8):
        # Newton's step for log Φ, whose slope is nearly -x so far out.
        value = log_below(x)
        x -= (value - wanted) / np.exp(-0.5 * x * x - _LOG_ROOT - value)
    return min(max(x, low), high)


@per_form
def histogram_kernel() -> Any:
    """The kernel of `mf_numpy.probit.histogram`, whose `counts` (G, B) come as zeros."""

    @jit_rows
    def kernel(first, last, scores, at, low, per, counts):  # type: ignore[no-untyped-def]
        most = counts.shape[1] - 2
        for k in range(first, last):
            place = (scores[k] - low) * per
            node = min(int(place), most)
            counts[at[k], node] += 1 - (place - node)
            counts[at[k], node + 1] += place - node

    return kernel


@per_form
def sums_kernel() -> Any:
    """The kernel of sums (users, 3): of each Σ log P with these ends and with others, and Σ (E[r] - r)² (Eq. 79)."""

    @jit_rows
    def kernel(first_row, last_row, indptr, scores, at, ends, others, grades, sums):  # type: ignore[no-untyped-def]
        for row in range(first_row, last_row):
            now, then, square = 1.0, 1.0, 0.0
            log_now, log_then = 0.0, 0.0
            for k in range(indptr[row], indptr[row + 1]):
                score, g = scores[k], at[k]
                error = grades[0] - grades[g]
                upper, lower = 1.0, 0.0
                for j in range(1, len(grades)):
                    above = below(score - ends[j])
                    error += (grades[j] - grades[j - 1]) * above  # Eq. 79
                    upper, lower = above if j == g else upper, above if j == g + 1 else lower
                chance = upper - lower
                if chance < 1e-3:
                    # What is left of two that are nearly 1 has too few digits.
                    low, high, _ = piece(score, g, ends)
                    chance = below(high) - below(low)
                # One logarithm for many of them.
                if chance > LEAST:
                    now *= chance
                else:
                    log_now += log_chance(low, high)
                if now < 1e-20:
                    log_now += np.log(now)
                    now = 1.0
                low, high, _ = piece(score, g, others)
                chance = below(high) - below(low)
                if chance > LEAST:
                    then *= chance
                else:
                    log_then += log_chance(low, high)
                if then < 1e-20:
                    log_then += np.log(then)
                    then = 1.0
                square += error * error
            sums[row, 0] = log_now + np.log(now)
            sums[row, 1] = log_then + np.log(then)
            sums[row, 2] = square

    return kernel


@per_form
def latent_kernel() -> Any:
    """The kernel of `mf_numpy.probit.latent`."""

    @jit_rows
    def kernel(first, last, scores, at, ends, uniform, out):  # type: ignore[no-untyped-def]
        for k in range(first, last):
            score = scores[k]
            low, high, turned = piece(score, at[k], ends)
            noise = noise_between(low, high, uniform[k])
            out[k] = score - noise if turned else score + noise

    return kernel
