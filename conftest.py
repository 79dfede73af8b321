"""Runs the blocks of the documents: Python blocks as doctests, console blocks in a shell."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent
_SCRATCH = tempfile.TemporaryDirectory(prefix="mf-documents-")


def _run_console(example: Any) -> str | None:
    """Run the `$` lines of a console block and compare what they print; `...` stands for anything."""
    shell = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", COLUMNS="120")
    for entry in ("\n" + example.parsed.rstrip("\n")).split("\n$ ")[1:]:
        command, _, expected = entry.partition("\n")
        if command.startswith("make "):
            command, expected = command.replace("make ", f"make -C {_ROOT} --dry-run ", 1), "..."  # the target exists
        done = subprocess.run(command, shell=True, capture_output=True, text=True, env=shell, cwd=_SCRATCH.name)
        if done.returncode:
            return f"{command!r} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        if expected and not OutputChecker().check_output(expected + "\n", done.stdout, ELLIPSIS):
            return f"{command!r} printed\n{done.stdout}\nbut the document says\n{expected}"
    return None


# A bare CUDA machine has no sybil and runs the tests alone.
if importlib.util.find_spec("sybil"):
    from sybil import Sybil
    from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

    pytest_collect_file = Sybil(
        parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), CodeBlockParser("console", _run_console)],
        patterns=["README.md", "mf_numpy/derivation.md", "mf_torch/README.md", "mf_torch/guide.md"],
    ).pytest()
