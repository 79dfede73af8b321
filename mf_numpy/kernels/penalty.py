"""The second half of Eq. 2 in parallel, for solvers whose steps do not add it up by the way."""

from __future__ import annotations

import numba
import numpy as np
from numba import prange

from mf_numpy.kernels import vector
from mf_numpy.kernels.compiling import jit
from mf_numpy.model import Params
from mf_numpy.ratings import Array


@jit
def norms_kernel(P, Q, b, c, w_u, w_i, biased, norms_u, norms_i):  # type: ignore[no-untyped-def]
    """norms_u[u] = w_u (|p_u|² + b_u²), norms_i[i] = w_i (|q_i|² + c_i²) (Eq. 2), in float64."""
    for u in prange(len(P)):
        norms_u[u] = w_u[u] * (_norm(P[u]) + (np.float64(b[u]) * np.float64(b[u]) if biased else 0.0))
    for i in prange(len(Q)):
        norms_i[i] = w_i[i] * (_norm(Q[i]) + (np.float64(c[i]) * np.float64(c[i]) if biased else 0.0))


@numba.njit(fastmath=vector.FAST)
def _norm(row):  # type: ignore[no-untyped-def]
    """|row|²; four sums, as one alone would wait for each of its additions."""
    s_0 = s_1 = s_2 = s_3 = 0.0
    whole = len(row) // 4 * 4
    for f in range(0, whole, 4):
        s_0 += np.float64(row[f]) * np.float64(row[f])
        s_1 += np.float64(row[f + 1]) * np.float64(row[f + 1])
        s_2 += np.float64(row[f + 2]) * np.float64(row[f + 2])
        s_3 += np.float64(row[f + 3]) * np.float64(row[f + 3])
    for f in range(whole, len(row)):
        s_0 += np.float64(row[f]) * np.float64(row[f])
    return s_0 + s_1 + (s_2 + s_3)


def penalty(params: Params, w_u: Array, w_i: Array, reg: float) -> float:
    """λ Σ_u w_u(|p_u|² + b_u²) + λ Σ_i w_i(|q_i|² + c_i²) (Eq. 2), for weights (m,) and (n,) in the rows' order."""
    none = np.empty(0, params.P.dtype)
    b, c = (none, none) if params.b is None or params.c is None else (params.b, params.c)
    norms_u, norms_i = np.empty(len(params.P)), np.empty(len(params.Q))
    norms_kernel(params.P, params.Q, b, c, w_u, w_i, params.b is not None, norms_u, norms_i)
    return reg * float(norms_u.sum() + norms_i.sum())
