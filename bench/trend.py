"""Committed results by commit: what each case of each result was, wherever its file changed.

``python -m bench trend`` makes a page of it, which carries version 1 of:
    schema, schema_version, shallow: whether history begins where the clone does
    files [{machine, name, points [{commit, date, created}], lines [{case, unit, values}]}], by machine, then name
    left_out [{commit, machine, name, reason}]

A file is known by its machine's folder and its name, and by what it says itself where it lay elsewhere: one that was
moved has one history. ``values`` has a number for each point, or null; ms and instructions are medians or counts, RMSE
means over seeds. What lies in no folder today is left out.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from bench import committed, machine
from bench.compared import SCHEMAS
from mf_numpy.errors import ConfigError, counted

Json = dict[str, Any]

SCHEMA, VERSION = "mf-trend", 1
WHERE = "bench/results"
INSTRUCTIONS = "mf-instructions", 1
"""What is counted, not timed, and so not compared."""


@dataclass(frozen=True)
class Change:
    """A file as a commit left it."""

    commit: str
    date: str
    blob: str
    path: str


def measure(root: Path = machine.ROOT) -> Json:
    """The history of every result that is committed in a checkout.

    Raises:
        ConfigError: no git checkout, or no result in its history.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top.strip()).resolve() != root.resolve():
        raise ConfigError(f"trend reads the history of {WHERE}, but this is no git checkout; clone the repository")
    found: dict[tuple[str, str], list[tuple[Change, Json]]] = {}
    for change in _changes(root):
        outcome = _outcome(root, change.blob)
        if outcome is None:
            continue
        known = found.setdefault((committed.slug(outcome), Path(change.path).name), [])
        # A file that was only moved is what it was.
        if not known or known[-1][0].blob != change.blob:
            known.append((change, outcome))
    today = (_git(root, "ls-tree", "-r", "--name-only", "HEAD", WHERE) or "").splitlines()
    here = {(Path(path).parent.name, Path(path).name) for path in today}
    files, left_out = [], []
    for (folder, name), changes in sorted(found.items()):
        if (folder, name) in here:
            one, missing = _file(changes)
            files.append({"machine": folder, "name": name} | one)
            left_out += [{"machine": folder, "name": name} | lost for lost in missing]
    if not files:
        raise ConfigError(f"no commit has a result in a machine's folder of {WHERE}; commit one")
    shallow = (_git(root, "rev-parse", "--is-shallow-repository") or "").strip() == "true"
    return {"schema": SCHEMA, "schema_version": VERSION, "shallow": shallow, "files": files, "left_out": left_out}


def _file(changes: list[tuple[Change, Json]]) -> tuple[Json, list[Json]]:
    """The history of a file, and the commits of it that cannot be read any more."""
    points: list[Json] = []
    each: list[dict[tuple[str, str], float]] = []
    missing: list[Json] = []
    for change, outcome in changes:
        try:
            figures = dict(_figures(outcome))
        except ValueError as error:
            missing.append({"commit": change.commit, "reason": str(error)})
            continue
        except (KeyError, TypeError) as error:
            missing.append({"commit": change.commit, "reason": f"it is damaged: {type(error).__name__}, {error}"})
            continue
        each.append(figures)
        points.append({"commit": change.commit, "date": change.date, "created": outcome["created"]})
    # In the order of the last, then what it has no more.
    keys = dict.fromkeys(key for figures in reversed(each) for key in figures)
    lines = [
        {"case": case, "unit": unit, "values": [figures.get((case, unit)) for figures in each]} for case, unit in keys
    ]
    return {"points": points, "lines": lines}, missing


def _figures(outcome: Json) -> Iterator[tuple[tuple[str, str], float]]:
    """((case, unit), number) of everything that a result says of its cases.

    Raises:
        ValueError: a schema or a version of one that is not read here.
    """
    came = outcome["schema"], outcome["schema_version"]
    if came == INSTRUCTIONS:
        for row in outcome["rows"]:
            yield (f"{row['kernel']}, K = {row['n_factors']}", "instructions"), row["instructions"]
        return
    kind = SCHEMAS.get(came[0])
    if kind is None or came[1] != kind.version:
        raise ValueError(f"version {came[1]} of {came[0]} is read no more")
    for case in kind.cases(outcome):
        if case.median_ms is not None:
            yield (case.key, "ms"), case.median_ms
        if case.rmses:
            yield (case.key, "RMSE"), statistics.mean(case.rmses)


