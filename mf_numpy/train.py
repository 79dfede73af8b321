"""The training loop, shared by every backend of both packages."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from os import PathLike
from typing import Any, TypeVar

import numpy as np

from mf_numpy import averaging, draws_file, losses, model, posterior
from mf_numpy.batch import Batch
from mf_numpy.config import RANKING, SAMPLERS, STEPS_OF_THEIR_OWN, Config
from mf_numpy.design import Design
from mf_numpy.designed import design_engine
from mf_numpy.engine import Backend, Describing, Engine, SelfEnding, State
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.metrics import rmse as root_mean_square
from mf_numpy.metrics import score
from mf_numpy.model import Params
from mf_numpy.posterior import RunningMean
from mf_numpy.ratings import Ratings
from mf_numpy.result import Catalogue, EpochRecord, FitResult, Status
from mf_numpy.solvers import engine_for
from mf_numpy.split import Holdout

Callback = Callable[[EpochRecord], bool | None]
S = TypeVar("S")
R = TypeVar("R")

_PAIRS_AT_ONCE = 1 << 18
"""Pairs that are predicted together where nobody needs them all."""


def init(train: Ratings, config: Config) -> State:
    """The trajectory's first point: drawn parameters (Eq. 25), no memory, epoch 0."""
    return State(model.start(train, config))


def step(state: State, batch: Batch, config: Config, *, backend: Backend = "numpy") -> State:
    """One gradient (Eq. 6) and one update (Eq. 12); with ``numba`` the state's own arrays are overwritten."""
    return engine_for(config, backend).step(state, batch, config)  # type: ignore[no-any-return]


def fit(
    train: Ratings,
    config: Config | None = None,
    *,
    valid: Holdout | None = None,
    callback: Callback | None = None,
    backend: Backend = "numba",
    design: Design | None = None,
    resume: FitResult | None = None,
    draws_to: str | PathLike[str] | None = None,
) -> FitResult:
    """Minimise Eq. 2 over the training ratings with hand-written gradients.

    Args:
        valid: pairs scored every ``config.eval_every`` epochs; needed by ``config.patience``. Not with a loss that
            ranks, which has no RMSE; `FitResult.score_ranking` scores it.
        callback: called after every epoch with its `EpochRecord`; True stops the fit.
        backend: ``numba`` (fast), ``numpy`` (SciPy sparse products) or ``loops`` (plain Python).
        design: what users and items are made of (Eq. 33); without one each is a thing of its own.
        resume: an earlier result to go on from, up to ``config.n_epochs`` in all.
        draws_to: of ``gibbs`` and ``hmc``, a new file that holds the draws in the room of memory, for this fit and for
            all that is asked of its result (`mf_numpy.draws_file`).

    Returns:
        A `FitResult`. Ctrl-C stops after the last whole epoch and returns what was learned.

    Raises:
        ConfigError: ``patience`` without `valid`, a `resume` that does not fit, a solver that takes no design, or one
            that draws nothing with `draws_to`.
        DataError: no ratings, ratings that the loss is not made for, or a design of other users or items.
        OSError: draws that cannot be written.
    """
    config = config or Config()
    engine = engine_for(config, backend) if design is None else design_engine(design, config, backend)
    return run(engine, train, config, valid=valid, callback=callback, resume=resume, draws_to=draws_to)


