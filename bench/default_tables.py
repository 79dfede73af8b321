"""Tables of what the solvers' defaults are worth, from the committed sweep; English and Chinese."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import committed, defaults, result

if TYPE_CHECKING:
    from bench.tables import Cells, Source

Json = dict[str, Any]

DATA = {
    "ml-100k": ("MovieLens 100K", "MovieLens 100K"),
    "ml-1m": ("MovieLens 1M", "MovieLens 1M"),
    "anime": ("anime sample", "anime 样本"),
}


def steps(of: Source) -> tuple[Cells, str]:
    """Lengths of steps, what becomes of them, and starts."""
    return _table(of, lambda row: row["setting"] not in ("n_epochs", "reg"))


def epochs(of: Source) -> tuple[Cells, str]:
    """How often each solver passes over the ratings."""
    return _table(of, lambda row: row["setting"] == "n_epochs")


def penalties(of: Source) -> tuple[Cells, str]:
    """λ of every solver."""
    return _table(of, lambda row: row["setting"] == "reg")


def _table(of: Source, wanted: Any) -> tuple[Cells, str]:
    outcome = result.load(committed.path("defaults.json"), defaults.SCHEMA, defaults.VERSION)
    names = [problem["data"] for problem in outcome["problems"]]
    cells = [[of.say("default", "默认值"), *(DATA[name][of.lang == "zh"] for name in names)]]
    lines: dict[str, dict[str, str]] = {}
    for row, others in defaults.beside([row for row in outcome["rows"] if wanted(row)]):
        rule = "" if row["step_rule"] == "momentum" else f", {row['step_rule']}"
        name = f"`{row['solver']}`{rule}, `{row['setting']}` {row['value']:g}"
        rmse = "–" if row["rmse"] is None else f"{row['rmse']:.3f}"
        beside = ", ".join(f"{other['value']:g}: {_added(of, other, row)}" for other in others)
        lines.setdefault(name, {})[row["data"]] = f"{rmse}; {beside}"
    cells += [[name, *(found.get(data, "–") for data in names)] for name, found in lines.items()]
    k = outcome["rows"][0]["n_factors"]
    return cells, of.say(
        f"Validation RMSE with all defaults, K = {k}, and what another value adds to it, in thousandths. One setting "
        "is moved at a time; a tenth of the training side is held out.",
        f"全部取默认值（K = {k}）时的验证 RMSE，以及换成其他取值后的增量，单位为千分之一。每次只改一个设置；"
        "从训练部分留出十分之一。",
    )


def _added(of: Source, other: Json, row: Json) -> str:
    if other["rmse"] is None:
        return of.say("diverged", "发散")
    thousandths = round(1000 * (other["rmse"] - (row["rmse"] or 0)))
    return f"{thousandths:+d}".replace("-", "−") if thousandths else "0"
