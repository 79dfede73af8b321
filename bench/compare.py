"""Two results of one kind, case by case: how the times of B stand to those of A, and the RMSE.

A ratio is the median of B over that of A, with an interval of 95 % (`bench.intervals`); where the interval holds 1 it
is within noise. The geometric mean is over the cases that both files have. Times of another machine, data or
configuration are not compared unless that is forced; an RMSE is compared wherever the data are the same. Another
commit is what comparing is for, and is stated.

A threshold is crossed where B is beyond doubt slower than it: where the mean, or a case, has its whole interval above.
For these the intervals are so wide that of equal code the chance of any crossing at all, however many cases there
are, is at most 2.5 % (Bonferroni); a mean over many cases sees small changes that no single case can show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import intervals
from bench.compared import SCHEMAS, Case, Schema
from bench.intervals import CHANCE, Estimate
from bench.result import read
from mf_numpy.errors import ConfigError, FileFormatError, choose, counted

Json = dict[str, Any]

SCHEMA, VERSION = "mf-compare", 1
FORMATS = ("text", "md", "json")


def compare(a: Path, b: Path, *, slower: float | None = None, rmse: float | None = None, force: bool = False) -> Json:
    """What two result files say of each other.

    Args:
        slower: the ratio above which a time is a failure, such as 1.1.
        rmse: the rise above which an RMSE is a failure.
        force: compare times whatever differs.

    Returns:
        {schema, schema_version, of (the schema compared), data (A's name of it, or null), error (what ``rmse`` is of),
        a, b {file, created, commit, dirty}, same_code, differences {machine, data, configuration}, notes,
        forced, times_compared, rmse_compared,
        times [{case, a_ms, b_ms, ratio, low, high, verdict, why}], mean {n, ratio, low, high, verdict} or null,
        rmse [{case, a, b, difference, low, high}], only_a, only_b, thresholds {slower, rmse}, failures, unjudged}.

    Raises:
        FileFormatError: a file that is not there, no result, damaged, of another version, or of another schema.
    """
    (one, of, before), (two, other, after) = _load(a), _load(b)
    if of != other:
        raise FileFormatError(f"{a.name} is a result of schema {of}, but {b.name} of {other}; give two of one schema")
    kind = SCHEMAS[of]
    differences = {"machine": _machine(one, two), "data": _data(one, two, kind), "configuration": _threads(one, two)}
    matched = [(before[key], after[key]) for key in before if key in after]
    out: Json = {
        "schema": SCHEMA,
        "schema_version": VERSION,
        "of": of,
        "data": _name(one, kind),
        "error": kind.error,
        "a": _about(a, one),
        "b": _about(b, two),
        "same_code": one["code"] == two["code"],
        "differences": differences,
        "notes": list(_notes(one, two)),
        "forced": force,
        "times_compared": force or not any(differences.values()),
        "rmse_compared": not differences["data"],
        "only_a": [key for key in before if key not in after],
        "only_b": [key for key in after if key not in before],
        "thresholds": {"slower": slower, "rmse": rmse},
        "failures": [],
    }
    _times(out, matched, slower)
    _scores(out, matched, rmse)
    out["unjudged"] = _unjudged(out, matched)
    return out


def exit_code(outcome: Json) -> int:
    """1 where a threshold is crossed; 2 where nothing could be compared, or not what a threshold asks for; else 0."""
    if outcome["failures"]:
        return 1
    return 2 if outcome["unjudged"] else 0


def threshold(text: str) -> float:
    """The ratio that ``10%`` or ``1.1x`` means, 1.1.

    Raises:
        ConfigError: another form, such as 0.1 or 10, which may mean either; a share below 0 or a ratio below 1.
    """
    try:
        form, number = text.strip()[-1:], float(text.strip()[:-1])
    except ValueError:
        form, number = "", math.nan
    ratio = {"%": 1 + number / 100, "x": number}.get(form, math.nan)
    if not 1 <= ratio < math.inf:
        raise ConfigError(f"the threshold is {text!r}, but must be a share such as 10% or a ratio such as 1.1x")
    return ratio


def _load(path: Path) -> tuple[Json, str, dict[str, Case]]:
    """A result, its schema and its cases by key."""
    result = read(path, {name: kind.version for name, kind in SCHEMAS.items()}, to="compare")
    name: str = result["schema"]
    kind = SCHEMAS[name]
    try:
        cases = list(kind.cases(result))
        for key in ("created", "code", "machine", "environment"):
            result[key]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FileFormatError(
            f"{path.name} is damaged: {type(error).__name__}, {error}; give a file as the benchmark wrote it"
        ) from None
    return result, name, {case.key: case for case in cases}


def _about(path: Path, result: Json) -> Json:
    git = result.get("git") or {}
    return {"file": path.name, "created": result["created"]} | {key: git.get(key) for key in ("commit", "dirty")}


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What differs of that which both say, in words."""
    return [f"{key} {_shown(a[key])} and {_shown(b[key])}" for key in a if key in b and a[key] != b[key]]


def _shown(value: Any) -> str:
    # The first digits of a fingerprint are enough to tell two apart.
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 40 else str(value)


def _machine(a: Json, b: Json) -> list[str]:
    keys = ("cpu", "architecture", "system")
    flat = [
        {key: one["machine"].get(key) for key in keys}
        | {f"{kind} cores": n for kind, n in one["machine"]["cores"].items()}
        | {"GPUs": ", ".join(str(gpu["name"]) for gpu in one.get("gpu") or []) or "none"}
        for one in (a, b)
    ]
    return _apart(flat[0], flat[1])


def _data(a: Json, b: Json, kind: Schema) -> list[str]:
    if not kind.data:
        return []
    found = []
    for one in (a, b):
        about = one[kind.data]
        named = {part["data"]: part for part in about} if isinstance(about, list) else about
        # Computed, not chosen: its last bit may differ where the data do not.
        found.append({key: value for key, value in named.items() if key != "noise_floor"})
    return _apart(found[0], found[1])


def _name(result: Json, kind: Schema) -> str | None:
    about = result.get(kind.data)
    return about.get("name") or about.get("data") if isinstance(about, dict) else None


def _threads(a: Json, b: Json) -> list[str]:
    """Threads that the harness set for all workers; what is set for a case is its own."""
    most = [max(one["environment"]["set"].values(), default=0) for one in (a, b)]
    return [] if most[0] == most[1] else [f"at most {most[0]} and {most[1]} threads"]


def _notes(a: Json, b: Json) -> Iterator[str]:
    """What is no reason to compare nothing, but may be the reason for a difference."""
    versions = _apart(a.get("packages") or {}, b.get("packages") or {})
    python = _apart({"Python": a["machine"].get("python")}, {"Python": b["machine"].get("python")})
    if versions or python:
        yield f"Versions differ: {', '.join(python + versions)}."
    for name, one in (("A", a), ("B", b)):
        rows = [row.get("others_busy_cores") or 0.0 for row in one.get("rows", [])]
        busy = max([one.get("others_busy_cores") or 0.0, *rows])
        # A quarter of a core is what an idle desktop uses.
        if busy > 0.25:
            yield f"While {name} was measured, others kept up to {busy:.2f} cores busy."
        if one.get("complete") is False or one.get("interrupted"):
            yield f"{name} was cut short."


def _times(out: Json, matched: list[tuple[Case, Case]], slower: float | None) -> None:
    """Fill in ``times``, ``mean`` and what of them crosses the threshold."""
    timed = [(a, b) for a, b in matched if a.rounds or b.rounds]
    whys = [_why_no_ratio(a, b, out["forced"]) for a, b in timed]
    found: list[tuple[str, Estimate]] = []
    out["times"] = []
    for (a, b), why in zip(timed, whys, strict=True):
        row: Json = {"case": a.key, "a_ms": a.median_ms, "b_ms": b.median_ms}
        row |= {"ratio": None, "low": None, "high": None, "verdict": None, "why": why}
        if out["times_compared"] and why is None and a.median_ms and b.median_ms:
            row["ratio"] = b.median_ms / a.median_ms
            before, after = intervals.log_median(a.rounds), intervals.log_median(b.rounds)
            if before is None or after is None:
                row["why"] = "one sample has no interval"
            else:
                found.append((a.key, intervals.difference(before, after)))
                row |= _ratio(found[-1][1])
        if not out["times_compared"]:
            row |= {"a_ms": None, "b_ms": None}
        out["times"].append(row)
        if slower is not None and b.trouble and not a.trouble and out["times_compared"]:
            out["failures"].append(f"{a.key} ran in A, but not in B ({b.trouble})")
    mean = intervals.average([one for _, one in found]) if found else None
    out["mean"] = None if mean is None else {"n": len(found)} | _ratio(mean)
    if slower is None or mean is None:
        return
    # The chance of a crossing by luck is shared out among all that is judged.
    chance = CHANCE / (len(found) + (len(found) > 1))
    judged = ([("the geometric mean", mean)] if len(found) > 1 else []) + found
    for key, one in judged:
        if one.ends(chance)[0] > math.log(slower):
            out["failures"].append(f"{key} is {math.exp(one.value):.2f} times as slow; allowed is {slower:g}")


def _why_no_ratio(a: Case, b: Case, force: bool) -> str | None:
    """Why two cases of one name have no ratio, or None."""
    for name, case in (("A", a), ("B", b)):
        if case.trouble or not case.rounds:
            return f"{name} {case.trouble or 'has no time'}"
    if any(not ms > 0 for case in (a, b) for one in case.rounds for ms in one):
        return "a sample is not above zero"
    apart = _apart(a.about, b.about)
    return None if force or not apart else f"configured otherwise: {', '.join(apart)}"


def _ratio(found: Estimate) -> Json:
    """The ratio of a log ratio, its interval, and what to call it."""
    low, high = map(math.exp, found.ends())
    verdict = "slower" if low > 1 else "faster" if high < 1 else "within noise"
    return {"ratio": math.exp(found.value), "low": low, "high": high, "verdict": verdict}


def _scores(out: Json, matched: list[tuple[Case, Case]], allowed: float | None) -> None:
    """Fill in ``rmse``, and what of it rises by more than is allowed."""
    out["rmse"] = []
    scored = [(a, b) for a, b in matched if a.rmses and b.rmses and out["rmse_compared"]]
    for a, b in scored:
        means = [sum(case.rmses) / len(case.rmses) for case in (a, b)]
        row: Json = {"case": a.key, "a": means[0], "b": means[1], "difference": means[1] - means[0]}
        before, after = intervals.mean(a.rmses), intervals.mean(b.rmses)
        surely = row["difference"]
        row |= {"low": None, "high": None}
        if before is not None and after is not None:
            apart = intervals.difference(before, after)
            row |= dict(zip(("low", "high"), apart.ends(), strict=True))
            surely = apart.ends(CHANCE / len(scored))[0]
        out["rmse"].append(row)
        if allowed is not None and surely > allowed:
            out["failures"].append(
                f"{a.key} has an {out['error']} of {means[1]:.4f}, {row['difference']:.4f} above A's; "
                f"allowed is {allowed:g}"
            )


def _unjudged(out: Json, matched: list[tuple[Case, Case]]) -> str | None:
    """Why the files answer nothing, or not what a threshold asks, or None."""
    if not matched:
        return "the two files have no case in common"
    if out["thresholds"]["slower"] is not None and not out["mean"]:
        reason = "no case has a ratio" if out["times_compared"] else "times are not compared; --force compares them"
        return f"whether B is slower cannot be said: {reason}"
    if out["thresholds"]["rmse"] is not None and not out["rmse"]:
        reason = f"no case has an {out['error']} in both" if out["rmse_compared"] else "the data differ"
        return f"whether the {out['error']} rose cannot be said: {reason}"
    return None


def check_options(form: str, rmse: float | None) -> None:
    """Raise ConfigError for a format or an RMSE threshold that there is not."""
    choose("format", form, FORMATS)
    if rmse is not None and not 0 <= rmse < math.inf:
        raise ConfigError(f"fail-rmse is {rmse:g}, but must be a rise of 0 or more, such as 0.001")


def counts(outcome: Json) -> str:
    """How many cases are slower, faster and within noise."""
    verdicts = [row["verdict"] for row in outcome["times"]]
    kinds = [(kind, verdicts.count(kind)) for kind in ("slower", "faster", "within noise")]
    return f"{counted(sum(n for _, n in kinds), 'case')}: " + ", ".join(f"{n} {kind}" for kind, n in kinds)
