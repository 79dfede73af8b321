"""Grades: ratings of which the order counts and no distance, told apart by learnt cut points (Eq. 54 to 59).

Shapes: scores (B,), which is what r̂ is here; G grades, and G - 1 cut points between them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from mf_numpy import probit
from mf_numpy.config import Config
from mf_numpy.errors import DataError
from mf_numpy.list_losses import sigmoid, softplus
from mf_numpy.ratings import Array, Ratings

MOST_GRADES = 100
"""Distinct ratings at most: more are no grades, and each costs a sigmoid a rating."""


@dataclass(frozen=True, eq=False)
class Cuts:
    """Where a score passes from one grade to the next (Eq. 54). There is no μ beside them: they hold the level.

    Attributes:
        t: (G - 1,) trained, without a penalty: the first cut point, and the logarithms of the widths between one and
            the next, so that no step brings them out of order (Eq. 58); both over `unit`.
        grades: (G,) the distinct ratings of training, ascending, in the precision of the parameters.
        unit: how far the cut points go for a step of 1.
        normal: whether the noise of scores is normal (Eq. 79), as that of a chain of draws is, and not logistic.
    """

    t: Array
    grades: Array
    unit: float = 1.0
    normal: bool = False

    @property
    def widths(self) -> Array:
        """(G - 2,) of all grades but the first and the last, which have no end."""
        out: Array = np.exp(self.unit * self.t[1:])  # Eq. 58
        return out

    @property
    def points(self) -> Array:
        """(G - 1,) the cut points, ascending."""
        out: Array = np.cumsum(np.concatenate([self.unit * self.t[:1], self.widths]))  # Eq. 58
        return out

    def moved_to(self, points: Array) -> Cuts:
        """The same grades with other cut points (G - 1,), ascending."""
        t = np.concatenate([points[:1], np.log(np.diff(points))]) / self.unit
        return replace(self, t=t.astype(self.t.dtype))


def begun(train: Ratings, config: Config) -> Cuts:
    """Cut points at the logits of how often the training ratings are no higher: the minimum where all scores are 0.

    Where noise is normal they are at its quantiles.
    """
    values = train.values.astype(config.numpy_dtype)
    grades = np.sort(pd.unique(values))
    up_to = np.bincount(np.searchsorted(grades, values)).cumsum()[:-1]
    normal = config.solver == "gibbs"
    nothing = Cuts(np.zeros(len(grades) - 1, config.numpy_dtype), grades, _unit(train, config), normal)
    if normal:
        return nothing.moved_to(ndtri(up_to / len(train)))
    return nothing.moved_to(np.log(up_to / (len(train) - up_to)))


def _unit(train: Ratings, config: Config) -> float:
    """The unit of `Cuts.t`: all N ratings pull at a cut point, and n of them at a row.

    A step as long as its gradient would go N/n times as far; over √(n/N), for the row with the most ratings, both bend
    J alike, and one η suits them. The step rules beside momentum make steps of the length η of any gradient; draws
    follow none.
    """
    if config.solver in ("sgd", "gibbs") or config.step_rule != "momentum":
        return 1.0
    most = max(int(train.user_counts.max()), int(train.item_counts.max()))
    return float(np.sqrt(most / len(train)))


def check(values: Array, config: Config, cuts: Cuts | None = None) -> None:
    """Refuse ratings (B,) that are no grades, or, given a model's cut points, none of its grades.

    Raises:
        DataError: one grade alone, more than `MOST_GRADES`, or one that the model does not know.
    """
    found = pd.unique(values.astype(config.numpy_dtype))
    if cuts is not None:
        known = np.isin(found, cuts.grades)
        if not known.all():
            came, has = found[int(np.argmin(known))], ", ".join(f"{grade:g}" for grade in cuts.grades)
            raise DataError(
                f"rating {came:g} is no grade that the model was trained on ({has}); leave such ratings out, or fit "
                "again with them"
            )
        return
    if len(found) < 2:
        raise DataError(
            f"all ratings are {found[0]:g}, but loss 'ordinal' needs two grades or more; give others beside them"
        )
    if len(found) > MOST_GRADES:
        raise DataError(
            f"the ratings have {len(found):,} distinct values, but loss 'ordinal' takes them for grades, "
            f"{MOST_GRADES} at most; round them, or use loss='squared'"
        )


def places(values: Array, cuts: Cuts) -> Array:
    """Which grade each rating (B,) is, 0 to G - 1."""
    out: Array = np.searchsorted(cuts.grades, values.astype(cuts.grades.dtype))
    return out


@dataclass(frozen=True, eq=False)
class _Ends:
    """Of each rating (B,) its grade `at`, and how far its score is `past` the upper end and `short` of the lower one.

    Where a grade has no such end, as `below_last` and `above_first` say, the distance means nothing.
    """

    at: Array
    past: Array
    below_last: Array
    short: Array
    above_first: Array


def _ends(scores: Array, values: Array, cuts: Cuts) -> _Ends:
    at, points = places(values, cuts), cuts.points
    last = len(points) - 1
    past = scores - points[np.minimum(at, last)]
    short = points[np.maximum(at - 1, 0)] - scores
    return _Ends(at, past, at <= last, short, at > 0)


def of_widths(cuts: Cuts) -> Array:
    """-log(1 - e^-width) of each grade (G,), the part of ℓ that no score moves; 0 of the first and the last."""
    out = np.zeros(len(cuts.grades), cuts.t.dtype)
    # A width that is nothing costs more than any number, and the training loop says what to do.
    with np.errstate(divide="ignore"):
        out[1:-1] = -np.log(-np.expm1(-cuts.widths))  # Eq. 55
    return out


def value(scores: Array, values: Array, cuts: Cuts) -> Array:
    """ℓ (B,), the negative logarithm of the grade's probability (Eq. 55), with nothing subtracted that cancels."""
    ends = _ends(scores, values, cuts)
    out: Array = softplus(ends.past) * ends.below_last + softplus(ends.short) * ends.above_first  # Eq. 55
    return out + of_widths(cuts)[ends.at]


