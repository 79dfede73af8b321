"""The tables that stand in the documents, each from the committed measurement, in English and in Chinese."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench import (
    accuracy_tables,
    click_tables,
    committed,
    default_tables,
    kernel_tables,
    link_tables,
    newcomer_tables,
    path_tables,
    peer_tables,
    quality_tables,
    result,
    search_tables,
)
from bench.cost import Cost, least_seconds
from bench.rungs import FACTORS, LADDER, SPARSER, Step

Json = dict[str, Any]
Cells = list[list[str]]
Text = tuple[str, str]
"""The same words in English and in Chinese."""

RUNGS: Mapping[str, Text] = {
    "loops": ("plain Python loops", "纯 Python 循环"),
    "add_at": ("NumPy, `np.add.at`", "NumPy，`np.add.at`"),
    "dense": ("NumPy, dense with a mask", "NumPy，稠密矩阵加掩码"),
    "csr": ("SciPy sparse product", "SciPy 稀疏乘法"),
    "numba": ("Numba, one thread", "Numba，单线程"),
    "numba_threads": ("Numba, {threads} threads", "Numba，{threads} 线程"),
    "numba_float32": ("Numba, {threads} threads, float32", "Numba，{threads} 线程，float32"),
    "torch": ("torch autograd, CPU, float32", "torch 自动求导，CPU，float32"),
    "cuda": ("torch autograd, CUDA, float32", "torch 自动求导，CUDA，float32"),
}


@dataclass(frozen=True)
class Source:
    """What a table is made from.

    Attributes:
        outcome: what `bench.rungs` wrote.
        lang: ``en`` or ``zh``.
    """

    outcome: Json
    lang: str

    def say(self, english: str, chinese: str) -> str:
        """The words in the table's language."""
        return english if self.lang == "en" else chinese

    def notes(self, *parts: str) -> str:
        """Sentences under a table, those that are empty left out."""
        return (" " if self.lang == "en" else "").join(part for part in parts if part)

    @property
    def threads(self) -> int:
        """All threads, as the measurement set them."""
        return int(max(self.outcome["environment"]["set"].values()))

    def row(self, key: str) -> Json:
        """The measured row of a key."""
        found: Json = next(row for row in self.outcome["rows"] if row["key"] == key)
        return found

    def quality(self, name: str) -> Json:
        """An entry of the quality part."""
        found: Json = self.outcome["quality"][name]
        return found

    def held(self, cores: float | None, english: str, chinese: str) -> str:
        """A sentence on what others held while all threads measured something that is no row, or nothing."""
        row = {"timing": True, "n_threads": self.threads, "others_busy_cores": cores}
        words = self.say(f"Other programs disturbed {english}.", f"{chinese}受其他程序干扰。")
        return words * result.disturbed(self.outcome, row)


def render(name: str, outcome: Json, lang: str) -> str:
    """The Markdown of a table and of the sentences under it.

    Args:
        name: of `TABLES`.
        outcome: what `bench.rungs` wrote.
        lang: ``en`` or ``zh``.
    """
    of = Source(outcome, lang)
    cells, note = TABLES[name](of)
    if not cells:  # nothing is measured yet, and the note says so
        return note
    head, *body = cells
    # The first column holds names, the others numbers.
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    text = "\n".join(("| " + " | ".join(line) + " |").replace("|  |", "| |") for line in lines)
    note = of.notes(note, _command(of, MEASURED_IN[name]) if name in MEASURED_IN else "")
    return text + (f"\n\n{note}" if note else "")


def _command(of: Source, pattern: str) -> str:
    """A sentence with the command that measured the committed results whose names fit."""
    found = committed.everywhere(pattern) if pattern.startswith("cuda") else committed.paths(pattern)
    outcomes = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    command = f"`python -m bench {committed.command(outcomes[0])}`"
    names = list(dict.fromkeys(name for name in map(committed.data, outcomes) if name))
    which = of.say(f", `--data` {', '.join(names)}", f"，`--data` 为 {'、'.join(names)}") * bool(names)
    return of.say(f"By {command}{which}.", f"由 {command} 测得{which}。")


def ladder(of: Source) -> tuple[Cells, str]:
    head = [of.say("rung", "阶梯")]
    for k in FACTORS:
        head += [of.say(f"K = {k}, M ratings/s", f"K = {k}，百万条/秒"), of.say("× the rung before", "为前一级的倍数")]
    cells = [head]
    for at, step in enumerate(LADDER):
        line = [_name(of, step)]
        for k in FACTORS:
            line += _rate_and_ratio(of, of.outcome["ladder"][f"K{k}"][at])
        cells.append(line)
    n = of.outcome["problems"]["K8-slice"]["n_ratings"]
    unclear = any(" ?" in cell for line in cells for cell in line)
    absent = any(row["status"] == "not run" for row in of.outcome["rows"])
    return cells, of.notes(
        _where(of),
        of.say(f"The loops run on {n:,} of the ratings.", f"纯循环只在其中 {n:,} 条评分上运行。"),
        of.say("A ratio with ? is within the spread or disturbed.", "带 ? 的倍数在离散范围之内，或受到干扰。")
        * unclear,
        of.say("Not run: no CUDA device.", "未运行：没有 CUDA 设备。") * absent,
        _disturbed(of, _rungs(of, FACTORS)),
    )


