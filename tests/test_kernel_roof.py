"""The kernels against the machine's lines: counts that add up, places that hold, and a command that writes both."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import cost, figures, kernels, machine, roofline, suite
from bench.cases import Case
from mf_numpy import Config, ConfigError, Ratings, model
from mf_numpy.planted import PlantedConfig, planted
from tests.bench_fixtures import quiet_machine

Json = dict[str, Any]
TINY = PlantedConfig(n_users=40, n_items=30, n_ratings=600, n_factors=2)
CACHES = [{"level": 1, "bytes": 32 << 10, "shared_by": 1}, {"level": 2, "bytes": 512 << 10, "shared_by": 1}]


def _here(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    return json.loads(json.dumps(kernels.run_case(order, folder)[0])), {}


@pytest.fixture
def tiny_machine() -> Any:
    with quiet_machine() as patch:
        patch.setattr(roofline, "MEMORY_BYTES", 1 << 20)
        patch.setattr(roofline, "levels", partial(roofline.levels, samples=5, seconds=1e-3))
        patch.setattr(roofline, "peaks", partial(roofline.peaks, samples=5, seconds=1e-3))
        patch.setattr(machine, "usable_cores", lambda: 1)
        patch.setattr(machine, "caches", lambda: CACHES)
        yield patch


@pytest.fixture
def train() -> Ratings:
    return planted(TINY).ratings


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_factors", [1, 16, 64])
def test_gradient_and_update_are_the_whole_iteration(dtype: str, n_factors: int) -> None:
    shape = {"rows": 70, "n_ratings": 600}
    parts = [cost.of_kernel(name, n_factors, dtype, **shape) for name in ("gradient", "update")]
    whole = cost.per_rating("numba", n_factors, dtype, **shape)
    assert sum(part.flops for part in parts) == pytest.approx(whole.flops, rel=1e-14)
    assert sum(part.bytes for part in parts) == pytest.approx(whole.bytes, rel=1e-14)


def test_every_kernel_has_a_row_with_the_share_that_its_samples_give(tiny_machine: Any, train: Ratings) -> None:
    found = kernels.measure(train, "planted", factors=(4, 9), samples=5, launch=_here)
    assert [(row["kernel"], row["n_factors"], row["dtype"]) for row in found["rows"]] == [
        (kernel, k, dtype) for k in (4, 9) for dtype in kernels.DTYPES for kernel in kernels.KERNELS
    ]
    assert [level["place"] for level in found["levels"]] == ["L1", "L2", "memory"]
    rates = {level["place"]: level["gbytes_per_s"] for level in found["levels"]}
    peaks = {peak["dtype"]: peak["gflops_per_s"] for peak in found["peaks"]}
    for row in found["rows"]:
        assert len(row["samples_ms"]) == 5
        milliseconds = {
            "bytes": row["bytes_per_rating"] * len(train) / rates[row["place"]] / 1e6,
            "flops": row["flops_per_rating"] * len(train) / peaks[row["dtype"]] / 1e6,
        }
        assert row["bound"] == max(milliseconds, key=lambda name: milliseconds[name])
        assert row["share"] == pytest.approx(milliseconds[row["bound"]] / np.median(row["samples_ms"]), rel=1e-9)
    assert len(kernels.summary(found)) == len(found["levels"]) + len(found["peaks"]) + 2 + len(found["rows"])


def test_a_kernel_works_from_the_nearest_place_that_holds_what_it_comes_back_to() -> None:
    levels = [
        {"place": name, "threads": 1, "bytes_per_thread": held, "gbytes_per_s": rate}
        for name, held, rate in (("L1", 4_800, 100.0), ("L2", 9_600, 50.0), ("memory", None, 10.0))
    ]
    lines = {"levels": levels, "peaks": [{"dtype": "float32", "threads": 1, "gflops_per_s": 1e-3}]}
    ratings = Ratings.of_indices([0, 1], [0, 1], [1.0, 2.0], m=40, n=30)
    row = {"dtype": "float32", "threads": 1, "timing": {"median_ms": 1.0, "ratings_per_s": 2_000.0}}
    # (K + 1) · 4 bytes = 80 a row: 30 rows of Q; as many of their sums; 70 rows three times over.
    expected = {"predict": (2_400, "L1"), "gradient": (4_800, "L1"), "update": (16_800, "memory")}
    # A share of 30 // 4 items, as the table is small, and a group of 32 users.
    expected |= {"sgd": (80 * 30 // 4 + 80 * 32, "L1"), "als": (80 * 40, "L1")}
    for kernel, (resident, place) in expected.items():
        found = kernels.place(row | {"kernel": kernel, "n_factors": 19}, lines, ratings)
        assert (found["resident_bytes"], found["place"]) == (resident, place)
    found = kernels.place(row | {"kernel": "gradient", "n_factors": 20}, lines, ratings)
    assert (found["resident_bytes"], found["place"], found["bound"]) == (5_040, "L2", "flops")


def test_the_report_shows_it(tiny_machine: Any, train: Ratings) -> None:
    found = kernels.measure(train, "planted", factors=(4,), samples=5, launch=_here)
    nothing: Json = {"rows": [], "roofline": found}
    (picture,) = figures.pictures(nothing)
    assert figures.pictures({"rows": []}) == []
    for row in found["rows"]:
        if row["dtype"] == "float32":
            of = "multiply-adds" if row["bound"] == "flops" else row["place"]
            assert f"{row['kernel']} {row['share']:.0%} of {of}" in picture.about
            assert f"{row['kernel']}: {row['share']:.0%} of {of}" in picture.svg
    assert "currentColor" in picture.svg and figures.INK not in picture.svg


def test_timing_leaves_the_parameters_what_they_were(tiny_machine: Any, train: Ratings) -> None:
    config = Config(n_factors=3, dtype="float64")
    started = model.start(train, config)
    timed = started.copy()
    tiny_machine.setattr(model, "start", lambda *_: timed)
    assert [row["kernel"] for row in kernels.timed(train, config, (1,), 5)] == list(kernels.KERNELS)
    for name, theta in started.tensors().items():
        np.testing.assert_allclose(timed.tensors()[name], theta, rtol=1e-15, atol=1e-25)


@pytest.mark.parametrize(("settings", "told"), [({"samples": 4}, "4 samples"), ({"factors": (0,)}, "K is 1 or larger")])
def test_what_cannot_be_measured_is_refused(settings: Json, told: str, train: Ratings) -> None:
    with pytest.raises(ConfigError, match=told):
        kernels.measure(train, "planted", launch=_here, **settings)


def test_a_process_that_fails_says_why(train: Ratings) -> None:
    def failing(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        return {"status": "failed", "reason": "out of memory"}, {}

    with pytest.raises(RuntimeError, match="could not be measured: out of memory"):
        kernels.measure(train, "planted", launch=failing)


def test_planted_ratings_of_two_sizes_keep_their_names() -> None:
    assert [suite.load_data(name, drawn=TINY).name for name in ("planted", "planted-anime")] == [
        "planted",
        "planted-anime",
    ]


def test_caches_as_the_kernel_lists_them(tmp_path: Path) -> None:
    listed = [
        ("1", "Data", "48K", "0"),
        ("1", "Instruction", "32K", "0"),
        ("2", "Unified", "1M", "0"),
        ("3", "Unified", "32768K", "0-3,8-11"),
    ]
    for at, values in enumerate(listed):
        folder = tmp_path / f"index{at}"
        folder.mkdir()
        for name, value in zip(("level", "type", "size", "shared_cpu_list"), values, strict=True):
            (folder / name).write_text(value + "\n")
    (tmp_path / "index9").mkdir()
    assert machine.caches(tmp_path) == [
        {"level": 1, "bytes": 48 << 10, "shared_by": 1},
        {"level": 2, "bytes": 1 << 20, "shared_by": 1},
        {"level": 3, "bytes": 32 << 20, "shared_by": 8},
    ]
    assert machine.caches(tmp_path / "nowhere") == []


def test_the_command_writes_result_and_figure(
    tiny_machine: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cyclopts")
    from bench.cli import main

    tiny_machine.setattr(suite, "DEFAULT", TINY)
    tiny_machine.setattr(kernels, "in_fresh_process", lambda case, order, folder, module: _here(case, order, folder))
    assert main(["roofline", "--factors", "4,9", "--samples", "5", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "roofline.json").read_text(encoding="utf-8"))
    assert (written["schema"], written["problem"]["data"]) == ("mf-roofline", "planted")
    picture = (tmp_path / "roofline.svg").read_text(encoding="utf-8")
    for text in (
        "K = 4, float32, 1 thread",
        "K = 9, float32, 1 thread",
        "flops a byte (Eq. 27)",
        "GFLOP/s",
        "predict: ",
    ):
        assert text in picture
    assert "of its" in capsys.readouterr().out
    assert main(["roofline", "--factors", "16;64", "--out", str(tmp_path)]) == 2
    assert "factors is '16;64', but must be whole numbers" in capsys.readouterr().err
