"""Instructions of a rating: what is subtracted from what, what callgrind says, and one real count."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import instructions, kernels, result, worker
from bench.cases import as_holdout
from bench.launch import Json
from mf_numpy import ConfigError
from mf_numpy.planted import PlantedConfig, planted

TRAIN = planted(PlantedConfig(n_users=40, n_items=30, n_ratings=600, n_factors=2)).ratings
WRITTEN = """version: 1
events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw
fn=???
0 900
totals: 900 300 100 1 20 5 1 2 1
"""


def _counted(order: Json, folder: Path) -> dict[str, dict[str, int]]:
    """Fifty instructions of each rating, seven reads and so on."""
    each = {"Ir": 50, "Dr": 7, "Dw": 3, "D1mr": 2, "D1mw": 1, "DLmr": 0, "DLmw": 0}
    return {kernel: {name: n * len(TRAIN) for name, n in each.items()} for kernel in order["kernels"]}


def test_events_are_shared_out_among_the_ratings() -> None:
    said: list[str] = []
    found = instructions.measure(TRAIN, "planted", factors=(4, 8), count=_counted, say=said.append)
    assert result.clean(found) == json.loads(json.dumps(found)) and found["complete"]
    assert len(found["rows"]) == 2 * len(instructions.COUNTED) and len(said) == 2
    for row in found["rows"]:
        assert (row["instructions"], row["reads"], row["writes"]) == (50, 7, 3)
        assert (row["l1_misses"], row["last_level_misses"]) == (3, 0)
    assert ["gradient", "8", "50.0", "7.0", "3.0", "3.00", "0.000"] in map(str.split, instructions.summary(found))


def test_ctrl_c_keeps_what_is_counted() -> None:
    def interrupted(text: str) -> None:
        if "K = 8" in text:
            raise KeyboardInterrupt

    found = instructions.measure(TRAIN, "planted", factors=(4, 8), count=_counted, say=interrupted)
    assert not found["complete"] and {row["n_factors"] for row in found["rows"]} == {4}


def test_the_totals_are_those_that_callgrind_writes() -> None:
    assert instructions.events(WRITTEN)["Ir"] == 900 and instructions.events(WRITTEN)["DLmw"] == 1
    with pytest.raises(RuntimeError, match=r"no totals, but ended with \['Killed'\]"):
        instructions.events("starting\nKilled")


@pytest.mark.parametrize("given", [{"factors": (0,)}, {"only": ("gradients",)}])
def test_what_it_does_not_take(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"must be"):
        instructions.measure(TRAIN, "planted", count=_counted, **given)


def test_without_valgrind_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="install the package valgrind"):
        instructions.measure(TRAIN, "planted")


def test_a_kernel_is_counted_from_its_second_call_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[Any] = []
    monkeypatch.setattr(kernels, "call_of", lambda name, train, config: lambda: did.append(name))
    monkeypatch.setattr(instructions, "ask", did.append)
    worker.save_data(tmp_path / "data.npz", TRAIN, as_holdout(TRAIN.take(np.arange(1))))
    names = ["gradient", "sgd"]
    order = {"data": "data.npz", "n_factors": 4, "kernels": names}
    assert instructions.run_case(order, tmp_path)[0]["status"] == "ok"
    start, stop, zero, dump = instructions.START, instructions.STOP, instructions.ZERO, instructions.DUMP
    each = [[name, start, zero, name, dump, stop] for name in names]
    assert did == [stop, *each[0], *each[1]]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="a request is an instruction of x86-64")
def test_without_valgrind_a_request_does_nothing() -> None:
    instructions.ask(instructions.START)
