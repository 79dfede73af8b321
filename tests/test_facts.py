"""Tables of facts from files: ids as the ratings have them, numbers as numbers, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from mf_numpy.datasets import user_facts
from mf_numpy.errors import DataError
from mf_numpy.facts import read_facts


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_is_read_by_its_first_column_or_the_one_named(tmp_path: Path) -> None:
    path = write(tmp_path, "users.csv", "age,id,town\n30,1,Ulm\n,2,\n41,7,Bonn\n")
    found = read_facts(path, id_column="id")
    assert found.index.tolist() == [1, 2, 7] and list(found.columns) == ["age", "town"]
    assert found["age"].tolist()[::2] == [30, 41] and found.isna().to_numpy().tolist()[1] == [True, True]
    tabs = write(tmp_path, "users.tsv", "id\tage\n1\t30\n7\tnone\n")
    assert read_facts(tabs)["age"].tolist() == ["30", "none"]
    packed = tmp_path / "users.csv.gz"
    packed.write_bytes(gzip.compress(b"id,age\n007,30\nNA,5\n"))
    assert read_facts(packed, text_ids=True).index.tolist() == ["007", "NA"]
    table = pd.DataFrame({"id": [3, 4], "town": ["Ulm", "Bonn"], "age": [1.5, 2.5]})
    table.to_parquet(tmp_path / "users.parquet")
    pd.testing.assert_frame_equal(read_facts(tmp_path / "users.parquet"), table.set_index("id"))


def test_known_tables_need_no_header(tmp_path: Path) -> None:
    of_users = write(tmp_path, "u.user", "1|24|M|technician|85711\n2|53|F|other|94043\n")
    found = read_facts(of_users)
    assert list(found.loc[2]) == [53, "F", "other", "94043"] and found["age"].dtype.kind == "i"
    codes = read_facts(write(tmp_path, "users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n"))
    # Codes of occupations are names, though they look like numbers.
    assert codes["occupation"].tolist() == ["10", "16"] and codes["age"].tolist() == [1, 56]
    films = read_facts(write(tmp_path, "movies.csv", "movieId,title,genres\n1,Heat (1995),Action|Crime\n"))
    assert list(films.loc[1]) == ["Heat (1995)", "Action, Crime"]


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("id,age\n1,30\n1,40\n", {}, "x.csv has two lines for id 1; give each id one line"),
        ("id,age\nann,30\n", {}, "x.csv has the id 'ann', but the ids of the ratings are whole numbers; give those"),
        ("id,age\n1.5,30\n", {}, "x.csv has the id '1.5'"),
        ("id,age\n1,30\n,40\n", {}, "line 2 of facts in x.csv has no id; give each line one"),
        ("id,age\n1,30\n", {"id_column": "ids"}, r"no column 'ids'; it has id, age. Did you mean 'id'\?"),
        ("", {}, "x.csv is not a table of facts"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str, options: dict[str, str], told: str) -> None:
    path = write(tmp_path, "x.csv", text)
    with pytest.raises(DataError, match=told):
        read_facts(path, id_column=options.get("id_column"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file 'users\.csv'"):
        read_facts(tmp_path / "users.csv")


def test_facts_of_users_stand_beside_their_ratings(data_dir: Path) -> None:
    found = user_facts("ml-100k")
    assert found is not None and len(found) == 943 and found["gender"].value_counts()["F"] == 273
    assert user_facts("anime") is None
