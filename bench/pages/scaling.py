"""The section of `bench.scaling`: how time and memory grow with the ratings, with K and with the threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.figures import Picture
from bench.pages import plots, words
from bench.section import NOTHING, Cell, Column, Row, Section, Table, machine_lines, number, text

Json = dict[str, Any]

COLUMNS = (
    Column("solver", numeric=False),
    *map(Column, ("ratings", "K", "threads", "ms an epoch", "middle half", "M ratings/s", "all threads over one")),
    *map(Column, ("B a rating", "B a rating, unsorted")),
)
METHOD = (
    "Ratings are planted, about 90 a user over 5,000 items, so that N grows by its users; float32. Each case is a "
    "process of its own, in which numbers of threads take turns, epoch by epoch; five epochs of each count, after one "
    "to warm up. An exponent is the slope of log time over the log of what grows, by least squares.",
    "Bytes a rating are the most that a whole fit held above the ratings themselves, less three copies of the "
    "parameters. Ratings come sorted by user; unsorted is the same of ratings in a random order.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    rows = result["rows"]
    sizes, factors = (words.ordered(row[key] for row in rows) for key in ("n_ratings", "n_factors"))
    return Section(
        kind="Growth of time and memory",
        data="",
        verdict=_verdict(result),
        about=(
            f"{words.listed(f'{n:,}' for n in sizes)} ratings; K = {words.listed(factors)}; "
            f"{words.listed(words.ordered(row['threads'] for row in rows))} threads."
        ),
        table=Table(COLUMNS, tuple(_rows(result))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(result)),
        warnings=words.notices(result),
        hint="sgd 10,000,000",
    )


def _verdict(result: Json) -> str:
    grown = {
        over: [one["slope"] for one in result["slopes"] if (one["over"], one["threads"]) == (over, 1)] for over in "NK"
    }
    said = [f"as {over} to the {words.span(slopes, '.2f')}" for over, slopes in grown.items() if slopes]
    if not said:
        return "too little was measured to say how time grows."
    gains = [one["ratio"] for one in result["threads"]]
    most = max(row["threads"] for row in result["rows"])
    gained = f"; {words.threads(most)} make it {words.span(gains, '.2f')} times as fast" if gains else ""
    return f"by one thread the time of an epoch grows {' and '.join(said)}{gained}."


def _rows(result: Json) -> Iterator[Row]:
    most = max((row["threads"] for row in result["rows"]), default=1)
    keys = ("solver", "n_ratings", "n_factors")
    gains = {tuple(one[key] for key in keys): one["ratio"] for one in result["threads"]}
    before = None
    for row in sorted(result["rows"], key=lambda row: str(row["solver"])):
        begin = text(row["solver"]), *(number(row[key], ",") for key in ("n_ratings", "n_factors", "threads"))
        apart = before not in (None, row["solver"])
        before = row["solver"]
        if row["timing"] is None:
            yield Row(begin, words.reason(row), off=True, apart=apart)
            continue
        gain = gains.get(tuple(row[key] for key in keys)) if row["threads"] == most else None
        spares = [number(row[key], ".1f") for key in ("spare_bytes_per_rating", "unsorted_spare_bytes_per_rating")]
        times = NOTHING if gain is None else Cell(f"{gain:.2f}×", gain)
        yield Row((*begin, *words.timed(row["timing"]), times, *spares), words.reason(row), apart=apart)


def _pictures(result: Json) -> Iterator[Picture]:
    rows = [row for row in result["rows"] if row["timing"]]
    if not rows:
        return
    each = words.ordered(row["threads"] for row in rows)[::-1]
    k, n = _fixed(rows, "n_factors", "n_ratings"), _fixed(rows, "n_ratings", "n_factors")
    for over, key, fixed, value, held in (
        ("N", "n_ratings", "n_factors", k, f"K = {k}"),
        ("K", "n_factors", "n_ratings", n, f"N = {n:,}"),
    ):
        yield plots.growth(
            f"Ratings a second against {over}",
            plots.rates([row for row in rows if row[fixed] == value], "solver", key, each),
            x=over, y="M ratings/s", key=f"scaling-{over}", dashes=[words.threads(n) for n in each], unit=" M",
            about=f"Ratings a second at the median epoch, {held}.",
        )  # fmt: skip
    here = [row for row in rows if (row["n_factors"], row["n_ratings"]) == (k, n)]
    yield plots.growth(
        "Ratings a second against threads", plots.rates(here, "solver", "threads"), x="threads", y="M ratings/s",
        key="scaling-threads", unit=" M", about=f"Ratings a second at the median epoch, K = {k}, N = {n:,}.",
    )  # fmt: skip
    memory = [
        plots.Curve(name, points)
        for name in dict.fromkeys(row["solver"] for row in rows)
        if (points := _spare([row for row in rows if (row["solver"], row["n_factors"]) == (name, k)]))
    ]
    if memory:
        yield plots.growth(
            "Memory a rating against N", memory, x="N", y="bytes a rating", key="scaling-memory", unit=" B",
            about=f"What a whole fit holds above ratings and three copies of the parameters, for each rating, K = {k}.",
        )  # fmt: skip


def _fixed(rows: list[Json], key: str, over: str) -> int:
    """The value of `key` at which most values of `over` were tried."""
    tried = {
        value: len({row[over] for row in rows if row[key] == value}) for value in words.ordered(r[key] for r in rows)
    }
    most: int = max(tried, key=lambda value: tried[value])
    return most


def _spare(rows: list[Json]) -> list[tuple[float, float]]:
    """Bytes a rating by N, the same of every number of threads."""
    found = {row["n_ratings"]: row["spare_bytes_per_rating"] for row in rows}
    return sorted((float(n), spare) for n, spare in found.items() if spare and spare > 0)
