"""Named checks of means over several chains and over several fits (Eq. 70), and over epochs (Eq. 84).

They judge `mf_numpy.posterior`, `mf_numpy.averaging`, the training loop and `mf_numpy.ensemble`, by chains that are
walked here and fits that end earlier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mf_numpy import averaging, model
from mf_numpy.check import Check
from mf_numpy.config import Config
from mf_numpy.engine import State
from mf_numpy.ensemble import ensemble
from mf_numpy.model import Params, predict
from mf_numpy.posterior import seed_of
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Array, Ratings
from mf_numpy.solvers import engine_for
from mf_numpy.solvers.gibbs import GibbsEngine, GibbsState
from mf_numpy.split import Holdout
from mf_numpy.train import fit

LENGTH, BURN_IN, EPOCHS = 4, 2, 11
"""Of each chain, of its burn-in, and of all: two chains and most of a third."""
FROM = 5
"""The first epoch of a mean over epochs."""
STEPS, COPIES = 200, 2000
"""Of a walk about a minimum, and how many walks tell its spread."""


def chains_walked_one_by_one(ways: Ways) -> list[Check]:
    """The draws that a fit keeps are those of chains from starts of their own, without the burn-in of each."""
    worst = Worst(1e-12)
    for label, ratings, config in _problems():
        kept = fit(ratings, config, backend="loops").state.draws
        expected = list(_walked(ratings, config))
        count = len(kept.points) if kept else 0
        worst.see("loops", "count", float(count), float(len(expected)), label)
        for point, other in zip(kept.points if kept else (), expected, strict=False):
            worst.see_all("loops", point.tensors(), other.tensors(), label)
    return worst.checks()


def starts_of_chains(ways: Ways) -> list[Check]:
    """No two chains begin alike, and the first begins where any other solver would."""
    worst = Worst(1e-12)
    for label, ratings, config in _problems():
        starts = [model.start(ratings, replace(config, seed=seed_of(chain, config))).P for chain in range(5)]
        worst.see("starts", "first", starts[0], model.start(ratings, config).P, label)
        alike = [np.array_equal(one, other) for k, one in enumerate(starts) for other in starts[:k]]
        worst.note("starts", "others", float(sum(alike)), label)
    return worst.checks()


def mean_over_chains(ways: Ways) -> list[Check]:
    """The RMSE that a fit reports, and that of its parameters, are of the mean over the draws past each burn-in."""
    worst = Worst(1e-10)
    for label, ratings, config in _problems():
        held = _held(ratings)
        result = fit(ratings, config, valid=held, backend="loops")
        each = [predict(point, held.users, held.items) for point in _walked(ratings, config)]
        rmse = _rmse(np.mean(each, axis=0), held)
        worst.see("loops", "by history", result.history[-1].valid_rmse, rmse, label)
        worst.see("loops", "by parameters", result.score(held).rmse, rmse, label)
    return worst.checks()


def fits_side_by_side(ways: Ways) -> list[Check]:
    """An ensemble predicts the mean of what its fits do, and errs no more than they do on average (Jensen)."""
    worst = Worst(1e-12)
    for kind in ("plain", "biased"):
        ratings, _, config = problem(5, size=60, model=kind, solver="als", n_epochs=3)
        held = _held(ratings)
        fits = [fit(ratings, replace(config, seed=seed), backend="loops") for seed in range(3)]
        whole = ensemble(fits)
        each = [predict(one.params, held.users, held.items) for one in fits]
        worst.see("ensemble", "mean", predict(whole.params, held.users, held.items), np.mean(each, axis=0), kind)
        average = float(np.mean([_rmse(one, held) ** 2 for one in each]))
        excess = whole.score(held).rmse ** 2 / average - 1
        worst.note("ensemble", "squared error beyond the average", max(excess, 0.0), kind)
    return worst.checks()


def averaged_iterates(ways: Ways) -> list[Check]:
    """A fit returns the mean of what fits that end at each averaged epoch do (Eq. 84)."""
    worst = Worst(1e-10)
    for solver, ratings, config in _descents():
        whole = fit(ratings, replace(config, average_from=FROM), backend="loops")
        worst.see_all("loops", whole.params.tensors(), _mean_of_ends(ratings, config).tensors(), solver)
    return worst.checks()


def error_of_averaged_iterates(ways: Ways) -> list[Check]:
    """The RMSE that a fit reports is that of the mean over epochs, and not of the last one (Eq. 84)."""
    worst = Worst(1e-10)
    for solver, ratings, config in _descents():
        held, mean = _held(ratings), _mean_of_ends(ratings, config)
        found = fit(ratings, replace(config, average_from=FROM), valid=held, backend="loops")
        rmse = _rmse(predict(mean, held.users, held.items), held)
        worst.see("loops", "RMSE", found.history[-1].valid_rmse, rmse, solver)
    return worst.checks()


def spread_of_averaged_iterates(ways: Ways) -> list[Check]:
    """Steps of a constant η about a minimum keep a spread, and their mean one without η (Eq. 85)."""
    worst = Worst(5.0)
    rng, config = np.random.default_rng(8), Config(average_from=1)
    for eta, h in ((0.5, 0.4), (0.2, 1.0)):
        x, average = np.zeros((COPIES, 1)), None
        for epoch in range(1, STEPS + 1):
            x = x - eta * (h * x + rng.normal(size=x.shape))
            average = averaging.after(average, Params(x, np.zeros((1, 1))), epoch, config)
        assert average is not None
        # What is left of the start after STEPS steps is no part of the limits.
        left = np.mean((1 - (1 - eta * h) ** np.arange(1, STEPS + 1)) ** 2)
        for name, found, expected in (
            ("last", x.var(), eta / (h * (2 - eta * h))),
            ("mean", STEPS * average.tensors["P"].var(), left / h**2),
        ):
            worst.note("steps", name, abs(found / expected - 1) / math.sqrt(2 / COPIES), f"η = {eta}, h = {h}")
    return worst.checks()


def _descents() -> Iterator[tuple[str, Ratings, Config]]:
    for solver, lr in (("gd", 0.5), ("sgd", 0.01), ("als", 1.0)):
        ratings, _, config = problem(4, size=60, solver=solver, lr=lr, n_epochs=FROM + 2)
        yield solver, ratings, config


def _mean_of_ends(ratings: Ratings, config: Config) -> Params:
    """The mean over epochs by fits that end at each."""
    each = [
        fit(ratings, replace(config, n_epochs=epoch), backend="loops").params
        for epoch in range(FROM, config.n_epochs + 1)
    ]
    names = each[0].tensors()
    return each[0].with_tensors({name: np.mean([one.tensors()[name] for one in each], axis=0) for name in names})


def _problems() -> Iterator[tuple[str, Ratings, Config]]:
    for kind in ("plain", "biased"):
        ratings, _, config = problem(3, size=60, model=kind, solver="gibbs", reg=0.0, burn_in=BURN_IN)
        yield kind, ratings, replace(config, n_epochs=EPOCHS, chain_length=LENGTH)


def _walked(ratings: Ratings, config: Config) -> Iterator[Params]:
    """The kept draws, chain by chain."""
    engine = engine_for(config, "loops")
    assert isinstance(engine, GibbsEngine)
    whole = engine.load(ratings, config)
    for chain, begin in enumerate(range(0, EPOCHS, LENGTH)):
        seed = int(np.random.SeedSequence([config.seed, chain]).generate_state(1)[0]) if chain else config.seed
        first = model.start(ratings, replace(config, seed=seed))
        state = engine.start(State(first, epoch=begin), whole, config)
        for at in range(1, min(LENGTH, EPOCHS - begin) + 1):
            moved = engine.next_epoch(engine.step(state, whole, config))
            assert isinstance(moved, GibbsState)
            state = moved
            if at > BURN_IN:
                yield state.params.copy()


def _held(ratings: Ratings) -> Holdout:
    return Holdout(ratings.users[::3], ratings.items[::3], ratings.values[::3])


def _rmse(predicted: Array, held: Holdout) -> float:
    return math.sqrt(float(np.mean((predicted - held.values) ** 2)))
