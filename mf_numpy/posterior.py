"""What draws from a posterior are worth together: the mean prediction over them (Eq. 70)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from mf_numpy import design as by_hand
from mf_numpy import losses
from mf_numpy.config import Config
from mf_numpy.design import Design
from mf_numpy.grades import Cuts
from mf_numpy.metrics import Predictor
from mf_numpy.model import Params, Tensors
from mf_numpy.ratings import Array

if TYPE_CHECKING:
    from mf_numpy.draws_file import Spool


def place(epoch: int, config: Config) -> tuple[int, int]:
    """Which chain epoch 1, 2, ... is of, from 0, and which epoch of that chain it is, from 1."""
    if config.chain_length is None:
        return 0, epoch
    chain, before = divmod(epoch - 1, config.chain_length)
    return chain, before + 1


def seed_of(chain: int, config: Config) -> int:
    """The seed of a chain's start; the first one's is that of any other solver's."""
    return int(np.random.SeedSequence([config.seed, chain]).generate_state(1)[0]) if chain else config.seed


def is_kept(epoch: int, config: Config) -> bool:
    """Whether the draw of epoch 1, 2, ... is kept: every ``thin``-th of its chain past ``burn_in``."""
    past = place(epoch, config)[1] - config.burn_in
    return past > 0 and past % config.thin == 0


def n_kept(n_epochs: int, config: Config) -> int:
    """How many draws of epochs 1, ..., n are kept."""
    return sum(is_kept(epoch, config) for epoch in range(1, n_epochs + 1))


class Each(Sequence[Params]):
    """Parameters that are made one by one, when they are asked for."""

    def __init__(self, make: Callable[[int], Params], length: int) -> None:
        self._make, self._places = make, range(length)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Params: ...
    @overload
    def __getitem__(self, at: slice) -> list[Params]: ...
    def __getitem__(self, at: int | slice) -> Params | list[Params]:
        places = self._places[at]
        return self._make(places) if isinstance(places, int) else [self._make(place) for place in places]

    def __iter__(self) -> Iterator[Params]:
        return map(self._make, self._places)


@dataclass(frozen=True, eq=False)
class Kept:
    """A file of draws (`mf_numpy.draws_file`); the arrays stay there.

    Attributes:
        path: where it is.
        shares: (n, S, K), Q / S.
        rows: with a design P (m, S, K) and Q (n, S, K), what users and items are made of in the mean; else None.
    """

    path: Path
    shares: Array
    rows: Tensors | None


@dataclass(frozen=True, eq=False)
class Draws:
    """S kept draws of a chain, or of several.

    Attributes:
        points: parameters.
        precisions: α beside each, in 1/rating²; 1 where ratings are grades.
        stacked: the arrays whose views they are, as `tensors` has them, or None.
        spool: where further draws are written, or None to keep them in memory.
        kept: the file in which they are, once the chain has ended, or None.
    """

    points: Sequence[Params] = ()
    precisions: tuple[float, ...] = ()
    stacked: Tensors | None = None
    spool: Spool | None = None
    kept: Kept | None = None

    def __len__(self) -> int:
        return len(self.precisions)

    def with_draw(self, point: Params, precision: float) -> Draws:
        """These and one more."""
        precisions, spool = (*self.precisions, precision), self.spool
        if spool is None:
            return Draws((*self.points, point), precisions)
        spool.put(len(self), point)
        return Draws(Each(spool.point, len(precisions)), precisions, spool=spool)

    @classmethod
    def of(cls, tensors: Tensors, precisions: Array, mu: float, cuts: Cuts | None = None) -> Draws:
        """The inverse of `tensors`; the draws are views of these."""
        points = tuple(Params.of({k: x[:, s] for k, x in tensors.items()}, mu, cuts) for s in range(len(precisions)))
        return cls(points, tuple(precisions.tolist()), tensors)

    def tensors(self) -> Tensors:
        """Parameters by name, with the S draws along the second axis, and α (S,) as ``precision``."""
        stacked = self.stacked
        if stacked is None:
            of_each = [point.tensors() for point in self.points]
            stacked = {name: np.stack([one[name] for one in of_each], axis=1) for name in of_each[0]}
        return stacked | {"precision": np.array(self.precisions)}

    def mean(self) -> Params:
        """Parameters of S·K factors that predict the mean over the draws (Eq. 70).

        Where ratings are grades that is the mean of the scores, and the cut points are means, too.
        """
        first, share = self.points[0], 1 / len(self)
        if first.cuts is not None:
            each = [point.cuts.points for point in self.points if point.cuts]
            first = replace(first, cuts=first.cuts.moved_to(np.asarray(np.mean(each, axis=0, dtype=np.float64))))
        if self.stacked is None:
            P = np.concatenate([point.P for point in self.points], axis=1)
        else:
            # A view, of the file where there is one.
            P = self.stacked["P"].reshape(len(first.P), -1)
        if self.kept is None:
            Q = np.concatenate([point.Q * point.Q.dtype.type(share) for point in self.points], axis=1)  # Eq. 70
        else:
            Q = self.kept.shares.reshape(len(first.Q), -1)
        if first.b is None or first.c is None:
            return replace(first, P=P, Q=Q)
        totals = {"b": np.zeros(len(first.b)), "c": np.zeros(len(first.c))}
        for point in self.points:
            for name, total in totals.items():
                total += getattr(point, name)
        b, c = ((total / len(self)).astype(P.dtype) for total in totals.values())
        return replace(first, P=P, Q=Q, b=b, c=c)

    def rows(self, mean: Params, design: Design) -> Params:
        """What users and items are made of where their features are as in `mean` (Eq. 33)."""
        rows = self.kept.rows if self.kept is not None else None
        if rows is None:
            return by_hand.rows(mean, design)
        biases = by_hand.rows(replace(mean, P=mean.P[:, :0], Q=mean.Q[:, :0]), design)
        P, Q = (rows[name].reshape(len(rows[name]), -1) for name in "PQ")
        return replace(biases, P=P, Q=Q)


def so_far(draws: Draws | None) -> Draws:
    """The draws that a chain has where it begins or goes on."""
    return Draws() if draws is None else draws


class RunningMean:
    """What rating to expect of the same pairs as a chain goes on: by the last draw at first, then by the mean over all.

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
        if place(epoch, self._config)[1] > self._config.burn_in:
            self._add(point, predict)
        # Of a later chain what comes before its draws is worth less than the chains before it.
        self.predicted = self._total / self._count if self._count else self._predict(point, predict)
        return self.predicted

    def _add(self, point: Params, predict: Predictor, times: int = 1) -> None:
        self._total += times * self._predict(point, predict)
        self._count += times

    def _predict(self, point: Params, predict: Predictor) -> Array:
        rows = point if self._rows is None else self._rows(point)
        scores = predict(rows, self.users, self.items).astype(np.float64)
        return losses.mean_of(scores, self._config, rows.cuts)
