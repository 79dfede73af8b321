"""What draws of features must satisfy (Eq. 73, 74): named checks beside `gibbs_checks`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy import stats

from mf_numpy import design as by_hand
from mf_numpy import gibbs
from mf_numpy.check import Check
from mf_numpy.config import Config
from mf_numpy.design import Design, Side
from mf_numpy.engine import Backend, Engine, State
from mf_numpy.gibbs_checks import SCALE, Chain, by_prior, prior_by_covariances, side_of, uniform, upper_root
from mf_numpy.model import Params, predict
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Array, Ratings
from mf_numpy.solvers.design_gibbs import DesignGibbsEngine
from mf_numpy.solvers.gibbs import GibbsEngine

_BACKENDS: tuple[Backend, ...] = ("numba", "loops")


def features_drawn_in_loops(ways: Ways) -> list[Check]:
    """Three sweeps over features by the kernels are those feature by feature."""
    worst = Worst(1e-9)
    for label, ratings, theta, design, config in _problems():
        mine, theirs = (_after(DesignGibbsEngine(design, backend), ratings, theta, config, 3) for backend in _BACKENDS)
        worst.see_all("numba", mine.tensors(), theirs.tensors(), label)
    return worst.checks()


def features_drawn_from_the_joint_normal(ways: Ways) -> list[Check]:
    """Two sweeps are the conditionals of one normal distribution of all features of a side, written down densely."""
    worst = Worst(1e-9)
    for label, ratings, theta, design, config in _problems():
        expected = theta
        for epoch in (1, 2):
            expected = _swept(ratings, expected, design, config, epoch)
        for backend in _BACKENDS:
            found = _after(DesignGibbsEngine(design, backend), ratings, theta, config, 2)
            worst.see_all(backend, found.tensors(), expected.tensors(), label)
    return worst.checks()


def draws_of_ids(ways: Ways) -> list[Check]:
    """Where each row is a feature of its own, three sweeps are those without features, with idle ones beside, too."""
    worst = Worst(1e-9)
    for kind, (ratings, params, config) in _tables():
        ids, n = Design.identity(ratings), ratings.n_items
        gold = _after(GibbsEngine("loops"), ratings, params, config, 3)
        # They are the last to be drawn, so that all others are drawn from the same noise.
        idle = Side(sp.csr_array(np.eye(n, n + 2)), blocks=(n, 2))
        more = params.with_tensors({k: _grown(x, 2) if k in "Qc" else x for k, x in params.tensors().items()})
        for backend in _BACKENDS:
            found = _after(DesignGibbsEngine(ids, backend), ratings, params, config, 3)
            worst.see_all(backend, found.tensors(), gold.tensors(), kind)
            found = _after(DesignGibbsEngine(replace(ids, items=idle), backend), ratings, more, config, 3)
            there = {k: x[:n] if k in "Qc" else x for k, x in found.tensors().items()}
            worst.see_all(backend, there, gold.tensors(), f"{kind}, two idle features")
    return worst.checks()


def joint_distribution_of_features(ways: Ways) -> list[Check]:
    """Features from the prior of their blocks, then ratings and a sweep in turns: all stays as the prior has it."""
    worst, runs, turns = Worst(1.0), 60, 3
    seen: dict[str, list[float]] = {}
    rng, wide = np.random.default_rng(3), 1 + 1 / gibbs.MEAN_WEIGHT
    for backend, run in itertools.product(_BACKENDS, range(runs)):
        users, items = (np.concatenate([side_of(rng, size)[2] for size in side.blocks]) for side in _MADE_OF)
        alpha = float(rng.standard_gamma(gibbs.SHAPE) / (gibbs.SHAPE * SCALE**2))
        truth = Params(users[:, :1], items[:, :1], users[:, 1].copy(), items[:, 1].copy(), mu=2.0)
        config = Config(solver="gibbs", n_factors=1, dtype="float64", burn_in=0, seed=run)
        chain = _Chain(truth, config, backend)
        for _ in range(turns):
            chain.rate(alpha, rng)
            alpha = chain.sweep()
        p = chain.params
        assert p.b is not None and p.c is not None
        # The blocks of a side know nothing of each other: the difference of two Cauchy numbers is as wide as both.
        more = {
            "p of a shared feature": (p.P[3, 0], wide * SCALE),
            "p of two shared features": (p.P[3, 0] - p.P[4, 0], 2 * SCALE),
            "p of two blocks": (p.P[0, 0] - p.P[3, 0], 4 * wide * SCALE),
            "b of two blocks": (p.b[0] - p.b[3], 4 * wide * SCALE**2),
            "c of a lone feature": (p.c[2], wide * SCALE**2),
        }
        values = {name: float(stats.cauchy.cdf(x / np.sqrt(size))) for name, (x, size) in more.items()}
        for name, value in (by_prior(chain, alpha) | values).items():
            seen.setdefault(f"{name}, {backend}", []).append(value)
    uniform(worst, {name: np.array(values) for name, values in seen.items()})
    return worst.checks()


_MADE_OF = (
    Side(sp.csr_array(np.column_stack([np.eye(3), [[1.0, 0.5], [2.0, -1.0], [0.0, 1.5]]])), blocks=(3, 2)),
    Side(sp.csr_array(np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -0.5]])), blocks=(2, 1)),
)
"""Users and items of the joint distribution: ids beside features that rows share."""


class _Chain(Chain):
    """Of features, by a backend."""

    def __init__(self, truth: Params, config: Config, backend: Backend) -> None:
        self._backend: Backend = backend
        super().__init__(truth, config)

    def begin(self, ratings: Ratings) -> None:
        self.engine = DesignGibbsEngine(Design(*_MADE_OF), self._backend)
        self.whole = replace(self.engine.load(ratings, self.config), scale=SCALE)
        self.state = self.engine.start(State(self.params), self.whole, self.config)

    def rows(self, params: Params) -> Params:
        return by_hand.rows(params, Design(*_MADE_OF))


def _tables() -> Iterator[tuple[str, tuple[Ratings, Params, Config]]]:
    """`problem` for both models, whose rows have 4 numbers each: a kernel that is compiled serves both."""
    for kind, n_factors in (("plain", 4), ("biased", 3)):
        yield kind, problem(3, size=60, model=kind, n_factors=n_factors, solver="gibbs", reg=0.0, burn_in=2)


def _problems() -> Iterator[tuple[str, Ratings, Params, Design, Config]]:
    """`problem` for both models, with features of any size that rows share, unused ones and empty rows."""
    for kind, (ratings, _, config) in _tables():
        rng = np.random.default_rng(4)
        sides = []
        for rows in ratings.shape:
            shared = rng.normal(size=(rows, 3)) * (rng.random((rows, 3)) < 0.6)
            shared[0], shared[:, 1] = 0, 0
            apart = np.eye(2)[np.arange(rows) % 2] * rng.normal(size=(rows, 1))
            matrix = sp.csr_array(np.column_stack([np.eye(rows), shared, apart]))
            sides.append(Side(matrix, blocks=(rows, 3, 2)))
        design = Design(sides[0], sides[1])
        theta = by_hand.start(ratings, design, config)
        drawn = {name: np.array(rng.normal(size=x.shape)) for name, x in theta.tensors().items()}
        yield kind, ratings, theta.with_tensors(drawn), design, config


def _grown(theta: Array, more: int) -> Array:
    """With rows of 3 behind its own."""
    return np.concatenate([theta, np.full((more, *theta.shape[1:]), 3.0)])


def _after(engine: Engine[Any], ratings: Ratings, params: Params, config: Config, n_epochs: int) -> Params:
    whole = engine.load(ratings, config)
    state = engine.start(State(params.copy()), whole, config)
    for _ in range(n_epochs):
        state = engine.next_epoch(engine.step(state, whole, config))
    return engine.export(state).params


def _swept(ratings: Ratings, theta: Params, design: Design, config: Config, epoch: int) -> Params:
    noise = gibbs.noise_of_features(epoch, (design.users.blocks, design.items.blocks), len(ratings), config)
    scale, k = ratings.values.std(), theta.shape[2]
    made = by_hand.rows(theta, design)
    error = predict(made, ratings.users, ratings.items) - ratings.values
    variance = (scale**2 + error @ error / 2) / noise.precision
    here = theta.copy()
    for side, rows, others, given in (
        ("user", ratings.users, ratings.items, noise.user),
        ("item", ratings.items, ratings.users, noise.item),
    ):
        x = (design.users if side == "user" else design.items).matrix.toarray()[rows]
        sizes = design.users.blocks if side == "user" else design.items.blocks
        made = by_hand.rows(here, design)
        factors, bias, y, far = (
            (here.P, here.b, made.Q[others], made.c) if side == "user" else (here.Q, here.c, made.P[others], made.b)
        )
        own, left, units = factors, ratings.values - here.mu, np.full(k, scale)
        if bias is not None and far is not None:
            own, y = np.column_stack([factors, bias]), np.column_stack([y, np.ones(len(y))])
            left, units = left - far[others], np.append(units, scale**2)
        f, width = own.shape
        # A line for each rating, whose product with all features' rows, end to end, is what they predict of it.
        lines = (x[:, :, None] * y[:, None, :]).reshape(len(y), f * width)
        precision, pull = lines.T @ lines / variance, lines.T @ left / variance
        begins = np.cumsum([0, *sizes])
        for begin, end, z in zip(begins[:-1], begins[1:], given, strict=True):
            center, cov = prior_by_covariances(own[begin:end], units, z)
            for j in range(begin, end):
                at = slice(j * width, (j + 1) * width)
                rest = np.delete(np.arange(f * width), np.arange(f * width)[at])
                spread = np.linalg.inv(precision[at, at] + np.linalg.inv(cov))
                told = pull[at] - precision[at][:, rest] @ own.ravel()[rest] + np.linalg.solve(cov, center)
                own[j] = spread @ told + upper_root(spread) @ z.rows[j - begin]
        factors[:] = own[:, :k]
        if bias is not None:
            bias[:] = own[:, k]
    return here
