"""Users and items at a time (Eq. 41): one who is described anew each day is a row of the design for each day.

``timed(train, users=Features().id().rated().day(), items=Features().id().time_bins(30))`` makes of a training set one
whose users are users on a day and whose items are items in a bin; both packages fit it as any other, with its design.
`Timed.at` turns what was learned back into a model of users and items, as of a day; so does `FitResult.at`, also of a
model that was read from a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mf_numpy import design as by_hand
from mf_numpy import losses
from mf_numpy.design import Design, Side
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.features import SIDES, Described, Features, Rows, Which, facts_of, rows_of
from mf_numpy.metrics import Scores, predict_known_and_cold, score_predictions
from mf_numpy.model import Params, chunks
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
        base: them without a time.
        described: the rows of the training ratings.
        first, last: day of the first and of the last training rating.
    """

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
class Times:
    """What users and items at any time are described by; a model file keeps it.

    Attributes:
        catalogue: of the training set that has the times.
        days: (N,) int64, the day of each rating of ``catalogue.seen``.
        features: what users and what items are made of.
        facts: tables about users and about items, one line each.
    """

    catalogue: Catalogue
    days: Array
    features: tuple[Features, Features]
    facts: tuple[pd.DataFrame, pd.DataFrame]

    @cached_property
    def users(self) -> TimedSide:
        """The users."""
        return self._side("users", self._rated.users)

    @cached_property
    def items(self) -> TimedSide:
        """The items."""
        return self._side("items", self._rated.items)

    @property
    def last(self) -> int:
        """When training ends: the first second of its last day."""
        return int(self.days.max()) * DAY

    @cached_property
    def _rated(self) -> Ratings:
        """The training pairs without their ratings, by user."""
        seen = self.catalogue.seen
        users = np.repeat(np.arange(len(seen.indptr) - 1), np.diff(seen.indptr))
        return Ratings(
            users, seen.indices, np.zeros(len(users)), self.catalogue.user_ids, self.catalogue.item_ids
        )  # fmt: skip

    def _side(self, which: Which, places: Array) -> TimedSide:
        k = SIDES.index(which)
        features, table = self.features[k], self.facts[k]
        base, others = rows_of(self._rated, which, table)
        first, last = int(self.days.min()), int(self.days.max())
        begins, at = _told_apart(features, places, self.days, first, last)
        counts = np.bincount(at, minlength=len(begins))
        rows = _rows(base, places[begins], Moments(self.days[begins], counts, first, last))
        return TimedSide(base, features.describe(rows, others, which), first, last)

    def at(self, found: FitResult, timestamp: int) -> FitResult:
        """What a fit has learned of rows at a time, as a model of users and items at one time.

        Raises:
            ConfigError: a fit of other features.
        """
        theta = self._features_of(found)
        m, n = len(self.catalogue.user_ids), len(self.catalogue.item_ids)
        day = timestamp // DAY
        users, items = self.users.rows(np.arange(m), np.full(m, day)), self.items.rows(np.arange(n), np.full(n, day))
        then = Design(users, items)
        return replace(found, params=by_hand.rows(theta, then), design=then, catalogue=self.catalogue)

    def expected(self, found: FitResult, pairs: Holdout) -> Array:
        """The rating to expect of each pair at its time, (B,).

        Args:
            pairs: with timestamps, encoded with the ids of `catalogue`.

        Raises:
            ConfigError: a fit of other features.
            DataError: no timestamps.
        """
        theta = self._features_of(found)
        if pairs.timestamps is None:
            raise DataError("the pairs have no timestamps; give one a pair, or ask for the model at one time")
        days = _days(pairs.timestamps)
        draws = found.state.draws if theta.cuts is not None else None
        points = draws.points if draws else (theta,)
        values = np.zeros(len(pairs), np.float64 if draws else theta.P.dtype)
        mean = losses.prediction_of(self.catalogue.mean, found.config)
        # A row of the design for each pair, and of a mean over draws each has many factors.
        for part in chunks(len(pairs), theta.shape[2]):
            u, i, day = pairs.users[part], pairs.items[part], days[part]
            # Nobody's rows are those of the first and are not read.
            design = Design(self.users.rows(np.maximum(u, 0), day), self.items.rows(np.maximum(i, 0), day))
            at = np.arange(len(u))
            for point in points:
                rows = by_hand.rows(point, design)
                scores, _ = predict_known_and_cold(rows, np.where(u < 0, -1, at), np.where(i < 0, -1, at), mean)
                values[part] += losses.mean_of(scores, found.config, rows.cuts) / len(points)
        return values

    def score(self, found: FitResult, pairs: Holdout) -> Scores:
        """Errors of what is `expected` of pairs at their times; see there."""
        return score_predictions(self.expected(found, pairs), pairs.values, pairs.known)

    def predict(
        self, found: FitResult, users: Iterable[Any], items: Iterable[Any], timestamps: Iterable[int]
    ) -> Predictions:
        """Predict pairs of raw ids, each at a time of its own: three sequences of one length B.

        Raises:
            ConfigError: a fit of other features.
            ValueError: sequences of different lengths.
        """
        u, i = self.catalogue.user_ids.encode(users), self.catalogue.item_ids.encode(items)
        stamps = np.asarray(list(timestamps), np.int64)
        if not len(u) == len(i) == len(stamps):
            raise ValueError(
                f"got {len(u)} users, {len(i)} items and {len(stamps)} timestamps; give one of each a pair"
            )
        values = self.expected(found, Holdout(u, i, np.zeros(len(u)), stamps))
        return Predictions(values, int((u < 0).sum()), int((i < 0).sum()))

    def _features_of(self, found: FitResult) -> Params:
        named = None if found.design is None else (found.design.users.names, found.design.items.names)
        if found.of_features is None or named != (self.users.described.names, self.items.described.names):
            raise ConfigError("the model is of other features than these users and items at a time; fit it with them")
        return found.of_features


