"""What two result files can be compared by: one small function a schema, which makes cases of a result."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mf_numpy.errors import counted

Json = dict[str, Any]
Rounds = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Case:
    """What was timed or scored once in a file, and may have its equal in another.

    Attributes:
        key: its name, by which it is matched.
        rounds: samples in ms, those of a process together.
        rmses: one for each seed; of what is ranked another error, which `Schema.error` names.
        about: its configuration; what one of two files does not say is no difference.
        trouble: why it did not run to its end, or None.
    """

    key: str
    rounds: Rounds = ()
    rmses: tuple[float, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    trouble: str | None = None

    @property
    def median_ms(self) -> float | None:
        """The median of all samples; None without any."""
        samples = [ms for one in self.rounds for ms in one]
        return statistics.median(samples) if samples else None


@dataclass(frozen=True)
class Schema:
    """A kind of result file.

    Attributes:
        version: the one that is read here.
        cases: what makes cases of a result.
        data: the key of what was trained on, by name and sizes; empty where the cases' names have it.
        error: what the cases' errors are called.
    """

    version: int
    cases: Callable[[Json], Iterator[Case]]
    data: str = "problem"
    error: str = "RMSE"


def rounds_of(samples: Any) -> Rounds:
    """Samples as a file has them, flat or a list for each process, as a list for each process."""
    given = samples or []
    nested = given if given and isinstance(given[0], list) else [given]
    return tuple(tuple(float(ms) for ms in one) for one in nested if one)


def _case(row: Json, parts: list[str], **more: Any) -> Case:
    """The case of a row that has ``status``, ``reason`` and ``samples_ms``."""
    status = row.get("status", "ok")
    trouble = None if status == "ok" else f"{status}: {row['reason']}"
    return Case(", ".join(parts), **{"rounds": rounds_of(row["samples_ms"]), "trouble": trouble} | more)


def _size(row: Json) -> list[str]:
    return [f"K = {row['n_factors']}", counted(row["threads"], "thread")]


def _rmse(value: float | None) -> tuple[float, ...]:
    return () if value is None or not math.isfinite(value) else (value,)


def _suite(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        problem = result["problems"].get(row["problem"]) or {}
        # The slice is scored on its own training ratings.
        score = (row["final"] or {}).get("valid_rmse") if row["problem"] == "full" else None
        parts = [row[name] for name in ("problem", "backend", "device", "dtype")]
        yield _case(row, parts, rmses=_rmse(score), about=problem.get("config", {}))


def _speed(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        said = row["about"] or {}
        about = (said.get("config") or {}) | (said.get("settings") or {})
        about |= {key: said[key] for key in ("version", "precision") if said.get(key)}
        yield _case(row, [row["contest"], row["system"], *_size(row)], about=about)


def _paths(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        yield _case(row, [row["system"], *_size(row)], about=(row["about"] or {}).get("config", {}))


def _race(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        score = (row["final"] or {}).get("rmse")
        trouble = None if row["status"] == "ok" else f"{row['status']}: {row['reason']}"
        yield Case(f"{row['system']}, K = {row['n_factors']}", rmses=_rmse(score), trouble=trouble)
    targets = {(one["peer"], one["n_factors"]): one["rmse"] for one in result["targets"]}
    for row in result["times"]:
        target = targets.get((row["target"], row["n_factors"]))
        # Settings are what tuning found; the way they go is longer or shorter by where it ends.
        about = {} if target is None else {"target RMSE": round(target, 3)}
        # Each way to the target is a process of its own.
        rounds = tuple((1e3 * seconds,) for seconds in row["seconds"])
        trouble = None if rounds else row["reason"]
        yield Case(f"{row['system']} to {row['target']}, {', '.join(_size(row))}", rounds, (), about, trouble)


def _scaling(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        about = {key: row[key] for key in ("n_users", "n_items")}
        yield _case(row, [row["solver"], f"N = {row['n_ratings']:,}", *_size(row)], about=about)


def _roofline(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        size, threads = _size(row)
        yield _case(row, [row["kernel"], size, row["dtype"], threads])


def _rungs(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        samples = [one["samples_ms"] for one in row["rounds"] or [] if one["samples_ms"]]
        about = (result["problems"].get(row["problem"]) or {}).get("config", {})
        yield _case(row | {"samples_ms": samples}, [row["key"]], about=about)


def _sweep(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        yield _case(row, [row["kernel"], f"{row['constant']} = {row['value']}", *_size(row)])


def _links(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        yield _case(row, [row["form"], "1 process" if row["processes"] == 1 else f"{row['processes']} processes"])


def _cuda(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        parts = [row["part"], row["device"], row["system"], f"N = {row['n_ratings']:,}", f"K = {row['n_factors']}"]
        parts += [f"batch {row['batch_size']:,}"] if row["batch_size"] else []
        parts += ["graph"] if row["graph"] else []
        parts += [row["storage"]] if row["storage"] else []
        yield _case({"samples_ms": None} | row, parts)


def _defaults(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        parts = [row["data"], row["solver"], row["step_rule"], f"{row['setting']} = {row['value']}"]
        yield Case(", ".join(parts), rmses=_rmse(row["rmse"]), about={"n_factors": row["n_factors"]})


def _accuracy(result: Json) -> Iterator[Case]:
    for row in result["systems"]:
        best = row["tuned"] or {}
        about = {"settings": best.get("settings"), "epochs": best.get("epochs")}
        # Each test's fit is a process of its own.
        rounds = tuple((1e3 * fold["seconds"],) for fold in row["folds"])
        trouble = None if row["status"] == "ok" else f"{row['status']}: {row['reason']}"
        yield Case(row["system"], rounds, _rmse(row["rmse"]), about, trouble)


def _newcomers(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        given = row["way"] if row["given"] is None else f"{row['given']} {row['way']}"
        about = {"n_factors": result["problem"]["n_factors"], "draws": result["identity"]["draws"]}
        yield Case(f"{row['side']}s, {row['system']}, {given}", rmses=_rmse(row["rmse"]), about=about)


def _clicks(result: Json) -> Iterator[Case]:
    for row in result["rows"]:
        best = row["tuned"] or {}
        about = {"settings": best.get("settings"), "epochs": best.get("epochs")}
        # Popularity is counted, not trained.
        rounds = tuple((1e3 * split["seconds"],) for split in row["splits"] if split["seconds"])
        lost = tuple(1 - split["ndcg@10"] for split in row["splits"])
        trouble = None if row["status"] == "ok" else f"{row['status']}: {row['reason']}"
        yield Case(row["system"], rounds, lost, about, trouble)


def _search(result: Json) -> Iterator[Case]:
    for key, case in result["cases"].items():
        about = {"solver": case["solver"], "settings": case["settings"]}
        yield Case(key, rmses=_rmse(case["rmse"]), about=about)


SCHEMAS = {
    "mf-bench": Schema(1, _suite, "data"),
    "mf-speed": Schema(1, _speed),
    "mf-paths": Schema(1, _paths),
    "mf-race": Schema(1, _race),
    "mf-scaling": Schema(2, _scaling, ""),
    "mf-roofline": Schema(1, _roofline),
    "mf-rungs": Schema(1, _rungs, "data"),
    "mf-sweep": Schema(1, _sweep),
    "mf-links": Schema(1, _links),
    "mf-cuda": Schema(1, _cuda, ""),
    "mf-defaults": Schema(1, _defaults, "problems"),
    "mf-accuracy": Schema(1, _accuracy, "protocol"),
    "mf-newcomers": Schema(1, _newcomers),
    "mf-clicks": Schema(1, _clicks, error="NDCG@10 loss"),
    "mf-search": Schema(1, _search),
}
