"""README's tables of how good every system is, and what each of our ideas is worth; English and Chinese.

They are made of the committed runs of ``run --suite peers`` and ``run --suite accuracy``.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
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
IDEAS: Mapping[str, tuple[str, str, str]] = {
    "mf_numpy sgd": ("single steps", "逐条更新", ""),
    "mf_numpy sgd, averaged": ("… averaged over epochs", "……各轮取平均", "mf_numpy sgd"),
    "mf_numpy sgd, ten fits": ("… ten times, averaged", "……拟合十次取平均", "mf_numpy sgd"),
    "mf_numpy sgd, ordinal": ("… of grades, ordinal", "……把评分当作等级（ordinal）", "mf_numpy sgd"),
    "mf_numpy SVD++": ("… with rated items, SVD++", "……加上评过的物品（SVD++）", "mf_numpy sgd"),
    "mf_numpy SVD++, genres": ("… and genres", "……再加类型", "mf_numpy SVD++"),
    "mf_numpy SVD++, genres, time": ("… and time", "……再加时间", "mf_numpy SVD++, genres"),
    "mf_numpy gibbs": ("posterior mean", "后验均值", "mf_numpy sgd"),
    "mf_numpy gibbs, chains": ("… over several chains", "……对几条链取平均", "mf_numpy gibbs"),
    "mf_numpy gibbs, ordinal": ("… of grades, ordinal", "……把评分当作等级（ordinal）", "mf_numpy gibbs"),
    "mf_numpy gibbs SVD++, genres, time": (
        "… with rated items, raters, genres, time",
        "……加上评过的物品、评分的用户、类型与时间",
        "mf_numpy gibbs",
    ),
    "mf_numpy gibbs SVD++, genres, time, ordinal": (
        "… and grades, ordinal",
        "……再把评分当作等级",
        "mf_numpy gibbs SVD++, genres, time",
    ),
    "mf_numpy gibbs SVD++, genres, time, ordinal, chains": (
        "… and several chains",
        "……再对几条链取平均",
        "mf_numpy gibbs SVD++, genres, time, ordinal",
    ),
}
"""What systems of ours are called in English and in Chinese, and to which other one each adds an idea."""
ELSEWHERE: Mapping[str, tuple[str, str]] = {
    "mf_numpy gibbs": ("the posterior mean", "后验均值"),
    "mf_numpy gibbs SVD++": ("with rated items and raters", "加上评过的物品与评分的用户"),
    "mf_numpy gibbs SVD++, ordinal": ("and of grades, ordinal", "再把评分当作等级"),
}
"""Means over draws of data sets without facts about users and items, in English and in Chinese."""
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
        _machines(of, found),
        *(_floor(of, name, outcome) for name, outcome in found.items()),
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


def ideas(of: Source) -> tuple[Cells, str]:
    """Test RMSE of our point estimates, step by step, and what each gained beyond the one it adds an idea to."""
    return _step_by_step(of, of.say("points on", "点估计，"), [system for system in IDEAS if "gibbs" not in system])


def posterior(of: Source) -> tuple[Cells, str]:
    """The same of means over draws."""
    what, systems = of.say("means over draws on", "抽样的平均，"), [one for one in IDEAS if "gibbs" in one]
    return _step_by_step(of, what, systems, _elsewhere(of))


def _step_by_step(of: Source, what: str, systems: list[str], more: str = "") -> tuple[Cells, str]:
    name = next(iter(DATA))
    found = committed.results("ours", [name], accuracy.SCHEMA, accuracy.VERSION)
    if not found:
        return [], of.say(
            "Not measured yet: `python -m bench run --suite accuracy` does it.",
            "尚未测量：运行 `python -m bench run --suite accuracy`。",
        )
    outcome = found[name]
    rows = {row["system"]: row for row in outcome["systems"] if row["rmse"] is not None}
    less = {frozenset((pair["a"], pair["b"])): pair for pair in outcome["pairs"]}
    head = [of.say(f"{what} {DATA[name][0]}", f"{what}{DATA[name][1]}")]
    head += [of.say("test RMSE, ± its interval", "测试 RMSE，± 区间"), "u1"]
    cells = [[*head, of.say("gained (interval)", "改进（区间）"), of.say("seconds a fit", "每次拟合秒数")]]
    for system in systems:
        english, chinese, before = IDEAS[system]
        if row := rows.get(system):
            pair = less.get(frozenset((system, before)))
            gained = _gained(of, pair, row, rows[before]) if pair else ""
            figures = [_with_interval(row), f"{row['folds'][0]['rmse']:.4f}", gained, digits(row["seconds"])]
            cells.append([of.say(english, chinese), *figures])
    ends = _at_ends(of, name, outcome, {system.removeprefix("mf_numpy "): rows.get(system) for system in systems})
    return cells, of.notes(
        of.say(
            "Gained: how much smaller the RMSE is than in the line the idea is added to, over the same draws of users.",
            "每行与其所依据的那一行相比：在相同的用户重抽样上 RMSE 减小多少。",
        ),
        _machines(of, found),
        more,
        ends,
    )


def _elsewhere(of: Source) -> str:
    """What rated items of both sides and grades are worth on other data sets."""
    said = []
    for name, outcome in committed.results("ours", list(DATA)[1:], accuracy.SCHEMA, accuracy.VERSION).items():
        rows = {row["system"]: row for row in outcome["systems"] if row["rmse"] is not None}
        parts = [
            f"{of.say(*ELSEWHERE[system])} {_with_interval(rows[system])}; {digits(rows[system]['seconds'])} s"
            for system in ELSEWHERE
            if system in rows
        ]
        english, chinese = DATA[name]
        said.append(of.say(f"On {english}: {', '.join(parts)}.", f"{chinese}：{'，'.join(parts)}。"))
    return of.say(" ", "").join(said)


def _gained(of: Source, pair: Json, row: Json, before: Json) -> str:
    """How much smaller a row's RMSE is than another's, with the interval of their paired difference."""
    low, high = pair["rmse"]["interval"]
    if pair["a"] == row["system"]:
        low, high = -high, -low
    between = of.say(f"{low:.4f} to {high:.4f}", f"{low:.4f} 至 {high:.4f}")
    return f"{before['rmse'] - row['rmse']:.4f} ({between})".replace("-", "−")


def _machines(of: Source, found: Mapping[str, Json]) -> str:
    """Where each column's seconds were taken: those of different machines do not compare."""
    each: dict[str, list[str]] = {}
    for name, outcome in found.items():
        each.setdefault(committed.machines([outcome]), []).append(of.say(*DATA[name]))
    if len(each) == 1:
        return of.say(f"Seconds on {next(iter(each))}.", f"秒数测自 {next(iter(each))}。")
    listed = "; ".join(f"{', '.join(names)}: {machine}" for machine, names in each.items())
    return of.say(
        f"Seconds of different machines do not compare ({listed}).", f"不同机器上的秒数不可比较（{listed}）。"
    )


def _floor(of: Source, name: str, outcome: Json) -> str:
    """What predicting the truth itself would reach, where it is known."""
    floors = [test["noise_floor"] for test in outcome["tests"] if test["noise_floor"] is not None]
    if not floors:
        return ""
    english, chinese = DATA[name]
    reached = f"{statistics.mean(floors):.4f}"
    return of.say(
        f"Of {english} ratings the truth itself reaches {reached}.", f"{chinese}上真值本身的 RMSE 为 {reached}。"
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
    return "–" if row is None else f"{_with_interval(row)}; {digits(row['seconds'])} s"


def _with_interval(row: Json) -> str:
    low, high = row["interval"]
    return f"{row['rmse']:.4f} ± {(high - low) / 2:.4f}"


def _baseline(outcome: Json, kind: str) -> float:
    return statistics.mean(float(test["baselines"][kind]) for test in outcome["tests"])
