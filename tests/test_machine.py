"""What a result says of its machine, who else was busy on it, and what of folders it must not say."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bench import machine, result


def test_own_work_is_not_that_of_others() -> None:
    cores = os.cpu_count() or 1
    before = machine.Clock(0.0, 0.0, (0, 0))
    after = machine.Clock(10.0, 5.0, (cores * 1000 - 1500, cores * 1000))
    assert machine.others_busy(before, after) == pytest.approx(1.0)
    assert machine.others_busy(before, replace(after, ticks=None)) is None


def test_a_summary_ends_with_who_else_was_busy() -> None:
    assert machine.disturbance(None) == machine.disturbance(0.25) == []
    assert machine.disturbance(0.5)[0].startswith("Others kept up to 0.50 cores busy meanwhile: measure again")


def test_machine_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.git() is None
    monkeypatch.setenv("PATH", "")
    assert machine.git() is None


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("no file '/home/ann/data/x.csv'", "no file 'x.csv'"),
        ("in /home/ann: no", "in <path>: no"),
        (r"C:\Users\ann\x.csv is gone", "x.csv is gone"),
        ("48.5 M ratings/s, K / N, 1/2, https://a.org/b/c", "48.5 M ratings/s, K / N, 1/2, https://a.org/b/c"),
    ],
)
def test_folders_are_cut_from_texts(text: str, cleaned: str) -> None:
    assert result.clean({"a": [text, math.inf, 1.0]}) == {"a": [cleaned, None, 1.0]}
