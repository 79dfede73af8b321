"""The benchmark on tiny planted ratings: complete rows, honest failures, and nothing private in what it writes."""

from __future__ import annotations

import getpass
import io
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import cli, compare, equality, figures, launch, machine, report, result, suite, table, worker
from bench.cases import Case, choose_cases, snapshots
from bench.pages import book
from mf_numpy import Config, Ratings
from mf_numpy.engine import NumpyEngine, State
from mf_numpy.errors import ConfigError, FileFormatError
from mf_numpy.planted import PlantedConfig
from tests.bench_fixtures import in_process, quiet_machine

pytest.importorskip("torch")

Json = dict[str, Any]
TINY = PlantedConfig(n_users=60, n_items=40, n_ratings=1500, n_factors=1, min_ratings=3)


@pytest.fixture(autouse=True, scope="module")
def idle() -> Iterator[None]:
    with quiet_machine():
        yield


@pytest.fixture(scope="module")
def tiny() -> suite.Data:
    return suite.load_data("planted", drawn=TINY)


@pytest.fixture(scope="module")
def finished(tiny: suite.Data) -> Json:
    return suite.run_suite(tiny, "smoke", n_factors=1, threads=1, launch=in_process)


def run(data: suite.Data, start: launch.Launch, only: tuple[str, ...] = ("numpy", "numba"), epochs: int = 50) -> Json:
    return suite.run_suite(data, "smoke", n_factors=1, epochs=epochs, only=only, threads=1, launch=start)


def row_of(outcome: Json, backend: str, dtype: str) -> Json:
    found = [r for r in outcome["rows"] if (r["problem"], r["backend"], r["dtype"]) == ("full", backend, dtype)]
    return dict(found[0])


def test_smoke_is_complete_and_equal(finished: Json) -> None:
    import torch

    asked = [case.to_dict() for case in choose_cases(())]
    assert [{k: row[k] for k in ("problem", "backend", "device", "dtype")} for row in finished["rows"]] == asked
    assert finished["ok"]
    assert suite.exit_code(finished) == 0
    for row in finished["rows"]:
        if row["device"] == "cuda" and not torch.cuda.is_available():
            assert (row["status"], row["reason"]) == ("not run", "no CUDA device")
            continue
        assert row["status"] == "ok"
        assert row["check"]["passed"]
        assert len(row["samples_ms"]) == len(row["history"]) >= 5
        assert row["timing"]["min_ms"] <= row["timing"]["median_ms"] <= row["timing"]["max_ms"]
        assert set(row["warm_up"]) == {"imports_s", "data_s", "first_fit_s"}
        assert row["difference"]["largest"] <= row["difference"]["bound"]
    low, high = finished["rules"]["rmse_range"]
    assert low <= row_of(finished, "torch", "float32")["final"]["valid_rmse"] <= high
    assert finished["verdict"].startswith("all ")


def test_the_folds_show_the_checks_and_the_warm_up_under_their_headings(finished: Json) -> None:
    _, checks, costs = (fold.table for fold in report._folds(finished))
    assert checks is not None and costs is not None
    rows = [row for row in finished["rows"] if row["status"] == "ok"]
    for row, checked, cost in zip(rows, checks.rows, costs.rows, strict=True):
        told = [cell.value for cell in (*checked.cells[1:3], *cost.cells[5:8])]
        assert told[:2] == [row["check"][name] for name in ("gradient", "trajectory")]
        assert told[2:] == [row["warm_up"][name] for name in ("imports_s", "data_s", "first_fit_s")]


def test_float32_bound_is_the_measured_drift(finished: Json) -> None:
    drift = max(
        r["difference"]["largest"]
        for r in finished["rows"]
        if r["problem"] == "full" and r["dtype"] == "float64" and r["status"] == "ok"
    )
    assert finished["problems"]["full"]["float64_drift"] == drift
    expected = max(drift, 2.0**-52) * 2.0**29 * equality.SAFETY
    assert row_of(finished, "torch", "float32")["difference"]["bound"] == expected


