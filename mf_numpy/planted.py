"""Planted ratings: drawn from known factors, biases and noise, so that the best possible RMSE is known.

The draw has the shape of real rating tables (log-normal activity of users, Zipf-like popularity of items) and of Eq. 1:
r_ui = μ + b_u + c_i + p_u·q_i + ε, ε ~ N(0, σ²), clipped to the rating scale when `PlantedConfig.clip` is set.

Shapes: P (m, K), Q (n, K), b (m,), c (n,); ``users`` and ``items`` are (k,) raw ids, which are the indices themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from mf_numpy.errors import ConfigError, DataError
from mf_numpy.ratings import Array, IdMap, Ratings
from mf_numpy.split import Holdout

_CELLS_AT_ONCE = 1 << 22
_ROUNDS = 8


@dataclass(frozen=True, kw_only=True)
class PlantedConfig:
    """What to draw. Standard deviations and μ are in rating units.

    Attributes:
        n_users, n_items, n_ratings: m, n and N; no pair is drawn twice, so N ≤ m·n.
        n_factors: K, the true number of factors.
        mean: μ.
        noise: σ, the standard deviation of ε.
        user_bias_sd, item_bias_sd: of the normal b_u and c_i.
        factor_sd: of p_u·q_i; P and Q share it equally.
        activity_sd: of the normal logarithm of the users' activity; 0 gives every user the same number of ratings.
        popularity_exponent: a in the popularity (rank + n/20)^-a of items; 0 makes them equally popular.
        min_ratings: every user and every item has at least so many ratings.
        scale: smallest and largest rating.
        clip: whether ratings past the scale are set to its ends. Without it they may leave the scale.
        seed: of the NumPy generator behind every draw.

    Raises:
        ConfigError: a size, strength or seed outside what is allowed, or a number of ratings that cannot be placed.
    """

    n_users: int = 1_600
    n_items: int = 1_000
    n_ratings: int = 400_000
    n_factors: int = 4
    mean: float = 7.0
    noise: float = 1.2
    user_bias_sd: float = 0.5
    item_bias_sd: float = 0.5
    factor_sd: float = 0.9
    activity_sd: float = 0.8
    popularity_exponent: float = 1.0
    min_ratings: int = 5
    scale: tuple[float, float] = (1.0, 10.0)
    clip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {
            "n_users": 2,
            "n_items": 1,
            "n_ratings": 1,
            "n_factors": 0,
            "min_ratings": 1,
            "seed": 0,
        }.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, but must be {least} or larger")
        for name in ("noise", "user_bias_sd", "item_bias_sd", "factor_sd", "activity_sd", "popularity_exponent"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, but must be a finite number, 0 or larger")
        if not self.scale[0] < self.scale[1]:
            raise ConfigError(f"scale is {self.scale!r}, but its first end must be below its second, such as (1, 10)")
        if not np.isfinite(self.mean):
            raise ConfigError(f"mean is {self.mean!r}, but must be a finite number")
        if self.min_ratings > min(self.n_users, self.n_items):
            raise ConfigError(
                f"min_ratings is {self.min_ratings}, but {self.n_users} users and {self.n_items} items allow at most "
                f"{min(self.n_users, self.n_items)} without a duplicate pair"
            )
        least, most = self.min_ratings * (self.n_users + self.n_items), self.n_users * self.n_items
        if not min(least, most) <= self.n_ratings <= most:
            raise ConfigError(
                f"n_ratings is {self.n_ratings}, but {self.n_users} users and {self.n_items} items with min_ratings="
                f"{self.min_ratings} need between {min(least, most)} and {most}"
            )


DEFAULT = PlantedConfig()
"""The embedded data set: small enough for a lecture, dense enough that its noise floor can nearly be reached."""

ANIME_FULL = PlantedConfig(
    n_users=69_600, n_items=9_927, n_ratings=6_337_241, mean=7.8, activity_sd=1.3, popularity_exponent=1.8
)
"""The size and shape of the full Kaggle anime table."""


@dataclass(frozen=True, eq=False)
class Planted:
    """Planted ratings and the truth behind them.

    Attributes:
        ratings: N ratings by user, then item; raw ids are the indices 0..m-1 and 0..n-1.
        P, Q: true factors (m, K) and (n, K).
        b, c: true biases (m,) and (n,), in rating units.
        mu: true μ, in rating units.
        config: what was drawn.
    """

    ratings: Ratings
    P: Array
    Q: Array
    b: Array
    c: Array
    mu: float
    config: PlantedConfig

    @property
    def sigma(self) -> float:
        """σ of the noise before clipping, in rating units."""
        return self.config.noise

    def expected(self, users: Array, items: Array) -> Array:
        """The best possible prediction E[r_ui] of each pair, (k,) in rating units.

        With clipping it is the mean of a clipped normal variable, in closed form.

        Raises:
            DataError: an id outside 0..m-1 or 0..n-1.
        """
        for side, ids, size in (("user", users, len(self.b)), ("item", items, len(self.c))):
            wrong = (ids < 0) | (ids >= size)
            if wrong.any():
                raise DataError(f"{side} id {ids[np.argmax(wrong)]} was not planted; ids are 0..{size - 1}")
        signal = _signal(self.P, self.Q, self.b, self.c, self.mu, users, items)
        return clipped_mean(signal, self.sigma, *self.config.scale) if self.config.clip else signal

    def noise_floor(self, users: Array, items: Array, values: Array) -> float:
        """RMSE, in rating units, of the best possible prediction of these ratings (k,); NaN for no ratings."""
        error = values - self.expected(users, items)
        return float(np.sqrt(np.mean(np.square(error)))) if len(error) else float("nan")

    def noise_floor_of(self, train: Ratings, valid: Holdout) -> float:
        """The noise floor, in rating units, on the scored pairs of `valid`, encoded with the id maps of `train`.

        Cold pairs are left out, as in `mf_numpy.metrics.Scores.rmse`.

        Raises:
            DataError: ids that are not planted ones.
        """
        known = valid.known
        return self.noise_floor(
            train.user_ids.decode(valid.users[known]), train.item_ids.decode(valid.items[known]), valid.values[known]
        )


def planted(config: PlantedConfig = DEFAULT) -> Planted:
    """Draw planted ratings: the same config gives the same ratings."""
    rng = np.random.default_rng(config.seed)
    users, items = _draw_pairs(rng, config)
    each = np.sqrt(config.factor_sd / np.sqrt(max(config.n_factors, 1)))  # then sd(p·q) = √K each² = factor_sd
    p = rng.normal(0.0, each, (config.n_users, config.n_factors))
    q = rng.normal(0.0, each, (config.n_items, config.n_factors))
    b = rng.normal(0.0, config.user_bias_sd, config.n_users)
    c = rng.normal(0.0, config.item_bias_sd, config.n_items)
    values = _signal(p, q, b, c, config.mean, users, items)
    values += rng.normal(0.0, config.noise, len(values))
    if config.clip:
        np.clip(values, *config.scale, out=values)
    notes = {
        "format": "planted",
        "rows": len(values),
        "not_rated": 0,
        "duplicates": 0,
        "conflicts": 0,
        "policy": "error",
    }
    ratings = Ratings(
        users,
        items,
        values,
        IdMap.of_range(config.n_users),
        IdMap.of_range(config.n_items),
        scale=config.scale if config.clip else None,
        notes=notes | {"sigma": config.noise, "seed": config.seed},
    )
    return Planted(ratings, p, q, b, c, config.mean, config)


def clipped_mean(mean: Array, sigma: float, low: float, high: float) -> Array:
    """E[min(max(X, low), high)] for X ~ N(mean, σ²), elementwise over `mean` (k,).

    With α = (low − mean)/σ and β = (high − mean)/σ it is
    low Φ(α) + high (1 − Φ(β)) + mean (Φ(β) − Φ(α)) + σ (φ(α) − φ(β)).
    """
    if sigma == 0.0:
        return np.clip(mean, low, high)
    alpha, beta = (low - mean) / sigma, (high - mean) / sigma
    below, above = ndtr(alpha), ndtr(-beta)
    density = (np.exp(-0.5 * alpha**2) - np.exp(-0.5 * beta**2)) / np.sqrt(2.0 * np.pi)
    out: Array = low * below + high * above + mean * (1.0 - below - above) + sigma * density
    return out


def _signal(p: Array, q: Array, b: Array, c: Array, mu: float, users: Array, items: Array) -> Array:
    """μ + b_u + c_i + p_u·q_i of each pair, (k,), without a (k, K) array."""
    out: Array = mu + b[users] + c[items]
    for part in _slices(len(users), p.shape[1]):
        out[part] += (p[users[part]] * q[items[part]]).sum(axis=1)
    return out


def _draw_pairs(rng: np.random.Generator, config: PlantedConfig) -> tuple[Array, Array]:
    """N distinct pairs: users (N,) and items (N,), sorted by user, then item.

    Items are served first, `min_ratings` each, by users in proportion to their activity; then every user fills up to
    a share of the rest, in proportion to activity, with items in proportion to popularity.
    """
    m, n = config.n_users, config.n_items
    activity = np.exp(rng.normal(0.0, config.activity_sd, m))
    popularity = (rng.permutation(n) + 1 + n / 20.0) ** -config.popularity_exponent
    by_item = _fill(rng, np.full(n, config.min_ratings), activity, np.empty(0, dtype=np.int64))
    held = np.sort(by_item % m * n + by_item // m)
    have = np.bincount(held // n, minlength=m)
    extra = _allocate(activity, config.n_ratings - len(held), np.maximum(config.min_ratings - have, 0), n - have)
    keys = _fill(rng, have + extra, popularity, held)
    return keys // n, keys % n


def _allocate(weights: Array, total: int, low: Array, high: Array) -> Array:
    """Integers (k,) that sum to `total`, in proportion to `weights` (k,) as far as low ≤ x ≤ high lets them.

    Σ low ≤ total ≤ Σ high must hold.
    """
    smallest, largest = 0.0, (high.max() + 1.0) / weights.min()
    for _ in range(200):
        middle = 0.5 * (smallest + largest)
        if np.clip(middle * weights, low, high).sum() <= total:
            smallest = middle
        else:
            largest = middle
    exact = np.clip(smallest * weights, low, high)
    out = np.floor(exact).astype(np.int64)
    can_grow = np.flatnonzero(out < high)
    by_remainder = can_grow[np.argsort(out[can_grow] - exact[can_grow], kind="stable")]
    out[by_remainder[: total - out.sum()]] += 1
    return out


def _fill(rng: np.random.Generator, target: Array, weights: Array, held: Array) -> Array:
    """Distinct pairs, `target` (rows,) in each row, columns drawn by `weights` (columns,) without replacement.

    Pairs travel as sorted keys row·columns + column. Drawing with replacement and rejecting repeats is quick for all
    but the fullest rows; those are finished by ranking Gumbel-perturbed log-weights, which has the same distribution.

    Args:
        held: keys of pairs already there; they count towards the target.
    """
    rows, columns = len(target), len(weights)
    cumulative = np.cumsum(weights)
    cumulative /= cumulative[-1]
    need = target - np.bincount(held // columns, minlength=rows)
    finished = []
    for _ in range(_ROUNDS):
        # Rows that are full leave the loop, so that later rounds sort only what may still grow.
        is_open = need[held // columns] > 0
        finished.append(held[~is_open])
        held = held[is_open]
        if not need.any():
            break
        at = np.repeat(np.arange(rows), need)
        drawn = np.minimum(np.searchsorted(cumulative, rng.random(len(at)), side="right"), columns - 1)
        grown = _sorted_distinct(np.concatenate([held, at * columns + drawn]))
        need -= np.bincount(grown // columns, minlength=rows) - np.bincount(held // columns, minlength=rows)
        held = grown
    return np.sort(np.concatenate([*finished, held, *_fill_fullest(rng, need, weights, held)]))


def _fill_fullest(rng: np.random.Generator, need: Array, weights: Array, held: Array) -> Iterator[Array]:
    """The `need` (rows,) keys that each row still lacks beside those of `held` (sorted), row by row."""
    columns = len(weights)
    log_weights = np.log(weights)
    row_of = held // columns
    wanting = np.flatnonzero(need > 0)
    for part in _slices(len(wanting), columns):
        block = wanting[part]
        score = log_weights + rng.gumbel(size=(len(block), columns))
        for place, row in enumerate(block):
            begin, end = np.searchsorted(row_of, [row, row + 1])
            score[place, held[begin:end] - row * columns] = -np.inf
            best = np.argpartition(-score[place], need[row] - 1)[: need[row]]
            yield row * columns + best


def _sorted_distinct(keys: Array) -> Array:
    keys.sort()
    first = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    out: Array = keys[first]
    return out


def _slices(length: int, width: int) -> Iterator[slice]:
    size = max(1, _CELLS_AT_ONCE // max(1, width))
    for begin in range(0, length, size):
        yield slice(begin, min(begin + size, length))
