"""The command ``check``: equality tables and named checks, honest or with a line broken on purpose."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from mf_numpy.check import Check
from mf_numpy.cli_output import console, table, warn
from mf_numpy.errors import choose
from mf_numpy.faults import Fault, broken, location
from mf_numpy.suite import Suite, Verdict

_GOOD, _BAD = "green", "bold red"


def check(suite: Suite) -> int:
    """Print the equality tables and the named checks; 1 where a comparison fails, else 0."""
    out = console()
    tables = suite.equalities()
    for verdict in tables:
        _equality(out, verdict)
    verdicts = suite.verdicts()
    out.print("properties: what each check knows, and the largest difference it found")
    table(out, ["check", "finds", "difference", "allowed", "about"], [_line(v, v.about) for v in verdicts], text=_TEXT)
    out.print()
    return _conclude(out, [*tables, *verdicts])


def _conclude(out: Console, verdicts: Sequence[Verdict]) -> int:
    for verdict in verdicts:
        if verdict.raised is not None:
            warn(f"failed: {verdict.name} raised {verdict.raised}")
        for c in (row for row in verdict.rows if not row.ok):
            warn(f"failed: {verdict.name}: {c.quantity} by {c.method} differs by {c.difference:.1e} ({c.where})")
    n_rows = sum(len(verdict.rows) for verdict in verdicts)
    if not n_rows:
        warn("failed: nothing was compared")
    if not n_rows or not all(verdict.ok for verdict in verdicts):
        return 1
    out.print(f"all {n_rows} comparisons agree")
    return 0


def list_faults(suite: Suite) -> int:
    """Print what can be broken, and where each mistake comes from."""
    out = console()
    rows = [(fault.name, fault.function.partition(":")[0], fault.origin) for fault in suite.faults.values()]
    table(out, ["fault", "module", "about"], rows, text=("module", "about"))
    out.print("Try: check --break NAME")
    return 0


def check_broken(suite: Suite, name: str) -> int:
    """Print the same with a fault of the catalogue in place, then which line lies; always 1.

    Raises:
        ConfigError: no such fault, with the nearest one.
    """
    fault = suite.faults[choose("break", name, suite.faults)]
    out = console()
    out.print(f"broken on purpose: {name}\n", style="bold")
    with broken(fault):
        tables = suite.equalities()
        verdicts = suite.verdicts()
    for verdict in tables:
        _equality(out, verdict)
    out.print("properties: what each check finds")
    table(
        out, ["check", "finds", "difference", "allowed", "found"], [_line(v, _found(v)) for v in verdicts], text=_TEXT
    )
    _confess(out, fault)
    rejecting = [v.name for v in verdicts if not v.ok]
    if rejecting:
        green = len(verdicts) - len(rejecting)
        out.print(
            f"{len(rejecting)} of {len(verdicts)} checks reject it; the other {green} stay green: they cannot tell."
        )
    elif any(not v.ok for v in tables):
        out.print("No check rejects it; only the tables of equality do.")
    else:
        out.print("Nothing rejects it: no table, no check.", style=_BAD)
    for missed in (expected for expected in fault.caught_by if expected not in rejecting):
        warn(f"failed: {missed!r} must reject {name!r}, and does not")
    return 1


_TEXT = ("finds", "about", "found")


def _equality(out: Console, verdict: Verdict) -> None:
    """One table of tensor × method."""
    if verdict.raised is not None:
        out.print(f"{verdict.name}: raised {verdict.raised}\n", style=_BAD)
        return
    rows = verdict.rows
    methods = list(dict.fromkeys(c.method for c in rows))
    marked = {c.method for c in rows if not c.ok}
    # Digits stay under digits where the mark takes room.
    cells = {(c.quantity, c.method): _cell(c) + ("  " if c.ok and c.method in marked else "") for c in rows}
    quantities = dict.fromkeys(c.quantity for c in rows)
    if rows:
        out.print(f"{verdict.name}: largest relative difference from the loops, allowed {rows[0].tolerance:g}")
    table(out, ["", *methods], [(q, *(cells.get((q, m), "-") for m in methods)) for q in quantities])
    out.print()


def _cell(row: Check) -> Text:
    return Text(f"{row.difference:.1e}", _GOOD) if row.ok else Text(f"{row.difference:.1e} !", _BAD)


def _line(verdict: Verdict, text: str) -> tuple[object, ...]:
    word = Text("agrees", _GOOD) if verdict.ok else Text("rejects !", _BAD)
    row = verdict.worst
    if row is None:
        return verdict.name, word, "-", "-", text
    return (
        verdict.name,
        word,
        _cell(row) if not row.ok else f"{row.difference:.1e}",
        f"{row.tolerance:.0e}" if row.tolerance else "0",
        text,
    )


def _found(verdict: Verdict) -> str:
    """Where a rejecting check found the largest difference, or what it raised."""
    if verdict.raised is not None:
        return f"raised {verdict.raised}"
    row = verdict.worst
    return "" if verdict.ok or row is None else f"{row.quantity} by {row.method} ({row.where})"


def _confess(out: Console, fault: Fault) -> None:
    place = location(fault)
    cited = f" ({', '.join(place.equations)})" if place.equations else ""
    out.print(f"\nwhich line lies: {place.file}:{place.line}{cited}", style="bold", soft_wrap=True)
    for sign, text, style in (("-", fault.right, _GOOD), ("+", fault.wrong, _BAD)):
        for line in text.splitlines():
            out.print(f"{sign} {line}", style=style, soft_wrap=True)
    out.print(fault.origin, soft_wrap=True)
