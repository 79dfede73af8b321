"""Systems tuned, scored and compared; a run that is killed at any moment goes on without losing a finished fit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclopts")

from bench import accuracy, accuracy_rows, accuracy_worker, cli, installed, machine
from bench.accuracy_plan import LEAST_LIMIT, LIMIT, Step, left, limit_of, plan
from bench.cases import Case
from bench.launch import Json, in_fresh_process, run_to_end
from bench.protocols import PROTOCOLS, find
from bench.systems import System
from mf_numpy import Config, Holdout, Ratings, ensemble, fit
from mf_numpy.errors import ConfigError
from tests.accuracy_killed import PROTOCOL, SYSTEMS, launch


def run(path: Path, **more: Any) -> tuple[Json, list[str]]:
    """A run of the fake systems, and what it began."""
    begun: list[str] = []

    def say(text: str) -> None:
        if not text.startswith("  "):
            begun.append(text.rpartition(": ")[2])

    given: dict[str, Any] = {"systems": SYSTEMS, "threads": 1, "launch": launch, "say": say} | more
    return accuracy.measure(PROTOCOL, path, **given), begun


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Json:
    return run(tmp_path_factory.mktemp("accuracy") / "run.json")[0]


def test_each_point_is_tried_on_a_part_of_the_training_ratings_and_the_best_goes_to_every_test(outcome: Json) -> None:
    first = PROTOCOL.fold(0).split
    good = next(row for row in outcome["systems"] if row["system"] == "good")
    assert [one["settings"]["reg"] for one in good["tuned"]["tried"]] == [0.1, 0.2, 0.3]
    assert good["tuned"]["settings"] == {"reg": 0.2} and good["tuned"]["epochs"] == 2
    assert len(good["folds"]) == PROTOCOL.folds == len(outcome["tests"])
    assert outcome["complete"] and outcome["tests"][0]["n_train"] == len(first.train)
    # Never the test: its values are not what the points were scored on.
    sizes = {order["n"] for order in launch.seen if order["data"] == "tuning.npz"}
    assert sizes == {len(first.train) - round(0.1 * len(first.train))}


def test_rows_follow_from_the_predictions(outcome: Json) -> None:
    rows = {row["system"]: row for row in outcome["systems"]}
    sides = [PROTOCOL.fold(k).split for k in range(PROTOCOL.folds)]
    error = [0.5 * np.ones(side.valid.n_scored) for side in sides]
    assert rows["good"]["rmse"] == pytest.approx(np.sqrt(np.mean(np.concatenate(error) ** 2)))
    assert rows["good"]["interval"] == pytest.approx([0.5, 0.5]) and rows["good"]["behind"] is None
    assert rows["worse"]["behind"]["of"] == "good" and rows["worse"]["behind"]["p"] < 0.01
    assert rows["worse"]["behind"]["interval"] == pytest.approx([0.25, 0.25])
    (pair,) = outcome["pairs"]
    assert (pair["a"], pair["b"]) == ("good", "worse") and pair["mae"]["interval"] == pytest.approx([-0.25, -0.25])
    assert sum(part["n"] for part in rows["good"]["by_user"]) == sum(side.valid.n_scored for side in sides)
    assert rows["good"]["calibration"]["slope"] == pytest.approx(1.0)
    assert rows["good"]["seconds"] == 2.0
    lines = list(accuracy_rows.summary(outcome))
    assert lines[1].startswith("good ") and "reg 0.2, 2 epochs" in lines[1]
    assert any(line.startswith("broken") and "failed: out of luck" in line for line in lines)
    assert lines[-1].startswith("bias-only")


def test_one_that_fails_is_a_row_with_its_reason(outcome: Json) -> None:
    (row,) = (row for row in outcome["systems"] if row["system"] == "broken")
    assert (row["status"], row["reason"], row["rmse"]) == ("failed", "out of luck", None)
    short = outcome["cases"]["short, point 0"]
    assert short["status"] == "failed" and "predictions were asked for, but (3,) came" in short["reason"]


def test_a_peer_that_is_not_installed_is_asked_once(tmp_path: Path) -> None:
    asked = []

    def peers(name: str, *sides: Any, **more: Any) -> Json:
        asked.append(name)
        return {"status": "not run", "reason": "not installed"}

    systems = (System("absent", ({"reg": 0.1}, {"reg": 0.2}), (1,), peer="libmf"),)
    found, _ = run(tmp_path / "run.json", systems=systems, peers=peers)
    assert asked == ["libmf"] and found["systems"][0]["reason"] == "not installed" and found["complete"]


def test_ctrl_c_keeps_what_is_done_and_resume_goes_on(tmp_path: Path, outcome: Json) -> None:
    path = tmp_path / "run.json"

    def interrupted(case: Case, order: Json, folder: Path) -> Any:
        if len(json.loads(path.read_text())["cases"]) == 8:
            raise KeyboardInterrupt
        return launch(case, order, folder)

    first, begun = run(path, launch=interrupted)
    assert begun[8:] == ["worse, test 0", "what was measured is kept; --resume goes on"]
    assert not first["complete"] and len(first["cases"]) == 8
    assert json.loads(path.read_text())["systems"] == first["systems"]
    assert cli.main(["report", str(path)]) == 0
    assert {row["reason"] for row in first["systems"] if row["rmse"] is None} >= {"interrupted"}
    with pytest.raises(ConfigError, match="is there already"):
        run(path)
    with pytest.raises(ConfigError, match="threads was 1 and is 2"):
        run(path, resume=True, threads=2)
    second, rest = run(path, resume=True)
    assert begun[:8] + rest == [step.key for step in plan(SYSTEMS, PROTOCOL.folds)]
    assert second["systems"] == _without_wall(second, outcome)


def test_a_run_killed_at_any_moment_loses_no_finished_fit(
    tmp_path: Path, outcome: Json, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    for n in (1, 5, 8):
        command = [sys.executable, "-m", "tests.accuracy_killed", str(path)]
        process = subprocess.Popen(command, cwd=machine.ROOT, env=dict(os.environ))
        finished = 0
        for _ in range(6000):
            time.sleep(0.01)
            finished = len(json.loads(path.read_text())["cases"]) if path.exists() else 0
            if finished >= n:
                break
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and finished >= n
    before = json.loads(path.read_text())["cases"]
    assert cli.main(["report", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"the run of tiny was killed after {len(before)} fits; go on with run --resume" in " ".join(said.split())
    found, rest = run(path, resume=True)
    keys = [step.key for step in plan(SYSTEMS, PROTOCOL.folds)]
    assert rest == keys[len(before) :] and len(before) >= 8
    assert {key: found["cases"][key] for key in before} == before
    assert found["complete"] and found["systems"] == _without_wall(found, outcome)


def _without_wall(found: Json, outcome: Json) -> list[Json]:
    """The rows of `outcome` with the seconds of the other run's clock in their places."""
    rows = json.loads(json.dumps(outcome["systems"]))
    for row, other in zip(rows, found["systems"], strict=True):
        for mine, theirs in zip(row["folds"], other["folds"], strict=True):
            mine["wall_s"] = theirs["wall_s"]
    out: list[Json] = rows
    return out