def run(
    engine: Engine[S],
    train: Ratings,
    config: Config,
    *,
    valid: Holdout | None = None,
    callback: Callback | None = None,
    resume: FitResult | None = None,
    draws_to: str | PathLike[str] | None = None,
) -> FitResult:
    """`fit` for any backend: the loop, early stopping, divergence, interruption and history."""
    _check(train, config, valid, resume)
    described = engine if isinstance(engine, Describing) else None
    _check_design(described, resume)
    # A diverged run went one epoch back, past the last row of its history.
    history = [record for record in resume.history if record.epoch <= resume.state.epoch] if resume else []
    first = resume.state.epoch if resume else 0
    best = State(resume.of_features or resume.params, epoch=best_epoch(history, config)) if resume else None
    whole = engine.load(train, config)
    begin = init if described is None else described.first
    point = resume.state.copy() if resume else begin(train, config)
    spooled = draws_file.begin(draws_to, config, point.params, point.draws)
    if spooled is not None:
        point = replace(point, draws=spooled)
    state = engine.start(point, whole, config)
    running = _running_mean(valid, config, resume, described)
    average = point.average
    # Most engines have gone on to a copy of their own.
    del point

    status: Status = "max_epochs"
    message = f"ran all {config.n_epochs} epochs"
    ended_before = reason_to_stop(history, config) if history else None
    if ended_before:
        status, message = ended_before
    # `good` is the last point whose objective is known to be finite; `here` is where this epoch began. Copies take
    # room: the one before `good` is gone before there is another.
    good = here = replace(engine.export(state), average=average)
    try:
        while here.epoch < config.n_epochs and not ended_before:
            chain, at = posterior.place(here.epoch + 1, config)
            if chain and at == 1:
                anew = begin(train, replace(config, seed=posterior.seed_of(chain, config)))
                state = engine.start(replace(anew, epoch=here.epoch, draws=here.draws), whole, config)
            state, record = _epoch(engine, state, whole, here.epoch + 1, config)
            # No square of an error overflows, in whatever order they are added up.
            if record.objective * len(train) < float(np.finfo(config.numpy_dtype).max):
                good = here
            ended = engine.export(state)
            ended = replace(ended, average=averaging.after(here.average, ended.params, record.epoch, config))
            if running is not None:
                running.see(ended.params, record.epoch, engine.predict)
            if (
                valid is not None
                and config.loss not in RANKING
                and (record.epoch % config.eval_every == 0 or record.epoch == config.n_epochs)
            ):
                rmse = _valid_rmse(engine, _rows(engine, ended), valid, train.mean, config, running)
                record = replace(record, valid_rmse=rmse)
            if not math.isfinite(record.objective) or record.valid_rmse == math.inf:
                status, message = "diverged", diverged(record, good.epoch, config)
                here = good
                break
            here = ended
            history.append(record)
            if config.patience and best_epoch(history, config) == record.epoch:
                best = here
            asked = callback(record) if callback else None
            reason = reason_to_stop(history, config)
            if reason is None and isinstance(engine, SelfEnding):
                why = engine.ended(state)
                reason = ("converged", why) if why else None
            if asked or reason:
                status, message = reason or ("stopped", f"the callback asked to stop after epoch {record.epoch}")
                break
    except KeyboardInterrupt:
        history = [record for record in history if record.epoch <= here.epoch]
        status, message = "stopped", f"interrupted; the parameters after epoch {here.epoch} are kept"
    finally:
        if isinstance(engine, SelfEnding):
            engine.close(state)
    # An epoch's objective is that of its beginning: nobody has seen yet where the last step led.
    if status != "diverged" and here.epoch > first and not _predicts(engine, _rows(engine, here), train, config):
        status, message = "diverged", diverged(history[-1], good.epoch, config)
        here = good
    if spooled is not None and here.draws is not None:
        design = None if described is None else described.design
        here = replace(here, draws=_surely(partial(draws_file.finish, here.draws, design)))
    params = here.draws.mean() if here.draws else here.averaged
    if status != "diverged":
        message += _without_mean(here, config)
    if best is not None and config.patience and status != "diverged":
        params = best.averaged
        message += f"; the best parameters, of epoch {best.epoch}, are kept"
    # The row view of the ratings takes the room of the engine's layout, not room beside it.
    del state, whole
    catalogue = _surely(partial(Catalogue.of, train))
    result = FitResult(
        params, config, tuple(history), status, message, engine.backend, engine.device, catalogue, here
    )  # fmt: skip
    if described is None:
        return result
    rows = here.draws.rows(params, described.design) if here.draws else described.rows(params)
    return replace(result, params=rows, of_features=params, design=described.design)


def _without_mean(here: State, config: Config) -> str:
    """What a fit is worth that ended before the mean which it was to return began, for a message; else nothing."""
    if config.average_from is not None and here.average is None:
        return f"; no epoch is averaged, as average_from is {config.average_from}"
    if config.solver not in SAMPLERS:
        return ""
    (chain, at), first = posterior.place(here.epoch, config), config.burn_in + config.thin
    if here.epoch == 0 or at >= first:
        return ""
    if not chain:
        return (
            f"; the first draw would be kept in epoch {first}: this is the chain's last point, and no mean over draws"
        )
    return f"; the last chain ended before its first draw, which would be kept in its epoch {first}, and added none"


def _surely(make: Callable[[], R]) -> R:
    try:
        return make()
    except KeyboardInterrupt:
        # All epochs are done: what they learned is worth this last second.
        return make()


def _epoch(engine: Engine[S], state: S, whole: Any, epoch: int, config: Config) -> tuple[S, EpochRecord]:
    objective = squared_error = 0.0
    began = time.perf_counter()
    for batch in engine.batches(whole, epoch, config):
        state = engine.step(state, batch, config)
        seen, squared = engine.seen(state)
        # Still on the device for CUDA: nothing here waits for it before `synchronize`.
        objective = objective + seen * (len(batch) / len(whole))  # Eq. 16
        squared_error = squared_error + squared
    state = engine.next_epoch(state)
    engine.synchronize()
    seconds = time.perf_counter() - began
    mean_square = float(squared_error) / len(whole)
    rmse = math.sqrt(mean_square) if math.isfinite(mean_square) else mean_square
    return state, EpochRecord(epoch, float(objective), rmse, None, config.lr_at(epoch), seconds)


def _rows(engine: Engine[S], point: State) -> Params:
    """The parameters of users and items at a point of the trajectory, the mean over epochs where one is taken."""
    return engine.rows(point.averaged) if isinstance(engine, Describing) else point.averaged


def _running_mean(
    valid: Holdout | None, config: Config, resume: FitResult | None, described: Describing | None
) -> RunningMean | None:
    """What averages the predictions of held-out pairs where parameters are draws."""
    if config.solver not in SAMPLERS or valid is None:
        return None
    earlier = resume.state.draws if resume else None
    rows = None if described is None else described.rows
    return RunningMean(valid.users[valid.known], valid.items[valid.known], config, earlier, rows)


