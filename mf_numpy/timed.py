"""Users and items at a time (Eq. 41): one who is described anew each day is a row of the design for each day.

``timed(train, users=Features().id().rated().day(), items=Features().id().time_bins(30))`` makes of a training set one
whose users are users on a day and whose items are items in a bin; both packages fit it as any other, with its design.
`Timed.at` turns what was learned back into a model of users and items, as of a day.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mf_numpy import design as by_hand
from mf_numpy import losses
from mf_numpy.design import Design, Side
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.features import Described, Features, Rows, Which, rows_of
from mf_numpy.metrics import predict_known_and_cold
from mf_numpy.model import chunks
from mf_numpy.ratings import Array, IdMap, Ratings
from mf_numpy.result import Catalogue, FitResult, Predictions
from mf_numpy.split import Holdout
from mf_numpy.time_features import Moments, cells

DAY = 86_400
"""Seconds of a day, of which timestamps are."""


@dataclass(frozen=True, eq=False)
class TimedSide:
    """Users, or items, at a time.

    Attributes:
        features: what they are made of.
        base: them without a time.
        described: the rows of the training set.
        first, last: day of the first and of the last training rating.
    """

    features: Features
    base: Rows
    described: Described
    first: int
    last: int

    def rows(self, places: Array, days: Array) -> Side:
        """Users or items, by their places in the training set, on a day each."""
        nothing = np.zeros(len(places), np.int64)
        more = _rows(self.base, places, Moments(days, nothing, self.first, self.last))
        return Side(self.described.encoded(more), self.described.names, self.described.side.blocks)


@dataclass(frozen=True, eq=False)
class Timed:
    """A training set of users and items at a time.

    Attributes:
        train: the ratings of ``original``, in its order; a user is a user at a time, an item likewise.
        design: what these are made of.
        valid: the held-out pairs that came, encoded with the ids of `train`; None if there came none.
        original: the training set that it was made of.
        users, items: the sides, which describe other times as well.
    """

    train: Ratings
    design: Design
    valid: Holdout | None
    original: Ratings
    users: TimedSide
    items: TimedSide

    def at(self, found: FitResult, timestamp: int) -> FitResult:
        """What a fit of `train` with `design` learned, as a model of the original users and items at a time.

        Raises:
            ConfigError: a fit of something else.
        """
        theta = self._features_of(found)
        day = timestamp // DAY
        m, n = self.original.shape
        users, items = self.users.rows(np.arange(m), np.full(m, day)), self.items.rows(np.arange(n), np.full(n, day))
        then = Design(users, items)
        catalogue = Catalogue.of(self.original)
        return replace(found, params=by_hand.rows(theta, then), design=then, catalogue=catalogue)

    def predict(
        self, found: FitResult, users: Iterable[Any], items: Iterable[Any], timestamps: Iterable[int]
    ) -> Predictions:
        """Predict pairs of raw ids, each at a time of its own: three sequences of one length B.

        Raises:
            ConfigError: a fit of something else.
            ValueError: sequences of different lengths.
        """
        theta = self._features_of(found)
        u, i = self.original.user_ids.encode(users), self.original.item_ids.encode(items)
        days = np.asarray(list(timestamps), np.int64) // DAY
        if not len(u) == len(i) == len(days):
            raise ValueError(f"got {len(u)} users, {len(i)} items and {len(days)} timestamps; give one of each a pair")
        values = np.empty(len(u), theta.P.dtype)
        mean = losses.prediction_of(self.original.mean, found.config)
        # A row of the design for each pair, and of a mean over draws each has many factors.
        for part in chunks(len(u), theta.shape[2]):
            of_u, of_i, day = u[part], i[part], days[part]
            # Nobody's rows are those of the first and are not read.
            design = Design(self.users.rows(np.maximum(of_u, 0), day), self.items.rows(np.maximum(of_i, 0), day))
            at = np.arange(len(of_u))
            params = by_hand.rows(theta, design)
            values[part], _ = predict_known_and_cold(
                params, np.where(of_u < 0, -1, at), np.where(of_i < 0, -1, at), mean
            )
        return Predictions(losses.mean_of(values, found.config), int((u < 0).sum()), int((i < 0).sum()))

    def _features_of(self, found: FitResult) -> Any:
        if found.of_features is None or found.design is None or not found.design.same_as(self.design):
            raise ConfigError("the model is no fit of this design; fit timed.train with design=timed.design")
        return found.of_features


def timed(
    train: Ratings,
    users: Features | None = None,
    items: Features | None = None,
    *,
    valid: Holdout | None = None,
    user_info: pd.DataFrame | None = None,
    item_info: pd.DataFrame | None = None,
) -> Timed:
    """The training set of users and items at a time; a side without features is one of ids alone.

    Args:
        valid: held-out pairs, whose users and items at their times become rows without training ratings.

    Raises:
        DataError: ratings or held-out pairs without timestamps; and as `Features.fit`.
        ConfigError: as `Features.fit`.
    """
    stamps = [("training ratings", train.timestamps)]
    if valid is not None:
        stamps.append(("held-out pairs", valid.timestamps))
    for what, found in stamps:
        if found is None:
            raise DataError(f"the {what} have no timestamps, which features of time need; use design_of without them")
    assert train.timestamps is not None
    days = np.asarray(train.timestamps, np.int64) // DAY
    none = np.zeros(0, np.int64)
    more = none if valid is None or valid.timestamps is None else np.asarray(valid.timestamps, np.int64) // DAY
    pairs = (none, none) if valid is None else (valid.users, valid.items)
    by_id = Features().id()
    sides, places, labels = [], [], []
    for which, features, table, index, held in (
        ("users", users or by_id, user_info, train.users, pairs[0]),
        ("items", items or by_id, item_info, train.items, pairs[1]),
    ):
        side, at, named = _side(train, which, features, table, (index, days), (held, more))  # type: ignore[arg-type]
        sides.append(side)
        places.append(at)
        labels.append(named)
    (of_users, of_items), n = places, len(train)
    contexts = replace(
        train, users=of_users[:n], items=of_items[:n], user_ids=labels[0], item_ids=labels[1], item_info=None
    )  # fmt: skip
    design = Design(sides[0].described.side, sides[1].described.side)
    held_out = None if valid is None else replace(valid, users=of_users[n:], items=of_items[n:])
    return Timed(contexts, design, held_out, train, *sides)


def _side(
    train: Ratings,
    which: Which,
    features: Features,
    table: pd.DataFrame | None,
    trained: tuple[Array, Array],
    held_out: tuple[Array, Array],
) -> tuple[TimedSide, Array, IdMap]:
    """A side, the row of each training rating and of each held-out pair (-1 where unknown), and the rows' names.

    Args:
        trained, held_out: place and day of each.
    """
    base, others = rows_of(train, which, table)
    first, last = int(trained[1].min()), int(trained[1].max())
    places, days = (np.concatenate(pair) for pair in zip(trained, held_out, strict=True))
    known = np.flatnonzero(places >= 0)
    moments = Moments(days[known], np.zeros(len(known), np.int64), first, last)
    keys = np.column_stack([places[known], *(cells(block, moments) for block in features.of_time)])
    _, begins, at = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    at = at.ravel()
    row_of = np.full(len(places), -1, np.int64)
    row_of[known] = at
    counts = np.bincount(row_of[: len(trained[0])], minlength=len(begins))
    rows = _rows(base, places[known][begins], Moments(days[known][begins], counts, first, last))
    names = rows.ids
    if features.of_time:
        dates = days[known][begins].astype("datetime64[D]")
        names = np.array([f"{raw} on {date}" for raw, date in zip(rows.ids, dates, strict=True)], dtype=object)
    return TimedSide(features, base, features.describe(rows, others, which), first, last), row_of, IdMap(names)


def _rows(base: Rows, places: Array, moments: Moments) -> Rows:
    rated = None if base.rated is None else base.rated[places]
    return Rows(base.ids[places], base.table.iloc[places], rated, moments)
