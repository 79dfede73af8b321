"""Users and items made of features: fits from end to end, in both packages; the builder; what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import mf_numpy
import mf_torch
from mf_numpy import Config, Ratings, random_split
from mf_numpy import design as by_hand
from mf_numpy.batch import full_batch
from mf_numpy.design import Design, Side
from mf_numpy.errors import ConfigError, DataError, FileFormatError
from mf_numpy.features import Features, design_of
from mf_numpy.kernels.design import Product
from mf_numpy.planted import PlantedConfig, planted
from mf_numpy.store import load
from tests.test_store import rewrite


@pytest.fixture(scope="module")
def split() -> mf_numpy.Split:
    truth = planted(PlantedConfig(n_users=120, n_items=90, n_ratings=4_000, n_factors=2))
    return random_split(truth.ratings, valid=0.2, seed=0)


FEW = Config(n_factors=2, n_epochs=60, lr=20.0, momentum=0.9, reg=0.05, dtype="float64")


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_ids_alone_are_the_model_without_features(split: mf_numpy.Split, backend: Any) -> None:
    plain = mf_numpy.fit(split.train, FEW, valid=split.valid, backend=backend)
    by_ids = mf_numpy.fit(split.train, FEW, valid=split.valid, backend=backend, design=Design.identity(split.train))
    assert by_ids.of_features is not None and by_ids.design is not None and plain.design is None
    for name, value in plain.params.tensors().items():
        np.testing.assert_allclose(by_ids.params.tensors()[name], value, rtol=1e-9, atol=1e-12)
    assert by_ids.history[-1].valid_rmse == pytest.approx(plain.history[-1].valid_rmse, rel=1e-9)
    assert by_ids.score(split.valid).rmse == pytest.approx(plain.score(split.valid).rmse, rel=1e-9)


def test_both_packages_go_the_same_way(split: mf_numpy.Split) -> None:
    design = design_of(split.train, users=Features().id().rated())
    for config in (FEW, replace(FEW, batch_size=700, n_epochs=3, lr=2.0)):
        mine = mf_numpy.fit(split.train, config, valid=split.valid, design=design)
        theirs = mf_torch.fit(split.train, config, valid=split.valid, design=design)
        assert mine.of_features is not None and theirs.of_features is not None
        for name, value in mine.of_features.tensors().items():
            np.testing.assert_allclose(theirs.of_features.tensors()[name], value, rtol=1e-8, atol=1e-11)
        assert theirs.history[-1].valid_rmse == pytest.approx(mine.history[-1].valid_rmse, rel=1e-9)
        np.testing.assert_allclose(mine.params.P, design.users.matrix @ mine.of_features.P, rtol=1e-12)


def test_lbfgs_ends_where_the_gradient_of_the_features_is_zero(split: mf_numpy.Split) -> None:
    design = design_of(split.train, users=Features().id().rated())
    config = Config(solver="lbfgs", n_factors=2, reg=0.05, dtype="float64", n_epochs=500)
    batch = full_batch(split.train, config)
    found = [mf_numpy.fit(split.train, config, design=design, backend=backend) for backend in ("numba", "numpy")]
    for one in found:
        assert one.of_features is not None
        slope = by_hand.gradient(one.of_features, batch, design, config).gradient
        assert max(float(abs(g).max()) for g in slope.values()) < 1e-5
    assert found[0].history[-1].objective == pytest.approx(found[1].history[-1].objective, rel=1e-6)


def test_patience_keeps_the_best_features_and_a_resumed_fit_goes_on(split: mf_numpy.Split) -> None:
    design = design_of(split.train, users=Features().id().rated())
    patient = replace(FEW, n_epochs=400, reg=0.0, lr=40.0, patience=10)
    found = mf_numpy.fit(split.train, patient, valid=split.valid, design=design)
    assert found.status == "stopped" and found.of_features is not None
    best = min(record.valid_rmse or np.inf for record in found.history)
    assert found.score(split.valid).rmse == pytest.approx(best, rel=1e-12)
    np.testing.assert_allclose(found.params.P, by_hand.rows(found.of_features, design).P)
    straight = mf_numpy.fit(split.train, FEW, design=design)
    half = mf_numpy.fit(split.train, replace(FEW, n_epochs=30), design=design)
    rest = mf_numpy.fit(split.train, FEW, design=design, resume=half)
    assert straight.of_features is not None and rest.of_features is not None
    assert straight.of_features.P.tobytes() == rest.of_features.P.tobytes()
    with pytest.raises(ConfigError, match="the model has one for a design, and now there is none"):
        mf_numpy.fit(split.train, FEW, resume=half)
    with pytest.raises(ConfigError, match="the design is another one than the model's"):
        mf_numpy.fit(split.train, FEW, resume=half, design=Design.identity(split.train))


def test_a_file_holds_all_that_a_fit_with_a_design_goes_on_with(split: mf_numpy.Split, tmp_path: Path) -> None:
    design = design_of(split.train, users=Features().id().rated())
    straight = mf_numpy.fit(split.train, FEW, design=design)
    half = mf_numpy.fit(split.train, replace(FEW, n_epochs=30), design=design)
    half.save(tmp_path / "half.safetensors")
    back = load(tmp_path / "half.safetensors")
    assert back.design is not None and back.design.same_as(design) and back.of_features is not None
    assert back.design.users.names[-1] == f"rated={split.train.item_ids.raw[-1]}"
    rest = mf_numpy.fit(split.train, FEW, design=back.design, resume=back)
    assert straight.of_features is not None and rest.of_features is not None
    assert straight.of_features.P.tobytes() == rest.of_features.P.tobytes()
    # Whoever knows of no features predicts all the same.
    users, items = torch.arange(3), torch.arange(3)
    expected = half.predict([0, 1, 2], [0, 1, 2]).values
    np.testing.assert_allclose(mf_torch.load(tmp_path / "half.safetensors")(users, items).detach().numpy(), expected)
    header = (tmp_path / "half.safetensors").read_bytes()
    assert b'"version":"2"' in header.replace(b" ", b"")
    changed: dict[str, Any] = {"design.users.indices": np.full_like(design.users.matrix.indices, 10**6, dtype=np.int64)}
    rewrite(tmp_path / "half.safetensors", **changed)
    with pytest.raises(FileFormatError, match=r"'design\.users\.indices' goes outside 0\.\.209"):
        load(tmp_path / "half.safetensors")
    changed = {"features.P": None}
    rewrite(tmp_path / "half.safetensors", **changed)
    with pytest.raises(FileFormatError, match="is damaged"):
        load(tmp_path / "half.safetensors")


def test_bits_do_not_depend_on_threads(split: mf_numpy.Split) -> None:
    import numba

    design = design_of(split.train, users=Features().rated(), items=Features().id().rated())
    config = replace(FEW, dtype="float32", n_factors=5)
    before = numba.get_num_threads()
    found = []
    try:
        for threads in (1, min(2, before)):
            numba.set_num_threads(threads)
            found.append(mf_numpy.fit(split.train, config, design=design).params.P.tobytes())
    finally:
        numba.set_num_threads(before)
    assert found[0] == found[1]


def test_chunks_hold_every_row_once_and_about_as_many_numbers() -> None:
    counts = np.array([5000, *[1] * 300, 0, 0, 4000, *[20] * 100])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    matrix = sp.csr_array((np.ones(indptr[-1]), np.zeros(indptr[-1], int), indptr), shape=(len(counts), 1))
    bounds = Product.of(matrix, np.float32).bounds
    assert bounds[0] == 0 and bounds[-1] == len(counts) and (np.diff(bounds) >= 0).all()
    sizes = np.add.reduceat(counts, bounds[:-1][np.diff(bounds) > 0])
    assert np.sort(sizes)[-3] < 2 * counts.sum() / len(sizes)
    assert Product.of(sp.csr_array((3, 2)), np.float32).bounds[-1] == 3


ITEMS = pd.DataFrame(
    {
        "genres": ["Drama, War", "Drama", "", None, "Comedy,Drama , War"],
        "type": ["TV", "Movie", "TV", None, "Movie"],
        "year": [1990.0, 2000.0, np.nan, 2010.0, 2020.0],
    },
    index=pd.Index([10, 20, 30, 40, 50]),
)


@pytest.fixture
def rated() -> Ratings:
    """Users 1 to 3 with items 10 to 50; one pair twice, and item 40 has no line of facts."""
    users, items = np.array([1, 1, 1, 2, 3, 3, 2]), np.array([10, 20, 10, 30, 50, 40, 50])
    return Ratings(
        np.searchsorted([1, 2, 3], users), np.searchsorted([10, 20, 30, 40, 50], items), np.arange(7.0),
        mf_numpy.IdMap(np.array([1, 2, 3])), mf_numpy.IdMap(np.array([10, 20, 30, 40, 50])),
        item_info=ITEMS.drop(40),
    )  # fmt: skip


@pytest.mark.parametrize("n_features", [1 << 16, (1 << 16) + 3])
@pytest.mark.parametrize("n_factors", [3, 70])
def test_a_product_with_many_features_and_rows_of_any_length(n_features: int, n_factors: int) -> None:
    rng = np.random.default_rng(0)
    # The last feature is the one whose place takes most bits.
    places = [rng.choice(n_features - 1, size, replace=False) for size in (0, 1, 2, 3, 8, 9)]
    rows = np.repeat(np.arange(6), [len(at) + 1 for at in places])
    at = np.concatenate([[*one, n_features - 1] for one in places]).astype(np.int64)
    matrix = sp.csr_array((rng.normal(size=len(at)), (rows, at)), shape=(6, n_features))
    table, bias = rng.normal(size=(n_features, n_factors)), rng.normal(size=n_features)
    out, out_bias = np.empty((6, n_factors)), np.empty(6)
    Product.of(matrix, np.float64).times(table, bias, out, out_bias)
    np.testing.assert_allclose(out, matrix.toarray() @ table, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(out_bias, matrix.toarray() @ bias, rtol=1e-12, atol=1e-12)


def test_blocks_stand_side_by_side(rated: Ratings) -> None:
    pytest.importorskip("sklearn")
    features = Features().id(weight=2.0).tags("genres").category("type").bins("year", 2).number("year").rated()
    described = features.fit(rated, "items")
    assert described.names == (
        "id=10", "id=20", "id=30", "id=40", "id=50", "genres=Comedy", "genres=Drama", "genres=War", "type=Movie",
        "type=TV", "year 1990 to 2000", "year 2000 to 2020", "year", "rated=1", "rated=2", "rated=3",
    )  # fmt: skip
    half, third = 2**-0.5, 3**-0.5
    years = (np.array([1990, 2000, 2020]) - 2003.3333333333333) / np.std([1990, 2000, 2020])
    expected = np.array(
        [
            [2, 0, 0, 0, 0, 0, half, half, 0, 1, 1, 0, years[0], 1, 0, 0],
            [0, 2, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1, years[1], 1, 0, 0],
            [0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
            [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            [0, 0, 0, 0, 2, third, third, third, 1, 0, 0, 1, years[2], 0, half, half],
        ]
    )
    np.testing.assert_allclose(described.side.matrix.toarray(), expected)


def test_rows_that_come_later_have_what_training_has_seen(rated: Ratings) -> None:
    pytest.importorskip("sklearn")
    described = Features().id().tags("genres").rated().fit(rated, "items")
    later = pd.DataFrame({"genres": ["War, Western", "Drama"]}, index=pd.Index([99, 20]))
    pattern = sp.csr_array(np.array([[1, 0, 1], [0, 0, 0]]))
    found = described.rows(later, pattern).toarray()
    half = float(2**-0.5)
    expected = np.array([[0, 0, 0, 0, 0, 0, 0, 1, half, 0, half], [0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0]])
    np.testing.assert_allclose(found, expected)
    assert described.rows(later).toarray()[0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    with pytest.raises(DataError, match="rated has 3 rows, but the table has 2"):
        described.rows(later, sp.csr_array((3, 3)))
    with pytest.raises(DataError, match="rated has 2 columns, but training had 3"):
        described.rows(later, sp.csr_array((2, 2)))


def test_what_cannot_be_described_is_refused(rated: Ratings) -> None:
    with pytest.raises(ConfigError, match=r"column 'genre', but .* has genres, type, year. Did you mean 'genres'\?"):
        Features().tags("genre").fit(rated, "items")
    with pytest.raises(ConfigError, match="no block was named for the users"):
        Features().fit(rated, "users")
    with pytest.raises(ConfigError, match="tags 'genres' came twice"):
        Features().tags("genres").tags("genres")
    with pytest.raises(ConfigError, match="weight is 0"):
        Features().id(weight=0.0)
    with pytest.raises(ConfigError, match="n is 1 bins"):
        Features().bins("year", 1)
    with pytest.raises(ConfigError, match="separator is ''"):
        Features().tags("genres", separator="")
    with pytest.raises(DataError, match="'TV', which is no number"):
        Features().number("type").fit(rated, "items")
    with pytest.raises(DataError, match="id 1 appears twice"):
        Features().category("a").fit(rated, "users", pd.DataFrame({"a": [1, 2]}, index=[1, 1]))
    with pytest.raises(DataError, match="is empty for every row"):
        Features().category("a").fit(rated, "users", pd.DataFrame({"a": [1, 2]}, index=[8, 9]))


def test_designs_that_do_not_fit_are_refused(rated: Ratings) -> None:
    design = Design.identity(rated)
    with pytest.raises(DataError, match="describes 3 users and 5 items, but the training ratings have 2 and 5"):
        mf_numpy.fit(Ratings.of_indices([0, 1], [0, 4], [1.0, 2.0]), FEW, design=design)
    with pytest.raises(ConfigError, match=r"solver is 'als' with a design; .* or take 'gd', 'sgd', 'lbfgs' or 'gibbs'"):
        mf_numpy.fit(rated, Config(solver="als"), design=design)
    with pytest.raises(ConfigError, match="init is 'mean', but with a design"):
        mf_numpy.fit(rated, Config(model="plain", init="mean"), design=design)
    with pytest.raises(ConfigError, match="path is 'fused' with a design"):
        mf_torch.fit(rated, FEW, design=design, path="fused")
    with pytest.raises(ConfigError, match="a design came with graph"):
        mf_torch.fit(rated, FEW, design=design, graph=True)
    with pytest.raises(DataError, match="not finite"):
        Side(sp.csr_array(np.array([[np.nan]])))
    with pytest.raises(DataError, match="2 names came for 1 features"):
        Side(sp.csr_array(np.ones((1, 1))), ("a", "b"))


@pytest.mark.parametrize("loss", ["squared", "pseudo_huber"])
@pytest.mark.parametrize("model", ["plain", "biased"])
def test_a_newcomer_is_where_training_would_have_put_her(split: mf_numpy.Split, loss: Any, model: Any) -> None:
    config = Config(model=model, loss=loss, solver="lbfgs", n_factors=2, reg=0.05, dtype="float64", n_epochs=200)
    found = mf_numpy.fit(split.train, config)
    # At the minimum of J each row is at its own.
    user = int(np.argmax(split.train.user_counts))
    own = split.train.users == user
    newcomer = found.fold_in_user(pd.Series(split.train.values[own], index=split.train.items[own]))
    np.testing.assert_allclose(newcomer.factors, found.params.P[user], rtol=1e-3, atol=1e-4)
    expected = found.predict([user] * 5, range(5)).values
    np.testing.assert_allclose(newcomer.predict(range(5)), expected, atol=1e-3)


def test_a_newcomer_without_ratings_gets_what_is_known(split: mf_numpy.Split) -> None:
    plain = mf_numpy.fit(split.train, FEW)
    assert plain.params.c is not None
    nobody = plain.fold_in_user({})
    np.testing.assert_allclose(nobody.predict(range(4)), plain.params.mu + plain.params.c[:4])
    assert nobody.predict([10**6])[0] == plain.params.mu
    assert nobody.recommend(3)["item"].tolist() == np.argsort(-plain.params.c, kind="stable")[:3].tolist()
    best = plain.fold_in_user({int(nobody.recommend(1)["item"][1]): 1.0}).recommend(500)
    assert len(best) == split.train.n_items - 1 and nobody.recommend(1)["item"][1] not in set(best["item"])
    item = plain.fold_in_item({3: 4.0, 5: 2.0})
    assert list(item.recommend(2).columns) == ["user", "predicted"] and np.isfinite(item.predict([3, 10**6])).all()


def test_a_newcomer_with_features_starts_from_them(split: mf_numpy.Split) -> None:
    rated = Features().rated().fit(split.train, "users")
    design = Design(rated.side, Side.identity(split.train.n_items))
    found = mf_numpy.fit(split.train, FEW, design=design)
    pattern = sp.csr_array((split.train.to_scipy()[[7]].toarray() != 0).astype(np.float64))
    features = rated.rows(pd.DataFrame(index=["new"]), pattern)
    np.testing.assert_allclose(found.fold_in_user({}, features).factors, found.params.P[7], rtol=1e-12)
    moved = found.fold_in_user({0: 5.0}, features)
    assert abs(moved.predict([0])[0] - 5.0) < abs(found.fold_in_user({}, features).predict([0])[0] - 5.0)
    with pytest.raises(DataError, match="users are made of 90 features, but none came"):
        found.fold_in_user({})
    with pytest.raises(DataError, match="features came, but the model has no design"):
        mf_numpy.fit(split.train, replace(FEW, n_epochs=1)).fold_in_user({}, features)


def test_a_newcomers_ratings_must_be_of_known_items(split: mf_numpy.Split) -> None:
    found = mf_numpy.fit(split.train, replace(FEW, n_epochs=1))
    with pytest.raises(DataError, match="item 1000000 was not in the training set"):
        found.fold_in_user({10**6: 3.0})
    with pytest.raises(DataError, match="user 999999 was not in the training set"):
        found.fold_in_item({999999: 3.0})
    with pytest.raises(DataError, match="the rating of 3 is nan"):
        found.fold_in_user({3: float("nan")})
    with pytest.raises(ValueError, match="n is 0"):
        found.fold_in_user({}).recommend(0)


@pytest.mark.parametrize("penalty", ["total", "per_rating"])
def test_what_ratings_add_is_all_that_they_changed(split: mf_numpy.Split, penalty: Any) -> None:
    config = replace(FEW, penalty=penalty, reg=0.05 if penalty == "per_rating" else 1e-4)
    found = mf_numpy.fit(split.train, config)
    newcomer = found.fold_in_user({0: 9.0, 7: 1.0, 30: 4.0})
    before = found.fold_in_user({}).predict(range(60))
    for item in (0, 5, 59):
        parts = newcomer.why(item)
        assert sorted(parts["item"]) == [0, 7, 30] and (np.diff(np.abs(parts["part"])) <= 0).all()
        assert parts["part"].sum() == pytest.approx(newcomer.predict([item])[0] - before[item], abs=1e-9)
    assert list(found.fold_in_item({3: 4.0}).why(5).columns) == ["user", "part"]
    with pytest.raises(DataError, match="was not in the training set"):
        newcomer.why(10**6)
    huber = mf_numpy.fit(split.train, replace(config, loss="pseudo_huber", n_epochs=1))
    with pytest.raises(DataError, match="with the squared loss alone"):
        huber.fold_in_user({0: 9.0}).why(3)
