"""Id maps and the encoded ratings: identities that must hold, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mf_numpy import DataError, IdMap, Ratings
from mf_numpy.readers import from_arrays

integer_ids = st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=30, unique=True)
text_ids = st.lists(st.text(max_size=6), min_size=1, max_size=30, unique=True)


def some_ratings() -> Ratings:
    return Ratings.of_indices([2, 0, 2, 0], [1, 3, 1, 0], [5.0, 1.0, 4.0, 2.0], m=4, n=5)


@given(st.one_of(integer_ids, text_ids), st.data())
def test_decoding_what_was_encoded_gives_the_raw_ids(raw: list[Any], data: st.DataObject) -> None:
    ids = IdMap(np.array(raw, dtype=object if isinstance(raw[0], str) else np.int64))
    asked = data.draw(st.lists(st.sampled_from(raw), min_size=1, max_size=20))
    assert ids.decode(ids.encode(asked)).tolist() == asked
    indices = np.arange(len(ids))
    assert ids.encode(ids.decode(indices)).tolist() == indices.tolist()


def test_an_unknown_id_is_minus_one_whatever_its_type() -> None:
    assert IdMap(np.array([30, 10])).encode([10, 20, 30]).tolist() == [1, -1, 0]
    assert IdMap(np.array(["a", "b"], dtype=object)).encode(["c", "b"]).tolist() == [-1, 1]


@pytest.mark.parametrize("raw", [[10, 20], ["10", "20"]])
def test_asking_for_ids_of_the_other_type_is_an_error_and_not_all_unknown(raw: list[Any]) -> None:
    other = [str(x) if isinstance(x, int) else int(x) for x in raw]
    with pytest.raises(DataError, match="but these ids are"):
        IdMap(np.array(raw, dtype=object if isinstance(raw[0], str) else None)).encode(other)


def test_an_integer_among_strings_is_not_taken_for_its_spelling() -> None:
    assert IdMap(np.array(["1", "b"], dtype=object)).encode(["b", 1, "1"]).tolist() == [1, -1, 0]


@pytest.mark.parametrize("index", [-1, 2])
def test_decoding_refuses_an_index_out_of_range(index: int) -> None:
    with pytest.raises(IndexError, match=f"index {index} is outside 0..1"):
        IdMap(np.array([7, 8])).decode([0, index])


def test_an_id_map_refuses_repeated_mixed_and_unusable_ids() -> None:
    with pytest.raises(DataError, match="id 7 appears twice"):
        IdMap(np.array([7, 8, 7]))
    with pytest.raises(DataError, match="3 is a int among strings"):
        IdMap(np.array(["a", 3], dtype=object))
    with pytest.raises(DataError, match="dtype float64"):
        IdMap(np.array([0.5]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": [0, 9]}, r"users\[1\] is 9, outside 0\.\.1"),
        ({"items": [-1, 0]}, r"items\[0\] is -1, outside 0\.\.1"),
        ({"users": [0.0, 1.0]}, "users has dtype float64"),
        ({"values": [1.0, np.nan]}, r"values\[1\] is nan"),
        ({"values": [1.0]}, "lengths 2, 2 and 1"),
    ],
)
def test_ratings_refuse_what_cannot_be_encoded(change: dict[str, Any], message: str) -> None:
    good = {"users": [0, 1], "items": [1, 0], "values": [1.0, 2.0]}
    arrays: dict[str, Any] = {name: np.asarray(array) for name, array in (good | change).items()}
    with pytest.raises(DataError, match=message):
        Ratings(**arrays, user_ids=IdMap.of_range(2), item_ids=IdMap.of_range(2))


def test_both_views_hold_every_rating_in_its_row_duplicates_in_order() -> None:
    ratings = some_ratings()
    for view, rows, others in (
        (ratings.csr, ratings.users, ratings.items),
        (ratings.csc, ratings.items, ratings.users),
    ):
        of_row = np.repeat(np.arange(len(view.indptr) - 1), np.diff(view.indptr))
        assert view.arranged(rows).tolist() == of_row.tolist()
        assert view.arranged(others).tolist() == view.indices.tolist()
        assert view.indptr.dtype == np.int64
    assert ratings.csr.arranged(ratings.values).tolist() == [1.0, 2.0, 5.0, 4.0]


def test_the_sparse_matrix_keeps_duplicates_apart() -> None:
    matrix = some_ratings().to_scipy()
    assert matrix.shape == (4, 5)
    assert matrix.nnz == 4
    assert matrix.toarray()[2, 1] == 9.0


def test_compacting_drops_the_unrated_and_keeps_raw_ids() -> None:
    ratings = some_ratings()
    compacted = ratings.compact()
    assert (compacted.n_users, compacted.n_items) == (2, 3)
    assert compacted.user_ids.decode(compacted.users).tolist() == ratings.users.tolist()
    assert compacted.item_ids.decode(compacted.items).tolist() == ratings.items.tolist()
    assert compacted.compact() is compacted


def test_the_fingerprint_tells_order_and_values() -> None:
    ratings = some_ratings()
    assert ratings.fingerprint == some_ratings().fingerprint
    assert ratings.fingerprint != ratings.take(np.array([1, 0, 2, 3])).fingerprint
    assert ratings.fingerprint != Ratings.of_indices(ratings.users, ratings.items, ratings.values + 1, m=4).fingerprint


@given(
    st.lists(
        st.tuples(st.integers(-5, 5), st.sampled_from("abcde"), st.integers(1, 5)),
        min_size=2,
        max_size=30,
        unique_by=lambda row: row[:2],
    ).filter(lambda rows: len({row[0] for row in rows}) > 1),
    st.randoms(),
)
def test_the_order_of_rows_does_not_change_the_encoding(rows: list[tuple[int, str, int]], random: Any) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    one, other = (from_arrays(*(list(column) for column in zip(*table, strict=True))) for table in (rows, shuffled))
    assert one.user_ids == other.user_ids
    assert one.item_ids == other.item_ids
    assert one.user_ids.raw.tolist() == sorted({row[0] for row in rows})
    assert one.item_ids.raw.tolist() == sorted({row[1] for row in rows})
    triples = [sorted(zip(r.users.tolist(), r.items.tolist(), r.values.tolist(), strict=True)) for r in (one, other)]
    assert triples[0] == triples[1]
