"""A command line run in process, a table to give it, and a model that it has fitted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mf_numpy.__main__ import app
from mf_numpy.cli import run

Run = Callable[..., tuple[int, str, str]]


def write_table(path: Path, *, text: bool = False) -> Path:
    rng = np.random.default_rng(2)
    pairs = rng.choice(40 * 25, 600, replace=False)
    users, items = pairs // 25, pairs % 25
    values = np.clip(np.round(3 + rng.normal(0, 1, 40)[users] + rng.normal(0, 1, 25)[items]), 1, 5)
    names = [f"ann{u}" if text else u + 1 for u in users]
    pd.DataFrame({"user": names, "item": items + 1, "rating": values}).to_csv(path, index=False)
    return path


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(write_table(tmp_path / "ratings.csv"))


@pytest.fixture
def mf(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command line in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*tokens: str) -> tuple[int, str, str]:
        code = run(app, tokens)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert "\x1b" not in out + err
        return code, out, err

    return call


def quick(**changes: str) -> list[str]:
    options = {"n-epochs": "25", "n-factors": "3", "lr": "2", "tol": "0", "backend": "numpy"}
    options |= {name.replace("_", "-"): value for name, value in changes.items()}
    return [token for name, value in options.items() for token in (f"--{name}", value)]


QUICK = quick()


@pytest.fixture
def model(mf: Run, data: str) -> str:
    assert mf("fit", data, *QUICK, "--scale", "1", "5")[0] == 0
    return "model.safetensors"
