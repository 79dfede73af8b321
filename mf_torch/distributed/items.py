"""Where the rows of Q and c are while a gradient is summed: on every process, or each on one and passed round.

Symbols: R processes, K factors; a block is a range of items, q (items, K) and c (items,) their rows.

Both ways are seen alike: `visits` brings each block that the process must see, `give` takes what its pairs pull at the
block's rows, and `taken` has the sums over all processes for the rows that the process keeps. What is given travels
while the process goes on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from mf_torch.distributed.group import Group, Wait

Rows = tuple[Tensor, ...]
"""Of a block: q and, in the biased model, c; or their gradients."""


class Exchange(ABC):
    """One of the two ways, for one process.

    Attributes:
        blocks: the items of each block.
        own: the items whose rows this process keeps, and moves.
        sharded: whether each row is on one process only.
        speaks: whether this process is the one that counts the penalty of `own`.
    """

    sharded: ClassVar[bool]

    blocks: list[range]
    own: range
    speaks: bool

    @abstractmethod
    def visits(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        """Each block's number and rows in turn, from the rows that the processes keep."""

    @abstractmethod
    def give(self, block: int, pulled: Rows) -> None:
        """Begin to add what this process's pairs pull at a block's rows to what the others' do; it is used up."""

    @abstractmethod
    def taken(self) -> Rows:
        """The sums for the rows of `own`, once they are there."""


class Replicated(Exchange):
    """All rows on every process; one all-reduce adds up what they pull."""

    sharded = False

    def __init__(self, n_items: int, group: Group) -> None:
        self.group = group
        self.own = range(n_items)
        self.blocks = [self.own]
        self.speaks = group.rank == 0
        self._sums: Rows = ()
        self._waits: list[Wait] = []

    def visits(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        yield 0, rows

    def give(self, block: int, pulled: Rows) -> None:
        self._sums = tuple(x.contiguous() for x in pulled)
        self._waits = [self.group.add_up(x) for x in self._sums]

    def taken(self) -> Rows:
        for wait in self._waits:
            wait()
        return self._sums


class Ring(Exchange):
    """Each row on one process. The blocks go round, and so do the sums of what is pulled at them.

    Process r visits the blocks r+1, r+2, ... and its own last, so that a block is always with one process, which hands
    it to the one before it and gets the next from the one after it. Two blocks' rows and sums are held at a time, and
    each process sends (R-1)/R of Q and as much of ∇Q: what an all-reduce of ∇Q sends.
    """

    sharded = True
    speaks = True

    def __init__(self, n_items: int, group: Group) -> None:
        self.group = group
        ends = [n_items * s // group.size for s in range(group.size + 1)]
        self.blocks = [range(ends[s], ends[s + 1]) for s in range(group.size)]
        self.own = self.blocks[group.rank]
        self._arriving: Rows = ()
        self._waits: list[Wait] = []

    def visits(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        block, coming = self.group.rank, self._hand_on(rows, self.group.rank, 0)
        while coming is not None:
            here, waits = coming
            _all(waits)
            block = self._after(block)
            # The next block comes while this one is worked on.
            coming = self._hand_on(here, block, 0)
            yield block, here
        yield self.group.rank, rows

    def give(self, block: int, pulled: Rows) -> None:
        _all(self._waits)
        sums = tuple(x.contiguous() for x in pulled)
        if self._arriving:
            sums = tuple(x.add_(y) for x, y in zip(sums, self._arriving, strict=True))
        if block == self.group.rank:
            self._arriving = sums
        else:
            self._arriving, self._waits = self._pass(sums, self._after(block), 2)

    def taken(self) -> Rows:
        sums, self._arriving = self._arriving, ()
        return sums

    def _after(self, block: int) -> int:
        return (block + 1) % self.group.size

    def _hand_on(self, rows: Rows, block: int, tag: int) -> tuple[Rows, list[Wait]] | None:
        """Begin to give a block's rows away and to take those of the next; None where that one is here already."""
        following = self._after(block)
        return None if following == self.group.rank else self._pass(rows, following, tag)

    def _pass(self, rows: Rows, following: int, tag: int) -> tuple[Rows, list[Wait]]:
        size = len(self.blocks[following])
        taken = tuple(x.new_empty((size, *x.shape[1:])) for x in rows)
        return taken, [
            self.group.pass_on(give, take, tag + at) for at, (give, take) in enumerate(zip(rows, taken, strict=True))
        ]


def _all(waits: list[Wait]) -> None:
    for wait in waits:
        wait()
    waits.clear()


def layout_of(n_items: int, group: Group, *, sharded: bool) -> Exchange:
    """The exchange of a fit; `sharded` is the ring."""
    return Ring(n_items, group) if sharded else Replicated(n_items, group)