def test_one_of_ours_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Real fits: by gradient descent, by L-BFGS, which ends by itself, and of what users rated."""
    systems = (
        System("gd", ({"n_factors": 1, "lr": 3.0, "reg": 0.1},), (10, 40), solver="gd", backend="numpy"),
        System("lbfgs", ({"n_factors": 1, "reg": 1.0},), (150, 200), solver="lbfgs", backend="numpy"),
        System("rated", ({"n_factors": 3, "lr": 0.02},), (10, 20), solver="sgd", design="svd++"),
        System("two fits", ({"n_factors": 3, "lr": 0.02},), (10, 20), solver="sgd", members=2),
        System("genres", ({"n_factors": 3},), (10, 20), solver="sgd", design="svd++, genres"),
    )
    found = accuracy.measure(PROTOCOL, tmp_path / "run.json", systems=systems, threads=1, launch=_real)
    rows = found["systems"]
    # Drawn items have no genres.
    assert rows[-1]["status"] == "not run" and "tags asks for column 'genres'" in rows[-1]["reason"]
    for row in rows[:-1]:
        assert row["status"] == "ok", row["reason"]
        assert row["rmse"] < outcome_mean(found) * 1.01 and row["folds"][0]["peak_bytes"] > 0
    assert found["cases"]["lbfgs, point 0"]["points"][0]["epochs"] < 150
    # Of two fits the mean of both, whose seeds differ.
    tuned, scored = (next(row for row in rows if row["system"] == "two fits")[name] for name in ("tuned", "folds"))
    split, config = PROTOCOL.fold(0).split, Config(solver="sgd", n_factors=3, lr=0.02, n_epochs=tuned["epochs"])
    two = ensemble([fit(split.train, replace(config, seed=seed)) for seed in (0, 1)])
    assert scored[0]["rmse"] == pytest.approx(two.score(split.valid).rmse, rel=1e-5)


def test_of_a_chain_the_mean_over_its_draws_is_scored() -> None:
    split = PROTOCOL.fold(0).split
    config = Config(solver="gibbs", n_factors=1, n_epochs=9, burn_in=3, thin=4)
    points, predictions = accuracy_worker.fitted(split.train, split.valid, config, "loops", [2, 5, 9], None)
    history = fit(split.train, config, valid=split.valid, backend="loops").history
    assert [point["rmse"] for point in points] == pytest.approx([history[epoch - 1].valid_rmse for epoch in (2, 5, 9)])
    assert set(predictions) == {2, 5, 9}


def test_what_is_installed_is_measured_with_all_that_it_needs() -> None:
    torch = installed.needed("mf", {"torch"})
    assert {"numpy", "llvmlite", "torch"} <= torch and not {"torch", "pytest"} & installed.needed("mf", set())
    sizes = [installed.mib_of_ours(torch=torch) for torch in (False, True)]
    assert None not in sizes and 100 < sizes[0] < sizes[1] - 100  # type: ignore[operator]
    assert installed._size("numpy") > 10 * 2**20


def outcome_mean(found: Json) -> float:
    return float(np.mean([test["baselines"]["mean"] for test in found["tests"]]))


def _real(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    return in_fresh_process(case, order, folder, module="bench.accuracy_worker")


def test_protocols_divide_every_rating_once_and_say_where_their_data_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (find("planted-small").fold(k) for k in (0, 1))
    assert len(one.split.train) + len(one.split.valid) == 24_000 and one.noise_floor is not None
    assert one.split.train.fingerprint != other.split.train.fingerprint
    assert find("planted-small").fold(0).split.train.fingerprint == one.split.train.fingerprint
    with pytest.raises(ConfigError, match=r"Did you mean 'ml-1m-90-10'\?"):
        find("ml-1m-9010")
    assert find("ml-100k") is PROTOCOLS["ml-100k-official-5"]
    assert cli.main(["protocols"]) == 0
    assert all(name in capsys.readouterr().out or name for name in PROTOCOLS)
    monkeypatch.setenv("MF_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    where = str(tmp_path / "run.json")
    assert cli.main(["run", "--suite", "accuracy", "--data", "ml-10m-90-10", "-o", where]) == 2
    assert "the data set 'ml-10m' is not here" in capsys.readouterr().err
    assert not Path(where).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "peer"], "Did you mean 'peers'?"),
        (["--suite", "smoke", "--resume"], "resume goes on with suites that take hours, not with smoke"),
        (["--suite", "scaling", "--data", "ml-1m"], "scaling draws its own"),
        (["--suite", "gpu", "--threads", "1"], "gpu takes 1 and all"),
        (["--suite", "gpu", "--only", "fused"], "gpu has no parts to choose from"),
        (["--suite", "peers", "--only", "LIBMV"], "Did you mean 'LIBMF'?"),
        (["--suite", "peers", "-o", "x.html"], "out is x.html, where the page will be; name the result x.json"),
        (["--suite", "accuracy", "--data", "ml-100k-oficial"], "Did you mean 'ml-100k-official-5'?"),
    ],
)
def test_a_wrong_option_says_what_is_right(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_peer_that_hangs_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    """The first fit may take its time; later ones ten times as long as the longest that ended."""
    given: list[float] = []

    def peers(name: str, *sides: Any, limit: float, **more: Any) -> Json:
        given.append(limit)
        return {"status": "timed out", "reason": f"after {limit:g} s"}

    systems = (System("slow", ({"reg": 0.1}, {"reg": 0.2}), (1,), peer="libmf"),)
    run(tmp_path / "run.json", systems=systems, peers=peers)
    assert given == [LIMIT, LIMIT]
    cases: Json = {
        "slow, point 0": {"status": "ok", "wall_s": 2.0},
        "slower, point 0": {"status": "ok", "wall_s": 90.0},
    }
    assert limit_of(systems[0], cases) == LEAST_LIMIT
    cases["slow, test 0"] = {"status": "ok", "wall_s": 20.0}
    cases["slow, test 1"] = {"status": "timed out", "wall_s": 900.0}
    assert limit_of(systems[0], cases) == 200.0
    cases["slow, test 2"] = {"status": "ok", "wall_s": 300.0}
    assert limit_of(systems[0], cases) == LIMIT


def test_one_that_waits_for_nothing_is_begun_once_more(tmp_path: Path) -> None:
    begun: list[int] = []

    def peers(name: str, train: Ratings, valid: Holdout, *rest: Any, epochs: tuple[int, ...], **more: Any) -> Json:
        begun.append(1)
        if len(begun) < 4 and len(begun) != 2:
            return {"status": "failed", "reason": "hung: no processor time for 45 s"}
        predictions = np.full(valid.n_scored, 3.0)
        return {"status": "ok", "reason": None, "points": [{"epochs": 1, "seconds": 1.0, "predictions": predictions}]}

    systems = (System("waits", ({"reg": 0.1}, {"reg": 0.2}), (1,), peer="libmf"),)
    cases = run(tmp_path / "run.json", systems=systems, peers=peers)[0]["cases"]
    assert cases["waits, point 0"]["notes"] == ["hung once, and was begun anew"]
    # The second point hung once as well, and the tests did not.
    assert cases["waits, point 1"]["notes"] == ["hung once, and was begun anew"]
    assert "notes" not in cases["waits, test 0"] and len(begun) == 2 + 2 + PROTOCOL.folds


def test_points_of_grids_are_fitted_beside_each_other_and_tests_alone(tmp_path: Path, outcome: Json) -> None:
    """Two at a time meet while tuning, by one thread each; the rest is what one after the other gives."""
    meet = threading.Barrier(2, timeout=30)
    busy = threading.Lock()

    def both(case: Case, order: Json, folder: Path) -> Any:
        if order["data"] == "tuning.npz":
            assert order["threads"] == 1
            meet.wait()
            return launch(case, order, folder)
        assert order["threads"] == 2
        with busy:
            return launch(case, order, folder)

    systems = tuple(system for system in SYSTEMS if system.name in ("good", "worse"))
    found, _ = run(tmp_path / "run.json", systems=systems, threads=2, launch=both)
    alone = {row["system"]: row["rmse"] for row in outcome["systems"]}
    assert {row["system"]: row["rmse"] for row in found["systems"]} == {name: alone[name] for name in ("good", "worse")}
    assert found["complete"] and len(found["cases"]) == 4 + 2 * PROTOCOL.folds


def test_ctrl_c_ends_every_fit_that_runs_beside_the_others(tmp_path: Path) -> None:
    """One thread hears of it; the process that another waits for is ended, and the first is kept."""
    begun = threading.Event()
    reasons = []

    def launch_real(case: Case, order: Json, folder: Path) -> Any:
        if order["config"]["reg"] == 0.1:
            begun.wait(30)
            raise KeyboardInterrupt
        begun.set()
        sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
        reasons.append(run_to_end(sleeper, os.environ, folder / "said", folder / "none"))
        return {"status": "failed", "reason": reasons[0]}, {}

    began = time.monotonic()
    found, _ = run(tmp_path / "run.json", systems=SYSTEMS[:1], threads=2, launch=launch_real)
    assert not found["complete"] and reasons == ["the worker was ended by SIGKILL"]
    assert time.monotonic() - began < 30


def test_left_over_time_is_that_of_steps_of_the_same_kind() -> None:
    cases: Json = {Step(SYSTEMS[0], point=0).key: {"wall_s": 60.0}, Step(SYSTEMS[0], fold=0).key: {"wall_s": 240.0}}
    steps = [Step(SYSTEMS[0], point=1), Step(SYSTEMS[0], point=2), Step(SYSTEMS[0], fold=1)]
    assert left(steps, cases) == ", about 6 min left"
    assert left(steps, cases, beside=2) == ", about 5 min left"


def test_the_worker_stops_where_the_rmse_has_long_been_rising(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    train = Ratings.of_indices(rng.integers(0, 20, 200), rng.integers(0, 15, 200), rng.normal(3, 1, 200), m=20, n=15)
    held_out = Holdout(rng.integers(0, 20, 50), rng.integers(0, 15, 50), rng.normal(3, 1, 50))
    config = SYSTEMS[0].config({"reg": 0.0, "n_factors": 8, "lr": 0.5, "n_epochs": 100})
    points, predictions = accuracy_worker.fitted(train, held_out, config, "numpy", list(range(1, 101)), None)
    best = min(range(len(points)), key=lambda k: float(points[k]["rmse"]))
    # Noise alone: it is learnt by heart, and the sooner stopped the better.
    assert len(points) == best + 1 + accuracy_worker.PATIENCE < 100
    assert sorted(predictions) == [point["epochs"] for point in points]
