"""The section of `bench.rungs`: the rungs of the derivation, from Python loops to torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench import drawings, figures, tables
from bench.canvas import DRAWINGS
from bench.pages import plots, words
from bench.rungs import FACTORS, LADDER
from bench.section import NOTHING, Cell, Column, Fold, Row, Section, Table, machine_lines, number, text
from mf_numpy.errors import counted

Json = dict[str, Any]

DRAWN = ("ladder", "roofline", "post")
"""Figures of the documents that this is measured for."""

COLUMNS = (
    Column("rung", numeric=False),
    *map(Column, ("K", "threads")),
    Column("dtype", numeric=False),
    *map(Column, ("ratings", "ms an iteration", "middle half", "M ratings/s", "× the rung before")),
)
METHOD = (
    "Every rung is checked against the float64 NumPy gradient, then timed in several rounds, each time in a fresh "
    "process; the rounds go through all cases before any is run again, so that a slow minute of the machine does not "
    "fall on one rung. The median of all iterations counts. A ratio with ? is within the spread or disturbed. The "
    "loops run on a slice of the ratings that plain Python can bear.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    data = result["data"]
    rounds = max(len(row["rounds"]) for row in result["rows"])
    return Section(
        kind="From Python loops to torch",
        data=data["name"],
        verdict=_verdict(result),
        about=f"{words.sizes(data)}; {counted(rounds, 'round')}.",
        table=Table(COLUMNS, tuple(_rows(result))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(result)),
        passed=result["ok"],
        warnings=words.notices(result | {"complete": True}),
        folds=tuple(_folds(result)),
        hint="Numba 64",
    )


def _verdict(result: Json) -> str:
    said = []
    for k in FACTORS:
        ran = [entry for entry in result["ladder"][f"K{k}"] if entry["ratings_per_s"]]
        if ran:
            top = max(ran, key=lambda entry: float(entry["ratings_per_s"]))
            rates = [entry["ratings_per_s"] / 1e6 for entry in (ran[0], top)]
            said.append(
                f"with K = {k} from {rates[0]:.2g} M ratings/s of {_name(result, ran[0]['rung'])} to {rates[1]:.3g} M "
                f"of {_name(result, top['rung'])}"
            )
    return f"{'; '.join(said)}." if said else "nothing was measured."


def _name(result: Json, rung: str) -> str:
    threads = tables.Source(result, "en").threads
    return tables.RUNGS[rung][0].format(threads=threads).replace("`", "")


def _rows(result: Json) -> Iterator[Row]:
    source = tables.Source(result, "en")
    for k in FACTORS:
        for at, (step, entry) in enumerate(zip(LADDER, result["ladder"][f"K{k}"], strict=True)):
            row = source.row(entry["row"])
            begin = text(_name(result, step.name)), number(k), number(row["n_threads"]), text(row["dtype"])
            apart = at == 0 and k != FACTORS[0]
            if not row["timing"]:
                yield Row(begin, words.reason(row), off=True, apart=apart)
                continue
            ratio = entry["ratio_to_below"]
            times = NOTHING if ratio is None else Cell(f"{ratio:.2f}{'' if entry['ratio_is_clear'] else ' ?'}", ratio)
            cells = *begin, number(row["n_ratings"], ","), *words.timed(row["timing"]), times
            yield Row(cells, words.reason(row), apart=apart)


def _folds(result: Json) -> Iterator[Fold]:
    columns = (Column("line", numeric=False), Column("threads"), Column("rate"), Column("unit", numeric=False))
    lines = [
        (f"{line['kernel']}, {line['place']}", line["threads"], line["gbytes_per_s"], "GB/s")
        for line in result["lines"]["bandwidth"]
    ]
    lines += [
        (f"multiply-adds, {line['dtype']}", line["threads"], line["gflops_per_s"], "GFLOP/s")
        for line in result["lines"]["peak"]
    ]
    rows = tuple(Row((text(name), number(n), number(rate, ".3g"), text(unit))) for name, n, rate, unit in lines)
    yield Fold("The machine's lines", table=Table(columns, rows))


def _pictures(result: Json) -> Iterator[figures.Picture]:
    for name in DRAWN:
        about = DRAWINGS[name].alt[0]
        title = {"ladder": "Ratings a second of each rung", "roofline": "Roofline", "post": "Where recipes end"}[name]
        yield figures.of_svg(title, about, drawings.svg(name, figures.THEME, result), f"rungs-{name}")
    yield _batches(result)


def _batches(result: Json) -> figures.Picture:
    """Ratings/s against the size of a mini-batch; the full batch is the largest."""
    ground, entry = result["quality"]["ground"], result["quality"]["batches"]
    n = ground["n_train"]
    points = sorted(
        (float(row["batch_size"] or n), n / row["seconds_per_epoch"] / 1e6)
        for row in entry["rows"]
        if row["seconds_per_epoch"]
    )
    k, dtype = ground["config"]["n_factors"], ground["config"]["dtype"]
    return plots.growth(
        "Ratings a second against the batch", [plots.Curve("Numba", points)], x="ratings of a batch", y="M ratings/s",
        key="rungs-batches", unit=" M",
        about=f"Ratings a second at the median epoch of {n:,} ratings, K = {k}, {dtype}, all threads.",
    )  # fmt: skip
