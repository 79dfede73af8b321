"""Single steps where users and items are features: fits from end to end, order, threads of the kernel, refusals."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mf_numpy
import mf_torch
from bench import accuracy_worker, designs, worker
from bench.protocols import find
from bench.systems import System
from mf_numpy import Config, Ratings, hold_out, random_split
from mf_numpy.design_sgd_checks import after_epochs, problems
from mf_numpy.designed import design_engine
from mf_numpy.errors import ConfigError
from mf_numpy.features import Features, design_of
from mf_numpy.planted import PlantedConfig, planted
from mf_numpy.solvers.design_sgd import DesignSgdEngine
from mf_numpy.store import load
from tests.same_fits import assert_same_way

STEPS = Config(solver="sgd", n_factors=3, n_epochs=12, lr=0.02, reg=0.03, dtype="float64")


@pytest.fixture(scope="module")
def split() -> mf_numpy.Split:
    truth = planted(PlantedConfig(n_users=120, n_items=90, n_ratings=4_000, n_factors=2))
    return random_split(truth.ratings, valid=0.2, seed=0)


@pytest.mark.parametrize("kernels", ["vectors", "loops"])
def test_either_form_of_the_kernel_goes_the_way_of_the_loops(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MF_KERNELS", kernels)
    for label, ratings, theta, design, config in problems(lr=0.002):
        mine, gold = (after_epochs(backend, ratings, theta, design, config) for backend in ("numba", "loops"))
        for name, value in gold.tensors().items():
            np.testing.assert_allclose(mine.tensors()[name], value, rtol=1e-10, atol=1e-13, err_msg=f"{label}, {name}")


def test_single_precision_goes_the_same_way(split: mf_numpy.Split) -> None:
    design = design_of(split.train, users=Features().id().rated())
    config = replace(STEPS, n_epochs=3)
    double = mf_numpy.fit(split.train, config, design=design)
    single = mf_numpy.fit(split.train, replace(config, dtype="float32"), design=design)
    assert single.params.P.dtype == np.float32
    np.testing.assert_allclose(single.params.P, double.params.P, atol=2e-5)
    assert single.history[-1].objective == pytest.approx(double.history[-1].objective, rel=1e-5)


def test_ids_alone_get_as_far_as_steps_without_a_design(split: mf_numpy.Split) -> None:
    # The ratings come in another order, so that the ways differ.
    config = replace(STEPS, n_epochs=30)
    plain = mf_numpy.fit(split.train, config, valid=split.valid)
    by_ids = mf_numpy.fit(split.train, config, valid=split.valid, design=design_of(split.train))
    assert by_ids.score(split.valid).rmse == pytest.approx(plain.score(split.valid).rmse, rel=0.02)
    assert by_ids.history[-1].objective == pytest.approx(plain.history[-1].objective, rel=0.02)


def test_a_resumed_fit_goes_on_bit_for_bit(split: mf_numpy.Split, tmp_path: Path) -> None:
    design = design_of(split.train, users=Features().id().rated())
    straight = mf_numpy.fit(split.train, STEPS, design=design)
    half = mf_numpy.fit(split.train, replace(STEPS, n_epochs=5), design=design)
    half.save(tmp_path / "half.safetensors")
    back = load(tmp_path / "half.safetensors")
    rest = mf_numpy.fit(split.train, STEPS, design=back.design, resume=back)
    assert straight.of_features is not None and rest.of_features is not None
    for name, value in straight.of_features.tensors().items():
        assert value.tobytes() == rest.of_features.tensors()[name].tobytes()
    assert straight.history[-1].objective == rest.history[-1].objective


def test_single_steps_by_autograd_are_the_same_fit_and_either_goes_on_with_the_other() -> None:
    few = random_split(planted(PlantedConfig(n_users=20, n_items=15, n_ratings=200, n_factors=2)).ratings, valid=0.2)
    design, config = design_of(few.train, users=Features().id().rated()), replace(STEPS, n_epochs=2, lr_decay=0.9)
    one, two = (fit(few.train, config, valid=few.valid, design=design) for fit in (mf_numpy.fit, mf_torch.fit))
    assert two.backend == "torch" and two.details["path"] == "autograd"
    assert_same_way([two], one)
    assert two.history[-1].valid_rmse == pytest.approx(one.history[-1].valid_rmse, rel=1e-10)
    more = replace(config, n_epochs=3)
    by_hand = mf_numpy.fit(few.train, more, design=design, resume=two)
    by_autograd = mf_torch.fit(few.train, more, design=design, resume=one)
    assert_same_way([by_autograd], by_hand)
    single = replace(config, dtype="float32")
    mine, gold = (fit(few.train, single, design=design) for fit in (mf_torch.fit, mf_numpy.fit))
    assert mine.params.P.dtype == np.float32
    np.testing.assert_allclose(mine.params.P, gold.params.P, atol=1e-6)


def test_an_epoch_meets_every_rating_once_and_the_longer_rows_are_met_row_by_row(split: mf_numpy.Split) -> None:
    train, rated = split.train, Features().id().rated()
    for by_user, design in ((True, design_of(train, users=rated)), (False, design_of(train, items=rated))):
        walk = design_engine(design, STEPS).load(train, STEPS)
        assert walk.by_user is by_user
        first, second = (list(walk.sequence(epoch, STEPS)) for epoch in (1, 2))
        assert first != second
        expected = sorted(zip(train.users.tolist(), train.items.tolist(), train.values.tolist(), strict=True))
        assert sorted(first) == sorted(second) == expected
        turns = [pair[0 if by_user else 1] for pair in first]
        assert 1 + sum(a != b for a, b in pairwise(turns)) == len(set(turns))


def test_rows_and_features_that_no_rating_meets_stay_as_they_began() -> None:
    ratings = Ratings.of_indices([0, 0, 1], [0, 1, 1], [3.0, 4.0, 5.0], m=4, n=3)
    design = design_of(ratings, users=Features().id().rated())
    first = DesignSgdEngine(design, "numba", STEPS).first(ratings, STEPS).params
    found = mf_numpy.fit(ratings, STEPS, design=design).of_features
    assert found is not None
    met = np.any(found.P != first.P, axis=1)
    assert met.tolist() == [True, True, False, False, True, True, False]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"penalty": "total"}, "penalty is 'total' with solver 'sgd' and a design; use 'per_rating', or solver='gd'"),
        ({"momentum": 0.5}, "momentum is 0.5 with solver 'sgd' and a design"),
        ({"step_rule": "adagrad"}, "step_rule is 'adagrad' with solver 'sgd' and a design"),
    ],
)
def test_settings_that_a_walk_cannot_have_are_refused(split: mf_numpy.Split, given: dict[str, Any], said: str) -> None:
    design = design_of(split.train)
    with pytest.raises(ConfigError, match=said):
        mf_numpy.fit(split.train, Config(solver="sgd", **given), design=design)
    with pytest.raises(ConfigError, match=said):
        mf_torch.fit(split.train, Config(solver="sgd", **given), design=design)
    with pytest.raises(ConfigError, match="path is 'fused' with a design"):
        mf_torch.fit(split.train, STEPS, design=design, path="fused")
    with pytest.raises(ConfigError, match="which mf_torch does not have without a design"):
        mf_torch.fit(split.train, STEPS)
    with pytest.raises(ConfigError, match="backend is 'numpy' with solver 'sgd', which runs on 'numba' or 'loops'"):
        mf_numpy.fit(split.train, STEPS, design=design, backend="numpy")


def test_a_system_of_the_comparison_is_fitted_with_its_design(tmp_path: Path) -> None:
    data = find("planted-small").fold(0).split
    system = System("features", ({"n_factors": 3},), (2, 4), solver="sgd", design="svd++")
    worker.save_data(tmp_path / "data.npz", data.train, data.valid)
    designs.save(tmp_path, "data svd++", designs.DESIGNS[system.design](data.train))
    order = {
        "config": system.config({"n_factors": 3}).to_dict(), "backend": "numba", "epochs": [2, 4], "scale": None,
        "data": "data.npz", "design": "data svd++",
    }  # fmt: skip
    out, predictions = accuracy_worker.run_case(order, tmp_path)
    design = designs.DESIGNS["svd++"](data.train)
    gold = mf_numpy.fit(data.train, system.config({"n_factors": 3}), design=design)
    known = data.valid.known
    expected = mf_numpy.kernels.predict(gold.params, data.valid.users[known], data.valid.items[known])
    np.testing.assert_allclose(predictions["4"], expected, rtol=1e-6)
    assert [point["epochs"] for point in out["points"]] == [2, 4]


def test_a_design_of_a_time_comes_with_ratings_and_held_out_pairs_of_that_time(tmp_path: Path) -> None:
    facts = pd.DataFrame({"genres": ["Drama", "Drama, War", ""]}, index=[0, 1, 2])
    ratings = Ratings.of_indices([0, 0, 1, 1], [0, 1, 2, 0], [1.0, 2.0, 3.0, 4.0])
    dated = replace(ratings, item_info=facts, timestamps=np.array([0, 1, 0, 3]) * 86_400)
    pairs = hold_out(dated, dated.take(np.array([1])))
    made = designs.make("svd++, genres, time", pairs.train, pairs.valid)
    assert made.train.shape == (4, 3) and made.valid is not None and made.valid.users.tolist() == [1]
    designs.save(tmp_path, "case", made.design)
    back = designs.read(tmp_path, "case")
    for side in ("users", "items"):
        assert abs(getattr(back, side).matrix - getattr(made.design, side).matrix).nnz == 0
    still = designs.make("svd++", ratings, pairs.valid)
    assert still.train is ratings and still.valid is pairs.valid and still.design.shape == (2, 3)
    with pytest.raises(ConfigError, match=r"design is 'svd\+', .* Did you mean 'svd\+\+'\?"):
        designs.make("svd+", ratings)
