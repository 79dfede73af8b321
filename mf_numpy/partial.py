"""Ratings that come after training: tables grow by the ids that are new, and steps go on over the new ratings alone.

What is minimised is J of the new ratings (J_B of Eq. 16, B being these): the mean of their losses, and a penalty with
their counts. With ``per_rating`` a row that none of them is of has no weight, and stays as it is, bit for bit; with
``total`` every row is pulled a little at every step. μ stays what it was. The steps begin without a velocity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mf_numpy import model
from mf_numpy.config import RANKING, Config
from mf_numpy.engine import State
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.fold_in import minimiser, price
from mf_numpy.model import Params
from mf_numpy.ratings import Array, IdMap, Ratings, compress
from mf_numpy.result import Catalogue, FitResult
from mf_numpy.train import fit

SOLVERS = ("gd", "sgd")
"""Those that take steps; the others would go to the minimum of the new ratings alone, and forget the old ones."""


def partial_fit(
    result: FitResult,
    more: Ratings,
    *,
    n_epochs: int = 10,
    config: Config | None = None,
    train_with: Callable[..., FitResult] = fit,
    **how: Any,
) -> FitResult:
    """Go on with a model over ratings that it has not seen, of users and items that it may not know.

    Known ids keep their index, and new ones follow in the order of their id maps. A new row begins at its half-step
    (Eq. 37) among the rows that are there, new users before new items, or where it has no rating with any, as rows
    are drawn (Eq. 25).

    Args:
        more: the new ratings; a pair that the model knows counts once more.
        n_epochs: passes over them; with 0 the tables grow, and nothing else moves.
        config: what else is to be different; model, n_factors, dtype, solver and step_rule may not be.
        train_with: `mf_numpy.fit` or `mf_torch.fit`, which get `how`.

    Returns:
        A result whose history goes on, and which has seen the old ratings and the new.

    Raises:
        ConfigError: a solver other than ``gd`` and ``sgd``, a loss that ranks, ``ordinal`` by ``sgd``, a negative
            number of epochs, or a setting that must stay.
        DataError: no ratings, ids of another type, or a model with a design.
    """
    config = config or result.config
    if config.solver not in SOLVERS:
        raise ConfigError(
            f"solver is {config.solver!r}, which would go to the minimum of the new ratings and forget the old ones; "
            "train with 'gd' or 'sgd', or fit all ratings again"
        )
    if config.loss in RANKING:
        raise ConfigError(f"loss is {config.loss!r}, of which new choices say nothing alone; fit all of them again")
    if config.loss == "ordinal" and config.solver == "sgd":
        raise ConfigError(
            "loss is 'ordinal' with solver 'sgd', whose cut points would go to the minimum of the new ratings and "
            "forget the old ones; train with 'gd', or fit all ratings again"
        )
    if n_epochs < 0:
        raise ConfigError(f"n_epochs is {n_epochs}, but must be 0 or more")
    if not len(more):
        raise DataError("there are no new ratings; give at least one")
    grown, ratings = grow(result, more)
    asked = replace(config, n_epochs=grown.state.epoch + n_epochs)
    # A fit that has converged would not go on from its own history.
    found = train_with(ratings, asked, resume=replace(grown, history=()), **how)
    return replace(found, catalogue=grown.catalogue, history=result.history + found.history)


def grow(result: FitResult, more: Ratings) -> tuple[FitResult, Ratings]:
    """The model with a row for every id of new ratings, and these ratings by its ids.

    Raises:
        DataError: ids of another type, or a model with a design.
    """
    if result.design is not None:
        raise DataError("the model has a design, whose rows are made of features; fit again with one of all rows")
    old = result.catalogue
    users, items = _grown(old.user_ids, more.user_ids), _grown(old.item_ids, more.item_ids)
    ratings = replace(
        more, users=users.encode(more.user_ids.raw)[more.users], items=items.encode(more.item_ids.raw)[more.items],
        user_ids=users, item_ids=items,
    )  # fmt: skip
    catalogue = _seen_too(old, ratings, more)
    params = _begun(result, ratings, len(catalogue.seen.indices))
    state = State(params, epoch=result.state.epoch)
    return replace(result, params=params, catalogue=catalogue, state=state), ratings


def _grown(known: IdMap, more: IdMap) -> IdMap:
    fresh = more.raw[known.encode(more.raw) < 0]
    return IdMap(np.concatenate([known.raw, fresh])) if len(fresh) else known


def _seen_too(old: Catalogue, ratings: Ratings, more: Ratings) -> Catalogue:
    """The catalogue of the old ratings and the new."""
    rows = np.repeat(np.arange(len(old.user_ids), dtype=np.int32), np.diff(old.seen.indptr))
    seen = compress(
        np.concatenate([rows, ratings.users]), np.concatenate([old.seen.indices, ratings.items]), ratings.n_users
    )
    titles = old.titles
    fresh = ratings.item_ids.raw[len(old.item_ids) :]
    if titles is not None and len(fresh):
        info = more.item_info
        named = np.full(len(fresh), "", dtype=object)
        if info is not None and "title" in info:
            named = info["title"].reindex(pd.Index(fresh)).fillna("").to_numpy(dtype=object)
        titles = np.concatenate([titles, named])
    # Sorted by user: nobody has the old ratings' own order any more.
    return replace(
        old, user_ids=ratings.user_ids, item_ids=ratings.item_ids, titles=titles, seen=replace(seen, order=None)
    )


def _begun(result: FitResult, ratings: Ratings, n_ratings: int) -> Params:
    """The parameters with rows for the new ids, each where it begins."""
    params, config = result.params, result.config
    (m, n, _), rng = params.shape, np.random.default_rng([config.seed, result.state.epoch])
    tensors = {}
    for name, value in params.tensors().items():
        if name == "t":
            tensors[name] = value.copy()
            continue
        size = (ratings.n_users if name in ("P", "b") else ratings.n_items) - len(value)
        fresh = model.draw(rng, (size, value.shape[1]), config, params.mu) if value.ndim == 2 else np.zeros(size)
        tensors[name] = np.concatenate([value, fresh.astype(value.dtype)])
    grown = params.with_tensors(tensors)
    # An item that is new, too, has no row yet that a user could be placed by.
    for which, first, view in (("user", m, ratings.csr), ("item", n, ratings.csc)):
        values = view.arranged(ratings.values)
        for row in range(first, len(view.indptr) - 1):
            own = slice(view.indptr[row], view.indptr[row + 1])
            there = view.indices[own] < n if which == "user" else slice(None)
            _place(grown, which == "user", row, view.indices[own][there], values[own][there], n_ratings, config)
    return grown


def _place(
    params: Params, is_user: bool, row: int, others: Array, values: Array, n_ratings: int, config: Config
) -> None:  # fmt: skip
    """Put a row at its half-step among the others (Eq. 37), in place, if it has ratings with any."""
    if not len(others):
        return
    (mine, own), (theirs, bias) = (params.P, params.b), (params.Q, params.c)
    if not is_user:
        mine, own, theirs, bias = theirs, bias, mine, own
    tilde, base = theirs[others].astype(np.float64), np.full(len(others), params.mu)
    if bias is not None:
        tilde, base = np.column_stack([tilde, np.ones(len(others))]), base + bias[others]
    found = minimiser(tilde, values, base, price(n_ratings, len(others), config), config, cuts=params.cuts)
    mine[row] = found[: mine.shape[1]]
    if own is not None:
        own[row] = found[-1]
