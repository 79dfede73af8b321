"""Eq. 6: the gradient of the objective by hand, with SciPy's sparse products.

E holds the residual at the observed pairs alone; the dense (m, n) matrix never exists.
"""

from __future__ import annotations

from mf_numpy import grades, losses
from mf_numpy.batch import Batch
from mf_numpy.config import DRAWN, Config
from mf_numpy.model import Params, Tensors, predict
from mf_numpy.objective import Evaluation, background, background_pull, penalty, penalty_weights, total


def gradient(params: Params, batch: Batch, config: Config) -> Evaluation:
    """J and ∇J over the batch, every part from the same old parameters (Eq. 6).

    ∇P (m, K), ∇Q (n, K) and, in the biased model, ∇b (m,), ∇c (n,), with cut points ∇t (G - 1,), in the parameters'
    dtype.
    """
    predicted = predict(params, batch.users, batch.items)
    loss = total(losses.value(predicted, batch.values, config, params.cuts))
    squared_error = total(losses.squared_errors(predicted, batch.values, config, params.cuts))
    e = batch.sparse(losses.residual(predicted, batch.values, config, params.cuts))  # Eq. 3

    share = 1 / len(batch)
    reg = 2 * config.reg
    w_u, w_i = penalty_weights(batch, config)
    grads: Tensors = {
        "P": (e @ params.Q) * share + (reg * w_u)[:, None] * params.P,  # Eq. 6
        "Q": (e.T @ params.P) * share + (reg * w_i)[:, None] * params.Q,  # Eq. 6
    }
    if params.b is not None and params.c is not None:
        grads["b"] = e.sum(axis=1) * share + reg * w_u * params.b  # Eq. 6
        grads["c"] = e.sum(axis=0) * share + reg * w_i * params.c  # Eq. 6
        if config.loss in DRAWN:
            # b_u is in every score of a list and cancels; the rounding that is left would be a step of Adam.
            grads["b"] = reg * w_u * params.b
    if params.cuts is not None:
        grads["t"] = share * grades.slope(predicted, batch.values, params.cuts)  # Eq. 58
    for name, pull in background_pull(params, config).items():
        grads[name] += share * pull  # Eq. 47
    j = (loss + background(params, config)) / len(batch) + penalty(params, batch, config)
    return Evaluation(j, squared_error, grads)


def differential(gradient: Tensors, direction: Tensors) -> float:
    """dJ = ⟨∇J, d⟩, summed over all tensors (Eq. 5): the slope of J along a direction of the parameters' shapes."""
    return sum(float((gradient[name] * d).sum()) for name, d in direction.items())  # Eq. 5
