"""The section of `bench.speed`: an epoch of ours beside the libraries people use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from bench.figures import Picture
from bench.pages import plots, words
from bench.peer_tables import CONTESTS
from bench.section import NOTHING, Column, Row, Section, Table, machine_lines, number, text
from mf_numpy.errors import counted

Json = dict[str, Any]

COLUMNS = (
    Column("contest", numeric=False),
    Column("system", numeric=False),
    *map(Column, ("K", "threads", "ms an epoch", "middle half", "M ratings/s", "times ours (quartiles)")),
)
METHOD = (
    "A contest is a full-batch iteration (against the same in SciPy's sparse products), a pass of single-rating steps, "
    "or all users' and all items' least squares, exact or by three conjugate-gradient steps a row. All in float32 with "
    "equal K and threads. Systems take turns, round by round, each turn a process of its own; the first epoch, which "
    "compiles, is not counted.",
    "The median of all epochs counts. A ratio is how many times as long the other's median epoch takes; its quartiles "
    "are over all pairs of rounds, and say nothing where there was one round.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    rounds = max(len(row["samples_ms"] or ()) for row in result["rows"])
    return Section(
        kind="An epoch beside other libraries",
        data=result["problem"]["data"],
        verdict=_verdict(result),
        about=f"{words.sizes(result['problem'])}; {counted(rounds, 'round')}.",
        table=Table(COLUMNS, tuple(_rows(result))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(result)),
        warnings=words.notices(result),
        hint="single steps 64, ALS",
    )


def _verdict(result: Json) -> str:
    pairs = []
    for group in _groups(row for row in result["rows"] if row["timing"]).values():
        mine = [row["timing"] for row in group if row["system"].startswith("mf_")]
        others = [row["timing"] for row in group if not row["system"].startswith("mf_")]
        if mine and others:
            pairs.append([min(side, key=lambda timing: float(timing["median_ms"])) for side in (mine, others)])
    if not pairs:
        ratios = [one["ratio"] for one in result["ratios"] if one["contest"] == "features" and one["ratio"] is not None]
        if ratios:
            return f"an iteration with features takes {words.span(ratios, '.2f')} times as long as one with ids alone."
        return "nothing was measured beside another system."
    # Middle halves that overlap: no claim.
    ahead = sum(mine["q3_ms"] < other["q1_ms"] for mine, other in pairs)
    ratios = [other["median_ms"] / mine["median_ms"] for mine, other in pairs]
    return (
        f"an epoch of ours is clearly the fastest in {ahead} of {len(pairs)} comparisons of contest, K and threads; "
        f"the fastest other takes {words.span(ratios, '.2f')} times as long."
    )


def _groups(rows: Iterable[Json]) -> dict[tuple[Any, ...], list[Json]]:
    """Rows that were timed on equal terms."""
    out: dict[tuple[Any, ...], list[Json]] = {}
    for row in rows:
        out.setdefault(tuple(row[key] for key in ("contest", "n_factors", "threads")), []).append(row)
    return out


def _rows(result: Json) -> Iterator[Row]:
    found = {tuple(r[key] for key in ("contest", "against", "n_factors", "threads")): r for r in result["ratios"]}
    before = None
    for row in result["rows"]:
        name = CONTESTS[row["contest"]][0]
        begin = text(name), text(row["system"]), number(row["n_factors"]), number(row["threads"])
        apart = before not in (None, row["contest"])
        before = row["contest"]
        if row["timing"] is None:
            yield Row(begin, words.reason(row), off=True, apart=apart)
            continue
        ratio = found.get((row["contest"], row["system"], row["n_factors"], row["threads"]))
        beside = words.times(ratio) if ratio else text("ours") if row["system"].startswith("mf_") else NOTHING
        yield Row((*begin, *words.timed(row["timing"]), beside), words.reason(row), apart=apart)


def _pictures(result: Json) -> Iterator[Picture]:
    rows = [row for row in result["rows"] if row["timing"]]
    each = words.ordered(row["threads"] for row in rows)[::-1]
    for contest in dict.fromkeys(row["contest"] for row in rows):
        here = [row for row in rows if row["contest"] == contest]
        yield plots.growth(
            f"Ratings a second against K: {CONTESTS[contest][0]}",
            plots.rates(here, "system", "n_factors", each),
            x="K", y="M ratings/s", key=f"speed-{contest}", dashes=[words.threads(n) for n in each], unit=" M",
            about="Ratings a second at the median epoch.",
        )  # fmt: skip
    if result["ratios"]:
        yield _ratios(result["ratios"])


def _ratios(ratios: list[Json]) -> Picture:
    most = max(one["threads"] for one in ratios)
    here = [one for one in ratios if one["threads"] == most]
    keys = list(dict.fromkeys((one["contest"], one["n_factors"]) for one in here))
    rows = [
        (
            f"{CONTESTS[contest][0]}, K = {k}",
            [(one["against"], one["ratio"]) for one in here if (one["contest"], one["n_factors"]) == (contest, k)],
        )
        for contest, k in keys
    ]
    told = "; ".join(f"{name}: " + ", ".join(f"{other} {ratio:.2f}" for other, ratio in found) for name, found in rows)
    return plots.dots(
        f"How many times as long the others take, {words.threads(most)}", rows, x="times ours, log scale",
        key="speed-ratios", beside=1.0, log=True,
        about=f"The median epoch of each other system over ours; right of the line ours is faster. {told}.",
    )  # fmt: skip
