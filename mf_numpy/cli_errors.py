"""Errors in the words of the command line: its options for arguments, and which package has an option."""

from __future__ import annotations

import re
from collections.abc import Collection

from cyclopts import UnknownOptionError

_ONLY_IN = {
    ("fit", "--device"): "mf_torch",
    ("fit", "--path"): "mf_torch",
    ("fit", "--cuda-graph"): "mf_torch",
    ("fit", "--deterministic"): "mf_torch",
    ("fit", "--tf32"): "mf_torch",
    ("fit", "--sparse-grad"): "mf_torch",
    ("fit", "--storage"): "mf_torch",
    ("check", "--device"): "mf_torch",
    ("check", "--path"): "mf_torch",
    ("fit", "--backend"): "mf_numpy",
}


def elsewhere(error: UnknownOptionError) -> str | None:
    """Which package has the option that this one lacks, if one does."""
    command, option = " ".join(error.command_chain or ()), error.token.keyword or ""
    package = _ONLY_IN.get((command, option))
    return package and f"Unknown option: {option}. `python -m {package} {command}` has it."


_ARGUMENT = re.compile(r"\b(pass|use|with) (\w+)=(True|'[^']*'|\([^)]*\)| one of)?")
_VALUES = {None: "", "True": "", "'...'": " NAME", "(least, most)": " LO HI", " one of": " with one of"}


def in_options(text: str, options: Collection[str]) -> str:
    """An error of the library, which speaks of its arguments, in the words of the command line."""

    def option(found: re.Match[str]) -> str:
        verb, name, value = found.groups()
        if name not in options:
            return found[0]
        given = _VALUES[value] if value in _VALUES else " " + value.strip("'")
        return f"{verb} --{name.replace('_', '-')}{given}"

    return _ARGUMENT.sub(option, text)
