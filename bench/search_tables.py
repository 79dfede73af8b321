"""The table of what a recorded search found, from committed runs of ``search``; English and Chinese."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import committed, search
from bench.accuracy_tables import DATA

if TYPE_CHECKING:
    from bench.tables import Cells, Source

Json = dict[str, Any]


def searched(of: Source) -> tuple[Cells, str]:
    """The best point of each solver, what it reached, and how much was tried for it."""
    found = committed.results("search", DATA, search.SCHEMA, search.VERSION)
    if not found:
        return [], of.say(
            "Not measured yet: `python -m bench search` does it.", "尚未测量：运行 `python -m bench search`。"
        )
    head = ["solver", "points tried", "seconds of search", "the best settings", "RMSE of held-out ratings"]
    cells = [head if of.lang == "en" else ["求解器", "试过的点数", "搜索秒数", "最好的设置", "留出评分的 RMSE"]]
    for outcome in found.values():
        cells += [_row(outcome, row) for row in outcome["rows"] if row["best"] is not None]
    about = [_about(of, name, outcome) for name, outcome in found.items()]
    return cells, of.notes(*about, committed.machines(found.values()) + ".")


def _row(outcome: Json, row: Json) -> list[str]:
    case = outcome["cases"][row["best"]]
    settings = ", ".join(f"{name} {value:g}" for name, value in case["settings"].items())
    return [row["solver"], f"{row['points']}", f"{row['seconds']:.0f}", settings, f"{case['rmse']:.4f}"]


def _about(of: Source, name: str, outcome: Json) -> str:
    problem, asked = outcome["problem"], outcome["search"]
    english, chinese = DATA[name]
    return of.say(
        f"On {english}, a tenth of the first test's {problem['n_ratings'] + problem['n_valid']:,} training ratings "
        f"held out, by {asked['sampler']} of Optuna {asked['version']}; tests were not looked at.",
        f"{chinese}：从第一个测试的 {problem['n_ratings'] + problem['n_valid']:,} 条训练评分中留出十分之一，"
        f"由 Optuna {asked['version']} 的 {asked['sampler']} 搜索；没有看过测试集。",
    )
