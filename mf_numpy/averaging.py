"""Averaged iterates: one point that jitters less than the last step does, by the mean over epochs (Eq. 84)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mf_numpy.config import Config
from mf_numpy.model import Params, Tensors


@dataclass(frozen=True, eq=False)
class Average:
    """The mean over the ends of epochs so far.

    Attributes:
        tensors: float64, in the shapes of the parameters.
        count: of how many epochs it is.
    """

    tensors: Tensors
    count: int

    def with_point(self, params: Params) -> Average:
        """The mean with one more (Eq. 84); of steps about a minimum it has the spread of Eq. 85."""
        means, count = self.tensors, self.count + 1
        # A fit that has diverged is told by its errors, not by a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            moved = {name: means[name] + (x - means[name]) / count for name, x in params.tensors().items()}
        return Average(moved, count)

    def params(self, like: Params) -> Params:
        """The mean as parameters of the model that `like` is of, in its precision."""
        return like.with_tensors({name: self.tensors[name].astype(x.dtype) for name, x in like.tensors().items()})


def after(average: Average | None, params: Params, epoch: int, config: Config) -> Average | None:
    """The mean once the parameters after epoch 1, 2, ... are in; None before ``config.average_from``."""
    if config.average_from is None or epoch < config.average_from:
        return None
    if average is None:
        return Average({name: x.astype(np.float64) for name, x in params.tensors().items()}, 1)
    return average.with_point(params)
