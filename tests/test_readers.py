"""Every kind of rating table is read as it looks, and every bad one says where, what and what to do."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from mf_numpy import ConfigError, DataError, Ratings
from mf_numpy.duplicates import POLICIES
from mf_numpy.item_info import read_item_info
from mf_numpy.readers import from_arrays, from_frame, from_sparse, read_ratings
from mf_numpy.sources import Source

ANIME = "user_id,anime_id,rating\n3,20,8\n1,20,-1\n1,5,10\n3,5,7\n"
ANIME_ITEMS = 'anime_id,name,genre,type\n5,Kimi &amp; Boku&#039;s,"Drama, Sci-Fi",TV\n20,Naruto,,\n'
U_DATA = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t1\t878887116\n"
U_ITEM = "242|Kolya (1996)|24-Jan-1997||url|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n302|Misérables, Les|||url|" + (
    "|".join("1" if k in (8, 15) else "0" for k in range(19)) + "\n"
)
DAT = "1::1193::5::978300760\n2::661::3.5::978302109\n"
MOVIES_DAT = "661::James (1996)::Animation|Children's\n1193::Cuckoo::Drama\n"
ML_CSV = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n7,10,0.5,851868750\n"
MOVIES_CSV = 'movieId,title,genres\n31,"Minds, Dangerous (1995)",Drama\n10,GoldenEye,(no genres listed)\n'
CSV = "user,item,rating\nb,x,1\na,y,2.5\n"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(ratings: Ratings) -> list[tuple[Any, ...]]:
    raw = (ratings.user_ids.decode(ratings.users), ratings.item_ids.decode(ratings.items), ratings.values)
    return list(zip(*(column.tolist() for column in raw), strict=True))


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


# What is read


def test_the_anime_table_drops_and_counts_what_is_not_rated(tmp_path: Path) -> None:
    write(tmp_path, "anime.csv", ANIME_ITEMS)
    ratings = read_ratings(write(tmp_path, "rating.csv", ANIME))
    assert rows(ratings) == [(3, 20, 8.0), (1, 5, 10.0), (3, 5, 7.0)]
    assert ratings.scale == (1.0, 10.0)
    assert ratings.notes == {
        "rows": 4,
        "not_rated": 1,
        "duplicates": 0,
        "conflicts": 0,
        "policy": "last",
        "format": "anime",
    }
    info = ratings.item_info
    assert info is not None
    assert info.loc[5].to_dict() == {"title": "Kimi & Boku's", "genres": "Drama, Sci-Fi", "type": "TV"}
    assert info.loc[20].to_dict() == {"title": "Naruto", "genres": "", "type": ""}


@pytest.mark.parametrize(
    ("name", "content", "item_name", "items", "format", "expected", "title", "genres"),
    [
        (
            "u.data",
            U_DATA,
            "u.item",
            U_ITEM.encode("latin-1"),
            "ml-100k",
            [(196, 242, 3.0), (186, 302, 3.0), (196, 302, 1.0)],
            "Misérables, Les",
            "Drama, Sci-Fi",
        ),
        (
            "ratings.dat",
            DAT,
            "movies.dat",
            MOVIES_DAT.encode(),
            "ml-dat",
            [(1, 1193, 5.0), (2, 661, 3.5)],
            "James (1996)",
            "Animation, Children's",
        ),
        (
            "ratings.csv",
            ML_CSV,
            "movies.csv",
            MOVIES_CSV.encode(),
            "ml-csv",
            [(1, 31, 2.5), (7, 10, 0.5)],
            "GoldenEye",
            "",
        ),
    ],
)
@pytest.mark.parametrize("packing", ["plain", "folder", "gzip", "zip", "zip in folder"])
def test_movielens_tables_are_recognised_however_they_are_packed(
    tmp_path: Path,
    packing: str,
    name: str,
    content: str,
    item_name: str,
    items: bytes,
    format: str,
    expected: list[Any],
    title: str,
    genres: str,
) -> None:
    path = tmp_path / "data"
    path.mkdir()
    if packing.startswith("zip"):
        inside = "ml/" if packing == "zip in folder" else ""
        path = tmp_path / "all.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for member, text in ((name, content.encode()), (item_name, items), ("README", b"read me")):
                archive.writestr(inside + member, text)
    else:
        write(path, item_name, items)
        write(path, "README", "read me")
        if packing == "gzip":
            path = write(path, f"{name}.gz", gzip.compress(content.encode()))
        else:
            file = write(path, name, content)
            path = file if packing == "plain" else path
    ratings = read_ratings(path)
    assert rows(ratings) == expected
    assert ratings.notes["format"] == format
    assert ratings.timestamps is not None
    assert ratings.timestamps.dtype == np.int64
    assert ratings.timestamps.tolist() == [int(time) for time in re.findall(r"\d+$", content, re.MULTILINE)]
    assert ratings.item_info is not None
    assert ratings.item_info.loc[expected[1][1], "title"] == title
    assert ratings.item_info.loc[expected[1][1], "genres"] == genres


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", CSV),
        ("crlf.csv", CSV.replace("\n", "\r\n")),
        ("bom.csv", "\ufeff" + CSV),
        ("blank.csv", "\n\n" + CSV.replace("\na", "\n\na") + "\n"),
        ("semicolon.csv", CSV.replace(",", ";")),
        ("bar.txt", CSV.replace(",", "|")),
        ("tab.tsv", CSV.replace(",", "\t")),
        ("quoted.csv", 'user,"item",rating\n"b","x",1\n"a","y","2.5"\n'),
        ("no_end.csv", CSV.rstrip("\n")),
        ("more.csv", 'when,Rating,comment,User ID,ItemId\n,1,"a, b",b,x\n,2.5,,a,y\n'),
        ("table.parquet", parquet(pd.DataFrame({"user": ["b", "a"], "item": ["x", "y"], "rating": [1, 2.5]}))),
        ("table.npz", npz(user=["b", "a"], item=["x", "y"], rating=[1, 2.5])),
        ("table.csv.gz", gzip.compress(CSV.encode())),
    ],
)
def test_generic_tables_of_every_spelling(tmp_path: Path, name: str, content: str | bytes) -> None:
    ratings = read_ratings(write(tmp_path, name, content))
    assert rows(ratings) == [("b", "x", 1.0), ("a", "y", 2.5)]
    assert ratings.user_ids.raw.tolist() == ["a", "b"]
    assert all(type(x) is str for x in ratings.user_ids.raw)
    assert ratings.scale is None


def test_comments_with_line_breaks_in_a_file_of_many_blocks(tmp_path: Path) -> None:
    comment = '"' + "line\n" * 40 + '"'
    text = "user,item,comment,rating\n" + "".join(f"{k},{k % 7},{comment},3\n" for k in range(20_000))
    path = write(tmp_path, "t.csv", text)
    assert len(read_ratings(path)) == 20_000
    with path.open("a") as file:
        file.write("1,99,no break,x\n")
    with pytest.raises(DataError, match=f"line {1 + 20_000 * 41 + 1} of t.csv, column 'rating': 'x'"):
        read_ratings(path)


def test_columns_are_named_by_the_caller(tmp_path: Path) -> None:
    path = write(tmp_path, "odd.csv", "who,what,liked,user\n1,7,3,x\n2,7,4,x\n")
    assert rows(read_ratings(path, user="who", item="what", rating="liked")) == [(1, 7, 3.0), (2, 7, 4.0)]


def test_a_format_can_be_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "rating.csv", ANIME)
    plain = read_ratings(path, format="csv")
    assert (len(plain), plain.notes["not_rated"], plain.scale) == (4, 0, None)


@pytest.mark.parametrize(
    "dtype", ["int32", "uint16", "Int64", "UInt64", "int64[pyarrow]", "float64", "category", "object"]
)
def test_integer_ids_of_a_frame_become_int64(dtype: Any) -> None:
    frame = pd.DataFrame({"user_id": pd.Series([30, 4]).astype(dtype), "item_id": [2, 1], "rating": [1, 2]})
    ratings = from_frame(frame)
    assert ratings.user_ids.raw.dtype == np.int64
    assert rows(ratings) == [(30, 2, 1.0), (4, 1, 2.0)]


@pytest.mark.parametrize("dtype", ["str", "object", "category", "string", "string[pyarrow]"])
def test_text_ids_of_a_frame_become_str(dtype: Any) -> None:
    frame = pd.DataFrame({"user": pd.Series(["7", "b"]).astype(dtype), "item": [2, 1], "rating": [1, 2]})
    assert rows(read_ratings(frame)) == [("7", 2, 1.0), ("b", 1, 2.0)]


def test_a_frame_is_recognised_by_its_columns_like_a_file() -> None:
    frame = pd.DataFrame({"user_id": [1, 1, 2], "anime_id": [1, 2, 1], "rating": [-1, 5, 6]}, index=[9, 9, 9])
    assert rows(read_ratings(frame)) == [(1, 2, 5.0), (2, 1, 6.0)]


def test_a_sparse_matrix_keeps_its_shape_and_its_stored_zeros() -> None:
    matrix = sp.csr_array(([5.0, 0.0, 3.0], ([0, 2, 2], [1, 1, 4])), shape=(4, 6))
    for ratings in (read_ratings(matrix), from_sparse(matrix.tocsc())):
        assert (ratings.n_users, ratings.n_items) == (4, 6)
        assert sorted(rows(ratings)) == [(0, 1, 5.0), (2, 1, 0.0), (2, 4, 3.0)]


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (pd.to_datetime(["1970-01-02", "1970-01-01 00:00:05.9"], format="ISO8601"), [86_400, 5]),
        (pd.to_datetime(["1970-01-02 01:00+01:00", "1970-01-01 00:00Z"], utc=True), [86_400, 0]),
        ([7.0, 9.5], [7, 9]),
        ([7, 9], [7, 9]),
    ],
)
def test_timestamps_become_whole_seconds(times: Any, seconds: list[int]) -> None:
    ratings = from_frame(pd.DataFrame({"user": [1, 2], "item": [1, 2], "rating": [1, 2], "timestamp": times}))
    assert ratings.timestamps is not None
    assert ratings.timestamps.tolist() == seconds


def test_dates_in_a_file_become_seconds(tmp_path: Path) -> None:
    text = "user,item,rating,timestamp\n1,7,3,1970-01-01 00:01:00\n2,7,4,1970-01-02T00:00:00Z\n"
    ratings = read_ratings(write(tmp_path, "t.csv", text))
    assert ratings.timestamps is not None
    assert ratings.timestamps.tolist() == [60, 86_400]
    assert ratings.user_ids.raw.dtype == np.int64, "dates must not turn the ids beside them into text"


def test_ids_read_as_text_keep_their_spelling(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "user,item,rating\n007,1,1\n7,x,2\n")
    assert rows(read_ratings(path, id_type="text")) == [("007", "1", 1.0), ("7", "x", 2.0)]
    assert rows(from_arrays([1, "1x"], [2.0, 3.0], [1, 2], id_type="text")) == [("1", "2", 1.0), ("1x", "3", 2.0)]


def test_text_that_spells_integers_is_text_unless_asked() -> None:
    assert from_arrays(["1", "2"], [1, 2], [1, 2]).user_ids.is_text
    assert not from_arrays(["1", "2"], [1, 2], [1, 2], id_type="int").user_ids.is_text


def test_integers_to_the_last_bit_beside_text(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", f"user,item,rating\n{2**63 - 1},a,1\n-{2**63},b,2\n")
    assert read_ratings(path).user_ids.raw.tolist() == [-(2**63), 2**63 - 1]


def test_integers_written_as_floats_are_integers(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "user,item,rating\n1.0,10,1\n2.0,11,2\n")
    assert rows(read_ratings(path)) == [(1, 10, 1.0), (2, 11, 2.0)]


def test_a_table_of_items_can_be_given_named_or_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "rating.csv", ANIME)
    assert read_ratings(path).item_info is None
    other = tmp_path / "other"
    other.mkdir()
    beside = write(other, "anime.csv", ANIME_ITEMS)
    given = read_ratings(path, item_info=beside).item_info
    assert given is not None
    assert read_ratings(path, item_info=given).item_info is given
    write(tmp_path, "anime.csv", ANIME_ITEMS)
    assert read_ratings(path, item_info=False).item_info is None
    as_text = read_ratings(path, id_type="text").item_info
    assert as_text is not None
    assert as_text.index.tolist() == ["5", "20"], "the table must be found by the ids that the ratings have"


# Duplicates

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


@pytest.mark.parametrize(
    ("text", "options", "parts"),
    [
        (
            "user,item,rating\n1,1,5\n2,1,bad\n",
            {},
            ["line 3 of t.csv", "column 'rating'", "'bad' is not a number", "mend or drop that row"],
        ),
        ("user,item,rating\n1,1,5\n\n2,1,\n", {}, ["line 4 of t.csv", "'rating'", "'' is missing", "mend or drop"]),
        (
            "user,item,rating\n1,1,inf\n2,1,5\n",
            {},
            ["line 2 of t.csv", "'rating'", "inf is not a finite", "mend or drop"],
        ),
        ("user,item,rating\n1,1,5\n2,1,nan\n", {}, ["line 3 of t.csv", "'rating'", "'nan'", "mend or drop"]),
        (
            "user,item,rating\n1,1,5\n2,1,7\n2,2,9\n",
            {"scale": (1, 5)},
            ["line 3 of t.csv", "'rating'", "7 is outside the scale 1 to 5", "pass scale="],
        ),
        (
            "user_id,anime_id,rating\n1,1,-1\n1,2,5\n2,1,11\n",
            {},
            ["line 4 of t.csv", "'rating'", "11 is outside the scale 1 to 10", "pass scale="],
        ),
        (
            "user,item,rating\n1,1,5\n2,1,4\n3,2,3\n1,1,2\n2,1,4\n",
            {},
            [
                "line 5 of t.csv",
                "'rating'",
                "2 is a second rating of user 1 and item 1",
                "after 5 in line 2",
                "2 pairs",
                "1 of them differently",
                "duplicates= one of 'last'",
            ],
        ),
        (
            "user,item,rating\n1,1,5\n2,1,4\n2,x7,3\n",
            {},
            ["line 4 of t.csv", "'item'", "'x7' is text", "before it are integers", "id_type='text'"],
        ),
        (
            "user,item,rating\nbob,1,5\n2,1,4\n",
            {},
            ["line 3 of t.csv", "'user'", "'2' is an integer", "before it are text", "id_type='text'"],
        ),
        ("user,item,rating\n1,1,5\n,,\n2,1,x\n", {}, ["line 3 of t.csv", "'rating'", "'' is missing"]),
        (
            " \n\nuser,item,rating\n1,1,5\n\n2,1,x\n",
            {},
            ["line 6 of t.csv", "'rating'", "'x' is not a number"],
        ),
        ("user,item,rating\n1,1,5\n,1,4\n", {}, ["line 3 of t.csv", "'user'", "'' is no user id", "drop that row"]),
        (
            'user,item,rating\n1,a,5\n2," ",4\n',
            {},
            ["line 3 of t.csv", "'item'", "' ' is no item id", "drop that row"],
        ),
        (
            "user,item,rating\n1,1,5\n2,x,4\n",
            {"id_type": "int"},
            ["line 3 of t.csv", "'item'", "'x' is not an integer", "id_type='text'"],
        ),
        (
            "user,item,rating,timestamp\n1,1,5,10\n2,1,4,soon\n",
            {},
            ["line 3 of t.csv", "'timestamp'", "'soon'", "mend or drop"],
        ),
        ("user,item,rating\n1,1,5\n2,1\n", {}, ["line 3 of t.csv", "2 columns", "has 3", "'2,1'", "mend or drop"]),
        ("user,item,rating\n1,1,5\n2,1,3,9\n", {}, ["line 3 of t.csv", "4 columns", "has 3", "mend or drop"]),
        ('user,item,rating\n"1\n",1,5\n2,1,x\n', {}, ["line 4 of t.csv", "'x' is not a number"]),
        ("user,item\n1,2\n", {}, ["first line of t.csv", "fewer than 3 columns", "user, item and rating"]),
        (
            "user,item,grade\n1,1,5\n",
            {},
            ["t.csv has no rating column", "['user', 'item', 'grade']", "rating='...'"],
        ),
        (
            "user,item,rating\n1,1,5\n",
            {"user": "usr"},
            ["t.csv has no column 'usr'", "['user', 'item', 'rating']", "Did you mean 'user'?"],
        ),
        (
            "user,movie,item,rating\n1,1,1,5\n",
            {},
            ["several columns that may be the item", "['movie', 'item']", "item='...'"],
        ),
        ("1,2,3\n4,5,6\n", {}, ["first line of t.csv is '1,2,3'", "data and not a header", "user,item,rating"]),
        ("", {}, ["t.csv is empty", "give a table"]),
        (" \n\n", {}, ["t.csv is empty", "give a table"]),
        ("user,item,rating\n", {}, ["t.csv has a header but no rows", "give a table"]),
        ("user,item,rating\n4,1,5\n4,2,3\n", {}, ["all 2 ratings are by the one user 4", "at least two"]),
        ("user_id,anime_id,rating\n1,1,-1\n2,1,-1\n", {}, ["no rating is left", "all 2 rows are -1"]),
    ],
)
def test_a_bad_file_is_refused_with_the_place_and_the_cure(
    tmp_path: Path, text: str, options: dict[str, Any], parts: list[str]
) -> None:
    path = write(tmp_path, "t.csv", text)
    with pytest.raises(DataError) as caught:
        read_ratings(path, **options)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("u.data", "1\t2\t3\t4\n5\t6\tx\t7\n", ["line 2 of u.data", "'rating'", "'x' is not a number"]),
        ("u.data", "1\t2\t3\t4\n5\t6\t7\t7\n", ["line 2 of u.data", "7 is outside the scale 1 to 5"]),
        ("u.data", "1\t2\t3\t4\n5\t6\t3\n", ["line 2 of u.data", "3 columns", "has 4"]),
        ("ratings.dat", "1::2::3::4\n5::6::x::4\n", ["line 2 of ratings.dat", "'rating'", "'x' is not a number"]),
        ("ratings.dat", "1::2::3::4\n5::6::3\n", ["line 2 of ratings.dat", "3 columns", "has 4"]),
        ("ratings.dat", "1::2::x::4\n5::6::3::4\n", ["line 1 of ratings.dat", "'x' is not a number"]),
    ],
)
def test_a_bad_line_of_a_file_without_header_is_counted_from_one(
    tmp_path: Path, name: str, text: str, parts: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        read_ratings(write(tmp_path, name, text))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"user": [1, "x", 2]}, ["row 1", "'user'", "'x' is text", "before it are integers", "id_type='text'"]),
        ({"user": ["x", "y", 2]}, ["row 2", "'user'", "2 is an integer", "before it are text", "id_type='text'"]),
        ({"item": [1, None, 2]}, ["row 1", "'item'", "is no item id", "drop that row"]),
        ({"item": ["a", np.nan, "b"]}, ["row 1", "'item'", "is no item id", "drop that row"]),
        ({"item": [1, 1.5, 2]}, ["row 1", "'item'", "1.5 is neither an integer nor a text id", "convert it"]),
        ({"rating": [1, 2, np.nan]}, ["row 2", "'rating'", "nan is not a finite rating", "mend or drop"]),
        ({"rating": [1, "good", 3]}, ["row 1", "'rating'", "'good' is not a number", "mend or drop"]),
        ({"rating": [1, None, "3"]}, ["row 1", "'rating'", "None is missing", "mend or drop"]),
        ({"timestamp": [1, np.nan, 3]}, ["row 1", "'timestamp'", "nan is not a time", "whole seconds"]),
        (
            {"timestamp": np.array(["2020-01-01", "NaT", "NaT"], "datetime64[s]")},
            ["row 1", "'timestamp'", "is missing", "mend or drop"],
        ),
        ({"user": [1, 2, 2], "item": [1, 9, 9]}, ["row 2", "second rating of user 2 and item 9", "in row 1"]),
    ],
)
def test_a_bad_frame_is_refused_with_the_row_counted_from_zero(change: dict[str, Any], parts: list[str]) -> None:
    frame = pd.DataFrame({"user": [1, 2, 3], "item": [1, 2, 3], "rating": [1, 2, 3]} | change)
    with pytest.raises(DataError) as caught:
        from_frame(frame)
    for part in parts:
        assert part in str(caught.value)


def test_rows_are_counted_past_those_that_are_not_rated(tmp_path: Path) -> None:
    text = "user_id,anime_id,rating\n1,1,-1\n1,1,-1\n1,2,5\n2,1,4\n1,2,6\n"
    with pytest.raises(DataError, match=r"line 6 of rating.csv.* in line 4 of rating.csv"):
        read_ratings(write(tmp_path, "rating.csv", text), duplicates="error")


def test_an_empty_frame_and_unequal_arrays_are_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        from_frame(pd.DataFrame({"user": [], "item": [], "rating": []}))
    with pytest.raises(DataError, match=r"shapes .*'rating': \(1,\)"):
        from_arrays([1, 2], [1, 2], [1])
    with pytest.raises(DataError, match="columns of equal names"):
        from_frame(pd.DataFrame([[1, 2, 3]], columns=["user", "item", "item"]))


def test_an_id_past_64_bits_is_refused_unless_read_as_text() -> None:
    ids = np.array([2**63 + 1, 4], dtype=np.uint64)
    with pytest.raises(DataError, match=f"position 0 .*{2**63 + 1} is an id past the largest 64-bit integer"):
        from_arrays(ids, [1, 2], [1, 2])
    assert from_arrays(ids, [1, 2], [1, 2], id_type="text").user_ids.raw.tolist() == ["4", str(2**63 + 1)]


def cut_gzip() -> bytes:
    rng = np.random.default_rng(0)
    lines = "".join(f"{u},{i},3\n" for u, i in rng.integers(0, 10**6, (20_000, 2)))
    return gzip.compress(("user,item,rating\n" + lines).encode())[:-40_000]


def cut_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("rating.csv", ANIME)
    return buffer.getvalue()[:-30]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("t.csv.gz", cut_gzip, ["t.csv.gz is cut short", "again"]),
        ("t.gz", lambda: gzip.compress(CSV.encode())[:12], ["t.gz is cut short", "again"]),
        ("t.zip", cut_zip, ["t.zip is a zip archive cut short", "again"]),
        ("t.bin", lambda: bytes(range(256)), ["t.bin is a binary file of no known kind", "CSV, TSV, NPZ or Parquet"]),
        ("t.pkl", lambda: b"\x80\x04\x95abc", ["t.pkl is a binary file", "pickles are never loaded"]),
        ("t.csv", lambda: CSV.encode("utf-16"), ["t.csv is UTF-16 text", "UTF-8"]),
        ("t.csv", lambda: b"user,item,rating\n\xe9,1,2\nb,1,2\n", ["t.csv cannot be read", "UTF-8"]),
        ("t.parquet", lambda: b"PAR1 nonsense", ["t.parquet cannot be read as Parquet"]),
        ("t.npz", lambda: npz(user=[1, 2], item=[1, 2], rating=np.array([1, "x"], object)), ["t.npz", "NPZ"]),
        ("t.npz", lambda: npz(user=[1, 2], item=[1, 2], rating=[1.0]), ["t.npz has arrays of shapes", "one length"]),
        ("t.npz", lambda: npz(user=[1, 2], item=[1, 2]), ["t.npz has no rating column", "['user', 'item']"]),
        (
            "t.npz",
            lambda: npz(user=[1, 2], item=[1, 2], rating=[1.0, np.inf]),
            ["row 1 of t.npz", "'rating'", "inf is not a finite rating"],
        ),
    ],
)
def test_damaged_and_foreign_files_are_refused(
    tmp_path: Path, name: str, content: Callable[[], bytes], parts: list[str]
) -> None:
    path = write(tmp_path, name, content())
    with pytest.raises(DataError) as caught:
        read_ratings(path)
    for part in parts:
        assert part in str(caught.value)


def test_a_missing_path_gets_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, "rating.csv", ANIME)
    with pytest.raises(DataError, match=r"ratng.csv' does not exist.*Did you mean 'rating.csv'\?"):
        read_ratings(tmp_path / "ratng.csv")
    with pytest.raises(DataError, match=r"does not exist, nor has .* any files"):
        read_ratings(tmp_path / "nowhere" / "rating.csv")


def test_a_folder_of_several_tables_asks_which(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", CSV)
    write(tmp_path, "b.csv", CSV)
    with pytest.raises(DataError, match=r"holds 2 files, .*\(a.csv, b.csv\); give the path of one file"):
        read_ratings(tmp_path)


def test_wrong_names_of_settings_get_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", CSV)
    with pytest.raises(ConfigError, match=r"format is 'ml100k'.*Did you mean 'ml-100k'\?"):
        read_ratings(path, format="ml100k")
    with pytest.raises(ConfigError, match=r"duplicates is 'latest'.*Did you mean 'last'\?"):
        read_ratings(path, duplicates="latest")
    with pytest.raises(ConfigError, match="id_type is 'string', but must be one of 'int', 'text'"):
        read_ratings(path, id_type="string")
    with pytest.raises(ConfigError, match=r"scale is \(5, 1\)"):
        read_ratings(path, scale=(5, 1))
    with pytest.raises(DataError, match=r"t.csv is a text file, not 'npz'; pass format='auto'"):
        read_ratings(path, format="npz")
    with pytest.raises(DataError, match="cannot be read from a list"):
        read_ratings([1, 2])


def test_a_table_of_items_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"other.csv is no known table of items .*item_info=False"):
        read_item_info(Source(write(tmp_path, "other.csv", ANIME_ITEMS)))
    with pytest.raises(DataError, match=r"movies.csv is not a usable table of items .*item_info=False"):
        read_item_info(Source(write(tmp_path, "movies.csv", "movieId,name\n1,x\n")))
    twice = pd.DataFrame({"title": ["a", "b"]}, index=[5, 5])
    with pytest.raises(DataError, match="item 5 twice"):
        read_ratings(write(tmp_path, "rating.csv", ANIME), item_info=twice)


# Real files


def test_the_anime_sample(data_dir: Path) -> None:
    ratings = read_ratings(data_dir / "anime")
    assert ratings.notes["rows"] == 520_609
    assert ratings.notes["not_rated"] == 100_666
    assert (len(ratings), ratings.n_users, ratings.n_items) == (419_943, 4_714, 7_157)
    assert len(ratings) / ratings.n_users == pytest.approx(89.0842, abs=5e-5)
    assert ratings.item_info is not None
    assert ratings.item_info.loc[28977, "title"] == "Gintama°"
    assert not ratings.item_info["title"].str.contains("&#039;").any()


def test_movielens_100k(data_dir: Path) -> None:
    ratings = read_ratings(data_dir / "ml-100k")
    assert (len(ratings), ratings.n_users, ratings.n_items) == (100_000, 943, 1_682)
    assert ratings.mean == pytest.approx(3.52986, abs=1e-12)
    assert ratings.timestamps is not None
    assert ratings.item_info is not None
    assert ratings.item_info.loc[1].to_dict() == {
        "title": "Toy Story (1995)",
        "genres": "Animation, Children's, Comedy",
    }
    assert set(ratings.item_ids.raw) <= set(ratings.item_info.index)


def test_movielens_1m(data_dir: Path) -> None:
    ratings = read_ratings(data_dir / "ml-1m" / "ml-1m.npz")
    assert (len(ratings), ratings.n_users, ratings.n_items) == (1_000_209, 6_040, 3_706)
    assert ratings.mean == pytest.approx(3.581564, abs=5e-7)
