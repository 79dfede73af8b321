"""What each command of `mf_numpy.cli` does, given its arguments as plain values."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from mf_numpy import store
from mf_numpy.config import Config
from mf_numpy.errors import ConfigError, DataError, choose
from mf_numpy.metrics import Scores
from mf_numpy.progress import Progress
from mf_numpy.ratings import Array, IdMap, Ratings
from mf_numpy.recipes import RECIPES
from mf_numpy.result import FitResult
from mf_numpy.split import Holdout, Split, random_split

INTERRUPTED = 130


def console() -> Console:
    """Where output goes: as wide as the terminal, and unbroken and without colours in a pipe."""
    # Made per call: tests and pipes exchange sys.stdout.
    return _console(sys.stdout)


def warn(text: str) -> None:
    """Say something beside the output."""
    _console(sys.stderr).print(text, soft_wrap=True)


def _console(file: Any) -> Console:
    return Console(file=file, highlight=False, markup=False, emoji=False, width=None if file.isatty() else 10_000)


def read(data: str, options: Mapping[str, Any]) -> Ratings:
    """The ratings of a data set's name or a file; options that are None are the reader's to choose."""
    from mf_numpy import datasets

    return datasets.load(data, **{name: value for name, value in options.items() if value is not None})


def fit(
    data: str,
    *,
    train_with: Callable[..., FitResult],
    how: Mapping[str, Any],
    recipe: str | None,
    settings: Mapping[str, Any],
    valid: float | None,
    output: str | None,
    resume: str | None,
    reader: Mapping[str, Any],
) -> int:
    """Fit a model, show its progress and its scores, save it; the exit code says how it ended."""
    out = console()
    earlier = None if resume is None else store.load(resume)
    if earlier is not None and recipe is not None:
        raise ConfigError("recipe and resume are both given; a resumed model has its own settings, so drop the recipe")
    base = RECIPES[choose("recipe", recipe or "biased", RECIPES)]
    config = replace(base.config if earlier is None else earlier.config, **_given(settings))
    share = base.valid if valid is None else valid
    first = 0 if earlier is None else earlier.state.epoch
    if earlier is not None and first >= config.n_epochs:
        raise ConfigError(f"the model has run {first} epochs already, and n_epochs is {config.n_epochs}; raise it")
    target = output or resume or "model.safetensors"
    store.check_writable(target)

    ratings = read(data, reader)
    split = _split(ratings, share, config.seed)
    out.print(f"{data}: {_facts(ratings)}", soft_wrap=True)
    if split.valid is not None:
        out.print(f"{len(split.valid):,} ratings ({share:.3g} of them) are held out, {split.valid.n_cold:,} cold")
    if earlier is not None:
        _check_same_ratings(earlier, split.train)
        out.print(f"going on from {resume} after epoch {first}", soft_wrap=True)

    waiting = "first epoch (Numba compiles its kernels at first use) …" if how.get("backend") == "numba" else "starting …"
    with _Interrupt() as interrupt:
        with Progress(out, config.n_epochs, first=first, waiting=waiting) as progress:
            result = train_with(
                split.train, config, valid=split.valid, callback=progress, resume=earlier, **how
            )  # fmt: skip
        # A second Ctrl-C must not lose what the first one asked to keep.
        interrupt.hold()
        learned = result.state.epoch > first or result.status == "max_epochs"
        if learned:
            store.save(result, target)
    failed = result.status == "diverged"
    if failed or interrupt.pressed:
        out.file.flush()
        warn(f"{result.status}: {result.message}")
    else:
        out.print(f"{result.status}: {result.message}", soft_wrap=True)
    if not learned:
        warn("no epoch was finished, so nothing was saved")
    else:
        _scores(out, result, split)
        out.print(f"saved to {target}", soft_wrap=True)
    return INTERRUPTED if interrupt.pressed else int(failed)


class _Split:
    """A training side, and perhaps held-out pairs."""

    def __init__(self, train: Ratings, valid: Holdout | None) -> None:
        self.train = train
        self.valid = valid


def _split(ratings: Ratings, share: float, seed: int) -> _Split:
    if share == 0:
        return _Split(ratings.compact(), None)
    parts: Split = random_split(ratings, valid=share, seed=seed)
    return _Split(parts.train, parts.valid)


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in settings.items() if value is not None}
    if "lr_schedule" in given:
        given["lr_schedule"] = _schedule(given["lr_schedule"])
    return given


def _schedule(text: str) -> tuple[tuple[int, float], ...]:
    pairs = [part.partition(":") for part in text.split(",") if part]
    try:
        return tuple((int(epoch), float(factor)) for epoch, _, factor in pairs)
    except ValueError:
        raise ConfigError(
            f"lr_schedule is {text!r}, but must be epoch:factor pairs with commas between, such as 60:0.3,90:0.1"
        ) from None


def _check_same_ratings(earlier: FitResult, train: Ratings) -> None:
    seen = earlier.catalogue.seen
    same = earlier.catalogue.user_ids == train.user_ids and earlier.catalogue.item_ids == train.item_ids
    if not (same and np.array_equal(seen.indptr, train.csr.indptr) and np.array_equal(seen.indices, train.csr.indices)):
        raise ConfigError(
            "cannot resume: these are not the model's training ratings; give the data, --valid and --seed of its fit"
        )


class _Interrupt:
    """Ctrl-C as Python's KeyboardInterrupt, remembered; after `hold` it is only remembered."""

    def __init__(self) -> None:
        self.pressed = False
        self.holding = False
        self.before: Any = None

    def __enter__(self) -> _Interrupt:
        # Only the main thread may set handlers, and a shell that ignores Ctrl-C for us has its reasons.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            self.before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)

    def hold(self) -> None:
        self.holding = True

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self.pressed = True
        if not self.holding:
            raise KeyboardInterrupt


