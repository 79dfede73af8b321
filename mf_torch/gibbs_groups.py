"""Rows of a side in groups of about as many ratings each, for batched products.

Shapes: R rows of a group, of at most L ratings, filled up to L by ratings that weigh nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mf_numpy.ratings import Array

CELLS = 1 << 22
"""Ratings of a group at most, fill included."""

FILL = 1.25
"""Ratings of a group at most, fill included, for each that it has."""


@dataclass(frozen=True, eq=False)
class Group:
    """R rows and their ratings.

    Attributes:
        rows: (R,).
        others: (R, L), the row of the other side.
        left: (R, L), r - μ.
        weight: (R, L), 1, or 0 for what fills up.
    """

    rows: Tensor
    others: Tensor
    left: Tensor
    weight: Tensor


def groups_of(starts: Array, others: Array, left: Array, device: str) -> Iterator[Group]:
    """Groups of rows, in the order of their lengths."""
    lengths = np.diff(starts)
    order = np.argsort(lengths, kind="stable")
    begin = 0
    while begin < len(order):
        end, taken = begin, 0
        while end < len(order):
            longest = int(lengths[order[end]])
            filled = longest * (end + 1 - begin)
            if end > begin and (filled > CELLS or filled > FILL * (taken + longest) + 64):
                break
            taken, end = taken + longest, end + 1
        rows = order[begin:end]
        places = np.arange(int(lengths[rows[-1]]))
        there = places < lengths[rows][:, None]
        at = np.where(there, starts[rows][:, None] + places, 0)
        yield Group(
            torch.tensor(rows, device=device),
            torch.tensor(others[at].astype(np.int64), device=device),
            torch.tensor(left[at], device=device),
            torch.tensor(there.astype(left.dtype), device=device),
        )
        begin = end
