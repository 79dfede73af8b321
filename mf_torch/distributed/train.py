"""The training loop of a fit on several processes; the twin of `mf_numpy.train`, and its trajectory within 1e-10.

Symbols: m users, n items, K factors, R processes; process r keeps m_r rows of P, and all n of Q or n_r of them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from mf_numpy.config import Config
from mf_numpy.errors import ConfigError
from mf_numpy.losses import ON_THE_SCALE
from mf_numpy.model import Params, Tensors
from mf_numpy.result import EpochRecord, FitResult, Status
from mf_numpy.train import best_epoch, diverged, reason_to_stop
from mf_torch.distributed.checkpoint import Checkpoints, Point
from mf_torch.distributed.group import Group
from mf_torch.distributed.items import layout_of
from mf_torch.distributed.shard import Shard, read
from mf_torch.distributed.start import start
from mf_torch.distributed.step import Seen, Stepper
from mf_torch.distributed.whole import whole


@dataclass(frozen=True, eq=False)
class Share:
    """What a process has of a fitted model.

    Attributes:
        users, items: which rows of P and b, and of Q and c, `params` holds.
        params: the parameters, as `mf_numpy.FitResult` has them: with ``patience`` the best, else `last`.
        last: those of the trajectory's end.
        velocity: with `last` and in its shapes, or None without momentum, or after a divergence.
        epoch: epochs finished by the trajectory.
        config, history, status, message: as in `mf_numpy.FitResult`; the same on every process but for the seconds.
    """

    users: range
    items: range
    params: Params
    last: Params
    velocity: Tensors | None
    epoch: int
    config: Config
    history: tuple[EpochRecord, ...]
    status: Status
    message: str


def fit(
    folder: str | os.PathLike[str],
    config: Config | None = None,
    *,
    device: str = "cpu",
    shard_items: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 10,
    callback: Callable[[EpochRecord], object] | None = None,
    gather: bool = True,
) -> FitResult | Share:
    """Minimise Eq. 2 over a data set in parts, on all processes of the default group, or on this one alone.

    Every process calls it with the same arguments.

    Args:
        folder: what `partition` wrote, seen by all processes; each reads its own parts.
        device: ``cpu``, or ``cuda`` for a GPU a process.
        shard_items: keep each row of Q on one process, and let them go round, where Q is too large for one device.
        checkpoint: a folder that all processes see. Where it holds a point of this fit, the fit goes on from there.
        checkpoint_every: epochs between two checkpoints.
        callback: called on process 0 after every epoch with its `EpochRecord`.
        gather: bring the whole model, and the items that each user rated, to process 0.

    Returns:
        On process 0, with `gather`, the `FitResult` of a single process; otherwise the process's `Share`.

    Raises:
        ConfigError: a solver or batch that is not the full gradient, a mean over epochs, a loss whose r̂ is no rating,
            processes that do not divide the parts, checkpoints of another fit, ``patience`` without held-out pairs, or
            no such device.
        DataError: a data set that is not there, not whole, or does not add up.
        FileFormatError: a damaged checkpoint.
        KeyboardInterrupt: Ctrl-C; the last checkpoint stays.
    """
    config = config or Config()
    group = Group(device)
    group.agree(lambda: _check(config, checkpoint_every))
    shard = read(folder, group)
    group.agree(lambda: _check_data(shard, config))
    share = _Run(shard, config, group, shard_items, checkpoint, checkpoint_every).run(callback)
    if not gather:
        return share
    details = {"processes": group.size, "shard_items": shard_items}
    return whole(share, shard, folder, group, details) or share


class _Run:
    """A fit under way on one process."""

    def __init__(
        self,
        shard: Shard,
        config: Config,
        group: Group,
        shard_items: bool,
        checkpoint: str | os.PathLike[str] | None,
        every: int,
    ) -> None:
        self.shard, self.config, self.group, self.every = shard, config, group, every
        self.exchange = layout_of(shard.shape[1], group, sharded=shard_items)
        params = start(shard.shape, shard.mean, config, shard.users, self.exchange.own)
        self.stepper = Stepper(shard, params, config, self.exchange, group)
        self.history: list[EpochRecord] = []
        self.epoch, self.best = 0, None if config.patience is None else params.tensors()
        self.points: Checkpoints | None = None
        if checkpoint is not None:
            self.points = Checkpoints(checkpoint, self._identity(shard_items), group, sharded=shard_items)
            wanted = {name: (x.shape, x.dtype) for name, x in params.tensors().items()}
            point = self.points.latest(wanted)
            if point is not None:
                self._go_on_from(point)

    def run(self, callback: Callable[[EpochRecord], object] | None) -> Share:
        config, stepper = self.config, self.stepper
        status: Status = "max_epochs"
        message = f"ran all {config.n_epochs} epochs"
        first, ended = self.epoch, reason_to_stop(self.history, config) if self.history else None
        status, message = ended or (status, message)
        # The last parameters whose objective is known to be finite.
        good, good_epoch = self._copy(), self.epoch
        while self.epoch < config.n_epochs and not ended:
            record, seen = self._epoch()
            if self._sound(seen):
                self._copy(good)
                good_epoch = self.epoch
            if math.isfinite(seen.objective):
                began = time.perf_counter()
                stepper.move(record.lr)
                record = replace(record, seconds=record.seconds + time.perf_counter() - began)
                record = replace(record, valid_rmse=self._valid_rmse(record.epoch))
            if not math.isfinite(seen.objective) or record.valid_rmse == math.inf:
                return self._share("diverged", diverged(record, good_epoch, config), good, good_epoch)
            self.epoch = record.epoch
            self.history.append(record)
            if config.patience and best_epoch(self.history, config) == self.epoch:
                self.best = self._arrays()
            if callback and self.group.rank == 0:
                callback(record)
            if self.points and (self.epoch % self.every == 0 or self.epoch == config.n_epochs):
                stepper.check_replicas()
                self.points.save(self._point())
            ended = reason_to_stop(self.history, config)
            status, message = ended or (status, message)
        # An epoch's objective is that of its beginning: nobody has seen yet where the last step led.
        if self.epoch > first and not self._sound(stepper.look()):
            return self._share("diverged", diverged(self.history[-1], good_epoch, config), good, good_epoch)
        stepper.check_replicas()
        if self.best is not None:
            message += f"; the best parameters, of epoch {best_epoch(self.history, config)}, are kept"
        return self._share(status, message)

    def _epoch(self) -> tuple[EpochRecord, Seen]:
        """The gradient of the next epoch, and its record; nothing has moved."""
        began = time.perf_counter()
        seen = self.stepper.look()
        mean_square = seen.squared_error / self.shard.n_ratings
        rmse = math.sqrt(mean_square) if math.isfinite(mean_square) else mean_square
        epoch = self.epoch + 1
        lr = self.config.lr_at(epoch)
        return EpochRecord(epoch, seen.objective, rmse, None, lr, time.perf_counter() - began), seen

    def _sound(self, seen: Seen) -> bool:
        """Whether no square of an error overflows, in whatever order they are added up."""
        return seen.objective * self.shard.n_ratings < float(np.finfo(self.config.numpy_dtype).max)

    def _valid_rmse(self, epoch: int) -> float | None:
        """As in `mf_numpy.train`: None where not evaluated, infinity for parameters past all numbers."""
        if self.stepper.valid is None or (epoch % self.config.eval_every and epoch != self.config.n_epochs):
            return None
        squared, pairs = self.stepper.held_out()
        if not pairs:
            return None
        return math.sqrt(squared / pairs) if math.isfinite(squared) else math.inf

    def _identity(self, shard_items: bool) -> dict[str, object]:
        """What two runs have in common whose points can be exchanged; the number of epochs may grow."""
        settings = {name: value for name, value in self.config.to_dict().items() if name != "n_epochs"}
        settings["lr_schedule"] = [list(pair) for pair in self.config.lr_schedule]
        facts = {name: self.shard.manifest[name] for name in ("n_users", "n_items", "n_ratings", "mean", "parts")}
        return {**settings, **facts, "processes": self.group.size, "shard_items": shard_items}

    def _point(self) -> Point:
        tensors = self._arrays()
        tensors |= {f"velocity.{name}": x for name, x in (self._velocity() or {}).items()}
        tensors |= {f"best.{name}": x for name, x in (self.best or {}).items()}
        return Point(self.epoch, tuple(self.history), tensors)

    def _go_on_from(self, point: Point) -> None:
        def group(prefix: str) -> Tensors | None:
            found = {name.partition(".")[2]: x for name, x in point.tensors.items() if name.startswith(prefix + ".")}
            return found or None

        with torch.no_grad():
            for name, theta in self.stepper.module.named_parameters():
                theta.copy_(torch.tensor(point.tensors[name]))
        velocity = group("velocity")
        if velocity is not None:
            self.stepper.velocity = {name: self.group.hold(v) for name, v in velocity.items()}
        self.epoch, self.history, self.best = point.epoch, list(point.history), group("best")

    def _copy(self, into: list[torch.Tensor] | None = None) -> list[torch.Tensor]:
        theta = [x.detach() for x in self.stepper.module.parameters()]
        if into is None:
            return [x.clone() for x in theta]
        for mine, x in zip(into, theta, strict=True):
            mine.copy_(x)
        return into

    def _arrays(self) -> Tensors:
        return self.stepper.module.to_params().tensors()

    def _velocity(self) -> Tensors | None:
        held = self.stepper.velocity
        return None if held is None else {name: v.cpu().numpy().copy() for name, v in held.items()}

    def _share(
        self, status: Status, message: str, good: list[torch.Tensor] | None = None, good_epoch: int | None = None
    ) -> Share:
        if good is not None:
            with torch.no_grad():
                for theta, kept in zip(self.stepper.module.parameters(), good, strict=True):
                    theta.copy_(kept)
        last = self.stepper.module.to_params()
        return Share(
            self.shard.users,
            self.exchange.own,
            last if self.best is None or good is not None else last.with_tensors(self.best),
            last,
            self._velocity() if good is None else None,
            self.epoch if good_epoch is None else good_epoch,
            self.config,
            tuple(self.history),
            status,
            message,
        )


def _check(config: Config, every: int) -> None:
    if config.solver != "gd" or config.batch_size is not None:
        came = f"solver {config.solver!r}" if config.solver != "gd" else f"batch_size {config.batch_size}"
        raise ConfigError(f"{came} came, but several processes take the full gradient alone; use solver='gd' whole")
    if config.step_rule != "momentum":
        raise ConfigError(f"step_rule is {config.step_rule!r}, but several processes take 'momentum' alone; use that")
    if config.average_from is not None:
        raise ConfigError(f"average_from is {config.average_from}, but several processes average none; leave it out")
    if config.loss not in ON_THE_SCALE:
        ways = " or ".join(repr(name) for name in ON_THE_SCALE)
        raise ConfigError(f"loss is {config.loss!r}, which several processes do not have; use {ways}, or one process")
    if every < 1:
        raise ConfigError(f"checkpoint_every is {every}, but must be 1 or larger")


def _check_data(shard: Shard, config: Config) -> None:
    if config.model == "plain" and config.init == "mean" and shard.mean <= 0:
        raise ConfigError(f"init is 'mean', but the mean rating is {shard.mean:g}; use init='normal'")
    held = sum(part.get("valid", 0) for part in shard.manifest["parts"])
    if config.patience and not held:
        raise ConfigError("patience is set, but the parts hold no pairs to watch; partition with valid=, or drop it")
