"""Losses of choices: all pairs by Gram matrices beside all pairs written down, and lists of drawn items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mf_numpy
import mf_torch
from mf_numpy import Config, Ratings, Split, gradients, list_losses, losses, ranking, sampling
from mf_numpy.batch import full_batch, mini_batches
from mf_numpy.check import relative_difference
from mf_numpy.engine import State
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.objective import objective
from mf_numpy.split import Holdout
from mf_torch.objective import found as found_by_torch
from tests.same_fits import assert_same_way

LISTS = ("bpr", "softmax", "warp")


def _choices(m: int = 14, n: int = 11, seed: int = 6) -> Ratings:
    """Each pair once, more often where two factors and a liking for the first items say so; one user chose nothing."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(m, 2)) @ rng.normal(size=(2, n)) - 0.2 * np.arange(n)
    users, items = np.nonzero(scores + rng.logistic(size=(m, n)) > 0)
    kept = users != 3
    return Ratings.of_indices(users[kept], items[kept], rng.integers(1, 6, kept.sum()), m=m, n=n)


def _config(loss: Any, **settings: Any) -> Config:
    given: dict[str, Any] = {"n_factors": 3, "reg": 0.02, "dtype": "float64", "n_epochs": 5, "init_scale": 0.3}
    if loss == "all_pairs":
        given |= {"model": "plain", "loss_scale": 0.7}
    return Config(loss=loss, **given | settings)


def _dense(train: Ratings, config: Config, params: Any) -> tuple[float, dict[str, np.ndarray]]:
    """J and its gradient with every matrix of Eq. 45 written down."""
    C, T = np.ones(train.shape), np.zeros(train.shape)
    C[train.users, train.items] += config.loss_scale * train.values
    T[train.users, train.items] = 1
    P, Q, N = params.P, params.Q, len(train)
    w_u, w_i = train.user_counts[:, None] / N, train.item_counts[:, None] / N
    if config.penalty == "total":
        w_u, w_i = np.ones_like(w_u), np.ones_like(w_i)
    E = 2 * C * (P @ Q.T - T)
    j = (C * (P @ Q.T - T) ** 2).sum() / N + config.reg * ((w_u * P**2).sum() + (w_i * Q**2).sum())
    return j, {"P": E @ Q / N + 2 * config.reg * w_u * P, "Q": E.T @ P / N + 2 * config.reg * w_i * Q}


@pytest.mark.parametrize("penalty", ["total", "per_rating"])
def test_gram_matrices_are_all_pairs_written_down(penalty: Any) -> None:
    train, config = _choices(), _config("all_pairs", penalty=penalty)
    params = mf_numpy.model.start(train, config)
    j, slopes = _dense(train, config, params)
    batch = full_batch(train, config)
    for module in (mf_numpy.loops, gradients, mf_numpy.kernels):
        seen = module.gradient(params, batch, config)
        assert seen.objective == pytest.approx(j, rel=1e-13)
        for name, slope in slopes.items():
            assert relative_difference(seen.gradient[name], slope) < 1e-12, (module.__name__, name)


@pytest.mark.parametrize("penalty", ["total", "per_rating"])
@pytest.mark.parametrize("backend", ["numba", "loops"])
def test_a_sweep_takes_each_row_to_its_minimum_over_all_pairs(backend: Any, penalty: Any) -> None:
    train, config = _choices(), _config("all_pairs", solver="als", penalty=penalty, n_epochs=1)
    begun = mf_numpy.model.start(train, config)
    found = mf_numpy.fit(train, config, backend=backend)
    assert found.history[0].objective == pytest.approx(_dense(train, config, begun)[0], rel=1e-12)
    assert abs(_dense(train, config, found.params)[1]["Q"]).max() < 1e-12
    # Who has chosen nothing is predicted to choose nothing.
    assert not found.params.P[3].any()


def test_every_solver_of_all_pairs_ends_at_one_minimum() -> None:
    train = _choices()
    by_rows = mf_numpy.fit(train, _config("all_pairs", solver="als", n_epochs=300))
    by_newton = mf_numpy.fit(train, _config("all_pairs", solver="lbfgs", n_epochs=500))
    assert by_newton.history[-1].objective == pytest.approx(by_rows.history[-1].objective, rel=1e-6)
    falls = np.diff([record.objective for record in by_rows.history])
    assert (falls <= 1e-14).all()


