"""The pairs of a batch as two compressed sparse matrices, and the products with them that Eq. 1 and Eq. 6 are made of.

Symbols: B pairs, `left` (m, C) and `right` (n, C) tables, `values` (B,) numbers of the pairs such as E.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from mf_torch.batch import Batch

_LINE = 64
"""Bytes of a cache line."""


@dataclass(frozen=True, eq=False)
class Compressed:
    """One compressed view of the pairs; a pair that comes twice is there twice.

    Attributes:
        indptr: (rows + 1,) where each row begins.
        indices: (B,) the other side's index of each pair.
        shape: (rows, columns).
    """

    indptr: Tensor
    indices: Tensor
    shape: tuple[int, int]

    @property
    def crowded(self) -> bool:
        """Whether there are more pairs than cells, which sparse libraries take for a mistake."""
        return len(self.indices) > self.shape[0] * self.shape[1]

    def matrix(self, values: Tensor) -> Tensor:
        """The sparse matrix of `values` (B,), in this view's order; it shares their memory."""
        spend_the_warning()
        return torch.sparse_csr_tensor(self.indptr, self.indices, values, self.shape, check_invariants=False)

    def times(self, values: Tensor, table: Tensor) -> Tensor:
        """The product of `matrix(values)` and a table (columns, C): (rows, C); pairs that come twice add up (Eq. 7)."""
        if self.crowded or (table.is_cuda and torch.are_deterministic_algorithms_enabled()):
            return self.summed(values, table)
        matrix = self.matrix(values)
        if table.is_cuda:
            return matrix @ table  # Eq. 7
        # A CPU's cache holds a column of lines where it does not hold the table.
        parts = table.split(_LINE // table.element_size(), dim=1)  # type: ignore[no-untyped-call]
        return torch.cat([matrix @ part.contiguous() for part in parts], dim=1)  # Eq. 7

    def summed(self, values: Tensor, table: Tensor) -> Tensor:
        """`times` for any pairs, with sums in an order that cuSPARSE does not promise; holds a (B, C) table."""
        parts = torch.index_select(table, 0, self.indices) * values[:, None]
        sums: Tensor = torch.segment_reduce(parts, "sum", offsets=self.indptr.long(), unsafe=True, initial=0)
        return sums


@dataclass(eq=False, kw_only=True)
class SparseBatch(Batch):
    """`Batch` sorted by user, with both compressed views; indices are int32 where they fit.

    Attributes:
        by_user: the pairs in the order of the batch.
        by_item: the pairs sorted by item, and by user among those of an item.
        order: (B,) where each pair of `by_item` stands in the batch.
    """

    by_user: Compressed
    by_item: Compressed
    order: Tensor = field(repr=False)

    def shares(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """n_u/B (m,) and n_i/B (n,) of the batch, from the ends of the rows."""
        if self._shares is None:
            share = 1.0 / len(self)
            w_u, w_i = (view.indptr.diff().double() * share for view in (self.by_user, self.by_item))
            self._shares = w_u.to(dtype), w_i.to(dtype)
        return self._shares

    def predicted(self, P: Tensor, Q: Tensor, b: Tensor | None, c: Tensor | None) -> Tensor:
        """p_u·q_i of each pair, and b_u + c_i where there are biases (Eq. 1): (B,); no dense matrix is made."""
        if self.by_user.crowded:
            x = (torch.index_select(P, 0, self.users) * torch.index_select(Q, 0, self.items)).sum(dim=1)
        else:
            x = P.new_zeros(len(self))
            pattern = self.by_user.matrix(x)
            # In place: otherwise torch makes a copy of the pattern first.
            torch.sparse.sampled_addmm(pattern, P, Q.t(), beta=0.0, out=pattern)  # Eq. 1
        if b is not None and c is not None:
            x += torch.index_select(b, 0, self.users)  # Eq. 1
            x += torch.index_select(c, 0, self.items)  # Eq. 1
        return x

    def pulled(self, e: Tensor, P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """E Q (m, K), Eᵀ P (n, K), E 1 (m,) and Eᵀ 1 (n,) of numbers e (B,), as in Eq. 4 and Eq. 6."""
        (e_q, e_1), (et_p, et_1) = self.pulled_users(e, Q), self.pulled_items(e, P)
        return e_q, et_p, e_1, et_1

    def pulled_users(self, e: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        """E Q (m, K) and E 1 (m,)."""
        return self.by_user.times(e, Q), self.by_user.times(e, Q.new_ones(len(Q), 1))[:, 0]  # Eq. 4

    def pulled_items(self, e: Tensor, P: Tensor) -> tuple[Tensor, Tensor]:
        """Eᵀ P (n, K) and Eᵀ 1 (n,)."""
        of_items = torch.index_select(e, 0, self.order)
        return self.by_item.times(of_items, P), self.by_item.times(of_items, P.new_ones(len(P), 1))[:, 0]  # Eq. 4


def compress(batch: Batch) -> SparseBatch:
    """Sort the pairs by user, stably, and lay out both views: two sorts, and for a checked batch no waiting.

    Raises:
        IndexError: an index outside the batch's shape.
    """
    if isinstance(batch, SparseBatch):
        return batch
    m, n = batch.shape
    batch.check(m, n)
    index = torch.int32 if len(batch) < 2**31 else torch.int64
    users, at = torch.sort(batch.users, stable=True)
    items = torch.index_select(batch.items, 0, at)
    of_item, order = torch.sort(items, stable=True)
    users_of_items = torch.index_select(users, 0, order)
    return SparseBatch(
        users.to(index),
        items.to(index),
        torch.index_select(batch.values, 0, at),
        batch.shape,
        _in_range=True,
        by_user=Compressed(_begins(users, m).to(index), items.to(index), (m, n)),
        by_item=Compressed(_begins(of_item, n).to(index), users_of_items.to(index), (n, m)),
        order=order.to(index),
    )


def _begins(rows: Tensor, n_rows: int) -> Tensor:
    """Where each of the sorted `rows` begins, (n_rows + 1,)."""
    each = torch.arange(n_rows + 1, dtype=rows.dtype, device=rows.device)
    return torch.searchsorted(rows, each)


@cache
def spend_the_warning() -> None:
    """torch says once in a process that CSR tensors are in beta; a library has nothing to add to it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0]), torch.tensor([], dtype=torch.int64), torch.tensor([]), (0, 0))
