"""What a fit on several processes sends: bytes an iteration as counted, as modelled and as the loopback saw them.

``python -m bench links`` writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment, others_busy_cores
    complete: whether every case had its turn
    problem {n_ratings, n_users, n_items, n_factors, dtype}
    rows [{form, processes, status, reason, samples_ms, timing, given {kind: bytes}, sent_bytes, wire_bytes,
           item_rows, touched_share}]

Everything is of one iteration: `given` what a process hands to each kind of transfer, `sent_bytes` what it sends of
that where an all-reduce is a ring, `wire_bytes` what all processes together put on the loopback, headers too.
``item_rows`` is how many rows of Q a process keeps, ``touched_share`` the share of all items that its ratings touch, so
what an exchange of needed rows alone would still send. Forms: ``replicated`` and ``ring`` of `mf_torch.distributed`,
and ``dtensor``, the rows of the ring gathered and their gradients scattered by `torch.distributed.tensor`. Each process
has one thread; processes that share cores show what is sent, not how well they scale.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from bench import machine, result
from bench.launch import Json
from bench.scaling import drawn
from mf_numpy.config import Config
from mf_numpy.errors import ConfigError
from mf_torch.distributed import partition
from mf_torch.distributed.group import Group
from mf_torch.distributed.items import Exchange, Rows, layout_of
from mf_torch.distributed.shard import read
from mf_torch.distributed.start import start
from mf_torch.distributed.step import Stepper

SCHEMA, VERSION = "mf-links", 1
FORMS = ("replicated", "ring", "dtensor")
PARTS = 6
TIME_LIMIT = 300.0

Say = Callable[[str], None]


class ByDTensor(Exchange):
    """Rows on one process each, as in the ring, brought together and their gradients apart by DTensor."""

    sharded = True
    speaks = True

    def __init__(self, n_items: int, group: Group) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        # A DTensor's first shards are the larger ones, as in torch.chunk.
        each = -(-n_items // group.size)
        self.own = range(min(group.rank * each, n_items), min((group.rank + 1) * each, n_items))
        self.blocks = [range(n_items)]
        self.mesh = init_device_mesh("cpu", (group.size,))
        self._pulled: Rows = ()

    def visits(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        from torch.distributed.tensor import DTensor, Replicate, Shard

        n = len(self.blocks[0])
        parts = [
            DTensor.from_local(
                x.contiguous(), self.mesh, [Shard(0)], shape=torch.Size((n, *x.shape[1:])), stride=x.stride()
            )
            for x in rows
        ]
        yield 0, tuple(part.redistribute(placements=[Replicate()]).to_local() for part in parts)

    def give(self, block: int, pulled: Rows) -> None:
        self._pulled = pulled

    def taken(self) -> Rows:
        from torch.distributed.tensor import DTensor, Partial, Shard

        parts = [DTensor.from_local(x.contiguous(), self.mesh, [Partial()]) for x in self._pulled]
        return tuple(part.redistribute(placements=[Shard(0)]).to_local() for part in parts)


def measure(
    *,
    n_ratings: int = 1_000_000,
    n_factors: int = 64,
    processes: tuple[int, ...] = (1, 2, 3),
    forms: tuple[str, ...] = FORMS,
    iterations: int = 7,
    say: Say = lambda text: None,
) -> Json:
    """Every form on each number of processes. Ctrl-C keeps what is done.

    Raises:
        ConfigError: an unknown form, or processes that do not divide the six parts.
    """
    unknown = [name for name in forms if name not in FORMS]
    if unknown:
        raise ConfigError(f"forms has {unknown[0]!r}, but must be among {', '.join(FORMS)}")
    if any(size < 1 or PARTS % size for size in processes):
        raise ConfigError(f"processes are {processes}, but each must divide {PARTS}")
    rows: list[Json] = []
    complete, began = False, machine.clock()
    train = drawn(n_ratings)
    problem = {"n_ratings": n_ratings, "n_users": train.n_users, "n_items": train.n_items, "n_factors": n_factors}
    with tempfile.TemporaryDirectory(prefix="mf-links-") as scratch:
        folder = Path(scratch)
        partition(train, folder / "parts", parts=PARTS)
        try:
            for size in processes:
                for form in forms:
                    say(f"{size} processes: {form}")
                    order = {"form": form, "processes": size, "n_factors": n_factors, "iterations": iterations}
                    rows.append({"form": form, "processes": size} | _run(order, folder, n_ratings))
            complete = True
        except KeyboardInterrupt:
            say("interrupted: what was measured is kept")
    cleaned: Json = result.clean(
        {
            "schema": SCHEMA,
            "schema_version": VERSION,
            **machine.record(1),
            "others_busy_cores": machine.others_busy(began, machine.clock()),
            "complete": complete,
            "problem": problem | {"dtype": "float32"},
            "rows": rows,
        }
    )
    return cleaned


def _run(order: Json, folder: Path, n_ratings: int) -> Json:
    """One case in processes of its own: the row without its names."""
    key = f"{order['form']}-{order['processes']}"
    file, target = folder / f"{key}.json", folder / f"{key}.out.json"
    order |= {"parts": str(folder / "parts"), "store": str(folder / f"{key}.store"), "target": str(target)}
    file.write_text(json.dumps(order), encoding="utf-8")
    variables = machine.environment(1, folder / "numba") | {"GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "bench.links", str(file)]
    workers = [
        subprocess.Popen(
            [*command, str(rank)],
            cwd=machine.ROOT,
            env=variables,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(order["processes"])
    ]
    reason = None
    try:
        for worker in workers:
            _, errors = worker.communicate(timeout=TIME_LIMIT)
            if worker.returncode and reason is None:
                reason = (errors.strip().splitlines() or [f"the worker ended with code {worker.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        reason = f"no result after {TIME_LIMIT:g} s"
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    empty = dict.fromkeys(("given", "sent_bytes", "wire_bytes", "item_rows", "touched_share"))
    if reason is not None:
        return {"status": "failed", "reason": reason, "samples_ms": [], "timing": None} | empty
    row: Json = json.loads(target.read_text(encoding="utf-8"))
    return {"status": "ok", "reason": None, "timing": result.timing(row["samples_ms"], n_ratings)} | row


def work(order: Json, rank: int) -> None:
    """One process of a case; process 0 writes what it saw."""
    torch.set_num_threads(1)
    size = order["processes"]
    dist.init_process_group("gloo", init_method=f"file://{order['store']}", rank=rank, world_size=size)
    try:
        group = Group()
        config = Config(n_factors=order["n_factors"], n_epochs=1, dtype="float32")
        shard = read(order["parts"], group)
        n_items = shard.shape[1]
        by_dtensor = order["form"] == "dtensor"
        exchange = (
            ByDTensor(n_items, group) if by_dtensor else layout_of(n_items, group, sharded=order["form"] == "ring")
        )
        params = start(shard.shape, shard.mean, config, shard.users, exchange.own)
        stepper = Stepper(shard, params, config, exchange, group)
        stepper.look()
        stepper.move(config.lr)
        group.given.clear()
        group.sent = 0.0
        dist.barrier()
        before, samples = _loopback(), []
        for _ in range(order["iterations"]):
            began = time.perf_counter()
            stepper.look()
            stepper.move(config.lr)
            samples.append(1e3 * (time.perf_counter() - began))
        dist.barrier()
        # What is on its way is counted when it arrives.
        time.sleep(0.2)
        after, n = _loopback(), order["iterations"]
        if rank == 0:
            found = {
                "samples_ms": samples,
                "given": {kind: value / n for kind, value in sorted(group.given.items())},
                # DTensor's transfers are its own, and nobody here is asked.
                "sent_bytes": None if by_dtensor else group.sent / n,
                "wire_bytes": None if before is None or after is None else (after - before) / n,
                "item_rows": len(exchange.own),
                "touched_share": len(np.unique(shard.ratings.items)) / n_items,
            }
            Path(order["target"]).write_text(json.dumps(found), encoding="utf-8")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _loopback() -> int | None:
    """Bytes that this machine has sent to itself; None where nobody counts."""
    try:
        counted = importlib.import_module("psutil").net_io_counters(pernic=True)
    except ImportError:
        return None
    return int(counted["lo"].bytes_sent) if "lo" in counted else None


def summary(outcome: Json) -> list[str]:
    """A line a case."""
    lines = [f"{'form':12}{'processes':>10}{'ms':>9}{'sent, MB':>10}{'loopback, MB':>14}{'rows of Q':>11}"]
    for row in outcome["rows"]:
        begin = f"{row['form']:12}{row['processes']:10}"
        if row["timing"] is None:
            lines.append(f"{begin}  {row['status']}: {row['reason']}")
            continue
        sent, wire = (x if x is None else x / 1e6 for x in (row["sent_bytes"], row["wire_bytes"]))
        shown = ["–" if x is None else f"{x:.2f}" for x in (sent, wire)]
        lines.append(f"{begin}{row['timing']['median_ms']:9.1f}{shown[0]:>10}{shown[1]:>14}{row['item_rows']:11,}")
    return lines + machine.disturbance(outcome["others_busy_cores"])


if __name__ == "__main__":
    work(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), int(sys.argv[2]))
