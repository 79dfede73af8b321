"""Paths beside the Numba backend: who takes part, the check before the time, profiles, ratios; nothing judges time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import agreement, equality, operators, paths, result
from bench.cases import Case
from bench.launch import Json, in_fresh_process
from mf_numpy import Ratings
from mf_numpy.engine import NumpyEngine
from mf_numpy.errors import ConfigError
from mf_numpy.planted import PlantedConfig, planted
from tests.bench_fixtures import quiet_machine

torch = pytest.importorskip("torch")

QUICK = tuple(name for name in paths.systems() if name != "compiled")


@pytest.fixture(autouse=True, scope="module")
def idle() -> Iterator[None]:
    with quiet_machine():
        yield


@pytest.fixture(scope="module")
def train() -> Ratings:
    return planted(PlantedConfig(n_users=60, n_items=40, n_ratings=1500, n_factors=2)).ratings


def _here(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    outcome, arrays = paths.run_case(order, folder)
    return json.loads(json.dumps(outcome)), arrays


def _measure(train: Ratings, **given: Any) -> Json:
    settings: dict[str, Any] = {"only": QUICK, "factors": (3,), "threads": (1,), "rounds": 2, "launch": _here}
    return paths.measure(train, "planted", **settings | given)


@pytest.fixture(scope="module")
def found(train: Ratings) -> Json:
    return _measure(train)


def test_every_path_has_its_turn_in_every_round(train: Ratings) -> None:
    from mf_torch.paths import PATHS

    said: list[str] = []

    def nothing(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        return {"status": "ok" if order["system"] is None else "failed", "reason": "nothing"}, {}

    found = _measure(train, only=(), launch=nothing, say=said.append)
    assert [line.split(", ")[1] for line in said] == ["numba", *PATHS] * 2
    assert {row["reason"] for row in found["rows"]} == {"nothing"} and found["complete"] and found["ratios"] == []
    assert sum("failed: nothing" in line for line in paths.summary(found)) == 1 + len(PATHS)


def test_rows_hold_every_sample_and_where_its_time_goes(train: Ratings, found: Json) -> None:
    assert result.clean(found) == json.loads(json.dumps(found)) and found["complete"]
    assert [row["system"] for row in found["rows"]] == list(QUICK)
    for row in found["rows"]:
        assert row["status"] == "ok", row["reason"]
        assert [len(samples) for samples in row["samples_ms"]] == [paths.SAMPLES] * 2
        assert row["timing"]["ratings_per_s"] == pytest.approx(1e3 * len(train) / row["timing"]["median_ms"])
        assert len(row["warm_up_s"]) == 2 and row["check"]["passed"] and row["check"]["n_steps"] == agreement.STEPS
        assert (row["profile"] is None) == (row["system"] == "numba")
        if row["profile"]:
            assert sum(line["ms"] for line in row["profile"]["operators"]) >= row["profile"]["wall_ms"] * 0.999
    for name in QUICK[1:]:
        assert sum(line.startswith(f"K = 3, 1 thread, {name}: ") and "%" in line for line in paths.summary(found)) == 1


def test_ratios_to_the_reference_and_to_numba(found: Json) -> None:
    medians = {row["system"]: row["timing"]["median_ms"] for row in found["rows"]}
    pairs = {(one["system"], one["against"]) for one in found["ratios"]}
    assert pairs == {(a, b) for a in QUICK for b in ("autograd", "numba") if a != b}
    for one in found["ratios"]:
        assert one["ratio"] == pytest.approx(medians[one["against"]] / medians[one["system"]])
        assert one["low"] <= one["high"]


def test_a_wrong_gradient_is_not_timed(train: Ratings, monkeypatch: pytest.MonkeyPatch) -> None:
    from mf_numpy.faults import broken
    from mf_torch.faults import TORCH_FAULTS

    with broken(TORCH_FAULTS["mean-counted-twice"]):
        found = _measure(train, only=("autograd", "manual"), rounds=1)
    (reference, _) = found["rows"]
    assert reference["status"] == "failed" and reference["timing"] is None and not reference["check"]["passed"]
    assert reference["reason"].startswith("before timing, after 2 steps: off by")
    assert [one["system"] for one in found["ratios"]] == []


def test_the_bound_is_what_float32_itself_makes(train: Ratings) -> None:
    config = agreement.config_of(train, 3)
    way = agreement.expected(train, config)
    assert way.bound is not None and equality.EPS["float32"] * equality.SAFETY <= way.bound < 1e-4
    engine = NumpyEngine("numpy")
    whole, state = agreement.begun(engine, train, config)
    _, mine = agreement.way_of(engine, state, whole, config)
    assert agreement.verdict(mine, way)["passed"]
    for name in mine.arrays:
        moved = agreement.Way(mine.objectives, mine.arrays | {name: mine.arrays[name] * (1 + 2 * way.bound)})
        assert not agreement.verdict(moved, way)["passed"], name
    lost = agreement.Way([np.nan, mine.objectives[1]], mine.arrays)
    assert agreement.verdict(lost, way)["difference"] == np.inf


def test_slow_systems_have_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("bench.paths.time.perf_counter", lambda: now[0])

    def taking(seconds: float) -> Any:
        def iteration() -> None:
            now[0] += seconds

        return iteration

    assert paths.samples(taking(0.01), 1) == pytest.approx([10.0] * paths.SAMPLES)
    assert len(paths.samples(taking(9.0), 1)) == 1 and len(paths.samples(taking(9.0), 3)) == 3
    assert len(paths.samples(taking(0.6), 1)) == 3


def test_shares_of_an_iteration() -> None:
    spent = {f"aten::op{n}": (10.0 - n, 2) for n in range(9)}
    found = operators.shares(spent, 100.0)
    lines = found["operators"]
    assert [line["operator"] for line in lines[:2]] == ["op0", "op1"] and lines[0]["share"] == 0.1
    assert [line["operator"] for line in lines[-2:]] == [operators.REST, operators.OUTSIDE]
    assert lines[-2]["ms"] == 2.0 and lines[-1]["ms"] == 100.0 - found["busy_ms"] == 46.0
    assert found["calls"] == 18 and sum(line["share"] for line in lines) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "shortened"),
    [
        ("aten::mul", "mul"),
        ("graph_1_cpp_fused_add_div_embedding_dense_backward_expand_0", "fused backward kernel"),
        ("cpp_fused__to_copy_add_dot_embedding_index_mean_1", "fused forward kernel"),
        ("triton_poi_fused_add_embedding_backward_2", "fused backward kernel"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>(int)",
         "at::native::vectorized_elementwise_kernel"),
        ("## Call CompiledFxGraph fkqlfa4zvthyg4n ##", "compiled graph"),
        ("Optimizer.step#SGD.step", "Optimizer.step#SGD.step"),
    ],
)  # fmt: skip
def test_names_of_operators(name: str, shortened: str) -> None:
    assert operators.short(name) == shortened


def test_ctrl_c_keeps_what_is_done(train: Ratings) -> None:
    def stopping(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        if order["system"] == "sparse":
            raise KeyboardInterrupt
        return {"status": "ok", "reason": None} if order["system"] is None else {"status": "failed", "reason": "x"}, {}

    said: list[str] = []
    found = _measure(train, launch=stopping, say=said.append)
    assert not found["complete"] and said[-1] == "interrupted: what was measured is kept"
    with pytest.raises(KeyboardInterrupt):
        _measure(train, only=("sparse",), launch=stopping)


def test_what_it_does_not_take(train: Ratings) -> None:
    with pytest.raises(ConfigError, match="system is 'spars'"):
        _measure(train, only=("spars",))
    for wrong in ({"rounds": 0}, {"factors": (0,)}, {"threads": (0,)}, {"factors": ()}):
        with pytest.raises(ConfigError, match="must be 1 or larger"):
            _measure(train, **wrong)

    def failing(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        return {"status": "failed", "reason": "no memory"}, {}

    with pytest.raises(RuntimeError, match="the Numba backend could not be run: no memory"):
        _measure(train, launch=failing)


def test_a_turn_in_a_process_of_its_own(train: Ratings) -> None:
    def fresh(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        if order["system"] is None:  # which compiles
            return _here(case, order, folder)
        return in_fresh_process(case, order, folder, module="bench.paths", limit=paths.LIMIT)

    (row,) = _measure(train, only=("manual",), rounds=1, launch=fresh)["rows"]
    assert row["status"] == "ok", row["reason"]
    assert row["peak_bytes"] is None or row["peak_bytes"] > 0


def test_a_turn_that_hangs_is_ended(train: Ratings, tmp_path: Path) -> None:
    outcome, arrays = in_fresh_process(
        Case("paths", "numba", "cpu", "float32"), {"threads": 1}, tmp_path, module="bench.paths", limit=0.01
    )
    assert outcome == {"status": "failed", "reason": "no result after 0.01 s"} and not arrays
