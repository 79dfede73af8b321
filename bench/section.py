"""What a result says on a page: a verdict, one table, figures, machine and method; the same as HTML and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import committed
from bench.result import clean

if TYPE_CHECKING:
    from bench.figures import Picture

Json = dict[str, Any]

SCHEMA, VERSION = "mf-results", 1
"""Of several results in one file: {schema, schema_version, results}."""

TITLE = "Matrix factorisation: what was measured"
"""Of a page with more than one section."""


@dataclass(frozen=True)
class Column:
    """A heading, and whether its cells are numbers, which stand to the right."""

    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """What a cell shows, the number it is sorted by, and ``good`` or ``bad`` where it is coloured."""

    text: str
    value: float | None = None
    tone: str = ""


NOTHING = Cell("–")


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        cells: one a column; fewer where `reason` stands in the place of the rest.
        reason: why there is no more to say, or what went wrong.
        off: stands back, as what is no competitor does.
        apart: begins a group of lines.
    """

    cells: tuple[Cell, ...]
    reason: str = ""
    off: bool = False
    apart: bool = False


@dataclass(frozen=True)
class Table:
    """Headings and lines."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Fold:
    """What is shown when it is asked for: a table, or names with what they stand for."""

    title: str
    about: str = ""
    table: Table | None = None
    words: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Section:
    """A result on a page.

    Attributes:
        kind: what was measured.
        data: on what; empty where there is no one answer.
        verdict: what was found, in one sentence.
        about: sizes and counts.
        table: what sorts and filters.
        machine: names and texts, see `machine_lines`.
        method: paragraphs; sections of one kind have the same.
        draw: makes the figures; called for a page alone.
        passed: whether what was checked passed; None where nothing was.
        warnings: what a reader must know first.
        notes: sentences under the table.
        folds: further tables.
        hint: what one might filter by.
    """

    kind: str
    data: str
    verdict: str
    about: str
    table: Table
    machine: tuple[tuple[str, str], ...]
    method: tuple[str, ...]
    draw: Callable[[], Sequence[Picture]] = tuple
    passed: bool | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    folds: tuple[Fold, ...] = ()
    hint: str = ""

    @property
    def title(self) -> str:
        """Its heading."""
        return f"{self.kind}: {self.data}" if self.data else self.kind

    @property
    def sentence(self) -> str:
        """The verdict with a capital to begin with, unless it begins with the name of the data, spelled as it is."""
        if self.data and self.verdict.startswith(self.data):
            return self.verdict
        return self.verdict[:1].upper() + self.verdict[1:]


def held(results: Sequence[Json]) -> Json:
    """What a page carries: a result as it is, or several as one file, which the report reads as well."""
    if len(results) == 1:
        return results[0]
    return {"schema": SCHEMA, "schema_version": VERSION, "results": list(results)}


def html(sections: Sequence[Section], carried: Json) -> str:
    """One page of all sections; the same input gives the same bytes.

    Args:
        carried: the result that the page carries as JSON, or what `held` made of several.

    Raises:
        ImportError: jinja2 or matplotlib is not installed.
    """
    from bench.figures import apart

    drawn = [tuple(section.draw()) for section in sections]
    if len(sections) > 1:
        drawn = [tuple(apart(one, f"s{n}") for one in pictures) for n, pictures in enumerate(drawn, 1)]
    return page(
        "sections.html.j2",
        carried,
        sections=list(zip(sections, drawn, strict=True)),
        title=sections[0].title if len(sections) == 1 else TITLE,
        # Of two results of one kind the method is said once.
        methods=list({section.method: section.kind for section in sections}.items()),
    )


def page(template: str, carried: Json, **values: Any) -> str:
    """A page from a template beside this file, which carries a result as JSON.

    Raises:
        ImportError: jinja2 is not installed.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
    )
    embedded = json.dumps(clean(carried), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    # "<" would let a text end the script element early.
    embedded = embedded.replace("<", "\\u003c")
    return environment.get_template(template).render(embedded=embedded, **values)


def markdown(sections: Sequence[Section]) -> str:
    """Titles, verdicts and tables, for an issue or the summary of a CI run."""
    return "\n\n".join("\n\n".join(_parts(section)) for section in sections) + "\n"


def _parts(section: Section) -> Iterator[str]:
    yield f"### {_plain(section.title)}"
    yield f"**{_plain(section.sentence)}**"
    yield from map(_plain, (section.about, *section.warnings))
    columns = section.table.columns
    lines = ["| " + " | ".join(_plain(column.title) for column in columns) + " |"]
    lines.append("| " + " | ".join("---:" if column.numeric else "---" for column in columns) + " |")
    for row in section.table.rows:
        texts = [_plain(cell.text) for cell in row.cells]
        if row.reason:
            said = _plain(row.reason)
            texts = [*texts[:-1], f"{texts[-1]}; {said}"] if len(texts) == len(columns) else [*texts, said]
        lines.append("| " + " | ".join([*texts, *[""] * (len(columns) - len(texts))]) + " |")
    yield "\n".join(lines)
    yield from map(_plain, section.notes)


def _plain(text: str) -> str:
    """A text that is no markup in Markdown."""
    return " ".join(text.replace("<", "&lt;").replace("|", "\\|").split())


def machine_lines(result: Json) -> tuple[tuple[str, str], ...]:
    """What every result says of where it came from."""
    machine, environment = result["machine"], result["environment"]
    cores, gpu, git = machine["cores"], result["gpu"], result["git"]
    return (
        ("processor", committed.processor(machine)),
        ("cores", f"{cores['usable']} usable of {cores['logical']} logical, {cores['physical'] or 'unknown'} physical"),
        ("memory", gib(machine["memory_bytes"])),
        ("GPU", "none seen" if not gpu else ", ".join(f"{g['name']} ({gib(g['memory_bytes'])})" for g in gpu)),
        ("system", f"{machine['system']} {machine['system_release']}, {machine['architecture']}"),
        ("Python", machine["python"]),
        ("packages", ", ".join(f"{name} {version}" for name, version in result["packages"].items() if version)),
        ("threads", ", ".join(f"{name}={value}" for name, value in environment["set"].items())),
        ("removed from the environment", ", ".join(environment["removed"]) or "nothing was there to remove"),
        (
            "commit",
            "not a git checkout" if not git else git["commit"][:12] + (", with changes" if git["dirty"] else ""),
        ),
        ("code", result["code"][:12]),
        ("finished", result["created"]),
    )


def gib(value: int | None) -> str:
    """Bytes in GiB."""
    return "unknown" if value is None else f"{value / 2**30:.1f} GiB"


def mib(value: int | None) -> Cell:
    """Bytes in MiB."""
    return NOTHING if value is None else Cell(f"{value / 2**20:,.0f}", value)


def text(value: Any) -> Cell:
    """A cell of words."""
    return Cell(str(value))


def number(value: float | None, form: str = "") -> Cell:
    """A cell of a number; a dash for None."""
    return NOTHING if value is None else Cell(format(value, form), value)


def significant(value: float | None) -> Cell:
    """A number to three digits, without an exponent."""
    return NOTHING if value is None else Cell(digits(value), value)


def digits(value: float) -> str:
    """A number to three significant digits, those before the point kept."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"
