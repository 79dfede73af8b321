"""The CUDA suite where there is no GPU: its plan, its rows, what becomes of failures; nothing here judges time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import agreement, compared, cost, cuda, cuda_roof, cuda_worker, result
from bench.cases import Case
from bench.cuda_cases import NUMBA, CudaCase, Sizes, plan
from bench.launch import Json
from mf_numpy.errors import ConfigError
from tests.bench_fixtures import quiet_machine

ROOT = Path(__file__).parent.parent
TINY = Sizes(main=3000, ratings=(1000,), k_main=3, factors=(), batches=(500,), k_target=2)
PATHS = ("manual", "autograd", "compiled")


@pytest.fixture(autouse=True)
def idle() -> Iterator[None]:
    with quiet_machine():
        yield


def _here(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    return cuda_worker.run_case(json.loads(json.dumps(order)) | {"limit": 0}, folder)


def _full(device: str, system: str, n: int = 1000, **more: Any) -> CudaCase:
    return CudaCase(part="full", device=device, system=system, n_ratings=n, n_factors=3, **more)


def test_the_plan_begins_with_what_tells_most() -> None:
    groups = plan(Sizes(), ("fused", *PATHS), ("manual", "autograd"))
    cases = [case for group in groups for case in group]
    assert cases[0].part == "roof" and cases[1] == replace(_full("cuda", "fused", 6_337_241), n_factors=64)
    assert len(set(cases)) == len(cases)
    assert all(len({case.n_ratings for case in group}) == 1 for group in groups)
    full = [case for case in cases if case.part == "full"]
    assert {case.n_factors for case in full if case.device == "cuda"} == {16, 32, 64, 128, 256}
    assert {case.n_ratings for case in full} >= {10**5, 10**6, 10**7, 10**8}
    assert {case.batch_size for case in cases if case.part == "batch"} == {10**3, 10**4, 10**5, 10**6}
    assert {case.system for case in full if case.graph} == {"manual", "autograd"}
    # Every size of CUDA has the Numba backend beside it.
    sizes = {(case.n_ratings, case.n_factors) for case in full if case.device == "cuda"}
    assert sizes == {(case.n_ratings, case.n_factors) for case in full if case.system == NUMBA}


def test_without_a_gpu_it_runs_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cuda, "_paths", lambda: (("manual", "autograd"), ("manual",)))
    monkeypatch.setattr(cuda_worker, "TARGET_EPOCHS", 3)
    found = cuda.measure(sizes=TINY, launch=_here)
    assert found["complete"] and found["cuda"] is None and found["roof"] is None and found["crossings"] == []
    assert result.clean(found) == json.loads(json.dumps(found))
    for row in found["rows"]:
        if row["device"] == "cuda":
            assert (row["status"], row["reason"]) == ("not run", "no CUDA device")
            continue
        assert row["status"] == "ok", row["reason"]
        if row["part"] == "target":
            assert row["noise_floor"] < row["target_rmse"] and len(row["curve"]) <= 3
            continue
        assert row["check"]["passed"] and len(row["samples_ms"]) >= 5
        size = row["batch_size"] or row["n_ratings"]
        assert row["timing"]["ratings_per_s"] == pytest.approx(1e3 * size / row["timing"]["median_ms"])
    parts = {(row["part"], row["system"]) for row in found["rows"] if row["device"] == "cpu"}
    assert parts >= {
        ("full", "numba"),
        ("full", "manual"),
        ("batch", "numba"),
        ("batch", "manual"),
        ("target", "numba"),
    }
    assert cuda.exit_code(found) == 0 and "not run: no CUDA device" in cuda.summary(found)[1]
    cases = {case.key: case for case in compared.SCHEMAS[cuda.SCHEMA].cases(found)}
    assert len(cases) == len(found["rows"]) and cases["full, cuda, manual, N = 3,000, K = 3, graph"].trouble
    assert sum(bool(case.rounds) for case in cases.values()) == sum(bool(row.get("timing")) for row in found["rows"])


def test_what_the_time_does_not_allow_is_a_row_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seconds is 0, but must be above 0"):
        cuda.measure(seconds=0)
    found = cuda.measure(seconds=1e-9, sizes=TINY, launch=lambda *_: pytest.fail("nothing may start"))
    late = [row for row in found["rows"] if row["device"] == "cpu"]
    assert {row["reason"] for row in late} == {"the time was up"} and not found["complete"]
    order = {"cases": [_full("cpu", NUMBA).to_dict()], "n_ratings": 1000, "rows": "rows", "deadline": 0, "limit": 0}
    cuda_worker.run_case(order, tmp_path)
    assert json.loads((tmp_path / "rows").read_text())["reason"] == "the time was up"


def _outcomes(behave: Any, folder: Path) -> list[Json]:
    """Rows of three cases by a process that does what `behave` does with an order's cases."""
    group = [_full("cpu", name) for name in (NUMBA, "manual", "autograd")]

    def launch(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        rows, reason = behave([about["system"] for about in order["cases"]])
        text = "".join(json.dumps({"status": "ok", "reason": None, "system": name}) + "\n" for name in rows)
        (folder / order["rows"]).write_text(text)
        return {"status": "ok" if reason is None else "failed", "reason": reason}, {}

    return cuda._group(group, True, time.time() + 60, folder, launch, lambda text: None)


def test_a_case_that_ends_its_process_costs_no_other(tmp_path: Path) -> None:
    def dying(names: list[str]) -> tuple[list[str], str | None]:
        if "manual" in names:
            return names[: names.index("manual")], "the worker was ended by SIGALRM"
        return names, None

    rows = _outcomes(dying, tmp_path)
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["reason"] == "the worker was ended by SIGALRM" and rows[2]["system"] == "autograd"


def test_a_device_that_answers_nothing_is_left_to_a_fresh_process(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def unusable(names: list[str]) -> tuple[list[str], str | None]:
        seen.append(names)
        return names[:1], f"{cuda_worker.UnusableError.__name__}: after it" if len(names) > 1 else None

    assert [row["status"] for row in _outcomes(unusable, tmp_path)] == ["ok"] * 3
    assert [len(names) for names in seen] == [3, 2, 1]


def test_a_case_that_fails_or_is_wrong_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mf_numpy.faults import broken
    from mf_torch.faults import TORCH_FAULTS

    data = cuda_worker.Drawn(1000, tmp_path)
    with broken(TORCH_FAULTS["mean-counted-twice"]):
        row = cuda_worker.row_of(_full("cpu", "autograd"), data)
    assert row["status"] == "failed" and row["reason"].startswith("before timing, after 2 steps")
    assert "timing" not in row and cuda.exit_code({"rows": [row]}) == 1

    def full(*_: Any) -> Json:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 95.37 GiB.\nmore")

    monkeypatch.setattr(cuda_worker, "_full", full)
    row = cuda_worker.row_of(_full("cpu", "autograd"), data)
    assert (row["status"], row["reason"]) == (
        "failed", "out of memory: CUDA out of memory. Tried to allocate 95.37 GiB.",
    )  # fmt: skip
    row = cuda_worker.row_of(CudaCase(part="target", device="cpu", system="fusd", n_ratings=1000, n_factors=2), data)
    assert row["status"] == "failed" and row["reason"].startswith("ConfigError: path is 'fusd'")


def test_many_ratings_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_worker, "DRAWN_ONE_BY_ONE", 10)
    found = cuda_worker.drawn(50_000)
    about = cuda_worker.planted_like(50_000)
    assert (len(found), found.n_users, found.n_items) == (50_000, about.n_users, about.n_items)
    assert bool((np.diff(found.users.astype(np.int64)) >= 0).all())
    assert about.scale[0] <= found.values.min() and found.values.max() <= about.scale[1]
    assert abs(found.mean - about.mean) < 0.2 and found.item_counts.max() > 5 * np.median(found.item_counts)


def test_an_epoch_s_beginning_is_no_part_of_a_step(tmp_path: Path) -> None:
    data = cuda_worker.Drawn(1000, tmp_path)
    case = CudaCase(part="batch", device="cpu", system=NUMBA, n_ratings=1000, n_factors=3, batch_size=300)
    row = cuda_worker.row_of(case, data)
    assert row["status"] == "ok", row["reason"]
    # Three whole batches an epoch, the first of which it begins with.
    assert row["steps_a_sample"] <= 2 and len(row["epoch_begins_ms"]) >= len(row["samples_ms"]) // 2 - 1


def test_the_bound_of_a_gpu_follows_from_where_the_bytes_are() -> None:
    sizes = {"n_users": 1000, "n_items": 100, "n_ratings": 10**6}
    small = cost.on_gpu(15, **sizes, cache_bytes=10**9)
    # 24 bytes of pairs and 64 + 60 of rows a rating; 64 bytes of each row nine times.
    assert small.cache == 10**6 * (24 + 64 + 60) + 9 * 64 * 1100 and small.memory == 0
    streams = cost.on_gpu(15, **sizes, cache_bytes=10**6)
    assert streams.cache == small.cache and streams.memory == 10**6 * 24 + 9 * 64 * 1100
    missed = cost.on_gpu(15, **sizes, cache_bytes=32_000)
    assert missed.memory == pytest.approx(streams.memory + 10**6 * 60 * 0.5)
    assert cost.Traffic(100.0, 30.0).least_seconds(50.0, 10.0) == 3.0
    # Of 16 bits: half of each gathered factor, and a copy of both tables once.
    half = cost.on_gpu(15, **sizes, cache_bytes=10**9, stored=2)
    assert half.cache == 10**6 * (24 + 34 + 30) + (9 * 64 + 15 * 6) * 1100


def test_factors_of_16_bits_have_rows_of_their_own(tmp_path: Path) -> None:
    cases = [case for group in plan(Sizes(), ("fused", *PATHS), ("fused",)) for case in group if case.storage]
    assert {(case.part, case.device, case.system, case.graph) for case in cases} == {("full", "cuda", "fused", True)}
    assert {case.storage for case in cases} == {"bfloat16", "float16"} and "graph, bfloat16" in cases[0].label
    data = cuda_worker.Drawn(1000, tmp_path)
    row = cuda_worker.row_of(replace(cases[0], device="cpu", graph=False, n_ratings=1000, n_factors=3), data)
    assert row["status"] == "ok", row["reason"]
    # A thousand times what float32 may be off by, and not more than 16 bits make.
    bound = data.expected(agreement.config_of(data.head, 3)).bound
    assert bound is not None and row["check"]["bound"] > 100 * bound and row["check"]["difference"] > bound
    # What is gathered in float32 on the CPU is not held against it.
    timing = {"median_ms": 1.0}
    rows = [
        case.to_dict() | {"timing": timing, "n_ratings": 9, "n_factors": 3} for case in (cases[0], _full("cuda", "x"))
    ]
    best = cuda.best(rows, "cuda", 9, 3)
    assert best is not None and best["system"] == "x"


def test_copies_and_triads_are_right_and_limits_are_theirs() -> None:
    found = cuda_roof.measure("cpu", sizes=(3 << 16, 3 << 18), samples=2, seconds=1e-4)
    assert found["by"] == "torch" and found["why"] == "no CUDA device" and found["cache_bytes"] is None
    assert [(line["kernel"], line["bytes"]) for line in found["lines"]] == [
        ("copy", 196608), ("triad", 196608), ("copy", 786432), ("triad", 786432),
    ]  # fmt: skip
    lines = [{"kernel": "triad", "bytes": n, "gbytes_per_s": rate} for n, rate in ((6, 4.0), (20, 5.0), (60, 2.0))]
    assert cuda.limits({"lines": lines, "cache_bytes": 50}) == (5e9, 2e9)
    with pytest.raises(ArithmeticError, match="the triad left other numbers than 7"):
        cuda_roof._check("triad", torch.zeros(3))


def test_the_triton_kernel_interpreted() -> None:
    pytest.importorskip("triton")
    code = """
import torch
from bench import cuda_roof
for kernel in ("copy", "triad"):
    out, a, b = (torch.full((4 * cuda_roof.BLOCK,), float(k)) for k in range(3))
    cuda_roof._run_of("triton", kernel, out, a, b)(2)
    cuda_roof._check(kernel, out)
"""
    variables = dict(os.environ, TRITON_INTERPRET="1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr


def _timed(device: str, n: int, ms: float, **more: Any) -> Json:
    about = {"part": "full", "device": device, "system": "x", "n_ratings": n, "n_factors": 8, "batch_size": None}
    return about | {"graph": False, "status": "ok", "reason": None, "timing": result.timing([ms] * 5, n)} | more


def test_where_cuda_overtakes_and_what_share_of_its_bound_it_reaches() -> None:
    profile = {"busy_ms": 0.1, "wall_ms": 9.0, "operators": []}
    rows = [
        _timed("cuda", 10, 1.0, profile=profile), _timed("cuda", 10, 2.0), _timed("cpu", 10, 0.5),
        _timed("cuda", 100, 1.0, profile=profile), _timed("cpu", 100, 1.5), _timed("cpu", 100, 1.25),
        _timed("cuda", 1000, 2.0), _timed("cpu", 1000, 9.0), _timed("cuda", 5000, 1.0),
    ]  # fmt: skip
    found = list(cuda.crossings(rows))
    assert [(one["n_ratings"], one["ratio"], one["busy"], one["from_here"]) for one in found] == [
        (10, 0.5, 0.1, False), (100, 1.25, 0.1, True), (1000, 4.5, None, True),
    ]  # fmt: skip
    limits = {"cache": 4e3, "memory": 1e3}
    row = _timed("cuda", 10, 2.0, traffic={"cache_bytes": 4.0, "memory_bytes": 1.5})
    assert cuda._share(row, limits) == pytest.approx(0.75)
    assert cuda._share(row, None) is None and cuda._share(_timed("cpu", 10, 2.0), limits) is None


def test_the_script_runs_all_three_and_forgets_no_failure(tmp_path: Path) -> None:
    """A python that writes down what it is asked for, and fails at the tests."""
    log, fake = tmp_path / "log", tmp_path / "python"
    fake.write_text(f'#!/bin/sh\necho "$2" >> {log}\ncase "$2" in pytest) exit 5;; esac\n')
    fake.chmod(0o755)
    variables = dict(os.environ, PYTHON=str(fake), OUT=str(tmp_path / "out"))
    done = subprocess.run(["bash", "bench/cuda.sh"], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert log.read_text().split() == ["pytest", "bench.suite", "bench.cuda"] and done.returncode == 5


@pytest.mark.cuda
def test_cuda_suite_on_a_gpu() -> None:
    found = cuda.measure(sizes=replace(TINY, most_for={("cuda", "compiled"): 0}))
    for row in found["rows"]:
        assert row["status"] == "ok", (row["system"], row["reason"])
        if row["part"] == "full" and row["device"] == "cuda":
            assert row["profile"]["busy_ms"] > 0 and row["share"] > 0 and row["transfer_s"] > 0
            assert row["peak_cuda_bytes"] > 0
    assert found["roof"]["by"] == "triton" or found["roof"]["why"] == "Triton is not installed"
    assert found["limits"]["cache"] > 0 and {one["n_ratings"] for one in found["crossings"]} == {1000, 3000}
