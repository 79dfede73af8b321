"""The command ``fit``: read, split, train with a progress line, save, compare with the baselines."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console

from mf_numpy import cli_features, draws_file, store
from mf_numpy.cli_output import console, decimals, facts, read, table, warn
from mf_numpy.cli_times import times_of
from mf_numpy.config import RANKING, Config
from mf_numpy.errors import ConfigError, choose, counted
from mf_numpy.files import check_writable
from mf_numpy.metrics import Scores
from mf_numpy.progress import Progress
from mf_numpy.ranking import score_ranking
from mf_numpy.ratings import Array, Ratings
from mf_numpy.recipes import RECIPES
from mf_numpy.result import FitResult
from mf_numpy.split import Holdout, random_split

INTERRUPTED = 130
_OTHER_RATINGS = (
    "cannot resume: these are not the model's training ratings; give the data, --valid and --seed of its fit"
)


def fit(
    data: str,
    *,
    train_with: Callable[..., FitResult],
    how: Mapping[str, Any],
    recipe: str | None,
    default_recipe: str,
    features: Mapping[str, str | None],
    settings: Mapping[str, Any],
    valid: float | None,
    output: str | None,
    resume: str | None,
    draws: str | None,
    reader: Mapping[str, Any],
) -> int:
    """Fit a model, show its progress and its scores, save it; the exit code says how it ended."""
    out = console()
    earlier = None if resume is None else store.load(resume)
    if earlier is not None and recipe is not None:
        raise ConfigError("recipe and resume are both given; a resumed model has its own settings, so drop the recipe")
    base = RECIPES[choose("recipe", recipe or default_recipe, RECIPES)]
    given = given_of(settings)
    config = _asked(base.config if earlier is None else earlier.config, given, resumed=earlier is not None)
    first = 0 if earlier is None else earlier.state.epoch
    if earlier is not None and first >= config.n_epochs:
        run = counted(first, "epoch")
        raise ConfigError(f"the model has run {run} already, and n_epochs is {config.n_epochs}; raise it")
    target = output or resume or "model.safetensors"
    check_writable(target)
    if draws is not None:
        if os.path.realpath(draws) == os.path.realpath(target):
            raise ConfigError(f"output and draws are both {target!r}; give the draws a name of their own")
        draws_file.check_new(draws)
        how = {**how, "draws_to": draws}

    ratings = read(data, reader)
    share = valid if valid is not None else base.valid if earlier is None else _share_held_out(earlier, ratings)
    split = _split(ratings, share, config.seed)
    if earlier is None:
        config = _asked(base.of_size(len(split.train)), given, resumed=False)
    out.print(f"{data}: {facts(ratings)}")
    if split.valid is not None:
        held = counted(len(split.valid), "rating")
        verb = "is" if len(split.valid) == 1 else "are"
        out.print(f"{held} ({100 * share:.3g} %) {verb} held out, {split.valid.n_cold:,} cold")
    if earlier is not None:
        _check_same_ratings(earlier, split.train)
        out.print(f"going on from {resume} after epoch {first}", soft_wrap=True)
        kept = earlier.state.draws.kept if earlier.state.draws else None
        if kept is not None and draws is None:
            warn(f"note: its draws are in {kept.path}, and go on in memory; to keep them on disk give --draws NEW_FILE")
    made = cli_features.made_of(data, split.train, split.valid, features, earlier)
    if made.design is not None:
        of_users, of_items = (counted(side.shape[1], "feature") for side in (made.design.users, made.design.items))
        out.print(f"users are made of {of_users}, items of {of_items}")
        how = {**how, "design": made.design}

    waiting = (
        "first epoch (Numba compiles its kernels at first use) …" if how.get("backend") == "numba" else "starting …"
    )
    with _Interrupt() as interrupt:
        shown = config.loss not in RANKING
        with Progress(out, config.n_epochs, first=first, waiting=waiting, rmse=shown) as progress:
            result = train_with(
                made.train, config, valid=made.valid, callback=progress, resume=earlier, **how
            )  # fmt: skip
        # A second Ctrl-C must not lose what the first one asked to keep.
        interrupt.hold()
        result = cli_features.remembering(result, made.remembered)
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
        _scores(out, result, split, made)
        out.print(f"saved to {target}", soft_wrap=True)
    return INTERRUPTED if interrupt.pressed else int(failed)


def _asked(config: Config, given: Mapping[str, Any], *, resumed: bool) -> Config:
    """The settings of a recipe or of a model that goes on, with those that were given.

    Raises:
        ConfigError: settings that do not go together, or another solver or step rule for a model that goes on.
    """
    before = config.solver, config.step_rule
    solver = given.get("solver", config.solver)
    rule = given.get("step_rule", config.step_rule if solver == config.solver else "momentum")
    if (solver, rule) != before:
        if resumed:
            name, was, now = ("solver", before[0], solver) if solver != before[0] else ("step_rule", before[1], rule)
            raise ConfigError(f"cannot resume: {name} was {was!r} and is now {now!r}; keep it")
        # Another solver's learning rate, momentum and number of epochs mean nothing to this one.
        config = config.with_solver(solver, rule)
    return replace(config, **given)


class _Sides:
    """A training side, and perhaps held-out pairs."""

    def __init__(self, train: Ratings, valid: Holdout | None) -> None:
        self.train = train
        self.valid = valid


def _split(ratings: Ratings, share: float, seed: int) -> _Sides:
    if share == 0:
        return _Sides(ratings.compact(), None)
    parts = random_split(ratings, valid=share, seed=seed)
    return _Sides(parts.train, parts.valid)


def _share_held_out(earlier: FitResult, ratings: Ratings) -> float:
    """The share that leaves as many training ratings as the model had."""
    left_out = len(ratings) - len(earlier.catalogue.seen.indices)
    if left_out < 0:
        raise ConfigError(_OTHER_RATINGS)
    return left_out / len(ratings)


def given_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, with the schedule read.

    Raises:
        ConfigError: a schedule that is none.
    """
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
    times = times_of(earlier)
    before = earlier.catalogue if times is None else times.catalogue
    seen, same = before.seen, before.user_ids == train.user_ids and before.item_ids == train.item_ids
    if not (same and np.array_equal(seen.indptr, train.csr.indptr) and np.array_equal(seen.indices, train.csr.indices)):
        raise ConfigError(_OTHER_RATINGS)


