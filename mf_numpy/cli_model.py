"""The commands that use a saved model or look at data; `mf_numpy.cli` gives them their arguments."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from rich.console import Console

from mf_numpy import store
from mf_numpy.cli_output import console, decimals, facts, frame, read, table, warn
from mf_numpy.cli_times import as_of, times_of
from mf_numpy.config import RANKING, Config
from mf_numpy.errors import ConfigError, DataError, choose, counted
from mf_numpy.facts import read_lines
from mf_numpy.files import check_writable, replacing
from mf_numpy.ranking import Gain
from mf_numpy.ratings import Array, IdMap, Ratings
from mf_numpy.recipes import RECIPES, Recipe
from mf_numpy.result import FitResult
from mf_numpy.similar import Measure
from mf_numpy.split import Holdout
from mf_numpy.uncertainty import LEAST_LENGTH, agreement, chains_of, intervals

_COMPARED = 1000
"""Pairs at whose predictions chains are compared."""


def describe(data: str, *, plots: str | None, reader: Mapping[str, Any]) -> None:
    """Print what a data set looks like, and draw it into a folder when asked."""
    from mf_numpy import describe as description

    if plots is not None:
        Path(plots).mkdir(parents=True, exist_ok=True)
    out = console()
    ratings = read(data, reader)
    out.print(f"{data}: {facts(ratings)}")
    table(out, ["quantity", "value"], description.describe(ratings).lines())
    if plots is not None:
        for name, draw in (("ratings", description.plot_distribution), ("counts", description.plot_counts)):
            out.print(f"drawn: {draw(ratings, Path(plots) / f'{name}.svg')}", soft_wrap=True)


def evaluate(model: str, data: str, *, reader: Mapping[str, Any]) -> None:
    """Score a saved model on a table of ratings."""
    whole = store.load(model)
    ratings = read(data, reader)
    times = None if ratings.timestamps is None else times_of(whole)
    result = as_of(whole) if times is None else whole.at(times.last)
    pairs = _pairs(result, ratings)
    out = console()
    out.print(f"{data}: {facts(ratings)}")
    # Each pair at its own time, where it has one.
    scores = result.score(pairs) if times is None else times.score(whole, pairs)
    table(
        out,
        ["pairs", "RMSE", "MAE", "count"],
        [
            ("user and item known", decimals(scores.rmse), decimals(scores.mae), f"{scores.n_scored:,}"),
            ("all, cold ones by mean and bias", decimals(scores.rmse_all), decimals(scores.mae_all), f"{len(pairs):,}"),
        ],
    )
    draws = result.draws if times is None else None
    if draws and pairs.n_scored:
        known, level = pairs.known, 0.9
        found = intervals(draws, pairs.users[known], pairs.items[known], level)
        inside, long = 100 * found.covered(pairs.values[known]), decimals(float(np.mean(found.high - found.low)))
        out.print(
            f"{inside:.1f} % of them lie in their {100 * level:.0f} % intervals, which are {long} long on average",
            soft_wrap=True,
        )
        chains = chains_of(draws, result.config)
        if len(chains) > 1 and len(chains[0]) >= LEAST_LENGTH:
            told = agreement(chains, pairs.users[known][:_COMPARED], pairs.items[known][:_COMPARED])
            out.print(
                f"{len(chains)} chains: {told.advice or f'split-R̂ is {told.r_hat:.2f} at most: they agree'}",
                soft_wrap=True,
            )
    trained = _n_trained_on(result, pairs)
    if trained:
        out.print(
            f"{trained:,} of these {len(pairs):,} pairs were in the training set, so this is no measure of new ratings",
            soft_wrap=True,
        )


def _pairs(result: FitResult, ratings: Ratings) -> Holdout:
    ids = result.catalogue
    return Holdout(
        ids.user_ids.encode(ratings.user_ids.raw)[ratings.users],
        ids.item_ids.encode(ratings.item_ids.raw)[ratings.items],
        ratings.values,
        ratings.timestamps,
    )


def _n_trained_on(result: FitResult, pairs: Holdout) -> int:
    seen, n_items = result.catalogue.seen, len(result.catalogue.item_ids)
    rows = np.repeat(np.arange(len(seen.indptr) - 1, dtype=np.int64), np.diff(seen.indptr))
    known = pairs.known
    return int(np.isin(pairs.users[known] * n_items + pairs.items[known], rows * n_items + seen.indices).sum())


def raw_id(ids: IdMap, text: str, what: str) -> Any:
    """An id typed on the command line, in the type of the model's ids.

    Raises:
        DataError: text that is no whole number where the ids are.
    """
    if ids.is_text:
        return text
    try:
        value = int(text)
        np.int64(value)
    except (ValueError, OverflowError):
        example = f", such as {ids.raw[0]}" if len(ids) else ""
        raise DataError(f"{what} is {text!r}, but the {what}s of this model are whole numbers{example}") from None
    return value


def predict(model: str, user: str, item: str, *, clip: bool, level: float | None, at: str | None = None) -> None:
    """Print one predicted rating, and where it lies with probability `level` when asked."""
    result = as_of(store.load(model), at)
    _check_clip(result, clip)
    ids = result.catalogue
    pair = [raw_id(ids.user_ids, user, "user")], [raw_id(ids.item_ids, item, "item")]
    made = result.predict(*pair, clip=clip)
    ends = None if level is None else _ends(result, *pair, level, clip)
    _warn_unknown(made.n_unknown_users and f"user {user}", made.n_unknown_items and f"item {item}")
    if result.config.loss in RANKING:
        warn(f"note: with loss {result.config.loss!r} this is a score that items are ranked by, and no rating")
    out = console()
    out.print(decimals(made.values[0]))
    if ends is not None and level is not None:
        low, high = (decimals(end[0]) for end in ends)
        out.print(f"{100 * level:g} % interval: {low} to {high}")
    if result.params.cuts is not None:
        chances = result.probabilities(*pair).iloc[0]
        table(out, ["grade", "probability"], [(f"{grade:g}", decimals(p)) for grade, p in chances.items()])


def predict_pairs(
    model: str,
    pairs: str,
    output: str | None,
    *,
    user: str,
    item: str,
    clip: bool,
    level: float | None,
    at: str | None = None,
) -> None:
    """Predict every pair of a CSV, TSV or Parquet file; write a CSV with the column ``predicted`` added.

    With `level` the ends of intervals are added as ``low`` and ``high``, empty where a user or an item is unknown.
    """
    result = as_of(store.load(model), at)
    _check_clip(result, clip)
    if output is not None:
        check_writable(output)
    rows = read_lines(Path(pairs), {user: "--user", item: "--item"})
    ids = result.catalogue
    who, what = _column(rows[user], ids.user_ids, user), _column(rows[item], ids.item_ids, item)
    made = result.predict(who, what, clip=clip)
    rows["predicted"] = made.values
    if level is not None:
        known = (ids.user_ids.encode(who) >= 0) & (ids.item_ids.encode(what) >= 0)
        for name, end in zip(("low", "high"), _ends(result, who[known], what[known], level, clip), strict=True):
            rows[name] = np.nan
            rows.loc[known, name] = end
    _warn_unknown(
        made.n_unknown_users and f"the user of {counted(made.n_unknown_users, 'pair')}",
        made.n_unknown_items and f"the item of {counted(made.n_unknown_items, 'pair')}",
    )
    if output is None:
        rows.to_csv(sys.stdout, index=False)
        return
    with replacing(output) as partial:
        rows.to_csv(partial, index=False)
    console().print(f"{counted(len(rows), 'prediction')} saved to {output}", soft_wrap=True)


def _ends(result: FitResult, users: Any, items: Any, level: float, clip: bool) -> tuple[Array, Array]:
    """Where intervals begin and end, within the scale when `clip` asks for it."""
    found, scale = result.interval(users, items, level), result.catalogue.scale
    if not clip or scale is None:
        return found.low, found.high
    return np.clip(found.low, *scale), np.clip(found.high, *scale)


def _check_clip(result: FitResult, clip: bool) -> None:
    if clip and result.catalogue.scale is None:
        raise ConfigError("clip is given, but the model's training set declared no scale; fit it with --scale LO HI")


def _warn_unknown(*which: Any) -> None:
    for name in which:
        if name:
            warn(f"note: {name} was not in the training set; predicted by the mean and the known side's bias")


def _column(column: pd.Series[Any], ids: IdMap, what: str) -> Array:
    if ids.is_text:
        return column.astype(str).to_numpy(dtype=object)
    if column.dtype.kind in "iu":
        return column.to_numpy(dtype=np.int64)
    return np.array([raw_id(ids, str(text), what) for text in column], dtype=np.int64)


def recommend(
    model: str,
    user: str,
    *,
    n: int,
    with_seen: bool,
    items: list[str] | None,
    without: list[str] | None,
    diversity: float,
    at: str | None = None,
) -> None:
    """Print the best items of a user."""
    result = as_of(store.load(model), at)
    ids = result.catalogue.item_ids
    chosen = {
        name: None if given is None else [raw_id(ids, item, "item") for item in given]
        for name, given in (("items", items), ("without", without))
    }
    _recommend(console(), result, user, n, with_seen=with_seen, diversity=diversity, **chosen)


def _recommend(out: Console, result: FitResult, user: str, n: int, **options: Any) -> None:
    who = raw_id(result.catalogue.user_ids, user, "user")
    best = result.recommend(who, n, **options)
    if result.catalogue.user_ids.encode([who])[0] < 0:
        warn(f"note: user {user} was not in the training set; these are the items with the highest bias")
    elif len(best) < n:
        warn(f"note: user {user} has {counted(len(best), 'item')} left to recommend")
    ranked(out, best, "predicted")


def ranked(out: Console, best: pd.DataFrame, column: str) -> None:
    """Print a list by rank with one column of numbers."""
    best[column] = [decimals(value) for value in best[column]]
    frame(out, best.reset_index(), text=("item", "user", "title"))


def similar_items(model: str, item: str, *, n: int, measure: str) -> None:
    """Print the items most like one."""
    result = as_of(store.load(model))
    chosen: Any = choose("measure", measure, get_args(Measure))
    ranked(
        console(),
        result.similar_items(raw_id(result.catalogue.item_ids, item, "item"), n, measure=chosen),
        "similarity",
    )


def similar_users(model: str, user: str, *, n: int, measure: str) -> None:
    """Print the users most like one."""
    result = as_of(store.load(model))
    chosen: Any = choose("measure", measure, get_args(Measure))
    ranked(
        console(),
        result.similar_users(raw_id(result.catalogue.user_ids, user, "user"), n, measure=chosen),
        "similarity",
    )


def rank(model: str, data: str, *, k: list[int], threshold: float | None, gain: str, reader: Mapping[str, Any]) -> None:
    """Score a saved model's ranking of all items on a table of ratings."""
    result = as_of(store.load(model))
    chosen: Any = choose("gain", gain, get_args(Gain))
    ratings = read(data, reader)
    found = result.score_ranking(_pairs(result, ratings), k=k, threshold=threshold, gain=chosen)
    if not len(found.users):
        raise DataError(
            f"no rating of {found.threshold:g} or more is left to rank by: {found.n_trained:,} were in the training "
            f"set, and {found.n_cold:,} have a user or an item that was not; give other ratings, or lower --threshold"
        )
    out = console()
    out.print(f"{data}: {facts(ratings)}")
    pairs, users = counted(found.n_relevant, "pair"), counted(len(found.users), "user")
    items = counted(len(result.catalogue.item_ids), "item")
    rows = ((name, *map(_number, row)) for name, row in found.table().iterrows())
    table(out, ["metric", "value", "low", "high"], rows)
    left_out = [
        words
        for number, words in (
            (found.n_trained, counted(found.n_trained, "pair") + " of the training set"),
            (found.n_cold, counted(found.n_cold, "pair") + " whose user or item was not in it"),
            (found.n_without, counted(found.n_without, "user") + " without a relevant item"),
        )
        if number
    ]
    out.print(
        f"{pairs} rated {found.threshold:g} or more, of {users}, ranked among {items}; means over users, "
        "95 % intervals by bootstrap" + (f"; left out: {', '.join(left_out)}" if left_out else ""),
        soft_wrap=True,
    )


