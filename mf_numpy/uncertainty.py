"""How sure a model of draws is: intervals for ratings (Eq. 71), how often they are right, and whether chains agree.

Shapes: B pairs, S draws, C chains of S draws each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from mf_numpy import grades
from mf_numpy.config import Config
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.metrics import Predictor
from mf_numpy.model import chunks, predict
from mf_numpy.posterior import Draws, n_kept
from mf_numpy.ratings import Array

HALVINGS = 40
"""Of the range in which a quantile is sought: past what float64 tells apart."""

MOST_R_HAT = 1.05
"""Chains that differ by more have not forgotten where they began."""

LEAST_LENGTH = 4
"""Draws without which a chain has no two halves to compare."""

LEAST_DRAWS = 50
"""Draws that a mean should be worth, whatever their number."""


@dataclass(frozen=True, eq=False)
class Intervals:
    """Where ratings lie, in rating units.

    Attributes:
        mean: (B,) predictions.
        low, high: (B,) ends of the intervals.
        level: the probability of a rating between them.
        spread: (B,) standard deviation of the prediction over the draws, without the ratings' noise.
    """

    mean: Array
    low: Array
    high: Array
    level: float
    spread: Array

    def covered(self, values: Array) -> float:
        """The share of ratings (B,) that lie in their intervals; NaN for none."""
        inside = (values >= self.low) & (values <= self.high)
        return float(inside.mean()) if len(inside) else math.nan


def intervals(draws: Draws, users: Array, items: Array, level: float = 0.9, predict: Predictor = predict) -> Intervals:
    """Central intervals of the ratings of pairs, given as indices.

    A rating is normal about a draw's prediction with the draw's precision; over the draws that is a mixture, whose
    quantiles are the ends (Eq. 71). Where ratings are grades the ends are, too: no grade below or above is needed for
    the mixture to have the level.

    Raises:
        ConfigError: a level that is not between 0 and 1, or no draws.
        IndexError: an index outside 0..m-1 or 0..n-1.
    """
    check_draws(draws)
    if not 0 < level < 1:
        raise ConfigError(f"level is {level!r}, but must lie between 0 and 1, such as 0.9")
    low, high, mean, spread = (np.empty(len(users)) for _ in range(4))
    shares = (1 - level) / 2, (1 + level) / 2
    cuts = draws.points[0].cuts
    if cuts is not None:
        for part in chunks(len(users), len(draws)):
            each = predictions(draws, users[part], items[part], predict)
            below, of_each = _grades(draws, each)
            mean[part], spread[part] = of_each.mean(axis=1), of_each.std(axis=1)
            low[part], high[part] = (cuts.grades[(below < share).sum(axis=1)] for share in shares)
        return Intervals(mean, low, high, level, spread)
    root = np.sqrt(np.array(draws.precisions))
    for part in chunks(len(users), len(draws)):
        each = predictions(draws, users[part], items[part], predict)
        mean[part], spread[part] = each.mean(axis=1), each.std(axis=1)
        for end, share in zip((low, high), shares, strict=True):
            end[part] = _quantile(each, root, share)
    return Intervals(mean, low, high, level, spread)


def predictions(draws: Draws, users: Array, items: Array, predict: Predictor = predict) -> Array:
    """What each draw predicts of each pair, (B, S) float64."""
    return np.stack([predict(point, users, items).astype(np.float64) for point in draws.points], axis=1)


def _grades(draws: Draws, each: Array) -> tuple[Array, Array]:
    """Of scores (B, S) how likely no grade above each is over the draws (B, G - 1), and their mean grades (B, S)."""
    first = draws.points[0].cuts
    assert first is not None
    below, means = np.zeros((len(each), len(first.t))), np.empty_like(each)
    for s, point in enumerate(draws.points):
        assert point.cuts is not None
        below += ndtr(point.cuts.points - each[:, s, None]) / len(draws)  # Eq. 79
        means[:, s] = grades.expected(each[:, s], point.cuts)
    return below, means


def _quantile(each: Array, root: Array, share: float) -> Array:
    """x (B,) at which the mean of Φ(√α (x - r̂)) over the draws is `share`, by bisection."""
    # It lies between the quantiles of the single draws.
    ends = each + float(ndtri(share)) / root
    low, high = ends.min(axis=1), ends.max(axis=1)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = ndtr(root * (middle[:, None] - each)).mean(axis=1) < share  # Eq. 71
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    out: Array = (low + high) / 2
    return out


@dataclass(frozen=True)
class Agreement:
    """Whether several chains tell the same of pairs.

    Attributes:
        r_hat: the largest split-R̂ of a pair's prediction (Eq. 72); 1 for chains that agree.
        draws: the smallest number of independent draws that a pair's mean is worth.
        advice: what to do about it, or None where all is well.
    """

    r_hat: float
    draws: float
    advice: str | None


def agreement(chains: Sequence[Draws], users: Array, items: Array, predict: Predictor = predict) -> Agreement:
    """Compare chains, of `chains_of` or of fits by other seeds, by what they predict of pairs, given as indices.

    Raises:
        DataError: chains of different lengths, fewer than four draws, or no pairs.
    """
    for draws in chains:
        check_draws(draws)
    lengths = sorted({len(draws) for draws in chains})
    if len(lengths) != 1 or lengths[0] < LEAST_LENGTH or not len(users):
        raise DataError(
            f"there are chains of {', '.join(map(str, lengths)) or 'no'} draws and {len(users)} pairs; give chains of "
            "one length, four draws or more, and a pair or more"
        )
    table = np.stack([predictions(draws, users, items, predict) for draws in chains], axis=1)
    hats, sizes = split_r_hat(table), effective_draws(table)
    r_hat, size = float(hats.max()), float(sizes.min())
    advice = None
    if not r_hat <= MOST_R_HAT:
        advice = (
            f"split-R̂ is {r_hat:.2f}, above {MOST_R_HAT}: the chains do not agree yet; raise burn_in, then n_epochs, "
            "or take more chains, which are better together than one of them"
        )
    elif size < LEAST_DRAWS:
        advice = f"the draws are worth {size:.0f} independent ones, below {LEAST_DRAWS}; raise n_epochs"
    return Agreement(r_hat, size, advice)


def chains_of(draws: Draws, config: Config) -> list[Draws]:
    """The whole chains that a fit's draws are of, in their order: by ``chain_length``, or one."""
    if config.chain_length is None:
        return [draws]
    size = n_kept(config.chain_length, config)
    return [
        Draws(draws.points[at : at + size], draws.precisions[at : at + size])
        for at in range(0, len(draws) - size + 1, size)
    ]


