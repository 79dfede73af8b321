"""Suites that go on: no finished case is lost when a run is killed, and no file is gone on with as another run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclopts")

from bench import cli, cuda, cuda_worker, machine, progress, scaling, speed
from bench.cuda_cases import NUMBA, CudaCase, Sizes
from bench.launch import Json
from mf_numpy.errors import ConfigError
from tests.bench_fixtures import quiet_machine
from tests.suites_killed import SUITES, TRAIN

MADE = {"speed": ("rows", "ratios"), "scaling": ("rows", "slopes", "threads"), "cuda": ("rows", "crossings")}
"""What each suite makes of its cases."""


@pytest.fixture(autouse=True, scope="module")
def _no_gpu() -> Any:
    with quiet_machine() as patch:
        patch.setattr(cuda, "seen", lambda: None)
        yield


def _finished(path: Path) -> int:
    """Cases that are on disk: in the file, and of the CUDA suite the whole lines beside it."""
    held: Json = json.loads(path.read_text())["cases"] if path.exists() else {}
    lines = cuda._written(path.with_name(path.name + ".parts") / cuda.ROWS)
    return len(held) + sum(bool(row["status"] == "ok") for row in lines if _label(row) not in held)


def _label(row: Json) -> str:
    return CudaCase(**{name: row[name] for name in CudaCase.__dataclass_fields__}).label


def _made(outcome: Json, suite: str) -> Json:
    """What was made of the cases, without what the clock says."""
    made = {name: outcome[name] for name in MADE[suite]}
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("suite", "moments"), [("speed", (1, 7)), ("scaling", (4,)), ("cuda", (5,))])
def test_a_run_killed_at_any_moment_loses_no_finished_case(
    suite: str, moments: tuple[int, ...], tmp_path: Path
) -> None:
    straight = SUITES[suite](tmp_path / "straight.json")
    path = tmp_path / "run.json"
    for n in moments:
        command = [sys.executable, "-m", "tests.suites_killed", suite, str(path)]
        environment = dict(os.environ, CUDA_VISIBLE_DEVICES="")
        process = subprocess.Popen(command, cwd=machine.ROOT, env=environment)
        finished = 0
        for _ in range(6000):
            time.sleep(0.005)
            finished = _finished(path)
            if finished >= n:
                break
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and finished >= n
    finished = _finished(path)
    said: list[str] = []
    found = SUITES[suite](path, resume=True, say=said.append)
    assert found["complete"] and found["cases"] == {} and _made(found, suite) == _made(straight, suite)
    assert not path.with_name("run.json.parts").exists()
    if suite != "cuda":
        places = [line.split(":")[0] for line in said if " of " in line]
        assert places[0].startswith(f"{finished + 1} of ") and all("min left" in place for place in places)
        # What is finished is not measured again.
        assert len(places) == int(places[0].split(" of ")[1].split(",")[0]) - finished
    assert SUITES[suite](path, resume=True, say=said.append) == found and said[-1] == "run.json is complete"


@pytest.mark.parametrize("suite", list(SUITES))
def test_a_file_of_another_run_is_refused(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    _cut_short(suite, path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"run\.json is there already; resume it, or name another file"):
        SUITES[suite](path)
    changes: dict[str, tuple[Json, str]] = {
        "speed": ({"rounds": 2}, "rounds was 3 and is 2"),
        "scaling": ({"threads": (1,)}, r"threads was \[1, 2\] and is \[1\]"),
        "cuda": ({"sizes": Sizes(main=2000)}, "sizes was "),
    }
    more, words = changes[suite]
    with pytest.raises(ConfigError, match=rf"run\.json is of another run: {words}"):
        SUITES[suite](path, resume=True, **more)
    monkeypatch.setattr(machine, "code_hash", lambda: "other")
    with pytest.raises(ConfigError, match="of another run: code was"):
        SUITES[suite](path, resume=True)
    monkeypatch.undo()
    about = machine.machine()
    monkeypatch.setattr(machine, "machine", lambda: about | {"cpu": "Another"})
    with pytest.raises(ConfigError, match="of another run: machine was"):
        SUITES[suite](path, resume=True)
    assert path.read_bytes() == before


def _cut_short(suite: str, path: Path) -> None:
    """A run that Ctrl-C ended after some cases."""

    def say(text: str) -> None:
        if path.exists() and (len(json.loads(path.read_text())["cases"]) > 2):
            raise KeyboardInterrupt

    said: list[str] = []

    def end(text: str) -> None:
        said.append(text)
        if not text.startswith("interrupted"):
            say(text)

    found = SUITES[suite](path, say=end)
    assert not found["complete"] and found["rows"] and said[-1].endswith("what was measured is kept; --resume goes on")


def test_a_finished_file_gives_way_to_the_first_case(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    SUITES["speed"](path)
    before = path.read_bytes()

    def interrupted(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SUITES["speed"](path, say=interrupted)
    assert path.read_bytes() == before
    assert SUITES["speed"](path)["created"] >= json.loads(before)["created"]


def test_the_time_that_was_up_is_no_end(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    first = SUITES["cuda"](path, seconds=1e-9)
    assert not first["complete"] and {row["reason"] for row in first["rows"]} == {cuda.LATE, "no CUDA device"}
    second = SUITES["cuda"](path, resume=True, seconds=60)
    assert second["complete"] and cuda.LATE not in {row["reason"] for row in second["rows"]}
    assert second["seconds"] == pytest.approx(60)


def test_a_worker_whose_starter_was_killed_begins_no_other_case(tmp_path: Path) -> None:
    case = CudaCase(part="full", device="cpu", system=NUMBA, n_ratings=1000, n_factors=2)
    order = {"cases": [case.to_dict()], "n_ratings": 1000, "rows": "rows", "deadline": time.time() + 60, "limit": 0}
    out, _ = cuda_worker.run_case(order | {"parent": -1}, tmp_path)
    assert out["reason"] == "whoever started it has ended" and (tmp_path / "rows").read_text() == ""


def test_the_command_line_passes_it_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    for suite, schema in (("scaling", scaling.SCHEMA), ("gpu", cuda.SCHEMA)):
        path.write_text(json.dumps({"schema": schema, "schema_version": 0, "complete": False}))
        assert cli.main(["run", "--suite", suite, "--resume", "-o", str(path)]) == 2
        assert "run.json has schema version 0" in capsys.readouterr().err
        assert cli.main(["run", "--suite", suite, "-o", str(path)]) == 2
        assert "run.json is there already; resume it" in capsys.readouterr().err
    path.write_text(json.dumps({"schema": speed.SCHEMA, "schema_version": 0, "complete": False}))
    words = ["run", "--suite", "cpu", "--data", "planted", "-o", str(path)]
    assert cli.main([*words, "--resume"]) == 2 and "schema version 0" in capsys.readouterr().err


def test_the_time_that_is_left_is_that_of_steps_of_the_same_kind() -> None:
    steps = speed.plan(("gradient",), (8,), (1,), 3)
    assert progress.said(steps, {}) == "1 of 6" and progress.left(steps, {}) is None
    cases = {steps[0].key: {"wall_s": 60.0}}
    assert progress.left(steps, cases) == pytest.approx(5 * 60)
    cases[steps[1].key] = {"wall_s": 120.0}
    assert progress.said(steps, cases) == "3 of 6, about 6 min left"
    sizes = [scaling.Step(n, 10, "gd") for n in (100, 200, 1000)]
    # 5 s to begin with, and 10 ms for each unit of work.
    took = {step.key: {"wall_s": 5.0 + step.work / 100} for step in sizes[:2]}
    assert progress.left(sizes, took) == pytest.approx(105.0)
    # More work never takes less, and less never less than what took least.
    falling = {sizes[0].key: {"wall_s": 9.0}, sizes[1].key: {"wall_s": 3.0}}
    assert progress.left(sizes, falling) == pytest.approx(6.0)
    steep = {sizes[1].key: {"wall_s": 2.0}, sizes[2].key: {"wall_s": 100.0}}
    assert progress.left(sizes, steep) == pytest.approx(2.0)
    third = next(step for step in steps[2:] if step.kind == steps[0].kind)
    cases[third.key] = {"wall_s": 60.0}
    assert progress.left(steps, cases) == pytest.approx(60 + 2 * 120)
    assert len(TRAIN) == 600
