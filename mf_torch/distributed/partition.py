"""Ratings as a Parquet data set in parts by user, so that each process of a fit reads its own and no machine all.

Symbols: m users, n items, N ratings, D parts. A folder holds:

- ``manifest.json``: format, version, m, n, N, μ, scale, held-out pairs that are cold, and of each part its users
  (first, past the last) and its numbers of ratings and held-out pairs;
- ``ratings/part=d/``: ``user`` and ``item`` (int32, encoded) and ``rating`` (float64), sorted by user;
- ``valid/part=d/``: held-out pairs whose user and item have ratings, in the same columns;
- ``users/part=d/``: of each user of the part, in order, the raw ``id`` and ``count`` (n_u);
- ``items.parquet``: of all n items, in order, ``id``, ``count`` (n_i) and, where there are any, ``title``.

Other programs can write it, too: a table that no machine holds is partitioned where it lies.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mf_numpy.errors import ConfigError, DataError
from mf_numpy.files import replacing
from mf_numpy.ratings import Array, IdMap, Ratings
from mf_numpy.result import Catalogue
from mf_numpy.split import Holdout

FORMAT, VERSION = "mf-parts", 1
MANIFEST = "manifest.json"


def partition(train: Ratings, folder: str | os.PathLike[str], *, parts: int, valid: Holdout | None = None) -> None:
    """Write the data set; its folder appears when it is whole.

    Args:
        train: N ratings; users keep their order, so that a fitted model is that of a single process.
        folder: a new one.
        parts: D, the most processes that a fit can have; a fit takes any divisor of it.
        valid: held-out pairs, encoded with the ids of `train`; cold ones are counted and left out.

    Raises:
        ConfigError: fewer parts than 1 or more than users, or a folder that is there already.
        DataError: no ratings.
    """
    target = Path(folder)
    if not 1 <= parts <= train.n_users:
        raise ConfigError(f"parts is {parts}, but must be between 1 and the {train.n_users} users")
    if not len(train):
        raise DataError("there are no training ratings; at least one is needed")
    if target.exists():
        raise ConfigError(f"{str(target)!r} is there already; give the name of a new folder")
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _write(train, valid, part, cut(train.user_counts, parts))
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def cut(counts: Array, parts: int) -> Array:
    """Where each part's users begin, (parts + 1,): every cut lies at the user nearest to an equal share of ratings.

    Args:
        counts: n_u of each user, (m,), m ≥ parts.
    """
    done = np.concatenate([[0], np.cumsum(counts)])
    wanted = np.arange(parts + 1) * (done[-1] / parts)
    after = np.searchsorted(done, wanted)
    before = np.maximum(after - 1, 0)
    at = np.where(wanted - done[before] < done[after] - wanted, before, after)
    at[0], at[-1] = 0, len(counts)
    # Nobody is left without a user, however few rate however much.
    each = np.arange(parts + 1)
    at = np.maximum.accumulate(at - each) + each
    begins: Array = np.minimum(at, len(counts) - each[::-1])
    return begins


def _write(train: Ratings, valid: Holdout | None, folder: Path, cuts: Array) -> None:
    view, rows = train.csr, []
    users, values = view.arranged(train.users), view.arranged(train.values)
    held = None if valid is None else np.flatnonzero(valid.known)
    if valid is not None and held is not None:
        held = held[np.argsort(valid.users[held], kind="stable")]
    for d, (low, high) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
        mine = slice(int(view.indptr[low]), int(view.indptr[high]))
        _pairs(folder, "ratings", d, users[mine], view.indices[mine], values[mine])
        _table(
            folder / f"users/part={d}/data.parquet",
            {"id": _ids(train.user_ids, slice(low, high)), "count": pa.array(train.user_counts[low:high])},
        )
        row = {"users": [low, high], "ratings": mine.stop - mine.start}
        if valid is not None and held is not None:
            at = held[slice(*np.searchsorted(valid.users[held], [low, high]))]
            _pairs(folder, "valid", d, valid.users[at], valid.items[at], valid.values[at])
            row["valid"] = len(at)
        rows.append(row)
    columns = {"id": _ids(train.item_ids, slice(None)), "count": pa.array(train.item_counts)}
    titles = Catalogue.of(train).titles
    if titles is not None:
        columns["title"] = pa.array(titles, pa.string())
    _table(folder / "items.parquet", columns)
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "n_users": train.n_users,
        "n_items": train.n_items,
        "n_ratings": len(train),
        "mean": train.mean,
        "scale": train.scale,
        "cold": None if valid is None else valid.n_cold,
        "parts": rows,
    }
    with replacing(folder / MANIFEST) as path:
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _pairs(folder: Path, kind: str, part: int, users: Array, items: Array, values: Array) -> None:
    columns = {"user": pa.array(users, pa.int32()), "item": pa.array(items, pa.int32()), "rating": pa.array(values)}
    _table(folder / f"{kind}/part={part}/data.parquet", columns)


def _ids(ids: IdMap, rows: slice) -> pa.Array:
    return pa.array(ids.raw[rows], pa.string() if ids.is_text else pa.int64())


def _table(path: Path, columns: dict[str, pa.Array]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
