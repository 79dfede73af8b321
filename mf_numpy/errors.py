"""The project's errors: each says what came, what is allowed, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
