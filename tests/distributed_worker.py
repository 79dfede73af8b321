"""One process of a group on this machine's loopback: it runs the fits that it is ordered, some broken on purpose.

``python -m tests.distributed_worker ORDER.json RANK`` reads {processes, store, out, fits: [{name, folder, config,
shard_items, checkpoint, fault}]} and leaves ``NAME-RANK.json`` and, of what process 0 has, ``NAME.safetensors``.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mf_numpy import Config, FitResult, store
from mf_numpy.errors import ConfigError, DataError, FileFormatError
from mf_numpy.faults import Fault, broken
from mf_torch import distributed


def _fault(name: str, function: str, right: str, wrong: str, origin: str) -> Fault:
    return Fault(
        name=name, function=f"mf_torch.distributed.{function}", right=right, wrong=wrong, origin=origin, caught_by=()
    )


FAULTS = {
    fault.name: fault
    for fault in (
        _fault(
            "averaged",
            "items:Replicated.taken",
            "return self._sums",
            "return tuple(x / self.group.size for x in self._sums)",
            "Data-parallel training averages gradients of batches; these are parts of one sum.",
        ),
        _fault(
            "partial-dropped",
            "items:Ring.give",
            "sums = tuple(x.add_(y) for x, y in zip(sums, self._arriving, strict=True))",
            "pass",
            "A block's sums arrive and are overwritten by the last process's own.",
        ),
        _fault(
            "rows-of-the-block-before",
            "items:Ring.visits",
            "yield block, here",
            "yield block, rows",
            "A process goes on with its own rows instead of those that arrived.",
        ),
        _fault(
            "penalty-on-each",
            "step:Stepper.look",
            "counted = self.w_i if exchange.speaks else torch.zeros_like(self.w_i)",
            "counted = self.w_i",
            "What is the same on every process is added up over them.",
        ),
        _fault(
            "local-n",
            "step:Stepper.__init__",
            "self.n_ratings = shard.n_ratings",
            "self.n_ratings = len(shard.ratings)",
            "The mean is taken over the ratings that the process has.",
        ),
        _fault(
            "local-mean",
            "train:_Run.__init__",
            "params = start(shard.shape, shard.mean, config, shard.users, self.exchange.own)",
            "params = start(shard.shape, shard.ratings.values.mean(), config, shard.users, self.exchange.own)",
            "μ is computed where the ratings are.",
        ),
        _fault(
            "local-counts",
            "step:Stepper.__init__",
            "of_items = shard.item_counts[exchange.own.start : exchange.own.stop]",
            "of_items = np.bincount(shard.ratings.items, minlength=len(shard.item_counts))"
            "[exchange.own.start : exchange.own.stop]",
            "n_i is counted in the ratings that the process has.",
        ),
        _fault(
            "first-rows-drawn",
            "start:start",
            "rng = np.random.default_rng(config.seed)",
            "rng, users = np.random.default_rng(config.seed), range(len(users))",
            "Every process draws from the seed and keeps what comes first.",
        ),
    )
}


def main(order_file: str, rank: str) -> int:
    """Run the order as one of its processes."""
    torch.set_num_threads(1)
    order: dict[str, Any] = json.loads(Path(order_file).read_text(encoding="utf-8"))
    store_at = f"file://{order['store']}"
    dist.init_process_group("gloo", init_method=store_at, rank=int(rank), world_size=order["processes"])
    try:
        for fit in order["fits"]:
            _run(fit, Path(order["out"]), int(rank))
    finally:
        dist.destroy_process_group()
    return 0


def _run(order: dict[str, Any], out: Path, rank: int) -> None:
    found: dict[str, Any] = {}
    try:
        with ExitStack() as stack:
            if order.get("fault"):
                stack.enter_context(broken(FAULTS[order["fault"]]))
            how = {name: order[name] for name in ("shard_items", "checkpoint", "checkpoint_every") if name in order}
            result = distributed.fit(order["folder"], Config(**order["config"]), **how)
        found = {
            "objective": [record.objective for record in result.history],
            "train_rmse": [record.train_rmse for record in result.history],
            "valid_rmse": [record.valid_rmse for record in result.history],
            "status": result.status,
            "message": result.message,
            "whole": isinstance(result, FitResult),
        }
        if isinstance(result, FitResult):
            store.save(result, out / f"{order['name']}.safetensors")
    except (ConfigError, DataError, FileFormatError, RuntimeError) as error:
        found = {"error": type(error).__name__, "text": str(error)}
    (out / f"{order['name']}-{rank}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
