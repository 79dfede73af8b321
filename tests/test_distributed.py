"""Several processes are one: trajectories within 1e-10, a killed worker's restart bit for bit, and faults that show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

import mf_numpy
from mf_numpy import Config, FitResult, Split
from mf_numpy.check import TRAJECTORY_TOLERANCE, relative_difference

pytest.importorskip("pyarrow")
pytest.importorskip("safetensors")

from mf_numpy import store
from mf_torch import distributed
from mf_torch.distributed.group import fresh
from mf_torch.distributed.partition import partition
from tests.distributed_worker import FAULTS

Json = dict[str, Any]
ROOT = Path(__file__).parent.parent
PARTS = 6

FULL: Json = {"n_factors": 3, "n_epochs": 60, "lr": 5.0, "reg": 0.01, "momentum_form": "nesterov", "dtype": "float64"}
PLAIN: Json = {
    "model": "plain",
    "penalty": "total",
    "loss": "pseudo_huber",
    "init": "truncated_normal",
    "momentum_form": "ema",
    "lr_schedule": [[4, 0.5]],
    "n_factors": 4,
    "n_epochs": 12,
    "lr": 3.0,
    "reg": 1e-4,
    "dtype": "float64",
}
BEST: Json = {
    "n_factors": 8,
    "n_epochs": 80,
    "lr": 20.0,
    "reg": 0.0,
    "patience": 5,
    "momentum": 0.0,
    "dtype": "float64",
}
BROKEN: Json = FULL | {"n_epochs": 6}
SINGLE: Json = FULL | {"n_epochs": 12, "dtype": "float32", "init_scale": 0.1}
CONFIGS = {"full": FULL, "plain": PLAIN, "best": BEST}
REPLICATED = ("averaged", "penalty-on-each", "local-n", "local-mean", "local-counts", "first-rows-drawn")
RING = ("partial-dropped", "rows-of-the-block-before", "local-n")
FORMS = {"replicated": False, "ring": True}


@pytest.fixture(scope="module")
def folder(small: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `small` ratings in six parts."""
    target = tmp_path_factory.mktemp("distributed") / "parts"
    partition(small.train, target, parts=PARTS, valid=small.valid)
    return target


