"""The tour's last part: the equality tables with a fault in the package, as numbers and as HTML."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from html import escape

import numpy as np

from mf_numpy.check import Check
from mf_numpy.faults import Fault, broken, location
from mf_numpy.suite import Suite, Verdict, judge
from mf_numpy.tour_experiments import working


def table(suite: Suite, kind: str, fault: Fault | None) -> Verdict:
    """An equality table, ``gradient`` or ``trajectory``, with the fault in the package while it is filled."""
    with working(), broken(fault) if fault else nullcontext():
        return judge(kind, lambda ways: suite.tables[kind](), suite.ways)


def named_checks(suite: Suite, fault: Fault) -> list[Verdict]:
    """What the checks that must reject the fault say while it is in the package."""
    with working(), broken(fault):
        return [judge(name, suite.checks[name], suite.ways) for name in fault.caught_by]


_STYLE = """<style>
.mf-table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem }
.mf-table th, .mf-table td { border: 1px solid rgb(128 128 128 / 40%); padding: 0.25rem 0.6rem }
.mf-table td { text-align: right; white-space: nowrap }
.mf-table th { font-weight: 600; text-align: left }
.mf-table td.mf-text { text-align: left; white-space: normal; min-width: 14rem }
.mf-good { background: rgb(47 163 111 / 18%) }
.mf-bad { background: #c62828; color: white; font-weight: 600 }
.mf-diff { overflow-x: auto; padding: 0.5rem 0.75rem; border: 1px solid rgb(128 128 128 / 40%); border-radius: 4px }
.mf-diff code { display: block; white-space: pre; min-width: max-content }
.mf-wrong { background: rgb(198 40 40 / 22%) }
.mf-right { background: rgb(47 163 111 / 22%) }
</style>"""


def equality(seen: Verdict, quantities: str) -> str:
    """The largest difference of each method from the loops, a method a column; red past what is allowed."""
    if seen.raised is not None:
        return f'{_STYLE}<p class="mf-bad" style="padding: 0.5rem">It stopped: {escape(seen.raised)}</p>'
    cells = {(row.quantity, row.method): row for row in seen.rows}
    methods = list(dict.fromkeys(method for _, method in cells))
    head = "".join(f"<th>{escape(method)}</th>" for method in methods)
    body = ""
    for quantity in dict.fromkeys(quantity for quantity, _ in cells):
        columns = "".join(_cell(cells.get((quantity, method))) for method in methods)
        body += f"<tr><th>{escape(quantity)}</th>{columns}</tr>"
    return _table(f"<tr><th>{escape(quantities)}</th>{head}</tr>{body}")


def _table(rows: str) -> str:
    return f'{_STYLE}<div style="overflow-x: auto"><table class="mf-table">{rows}</table></div>'


def _cell(row: Check | None) -> str:
    if row is None:
        return "<td></td>"
    if row.method == "loops" and row.ok:
        return "<td>reference</td>"
    text = "no number" if np.isnan(row.difference) else f"{row.difference:.1e}"
    return f'<td class="{_kind(row.ok)}" title="{escape(row.where)}">{text}</td>'


def _kind(ok: bool) -> str:
    return "mf-good" if ok else "mf-bad"


def line(fault: Fault) -> str:
    """The line that lies, above the one that stands in the source."""
    place = location(fault)
    where = f"{place.file}, line {place.line}" + (f" ({', '.join(place.equations)})" if place.equations else "")
    wrong = "".join(
        f'<code class="mf-wrong">wrong  {escape(text)}</code>' for text in fault.wrong.strip("\n").splitlines()
    )
    right = "".join(
        f'<code class="mf-right">right  {escape(text)}</code>' for text in fault.right.strip("\n").splitlines()
    )
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
            f'<td class="mf-text">{escape(verdict.about)}</td><td class="mf-text">{escape(found)}</td></tr>'
        )  # fmt: skip
    head = "<tr><th>check</th><th>says</th><th>what it knows</th><th>worst difference, relative</th></tr>"
    return _table(head + body)
