"""What `bench.compare` found, as lines for a terminal of 80 columns and as Markdown for a pull request."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from bench import compare
from mf_numpy.errors import counted

Json = dict[str, Any]

WIDTH, NAME = 80, 41
"""Columns of a terminal, and of a case's name; a longer one has a line of its own."""

HIDDEN = "Times of different machines, data or configurations say nothing of the code: no ratios; --force shows them."
ORDER = ("slower", "faster", "within noise", None)


def text(outcome: Json) -> list[str]:
    """Lines for a terminal: who is compared, what differs, cases by verdict, and what follows."""
    out = [_title(outcome), *(_who(outcome, name) for name in "ab")]
    out += [line for banner in _banner(outcome) for line in textwrap.wrap(banner, WIDTH, subsequent_indent="  ")]
    if outcome["times_compared"]:
        out += _timed(outcome["times"])
        ends = [line for end in _ends(outcome) for line in textwrap.wrap(end, WIDTH)]
        out += ["", *ends] if ends else []
    out += _scored(outcome)
    for name in "ab":
        out += _alone(outcome, name)
    out += [""] if outcome["failures"] or outcome["unjudged"] else []
    out += textwrap.wrap(f"Not judged: {outcome['unjudged']}.", WIDTH) if outcome["unjudged"] else []
    return out + [
        line
        for failure in outcome["failures"]
        for line in textwrap.wrap(f"FAILED: {failure}.", WIDTH, subsequent_indent="  ")
    ]


def _title(outcome: Json) -> str:
    of = f" of {outcome['data']}" if outcome["data"] else ""
    return f"{outcome['of']}{of}: B beside A"


def _who(outcome: Json, name: str) -> str:
    about = outcome[name]
    commit = f"commit {about['commit'][:7]}" if about["commit"] else "no commit known"
    changed = ", with changes" if about["dirty"] else ""
    return f"  {name.upper()}  {about['created'][:10]}  {commit}{changed}  {about['file']}"


def _banner(outcome: Json) -> Iterator[str]:
    yield "The code is the same." if outcome["same_code"] else "The code differs."
    yield from outcome["notes"]
    found = {name: parts for name, parts in outcome["differences"].items() if parts}
    if found:
        # What the reader must not miss comes last, where the eye is.
        yield from (f"DIFFERENT {name.upper()}: {'; '.join(parts)}." for name, parts in found.items())
        yield "Their times are compared all the same, as --force asks." if outcome["forced"] else HIDDEN
        if not outcome["rmse_compared"]:
            yield f"Nor is an {outcome['error']} compared: it is another on other data."


def _timed(rows: list[Json]) -> Iterator[str]:
    for verdict in ORDER:
        here = [row for row in rows if row["verdict"] == verdict]
        if not here:
            continue
        yield ""
        if verdict:
            yield f"{verdict:{NAME + 2}}{'A ms':>8}{'B ms':>8}{'B/A':>7}{'95 %':>13}"
        else:
            yield "without an interval"
        for row in here:
            yield from _line(row, verdict)


def _line(row: Json, verdict: str | None) -> Iterator[str]:
    name = f"  {row['case']}"
    if verdict is None:
        ratio = "" if row["ratio"] is None else f"B/A {_factor(row['ratio'])}, but "
        yield from textwrap.wrap(f"{name}: {ratio}{row['why']}", WIDTH, subsequent_indent="    ")
        return
    if len(name) > NAME + 2:
        yield name
        name = ""
    interval = f"{_factor(row['low'])}-{_factor(row['high'])}"
    yield f"{name:{NAME + 2}}{_ms(row['a_ms']):>8}{_ms(row['b_ms']):>8}{_factor(row['ratio']):>7}{interval:>13}"


