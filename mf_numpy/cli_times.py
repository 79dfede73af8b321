"""What the command line knows of time: ``--at``, and models of users and items at a time without it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np

from mf_numpy.cli_output import warn
from mf_numpy.errors import ConfigError
from mf_numpy.result import FitResult
from mf_numpy.timed import Times

_LATEST = 1 << 62


def timestamp_of(text: str) -> int:
    """Seconds since 1970 of a date, or of what is a number of them already; days begin at midnight UTC.

    Raises:
        ConfigError: a text that is neither.
    """
    try:
        if re.fullmatch(r"[+-]?\d+", text.strip()):
            seconds = int(text)
        else:
            when = datetime.fromisoformat(text.strip())
            seconds = int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() // 1)
    except ValueError:
        seconds = _LATEST
    if abs(seconds) >= _LATEST:
        raise ConfigError(f"at is {text!r}, but must be a date such as 1998-04-22, or seconds since 1970")
    return seconds


def times_of(result: FitResult) -> Times | None:
    """What describes a model's users and items at any time, where it has that."""
    return None if result.design is None else result.design.times


def as_of(result: FitResult, at: str | None = None) -> FitResult:
    """A model at a time, where its users and items have one: the last day of training if none is given.

    Raises:
        ConfigError: a time for a model that has none, or a text that is none.
    """
    times = times_of(result)
    if times is None:
        if at is not None:
            raise ConfigError(
                "at is given, but the model's users and items are the same at any time; drop it, or fit with features "
                "of time, such as drift"
            )
        return result
    if at is not None:
        return result.at(timestamp_of(at))
    warn(f"note: as of {np.datetime64(times.last, 's').astype('datetime64[D]')}, the last day of training")
    return result.at(times.last)
