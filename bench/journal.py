"""A result file that grows: each finished case is on disk, in one step, before the next one begins.

Arrays lie in a folder beside the file, ``FILE.parts``, until the run is complete. A run that was killed at any moment
goes on from what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from bench import result
from mf_numpy.errors import ConfigError, FileFormatError
from mf_numpy.ratings import Array

Json = dict[str, Any]


class Journal:
    """The cases of one run, by key.

    Attributes:
        path: the file.
        outcome: what it holds: the run's head, ``complete`` and ``cases`` {key: outcome}.
    """

    def __init__(self, path: Path, head: Json, *, resume: bool = False, anew: bool = False) -> None:
        """Begin the file, or go on with it.

        Args:
            path: the file.
            head: what makes the run what it is; ``identity`` (plain values) must be that of a file which is resumed.
            resume: go on with a file that is there; one that is not is begun.
            anew: let the first case of this run take the place of a finished file, or of one that is no such file.

        Raises:
            ConfigError: the file is there and neither of these, it is of another run, or it cannot be written.
            FileFormatError: the file that is to be resumed is no such file.
        """
        self.path = result.target(path)
        self.outcome: Json = result.clean(head | {"complete": False, "cases": {}})
        if path.exists():
            if not resume:
                if anew and not _is_cut_short(path):
                    shutil.rmtree(self.parts, ignore_errors=True)
                    return
                raise ConfigError(f"{path.name} is there already; resume it, or name another file")
            self._go_on(result.load(path, head["schema"], head["schema_version"]))
        elif self.parts.exists():
            shutil.rmtree(self.parts)
        self._write()

    @property
    def parts(self) -> Path:
        """The folder of arrays."""
        return self.path.with_name(self.path.name + ".parts")

    @property
    def cases(self) -> Json:
        """Outcome of each finished case by key."""
        cases: Json = self.outcome["cases"]
        return cases

    def keep(self, key: str, outcome: Json, arrays: dict[str, Array] | None = None) -> None:
        """A finished case, with arrays by name."""
        for name, array in (arrays or {}).items():
            self.parts.mkdir(parents=True, exist_ok=True)
            place = self._place(key, name)
            part = place.with_suffix(".part")
            with part.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            os.replace(part, place)
        self.cases[key] = result.clean(outcome)
        self._write()

    def array(self, key: str, name: str) -> Array:
        """An array that `keep` was given.

        Raises:
            FileFormatError: it is gone.
        """
        try:
            found: Array = np.load(self._place(key, name), allow_pickle=False)
        except (OSError, ValueError) as error:
            raise FileFormatError(
                f"{self.parts.name} has lost an array of {key} ({error}); remove {self.path.name} and run it again"
            ) from None
        return found

    def note(self, more: Json) -> Json:
        """Write what can be said of the cases so far; returns the result with it."""
        self.outcome |= result.clean(more)
        self._write()
        return self.outcome

    def finish(self, more: Json) -> Json:
        """Write the complete result, which holds `more`, and clear the arrays away."""
        self.note(more | {"complete": True})
        shutil.rmtree(self.parts, ignore_errors=True)
        return self.outcome

    def _place(self, key: str, name: str) -> Path:
        # Keys hold names of systems, which are no file names.
        return self.parts / f"{hashlib.sha256(f'{key}/{name}'.encode()).hexdigest()[:24]}.npy"

    def _go_on(self, before: Json) -> None:
        differ = _differences(before.get("identity"), self.outcome["identity"])
        if differ:
            raise ConfigError(
                f"{self.path.name} is of another run: {differ}; run it as it was begun, or name another file"
            )
        self.outcome |= {"cases": before["cases"], "complete": before["complete"], "created": before["created"]}
        if before["complete"]:
            self.outcome = before

    def _write(self) -> None:
        result.write_atomically(self.path, result.to_text(self.outcome))


def _is_cut_short(path: Path) -> bool:
    """Whether a file holds the cases of a run that has not ended."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(held, dict) and held.get("complete") is False


def _differences(before: Any, now: Json) -> str:
    """The first setting in which two runs differ, or nothing."""
    if not isinstance(before, dict):
        return "it does not say what it was a run of"
    for name in sorted(now.keys() | before.keys()):
        if before.get(name) != now.get(name):
            return f"{name} was {_short(before.get(name))} and is {_short(now.get(name))}"
    return ""


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