def residual(scores: Array, values: Array, cuts: Cuts) -> Array:
    """E = ∂ℓ/∂s (B,) (Eq. 56), 1 - F_a - F_b as (1 - F_a) - F_b, which loses no digit."""
    ends = _ends(scores, values, cuts)
    out: Array = sigmoid(ends.past) * ends.below_last - sigmoid(ends.short) * ends.above_first  # Eq. 56
    return out


def _spread(x: Array) -> Array:
    return sigmoid(x) * sigmoid(-x)


def curvature(scores: Array, values: Array, cuts: Cuts) -> Array:
    """∂²ℓ/∂s² (B,) (Eq. 56), which is nowhere negative."""
    ends = _ends(scores, values, cuts)
    out: Array = _spread(ends.past) * ends.below_last + _spread(ends.short) * ends.above_first  # Eq. 56
    return out


def expected(scores: Array, cuts: Cuts) -> Array:
    """The mean grade (B,) (Eq. 54, 79): the lowest, and each step up by how likely the grade is above it."""
    rises = ndtr if cuts.normal else sigmoid
    out = np.full(scores.shape, cuts.grades[0], np.result_type(scores, cuts.t))
    for point, step in zip(cuts.points, np.diff(cuts.grades), strict=True):
        out += step * rises(scores - point)  # Eq. 54, 79
    return out


def probabilities(scores: Array, cuts: Cuts) -> Array:
    """How likely each grade is (B, G) (Eq. 54), by products: no small one is lost in a difference."""
    if cuts.normal:
        return probit.probabilities(scores, cuts)
    below = np.ones((len(scores), len(cuts.grades)), np.result_type(scores, cuts.t))
    above = below.copy()
    below[:, :-1] = sigmoid(cuts.points - scores[:, None])
    above[:, 1:] = sigmoid(scores[:, None] - cuts.points)
    out: Array = below * above * np.exp(-of_widths(cuts))  # Eq. 55
    return out


def tally(scores: Array, values: Array, cuts: Cuts) -> tuple[Array, Array, Array]:
    """What the scores say of each cut point: slope and bend of Σℓ (G - 1,) (Eq. 57), and the ratings a grade (G,)."""
    ends = _ends(scores, values, cuts)
    n_points = len(cuts.t)

    def sums(of_upper: Array, of_lower: Array) -> tuple[Array, Array]:
        upper = np.bincount(ends.at[ends.below_last], of_upper[ends.below_last], n_points)
        return upper, np.bincount(ends.at[ends.above_first] - 1, of_lower[ends.above_first], n_points)

    up, down = sums(sigmoid(ends.past), sigmoid(ends.short))
    bent, bent_too = sums(_spread(ends.past), _spread(ends.short))
    return down - up, bent + bent_too, np.bincount(ends.at, minlength=n_points + 1)  # Eq. 57


