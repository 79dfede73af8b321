"""What users and items are made of in a measurement: designs by name, and the files in which a process finds one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from mf_numpy import Features, Holdout, Ratings, design_of
from mf_numpy.design import Design, Side
from mf_numpy.errors import choose
from mf_numpy.timed import Timed, timed

FACTS = (2, 21, 7)
"""Values of each of a user's three facts where these are drawn: of gender, occupation and age there are so many."""

GENRES = 18
"""Tags of which an item has each with a chance of a tenth, where they are drawn."""


def drawn(train: Ratings, users: Side) -> Design:
    """Facts drawn at random, for measurements of time alone: any data set has as many as MovieLens 100K."""
    rng = np.random.default_rng(0)
    m, n = train.shape
    facts = [
        sp.csr_array((np.ones(m), (np.arange(m), rng.integers(0, size, m))), shape=(m, size)) for size in FACTS
    ]  # fmt: skip
    has = rng.random((n, GENRES)) < 0.1
    tags = sp.csr_array(has / np.sqrt(np.maximum(has.sum(axis=1, keepdims=True), 1)))
    return Design(_beside(users, *facts), _beside(Side.identity(n), tags))


def _beside(side: Side, *more: sp.csr_array) -> Side:
    matrix = sp.csr_array(sp.hstack([side.matrix, *more], format="csr"))
    return Side(matrix, blocks=(*side.blocks, *(int(block.shape[1]) for block in more)))


DESIGNS: Mapping[str, Callable[[Ratings], Design]] = {
    "svd++": lambda train: design_of(train, users=Features().id().rated()),
    "svd++, genres": lambda train: design_of(
        train, users=Features().id().rated(weight=1.4), items=Features().id().tags("genres", weight=1.4)
    ),
    # Blocks that are drawn need no weights.
    "svd++ of both": lambda train: design_of(train, users=Features().id().rated(), items=Features().id().rated()),
    "svd++ of both, genres": lambda train: design_of(
        train, users=Features().id().rated(), items=Features().id().tags("genres").rated()
    ),
    "drawn": lambda train: drawn(train, Side.identity(train.n_users)),
    "svd++, drawn": lambda train: drawn(train, Features().id().rated().fit(train, "users").side),
}
"""Designs of a training set by name. Weights of blocks were chosen on the validation split of MovieLens 100K's u1."""

TIMED: Mapping[str, Callable[[Ratings, Holdout | None], Timed]] = {
    "svd++, genres, time": lambda train, valid: timed(
        train,
        Features().id().rated(weight=1.4).drift(weight=0.7).day(weight=0.35),
        Features().id().tags("genres", weight=1.4),
        valid=valid,
    ),
    "svd++ of both, genres, time": lambda train, valid: timed(
        train, Features().id().rated().day(), Features().id().tags("genres").rated(), valid=valid
    ),
}
"""Likewise, of users and items at a time."""


@dataclass(frozen=True, eq=False)
class Made:
    """What is trained on and scored in a case with a design, whose users and items may be those of a time."""

    train: Ratings
    valid: Holdout | None
    design: Design


def make(name: str, train: Ratings, valid: Holdout | None = None) -> Made:
    """A training set, and held-out pairs, with the design of a name.

    Raises:
        ConfigError: no such design, or a table that lacks a column.
        DataError: no timestamps where they are needed.
    """
    if choose("design", name, (*DESIGNS, *TIMED)) in DESIGNS:
        return Made(train, valid, DESIGNS[name](train))
    made = TIMED[name](train, valid)
    return Made(made.train, made.valid, made.design)


def save(folder: Path, name: str, design: Design) -> None:
    """Write a design's matrices beside the data of a case."""
    for side, made_of in (("users", design.users), ("items", design.items)):
        sp.save_npz(folder / f"{name}-{side}.npz", made_of.matrix, compressed=False)
        np.save(folder / f"{name}-{side}-blocks.npy", np.array(made_of.blocks))


def read(folder: Path, name: str) -> Design:
    """The design that `save` wrote, without the names of its features."""
    return Design(_read(folder, f"{name}-users"), _read(folder, f"{name}-items"))


def _read(folder: Path, stem: str) -> Side:
    matrix = sp.csr_array(sp.load_npz(folder / f"{stem}.npz"))
    return Side(matrix, blocks=tuple(np.load(folder / f"{stem}-blocks.npy").tolist()))
