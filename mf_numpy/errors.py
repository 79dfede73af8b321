"""The project's errors: each says what came, what is allowed, and what to do."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np


class DataError(ValueError):
    """A table of ratings that cannot be used as it is."""


class ConfigError(ValueError):
    """A setting outside what is allowed."""


class FileFormatError(ValueError):
    """A saved file that is damaged, of another kind, or of a newer format version."""


def counted(n: int, noun: str) -> str:
    """``"1 pair"``, ``"2,000 pairs"``."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest allowed name, or an empty string."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def choose(what: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`.

    Raises:
        ConfigError: with the allowed names and the nearest one.
    """
    names = list(allowed)
    if value not in names:
        listing = ", ".join(repr(n) for n in names)
        raise ConfigError(f"{what} is {value!r}, but must be one of {listing}.{nearest(value, names)}")
    return value


def whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number of at least `least`.

    Raises:
        ConfigError: what came, and what is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} is {value!r}, but must be a whole number, {least} or larger")


def number(
    name: str, value: Any, *, above: float | None = None, least: float | None = None, below: float | None = None
) -> None:
    """Refuse what is no finite number within bounds.

    Raises:
        ConfigError: what came, and what is allowed.
    """
    ok = isinstance(value, int | float | np.floating) and not isinstance(value, bool) and math.isfinite(value)
    ok = ok and (above is None or value > above) and (least is None or value >= least)
    ok = ok and (below is None or value < below)
    if not ok:
        bounds = [f"above {above:g}" if above is not None else "", f"{least:g} or larger" if least is not None else ""]
        bounds.append(f"below {below:g}" if below is not None else "")
        raise ConfigError(f"{name} is {value!r}, but must be a finite number " + " and ".join(b for b in bounds if b))
