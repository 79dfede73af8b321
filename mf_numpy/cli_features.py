"""What the command line does with features and newcomers: designs for ``fit``, ``fold-in`` and ``suggest-items``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mf_numpy import datasets, feature_words, store
from mf_numpy import fold_in as folding
from mf_numpy.cli_model import ranked, raw_id
from mf_numpy.cli_output import console, warn
from mf_numpy.cli_times import as_of, times_of
from mf_numpy.design import Design, Side
from mf_numpy.errors import ConfigError, DataError, choose, counted
from mf_numpy.facts import read_facts, read_lines
from mf_numpy.feature_words import features_of
from mf_numpy.features import SIDES, Features, Which
from mf_numpy.ratings import Ratings
from mf_numpy.result import FitResult
from mf_numpy.split import Holdout
from mf_numpy.timed import timed

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Made:
    """What ``fit`` trains on and scores, where users and items may be those at a time.

    Attributes:
        train, valid: as they came, or with users and items at a time.
        design: what these are made of, or None.
        remembered: what the model is to remember of it in its details.
    """

    train: Ratings
    valid: Holdout | None
    design: Design | None = None
    remembered: Json = field(default_factory=dict)


def made_of(
    data: str, train: Ratings, valid: Holdout | None, asked: Mapping[str, str | None], earlier: FitResult | None
) -> Made:
    """The features that ``fit`` was asked for, or that a resumed model has.

    Raises:
        ConfigError: a table without features, or features for a model that is resumed.
        DataError: features of time for ratings without one.
    """
    if earlier is not None:
        given = next((name for name, value in asked.items() if value is not None), None)
        if given is not None:
            raise ConfigError(f"{given} and resume are both given; a resumed model has its own features, so drop them")
        times = times_of(earlier)
        if times is not None:
            return _at_times(data, train, valid, times.features, times.facts)
        remembered = {name: value for name, value in earlier.details.items() if name == "features"}
        return Made(train, valid, earlier.design, remembered)
    words: dict[Which, str | None] = {}
    tables: dict[Which, pd.DataFrame | None] = {}
    for which in SIDES:
        side = which.removesuffix("s")
        words[which], file = asked[f"{side}_features"], asked[f"{side}_facts"]
        if words[which] is None and file is not None:
            raise ConfigError(f"{side}_facts is given, but no features; say what is made of them")
        tables[which] = None if words[which] is None else _table(data, which, file, train)
    of_users, of_items = (Features().id() if text is None else features_of(text) for text in words.values())
    if of_users.of_time or of_items.of_time:
        return _at_times(data, train, valid, (of_users, of_items), (tables["users"], tables["items"]))
    sides: dict[Which, Side] = {}
    told: Json = {}
    for which, text in words.items():
        if text is None:
            ids = train.user_ids if which == "users" else train.item_ids
            sides[which] = Side.identity(len(ids), tuple(f"id={raw}" for raw in ids.raw))
            continue
        made, told[which] = feature_words.describe(train, which, text, tables[which])
        sides[which] = made.side
    if not told:
        return Made(train, valid)
    return Made(train, valid, Design(sides["users"], sides["items"]), {"features": told})


def _at_times(
    data: str,
    train: Ratings,
    valid: Holdout | None,
    features: tuple[Features, Features],
    tables: tuple[pd.DataFrame | None, pd.DataFrame | None],
) -> Made:
    kinds = [block.kind for side in features for block in side.of_time]
    if train.timestamps is None and kinds:
        raise DataError(
            f"{data} has no timestamps, which the feature {kinds[0]!r} needs; leave it out, or give a table with a time"
        )
    made = timed(train, *features, valid=valid, user_info=tables[0], item_info=tables[1])
    return Made(made.train, made.valid, made.design)


def _table(data: str, which: Which, file: str | None, train: Ratings) -> pd.DataFrame | None:
    ids = train.user_ids if which == "users" else train.item_ids
    if file is not None:
        return read_facts(file, text_ids=ids.is_text)
    if which == "users" and data in datasets.REGISTRY and data != "planted":
        return datasets.user_facts(data)
    return None


def remembering(result: FitResult, features: Json) -> FitResult:
    """The model with what it is to remember of its features."""
    return replace(result, details={**result.details, **features}) if features else result


def fold_in(
    model: str, ratings: str | None, *, of: str, facts: list[str], n: int, why: str | None, prior: str,
    ids: str | None, rating: str,
) -> None:  # fmt: skip
    """Print the best items for a new user, or users for a new item, or what speaks for one of them."""
    result = store.load(model)
    if times_of(result) is not None:
        raise ConfigError(
            "the model's users and items are those at a time, where nobody is folded in; fit without features of time"
        )
    which: Any = choose("of", of, ("user", "item"))
    other = "item" if which == "user" else "user"
    of_other = result.catalogue.item_ids if which == "user" else result.catalogue.user_ids
    told = pd.Series(dtype=np.float64)
    if ratings is not None:
        lines = read_lines(Path(ratings), {ids or other: "--id-column", rating: "--rating"})
        at = [raw_id(of_other, str(text), other) for text in lines[ids or other]]
        told = pd.Series(_numbers(lines[rating], ratings), index=pd.Index(at, dtype=of_other.raw.dtype))
    known = of_other.encode(told.index) >= 0
    if not known.all():
        warn(f"note: {counted(int((~known).sum()), other)} of {len(told)} not in the training set, and left out")
    told = told[known]
    held: Any = choose("prior", prior, ("rows", "penalty"))
    newcomer = folding.fold_in(result, which, told, _row(result, which, told, facts), prior=held)
    out = console()
    if why is not None:
        ranked(out, newcomer.why(raw_id(of_other, why, other)), "part")
        return
    out.print(f"found from {counted(len(told), 'rating')}" + (f" and {counted(len(facts), 'fact')}" if facts else ""))
    ranked(out, newcomer.recommend(n), "predicted")


def _numbers(column: pd.Series[Any], label: str) -> Any:
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.isna().any():
        bad = column[numbers.isna()].iloc[0]
        raise DataError(f"{Path(label).name} has the rating {bad!r}, which is no number; mend or drop that line")
    return numbers.to_numpy(np.float64)


def _row(result: FitResult, which: str, told: pd.Series[Any], facts: list[str]) -> sp.csr_array | None:
    """What a newcomer is made of, (1, features), where the model has a design."""
    side: Which = "users" if which == "user" else "items"
    given = dict(_fact(text) for text in facts)
    if result.design is None:
        if given:
            raise ConfigError("facts are given, but the model was trained without features; drop them")
        return None
    made = feature_words.described(result, side)
    if made is None:
        if given:
            raise ConfigError(f"facts are given, but the model's {side} are made of ids alone; drop them")
        return sp.csr_array((1, len(result.catalogue.user_ids if which == "user" else result.catalogue.item_ids)))
    columns = result.details["features"][side]["facts"]
    strange = next((name for name in given if name not in columns), None)
    if strange is not None:
        raise ConfigError(f"the fact {strange!r} is none of the model's, which are {', '.join(columns) or 'none'}")
    line = {name: [_typed(given.get(name), values)] for name, values in columns.items()}
    # An id that no row of training has.
    table = pd.DataFrame(line, index=pd.Index([None], dtype=object))
    others = result.catalogue.item_ids if which == "user" else result.catalogue.user_ids
    pattern = np.zeros((1, len(others)))
    pattern[0, others.encode(told.index)] = 1
    return made.rows(table, sp.csr_array(pattern))


def _typed(value: str | None, values: list[Any]) -> Any:
    """A fact as a number where those of training are numbers."""
    if value is None or any(isinstance(one, str) for one in values):
        return value
    number = pd.to_numeric(value, errors="coerce")
    if pd.isna(number):
        raise ConfigError(f"the fact {value!r} is no number, as those that the model was trained on are")
    return number


def _fact(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"the fact {text!r} cannot be read; write it as NAME=VALUE, such as gender=F")
    return name.strip(), value.strip()


def suggest_items(
    model: str, *, n: int, rated: list[str], items: list[str] | None, without: list[str] | None, sure: bool
) -> None:
    """Print the items to ask a new user about first."""
    result = as_of(store.load(model))
    ids = result.catalogue.item_ids

    def raw(given: list[str] | None) -> list[Any] | None:
        return None if given is None else [raw_id(ids, text, "item") for text in given]

    asked = result.suggest_items_to_rate(n, rated=raw(rated) or (), items=raw(items), without=raw(without), sure=sure)
    ranked(console(), asked, "left")
