"""Splits put every rating on exactly one side, encoded so that both sides speak of the same users and items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mf_numpy import ConfigError, DataError, Holdout, Ratings, Split, hold_out, k_fold, leave_last, random_split
from mf_numpy.readers import from_arrays

SPLITTERS: dict[str, Callable[[Ratings], list[Split]]] = {
    "random": lambda ratings: [random_split(ratings, valid=0.3, seed=1)],
    "k-fold": lambda ratings: list(k_fold(ratings, k=3, seed=1)),
    "leave last": lambda ratings: [leave_last(ratings, n=1)],
}


@st.composite
def tables(draw: st.DrawFn) -> Ratings:
    """Ratings with unused users and items, duplicates, and ties among the timestamps."""
    size = draw(st.integers(3, 40))
    users, items, times = (draw(st.lists(st.integers(0, top), min_size=size, max_size=size)) for top in (5, 6, 3))
    users[:2] = [0, 0]
    base = Ratings.of_indices(users, items, np.arange(size) * 0.5, m=8, n=9)
    return Ratings(
        base.users, base.items, base.values, base.user_ids, base.item_ids, timestamps=np.array(times, dtype=np.int64)
    )


def triples(ratings: Ratings) -> list[tuple[Any, ...]]:
    raw = (ratings.user_ids.decode(ratings.users), ratings.item_ids.decode(ratings.items), ratings.values)
    return list(zip(*(column.tolist() for column in raw), strict=True))


@pytest.mark.parametrize("how", SPLITTERS)
@given(ratings=tables())
def test_every_rating_is_on_exactly_one_side(how: str, ratings: Ratings) -> None:
    for split in SPLITTERS[how](ratings):
        # Values are distinct, so the value alone says which rating it is, cold pairs included.
        sides = [*split.train.values.tolist(), *split.valid.values.tolist()]
        assert Counter(sides) == Counter(ratings.values.tolist())
        known, train = split.valid.known, split.train
        decoded = zip(
            train.user_ids.decode(split.valid.users[known]).tolist(),
            train.item_ids.decode(split.valid.items[known]).tolist(),
            split.valid.values[known].tolist(),
            strict=True,
        )
        assert set(decoded) | set(triples(train)) <= set(triples(ratings))


@pytest.mark.parametrize("how", SPLITTERS)
@given(ratings=tables())
def test_every_training_user_and_item_has_a_rating_and_only_the_others_are_cold(how: str, ratings: Ratings) -> None:
    for split in SPLITTERS[how](ratings):
        train, valid = split.train, split.valid
        assert train.user_counts.min() > 0
        assert train.item_counts.min() > 0
        position = {value: k for k, value in enumerate(ratings.values.tolist())}
        held = np.array([position[value] for value in valid.values.tolist()], dtype=np.int64)
        assert ((valid.users < 0) == ~np.isin(ratings.users[held], train.user_ids.raw)).all()
        assert ((valid.items < 0) == ~np.isin(ratings.items[held], train.item_ids.raw)).all()
        assert valid.n_scored + valid.n_cold == len(valid)
        assert valid.n_cold == int(((valid.users < 0) | (valid.items < 0)).sum())


@given(st.integers(2, 60), st.floats(0.01, 0.99))
def test_the_held_out_share_is_rounded_as_stated(total: int, share: float) -> None:
    ratings = Ratings.of_indices(np.zeros(total, int), np.arange(total), np.arange(total))
    split = random_split(ratings, valid=share)
    assert len(split.valid) == min(max(int(np.floor(share * total + 0.5)), 1), total - 1)
    assert len(split.train) + len(split.valid) == total


def test_the_seed_decides_and_both_sides_keep_the_order() -> None:
    ratings = Ratings.of_indices(np.zeros(100, int), np.arange(100), np.arange(100))
    one, same, other = (random_split(ratings, seed=seed) for seed in (4, 4, 5))
    assert one.valid.values.tolist() == same.valid.values.tolist() != other.valid.values.tolist()
    assert (np.diff(one.valid.values) > 0).all()
    assert (np.diff(one.train.values) > 0).all()


@given(st.integers(2, 9), st.integers(9, 40))
def test_folds_are_disjoint_cover_everything_and_differ_by_one_at_most(k: int, total: int) -> None:
    ratings = Ratings.of_indices(np.zeros(total, int), np.arange(total), np.arange(total))
    held = [split.valid.values.tolist() for split in k_fold(ratings, k=k)]
    assert len(held) == k
    assert sorted(value for fold in held for value in fold) == list(range(total))
    assert [len(fold) for fold in held] == [total // k + 1] * (total % k) + [total // k] * (k - total % k)


def test_the_latest_of_each_user_is_held_out_and_of_equals_the_lower_row() -> None:
    ratings = from_arrays(
        ["a", "a", "a", "b", "b", "b", "c"],
        [1, 2, 3, 1, 2, 3, 1],
        [10.0, 11.0, 12.0, 20.0, 21.0, 22.0, 30.0],
        timestamps=[5, 9, 7, 4, 4, 4, 1],
    )
    assert leave_last(ratings).valid.values.tolist() == [11.0, 22.0]
    two = leave_last(ratings, n=2)
    assert two.valid.values.tolist() == [11.0, 12.0, 21.0, 22.0]
    assert two.train.values.tolist() == [10.0, 20.0, 30.0], "a user with too few ratings stays whole"


def test_a_table_held_out_is_encoded_by_the_training_ids() -> None:
    train = from_arrays(["x", "y"], [50, 40], [1.0, 2.0])
    test = from_arrays(["y", "z", "x"], [50, 40, 99], [3.0, 4.0, 5.0])
    valid = hold_out(train, test).valid
    assert valid.users.tolist() == [1, -1, 0]
    assert valid.items.tolist() == [1, 0, -1]
    assert valid.known.tolist() == [True, False, False]
    assert (str(valid.users.dtype), str(valid.values.dtype), valid.n_scored, valid.n_cold) == ("int64", "float64", 1, 2)


def test_tables_with_ids_of_different_types_are_refused() -> None:
    train, test = from_arrays([1, 2], [1, 2], [1.0, 2.0]), from_arrays(["1", "2"], [1, 2], [1.0, 2.0])
    with pytest.raises(DataError, match="user ids are integers in training but text in the held-out table"):
        hold_out(train, test)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: random_split(r, valid=0.0), ConfigError, "valid is 0.0, but the held-out share must lie between"),
        (lambda r: random_split(r, valid=1.0), ConfigError, "valid is 1.0"),
        (lambda r: random_split(r, valid=float("nan")), ConfigError, "valid is nan"),
        (lambda r: random_split(r, seed=-1), ConfigError, "seed is -1"),
        (lambda r: random_split(r.take(np.array([0]))), DataError, "1 rating cannot be split"),
        (lambda r: k_fold(r, k=1), ConfigError, "k is 1, but cross-validation needs 2 folds or more"),
        (lambda r: k_fold(r, k=4), DataError, "3 ratings cannot fill 4 folds"),
        (lambda r: leave_last(r), DataError, "no timestamps"),
        (lambda r: leave_last(r, n=0), ConfigError, "n is 0"),
        (lambda r: hold_out(r.take(np.array([], int)), r), DataError, "training side has no ratings"),
    ],
)
def test_splits_say_what_they_cannot_do(call: Callable[[Ratings], Any], error: type[Exception], message: str) -> None:
    ratings = Ratings.of_indices([0, 0, 1], [0, 1, 1], [1.0, 2.0, 3.0])
    with pytest.raises(error, match=message):
        call(ratings)


def test_leaving_out_more_than_anyone_has_is_an_error() -> None:
    ratings = from_arrays([1, 1, 2], [1, 2, 1], [1.0, 2.0, 3.0], timestamps=[1, 2, 3])
    with pytest.raises(DataError, match=r"no user has more than 2 ratings \(the most is 2\)"):
        leave_last(ratings, n=2)


def test_a_holdout_refuses_unequal_lengths_and_ratings_that_are_not_finite() -> None:
    with pytest.raises(DataError, match="lengths 2, 1 and 2"):
        Holdout(np.array([0, 1]), np.array([0]), np.array([1.0, 2.0]))
    with pytest.raises(DataError, match=r"values\[1\] is inf"):
        Holdout(np.array([0, 1]), np.array([0, 1]), np.array([1.0, np.inf]))
