"""Who is compared by the ratings they predict: every method of the peers, and ours, with a grid to tune each over.

A grid suits MovieLens 100K: it was laid around the best of a coarser one on the inner validation split of the first
test's training ratings, and a slow system tries few points. Those of larger data sets are in `bench.grids`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.peers.run import Settings
from bench.race import Racer, grid_of
from mf_numpy import Config


@dataclass(frozen=True)
class System(Racer):
    """A solver of ours or a method of a peer; `grid` and `epochs` as of a racer.

    Attributes:
        extra: what no point of the grid changes; of ours fields of `Config`, of a peer settings of its adapter.
        backend: of ours: ``numba`` or ``torch``.
        design: of ours: what users and items are made of, a name that `bench.designs.make` knows; empty for ids alone.
        members: of ours: how many fits, of other seeds, the mean is predicted of.
    """

    extra: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "numba"
    design: str = ""
    members: int = 1

    def config(self, point: Mapping[str, Any], seed: int = 0) -> Config:
        """Of one of ours, what a point of the grid is.

        Raises:
            ConfigError: settings that do not go together.
        """
        return Config.from_dict(
            {"solver": self.solver, "n_epochs": max(self.epochs), "seed": seed, **self.extra, **point}
        )

    def settings(self, point: Mapping[str, Any], threads: int = 1, seed: int | None = 0) -> Settings:
        """Of a peer, what a point of the grid is."""
        return Settings(threads=threads, n_epochs=max(self.epochs), seed=seed, extra=self.extra, **point)


def _by_draws(of: str, design: str, loss: str = "squared") -> System:
    """The posterior mean of users and items that are made of more than ids; few draws are kept."""
    return System(
        f"mf_numpy gibbs {of}",
        grid_of(n_factors=(8, 16)),
        (50, 100, 150, 200, 250, 300),
        solver="gibbs",
        extra={"loss": loss, "thin": 20},
        design=design,
    )


OURS = (
    System(
        "mf_numpy sgd",
        grid_of(n_factors=(64,), lr=(0.01, 0.015), reg=(0.05, 0.07, 0.09)),
        tuple(range(4, 161, 2)),
        solver="sgd",
    ),
    System(
        "mf_numpy sgd, ten fits",
        grid_of(n_factors=(64,), lr=(0.01,), reg=(0.03, 0.04, 0.05, 0.07)),
        tuple(range(10, 61, 5)),
        solver="sgd",
        members=10,
    ),
    System(
        "mf_numpy sgd, averaged",
        grid_of(n_factors=(64,), lr=(0.01,), reg=(0.05, 0.07, 0.09), lr_decay=(0.97, 1.0), average_from=(10, 20)),
        tuple(range(10, 81, 5)),
        solver="sgd",
    ),
    System(
        "mf_numpy sgd, ordinal",
        grid_of(n_factors=(64,), lr=(0.035, 0.045), reg=(0.015, 0.018, 0.021)),
        tuple(range(4, 161, 2)),
        solver="sgd",
        extra={"loss": "ordinal"},
    ),
    System(
        "mf_numpy SVD++",
        grid_of(n_factors=(64,), lr=(0.007, 0.01), reg=(0.035, 0.05, 0.065)),
        tuple(range(4, 121, 2)),
        solver="sgd",
        design="svd++",
    ),
    System(
        "mf_numpy SVD++, genres",
        grid_of(n_factors=(64,), lr=(0.005, 0.01), reg=(0.05, 0.07, 0.09)),
        tuple(range(4, 121, 2)),
        solver="sgd",
        design="svd++, genres",
    ),
    System(
        "mf_numpy SVD++, genres, time",
        grid_of(n_factors=(64,), lr=(0.005, 0.01), reg=(0.05, 0.07, 0.09)),
        tuple(range(4, 121, 2)),
        solver="sgd",
        design="svd++, genres, time",
    ),
    System("mf_numpy als", grid_of(n_factors=(64,), reg=(0.11, 0.13, 0.15)), tuple(range(1, 31)), solver="als"),
    System("mf_numpy cd", grid_of(n_factors=(64,), reg=(0.11, 0.13, 0.15)), tuple(range(1, 31)), solver="cd"),
    System("mf_numpy lbfgs", grid_of(n_factors=(64,), reg=(0.1, 0.13, 0.17)), tuple(range(5, 101, 5)), solver="lbfgs"),
    System(
        "mf_numpy gd",
        grid_of(n_factors=(64,), lr=(100.0, 200.0), reg=(0.1, 0.13, 0.16)),
        tuple(range(20, 401, 20)),
        solver="gd",
    ),
    System(
        "mf_numpy gibbs",
        grid_of(n_factors=(8, 16, 32)),
        (50, 75, 100, 150, 200, 250, 300),
        solver="gibbs",
        # The pairs to score are averaged over all draws; few are kept.
        extra={"thin": 20},
    ),
    System(
        "mf_numpy gibbs, chains",
        grid_of(n_factors=(16, 32), chain_length=(100, 150)),
        (300, 450, 600),
        solver="gibbs",
        extra={"thin": 20},
    ),
    System(
        "mf_numpy gibbs, ordinal",
        grid_of(n_factors=(8, 16, 32)),
        (50, 75, 100, 150, 200, 250, 300),
        solver="gibbs",
        extra={"loss": "ordinal", "thin": 20},
    ),
    System(
        "mf_numpy gibbs, ordinal, chains",
        grid_of(n_factors=(32, 64), chain_length=(150,)),
        (300, 450, 600),
        solver="gibbs",
        extra={"loss": "ordinal", "thin": 20},
    ),
    _by_draws("SVD++", "svd++ of both"),
    _by_draws("SVD++, ordinal", "svd++ of both", loss="ordinal"),
    _by_draws("SVD++, genres", "svd++ of both, genres"),
    _by_draws("SVD++, genres, time", "svd++ of both, genres, time"),
    _by_draws("SVD++, genres, time, ordinal", "svd++ of both, genres, time", loss="ordinal"),
    System(
        "mf_numpy gibbs SVD++, genres, time, ordinal, chains",
        grid_of(n_factors=(8, 16), chain_length=(75, 100)),
        (150, 225, 300, 450, 600),
        solver="gibbs",
        extra={"loss": "ordinal", "burn_in": 10, "thin": 20},
        design="svd++ of both, genres, time",
    ),
    System(
        "mf_torch adam",
        grid_of(n_factors=(16,), lr=(0.005,), reg=(0.1, 0.14, 0.2)),
        tuple(range(1, 21)),
        solver="gd",
        extra={"step_rule": "adam", "batch_size": 1024},
        backend="torch",
    ),
)

THEIRS = (
    System(
        "LIBMF",
        grid_of(n_factors=(64,), lr=(0.02, 0.03), reg=(0.08, 0.1, 0.12)),
        (40, 60, 80, 120),
        peer="libmf",
    ),
    System(
        "Cornac",
        grid_of(n_factors=(64,), lr=(0.005, 0.007), reg=(0.05, 0.065, 0.08)),
        tuple(range(5, 126, 5)),
        peer="cornac",
    ),
    System("Cornac torch", grid_of(n_factors=(16,), lr=(0.01,), reg=(0.05, 0.07)), (15, 25), peer="cornac-torch"),
    System(
        "cmfrec ALS",
        grid_of(n_factors=(16,), reg=(12.0, 14.0, 16.0)),
        (5, 10, 20),
        peer="cmfrec",
        extra={"use_cg": False},
    ),
    System(
        "cmfrec ALS, weighted λ",
        grid_of(n_factors=(64,), reg=(0.12, 0.14, 0.16)),
        (10, 20, 30),
        peer="cmfrec",
        extra={"use_cg": False, "scale_lam": True},
    ),
    System(
        "cmfrec L-BFGS",
        grid_of(n_factors=(64,), reg=(12.0, 14.0, 16.0)),
        (50, 100, 150),
        peer="cmfrec",
        extra={"method": "lbfgs"},
    ),
    System("LensKit ALS", grid_of(n_factors=(32,), reg=(0.11, 0.13, 0.15)), (5, 10, 15, 20), peer="lenskit"),
    System(
        "LensKit FunkSVD",
        grid_of(n_factors=(32,), lr=(0.005,), reg=(0.08, 0.1, 0.12)),
        (75, 100, 125),
        peer="lenskit",
        extra={"method": "funksvd"},
    ),
    System(
        "Surprise SVD",
        grid_of(n_factors=(64,), lr=(0.005,), reg=(0.1, 0.12, 0.14)),
        (60, 80, 100, 120),
        peer="surprise",
    ),
    System(
        "Surprise SVD, no biases",
        grid_of(n_factors=(64,), lr=(0.005,), reg=(0.07, 0.1, 0.13)),
        (40, 80, 120),
        peer="surprise",
        extra={"biased": False},
    ),
    System(
        "Surprise SVD++",
        grid_of(n_factors=(16,), lr=(0.01,), reg=(0.08, 0.1)),
        (20, 30),
        peer="surprise",
        extra={"method": "svdpp"},
    ),
    System("myFM", grid_of(n_factors=(6, 8, 12)), (100, 300), peer="myfm"),
    System(
        "PyTorch loop",
        grid_of(n_factors=(32,), lr=(0.005,), reg=(3e-4, 4e-4, 5e-4)),
        tuple(range(1, 25)),
        peer="torch-loop",
    ),
    System("the post", grid_of(n_factors=(8,), lr=(30.0,), reg=(1e-5, 3e-5, 5e-5)), (5, 10, 20), peer="post"),
    System("Spark ALS", grid_of(n_factors=(16,), reg=(0.13, 0.15)), (15,), peer="pyspark"),
    System(
        "fastai",
        grid_of(n_factors=(50,), lr=(0.005,), reg=(0.2, 0.3)),
        (5,),
        peer="fastai",
        extra={"batch_size": 512},
    ),
)

SYSTEMS = OURS + THEIRS

_COMPANY = (
    "mf_numpy sgd",
    "mf_numpy SVD++",
    "mf_numpy als",
    "mf_numpy gibbs",
    "mf_numpy gibbs, chains",
    "mf_numpy gibbs, ordinal, chains",
)
_ASKED_FOR = ("Surprise SVD, no biases", "mf_numpy gibbs SVD++", "mf_numpy gibbs SVD++, ordinal")
BESIDE_PEERS = (
    *(system for system in OURS if system.name in _COMPANY),
    *(system for system in THEIRS if system.name not in _ASKED_FOR),
)
"""Every method of the peers but a worse one of the same library, and one of ours of each kind."""

OF_OURS = tuple(system for system in OURS if system.name not in _ASKED_FOR)
"""All of ours but what is for data sets without facts about users and items."""
