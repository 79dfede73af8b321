"""Draws of grades: one chain by every backend and both packages, what is predicted from it, and its file."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import log_ndtr, ndtri

import mf_numpy
import mf_torch
from bench import accuracy_worker
from mf_numpy import Config, FitResult, Ratings, grades, planted, probit, store
from mf_numpy.check import relative_difference
from mf_numpy.errors import ConfigError
from mf_numpy.features import Features
from mf_numpy.grades import Cuts
from mf_numpy.kernels import probit as kernels
from mf_numpy.model import Params
from mf_numpy.split import Split, random_split
from mf_numpy.timed import timed
from mf_torch import probit as of_torch
from tests.same_fits import by_one_thread_and_by_all
from tests.test_design_gibbs import _design
from tests.test_gibbs import _bits, _ratings

STARS = np.array([0.5, 1.0, 2.0, 3.5, 5.0])


def _graded(m: int = 40, n: int = 30, size: int = 900) -> Ratings:
    """The table of `test_gibbs` with five grades, which two factors have a part in."""
    ratings, rng = _ratings(m, n, size), np.random.default_rng(5)
    p, q, c = rng.normal(size=(m, 2)), rng.normal(size=(n, 2)), rng.normal(size=n)
    users, items = ratings.users, ratings.items
    told = (p[users] * q[items]).sum(axis=1) + c[items] + rng.normal(size=len(users))
    return replace(ratings, values=STARS[np.searchsorted([-2.0, -1.0, 0.5, 1.5], told)])


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(_graded(), valid=0.2, seed=1)


def _config(**settings: Any) -> Config:
    given: dict[str, Any] = {"n_factors": 3, "dtype": "float64", "burn_in": 2, "n_epochs": 9}
    return Config(solver="gibbs", loss="ordinal", **given | settings)


def _same(mine: Params, theirs: Params) -> float:
    return max(relative_difference(x, theirs.tensors()[name]) for name, x in mine.tensors().items())


def _every_sweep(found: FitResult, gold: FitResult) -> None:
    """All draws and all that was said of the sweeps; burn_in is 0, and each draw is kept."""
    one, two = found.state.draws, gold.state.draws
    assert one is not None and two is not None and len(one) == len(two) == gold.config.n_epochs
    assert max(_same(a, b) for a, b in zip(one.points, two.points, strict=True)) < 1e-8
    for a, b in zip(found.history, gold.history, strict=True):
        assert (a.objective, a.train_rmse, a.valid_rmse) == pytest.approx(
            (b.objective, b.train_rmse, b.valid_rmse), rel=1e-8
        )


@pytest.mark.parametrize("model", ["biased", "plain"])
def test_chains_by_kernels_by_rows_and_by_torch_are_one(model: Any, split: Split) -> None:
    config = _config(model=model, n_epochs=50, burn_in=0)
    gold = mf_numpy.fit(split.train, config, valid=split.valid, backend="loops")
    for fit in (mf_numpy.fit, mf_torch.fit):
        _every_sweep(fit(split.train, config, valid=split.valid), gold)
    # Proposals are taken and left, so that both ways out of Eq. 83 were compared.
    assert gold.state.draws is not None
    stayed = np.diff([point.tensors()["t"][0] for point in gold.state.draws.points]) == 0
    assert 0 < stayed.sum() < 15


@pytest.mark.parametrize("sweeps", [50])
def test_chains_over_features_are_one(sweeps: int) -> None:
    split = random_split(_graded(15, 12, 500), valid=0.2)
    given: dict[str, Any] = {"valid": split.valid, "design": _design(split.train)}
    config = _config(n_epochs=sweeps, burn_in=0)
    gold = mf_numpy.fit(split.train, config, backend="loops", **given)
    for fit in (mf_numpy.fit, mf_torch.fit):
        found = fit(split.train, config, **given)
        _every_sweep(found, gold)
        assert found.params.cuts is not None and found.params.cuts.normal


@pytest.mark.cuda
def test_chains_are_equal_on_cuda(split: Split) -> None:
    config = _config(n_epochs=30, burn_in=0)
    mine = mf_numpy.fit(split.train, config, valid=split.valid)
    _every_sweep(mf_torch.fit(split.train, config, valid=split.valid, device="cuda"), mine)
    given: dict[str, Any] = {"valid": split.valid, "design": _design(split.train)}
    mine = mf_numpy.fit(split.train, config, **given)
    _every_sweep(mf_torch.fit(split.train, config, device="cuda", **given), mine)


def test_float32_chains_begin_alike(split: Split) -> None:
    """One sweep, as in `test_torch_gibbs`; noise is drawn by scores that are rounded as rows are."""
    config = _config(n_epochs=1, dtype="float32", n_factors=5)
    wide = mf_numpy.fit(split.train, replace(config, dtype="float64"))
    for fit in (mf_numpy.fit, mf_torch.fit):
        found = fit(split.train, config)
        assert found.params.P.dtype == found.params.tensors()["t"].dtype == np.float32
        assert _same(found.params, wide.params) < 40 * (3 * 5 + 4 + 256) * float(np.finfo(np.float32).eps)


def test_bits_are_those_of_one_thread() -> None:
    one, more = by_one_thread_and_by_all(_graded(300, 200, 20_000), _config(n_epochs=4, dtype="float32", n_factors=9))
    assert _bits(one) == _bits(more)


@pytest.mark.parametrize("with_design", [False, True])
def test_a_saved_chain_is_the_same_and_goes_on_as_the_straight_one(
    with_design: bool, split: Split, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"valid": split.valid, "design": _design(split.train) if with_design else None}

    def run(n_epochs: int, resume: FitResult | None = None) -> FitResult:
        return mf_numpy.fit(split.train, _config(n_epochs=n_epochs), resume=resume, **given)

    straight, users, items = run(7), split.train.user_ids.raw[[0, 5]], split.train.item_ids.raw[[3, 3]]
    for half in (1, 5):
        begun = run(half)
        store.save(begun, tmp_path / "half.safetensors")
        again = store.load(tmp_path / "half.safetensors")
        assert _bits(again) == _bits(begun) and again.params.cuts is not None and again.params.cuts.normal
        np.testing.assert_array_equal(again.predict(users, items).values, begun.predict(users, items).values)
        assert _bits(run(7, again)) == _bits(straight)
    with pytest.raises(ConfigError, match="cannot resume: loss was 'ordinal' and is now 'squared'"):
        mf_numpy.fit(split.train, replace(_config(), loss="squared"), resume=straight)


def test_what_is_known_of_a_pair_is_the_mean_over_draws(split: Split) -> None:
    result = mf_numpy.fit(split.train, _config(n_epochs=30))
    users, items = split.train.user_ids.raw[[0, 5, 9]], split.train.item_ids.raw[[3, 3, 8]]
    chances = result.probabilities(users, items)
    assert chances.columns.tolist() == STARS.tolist()
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    np.testing.assert_allclose(result.predict(users, items).values, chances.to_numpy() @ STARS)
    found = result.interval(users, items, 0.8)
    below = chances.to_numpy().cumsum(axis=1)
    for row, (low, high) in enumerate(zip(found.low, found.high, strict=True)):
        first, last = np.searchsorted(STARS, [low, high])
        assert (below[row, first - 1] if first else 0) < 0.1 <= below[row, first]
        assert (below[row, last - 1] if last else 0) < 0.9 <= below[row, last]
    np.testing.assert_allclose(found.mean, result.predict(users, items).values)
    # Of a user whom nobody knows the item and the cut points say what there is to say.
    assert result.predict([10**6], items[:1]).n_unknown_users == 1
    best = result.recommend(users[1], 5)
    np.testing.assert_allclose(best["predicted"], result.predict([users[1]] * 5, best["item"]).values)
    assert best["predicted"].is_monotonic_decreasing
    assert result.score_ranking(split.valid, k=5).mean("ndcg@5") > 0


def test_users_on_a_day_are_scored_by_the_mean_over_draws() -> None:
    train = _graded(15, 12, 300)
    train = replace(train, timestamps=np.arange(len(train)) * 7_200)
    made = timed(train, Features().id().day())
    result = mf_numpy.fit(made.train, _config(n_epochs=6), design=made.design)
    ids = made.train.user_ids.raw[made.train.users[:9]], made.train.item_ids.raw[made.train.items[:9]]
    by_rows = result.predict(*ids).values
    raw = train.user_ids.raw[train.users[:9]], train.item_ids.raw[train.items[:9]]
    np.testing.assert_allclose(made.predict(result, *raw, train.timestamps[:9]).values, by_rows)  # type: ignore[index]
    then = result.at(int(train.timestamps[4]))  # type: ignore[index]
    assert then.predict(raw[0][4:5], raw[1][4:5]).values == pytest.approx(by_rows[4:5])


def test_planted_grades_are_found_and_their_chances_are_right() -> None:
    """Scores and cut points as they were planted, intervals as often right as they say, and no worse than numbers."""
    rng = np.random.default_rng(7)
    m, n, size = 300, 150, 15_000
    p, q, b, c = rng.normal(size=(m, 2)), rng.normal(size=(n, 2)), rng.normal(size=m) / 2, rng.normal(size=n)
    at = rng.permutation(m * n)[:size]
    users, items = at // n, at % n
    scores = (p[users] * q[items]).sum(axis=1) * 0.7 + b[users] + c[items]
    # Steps of very different widths: as numbers the grades are no line.
    told = np.searchsorted([-2.2, -1.9, 0.1, 0.3], scores + rng.normal(size=size))
    split = random_split(Ratings.of_indices(users, items, told + 1.0), valid=0.1, seed=0)
    result = mf_numpy.fit(split.train, _config(n_epochs=80, burn_in=30), valid=split.valid)
    cuts = result.params.cuts
    assert cuts is not None
    np.testing.assert_allclose(cuts.widths, [0.3, 2.0, 0.2], rtol=0.1)
    known = split.valid.known
    ids = split.train.user_ids.raw[split.valid.users[known]], split.train.item_ids.raw[split.valid.items[known]]
    chances, seen = result.probabilities(*ids).to_numpy(), split.valid.values[known].astype(int) - 1
    for grade in range(5):
        sure = math.sqrt((chances[:, grade] * (1 - chances[:, grade])).sum())
        assert abs(chances[:, grade].sum() - (seen == grade).sum()) < 4 * sure
    found = result.interval(*ids, 0.8)
    assert found.covered(split.valid.values[known]) >= 0.8
    numbers = mf_numpy.fit(split.train, replace(_config(n_epochs=80, burn_in=30), loss="squared"), valid=split.valid)
    assert result.history[-1].valid_rmse < 0.995 * numbers.history[-1].valid_rmse  # type: ignore[operator]


def test_normals_far_off_by_kernels_and_by_torch() -> None:
    p = np.concatenate([10.0 ** -np.arange(1, 279.0), np.linspace(0.001, 0.999, 999), 1 - 10.0 ** -np.arange(1, 15.0)])
    np.testing.assert_allclose([kernels.quantile(x) for x in p], ndtri(p), rtol=1e-13, atol=1e-15)
    x = np.linspace(-30, -300, 50)
    np.testing.assert_allclose([kernels.log_below(each) for each in x], log_ndtr(x), rtol=1e-14)
    for low, high in ((-np.inf, 1.0), (-2.0, 1.0), (-36.0, 3.0), (-37.0, -36.0), (-np.inf, -60.0), (-500.0, -499.0)):
        uniform = np.linspace(0.001, 1, 50)
        ends = np.array([low, high])
        gold = probit.latent(np.zeros(50), np.zeros(50, int), ends, uniform)
        for at, v in zip(gold, uniform, strict=True):
            assert kernels.noise_between(low, high, v) == pytest.approx(at, rel=1e-11, abs=1e-11)
        begin, end = (torch.full((50,), at, dtype=torch.float64) for at in (low, high))
        mine = of_torch.noise_between(begin, end, torch.tensor(uniform)).numpy()
        np.testing.assert_allclose(mine, gold, rtol=1e-11, atol=1e-11)


def test_a_step_of_the_cut_points_is_taken_by_its_odds() -> None:
    cuts = Cuts(np.array([0.3]), np.array([1.0, 2.0]), 1.0, normal=True)
    proposal = probit.Proposal(np.array([0.1]), np.array([[2.0]]))
    there = replace(cuts, t=np.array([-0.4]))

    def odds(t: float, total: float) -> float:
        # One cut point: its prior is a normal, and nothing stretches.
        return total + float(stats.norm.logpdf(t) - stats.t.logpdf(2 * (t - 0.1), probit.FREEDOM))

    gold = math.exp(odds(-0.4, -7.2) - odds(0.3, -7.0))
    for accept, taken in ((gold * 0.999, True), (gold * 1.001, False)):
        noise = probit.GradeNoise(np.zeros(1), accept, np.ones(3))
        assert (probit.chosen(cuts, there, (-7.0, -7.2), proposal, noise) is there) is taken


@pytest.mark.parametrize("values", [[1.0, 2.0, 2.0], [5.0, 1.0, 2.0], [1.0, 1.0, 1.0, 2.0]])
def test_few_grades(values: list[float]) -> None:
    train = Ratings.of_indices([1, 0, 0, 1][: len(values)], [1, 0, 1, 0][: len(values)], values)
    result = mf_numpy.fit(train, _config(n_factors=40, n_epochs=30))
    assert result.status == "max_epochs" and all(np.isfinite(x).all() for x in result.params.tensors().values())


def test_scores_that_are_no_numbers_are_a_divergence(split: Split) -> None:
    begun = mf_numpy.fit(split.train, _config(n_epochs=1))
    begun.state.params.P[0] = 1e200
    begun.state.params.Q[:] = 1e200
    for fit in (mf_numpy.fit, mf_torch.fit):
        result = fit(split.train, _config(n_epochs=3), resume=begun)
        assert result.status == "diverged"


def test_what_does_not_draw_grades() -> None:
    with pytest.raises(ConfigError, match="loss is 'ordinal' with solver 'hmc'"):
        Config(loss="ordinal", solver="hmc")
    with pytest.raises(ConfigError, match="loss is 'poisson' with solver 'gibbs'"):
        Config(loss="poisson", solver="gibbs")


def test_a_measurement_scores_the_mean_over_all_draws(split: Split) -> None:
    points, predictions = accuracy_worker.fitted(
        split.train, split.valid, _config(n_epochs=6, thin=4), "numba", [4, 6], (0.5, 5.0)
    )
    every = mf_numpy.fit(split.train, _config(n_epochs=6), valid=split.valid)
    known = split.valid.known
    ids = split.train.user_ids.raw[split.valid.users[known]], split.train.item_ids.raw[split.valid.items[known]]
    np.testing.assert_allclose(predictions[6], every.predict(*ids).values)
    assert points[-1]["rmse"] == pytest.approx(every.history[-1].valid_rmse)


def test_the_command_line_draws_grades(tmp_path: Path, mf: Any) -> None:
    train = _graded(15, 12, 400)
    rows = [f"{u},{i},{r:g}" for u, i, r in zip(train.users, train.items, train.values, strict=True)]
    (tmp_path / "stars.csv").write_text("\n".join(["user,item,rating", *rows]), encoding="utf-8")
    model = str(tmp_path / "m.safetensors")
    told = ("--duplicates", "first", "--loss", "ordinal", "--solver", "gibbs", "--n-factors", "3", "--n-epochs", "25")
    code, out, _ = mf("fit", str(tmp_path / "stars.csv"), "-o", model, *told)
    assert code == 0 and "valid RMSE" in out
    code, out, _ = mf("predict", model, "3", "4")
    first, *lines = out.split("\n")
    chances = {float(line.split()[0]): float(line.split()[1]) for line in lines if line.strip()[:1].isdigit()}
    assert code == 0 and sum(grade * share for grade, share in chances.items()) == pytest.approx(float(first), abs=2e-3)
    code, out, _ = mf("evaluate", model, str(tmp_path / "stars.csv"), "--duplicates", "first")
    assert code == 0 and "90 % intervals" in out


def test_grades_of_a_planted_table_begin_at_their_quantiles() -> None:
    train = planted.planted(planted.PlantedConfig(n_users=30, n_items=20, n_ratings=300, n_factors=2)).ratings
    cuts = grades.begun(train, _config())
    shares = np.bincount(grades.places(train.values, cuts)) / len(train)
    np.testing.assert_allclose(grades.probabilities(np.zeros(1), cuts)[0], shares)
