"""What draws of grades must satisfy (Eq. 79 to 83): named checks beside `gibbs_checks`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy import stats
from scipy.special import log_ndtr, ndtr

from mf_numpy import gibbs, grades, probit
from mf_numpy.check import Check
from mf_numpy.config import Config
from mf_numpy.design import Design
from mf_numpy.engine import Backend, State
from mf_numpy.gibbs_checks import Problem, drawn_by_inverses, two_sweeps
from mf_numpy.grades import Cuts
from mf_numpy.kernels import probit as kernels
from mf_numpy.model import Params, predict
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Array, Ratings
from mf_numpy.sgd_checks import after_epochs
from mf_numpy.solvers.design_gibbs import DesignGibbsEngine
from mf_numpy.solvers.gibbs import GibbsEngine
from mf_numpy.solvers.probit import Drawn
from mf_numpy.split import Holdout

_BACKENDS: tuple[Backend, ...] = ("numba", "loops")

_POINTS = np.array([-1.3, -0.2, 0.9, 4.0])

_FAR = (-60.0, -38.5, -36.0, -7.0, -0.7, 0.0, 0.4, 3.0, 36.0, 45.0, 300.0)
"""Scores, some of them so far from their grade that its probability is no number."""


def chances_of_normal_grades(ways: Ways) -> list[Check]:
    """Probabilities are differences of Φ and add up to 1, and E[r] is their mean (Eq. 79); far off by a series of Φ."""
    worst = Worst(1e-12)
    cuts = Cuts(np.zeros(4), np.array([1.0, 1.5, 2.0, 4.0, 5.0]), 1.0, normal=True).moved_to(_POINTS)
    scores = np.linspace(-3, 3, 7)
    plain = np.diff(stats.norm.cdf(_POINTS - scores[:, None]), axis=1, prepend=0.0, append=1.0)
    found = grades.probabilities(scores, cuts)
    worst.see("grades", "P", found, plain, "near")
    worst.see("grades", "Σ P", found.sum(axis=1), np.ones(7), "near")
    worst.see("grades", "E[r]", grades.expected(scores, cuts), plain @ cuts.grades, "near")
    ends = probit.ends_of(cuts.t)
    for score in _FAR:
        gold, at = [], np.arange(5)
        for low, high in zip(ends[:-1] - score, ends[1:] - score, strict=True):
            # The grade lies on the side of its nearer end, and what is past the farther one is less.
            near, far = (-low, -high) if low + high > 0 else (high, low)
            gold.append(log_ndtr(near) + math.log1p(-math.exp(log_ndtr(far) - log_ndtr(near))))
        mine = probit.log_chances(ends[at] - score, ends[at + 1] - score)
        worst.see("grades", "log P", mine, gold, f"score {score:g}")
        for k, own in enumerate(gold):
            sums = np.zeros((1, 3))
            kernels.sums_kernel()(
                0, 1, np.array([0, 1]), np.array([score]), np.array([k], np.uint8), ends, ends, cuts.grades, sums
            )
            error = float(cuts.grades @ np.exp(gold)) - cuts.grades[k]
            worst.see("numba", "log P", 1 - sums[0, :2], 1 - np.array([own, own]), f"score {score:g}, grade {k}")
            worst.see("numba", "Σ error²", 1 + sums[0, 2], 1 + error**2, f"score {score:g}, grade {k}")
    return worst.checks()


def noise_within_its_grade(ways: Ways) -> list[Check]:
    """As much of the grade's probability lies below the noise as the uniform number says, however far off (Eq. 80)."""
    worst = Worst(1e-7)
    ends, uniforms = np.concatenate([[-np.inf], _POINTS, [np.inf]]), np.array([1e-9, 0.03, 0.5, 0.9, 1 - 1e-9])
    for score in _FAR:
        for k in range(5):
            low, high = ends[k] - score, ends[k + 1] - score
            turned = low + high > 0
            below, whole = sorted(log_ndtr([-low, -high] if turned else [low, high]))
            for way in ("numba", "loops"):
                scores, at = np.full(5, score), np.full(5, k, np.uint8)
                if way == "numba":
                    found = np.zeros(5)
                    kernels.latent_kernel()(0, 5, scores, at, ends, uniforms, found)
                else:
                    found = probit.latent(scores, at, ends, uniforms)
                where = f"score {score:g}, grade {k}"
                inside = (found >= ends[k] - 1e-9) & (found <= ends[k + 1] + 1e-9)
                worst.see(way, "in its grade", inside.astype(float), np.ones(5), where)
                noise = score - found if turned else found - score
                share = np.exp(log_ndtr(noise) - whole) - math.exp(below - whole)
                worst.see(way, "share below", share / -math.expm1(below - whole), uniforms, where)
    return worst.checks()


