"""How good a ranking is: precision, recall, MAP, NDCG, MRR, hit rate and AUC of every user, over all items.

Symbols: B users of a block, S users scored; n items; k length of a list; T relevant held-out pairs; scores (B, n).

For each user, U is the set of all items but those rated in training, in the order of their scores, highest first, ties
by the smaller index, as in `mf_numpy.recommend.top_n`. R ⊆ U holds the relevant items: those held out with a rating of
at least the threshold. All other items of U count as irrelevant, whether held out with a lower rating or never rated.
place_i is 1, 2, … of item i in U, and h_k the number of i ∈ R with place_i ≤ k. Then, for each user,

    precision@k  h_k / k, also where fewer than k items are left: an empty place is a miss
    recall@k     h_k / |R|
    hit@k        1 if h_k > 0, else 0; its mean is the hit rate
    map@k        Σ_{i ∈ R, place_i ≤ k} h_{place_i} / place_i, over min(k, |R|), so that the best list has 1; trec_eval
                 divides by |R|. The average precision, whose mean is MAP
    ndcg@k       Σ_{i ∈ R, place_i ≤ k} g_i / log2(1 + place_i), over its largest possible value; the gain g_i is 1
                 (``binary``), r_i (``rating``, Järvelin and Kekäläinen 2002) or 2^{r_i} - 1 (``exponential``, Burges et
                 al. 2005)
    novelty@k    mean of log2(m / n_i) over the list, the surprise of meeting a user who rated i (Zhou et al. 2010); an
                 item without ratings counts as if it had one
    mrr          1 / the smallest place_i, i ∈ R, wherever it is (Voorhees 1999)
    auc          the share of pairs i ∈ R, j ∈ U∖R with the higher score at i, ties counting half (Hanley and McNeil
                 1982); NaN where U∖R is empty

and the score is the mean over users with at least one relevant item; coverage@k is the share of the n items that is in
a list of any of them (Ge, Delgado-Battenfeld and Jannach 2010). A user without relevant items has no such score and is
left out. So are held-out pairs with a user or an item unseen in training, which has no factors to be ranked by, and
pairs that were in training; all are counted. A pair held out twice is one item, with the higher rating.

Nothing is sampled: metrics over a few sampled items can order systems wrongly (Krichene and Rendle 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from mf_numpy import bootstrap
from mf_numpy.errors import ConfigError, DataError, choose
from mf_numpy.model import check_range
from mf_numpy.ratings import Array, Layout
from mf_numpy.recommend import best_first, leave_out_seen
from mf_numpy.split import Holdout

Scorer = Callable[[Array], Array]
"""Users (B,) int64 → the score of every item for each, (B, n); higher is better, and all are finite."""
Gain = Literal["binary", "rating", "exponential"]

_SCORES_AT_ONCE = 1 << 21


@dataclass(frozen=True, eq=False)
class RankingScores:
    """Scores of a ranking, of each user.

    Attributes:
        users: (S,) index of each user with a relevant item, ascending.
        values: (S,) of each metric by name, such as ``ndcg@10``; NaN where a user has no such value.
        coverage: share of the items in any list, by name, such as ``coverage@10``.
        threshold: the lowest rating that makes a held-out item relevant.
        n_relevant: T, the relevant items ranked.
        n_cold: relevant pairs left out because training has not seen the user or the item.
        n_trained: relevant pairs left out because training has seen the pair.
        n_without: users seen in training who have held-out pairs, but no relevant item that is ranked.
    """

    users: Array
    values: Mapping[str, Array]
    coverage: Mapping[str, float]
    threshold: float
    n_relevant: int
    n_cold: int
    n_trained: int
    n_without: int

    def mean(self, name: str) -> float:
        """The metric: mean over users, or a coverage; NaN where no user has a value.

        Raises:
            ConfigError: a name that is not here.
        """
        if name in self.coverage:
            return self.coverage[name]
        choose("metric", name, [*self.values, *self.coverage])
        defined = self.values[name][~np.isnan(self.values[name])]
        return float(defined.mean()) if len(defined) else float("nan")

    def draws(self, *, n: int = bootstrap.DRAWS, seed: int = 0) -> dict[str, Array]:
        """Each mean over users in `n` draws of the bootstrap, (n,); rankings of the same users share the draws."""
        drawn = bootstrap.means(np.column_stack(list(self.values.values())), draws=n, seed=seed)
        return dict(zip(self.values, drawn.T, strict=True))

    def table(self, *, n: int = bootstrap.DRAWS, seed: int = 0) -> pd.DataFrame:
        """One row a metric: ``value``, and ``low`` and ``high`` of the bootstrap's 95 % interval over users.

        Coverage has none: it is no mean, and users drawn twice would only make it smaller.
        """
        drawn = self.draws(n=n, seed=seed)
        rows = {name: [self.mean(name), *bootstrap.interval(draws)] for name, draws in drawn.items()}
        rows |= {name: [share, np.nan, np.nan] for name, share in self.coverage.items()}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
        return table.rename_axis("metric")


@dataclass(frozen=True, eq=False)
class _Relevant:
    """T relevant pairs, by user, then item: place of the user among `users` (S,), item and gain, each (T,)."""

    users: Array
    of: Array
    items: Array
    gains: Array

    @property
    def counts(self) -> Array:
        """|R| of each user, (S,)."""
        return np.bincount(self.of, minlength=len(self.users))


def score_ranking(
    scorer: Scorer,
    holdout: Holdout,
    seen: Layout,
    n_items: int,
    *,
    threshold: float,
    k: int | Sequence[int] = 10,
    gain: Gain = "binary",
) -> RankingScores:
    """Rank all items that each user has not rated in training, and score where the relevant ones stand.

    Args:
        scorer: what is scored: any function from users to the scores of all items.
        holdout: held-out pairs, encoded with the ids of the training side.
        seen: the training ratings by user, which are not ranked.
        n_items: n.
        threshold: lowest rating, in rating units, that makes a held-out item relevant; -inf for any.
        k: lengths of the lists; one past the number of items is allowed.
        gain: of a relevant item in NDCG.

    Raises:
        ConfigError: a k below 1, an unknown gain, or one that is not positive for a relevant rating.
        DataError: scores of another shape, or not finite.
        IndexError: a held-out user or item that the training side does not have.
    """
    lengths = _lengths(k)
    left_out, relevant = _relevant(holdout, seen, n_items, threshold, choose("gain", gain, get_args(Gain)))
    places, auc, lists = _ranked(scorer, relevant, seen, n_items, max(lengths))
    popularity = np.clip(np.bincount(seen.indices, minlength=n_items), 1, None)
    values: dict[str, Array] = {}
    coverage: dict[str, float] = {}
    for length in lengths:
        values |= _of_lists(relevant, places, length)
        shown = lists[:, :length]
        there = shown >= 0
        surprise = np.log2((len(seen.indptr) - 1) / popularity[shown])
        values[f"novelty@{length}"] = (surprise * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
        listed = np.count_nonzero(np.bincount(shown[there], minlength=n_items))
        coverage[f"coverage@{length}"] = listed / n_items if n_items else float("nan")
    first = np.full(len(relevant.users), np.inf)
    np.minimum.at(first, relevant.of, places)
    values |= {"mrr": 1.0 / first, "auc": auc}
    return RankingScores(relevant.users, values, coverage, threshold, len(places), *left_out)


def _lengths(k: int | Sequence[int]) -> list[int]:
    lengths = sorted(set(np.atleast_1d(k).tolist()))
    if not lengths or not all(isinstance(length, int) and length >= 1 for length in lengths):
        raise ConfigError(f"k is {k!r}, but must be one or more lengths of lists, each 1 or larger, such as 10")
    return lengths


def _relevant(
    holdout: Holdout, seen: Layout, n_items: int, threshold: float, gain: str
) -> tuple[tuple[int, int, int], _Relevant]:
    """Pairs cold, pairs trained on and users without relevant items; and the relevant pairs that are ranked."""
    wanted = holdout.values >= threshold
    users, items = holdout.users[wanted & holdout.known], holdout.items[wanted & holdout.known]
    values = holdout.values[wanted & holdout.known]
    check_range("users", users, len(seen.indptr) - 1)
    check_range("items", items, n_items)
    new = ~_is_seen(users, items, seen, n_items)
    order = np.lexsort((values[new], items[new], users[new]))
    users, items, values = users[new][order], items[new][order], values[new][order]
    last = np.append((np.diff(users) != 0) | (np.diff(items) != 0), True)[: len(users)]
    users, items, values = users[last], items[last], values[last]
    gains = np.ones(len(values))
    if gain != "binary" and len(values):
        # 2^r past float64's range is no gain to compare.
        with np.errstate(over="ignore"):
            gains = values if gain == "rating" else np.exp2(values) - 1.0
        if gains.min() <= 0 or not np.isfinite(gains).all():
            bad = values[np.argmax((gains <= 0) | ~np.isfinite(gains))]
            raise ConfigError(
                f"gain is {gain!r}, but a relevant rating of {bad:g} has no positive, finite gain; "
                "raise the threshold, or use gain='binary'"
            )
    distinct, of = np.unique(users, return_inverse=True)
    asked = int(np.count_nonzero(np.bincount(holdout.users[holdout.users >= 0])))
    left_out = int((wanted & ~holdout.known).sum()), int((~new).sum()), asked - len(distinct)
    return left_out, _Relevant(distinct, of, items, gains)


def _is_seen(users: Array, items: Array, seen: Layout, n_items: int) -> Array:
    """Mask (T,) of the pairs that were in training."""
    rows = np.repeat(np.arange(len(seen.indptr) - 1, dtype=np.int64), np.diff(seen.indptr))
    # In order but for the items of a user, so that sorting is quick; np.isin would hash them all.
    keys = np.sort(rows * n_items + seen.indices)
    wanted = users * n_items + items
    return np.searchsorted(keys, wanted, "right") > np.searchsorted(keys, wanted, "left")


def _ranked(
    scorer: Scorer, relevant: _Relevant, seen: Layout, n_items: int, longest: int
) -> tuple[Array, Array, Array]:
    """Places (T,) of the relevant items, AUC (S,) of the users, and their lists (S, longest), -1 where none is left."""
    users, counts = relevant.users, relevant.counts
    ends = np.append(0, np.cumsum(counts))
    places, auc = np.empty(len(relevant.items), np.int64), np.empty(len(users))
    kept = min(longest, n_items)
    lists = np.full((len(users), kept), -1, dtype=np.int64)
    size = max(1, _SCORES_AT_ONCE // max(1, n_items))
    for begin in range(0, len(users), size):
        block = users[begin : begin + size]
        given = np.asarray(scorer(block))
        scores = np.array(given, dtype=np.result_type(given, np.float32))
        if scores.shape != (len(block), n_items):
            raise DataError(f"scores have shape {scores.shape}, but {(len(block), n_items)} were asked for")
        if not np.isfinite(scores).all():
            raise DataError(f"scores of user {block[np.argmin(np.isfinite(scores).all(axis=1))]} are not all finite")
        leave_out_seen(scores, seen, block)
        order = best_first(scores, kept)
        there = ~np.isneginf(np.take_along_axis(scores, order, axis=1))
        lists[begin : begin + size] = np.where(there, order, -1)
        ordered = np.sort(scores, axis=1)
        for row in range(len(block)):
            mine = slice(ends[begin + row], ends[begin + row + 1])
            places[mine], auc[begin + row] = _placed(scores[row], ordered[row], relevant.items[mine])
    return places, auc, lists


def _placed(scores: Array, ordered: Array, items: Array) -> tuple[Array, float]:
    """Places of `items` (t,) in scores (n,), whose ascending order is `ordered`, and their AUC; -inf is not ranked."""
    found = scores[items]
    below, not_above = np.searchsorted(ordered, found, "left"), np.searchsorted(ordered, found, "right")
    places = len(ordered) - not_above + 1
    level = not_above - below - 1
    if level.any():
        # Equal scores stand in the order of their indices.
        for at in np.flatnonzero(level):
            places[at] += np.count_nonzero(scores[: items[at]] == found[at])
    unranked = int(np.searchsorted(ordered, -np.inf, "right"))
    others = len(ordered) - unranked - len(items)
    if not others:
        return places, float("nan")
    # Of two relevant items one beats the other, or both win half: 1 a pair, which is no pair of i ∈ R, j ∈ U∖R.
    wins = (below - unranked + level / 2).sum() - len(items) * (len(items) - 1) / 2
    return places, float(wins / (len(items) * others))


def _of_lists(relevant: _Relevant, places: Array, k: int) -> dict[str, Array]:
    """Metrics (S,) at k from the places (T,) of the relevant items."""
    counts, size = relevant.counts, len(relevant.users)

    def total(weights: Array) -> Array:
        out: Array = np.bincount(relevant.of, weights=weights, minlength=size)
        return out

    # 1, 2, … of each user's pairs, in any order that keeps users together.
    running = np.arange(1, len(places) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
    within = places <= k
    hits = total(within)
    by_place = np.lexsort((places, relevant.of))
    precision = np.where(within[by_place], running / places[by_place], 0.0)
    discounted = np.where(within, relevant.gains / np.log2(1.0 + places), 0.0)
    by_gain = np.lexsort((-relevant.gains, relevant.of))
    ideal = np.where(running <= k, relevant.gains[by_gain] / np.log2(1.0 + running), 0.0)
    return {
        f"precision@{k}": hits / k,
        f"recall@{k}": hits / counts,
        f"hit@{k}": (hits > 0).astype(np.float64),
        f"map@{k}": total(precision) / np.minimum(k, counts),
        f"ndcg@{k}": total(discounted) / total(ideal),
    }
