"""Dividing ratings into a training side and held-out pairs: at random, k-fold, latest of each user, or as given.

Every split here partitions the ratings: each rating is on exactly one side, and keeps its place in the order.
Symbols: N ratings; M held-out pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mf_numpy.errors import ConfigError, DataError, counted
from mf_numpy.ratings import Array, IdMap, Ratings


@dataclass(frozen=True, eq=False)
class Holdout:
    """M pairs to be scored, encoded with the id maps of the training side.

    Attributes:
        users: (M,) int64; -1 for a user without ratings in training (cold).
        items: (M,) int64; -1 for an item without ratings in training (cold).
        values: (M,) float64, in the unit of the rating scale.
        timestamps: (M,) int64 or None.

    Raises:
        DataError: arrays of different lengths, or a rating that is not finite.
    """

    users: Array
    items: Array
    values: Array
    timestamps: Array | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("users", np.int64), ("items", np.int64), ("values", np.float64)):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        if not len(self.users) == len(self.items) == len(self.values):
            raise DataError(
                f"users, items and values have lengths {len(self.users)}, {len(self.items)} and {len(self.values)}; "
                "give one of each per held-out pair"
            )
        finite = np.isfinite(self.values)
        if not finite.all():
            bad = int(np.argmin(finite))
            raise DataError(f"values[{bad}] is {self.values[bad]}; held-out ratings must be finite, so drop that pair")

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Holdout({len(self):,} pairs, {self.n_cold:,} of them cold)"

    @cached_property
    def known(self) -> Array:
        """(M,) bool: both the user and the item have ratings in training."""
        return (self.users >= 0) & (self.items >= 0)

    @property
    def n_scored(self) -> int:
        """Pairs with both sides seen in training."""
        return int(self.known.sum())

    @property
    def n_cold(self) -> int:
        """Pairs with a side unseen in training."""
        return len(self) - self.n_scored


@dataclass(frozen=True, eq=False)
class Split:
    """A training side and the pairs held out from it.

    Attributes:
        train: ratings in which every user and every item has at least one rating.
        valid: held-out pairs, encoded with the id maps of `train`.
    """

    train: Ratings
    valid: Holdout


def hold_out(train: Ratings, test: Ratings) -> Split:
    """Train on `train`, hold out `test`: two tables that may know different users and items.

    Raw ids of `test` are looked up among the ids that have ratings in `train`.

    Raises:
        DataError: an empty training side, or ids that are integers on one side and text on the other.
    """
    if not len(train):
        raise DataError("the training side has no ratings; give at least one")
    compacted = train.compact()
    return Split(
        compacted,
        Holdout(
            _translate(test.user_ids, compacted.user_ids, "user")[test.users],
            _translate(test.item_ids, compacted.item_ids, "item")[test.items],
            test.values,
            test.timestamps,
        ),
    )


def random_split(ratings: Ratings, *, valid: float = 0.2, seed: int = 0) -> Split:
    """Hold out a random share of the ratings.

    Args:
        ratings: N ratings, at least 2.
        valid: held-out share in (0, 1); M is `valid`·N rounded half up, then kept within 1..N-1.
        seed: of the NumPy generator that draws the permutation; its first M places are held out.

    Raises:
        ConfigError: a share outside (0, 1), or a negative seed.
        DataError: fewer than 2 ratings.
    """
    if not 0.0 < valid < 1.0:
        raise ConfigError(f"valid is {valid!r}, but the held-out share must lie between 0 and 1, such as 0.2")
    total = len(ratings)
    if total < 2:
        raise DataError(f"{counted(total, 'rating')} cannot be split; give at least 2")
    size = min(max(int(np.floor(valid * total + 0.5)), 1), total - 1)
    return _split_at(ratings, _generator(seed).permutation(total)[:size])


def k_fold(ratings: Ratings, *, k: int = 5, seed: int = 0) -> Iterator[Split]:
    """Yield `k` splits whose held-out sides are disjoint and together hold every rating once.

    Args:
        ratings: N ratings, at least `k`.
        k: number of folds, at least 2. Sizes differ by at most one: the first N mod k folds are the larger ones.
        seed: of the NumPy generator that draws the one permutation cut into folds.

    Raises:
        ConfigError: fewer than 2 folds, or a negative seed.
        DataError: fewer ratings than folds.
    """
    if k < 2:
        raise ConfigError(f"k is {k!r}, but cross-validation needs 2 folds or more")
    if len(ratings) < k:
        raise DataError(f"{len(ratings)} ratings cannot fill {k} folds; ask for fewer folds")
    folds = np.array_split(_generator(seed).permutation(len(ratings)), k)
    return (_split_at(ratings, fold) for fold in folds)


def leave_last(ratings: Ratings, *, n: int = 1) -> Split:
    """Hold out the latest `n` ratings of every user who has more than `n`; the others stay in training whole.

    Of ratings with equal timestamps, the one further down the table is the later one.

    Raises:
        ConfigError: `n` below 1.
        DataError: ratings without timestamps, or no user with more than `n` ratings.
    """
    if n < 1:
        raise ConfigError(f"n is {n!r}, but at least 1 rating a user must be held out")
    if ratings.timestamps is None:
        raise DataError(
            "these ratings have no timestamps, so none is the latest; read a timestamp column or use k_fold"
        )
    counts = ratings.user_counts
    if not (counts > n).any():
        raise DataError(
            f"no user has more than {n} ratings (the most is {counts.max(initial=0)}), so none can be held out; "
            "choose a smaller n"
        )
    by_time = np.lexsort((ratings.timestamps, ratings.users))
    places_after = np.repeat(np.cumsum(counts), counts) - 1 - np.arange(len(ratings))
    return _split_at(ratings, by_time[(places_after < n) & (np.repeat(counts, counts) > n)])


def _split_at(ratings: Ratings, held_out: Array) -> Split:
    """Hold out the ratings at the positions `held_out` (M,); both sides keep the table's order."""
    mask = np.zeros(len(ratings), dtype=np.bool_)
    mask[held_out] = True
    return hold_out(ratings.take(~mask), ratings.take(mask))


def _translate(ids: IdMap, wanted: IdMap, side: str) -> Array:
    """Index in `wanted` of every id of `ids`, (len(ids),) int64; -1 where it is unknown."""
    if len(ids) and ids.is_text != wanted.is_text:
        have, got = ("text", "integers") if wanted.is_text else ("integers", "text")
        raise DataError(
            f"{side} ids are {have} in training but {got} in the held-out table (such as {ids.raw[:1].tolist()[0]!r}); "
            "read both tables with the same id_type"
        )
    return wanted.encode(ids.raw)


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise ConfigError(f"seed is {seed!r}, but must be 0 or larger")
    return np.random.default_rng(seed)
