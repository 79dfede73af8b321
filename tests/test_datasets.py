"""Named data sets: where they are sought, how they are fetched, and what is said when they are not there."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mf_numpy import ConfigError, DataError
from mf_numpy.datasets import REGISTRY, DataSet, cache_dir, find_data_dir, load, ml_100k_fold, official_split
from mf_numpy.planted import planted
from mf_numpy.readers import read_ratings

U_DATA = "1\t10\t3\t100\n2\t10\t4\t101\n2\t20\t5\t102\n"


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No MF_DATA, and an empty cache."""
    monkeypatch.delenv("MF_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(no_data: Path) -> Iterator[tuple[Path, str]]:
    """A folder served on the loopback interface, and its address."""
    folder = no_data / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def make_archive(path: Path) -> str:
    """A tiny archive in the shape of MovieLens 100K; its checksum."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-100k/u.data", U_DATA)
        archive.writestr("ml-100k/u1.base", U_DATA)
        archive.writestr("ml-100k/u1.test", "2\t10\t1\t103\n1\t30\t2\t104\n")
        archive.writestr("ml-100k/README", "read me")
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_the_default_needs_no_file_and_knows_its_floor(no_data: Path) -> None:
    ratings = load("planted")
    assert ratings.fingerprint == planted().ratings.fingerprint
    truth = planted()
    assert ratings.notes["name"] == "planted"
    assert ratings.notes["noise_floor"] == truth.noise_floor(ratings.users, ratings.items, ratings.values)
    assert 0.9 * truth.sigma < ratings.notes["noise_floor"] < truth.sigma
    with pytest.raises(ConfigError, match="drawn, not read: leave out scale"):
        load("planted", scale=(1, 5))


def test_a_data_set_is_fetched_once_checked_and_read_from_the_cache(
    served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    md5 = make_archive(folder / "ml-100k.zip")
    known = DataSet(about="tiny", url=f"{address}/ml-100k.zip", md5=md5, scale=(1.0, 5.0))
    monkeypatch.setitem(REGISTRY, "ml-100k", known)
    with pytest.raises(DataError, match="'ml-100k' is not here; pass download=True to fetch http"):
        load("ml-100k")
    ratings = load("ml-100k", download=True)
    assert ratings.values.tolist() == [3.0, 4.0, 5.0]
    assert ratings.notes["name"] == "ml-100k"
    (folder / "ml-100k.zip").unlink()
    assert load("ml-100k").fingerprint == ratings.fingerprint
    assert [p.name for p in cache_dir().iterdir()] == ["ml-100k.zip"]
    split = ml_100k_fold(1)
    assert split.valid.users.tolist() == [1, 0]
    assert split.valid.items.tolist() == [0, -1]
    with pytest.raises(DataError, match=r"no u2.base with u2.test beside ml-100k.zip:ml-100k/u.data"):
        ml_100k_fold(2)


def test_a_wrong_checksum_is_refused_and_nothing_stays(
    served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    make_archive(folder / "ml-100k.zip")
    wrong = "0" * 32
    known = DataSet(about="tiny", url=f"{address}/ml-100k.zip", md5=wrong)
    monkeypatch.setitem(REGISTRY, "ml-100k", known)
    with pytest.raises(DataError, match=f"does not have the checksum md5:{wrong}"):
        load("ml-100k", download=True)
    assert list(cache_dir().iterdir()) == []


def test_a_server_that_does_not_answer_is_an_error_with_another_way(
    served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, address = served
    monkeypatch.setitem(REGISTRY, "ml-1m", DataSet(about="none", url=f"{address}/none.zip", md5="0" * 32))
    with pytest.raises(DataError, match=r"none.zip could not be downloaded .*put it at .*ml-1m.zip"):
        load("ml-1m", download=True)


def test_the_anime_table_is_fetched_by_hand(no_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"CooperUnion from https://.*put rating.csv and anime.csv into .*mf/anime"):
        load("anime", download=True)
    monkeypatch.setenv("MF_DATA", str(no_data))
    folder = no_data / "anime"
    folder.mkdir()
    (folder / "rating.csv").write_text("user_id,anime_id,rating\n1,1,-1\n1,2,3\n2,2,4\n")
    assert load("anime").values.tolist() == [3.0, 4.0]


@pytest.mark.parametrize(("typo", "name"), [("ml100k", "ml-100k"), ("plantd", "planted"), ("anim", "anime")])
def test_a_typo_gets_the_nearest_name(no_data: Path, typo: str, name: str) -> None:
    with pytest.raises(DataError, match=rf"no data set or file is called '{typo}'.*Did you mean '{name}'\?"):
        load(typo)


def test_a_path_is_read_like_any_table(no_data: Path) -> None:
    path = no_data / "some.tsv"
    path.write_text(U_DATA)
    assert load(path).fingerprint == load(str(path), scale=None).fingerprint == read_ratings(path).fingerprint
    with pytest.raises(DataError, match=r"sme.tsv' does not exist.*Did you mean 'some.tsv'"):
        load(no_data / "sme.tsv")


def test_mf_data_must_be_a_folder(no_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_data_dir() is None
    monkeypatch.setenv("MF_DATA", str(no_data / "nowhere"))
    with pytest.raises(DataError, match=r"MF_DATA is .*nowhere', which is not a folder"):
        find_data_dir()


def test_a_fold_outside_one_to_five_is_refused() -> None:
    with pytest.raises(ConfigError, match="fold is 6, but MovieLens 100K has the folds 1 to 5"):
        ml_100k_fold(6)


def test_a_split_in_two_files(tmp_path: Path) -> None:
    for name, text in (("a.base", U_DATA), ("a.test", "1\t20\t2\t0\n9\t10\t1\t0\n")):
        (tmp_path / name).write_text(text)
    split = official_split(tmp_path / "a.base", tmp_path / "a.test")
    assert split.valid.users.tolist() == [0, -1]
    assert split.valid.items.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["ml-10m", "ml-25m", "ml-32m"])
def test_large_tables_of_movielens_are_asked_for_at_their_own_address(no_data: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"fetch https://files.grouplens.org/datasets/movielens/{name}.zip, or put"):
        load(name)
    sums = [known.md5 for known in REGISTRY.values() if known.md5]
    assert len(set(sums)) == len(sums)
    # Two ratings in the form that its archive has.
    folder = cache_dir() / name
    folder.mkdir(parents=True)
    if name == "ml-10m":
        (folder / "ratings.dat").write_text("1::122::5::838985046\n2::122::0.5::838983525\n")
    else:
        (folder / "movies.csv").write_text("movieId,title,genres\n122,Boomerang (1992),Comedy|Romance\n")
        (folder / "ratings.csv").write_text(
            "userId,movieId,rating,timestamp\n1,122,5.0,838985046\n2,122,0.5,838983525\n"
        )
    assert load(name).values.tolist() == [5.0, 0.5]


def test_every_data_set_can_be_got_somehow() -> None:
    for name, known in REGISTRY.items():
        assert name == "planted" or known.by_hand or (known.url and known.md5)
        assert name == "planted" or known.scale is not None


@pytest.mark.parametrize(
    ("name", "size", "scale"),
    [
        ("anime", (419_943, 4_714, 7_157), (1.0, 10.0)),
        ("ml-100k", (100_000, 943, 1_682), (1.0, 5.0)),
        ("ml-1m", (1_000_209, 6_040, 3_706), (1.0, 5.0)),
    ],
)
def test_real_data_sets_by_name(
    data_dir: Path, name: str, size: tuple[int, int, int], scale: tuple[float, float]
) -> None:
    ratings = load(name)
    assert (len(ratings), ratings.n_users, ratings.n_items) == size
    assert ratings.scale == scale
    assert (ratings.user_counts > 0).all()


def test_the_official_folds_divide_movielens_100k(data_dir: Path) -> None:
    held = []
    for k in range(1, 6):
        split = ml_100k_fold(k)
        assert (len(split.train), len(split.valid)) == (80_000, 20_000)
        held.append(split.valid.values)
    assert np.concatenate(held).sum() == load("ml-100k").values.sum()
