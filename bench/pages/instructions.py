"""The section of `bench.instructions`: what each kernel executes for a rating."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.figures import Picture
from bench.pages import plots, words
from bench.section import Column, Row, Section, Table, machine_lines, number, text

Json = dict[str, Any]

COLUMNS = (
    Column("kernel", numeric=False),
    *map(Column, ("K", "instructions", "reads", "writes", "L1 misses", "last-level misses")),
)
METHOD = (
    "Counted by callgrind, from just before a kernel's call, its second, to just after it, by one thread; divided by "
    "the ratings. Counts do not depend on what else the machine does; a miss is that of callgrind's model of this "
    "machine's first and last cache. Valgrind knows no AVX-512, so kernels are compiled for AVX2 and fused "
    "multiply-adds; one read or write is of up to 32 bytes.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    return Section(
        kind="Instructions a rating",
        data=result["problem"]["data"],
        verdict=_verdict(result["rows"]),
        about=f"{words.sizes(result['problem'])}; compiled for {result['target']['cpu']}.",
        table=Table(COLUMNS, tuple(map(_row, result["rows"]))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(result["rows"])),
        warnings=words.notices(result),
        hint="gradient, sgd 64",
    )


def _verdict(rows: list[Json]) -> str:
    k = max(row["n_factors"] for row in rows)
    here = {row["kernel"]: row["instructions"] for row in rows if row["n_factors"] == k}
    told = words.listed(f"{name} {count:,.0f}" for name, count in sorted(here.items(), key=lambda pair: pair[1]))
    return f"with K = {k} a rating takes so many instructions: {told}."


def _row(row: Json) -> Row:
    counts = [number(row[key], ",.1f") for key in ("instructions", "reads", "writes")]
    misses = [number(row["l1_misses"], ".2f"), number(row["last_level_misses"], ".3f")]
    return Row((text(row["kernel"]), number(row["n_factors"]), *counts, *misses))


def _pictures(rows: list[Json]) -> Iterator[Picture]:
    for key, title, y in (
        ("instructions", "Instructions a rating against K", "instructions a rating"),
        ("l1_misses", "Misses of the first cache against K", "L1 misses a rating"),
    ):
        found = [row for row in rows if row[key] > 0]
        curves = [
            plots.Curve(name, sorted((row["n_factors"], row[key]) for row in found if row["kernel"] == name))
            for name in dict.fromkeys(row["kernel"] for row in found)
        ]
        if curves:
            yield plots.growth(title, curves, x="K", y=y, key=f"instructions-{key}", about=f"{y[0].upper()}{y[1:]}.")
