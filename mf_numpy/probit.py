"""Eq. 79 to 83: grades of scores with normal noise, and how a chain draws the noise and the cut points.

Shapes: scores (B,), which is what r̂ is here; G grades, `at` (B,) which of them each rating is; G - 1 cut points. Where
ends (G + 1,) are asked for, these are -∞, the cut points and ∞. All of it is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_ndtr, ndtri, ndtri_exp

from mf_numpy.config import Config
from mf_numpy.ratings import Array

if TYPE_CHECKING:
    from mf_numpy.grades import Cuts

FREEDOM = 8
"""ν of the distribution that cut points are proposed from: its tails are longer than those of any posterior here."""

NODES = 256
"""Scores that stand for all others where a proposal is made."""

MOST_STEPS = 100
"""Newton steps to the top of a density; about five are taken."""

_LOG_ROOT = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class GradeNoise:
    """All that is random about N grades in a sweep, whatever the state it begins from.

    Attributes:
        cuts: (G - 1,) of Student's t distribution.
        accept: in [0, 1).
        latent: (N,) in (0, 1], user by user.
    """

    cuts: Array
    accept: float
    latent: Array


def noise_of(epoch: int, n_grades: int, n_ratings: int, config: Config) -> GradeNoise:
    """The draws of epoch 1, 2, ..., from seed and epoch alone, beside those of `mf_numpy.gibbs.noise_of`."""
    rng = np.random.default_rng([config.seed, epoch, 1])
    cuts = rng.standard_normal(n_grades - 1) / math.sqrt(rng.chisquare(FREEDOM) / FREEDOM)
    return GradeNoise(cuts, float(rng.random()), 1 - rng.random(n_ratings))


def ends_of(t: Array) -> Array:
    """The ends (G + 1,) of all grades by `Cuts.t`, whose unit is 1 where a chain draws it (Eq. 58)."""
    wide = t.astype(np.float64)
    points = np.cumsum(np.concatenate([wide[:1], np.exp(wide[1:])]))  # Eq. 58
    return np.concatenate([[-np.inf], points, [np.inf]])


def _lower(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Pieces of a line, turned about 0 where they lie above it, and which are: what is small is no 1 less another."""
    turned = low + high > 0
    return np.where(turned, -high, low), np.where(turned, -low, high), turned


def log_chances(low: Array, high: Array) -> Array:
    """The logarithm of how likely a standard normal is between two ends (Eq. 79)."""
    low, high, _ = _lower(low, high)
    whole = log_ndtr(high)
    out: Array = whole + np.log1p(-np.exp(log_ndtr(low) - whole))  # Eq. 79
    return out


def probabilities(scores: Array, cuts: Cuts) -> Array:
    """How likely each grade is (B, G) (Eq. 79)."""
    ends = np.concatenate([[-np.inf], cuts.points, [np.inf]]) - scores[:, None].astype(np.float64)
    out: Array = np.exp(log_chances(ends[:, :-1], ends[:, 1:]))
    return out


