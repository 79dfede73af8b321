"""The tour's last part: the equality tables with a fault in the package, as numbers and as HTML."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from mf_numpy import check
from mf_numpy.check import Check, Method, Observe
from mf_numpy.engine import Engine
from mf_numpy.faults import Fault, Place, broken, location
from mf_numpy.suite import Verdict, judge
from mf_numpy.tour_experiments import working


@dataclass(frozen=True)
class Examined:
    """What the package looks like with a fault in it, or without one.

    Attributes:
        gradients, trajectories: the equality tables.
        verdicts: of the checks that the fault names; they run while it is there.
        place: where the wrong line stands.
    """

    gradients: list[Check]
    trajectories: list[Check]
    verdicts: list[Verdict]
    place: Place | None


def examine(
    fault: Fault | None, methods: Mapping[str, Method], engines: Mapping[str, tuple[Engine[Any], Observe]]
) -> Examined:
    """Put the fault in, fill the tables, and take it out again, also after an error."""
    with working():
        if fault is None:
            return Examined(check.check_gradients(methods), check.check_trajectories(engines), [], None)
        with broken(fault):
            gradients, trajectories = _table("gradient", methods, engines), _table("trajectory", methods, engines)
            return Examined(gradients, trajectories, [judge(name) for name in fault.caught_by], location(fault))


def _table(kind: str, methods: Mapping[str, Method], engines: Mapping[str, tuple[Engine[Any], Observe]]) -> list[Check]:
    """The table, or, where the fault stops it, one red cell that says with which error."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return check.check_gradients(methods) if kind == "gradient" else check.check_trajectories(engines)
    except Exception as error:
        return [Check(kind, "all", "all", float("nan"), 0.0, f"{type(error).__name__}: {error}")]


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


def line(fault: Fault, place: Place) -> str:
    """The line that lies, above the one that stands in the source."""
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
