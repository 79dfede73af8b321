"""Every bad table of ratings is refused, and the error says where, what came and what to do."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mf_numpy import ConfigError, DataError
from mf_numpy.item_info import read_item_info
from mf_numpy.readers import from_arrays, from_frame, read_ratings
from mf_numpy.sources import Source
from tests.reader_tables import ANIME, ANIME_ITEMS, CSV, npz, write


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
