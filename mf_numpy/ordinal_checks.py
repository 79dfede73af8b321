"""What grades and their cut points must satisfy (Eq. 54 to 59): named checks beside `properties`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mf_numpy import curvature, grades, gradients, loops, losses, model
from mf_numpy.batch import full_batch
from mf_numpy.check import GRADIENT_TOLERANCE, Case, Check, complex_step, graded, knows
from mf_numpy.config import Config
from mf_numpy.grades import Cuts
from mf_numpy.model import Tensors
from mf_numpy.properties import Ways, Worst, moved, problem
from mf_numpy.ratings import Array
from mf_numpy.sgd_checks import after_epochs

_GRADES = np.array([1.0, 1.5, 2.0, 4.0, 5.0])


def grades_in_loops(ways: Ways) -> list[Check]:
    """Gradient, J and squared errors of grades are those of plain loops (Eq. 54 to 58)."""
    worst = Worst(GRADIENT_TOLERANCE)
    for case in graded():
        gold = loops.gradient(case.params, case.batch, case.config)
        for name in _knowing(ways):
            seen = ways[name].evaluate(case.params, case.batch, case.config)
            worst.see(name, "J", seen.objective, gold.objective, case.name)
            worst.see(name, "Σ error²", seen.squared_error, gold.squared_error, case.name)
            worst.see_all(name, seen.gradient, gold.gradient, case.name)
    return worst.checks()


def grades_by_complex_step(ways: Ways) -> list[Check]:
    """Gradient of grades, that of the cut points too, is Im J(θ + ih)/h of the objective as written (Eq. 55 to 58)."""
    worst = Worst(GRADIENT_TOLERANCE)
    for case in graded():
        gold = complex_step(case.params, case.batch, case.config)
        for name in _knowing(ways):
            worst.see_all(name, ways[name].evaluate(case.params, case.batch, case.config).gradient, gold, case.name)
    return worst.checks()


def derivatives_of_grades(ways: Ways) -> list[Check]:
    """E and the curvature are the complex-step derivatives of ℓ and E, for any score and grade (Eq. 55, 56)."""
    worst = Worst(1e-13)
    for where, scores, values, cuts in _scores():
        for what, of, by in (
            ("E", grades.value, grades.residual),
            ("curvature", grades.residual, grades.curvature),
        ):
            slope = np.imag(of(scores + 1e-30j, values, cuts)) / 1e-30
            worst.see("grades", what, by(scores, values, cuts), slope, where)
    return worst.checks()


def two_grades(ways: Ways) -> list[Check]:
    """With two grades ℓ, E and the curvature are those of clicks with μ = -t (Eq. 42)."""
    worst = Worst(1e-13)
    cuts, clicks = Cuts(np.array([0.7]), np.array([0.0, 1.0])), Config(loss="logistic")
    scores = np.array([-30.0, -2.0, 0.0, 0.7, 5.0, 30.0])
    for r in (0.0, 1.0):
        values = np.full(len(scores), r)
        for what, of in (("ℓ", losses.value), ("E", losses.residual), ("curvature", losses.curvature)):
            mine, gold = of(scores, values, clicks, cuts), of(scores - 0.7, values, clicks)
            worst.see("grades", what, mine, gold, f"r = {r:g}")
    worst.see("grades", "mean", grades.expected(scores, cuts), losses.mean_of(scores - 0.7, clicks), "both")
    return worst.checks()


def chances_of_grades(ways: Ways) -> list[Check]:
    """Probabilities are differences of sigmoids and add up to 1, ℓ is their logarithm, and E[r] their mean (Eq. 54)."""
    worst = Worst(1e-12)
    for where, scores, _, cuts in _scores(np.linspace(-3, 3, 7)):
        up_to = 1 / (1 + np.exp(scores[:, None] - cuts.points))
        plain = np.diff(up_to, axis=1, prepend=0.0, append=1.0)
        found = grades.probabilities(scores, cuts)
        worst.see("grades", "P", found, plain, where)
        worst.see("grades", "Σ P", found.sum(axis=1), np.ones(len(scores)), where)
        worst.see("grades", "E[r]", grades.expected(scores, cuts), plain @ cuts.grades, where)
        for k, grade in enumerate(cuts.grades):
            # A small difference of sigmoids has lost its digits.
            at = plain[:, k] > 1e-2
            cost = grades.value(scores, np.full(len(scores), grade), cuts)
            worst.see("grades", "ℓ", cost[at], -np.log(plain[at, k]), f"{where}, grade {grade:g}")
    return worst.checks()


def grades_at_rest(ways: Ways) -> list[Check]:
    """At the start, where all scores are 0, no shift of them and no cut point lowers J, and E[r] is the mean rating."""
    worst = Worst(1e-13)
    ratings, _, config = problem(61, loss="ordinal", init_scale=0.0)
    at, batch = model.start(ratings, config), full_batch(ratings, config)
    for name in _knowing(ways):
        g = ways[name].evaluate(at, batch, config).gradient
        worst.see(name, "∇t", g["t"], np.zeros_like(g["t"]), "start")
        worst.see(name, "Σ E", g["b"].sum(), 0.0, "start")
    assert at.cuts is not None
    worst.see("grades", "E[r]", grades.expected(np.zeros(1), at.cuts), np.array([ratings.mean]), "start")
    return worst.checks()


def two_ways_to_the_start(ways: Ways) -> list[Check]:
    """The start is where steps of the cut points lead from elsewhere while all scores are 0 (Eq. 59)."""
    worst = Worst(1e-9)
    ratings, _, config = problem(66, size=200, loss="ordinal")
    gold = grades.begun(ratings, config)
    cuts = gold.moved_to(np.linspace(-3.0, 1.0, len(gold.t)))
    for _ in range(60):
        cuts = grades.settled(cuts, *grades.tally(np.zeros(len(ratings)), ratings.values, cuts))
    worst.see("grades", "cut points", gold.points, cuts.points, "start")
    return worst.checks()


def bend_of_grades(ways: Ways) -> list[Check]:
    """∇²J d is how the gradient changes along d, cut points among the rest, by differences of fourth order (Eq. 18)."""
    worst = Worst(1e-8)
    for case, d in _directions():
        h = 1e-3
        g = {k: gradients.gradient(moved(case, d, k * h), case.batch, case.config).gradient for k in (-2, -1, 1, 2)}
        gold = {key: (8 * (g[1][key] - g[-1][key]) - (g[2][key] - g[-2][key])) / (12 * h) for key in d}
        worst.see_all("curvature", curvature.hessian_vector(case.params, d, case.batch, case.config), gold, case.name)
    return worst.checks()


def bend_both_ways(ways: Ways) -> list[Check]:
    """⟨a, ∇²J d⟩ = ⟨d, ∇²J a⟩: what a score does to a cut point, the cut point does to the score."""
    worst = Worst(1e-11)
    rng = np.random.default_rng(64)
    for case, d in _directions():
        a = {key: np.array(rng.normal(size=x.shape)) for key, x in d.items()}
        there, back = (
            gradients.differential(curvature.hessian_vector(case.params, x, case.batch, case.config), y)
            for x, y in ((d, a), (a, d))
        )
        worst.see("curvature", "⟨a, ∇²J d⟩", there, back, case.name)
    return worst.checks()


def graded_steps(ways: Ways) -> list[Check]:
    """Three epochs of steps for one rating, each with its step of the cut points, are those of plain Python."""
    worst = Worst(1e-11)
    for rule, given in {"plain": {}, "adagrad": {"step_rule": "adagrad"}}.items():
        about: dict[str, Any] = {"loss": "ordinal", "solver": "sgd", "lr": 0.05, "reg": 0.01}
        ratings, params, config = problem(62, size=60, **about | given)
        mine, theirs = (after_epochs(backend, ratings, params, config, 3) for backend in ("numba", "loops"))
        worst.see_all("numba", mine.params.tensors(), theirs.params.tensors(), rule)
    return worst.checks()


def settled_cut_points(ways: Ways) -> list[Check]:
    """From anywhere each step of the cut points lowers Σℓ, and they end where it has no slope (Eq. 59)."""
    worst = Worst(1e-9)
    for where, scores, values, cuts in _scattered():
        before = grades.value(scores, values, cuts).sum()
        rises = 0.0
        for _ in range(60):
            cuts = grades.settled(cuts, *grades.tally(scores, values, cuts))
            now = grades.value(scores, values, cuts).sum()
            rises, before = max(rises, (now - before) / abs(now)), now
        worst.note("grades", "rise of Σℓ", max(rises, 0.0), where)
        slope = grades.slope(scores, values, cuts)
        worst.see("grades", "∇t at the end", slope / len(scores), np.zeros_like(slope), where)
    return worst.checks()


def newton_by_differences(ways: Ways) -> list[Check]:
    """A short step of the cut points is that of Newton with slope and bend of Σℓ by complex steps (Eq. 59)."""
    worst = Worst(1e-6)
    for where, scores, values, cuts in _scattered():
        for _ in range(40):
            cuts = grades.settled(cuts, *grades.tally(scores, values, cuts))
        points, n = cuts.points + 0.01 * np.cos(np.arange(len(cuts.t))), len(cuts.t)

        def slope(at: Array, scores: Array = scores, values: Array = values, cuts: Cuts = cuts, n: int = n) -> Array:
            # By the logarithm of each rating's probability, as a difference of sigmoids.
            out = np.empty(n)
            for k in range(n):
                ahead = at.astype(complex)
                ahead[k] += 1e-30j
                up_to = 1 / (1 + np.exp(scores[:, None] - ahead))
                ends = np.concatenate([np.zeros((len(scores), 1)), up_to, np.ones((len(scores), 1))], axis=1)
                place = np.searchsorted(cuts.grades, values)[:, None]
                chance = np.take_along_axis(ends, place + 1, 1) - np.take_along_axis(ends, place, 1)
                out[k] = -np.log(chance).sum().imag / 1e-30
            return out

        h = 1e-5
        bend = np.array([(slope(points + h * unit) - slope(points - h * unit)) / (2 * h) for unit in np.eye(n)])
        gold = points - np.linalg.solve(bend, slope(points))
        start = replace(cuts, unit=1.0).moved_to(points)
        mine = grades.settled(start, *grades.tally(scores, values, start)).points
        worst.see("grades", "cut points", mine, gold, where)
    return worst.checks()


def _knowing(ways: Ways) -> list[str]:
    return [name for name in ways if knows(name, Config(loss="ordinal"))]


def _directions() -> Iterator[tuple[Case, Tensors]]:
    rng = np.random.default_rng(63)
    for case in graded():
        yield case, {key: np.array(rng.normal(size=x.shape)) for key, x in case.params.tensors().items()}


def _scores(scores: Array | None = None) -> Iterator[tuple[str, Array, Array, Cuts]]:
    """Scores near and far, with each of five grades; cut points close together and far apart."""
    at = np.array([-40.0, -7.0, -1.5, -1e-9, 0.3, 1.5, 40.0]) if scores is None else scores
    for width in (1e-3, 1.0, 6.0):
        # The unit is no power of 2: each factor of it that is lost or there twice shows.
        cuts = Cuts(np.array([-2.0, *np.log([width, 2 * width, width])]) / 0.3, _GRADES, 0.3)
        for grade in _GRADES:
            yield f"widths {width:g}, grade {grade:g}", at, np.full(len(at), grade), cuts


def _scattered() -> Iterator[tuple[str, Array, Array, Cuts]]:
    """Scores that say something of the grades beside them, and cut points in the wrong places."""
    rng = np.random.default_rng(65)
    scores = 2 * rng.normal(size=200)
    noise = rng.logistic(size=200)
    values = _GRADES[np.searchsorted([-3.0, -1.0, 0.5, 2.0], scores + noise)]
    for where, points in (("far left", [-9.0, -8.9, -8.8, -3.0]), ("wide", [-12.0, -4.0, 6.0, 13.0])):
        yield where, scores, values, Cuts(np.zeros(4), _GRADES, 0.3).moved_to(np.array(points))