def fill(of: Source) -> tuple[Cells, str]:
    names = (("dense", "dense", "稠密"), ("numpy", "sparse", "稀疏"), ("numba", "Numba", "Numba"))
    head = [of.say("cells filled", "填充率"), "m × n"]
    head += [of.say(f"{english}, ms", f"{chinese}，毫秒") for _, english, chinese in names]
    cells = [head]
    seen: dict[str, Json] = {}
    for name in ("K8", *(f"fill-{per_cent}" for per_cent in SPARSER)):
        problem = of.outcome["problems"][name]
        m, n = problem["n_users"], problem["n_items"]
        line = [f"{100 * problem['n_ratings'] / (m * n):.3g} %", f"{m:,} × {n:,}"]
        rows = {
            text: of.row(f"{name}-{backend}-cpu-float64-1")
            for backend, *text_of in names
            for text in [of.say(*text_of)]
        }
        seen |= {f"{text} ({line[0]})": row for text, row in rows.items()}
        cells.append([*line, *(_milliseconds(row) for row in rows.values())])
    same = of.say(
        "One iteration of the same number of ratings, K = 8, float64, one thread.",
        "评分条数相同，一次迭代的时间；K = 8，float64，单线程。",
    )
    return cells, of.notes(same, _where(of), _disturbed(of, seen))


def machine(of: Source) -> tuple[Cells, str]:
    lines, threads = of.outcome["lines"], sorted({line["threads"] for line in of.outcome["lines"]["peak"]})
    each = lines["memory_bytes"] // 3 >> 20
    cells = [["", *(of.say(f"{n} thread{'s' * (n > 1)}", f"{n} 线程") for n in threads)]]
    names = {
        ("memory", "copy"): (f"copy, arrays of {each} MiB, GB/s", f"复制，每个数组 {each} MiB，GB/s"),
        ("memory", "triad"): (f"triad a + sb, arrays of {each} MiB, GB/s", f"a + sb，每个数组 {each} MiB，GB/s"),
        ("cache", "triad"): ("triad inside the cache, GB/s", "a + sb，数组在缓存内，GB/s"),
    }
    for (place, kernel), name in names.items():
        rates = [bandwidth(of, place, kernel, n) for n in threads]
        cells.append([of.say(*name), *(digits(rate) for rate in rates)])
    for dtype in ("float64", "float32"):
        peaks = [peak(of, dtype, n) for n in threads]
        cells.append(
            [of.say(f"multiply-add, {dtype}, GFLOP/s", f"乘加，{dtype}，GFLOP/s"), *(digits(rate) for rate in peaks)]
        )
    return cells, of.notes(_cpu(of), of.held(lines["others_busy_cores"], "these", "以上各项"))


def roofline(of: Source) -> tuple[Cells, str]:
    head = [
        of.say("rung, K = 64", "阶梯，K = 64"),
        of.say("flops a byte", "每字节运算数"),
        "GFLOP/s",
        "GB/s",
    ]
    cells = [[*head, of.say("time of Eq. 28, from memory, over the measured", "按内存计的时间（式 28）/ 实测时间")]]
    for at, step in enumerate(LADDER):
        row = of.row(of.outcome["ladder"][f"K{FACTORS[-1]}"][at]["row"])
        if not row["timing"] or row["device"] == "cuda":
            continue
        cost = row["cost"]
        work = Cost(cost["flops_per_rating"], cost["bytes_per_rating"])
        n = row["n_threads"]
        rates = peak(of, row["dtype"], n) * 1e9, bandwidth(of, "memory", "triad", n) * 1e9
        least = least_seconds(work, row["n_ratings"], *rates)
        share = 1e3 * least / row["timing"]["median_ms"]
        name = _name(of, step)
        reached = [digits(cost[key], 2) for key in ("gflops_per_s", "gbytes_per_s")]
        cells.append([name, f"{work.flops / work.bytes:.2f}", *reached, digits(share, 2)])
    return cells, of.notes(_where(of), _disturbed(of, _rungs(of, FACTORS[-1:])))


