"""Eq. 79 to 83 in torch operations; the twin of `mf_numpy.probit` and of the solvers' part with its name.

Shapes: N scores and their grades, user by user, on the device. Cut points are few: NumPy proposes and chooses them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mf_numpy import grades
from mf_numpy import probit as by_hand
from mf_numpy.config import Config
from mf_numpy.grades import Cuts
from mf_numpy.ratings import Array
from mf_torch.gibbs_groups import Group

FAR = -600.0
"""Logarithms of probabilities below, whose exponential would lose digits."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a sweep draws of grades.

    Attributes:
        latent: (N + 1,), scores with their noise, and a 0 for what fills groups up.
        cuts: the cut points.
        log_chance: Σ log P of the grades before, and `squared_error` Σ (E[r] - r)².
    """

    latent: Tensor
    cuts: Cuts
    log_chance: float
    squared_error: float


def places(values: Array, cuts: Cuts, device: str) -> Tensor:
    """Which grade each rating (N,) is."""
    return torch.tensor(grades.places(values, cuts).astype(np.int64), device=device)


def draw(scores: Tensor, at: Tensor, cuts: Cuts, epoch: int, config: Config) -> Drawn:
    """Cut points and noise of epoch 1, 2, ..., given the scores (N,)."""
    n_grades = len(cuts.grades)
    scores = scores.double()
    low, high = float(scores.min()), float(scores.max())
    if not math.isfinite(high - low):
        # The training loop reports it, with what to do.
        return Drawn(torch.cat([scores, scores[:1]]), cuts, math.nan, math.nan)
    noise = by_hand.noise_of(epoch, n_grades, len(scores), config)
    proposal = by_hand.proposal_of(histogram(scores, at, n_grades, by_hand.nodes_of(low, high)))
    proposed = by_hand.moved(cuts, proposal.draw(noise))
    now, then = (float(log_chances(*_between(scores, at, one)).sum()) for one in (cuts, proposed))
    squared_error = float((expected(scores, cuts) - _tensor(cuts.grades, scores)[at]).square().sum())
    chosen = by_hand.chosen(cuts, proposed, (now, then), proposal, noise)
    noisy = scores + noise_between(*_between(scores, at, chosen), _tensor(noise.latent, scores))
    return Drawn(torch.cat([noisy, noisy.new_zeros(1)]), chosen, now, squared_error)


def _tensor(array: Array, like: Tensor) -> Tensor:
    return torch.tensor(array, dtype=like.dtype, device=like.device)


def _between(scores: Tensor, at: Tensor, cuts: Cuts) -> tuple[Tensor, Tensor]:
    """Where the noise of each score lies, given its grade."""
    ends = _tensor(by_hand.ends_of(cuts.t), scores)
    return ends[at] - scores, ends[at + 1] - scores


def _lower(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pieces of a line, turned about 0 where they lie above it, and which are."""
    turned = low + high > 0
    return torch.where(turned, -high, low), torch.where(turned, -low, high), turned


def log_chances(low: Tensor, high: Tensor) -> Tensor:
    """The logarithm of how likely a standard normal is between two ends (Eq. 79)."""
    low, high, _ = _lower(low, high)
    whole: Tensor = torch.special.log_ndtr(high)
    return whole + torch.log1p(-torch.exp(torch.special.log_ndtr(low) - whole))  # Eq. 79


def noise_between(low: Tensor, high: Tensor, uniform: Tensor) -> Tensor:
    """Standard normals between two ends each (Eq. 80)."""
    low, high, turned = _lower(low, high)
    whole: Tensor = torch.special.log_ndtr(high)
    beyond = torch.exp(torch.special.log_ndtr(low) - whole)
    noise = quantile(whole + torch.log(beyond + uniform * (1 - beyond)))  # Eq. 80
    noise = torch.minimum(torch.maximum(noise, low), high)
    return torch.where(turned, -noise, noise)


def quantile(log_p: Tensor) -> Tensor:
    """Φ⁻¹ of a probability that comes as its logarithm."""
    out: Tensor = torch.special.ndtri(log_p.exp())
    far = log_p < FAR
    if bool(far.any()):
        wanted = log_p[far]
        x = -torch.sqrt(-2 * wanted)
        for _ in range(8):
            # Newton's step for log Φ.
            value = torch.special.log_ndtr(x)
            x = x - (value - wanted) * torch.exp(x * x / 2 + 0.5 * math.log(2 * math.pi) + value)
        out[far] = x
    return out


def expected(scores: Tensor, cuts: Cuts) -> Tensor:
    """The mean grade of each score (Eq. 79)."""
    out = torch.full_like(scores, float(cuts.grades[0]))
    for point, step in zip(by_hand.ends_of(cuts.t)[1:-1].tolist(), np.diff(cuts.grades).tolist(), strict=True):
        out += step * torch.special.ndtr(scores - point)  # Eq. 79
    return out


def histogram(scores: Tensor, at: Tensor, n_grades: int, nodes: Array) -> by_hand.Histogram:
    """The twin of `mf_numpy.probit.histogram`, on the host."""
    place = (scores - nodes[0]) / (nodes[1] - nodes[0])
    first = place.long().clamp(max=len(nodes) - 2)
    share, cell = place - first, at * len(nodes) + first
    counts = scores.new_zeros(n_grades * len(nodes))
    counts.index_add_(0, cell, 1 - share).index_add_(0, cell + 1, share)
    return by_hand.Histogram(nodes, counts.cpu().numpy().reshape(n_grades, len(nodes)))


def numbered(groups: list[Group], n: int, dtype: torch.dtype) -> list[Group]:
    """Groups that hold which of N ratings each is, `left` being that, or N for what fills up; weights in `dtype`."""
    return [
        replace(group, left=torch.where(group.weight > 0, group.left, n), weight=group.weight.to(dtype))
        for group in groups
    ]


def filled(groups: list[Group], latent: Tensor) -> list[Group]:
    """Groups whose ratings are scores with their noise (N + 1,)."""
    return [replace(group, left=latent.to(group.weight.dtype)[group.left]) for group in groups]


def scores_of(user: Tensor, item: Tensor, groups: list[Group], n: int, biased: bool) -> Tensor:
    """r̂ (N,) by the rows of both sides and `numbered` groups of users (Eq. 1)."""
    out = user.new_empty(n + 1)
    for group in groups:
        own, y = user[group.rows], item[group.others]
        if biased:
            factors = torch.bmm(y[..., :-1], own[:, :-1, None])[..., 0]
            score = factors + (own[:, -1:] + y[..., -1])  # Eq. 1
        else:
            score = torch.bmm(y, own[..., None])[..., 0]  # Eq. 1
        out[group.left] = score
    return out[:n]
