"""Tables of README from the committed comparisons with peers and of growth, in English and in Chinese."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench import committed, race, race_seeds, result, scaling, speed

if TYPE_CHECKING:
    from bench.tables import Cells, Source

Json = dict[str, Any]

DATA = {"ml-100k": "MovieLens 100K", "ml-1m": "MovieLens 1M", "planted-anime": "planted"}
CONTESTS = {
    "gradient": ("full-batch iteration", "全批量迭代"),
    "sgd": ("single steps", "逐条评分更新"),
    "features": ("iteration with features", "带特征的迭代"),
    "als": ("ALS, exact", "ALS，精确求解"),
    "als-cg": ("ALS, 3 CG steps", "ALS，3 步共轭梯度"),
}


def speeds(of: Source) -> tuple[Cells, str]:
    """An epoch of ours by one thread and by all, and how many times as long the fastest other takes."""
    found = committed.results("speed", DATA, speed.SCHEMA, speed.VERSION)
    cells = [[of.say("an epoch, K", "一轮，K"), *(DATA[name] for name in found)]]
    keys = {(row["contest"], row["n_factors"]) for outcome in found.values() for row in outcome["rows"]}
    for contest, k in sorted(keys, key=lambda key: (list(CONTESTS).index(key[0]), key[1])):
        line = [f"{CONTESTS[contest][of.lang == 'zh']}, {k}"]
        line += [_beside(of, outcome["rows"], contest, k) for outcome in found.values()]
        cells.append(line)
    where = committed.machines(found.values())
    busy = max((row["others_busy_cores"] or 0.0 for o in found.values() for row in o["rows"]), default=0.0)
    note = of.say(
        "Ratings a second of ours by one thread and by two, and how many times as long an epoch of the fastest other "
        f"system takes: medians, float32, systems taking turns in processes of their own; {where}; others kept "
        f"at most {busy:.2f} cores busy. Each data set is a run of its own: between two of them compare ratios alone. "
        "–: not measured.",
        f"我们用单线程与双线程的速度，以及其余系统中最快者一轮所需时间是我们的几倍：取中位数，float32，各系统在各自的进程里轮流运行；{where}；"
        f"其他程序最多占用 {busy:.2f} 个核。每个数据集是单独的一次运行，彼此之间只能比较倍数。–：未测。",
    )
    return cells, note


def _beside(of: Source, rows: list[Json], contest: str, n_factors: int) -> str:
    """Our rates and the fastest other's time over ours, for each number of threads that both were measured with."""
    rates, times, names = [], [], []
    for threads in sorted({row["threads"] for row in rows}):
        wanted = contest, n_factors, threads
        same = [row for row in rows if (row["contest"], row["n_factors"], row["threads"]) == wanted and row["timing"]]
        mine = next((row for row in same if row["system"].startswith("mf_numpy")), None)
        others = [row for row in same if row is not mine]
        if mine is None or not others:
            continue
        best = min(others, key=lambda row: float(row["timing"]["median_ms"]))
        rates.append(f"{mine['timing']['ratings_per_s'] / 1e6:.0f}")
        times.append(f"{best['timing']['median_ms'] / mine['timing']['median_ms']:.1f}")
        names.append(best["system"].split(",")[0])
    if not rates:
        return "–"
    if len(set(names)) == 1:
        ahead = of.say(", ".join(f"{x}×" for x in times) + f" {names[0]}", f"{names[0]} 的 {'、'.join(times)} 倍")
    else:
        pairs = list(zip(times, names, strict=True))
        ahead = of.say(", ".join(f"{x}× {name}" for x, name in pairs), "、".join(f"{n} 的 {x} 倍" for x, n in pairs))
    return of.say(f"{', '.join(rates)} M/s; {ahead}", f"{'、'.join(rates)} 百万条/秒；{ahead}")


def features(of: Source) -> tuple[Cells, str]:
    """How many times as long a full-batch iteration takes where users and items are made of more than ids."""
    found = committed.results("features", DATA, speed.SCHEMA, speed.VERSION)
    cells = [[of.say("made of, K", "组成，K"), *(DATA[name] for name in found)]]
    ids, *others = speed.CONTESTS["features"]
    for system, k in itertools.product(others, sorted({r["n_factors"] for o in found.values() for r in o["rows"]})):
        line = [f"{system.name.removeprefix(f'{ids.name}, ')}, {k}"]
        for outcome in found.values():
            times = [r for r in outcome["ratios"] if (r["against"], r["n_factors"]) == (system.name, k)]
            line.append(", ".join(f"{one['ratio']:.2f}×" for one in sorted(times, key=lambda one: int(one["threads"]))))
        cells.append(line)
    where = committed.machines(found.values())
    note = of.say(
        "How many times as long a full-batch iteration takes as one with ids alone, by one thread and by two; each "
        "user has three facts and an item a tenth of 18 tags, drawn at random; medians, float32, systems taking turns "
        f"in processes of their own; {where}.",
        f"一次全批量迭代所需时间是只用 id 时的几倍，依次为单线程与双线程；每个用户三项事实，"
        "每个物品平均有 18 个标签的十分之一，随机抽取；"
        f"取中位数，float32，各系统在各自的进程里轮流运行；{where}。",
    )
    return cells, note


