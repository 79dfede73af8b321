"""What second derivatives, the learning-rate bound and Adam must satisfy: named checks, as in `mf_numpy.properties`.

They judge `mf_numpy.curvature`, `mf_numpy.adaptive` and `mf_numpy.optim`, of which there is one form each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mf_numpy import adaptive, curvature, gradients, losses, model, optim
from mf_numpy.batch import full_batch
from mf_numpy.check import Case, Check, cases
from mf_numpy.config import Config
from mf_numpy.model import Tensors
from mf_numpy.objective import objective
from mf_numpy.properties import FORMS, STENCIL, Ways, Worst, moved, problem, quartic_slope
from mf_numpy.ratings import Array


def slope_of_gradient(ways: Ways) -> list[Check]:
    """∇²J d is the slope of the gradient along d: a cubic for a squared loss, which four points give (Eq. 18)."""
    worst = Worst(1e-10)
    for case, d in _squared_cases():
        g = {h: gradients.gradient(moved(case, d, h), case.batch, case.config).gradient for h in STENCIL}
        found = curvature.hessian_vector(case.params, d, case.batch, case.config)
        gold = {key: quartic_slope({h: at[key] for h, at in g.items()}) for key in d}
        worst.see_all("curvature", found, gold, case.name)
    return worst.checks()


def bend_of_objective(ways: Ways) -> list[Check]:
    """⟨d, ∇²J d⟩ is the second derivative of J along d, which five points give, and the blocks add up to it."""
    worst = Worst(1e-10)
    for case, d in _squared_cases():
        j = {h: objective(moved(case, d, h), case.batch, case.config) for h in (0.0, *STENCIL)}
        gold = (16 * (j[0.5] + j[-0.5]) - (j[1.0] + j[-1.0]) - 30 * j[0.0]) / 3
        found = curvature.hessian_vector(case.params, d, case.batch, case.config)
        worst.see("curvature", "⟨d, ∇²J d⟩", gradients.differential(found, d), gold, case.name)
        worst.see("curvature", "Σ blocks", _sum_of_blocks(case, d), gold, case.name)
    return worst.checks()


def blocks_of_hessian(ways: Ways) -> list[Check]:
    """Each column of a block is ∇²J times a unit vector, cut to the block's rows (Eq. 18 to 20)."""
    worst = Worst(1e-11)
    for case, d in _squared_cases():
        u, i = int(case.batch.users[0]), int(case.batch.items[0])
        for side, row, factors, bias in (("user", u, "P", "b"), ("item", i, "Q", "c")):
            block = curvature.row_block(case.params, side, row, case.batch, case.config)  # type: ignore[arg-type]
            cross = curvature.cross_block(case.params, u, i, case.batch, case.config)
            for f in range(len(block)):
                unit = {key: np.zeros_like(x) for key, x in d.items()}
                at = (factors, (row, f)) if f < case.params.shape[2] else (bias, (row,))
                unit[at[0]][at[1]] = 1.0
                column = curvature.hessian_vector(case.params, unit, case.batch, case.config)
                mine, other = (_row(column, key, at) for key, at in (("user", u), ("item", i)))
                own, beside = (mine, other) if side == "user" else (other, mine)
                worst.see("curvature", f"{side}'s block", block[:, f], own, case.name)
                worst.see("curvature", "cross block", cross[f] if side == "user" else cross[:, f], beside, case.name)
    return worst.checks()


def _row(tensors: Tensors, side: str, at: int) -> Array:
    factors, bias = ("P", "b") if side == "user" else ("Q", "c")
    return np.append(tensors[factors][at], tensors[bias][at] if bias in tensors else [])


def _sum_of_blocks(case: Case, d: Tensors) -> float:
    """⟨d, ∇²J d⟩ from the blocks of Eq. 19 and 20."""
    m, n, _ = case.params.shape
    of_u = [_row(d, "user", u) for u in range(m)]
    of_i = [_row(d, "item", i) for i in range(n)]
    total: Any = 0.0
    for u, x in enumerate(of_u):
        total += x @ curvature.row_block(case.params, "user", u, case.batch, case.config) @ x
        for i, y in enumerate(of_i):
            total += 2 * x @ curvature.cross_block(case.params, u, i, case.batch, case.config) @ y
    for i, y in enumerate(of_i):
        total += y @ curvature.row_block(case.params, "item", i, case.batch, case.config) @ y
    return float(total)


def _squared_cases() -> list[tuple[Case, Tensors]]:
    rng = np.random.default_rng(20)
    squared = [case for case in cases() if case.config.loss == "squared"]
    return [
        (case, {key: np.array(rng.normal(size=x.shape)) for key, x in case.params.tensors().items()})
        for case in squared
    ]


def derivatives_of_losses(ways: Ways) -> list[Check]:
    """E and the curvature are the complex-step derivatives of ℓ and E, whatever the loss (Eq. 3, 17, 42, 43, 46)."""
    worst = Worst(1e-13)
    all_sizes = np.array([-40.0, -7.0, -1.5, -1e-9, 0.0, 0.3, 1.5, 40.0])
    for name, loss in losses.LOSSES.items():
        # A rate of e⁴⁰ would leave nothing of the others.
        points = (all_sizes[:-1], all_sizes[-1:]) if name == "poisson" else (all_sizes,)
        for r in (0.0, 1.0):
            for delta in (0.5, 2.0):
                for what, of, by in (("E", loss.value, loss.residual), ("curvature", loss.residual, loss.curvature)):
                    for at in points:
                        slope = np.imag(of(at + 1e-30j, np.full(len(at), r), delta)) / 1e-30
                        mine = by(at, np.full(len(at), r), delta)
                        worst.see(name, what, mine, slope, f"r̂ = {at[0]:g}, r = {r:g}, δ = {delta:g}")
    return worst.checks()


