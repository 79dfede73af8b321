"""A virtual environment for a peer: made, filled, tried, and described in a ``peer.json`` that is written last."""

from __future__ import annotations

import json
import os
import subprocess
import time
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import machine, result
from bench.peers.registry import Peer

Json = dict[str, Any]
Say = Callable[[str], None]
Run = Callable[[list[str], Mapping[str, str]], tuple[int, str]]
"""Runs a command with an environment: its exit code, and what it wrote."""

RECORD = "peer.json"
LAST_LINES = 12
NOT_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "CFLAGS", "CXXFLAGS")
"""Variables that would mix another environment, or other compiler flags, into a peer's."""


class InstallError(RuntimeError):
    """A peer that could not be installed, with the last lines of what was written."""


def python_of(peer: Peer, into: Path) -> Path:
    """The interpreter of a peer's environment, whether or not it is there."""
    inside = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return into / peer.name / inside[0] / inside[1]


def record(peer: Peer, into: Path) -> Json | None:
    """What `install` wrote of a peer; None where it is not installed, or as another version or build."""
    try:
        found: Json = json.loads((into / peer.name / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if found.get("recipe") == recipe(peer) and python_of(peer, into).exists() else None


def recipe(peer: Peer) -> Json:
    """Everything that makes an installation another one."""
    return {
        "first": list(peer.first),
        "packages": list(peer.packages),
        "options": list(peer.options),
        "variables": dict(peer.variables),
    }


def run(command: list[str], variables: Mapping[str, str]) -> tuple[int, str]:
    """Run a command to its end, with its two outputs as one text."""
    done = subprocess.run(
        command, env=dict(variables), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding="utf-8", errors="replace", check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def install(
    peer: Peer,
    into: Path,
    *,
    again: bool = False,
    run: Run = run,
    say: Say = lambda text: None,
    make: Any = venv.create,
) -> Json:
    """Install a peer, unless it is there.

    Args:
        into: the folder that holds an environment for each peer.
        again: make the environment anew even where it is there.
        run: how a command is run.
        make: how an environment is made.

    Returns:
        What ``peer.json`` holds: ``peer``, ``version``, ``recipe``, ``python``, ``packages`` (name to version),
        ``simd`` (whether 256-bit registers appear in its code, None where nobody can say), ``seconds``, ``mib``.

    Raises:
        InstallError: a step failed.
    """
    before = record(peer, into)
    if before and not again:
        say(f"{peer.name} {peer.version} is there")
        return before
    here, python = into / peer.name, str(python_of(peer, into))
    began = time.perf_counter()
    say(f"{peer.name} {peer.version}: environment")
    (here / RECORD).unlink(missing_ok=True)
    make(here, clear=True, with_pip=True, symlinks=os.name != "nt")
    bare = {k: v for k, v in os.environ.items() if k not in NOT_OURS} | {"PYTHONNOUSERSITE": "1"}
    pip = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    for packages, options in ((peer.first, ()), (peer.packages, peer.options)):
        if packages:
            say(f"{peer.name} {peer.version}: pip install {' '.join(packages)}")
            _step(run, [*pip, *options, *packages], bare | dict(peer.variables), peer, "pip could not install")
    said = _step(run, [python, "-c", _SMOKE, peer.module], bare, peer, "it is installed, but does not import:")
    facts = json.loads(said.strip().splitlines()[-1])
    out = {
        "peer": peer.name,
        "version": peer.version,
        "recipe": recipe(peer),
        "python": facts["python"],
        "packages": facts["packages"],
        "simd": _simd(facts["compiled"], run, bare),
        "cpu": machine.machine()["cpu"],
        "seconds": round(time.perf_counter() - began, 1),
        "mib": round(size(here) / 2**20),
    }
    result.write_atomically(here / RECORD, json.dumps(out, indent=1) + "\n")
    return out


def size(folder: Path) -> int:
    """Bytes of the files under a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


_SMOKE = """
import importlib, importlib.metadata, json, pathlib, platform, sys
module = importlib.import_module(sys.argv[1])
found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
roots = [pathlib.Path(p) for p in getattr(module, "__path__", [])] or [pathlib.Path(module.__file__).parent]
compiled = [str(p) for root in roots for p in root.rglob("*.so")] + [
    str(p) for root in roots for p in root.parent.glob(sys.argv[1] + "*.so")]
print(json.dumps({"python": platform.python_version(), "packages": dict(sorted(found.items())), "compiled": compiled}))
"""


def _step(run: Run, command: list[str], variables: Mapping[str, str], peer: Peer, what: str) -> str:
    code, text = run(command, variables)
    if code != 0:
        last = "\n".join(text.strip().splitlines()[-LAST_LINES:])
        raise InstallError(f"{peer.name} {peer.version}: {what} (exit code {code}). The last lines were:\n{last}")
    return text


def _simd(compiled: list[str], run: Run, variables: Mapping[str, str]) -> bool | None:
    """Whether 256-bit registers appear in the compiled code: a build without them runs at half the speed or less."""
    seen = None
    for path in compiled:
        try:
            code, text = run(["objdump", "-d", "--no-show-raw-insn", path], variables)
        except OSError:
            return None
        if code == 0:
            seen = bool(seen) or "%ymm" in text
    return seen
