"""Statistical tests of draws of grades (Eq. 79 to 83): named checks beside `probit_checks`, like `gibbs_checks`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import stats
from scipy.special import ndtr

from mf_numpy import probit
from mf_numpy.check import Check
from mf_numpy.config import Config
from mf_numpy.engine import Backend, State
from mf_numpy.gibbs_checks import rows_by_prior, side_of, uniform
from mf_numpy.grades import Cuts
from mf_numpy.model import Params, predict
from mf_numpy.probit_checks import scores_and_grades
from mf_numpy.properties import Ways, Worst
from mf_numpy.ratings import Array, Ratings
from mf_numpy.solvers.gibbs import GibbsEngine
from mf_numpy.solvers.probit import Grading, draw

_BACKENDS: tuple[Backend, ...] = ("numba", "loops")


def joint_distribution_of_grades(ways: Ways) -> list[Check]:
    """Truth from the prior, then grades and a sweep in turns: what comes out is as the prior has it (Geweke 2004)."""
    worst, runs, turns = Worst(1.0), 160, 3
    seen: dict[str, list[float]] = {}
    rng = np.random.default_rng(6)
    for run in range(runs):
        users, items = (side_of(rng, count, 1.0)[2] for count in (4, 3))
        cuts = Cuts(np.zeros(2), np.array([1.0, 2.0, 3.0]), 1.0, normal=True).moved_to(np.sort(rng.normal(size=2)))
        truth = Params(users[:, :1], items[:, :1], users[:, 1].copy(), items[:, 1].copy(), cuts=cuts)
        config = Config(solver="gibbs", loss="ordinal", n_factors=1, dtype="float64", burn_in=0, seed=run)
        chain = _Chain(truth, config)
        for _ in range(turns):
            chain.rate(rng)
            chain.sweep()
        for name, value in (rows_by_prior(chain.params, 1.0) | chain.by_prior(rng)).items():
            seen.setdefault(name, []).append(value)
    uniform(worst, {name: np.array(values) for name, values in seen.items()})
    return worst.checks()


class _Chain:
    """A chain on a table in which every pair is rated, user by user, begun where the truth is."""

    def __init__(self, truth: Params, config: Config) -> None:
        self.params, self.config, self.engine = truth, config, GibbsEngine("loops")
        self.users, self.items = np.indices(truth.shape[:2]).reshape(2, -1)
        assert truth.cuts is not None
        values = truth.cuts.grades[np.arange(len(self.users)) % 3]
        self.whole = self.engine.load(Ratings.of_indices(self.users, self.items, values), config)
        self.state = self.engine.start(State(truth), self.whole, config)

    def rate(self, rng: np.random.Generator) -> None:
        """Grades anew, given parameters and cut points."""
        assert self.params.cuts is not None and self.state.grading is not None
        latent = predict(self.params, self.users, self.items) + rng.normal(size=len(self.users))
        at = np.searchsorted(self.params.cuts.points, latent).astype(np.uint8)
        self.state = replace(self.state, grading=replace(self.state.grading, at=at))

    def sweep(self) -> None:
        """Parameters and cut points anew, given the grades."""
        state = self.engine.step(self.state, self.whole, self.config)
        self.state = replace(state, epoch=state.epoch + 1)
        self.params = self.engine.export(self.state).params

    def by_prior(self, rng: np.random.Generator) -> dict[str, float]:
        """What is uniform when all comes from the prior: of cut points, the order of two normals, and of grades."""
        cuts, grading = self.params.cuts, self.state.grading
        assert cuts is not None and grading is not None
        first, second = ndtr(cuts.points)
        scores, ends = predict(self.params, self.users, self.items), probit.ends_of(cuts.t)
        low, high = (ndtr(ends[grading.at + above] - scores) for above in (0, 1))
        # Errors that would have made these grades.
        errors = stats.norm.ppf(np.clip(low + rng.random(len(low)) * (high - low), 1e-300, 1 - 1e-16))
        return {
            "first cut point": float(stats.beta.cdf(first, 1, 2)),
            "second cut point": float(stats.beta.cdf(second, 2, 1)),
            "one by the other": float(first / second),
            "Σ error": float(ndtr(errors.sum() / math.sqrt(len(errors)))),
            "Σ error²": float(stats.chi2.cdf(errors @ errors, len(errors))),
        }


def noise_and_cut_points_anew(ways: Ways) -> list[Check]:
    """Truth from the prior, grades by it, then noise and cut points drawn anew: the noise is N(0, 1) (Geweke 2004)."""
    worst, runs, n = Worst(1.0), 100, 20
    config = Config(solver="gibbs", loss="ordinal", n_factors=1, dtype="float64")
    users, items = np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
    rng, seen, outside = np.random.default_rng(10), dict[str, list[float]](), 0
    for backend in _BACKENDS:
        for run in range(1, runs + 1):
            scores, points = 1.5 * rng.normal(size=n), np.sort(rng.normal(size=2))
            cuts = Cuts(np.zeros(2), np.arange(3.0), 1.0, normal=True).moved_to(points)
            at = np.searchsorted(points, scores + rng.normal(size=n)).astype(np.uint8)
            params = Params(scores[:, None], np.ones((1, 1)), cuts=cuts)
            grading = Grading(users, items, at, np.arange(n + 1), np.array([0, n]), users)
            drawn = draw(params, grading, run, config, in_loops=backend == "loops")
            noise, ends = drawn.latent - scores, probit.ends_of(drawn.cuts.t)
            outside += int(((drawn.latent < ends[at]) | (drawn.latent > ends[at + 1])).sum())
            first, second = ndtr(ends[1:-1])
            for name, value in (
                ("Σ noise", noise.sum() / math.sqrt(n)),
                ("noise of two", (noise[0] - noise[1]) / math.sqrt(2)),
                ("Σ noise · score", noise @ scores / math.sqrt(scores @ scores)),
                ("Σ noise²", noise @ noise),
                ("first cut point", first),
                ("one by the other", first / second),
            ):
                seen.setdefault(f"{name}, {backend}", []).append(float(value))
    by: dict[str, Callable[[Array], Array]] = {
        "Σ noise²": stats.chi2(n).cdf, "first cut point": stats.beta(1, 2).cdf, "one by the other": np.asarray,
    }  # fmt: skip
    uniform(worst, {name: by.get(name.partition(",")[0], ndtr)(np.array(values)) for name, values in seen.items()})
    worst.note("gibbs", "noise outside its grade", float(2 * outside), f"{2 * runs} runs")
    return worst.checks()


def cut_points_by_quadrature(ways: Ways) -> list[Check]:
    """While scores stand still cut points are drawn by their density, summed on a grid, most proposals being taken."""
    worst, runs, steps = Worst(1.0), 300, 6
    rng = np.random.default_rng(9)
    scores = rng.normal(size=12)
    at = np.searchsorted([-0.8, 0.1], scores + rng.normal(size=12))
    first, width = np.linspace(-4, 3, 700), np.exp(np.linspace(-7, 2, 700))
    log_density = -(first**2)[:, None] / 2 - (first[:, None] + width) ** 2 / 2 + np.log(width)
    for s, k in zip(scores, at, strict=True):
        low, high = ndtr(first - s)[:, None], ndtr(first[:, None] + width - s)
        log_density = log_density + np.log([low, high - low, 1 - high][k])
    density = np.exp(log_density - log_density.max())
    of_first, of_width = density.sum(axis=1).cumsum(), density.sum(axis=0).cumsum()
    config, proposal = Config(solver="gibbs", loss="ordinal"), probit.proposal_of(probit.histogram(scores, at, 3))
    seen, taken = np.empty((runs, 2)), 0
    for run in range(runs):
        cuts = Cuts(proposal.middle + rng.normal(size=2), np.arange(3.0), 1.0, normal=True)
        for step in range(steps):
            noise = probit.noise_of(run * steps + step + 1, 3, 0, config)
            proposed = probit.moved(cuts, proposal.draw(noise))
            now, then = (
                float(probit.log_chances(ends[at] - scores, ends[at + 1] - scores).sum())
                for ends in (probit.ends_of(cuts.t), probit.ends_of(proposed.t))
            )
            cuts = probit.chosen(cuts, proposed, (now, then), proposal, noise)
            taken += cuts is proposed
        seen[run] = cuts.points[0], np.diff(cuts.points)[0]
    values = {
        "first cut point": np.interp(seen[:, 0], first, of_first / of_first[-1]),
        "width": np.interp(np.log(seen[:, 1]), np.log(width), of_width / of_width[-1]),
    }
    uniform(worst, values)
    worst.note("gibbs", "proposals left", (1 - taken / (runs * steps)) / 0.3, f"{runs * steps} proposals")
    label, scores, at = next(scores_and_grades())
    proposal = probit.proposal_of(probit.histogram(scores, at, 5))
    left = []
    for step in range(1, 101):
        # Against a point that is one draw away itself.
        others = [proposal.draw(probit.noise_of(2 * step + k, 5, 0, config)) for k in (0, 1)]
        odds = []
        for t in others:
            ends = probit.ends_of(t)
            likely = probit.log_chances(ends[at] - scores, ends[at + 1] - scores).sum()
            odds.append(likely + probit.log_prior(t) - proposal.log_density(t))
        left.append(1 - min(1.0, math.exp(odds[1] - odds[0])))
    worst.note("gibbs", "proposals left", float(np.mean(left)) / 0.3, label)
    return worst.checks()


def standard_draws_of_grades(ways: Ways) -> list[Check]:
    """What a sweep draws of grades are independent uniform numbers, and Student's t in every direction (Eq. 80, 82)."""
    worst, runs = Worst(1.0), 300
    config = Config(solver="gibbs", loss="ordinal")
    drawn = [probit.noise_of(epoch, 4, 5, config) for epoch in range(1, runs + 1)]
    latent, cuts = np.array([one.latent for one in drawn]), np.array([one.cuts for one in drawn])
    seen = {
        "accept": np.array([one.accept for one in drawn]),
        "first": latent[:, 0],
        "last": latent[:, 4],
        "two of them": stats.triang.cdf(latent[:, 1] + latent[:, 2], 0.5, 0, 2),
        "cut point": stats.t.cdf(cuts[:, 0], probit.FREEDOM),
        "two cut points": stats.t.cdf((cuts[:, 1] - cuts[:, 2]) / math.sqrt(2), probit.FREEDOM),
        "length": stats.f.cdf((cuts**2).sum(axis=1) / 3, 3, probit.FREEDOM),
    }
    uniform(worst, seen)
    return worst.checks()