def top_of_the_cut_points(ways: Ways) -> list[Check]:
    """A proposal's middle is where the density of `Cuts.t` has no slope, and L Lᵀ how it bends there (Eq. 81, 82)."""
    worst = Worst(1e-6)
    for label, scores, at in scores_and_grades():
        seen = probit.histogram(scores, at, 5)
        worst.see("grades", "ratings", seen.counts.sum(axis=1), np.bincount(at, minlength=5), label)
        share = seen.counts @ seen.nodes
        worst.see("grades", "scores", share, np.bincount(at, scores, 5), label)
        proposal = probit.proposal_of(seen)

        def slope(t: Array, seen: probit.Histogram = seen) -> Array:
            out = np.empty(4)
            for k in range(4):
                ahead = t.astype(complex)
                ahead[k] += 1e-30j
                points = np.cumsum([ahead[0], *np.exp(ahead[1:])])
                up_to = ndtr(points[:, None] - seen.nodes)
                chances = np.diff(np.concatenate([0 * up_to[:1], up_to, 0 * up_to[:1] + 1]), axis=0)
                there = seen.counts > 0
                # The widths are the derivatives of the cut points by their logarithms.
                value = (seen.counts[there] * np.log(chances[there])).sum() - (points**2).sum() / 2 + ahead[1:].sum()
                out[k] = value.imag / 1e-30
            return out

        middle, unit = proposal.middle, 1e-5 * np.eye(4)
        drawn = proposal.draw(probit.GradeNoise(np.arange(4.0), 0.5, scores))
        worst.see("grades", "standard draws", proposal.root.T @ (drawn - middle), np.arange(4.0), label)
        worst.see("grades", "slope", slope(middle) / len(at), np.zeros(4), label)
        bend = [(slope(middle - step) - slope(middle + step)) / 2e-5 for step in unit]
        worst.see("grades", "bend", proposal.root @ proposal.root.T, np.array(bend), label)
    return worst.checks()


def grades_drawn_in_loops(ways: Ways) -> list[Check]:
    """Three sweeps over grades by the kernels are those of NumPy and SciPy, row by row, with features, too."""
    worst = Worst(1e-9)
    for label, ratings, params, config in _problems():
        mine, theirs = (after_epochs(backend, ratings, params, config, 3).params for backend in _BACKENDS)
        worst.see_all("numba", mine.tensors(), theirs.tensors(), label)
        for backend in _BACKENDS:
            engine = DesignGibbsEngine(Design.identity(ratings), backend)
            whole = engine.load(ratings, config)
            state = engine.start(State(params.copy()), whole, config)
            for _ in range(3):
                state = engine.next_epoch(engine.step(state, whole, config))
            worst.see_all(backend, engine.export(state).params.tensors(), theirs.tensors(), f"{label}, features")
    return worst.checks()


def grades_drawn_by_the_book(ways: Ways) -> list[Check]:
    """Two sweeps over grades are the conditionals written down with distribution functions and dense inverses."""
    return two_sweeps(_problems(), _swept, 1e-7)


def _swept(ratings: Ratings, params: Params, config: Config, epoch: int) -> Params:
    assert params.cuts is not None
    known = params.cuts.grades
    order = np.argsort(ratings.users, kind="stable")
    at = np.searchsorted(known, ratings.values)
    scores = predict(params, ratings.users, ratings.items)
    given = probit.noise_of(epoch, len(known), len(ratings), config)
    proposal = probit.proposal_of(probit.histogram(scores, at, len(known)))
    shape = np.linalg.inv(proposal.root @ proposal.root.T)
    proposed = proposal.middle + np.linalg.inv(proposal.root).T @ given.cuts

    def ends(t: Array) -> Array:
        return np.concatenate([[-np.inf], np.cumsum([t[0], *np.exp(t[1:])]), [np.inf]])

    def worth(t: Array) -> float:
        """The density of t over that of proposing it."""
        likely = stats.norm.cdf(ends(t)[at + 1] - scores) - stats.norm.cdf(ends(t)[at] - scores)
        prior = stats.norm.logpdf(ends(t)[1:-1]).sum() + t[1:].sum()
        by = stats.multivariate_t.logpdf(t, proposal.middle, shape, df=probit.FREEDOM)
        return float(np.log(likely).sum() + prior - by)

    t = params.cuts.t
    if given.accept < math.exp(min(0.0, worth(proposed) - worth(t))):
        t = proposed
    low, high = ends(t)[at] - scores, ends(t)[at + 1] - scores
    share = np.empty(len(at))
    share[order] = given.latent
    # On the upper side it is counted from above.
    share = np.where(low + high > 0, 1 - share, share)
    begin, end = stats.norm.cdf(low), stats.norm.cdf(high)
    latent = scores + stats.norm.ppf(begin + share * (end - begin))
    noise = gibbs.noise_of(epoch, params.shape[:2], len(ratings), config)
    return drawn_by_inverses(ratings, latent, replace(params, cuts=replace(params.cuts, t=t)), noise, 1.0, 1.0)


