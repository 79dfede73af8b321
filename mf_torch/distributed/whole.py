"""The shares of all processes as the result of one, on process 0: for a model that fits there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mf_numpy.engine import State
from mf_numpy.model import Tensors
from mf_numpy.optim import Memory
from mf_numpy.ratings import Array, Layout
from mf_numpy.result import Catalogue, FitResult
from mf_torch.distributed.group import Group
from mf_torch.distributed.shard import Shard, names

if TYPE_CHECKING:
    from mf_torch.distributed.train import Share


def whole(
    share: Share, shard: Shard, folder: str | os.PathLike[str], group: Group, details: Mapping[str, Any]
) -> FitResult | None:
    """The `FitResult` on process 0, None on the others. Users and items are in the order of a single process."""
    parts = shard.manifest["parts"]
    each = len(parts) // group.size
    mine = [parts[r * each : (r + 1) * each] for r in range(group.size)]
    rows = {
        "users": [part[-1]["users"][1] - part[0]["users"][0] for part in mine],
        "ratings": [sum(one["ratings"] for one in part) for part in mine],
    }
    n_items = shard.shape[1]
    if len(share.items) < n_items:
        rows["items"] = [n_items * (s + 1) // group.size - n_items * s // group.size for s in range(group.size)]

    def together(array: Array, side: str) -> Array:
        # Rows that every process has come from process 0.
        if side not in rows:
            return array
        shapes = [(size, *array.shape[1:]) for size in rows[side]]
        taken = [part.cpu().numpy() for part in group.collect(group.hold(array), shapes)]
        return np.concatenate(taken) if taken else array

    def all_of(tensors: Tensors) -> Tensors:
        return {name: together(x, "users" if name in ("P", "b") else "items") for name, x in tensors.items()}

    tensors, velocity = all_of(share.last.tensors()), all_of(share.velocity or {})
    kept = tensors if share.params is share.last else all_of(share.params.tensors())
    counts, seen = together(shard.user_counts, "users"), together(shard.ratings.items, "ratings")
    found = group.agree(lambda: None if group.rank else names(folder, len(parts)))
    if found is None:
        return None
    indptr = np.concatenate([[0], np.cumsum(counts)])
    scale, last = shard.manifest["scale"], share.last.with_tensors(tensors)
    return FitResult(
        last if kept is tensors else last.with_tensors(kept),
        share.config,
        share.history,
        share.status,
        share.message,
        "torch",
        str(group.device),
        Catalogue(
            *found[:2], shard.mean, None if scale is None else tuple(scale), found[2], Layout(indptr, seen, None)
        ),
        State(last, Memory(velocity) if velocity else None, share.epoch),
        details,
    )
