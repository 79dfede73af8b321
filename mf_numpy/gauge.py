"""What the ratings cannot tell: P Qᵀ is one matrix, its two factors are many (Eq. 22 to 24)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mf_numpy.batch import Batch
from mf_numpy.config import Config
from mf_numpy.model import Params
from mf_numpy.objective import penalty_weights
from mf_numpy.ratings import Array


def regauge(params: Params, A: Array) -> Params:
    """P A and Q A⁻ᵀ for an invertible A (K, K): other factors, the same predictions (Eq. 22).

    Raises:
        numpy.linalg.LinAlgError: a singular A.
    """
    return replace(params, P=params.P @ A, Q=params.Q @ np.linalg.inv(A).T)  # Eq. 22


def canonical(params: Params) -> Params:
    """The factors U √S and V √S of P Qᵀ = U S Vᵀ, largest first: balanced, orthogonal columns, one answer (Eq. 24).

    Each column's sign makes its item factor of largest size positive. The (m, n) matrix never exists.
    """
    left, s, right = _svd(params)
    signs = np.sign(right[np.abs(right).argmax(axis=0), np.arange(len(s))])
    scale = signs * np.sqrt(s)
    return replace(params, P=left * scale, Q=right * scale)


def nuclear_norm(params: Params) -> float:
    """‖P Qᵀ‖_*, the sum of its singular values: the least ½(|P|² + |Q|²) of any factors of it (Eq. 24)."""
    return float(_svd(params)[1].sum())  # Eq. 24


def imbalance(params: Params, batch: Batch, config: Config) -> float:
    """|PᵀW_uP - QᵀW_iQ| over the larger of the two (Eq. 23): 0 at every stationary point of J with λ > 0."""
    w_u, w_i = penalty_weights(batch, config)
    of_users, of_items = (params.P.T * w_u) @ params.P, (params.Q.T * w_i) @ params.Q
    size = max(np.linalg.norm(of_users), np.linalg.norm(of_items))
    return float(np.linalg.norm(of_users - of_items) / size) if size else 0.0  # Eq. 23


def _svd(params: Params) -> tuple[Array, Array, Array]:
    """U (m, K), s (K,) and V (n, K) of P Qᵀ, by way of two thin QR factorisations."""
    q_left, r_left = np.linalg.qr(params.P)
    q_right, r_right = np.linalg.qr(params.Q)
    u, s, vt = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
    return q_left @ u, s, q_right @ vt.T