def races(of: Source) -> tuple[Cells, str]:
    """Final RMSE of every system, and seconds to the best of each peer; a line for each data set and K."""
    # A value of K that takes an hour has a run, and a file, of its own.
    paths = [(name, path) for name in DATA for path in committed.paths(f"race-{name}*.json")]
    found = [(name, result.load(path, race.SCHEMA, race.VERSION)) for name, path in paths]
    place = list(DATA)
    found.sort(key=lambda one: (place.index(one[0]), min(row["n_factors"] for row in one[1]["rows"])))
    systems = list(dict.fromkeys(row["system"] for _, outcome in found for row in outcome["rows"]))
    cells = [[of.say("data, K", "数据，K"), *systems]]
    for name, outcome in found:
        for k in sorted({row["n_factors"] for row in outcome["rows"]}):
            rows = {row["system"]: row for row in outcome["rows"] if row["n_factors"] == k}
            targets = [target["peer"] for target in outcome["targets"] if target["n_factors"] == k]
            times = {(t["system"], t["target"]): t for t in outcome["times"] if t["n_factors"] == k}
            line = [f"{DATA[name]}, {k}"]
            for system in systems:
                own = [system] if system in targets else targets
                rmse = (rows[system]["final"] or {}).get("rmse") if system in rows else None
                taken = ", ".join(_seconds(times.get((system, target))) for target in own)
                line.append("–" if rmse is None else f"{rmse:.4f}; {taken}")
            cells.append(line)
    peers = [system for system in systems if not system.startswith("mf_numpy")]
    where = committed.machines(outcome for _, outcome in found)
    note = of.say(
        f"Test RMSE, and seconds to the best of {' and of '.join(peers)}; of a peer to its own. Every system tuned "
        "over a grid of its own on a validation split; the target is the validation RMSE that a peer's best settings "
        f"reach; –: no settings of the grid reach it. Medians, all threads; {where}.",
        f"测试 RMSE，以及依次达到 {'、'.join(peers)} 最好成绩的秒数；对手只计自己的。"
        "每个系统都在验证集上用自己的网格调过参数；目标是该对手最好的设置所达到的验证 RMSE；"
        f"–：网格中没有设置能达到。取中位数，使用全部线程；{where}。",
    )
    return cells, of.notes(note, *_seeds(of, [outcome for _, outcome in found]))


def _seconds(way: Json | None) -> str:
    if way is None or way["median_s"] is None:
        return "–"
    # Files from before a race had seeds have no range.
    spread = race.in_range(way.get("range_s"))
    return f"{way['median_s']:.2f}{f' ({spread})' if spread else ''} s"


def _seeds(of: Source, outcomes: list[Json]) -> Iterator[str]:
    """What the ranges are of, and which systems were given no seed."""
    counts = {outcome.get("seeds", 1) for outcome in outcomes} - {1}
    if not counts:
        return
    n = ", ".join(map(str, sorted(counts)))
    yield of.say(
        f"In brackets the range over {n} seeds; of three and more the best and the worst are dropped.",
        f"括号内为 {n} 个种子的范围；三个及以上时去掉最好和最差的。",
    )
    without = {t["system"]: t["seeding"] for o in outcomes for t in o["times"] if t.get("seeding")}
    for system, how in without.items():
        english, chinese = race_seeds.UNSEEDED[how]
        yield of.say(f"{system}: {english}.", f"{system}：{chinese}。")


def growth(of: Source) -> tuple[Cells, str]:
    """Exponents of time in N and in K, gain of threads, and memory a rating."""
    outcome = result.load(committed.path("scaling.json"), scaling.SCHEMA, scaling.VERSION)
    most = max(row["threads"] for row in outcome["rows"])
    largest = max(row["n_ratings"] for row in outcome["rows"])
    cells = [
        [
            of.say("solver", "求解器"),
            of.say("time ∝ N to the", "时间随 N 的幂次"),
            of.say("time ∝ K to the", "时间随 K 的幂次"),
            of.say(f"{most} threads over one", f"{most} 线程对单线程"),
            of.say("B a rating", "每条评分字节数"),
        ]
    ]
    for name in dict.fromkeys(row["solver"] for row in outcome["rows"]):
        line = [f"`{name}`"]
        for over in ("N", "K"):
            here = next(s for s in outcome["slopes"] if (s["solver"], s["over"], s["threads"]) == (name, over, 1))
            line.append(f"{here['slope']:.2f}")
        gains = [g["ratio"] for g in outcome["threads"] if g["solver"] == name and g["n_ratings"] >= 1_000_000]
        here = next(
            row for row in outcome["rows"] if (row["solver"], row["n_ratings"], row["threads"]) == (name, largest, most)
        )
        spares = here["spare_bytes_per_rating"], here["unsorted_spare_bytes_per_rating"]
        memory = "–" if None in spares else ", ".join(f"{spare:.0f}" for spare in spares)
        line += ["–" if not gains else f"{min(gains):.2f}–{max(gains):.2f}×", memory]
        cells.append(line)
    note = of.say(
        "Exponents by one thread; gain, from the case with the least to that with the most, of a million ratings and "
        "more, threads taking turns epoch by epoch on a virtual machine. "
        f"Memory at {largest:,} ratings, K = 16, is the peak of a whole fit, "
        "less the ratings and three copies of the parameters, for ratings sorted by user and in a random order; "
        f"{committed.processor(outcome['machine'])}.",
        "幂次按单线程计；线程收益取一百万条评分及以上各例的最小值到最大值，不同线程数在一台虚拟机上逐轮轮流运行。"
        f"内存按 {largest:,} 条评分、K = 16 计，是整次拟合的峰值减去评分本身和三份参数，"
        "分别为按用户排序的评分与随机顺序的评分；"
        f"{committed.processor(outcome['machine'])}。",
    )
    return cells, note
