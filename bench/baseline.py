"""What CI holds a new smoke run to: the RMSE and the equality checks of the committed one, and no times.

``python -m bench baseline --write`` writes ``bench/baseline.json``, version 1:
    schema, schema_version
    data {name, fingerprint, split, counts}, problems {full|slice: config}
    rules {float64_bound, safety}
    scores {mean|bias-only: RMSE of the validation side}
    rows {case: {train_rmse, valid_rmse, checked, compared}}: ``checked`` steps against the reference before timing,
        ``compared`` steps of the run itself

Only what is worse is a fault: an RMSE higher than `ALLOWED`, a case that FAILED or is gone, fewer steps compared, or a
wider bound. Data and settings must be the same, or RMSEs would not say the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import equality, machine, result
from mf_numpy.errors import ConfigError

Json = dict[str, Any]

SCHEMA, VERSION = "mf-baseline", 1
PATH = machine.ROOT / "bench" / "baseline.json"

ALLOWED = {"float64": 1e-8, "float32": 2e-4}
"""How much higher an RMSE may be, in rating units, on whatever processor.

Another processor adds in another order, so that last bits differ. An RMSE moves by no more than the predictions do
(`equality.rmse_bound`). In float64 the run itself holds all parameters within 1e-10 of the reference's, which moves the
smoke suite's predictions by less than 1e-8. In float32 a step rounds each number by at most 2⁻²⁴ of itself, and descent
by steps that do not diverge does not amplify that: after T = 50 steps parameters are off by at most about 50 · 2⁻²⁴ =
3e-6 of the largest, and predictions by less than 2e-4, their own rounding included.
"""


def of(outcome: Json) -> Json:
    """The baseline that a smoke run makes.

    Raises:
        ConfigError: a run of another suite, one that was cut short, or one in which something FAILED.
    """
    _check_suite(outcome)
    if not outcome["ok"]:
        raise ConfigError(f"the run says: {outcome['verdict']} A baseline is made of one in which nothing FAILED")
    return {"schema": SCHEMA, "schema_version": VERSION, **_held(outcome)}


def faults(outcome: Json, base: Json) -> list[str]:
    """In what a smoke run is worse than the baseline; a sentence each.

    Raises:
        ConfigError: a run of another suite.
    """
    _check_suite(outcome)
    found = [] if not outcome["interrupted"] else ["the run was cut short"]
    now = _held(outcome)
    apart = list(_apart(base, now))
    if apart:
        # Scores of other data say nothing.
        return [*found, *apart]
    for name, was in base["rules"].items():
        if now["rules"][name] > was:
            found.append(f"{name} was {was:g} and is {now['rules'][name]:g}: runs are held equal less strictly")
    for name, was in base["scores"].items():
        found += _risen(name, "validation", was, now["scores"].get(name), ALLOWED["float64"])
    reasons = {_case(row): f"{row['status']}: {row['reason']}" for row in outcome["rows"] if row["status"] != "ok"}
    for name, was in base["rows"].items():
        here = now["rows"].get(name)
        if here is None:
            found.append(f"{name} {reasons.get(name, 'is gone')}")
            continue
        for key, what in (("checked", "before timing"), ("compared", "of the run")):
            if here[key] < was[key]:
                found.append(f"{name}: {here[key]} steps {what} are compared with the reference, but {was[key]} were")
        for side in ("train", "valid"):
            allowed = ALLOWED[name.rpartition(", ")[2]]
            found += _risen(name, "training" if side == "train" else "validation", was[f"{side}_rmse"],
                            here[f"{side}_rmse"], allowed)  # fmt: skip
    return found


def load(path: Path | None = None) -> Json:
    """The committed baseline.

    Raises:
        FileFormatError: no such file, or one of another version.
    """
    return result.load(path or PATH, SCHEMA, VERSION)


def _check_suite(outcome: Json) -> None:
    if outcome["suite"] != "smoke":
        raise ConfigError(f"the run is of the suite {outcome['suite']!r}, but the baseline is of 'smoke'; make smoke")


def _held(outcome: Json) -> Json:
    """What of a run the baseline holds."""
    floor = ("noise_floor",)  # Computed: its last bit may be another machine's.
    return {
        "data": {name: value for name, value in outcome["data"].items() if name not in floor},
        "problems": {name: problem["config"] for name, problem in outcome["problems"].items()},
        "rules": {name: outcome["rules"][name] for name in ("float64_bound", "safety")},
        "scores": {name: scores["rmse"] for name, scores in outcome["baselines"].items()},
        "rows": {
            _case(row): {
                **{side: row["final"][side] for side in ("train_rmse", "valid_rmse")},
                "checked": row["check"]["n_epochs"],
                "compared": len(row["difference"]["losses"]),
            }
            for row in outcome["rows"]
            if row["status"] == "ok"
        },
    }


def _case(row: Json) -> str:
    return ", ".join(row[name] for name in ("problem", "backend", "device", "dtype"))


def _apart(base: Json, now: Json) -> Iterator[str]:
    """Every setting in which a run is another than the baseline's; what one of them does not say is no difference."""
    before, after = ({"data": held["data"]} | held["problems"] for held in (base, now))
    for what in sorted(before.keys() & after.keys()):
        for name in sorted(before[what].keys() & after[what].keys()):
            was, here = before[what][name], after[what][name]
            if was != here:
                yield f"{what}: {name} was {was} and is {here}; python -m bench baseline --write takes the run as it is"


def _risen(name: str, side: str, was: float, now: float | None, allowed: float) -> list[str]:
    """A sentence on an RMSE that is higher than it may be, or gone."""
    if now is not None and now - was <= allowed:
        return []
    more = "" if now is None else f", {now - was:.1e} higher; {allowed:g} is allowed"
    return [f"{name}: the {side} RMSE was {was:.9g} and is {now if now is None else format(now, '.9g')}{more}"]


def summary(outcome: Json, base: Json) -> list[str]:
    """What a run says beside the baseline, for the end of CI's log."""
    found = faults(outcome, base)
    if found:
        return [f"FAILED: {len(found)} worse than the baseline", *(f"  {line}" for line in found)]
    rows = _held(outcome)["rows"]
    moved = {d: max(_moves(base, rows, d), default=0.0) for d in equality.EPS}
    said = ", ".join(f"{change:+.1e} in {dtype}" for dtype, change in moved.items())
    better = [name for name, was in base["rows"].items() if was["valid_rmse"] - rows[name]["valid_rmse"] > 1e-3]
    return [
        f"{len(base['rows'])} cases equal as ever; the RMSE rose by at most {said}",
        *(f"  {name} is better by more than 0.001: python -m bench baseline --write keeps that" for name in better),
    ]


def _moves(base: Json, rows: Json, dtype: str) -> Iterator[float]:
    for name, was in base["rows"].items():
        if name.endswith(dtype):
            yield from (rows[name][side] - was[side] for side in ("train_rmse", "valid_rmse"))
