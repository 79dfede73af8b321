"""Where a fit starts, what its end may look like, and what the ratings leave open: named checks, as in `properties`.

They judge `mf_numpy.gauge`, `mf_numpy.model.start` and the exact minimiser of `mf_numpy.curvature`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mf_numpy import curvature, gauge, gradients, model
from mf_numpy.batch import full_batch
from mf_numpy.check import Check
from mf_numpy.config import Config
from mf_numpy.model import Params
from mf_numpy.properties import Ways, Worst, both_penalties, problem
from mf_numpy.ratings import Array, Ratings


def gauge_freedom(ways: Ways) -> list[Check]:
    """P A and Q A⁻ᵀ have the product of P and Q, whatever A; so have the canonical factors (Eq. 22)."""
    worst = Worst(1e-11)
    for label, params, A, _ in _gauges():
        product = params.P @ params.Q.T
        for what, other in (("regauged", gauge.regauge(params, A)), ("canonical", gauge.canonical(params))):
            worst.see("gauge", f"P Qᵀ {what}", other.P @ other.Q.T, product, label)
    return worst.checks()


def gauge_group(ways: Ways) -> list[Check]:
    """A and then B is A B at once, and the canonical factors are the same from every gauge (Eq. 22)."""
    worst = Worst(1e-10)
    for label, params, A, B in _gauges():
        twice, once = gauge.regauge(gauge.regauge(params, A), B), gauge.regauge(params, A @ B)
        one, two = gauge.canonical(params), gauge.canonical(gauge.regauge(params, A))
        for key in ("P", "Q"):
            worst.see("gauge", f"{key} by A and B", twice.tensors()[key], once.tensors()[key], label)
            worst.see("gauge", f"canonical {key}", two.tensors()[key], one.tensors()[key], label)
    return worst.checks()


def nuclear_norm(ways: Ways) -> list[Check]:
    """‖P Qᵀ‖ is the sum of the singular values of the dense product (Eq. 24)."""
    worst = Worst(1e-12)
    for label, params, _, _ in _gauges():
        dense = np.linalg.svd(params.P @ params.Q.T, compute_uv=False).sum()
        worst.see("gauge", "nuclear norm", gauge.nuclear_norm(params), dense, label)
    return worst.checks()


def cheapest_factors(ways: Ways) -> list[Check]:
    """The canonical factors cost ½(|P|² + |Q|²) = ‖P Qᵀ‖, and a small turn away from them costs no less (Eq. 24)."""
    worst = Worst(1e-11)
    rng = np.random.default_rng(30)
    for label, params, _, _ in _gauges():
        least = gauge.canonical(params)
        worst.see("gauge", "½(|P|² + |Q|²)", _cost(least), gauge.nuclear_norm(params), label)
        for _ in range(5):
            turned = gauge.regauge(least, np.eye(3) + 0.2 * rng.normal(size=(3, 3)))
            worst.note("gauge", "cheaper elsewhere", max(0.0, 1 - _cost(turned) / _cost(least)), label)
    return worst.checks()


def _cost(params: Params) -> float:
    return float((params.P**2).sum() + (params.Q**2).sum()) / 2


def imbalance_in_the_gradient(ways: Ways) -> list[Check]:
    """Pᵀ∇P - (Qᵀ∇Q)ᵀ is 2λ(PᵀW_uP - QᵀW_iQ) everywhere: the data's part cancels (Eq. 6, 22, 23)."""
    worst = Worst(1e-9)
    for label, ratings, params, config in both_penalties():
        batch = full_batch(ratings, config)
        g = gradients.gradient(params, batch, config).gradient
        apart = (params.P.T @ g["P"] - (params.Q.T @ g["Q"]).T) / (2 * config.reg)
        users, items = _second_moments(ratings, params, config)
        size = max(np.linalg.norm(users), np.linalg.norm(items))
        worst.see("gauge", "imbalance", gauge.imbalance(params, batch, config), np.linalg.norm(apart) / size, label)
    return worst.checks()


def _second_moments(ratings: Ratings, params: Params, config: Config) -> tuple[Array, Array]:
    """Σ w_u p pᵀ and Σ w_i q qᵀ, row by row."""
    sides = ((params.P, ratings.users), (params.Q, ratings.items))
    found = []
    for theta, index in sides:
        total = config.penalty == "total"
        weights = [1.0 if total else float((index == row).mean()) for row in range(len(theta))]
        found.append(np.sum([w * np.outer(x, x) for w, x in zip(weights, theta, strict=True)], axis=0))
    return found[0], found[1]


