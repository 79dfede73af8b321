"""The section of `bench.kernels`: how near each kernel comes to what the machine allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench import figures, roof_figure
from bench.pages import plots, words
from bench.section import Cell, Column, Fold, Row, Section, Table, machine_lines, number, significant, text

Json = dict[str, Any]

COLUMNS = (
    Column("kernel", numeric=False),
    Column("K"),
    Column("dtype", numeric=False),
    *map(Column, ("threads", "ms", "middle half", "M ratings/s", "flops a byte", "GFLOP/s", "GB/s", "of its bound")),
    Column("bound", numeric=False),
)
LINES = (
    Column("line", numeric=False),
    Column("threads"),
    Column("rate"),
    Column("unit", numeric=False),
    Column("holds, KiB"),
)
METHOD = (
    "The machine's lines are measured in the same process: triads from arrays that lie in each cache and in memory, "
    "and multiply-adds in registers. A kernel takes at least the time that its operations or its bytes take at those "
    "rates (Eq. 28), whichever is more; its share is that time over the median of its own.",
    "Its line is that of the nearest place which holds what it comes back to: for gradient and prediction the item "
    "rows (and, of the gradient, a thread's own sums of them), for single steps a share of the items and a group of "
    "users, for least squares the larger side's rows, for the update all that it passes over.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    return Section(
        kind="How near the machine's limit",
        data=result["problem"]["data"],
        verdict=_verdict(result["rows"]),
        about=f"{words.sizes(result['problem'])}.",
        table=Table(COLUMNS, tuple(map(_row, result["rows"]))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(result)),
        notes=_notes(result["rows"]),
        warnings=words.notices(result | {"complete": True}),
        folds=(Fold("The machine's lines", table=Table(LINES, tuple(_lines(result)))),),
        hint="gradient float32, sgd 64",
    )


def _notes(rows: list[Json]) -> tuple[str, ...]:
    over = any(row["share"] > 1 for row in rows)
    return ("Above 100 %: part of the bytes came from nearer than the place that is named.",) if over else ()


def _verdict(rows: list[Json]) -> str:
    most = max(row["threads"] for row in rows)
    here = [row for row in rows if (row["threads"], row["dtype"]) == (most, "float32")]
    far, near = (pick(here, key=lambda row: float(row["share"])) for pick in (min, max))
    return (
        f"in float32 by {words.threads(most)} the kernels reach from {roof_figure.share(far)} ({far['kernel']}, "
        f"K = {far['n_factors']}) to {roof_figure.share(near)} ({near['kernel']}, K = {near['n_factors']})."
    )


def _row(row: Json) -> Row:
    timing = row["timing"]
    return Row(
        (
            text(row["kernel"]),
            number(row["n_factors"]),
            text(row["dtype"]),
            number(row["threads"]),
            *words.timed(timing),
            number(row["flops_per_rating"] / row["bytes_per_rating"], ".2f"),
            significant(row["gflops_per_s"]),
            significant(row["gbytes_per_s"]),
            Cell(f"{row['share']:.0%}", row["share"]),
            text("multiply-adds" if row["bound"] == "flops" else row["place"]),
        )
    )


def _lines(result: Json) -> Iterator[Row]:
    for level in result["levels"]:
        held = level["bytes_per_thread"]
        size = Cell("everything") if held is None else number(held / 1024, ",.0f")
        rate = significant(level["gbytes_per_s"])
        yield Row((text(level["place"]), number(level["threads"]), rate, text("GB/s"), size))
    for peak in result["peaks"]:
        rate = significant(peak["gflops_per_s"])
        name = text(f"multiply-adds, {peak['dtype']}")
        yield Row((name, number(peak["threads"]), rate, text("GFLOP/s"), number(None)))


def _pictures(result: Json) -> Iterator[figures.Picture]:
    yield figures.roofline(result)
    rows = [row for row in result["rows"] if row["dtype"] == "float32"]
    each = words.ordered(row["threads"] for row in rows)[::-1]
    yield plots.growth(
        "Ratings a second of each kernel against K", plots.rates(rows, "kernel", "n_factors", each), x="K",
        y="M ratings/s", key="roofline-rates", dashes=[words.threads(n) for n in each], unit=" M",
        about="Ratings a second at the median call, float32.",
    )  # fmt: skip
