"""Ratings that come after training, by autograd; the twin of `mf_numpy.partial`."""

from __future__ import annotations

from typing import Any

from mf_numpy import partial as by_hand
from mf_numpy.config import Config
from mf_numpy.ratings import Ratings
from mf_numpy.result import FitResult
from mf_torch.train import fit


def partial_fit(
    result: FitResult, more: Ratings, *, n_epochs: int = 10, config: Config | None = None, **how: Any
) -> FitResult:
    """Go on with a model over ratings that it has not seen; arguments and errors are those of `mf_numpy.partial_fit`.

    Args:
        how: what else `mf_torch.fit` takes, such as ``device``.
    """
    return by_hand.partial_fit(result, more, n_epochs=n_epochs, config=config, train_with=fit, **how)
