"""The ratings as a GPU's kernels walk them: each row's pairs, in pieces that one program each can take.

How often an item is rated follows a power law. A piece has `PIECE` pairs at most, so that no program is still busy with
one row when all others are done; the pieces of a row are then added up first to last, which keeps its bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mf_torch.batch import Batch
from mf_torch.paths.layout import Compressed, SparseBatch, compress

PIECE = 512
"""Pairs of a piece at most; a multiple of every number of pairs that a program takes at once."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """One compressed view of the pairs, cut; a row without pairs has one piece without any.

    Attributes:
        indptr: (rows + 1,) where each row's pairs begin.
        others: (B,) the other side's index of each pair.
        first: (rows + 1,) the first piece of each row.
        row: (pieces,) whose piece it is.
    """

    indptr: Tensor
    others: Tensor
    first: Tensor
    row: Tensor


@dataclass(eq=False, kw_only=True)
class RowBatch(SparseBatch):
    """`SparseBatch` with both views in pieces.

    Attributes:
        user_pieces, item_pieces: the views `by_user` and `by_item`.
    """

    user_pieces: Pieces = field(repr=False)
    item_pieces: Pieces = field(repr=False)


def in_pieces(batch: Batch) -> RowBatch:
    """Sort the pairs by user, stably, and cut both views.

    Raises:
        IndexError: an index outside the batch's shape.
    """
    if isinstance(batch, RowBatch):
        return batch
    sparse = compress(batch)
    return RowBatch(**vars(sparse), user_pieces=cut(sparse.by_user), item_pieces=cut(sparse.by_item))


def cut(view: Compressed) -> Pieces:
    """Pieces of `PIECE` pairs, the last one of each row shorter."""
    counts = view.indptr.diff().long()
    n_pieces = torch.clamp(-(-counts // PIECE), min=1)
    first = torch.cat([n_pieces.new_zeros(1), torch.cumsum(n_pieces, dim=0)])
    each = torch.arange(int(first[-1]), device=first.device)
    row = torch.searchsorted(first, each, right=True) - 1
    index = view.indptr.dtype
    return Pieces(view.indptr, view.indices, first.to(index), row.to(index))


def to_tensors(batch: RowBatch) -> list[Tensor]:
    """The layout as `mf_torch.paths.operator.fused` takes it."""
    return [*vars(batch.user_pieces).values(), *vars(batch.item_pieces).values(), batch.values, batch.order]


def from_tensors(layout: list[Tensor]) -> tuple[Pieces, Pieces, Tensor, Tensor]:
    """Pieces of users and of items, values, and where each pair of the items' order stands in the users'."""
    return Pieces(*layout[:4]), Pieces(*layout[4:8]), layout[8], layout[9]
