"""Committed results: a folder for each kind of machine, and whose results the documents show.

In ``bench/results/SLUG/NAME.json`` the `slug` is made of what the result says of its machine, NAME of what was measured
on which data. Results of one name from several machines stand beside each other: the documents show that of the first
machine of `SHOWN` that has it, and of CUDA those of every machine, by the name of its GPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import machine, result

Json = dict[str, Any]

FOLDER = machine.ROOT / "bench" / "results"
SHOWN = ("amd-epyc-znver4-2-cores", "amd-epyc-znver3-2-cores", "amd-epyc-2-cores")
"""The machines whose results fill the documents; of the last nobody wrote down which kind of processor it had."""

COMMANDS = {
    "mf-speed": "speed",
    "mf-paths": "paths",
    "mf-race": "race",
    "mf-scaling": "scaling",
    "mf-roofline": "roofline",
    "mf-rungs": "rungs",
    "mf-sweep": "sweep",
    "mf-instructions": "instructions",
    "mf-links": "links",
    "mf-cuda": "cuda",
    "mf-defaults": "defaults",
    "mf-accuracy": "run --suite peers",
    "mf-newcomers": "newcomers",
    "mf-clicks": "clicks",
    "mf-search": "search",
}
"""What measures a result of each schema, after ``python -m bench``."""
_OF_OURS = "run --suite accuracy"

_GENERATION = re.compile(r"^(\d+(st|nd|rd|th)|gen)$")
_SAYS_NOTHING = ("cpu", "processor")


def slug(outcome: Json) -> str:
    """The folder of a result: family of the processor, its kind, usable cores, and the GPU where one was seen.

    An ``AMD EPYC 7763 64-Core Processor`` of which 2 cores may be used is ``amd-epyc-znver3-2-cores``, the model left
    out as virtual machines do; with an ``NVIDIA H200`` it is ``amd-epyc-znver3-2-cores-nvidia-h200``. Of an older
    result, which does not tell its kind, it is ``amd-epyc-2-cores``.
    """
    about = outcome["machine"]
    cores = about["cores"]["usable"]
    family = _family(about["cpu"])
    kind = [word for word in _words(about.get("microarchitecture") or "") if word not in family.split("-")]
    parts = [family, *kind, f"{cores}-core{'s' * (cores > 1)}"]
    gpus = [gpu["name"] for gpu in outcome.get("gpu") or [outcome.get("cuda")] if gpu]
    for name in dict.fromkeys(gpus):
        parts += [str(gpus.count(name))] * (gpus.count(name) > 1) + _words(name)
    return "-".join(parts)


def path(name: str) -> Path:
    """Where the documents find a result, or would."""
    places = [FOLDER / folder / name for folder in SHOWN]
    return next((place for place in places if place.exists()), places[0])


def paths(pattern: str) -> list[Path]:
    """Where the documents find all results whose names fit."""
    return [
        path(name) for name in sorted({place.name for folder in SHOWN for place in (FOLDER / folder).glob(pattern)})
    ]


def results(prefix: str, names: Iterable[str], schema: str, version: int) -> dict[str, Json]:
    """What the documents find of ``PREFIX-NAME.json``, by those of the names that have one."""
    at = {name: path(f"{prefix}-{name}.json") for name in names}
    return {name: result.load(place, schema, version) for name, place in at.items() if place.exists()}


def everywhere(pattern: str = "*.json") -> list[Path]:
    """Results of every machine whose names fit."""
    return sorted(FOLDER.glob(f"*/{pattern}"))


def processor(about: Json) -> str:
    """A machine's processor for a table: its name, with its kind where the name does not tell it."""
    kind = about.get("microarchitecture")
    return str(about["cpu"]) if kind is None else f"{about['cpu']} ({kind})"


def machines(outcomes: Iterable[Json]) -> str:
    """The machines of some results for a note: each with its cores, once."""
    found = {(processor(one["machine"]), one["machine"]["cores"]["usable"]) for one in outcomes}
    return "; ".join(f"{cpu}, {cores} cores" for cpu, cores in sorted(found))


def here(name: str) -> Path:
    """Where a result of this machine is committed."""
    return FOLDER / slug({"machine": machine.machine(), "gpu": machine.gpus()}) / name


def command(outcome: Json) -> str:
    """What measured a result, after ``python -m bench``."""
    ours = outcome["schema"] == "mf-accuracy" and all(row["system"].startswith("mf_") for row in outcome["systems"])
    return _OF_OURS if ours else COMMANDS[outcome["schema"]]


def data(outcome: Json) -> str:
    """The data that a result's command was given; empty where it draws its own."""
    if "protocol" in outcome:
        return str(outcome["protocol"]["name"])
    if isinstance(outcome.get("problems"), list):
        return ",".join(one["data"] for one in outcome["problems"])
    return str(outcome.get("problem", {}).get("data", ""))


def _family(cpu: str) -> str:
    """The words of a processor's name before its model number."""
    words = [word for word in _words(cpu.partition("@")[0]) if not _GENERATION.match(word)]
    kept: list[str] = []
    for word in words:
        if any(letter.isdigit() for letter in word):
            break
        if word not in _SAYS_NOTHING:
            kept.append(word)
    # An architecture is all that some systems tell.
    return "-".join(kept or words or ["unknown"])


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", re.sub(r"\((r|tm|c)\)", " ", name.lower()))
