"""What trajectories along the gradient must satisfy (Eq. 75 to 78): named checks beside `gibbs_checks`.

A wrong gradient makes a worse proposal and no wrong posterior, as the acceptance sees to it: only what knows the slope,
the length of a step and the energy rejects it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import stats

from mf_numpy import gibbs, hmc
from mf_numpy.check import Check
from mf_numpy.config import Config
from mf_numpy.engine import Backend, State
from mf_numpy.gibbs_checks import uniform
from mf_numpy.model import Params
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Array, Ratings
from mf_numpy.sgd_checks import after_epochs
from mf_numpy.solvers.hmc import HmcEngine

_BACKENDS: tuple[Backend, ...] = ("numba", "numpy", "loops")


def slope_of_the_potential(ways: Ways) -> list[Check]:
    """∇U is (U(θ + 1) - U(θ - 1)) / 2 in every number, as U is a quadratic of each (Eq. 75, 76)."""
    worst = Worst(1e-10)
    for label, ratings, params, config in _problems():
        for backend in _BACKENDS:
            _, look = _looked(backend, ratings, params, config)
            here = look(hmc.tables(params.tensors()))
            for side, name in enumerate(("user", "item")):
                found = np.empty_like(here.slope[side])
                for at in np.ndindex(*found.shape):
                    ends = []
                    for step in (1.0, -1.0):
                        theta = tuple(x.copy() for x in hmc.tables(params.tensors()))
                        theta[side][at] += step
                        ends.append(look(theta).energy)
                    found[at] = (ends[0] - ends[1]) / 2
                worst.see(backend, name, here.slope[side], found, label)
    return worst.checks()


def trajectory_by_the_book(ways: Ways) -> list[Check]:
    """Four epochs are those written down pair by pair: kicks and drifts, with half a kick at both ends."""
    worst = Worst(1e-9)
    for label, ratings, params, config in _problems():
        expected = params
        for epoch in (1, 2, 3, 4):
            expected = _moved(ratings, expected, config, epoch)
        for backend in _BACKENDS:
            found = after_epochs(backend, ratings, params, config, 4).params
            worst.see_all(backend, found.tensors(), expected.tensors(), label)
    return worst.checks()


def _moved(ratings: Ratings, params: Params, config: Config, epoch: int) -> Params:
    """An epoch of ``hmc`` from the densities alone; θ is one long vector."""
    (m, n, k), sigma = params.shape, ratings.values.std()
    drawn = gibbs.noise_of(epoch, (m, n), len(ratings), config)
    users, items, width = ratings.users, ratings.items, k + (params.b is not None)

    def split(theta: Array) -> tuple[Array, Array]:
        return theta[: m * width].reshape(m, width), theta[m * width :].reshape(n, width)

    def errors(theta: Array) -> Array:
        x, y = split(theta)
        out: Array = params.mu + (x[users, :k] * y[items, :k]).sum(axis=1) - ratings.values
        if width > k:
            out += x[users, k] + y[items, k]
        return out

    theta = np.concatenate([side.ravel() for side in hmc.tables(params.tensors())])
    alpha = drawn.precision / (sigma**2 + (errors(theta) ** 2).sum() / 2)
    priors = [
        gibbs.prior_of(len(side), side.sum(axis=0), side.T @ side, sigma, noise, config)
        for side, noise in zip(split(theta), (drawn.user, drawn.item), strict=True)
    ]

    def minus_log_density(theta: Array) -> float:
        out = -stats.norm.logpdf(errors(theta), scale=alpha**-0.5).sum()
        for side, prior in zip(split(theta), priors, strict=True):
            out -= stats.multivariate_normal(prior.mean, np.linalg.inv(prior.precision)).logpdf(side).sum()
        return float(out)

    def slope(theta: Array) -> Array:
        x, y = split(theta)
        out = [(side - prior.mean) @ prior.precision for side, prior in zip((x, y), priors, strict=True)]
        for u, i, error in zip(users, items, errors(theta), strict=True):
            out[0][u, :k] += alpha * error * y[i, :k]
            out[1][i, :k] += alpha * error * x[u, :k]
            if width > k:
                out[0][u, k] += alpha * error
                out[1][i, k] += alpha * error
        return np.concatenate([side.ravel() for side in out])

    curves = []
    for at, (own, other, rows) in enumerate(((0, 1, m), (1, 0, n))):
        counts = np.bincount((users, items)[at], minlength=rows)
        met = np.diag(np.linalg.inv(priors[other].precision)) + priors[other].mean ** 2
        met = np.append(met[:k], [1.0] * (width - k))
        curves.append(np.diag(priors[own].precision) + alpha * np.outer(counts, met))
    mass = np.concatenate([one.ravel() for one in curves])
    speed = np.concatenate([drawn.user.rows.ravel(), drawn.item.rows.ravel()]) / np.sqrt(mass)
    before = minus_log_density(theta) + (mass * speed**2).sum() / 2
    eta, end, v = config.lr_at(epoch), theta, speed - config.lr_at(epoch) / 2 * slope(theta) / mass
    for step in range(config.leapfrog_steps):
        end = end + eta * v
        v = v - (eta if step < config.leapfrog_steps - 1 else eta / 2) * slope(end) / mass
    after = minus_log_density(end) + (mass * v**2).sum() / 2
    taken = min(1.0, math.exp(min(before - after, 0.0))) > hmc.uniform_of(epoch, config)
    x, y = split(end if taken else theta)
    return hmc.params_of((x, y), params)


def there_and_back(ways: Ways) -> list[Check]:
    """A trajectory begun at another's end, with its velocity turned round, ends where that one began."""
    worst = Worst(1e-9)
    for label, ratings, params, config in _problems():
        for backend in _BACKENDS:
            mass, look = _looked(backend, ratings, params, config)
            here = look(hmc.tables(params.tensors()))
            momentum = hmc.start(mass, gibbs.noise_of(3, params.shape[:2], len(ratings), config))
            there, (user, item) = hmc.trajectory(here, momentum, mass, 0.2, 7, look)
            back, _ = hmc.trajectory(there, (-user, -item), mass, 0.2, 7, look)
            for name, mine, theirs in zip(("user", "item"), back.theta, here.theta, strict=True):
                worst.see(backend, name, mine, theirs, label)
    return worst.checks()


