"""A fit in this process that Ctrl-C ends as a whole: to a user the epochs so far are worth keeping, to a result not."""

from __future__ import annotations

from typing import Any

import mf_numpy
from mf_numpy import Config, FitResult, Ratings


def fit(train: Ratings, config: Config, **more: Any) -> FitResult:
    """`mf_numpy.fit`, which keeps Ctrl-C to itself and returns what was learned.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    found = mf_numpy.fit(train, config, **more)
    if found.status == "stopped" and found.message.startswith("interrupted"):
        raise KeyboardInterrupt
    return found
