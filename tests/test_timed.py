"""Users and items at a time: fits from end to end in both packages, predictions at any time, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mf_numpy
import mf_torch
from mf_numpy import Config, Features, Ratings, hold_out
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.timed import DAY, Timed, timed

CONFIG = Config(solver="sgd", n_factors=3, n_epochs=40, lr=0.02, reg=0.02, dtype="float64")


@pytest.fixture(scope="module")
def split() -> mf_numpy.Split:
    """Items that get better or worse from the first half of the year to the second, and users who grow stricter."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 60, 5000), rng.integers(0, 40, 5000)
    days = rng.integers(0, 360, 5000)
    turn = rng.choice([-1.0, 1.0], 40)[items] * np.where(days < 180, -1, 1)
    away = days - 180
    values = 5 + turn - np.sign(away) * np.abs(away) ** 0.4 / 10 + 0.2 * rng.normal(size=5000)
    table = replace(Ratings.of_indices(users, items, values), timestamps=days * DAY + 7)
    return hold_out(table.take(np.arange(4000)), table.take(np.arange(4000, 5000)))


@pytest.fixture(scope="module")
def made(split: mf_numpy.Split) -> Timed:
    return timed(split.train, Features().id().drift(), Features().id().time_bins(4), valid=split.valid)


def test_what_moves_is_learned_in_both_packages(split: mf_numpy.Split, made: Timed) -> None:
    assert made.valid is not None
    still = mf_numpy.fit(split.train, CONFIG, valid=split.valid).score(split.valid).rmse
    moving = mf_numpy.fit(made.train, CONFIG, valid=made.valid, design=made.design)
    assert moving.score(made.valid).rmse < 0.5 < 0.9 < still
    config = Config(n_factors=3, n_epochs=5, lr=5.0, dtype="float64")
    by_hand = mf_numpy.fit(made.train, config, valid=made.valid, design=made.design)
    by_autograd = mf_torch.fit(made.train, config, valid=made.valid, design=made.design)
    assert by_hand.of_features is not None and by_autograd.of_features is not None
    for name, value in by_hand.of_features.tensors().items():
        np.testing.assert_allclose(by_autograd.of_features.tensors()[name], value, rtol=1e-9, atol=1e-12)
    assert by_autograd.history[-1].valid_rmse == pytest.approx(by_hand.history[-1].valid_rmse, rel=1e-9)


def test_a_model_as_of_a_day_is_one_of_users_and_items(split: mf_numpy.Split, made: Timed) -> None:
    found = mf_numpy.fit(made.train, CONFIG, design=made.design)
    raw = split.train.user_ids.raw[:5], split.train.item_ids.raw[:5]
    early, late = (made.at(found, day * DAY) for day in (10, 350))
    assert early.params.shape == (60, 40, 3)
    for then, day in ((early, 10), (late, 350)):
        pairs = made.predict(found, *raw, [day * DAY + 5] * 5)
        np.testing.assert_allclose(then.predict(*raw).values, pairs.values, rtol=1e-12)
    assert not np.allclose(early.predict(*raw).values, late.predict(*raw).values, atol=0.1)
    # Who was seen then is the catalogue's to know, as ever.
    assert len(early.recommend(int(raw[0][0]), n=3)) <= 3
    # Held-out pairs at their times are predicted as the fit's own rows for them.
    assert made.valid is not None and split.valid.timestamps is not None
    users, items = split.train.user_ids.decode(split.valid.users), split.train.item_ids.decode(split.valid.items)
    mine = made.predict(found, users, items, split.valid.timestamps)
    rows = mf_numpy.kernels.predict(found.params, made.valid.users, made.valid.items)
    np.testing.assert_allclose(mine.values, rows, rtol=1e-12)


def test_strangers_and_days_outside_the_period_are_predicted_by_what_is_known(made: Timed) -> None:
    found = mf_numpy.fit(made.train, replace(CONFIG, n_epochs=2), design=made.design)
    out = made.predict(found, [0, 999, 999], [999, 0, 999], [0, 0, 0])
    assert (out.n_unknown_users, out.n_unknown_items) == (2, 2)
    assert out.values[2] == pytest.approx(made.original.mean)
    before, after = (made.predict(found, [0], [0], [day * DAY]).values[0] for day in (-1000, 5000))
    assert np.isfinite([before, after]).all() and before != after
    last = made.predict(found, [0], [1], [359 * DAY]).values[0]
    assert last == pytest.approx(made.predict(found, [0], [1], [359 * DAY + DAY - 1]).values[0])


def test_without_features_of_time_nothing_changes(split: mf_numpy.Split) -> None:
    rated = Features().id().rated()
    made = timed(split.train, rated)
    plain = mf_numpy.design_of(split.train, rated)
    assert made.design.same_as(plain) and made.valid is None
    assert made.train.user_ids == split.train.user_ids and np.array_equal(made.train.users, split.train.users)


def test_rows_at_a_time_are_named_by_it() -> None:
    ratings = Ratings.of_indices([0, 0, 0, 1], [0, 1, 2, 0], [1.0, 2.0, 3.0, 4.0])
    made = timed(replace(ratings, timestamps=DAY * np.array([20, 20, 21, 20])), Features().id().day())
    assert made.train.user_ids.raw.tolist() == ["0 on 1970-01-21", "0 on 1970-01-22", "1 on 1970-01-21"]
    assert made.design.users.names == ("id=0", "id=1", "id=0 day 20", "id=0 day 21", "id=1 day 20")
    assert made.train.users.tolist() == [0, 0, 1, 2]


def test_what_time_asks_for_is_said(split: mf_numpy.Split, made: Timed) -> None:
    day = Features().id().day()
    with pytest.raises(DataError, match="the training ratings have no timestamps"):
        timed(replace(split.train, timestamps=None), day)
    with pytest.raises(DataError, match="the held-out pairs have no timestamps"):
        timed(split.train, day, valid=replace(split.valid, timestamps=None))
    with pytest.raises(ConfigError, match=r"day asks for days, .* make the design with timed"):
        mf_numpy.design_of(split.train, day)
    with pytest.raises(ConfigError, match="n is 0 parts of the training period"):
        Features().time_bins(0)
    with pytest.raises(ConfigError, match="no block was named for the users"):
        timed(split.train, Features())
    other = mf_numpy.fit(split.train, replace(CONFIG, n_epochs=1))
    with pytest.raises(ConfigError, match=r"fit timed\.train with design=timed\.design"):
        made.at(other, 0)
    found = mf_numpy.fit(made.train, replace(CONFIG, n_epochs=1), design=made.design)
    with pytest.raises(ValueError, match="got 2 users, 1 items and 1 timestamps"):
        made.predict(found, [0, 1], [0], [0])