def _number(value: float) -> str:
    return "-" if np.isnan(value) else decimals(value)


def look(model: str, data: str, user: str, *, n: int, reader: Mapping[str, Any]) -> None:
    """Print a user's own ratings beside the predictions, then what to recommend."""
    result = as_of(store.load(model))
    ratings = read(data, reader)
    out = console()
    who = raw_id(ratings.user_ids, user, "user")
    index = ratings.user_ids.encode([who])[0]
    if index < 0:
        raise DataError(f"user {user!r} is not in {data}; its users are such as {ratings.user_ids.raw[:3].tolist()}")
    view = ratings.csr
    own = slice(view.indptr[index], view.indptr[index + 1])
    items, values = ratings.item_ids.raw[view.indices[own]], view.arranged(ratings.values)[own]
    predicted = result.predict([raw_id(result.catalogue.user_ids, user, "user")] * len(items), items).values
    order = np.argsort(-values, kind="stable")[:n]
    out.print(f"{counted(len(items), 'rating')} of user {user}, the best {len(order)} of them:")
    columns = {"item": items, "title": _titles(result, ratings, items), "rating": [f"{v:g}" for v in values]}
    columns |= {"predicted": [decimals(p) for p in predicted], "difference": [f"{d:+.4f}" for d in predicted - values]}
    shown = pd.DataFrame({name: column for name, column in columns.items() if column is not None}).iloc[order]
    frame(out, shown, text=("item", "title"))
    out.print(f"\nrecommended to user {user}, who has not rated these in training:")
    _recommend(out, result, user, 10)


