"""The slow, obvious reference: Eq. 1 to 4, 8, 10, 12 to 14, 17, 30, 33 to 35 and 42 to 49, of
ranks Eq. 51 to 53, and of grades Eq. 54 to 58, a number at a time.

Always float64, whatever the parameters' dtype; results are cast back. Nothing here is fast, so that
every line can be read aloud.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp

from mf_numpy.adaptive import BETA1, BETA2, EPS, FLOOR
from mf_numpy.batch import Batch
from mf_numpy.config import DRAWN, Config
from mf_numpy.design import Design
from mf_numpy.grades import Cuts
from mf_numpy.model import Params, Tensors
from mf_numpy.objective import Evaluation
from mf_numpy.optim import Memory
from mf_numpy.ratings import Array

_LARGEST_EXPONENT = math.log(np.finfo(np.float64).max)


def predictions(params: Params, batch: Batch) -> Array:
    """r̂ at each pair of the batch (Eq. 1)."""
    _, _, n_factors = params.shape
    out = np.empty(len(batch.users))
    for k in range(len(out)):
        u, i = int(batch.users[k]), int(batch.items[k])
        predicted = params.mu
        if params.b is not None and params.c is not None:
            predicted += float(params.b[u]) + float(params.c[i])
        for f in range(n_factors):
            predicted += float(params.P[u, f]) * float(params.Q[i, f])  # Eq. 1
        out[k] = predicted
    return out


def loss_and_residual(predicted: float, value: float, config: Config) -> tuple[float, float, float]:
    """ℓ (Eq. 2) and E = ∂ℓ/∂r̂ (Eq. 3) of one rating, and the error E[r] - r (Eq. 44)."""
    if config.loss == "all_pairs":
        error, sure = predicted - 1.0, config.loss_scale * value
        return sure * error**2 + 1.0 - 2.0 * predicted, 2.0 * sure * error - 2.0, error  # Eq. 46
    if config.loss == "logistic":
        sign = 1.0 - 2.0 * value
        cost, share = behind(sign * predicted)
        return cost, sign * share, sign * share  # Eq. 42
    if config.loss == "poisson":
        rate = math.exp(predicted) if predicted < _LARGEST_EXPONENT else math.inf
        return rate - value * predicted, rate - value, rate - value  # Eq. 43
    error = predicted - value
    if config.loss == "squared":
        return error**2, 2.0 * error, error  # Eq. 3
    delta = config.loss_scale
    root = math.sqrt(1.0 + (error / delta) ** 2)
    return 2.0 * error**2 / (1.0 + root), 2.0 * error / root, error  # Eq. 17


def behind(x: float) -> tuple[float, float]:
    """log(1 + eˣ) and its derivative, σ(x): what it costs to be behind by x."""
    small = math.exp(-abs(x))
    return max(x, 0.0) + math.log1p(small), (1.0 if x > 0 else small) / (1.0 + small)


def points_of(cuts: Cuts) -> list[float]:
    """The cut points, ascending."""
    t = [cuts.unit * float(x) for x in cuts.t]
    points = t[:1]
    for k in range(1, len(t)):
        points.append(points[k - 1] + math.exp(t[k]))  # Eq. 58
    return points


def of_grade(score: float, value: float, cuts: Cuts) -> tuple[float, float, float, list[float]]:
    """ℓ (Eq. 55), E (Eq. 56), the error E[r] - r (Eq. 54) and ∂ℓ/∂t (Eq. 57, 58) of one rating.

    A cut point gets F(1 - F) over the grade's probability, whose logarithm is -ℓ.
    """
    grades, points = [float(x) for x in cuts.grades], points_of(cuts)
    g = grades.index(value)
    upper = points[g] - score if g < len(points) else math.inf
    lower = points[g - 1] - score if g > 0 else -math.inf
    width = math.inf if g in (0, len(points)) else points[g] - points[g - 1]
    loss = behind(-upper)[0] + behind(lower)[0] - math.log(-math.expm1(-width))  # Eq. 55
    error = grades[0] - value
    for k in range(len(points)):
        error += (grades[k + 1] - grades[k]) * behind(score - points[k])[1]  # Eq. 54
    of_points = [0.0] * len(points)
    if g < len(points):
        of_points[g] = -math.exp(loss - behind(upper)[0] - behind(-upper)[0])  # Eq. 57
    if g > 0:
        of_points[g - 1] = math.exp(loss - behind(lower)[0] - behind(-lower)[0])  # Eq. 57
    of_t = [0.0] * len(points)
    for k in range(len(points)):
        of_t[0] += cuts.unit * of_points[k]
        for above in range(1, k + 1):
            of_t[above] += cuts.unit * (points[above] - points[above - 1]) * of_points[k]  # Eq. 58
    return loss, behind(-upper)[1] - behind(lower)[1], error, of_t  # Eq. 56


def of_list(
    scores: list[float], offsets: list[float], n_items: int, config: Config
) -> tuple[float, list[float], float]:
    """ℓ of one list, the chosen item first, its E (Eq. 48, 49, 53), and its error as in `mf_numpy.losses`."""
    n_drawn = len(scores) - 1
    if config.loss == "warp":
        for k in range(1, len(scores)):
            if scores[k] > scores[0] - 1.0:  # Eq. 51
                worth = sum(1.0 / place for place in range(1, (n_items - 1) // k + 1))  # Eq. 52
                pulls = [-worth if at == 0 else worth if at == k else 0.0 for at in range(len(scores))]
                return worth * (1.0 + scores[k] - scores[0]), pulls, 1.0  # Eq. 53
        return 0.0, [0.0] * len(scores), 0.0
    if config.loss == "bpr":
        loss, e = 0.0, [0.0] * len(scores)
        for k in range(1, len(scores)):
            cost, share = behind(scores[k] - scores[0])
            loss += cost / n_drawn  # Eq. 48
            e[0] -= share / n_drawn  # Eq. 48
            e[k] = share / n_drawn  # Eq. 48
        return loss, e, e[0]
    z = [score - offset for score, offset in zip(scores, offsets, strict=True)]
    powers = [math.exp(x - max(z)) for x in z]
    shares = [power / sum(powers) for power in powers]
    # What the chosen item lacks is what the others have.
    lacks = sum(shares[1:])
    return max(z) + math.log(sum(powers)) - z[0], [-lacks, *shares[1:]], lacks  # Eq. 49


def costs(
    predicted: Array, batch: Batch, config: Config, cuts: Cuts | None = None
) -> tuple[float, list[float], float, Array]:
    """Σ ℓ over the ratings or lists of a batch, E of each pair, Σ of squared errors, and Σ ∂ℓ/∂t of cut points."""
    losses = squared_error = 0.0
    of_t = np.zeros(0 if cuts is None else len(cuts.t))
    residuals: list[float] = []
    for begin in range(0, len(predicted), batch.per_list):
        scores, values = (x[begin : begin + batch.per_list].tolist() for x in (predicted, batch.values))
        if config.loss in DRAWN:
            loss, e, error = of_list(scores, values, batch.shape[1], config)
        elif cuts is not None:
            loss, one, error, moves = of_grade(scores[0], values[0], cuts)
            e = [one]
            of_t += moves
        else:
            loss, one, error = loss_and_residual(scores[0], values[0], config)
            e = [one]
        losses += loss
        residuals += e
        squared_error += error**2
    return losses, residuals, squared_error, of_t


def residuals(params: Params, batch: Batch, config: Config) -> Array:
    """E at each pair of the batch (Eq. 3), (B,)."""
    return np.array(costs(predictions(params, batch), batch, config, params.cuts)[1])


def gradient(params: Params, batch: Batch, config: Config) -> Evaluation:
    """J (Eq. 2) and ∇J (Eq. 4) over the batch, rating by rating; shapes as the parameters."""
    m, n, n_factors = params.shape
    share = 1.0 / len(batch)
    d_p, d_q = np.zeros((m, n_factors)), np.zeros((n, n_factors))
    d_b, d_c = np.zeros(m), np.zeros(n)

    losses, of_pairs, squared_error, of_t = costs(predictions(params, batch), batch, config, params.cuts)
    for k, e in enumerate(of_pairs):
        u, i = int(batch.users[k]), int(batch.items[k])
        for f in range(n_factors):
            d_p[u, f] += share * e * float(params.Q[i, f])  # Eq. 4
            d_q[i, f] += share * e * float(params.P[u, f])  # Eq. 4
        # In a list b_u cancels.
        d_b[u] += share * e if config.loss not in DRAWN else 0.0
        d_c[i] += share * e
    if config.loss == "all_pairs":
        losses += unobserved(params, d_p, d_q, share)

    norms = 0.0
    sides = ((params.P, params.b, d_p, d_b, batch.user_counts), (params.Q, params.c, d_q, d_c, batch.item_counts))
    for factors, bias, d_factors, d_bias, counts in sides:
        for row in range(len(factors)):
            weight = 1.0 if config.penalty == "total" else float(counts[row]) * share
            for f in range(n_factors):
                norms += weight * float(factors[row, f]) ** 2
                d_factors[row, f] += 2.0 * config.reg * weight * float(factors[row, f])
            if bias is not None:
                norms += weight * float(bias[row]) ** 2
                d_bias[row] += 2.0 * config.reg * weight * float(bias[row])

    grads = {"P": d_p, "Q": d_q} if params.b is None else {"P": d_p, "Q": d_q, "b": d_b, "c": d_c}
    if params.cuts is not None:
        grads["t"] = share * of_t  # no penalty
    cast = {name: g.astype(params.P.dtype) for name, g in grads.items()}
    return Evaluation(share * losses + config.reg * norms, squared_error, cast)


def unobserved(params: Params, d_p: Array, d_q: Array, share: float) -> float:
    """Σ r̂² over all m·n pairs, one after the other (Eq. 45); its gradient is added to d_p (m, K) and d_q (n, K)."""
    m, n, n_factors = params.shape
    total = 0.0
    for u in range(m):
        for i in range(n):
            predicted = sum(float(params.P[u, f]) * float(params.Q[i, f]) for f in range(n_factors))
            total += predicted**2  # Eq. 45
            for f in range(n_factors):
                d_p[u, f] += share * 2.0 * predicted * float(params.Q[i, f])
                d_q[i, f] += share * 2.0 * predicted * float(params.P[u, f])
    return total


def gradient_of_features(theta: Params, batch: Batch, design: Design, config: Config) -> Evaluation:
    """J and ∇J by the parameters of features (Eq. 33 to 35), rating by rating and feature by feature."""
    share, n_factors = 1.0 / len(batch), theta.shape[2]
    grads = {name: np.zeros(value.shape) for name, value in theta.tensors().items()}
    used = {"P": np.zeros(len(theta.P)), "Q": np.zeros(len(theta.Q))}
    losses = squared_error = 0.0
    for k in range(len(batch)):
        u, i = int(batch.users[k]), int(batch.items[k])
        of_user, of_item = _features(design.users.matrix, u), _features(design.items.matrix, i)
        p = [sum(x * float(theta.P[a, f]) for a, x in of_user) for f in range(n_factors)]  # Eq. 33
        q = [sum(y * float(theta.Q[a, f]) for a, y in of_item) for f in range(n_factors)]  # Eq. 33
        predicted = theta.mu + sum(p[f] * q[f] for f in range(n_factors))  # Eq. 1
        if theta.b is not None and theta.c is not None:
            predicted += sum(x * float(theta.b[a]) for a, x in of_user)  # Eq. 33
            predicted += sum(y * float(theta.c[a]) for a, y in of_item)  # Eq. 33
        loss, e, error = loss_and_residual(predicted, float(batch.values[k]), config)
        losses += loss
        squared_error += error**2
        for factors, bias, features, other in (("P", "b", of_user, q), ("Q", "c", of_item, p)):
            for a, x in features:
                used[factors][a] += 1.0  # Eq. 35
                for f in range(n_factors):
                    grads[factors][a, f] += share * e * x * other[f]  # Eq. 34
                if bias in grads:
                    grads[bias][a] += share * e * x  # Eq. 34

    norms = 0.0
    for name, value in theta.tensors().items():
        counts = used["P" if name in ("P", "b") else "Q"]
        for at in np.ndindex(*value.shape):
            weight = 1.0 if config.penalty == "total" else float(counts[at[0]]) * share  # Eq. 35
            norms += weight * float(value[at]) ** 2
            grads[name][at] += 2.0 * config.reg * weight * float(value[at])  # Eq. 34
    cast = {name: g.astype(theta.P.dtype) for name, g in grads.items()}
    return Evaluation(share * losses + config.reg * norms, squared_error, cast)


def _features(matrix: sp.csr_array, row: int) -> list[tuple[int, float]]:
    """The features of a row, each with how much of it the row has."""
    inside = range(matrix.indptr[row], matrix.indptr[row + 1])
    return [(int(matrix.indices[k]), float(matrix.data[k])) for k in inside]


def update(
    tensors: Tensors, old: Memory | None, grads: Tensors, lr: float, config: Config
) -> tuple[Tensors, Memory | None]:
    """The same as `mf_numpy.optim.update`, one number at a time."""
    if config.step_rule != "momentum":
        return _by_size(tensors, old, grads, lr, config)
    beta = config.momentum
    new = {name: theta.copy() for name, theta in tensors.items()}
    speed = {name: np.zeros_like(theta) for name, theta in tensors.items()}
    for name, theta in new.items():
        for at in np.ndindex(*theta.shape):
            g = float(grads[name][at])
            if old is None:
                v = g
            elif config.momentum_form == "ema":
                v = beta * float(old.velocity[name][at]) + (1.0 - beta) * g  # Eq. 12
            else:
                v = beta * float(old.velocity[name][at]) + g  # Eq. 13
            speed[name][at] = v
            if config.momentum == 0:
                v = g
            elif config.momentum_form == "nesterov":
                v = g + beta * v  # Eq. 14
            theta[at] = float(theta[at]) - lr * v
    return new, Memory(speed) if config.momentum else None


def _by_size(tensors: Tensors, old: Memory | None, grads: Tensors, lr: float, config: Config) -> tuple[Tensors, Memory]:
    """Adam (Eq. 10) and AdaGrad (Eq. 30), which divide each number's step by the size of its own gradients."""
    new, first, second = ({name: theta.copy() for name, theta in tensors.items()} for _ in range(3))
    steps = 1 if old is None else old.steps + 1
    for name, theta in new.items():
        for at in np.ndindex(*theta.shape):
            g = float(grads[name][at])
            m = 0.0 if old is None else float(old.velocity[name][at])
            if config.step_rule == "adagrad":
                h = m + g * g  # Eq. 30
                first[name][at] = h
                theta[at] = float(theta[at]) - lr * g / (math.sqrt(h) + FLOOR)  # Eq. 30
                continue
            s = 0.0 if old is None or old.second is None else float(old.second[name][at])
            m, s = BETA1 * m + (1.0 - BETA1) * g, BETA2 * s + (1.0 - BETA2) * g * g  # Eq. 10
            first[name][at], second[name][at] = m, s
            size = math.sqrt(s / (1.0 - BETA2**steps)) + EPS
            theta[at] = float(theta[at]) - lr * m / (1.0 - BETA1**steps) / size  # Eq. 10
    return new, Memory(first) if config.step_rule == "adagrad" else Memory(first, second, steps)
