"""The ladder on tiny ratings: every rung's gradient is right before it is timed, and a wrong one fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from bench import committed, cost, engines, machine, quality, result, roofline, rungs, suite
from mf_numpy import Config, Ratings, loops, model
from mf_numpy.batch import Batch, full_batch
from mf_numpy.check import GRADIENT_TOLERANCE, cases, relative_difference
from mf_numpy.engine import State
from mf_numpy.errors import ConfigError, DataError, FileFormatError
from mf_numpy.planted import PlantedConfig
from mf_numpy.train import run
from tests.bench_fixtures import in_process, quiet_machine

Json = dict[str, Any]
TINY = PlantedConfig(n_users=60, n_items=40, n_ratings=1_800, n_factors=1, min_ratings=3)
REST: Json = {"lines": {}, "quality": {}}


@pytest.fixture(autouse=True, scope="module")
def idle() -> Iterator[None]:
    with quiet_machine() as patch:
        patch.setattr(machine, "usable_cores", lambda: 2)
        patch.setattr(rungs, "FACTORS", (2,))
        patch.setattr(rungs, "SLICE_RATINGS", 600)
        yield


def measured(launch: Any = in_process, rounds: int = 2, epochs: int = 3) -> Json:
    return rungs.run_rungs(rounds=rounds, epochs=epochs, only=("rows",), drawn=TINY, before=REST, launch=launch)


@pytest.fixture(scope="module")
def finished(idle: None) -> Json:
    return measured()


def test_every_rung_is_right_and_timed(finished: Json) -> None:
    import torch

    assert finished["ok"]
    assert [row["key"] for row in finished["rows"]] == [case.key for case in rungs.cases(2)]
    for row in finished["rows"]:
        if row["device"] == "cuda" and not torch.cuda.is_available():
            assert (row["status"], row["reason"]) == ("not run", "no CUDA device")
            continue
        assert row["status"] == "ok"
        assert row["check"]["passed"]
        assert row["difference"]["largest"] <= row["difference"]["bound"]
        assert [len(r["samples_ms"]) for r in row["rounds"]] == [3, 3]
        assert row["timing"]["ratings_per_s"] > 0
        assert not result.disturbed(finished, row)
    assert {row["n_threads"] for row in finished["rows"]} == {1, 2}


def test_ladder_divides_by_the_rung_below_that_ran(finished: Json) -> None:
    steps = finished["ladder"]["K2"]
    assert [step["rung"] for step in steps] == [step.name for step in rungs.LADDER]
    assert steps[0]["ratio_to_below"] is None
    ran = [step for step in steps if step["ratings_per_s"]]
    for below, step in pairwise(ran):
        assert step["ratio_to_below"] == pytest.approx(step["ratings_per_s"] / below["ratings_per_s"])


def test_cases_have_each_rung_in_both_dtypes() -> None:
    keys = [case.key for case in rungs.cases(2)]
    assert len(keys) == len(set(keys))
    assert {"K2-slice-loops-cpu-float64-1", "K2-numba-cpu-float32-1", "K2-torch-cuda-float64-2"} <= set(keys)
    assert "fill-1-dense-cpu-float64-1" in keys


def test_a_wrong_gradient_fails_its_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    right = engines.dense_gradient

    def wrong(*arguments: Any) -> Any:
        seen = right(*arguments)
        return replace(seen, gradient=seen.gradient | {"P": 1.001 * seen.gradient["P"]})

    monkeypatch.setattr(engines, "dense_gradient", wrong)
    outcome = measured(rounds=1, epochs=5)
    failed = [row for row in outcome["rows"] if row["status"] == "FAILED"]
    assert not outcome["ok"]
    assert {row["backend"] for row in failed} == {"dense"}
    assert all(row["reason"].startswith("before timing") and row["timing"] is None for row in failed)
    assert outcome["ladder"]["K2"][2]["ratio_to_below"] is None
    assert any("before timing" in line for line in rungs.summary(outcome))


def test_quiet_rounds_alone_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = iter([8.0, *[0.0] * 10_000])
    monkeypatch.setattr(machine, "others_busy", lambda before, after: next(busy))
    outcome = measured(rounds=2, epochs=5)
    first = outcome["rows"][0]
    assert [r["others_busy_cores"] for r in first["rounds"]] == [8.0, 0.0]
    assert not result.disturbed(outcome, first)
    assert first["timing"]["median_ms"] == pytest.approx(np.median(first["rounds"][1]["samples_ms"]))
    monkeypatch.setattr(machine, "others_busy", lambda before, after: 8.0)
    outcome = measured(rounds=1, epochs=5)
    assert all(result.disturbed(outcome, row) for row in outcome["rows"] if row["timing"])
    assert not any(step["ratio_is_clear"] for step in outcome["ladder"]["K2"])
    assert any("disturbed" in line for line in rungs.summary(outcome))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rounds": 2, "epochs": 2}, "2 rounds of 2 iterations came"),
        ({"only": ("row",)}, "only is 'row'"),
        ({"only": ("rows",)}, "lines, quality would be missing"),
    ],
)
def test_wrong_settings_are_refused(settings: Json, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rungs.run_rungs(**settings)


@pytest.mark.parametrize("name", engines.HERE)
def test_gradients_of_these_rungs_are_the_loops(name: str) -> None:
    compared = 0
    for case in cases():
        pairs = case.batch.users * case.batch.shape[1] + case.batch.items
        _, first = np.unique(pairs, return_index=True)
        batch = case.batch
        if name == "dense" and len(first) < len(pairs):
            with pytest.raises(DataError, match="rated twice"):
                engines.dense(batch)
            batch = Batch(batch.users[first], batch.items[first], batch.values[first], batch.shape)
        if case.config.loss != "squared":
            continue
        if name == "dense":
            mine = engines.dense_gradient(case.params, engines.dense(batch), case.config)
        else:
            mine = engines.add_at_gradient(case.params, batch, case.config)
        gold = loops.gradient(case.params, batch, case.config)
        assert mine.objective == pytest.approx(gold.objective, rel=1e-12)
        for key, expected in gold.gradient.items():
            assert relative_difference(mine.gradient[key], expected) <= GRADIENT_TOLERANCE
        compared += 1
    assert compared >= 12


def test_dense_and_add_at_refuse_what_they_do_not_know() -> None:
    ratings = Ratings.of_indices([0, 1], [0, 1], [1.0, 2.0])
    config = Config(n_factors=2, dtype="float64", loss="pseudo_huber")
    state = State(model.start(ratings, config))
    batch = full_batch(ratings, config)
    with pytest.raises(ConfigError, match="know 'squared' only"):
        engines.engine("add_at").step(state, batch, config)
    with pytest.raises(ConfigError, match="backend is 'numpy'"):
        engines.engine("numpy")


def test_dense_trains_as_the_sparse_one_does() -> None:
    data = suite.load_data("planted", drawn=TINY)
    config = Config(n_factors=2, n_epochs=8, lr=20.0, dtype="float64")
    results = [run(engines.engine(name), data.train, config) for name in engines.HERE]
    np.testing.assert_allclose(results[0].params.P, results[1].params.P, rtol=1e-10, atol=1e-12)
    assert [r.backend for r in results] == ["add_at", "dense"]


def test_dense_pays_for_cells() -> None:
    few, many = (cost.per_rating("dense", 8, "float64", rows=10, n_ratings=1_000, cells=c) for c in (4_000, 40_000))
    assert many.bytes > 9 * few.bytes and many.flops > 9 * few.flops


def test_lines_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "MEMORY_BYTES", 1 << 20)
    found = roofline.measure((1,), samples=5, seconds=1e-3)
    assert [(x["place"], x["kernel"]) for x in found["bandwidth"]] == [
        ("memory", "copy"), ("memory", "triad"), ("cache", "copy"), ("cache", "triad"),
    ]  # fmt: skip
    assert [x["dtype"] for x in found["peak"]] == ["float64", "float32"]
    for entry in (*found["bandwidth"], *found["peak"]):
        assert len(entry["samples"]) == 5
        assert 0.01 < entry.get("gbytes_per_s", entry.get("gflops_per_s")) < 1e5


def test_kernels_of_the_lines_do_what_they_count() -> None:
    out, a, b = np.zeros((1, 8)), np.arange(8.0)[None], np.ones((1, 8))
    roofline._copy(out, a, b, 1)
    np.testing.assert_array_equal(out, a)
    roofline._triad(out, a, b, 3)
    np.testing.assert_array_equal(out, a + 2 * b)
    for kernel, times in ((roofline._one_row, 1), (roofline._eight_rows, 1)):
        y = np.ones((1, 1024))
        kernel(y, 0.5, 1.0, times)
        # y ← y/2 + 1, sixteen times: 2 - 2⁻¹⁶.
        assert y[0, 0] == pytest.approx(2 - 2.0**-16, rel=1e-15)


def test_quality_on_tiny_ratings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "BATCHES", (None, 256))
    found = quality.measure(TINY, cap=40)
    assert set(found) == {"ground", *quality.ENTRIES}
    descent = found["momentum"]["rows"][0]
    # 1/L is half of 2/L, so these two are one run.
    assert descent["equal_step"] == {t["share"]: t["iterations"] for t in descent["tried"]}[0.5]
    assert sum(row["best"] for row in found["penalty"]["rows"]) == 2
    assert found["start"]["rows"][1]["rmse_start"] < found["start"]["rows"][2]["rmse_start"]
    again = quality.measure(TINY, cap=40)
    for side in (found, again):
        for row in side["batches"].pop("rows"):
            assert row["batch_size"] in (None, 256)
    assert result.to_text(found) == result.to_text(again)


def test_committed_file_is_whole_and_its_ladder_follows_from_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rungs, "FACTORS", (8, 64))
    outcome = rungs.load()
    assert outcome["ok"]
    assert result.to_text(outcome) == committed.path("rungs.json").read_text(encoding="utf-8")
    threads = max(outcome["environment"]["set"].values())
    assert outcome["ladder"] == rungs.ladder(outcome, threads)
    assert [row["key"] for row in outcome["rows"]] == [case.key for case in rungs.cases(threads)]
    for row in outcome["rows"]:
        samples = sum(len(r["samples_ms"] or ()) for r in row["rounds"])
        assert samples >= 5 if row["status"] == "ok" else row["status"] == "not run"


def test_committed_quality_can_be_had_again() -> None:
    from mf_numpy import random_split
    from mf_numpy.baselines import mean_and_bias_scores
    from mf_numpy.metrics import score
    from mf_numpy.planted import DEFAULT, planted

    entries = rungs.load()["quality"]
    truth = planted(DEFAULT)
    split = random_split(truth.ratings, valid=0.2, seed=0)
    assert split.train.fingerprint == entries["ground"]["fingerprint"]
    rmse = {row["name"]: row["rmse"] for row in entries["post"]["rows"]}
    assert rmse["floor"] == pytest.approx(truth.noise_floor_of(split.train, split.valid), rel=1e-9)
    for name, scores in mean_and_bias_scores(split.train, split.valid).items():
        assert rmse[name] == pytest.approx(scores.rmse, rel=1e-9)
    for row in entries["start"]["rows"]:
        config = Config(model="plain", n_factors=row["n_factors"], init=row["init"], dtype="float64")
        begun = score(model.start(split.train, config), split.valid, split.train.mean).rmse
        assert row["rmse_start"] == pytest.approx(begun, rel=1e-9)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"schema": "mf-bench", "schema_version": 1}')
    with pytest.raises(FileFormatError, match="mf-rungs"):
        rungs.load(tmp_path / "x.json")
