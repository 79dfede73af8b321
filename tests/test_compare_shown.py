"""What a comparison shows: the file's own medians, A before B, and what is slower first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench import committed, compare_text
from bench.compared import SCHEMAS
from tests.compared_results import COMMITTED, UNTIMED, both, suite_result


@pytest.mark.parametrize("name", [name for name in COMMITTED if not name.startswith(("race", *UNTIMED))])
def test_medians_are_those_of_the_file_in_ms(name: str) -> None:
    outcome = json.loads(committed.path(name).read_text(encoding="utf-8"))
    cases = list(SCHEMAS[outcome["schema"]].cases(outcome))
    if outcome["schema"] == "mf-accuracy":
        medians = [1e3 * row["seconds"] for row in outcome["systems"]]
    elif outcome["schema"] == "mf-clicks":
        # A baseline that is counted, not trained, has 0.
        medians = [1e3 * np.median([split["seconds"] for split in row["splits"]]) or None for row in outcome["rows"]]
    else:
        medians = [row["timing"] and row["timing"]["median_ms"] for row in outcome["rows"]]
    assert [case.median_ms for case in cases] == [ms and pytest.approx(ms, rel=1e-12) for ms in medians]


def test_a_stands_before_b(tmp_path: Path) -> None:
    a = suite_result(full_x={"samples_ms": [10.0, 10.1, 10.2, 10.3, 10.4], "final": {"valid_rmse": 0.9}})
    b = suite_result(full_x={"samples_ms": [20.0, 20.1, 20.2, 20.3, 20.4], "final": {"valid_rmse": 0.95}})
    found = both(tmp_path, a, b)
    lines = [line.split() for line in compare_text.text(found)]
    assert [line[4:7] for line in lines if line[:1] == ["full,"]] == [
        ["10.2", "20.2", "1.980"],
        ["0.9000", "0.9500", "+0.05000"],
    ]
    cells = [line.split(" | ") for line in compare_text.markdown(found)]
    assert [line[1:4] for line in cells if line[0] == "| full, x, cpu, float32"] == [
        ["10.2", "20.2", "1.980"],
        ["0.9000", "0.9500", "+0.05000"],
    ]


def test_what_is_slower_is_shown_first(tmp_path: Path) -> None:
    a = suite_result(full_x={}, full_y={}, full_z={})
    b = suite_result(full_x={}, full_y={}, full_z={})
    b["rows"][1]["samples_ms"] = [2 * ms for ms in a["rows"][1]["samples_ms"]]
    b["rows"][2]["samples_ms"] = [ms / 2 for ms in a["rows"][2]["samples_ms"]]
    heads = [line.split("  ")[0] for line in compare_text.text(both(tmp_path, a, b)) if line.endswith("95 %")]
    assert heads == ["slower", "faster", "within noise"]
