"""`make mutate` on a module of five lines: a fault that a test notices, one that none does, one that none can."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE = '''"""A module."""


def area(width: float, height: float) -> float:
    """In square metres."""
    if width < 0:
        raise ValueError("1 - 1 is not below 0")
    return width * max(height, 0)
'''
TESTS = """from tiny.shape import area


def test_area():
    assert area(2, 3) == 6
    assert area(2, -3) == 0
    assert area(0, 1) == 0
"""
SETTINGS = """
modules = ["tiny/shape.py"]
copy = ["tiny", "tests"]
warm = []
tests = ["tests/test_shape.py"]
options = []
"""
EQUIVALENT = """
[[equivalent]]
module = "tiny/shape.py"
function = "area"
before = "if width < 0:"
after = ["if width < -1:"]
reason = "Widths are whole numbers, they say."
"""


def _mutate(root: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.mutation", "--root", str(root), "--jobs", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_mutants_are_noticed_or_named(tmp_path: Path) -> None:
    pytest.importorskip("cosmic_ray", reason="`make mutate` installs cosmic-ray")
    files = {
        "tiny/__init__.py": "", "tiny/shape.py": MODULE, "tests/__init__.py": "", "tests/test_shape.py": TESTS,
        "tests/mutation/settings.toml": SETTINGS, "tests/mutation/equivalent.toml": EQUIVALENT,
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    status, said = _mutate(tmp_path)
    assert status == 0, said
    found = json.loads((tmp_path / "tests/mutation/result.json").read_text())["modules"]["tiny/shape.py"]
    assert found["counts"]["arithmetic"] == {"killed": 6}
    assert found["counts"]["number"] == {"equivalent": 1, "killed": 3}
    assert "Widths are whole numbers" in (tmp_path / "tests/mutation/table.md").read_text()
    assert (tmp_path / "tiny/shape.py").read_text() == MODULE

    # A test less, and a declaration that is wrong.
    (tmp_path / "tests/test_shape.py").write_text(TESTS.replace("    assert area(2, -3) == 0\n", ""))
    (tmp_path / "tests/mutation/equivalent.toml").write_text(EQUIVALENT.replace("< -1", "< 1"))
    status, said = _mutate(tmp_path)
    assert status == 1
    assert "survived: tiny/shape.py:8 UnwrapCall" in said
    assert "`if width < 0:` -> `if width < 1:` is noticed by a test" in said
    assert "0 equivalent, 4 survived" in said
