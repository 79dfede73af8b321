"""Ratings that come after training: tables that grow, steps over the new ratings alone, by hand and by autograd."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mf_numpy
import mf_torch
from mf_numpy import Config, FitResult, IdMap, Ratings
from mf_numpy.batch import full_batch
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.gradients import gradient
from mf_numpy.partial import grow

FIRST = Config(n_factors=3, n_epochs=20, lr=5.0, reg=0.02, momentum=0.9, dtype="float64")


def table(rows: list[tuple[int, int, float]], users: list[int], items: list[int], **more: Any) -> Ratings:
    u, i, values = (np.array(column) for column in zip(*rows, strict=True))
    at = [np.array([ids.index(x) for x in given]) for ids, given in ((users, u), (items, i))]
    return Ratings(at[0], at[1], values, IdMap(np.array(users)), IdMap(np.array(items)), **more)


@pytest.fixture(scope="module")
def old(small: mf_numpy.Split) -> FitResult:
    return mf_numpy.fit(small.train, FIRST, backend="numpy")


@pytest.fixture(scope="module")
def more() -> Ratings:
    """Users 500 and 501 and item 900 are new; 501 rated the new item alone."""
    rows = [(3, 5, 4.0), (3, 900, 2.0), (500, 5, 5.0), (500, 7, 1.0), (500, 900, 4.0), (501, 900, 3.0), (3, 5, 1.0)]
    return table(rows, [500, 3, 501], [900, 7, 5])


def test_tables_grow_and_known_ids_keep_their_place(old: FitResult, more: Ratings) -> None:
    found = mf_numpy.partial_fit(old, more, n_epochs=0, backend="numpy")
    m, n, k = old.params.shape
    assert found.params.shape == (m + 2, n + 1, k)
    assert found.catalogue.user_ids.raw.tolist() == [*old.catalogue.user_ids.raw, 500, 501]
    assert found.catalogue.item_ids.raw.tolist() == [*old.catalogue.item_ids.raw, 900]
    np.testing.assert_array_equal(found.params.P[:m], old.params.P)
    assert found.params.mu == old.params.mu and found.catalogue.mean == old.catalogue.mean
    # A user by her ratings of known items, and an item by all of its ratings, hers among them.
    alone = replace(old, catalogue=found.catalogue, params=old.params)
    known = mf_numpy.fold_in.minimiser, mf_numpy.fold_in.price
    total = len(old.catalogue.seen.indices) + len(more)
    assert len(found.catalogue.seen.indices) == total and alone.catalogue is found.catalogue
    for table_, bias, tilde, of_other, row, at, values in (
        (found.params.P, found.params.b, old.params.Q, old.params.c, m, [5, 7], [5.0, 1.0]),
        (found.params.Q, found.params.c, found.params.P, found.params.b, n, [3, m, m + 1], [2.0, 4.0, 3.0]),
    ):
        assert bias is not None and of_other is not None
        others = np.column_stack([tilde[at], np.ones(len(at))])
        base = old.params.mu + of_other[at]
        wanted = known[0](others, np.array(values), base, known[1](total, len(at), FIRST), FIRST)
        np.testing.assert_allclose([*table_[row], bias[row]], wanted, rtol=1e-9)
    assert found.params.b is not None and found.params.b[m + 1] == 0 and abs(found.params.P[m + 1]).max() > 0
    seen = found.catalogue.seen
    assert sorted(seen.indices[seen.indptr[m] : seen.indptr[m + 1]].tolist()) == [5, 7, n]
    assert 900 not in set(found.recommend(500, n=100)["item"]) and 900 in set(found.recommend(4, n=100)["item"])


def test_a_step_is_one_of_the_new_ratings_alone(old: FitResult, more: Ratings) -> None:
    """Eq. 6 over them, from where the grown tables are, without a velocity from before."""
    for penalty in ("per_rating", "total"):
        config = replace(FIRST, penalty=penalty, reg=1e-3)
        grown, ratings = grow(replace(old, config=config), more)
        slope = gradient(grown.params, full_batch(ratings, config), config).gradient
        found = mf_numpy.partial_fit(replace(old, config=config), more, n_epochs=1, backend="numpy")
        for name, value in grown.params.tensors().items():
            np.testing.assert_allclose(found.params.tensors()[name], value - 5.0 * slope[name], rtol=1e-12, atol=1e-14)
        untouched = np.setdiff1d(np.arange(len(old.params.P)), ratings.users)
        same = (found.params.P[untouched] == old.params.P[untouched]).all()
        assert same == (penalty == "per_rating")
        assert found.state.epoch == old.state.epoch + 1 == found.history[-1].epoch


@pytest.mark.parametrize("changes", [{}, {"batch_size": 3}, {"momentum_form": "nesterov", "penalty": "total"}])
def test_by_hand_and_by_autograd(old: FitResult, more: Ratings, changes: Any) -> None:
    config = replace(FIRST, lr=0.1, reg=1e-3, **changes)
    by_hand = mf_numpy.partial_fit(old, more, n_epochs=12, config=config, backend="numpy")
    in_loops = mf_numpy.partial_fit(old, more, n_epochs=12, config=config, backend="loops")
    compiled = mf_numpy.partial_fit(old, more, n_epochs=12, config=config)
    by_autograd = mf_torch.partial_fit(old, more, n_epochs=12, config=config)
    for other in (in_loops, compiled, by_autograd):
        for name, value in by_hand.params.tensors().items():
            np.testing.assert_allclose(other.params.tensors()[name], value, rtol=1e-9, atol=1e-12)
        assert other.catalogue.user_ids == by_hand.catalogue.user_ids
    assert by_autograd.backend == "torch" and len(by_autograd.history) == len(old.history) + 12


def test_of_the_same_ratings_it_is_a_fit_that_goes_on(old: FitResult, small: mf_numpy.Split) -> None:
    found = mf_numpy.partial_fit(old, small.train, n_epochs=5, backend="numpy")
    begun = replace(old, state=replace(old.state, memory=None))
    wanted = mf_numpy.fit(small.train, replace(FIRST, n_epochs=25), resume=begun, backend="numpy")
    assert found.params.P.tobytes() == wanted.params.P.tobytes()
    assert [record.epoch for record in found.history] == list(range(1, 26)) and found.history[:20] == old.history
    # Though it has converged, it goes on with what is new.
    loose = replace(FIRST, tol=0.5)
    ended = mf_numpy.fit(small.train, loose, backend="numpy")
    again = mf_numpy.partial_fit(ended, small.train.take(np.arange(9)), n_epochs=2, backend="numpy")
    assert ended.status == "converged" and again.state.epoch == ended.state.epoch + 2


def test_single_rating_steps_learn_what_is_new(old: FitResult, more: Ratings, small: mf_numpy.Split) -> None:
    config = Config(n_factors=3, n_epochs=10, dtype="float64", solver="sgd")
    first = mf_numpy.fit(small.train, config, backend="loops")
    steps = replace(config, lr=0.05, lr_decay=1.0)
    found = mf_numpy.partial_fit(first, more, n_epochs=30, config=steps, backend="loops")
    error = [abs(one.predict([500, 500, 3], [5, 7, 900]).values - [5.0, 1.0, 2.0]).mean() for one in (first, found)]
    assert error[1] < 0.6 * error[0]
    untouched = np.setdiff1d(np.arange(small.train.n_users), [3])
    np.testing.assert_array_equal(found.params.P[untouched], first.params.P[untouched])


def test_titles_of_new_items(small: mf_numpy.Split) -> None:
    info = pd.DataFrame({"title": [f"film {k}" for k in range(60)]}, index=range(60))
    first = mf_numpy.fit(replace(small.train, item_info=info), FIRST, backend="numpy")
    news = pd.DataFrame({"title": ["the new one"]}, index=[900])
    for item_info, title in ((news, "the new one"), (None, "")):
        more = table([(3, 900, 5.0), (4, 901, 1.0)], [3, 4], [900, 901], item_info=item_info)
        found = mf_numpy.partial_fit(first, more, backend="numpy")
        assert found.catalogue.titles is not None and found.catalogue.titles[-2:].tolist() == [title, ""]
        assert found.catalogue.titles[5] == "film 5"


def test_a_saved_model_goes_on(old: FitResult, more: Ratings, tmp_path: Any) -> None:
    old.save(tmp_path / "model.safetensors")
    found = mf_numpy.partial_fit(mf_numpy.store.load(tmp_path / "model.safetensors"), more, backend="numpy")
    wanted = mf_numpy.partial_fit(old, more, backend="numpy")
    assert found.params.Q.tobytes() == wanted.params.Q.tobytes()
    found.save(tmp_path / "more.safetensors")
    assert mf_numpy.store.load(tmp_path / "more.safetensors").predict([500], [900]).n_unknown_users == 0


def test_what_cannot_go_on(old: FitResult, more: Ratings, small: mf_numpy.Split) -> None:
    with pytest.raises(ConfigError, match="solver is 'als', which would go to the minimum of the new ratings"):
        mf_numpy.partial_fit(old, more, config=Config(solver="als"))
    with pytest.raises(ConfigError, match="n_epochs is -1"):
        mf_numpy.partial_fit(old, more, n_epochs=-1)
    with pytest.raises(ConfigError, match="cannot resume: n_factors was 3 and is now 4"):
        mf_numpy.partial_fit(old, more, config=replace(FIRST, n_factors=4))
    with pytest.raises(DataError, match="there are no new ratings"):
        mf_numpy.partial_fit(old, more.take(np.array([], dtype=np.int64)))
    named = replace(more, user_ids=IdMap(np.array(["a", "b", "c"], dtype=object)))
    with pytest.raises(DataError, match="got strings, but these ids are integers"):
        mf_numpy.partial_fit(old, named)
    with_design = mf_numpy.fit(
        small.train, replace(FIRST, n_epochs=1), design=mf_numpy.Design.identity(small.train), backend="numpy"
    )  # fmt: skip
    with pytest.raises(DataError, match="the model has a design"):
        mf_numpy.partial_fit(with_design, more)