def _ends(outcome: Json) -> Iterator[str]:
    """What the cases come to."""
    mean = outcome["mean"]
    if mean:
        yield (
            f"Geometric mean of {counted(mean['n'], 'ratio')}: {_factor(mean['ratio'])} "
            f"({_factor(mean['low'])}-{_factor(mean['high'])}), {mean['verdict']}."
        )
        yield f"{compare.counts(outcome)}."
    slower = outcome["thresholds"]["slower"]
    over = [row for row in outcome["times"] if slower is not None and row["verdict"] and row["ratio"] > slower]
    named = {row["case"] for row in over if any(text.startswith(f"{row['case']} ") for text in outcome["failures"])}
    if len(over) > len(named):
        yield f"{counted(len(over) - len(named), 'case')} over {slower:g}, but not beyond doubt among so many."


def _scored(outcome: Json) -> Iterator[str]:
    if outcome["rmse"]:
        yield ""
        yield f"{outcome['error']:{NAME + 2}}{'A':>9}{'B':>9}{'B - A':>10}"
    for row in outcome["rmse"]:
        name = f"  {row['case']}"
        if len(name) > NAME + 2:
            yield name
            name = ""
        yield f"{name:{NAME + 2}}{row['a']:9.4f}{row['b']:9.4f}{row['difference']:+10.5f}"
        if row["low"] is not None:
            interval = f"95 %: {row['low']:+.5f} to {row['high']:+.5f}"
            yield f"{interval:>{NAME + 30}}"


def _alone(outcome: Json, name: str) -> Iterator[str]:
    keys = outcome[f"only_{name}"]
    if keys:
        yield ""
        yield f"only in {name.upper()}"
        yield from (f"  {key}" for key in keys)


def markdown(outcome: Json) -> list[str]:
    """The same as Markdown: what fails and what changed first, the rest folded away."""
    out = [f"### {_title(outcome)}", ""]
    out += [f"- {_who(outcome, name).strip()}" for name in "ab"]
    out += [f"- {line}" for line in _banner(outcome)]
    out += [f"- **FAILED**: {failure}." for failure in outcome["failures"]]
    out += [f"- **Not judged**: {outcome['unjudged']}."] if outcome["unjudged"] else []
    if outcome["times_compared"]:
        out += [f"- {line}" for line in _ends(outcome)]
        for verdict in ORDER:
            here = [row for row in outcome["times"] if row["verdict"] == verdict]
            out += _table(here, verdict) if here else []
    if outcome["rmse"]:
        out += ["", f"| {outcome['error']} | A | B | B − A | 95 % |", "| --- | ---: | ---: | ---: | ---: |"]
        for row in outcome["rmse"]:
            interval = "" if row["low"] is None else f"{row['low']:+.5f} to {row['high']:+.5f}"
            cells = row["case"], f"{row['a']:.4f}", f"{row['b']:.4f}", f"{row['difference']:+.5f}", interval
            out.append(f"| {' | '.join(cells)} |")
    for name in "ab":
        keys = outcome[f"only_{name}"]
        out += ["", f"Only in {name.upper()}: {'; '.join(keys)}."] if keys else []
    return out


def _table(rows: list[Json], verdict: str | None) -> list[str]:
    if verdict is None:
        return ["", "Without an interval:", "", *(f"- {row['case']}: {row['why']}" for row in rows)]
    head = [f"| {verdict} | A ms | B ms | B/A | 95 % |", "| --- | ---: | ---: | ---: | ---: |"]
    lines = [_cells(row) for row in rows]
    if verdict != "within noise":
        return ["", *head, *lines]
    return ["", f"<details><summary>{len(rows)} within noise</summary>", "", *head, *lines, "", "</details>"]


def _cells(row: Json) -> str:
    interval = f"{_factor(row['low'])}–{_factor(row['high'])}"
    cells: Iterable[str] = row["case"], _ms(row["a_ms"]), _ms(row["b_ms"]), _factor(row["ratio"]), interval
    return f"| {' | '.join(cells)} |"


def _ms(value: float) -> str:
    return f"{value:#.3g}" if value < 99.95 else f"{value:,.0f}"


def _factor(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.3g}" if value < 1e4 else f"{value:.0e}"
