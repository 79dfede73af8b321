"""The command line as a program: help, mistakes, pipes and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mf_numpy import Config, FitResult, store
from tests.cli_fixtures import QUICK, quick


def program(*tokens: str, cwd: Path, **more: Any) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    return subprocess.Popen(
        [sys.executable, "-m", "mf_numpy", *tokens],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


def test_program_help_and_version(tmp_path: Path) -> None:
    out, err = program("fit", "--help", cwd=tmp_path).communicate(timeout=60)
    assert err == ""
    assert "\x1b" not in out
    for f in fields(Config):
        assert f"--{f.name.replace('_', '-')}" in out
    assert program("--version", cwd=tmp_path).communicate(timeout=60)[0].startswith("mf_numpy ")


@pytest.mark.parametrize("package", ["mf_numpy", "mf_torch"])
def test_the_program_begins_without_what_few_commands_need(package: str) -> None:
    code = f"import sys, {package}.__main__; print([name for name in sys.modules if name.count('.') < 2])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'mf_numpy.cli'" in loaded
    for slow in ("scipy.optimize", "scipy.stats", "sklearn", "matplotlib", "mf_numpy.suite"):
        assert f"'{slow}'" not in loaded, slow


def test_program_mistake(tmp_path: Path) -> None:
    with program("recommend", "no.safetensors", "3", cwd=tmp_path) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("error: 'no.safetensors' does not exist")


def test_program_in_a_pipe_has_no_escape_codes(data: str, tmp_path: Path) -> None:
    with program("fit", data, *QUICK, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert "\r" not in out
    assert "bias-only" in out


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_request_to_end_save_what_was_learned(number: signal.Signals, data: str, tmp_path: Path) -> None:
    def obey_ctrl_c() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    long = quick(n_epochs="1000000000", momentum="0", momentum_form="ema", lr="0.01", eval_every="1000000")
    with program("fit", data, *long, cwd=tmp_path, preexec_fn=obey_ctrl_c) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("stopped: interrupted; the parameters after epoch")
    assert out.splitlines()[-1] == "saved to model.safetensors"
    result: FitResult = store.load(tmp_path / "model.safetensors")
    assert result.status == "stopped"
    assert len(result.history) == result.state.epoch >= 1


@pytest.mark.skipif(os.name == "nt", reason="pipes are POSIX's")
def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    with program("recipes", cwd=tmp_path) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1
