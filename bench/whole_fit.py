"""A fit in this process that Ctrl-C ends as a whole: to a user the epochs so far are worth keeping, to a result not."""

from __future__ import annotations

from typing import Any

import mf_numpy
from mf_numpy import Config, FitResult, Ratings, train


def fit(ratings: Ratings, config: Config, **more: Any) -> FitResult:
    """`mf_numpy.fit`, which keeps Ctrl-C to itself and returns what was learned.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    return _whole(mf_numpy.fit(ratings, config, **more))


def run(engine: Any, ratings: Ratings, config: Config, **more: Any) -> FitResult:
    """`mf_numpy.train.run`, the same.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    return _whole(train.run(engine, ratings, config, **more))


def _whole(found: FitResult) -> FitResult:
    if found.status == "stopped" and found.message.startswith("interrupted"):
        raise KeyboardInterrupt
    return found
