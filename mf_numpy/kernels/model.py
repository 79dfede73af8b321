"""Eq. 1 for many pairs in parallel: the twin of `mf_numpy.model.predict`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from mf_numpy.kernels.compiling import jit, per_form
from mf_numpy.kernels.vector import dot, form, load
from mf_numpy.model import Params, check_range
from mf_numpy.ratings import Array


@per_form
def predict_kernel(form: int) -> Any:
    """The kernel of Eq. 1."""

    @jit
    def kernel(P, Q, b, c, mu, biased, users, items, out):  # type: ignore[no-untyped-def]
        for k in prange(len(out)):
            # Unsigned places need no check for negative ones.
            u, i = np.uint64(users[k]), np.uint64(items[k])
            predicted = mu + dot(load(P, u, form), load(Q, i, form))  # Eq. 1
            if biased:
                predicted += b[u] + c[i]
            out[k] = predicted

    return kernel


def predict(params: Params, users: Array, items: Array) -> Array:
    """r̂_ui of each pair (Eq. 1), (B,) in rating units.

    Raises:
        IndexError: an index outside 0..m-1 or 0..n-1.
    """
    m, n, n_factors = params.shape
    check_range("users", users, m)
    check_range("items", items, n)
    out = np.empty(len(users), params.P.dtype)
    b, c, biased = biases(params)
    mu = params.P.dtype.type(params.mu)
    # Of one type, whatever the caller's, so that a kernel is compiled once.
    users, items = (np.asarray(index).astype(np.int32, copy=False) for index in (users, items))
    predict_kernel(form(n_factors))(params.P, params.Q, b, c, mu, biased, users, items, out)
    return out


def biases(params: Params) -> tuple[Array, Array, bool]:
    """b, c and whether there are any; empty arrays in the plain model."""
    if params.b is None or params.c is None:
        return np.empty(0, params.P.dtype), np.empty(0, params.P.dtype), False
    return params.b, params.c, True