def _valid_rmse(
    engine: Engine[S], params: Params, valid: Holdout, mean: float, config: Config, running: RunningMean | None
) -> float | None:
    """RMSE of the pairs that can be scored: None if there are none, infinity for parameters past all numbers."""
    if valid.n_scored == 0:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        if running is None:
            nothing_known = losses.prediction_of(mean, config)
            mean_of = partial(losses.mean_of, config=config, cuts=params.cuts)
            rmse = score(params, valid, nothing_known, engine.predict, mean_of).rmse
        else:
            rmse = root_mean_square(running.predicted - valid.values[valid.known])
    return rmse if math.isfinite(rmse) else math.inf


def _predicts(engine: Engine[S], params: Params, train: Ratings, config: Config) -> bool:
    """Whether the parameters predict a number, whose square is one too, for every training pair."""
    with np.errstate(over="ignore", invalid="ignore"):
        for begin in range(0, len(train), _PAIRS_AT_ONCE):
            part = slice(begin, begin + _PAIRS_AT_ONCE)
            predicted = engine.predict(params, train.users[part], train.items[part])
            expected = losses.mean_of(predicted, config, params.cuts)
            if not np.isfinite(expected * expected).all():
                return False
    return True


def best_epoch(history: list[EpochRecord], config: Config) -> int:
    """The last epoch whose validation RMSE fell by more than `min_delta` below the best before it; 0 if none."""
    best, epoch = math.inf, 0
    for record in history:
        if record.valid_rmse is not None and record.valid_rmse < best - config.min_delta:
            best, epoch = record.valid_rmse, record.epoch
    return epoch


def reason_to_stop(history: list[EpochRecord], config: Config) -> tuple[Status, str] | None:
    """Status and message of a fit whose history says that it has come to its end before the last epoch, or None."""
    now = history[-1].epoch
    if config.patience and now - best_epoch(history, config) >= config.patience:
        return "stopped", f"no better validation RMSE in {config.patience} epochs"
    last = [record.objective for record in history[-4:]]
    if config.tol and len(last) == 4:
        changes = [abs(b - a) <= config.tol * abs(a) for a, b in pairwise(last)]
        if all(changes):
            return "converged", f"the objective's relative change stayed below {config.tol:g} for 3 epochs"
    return None


def diverged(record: EpochRecord, good: int, config: Config) -> str:
    """The message of a fit that diverged in the epoch of `record` and keeps the parameters after epoch `good`."""
    other = f", or lower momentum (now {config.momentum:g})" if config.momentum else ""
    remedy = f"Lower lr (now {record.lr:g}; try {record.lr / 4:g}){other}"
    if config.solver in STEPS_OF_THEIR_OWN:
        remedy = f"Raise reg (now {config.reg:g})"
    if config.solver in SAMPLERS:
        remedy = "Look for ratings out of all proportion, or take dtype='float64'"
    return (
        f"the errors grew past all numbers in epoch {record.epoch}; the parameters after epoch {good} are "
        f"kept. {remedy}"
    )


def _check(train: Ratings, config: Config, valid: Holdout | None, resume: FitResult | None) -> None:
    if len(train) == 0:
        raise DataError("there are no training ratings; at least one is needed")
    losses.check_ratings(train, config, begins=resume is None, cuts=resume.params.cuts if resume else None)
    if config.model == "plain" and config.init == "mean" and train.mean <= 0:
        raise ConfigError(f"init is 'mean', but the mean rating is {train.mean:g}; use init='normal'")
    if config.patience and (valid is None or valid.n_scored == 0):
        raise ConfigError("patience is set, but there are no validation pairs to watch; pass valid=, or drop patience")
    if resume is None:
        return
    if resume.is_ensemble:
        raise ConfigError("cannot resume: the model is the mean of several fits; go on with each of these")
    for name in ("model", "n_factors", "dtype", "solver", "step_rule", "loss"):
        old, new = getattr(resume.config, name), getattr(config, name)
        # Two losses whose predictions are ratings go on from each other.
        if old != new and not {old, new} <= set(losses.ON_THE_SCALE):
            raise ConfigError(f"cannot resume: {name} was {old!r} and is now {new!r}; keep it, or start afresh")
    same = resume.catalogue.user_ids == train.user_ids and resume.catalogue.item_ids == train.item_ids
    if not same:
        raise ConfigError("cannot resume: the training ratings have other users or items than the model; use the same")
    finite = all(np.isfinite(x).all() for x in resume.state.params.tensors().values())
    if not finite:
        raise ConfigError("cannot resume: the model's parameters are not finite; start afresh with a lower lr")


def _check_design(described: Describing | None, resume: FitResult | None) -> None:
    if resume is None:
        return
    if (described is None) != (resume.design is None):
        has, now = ("none", "one") if resume.design is None else ("one", "none")
        raise ConfigError(f"cannot resume: the model has {has} for a design, and now there is {now}; use the same")
    if described is not None and resume.design is not None and not described.design.same_as(resume.design):
        raise ConfigError("cannot resume: the design is another one than the model's; use the same")