def test_written_files_are_private_deterministic_and_readable(finished: Json, tmp_path: Path) -> None:
    json_path, html_path = suite.write(finished, tmp_path)
    text, page = json_path.read_text("utf-8"), html_path.read_text("utf-8")
    assert result.load(json_path) == finished
    assert report.render(finished) == report.render(result.load(json_path)) == page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "result.json"]
    for private in (str(Path.home()), str(machine.ROOT), str(tmp_path), "/tmp/"):
        assert private not in text
    for name in (getpass.getuser(), socket.gethostname()):
        assert not re.search(rf"[\"/ ]{re.escape(name)}[\"/ ]", text)
    embedded = re.search(r'<script type="application/json" id="result">(.*?)</script>', page, re.DOTALL)
    assert embedded is not None
    assert json.loads(embedded[1]) == finished
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page)
    assert page.count("<svg") == 4
    assert finished["verdict"].split(";")[0] in page
    assert "Date" not in page.split("<svg", 1)[1].split("</svg>", 1)[0]


def test_report_of_an_earlier_file_is_the_same(finished: Json, tmp_path: Path) -> None:
    json_path, html_path = suite.write(finished, tmp_path)
    assert cli.main(["report", str(json_path), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_bytes() == html_path.read_bytes()


def test_a_mistyped_command_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    for typed, meant in (("raec", "race"), ("clikcs", "clicks")):
        assert cli.main([typed]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert said.startswith(f"error: command is '{typed}'") and said.endswith(f"Did you mean '{meant}'?")


def test_the_report_sets_rmse_against_the_seconds_of_training(finished: Json) -> None:
    (picture,) = (one for one in figures.pictures(finished) if one.title == "RMSE against seconds")
    full = [row for row in finished["rows"] if row["problem"] == "full" and row["history"]]
    assert all(f"{row['backend']} · {row['dtype']}" in picture.svg for row in full)
    points = [
        (sum(record["seconds"] for record in row["history"][: at + 1]), record["valid_rmse"])
        for row in full
        for at, record in enumerate(row["history"])
    ]
    lowest = min(rmse for _, rmse in points)
    assert f"{lowest:.4f} is reached after " in picture.about
    front = figures.pareto(points)
    assert all(any(s <= x and rmse <= y for s, rmse in front) for x, y in points)
    assert not any(s < x and rmse < y for s, rmse in front for x, y in front)
    for row in full:
        seconds = 0.0
        for record in row["history"]:
            seconds += record["seconds"]
            if record["valid_rmse"] <= lowest + 1e-4:
                assert f"{seconds:.3g} s by {figures._name(row)} · {row['dtype']}" in picture.about
                break


def test_the_comparison_stands_beside_other_results(finished: Json) -> None:
    (scaling,) = book.read([next((machine.ROOT / "bench" / "results").rglob("links.json"))])
    text = book.render([("result.json", finished), scaling])
    assert finished["verdict"].split(";")[0] in text and text.count("<svg") == 4 + 2
    shown = book.render([("result.json", finished)], "md").splitlines()
    assert len([line for line in shown if line.startswith("| ")]) == 2 + len(finished["rows"])
    assert any(line.startswith("| numba | cpu | float64 | ok |") for line in shown)


def test_a_result_beside_itself(finished: Json, tmp_path: Path) -> None:
    json_path, _ = suite.write(finished, tmp_path)
    found = compare.compare(json_path, json_path, slower=1.0, rmse=0.0)
    ran = [row for row in finished["rows"] if row["status"] == "ok"]
    assert [row["ratio"] for row in found["times"]] == [1.0] * len(ran)
    assert len(found["rmse"]) == sum(row["problem"] == "full" for row in ran)
    assert compare.exit_code(found) == 0 and found["data"] == "planted"


def test_tables_show_every_row(finished: Json) -> None:
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table.rich(finished))
    for text in (table.plain(finished), console.export_text()):
        lines = text.splitlines()
        assert sum(line.split()[:1] == ["numba"] and "float64" in line for line in lines) == 1
        assert "noise floor" in text


def test_the_slice_shows_no_validation(finished: Json) -> None:
    at = [column.title for column in table.COLUMNS].index("valid RMSE")
    shown = [(row["problem"], table.cells(row)) for row in finished["rows"] if row["status"] == "ok"]
    assert {problem for problem, _ in shown} == {"slice", "full"}
    for problem, texts in shown:
        assert (texts[at] == "–") == (problem == "slice")
        assert texts[at - 1] != "–"


def test_the_report_shows_every_column(finished: Json, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is not installed")
    probe = """<script>
    const box = document.querySelector(".wide");
    document.body.dataset.room = box.clientWidth;
    document.body.dataset.needed = box.scrollWidth;
    </script>"""
    page = tmp_path / "report.html"
    page.write_text(report.render(finished).replace("</body>", probe + "</body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", f"--user-data-dir={tmp_path}", "--window-size=1100,900"]
    shown = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, encoding="utf-8", timeout=120
    ).stdout
    room, needed = (re.search(rf'<body[^>]* data-{name}="(\d+)"', shown) for name in ("room", "needed"))
    assert room is not None
    assert needed is not None
    assert 900 < int(room[1]) < 1100
    assert int(needed[1]) <= int(room[1])


def test_fresh_processes_and_a_crash_in_one_of_them(tiny: suite.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        if case.dtype == "float32" and case.device == "cpu":
            order = order | {"data": "absent.npz"}
        elif case.device == "cuda":
            return {"status": "not run", "reason": "no CUDA device"}, {}
        return launch.in_fresh_process(case, order, folder)

    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    outcome = run(tiny, start, only=("torch",))
    assert outcome["environment"]["removed"] == ["OPENBLAS_CORETYPE"]
    whole = row_of(outcome, "torch", "float64")
    assert whole["status"] == "ok"
    assert whole["threads"]["variables"]["OMP_NUM_THREADS"] == "1"
    assert whole["threads"]["torch"] == 1
    assert whole["peak_memory_bytes"] > 0
    crashed = row_of(outcome, "torch", "float32")
    assert crashed["status"] == "FAILED"
    assert crashed["reason"].startswith("FileNotFoundError")
    assert "absent.npz" in crashed["reason"]
    assert "/" not in crashed["reason"]
    assert suite.exit_code(outcome) == 1
    assert "FAILED" in report.render(outcome)


def test_a_dead_worker_is_a_reason(tiny: suite.Data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\nkill -9 $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    case = Case("full", "numpy", "cpu", "float64")
    outcome, arrays = launch.in_fresh_process(case, {"threads": 1}, tmp_path)
    assert outcome == {"status": "failed", "reason": "the worker was ended by SIGKILL"}
    assert arrays == {}


class TwiceTheFactorTwo(NumpyEngine):
    """A wrong gradient: the penalty's factor 2 counted twice."""

    def step(self, state: State, batch: Any, config: Config) -> State:
        return super().step(state, batch, replace(config, reg=2 * config.reg))


def test_a_wrong_gradient_fails_before_it_is_timed(tiny: suite.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    right = worker.engine_for

    def wrong(backend: str, device: str) -> Any:
        return TwiceTheFactorTwo("numba") if backend == "numba" else right(backend, device)

    monkeypatch.setattr(worker, "engine_for", wrong)
    outcome = run(tiny, in_process)
    for dtype in ("float64", "float32"):
        row = row_of(outcome, "numba", dtype)
        assert row["status"] == "FAILED"
        assert row["reason"].startswith("before timing")
        assert row["timing"] is None
    assert suite.exit_code(outcome) == 1
    assert outcome["verdict"].startswith("FAILED: numba float64")


@pytest.mark.parametrize(("dtype", "off"), [("float64", 1e-9), ("float32", 1e-3)])
def test_parameters_out_of_bound_fail(tiny: suite.Data, dtype: str, off: float) -> None:
    def start(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        outcome, arrays = in_process(case, order, folder)
        if (case.backend, case.dtype) == ("numba", dtype):
            arrays["50/P"] = arrays["50/P"] * (1 + off)
        return outcome, arrays

    outcome = run(tiny, start)
    row = row_of(outcome, "numba", dtype)
    assert row["status"] == "FAILED"
    assert "differ from the reference" in row["reason"]
    assert row["timing"] is not None
    # Without a float64 run to measure the drift by, no float32 run can be called right.
    float32 = "FAILED" if dtype == "float64" else "ok"
    assert [r["status"] for r in outcome["rows"] if r["backend"] == "numpy"] == ["ok", float32]
    assert suite.exit_code(outcome) == 1
    assert row["reason"].split(",")[0] in report.render(outcome)


@pytest.mark.parametrize(
    ("backends", "words"),
    [({"numba"}, "but the reference has"), ({"numpy", "numba"}, "noise floor allows")],
)
def test_a_wrong_rmse_fails(tiny: suite.Data, backends: set[str], words: str) -> None:
    def start(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        outcome, arrays = in_process(case, order, folder)
        if case.backend in backends:
            outcome["final"]["valid_rmse"] *= 1.5
        return outcome, arrays

    outcome = run(tiny, start)
    assert {row["status"] for row in outcome["rows"] if row["backend"] in backends} == {"FAILED"}
    assert all(words in row["reason"] for row in outcome["rows"] if row["backend"] in backends)
    assert suite.exit_code(outcome) == 1


def test_time_is_never_a_failure(tiny: suite.Data) -> None:
    def start(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        outcome, arrays = in_process(case, order, folder)
        for record in outcome["history"]:
            record["seconds"] += 1000.0
        return outcome, arrays

    assert suite.exit_code(run(tiny, start)) == 0


def test_a_busy_machine_claims_no_speed(finished: Json) -> None:
    cores = finished["machine"]["cores"]["logical"]
    held = finished | {"rows": [row | {"others_busy_cores": cores} for row in finished["rows"]]}
    assert result.busy(finished) is None
    assert "fastest is" in result.verdict(finished)
    assert "no speed is claimed" in result.verdict(held)
    for text in (table.plain(held), report.render(held)):
        assert "their times are not to be trusted" in text


def test_interruption_keeps_what_is_finished(tiny: suite.Data) -> None:
    def start(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        if case.dtype == "float32":
            raise KeyboardInterrupt
        return in_process(case, order, folder)

    outcome = run(tiny, start)
    assert [row["status"] for row in outcome["rows"]] == ["ok", "ok", "not run", "not run"]
    assert suite.exit_code(outcome) == 130
    assert outcome["interrupted"]
    assert outcome["verdict"].startswith("Interrupted: ")
    report.render(outcome)


def test_nothing_finished_still_makes_a_report(tiny: suite.Data) -> None:
    outcome = run(tiny, lambda case, order, folder: ({"status": "failed", "reason": "no"}, {}))
    assert suite.exit_code(outcome) == 1
    assert "<svg" not in report.render(outcome)
    table.plain(outcome)


def test_a_short_run_is_not_judged_by_its_rmse(tiny: suite.Data) -> None:
    outcome = run(tiny, in_process, epochs=5)
    assert outcome["rules"]["rmse_range"] is None
    assert "fewer epochs" in outcome["rules"]["rmse_not_judged_because"]
    assert suite.exit_code(outcome) == 0


def test_choice_of_cases() -> None:
    assert [case.key for case in choose_cases(("numpy",))] == [
        "full-numpy-cpu-float64",
        "full-numba-cpu-float64",
        "full-numpy-cpu-float32",
    ]
    assert {case.device for case in choose_cases(("cuda",)) if case.backend == "torch"} == {"cuda"}
    with pytest.raises(ConfigError, match="Did you mean 'numpy'"):
        choose_cases(("nump",))
    assert snapshots(5) == [1, 2, 3, 4, 5]
    assert snapshots(80)[-1] == 80


def test_wrong_options_end_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--only", "nump"], ["--epochs", "3"], ["--suite", "smke"], ["--data", "no/such/file.csv"]):
        assert cli.main(arguments) == 2
    assert "at least 5" in capsys.readouterr().err


def test_other_files_are_refused(tmp_path: Path, finished: Json) -> None:
    path = tmp_path / "x.json"
    for text, words in (("<", "not JSON"), ("{}", "no benchmark"), (json.dumps(finished | {"schema_version": 9}), "9")):
        path.write_text(text)
        with pytest.raises(FileFormatError, match=words):
            result.load(path)


def test_worker_writes_the_reason_of_an_error(tmp_path: Path) -> None:
    case = {"problem": "full", "backend": "nump", "device": "cpu", "dtype": "float64"}
    (tmp_path / "case.json").write_text(json.dumps({"case": case, "threads": 1}))
    assert worker.main([str(tmp_path / "case.json"), str(tmp_path / "out.json")]) == 0
    outcome = json.loads((tmp_path / "out.json").read_text())
    assert outcome["reason"].startswith("ConfigError: backend is 'nump'")
    assert worker.main([]) == 2


def test_saved_data_comes_back(tiny: suite.Data, tmp_path: Path) -> None:
    worker.save_data(tmp_path / "d.npz", tiny.train, tiny.valid)
    train, valid = worker.load_data(tmp_path / "d.npz")
    assert isinstance(train, Ratings)
    assert train.fingerprint == tiny.train.fingerprint
    assert (train.n_users, train.n_items) == (tiny.train.n_users, tiny.train.n_items)
    np.testing.assert_array_equal(valid.users, tiny.valid.users)
