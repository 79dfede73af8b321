"""Data whose users or items are known by more than an id, and a division that hides some of them whole.

``planted-facts`` is drawn: a user's factors and bias are those of her group, an item's those of its tags, and something
of their own, so that facts are worth something from the first rating on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from mf_numpy import Features, Holdout, IdMap, Ratings, random_split
from mf_numpy.datasets import load, user_facts
from mf_numpy.errors import ConfigError, DataError, choose
from mf_numpy.ratings import Array

Side = Literal["user", "item"]
SIDES: tuple[Side, ...] = ("user", "item")
PARTS = 10
"""Of the users, or of the items, one of so many parts is hidden."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of one side, and what is made of it.

    Attributes:
        table: facts by raw id.
        features: the blocks without ids, in words for the result in `about`.
    """

    table: pd.DataFrame
    features: Features
    about: str

    def weighted(self, weight: float) -> Features:
        """The blocks, each number times `weight`."""
        return Features(tuple(replace(block, weight=weight) for block in self.features.blocks))


@dataclass(frozen=True, eq=False)
class Data:
    """Ratings, and what is known of each side that anything is known of."""

    name: str
    ratings: Ratings
    facts: Mapping[Side, Facts]


@dataclass(frozen=True, eq=False)
class Hidden:
    """A user or an item of whom training has seen nothing.

    Attributes:
        raw: id.
        offered: ratings by raw id of the other side, in the order in which they were drawn.
        others, values: (S,) raw ids of the other side and ratings, which are scored.
    """

    raw: object
    offered: pd.Series[float]
    others: Array
    values: Array


@dataclass(frozen=True, eq=False)
class Division:
    """Ratings with a part of one side hidden.

    Attributes:
        side: whose rows are hidden.
        train: what is left of the others' ratings when a tenth is held out.
        warm: that tenth.
        hidden: rows with enough ratings to be offered as many as are asked for, and as many to be scored.
        n_hidden: rows that are hidden, those with too few ratings among them.
    """

    side: Side
    train: Ratings
    warm: Holdout
    hidden: tuple[Hidden, ...]
    n_hidden: int

    @property
    def values(self) -> Array:
        """Ratings of all hidden rows that are scored, row by row."""
        return np.concatenate([one.values for one in self.hidden])

    @property
    def rows(self) -> Array:
        """Of each scored rating the number of its row."""
        return np.repeat(np.arange(len(self.hidden)), [len(one.values) for one in self.hidden])


def hide(ratings: Ratings, side: Side, part: int, *, most: int, seed: int = 0) -> Division:
    """Hide one part of a side's rows, drawn by `seed`; parts of one seed have no row in common.

    Half of a hidden row's ratings may be offered and the other half is scored. Ratings whose other side has none in
    training are left out.

    Args:
        part: from 0 to `PARTS` - 1.
        most: ratings that each row must have to offer.

    Raises:
        DataError: too few ratings to hide any row with so many.
    """
    rows, others = (ratings.users, ratings.items) if side == "user" else (ratings.items, ratings.users)
    ids, other_ids = (ratings.user_ids, ratings.item_ids) if side == "user" else (ratings.item_ids, ratings.user_ids)
    rng = np.random.default_rng([seed, SIDES.index(side)])
    chosen = np.array_split(rng.permutation(len(ids)), PARTS)[part]
    away = np.isin(rows, chosen)
    split = random_split(ratings.take(~away), valid=1 / PARTS, seed=seed + part)
    known_ids = split.train.item_ids if side == "user" else split.train.user_ids
    known = np.isin(other_ids.raw[others], known_ids.raw)
    hidden = []
    for row in np.sort(chosen):
        at = np.random.default_rng([seed, int(row)]).permutation(np.flatnonzero((rows == row) & known))
        half = len(at) // 2
        if half >= most:
            offered = pd.Series(ratings.values[at[:half]], index=other_ids.raw[others[at[:half]]])
            scored = at[half:]
            hidden.append(Hidden(ids.raw[row], offered, other_ids.raw[others[scored]], ratings.values[scored]))
    if not hidden:
        raise DataError(f"no hidden {side} has {2 * most} ratings; give more ratings, or offer fewer than {most}")
    return Division(side, split.train, split.valid, tuple(hidden), len(chosen))


def load_data(name: str) -> Data:
    """Ratings with what is known of their users and items: ``planted-facts``, ``ml-100k``, ``ml-1m`` or ``anime``.

    Raises:
        ConfigError: a data set of which nothing beside the ratings is known.
        DataError: it is not here.
    """
    choose("data", name, ("planted-facts", "ml-100k", "ml-1m", "anime"))
    if name == "planted-facts":
        return drawn()
    ratings, users = load(name), user_facts(name)
    facts: dict[Side, Facts] = {}
    if users is not None:
        made = Features().category("gender").category("occupation").bins("age", 6)
        facts["user"] = Facts(users, made, "gender, occupation, age in 6 bins")
    if ratings.item_info is not None:
        of_items, about = Features().tags("genres"), "genres"
        if "type" in ratings.item_info:
            of_items, about = of_items.category("type"), "genres, type"
        facts["item"] = Facts(_filled(ratings.item_info), of_items, about)
    if not facts:
        raise ConfigError(f"nothing is known of {name} beside its ratings; put its table of users or items there")
    return Data(name, ratings, facts)


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """Empty texts as what is missing."""
    return table.replace("", np.nan)


def drawn(
    n_users: int = 300, n_items: int = 200, n_ratings: int = 18_000, *, noise: float = 0.5, seed: int = 0
) -> Data:
    """Ratings of users in 6 groups and items with 1 to 3 of 8 tags, whose means the factors scatter about."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 6, n_users)
    tagged = np.zeros((n_items, 8))
    for i in range(n_items):
        tagged[i, rng.choice(8, rng.integers(1, 4), replace=False)] = 1
    share = tagged / np.sqrt(tagged.sum(axis=1, keepdims=True))
    of_group, of_tag = rng.normal(0, 0.8, (6, 3)), rng.normal(0, 0.8, (8, 3))
    p = of_group[group] + rng.normal(0, 0.4, (n_users, 3))
    q = share @ of_tag + rng.normal(0, 0.4, (n_items, 3))
    popular = rng.permutation(n_items) + 20.0
    pairs = rng.choice(
        n_users * n_items, n_ratings, replace=False, p=np.tile(popular / popular.sum(), n_users) / n_users
    )
    users, items = pairs // n_items, pairs % n_items
    values = (
        3.5 + p[users, 0] + q[items, 0] + (p[users, 1:] * q[items, 1:]).sum(axis=1) + rng.normal(0, noise, n_ratings)
    )
    ratings = Ratings(users, items, values, IdMap.of_range(n_users), IdMap.of_range(n_items)).compact()
    known = pd.DataFrame({"group": [f"group {g}" for g in group]})
    names = [",".join(f"tag {t}" for t in np.flatnonzero(row)) for row in tagged]
    facts: dict[Side, Facts] = {
        "user": Facts(known, Features().category("group"), "group"),
        "item": Facts(pd.DataFrame({"tags": names}), Features().tags("tags"), "tags"),
    }
    return Data("planted-facts", ratings, facts)
