"""Every kind of rating table is read as it looks, whatever its spelling and packing; real tables too."""

from __future__ import annotations

import gzip
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from mf_numpy import DataError
from mf_numpy.readers import from_arrays, from_frame, from_sparse, read_ratings
from tests.reader_tables import (
    ANIME,
    ANIME_ITEMS,
    CSV,
    DAT,
    ML_CSV,
    MOVIES_CSV,
    MOVIES_DAT,
    U_DATA,
    U_ITEM,
    npz,
    parquet,
    rows,
    write,
)

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
    # Not of the contents: gzip writes the time into its bytes, and processes that share the tests must name them alike.
    ids=lambda value: value if isinstance(value, str) and "\n" not in value else "",
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
