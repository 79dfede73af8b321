"""What a chain does with grades before it draws rows: the cut points given all scores, then the noise (Eq. 79 to 83).

With the noise in, a score is a number that the rows are drawn by as they would be by a rating, and α is 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mf_numpy import counting, grades, probit
from mf_numpy.config import Config
from mf_numpy.grades import Cuts
from mf_numpy.kernels import predict
from mf_numpy.kernels import probit as kernels
from mf_numpy.kernels.compiling import over_rows
from mf_numpy.model import Params
from mf_numpy.model import predict as predict_in_loops
from mf_numpy.ratings import Array, Ratings
from mf_numpy.solvers.als import Rows


@dataclass(frozen=True, eq=False)
class Grading:
    """N grades, user by user.

    Attributes:
        users, items: (N,) int32.
        at: (N,) uint8, which grade each is.
        rows: (users + 1,), where those of each user begin.
        bounds: chunks of users that threads take.
        by_item: (N,), where those of each item are, item by item.
    """

    users: Array
    items: Array
    at: Array
    rows: Array
    bounds: Array
    by_item: Array

    @classmethod
    def of(cls, user: Rows, by_item: Array, cuts: Cuts) -> Grading:
        """The grades of a side's rows."""
        users = np.repeat(np.arange(len(user.indptr) - 1, dtype=np.int32), np.diff(user.indptr))
        at = grades.places(user.values, cuts).astype(np.uint8)
        return cls(users, user.others.astype(np.int32), at, user.indptr, user.bounds, by_item)


def by_item(train: Ratings) -> Array:
    """Where the ratings of each item are among those laid user by user, (N,), item by item."""
    of_users, of_items = (
        counting.order(rows, counting.begins(counts))
        for rows, counts in ((train.users, train.user_counts), (train.items, train.item_counts))
    )
    place = np.empty_like(of_users)
    place[of_users] = np.arange(len(train), dtype=place.dtype)
    out: Array = place[of_items]
    return out


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a sweep draws of grades.

    Attributes:
        latent: (N,), scores with their noise, user by user.
        cuts: the cut points.
        log_chance: Σ log P of the grades before, and `squared_error` Σ (E[r] - r)².
    """

    latent: Array
    cuts: Cuts
    log_chance: float
    squared_error: float

    def in_place_of_ratings(self, user: Rows, item: Rows, grading: Grading) -> tuple[Rows, Rows]:
        """Both sides' rows, which are to be drawn by these."""
        values = self.latent.astype(user.values.dtype, copy=False)
        return replace(user, values=values), replace(item, values=values[grading.by_item])


def draw(params: Params, grading: Grading, epoch: int, config: Config, *, in_loops: bool = False) -> Drawn:
    """Cut points and noise of epoch 1, 2, ..., given the parameters of users and items.

    Args:
        in_loops: whether NumPy and SciPy do what kernels do otherwise.
    """
    cuts = params.cuts
    assert cuts is not None
    n, n_grades = len(grading.at), len(cuts.grades)
    scores = (predict_in_loops if in_loops else predict)(params, grading.users, grading.items)
    # In one type, whatever that of the parameters, so that kernels are compiled once.
    scores = scores.astype(np.float64, copy=False)
    if not np.isfinite(scores).all():
        # The training loop reports it, with what to do.
        return Drawn(scores, cuts, np.nan, np.nan)
    noise = probit.noise_of(epoch, n_grades, n, config)
    proposal = probit.proposal_of((probit.histogram if in_loops else _histogram)(scores, grading.at, n_grades))
    proposed = probit.moved(cuts, proposal.draw(noise))
    one, other = probit.ends_of(cuts.t), probit.ends_of(proposed.t)
    now, then, squared_error = (_sums_in_loops if in_loops else _sums)(scores, grading, one, other, cuts)
    chosen = probit.chosen(cuts, proposed, (now, then), proposal, noise)
    ends = probit.ends_of(chosen.t)
    if in_loops:
        latent = probit.latent(scores, grading.at, ends, noise.latent)
    else:
        latent = np.empty(n)
        bounds = grading.rows[grading.bounds]
        over_rows(kernels.latent_kernel(), bounds, scores, grading.at, ends, noise.latent, latent)
    return Drawn(latent, chosen, now, squared_error)


def _histogram(scores: Array, at: Array, n_grades: int) -> probit.Histogram:
    nodes = probit.nodes_of(float(scores.min()), float(scores.max()))
    counts = np.zeros((n_grades, len(nodes)))
    kernels.histogram_kernel()(0, len(scores), scores, at, nodes[0], 1 / (nodes[1] - nodes[0]), counts)
    return probit.Histogram(nodes, counts)


def _sums(scores: Array, grading: Grading, one: Array, other: Array, cuts: Cuts) -> tuple[float, float, float]:
    """Σ log P of all grades with the one and the other ends (G + 1,), and Σ (E[r] - r)² with the one."""
    sums = np.zeros((len(grading.rows) - 1, 3))
    values = cuts.grades.astype(np.float64)
    over_rows(
        kernels.sums_kernel(), grading.bounds, grading.rows, scores, grading.at, one, other, values, sums
    )  # fmt: skip
    now, then, square = sums.sum(axis=0).tolist()
    return now, then, square


def _sums_in_loops(scores: Array, grading: Grading, one: Array, other: Array, cuts: Cuts) -> tuple[float, float, float]:
    at = grading.at.astype(np.int64)
    now, then = (
        float(probit.log_chances(ends[at] - scores, ends[at + 1] - scores).sum()) for ends in (one, other)
    )  # fmt: skip
    error = grades.expected(scores, cuts) - cuts.grades[at]
    return now, then, float(error @ error)
