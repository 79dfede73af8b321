"""Users and items at a time: fits from end to end in both packages, predictions at any time, files, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mf_numpy
import mf_torch
from mf_numpy import Config, Features, IdMap, Ratings, hold_out
from mf_numpy.errors import ConfigError, DataError, FileFormatError
from mf_numpy.store import load
from mf_numpy.timed import DAY, Timed, timed
from tests.test_store import rewrite

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


def test_what_held_out_pairs_are_of_describes_nobody(split: mf_numpy.Split) -> None:
    table = replace(split.train, user_ids=IdMap.of_range(61))  # user 60 has no training ratings
    pairs = replace(split.valid, users=np.full(len(split.valid), 60), items=split.valid.items % 40)
    users, items = Features().id().rated().drift().day(), Features().id().time_bins(4).popularity(3)
    without, with_pairs = timed(table, users, items), timed(table, users, items, valid=pairs)
    for side in ("users", "items"):
        assert getattr(without.design, side).names == getattr(with_pairs.design, side).names
    assert with_pairs.valid is not None and with_pairs.train.n_users > without.train.n_users
    rows = with_pairs.design.users.matrix[with_pairs.valid.users]
    assert rows.nnz == 0


@pytest.fixture(scope="module")
def told(split: mf_numpy.Split) -> Timed:
    """The same with text ids and titles, facts of both sides, and all features of time."""
    rng = np.random.default_rng(1)
    genres = pd.DataFrame(
        {"title": [f"film {k}" for k in range(40)], "genres": rng.choice(["a|b", "b", "c|a", ""], 40)}, index=range(40)
    )
    ages = pd.DataFrame({"age": rng.integers(9, 70, 60).astype(float), "town": rng.choice(["x", "y"], 60)})
    ages.loc[3, "age"] = np.nan
    ages.index = pd.Index([f"user {k}" for k in range(60)])
    names = np.array([f"user {k}" for k in split.train.user_ids.raw], dtype=object)
    table = replace(split.train, user_ids=IdMap(names), item_info=genres)
    users = Features().id().bins("age", 3).category("town").drift().day(weight=0.5)
    items = Features().id().tags("genres", separator="|").time_bins(4).popularity(3)
    return timed(table, users, items, valid=split.valid, user_info=ages)


def test_a_file_tells_of_any_time_and_is_gone_on_with(told: Timed, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    few, path = replace(CONFIG, n_epochs=2), tmp_path / "half.safetensors"
    straight = mf_numpy.fit(told.train, replace(CONFIG, n_epochs=3), design=told.design, valid=told.valid)
    half = mf_numpy.fit(told.train, few, design=told.design, valid=told.valid)
    half.save(path)
    back = load(path)
    assert back.design is not None and back.design.times is not None and back.design.same_as(told.design)
    for day in (-3, 0, 100, 359, 1000):
        mine, gold = back.at(day * DAY), told.at(half, day * DAY)
        assert mine.params.P.tobytes() == gold.params.P.tobytes() and mine.params.Q.tobytes() == gold.params.Q.tobytes()
        assert mine.recommend("user 7", n=5, with_seen=True).equals(gold.recommend("user 7", n=5, with_seen=True))
    pairs = ["user 1", "user 2", "nobody"], [0, 999, 1], [5 * DAY, 300 * DAY, 0]
    found, wanted = back.design.times.predict(back, *pairs), told.predict(half, *pairs)
    assert found.values.tobytes() == wanted.values.tobytes()
    assert (found.n_unknown_users, found.n_unknown_items) == (1, 1)
    rest = mf_numpy.fit(told.train, replace(CONFIG, n_epochs=3), design=told.design, valid=told.valid, resume=back)
    assert rest.params.P.tobytes() == straight.params.P.tobytes()
    # As of a day it is a model like any other.
    back.at(9 * DAY).save(tmp_path / "day.safetensors")
    then = load(tmp_path / "day.safetensors")
    assert then.predict(["user 1"], [0]).values == told.predict(half, ["user 1"], [0], [9 * DAY]).values
    with pytest.raises(ConfigError, match="the model's users and items are the same at any time"):
        then.at(9 * DAY)


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        ({"time.days": np.zeros(3, np.int64)}, {}, r"'time\.days' has shape \(3,\), not \(4000,\)"),
        ({"time.days": None}, {}, r"lacks the array 'time\.days'"),
        ({"time.seen.indices": np.full(4000, 40, np.int32)}, {}, r"'time\.seen\.indices' goes outside 0\.\.39"),
        ({}, {"time": None}, "lacks 'time'"),
        ({}, {"time": "{}"}, "is damaged: 'users'"),
        ({}, {"time": ("day", "week")}, "a feature is 'week'"),
        ({}, {"time": ("kind", "sort")}, "is damaged: .*sort"),
    ],
)
def test_a_damaged_file_of_times_is_refused(
    made: Timed, tmp_path: Path, tensors: dict[str, Any], metadata: dict[str, Any], said: str
) -> None:
    path = tmp_path / "model.safetensors"
    mf_numpy.fit(made.train, replace(CONFIG, n_epochs=1), design=made.design).save(path)
    kept = {"blocks": [{"kind": "day"}], "facts": {}}
    texts = {
        name: json.dumps({"users": kept, "items": kept}).replace(*text) if isinstance(text, tuple) else text
        for name, text in metadata.items()
    }
    rewrite(path, metadata=texts, **tensors)
    with pytest.raises(FileFormatError, match=said):
        load(path)


def test_a_file_of_other_features_tells_of_no_time(made: Timed, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    mf_numpy.fit(made.train, replace(CONFIG, n_epochs=1), design=made.design).save(path)
    kept = {"blocks": [{"kind": "day"}], "facts": {}}
    rewrite(path, metadata={"time": json.dumps({"users": kept, "items": kept})})
    with pytest.raises(ConfigError, match="the model is of other features than these users and items at a time"):
        load(path).at(0)


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
    assert made.design.times is not None
    with pytest.raises(DataError, match="the pairs have no timestamps; give one a pair"):
        made.design.times.score(found, replace(split.valid, timestamps=None))
    with pytest.raises(ConfigError, match="the model's users and items are the same at any time"):
        other.at(0)