def balance_at_the_end(ways: Ways) -> list[Check]:
    """Where every row in turn is at its minimiser, PᵀW_uP = QᵀW_iQ (Eq. 23, 26)."""
    worst = Worst(1e-6)
    # The gauge settles last and slowly, faster the larger λ is; here it has, after 120 sweeps.
    for penalty in ("total", "per_rating"):
        ratings, params, config = problem(n_factors=2, reg=0.1, penalty=penalty, size=60)
        batch, here = full_batch(ratings, config), params.copy()
        for _ in range(120):
            for side, factors, bias in (("user", here.P, here.b), ("item", here.Q, here.c)):
                for row in range(len(factors)):
                    found = curvature.row_minimiser(here, side, row, batch, config)  # type: ignore[arg-type]
                    factors[row] = found[: here.shape[2]]
                    if bias is not None:
                        bias[row] = found[-1]
        worst.note("gauge", "imbalance", gauge.imbalance(here, batch, config), penalty)
    return worst.checks()


def ridge_minimiser(ways: Ways) -> list[Check]:
    """A row at the minimiser of Eq. 26 has no gradient, and is one Newton step away from anywhere (Eq. 19)."""
    worst = Worst(1e-9)
    for label, ratings, params, config in both_penalties():
        batch = full_batch(ratings, config)
        slope = gradients.gradient(params, batch, config).gradient
        for side, factors, bias in (("user", "P", "b"), ("item", "Q", "c")):
            row = int((ratings.users if side == "user" else ratings.items)[0])
            best = curvature.row_minimiser(params, side, row, batch, config)  # type: ignore[arg-type]
            moved = params.copy().tensors()
            moved[factors][row] = best[: config.n_factors]
            if bias in moved:
                moved[bias][row] = best[-1]
            g = gradients.gradient(params.with_tensors(moved), batch, config).gradient
            at = [g[key][row] for key in (factors, bias) if key in g]
            worst.see("curvature", f"{side}'s gradient", np.hstack(at), np.zeros(len(best)), label)
            block = curvature.row_block(params, side, row, batch, config)  # type: ignore[arg-type]
            here, there = (
                np.hstack([of[key][row] for key in (factors, bias) if key in of]) for of in (params.tensors(), slope)
            )
            worst.see("curvature", f"{side}'s Newton step", here - np.linalg.solve(block, there), best, label)
    return worst.checks()


def mean_of_the_start(ways: Ways) -> list[Check]:
    """Over many rows the starting predictions average 30.25/K, or the mean rating, within five deviations (Eq. 25)."""
    worst = Worst(1.0)
    for init, k, mean in (("uniform", 3, 30.25 / 3), ("uniform", 16, 30.25 / 16), ("mean", 3, 7.8), ("mean", 16, 7.8)):
        begun = _begun(init, k)
        # The mean of p̄·q̄ over m = n rows: each of its K terms varies by a⁴/24 m to first order, a = 2√(mean/K).
        deviation = np.sqrt(k * (4 * mean / k) ** 2 / 24 / len(begun.P))
        found = float(begun.P.mean(axis=0) @ begun.Q.mean(axis=0))
        worst.note("model", "mean prediction", abs(found - mean) / (5 * deviation), f"{init}, K = {k}")
    return worst.checks()


def range_of_the_start(ways: Ways) -> list[Check]:
    """Starting factors fill the range from 0 to 11/K, or to 2√(μ/K), and stay inside it (Eq. 25)."""
    worst = Worst(0.0)
    for init, k, top in (("uniform", 3, 11 / 3), ("uniform", 16, 11 / 16), ("mean", 4, 2 * np.sqrt(7.8 / 4))):
        drawn = np.concatenate([_begun(init, k).P.ravel(), _begun(init, k).Q.ravel()])
        out = float(drawn.min() < 0 or drawn.max() > top or drawn.max() < 0.999 * top or drawn.min() > 0.001 * top)
        worst.note("model", "outside or short of the range", out, f"{init}, K = {k}")
    return worst.checks()


def _begun(init: str, k: int) -> Params:
    many = Ratings.of_indices(np.arange(5000), np.arange(5000), np.full(5000, 7.8))
    config = Config(model="plain", n_factors=k, init=init, dtype="float64")  # type: ignore[arg-type]
    return model.start(many, config)


def _gauges() -> list[tuple[str, Params, Array, Array]]:
    """Parameters, and two invertible matrices that are neither symmetric nor orthogonal."""
    rng = np.random.default_rng(31)
    out = []
    for kind in ("plain", "biased"):
        _, params, _ = problem(32, model=kind)
        scattered = replace(params, P=rng.normal(size=params.P.shape), Q=rng.normal(size=params.Q.shape))
        A, B = (np.eye(3) + 0.4 * rng.normal(size=(3, 3)) for _ in range(2))
        out.append((kind, scattered, A, B))
    return out
