"""Named data sets: where they lie, how they are fetched, and what they are read with.

A data set is looked for as a folder or zip archive of its name, first under the folder that the environment variable
MF_DATA names, then in the per-user cache (``$XDG_CACHE_HOME/mf``, or ``~/.cache/mf``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mf_numpy import netflix
from mf_numpy.errors import ConfigError, DataError, nearest
from mf_numpy.facts import USER_TABLES, read_facts
from mf_numpy.planted import planted
from mf_numpy.ratings import Ratings
from mf_numpy.readers import read_ratings
from mf_numpy.sources import Source, locate
from mf_numpy.split import Split, hold_out

_MOVIELENS = "https://files.grouplens.org/datasets/movielens"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One entry of the registry.

    Attributes:
        about: one line for a listing.
        url: of a zip archive, or None where it cannot be fetched without an account.
        md5: checksum of the archive.
        scale: smallest and largest rating.
        by_hand: how to get it where there is no `url`.
        reader: what reads its folder, where that is not `mf_numpy.readers.read_ratings`.
    """

    about: str
    url: str | None = None
    md5: str | None = None
    scale: tuple[float, float] | None = None
    by_hand: str = ""
    reader: Callable[[Path], Ratings] | None = None


REGISTRY = {
    "planted": DataSet(about="400,000 drawn ratings with a known noise floor; needs no file"),
    "anime": DataSet(
        about="Kaggle anime ratings, 1 to 10",
        scale=(1.0, 10.0),
        by_hand=(
            "download 'Anime Recommendations Database' by CooperUnion from "
            "https://www.kaggle.com/datasets/CooperUnion/anime-recommendations-database (it needs an account) and put "
            "rating.csv and anime.csv into"
        ),
    ),
    "ml-100k": DataSet(
        about="MovieLens 100K, 1 to 5, with five official folds",
        url=f"{_MOVIELENS}/ml-100k.zip",
        md5="0e33842e24a9c977be4e0107933c0723",
        scale=(1.0, 5.0),
    ),
    "ml-1m": DataSet(
        about="MovieLens 1M, 1 to 5",
        url=f"{_MOVIELENS}/ml-1m.zip",
        md5="c4d9eecfca2ab87c1945afe126590906",
        scale=(1.0, 5.0),
    ),
    "ml-10m": DataSet(
        about="MovieLens 10M, 0.5 to 5",
        url=f"{_MOVIELENS}/ml-10m.zip",
        md5="ce571fd55effeba0271552578f2648bd",
        scale=(0.5, 5.0),
    ),
    "ml-25m": DataSet(
        about="MovieLens 25M, 0.5 to 5",
        url=f"{_MOVIELENS}/ml-25m.zip",
        md5="6b51fb2759a8657d3bfcbfc42b592ada",
        scale=(0.5, 5.0),
    ),
    "ml-32m": DataSet(
        about="MovieLens 32M, 0.5 to 5",
        url=f"{_MOVIELENS}/ml-32m.zip",
        md5="d472be332d4daa821edc399621853b57",
        scale=(0.5, 5.0),
    ),
    "netflix": DataSet(
        about="Netflix Prize, 1 to 5, with its probe",
        scale=netflix.SCALE,
        by_hand=(
            "its licence forbids passing it on, so put training_set (or combined_data_1.txt and so on) and probe.txt "
            "of a copy of your own into"
        ),
        reader=netflix.read,
    ),
}


def load(name_or_path: str | Path, *, download: bool = False, **options: Any) -> Ratings:
    """Ratings of a named data set, or of a file, folder or archive.

    Args:
        name_or_path: a name in `REGISTRY`, otherwise a path.
        download: fetch a named data set that is not here (MovieLens only).
        options: further arguments of `mf_numpy.readers.read_ratings`.

    Returns:
        Ratings whose notes have the ``name`` of a named data set, and for ``"planted"`` its ``noise_floor``: the RMSE,
        in rating units, of the best possible prediction of all its ratings.

    Raises:
        DataError: an unknown name, a data set that is not here, or a table that cannot be used.
        ConfigError: reading options for a data set that takes none.
    """
    given = {key: value for key, value in options.items() if value is not None}
    name = str(name_or_path)
    if name not in REGISTRY:
        if not Path(name).exists() and not Path(name).suffix and Path(name).name == name:
            raise DataError(
                f"no data set or file is called {name!r}; the data sets are {', '.join(REGISTRY)}."
                f"{nearest(name, REGISTRY)}"
            )
        return read_ratings(name_or_path, **given)
    if name == "planted":
        if given:
            raise ConfigError(f"the planted data set is drawn, not read: leave out {', '.join(given)}")
        drawn = planted()
        every = drawn.ratings
        floor = drawn.noise_floor(every.users, every.items, every.values)
        return replace(every, notes={**every.notes, "name": name, "noise_floor": floor})
    known = REGISTRY[name]
    if known.reader is not None:
        if given:
            raise ConfigError(f"the data set {name!r} is read in one way only: leave out {', '.join(given)}")
        ratings = known.reader(_place(name, download))
    else:
        ratings = read_ratings(_find(name, download), **{"scale": known.scale, **given})
    return replace(ratings, notes={**ratings.notes, "name": name})


