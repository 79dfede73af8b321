"""README's table of how good every system is, from the committed runs of ``run --suite peers``; English and Chinese."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from bench import accuracy, committed, grid_ends
from bench.section import digits

if TYPE_CHECKING:
    from bench.tables import Cells, Source

Json = dict[str, Any]

DATA = {
    "ml-100k-official-5": ("MovieLens 100K, u1–u5", "MovieLens 100K，u1–u5"),
    "ml-1m-90-10": ("MovieLens 1M, 90/10", "MovieLens 1M，90/10"),
    "anime-90-10": ("anime sample, 90/10", "anime 样本，90/10"),
    "planted-anime-full": ("planted", "植入数据"),
}
_OF_NO_LIBRARY = ("PyTorch loop", "the post")
SHOWN = 9
"""Systems that have a line; the others stand under the table."""


def accuracies(of: Source) -> tuple[Cells, str]:
    """Test RMSE of each system's best method, the best systems first, and the seconds of a fit."""
    found = committed.results("accuracy", DATA, accuracy.SCHEMA, accuracy.VERSION)
    if not found:
        return [], of.say(
            "Not measured yet: `python -m bench run --suite peers` does it.",
            "尚未测量：运行 `python -m bench run --suite peers`。",
        )
    best: dict[str, dict[str, Json]] = {}
    for name, outcome in found.items():
        for row in outcome["systems"]:
            library, here = _library(row["system"]), row["rmse"]
            if here is not None:
                before = best.setdefault(library, {}).get(name)
                if before is None or here < before["rmse"]:
                    best[library][name] = row
    first = next(iter(found))
    order = sorted(best, key=lambda library: float(best[library].get(first, {"rmse": 9.0})["rmse"]))
    head = [of.say("test RMSE, ± its interval; seconds", "测试 RMSE，± 区间；秒数")]
    cells = [head + [DATA[name][of.lang == "zh"] for name in found]]
    cells += [[library, *(_cell(best[library].get(name)) for name in found)] for library in order[:SHOWN]]
    baselines = ", ".join(f"{kind} {_baseline(found[first], kind):.4f}" for kind in ("mean", "bias-only"))
    further = ", ".join(f"{library} {_cell(best[library].get(first))}" for library in order[SHOWN:])
    return cells, of.notes(
        of.say(
            f"The best method of each library. On {DATA[first][0]}: {baselines}.",
            f"每个库取其最好的方法。{DATA[first][1]}：{baselines}。",
        ),
        of.say(f"Behind them {further}.", f"其后为 {further}。") if further else "",
        *(
            _at_ends(of, name, outcome, {library: best[library].get(name) for library in order[:SHOWN]})
            for name, outcome in found.items()
        ),
        of.say(
            "Every system is tuned over a grid of its own on a tenth of the first test's training ratings, and scored "
            "once on each test by one scorer, clipped to the scale; intervals are of a bootstrap over users.",
            "每个系统都在第一份训练评分的十分之一上用自己的网格调参，再由同一评分程序在每份测试上评一次，预测截断到评分范围；区间来自按用户的自助法。",
        ),
    )


def _at_ends(of: Source, name: str, outcome: Json, rows: dict[str, Json | None]) -> str:
    """Which rows of one protocol stand at an end of what was tried, where a wider grid might do better."""
    told = {library: grid_ends.ends(outcome, row) for library, row in rows.items() if row}
    listed = ", ".join(f"{library} ({ends})" for library, ends in told.items() if ends)
    if not listed:
        return ""
    english, chinese = DATA[name]
    return of.say(
        f"Chosen at the end of its grid on {english}, so that a wider one might be better still: {listed}.",
        f"{chinese} 上所选设置位于网格边缘、更宽的网格或许更好的有：{listed}。",
    )


def _library(system: str) -> str:
    """Whose method a system is."""
    if system.startswith("mf_"):
        return "ours"
    return system if system in _OF_NO_LIBRARY else system.split(" ")[0]


def _cell(row: Json | None) -> str:
    if row is None:
        return "–"
    low, high = row["interval"]
    return f"{row['rmse']:.4f} ± {(high - low) / 2:.4f}; {digits(row['seconds'])} s"


def _baseline(outcome: Json, kind: str) -> float:
    return statistics.mean(float(test["baselines"][kind]) for test in outcome["tests"])