RULES: dict[str, dict[str, Any]] = {
    "momentum": {"lr": 0.5, "momentum_form": "nesterov", "momentum": 0.8},
    "batches": {"lr": 0.2, "batch_size": 30, "momentum": 0.5},
    "adam": {"step_rule": "adam"},
    "adagrad": {"step_rule": "adagrad", "lr": 0.1, "batch_size": 30},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("loss", ["all_pairs", *LISTS])
def test_every_rule_goes_one_way_by_every_backend(loss: str, rule: str) -> None:
    if loss == "all_pairs" and "batch_size" in RULES[rule]:
        pytest.skip("every step takes all pairs")
    drawn = {"n_negatives": 2, "negative_power": 0.5} if loss in LISTS else {}
    if loss == "warp":
        drawn = {"n_negatives": 4}
    train, config = _choices(), _config(loss, **RULES[rule], **drawn)
    gold = mf_numpy.fit(train, config, backend="loops")
    found = [mf_numpy.fit(train, config, backend=name) for name in ("numpy", "numba")]
    found.append(mf_torch.fit(train, config))
    if loss == "all_pairs":
        # Lists are drawn anew, and J with them.
        assert gold.history[-1].objective < gold.history[0].objective
    assert_same_way(found, gold)


@pytest.mark.parametrize("loss", LISTS)
def test_a_resumed_fit_draws_what_the_straight_one_does(loss: str) -> None:
    train, config = _choices(), _config(loss, n_epochs=4, batch_size=30, lr=0.3)
    half = mf_numpy.fit(train, replace(config, n_epochs=2))
    whole, resumed = mf_numpy.fit(train, config), mf_numpy.fit(train, config, resume=half)
    assert all(np.array_equal(a, b) for a, b in zip(whole.params.tensors().values(), resumed.params.tensors().values()))  # noqa: B905


def test_a_pairwise_loss_of_one_item_is_the_listwise_one_without_prices() -> None:
    train = _choices()
    pair, listed = _config("bpr"), _config("softmax")
    batch = next(mini_batches(full_batch(train, pair), 1, pair))
    params = mf_numpy.model.start(train, pair)
    one, other = (gradients.gradient(params, batch, config) for config in (pair, listed))
    assert one.objective == pytest.approx(other.objective, rel=1e-14)
    assert relative_difference(one.gradient["Q"], other.gradient["Q"]) < 1e-13


def test_draws_are_new_in_every_epoch_and_the_same_for_a_seed() -> None:
    train, config = _choices(), _config("bpr", n_negatives=4)
    whole = full_batch(train, config)
    first, again, second = (
        sampling.negatives(whole.users, whole.items, train.n_items, epoch, config) for epoch in (1, 1, 2)
    )
    assert (first == again).all() and (first != second).any()
    assert first.shape == (len(train), 4) and first.min() >= 0 and first.max() < train.n_items


def test_who_has_chosen_nearly_everything_draws_from_the_rest() -> None:
    users, items = np.r_[np.zeros(200, int), 1], np.r_[np.arange(200), 200]
    config = _config("bpr", n_negatives=3, negative_power=1.0)
    drawn = sampling.negatives(users, items, 202, 1, config)
    assert (drawn[:200] == 200).all()
    with pytest.raises(DataError, match="has rated every item that can be drawn"):
        sampling.negatives(users[:200], items[:200], 202, 1, config)


def test_the_same_scores_find_the_same_items_in_both_packages() -> None:
    scores = np.random.default_rng(8).normal(size=(400, 6)).astype(np.float32)
    # On the margin to the last bit, above it by that bit, and above it by what float32 rounds off.
    scores[:3] = -5
    scores[:3, 0] = 1.5, 1.5, -(2.0**-30)
    scores[:3, 3] = 0.5, np.nextafter(np.float32(0.5), np.float32(1)), -1
    by_hand, by_torch = list_losses.found(scores), found_by_torch(torch.tensor(scores, requires_grad=True))
    assert not by_torch.requires_grad and (by_hand == by_torch.numpy()).all()
    assert by_hand[:3].sum(axis=1).tolist() == by_hand[:3, 2].tolist() == [0, 1, 1]
    assert set(by_hand.sum(axis=1).tolist()) == {0, 1}


def test_a_rank_that_no_item_has_is_worth_nothing() -> None:
    assert Config(loss="warp").n_negatives == 10 and Config(loss="bpr").n_negatives == Config().n_negatives == 1
    worths = sampling.worths(4, _config("warp", n_negatives=5))
    assert worths == pytest.approx([0, 1 + 1 / 2 + 1 / 3, 1, 1, 0, 0])
    assert sampling.worths(1, Config()).tolist() == [0, 0]
    late = np.array([3.0, -1.0, -1.0, -1.0, 2.5, 9.0])
    assert losses.value(late, worths, _config("warp", n_negatives=5)).tolist() == [0.0]


@pytest.mark.parametrize("loss", ["all_pairs", *LISTS])
def test_held_out_choices_are_ranked_better_than_by_popularity(loss: str) -> None:
    rng = np.random.default_rng(0)
    taste = 1.5 * rng.normal(size=(150, 2)) @ rng.normal(size=(2, 80))
    users, items = np.nonzero(taste + 0.7 * rng.gumbel(size=taste.shape) > 2.5)
    split = mf_numpy.random_split(Ratings.of_indices(users, items, np.ones(len(users)), m=150, n=80), valid=0.2)
    settings: dict[str, Any] = {"solver": "als", "reg": 0.1, "n_epochs": 10, "loss_scale": 5.0}
    if loss in LISTS:
        settings = {"step_rule": "adagrad", "lr": 0.1, "batch_size": 100, "n_epochs": 20, "n_negatives": 3, "reg": 0.01}
    found = mf_numpy.fit(split.train, _config(loss, **settings), valid=split.valid)
    counts = split.train.item_counts.astype(float)
    popular = ranking.score_ranking(
        lambda who: np.tile(counts, (len(who), 1)), split.valid, split.train.csr, split.train.n_items, threshold=0.0
    )
    assert found.score_ranking(split.valid).mean("ndcg@10") > 1.3 * popular.mean("ndcg@10")
    assert all(record.valid_rmse is None for record in found.history)


def test_a_newcomer_with_a_users_choices_gets_that_users_row() -> None:
    train, config = _choices(), _config("all_pairs", solver="als", n_epochs=300)
    found = mf_numpy.fit(train, config)
    own = train.users == 5
    her = found.fold_in_user(dict(zip(train.items[own].tolist(), train.values[own].tolist(), strict=True)))
    known = found.predict([5] * train.n_items, range(train.n_items)).values
    # Items moved once more after user 5.
    assert her.predict(range(train.n_items)) == pytest.approx(known, rel=1e-4)


def test_what_does_not_go_with_a_loss_of_choices(small: Split) -> None:
    train = _choices()
    for loss, settings, words in (
        ("all_pairs", {"model": "biased"}, "model is 'biased' with loss 'all_pairs'"),
        ("all_pairs", {"solver": "sgd"}, "solver is 'sgd' with loss 'all_pairs', whose every step takes all pairs"),
        ("all_pairs", {"batch_size": 3}, "batch_size is 3 with loss 'all_pairs'"),
        ("all_pairs", {"solver": "als", "cg_steps": 3}, "cg_steps is 3 with loss 'all_pairs'"),
        ("all_pairs", {"solver": "cd"}, "whose steps are for 'squared' alone"),
        ("all_pairs", {"patience": 3}, "patience is 3 with loss 'all_pairs', which has no RMSE"),
        ("all_pairs", {"n_negatives": 3}, "n_negatives is 3 with loss 'all_pairs'"),
        ("bpr", {"solver": "lbfgs"}, "solver is 'lbfgs' with loss 'bpr', which draws anew"),
        ("bpr", {"n_negatives": 0}, "n_negatives is 0"),
        ("warp", {"negative_power": 0.5}, "negative_power is 0.5 with loss 'warp', whose draws tell a rank"),
        ("warp", {"solver": "sgd"}, "solver is 'sgd' with loss 'warp', which draws anew"),
    ):
        with pytest.raises(ConfigError, match=words):
            _config(loss, **settings)
    twice = Ratings.of_indices([0, 1, 0], [0, 1, 0], [1, 2, 3])
    with pytest.raises(DataError, match="ratings 0 and 2 are of one pair, but loss 'all_pairs' counts every pair once"):
        mf_numpy.fit(twice, _config("all_pairs"))
    with pytest.raises(DataError, match="rating 1 is 0, but loss 'all_pairs' is for ratings that are above 0"):
        mf_numpy.fit(Ratings.of_indices([0, 1], [0, 1], [1, 0]), _config("all_pairs"))
    found = mf_numpy.fit(train, _config("bpr", n_epochs=1))
    with pytest.raises(DataError, match="ranks and predicts no ratings; use score_ranking"):
        found.score(Holdout(np.zeros(1), np.zeros(1), np.ones(1)))
    with pytest.raises(DataError, match="whose lists are drawn"):
        found.fold_in_user({0: 1.0})
    with pytest.raises(ConfigError, match="loss is 'bpr' with path 'manual'; use path='autograd'"):
        mf_torch.fit(train, _config("bpr"), path="manual")
    with pytest.raises(ConfigError, match="sparse_grad is True with loss 'bpr'"):
        mf_torch.fit(train, _config("bpr", momentum=0.0, penalty="per_rating"), sparse_grad=True)
    with pytest.raises(ConfigError, match="loss is 'bpr' with a design"):
        mf_numpy.fit(train, _config("bpr"), design=mf_numpy.design.Design.identity(train))
    with pytest.raises(ConfigError, match="loss is 'bpr', which is not of single pairs"):
        mf_torch.check_module(mf_torch.MatrixFactorization(found.params), train, config=_config("bpr"))


def test_blocks_of_a_hessian_are_of_single_pairs() -> None:
    train, config = _choices(), _config("bpr")
    params, batch = mf_numpy.model.start(train, config), full_batch(train, config)
    with pytest.raises(ConfigError, match="loss is 'bpr', of which this block is not known"):
        mf_numpy.curvature.row_block(params, "user", 0, batch, config)


def test_a_step_of_lists_is_that_of_their_gradient() -> None:
    train, config = _choices(), _config("softmax", momentum=0.0, lr=0.4, n_negatives=3)
    batch = next(mini_batches(full_batch(train, config), 1, config))
    before = mf_numpy.init(train, config)
    after = mf_numpy.step(State(before.params.copy()), batch, config)
    slopes = gradients.gradient(before.params, batch, config).gradient
    wanted = before.params.Q - 0.4 * slopes["Q"]
    assert relative_difference(after.params.Q, wanted) < 1e-14
    assert objective(after.params, batch, config) < objective(before.params, batch, config)


def test_the_command_line_ranks(tmp_path: Path, mf: Any) -> None:
    train = _choices(40, 30)
    rows = [f"{u},{i},{r:g}" for u, i, r in zip(train.users, train.items, train.values, strict=True)]
    (tmp_path / "plays.csv").write_text("\n".join(["user,item,plays", *rows]), encoding="utf-8")
    told = ("--rating", "plays", "--n-factors", "3", "--n-epochs", "3", "--dtype", "float64", "-o", "m.safetensors")
    for how in (
        ("--loss", "all_pairs", "--solver", "als", "--model", "plain"),
        ("--loss", "bpr", "--step-rule", "adam", "--n-negatives", "2", "--negative-power", "0.5"),
    ):
        code, out, err = mf("fit", str(tmp_path / "plays.csv"), *told, *how)
        assert code == 0, err
        assert "ndcg@10" in out and "popularity" in out and "RMSE" not in out


@pytest.mark.parametrize("loss", ["all_pairs", *LISTS])
def test_new_choices_alone_are_no_ground_to_go_on(loss: str) -> None:
    found = mf_numpy.fit(_choices(), _config(loss, n_epochs=1))
    with pytest.raises(ConfigError, match=f"loss is '{loss}', of which new choices say nothing alone"):
        mf_numpy.partial_fit(found, _choices(seed=7))
