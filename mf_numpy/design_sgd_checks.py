"""What a step for each rating must satisfy where users and items are features (Eq. 39 and 40): named checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mf_numpy import design as by_hand
from mf_numpy import optim
from mf_numpy.batch import Batch, full_batch
from mf_numpy.check import Check
from mf_numpy.config import Config
from mf_numpy.design import Design
from mf_numpy.design_checks import design_for
from mf_numpy.designed import design_engine
from mf_numpy.engine import Backend, Engine, State
from mf_numpy.features import Features, design_of
from mf_numpy.model import Params
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Ratings

N_EPOCHS = 3


def walks_in_loops(ways: Ways) -> list[Check]:
    """Epochs that move a row's own features once are those that move them at every rating, in plain Python (Eq. 40)."""
    worst = Worst(1e-11)
    for label, ratings, theta, design, config in problems(lr=0.002):
        mine, gold = (after_epochs(backend, ratings, theta, design, config) for backend in ("numba", "loops"))
        worst.see_all("numba", mine.tensors(), gold.tensors(), label)
    return worst.checks()


def batches_of_one(ways: Ways) -> list[Check]:
    """A step for each rating is gradient descent on batches of one rating, in the same order (Eq. 34, 39)."""
    worst = Worst(1e-11)
    for label, ratings, theta, design, config in problems(lr=0.002):
        gold = theta
        for epoch in range(1, N_EPOCHS + 1):
            for one in one_by_one(ratings, design, config, epoch):
                slope = by_hand.gradient(gold, one, design, config).gradient
                gold = gold.with_tensors(optim.update(gold.tensors(), None, slope, config.lr_at(epoch), config)[0])
        for backend in ("numba", "loops"):
            worst.see_all(
                backend, after_epochs(backend, ratings, theta, design, config).tensors(), gold.tensors(), label
            )
    return worst.checks()


def mean_step_of_features(ways: Ways) -> list[Check]:
    """As η goes to 0, an epoch is one step of -ηN∇J, whichever side takes turns (Eq. 34, 39)."""
    worst = Worst(1e-5)
    eta = 1e-9
    for label, ratings, theta, design, config in problems(lr=eta):
        slope = by_hand.gradient(theta, full_batch(ratings, config), design, config).gradient
        for backend in ("numba", "loops"):
            now = after_epochs(backend, ratings, theta, design, config, 1).tensors()
            for name, value in theta.tensors().items():
                worst.see(backend, name, (value - now[name]) / (eta * len(ratings)), slope[name], label)
    return worst.checks()


def one_by_one(ratings: Ratings, design: Design, config: Config, epoch: int) -> Iterator[Batch]:
    """The ratings of epoch 1, 2, ... in the order of its steps, each a batch."""
    walk = design_engine(design, config).load(ratings, config)
    for u, i, value in walk.sequence(epoch, config):
        yield Batch(np.array([u]), np.array([i]), np.array([value], config.numpy_dtype), ratings.shape)


def after_epochs(
    backend: Backend, ratings: Ratings, theta: Params, design: Design, config: Config, n_epochs: int = N_EPOCHS
) -> Params:
    """Where epochs of single steps lead from a copy of the parameters."""
    return driven(design_engine(design, config, backend), ratings, theta, config, n_epochs)


def driven(engine: Engine[Any], ratings: Ratings, theta: Params, config: Config, n_epochs: int = N_EPOCHS) -> Params:
    """The same by an engine that is there."""
    whole = engine.load(ratings, config)
    state = engine.start(State(theta.copy()), whole, config)
    for _ in range(n_epochs):
        state = engine.next_epoch(engine.step(state, whole, config))
    return engine.export(state).params


def problems(lr: float) -> Iterator[tuple[str, Ratings, Params, Design, Config]]:
    """Both models and losses; features of any size, SVD++ and who rated an item, whose items take turns."""
    for kind, loss, which in (
        ("biased", "squared", "any"),
        ("plain", "pseudo_huber", "any"),
        ("biased", "pseudo_huber", "rated"),
        ("plain", "squared", "raters"),
    ):
        about: dict[str, Any] = {"model": kind, "loss": loss, "penalty": "per_rating", "reg": 0.03, "lr": lr}
        ratings, _, config = problem(50, size=60, **about, solver="sgd", lr_decay=0.9)
        rated = Features().id().rated()
        if which == "any":
            design = design_for(ratings)
        else:
            design = design_of(ratings, users=rated) if which == "rated" else design_of(ratings, items=rated)
        theta = by_hand.start(ratings, design, replace(config, init_scale=0.5))
        if theta.b is not None and theta.c is not None:
            rng = np.random.default_rng(51)
            theta = replace(theta, b=rng.normal(size=theta.b.shape), c=rng.normal(size=theta.c.shape))
        yield f"{kind}, {loss}, {which}", ratings, theta, design, config