def energy_to_second_order(ways: Ways) -> list[Check]:
    """With half the step and twice as many of them, a trajectory's error of the energy is a quarter."""
    worst = Worst(0.1)
    for label, ratings, params, config in _problems():
        for backend in _BACKENDS:
            mass, look = _looked(backend, ratings, params, config)
            here = look(hmc.tables(params.tensors()))
            momentum = hmc.start(mass, gibbs.noise_of(4, params.shape[:2], len(ratings), config))
            rises = []
            for lr, n_steps in ((0.02, 10), (0.01, 20)):
                there, end = hmc.trajectory(here, momentum, mass, lr, n_steps, look)
                rises.append(there.energy - here.energy + hmc.kinetic(end, mass) - hmc.kinetic(momentum, mass))
            worst.see(backend, "energy", 4 * rises[1], rises[0], label)
    return worst.checks()


def a_normal_stays_one(ways: Ways) -> list[Check]:
    """Numbers drawn from a normal, then trajectories with steps so long that some are refused: still that normal."""
    worst, runs, turns = Worst(1.0), 1000, 5
    config = Config(solver="hmc", n_factors=1, dtype="float64", lr=1.2, leapfrog_steps=1)
    size, mass = np.array([[0.5, 2.0], [1.0, 3.0]]), (np.array([[6.0, 0.4], [0.8, 0.2]]),) * 2
    seen: dict[str, list[float]] = {"θ": [], "first θ": [], "U": []}
    rng = np.random.default_rng(3)

    def look(theta: hmc.Sides) -> hmc.Place:
        energy = sum(float(((side / size) ** 2).sum()) / 2 for side in theta)
        return hmc.Place(theta, energy, (theta[0] / size**2, theta[1] / size**2))

    for run in range(runs):
        here = look((size * rng.normal(size=(2, 2)), size * rng.normal(size=(2, 2))))
        for turn in range(turns):
            epoch = run * turns + turn + 1
            momentum = hmc.start(mass, gibbs.noise_of(epoch, (2, 2), 4, config))
            here = hmc.swept(here, momentum, mass, epoch, config, look)
        seen["θ"].append(float(stats.norm.cdf(here.theta[1][1, 1] / size[1, 1])))
        seen["first θ"].append(float(stats.norm.cdf(here.theta[0][0, 0] / size[0, 0])))
        seen["U"].append(float(stats.chi2.cdf(2 * here.energy, 8)))
    uniform(worst, {name: np.array(values) for name, values in seen.items()}, "hmc")
    return worst.checks()


def _looked(backend: Backend, ratings: Ratings, params: Params, config: Config) -> tuple[hmc.Sides, hmc.Look]:
    """Masses, and what looks at a place, with the priors that the first epoch draws."""
    engine = HmcEngine(backend)
    whole = engine.load(ratings, config)
    state = engine.start(State(params.copy()), whole, config)
    ground = engine.ground(state, whole, config)
    return ground.mass, ground.look


def _problems() -> Iterator[tuple[str, Ratings, Params, Config]]:
    """`problem` for both models, with rows and columns without a rating."""
    for kind in ("plain", "biased"):
        yield kind, *problem(3, size=60, model=kind, solver="hmc", reg=0.0, burn_in=2, lr=0.5, leapfrog_steps=6)
