"""Pairs that are rated more than once, settled by every policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mf_numpy.duplicates import POLICIES
from mf_numpy.readers import from_arrays, read_ratings
from tests.reader_tables import ANIME, rows, write

pair_lists = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 5)), min_size=2, max_size=40
).filter(lambda table: len({row[0] for row in table}) > 1)


def by_hand(policy: str, group: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """What (value, time) of one pair become."""
    mean = sum(value for value, _ in group) / len(group)
    return {"keep": group, "first": group[:1], "last": group[-1:], "mean": [(mean, group[-1][1])]}[policy]


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "error"])
@given(table=pair_lists)
def test_every_policy_gives_each_pair_what_it_says(policy: str, table: list[tuple[int, int, int]]) -> None:
    groups: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for time, (u, i, v) in enumerate(table):
        groups.setdefault((u, i), []).append((v, time))
    users, items, values = zip(*table, strict=True)
    ratings = from_arrays(list(users), list(items), list(values), timestamps=range(len(table)), duplicates=policy)
    assert ratings.timestamps is not None
    found = [(u, i, v, t) for (u, i, v), t in zip(rows(ratings), ratings.timestamps.tolist(), strict=True)]
    wanted = [(*pair, v, t) for pair, group in groups.items() for v, t in by_hand(policy, group)]
    np.testing.assert_allclose(sorted(found), sorted(wanted), rtol=1e-15)
    assert ratings.notes["policy"] == policy
    assert ratings.notes["rows"] == len(table)
    assert ratings.notes["duplicates"] == sum(len(group) > 1 for group in groups.values())
    assert ratings.notes["conflicts"] == sum(len({v for v, _ in group}) > 1 for group in groups.values())


def test_what_is_kept_stays_in_the_order_of_the_table() -> None:
    arguments = ([1, 2, 1, 3], [1, 1, 1, 1], [1, 2, 3, 4])
    assert from_arrays(*arguments, duplicates="last").values.tolist() == [2, 3, 4]
    assert from_arrays(*arguments, duplicates="first").values.tolist() == [1, 2, 4]
    assert from_arrays(*arguments, duplicates="mean").values.tolist() == [2, 2, 4]


def test_a_not_rated_row_is_no_duplicate(tmp_path: Path) -> None:
    text = ANIME + "1,5,-1\n3,20,9\n3,5,7\n"
    notes = read_ratings(write(tmp_path, "rating.csv", text)).notes
    assert (notes["not_rated"], notes["duplicates"], notes["conflicts"]) == (2, 2, 1)


# What is refused: each message names the row, the column, the value and the cure
