"""What a fit gives back: parameters, history, and the names needed to predict and recommend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from os import PathLike
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mf_numpy import asking, fold_in, graded, grades, losses, ranking, recommend, similar, uncertainty
from mf_numpy import design as by_hand
from mf_numpy.config import RANKING, SAMPLERS, Config
from mf_numpy.design import Design
from mf_numpy.engine import State
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.metrics import Scores, predict_known_and_cold, score_predictions
from mf_numpy.model import Params
from mf_numpy.posterior import Draws, Each
from mf_numpy.ratings import Array, IdMap, Layout, Ratings
from mf_numpy.split import Holdout

Status = Literal["converged", "max_epochs", "stopped", "diverged"]


@dataclass(frozen=True)
class EpochRecord:
    """One row of the history.

    Attributes:
        epoch: 1, 2, ...
        objective: J (Eq. 2) as the epoch's gradient saw it: before its update, or the mean over its mini-batches.
            Of ``gibbs`` it is the first term, the mean square, or of grades the mean of -log P.
        train_rmse: RMSE over the training ratings in that same pass, in rating units; of a loss with a link that of the
            means of Eq. 44, of ``all_pairs`` that of r̂ to 1, and of a list that of the chosen item's probability to 1.
        valid_rmse: RMSE on the validation pairs after the epoch, or None where not evaluated, or where the loss ranks.
        lr: η of the epoch.
        seconds: wall time of the epoch's steps, without evaluation.
    """

    epoch: int
    objective: float
    train_rmse: float
    valid_rmse: float | None
    lr: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The training set's names and facts that outlive training.

    Attributes:
        user_ids, item_ids: raw ids of the m users and n items.
        mean: training mean in rating units; what an unknown pair is predicted.
        scale: smallest and largest rating allowed, or None.
        titles: (n,) item titles, '' where unknown; or None.
        seen: the items each user rated, by user.
    """

    user_ids: IdMap
    item_ids: IdMap
    mean: float
    scale: tuple[float, float] | None
    titles: Array | None
    seen: Layout

    @classmethod
    def of(cls, train: Ratings) -> Catalogue:
        """The catalogue of a training set."""
        titles = None
        if train.item_info is not None and "title" in train.item_info:
            named = train.item_info["title"].reindex(pd.Index(train.item_ids.raw))
            titles = named.fillna("").to_numpy(dtype=object)
        return cls(train.user_ids, train.item_ids, train.mean, train.scale, titles, train.csr)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted ratings of pairs.

    Attributes:
        values: (B,) in rating units.
        n_unknown_users, n_unknown_items: pairs whose user, or item, was not in the training set; they are
            predicted by the mean plus the known side's bias.
    """

    values: Array
    n_unknown_users: int
    n_unknown_items: int


MEMBERS = "members"
"""In the `FitResult.details` of an ensemble, how many fits it is of."""


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted model.

    Attributes:
        params: the parameters: the best by validation RMSE with ``patience``, else the last ones; of draws what
            predicts their mean, or of draws of grades the mean of their scores.
        config: what was asked for.
        history: one `EpochRecord` an epoch.
        status: ``converged``, ``max_epochs``, ``stopped`` (by patience, callback or Ctrl-C) or ``diverged``.
        message: the status in words, with the remedy where there is one.
        backend, device: what trained it.
        catalogue: ids, titles, scale and seen items of the training set.
        state: the last point of the trajectory, from which ``fit(resume=...)`` goes on.
        details: what else says how it was trained, such as the ``path`` of `mf_torch`.
        of_features: with a design the parameters of its features, from which `params` follow (Eq. 33); else None.
        design: what users and items are made of, or None.
    """

    params: Params
    config: Config
    history: tuple[EpochRecord, ...]
    status: Status
    message: str
    backend: str
    device: str
    catalogue: Catalogue
    state: State
    details: Mapping[str, Any] = field(default_factory=dict)
    of_features: Params | None = None
    design: Design | None = None

    @property
    def is_ensemble(self) -> bool:
        """Whether `mf_numpy.ensemble` made it."""
        return MEMBERS in self.details

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean over draws or over fits, whose rows minimise no J: nobody can be folded in."""
        return self.config.solver in SAMPLERS or self.is_ensemble

    @property
    def draws(self) -> Draws | None:
        """The draws of ``gibbs``, as parameters of users and items with a design, too (Eq. 33); None without any."""
        kept, design = self.state.draws, self.design
        if not kept or design is None:
            return kept
        return Draws(Each(lambda at: by_hand.rows(kept.points[at], design), len(kept)), kept.precisions)

    def at(self, timestamp: int) -> FitResult:
        """The model of users and items at a time, in seconds since 1970, of a fit of them at many (`mf_numpy.timed`).

        Raises:
            ConfigError: a model whose users and items are the same at any time.
        """
        if self.design is None or self.design.times is None:
            raise ConfigError("the model's users and items are the same at any time; fit those of `timed`")
        return self.design.times.at(self, timestamp)

    def predict(self, users: Iterable[Any], items: Iterable[Any], *, clip: bool = False) -> Predictions:
        """Predict pairs of raw ids, given as two sequences of one length B.

        Where r̂ is no rating they are what it lets expect (Eq. 44, 54): the probability of a 1, the mean count or the
        mean grade, over the draws where there are any; of a loss that ranks they are its scores.

        Args:
            clip: move predictions outside the rating scale to its ends.

        Raises:
            DataError: strings asked of integer ids or the reverse.
            ValueError: sequences of different lengths, or `clip` without a known scale.
        """
        u, i = self._encode(users, items)
        values = self._expected(u, i)
        if clip:
            if self.catalogue.scale is None:
                raise ValueError(
                    "clip was asked for, but the training set declared no scale; read it with scale=(lo, hi)"
                )
            values = np.clip(values, *self.catalogue.scale)
        return Predictions(values, int((u < 0).sum()), int((i < 0).sum()))

    def probabilities(self, users: Iterable[Any], items: Iterable[Any]) -> pd.DataFrame:
        """How likely each grade is, a column a grade and a row for each pair of raw ids (Eq. 54, 79).

        Raises:
            DataError: a model of another loss than ``ordinal``; and as `predict`.
            ValueError: sequences of different lengths.
        """
        cuts = self.params.cuts
        if cuts is None:
            raise DataError(f"loss {self.config.loss!r} knows no grades; fit with loss='ordinal'")
        u, i = self._encode(users, items)
        draws = self._draws_of_grades
        if draws is None:
            scores, _ = predict_known_and_cold(self.params, u, i, self._nothing_known)
            chances = grades.probabilities(scores, cuts)
        else:
            chances = graded.probabilities(draws, u, i)
        return pd.DataFrame(chances, columns=cuts.grades.tolist())

    def _encode(self, users: Iterable[Any], items: Iterable[Any]) -> tuple[Array, Array]:
        u, i = self.catalogue.user_ids.encode(users), self.catalogue.item_ids.encode(items)
        if len(u) != len(i):
            raise ValueError(f"got {len(u)} users and {len(i)} items; give one item per user, as pairs")
        return u, i

    def interval(self, users: Iterable[Any], items: Iterable[Any], level: float = 0.9) -> uncertainty.Intervals:
        """Where the ratings of pairs lie with probability `level`, as the draws of ``gibbs`` have it (Eq. 71).

        Raises:
            ConfigError: a model without draws, or a level that is not between 0 and 1.
            DataError: an id that was not in the training set.
            ValueError: sequences of different lengths.
        """
        draws = self.draws
        uncertainty.check_draws(draws)
        assert draws is not None
        u, i = self._encode(users, items)
        for what, index in (("user", u), ("item", i)):
            if (index < 0).any():
                at = int(np.argmax(index < 0))
                raise DataError(f"the {what} of pair {at} was not in the training set; leave such pairs out")
        return uncertainty.intervals(draws, u, i, level)

    def recommend(
        self,
        user: Any,
        n: int = 10,
        *,
        with_seen: bool = False,
        items: Iterable[Any] | None = None,
        without: Iterable[Any] | None = None,
        diversity: float = 0.0,
    ) -> pd.DataFrame:
        """The `n` unrated items that `predict` has highest for one user; see `mf_numpy.recommend`.

        `items` are the only ones to rank and `without` those to leave out, as raw ids or masks; with `diversity` in
        [0, 1) the items of the list differ more, see `mf_numpy.diversity`.
        """
        draws = self._draws_of_grades
        best = recommend.recommend(
            self.params,
            self.catalogue,
            user,
            n,
            with_seen=with_seen,
            items=items,
            without=without,
            diversity=diversity,
            score=None if draws is None else partial(graded.of_all_items, draws),
        )
        if draws is not None:
            return best
        return best.assign(predicted=self._mean_of(best["predicted"].to_numpy()))

    def similar_items(self, item: Any, n: int = 10, *, measure: similar.Measure = "cosine") -> pd.DataFrame:
        """The `n` items whose factors are most like those of one item; see `mf_numpy.similar`."""
        return similar.similar_items(self.params, self.catalogue, item, n, measure=measure)

    def similar_users(self, user: Any, n: int = 10, *, measure: similar.Measure = "cosine") -> pd.DataFrame:
        """The `n` users whose factors are most like those of one user; see `mf_numpy.similar`."""
        return similar.similar_users(self.params, self.catalogue, user, n, measure=measure)

    def fold_in_user(
        self,
        ratings: Mapping[Any, float] | pd.Series[Any],
        features: sp.csr_array | None = None,
        *,
        prior: fold_in.PriorName = "penalty",
    ) -> fold_in.Newcomer:
        """A user whom training has not seen, by ratings by raw item id; see `mf_numpy.fold_in.fold_in`."""
        return fold_in.fold_in(self, "user", ratings, features, prior=prior)

    def fold_in_item(
        self,
        ratings: Mapping[Any, float] | pd.Series[Any],
        features: sp.csr_array | None = None,
        *,
        prior: fold_in.PriorName = "penalty",
    ) -> fold_in.Newcomer:
        """An item that training has not seen, by ratings by raw user id; see `mf_numpy.fold_in.fold_in`."""
        return fold_in.fold_in(self, "item", ratings, features, prior=prior)

    def suggest_items_to_rate(
        self,
        n: int = 10,
        *,
        rated: Iterable[Any] = (),
        items: Iterable[Any] | None = None,
        without: Iterable[Any] | None = None,
        sure: bool = False,
    ) -> pd.DataFrame:
        """The `n` items to ask a new user about who has `rated` some; see `mf_numpy.asking.suggest`."""
        return asking.suggest(self, "user", n, rated=rated, among=items, without=without, sure=sure)

    def score(self, holdout: Holdout) -> Scores:
        """Errors of what `predict` gives, on pairs encoded with this model's ids.

        Raises:
            DataError: a model of a loss that ranks, whose predictions are no ratings.
        """
        if self.config.loss in RANKING:
            raise DataError(
                f"loss {self.config.loss!r} ranks and predicts no ratings; use score_ranking, or the command rank"
            )
        return score_predictions(self._expected(holdout.users, holdout.items), holdout.values, holdout.known)

    @property
    def _nothing_known(self) -> float:
        """r̂ of a pair of which nothing is known."""
        return losses.prediction_of(self.catalogue.mean, self.config)

    @property
    def _draws_of_grades(self) -> Draws | None:
        """The draws where ratings are grades, so that predictions are means over them (Eq. 79); else None."""
        return self.draws if self.params.cuts is not None and self.state.draws else None

    def _expected(self, users: Array, items: Array) -> Array:
        """The rating to expect of pairs of indices, -1 for what is unknown."""
        draws = self._draws_of_grades
        if draws is not None:
            return graded.expected(draws, users, items)
        predicted, _ = predict_known_and_cold(self.params, users, items, self._nothing_known)
        return self._mean_of(predicted)

    def _mean_of(self, predicted: Array) -> Array:
        return losses.mean_of(predicted, self.config, self.params.cuts)

    def score_ranking(
        self,
        holdout: Holdout,
        *,
        k: int | Sequence[int] = 10,
        threshold: float | None = None,
        gain: ranking.Gain = "binary",
    ) -> ranking.RankingScores:
        """How well all unrated items are ranked, on pairs encoded with this model's ids; see `mf_numpy.ranking`.

        An item held out with a rating of at least `threshold` is relevant; if None, that is the training mean, and
        every item with a model of a loss that ranks.
        """
        if threshold is None:
            ranks = self.config.loss in RANKING and len(holdout)
            threshold = float(holdout.values.min()) if ranks else self.catalogue.mean
        draws = self._draws_of_grades
        return ranking.score_ranking(
            partial(recommend.score_all, self.params) if draws is None else partial(graded.of_all_items, draws),
            holdout,
            self.catalogue.seen,
            len(self.catalogue.item_ids),
            threshold=threshold,
            k=k,
            gain=gain,
        )

    def history_frame(self) -> pd.DataFrame:
        """The history as a table, one row an epoch."""
        return pd.DataFrame([asdict(record) for record in self.history]).astype({"epoch": int})

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to a file; see `mf_numpy.store.save`."""
        from mf_numpy import store

        store.save(self, path)
