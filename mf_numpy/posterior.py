"""What draws from a posterior are worth together: the mean prediction over them (Eq. 67)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mf_numpy.config import Config
from mf_numpy.metrics import Predictor
from mf_numpy.model import Params, Tensors
from mf_numpy.ratings import Array


def is_kept(epoch: int, config: Config) -> bool:
    """Whether the draw of epoch 1, 2, ... is kept: every ``thin``-th past ``burn_in``."""
    past = epoch - config.burn_in
    return past > 0 and past % config.thin == 0


@dataclass(frozen=True, eq=False)
class Draws:
    """S kept draws of a chain.

    Attributes:
        points: parameters.
        precisions: α beside each, in 1/rating².
        stacked: the arrays whose views they are, as `tensors` has them, or None.
    """

    points: tuple[Params, ...] = ()
    precisions: tuple[float, ...] = ()
    stacked: Tensors | None = None

    def __len__(self) -> int:
        return len(self.points)

    def with_draw(self, point: Params, precision: float) -> Draws:
        """These and one more."""
        return Draws((*self.points, point), (*self.precisions, precision))

    @classmethod
    def of(cls, tensors: Tensors, precisions: Array, mu: float) -> Draws:
        """The inverse of `tensors`; the draws are views of these."""
        points = tuple(Params.of({k: x[:, s] for k, x in tensors.items()}, mu) for s in range(len(precisions)))
        return cls(points, tuple(precisions.tolist()), tensors)

    def tensors(self) -> Tensors:
        """Parameters by name, with the S draws along the second axis, and α (S,) as ``precision``."""
        stacked = self.stacked
        if stacked is None:
            of_each = [point.tensors() for point in self.points]
            stacked = {name: np.stack([one[name] for one in of_each], axis=1) for name in of_each[0]}
        return stacked | {"precision": np.array(self.precisions)}

    def mean(self) -> Params:
        """Parameters of S·K factors that predict the mean over the draws (Eq. 67)."""
        first, share = self.points[0], 1 / len(self)
        if self.stacked is None:
            P = np.concatenate([point.P for point in self.points], axis=1)
        else:
            # A view, of the file where there is one.
            P = self.stacked["P"].reshape(len(first.P), -1)
        Q = np.concatenate([point.Q * point.Q.dtype.type(share) for point in self.points], axis=1)  # Eq. 67
        if first.b is None:
            return replace(first, P=P, Q=Q)
        b, c = (np.mean([getattr(point, name) for point in self.points], axis=0, dtype=np.float64) for name in "bc")
        return replace(first, P=P, Q=Q, b=b.astype(P.dtype), c=c.astype(P.dtype))


class RunningMean:
    """What is predicted for the same pairs as a chain goes on: by the last draw at first, then by the mean over all.

    Attributes:
        predicted: (B,) in rating units.
    """

    def __init__(
        self,
        users: Array,
        items: Array,
        config: Config,
        draws: Draws | None = None,
        rows: Callable[[Params], Params] | None = None,
    ) -> None:
        """
        Args:
            draws: of an earlier run that this one goes on from.
            rows: makes the parameters of users and items of a draw that has those of features.
        """
        self.users, self.items, self._config, self._rows = users, items, config, rows
        self._total, self._count = np.zeros(len(users)), 0
        self.predicted = self._total
        self._earlier = draws

    def see(self, point: Params, epoch: int, predict: Predictor) -> Array:
        """The predictions once the draw of an epoch is in."""
        if self._earlier is not None:
            for earlier in self._earlier.points:
                # It stands for those between that were not kept; a view becomes an array of its own, as draws are.
                self._add(earlier.copy(), predict, self._config.thin)
            self._earlier = None
        if epoch <= self._config.burn_in:
            self.predicted = self._predict(point, predict)
        else:
            self._add(point, predict)
            self.predicted = self._total / self._count
        return self.predicted

    def _add(self, point: Params, predict: Predictor, times: int = 1) -> None:
        self._total += times * self._predict(point, predict)
        self._count += times

    def _predict(self, point: Params, predict: Predictor) -> Array:
        rows = point if self._rows is None else self._rows(point)
        return predict(rows, self.users, self.items).astype(np.float64)
