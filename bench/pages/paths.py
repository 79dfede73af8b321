"""The section of `bench.paths`: an iteration of every path of mf_torch beside the Numba backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.figures import Picture
from bench.pages import plots, words
from bench.section import Column, Fold, Row, Section, Table, digits, machine_lines, mib, number, text

Json = dict[str, Any]

AGAINST = ("autograd", "numba")
COLUMNS = (
    Column("path", numeric=False),
    *map(Column, ("K", "threads", "ms an iteration", "middle half", "M ratings/s")),
    *(Column(f"{name} over it (quartiles)") for name in AGAINST),
    *map(Column, ("warm-up s", "peak MiB")),
)
SPENT = (
    Column("path", numeric=False),
    Column("K"),
    Column("threads"),
    Column("operator", numeric=False),
    Column("share, %"),
)
METHOD = (
    "An iteration is gradient and update over all ratings, in float32. Systems take turns, round by round, each turn a "
    "process of its own, which first compares its first steps with the Numba backend's, and fails where they differ by "
    "more than float32 allows. Warm-up is of the iterations until then, the first of which compiles; the peak is the "
    "most that layout and iterations held above the ratings.",
    "The median of all iterations counts. A ratio is how many times as long the other's takes; its quartiles are over "
    "all pairs of rounds, and say nothing where there was one round.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    return Section(
        kind="An iteration by each path",
        data=result["problem"]["data"],
        verdict=_verdict(result["rows"]),
        about=f"{words.sizes(result['problem'])}; numba is mf_numpy's, all others are ways of mf_torch.",
        table=Table(COLUMNS, tuple(_rows(result))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(result["rows"])),
        warnings=words.notices(result),
        folds=(
            Fold(
                "Where the time goes", "Share of an iteration's time by operator.", Table(SPENT, tuple(_spent(result)))
            ),
        ),
        hint="fused 64, autograd",
    )


def _verdict(rows: list[Json]) -> str:
    timed = [row for row in rows if row["timing"]]
    if not timed:
        return "nothing was measured."
    most, k = (max(row[key] for row in timed) for key in ("threads", "n_factors"))
    here = {
        row["system"]: row["timing"]["median_ms"] for row in timed if (row["threads"], row["n_factors"]) == (most, k)
    }
    paths = {name: ms for name, ms in here.items() if name != "numba"}
    where = f"with K = {k} by {words.threads(most)}"
    if not paths:
        return f"{where} numba takes {digits(here['numba'])} ms an iteration; no path was measured."
    best = min(paths, key=lambda name: paths[name])
    beside = [f"{name} {digits(here[name])} ms" for name in AGAINST if name in here and name != best]
    first = f"{where} {best} is the fastest path of mf_torch, {digits(here[best])} ms an iteration"
    return f"{first}{' beside ' if beside else ''}{words.listed(beside) if beside else ''}."


def _rows(result: Json) -> Iterator[Row]:
    found = {tuple(r[key] for key in ("system", "against", "n_factors", "threads")): r for r in result["ratios"]}
    before = None
    for row in result["rows"]:
        begin = text(row["system"]), number(row["n_factors"]), number(row["threads"])
        apart = before not in (None, row["n_factors"])
        before = row["n_factors"]
        if row["timing"] is None:
            yield Row(begin, words.reason(row), off=True, apart=apart)
            continue
        ratios = [found.get((row["system"], name, row["n_factors"], row["threads"])) for name in AGAINST]
        ends = number(max(row["warm_up_s"], default=None), ".2f"), mib(row["peak_bytes"])
        cells = *begin, *words.timed(row["timing"]), *map(words.times, ratios), *ends
        yield Row(cells, words.reason(row), apart=apart)


def _spent(result: Json) -> Iterator[Row]:
    for row in result["rows"]:
        lines = sorted((row["profile"] or {}).get("operators", ()), key=lambda line: -float(line["share"]))
        for at, line in enumerate(lines):
            share = number(100 * line["share"], ".1f")
            begin = text(row["system"]), number(row["n_factors"]), number(row["threads"])
            yield Row((*begin, text(line["operator"]), share), apart=at == 0)


def _pictures(rows: list[Json]) -> Iterator[Picture]:
    timed = [row for row in rows if row["timing"]]
    for k in words.ordered(row["n_factors"] for row in timed):
        here = sorted(
            (row for row in timed if row["n_factors"] == k), key=lambda row: float(row["timing"]["median_ms"])
        )
        yield plots.bars(
            f"Time of each path, K = {k}",
            [
                (f"{row['system']}, {words.threads(row['threads'])}", row["timing"]["median_ms"], row["system"])
                for row in here
            ],
            names=[row["system"] for row in timed], x="ms an iteration", key=f"paths-{k}", unit=" ms",
            about="Milliseconds of the median iteration, the fastest first.",
        )  # fmt: skip
    if timed:
        each = words.ordered(row["threads"] for row in timed)[::-1]
        yield plots.growth(
            "Ratings a second of each path against K", plots.rates(timed, "system", "n_factors", each), x="K",
            y="M ratings/s", key="paths-rates", dashes=[words.threads(n) for n in each], unit=" M",
            about="Ratings a second at the median iteration.",
        )  # fmt: skip
