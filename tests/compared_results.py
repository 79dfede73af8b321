"""Results to compare: which committed ones can be, copies of them with a change, and small ones that are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import committed, compare

Json = dict[str, Any]


def _has_intervals(path: Path) -> bool:
    """Whether times were measured more than once; a single round, or test, is a sample a case, and no ratio."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["schema"] == "mf-accuracy":
        return len(found["tests"]) > 1
    return found["schema"] != "mf-race" or any(len(one["seconds"]) > 1 for one in found["times"])


COMMITTED = [p.name for p in committed.paths("*.json") if p.name != "instructions.json" and _has_intervals(p)]
UNTIMED = [name for name in COMMITTED if name.startswith(("defaults", "search-", "newcomers-"))]
"""What has RMSEs alone to compare."""
SPEED = "speed-ml-1m.json"


def scaled(value: Any, by: float, times: bool = False) -> Any:
    """A copy in which every sample took `by` times as long."""
    if isinstance(value, dict):
        return {key: scaled(item, by, times or key in ("samples_ms", "seconds")) for key, item in value.items()}
    if isinstance(value, list):
        return [scaled(item, by, times) for item in value]
    return value * by if times and isinstance(value, float) else value


def written(tmp_path: Path, name: str, change: Callable[[Json], Any] = lambda outcome: None) -> Path:
    """A copy of a committed result with a change."""
    outcome = json.loads((committed.path(name)).read_text(encoding="utf-8"))
    outcome = change(outcome) or outcome
    path = tmp_path / f"changed-{name}"
    path.write_text(json.dumps(outcome), encoding="utf-8")
    return path


def suite_result(**rows: Json) -> Json:
    """What little of a suite's own result is compared."""
    machine = {"cpu": "One", "cores": {"logical": 2, "usable": 2}, "python": "3.11.7"}
    about: Json = {"created": "2026-01-02T03:04:05+00:00", "git": None, "code": "a", "machine": machine, "gpu": None}
    about |= {"packages": {"numpy": "2.4.6"}, "environment": {"set": {"OMP_NUM_THREADS": 2}}}
    about |= {
        "schema": "mf-bench",
        "schema_version": 1,
        "interrupted": False,
        "data": {"name": "planted", "n_users": 9},
    }
    problem = {"config": {"n_factors": 4, "lr": 50.0}}
    base: Json = {"device": "cpu", "dtype": "float32", "status": "ok", "reason": None, "others_busy_cores": 0.0}
    base |= {"samples_ms": [10.0, 10.2, 9.9, 10.1, 10.0, 10.3]}
    listed = []
    for name, row in rows.items():
        part, _, backend = name.partition("_")
        listed.append(base | {"problem": part, "backend": backend, "final": {"valid_rmse": 0.9}} | row)
    return about | {"problems": {"full": problem, "slice": problem}, "rows": listed}


def saved(tmp_path: Path, name: str, outcome: Json) -> Path:
    path = tmp_path / name
    path.write_text(json.dumps(outcome), encoding="utf-8")
    return path


def both(tmp_path: Path, a: Json, b: Json, **options: Any) -> Json:
    return compare.compare(saved(tmp_path, "a.json", a), saved(tmp_path, "b.json", b), **options)
