"""A group of the CUDA suite's cases on the same ratings, in a process of its own: a row each, as soon as it is there.

A case that runs out of memory is a row with that reason. One that ends the process, or leaves the device unusable,
costs no other case: `bench.cuda` starts a process for the rest.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import agreement, cost, cuda_roof, operators, result, worker
from bench.cuda_cases import NUMBA, CudaCase
from bench.launch import Json
from mf_numpy import Config, Holdout, Ratings, random_split
from mf_numpy.batch import full_batch
from mf_numpy.planted import ANIME_FULL, PlantedConfig, planted
from mf_numpy.solvers import engine_for

HEAD = 1_000_000
"""Ratings of the check, which is not timed."""

SAMPLES, MOST_SAMPLES, ENOUGH_MS = 5, 25, 250.0
"""Samples at least and at most, and the time after which the least are enough."""

STEPS_MS, MOST_STEPS = 20.0, 100
"""About how long a sample of mini-batches takes, and how many steps it has at most."""

DRAWN_ONE_BY_ONE = 10_000_000
"""N up to which `mf_numpy.planted` draws; it takes more than a second a million."""

TARGET, TARGET_EPOCHS, BATCH_LR = 1.2, 100, 60.0
"""The RMSE to be reached over the noise floor, the epochs after which it counts as not reached, and η of batches.

Biases alone come to 1.25 times the floor of ratings like the full anime table's, so that factors must be learnt.
"""


class UnusableError(Exception):
    """The device answers nothing any more."""


class Drawn:
    """The ratings of a group, and what its cases share.

    Attributes:
        n_ratings: N asked for; the full anime table's gives a table of its shape, others have about 90 a user.
        how: how they were drawn.
    """

    def __init__(self, n_ratings: int, folder: Path) -> None:
        self.n_ratings, self._folder = n_ratings, folder
        self.how = "mf_numpy.planted" if n_ratings <= DRAWN_ONE_BY_ONE else "by torch; a pair may come twice"
        self._expected: dict[int, agreement.Way] = {}
        self._transfer: Json | None = None

    @cached_property
    def train(self) -> Ratings:
        """The ratings, drawn once in a run."""
        path = self._folder / f"drawn-{self.n_ratings}.npz"
        if not path.exists():
            made = drawn(self.n_ratings)
            worker.save_data(path, made, Holdout(made.users[:0], made.items[:0], made.values[:0]))
        return worker.load_data(path)[0]  # type: ignore[no-any-return]

    @cached_property
    def split(self) -> tuple[Ratings, Holdout, float]:
        """Training and validation side of the ratings, and the RMSE of the truth on the latter."""
        truth = planted(planted_like(self.n_ratings))
        split = random_split(truth.ratings, valid=0.1, seed=0)
        return split.train, split.valid, truth.noise_floor_of(split.train, split.valid)

    @cached_property
    def head(self) -> Ratings:
        """The first ratings, of as many users and items: what is checked before all are timed."""
        whole, n = self.train, min(HEAD, len(self.train))
        return Ratings.of_indices(whole.users[:n], whole.items[:n], whole.values[:n], m=whole.n_users, n=whole.n_items)

    def expected(self, config: Config) -> agreement.Way:
        """The Numba backend's first steps over `head`."""
        k = config.n_factors
        if k not in self._expected:
            self._expected[k] = agreement.expected(self.head, config)
        return self._expected[k]

    def transfer(self, config: Config, device: str) -> Json:
        """Seconds and bytes of copying the pairs to the device, without laying them out; measured once."""
        if self._transfer is None:
            batch = full_batch(self.train, config)
            host = [torch.from_numpy(np.ascontiguousarray(array)) for array in (batch.users, batch.items, batch.values)]
            torch.cuda.synchronize(device)
            began = time.perf_counter()
            there = [tensor.to(device) for tensor in host]
            torch.cuda.synchronize(device)
            spent = time.perf_counter() - began
            self._transfer = {"transfer_s": spent, "transfer_bytes": sum(tensor.nbytes for tensor in there)}
        return dict(self._transfer)


