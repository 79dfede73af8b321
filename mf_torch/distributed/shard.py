"""What a process reads of a data set in parts: its users and their ratings, all items' counts, and the totals.

The manifest is read first and everything else is held to it; `mf_torch.distributed.partition` describes the files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from mf_numpy.errors import ConfigError, DataError
from mf_numpy.ratings import Array, IdMap
from mf_torch.distributed.group import Group
from mf_torch.distributed.partition import FORMAT, MANIFEST, VERSION

_AGAIN = "partition the ratings again"
_NEAR = 1e-9
"""Relative difference of two sums of the same ratings in another order."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Observed or held-out pairs of a process.

    Attributes:
        users: (B,) int32, 0 for the process's first user, rising.
        items: (B,) int32 in [0, n).
        values: (B,) float64, in the unit of the rating scale.
    """

    users: Array
    items: Array
    values: Array

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, eq=False)
class Shard:
    """The share of one process.

    Attributes:
        users: which of the m users are its own.
        ratings: their ratings.
        valid: their held-out pairs, or None where none were written.
        user_counts: n_u of its users.
        item_counts: n_i of all n items, over all processes.
        manifest: as it was written.
    """

    users: range
    ratings: Pairs
    valid: Pairs | None
    user_counts: Array
    item_counts: Array
    manifest: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return int(self.manifest["n_users"]), int(self.manifest["n_items"])

    @property
    def n_ratings(self) -> int:
        """N, over all processes."""
        return int(self.manifest["n_ratings"])

    @property
    def mean(self) -> float:
        """μ, over all ratings."""
        return float(self.manifest["mean"])


def read(folder: str | os.PathLike[str], group: Group) -> Shard:
    """The share of this process: `len(parts) / group.size` parts that lie beside each other.

    Raises:
        ConfigError: a number of processes that does not divide the number of parts.
        DataError: no such data set, a part that is missing, or numbers that do not add up; on every process.
    """
    source = Path(folder)
    shard = group.agree(lambda: _own(source, group))
    found = np.bincount(shard.ratings.items, minlength=shard.shape[1])
    row = group.hold(found)
    group.add_up(row)()
    rated, total = group.total(float(len(shard.ratings)), float(shard.ratings.values.sum()))

    def check() -> None:
        wrong = np.flatnonzero(row.cpu().numpy() != shard.item_counts)
        if rated != shard.n_ratings:
            raise DataError(f"{_named(source)} says {shard.n_ratings:,} ratings, but has {int(rated):,}; {_AGAIN}")
        if len(wrong):
            at = int(wrong[0])
            raise DataError(
                f"{str(source / 'items.parquet')!r} gives item {at} {shard.item_counts[at]} ratings, but the parts "
                f"have {int(row[at])}; {_AGAIN}"
            )
        scale = max(abs(shard.mean), float(np.abs(shard.ratings.values).max(initial=0.0)))
        if abs(total / rated - shard.mean) > _NEAR * scale:
            raise DataError(f"{_named(source)} says mean {shard.mean!r}, but it is {total / rated!r}; {_AGAIN}")

    group.agree(check)
    return shard


def _own(source: Path, group: Group) -> Shard:
    manifest = _manifest(source)
    parts = manifest["parts"]
    if len(parts) % group.size:
        fits = ", ".join(str(r) for r in range(1, len(parts) + 1) if len(parts) % r == 0)
        raise ConfigError(
            f"{group.size} processes came for {len(parts)} parts; start {fits} of them, or partition the ratings with "
            f"parts={group.size} or a multiple of it"
        )
    each = len(parts) // group.size
    mine = range(group.rank * each, (group.rank + 1) * each)
    users = range(parts[mine.start]["users"][0], parts[mine.stop - 1]["users"][1])
    n_items = int(manifest["n_items"])
    has_valid = all("valid" in part for part in parts)
    counts = _table(source, "users", mine, {"count": pa.int64()})["count"]
    if len(counts) != len(users):
        raise DataError(f"{_named(source)} says {len(users):,} users in parts {_listed(mine)}, but has {len(counts):,}")
    ratings = _pairs(source, "ratings", mine, parts, users, n_items)
    if (np.bincount(ratings.users, minlength=len(users)) != counts).any():
        raise DataError(f"{str(source)!r} has other numbers of ratings than 'users' says of them; {_AGAIN}")
    path = source / "items.parquet"
    if not path.exists():
        raise DataError(f"{str(path)!r} is missing; copy it there, or {_AGAIN}")
    item_counts = _columns(path, {"count": pa.int64()})["count"]
    if len(item_counts) != n_items:
        raise DataError(
            f"{_named(source)} says {n_items:,} items, but {path.name!r} has {len(item_counts):,}; {_AGAIN}"
        )
    return Shard(
        users,
        ratings,
        _pairs(source, "valid", mine, parts, users, n_items) if has_valid else None,
        counts,
        item_counts,
        manifest,
    )


def _manifest(source: Path) -> Mapping[str, Any]:
    path = source / MANIFEST
    if not path.exists():
        raise DataError(
            f"{str(source)!r} holds no {MANIFEST}; give a folder that `python -m mf_torch.distributed partition` wrote"
        )
    try:
        manifest: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = (manifest["format"], manifest["version"]) == (FORMAT, VERSION)
        ends = [part["users"] for part in manifest["parts"]]
        joined = [end for _, end in ends[:-1]] == [begin for begin, _ in ends[1:]]
        whole = joined and ends[0][0] == 0 and ends[-1][1] == manifest["n_users"]
        rated = sum(part["ratings"] for part in manifest["parts"]) == manifest["n_ratings"]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{_named(source)} is damaged ({error}); {_AGAIN}") from None
    if not known:
        came = f"format {manifest['format']!r}, version {manifest['version']!r}"
        raise DataError(f"{_named(source)} is of {came}, but {FORMAT!r}, version {VERSION}, is read here; {_AGAIN}")
    if not (whole and rated):
        raise DataError(f"the parts of {_named(source)} do not add up to its users and ratings; {_AGAIN}")
    return manifest


def _pairs(source: Path, kind: str, mine: range, parts: list[Any], users: range, n_items: int) -> Pairs:
    columns = {"user": pa.int32(), "item": pa.int32(), "rating": pa.float64()}
    table = _table(source, kind, mine, columns)
    u, i, values = (table[name] for name in columns)
    expected = sum(parts[d][kind] for d in mine)
    if len(u) != expected:
        raise DataError(
            f"{_named(source)} says {expected:,} {kind} in parts {_listed(mine)}, but has {len(u):,}; {_AGAIN}"
        )
    for name, index, allowed in (("user", u, users), ("item", i, range(n_items))):
        if len(index) and not (allowed.start <= index.min() and index.max() < allowed.stop):
            raise DataError(
                f"{kind} of parts {_listed(mine)} of {str(source)!r} have a {name} outside "
                f"{allowed.start}..{allowed.stop - 1}; {_AGAIN}"
            )
    if not np.isfinite(values).all():
        raise DataError(f"{kind} of parts {_listed(mine)} of {str(source)!r} are not all finite; drop those first")
    u = u - np.int32(users.start)
    if (u[1:] < u[:-1]).any():
        # As a single process has them, in whatever order they were written.
        order = np.argsort(u, kind="stable")
        u, i, values = u[order], i[order], values[order]
    return Pairs(u, i, values)


def _table(source: Path, kind: str, mine: range, columns: Mapping[str, pa.DataType]) -> dict[str, Array]:
    """Columns of the parts of one kind, in their order; no other part is opened."""
    read = []
    for d in mine:
        part = source / kind / f"part={d}"
        if not part.is_dir():
            raise DataError(f"part {d} of {str(source / kind)!r} is missing; copy it there, or {_AGAIN}")
        read.append(_columns(part, columns))
    return {name: np.concatenate([part[name] for part in read]) for name in columns}


def _columns(path: Path, columns: Mapping[str, pa.DataType]) -> dict[str, Array]:
    try:
        table = pads.dataset(path, schema=pa.schema(columns.items())).to_table()
        return {name: table[name].to_numpy() for name in columns}
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}); copy it again, or {_AGAIN}") from None


def names(folder: str | os.PathLike[str], n_parts: int) -> tuple[IdMap, IdMap, Array | None]:
    """Raw ids of all users and items, and the items' titles or None; for the process that saves a model."""
    source = Path(folder)
    users: list[Any] = []
    for d in range(n_parts):
        users += pads.dataset(source / "users" / f"part={d}").to_table(columns=["id"])["id"].to_pylist()
    items = pads.dataset(source / "items.parquet").to_table()
    titles = items["title"].to_pylist() if "title" in items.column_names else None
    return (
        _ids(users),
        _ids(items["id"].to_pylist()),
        None if titles is None else np.array(titles, dtype=object),
    )


def _ids(raw: list[Any]) -> IdMap:
    return IdMap(np.array(raw, dtype=object if raw and isinstance(raw[0], str) else np.int64))


def _named(source: Path) -> str:
    return repr(str(source / MANIFEST))


def _listed(parts: range) -> str:
    return str(parts.start) if len(parts) == 1 else f"{parts.start} to {parts.stop - 1}"
