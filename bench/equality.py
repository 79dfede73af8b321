"""When two runs count as equal, and where each bound comes from.

A difference is always relative and taken by the largest entry: max|a - b| / max|b| per parameter array, the largest
over the arrays. Symbols: K factors; N training ratings; M scored validation pairs; θ all parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mf_numpy.model import Params
from mf_numpy.ratings import Array

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
"""Spacing of floating-point numbers at 1."""

FLOAT64_BOUND = 1e-10
"""Largest relative difference allowed between two float64 runs: the project's contract for whole trajectories."""

SAFETY = 16.0
"""Factor on the float32 bound, see `bound`."""


def bound(dtype: str, drift: float | None) -> float | None:
    """The largest relative difference from the float64 reference that a run in `dtype` may show.

    float64 runs have the contract's `FLOAT64_BOUND`. For float32, `drift` is what two independent float64
    backends were measured to differ by on the same problem: it says how much this trajectory amplifies one rounding,
    in units of eps64. The same trajectory in float32 amplifies roundings that are eps32/eps64 = 2²⁹ times larger:

        bound = max(drift, eps64) · (eps32 / eps64) · SAFETY

    `SAFETY` covers what two float64 backends share and a float32 run does not: start, ratings and μ are rounded to
    float32 too, and its roundings are another draw of a random walk, whose spread one sample of the drift only
    estimates. Over 24 planted problems and every CPU backend, 240 comparisons, the factor needed stayed below 4. A
    wrong gradient is off by far more: it changes the first step by its own relative size.

    Args:
        drift: measured relative float64 drift; None when nothing was measured, and then a float32 run has no bound.
    """
    if dtype == "float64":
        return FLOAT64_BOUND
    if drift is None:
        return None
    return max(drift, EPS["float64"]) * (EPS["float32"] / EPS["float64"]) * SAFETY


def relative(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Largest relative difference of arrays by name (see the module); inf for other names, shapes or a NaN."""
    if found.keys() != expected.keys():
        return math.inf
    worst = 0.0
    for name, right in expected.items():
        left = np.asarray(found[name], dtype=np.float64)
        if left.shape != right.shape or not np.isfinite(left).all():
            return math.inf
        if right.size:
            scale = float(np.abs(right).max()) or 1.0
            worst = max(worst, float(np.abs(left - right).max()) / scale)
    return worst


def relative_each(found: Sequence[float | None], expected: Sequence[float | None]) -> list[float]:
    """Relative difference of each entry; inf where an entry is missing or not finite."""
    if len(found) != len(expected):
        return [math.inf] * max(len(found), len(expected))
    out = []
    for left, right in zip(found, expected, strict=True):
        if left is None or right is None or not math.isfinite(left):
            out.append(math.inf)
        else:
            out.append(abs(left - right) / (abs(right) or 1.0))
    return out


def rmse_bound(reference: Params, difference: float, dtype: str) -> float:
    """How far, in rating units, an RMSE may be from the reference's if the parameters differ by `difference`.

    |RMSE - RMSE'| ≤ max|r̂ - r̂'| (the triangle inequality), and with every array off by ε times its largest entry

        |r̂ - r̂'| ≤ ε (2 + ε) K max|P| max|Q| + ε (max|b| + max|c|)

    plus the prediction's own rounding, (K + 4) eps times the largest sum of absolute terms.
    """
    top = {name: float(np.abs(theta).max(initial=0.0)) for name, theta in reference.tensors().items()}
    dot, biases = reference.shape[2] * top["P"] * top["Q"], top.get("b", 0.0) + top.get("c", 0.0)
    moved = difference * (2 + difference) * dot + difference * biases
    rounding = (reference.shape[2] + 4) * EPS[dtype] * (abs(reference.mu) + dot + biases)
    return moved + rounding


def rmse_range(noise_floor: float, n_ratings: int, n_parameters: int, n_scored: int) -> tuple[float, float] | None:
    """Where a converged model's validation RMSE must lie when the truth's own RMSE, the noise floor, is known.

    Least squares with d free parameters on N ratings expects an excess that makes floor · √(N / (N - d)) on new
    ratings; a regularised fit does better. The RMSE over M pairs has a relative standard error of about 1/√(2M),
    of which four are allowed on either side.

    Returns:
        Lowest and highest RMSE in rating units, or None where d ≥ N: then least squares promises nothing.
    """
    if n_parameters >= n_ratings:
        return None
    slack = 4.0 / math.sqrt(2.0 * max(1, n_scored))
    expected = noise_floor * math.sqrt(n_ratings / (n_ratings - n_parameters))
    return noise_floor * (1.0 - slack), expected * (1.0 + slack)
