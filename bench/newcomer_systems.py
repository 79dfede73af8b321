"""What predicts for users and items that training has not seen: baselines, and fits with and without features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Protocol

import numpy as np
import pandas as pd

from bench.newcomer_data import Division, Facts, Hidden
from bench.whole_fit import fit
from mf_numpy import Config, Design, Features
from mf_numpy.asking import suggest
from mf_numpy.baselines import bias_only
from mf_numpy.design import Side
from mf_numpy.features import Described
from mf_numpy.fold_in import PriorName
from mf_numpy.metrics import predict_known_and_cold
from mf_numpy.model import Params
from mf_numpy.ratings import Array

Settings = Mapping[str, float]
DAMPING = 5.0
"""Ratings' worth of pull of a newcomer's mean towards 0, as `mf_numpy.baselines.bias_only` has it."""


class Predictor(Protocol):
    """A system that has seen the training ratings of a division."""

    def warm(self) -> Array:
        """Predictions of the held-out ratings whose user and item are known."""

    def cold(self, hidden: Hidden, given: pd.Series[float]) -> Array:
        """Predictions (S,) of a hidden row's scored ratings, from those that are given."""


Make = Callable[[Division, Facts | None, Settings, Config], Predictor]


@dataclass(frozen=True)
class System:
    """A way to predict, and the settings that are tried for it.

    Attributes:
        make: takes a division, what is known of its hidden side, settings, and the rest of the configuration.
        facts: whether it needs any.
        asks: whether it matters which of a newcomer's ratings it is given.
    """

    name: str
    make: Make
    grid: tuple[Settings, ...] = field(default=({},))
    facts: bool = False
    asks: bool = False


class Mean:
    """The mean rating, whoever it is."""

    def __init__(self, division: Division, facts: Facts | None, settings: Settings, config: Config) -> None:
        self.division = division

    def warm(self) -> Array:
        return np.full(self.division.warm.n_scored, self.division.train.mean)

    def cold(self, hidden: Hidden, given: pd.Series[float]) -> Array:
        return np.full(len(hidden.values), self.division.train.mean)


class Biases:
    """The mean, the other side's bias, and the damped mean of what a newcomer's ratings leave: popularity."""

    def __init__(self, division: Division, facts: Facts | None, settings: Settings, config: Config) -> None:
        self.division = division
        self.params = bias_only(division.train, damping=DAMPING)

    def warm(self) -> Array:
        return _warm(self.params, self.division)

    def cold(self, hidden: Hidden, given: pd.Series[float]) -> Array:
        left = given.to_numpy() - self._without(given.index.to_numpy())
        own = float(left.sum()) / (len(left) + DAMPING)
        return self._without(hidden.others) + own

    def _without(self, others: Array) -> Array:
        """What is predicted of a newcomer without ratings."""
        train = self.division.train
        of_users = self.division.side == "user"
        ids, bias = (train.item_ids, self.params.c) if of_users else (train.user_ids, self.params.b)
        assert bias is not None
        found: Array = train.mean + bias[ids.encode(others)]
        return found


class Fitted:
    """A factorisation whose hidden side is made of ids, of facts, or of both; ratings that are given are folded in.

    What holds a row where its ratings are few is the rows of training (Eq. 60), or for half-steps the penalty (Eq. 37).
    """

    def __init__(
        self, division: Division, facts: Facts | None, settings: Settings, config: Config, *, ids: bool = True,
        prior: PriorName | None = "rows",
    ) -> None:  # fmt: skip
        self.division, self.prior = division, prior
        self.described: Described | None = None
        train, design = division.train, None
        if facts is not None:
            made = facts.weighted(settings["weight"]).blocks
            features = Features((*Features().id().blocks, *made) if ids else made)
            self.described = features.fit(train, "users" if division.side == "user" else "items", facts.table)
            others = Side.identity(train.n_items if division.side == "user" else train.n_users)
            both = (self.described.side, others) if division.side == "user" else (others, self.described.side)
            design = Design(*both)
            lines = facts.table.reindex(pd.Index([one.raw for one in division.hidden]))
            self.made = dict(zip(lines.index, self.described.rows(lines), strict=True))
        self.result = fit(train, replace(config, reg=settings["reg"]), design=design)

    def warm(self) -> Array:
        return _warm(self.result.params, self.division)

    def cold(self, hidden: Hidden, given: pd.Series[float]) -> Array:
        fold_in = self.result.fold_in_user if self.division.side == "user" else self.result.fold_in_item
        made = None if self.described is None else self.made[hidden.raw].reshape(1, -1).tocsr()
        # Rows that are facts alone take no rating.
        found = fold_in(given, made, prior=self.prior) if self.prior else fold_in({}, made)
        return found.predict(hidden.others)

    def suggested(self, hidden: Hidden, n: int) -> pd.Series[float]:
        """The first `n` of the offered ratings in the order in which they would be asked for."""
        side = self.division.side
        asked = suggest(self.result, side, n, among=hidden.offered.index, sure=True)
        return hidden.offered.loc[asked["item" if side == "user" else "user"]]


def _warm(params: Params, division: Division) -> Array:
    predicted, known = predict_known_and_cold(params, division.warm.users, division.warm.items, division.train.mean)
    return predicted[known]


def _by_ids(division: Division, facts: Facts | None, settings: Settings, config: Config) -> Predictor:
    return Fitted(division, None, settings, config)


def _by_facts(division: Division, facts: Facts | None, settings: Settings, config: Config) -> Predictor:
    return Fitted(division, facts, settings, config, ids=False, prior=None)


def _by_half_steps(division: Division, facts: Facts | None, settings: Settings, config: Config) -> Predictor:
    return Fitted(division, None, settings, config, prior="penalty")


def _by_both(division: Division, facts: Facts | None, settings: Settings, config: Config) -> Predictor:
    return Fitted(division, facts, settings, config)


REGS = (0.03, 0.06, 0.12)
WEIGHTS = (0.3, 1.0, 3.0)


def _grid(**values: tuple[float, ...]) -> tuple[Settings, ...]:
    return tuple(dict(zip(values, point, strict=True)) for point in product(*values.values()))


SYSTEMS = (
    System("mean", Mean),
    System("biases", Biases),
    System("features alone", _by_facts, _grid(reg=REGS, weight=WEIGHTS), facts=True),
    System("half-step", _by_half_steps, _grid(reg=REGS)),
    System("ids", _by_ids, _grid(reg=REGS), asks=True),
    System("ids and features", _by_both, _grid(reg=REGS, weight=WEIGHTS), facts=True, asks=True),
)
BASELINE, PLAIN = "biases", "ids"
"""What the others are compared with: where training has not seen the row, and where it has."""
