"""The Netflix Prize's files, made up in their true form: both layouts, blocks of any size, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import inventory
from bench.protocols import PROTOCOLS, find
from mf_numpy import ConfigError, DataError, netflix
from mf_numpy.datasets import load, netflix_probe

MOVIES = {
    1: "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n885013,4,2005-10-19\n",
    2: "2:\n822109,1,2005-05-13\n7,2,1999-11-11\n",
    30: "30:\n7,5,2000-01-01\n1488844,4,2004-03-05\n885013,2,2004-03-06",
}
PROBE = "1:\n822109\n30:\n1488844\n7\n"


def folder(root: Path, layout: str = "training_set", probe: str = PROBE, **movies: str) -> Path:
    """A folder as the prize's files lie in it; `movies` by m1 and so on, in place of the usual ones."""
    at = root / "netflix"
    texts = {movie: movies.get(f"m{movie}", text) for movie, text in MOVIES.items()}
    (at / "training_set").mkdir(parents=True, exist_ok=True)
    if layout == "training_set":
        for movie, text in texts.items():
            (at / layout / f"mv_{movie:07}.txt").write_text(text)
    else:
        (at / "combined_data_1.txt").write_text(texts[1] + texts[2])
        (at / "combined_data_2.txt").write_text(texts[30])
    (at / "probe.txt").write_text(probe)
    return at


@pytest.mark.parametrize("size", [1, 7, 40, 1 << 24])
@pytest.mark.parametrize("layout", ["training_set", "combined_data"])
def test_ratings_are_read_movie_by_movie(
    tmp_path: Path, layout: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netflix, "BYTES", size)
    monkeypatch.setattr(netflix, "ROWS", 2)
    at = folder(tmp_path, layout)
    ratings = netflix.read(at)
    assert ratings.user_ids.raw.tolist() == [7, 822109, 885013, 1488844]
    assert ratings.item_ids.raw.tolist() == [1, 2, 30]
    assert ratings.user_ids.decode(ratings.users).tolist() == [
        1488844, 822109, 885013, 822109, 7, 7, 1488844, 885013,
    ]  # fmt: skip
    assert ratings.item_ids.decode(ratings.items).tolist() == [1, 1, 1, 2, 2, 30, 30, 30]
    assert ratings.values.tolist() == [3, 5, 4, 1, 2, 5, 4, 2]
    assert ratings.scale == (1.0, 5.0) and ratings.notes["format"] == "netflix" and ratings.timestamps is None
    assert netflix.count(at) == 8 == ratings.notes["rows"]


@pytest.mark.parametrize("rows", [1, 3, 1 << 22])
def test_the_probe_is_held_out_and_nothing_else(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netflix, "ROWS", rows)
    split = netflix.probe(folder(tmp_path))
    train, test = split.train, split.valid
    held = list(
        zip(train.user_ids.decode(test.users), train.item_ids.decode(test.items), test.values.tolist(), strict=True)
    )
    assert held == [(822109, 1, 5.0), (7, 30, 5.0), (1488844, 30, 4.0)]
    assert train.values.tolist() == [3, 4, 1, 2, 2] and test.n_cold == 0
    assert train.user_ids.decode(train.users).tolist() == [1488844, 885013, 822109, 7, 885013]


