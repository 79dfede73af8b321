"""The table of how well clicks are ranked, from committed runs of ``clicks``; English and Chinese."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import clicks as protocol
from bench import committed, grid_ends

if TYPE_CHECKING:
    from bench.tables import Cells, Source

Json = dict[str, Any]

DATA = {
    "ml-100k": ("MovieLens 100K", "MovieLens 100K"),
    "ml-1m": ("MovieLens 1M", "MovieLens 1M"),
    "anime": ("anime sample", "anime 样本"),
    "planted-clicks": ("planted", "植入数据"),
}
NAMES = {
    "mf_numpy all pairs": "mf_numpy 全部配对",
    "mf_torch all pairs": "mf_torch 全部配对",
}
"""Of systems whose names are words."""
_FLOOR = "popularity"
"""The system that stands under the table."""


def clicks(of: Source) -> tuple[Cells, str]:
    """NDCG and recall of each system, and under the table how far ours are from the same models of a library."""
    found = committed.results("clicks", DATA, protocol.SCHEMA, protocol.VERSION)
    if not found:
        return [], of.say(
            "Not measured yet: `python -m bench clicks` does it.", "尚未测量：运行 `python -m bench clicks`。"
        )
    rows = {name: {row["system"]: row for row in outcome["rows"]} for name, outcome in found.items()}
    head = [of.say("NDCG@10, recall@10; seconds", "NDCG@10，召回率@10；秒数")]
    cells = [head + [DATA[name][of.lang == "zh"] for name in found]]
    cells += [
        [_named(of, system), *(_cell(each.get(system)) for each in rows.values())]
        for system in dict.fromkeys(system for each in rows.values() for system in each if system != _FLOOR)
    ]
    return cells, of.notes(
        *(_beside(of, name, outcome) for name, outcome in found.items()),
        *(_floor(of, name, rows[name].get(_FLOOR)) for name in rows),
        *(_at_ends(of, name, outcome) for name, outcome in found.items()),
        of.say(
            "A fifth of the clicks is held out, several times; every system is tuned over a grid of its own inside the "
            "first training side, and all items are ranked by one scorer. Intervals of the paired differences are of a "
            "bootstrap over users. What torch fits has the settings tuned by hand.",
            "多次随机留出五分之一的点击；每个系统都在第一份训练数据内部用自己的网格调参，并由同一评分程序对全部物品排序评分。成对差值的区间来自按用户的自助法。"
            "torch 沿用为手写版本调好的设置。",
        ),
    )


def _named(of: Source, system: str) -> str:
    return of.say(system, NAMES.get(system, system))


def _cell(row: Json | None) -> str:
    if row is None or row["status"] != "ok":
        return "–"
    return f"{row[protocol.BY]:.4f}, {row['recall@10']:.4f}; {row['seconds']:.2g} s"


def _beside(of: Source, name: str, outcome: Json) -> str:
    """Differences from the same models of a library on one data set, of those fitted by hand."""
    parts = [
        of.say(
            f"{row['system']} less {other['system']} {_difference(of, other)}",
            f"{_named(of, row['system'])} 减 {other['system']} 为 {_difference(of, other)}",
        )
        for row in outcome["rows"]
        if row["system"].startswith("mf_numpy")
        for other in row["against"]
    ]
    if not parts:
        return ""
    english, chinese = DATA[name]
    return of.say(f"On {english}, NDCG@10: {'; '.join(parts)}.", f"{chinese} 的 NDCG@10：{'；'.join(parts)}。")


def _floor(of: Source, name: str, row: Json | None) -> str:
    """What the number of clicks that an item has reaches by itself."""
    if row is None:
        return ""
    english, chinese = DATA[name]
    reached = f"{row[protocol.BY]:.4f}, {row['recall@10']:.4f}"
    return of.say(f"By popularity alone on {english}: {reached}.", f"在 {chinese} 上只按热门程度排序：{reached}。")


def _difference(of: Source, other: Json) -> str:
    found = protocol.in_words(other[protocol.BY])
    return of.say(found, found.replace(" to ", " 至 "))


def _at_ends(of: Source, name: str, outcome: Json) -> str:
    """Which systems' settings stand at an end of what was tried, where a wider grid might do better."""
    told = {row["system"]: grid_ends.ends(outcome, row) for row in outcome["rows"] if row["tuned"]}
    listed = ", ".join(f"{_named(of, system)} ({ends})" for system, ends in told.items() if ends)
    english, chinese = DATA[name]
    return (
        of.say(
            f"Chosen at an end of its grid on {english}: {listed}.",
            f"{chinese} 上所选设置位于网格边缘的有：{listed}。",
        )
        if listed
        else ""
    )
