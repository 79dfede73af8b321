"""Eq. 4: the gradient of the objective by hand, with SciPy's sparse products.

E holds the residual at the observed pairs alone; the dense (m, n) matrix never exists.
"""

from __future__ import annotations

import numpy as np

from mf_numpy.batch import Batch
from mf_numpy.config import Config
from mf_numpy.model import Params, Tensors, predict
from mf_numpy.objective import Evaluation, penalty, penalty_weights, residual, squared_loss


def gradient(params: Params, batch: Batch, config: Config) -> Evaluation:
    """J and ∇J over the batch, every part from the same old parameters (Eq. 4).

    ∇P (m, K), ∇Q (n, K) and, in the biased model, ∇b (m,), ∇c (n,), in the parameters' dtype.
    """
    predicted = predict(params, batch.users, batch.items)
    squared_error = float(squared_loss(predicted, batch.values).sum(dtype=np.float64))
    e = batch.sparse(residual(predicted, batch.values))  # Eq. 3

    share = 1 / len(batch)
    reg = 2 * config.reg
    w_u, w_i = penalty_weights(batch, config)
    grads: Tensors = {
        "P": (e @ params.Q) * share + (reg * w_u)[:, None] * params.P,  # Eq. 4
        "Q": (e.T @ params.P) * share + (reg * w_i)[:, None] * params.Q,  # Eq. 4
    }
    if params.b is not None and params.c is not None:
        grads["b"] = e.sum(axis=1) * share + reg * w_u * params.b  # Eq. 4
        grads["c"] = e.sum(axis=0) * share + reg * w_i * params.c  # Eq. 4
    j = squared_error / len(batch) + float(np.real(penalty(params, batch, config)))
    return Evaluation(j, squared_error, grads)