def _changes(root: Path) -> Iterator[Change]:
    """Every file that a commit added or changed, the oldest commit first; of a merge what it has from no parent."""
    said = _git(root, "log", "-c", "--reverse", "--raw", "--no-abbrev", "--no-renames", "--format=@%H %cs", "--", WHERE)
    commit = date = ""
    for line in (said or "").splitlines():
        if line.startswith("@"):
            commit, date = line[1:].split(" ")
        elif line.startswith(":"):
            # Modes and blobs of each parent and of the commit; then, how it differs from each.
            about, _, path = line.partition("\t")
            *_, blob, status = about.split(" ")
            if set(status) <= set("AM") and path.endswith(".json"):
                yield Change(commit, date, blob, path)


def _outcome(root: Path, blob: str) -> Json | None:
    """The result in a blob, or None where it is none."""
    try:
        held = json.loads(_git(root, "cat-file", "blob", blob) or "")
    except ValueError:
        return None
    names = ("schema", "schema_version", "machine", "created")
    return held if isinstance(held, dict) and all(name in held for name in names) else None


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def render(outcome: Json) -> str:
    """The page. Needs jinja2.

    Raises:
        ImportError: it is not installed.
    """
    from bench import section

    machines: dict[str, list[Json]] = {}
    for file in outcome["files"]:
        machines.setdefault(file["machine"], []).append(_section(file))
    return section.page("trend.html.j2", outcome, verdict=verdict(outcome), machines=machines, outcome=outcome)


def verdict(outcome: Json) -> str:
    """How much history there is, in one sentence."""
    points = [point for file in outcome["files"] for point in file["points"]]
    machines = {file["machine"] for file in outcome["files"]}
    commits, dates = {point["commit"] for point in points}, sorted(point["date"] for point in points)
    span = f", {dates[0]} to {dates[-1]}" if dates else ""
    return (
        f"{counted(len(outcome['files']), 'result')} of {counted(len(machines), 'machine')} in "
        f"{counted(len(commits), 'commit')}{span}."
    )


def _section(file: Json) -> Json:
    """A file as the page shows it."""
    return {
        "name": file["name"],
        "points": file["points"],
        "rows": [
            {
                "case": line["case"],
                "unit": line["unit"],
                "figures": [_shown(value, line["unit"]) for value in line["values"]],
                "line": sparkline(line["values"], f"{line['case']}, {line['unit']}"),
                "change": change(line["values"], line["unit"]),
            }
            for line in file["lines"]
        ],
    }


def change(values: list[float | None], unit: str) -> str:
    """What the last number is beside the first; empty for fewer than two."""
    known = [value for value in values if value is not None]
    if len(known) < 2 or not known[0]:
        return ""
    text = f"{known[-1] - known[0]:+.4f}" if unit == "RMSE" else f"{100 * (known[-1] / known[0] - 1):+.0f} %"
    # What rounds to nothing has no sign.
    return text.replace("-", "−") if any(digit in text for digit in "123456789") else text[1:]


def sparkline(values: list[float | None], about: str) -> str:
    """A small line through the numbers, as an SVG element in the colour of the text; empty for fewer than two."""
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return ""
    low, high = min(value for _, value in known), max(value for _, value in known)
    # A number that stays is a line in the middle.
    places = [
        (4 + 82 * at / (len(values) - 1), 11.0 if high == low else 19 - 16 * (value - low) / (high - low))
        for at, value in known
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    x, y = places[-1]
    return (
        f'<svg class="line" viewBox="0 0 90 22" role="img" aria-label="{escape(about)}, by commit">'
        f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="1.4"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="currentColor"/></svg>'
    )


def _shown(value: float | None, unit: str) -> str:
    from bench.tables import digits

    if value is None:
        return "–"
    return f"{value:.4f}" if unit == "RMSE" else digits(value)