@dataclass(frozen=True, eq=False)
class Timed:
    """A training set of users and items at a time.

    Attributes:
        train: the ratings of ``original``, in its order; a user is a user at a time, an item likewise.
        design: what these are made of, and what they are made of at other times.
        valid: the held-out pairs that came, encoded with the ids of `train`; None if there came none.
        original: the training set that it was made of.
    """

    train: Ratings
    design: Design
    valid: Holdout | None
    original: Ratings

    def at(self, found: FitResult, timestamp: int) -> FitResult:
        """What a fit of `train` with `design` learned, as a model of the original users and items at a time.

        Raises:
            ConfigError: a fit of something else.
        """
        return self._times_of(found).at(found, timestamp)

    def predict(
        self, found: FitResult, users: Iterable[Any], items: Iterable[Any], timestamps: Iterable[int]
    ) -> Predictions:
        """Predict pairs of raw ids, each at a time of its own: three sequences of one length B.

        Raises:
            ConfigError: a fit of something else.
            ValueError: sequences of different lengths.
        """
        return self._times_of(found).predict(found, users, items, timestamps)

    def _times_of(self, found: FitResult) -> Times:
        if found.of_features is None or found.design is None or not found.design.same_as(self.design):
            raise ConfigError("the model is no fit of this design; fit timed.train with design=timed.design")
        assert self.design.times is not None
        return self.design.times


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
    times = _times(train, (users or Features().id(), items or Features().id()), (user_info, item_info))
    pairs: list[Ratings | Holdout] = [train] if valid is None else [train, valid]
    days = np.concatenate([_days(some.timestamps) for some in pairs])
    of_users, users_side, user_ids = _contexts(times, "users", np.concatenate([some.users for some in pairs]), days)
    of_items, items_side, item_ids = _contexts(times, "items", np.concatenate([some.items for some in pairs]), days)
    n = len(train)
    contexts = replace(
        train, users=of_users[:n], items=of_items[:n], user_ids=user_ids, item_ids=item_ids, item_info=None
    )  # fmt: skip
    held_out = None if valid is None else replace(valid, users=of_users[n:], items=of_items[n:])
    return Timed(contexts, Design(users_side, items_side, times), held_out, train)


def _times(
    train: Ratings, features: tuple[Features, Features], tables: tuple[pd.DataFrame | None, pd.DataFrame | None]
) -> Times:
    catalogue = Catalogue.of(train)
    days = catalogue.seen.arranged(_days(train.timestamps))
    facts = facts_of(train, "users", tables[0]), facts_of(train, "items", tables[1])
    return Times(catalogue, days, features, facts)


def _days(timestamps: Array | None) -> Array:
    days: Array = np.asarray(timestamps, np.int64) // DAY
    return days


def _contexts(times: Times, which: Which, places: Array, days: Array) -> tuple[Array, Side, IdMap]:
    """A side's row of each rating and held-out pair (-1 where unknown), what the rows are made of, and their names.

    Args:
        places, days: of each.
    """
    side, features = getattr(times, which), times.features[SIDES.index(which)]
    known = np.flatnonzero(places >= 0)
    begins, at = _told_apart(features, places[known], days[known], side.first, side.last)
    row_of = np.full(len(places), -1, np.int64)
    row_of[known] = at
    who, when = places[known][begins], days[known][begins]
    names = side.base.ids[who]
    if features.of_time:
        dates = when.astype("datetime64[D]")
        names = np.array([f"{raw} on {date}" for raw, date in zip(names, dates, strict=True)], dtype=object)
    return row_of, side.rows(who, when), IdMap(names)


def _told_apart(features: Features, places: Array, days: Array, first: int, last: int) -> tuple[Array, Array]:
    """Which of some rows at times to keep, so that each that features can tell apart is there once, and each one's."""
    moments = Moments(days, np.zeros(len(days), np.int64), first, last)
    keys = np.column_stack([places, *(cells(block, moments) for block in features.of_time)])
    _, begins, at = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return begins, at.ravel()


def _rows(base: Rows, places: Array, moments: Moments) -> Rows:
    rated = None if base.rated is None else base.rated[places]
    return Rows(base.ids[places], base.table.iloc[places], rated, moments)