def noise_of_both_sides(ways: Ways) -> list[Check]:
    """Users and items are drawn by the same noise at the same pairs, and in its unit: α is 1 (Eq. 79)."""
    worst = Worst(1e-12)
    for label, ratings, params, config in _problems():
        engine = GibbsEngine("loops")
        whole = engine.load(ratings, config)
        grading = engine.start(State(params.copy()), whole, config).grading
        assert grading is not None and params.cuts is not None
        pairs = 7.0 * grading.users + grading.items
        drawn = Drawn(pairs, params.cuts, 0.0, 0.0)
        user, item = drawn.in_place_of_ratings(whole.user, whole.item, grading)
        items = np.repeat(np.arange(params.shape[1]), np.diff(item.indptr))
        worst.see("loops", "users", user.values, pairs, label)
        worst.see("loops", "items", item.values, 7.0 * item.others + items, label)
        for backend in _BACKENDS:
            found = after_epochs(backend, ratings, params, replace(config, burn_in=0), 3)
            assert found.draws is not None
            worst.see(backend, "α", np.array(found.draws.precisions), np.ones(3), label)
    return worst.checks()


def grades_over_draws(ways: Ways) -> list[Check]:
    """What is predicted, scored and said to be likely is the mean over the draws of each one's (Eq. 79)."""
    from mf_numpy.train import fit

    worst = Worst(1e-9)
    for label, ratings, _, config in _problems():
        held = Holdout(ratings.users[::3], ratings.items[::3], ratings.values[::3])
        result = fit(ratings, replace(config, n_epochs=6), valid=held, backend="loops")
        assert result.state.draws is not None
        known = result.params.cuts
        assert known is not None
        chances = np.zeros((len(held), len(known.grades)))
        for point in result.state.draws.points:
            assert point.cuts is not None
            away = point.cuts.points - predict(point, held.users, held.items)[:, None]
            chances += np.diff(stats.norm.cdf(away), axis=1, prepend=0.0, append=1.0) / len(result.state.draws)
        expected = chances @ known.grades
        rmse = math.sqrt(np.mean((expected - held.values) ** 2))
        ids = ratings.user_ids.raw[held.users], ratings.item_ids.raw[held.items]
        worst.see("loops", "by history", result.history[-1].valid_rmse, rmse, label)
        worst.see("loops", "by parameters", result.score(held).rmse, rmse, label)
        worst.see("loops", "prediction", result.predict(*ids).values, expected, label)
        worst.see("loops", "probability", result.probabilities(*ids).to_numpy(), chances, label)
    return worst.checks()


def lists_by_graded_draws(ways: Ways) -> list[Check]:
    """A list has the items in the order of what is predicted of them, and says so, of a stranger, too."""
    from mf_numpy.train import fit

    worst = Worst(1e-12)
    for label, ratings, _, config in _problems():
        result = fit(ratings, replace(config, n_epochs=6), backend="loops")
        for user in (0, 3) if config.model == "plain" else (0, 3, "nobody"):
            best = result.recommend(user if user != "nobody" else 10**6, 7, with_seen=True)
            told = result.predict([user if user != "nobody" else 10**6] * len(best), best["item"]).values
            worst.see("loops", "predicted", best["predicted"].to_numpy(), told, f"{label}, user {user}")
            worst.see("loops", "order", told, np.sort(told)[::-1], f"{label}, user {user}")
    return worst.checks()


def _problems() -> Iterator[Problem]:
    """`problem` for both models, with rows and columns without a rating; rows have as many numbers, 4."""
    for kind, n_factors in (("plain", 4), ("biased", 3)):
        yield (
            kind,
            *problem(3, size=60, model=kind, n_factors=n_factors, solver="gibbs", loss="ordinal", reg=0.0, burn_in=2),
        )


def scores_and_grades() -> Iterator[tuple[str, Array, Array]]:
    """Scores that say something of the grades beside them, and such as leave a grade empty."""
    rng = np.random.default_rng(8)
    scores = 2 * rng.normal(size=300)
    at = np.searchsorted([-3.0, -1.0, 0.5, 2.0], scores + rng.normal(size=300))
    yield "five grades", scores, at
    yield "an empty grade", scores, np.where(at == 2, 1, at)
