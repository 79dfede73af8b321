"""Points of a trajectory on disk, a file for each process's share, from which a fit goes on bit for bit.

A folder holds ``epoch-00000040/`` and its like, the last two of them:

- ``users-r-of-R.safetensors``: P (m_r, K), b (m_r,) of process r, their velocities, and the best so far (``patience``);
- ``items-s-of-S.safetensors``: the same of Q and c; S is 1 where every process has all rows, else R;
- ``manifest.json``: which fit it is, epoch, history, and the size of each file.

Every file takes its name when it is whole and flushed, and the manifest is the last of them: a folder without one is
not read. `torch.distributed.checkpoint` would do the same, but its ``.metadata`` is a pickle, and nothing here loads
what can run code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mf_numpy.errors import ConfigError, FileFormatError
from mf_numpy.files import replacing
from mf_numpy.model import Tensors
from mf_numpy.result import EpochRecord
from mf_torch.distributed.group import Group

FORMAT, VERSION = "mf-checkpoint", 1
KEPT = 2
"""Checkpoints that stay: the last one, and the one before it."""

_MANIFEST = "manifest.json"
_NAME = re.compile(r"epoch-(\d{8,})")
_SIDES = {"users": ("P", "b"), "items": ("Q", "c")}


@dataclass(frozen=True, eq=False)
class Point:
    """One process's share of a point.

    Attributes:
        epoch: epochs finished.
        history: one record an epoch.
        tensors: parameters by name, ``velocity.*`` where there are velocities, and ``best.*`` with ``patience``.
    """

    epoch: int
    history: tuple[EpochRecord, ...]
    tensors: Tensors


class Checkpoints:
    """The checkpoints of one fit in a folder that all processes see.

    Args:
        folder: made where it is not there.
        fit: what a later process must have in common with this one to go on, as JSON values.
        sharded: whether Q and c are in as many files as there are processes.
    """

    def __init__(self, folder: str | os.PathLike[str], fit: Mapping[str, Any], group: Group, *, sharded: bool) -> None:
        self.folder, self.fit, self.group = Path(folder), dict(fit), group
        self.files = {"users": _share(group.rank, group.size)}
        self.writes = set(self.files)
        self.files["items"] = _share(group.rank, group.size) if sharded else _share(0, 1)
        if sharded or group.rank == 0:
            self.writes.add("items")
        n_files = {"users": group.size, "items": group.size if sharded else 1}
        self.names = [f"{side}-{_share(r, n)}" for side, n in n_files.items() for r in range(n)]

    def save(self, point: Point) -> None:
        """Write a point, all processes together, and let go of all but the last two."""
        place = self.folder / f"epoch-{point.epoch:08}"
        self.group.agree(lambda: self._write(place, point.tensors))
        if self.group.rank:
            self.group.agree(lambda: None)
        else:
            self.group.agree(lambda: self._complete(place, point))

    def latest(self, wanted: Mapping[str, tuple[tuple[int, ...], Any]]) -> Point | None:
        """This process's share of the last complete checkpoint, or None where there is none.

        Args:
            wanted: shape and dtype of each parameter.

        Raises:
            ConfigError: checkpoints of another fit.
            FileFormatError: one of another version, or damaged.
        """
        # Process 0 looks: the others may not see a folder of a moment ago yet, or still see one that went away.
        epoch = self.group.of_first(self.group.agree(self._last))
        return None if epoch < 0 else self.group.agree(lambda: self._read(epoch, wanted))

    def _write(self, place: Path, tensors: Tensors) -> None:
        place.mkdir(parents=True, exist_ok=True)
        for side in sorted(self.writes):
            own = {name: x for name, x in tensors.items() if name.rpartition(".")[2] in _SIDES[side]}
            with replacing(place / f"{side}-{self.files[side]}") as partial:
                save_file({name: np.ascontiguousarray(x) for name, x in own.items()}, partial)

    def _complete(self, place: Path, point: Point) -> None:
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "fit": self.fit,
            "epoch": point.epoch,
            "history": [asdict(record) for record in point.history],
            "files": {name: (place / name).stat().st_size for name in self.names},
        }
        with replacing(place / _MANIFEST) as partial:
            partial.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        for old in self._complete_ones()[:-KEPT]:
            # Without its manifest nobody takes what is left for whole.
            (old / _MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(old, ignore_errors=True)

    def _complete_ones(self) -> list[Path]:
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        names = [path for path in found if _NAME.fullmatch(path.name) and (path / _MANIFEST).exists()]
        return sorted(names, key=_epoch_of)

    def _last(self) -> int:
        """The last epoch whose checkpoint is complete, -1 if none is; only process 0 needs to know."""
        complete = [] if self.group.rank else self._complete_ones()
        return _epoch_of(complete[-1]) if complete else -1

    def _read(self, epoch: int, wanted: Mapping[str, tuple[tuple[int, ...], Any]]) -> Point:
        place = self.folder / f"epoch-{epoch:08}"
        try:
            facts = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
            came = facts["format"], facts["version"]
            if came != (FORMAT, VERSION):
                raise FileFormatError(
                    f"{str(place)!r} is {came[0]!r}, version {came[1]!r}, but {FORMAT!r}, version {VERSION}, is read "
                    "here; give another folder"
                )
            self._check_fit(facts["fit"])
            tensors: Tensors = {}
            for side, share in self.files.items():
                path = place / f"{side}-{share}"
                if path.stat().st_size != facts["files"][path.name]:
                    raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {facts['files'][path.name]}")
                with safe_open(path, framework="numpy") as file:
                    tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            for name in wanted.keys() - tensors.keys():
                raise ValueError(f"{name!r} is missing")
            for name, x in tensors.items():
                if (x.shape, x.dtype) != wanted[name.rpartition(".")[2]]:
                    raise ValueError(f"{name!r} is {x.dtype} {x.shape}")
            history = tuple(EpochRecord(**row) for row in facts["history"])
        except (ConfigError, FileFormatError):
            raise
        except (OSError, SafetensorError, ValueError, TypeError, LookupError) as error:
            raise FileFormatError(
                f"the checkpoint {str(place)!r} is damaged: {error}; take that folder away to go on from the one before"
            ) from error
        return Point(epoch, history, tensors)

    def _check_fit(self, theirs: Mapping[str, Any]) -> None:
        for name in self.fit.keys() | theirs.keys():
            old, new = theirs.get(name), self.fit.get(name)
            if old != new:
                raise ConfigError(
                    f"{str(self.folder)!r} has checkpoints of another fit: {name} was {old!r} and is now {new!r}; keep "
                    "it, or give another folder"
                )


def _epoch_of(place: Path) -> int:
    return int(place.name.rpartition("-")[2])


def _share(number: int, of: int) -> str:
    return f"{number}-of-{of}.safetensors"