def pull(cuts: Cuts, slopes: Array, counts: Array) -> Array:
    """∂Σℓ/∂t (G - 1,) from what `tally` has: a width moves every cut point above it (Eq. 58)."""
    from_here_up = np.cumsum(slopes[::-1])[::-1]
    widths = cuts.widths.astype(np.float64)
    of_t = np.concatenate([from_here_up[:1], widths * from_here_up[1:] - counts[1:-1] * _narrows(widths)])  # Eq. 58
    out: Array = (cuts.unit * of_t).astype(cuts.t.dtype)
    return out


def slope(scores: Array, values: Array, cuts: Cuts) -> Array:
    """∂Σℓ/∂t (G - 1,) (Eq. 57, Eq. 58)."""
    slopes, _, counts = tally(scores, values, cuts)
    return pull(cuts, slopes, counts)


def _narrows(widths: Array) -> Array:
    """w/(eʷ - 1), by how much ℓ falls with the logarithm of a width."""
    # A width past all exponents has no say.
    with np.errstate(over="ignore"):
        out: Array = widths / np.expm1(widths)
    return out


def change(scores: Array, values: Array, moved: Array, d_t: Array, cuts: Cuts) -> tuple[Array, Array]:
    """How E (B,) and ∂Σℓ/∂t (G - 1,) change where scores move by `moved` (B,) and t by `d_t` (G - 1,) (Eq. 18)."""
    ends = _ends(scores, values, cuts)
    slopes, _, counts = tally(scores, values, cuts)
    widths = cuts.widths
    d_widths = cuts.unit * widths * d_t[1:]
    d_points = np.cumsum(np.concatenate([cuts.unit * d_t[:1], d_widths]))
    last = len(d_points) - 1
    upper = _spread(ends.past) * (moved - d_points[np.minimum(ends.at, last)]) * ends.below_last
    lower = _spread(ends.short) * (moved - d_points[np.maximum(ends.at - 1, 0)]) * ends.above_first
    d_slopes = -np.bincount(np.minimum(ends.at, last), upper, last + 1)
    d_slopes -= np.bincount(np.maximum(ends.at - 1, 0), lower, last + 1)
    from_here_up, d_up = (np.cumsum(x[::-1])[::-1] for x in (slopes, d_slopes))
    rest = np.expm1(widths)
    d_narrows = (1 - widths * (1 + 1 / rest)) / rest * d_widths
    of_widths = d_widths * from_here_up[1:] + widths * d_up[1:] - counts[1:-1] * d_narrows
    return upper + lower, cuts.unit * np.concatenate([d_up[:1], of_widths])


def settled(cuts: Cuts, slopes: Array, bends: Array, counts: Array) -> Cuts:
    """One Newton step of the cut points towards the minimum of Σℓ where all scores stand still (Eq. 59).

    Σℓ is convex in them. The step is shortened so that none moves by more than 1 and no width halves: so near, the
    slope's change is known well enough that Σℓ falls, with no other pass over the ratings to try it.
    """
    if not np.isfinite(slopes).all():
        # Scores are past all numbers, and the training loop says what to do.
        return cuts
    widths = cuts.widths.astype(np.float64)
    with np.errstate(over="ignore"):
        thrust = counts[1:-1] / np.expm1(widths)
        stiff = counts[1:-1] / (4 * np.sinh(widths / 2) ** 2)
    slopes, bend = slopes.copy(), np.diag(bends)
    slopes[1:] -= thrust  # Eq. 57
    slopes[:-1] += thrust
    across = np.diff(np.eye(len(slopes)), axis=0)
    step = np.linalg.lstsq(bend + (across.T * stiff) @ across, -slopes)[0]  # Eq. 59
    shrinks = -np.diff(step) / widths
    length = 1 / max(1.0, float(np.abs(step).max()), 2 * float(shrinks.max(initial=0.0)))
    return cuts.moved_to(cuts.points.astype(np.float64) + length * step)
