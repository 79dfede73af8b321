"""One page, or Markdown, or one file, of any mixture of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import accuracy_page, report, section
from bench.compared import SCHEMAS
from bench.pages import (
    clicks,
    cuda,
    defaults,
    instructions,
    links,
    newcomers,
    paths,
    race,
    roofline,
    rungs,
    scaling,
    search,
    speed,
    sweep,
)
from bench.result import checked, clean, to_text
from bench.result import read as read_one
from bench.section import Section
from mf_numpy.errors import FileFormatError, choose

Json = dict[str, Any]

FORMATS = ("html", "md", "json")

LIMIT = 2_000_000
"""Bytes of a page that loads anywhere."""

KINDS: Mapping[str, Callable[[Json], Section]] = {
    "mf-bench": report.part,
    "mf-accuracy": accuracy_page.part,
    "mf-speed": speed.part,
    "mf-race": race.part,
    "mf-scaling": scaling.part,
    "mf-roofline": roofline.part,
    "mf-sweep": sweep.part,
    "mf-paths": paths.part,
    "mf-cuda": cuda.part,
    "mf-links": links.part,
    "mf-instructions": instructions.part,
    "mf-defaults": defaults.part,
    "mf-rungs": rungs.part,
    "mf-newcomers": newcomers.part,
    "mf-clicks": clicks.part,
    "mf-search": search.part,
}
"""What makes a section of a result, by its schema."""

VERSIONS: Mapping[str, int] = {name: 1 if name == "mf-instructions" else SCHEMAS[name].version for name in KINDS}
"""Schema versions that are read here; instructions are counted, and have no times to be compared by."""


def read(paths: Sequence[Path]) -> list[tuple[str, Json]]:
    """The results in some files, each with its file's name.

    Raises:
        FileFormatError: a file that is not there, no result, or of another schema or version.
    """
    found = []
    for path in paths:
        one = read_one(path, {**VERSIONS, section.SCHEMA: section.VERSION}, to="report")
        several = [one]
        if one["schema"] == section.SCHEMA:
            several = [checked(x, f"a result in {path.name}", VERSIONS, to="report") for x in one.get("results") or []]
        if not several:
            raise FileFormatError(f"{path.name} has no result; give one that the benchmark wrote")
        found += [(path.name, clean(each)) for each in several]
    return found


def render(results: Sequence[tuple[str, Json]], form: str = "html") -> str:
    """All results as one text, the same again for the same results. A page needs jinja2 and matplotlib.

    Args:
        results: as `read` has them.
        form: one of `FORMATS`.

    Raises:
        ConfigError: another form.
        FileFormatError: a result that lacks what its schema has.
        ImportError: jinja2 or matplotlib is not installed.
    """
    choose("format", form, FORMATS)
    carried = section.held([one for _, one in results])
    if form == "json":
        return to_text(carried)
    sections = [_part(name, one, draw=form == "html") for name, one in results]
    return section.markdown(sections) if form == "md" else section.html(sections, carried)


def _part(name: str, result: Json, *, draw: bool) -> Section:
    try:
        made = KINDS[result["schema"]](result)
        pictures = tuple(made.draw()) if draw else ()
    except FileFormatError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, StopIteration, RuntimeError) as error:
        raise FileFormatError(
            f"{name} is damaged: {type(error).__name__}, {error}; give a file as the benchmark wrote it"
        ) from None
    return replace(made, draw=lambda: pictures)