@pytest.fixture(scope="module")
def outcomes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Where two, or three, processes left what they fitted; each number of them is started once."""
    done: dict[int, Path] = {}

    def of(processes: int) -> Path:
        if processes not in done:
            done[processes] = _run(processes, folder, tmp_path_factory.mktemp(f"processes-{processes}"))
        return done[processes]

    return of


def _run(processes: int, folder: Path, out: Path) -> Path:
    fits = [
        {"name": f"{form}-{name}", "config": config, "shard_items": sharded}
        for form, sharded in FORMS.items()
        for name, config in (CONFIGS | {"once": SINGLE, "twice": SINGLE}).items()
    ]
    # Again in two parts: a second fit goes on from the points of the first.
    for form, sharded in FORMS.items():
        for config in (SINGLE | {"n_epochs": 5}, SINGLE):
            how = {"checkpoint": str(out / form), "checkpoint_every": 4}
            fits.append({"name": f"{form}-resumed", "config": config, "shard_items": sharded} | how)
    if processes == 2:
        for form, names in (("replicated", REPLICATED), ("ring", RING)):
            fits += [
                {"name": f"{form}-{name}", "config": BROKEN, "shard_items": FORMS[form], "fault": name}
                for name in names
            ]
        lacking = out / "lacking"
        lacking.mkdir()
        for file in sorted(folder.rglob("*.*")):
            if file.parent.name != f"part={PARTS - 1}":
                (lacking / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                (lacking / file.relative_to(folder)).write_bytes(file.read_bytes())
        fits.append({"name": "lacking", "config": BROKEN, "folder": str(lacking)})
    order = {
        "processes": processes,
        "store": str(out / "store"),
        "out": str(out),
        "fits": [{"folder": str(folder)} | fit for fit in fits],
    }
    file = out / "order.json"
    file.write_text(json.dumps(order), encoding="utf-8")
    command = [sys.executable, "-m", "tests.distributed_worker", str(file)]
    workers = [
        subprocess.Popen([*command, str(rank)], cwd=ROOT, env=_loopback(), stderr=subprocess.PIPE, text=True)
        for rank in range(processes)
    ]
    try:
        for worker in workers:
            _, errors = worker.communicate(timeout=240)
            assert worker.returncode == 0, errors
    finally:
        for worker in workers:
            worker.kill()
    return out


def _loopback() -> dict[str, str]:
    return dict(os.environ, GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")


def _said(out: Path, name: str, rank: int = 0) -> Json:
    found: Json = json.loads((out / f"{name}-{rank}.json").read_text(encoding="utf-8"))
    return found


def fitted(folder: Path, config: Config, **how: Any) -> FitResult:
    result = distributed.fit(folder, config, **how)
    assert isinstance(result, FitResult)
    return result


def _worst(history: list[list[float]], result: FitResult, gold: FitResult) -> float:
    rows = [[record.objective, record.train_rmse, record.valid_rmse or 0.0] for record in gold.history]
    if len(rows) != len(history):
        return float("inf")
    theta = result.params.tensors()
    return max(
        relative_difference(np.array(history), np.array(rows)),
        *(relative_difference(theta[name], x) for name, x in gold.params.tensors().items()),
    )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("processes", [1, 2, pytest.param(3, marks=pytest.mark.thorough)])
def test_the_trajectory_is_that_of_a_single_process(
    small: Split, folder: Path, outcomes: Callable[[int], Path], processes: int, form: str, name: str
) -> None:
    config = Config(**CONFIGS[name])
    gold = mf_numpy.fit(small.train, config, valid=small.valid, backend="numpy")
    if processes == 1:
        mine = fitted(folder, config, shard_items=FORMS[form])
    else:
        mine = store.load(outcomes(processes) / f"{form}-{name}.safetensors")
    history = [[record.objective, record.train_rmse, record.valid_rmse or 0.0] for record in mine.history]
    assert _worst(history, mine, gold) <= TRAJECTORY_TOLERANCE
    assert (mine.status, mine.message) == (gold.status, gold.message)
    assert mine.details == {"processes": processes, "shard_items": FORMS[form]}
    for key, theta in gold.state.params.tensors().items():
        assert relative_difference(mine.state.params.tensors()[key], theta) <= TRAJECTORY_TOLERANCE
    assert (mine.state.velocity is None) == (gold.state.velocity is None)
    # Ids, μ and what each user rated are those of the ratings as they came.
    assert mine.catalogue.user_ids == small.train.user_ids and mine.catalogue.item_ids == small.train.item_ids
    assert mine.catalogue.mean == small.train.mean
    assert np.array_equal(mine.catalogue.seen.indptr, small.train.csr.indptr)
    assert np.array_equal(mine.catalogue.seen.indices, small.train.csr.indices)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("processes", [2, 3])
def test_two_runs_of_as_many_processes_have_the_same_bits(
    outcomes: Callable[[int], Path], processes: int, form: str
) -> None:
    one, two = (store.load(outcomes(processes) / f"{form}-{name}.safetensors") for name in ("once", "twice"))
    for key, theta in one.params.tensors().items():
        assert theta.dtype == np.float32 and np.array_equal(theta, two.params.tensors()[key])
    assert [r.objective for r in one.history] == [r.objective for r in two.history]
    # The processes agree on all that is not their own.
    assert not _said(outcomes(processes), f"{form}-once", 1)["whole"]
    assert all(
        _said(outcomes(processes), f"{form}-once", 1)[key] == _said(outcomes(processes), f"{form}-once")[key]
        for key in ("objective", "valid_rmse", "status", "message")
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("processes", [2, 3])
def test_a_fit_that_goes_on_is_the_straight_one(outcomes: Callable[[int], Path], processes: int, form: str) -> None:
    straight, resumed = (store.load(outcomes(processes) / f"{form}-{name}.safetensors") for name in ("once", "resumed"))
    for key, theta in straight.params.tensors().items():
        assert np.array_equal(resumed.params.tensors()[key], theta)
    assert straight.state.velocity is not None and resumed.state.velocity is not None
    for key, v in straight.state.velocity.items():
        assert np.array_equal(resumed.state.velocity[key], v)
    assert [r.objective for r in resumed.history] == [r.objective for r in straight.history]
    sides = [f"users-{r}-of-{processes}" for r in range(processes)]
    sides += [f"items-{s}-of-{processes}" for s in range(processes)] if FORMS[form] else ["items-0-of-1"]
    names = {path.name for path in (outcomes(processes) / form / "epoch-00000012").iterdir()}
    assert names == {"manifest.json", *(f"{side}.safetensors" for side in sides)}


@pytest.mark.parametrize(
    ("form", "fault"), [*(("replicated", name) for name in REPLICATED), *(("ring", name) for name in RING)]
)
def test_a_wrong_sum_over_processes_is_noticed(
    small: Split, outcomes: Callable[[int], Path], form: str, fault: str
) -> None:
    gold = mf_numpy.fit(small.train, Config(**BROKEN), valid=small.valid, backend="numpy")
    said = _said(outcomes(2), f"{form}-{fault}")
    if "error" in said:
        # Before anybody compares: the processes themselves see that they came apart.
        assert said["error"] == "RuntimeError" and "different Q" in said["text"]
        return
    history = [list(row) for row in zip(said["objective"], said["train_rmse"], said["valid_rmse"], strict=True)]
    result = store.load(outcomes(2) / f"{form}-{fault}.safetensors")
    assert _worst(history, result, gold) > 1e3 * TRAJECTORY_TOLERANCE
    assert {*REPLICATED, *RING} == FAULTS.keys()


def test_what_one_process_lacks_all_complain_of(outcomes: Callable[[int], Path]) -> None:
    first, second = (_said(outcomes(2), "lacking", rank) for rank in (0, 1))
    assert first["error"] == second["error"] == "DataError"
    assert second["text"].startswith("part 5 of ") and "is missing; copy it there, or partition" in second["text"]
    assert first["text"] == f"process 1: {second['text']}"


# A worker killed under torchrun


def test_after_a_kill_the_end_is_the_same_bit_for_bit(
    folder: Path, outcomes: Callable[[int], Path], tmp_path: Path
) -> None:
    pytest.importorskip("cyclopts")
    settings = {name.replace("_", "-"): str(value) for name, value in SINGLE.items()}
    options = [token for name, value in settings.items() for token in (f"--{name}", value)]
    launch = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    launch += ["--nproc-per-node", "2", "--max-restarts", "1", "--monitor-interval", "0.1"]
    command = ["-m", "torch.distributed.run", *launch, "-m", "tests.distributed_killed", "fit", str(folder), *options]
    command += ["--tol", "0", "--checkpoint", str(tmp_path / "points"), "--checkpoint-every", "3"]
    done = subprocess.run(
        [sys.executable, *command, "--output", str(tmp_path / "model.safetensors")],
        cwd=ROOT,
        env=_loopback() | {"MF_TEST_KILL": "7"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "exitcode: -9" in done.stderr or "SIGKILL" in done.stderr, done.stderr
    straight = store.load(outcomes(2) / "replicated-once.safetensors")
    mine = store.load(tmp_path / "model.safetensors")
    assert mine.config == straight.config
    for key, theta in straight.params.tensors().items():
        assert np.array_equal(mine.params.tensors()[key], theta), key
    assert [r.objective for r in mine.history] == [r.objective for r in straight.history]
    points = sorted(path.name for path in (tmp_path / "points").iterdir())
    assert points == ["epoch-00000009", "epoch-00000012"]
    # Nothing there can hold a pickle.
    assert {path.suffix for path in (tmp_path / "points").rglob("*.*")} == {".safetensors", ".json"}


def test_a_new_life_does_not_hear_the_one_before() -> None:
    """torchrun's store keeps what earlier processes wrote, such as addresses where nobody listens any more."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True)  # type: ignore[attr-defined]
    stores = [dist.TCPStore("127.0.0.1", server.port) for _ in range(3)]  # type: ignore[attr-defined]
    for rank in (1, 2):
        server.set(f"hello/{rank}", "said by a process that is gone")
    for life in range(3):
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(fresh, stores, (0, 1, 2), (3, 3, 3)))
        assert not found[0].check(["address"])
        found[life].set("address", str(life))
        assert {one.get("address") for one in found} == {str(life).encode()}