def _facts(ratings: Ratings) -> str:
    parts = [
        f"{len(ratings):,} ratings",
        f"{ratings.n_users:,} users",
        f"{ratings.n_items:,} items",
        f"density {100 * ratings.density:.3g} %",
        f"mean {ratings.mean:.4f}",
    ]
    if ratings.scale is not None:
        parts.append(f"scale {ratings.scale[0]:g} to {ratings.scale[1]:g}")
    return ", ".join(parts)


def _scores(out: Console, result: FitResult, split: _Split) -> None:
    from mf_numpy.baselines import mean_and_bias_scores

    train = split.train
    on_train = Holdout(train.users, train.items, train.values)
    judged = on_train if split.valid is None else split.valid
    rows = [(name, None, scores) for name, scores in mean_and_bias_scores(train, judged).items()]
    trained = result.score(on_train)
    rows.append(("model", trained, trained if split.valid is None else result.score(judged)))
    if split.valid is None:
        table(
            out,
            ["", "train RMSE", "train MAE", "scored"],
            [(name, _4(s.rmse), _4(s.mae), f"{s.n_scored:,}") for name, _, s in rows],
        )
        return
    table(
        out,
        ["", "train RMSE", "valid RMSE", "valid MAE", "scored", "cold"],
        [
            (name, "-" if t is None else _4(t.rmse), _4(s.rmse), _4(s.mae), f"{s.n_scored:,}", f"{s.n_cold:,}")
            for name, t, s in rows
        ],
    )


def _4(number: float) -> str:
    return f"{number:.4f}"


def table(out: Console, columns: list[str], rows: Iterable[Iterable[object]], *, text: Iterable[str] = ()) -> None:
    """Print a table; the first column and those named in `text` are set left, numbers right."""
    left = {columns[0], *text}
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        grid.add_column(name, justify="left" if name in left else "right", no_wrap=True, overflow="ellipsis")
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    out.print(grid)


def describe(data: str, *, plots: str | None, reader: Mapping[str, Any]) -> None:
    """Print what a data set looks like, and draw it into a folder when asked."""
    from mf_numpy import describe as description

    out = console()
    ratings = read(data, reader)
    out.print(f"{data}: {_facts(ratings)}", soft_wrap=True)
    frame(out, description.describe(ratings))
    if plots is not None:
        for path in description.plot(ratings, plots):
            out.print(f"drawn: {path}", soft_wrap=True)


def frame(out: Console, data: Any, *, text: Iterable[str] = ()) -> None:
    """Print a table of pandas."""
    shown = pd.DataFrame(data)
    table(out, [str(name) for name in shown.columns], shown.itertuples(index=False), text=text)


