"""How time and memory grow: what is tried, slopes, and memory above the ratings; nothing here judges time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest

from bench import machine, result, scaling
from bench.cases import Case
from bench.launch import Json, in_fresh_process
from mf_numpy import Config
from mf_numpy.errors import ConfigError

PLAN = scaling.Plan(ratings=(1000, 4000), factors=(2, 4, 8), n_fixed=1000, k_fixed=4)


def _grows(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """A solver whose epoch takes N·K² µs by one thread, and half of that by two."""
    from bench import worker

    n, k = len(worker.load_data(folder / order["data"])[0]), order["config"]["n_factors"]
    samples = {str(t): [n * k**2 / t / 1e3] * 5 for t in order["each"]}
    memory = {
        "parameter_bytes": 100,
        "rating_bytes": 16 * n,
        "peak_bytes": 300 + 10 * n,
        "unsorted_peak_bytes": 300 + 14 * n,
    }
    return {"status": "ok", "reason": None, "samples_ms": samples} | memory, {}


def test_slopes_gains_and_memory_follow_from_the_samples() -> None:
    said: list[str] = []
    found = scaling.measure(PLAN, solvers=("gd", "als"), threads=(1, 2), launch=_grows, say=said.append)
    assert result.clean(found) == json.loads(json.dumps(found)) and found["complete"]
    assert PLAN.points() == [(1000, 2), (1000, 4), (1000, 8), (4000, 4)]
    assert len(found["rows"]) == 4 * 2 * 2 and sum(text.startswith("drawing") for text in said) == 2
    assert {(s["over"], round(s["slope"], 9)) for s in found["slopes"]} == {("N", 1.0), ("K", 2.0)}
    assert len(found["slopes"]) == 2 * 2 * 2
    assert {one["ratio"] for one in found["threads"]} == {2.0} and len(found["threads"]) == 8
    assert {row["spare_bytes_per_rating"] for row in found["rows"]} == {10.0}
    assert {row["unsorted_spare_bytes_per_rating"] for row in found["rows"]} == {14.0}
    lines = scaling.summary(found)
    assert "als, 2 threads: time grows as K^2.00 (N = 1,000)" in lines
    assert "gd: all threads over one, 2.00 to 2.00" in lines


def test_a_case_that_fails_is_a_row_with_its_reason() -> None:
    def failing(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        return {"status": "failed", "reason": "out of memory"}, {}

    found = scaling.measure(PLAN, solvers=("gd",), threads=(1,), launch=failing)
    assert {row["reason"] for row in found["rows"]} == {"out of memory"} and not found["slopes"]
    assert sum("failed: out of memory" in line for line in scaling.summary(found)) == 4


def test_ctrl_c_keeps_what_is_done() -> None:
    def interrupted(text: str) -> None:
        if "4,000 ratings" in text:
            raise KeyboardInterrupt

    found = scaling.measure(PLAN, solvers=("gd",), threads=(1,), launch=_grows, say=interrupted)
    assert not found["complete"] and len(found["rows"]) == 3


def test_a_real_case_in_a_process_of_its_own() -> None:
    plan = scaling.Plan(ratings=(2000,), factors=(3,), n_fixed=2000, k_fixed=3)
    found = scaling.measure(plan, solvers=("sgd",), threads=(1,), launch=_real)
    (row,) = found["rows"]
    assert row["status"] == "ok", row["reason"]
    assert len(row["samples_ms"]) == 5 and row["rating_bytes"] == 16 * 2000
    assert row["parameter_bytes"] == 4 * 4 * (row["n_users"] + row["n_items"])


def _real(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    return in_fresh_process(case, order, folder, module="bench.scaling")


def test_memory_is_counted_from_where_it_is_now() -> None:
    big = np.ones(40 << 20, np.uint8)
    del big
    before = machine.forget_peak()
    if before is None:
        pytest.skip("this system does not let a process forget its peak")
    most = machine.peak_memory()
    assert most is not None and most < before + (20 << 20)
    again = np.ones(30 << 20, np.uint8)
    most = machine.peak_memory()
    assert most is not None and most > before + again.nbytes // 2


@pytest.mark.parametrize("given", [{"solvers": ("gdd",)}, {"threads": (0,)}])
def test_what_it_does_not_take(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"must be"):
        scaling.measure(PLAN, launch=_grows, **given)


def test_an_option_that_is_no_number_is_called_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cyclopts")
    from bench.cli import main

    for option in ("ratings", "factors"):
        assert main(["scaling", f"--{option}", "1e5"]) == 2
        assert f"{option} is '1e5', but must be whole numbers" in capsys.readouterr().err


def test_numbers_of_threads_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(train: None, config: Config, callback: Callable[[Any], bool]) -> SimpleNamespace:
        history = []
        for epoch in range(1, config.n_epochs + 1):
            history.append(SimpleNamespace(epoch=epoch, seconds=numba.get_num_threads() + epoch / 1000))
            assert not callback(history[-1])
        return SimpleNamespace(history=history)

    monkeypatch.setattr(scaling, "fit", fit)
    most = numba.get_num_threads()
    found = scaling._in_turns(None, Config(), sorted({1, most}))  # type: ignore[arg-type]
    assert numba.get_num_threads() == most
    steps = len(found)
    for begin, (n, samples) in enumerate(found.items(), start=1):
        assert samples == pytest.approx([1000 * int(n) + begin + steps * turn for turn in range(1, 6)])
