"""The processes of a fit, on `torch.distributed`: which of them this one is, what it sends, and failing together."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from mf_numpy.errors import ConfigError, DataError, FileFormatError
from mf_numpy.ratings import Array

T = TypeVar("T")
Wait = Callable[[], object]

_KINDS = (OSError, ConfigError, DataError, FileFormatError)
_PATIENCE = 600
"""Seconds in which all processes must have started."""
_LONGEST = 1000
"""Bytes of an error that the other processes hear of."""


@contextmanager
def joined(device: str = "cpu") -> Iterator[None]:
    """A process group as torchrun's variables describe it, on gloo or, on CUDA, NCCL; none outside of torchrun.

    It is left however the block ends.
    """
    if dist.is_initialized() or "WORLD_SIZE" not in os.environ:
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, rank, size = next(rendezvous("env://"))
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=fresh(store, rank, size), rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def fresh(store: Store, rank: int, size: int) -> Store:
    """The store under a name that only this life of the processes has.

    torchrun has one store for all restarts (pytorch issue 135712), in which a process finds the addresses of those
    that are gone. So each says hello with a word that was never said before, process 0 answers it with its own until
    all have taken that, and whatever was left there is answered to nobody.

    Raises:
        RuntimeError: a process that is not heard of.
    """
    word = secrets.token_hex(8)
    if rank:
        store.set(f"hello/{rank}", word)
        name = store.get(f"welcome/{word}").decode()
        store.set(f"{name}/{rank}", "")
        return PrefixStore(name, store)
    ends = time.monotonic() + _PATIENCE
    for other in range(1, size):
        while not store.check([f"{word}/{other}"]):
            if time.monotonic() > ends:
                raise RuntimeError(f"timed out: nothing was heard of process {other} in {_PATIENCE} s")
            store.set(f"welcome/{store.get(f'hello/{other}').decode()}", word)
            time.sleep(0.01)
    return PrefixStore(word, store)


class Group:
    """The default process group, or this process alone where there is none.

    Attributes:
        rank, size: this process of how many.
        device: where its tensors are: ``cpu``, or its GPU.
        given: bytes handed to each kind of transfer so far.
        sent: bytes that this process sends for them where an all-reduce is a ring, as in gloo and NCCL: 2 (R-1)/R of
            what it is given, and once what is passed on.
    """

    def __init__(self, device: str = "cpu") -> None:
        if device not in ("cpu", "cuda"):
            raise ConfigError(f"device is {device!r}, but must be 'cpu' or 'cuda', which is each process's own GPU")
        together = dist.is_initialized()
        self.rank: int = dist.get_rank() if together else 0
        self.size: int = dist.get_world_size() if together else 1
        if device == "cuda":
            here, seen = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
            if here >= seen:
                raise ConfigError(f"process {here} of this machine wants a GPU, but torch sees {seen}; start fewer")
            device = f"cuda:{here}"
        self.device = torch.device(device)
        self.given: Counter[str] = Counter()
        self.sent = 0.0

    def add_up(self, tensor: Tensor) -> Wait:
        """Begin to replace the tensor by its sum over all processes, the same bits on each; call the result to wait.

        The order of the sums follows from the number of processes alone, not from who comes first.
        """
        self._count("all-reduce", tensor, 2 * (self.size - 1) / self.size)
        if self.size == 1:
            return _nothing
        wait: Wait = dist.all_reduce(tensor, async_op=True).wait
        return wait

    def pass_on(self, give: Tensor, take: Tensor, tag: int) -> Wait:
        """Begin to send a tensor to the process before this one, and to receive one from the process after it."""
        self._count("send", give, 1.0)
        left, right = (self.rank - 1) % self.size, (self.rank + 1) % self.size
        pair = [dist.P2POp(dist.isend, give, left, tag=tag), dist.P2POp(dist.irecv, take, right, tag=tag)]
        works = dist.batch_isend_irecv(pair)

        def wait() -> None:
            for work in works:
                work.wait()
            # What is sent must not be let go before.
            pair.clear()

        return wait

    def collect(self, tensor: Tensor, shapes: list[tuple[int, ...]]) -> Iterator[Tensor]:
        """On process 0 the tensor of every process, in order, each in its shape; nothing on the others."""
        if self.rank:
            dist.send(tensor.contiguous(), 0)
            return
        yield tensor
        for sender, shape in enumerate(shapes[1:], 1):
            part = torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
            dist.recv(part, sender)
            yield part

    def hold(self, array: Array) -> Tensor:
        """A copy of an array on this process's device."""
        return torch.tensor(array, device=self.device)

    def total(self, *numbers: float) -> list[float]:
        """Sums of a few numbers over all processes."""
        row = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        self.add_up(row)()
        return [float(x) for x in row.tolist()]

    def of_first(self, number: int) -> int:
        """Process 0's number, on every process."""
        row = torch.tensor([number], dtype=torch.int64, device=self.device)
        if self.size > 1:
            dist.broadcast(row, 0)
        return int(row.item())

    def same(self, number: int) -> bool:
        """Whether all processes have the same number, of 62 bits at most."""
        row = torch.tensor([number, -number], dtype=torch.int64, device=self.device)
        if self.size > 1:
            dist.all_reduce(row, op=dist.ReduceOp.MAX)
        return int(row[0]) == -int(row[1])

    def agree(self, work: Callable[[], T]) -> T:
        """Do the work; where it fails on one process it fails on all, or the others would wait for it for ever.

        Raises:
            ConfigError, DataError, FileFormatError, OSError: what `work` raised here, or the first other process's.
        """
        out: list[T] = []
        error: Exception | None = None
        try:
            out.append(work())
        except _KINDS as mine:
            error = mine
        for sender, found in enumerate(self._complaints(error)):
            if error is not None:
                raise error
            if found is not None:
                kind, text = found
                raise kind(f"process {sender}: {text}")
        return out[0]

    def _complaints(self, error: Exception | None) -> list[tuple[type[Exception], str] | None]:
        """What each process has to complain of. Text travels as bytes: torch's own way for objects is pickle."""
        row = torch.zeros(1 + _LONGEST, dtype=torch.uint8)
        if error is not None:
            kind = next(at for at, kind in enumerate(_KINDS) if isinstance(error, kind))
            said = bytes([kind + 1]) + str(error).encode("utf-8", "replace")[:_LONGEST]
            row[: len(said)] = torch.frombuffer(bytearray(said), dtype=torch.uint8)
        rows = [row.to(self.device)]
        if self.size > 1:
            rows = [torch.empty_like(rows[0]) for _ in range(self.size)]
            dist.all_gather(rows, row.to(self.device))
        read = [bytes(one.tolist()) for one in rows]
        return [
            (_KINDS[one[0] - 1], one[1:].rstrip(b"\0").decode("utf-8", "replace")) if one[0] else None for one in read
        ]

    def _count(self, kind: str, tensor: Tensor, times: float) -> None:
        size = tensor.numel() * tensor.element_size()
        self.given[kind] += size
        self.sent += times * size


def lost(error: RuntimeError) -> bool:
    """Whether an error of torch says that another process went away, which only its text tells."""
    text = str(error).lower()
    return dist.is_available() and any(word in text for word in ("peer", "connection", "nccl", "timed out"))


def _nothing() -> None:
    """There is nobody to wait for."""
