"""Rankings scored against plain loops, scikit-learn and trec_eval; what must hold of any; intervals that cover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mf_numpy import ConfigError, DataError, Holdout, bootstrap, fit, ranking
from mf_numpy.config import Config
from mf_numpy.ranking import Gain, RankingScores, score_ranking
from mf_numpy.ratings import Array, Layout, compress
from mf_numpy.split import Split

M, N = 16, 23
KS = (1, 3, 10, N, N + 9)


def seen_of(pairs: Array, m: int = M) -> Layout:
    return compress(pairs[:, 0], pairs[:, 1].astype(np.int32), m)


class Case:
    """Scores (m, n), training pairs and held-out pairs, drawn; users 0 and 1 have nothing relevant."""

    def __init__(self, seed: int = 0, *, ties: bool = False, m: int = M, n: int = N) -> None:
        rng = np.random.default_rng(seed)
        cell = rng.permutation(m * n)
        pairs = np.column_stack([cell // n, cell % n])
        third = len(cell) // 3
        self.seen = seen_of(pairs[:third], m)
        users, items = pairs[third : 2 * third].T
        values = rng.integers(1, 6, third).astype(float)
        values[users < 2] = 1.0
        self.holdout = Holdout(users, items, values)
        self.scores = rng.integers(0, 4, (m, n)).astype(float) if ties else rng.normal(size=(m, n))
        self.n = n

    def score(self, **options: Any) -> RankingScores:
        given: dict[str, Any] = {"threshold": 3.0, "k": KS} | options
        return score_ranking(lambda users: self.scores[users], self.holdout, self.seen, self.n, **given)

    def unseen(self, user: int) -> list[int]:
        trained = self.seen.indices[self.seen.indptr[user] : self.seen.indptr[user + 1]]
        return [i for i in range(self.n) if i not in trained]

    def relevant(self, user: int) -> dict[int, float]:
        mine = (self.holdout.users == user) & (self.holdout.values >= 3.0)
        return dict(zip(self.holdout.items[mine].tolist(), self.holdout.values[mine].tolist(), strict=True))


GAINS: dict[Gain, Callable[[float], float]] = {
    "binary": lambda r: 1.0,
    "rating": lambda r: r,
    "exponential": lambda r: 2.0**r - 1.0,
}


def by_loops(case: Case, user: int, k: int, gain: Gain = "binary") -> dict[str, float]:
    """The definitions as they are written, one item after another."""
    relevant, score = case.relevant(user), case.scores[user]
    order = sorted(case.unseen(user), key=lambda i: (-score[i], i))
    hits, found, precision, cumulated, first = 0, [], 0.0, 0.0, 0
    for place, item in enumerate(order, 1):
        if item in relevant:
            first = first or place
            if place <= k:
                hits += 1
                precision += hits / place
                cumulated += GAINS[gain](relevant[item]) / np.log2(1 + place)
        if place <= k:
            found.append(np.log2(M / max(1, (case.seen.indices == item).sum())))
    ideal = sorted((GAINS[gain](r) for r in relevant.values()), reverse=True)[:k]
    others = [j for j in order if j not in relevant]
    wins = sum((score[i] > score[j]) + 0.5 * (score[i] == score[j]) for i in relevant for j in others)
    return {
        f"precision@{k}": hits / k,
        f"recall@{k}": hits / len(relevant),
        f"hit@{k}": float(hits > 0),
        f"map@{k}": precision / min(k, len(relevant)),
        f"ndcg@{k}": cumulated / sum(g / np.log2(1 + place) for place, g in enumerate(ideal, 1)),
        f"novelty@{k}": float(np.mean(found)),
        "mrr": 1 / first,
        "auc": wins / (len(relevant) * len(others)),
    }


@pytest.mark.parametrize(
    ("ties", "gain", "at_once"),
    [(False, "binary", 1), (True, "binary", 4 * N), (False, "rating", 1 << 21), (True, "exponential", 1 << 21)],
)
def test_metrics_are_their_definitions(monkeypatch: pytest.MonkeyPatch, ties: bool, gain: Gain, at_once: int) -> None:
    monkeypatch.setattr(ranking, "_SCORES_AT_ONCE", at_once)
    case = Case(1, ties=ties)
    found = case.score(gain=gain)
    assert found.users.tolist() == [u for u in range(M) if case.relevant(u)]
    for row, user in enumerate(found.users):
        for k in KS:
            wanted = by_loops(case, int(user), k, gain)
            got = {name: found.values[name][row] for name in wanted}
            assert got == pytest.approx(wanted, rel=1e-12), f"user {user}"
    for k in KS:
        lists = [sorted(case.unseen(u), key=lambda i: (-case.scores[u, i], i))[:k] for u in map(int, found.users)]
        assert found.coverage[f"coverage@{k}"] == len({i for items in lists for i in items}) / N


@pytest.mark.parametrize("gain", GAINS)
def test_metrics_are_those_of_scikit_learn(gain: Gain) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    case = Case(2)
    tied = Case(2, ties=True)
    found, with_ties = case.score(gain=gain), tied.score(gain=gain)
    for row, user in enumerate(map(int, found.users)):
        unseen, relevant = case.unseen(user), case.relevant(user)
        score, is_relevant = case.scores[user, unseen], np.isin(unseen, list(relevant))
        gains = [GAINS[gain](relevant[i]) if i in relevant else 0.0 for i in unseen]
        for k in (3, N + 9):
            wanted = metrics.ndcg_score([gains], [score], k=k, ignore_ties=True)
            assert found.values[f"ndcg@{k}"][row] == pytest.approx(wanted, rel=1e-12)
        wanted = metrics.average_precision_score(is_relevant, score)
        assert found.values[f"map@{N}"][row] == pytest.approx(wanted, rel=1e-12)
        wanted = metrics.roc_auc_score(is_relevant, score)
        assert found.values["auc"][row] == pytest.approx(wanted, rel=1e-12)
        wanted = metrics.roc_auc_score(is_relevant, tied.scores[user, unseen])
        assert with_ties.values["auc"][row] == pytest.approx(wanted, rel=1e-12)


def test_metrics_are_those_of_trec_eval() -> None:
    trec = pytest.importorskip("pytrec_eval")
    case = Case(3)
    # Its gains are whole numbers as they are given, and it divides the average precision by |R| also where k is less.
    found = case.score(gain="rating")
    wanted = {str(u): {str(i): int(r) for i, r in case.relevant(u).items()} for u in map(int, found.users)}
    run = {str(u): {str(i): float(case.scores[u, i]) for i in case.unseen(u)} for u in map(int, found.users)}
    cuts = ",".join(map(str, KS))
    names = {f"{name}.{cuts}" for name in ("P", "recall", "success", "map_cut", "ndcg_cut")} | {"recip_rank"}
    theirs = trec.RelevanceEvaluator(wanted, names).evaluate(run)
    for row, user in enumerate(map(str, found.users)):
        ours = {name: values[row] for name, values in found.values.items()}
        their = theirs[user]
        assert ours["mrr"] == pytest.approx(their["recip_rank"], rel=1e-12)
        for k in KS:
            of_list = min(k, len(wanted[user])) / len(wanted[user])
            assert ours[f"map@{k}"] * of_list == pytest.approx(their[f"map_cut_{k}"], rel=1e-12)
            for name, other in (("precision", "P"), ("recall", "recall"), ("hit", "success"), ("ndcg", "ndcg_cut")):
                assert ours[f"{name}@{k}"] == pytest.approx(their[f"{other}_{k}"], rel=1e-12), name


def test_a_list_worked_out_by_hand() -> None:
    """Items 0 to 5; 0 was trained on; by score 1, 2, 3, 4, 5; 2 and 4 are relevant, of rating 3 and 5."""
    scores = np.array([[9.0, 5.0, 4.0, 3.0, 2.0, 1.0], np.arange(6.0)])
    seen = seen_of(np.array([[0, 0], [1, 0]]), 2)
    holdout = Holdout(np.zeros(3), np.array([2, 4, 1]), np.array([3.0, 5.0, 2.0]))
    found = score_ranking(lambda users: scores[users], holdout, seen, 6, threshold=3.0, k=(2, 4), gain="exponential")
    value = {name: found.mean(name) for name in (*found.values, *found.coverage)}
    assert (value["precision@2"], value["recall@2"], value["hit@2"], value["mrr"]) == (1 / 2, 1 / 2, 1, 1 / 2)
    assert value["map@2"] == pytest.approx((1 / 2) / 2)
    assert value["map@4"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert value["ndcg@4"] == pytest.approx(
        (7 / np.log2(3) + 31 / np.log2(5)) / (31 / np.log2(2) + 7 / np.log2(3)), rel=1e-14
    )
    # 2 beats 3 and 5, 4 beats 5: three of six pairs.
    assert value["auc"] == pytest.approx(3 / 6)
    assert (value["coverage@2"], value["coverage@4"]) == (2 / 6, 4 / 6)
    # Nobody rated what is in the list: as if one of two users had.
    assert value["novelty@2"] == pytest.approx(np.log2(2 / 1))


def test_who_and_what_is_left_out() -> None:
    """Cold pairs, pairs of the training set, users without relevant items; a pair held out twice is one item."""
    scores = np.tile(np.arange(5.0), (4, 1))
    seen = seen_of(np.array([[0, 4], [1, 0], [2, 0], [3, 0], [3, 1], [3, 2], [3, 3]]), 4)
    users, items = np.array([0, 0, 0, 0, -1, 1, 2, 3]), np.array([3, 3, 4, -1, 2, 1, 0, 4])
    values = np.array([2.0, 5.0, 5.0, 5.0, 5.0, 1.0, 4.0, 4.0])
    found = score_ranking(lambda u: scores[u], Holdout(users, items, values), seen, 5, threshold=4.0, k=2)
    assert found.users.tolist() == [0, 3]
    assert (found.n_relevant, found.n_cold, found.n_trained, found.n_without) == (2, 2, 2, 2)
    assert found.values["recall@2"].tolist() == found.values["mrr"].tolist() == [1, 1]
    # All that is left to user 3 is relevant: there is no pair to compare. The second place of the list stays empty.
    assert found.values["auc"][0] == 1 and np.isnan(found.values["auc"][1]) and found.mean("auc") == 1
    assert found.values["precision@2"].tolist() == [1 / 2, 1 / 2]
    assert found.values["novelty@2"].tolist() == pytest.approx([2.0, np.log2(4 / 1)])


def test_no_relevant_item_at_all() -> None:
    found = Case().score(threshold=6.0)
    assert len(found.users) == found.n_relevant == 0 and found.n_without == M
    table = found.table(n=10)
    assert table.drop([f"coverage@{k}" for k in KS]).isna().all(axis=None)
    assert found.mean("ndcg@10") != found.mean("ndcg@10")
    assert found.coverage["coverage@10"] == 0


def test_gains_follow_the_higher_rating_of_a_pair_held_out_twice() -> None:
    scores = np.array([[3.0, 2.0, 1.0]])
    holdout = Holdout(np.zeros(3), np.array([1, 0, 1]), np.array([5.0, 3.0, 4.0]))
    seen = seen_of(np.empty((0, 2), np.int64), 1)
    found = score_ranking(lambda u: scores[u], holdout, seen, 3, threshold=0.0, gain="rating")
    assert found.mean("ndcg@10") == pytest.approx((3 + 5 / np.log2(3)) / (5 + 3 / np.log2(3)), rel=1e-14)


seeds = st.integers(0, 10_000)
few = settings(max_examples=25, deadline=None)


@few
@given(seeds)
def test_the_best_ranking_has_one_everywhere(seed: int) -> None:
    case = Case(seed, m=8)
    case.scores = np.zeros_like(case.scores)
    for user in range(8):
        for item, rating in case.relevant(user).items():
            case.scores[user, item] = rating
    found = case.score(gain="rating")
    for k in KS:
        assert found.values[f"ndcg@{k}"] == pytest.approx(1.0) and found.values[f"map@{k}"] == pytest.approx(1.0)
        assert (found.values[f"hit@{k}"] == 1).all()
    assert (found.values["auc"] == 1).all() and (found.values["mrr"] == 1).all()
    assert (found.values[f"recall@{N}"] == 1).all()
    wanted = [min(3, len(case.relevant(int(u)))) / 3 for u in found.users]
    assert found.values["precision@3"] == pytest.approx(wanted)


@few
@given(seeds, st.booleans())
def test_the_reverse_of_a_ranking_has_the_rest_of_its_auc(seed: int, ties: bool) -> None:
    case = Case(seed, ties=ties, m=8)
    forth = case.score().values["auc"]
    case.scores = -case.scores
    assert case.score().values["auc"] == pytest.approx(1.0 - forth, rel=1e-12)


@few
@given(seeds, st.booleans())
def test_an_irrelevant_item_at_the_end_changes_no_list(seed: int, ties: bool) -> None:
    case = Case(seed, ties=ties, m=8)
    before = case.score(k=(1, 3, 5))
    case.scores = np.column_stack([case.scores, np.full(8, case.scores.min() - 1)])
    case.n += 1
    after = case.score(k=(1, 3, 5))
    for name, values in before.values.items():
        if name != "auc":
            assert np.array_equal(values, after.values[name]), name
    assert (after.values["auc"] >= before.values["auc"]).all()


@few
@given(seeds)
def test_other_ids_have_the_same_scores(seed: int) -> None:
    case = Case(seed, m=8)
    before = case.score()
    rng = np.random.default_rng(seed)
    users, items = rng.permutation(8), rng.permutation(N)
    # User u is now users[u], item i is items[i], and the held-out pairs come in another order.
    case.scores = case.scores[np.ix_(np.argsort(users), np.argsort(items))]
    who = np.repeat(np.arange(8), np.diff(case.seen.indptr))
    case.seen = seen_of(np.column_stack([users[who], items[case.seen.indices]]), 8)
    order = rng.permutation(len(case.holdout))
    held = case.holdout
    case.holdout = Holdout(users[held.users[order]], items[held.items[order]], held.values[order])
    after = case.score()
    assert np.array_equal(np.sort(users[before.users]), after.users)
    at = np.searchsorted(after.users, users[before.users])
    for name, values in before.values.items():
        assert after.values[name][at] == pytest.approx(values, rel=1e-12), name
    assert after.coverage == before.coverage


def test_a_fitted_model_is_scored_by_its_own_lists(small: Split, quick: Config) -> None:
    result = fit(small.train, quick, backend="numpy")
    found = result.score_ranking(small.valid, k=5)
    assert found.threshold == small.train.mean
    for user, hits in zip(found.users[:20], found.values["precision@5"], strict=False):
        mine = (small.valid.users == user) & (small.valid.values >= small.train.mean)
        listed = result.recommend(result.catalogue.user_ids.raw[user], 5)["item"]
        assert len(set(result.catalogue.item_ids.encode(listed)) & set(small.valid.items[mine])) == round(5 * hits)
    # It knows something: chance is 1/2.
    assert found.mean("auc") > 0.6
    assert np.isfinite(found.table(n=50).drop("coverage@5")).all(axis=None)


def test_wrong_arguments() -> None:
    case = Case()
    for k in (0, (), (3, -1), 2.5):
        with pytest.raises(ConfigError, match=r"k is .* each 1 or larger"):
            case.score(k=k)
    with pytest.raises(ConfigError, match="Did you mean 'rating'"):
        case.score(gain="ratings")
    case.holdout.values[:] = np.where(case.holdout.values == 3, -3, case.holdout.values)
    with pytest.raises(ConfigError, match=r"rating of -3 has no positive, finite gain; raise the threshold"):
        case.score(gain="exponential", threshold=-3.0)
    assert case.score(threshold=-3.0).n_relevant > 0
    with pytest.raises(ConfigError, match=r"metric is 'ndcg@11', but must be one of .*'ndcg@10'"):
        case.score().mean("ndcg@11")
    with pytest.raises(DataError, match=rf"have shape \({M}, 3\), but \({M}, {N}\)"):
        score_ranking(lambda u: np.zeros((M, 3)), case.holdout, case.seen, N, threshold=1.0)
    with pytest.raises(IndexError, match=r"items\[\d+\] is 22, outside 0\.\.21"):
        score_ranking(lambda u: case.scores[u], case.holdout, case.seen, N - 1, threshold=1.0)
    case.scores[5, 3] = np.nan
    with pytest.raises(DataError, match="scores of user 5 are not all finite"):
        case.score()


def test_scores_that_are_given_stay_as_they_are() -> None:
    case = Case()
    before = case.scores.copy()
    score_ranking(lambda users: case.scores, case.holdout, case.seen, N, threshold=-9.0)
    assert np.array_equal(before, case.scores)
    whole = Case(ties=True)
    floats = whole.score()
    whole.scores = whole.scores.astype(np.int64)
    assert all(np.array_equal(values, floats.values[name]) for name, values in whole.score().values.items())


def test_intervals_cover_the_mean_of_the_population_as_often_as_they_say() -> None:
    """Users with a level of recall each, of 10 relevant items each; some have no value at all."""
    covered, runs, users = 0, 150, 60
    for run in range(runs):
        rng = np.random.default_rng(run)
        recall = rng.binomial(10, rng.beta(1.0, 3.0, users)) / 10
        recall[rng.random(users) < 0.1] = np.nan
        found = RankingScores(np.arange(users), {"recall@10": recall}, {}, 1.0, 10 * users, 0, 0, 0)
        row = found.table(n=150).loc["recall@10"]
        assert row["low"] <= row["value"] <= row["high"]
        # E beta(1, 3) = 1/4.
        covered += bool(row["low"] <= 0.25 <= row["high"])
    # 95 % nominal; percentile intervals of 60 skewed users fall a little short. Binomial standard error: 1.8 %.
    assert 0.87 <= covered / runs <= 0.99


def test_draws_are_the_plain_bootstrap_and_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = rng.random((40, 2))
    values[::5, 1] = np.nan
    drawn = bootstrap.means(values, draws=30, seed=7)
    again = np.random.default_rng(7)
    for row in drawn:
        taken = again.integers(0, 40, 40)
        assert row == pytest.approx([values[taken, 0].mean(), np.nanmean(values[taken, 1])], rel=1e-12)
    monkeypatch.setattr(bootstrap, "_COUNTS_AT_ONCE", 100)
    assert bootstrap.means(values, draws=30, seed=7) == pytest.approx(drawn, rel=1e-12)
    shifted = bootstrap.means(values + 1.0, draws=30, seed=7)
    assert shifted - drawn == pytest.approx(np.ones((30, 2)), rel=1e-12)
    assert np.isnan(bootstrap.means(np.full((3, 1), np.nan), draws=2)).all()
