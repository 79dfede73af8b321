"""The second half of Eq. 2 in parallel, for solvers whose steps do not add it up by the way."""

from __future__ import annotations

import numpy as np
from numba import prange

from mf_numpy.kernels.compiling import jit
from mf_numpy.kernels.gradients import columns
from mf_numpy.model import Params
from mf_numpy.ratings import Array


@jit
def norms_kernel(theta, weights, out):  # type: ignore[no-untyped-def]
    """out[row] = w |θ_row|² (Eq. 2), in float64."""
    for row in prange(len(theta)):
        norm = 0.0
        for f in range(theta.shape[1]):
            norm += np.float64(theta[row, f]) * np.float64(theta[row, f])
        out[row] = norm * weights[row]


def penalty(params: Params, w_u: Array, w_i: Array, reg: float) -> float:
    """λ Σ_u w_u(|p_u|² + b_u²) + λ Σ_i w_i(|q_i|² + c_i²) (Eq. 2), for weights (m,) and (n,) in the rows' order."""
    norms = 0.0
    for name, theta in params.tensors().items():
        each = np.empty(len(theta))
        norms_kernel(columns(theta), w_u if name in ("P", "b") else w_i, each)
        norms += float(each.sum())
    return reg * norms
