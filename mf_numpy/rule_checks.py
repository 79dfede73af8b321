"""What Adam and AdaGrad must do in a fit (Eq. 10 and 30): named checks beside those of `mf_numpy.properties`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mf_numpy import loops, train
from mf_numpy.batch import full_batch, mini_batches
from mf_numpy.check import TRAJECTORY_TOLERANCE, Check
from mf_numpy.config import Config, StepRule
from mf_numpy.model import Tensors
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Array

RULES: tuple[StepRule, ...] = ("adam", "adagrad")

# As in the papers, and not from where the code has them.
_BETA1, _BETA2, _EPS, _FLOOR = 0.9, 0.999, 1e-8, 1e-10


def even_steps(ways: Ways) -> list[Check]:
    """Under a constant gradient Adam's steps are ηg/(|g| + ε), and AdaGrad's ηg/(√t|g| + ε), however small g is."""
    worst = Worst(1e-11)
    theta, lrs = np.zeros((2, 2)), [0.1] * 4 + [0.05] * 4
    g = np.array([[0.3, -7.0], [1e-6, 1e-9]])
    for rule in RULES:
        far = np.zeros_like(theta)
        expected = []
        for t, lr in enumerate(lrs, start=1):
            size = np.abs(g) + _EPS if rule == "adam" else np.sqrt(t) * np.abs(g) + _FLOOR
            far = far - lr * g / size
            expected.append((far, (1 - _BETA1**t) * g if rule == "adam" else t * g**2))
        for name, way in ways.items():
            for t, mine in enumerate(way.moves(_config(rule), theta, [g] * len(lrs), lrs)):
                for what, x, y in zip(("θ", "memory"), mine, expected[t], strict=True):
                    worst.see(name, what, x, y, f"{rule}, step {t + 1}")
    return worst.checks()


def unrolled_moments(ways: Ways) -> list[Check]:
    """Each step is that of weighted sums over all gradients so far, made anew (Eq. 10, 30)."""
    worst = Worst(1e-11)
    rng = np.random.default_rng(33)
    theta, lrs = rng.normal(size=(3, 2)), [0.1] * 5 + [0.02] * 5
    grads = list(rng.normal(size=(len(lrs), 3, 2)) * np.array([[1.0, 1e-6], [3.0, 1.0], [1e-3, 0.0]]))
    for rule in RULES:
        for name, way in ways.items():
            before = theta
            for t, (now, kept) in enumerate(way.moves(_config(rule), theta, grads, lrs)):
                first, step = _by_sums(rule, grads[: t + 1])
                worst.see(name, "θ", now, before - lrs[t] * step, f"{rule}, step {t + 1}")
                worst.see(name, "memory", kept, first, f"{rule}, step {t + 1}")
                before = now
    return worst.checks()


def moments_at_rest(ways: Ways) -> list[Check]:
    """With η next to 0 a resumed run in batches ends with sums over the batches' gradients, and has counted them."""
    worst = Worst(1e-9)
    for label, rule in _runs():
        ratings, _, config = problem(10, n_epochs=4, lr=1e-14, step_rule=rule, batch_size=15)
        whole, params = full_batch(ratings, config), train.init(ratings, config).params
        for name, way in ways.items():
            past = [
                way.evaluate(params, batch, config).gradient
                for epoch in range(1, config.n_epochs + 1)
                for batch in mini_batches(whole, epoch, config)
            ]
            part = train.run(way.engine, ratings, replace(config, n_epochs=1))
            memory = train.run(way.engine, ratings, config, resume=part).state.memory
            assert memory is not None
            worst.see_all(name, memory.velocity, {key: _first(rule, [g[key] for g in past]) for key in past[0]}, label)
            if rule == "adam":
                second = {key: _mean(_BETA2, [g[key] ** 2 for g in past]) for key in past[0]}
                worst.see_all(name, memory.second or {}, second, f"{label}, second")
                worst.see(name, "steps", memory.steps, len(past), label)
    return worst.checks()


def batches_by_hand(ways: Ways) -> list[Check]:
    """A run in batches is the one whose gradients the loops find, and whose steps are made of sums over them."""
    worst = Worst(TRAJECTORY_TOLERANCE)
    for label, rule in _runs():
        ratings, _, config = problem(12, n_epochs=3, lr=0.05, step_rule=rule, batch_size=13)
        here = train.init(ratings, config).params
        past: list[Tensors] = []
        for epoch in range(1, config.n_epochs + 1):
            for batch in mini_batches(full_batch(ratings, config), epoch, config):
                past.append(loops.gradient(here, batch, config).gradient)
                steps = {key: _by_sums(rule, [g[key] for g in past])[1] for key in past[0]}
                here = here.with_tensors({key: x - config.lr * steps[key] for key, x in here.tensors().items()})
        for name, way in ways.items():
            worst.see_all(name, train.run(way.engine, ratings, config).params.tensors(), here.tensors(), label)
    return worst.checks()


def _runs() -> Iterator[tuple[str, StepRule]]:
    for rule in RULES:
        yield f"{rule} in batches", rule


def _config(rule: StepRule) -> Config:
    return Config(step_rule=rule, dtype="float64")


def _mean(beta: float, past: list[Array]) -> Array:
    """(1-β) Σ β^(T-t) x_t, a running mean that began at 0."""
    weights = (1 - beta) * beta ** np.arange(len(past))[::-1]
    out: Array = np.tensordot(weights, np.stack(past), axes=1)
    return out


def _first(rule: StepRule, past: list[Array]) -> Array:
    return _mean(_BETA1, past) if rule == "adam" else (np.stack(past) ** 2).sum(axis=0)


def _by_sums(rule: StepRule, past: list[Array]) -> tuple[Array, Array]:
    """What stands for the velocity after these gradients, and the last step over η."""
    first = _first(rule, past)
    if rule == "adagrad":
        return first, past[-1] / (np.sqrt(first) + _FLOOR)
    t = len(past)
    size = np.sqrt(_mean(_BETA2, [g**2 for g in past]) / (1 - _BETA2**t)) + _EPS
    return first, first / (1 - _BETA1**t) / size
