"""The table of what features and a few ratings are worth, from committed runs of ``newcomers``; English and Chinese."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import committed
from bench import newcomers as protocol
from bench.newcomer_systems import BASELINE, PLAIN

if TYPE_CHECKING:
    from bench.tables import Cells, Source

Json = dict[str, Any]

DATA = {
    "ml-100k": ("MovieLens 100K", "MovieLens 100K"),
    "anime": ("anime sample", "anime 样本"),
    "planted-facts": ("planted", "植入数据"),
}
SIDES = {"user": ("users", "用户"), "item": ("items", "物品")}
NAMES = {
    "mean": ("mean", "均值"),
    "biases": ("popularity and her mean", "热门程度与自身均值"),
    "features alone": ("features alone", "只用特征"),
    "half-step": ("ids, half-step", "id，半步"),
    "ids": ("ids", "id"),
    "ids and features": ("ids and features", "id 与特征"),
}


def newcomers(of: Source) -> tuple[Cells, str]:
    """RMSE over what hidden users and items rated or got, by how many of their ratings a system was given."""
    found = committed.results("newcomers", DATA, protocol.SCHEMA, protocol.VERSION)
    if not found:
        return [], of.say(
            "Not measured yet: `python -m bench newcomers` does it.", "尚未测量：运行 `python -m bench newcomers`。"
        )
    given = next(iter(found.values()))["identity"]["given"]
    cells = [
        [
            of.say("hidden; system", "隐藏的一侧；系统"),
            *(of.say(f"{n} given", f"给出 {n} 条") for n in given),
            of.say("warm", "热"),
        ]
    ]
    chinese = of.lang == "zh"
    for name, outcome in found.items():
        rows = outcome["rows"]
        for side in dict.fromkeys(row["side"] for row in rows):
            where = of.say(f"{SIDES[side][0]} of {DATA[name][0]}", f"{DATA[name][1]} 的{SIDES[side][1]}")
            for system in dict.fromkeys(row["system"] for row in rows if row["side"] == side):
                line = [_cell(of, protocol.as_drawn(rows, side, system, n)) for n in (*given, None)]
                cells.append([f"{where}; {NAMES[system][chinese]}", *line])
    return cells, of.say(
        f"RMSE, and the 95 % interval of its difference, in thousandths: cold from {NAMES[BASELINE][0]}, warm from "
        f"{NAMES[PLAIN][0]}. A tenth of the users, or items, is hidden whole; half of each one's ratings may be given, "
        "the other half is predicted. Settings are chosen inside the training ratings.",
        f"RMSE，以及其差值的 95 % 区间（千分之一）：冷启动与“{NAMES[BASELINE][1]}”相比，热与“{NAMES[PLAIN][1]}”相比。"
        "十分之一的用户（或物品）连同全部评分被隐藏；每个被隐藏者的评分一半可以给出，另一半用来预测。设置在训练评分内部选定。",
    )


def _cell(of: Source, row: Json | None) -> str:
    if row is None:
        return "–"
    if row["against"] is None:
        return f"{row['rmse']:.3f}"
    low, high = (f"{1000 * end:+.0f}".replace("-", "−") for end in row["against"]["interval"])
    return f"{row['rmse']:.3f} ({of.say(f'{low} to {high}', f'{low} 至 {high}')})"