def user_facts(name: str) -> pd.DataFrame | None:
    """What stands beside the ratings of a named data set about its users, by raw id; None where nothing does.

    Raises:
        DataError: a data set that is not here, or a table that cannot be used.
    """
    ratings = _find(name, download=False)
    beside = (ratings.sibling(table) for table in USER_TABLES)
    return next((read_facts(table) for table in beside if table is not None), None)


def ml_100k_fold(k: int, *, download: bool = False) -> Split:
    """The official fold `k` of MovieLens 100K: train on ``uK.base`` (80,000), hold out ``uK.test`` (20,000).

    Raises:
        ConfigError: `k` outside 1..5.
        DataError: a data set that is not here, or has no such fold.
    """
    if k not in range(1, 6):
        raise ConfigError(f"fold is {k!r}, but MovieLens 100K has the folds 1 to 5")
    whole = _find("ml-100k", download)
    base, test = (whole.sibling(f"u{k}.{side}") for side in ("base", "test"))
    if base is None or test is None:
        raise DataError(f"there is no u{k}.base with u{k}.test beside {whole.label}; unpack the whole archive there")
    return official_split(base, test)


def netflix_probe() -> Split:
    """The Netflix Prize's own split: its probe is held out, all other ratings are trained on.

    Raises:
        DataError: files that are not here, or cannot be used.
    """
    return netflix.probe(_place("netflix", download=False))


def official_split(base: str | Path | Source, test: str | Path | Source) -> Split:
    """The split that comes with a data set as two files, such as ``u1.base`` and ``u1.test``.

    Raises:
        DataError: a table that cannot be used, or ids of different types.
    """
    return hold_out(read_ratings(base), read_ratings(test))


def find_data_dir() -> Path | None:
    """The folder that MF_DATA names; None if the variable is not set.

    Raises:
        DataError: MF_DATA names something that is not a folder.
    """
    named = os.environ.get("MF_DATA")
    if not named:
        return None
    if not Path(named).is_dir():
        raise DataError(f"MF_DATA is {named!r}, which is not a folder; set it to the folder that holds the data sets")
    return Path(named)


def cache_dir() -> Path:
    """The per-user folder of downloads; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mf"


def _find(name: str, download: bool) -> Source:
    return locate(_place(name, download))


def _place(name: str, download: bool) -> Path:
    """The folder or archive of a named data set."""
    for place in _places(name):
        if place.exists():
            return place
    known = REGISTRY[name]
    named = find_data_dir()
    folder = named or cache_dir()
    elsewhere = "" if named else f"; or set MF_DATA to the folder that has {name!r} in it"
    if known.url is None:
        raise DataError(f"the data set {name!r} is not here: {known.by_hand} {folder / name}{elsewhere}")
    if not download:
        raise DataError(
            f"the data set {name!r} is not here; pass download=True to fetch {known.url}, "
            f"or put that file at {folder / name}.zip{elsewhere}"
        )
    return _fetch(name, known)


def _places(name: str) -> Iterator[Path]:
    for folder in (find_data_dir(), cache_dir()):
        if folder is not None:
            yield folder / name
            yield folder / f"{name}.zip"


def _fetch(name: str, known: DataSet) -> Path:
    """Download the archive into the cache; it gets its name there only once its checksum is right."""
    try:
        import pooch
    except ImportError as error:
        raise DataError(f"downloading {name!r} needs pooch; install it with: pip install 'mf[download]'") from error
    pooch.get_logger().setLevel("WARNING")  # else it reports every download on stderr
    try:
        file = pooch.retrieve(known.url, f"md5:{known.md5}", fname=f"{name}.zip", path=cache_dir())
    except ValueError as error:
        raise DataError(
            f"{known.url} does not have the checksum md5:{known.md5}: it is damaged or was replaced; try again, and do "
            "not use the file if that happens twice"
        ) from error
    except OSError as error:
        raise DataError(
            f"{known.url} could not be downloaded ({error}); fetch it another way and put it at "
            f"{cache_dir() / name}.zip"
        ) from error
    return Path(file)