def _titles(result: FitResult, ratings: Ratings, items: Array) -> Array | None:
    if ratings.item_info is not None and "title" in ratings.item_info:
        return ratings.item_info["title"].reindex(pd.Index(items)).fillna("").to_numpy(dtype=object)
    if result.catalogue.titles is None:
        return None
    at = result.catalogue.item_ids.encode(items)
    return np.where(at >= 0, result.catalogue.titles[at], "")


def recipes() -> None:
    """Print the recipes and the settings of each."""
    out = console()
    for name, recipe in RECIPES.items():
        out.print(f"{name}: {recipe.about}", soft_wrap=True)
    columns = {name: (recipe.config, recipe) for name, recipe in RECIPES.items()}
    for name, recipe in RECIPES.items():
        columns |= {f"{name} from {least:,}": (config, recipe) for least, config in recipe.larger}
    rows = [(f.name, *(_setting(f.name, *column) for column in columns.values())) for f in fields(Config)]
    table(out, ["setting", *columns], [*rows, ("valid", *(recipe.valid for _, recipe in columns.values()))])


def _setting(name: str, config: Config, recipe: Recipe) -> str:
    if name == "reg" and recipe.ridge is not None:
        return f"{recipe.ridge:g}/N"
    value = getattr(config, name)
    return "-" if value in (None, ()) else str(value)


def data() -> None:
    """Print the data sets that have a name, and where each was found."""
    from mf_numpy import datasets

    out = console()
    rows = [(name, known.about, _found(name)) for name, known in datasets.REGISTRY.items()]
    table(out, ["name", "about", "found"], rows, text=("about", "found"))
    out.print(f"looked in {' and '.join(str(folder) for folder in _folders())}", soft_wrap=True)


def _folders() -> list[Path]:
    from mf_numpy import datasets

    return [folder for folder in (datasets.find_data_dir(), datasets.cache_dir()) if folder is not None]


def _found(name: str) -> str:
    if name == "planted":
        return "drawn when asked for"
    places = [folder / file for folder in _folders() for file in (name, f"{name}.zip")]
    return next((str(place) for place in places if place.exists()), "not here")
