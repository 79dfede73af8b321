"""What steps for one rating at a time must satisfy (Eq. 29 and 30): named checks beside those of `properties`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mf_numpy import gradients
from mf_numpy.batch import full_batch
from mf_numpy.check import Check
from mf_numpy.config import Config
from mf_numpy.engine import Backend, State
from mf_numpy.model import Params
from mf_numpy.objective import objective
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Ratings
from mf_numpy.solvers import engine_for

_RULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "ema": {"momentum": 0.4, "momentum_form": "ema"},
    "heavy ball": {"momentum": 0.4, "momentum_form": "heavy_ball"},
    "nesterov": {"momentum": 0.4, "momentum_form": "nesterov"},
    "adagrad": {"step_rule": "adagrad"},
}
_BACKENDS: tuple[Backend, ...] = ("numba", "loops")


def steps_in_loops(ways: Ways) -> list[Check]:
    """Three epochs by the kernel are those of plain Python, by every rule."""
    worst = Worst(1e-11)
    for label, ratings, params, config in _problems(lr=0.01):
        mine, theirs = (after_epochs(backend, ratings, params, config, 3) for backend in _BACKENDS)
        worst.see_all("numba", mine.params.tensors(), theirs.params.tensors(), label)
        if theirs.velocity is not None:
            worst.see_all("numba", mine.velocity or {}, theirs.velocity, f"{label}, velocity")
    return worst.checks()


def one_rating(ways: Ways) -> list[Check]:
    """Where there is one rating, its step is the first step of gradient descent; AdaGrad's has the length η."""
    worst = Worst(1e-9)
    for label, _, _, config in _problems(lr=0.1):
        ratings = Ratings.of_indices([0], [0], [4.0])
        rng = np.random.default_rng(5)
        drawn = {"P": rng.normal(size=(1, 3)), "Q": rng.normal(size=(1, 3))}
        biases = {"b": rng.normal(size=1), "c": rng.normal(size=1)} if config.model == "biased" else {}
        params = Params.of(drawn | biases, 3.0 if biases else 0.0)
        slope = gradients.gradient(params, full_batch(ratings, config), config).gradient
        beta = config.momentum
        # Velocities begin at 0, so that only the post's form begins with less than g, and Nesterov's with more.
        length = {"ema": 1 - beta, "heavy_ball": 1.0, "nesterov": 1 + beta}[config.momentum_form]
        for backend in _BACKENDS:
            now = after_epochs(backend, ratings, params, config, 1).params.tensors()
            for name, theta in params.tensors().items():
                step = np.sign(slope[name]) if config.step_rule == "adagrad" else length * slope[name]
                worst.see(backend, name, now[name], theta - config.lr * step, label)
    return worst.checks()


def mean_step(ways: Ways) -> list[Check]:
    """As η goes to 0, an epoch of plain steps is one of -ηN∇J, whatever their order (Eq. 29)."""
    worst = Worst(1e-5)
    eta = 1e-9
    for label, ratings, params, config in _problems({"plain": {}}, lr=eta):
        slope = gradients.gradient(params, full_batch(ratings, config), config).gradient
        for backend in _BACKENDS:
            now = after_epochs(backend, ratings, params, config, 1).params.tensors()
            for name, theta in params.tensors().items():
                worst.see(backend, name, (theta - now[name]) / (eta * len(ratings)), slope[name], label)
    return worst.checks()


def fall_over_an_epoch(ways: Ways) -> list[Check]:
    """An epoch of tiny plain steps lowers J by ηN|∇J|², with all rows counted (Eq. 29)."""
    worst = Worst(1e-3)
    eta = 1e-8
    for label, ratings, params, config in _problems({"plain": {}}, lr=eta, reg=0.3):
        batch = full_batch(ratings, config)
        before = gradients.gradient(params, batch, config)
        square = sum(float((g**2).sum()) for g in before.gradient.values())
        for backend in _BACKENDS:
            after = objective(after_epochs(backend, ratings, params, config, 1).params, batch, config)
            worst.see(backend, "fall of J", (before.objective - after) / (eta * len(ratings)), square, label)
    return worst.checks()


def _problems(
    rules: dict[str, dict[str, Any]] = _RULES, **settings: Any
) -> Iterator[tuple[str, Ratings, Params, Config]]:
    """`problem` for both models, penalties and losses, and every rule; with rows and columns without a rating."""
    for rule, given in rules.items():
        for kind, penalty, loss in (
            ("plain", "total", "squared"),
            ("biased", "per_rating", "pseudo_huber"),
            ("biased", "total", "logistic"),
        ):
            about: dict[str, Any] = {"model": kind, "penalty": penalty, "loss": loss, "reg": 0.01, "solver": "sgd"}
            yield f"{rule}, {kind}, {penalty}", *problem(3, size=60, **about | given | settings)


def after_epochs(backend: Backend, ratings: Ratings, params: Params, config: Config, n_epochs: int) -> State:
    """Where epochs of the configured solver lead from a copy of the parameters."""
    engine = engine_for(config, backend)
    whole = engine.load(ratings, config)
    state = engine.start(State(params.copy()), whole, config)
    for _ in range(n_epochs):
        state = engine.next_epoch(engine.step(state, whole, config))
    return engine.export(state)