def planted_like(n_ratings: int) -> PlantedConfig:
    """What is drawn for a number of ratings."""
    if n_ratings == ANIME_FULL.n_ratings:
        return ANIME_FULL
    m, n = max(20, n_ratings // 90), min(5_000, max(20, n_ratings // 20))
    return PlantedConfig(n_users=m, n_items=n, n_ratings=n_ratings, min_ratings=1)


def drawn(n_ratings: int) -> Ratings:
    """Planted ratings; many of them by torch, which draws every rating by itself, so that a pair may come twice."""
    if n_ratings <= DRAWN_ONE_BY_ONE:
        return planted(planted_like(n_ratings)).ratings
    about = planted_like(n_ratings)
    m, n = about.n_users, about.n_items
    torch.manual_seed(about.seed)
    activity = torch.exp(about.activity_sd * torch.randn(m, dtype=torch.float64))
    ends = (torch.cumsum(activity, 0) / activity.sum() * n_ratings).round().long()
    ends[-1] = n_ratings
    users = torch.repeat_interleave(torch.arange(m, dtype=torch.int32), torch.diff(ends, prepend=torch.zeros(1).long()))
    popularity = torch.cumsum((torch.randperm(n) + 1 + n / 20.0) ** -about.popularity_exponent, 0)
    at = torch.rand(n_ratings) * popularity[-1]
    items = torch.searchsorted(popularity, at, out_int32=True).clamp_(max=n - 1)
    values = about.mean + about.noise * torch.randn(n_ratings)
    values += (about.user_bias_sd * torch.randn(m))[users] + (about.item_bias_sd * torch.randn(n))[items]
    values.clamp_(*about.scale)
    return Ratings.of_indices(users.numpy(), items.numpy(), values.double().numpy(), m=m, n=n)


def run_case(order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """A row for each case of the order, into its file; those past the deadline are left out.

    Whoever started it may be killed: then nobody waits, and a run that is resumed would share the device.
    """
    data = Drawn(order["n_ratings"], folder)
    with (folder / order["rows"]).open("a", encoding="utf-8") as file:
        for about in order["cases"]:
            case = CudaCase(**about)
            if order.get("parent", os.getpid()) not in (os.getpid(), os.getppid()):
                return {"status": "failed", "reason": "whoever started it has ended"}, {}
            if time.time() > order["deadline"]:
                row = case.to_dict() | {"status": "not run", "reason": "the time was up"}
            else:
                with _limited(order["limit"]):
                    row = row_of(case, data)
            file.write(json.dumps(result.clean(row)) + "\n")
            file.flush()
            if case.device == "cuda" and not _usable():
                raise UnusableError(f"the device could not be used after {case.label}")
    return {"status": "ok", "reason": None}, {}


def row_of(case: CudaCase, data: Drawn) -> Json:
    """A case's row, whatever becomes of it."""
    row = case.to_dict()
    if case.device == "cuda" and not torch.cuda.is_available():
        return row | {"status": "not run", "reason": "no CUDA device"}
    parts: dict[str, Callable[[CudaCase, Drawn], Json]] = {"roof": _roof, "full": _full, "batch": _batch}
    began = time.perf_counter()
    try:
        if case.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        found = parts.get(case.part, _target)(case, data)
        row |= {"status": "ok", "reason": None} | found
    except torch.OutOfMemoryError as error:
        row |= {"status": "failed", "reason": f"out of memory: {_first(error)}"}
    except Exception as error:
        row |= {"status": "failed", "reason": f"{type(error).__name__}: {_first(error)}"}
    gc.collect()
    if case.device == "cuda" and _usable():
        row["peak_cuda_bytes"] = int(torch.cuda.max_memory_allocated())
        torch.cuda.empty_cache()
    return row | {"spent_s": time.perf_counter() - began}


def _roof(case: CudaCase, data: Drawn) -> Json:
    return {"roof": cuda_roof.measure(case.device)}


def _full(case: CudaCase, data: Drawn) -> Json:
    """An iteration over all ratings: its samples, and on CUDA where its time goes and what it moves at least."""
    train, config = data.train, agreement.config_of(data.train, case.n_factors)
    check = _checked(case, data)
    if not check["passed"]:
        return {"status": "failed", "reason": agreement.reason(check), "check": check}
    engine = _engine(case, config)
    whole, state, about = _begun(case, engine, data, train, config)

    def iteration() -> None:
        nonlocal state
        state = engine.next_epoch(engine.step(state, whole, config))
        engine.synchronize()

    # The first compiles, the second records a graph.
    warm = [_ms(iteration) for _ in range(3)]
    samples = _samples(iteration)
    row = about | {"check": check, "warm_up_ms": warm, "samples_ms": samples}
    row["timing"] = result.timing(samples, len(train))
    row["shape"] = {"n_users": train.n_users, "n_items": train.n_items, "drawn": data.how}
    if case.device == "cuda":
        row["profile"] = _profiled(iteration, case.device)
        held = cuda_roof.cache_bytes(case.device) or 0
        sizes = {"n_users": train.n_users, "n_items": train.n_items, "n_ratings": len(train)}
        least = cost.on_gpu(case.n_factors, **sizes, cache_bytes=held, stored=2 if case.storage else 4)
        row["traffic"] = {"cache_bytes": least.cache, "memory_bytes": least.memory}
    return row


def _profiled(iteration: Callable[[], object], device: str) -> Json | None:
    """Where an iteration's time goes, or None: not every machine lets a program look at its GPU's counters."""
    try:
        return operators.profiled(iteration, device)
    except Exception as error:
        print(f"no profile: {_first(error)}", file=sys.stderr)
        return None


def _batch(case: CudaCase, data: Drawn) -> Json:
    """A step over a mini-batch, without what an epoch costs once; a sample is the mean of some steps."""
    train = data.train
    size = case.batch_size
    assert size is not None and 3 * size <= len(train)
    config = replace(agreement.config_of(train, case.n_factors), batch_size=size, lr=1e-3)
    check = _checked(case, data)
    if not check["passed"]:
        return {"status": "failed", "reason": agreement.reason(check), "check": check}
    engine = _engine(case, config)
    whole, state, about = _begun(case, engine, data, train, config)
    stream, epoch, left = iter(()), 0, 0

    def steps(count: int) -> None:
        nonlocal state, left
        for _ in range(count):
            state = engine.step(state, next(stream), config)
            left -= 1
        engine.synchronize()

    def begin() -> None:
        """A new epoch, whose permutation is drawn and moved with its first batch; its last one may be smaller."""
        nonlocal stream, epoch, left
        epoch += 1
        stream, left = engine.batches(whole, epoch, config), len(train) // size
        steps(1)

    warm = [_ms(begin), _ms(lambda: steps(1))]
    each = int(max(1, min(STEPS_MS / _ms(lambda: steps(1)), MOST_STEPS, len(train) // size - 1)))
    begins: list[float] = []
    samples: list[float] = []
    while len(samples) < SAMPLES or (len(samples) < MOST_SAMPLES and sum(samples) * each < ENOUGH_MS):
        if left < each:
            begins.append(_ms(begin))
        samples.append(_ms(lambda: steps(each)) / each)
    row = about | {"check": check, "warm_up_ms": warm, "steps_a_sample": each, "samples_ms": samples}
    row |= {"epoch_begins_ms": begins, "timing": result.timing(samples, size)}
    return row


def _target(case: CudaCase, data: Drawn) -> Json:
    """Seconds of training until the validation RMSE is `TARGET` times the noise floor."""
    from mf_numpy.train import run

    train, valid, floor = data.split
    config = replace(agreement.config_of(train, case.n_factors), n_epochs=TARGET_EPOCHS, reg=0.05, init_scale=0.3)
    config = replace(config, batch_size=case.batch_size, lr=BATCH_LR if case.batch_size else config.lr)
    engine = _engine(case, config)
    # Compiles, on ratings that are not kept.
    run(engine, train, replace(config, n_epochs=1))
    reached = TARGET * floor
    began = time.perf_counter()
    found = run(
        engine, train, config, valid=valid,
        callback=lambda record: record.valid_rmse is not None and record.valid_rmse <= reached,
    )  # fmt: skip
    wall = time.perf_counter() - began
    curve = [[record.epoch, record.seconds, record.valid_rmse] for record in found.history]
    there = bool(curve) and curve[-1][2] is not None and curve[-1][2] <= reached
    return {
        "target_rmse": reached,
        "noise_floor": floor,
        "seconds": sum(record.seconds for record in found.history) if there else None,
        "epochs": len(curve) if there else None,
        "wall_s": wall,
        "curve": curve,
        "config": config.to_dict(),
    }


def _engine(case: CudaCase, config: Config) -> Any:
    if case.system == NUMBA:
        return engine_for(config, "numba")
    from mf_torch.train import TorchEngine

    return TorchEngine(case.device, case.system, graph=case.graph, storage=case.storage)


def _checked(case: CudaCase, data: Drawn) -> Json:
    """The verdict on the first steps over `Drawn.head`; rounded factors may go as far off as they do on a CPU."""
    config = agreement.config_of(data.head, case.n_factors)
    wanted = data.expected(config)
    if case.storage:
        wanted = agreement.loosened(
            wanted, _engine(replace(case, device="cpu", graph=False), config), data.head, config
        )
    engine = _engine(case, config)
    whole, state = agreement.begun(engine, data.head, config)
    return agreement.verdict(agreement.way_of(engine, state, whole, config)[1], wanted)


def _begun(case: CudaCase, engine: Any, data: Drawn, train: Ratings, config: Config) -> tuple[Any, Any, Json]:
    """Ratings where the engine wants them, its state, and what bringing them there took."""
    about: Json = {}
    if case.device == "cuda":
        about = data.transfer(config, case.device)
        # The peak is that of what follows.
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    whole, state = agreement.begun(engine, train, config)
    engine.synchronize()
    return whole, state, about | {"load_s": time.perf_counter() - began}


def _samples(iteration: Callable[[], object]) -> list[float]:
    out: list[float] = []
    while len(out) < SAMPLES or (len(out) < MOST_SAMPLES and sum(out) < ENOUGH_MS):
        out.append(_ms(iteration))
    return out


def _ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def _usable() -> bool:
    """Whether the device still answers; after an illegal access it does not until the process has ended."""
    if not torch.cuda.is_available():
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """End the process after so many seconds, even within a call that never comes back; 0 sets no limit."""
    if seconds:
        signal.alarm(seconds)
    try:
        yield
    finally:
        if seconds:
            signal.alarm(0)


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], run_case))