def split_r_hat(table: Array) -> Array:
    """R̂ of each pair (B,), every chain of a (B, C, S) table being cut into two halves (Eq. 72)."""
    _, within, total = _variances(table)
    return np.sqrt(_ratio(total, within))  # Eq. 72


def effective_draws(table: Array) -> Array:
    """How many independent draws the mean over a (B, C, S) table is worth (B,), at most C·S.

    Autocorrelations of the halves are added up as long as pairs of them are positive and fall (Geyer 1992).
    """
    halves, within, total = _variances(table)
    b, c, s = halves.shape
    centred = halves - halves.mean(axis=2, keepdims=True)
    size = 1 << (2 * s - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, size, axis=2)) ** 2
    covariance = np.fft.irfft(power, size, axis=2)[:, :, :s].mean(axis=1) / s
    rho = 1 - _ratio(within[:, None] - covariance * s / (s - 1), total[:, None])
    pairs = rho[:, : s // 2 * 2].reshape(b, -1, 2).sum(axis=2)
    pairs = np.where(np.cumprod(pairs > 0, axis=1), pairs, 0.0)
    time = 2 * np.minimum.accumulate(pairs, axis=1).sum(axis=1) - 1
    out: Array = np.minimum(c * s / np.maximum(time, 1 / math.log10(c * s)), float(c * s))
    return out


def _variances(table: Array) -> tuple[Array, Array, Array]:
    """The halves (B, 2C, S // 2), the mean variance within them, and what it is with the variance between them."""
    s = table.shape[2] // 2
    halves = np.concatenate([table[:, :, :s], table[:, :, -s:]], axis=1)
    within = halves.var(axis=2, ddof=1).mean(axis=1)
    between = halves.mean(axis=2).var(axis=1, ddof=1)
    return halves, within, (s - 1) / s * within + between  # Eq. 72


def _ratio(a: Array, b: Array) -> Array:
    """a / b, 1 where both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Array = np.where((a == 0) & (b == 0), 1.0, a / b)
    return out


def check_draws(draws: Draws | None) -> None:
    """Refuse a model that holds no draws.

    Raises:
        ConfigError: there are none.
    """
    if not draws:
        raise ConfigError(
            "the model holds no draws to be unsure by; fit with solver='gibbs' and n_epochs above burn_in"
        )
