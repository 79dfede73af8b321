"""Features in words, for a command line and a model file: ``id, tags:genres, bins:age:6, category:type*0.3``.

A block is its kind, its column after a colon, and what else it needs after another: the number of bins, or what stands
between two tags if that is no comma; its weight stands behind a star. Those of time, ``day``, ``drift``,
``time_bins:30`` and ``popularity:10``, have no column. What a model remembers of its features lies in
`mf_numpy.result.FitResult.details`, as words and the facts that they were made from: so that a model from a file can
describe rows that come later, none of its matrices being read for it. Of users and items at a time it lies in
`mf_numpy.timed.Times`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from mf_numpy.errors import ConfigError, DataError, choose
from mf_numpy.features import SIDES, Block, Described, Features, Which
from mf_numpy.ratings import Array, Ratings
from mf_numpy.result import Catalogue, FitResult
from mf_numpy.time_features import TIMED
from mf_numpy.timed import Times

Json = dict[str, Any]

KINDS = ("id", "rated", "category", "tags", "bins", "number", *TIMED)


def features_of(words: str) -> Features:
    """The blocks that are named.

    Raises:
        ConfigError: a text that names no block, or one that there is not.
    """
    out = Features()
    for block in filter(None, map(str.strip, words.split(","))):
        out = _with(out, block)
    if not out.blocks:
        raise ConfigError(f"features are {words!r}, which names none; begin with id, such as 'id, tags:genres'")
    return out


def _with(features: Features, block: str) -> Features:
    text, _, heavy = block.partition("*")
    kind, *rest = (part.strip() for part in text.split(":"))
    choose("a feature", kind, KINDS)
    try:
        weight = float(heavy) if heavy else 1.0
        if kind in ("id", "rated", "day", "drift") and not rest:
            return getattr(features, kind)(weight=weight)  # type: ignore[no-any-return]
        if kind in ("category", "number") and len(rest) == 1:
            return getattr(features, kind)(rest[0], weight=weight)  # type: ignore[no-any-return]
        if kind == "tags" and len(rest) in (1, 2):
            return features.tags(rest[0], separator=rest[1] if rest[1:] else ",", weight=weight)
        if kind in ("time_bins", "popularity") and len(rest) == 1:
            return getattr(features, kind)(int(rest[0]), weight=weight)  # type: ignore[no-any-return]
        if kind == "bins" and len(rest) == 2:
            return features.bins(rest[0], int(rest[1]), weight=weight)
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
    needs = {"bins": ":COLUMN:NUMBER", "time_bins": ":NUMBER", "popularity": ":NUMBER"}
    needs |= dict.fromkeys(("category", "tags", "number"), ":COLUMN")
    raise ConfigError(
        f"the feature {block!r} cannot be read; write it as {kind}{needs.get(kind, '')}, with *WEIGHT behind it"
    )


def describe(train: Ratings, which: Which, words: str, table: pd.DataFrame | None) -> tuple[Described, Json]:
    """One side of a training set with its features, and what a model is to remember of them.

    Args:
        table: facts by raw id; of items by default the set's own.

    Raises:
        ConfigError: as `features_of`, or a column that the table lacks.
        DataError: as `mf_numpy.features.Features.fit`.
    """
    features = features_of(words)
    if table is None and which == "items":
        table = train.item_info
    made = features.fit(train, which, table)
    ids = train.user_ids if which == "users" else train.item_ids
    columns = [block.column for block in features.blocks if block.column]
    facts = {} if table is None else {name: _plain(table[name].reindex(pd.Index(ids.raw))) for name in columns}
    return made, {"words": words, "facts": facts}


def described(result: FitResult, which: Which) -> Described | None:
    """How a model describes rows of a side that come later; None where that side is of ids alone.

    Raises:
        DataError: a design that the model does not remember in words.
    """
    remembered: Mapping[str, Any] = result.details.get("features", {})
    if which not in remembered:
        if result.design is not None and not remembered:
            raise DataError(
                "the model's features were given as a design, which says nothing of new rows; "
                "describe them where it was made, with Described.rows"
            )
        return None
    catalogue, made = result.catalogue, remembered[which]
    users = np.repeat(np.arange(len(catalogue.user_ids)), np.diff(catalogue.seen.indptr))
    pattern = Ratings(
        users, catalogue.seen.indices, np.zeros(len(users)), catalogue.user_ids, catalogue.item_ids
    )  # fmt: skip
    ids = catalogue.user_ids if which == "users" else catalogue.item_ids
    table = pd.DataFrame(made["facts"], index=pd.Index(ids.raw))
    return features_of(made["words"]).fit(pattern, which, table)


def remembered(times: Times) -> Json:
    """What a model file keeps, beside arrays, of how users and items are described at any time."""
    out: Json = {}
    for which, features, table in zip(SIDES, times.features, times.facts, strict=True):
        columns = [block.column for block in features.blocks if block.column]
        facts = {name: _plain(table[name]) for name in columns}
        out[which] = {"blocks": [asdict(block) for block in features.blocks], "facts": facts}
    return out


def times(kept: Json, catalogue: Catalogue, days: Array) -> Times:
    """What `remembered` made, with the names and days of the training ratings.

    Raises:
        ConfigError: features that there are not.
        LookupError: an entry that is missing.
        TypeError, ValueError: entries that describe no features of these users and items.
    """
    features, facts = [], []
    for which, ids in zip(SIDES, (catalogue.user_ids, catalogue.item_ids), strict=True):
        blocks = tuple(Block(**block) for block in kept[which]["blocks"])
        for block in blocks:
            choose("a feature", block.kind, KINDS)
        features.append(Features(blocks))
        facts.append(pd.DataFrame(kept[which]["facts"], index=pd.Index(ids.raw)))
    return Times(catalogue, days, (features[0], features[1]), (facts[0], facts[1]))


def _plain(column: pd.Series[Any]) -> list[Any]:
    """Values that JSON has; None where there is nothing."""
    return [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