def latent(scores: Array, at: Array, ends: Array, uniform: Array) -> Array:
    """The score with its noise (B,), given the grade: normal about the score, between the grade's ends (Eq. 80)."""
    low, high, turned = _lower(ends[at] - scores, ends[at + 1] - scores)
    whole = log_ndtr(high)
    beyond = np.exp(log_ndtr(low) - whole)
    noise = ndtri_exp(whole + np.log(beyond + uniform * (1 - beyond)))  # Eq. 80
    noise = np.clip(noise, low, high)
    out: Array = scores + np.where(turned, -noise, noise)
    return out


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many ratings of each grade have which score.

    Attributes:
        nodes: (B,) scores.
        counts: (G, B), each rating shared between the two nodes beside its score.
    """

    nodes: Array
    counts: Array


def nodes_of(low: float, high: float) -> Array:
    """Nodes between the smallest and the largest score."""
    return np.linspace(low, max(high, low + 1e-3), NODES)


def histogram(scores: Array, at: Array, n_grades: int) -> Histogram:
    """The histogram of scores (B,)."""
    nodes = nodes_of(float(scores.min()), float(scores.max()))
    place = (scores - nodes[0]) / (nodes[1] - nodes[0])
    first = np.minimum(place.astype(np.int64), NODES - 2)
    share, cell = place - first, at.astype(np.int64) * NODES + first
    counts = np.bincount(cell, 1 - share, n_grades * NODES) + np.bincount(cell + 1, share, n_grades * NODES)
    return Histogram(nodes, counts.reshape(n_grades, NODES))


@dataclass(frozen=True, eq=False)
class Proposal:
    """Where `Cuts.t` is proposed, whatever it is now: a Student's t distribution of ν degrees (Eq. 82).

    Attributes:
        middle: (G - 1,), the top of the density.
        root: (G - 1, G - 1), L of how the density's logarithm bends there, -∇² = L Lᵀ.
    """

    middle: Array
    root: Array

    def draw(self, noise: GradeNoise) -> Array:
        """`Cuts.t` of the proposal (G - 1,)."""
        out: Array = self.middle + np.linalg.solve(self.root.T, noise.cuts)  # Eq. 82
        return out

    def log_density(self, t: Array) -> float:
        """The logarithm of its density, but for a constant."""
        away = self.root.T @ (t - self.middle)
        return -(FREEDOM + len(t)) / 2 * math.log1p(float(away @ away) / FREEDOM)  # Eq. 82


def proposal_of(seen: Histogram) -> Proposal:
    """The proposal for scores that stand still, from where the density of Eq. 81 is highest, by Newton's steps.

    In the cut points the logarithm is concave, and grows past all bounds downwards where two of them meet.
    """
    counted, n = seen.counts.sum(axis=1), seen.counts.sum()
    mean = (seen.counts @ seen.nodes).sum() / n
    spread = math.sqrt(1 + (seen.counts @ (seen.nodes - mean) ** 2).sum() / n)
    # As often as each was seen, were all scores normal.
    steps = np.arange(1, len(counted))
    points = mean + spread * ndtri((counted.cumsum()[:-1] + steps) / (n + len(counted)))
    here, slope, bend = _look(points, seen)
    for _ in range(MOST_STEPS):
        step = np.linalg.solve(bend, slope)
        shrinks = -np.diff(step) / np.diff(points)
        length = 1 / max(1.0, 2 * float(shrinks.max(initial=0.0)))
        # So near the last step goes where rounding lets it, and whether the density rises is below what it can tell.
        near = float(slope @ step) < 1e-6
        ahead = _look(points + length * step, seen)
        while not near and ahead[0] < here and length > 1e-9:
            length /= 2
            ahead = _look(points + length * step, seen)
        points, (here, slope, bend) = points + length * step, ahead
        if near:
            break
    widths = np.diff(points)
    # A width moves every cut point above it (Eq. 58); at the top no slope bends along.
    along = np.tril(np.ones((len(points), len(points)))) * np.concatenate([[1.0], widths])
    return Proposal(np.concatenate([points[:1], np.log(widths)]), np.linalg.cholesky(along.T @ bend @ along))


def log_prior(t: Array) -> float:
    """The logarithm of the prior's density by `Cuts.t`, but for a constant: normals in order (Eq. 81)."""
    points = ends_of(t)[1:-1]
    return float(t[1:].sum() - points @ points / 2)  # Eq. 81


def chosen(cuts: Cuts, proposed: Cuts, sums: tuple[float, float], proposal: Proposal, noise: GradeNoise) -> Cuts:
    """The cut points after a step of Metropolis and Hastings (Eq. 83).

    Args:
        sums: Σ log P of all grades, with the one and the other.
    """
    now, then = (
        total + log_prior(one.t) - proposal.log_density(one.t)
        for total, one in zip(sums, (cuts, proposed), strict=True)
    )
    return proposed if math.log(max(noise.accept, 1e-300)) < then - now else cuts  # Eq. 83


def moved(cuts: Cuts, t: Array) -> Cuts:
    """The same grades with another t, in its precision."""
    return replace(cuts, t=t.astype(cuts.t.dtype))


def _look(points: Array, seen: Histogram) -> tuple[float, Array, Array]:
    """The density's logarithm over the histogram (Eq. 81), its slope (G - 1,) by the cut points and -∇² of it."""
    ends = np.concatenate([[-np.inf], points, [np.inf]])
    low, high = ends[:-1, None] - seen.nodes, ends[1:, None] - seen.nodes
    likely = log_chances(low, high)

    def share(end: Array) -> tuple[Array, Array]:
        """The density at an end over the grade's probability, and how it bends; 0 at the ends of the line."""
        there = np.isfinite(end)
        at = np.where(there, end, 0.0)
        out = np.where(there, np.exp(-at * at / 2 - _LOG_ROOT - likely), 0.0)
        return out, at * out

    (up, bent_up), (down, bent_down) = share(high), share(low)
    slope = (seen.counts * up).sum(axis=1)[:-1] - (seen.counts * down).sum(axis=1)[1:] - points
    bend = np.diag((seen.counts * (up * up + bent_up)).sum(axis=1)[:-1] + 1)
    bend += np.diag((seen.counts * (down * down - bent_down)).sum(axis=1)[1:])
    beside = (seen.counts * up * down).sum(axis=1)[1:-1]
    bend -= np.diag(beside, 1) + np.diag(beside, -1)
    widths = np.diff(points)
    across = np.diff(np.eye(len(points)), axis=0)
    slope += across.T @ (1 / widths)
    bend += (across.T / widths**2) @ across
    value = float((seen.counts * likely).sum() - points @ points / 2 + np.log(widths).sum())  # Eq. 81
    return value, slope, bend
