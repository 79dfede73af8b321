"""The tour's last part: the equality tables with a fault in the package, as numbers and as HTML."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from html import escape
from typing import Any

import numpy as np

from mf_numpy import check
from mf_numpy.check import Check, Method, Observe
from mf_numpy.engine import Engine
from mf_numpy.faults import Fault, broken, location
from mf_numpy.suite import Verdict, judge
from mf_numpy.tour_experiments import working


def gradients(fault: Fault | None, methods: Mapping[str, Method]) -> list[Check]:
    """The equality table of gradients, with the fault in the package while it is filled."""
    return _with(fault, lambda: check.check_gradients(methods))


def steps(fault: Fault | None, engines: Mapping[str, tuple[Engine[Any], Observe]]) -> list[Check]:
    """The equality table of 200 steps, likewise."""
    return _with(fault, lambda: check.check_trajectories(engines))


def named_checks(fault: Fault) -> list[Verdict]:
    """What the checks that the fault names say while it is in the package."""
    with working(), broken(fault):
        return [judge(name) for name in fault.caught_by]


def _with(fault: Fault | None, fill: Callable[[], list[Check]]) -> list[Check]:
    """The table, or, where the fault stops it, one red cell that says with which error."""
    with working(), broken(fault) if fault else nullcontext():
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return fill()
        except Exception as error:
            return [Check("stopped", f"{type(error).__name__}: {error}", "all", math.nan, 0.0, "")]


_STYLE = """<style>
.mf-table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem }
.mf-table th, .mf-table td { border: 1px solid rgb(128 128 128 / 40%); padding: 0.25rem 0.6rem; text-align: right }
.mf-table th { font-weight: 600; text-align: left }
.mf-good { background: rgb(47 163 111 / 18%) }
.mf-bad { background: #c62828; color: white; font-weight: 600 }
.mf-diff { overflow-x: auto; padding: 0.5rem 0.75rem; border: 1px solid rgb(128 128 128 / 40%); border-radius: 4px }
.mf-diff code { display: block; white-space: pre }
.mf-wrong { background: rgb(198 40 40 / 22%) }
.mf-right { background: rgb(47 163 111 / 22%) }
</style>"""


def equality(rows: Iterable[Check], quantities: str) -> str:
    """The largest difference of each method from the loops, a method a column; red past what is allowed."""
    cells = {(row.quantity, row.method): row for row in rows}
    methods = list(dict.fromkeys(method for _, method in cells))
    head = "".join(f"<th>{escape(method)}</th>" for method in methods)
    body = ""
    for quantity in dict.fromkeys(quantity for quantity, _ in cells):
        columns = "".join(_cell(cells.get((quantity, method))) for method in methods)
        body += f"<tr><th>{escape(quantity)}</th>{columns}</tr>"
    table = f'<table class="mf-table"><tr><th>{escape(quantities)}</th>{head}</tr>{body}</table>'
    return f'{_STYLE}<div style="overflow-x: auto">{table}</div>'


def _cell(row: Check | None) -> str:
    if row is None:
        return "<td></td>"
    text = "no number" if np.isnan(row.difference) else f"{row.difference:.1e}"
    return f'<td class="{_kind(row.ok)}" title="{escape(row.where)}">{text}</td>'


def _kind(ok: bool) -> str:
    return "mf-good" if ok else "mf-bad"


def line(fault: Fault) -> str:
    """The line that lies, above the one that stands in the source."""
    place = location(fault)
    where = f"{place.file}, line {place.line}" + (f" ({', '.join(place.equations)})" if place.equations else "")
    wrong = "".join(f'<code class="mf-wrong">- {escape(text)}</code>' for text in fault.wrong.strip("\n").splitlines())
    right = "".join(f'<code class="mf-right">+ {escape(text)}</code>' for text in fault.right.strip("\n").splitlines())
    return f'{_STYLE}<p>{escape(where)}</p><div class="mf-diff">{wrong}{right}</div>'


def verdicts(seen: Iterable[Verdict]) -> str:
    """Each named check, what it knows, and whether it rejects."""
    body = ""
    for verdict in seen:
        worst = verdict.worst
        found = verdict.raised or (f"{worst.quantity}, {worst.method}: {worst.difference:.1e}" if worst else "nothing")
        body += (
            f'<tr><th>{escape(verdict.name)}</th><td class="{_kind(verdict.ok)}">'
            f'{"passes" if verdict.ok else "rejects"}</td>'
            f'<td style="text-align: left">{escape(verdict.about)}</td>'
            f'<td style="text-align: left">{escape(found)}</td></tr>'
        )  # fmt: skip
    head = "<tr><th>check</th><th>says</th><th>what it knows</th><th>worst difference, relative</th></tr>"
    return f'{_STYLE}<div style="overflow-x: auto"><table class="mf-table">{head}{body}</table></div>'