def evaluate(model: str, data: str, *, reader: Mapping[str, Any]) -> None:
    """Score a saved model on a table of ratings."""
    result = store.load(model)
    ratings = read(data, reader)
    catalogue = result.catalogue
    pairs = Holdout(
        catalogue.user_ids.encode(ratings.user_ids.raw)[ratings.users],
        catalogue.item_ids.encode(ratings.item_ids.raw)[ratings.items],
        ratings.values,
    )
    out = console()
    out.print(f"{data}: {_facts(ratings)}", soft_wrap=True)
    scores: Scores = result.score(pairs)
    table(
        out,
        ["pairs", "RMSE", "MAE", "count"],
        [
            ("user and item known", _4(scores.rmse), _4(scores.mae), f"{scores.n_scored:,}"),
            ("all, cold ones by mean and bias", _4(scores.rmse_all), _4(scores.mae_all), f"{len(pairs):,}"),
        ],
    )
    trained = _n_trained_on(result, pairs)
    if trained:
        out.print(
            f"{trained:,} of these {len(pairs):,} pairs were in the training set, so this is no measure of new ratings",
            soft_wrap=True,
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


def predict(model: str, user: str, item: str, *, clip: bool) -> None:
    """Print one predicted rating."""
    result = store.load(model)
    _check_clip(result, clip)
    ids = result.catalogue
    made = result.predict([raw_id(ids.user_ids, user, "user")], [raw_id(ids.item_ids, item, "item")], clip=clip)
    _warn_unknown(made.n_unknown_users and f"user {user}", made.n_unknown_items and f"item {item}")
    console().print(_4(made.values[0]))


def predict_pairs(model: str, pairs: str, output: str | None, *, user: str, item: str, clip: bool) -> None:
    """Predict every pair of a CSV, TSV or Parquet file; write a CSV with the column ``predicted`` added."""
    result = store.load(model)
    _check_clip(result, clip)
    if output is not None:
        store.check_writable(output)
    rows = _read_pairs(Path(pairs), user, item)
    ids = result.catalogue
    made = result.predict(
        _column(rows[user], ids.user_ids, user), _column(rows[item], ids.item_ids, item), clip=clip
    )  # fmt: skip
    rows["predicted"] = made.values
    _warn_unknown(
        made.n_unknown_users and f"the user of {made.n_unknown_users:,} pairs",
        made.n_unknown_items and f"the item of {made.n_unknown_items:,} pairs",
    )
    if output is None:
        rows.to_csv(sys.stdout, index=False)
        return
    with store.replacing(output) as partial:
        rows.to_csv(partial, index=False)
    console().print(f"{len(rows):,} predictions saved to {output}", soft_wrap=True)


def _check_clip(result: FitResult, clip: bool) -> None:
    if clip and result.catalogue.scale is None:
        raise ConfigError("clip is given, but the model's training set declared no scale; fit it with --scale LO HI")


def _warn_unknown(*which: Any) -> None:
    for name in which:
        if name:
            warn(f"note: {name} was not in the training set; predicted by the mean and the known side's bias")


def _read_pairs(path: Path, user: str, item: str) -> pd.DataFrame:
    if path.suffix == ".parquet":
        rows = pd.read_parquet(path, columns=None)
    else:
        try:
            # Text, so that ids such as 007 and NA come out as they went in.
            rows = pd.read_csv(
                path, sep="\t" if path.suffix in (".tsv", ".tab") else ",", dtype=str, keep_default_na=False
            )
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise DataError(f"{str(path)!r} is not a table of pairs: {error}; give a CSV with a header") from error
    for name, flag in ((user, "--user"), (item, "--item")):
        if name not in rows:
            have = ", ".join(repr(str(c)) for c in rows.columns)
            raise DataError(f"{str(path)!r} has no column {name!r}; it has {have}; name the right one with {flag}")
    return rows


def _column(column: pd.Series[Any], ids: IdMap, what: str) -> Array:
    if ids.is_text:
        return column.astype(str).to_numpy(dtype=object)
    if column.dtype.kind in "iu":
        return column.to_numpy(dtype=np.int64)
    return np.array([raw_id(ids, str(text), what) for text in column], dtype=np.int64)


def recommend(model: str, user: str, *, n: int, with_seen: bool) -> None:
    """Print the best items of a user."""
    _recommend(console(), store.load(model), user, n, with_seen)


def _recommend(out: Console, result: FitResult, user: str, n: int, with_seen: bool) -> None:
    who = raw_id(result.catalogue.user_ids, user, "user")
    best = result.recommend(who, n, with_seen=with_seen)
    if result.catalogue.user_ids.encode([who])[0] < 0:
        warn(f"note: user {user} was not in the training set; these are the items with the highest bias")
    elif len(best) < n:
        warn(f"note: user {user} has {len(best)} items left to recommend")
    best["predicted"] = [_4(value) for value in best["predicted"]]
    frame(out, best.reset_index(), text=("item", "title"))


def look(model: str, data: str, user: str, *, n: int, reader: Mapping[str, Any]) -> None:
    """Print a user's own ratings beside the predictions, then what to recommend."""
    result = store.load(model)
    ratings = read(data, reader)
    out = console()
    who = raw_id(ratings.user_ids, user, "user")
    index = ratings.user_ids.encode([who])[0]
    if index < 0:
        raise DataError(f"user {user!r} is not in {data}; its users are such as {ratings.user_ids.raw[:3].tolist()}")
    view = ratings.csr
    own = view.order[view.indptr[index] : view.indptr[index + 1]]
    items, values = ratings.item_ids.raw[ratings.items[own]], ratings.values[own]
    predicted = result.predict([raw_id(result.catalogue.user_ids, user, "user")] * len(items), items).values
    order = np.argsort(-values, kind="stable")[:n]
    out.print(f"{len(own):,} ratings of user {user}, the best {len(order)} of them:")
    columns = {"item": items, "title": _titles(result, ratings, items), "rating": [f"{v:g}" for v in values]}
    columns |= {"predicted": [_4(p) for p in predicted], "difference": [f"{d:+.4f}" for d in predicted - values]}
    shown = pd.DataFrame({name: column for name, column in columns.items() if column is not None}).iloc[order]
    frame(out, shown, text=("item", "title"))
    out.print(f"\nrecommended to user {user}:")
    _recommend(out, result, user, 10, with_seen=False)


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
    shown = [f.name for f in fields(Config)]
    rows = [(name, *(_setting(getattr(r.config, name)) for r in RECIPES.values())) for name in shown]
    table(out, ["setting", *RECIPES], [*rows, ("valid", *(r.valid for r in RECIPES.values()))])


def _setting(value: object) -> str:
    return "-" if value in (None, ()) else str(value)


def data() -> None:
    """Print the data sets that have a name, and where each was found."""
    from mf_numpy import datasets

    frame(console(), datasets.table(), text=("name", "about", "found"))