TABLES: Mapping[str, Callable[[Source], tuple[Cells, str]]] = {
    "ladder": ladder,
    "fill": fill,
    "biases": quality_tables.biases,
    "penalty": quality_tables.penalty,
    "momentum": quality_tables.momentum,
    "batches": quality_tables.batches,
    "loss": quality_tables.loss,
    "start": quality_tables.start,
    "post": quality_tables.post,
    "machine": machine,
    "roofline": roofline,
    "accuracies": accuracy_tables.accuracies,
    "ideas": accuracy_tables.ideas,
    "posterior": accuracy_tables.posterior,
    "speeds": peer_tables.speeds,
    "features": peer_tables.features,
    "races": peer_tables.races,
    "growth": peer_tables.growth,
    "executed": kernel_tables.executed,
    "constants": kernel_tables.constants,
    "steps": default_tables.steps,
    "epochs": default_tables.epochs,
    "penalties": default_tables.penalties,
    "paths": path_tables.speeds,
    "operators": path_tables.spent,
    "cuda": path_tables.on_cuda,
    "links": link_tables.sent,
    "carried": link_tables.carried,
    "newcomers": newcomer_tables.newcomers,
    "clicks": click_tables.clicks,
    "searched": search_tables.searched,
}
MEASURED_IN: Mapping[str, str] = {
    "accuracies": "accuracy-*.json",
    "ideas": "ours-ml-100k-*.json",
    "posterior": "ours-*.json",
    "speeds": "speed-*.json",
    "features": "features-*.json",
    "races": "race-*.json",
    "growth": "scaling.json",
    "executed": "instructions.json",
    "constants": "sweep.json",
    "steps": "defaults.json",
    "epochs": "defaults.json",
    "penalties": "defaults.json",
    "paths": "paths-*.json",
    "operators": "paths-*.json",
    "cuda": "cuda*.json",
    "links": "links.json",
    "newcomers": "newcomers-*.json",
    "clicks": "clicks-*.json",
    "searched": "search-*.json",
}
"""Which committed results a table is made of; one that is not here is of the rungs, or of no measurement."""


def _rate_and_ratio(of: Source, entry: Json) -> list[str]:
    if entry["ratings_per_s"] is None:
        status = of.row(entry["row"])["status"]
        return [of.say("not run", "未运行") if status == "not run" else status, ""]
    ratio = entry["ratio_to_below"]
    if ratio is None:
        return [digits(entry["ratings_per_s"] / 1e6), ""]
    return [digits(entry["ratings_per_s"] / 1e6), digits(ratio, 2) + " ?" * (not entry["ratio_is_clear"])]


def _milliseconds(row: Json) -> str:
    return digits(row["timing"]["median_ms"], 2) if row["timing"] else str(row["status"])


def _cpu(of: Source) -> str:
    about = of.outcome["machine"]
    cores = about["cores"]["usable"]
    return of.say(f"{committed.processor(about)}, {cores} cores.", f"{committed.processor(about)}，{cores} 个核。")


def _where(of: Source) -> str:
    counts = [sum(len(r["samples_ms"] or ()) for r in row["rounds"]) for row in of.outcome["rows"] if row["timing"]]
    rounds = max(len(row["rounds"]) for row in of.outcome["rows"])
    cpu = _cpu(of)[:-1]
    return of.say(
        f"Median of {min(counts)} iterations in {rounds} processes; {cpu}.",
        f"{rounds} 个进程共 {min(counts)} 次迭代的中位数；{cpu}。",
    )


def _disturbed(of: Source, rows: Mapping[str, Json]) -> str:
    """A sentence that names the rows which other programs disturbed, or nothing."""
    names = [name for name, row in rows.items() if result.disturbed(of.outcome, row)]
    listed = of.say("all of these", "以上全部") if len(names) == len(rows) else of.say(", ", "、").join(names)
    return of.say(f"Other programs disturbed: {listed}.", f"受其他程序干扰：{listed}。") * bool(names)


def _rungs(of: Source, factors: tuple[int, ...]) -> dict[str, Json]:
    """The ladder's rows that have times, by a name for a sentence."""
    found = {}
    for k in factors:
        for at, step in enumerate(LADDER):
            row = of.row(of.outcome["ladder"][f"K{k}"][at]["row"])
            if row["timing"]:
                found[f"{_name(of, step)} (K = {k})"] = row
    return found


def _name(of: Source, step: Step) -> str:
    return of.say(*RUNGS[step.name]).format(threads=of.threads)


def bandwidth(of: Source, place: str, kernel: str, threads: int) -> float:
    """Measured GB/s of ``copy`` or ``triad`` in ``memory`` or ``cache``."""
    found = {(x["place"], x["kernel"], x["threads"]): x["gbytes_per_s"] for x in of.outcome["lines"]["bandwidth"]}
    return float(found[place, kernel, threads])


def peak(of: Source, dtype: str, threads: int) -> float:
    """Measured GFLOP/s of multiply-adds."""
    found = {(x["dtype"], x["threads"]): x["gflops_per_s"] for x in of.outcome["lines"]["peak"]}
    return float(found[dtype, threads])


def digits(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, without an exponent and without losing those before the point."""
    places = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{places}f}"