def test_lines_may_end_as_on_another_system(tmp_path: Path) -> None:
    at = folder(tmp_path)
    before = netflix.probe(at)
    for path in (*(at / "training_set").iterdir(), at / "probe.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    after = netflix.probe(at)
    assert after.train.fingerprint == before.train.fingerprint
    np.testing.assert_array_equal(after.valid.users, before.valid.users)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2:\n822109,1,2005-05-13\n7,6,1999-11-11\n", r"line 3 of mv_0000002.txt: '7,6,1999-11-11' is no movie"),
        ("2:\n822109,0,2005-05-13\n", r"line 2 of mv_0000002.txt: '822109,0,2005-05-13'"),
        ("2:\n822109,3.5,2005-05-13\n", "line 2 of mv_0000002.txt"),
        ("2:\n-7,3,2005-05-13\n", "line 2 of mv_0000002.txt: '-7,3,2005-05-13'"),
        ("2:\n99999999999,3,2005-05-13\n", "line 2 of mv_0000002.txt"),
        ("2:\n7\n", "line 2 of mv_0000002.txt: '7' is no movie such as '1:' nor 'user,rating,date' of one"),
        ("<html>\n2:\n7,3,2005-05-13\n", "line 1 of mv_0000002.txt: '<html>'"),
        ("2:3\n7,3,2005-05-13\n", "line 1 of mv_0000002.txt: '2:3'"),
        ("1:\n7,3,2005-05-13\n", "movie 1 comes twice in mv_0000001.txt and the files after it"),
        ("2:\n7,3,2005-05-13\n822109,2,2005-05-13\n7,4,2005-06-13\n", "user 7 has two ratings of movie 2"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, text: str, reason: str) -> None:
    at = folder(tmp_path, m2=text)
    with pytest.raises(DataError, match=reason):
        netflix.read(at)


def test_ratings_before_the_first_movie_belong_to_nobody(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1 of mv_0000001.txt: '1488844,3,2005-09-06'"):
        netflix.read(folder(tmp_path, m1="1488844,3,2005-09-06\n1:\n7,3,2005-09-06\n"))


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        (
            "1:\n822109\n2:\n885013\n30:\n9\n",
            "probe.txt has 2 pairs not among .* such as user 885013 and movie 2",
        ),
        ("4:\n822109\n", "probe.txt has 1 pair not among the ratings, such as user 822109 and movie 4"),
        ("1:\n822109\n822109\n", "probe.txt has 1 pair more than once"),
        (
            "1:\n822109,3,2005-09-06\n",
            r"line 2 of probe.txt: '822109,3,.*' is no movie such as '1:' nor 'user'",
        ),
        ("822109\n", "line 1 of probe.txt"),
        ("", "probe.txt has no lines of users"),
        ("1:\n", "probe.txt has no lines of users"),
    ],
)
def test_a_probe_of_another_copy_is_refused(tmp_path: Path, probe: str, reason: str) -> None:
    at = folder(tmp_path, probe=probe)
    with pytest.raises(DataError, match=reason):
        netflix.probe(at)


def test_a_folder_without_the_files_says_which_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has neither training_set/mv_\*.txt nor combined_data_\*.txt"):
        netflix.read(tmp_path)
    at = folder(tmp_path)
    (at / "probe.txt").unlink()
    with pytest.raises(DataError, match=r"there is no probe.txt beside the ratings in netflix"):
        netflix.probe(at)


def test_the_data_set_and_its_protocol_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MF_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"'netflix' is not here: its licence forbids .* into .*/netflix"):
        load("netflix", download=True)
    with pytest.raises(DataError, match="its licence forbids"):
        PROTOCOLS["netflix-probe"].fold(0)
    at = folder(tmp_path)
    ratings = load("netflix")
    assert ratings.notes["name"] == "netflix" and len(ratings) == 8
    with pytest.raises(ConfigError, match="is read in one way only: leave out id_type"):
        load("netflix", id_type="text")
    assert find("netflix") is PROTOCOLS["netflix-probe"] and find("netflix").folds == 1
    assert find("netflix").fold(0).split.train.fingerprint == netflix_probe().train.fingerprint
    assert find("netflix").scale == (1.0, 5.0) and find("ml-32m").name == "ml-32m-90-10"
    monkeypatch.setattr(inventory, "ROWS", {"netflix": (8,)})
    assert [(one.state, one.text) for one in inventory.data()] == [("ok", "8 rows of the prize's files in MF_DATA")]
    (at / "training_set" / "mv_0000030.txt").unlink()
    (found,) = inventory.data()
    assert found.state == "warn" and found.text.endswith("but it has 8")
