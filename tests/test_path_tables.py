"""The tables of the paths: what they say of a result, and that they say so where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import committed, cuda, operators, paths, tables, turns
from bench.launch import Json


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(committed, "FOLDER", tmp_path)
    (tmp_path / committed.SHOWN[0]).mkdir()
    return tmp_path / committed.SHOWN[0]


def _result(schema: str, version: int, **more: Any) -> Json:
    machine = {"cpu": "a CPU", "cores": {"usable": 2}}
    return {"schema": schema, "schema_version": version, "machine": machine} | more


def _row(system: str, threads: int, ms: float, profile: Json | None = None) -> Json:
    row = {"system": system, "n_factors": 16, "threads": threads, "profile": profile}
    return row | turns.merged([{"status": "ok", "samples_ms": [ms] * 3, "others_busy_cores": 0.04}], 10**6)


@pytest.mark.parametrize("name", ["paths", "operators", "cuda"])
@pytest.mark.parametrize(("lang", "words"), [("en", "committed yet"), ("zh", "尚未提交")])
def test_nothing_is_claimed_without_a_result(folder: Path, name: str, lang: str, words: str) -> None:
    text = tables.render(name, {}, lang)
    assert words in text and "|" not in text


def test_rates_and_ratios_of_the_paths(folder: Path) -> None:
    profile = operators.shares({"aten::mul": (60.0, 2), "aten::sum": (30.0, 1)}, 100.0)
    rows = [_row("numba", 1, 10.0), _row("numba", 2, 5.0), _row("autograd", 1, 300.0), _row("autograd", 2, 200.0)]
    rows += [_row("fused", 1, 10.0), _row("fused", 2, 4.0, profile)]
    outcome = _result(paths.SCHEMA, paths.VERSION, rows=rows, ratios=list(paths.ratios(rows)))
    (folder / "paths-ml-1m.json").write_text(json.dumps(outcome))
    text = tables.render("paths", {}, "en")
    assert "| path | MovieLens 1M, K = 16 |" in text
    assert "| `fused` | 100, 250 M/s; 30×, 50× autograd; 1×, 1.25× Numba |" in text
    assert "| `mf_numpy`, Numba | 100, 200 M/s; 30×, 40× autograd |" in text
    assert "by 1, 2 threads" in text and "a CPU, 2 cores; others kept at most 0.04 cores busy" in text
    assert "| `fused` | `mul` 60 %, `sum` 30 %, outside torch's operators 10 % |" in tables.render(
        "operators", {}, "en"
    )
    assert "百万条/秒" in tables.render("paths", {}, "zh") and "torch 算子之外" in tables.render("operators", {}, "zh")


def test_from_what_size_on_cuda_is_ahead(folder: Path) -> None:
    def at(n: int, cuda_ms: float, cpu_ms: float, busy: float | None, ahead: bool) -> Json:
        times = {"cuda_ms": cuda_ms, "cpu_ms": cpu_ms, "ratio": cpu_ms / cuda_ms}
        return times | {
            "n_factors": 64,
            "n_ratings": n,
            "cuda": "fused",
            "cpu": "numba",
            "busy": busy,
            "from_here": ahead,
        }

    found = [at(1000, 0.5, 0.1, 0.05, False), at(10**5, 0.5, 0.4, 0.25, False), at(10**6, 1.0, 4.0, 0.9, True)]
    outcome = _result(cuda.SCHEMA, cuda.VERSION, cuda={"name": "a GPU"}, crossings=found)
    # Another machine's, which the documents show by the name of its GPU.
    path = folder.parent / "some-cpu-8-cores-a-gpu" / "cuda.json"
    path.parent.mkdir()
    path.write_text(json.dumps(outcome))
    text = tables.render("cuda", {}, "en")
    assert "| a GPU, 64 | 1,000,000 | 1 `fused` | 4 `numba` | 4× | 90 % |" in text
    assert "K = 64, a GPU: CUDA is ahead from 1,000,000 ratings on; at 100,000 no kernel runs in 75 % of" in text
    outcome["crossings"] = [one | {"from_here": False, "busy": None} for one in found]
    path.write_text(json.dumps(outcome))
    assert "K = 64, a GPU: CUDA is ahead at no size." in tables.render("cuda", {}, "en")
    assert "CUDA 在任何规模都不领先。" in tables.render("cuda", {}, "zh")