class _Interrupt:
    """Ctrl-C, or a request to end, as Python's KeyboardInterrupt, remembered; after `hold` it is only remembered."""

    def __init__(self) -> None:
        self.pressed = False
        self.holding = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _Interrupt:
        # Only the main thread may set handlers, and a shell that ignores Ctrl-C for us has its reasons.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        self.holding = True

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self.pressed = True
        if not self.holding:
            raise KeyboardInterrupt


def _rankings(out: Console, result: FitResult, split: _Sides) -> None:
    """How the held-out items are ranked, beside the order of popularity."""
    if split.valid is None:
        return
    counts = split.train.item_counts.astype(np.float64)

    def popularity(users: Array) -> Array:
        return np.tile(counts, (len(users), 1))

    found = result.score_ranking(split.valid)
    told = {"threshold": found.threshold, "k": 10}
    beside = score_ranking(popularity, split.valid, result.catalogue.seen, len(counts), **told)  # type: ignore[arg-type]
    names = ("ndcg@10", "recall@10", "map@10", "auc")
    table(
        out,
        ["", *names, "users"],
        [
            (name, *(decimals(scores.mean(metric)) for metric in names), f"{len(scores.users):,}")
            for name, scores in (("popularity", beside), ("model", found))
        ],
    )


def _scores(out: Console, result: FitResult, split: _Sides, made: cli_features.Made) -> None:
    if result.config.loss in RANKING:
        _rankings(out, result, split)
        return
    from mf_numpy.baselines import mean_and_bias_scores

    train = split.train
    on_train, of_model = (Holdout(some.users, some.items, some.values) for some in (train, made.train))
    judged = on_train if split.valid is None else split.valid
    rows: list[tuple[str, Scores | None, Scores]] = [
        (name, None, scores) for name, scores in mean_and_bias_scores(train, judged).items()
    ]
    trained = result.score(of_model)
    rows.append(("model", trained, trained if made.valid is None else result.score(made.valid)))
    if split.valid is None:
        table(
            out,
            ["", "train RMSE", "train MAE", "scored"],
            [(name, decimals(s.rmse), decimals(s.mae), f"{s.n_scored:,}") for name, _, s in rows],
        )
        return
    table(
        out,
        ["", "train RMSE", "valid RMSE", "valid MAE", "scored", "cold"],
        [
            (
                name,
                "-" if t is None else decimals(t.rmse),
                decimals(s.rmse),
                decimals(s.mae),
                f"{s.n_scored:,}",
                f"{s.n_cold:,}",
            )
            for name, t, s in rows
        ],
    )