def residuals_of_the_mean(ways: Ways) -> list[Check]:
    """Where nothing but μ predicts, E adds up to 0 over the training ratings (Eq. 44)."""
    worst = Worst(1e-13)
    for loss in ("squared", "logistic", "poisson"):
        ratings, _, config = problem(22, loss=loss, init_scale=0.0)
        batch = full_batch(ratings, config)
        start = model.start(ratings, config)
        e = losses.residual(model.predict(start, batch.users, batch.items), batch.values, config)
        worst.see(loss, "Σ E", e.sum() / np.abs(e).sum(), 0.0, "all ratings")
    return worst.checks()


def means_of_losses(ways: Ways) -> list[Check]:
    """What is predicted for a mean lets expect that mean, whatever the loss (Eq. 44)."""
    worst = Worst(1e-13)
    for name in ("squared", "pseudo_huber", "logistic", "poisson"):
        config = Config(loss=name)
        for mean in (0.03, 0.5, 0.98):
            at = losses.prediction_of(mean, config)
            worst.see(name, "mean of the link", losses.mean_of(np.array([at]), config), np.array([mean]), f"{mean:g}")
    return worst.checks()


def edge_of_stability(ways: Ways) -> list[Check]:
    """On ½Lθ² the steps shrink just below the bound on η and grow just above it (Eq. 21)."""
    worst = Worst(0.0)
    bend = 3.0
    for form, beta in {"gradient descent": 0.0, **FORMS}.items():
        config = _momentum(form, beta)
        for factor, grows in ((0.98, False), (1.02, True)):
            tensors: Tensors = {"P": np.ones((1, 1))}
            speed: optim.Memory | None = None
            sizes = []
            for _ in range(2000):
                bound = factor * curvature.max_lr(bend, config)
                tensors, speed = optim.update(tensors, speed, {"P": bend * tensors["P"]}, bound, config)
                sizes.append(float(np.abs(tensors["P"]).max()))
            late, early = max(sizes[-20:]), max(sizes[:20])
            worst.note("optim", "on the wrong side", float((late > early) != grows), f"{form}, {factor} of the bound")
    return worst.checks()


def spectral_radius(ways: Ways) -> list[Check]:
    """At the bound on η the matrix that takes (θ, v) to the next ones has an eigenvalue of size 1 (Eq. 21)."""
    worst = Worst(1e-12)
    bend = 3.0
    for form, beta in {"gradient descent": 0.0, **FORMS}.items():
        config = _momentum(form, beta)
        eta = curvature.max_lr(bend, config)
        kept = 1 - beta if form == "ema" else 1.0
        # v' = βv + kept·Lθ; θ' = θ - ηv', or θ - η(Lθ + βv').
        speed = np.array([kept * bend, beta])
        step = np.array([bend, 0.0]) + beta * speed if form == "nesterov" else speed
        matrix = np.array([np.array([1.0, 0.0]) - eta * step, speed])
        worst.see("curvature", "radius", np.abs(np.linalg.eigvals(matrix)).max(), 1.0, form)
    return worst.checks()


def _momentum(form: str, beta: float) -> Config:
    named = form if form in FORMS else "ema"
    return Config(momentum=beta, momentum_form=named, dtype="float64")  # type: ignore[arg-type]


def adam_by_hand(ways: Ways) -> list[Check]:
    """Adam's first step has length η, the sign of g + δθ with L2 and of g with decoupled decay (Eq. 10, 11)."""
    worst = Worst(1e-12)
    theta, g = np.array([4.0, -4.0, 1.0]), np.array([-1.0, 1.0, 5.0])
    # g + δθ = 0.2, -0.2, 5.3; (1 - ηδ)θ = 3.88, -3.88, 0.97.
    for decoupled, expected in ((False, [3.9, -3.9, 0.9]), (True, [3.98, -3.98, 0.87])):
        moved, _ = adaptive.adam(theta, None, g, 0.1, eps=0.0, decay=0.3, decoupled=decoupled)
        worst.see("adaptive", "θ", moved, expected, "decoupled" if decoupled else "L2")
    return worst.checks()


def adam_scale(ways: Ways) -> list[Check]:
    """Gradients 100 times as large move decoupled Adam the same way; L2's pull would lose weight against them."""
    worst = Worst(1e-12)
    rng = np.random.default_rng(21)
    grads = rng.normal(size=(10, 3))
    paths = []
    for scale in (1.0, 100.0):
        theta, moments = np.array([1.0, -2.0, 3.0]), None
        for g in grads:
            theta, moments = adaptive.adam(theta, moments, scale * g, 0.1, eps=0.0, decay=0.5, decoupled=True)
        paths.append(theta)
    worst.see("adaptive", "θ", paths[1], paths[0], "10 steps")
    return worst.checks()
