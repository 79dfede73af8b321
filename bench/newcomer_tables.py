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
    "biases": ("popularity and own mean", "热门程度与自身均值"),
    "features alone": ("features alone", "只用特征"),
    "half-step": ("ids, half-step", "id，半步"),
    "ids": ("ids", "id"),
    "ids and features": ("ids and features", "id 与特征"),
}


SHOWN = ("biases", "features alone", "ids", "ids and features")
"""Systems that have a line."""


def newcomers(of: Source) -> tuple[Cells, str]:
    """RMSE over what hidden users and items rated or got, by how many of their ratings a system was given."""
    found = committed.results("newcomers", DATA, protocol.SCHEMA, protocol.VERSION)
    if not found:
        return [], of.say(
            "Not measured yet: `python -m bench newcomers` does it.", "尚未测量：运行 `python -m bench newcomers`。"
        )
    name, outcome = next(iter(found.items()))
    given, rows = outcome["identity"]["given"], outcome["rows"]
    head = of.say(f"hidden of {DATA[name][0]}; system", f"{DATA[name][1]} 中隐藏的一侧；系统")
    cells = [[head, *(of.say(f"{n} given", f"给出 {n} 条") for n in given)]]
    for side, system in _lines(rows):
        line = [_cell(of, protocol.as_drawn(rows, side, system, n)) for n in given]
        cells.append([f"{of.say(*SIDES[side])}; {of.say(*NAMES[system])}", *line])
    return cells, of.notes(
        of.say(
            "RMSE, and the 95 % interval of its difference, in thousandths: of newcomers from "
            f"{NAMES[BASELINE][0]}, of the others from {NAMES[PLAIN][0]}. A tenth of the users, or items, is hidden "
            "whole; half of each one's ratings may be given, the other half is predicted. Settings are chosen inside "
            "the training ratings.",
            "RMSE，以及其差值的 95 % 区间（千分之一）："
            f"新来者与“{NAMES[BASELINE][1]}”相比，其余与“{NAMES[PLAIN][1]}”相比。"
            "十分之一的用户（或物品）连同全部评分被隐藏；每个被隐藏者的评分一半可以给出，另一半用来预测。设置在训练评分内部选定。",
        ),
        *(_of_others(of, name, outcome["rows"]) for name, outcome in found.items()),
        *(_at_once(of, name, outcome["rows"]) for name, outcome in list(found.items())[1:]),
    )


def _lines(rows: list[Json]) -> list[tuple[str, str]]:
    """Sides and systems that are shown, in the order of the rows."""
    every = dict.fromkeys((row["side"], row["system"]) for row in rows)
    return [(side, system) for side, system in every if system in SHOWN]


def _of_others(of: Source, name: str, rows: list[Json]) -> str:
    """What the systems reach for users and items that were not hidden."""
    told = [
        f"{of.say(*SIDES[side])}, {of.say(*NAMES[system])} {_cell(of, protocol.as_drawn(rows, side, system, None))}"
        for side, system in _lines(rows)
        if system in (PLAIN, "ids and features")
    ]
    return of.say(f"Not hidden, {DATA[name][0]}: {'; '.join(told)}.", f"未隐藏者，{DATA[name][1]}：{'；'.join(told)}。")


def _at_once(of: Source, name: str, rows: list[Json]) -> str:
    """What the systems reach for newcomers of whom no rating is known, of data that have no lines."""
    told = [
        f"{of.say(*SIDES[side])}, {of.say(*NAMES[system])} {_cell(of, protocol.as_drawn(rows, side, system, 0))}"
        for side, system in _lines(rows)
    ]
    return of.say(f"0 given, {DATA[name][0]}: {'; '.join(told)}.", f"给出 0 条，{DATA[name][1]}：{'；'.join(told)}。")


def _cell(of: Source, row: Json | None) -> str:
    if row is None:
        return "–"
    if row["against"] is None:
        return f"{row['rmse']:.3f}"
    low, high = (f"{1000 * end:+.0f}".replace("-", "−") for end in row["against"]["interval"])
    return f"{row['rmse']:.3f} ({of.say(f'{low} to {high}', f'{low} 至 {high}')})"
