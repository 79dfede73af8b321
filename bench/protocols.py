"""Protocols by name: which ratings are trained on, which are scored, and how often.

What is held out here is a test: it is scored once by each system, and no setting is chosen by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from mf_numpy import Split, random_split
from mf_numpy.datasets import REGISTRY, load, ml_100k_fold, netflix_probe
from mf_numpy.errors import choose
from mf_numpy.planted import ANIME_FULL, PlantedConfig, planted


@dataclass(frozen=True, eq=False)
class Fold:
    """One division of a data set.

    Attributes:
        split: the ratings to train on, and those of the test.
        noise_floor: of planted ratings, the RMSE of the best possible prediction of the test.
    """

    split: Split
    noise_floor: float | None = None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A named way to divide a data set.

    Attributes:
        name: what it is called.
        about: one line for a listing.
        scale: the ends of the rating scale, to which every system's predictions are clipped; None: they are not.
        folds: how many divisions there are.
        fold: the division of a number from 0.
    """

    name: str
    about: str
    scale: tuple[float, float] | None
    folds: int
    fold: Callable[[int], Fold]


def _official(k: int) -> Fold:
    return Fold(ml_100k_fold(k + 1))


def _probe(k: int) -> Fold:
    return Fold(netflix_probe())


def _random(name: str, k: int) -> Fold:
    return Fold(random_split(load(name), valid=0.1, seed=k))


def _planted(config: PlantedConfig, k: int) -> Fold:
    truth = planted(config)
    split = random_split(truth.ratings, valid=0.1, seed=k)
    return Fold(split, truth.noise_floor_of(split.train, split.valid))


def _ninety_ten(name: str, folds: int) -> Protocol:
    times = "" if folds == 1 else f", {folds} times"
    about = f"{REGISTRY[name].about}; 10 % of the ratings drawn as the test{times}"
    fold = partial(_random, name)
    return Protocol(name=f"{name}-90-10", about=about, scale=REGISTRY[name].scale, folds=folds, fold=fold)


_SMALL = PlantedConfig(n_users=300, n_items=200, n_ratings=24_000, n_factors=2)

_ALL = (
    Protocol(
        name="ml-100k-official-5",
        about="MovieLens 100K; u1 to u5, the folds that come with it",
        scale=REGISTRY["ml-100k"].scale,
        folds=5,
        fold=_official,
    ),
    _ninety_ten("ml-1m", 5),
    _ninety_ten("anime", 5),
    Protocol(
        name="planted-anime-full",
        about="drawn ratings with the size and shape of the full anime table; 10 % drawn as the test",
        scale=None,
        folds=1,
        fold=partial(_planted, ANIME_FULL),
    ),
    _ninety_ten("ml-10m", 1),
    _ninety_ten("ml-25m", 1),
    _ninety_ten("ml-32m", 1),
    Protocol(
        name="netflix-probe",
        about="the Netflix Prize; its probe, which came with it, is the test",
        scale=REGISTRY["netflix"].scale,
        folds=1,
        fold=_probe,
    ),
    Protocol(
        name="planted-small",
        about="24,000 drawn ratings, to try a suite in seconds; 10 % drawn as the test, twice",
        scale=None,
        folds=2,
        fold=partial(_planted, _SMALL),
    ),
)

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


def find(name: str) -> Protocol:
    """The protocol of a name, or of a data set that has one protocol.

    Raises:
        ConfigError: an unknown name, with the nearest known one.
    """
    of_data = [protocol for protocol in PROTOCOLS if protocol.startswith(f"{name}-")]
    return PROTOCOLS[of_data[0] if len(of_data) == 1 else choose("protocol", name, PROTOCOLS)]
