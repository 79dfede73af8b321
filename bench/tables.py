"""The tables that stand in the documents, each from the committed measurement, in English and in Chinese."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench import accuracy_tables, default_tables, kernel_tables, link_tables, path_tables, peer_tables, result
from bench.cost import Cost, least_seconds
from bench.rungs import FACTORS, LADDER, SPARSER, Step
from mf_numpy.recipes import RECIPES

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
FORMS: Mapping[str, Text] = {
    "gradient_descent": ("none", "无"),
    "ema": ("the post's average (Eq. 12)", "原博文的滑动平均（式 12）"),
    "heavy_ball": ("heavy ball (Eq. 13)", "重球法（式 13）"),
    "nesterov": ("Nesterov (Eq. 14)", "Nesterov（式 14）"),
}
STARTS: Mapping[str, Text] = {
    "uniform": ("U(0, 11/K), the post's", "U(0, 11/K)，原博文"),
    "mean": ("U(0, 2√(μ/K)), `mean`", "U(0, 2√(μ/K))，`mean`"),
    "normal": ("N(0, 0.1²)", "N(0, 0.1²)"),
}
ENDS: Mapping[str, Text] = {
    "mean": ("the mean", "均值"),
    "bias-only": ("mean and biases alone", "只有均值与偏置"),
    "post": ("recipe `post`", "配方 `post`"),
    "biased": ("recipe `biased`, K = 64", "配方 `biased`，K = 64"),
    "floor": ("noise floor, the truth itself", "噪声下限，即真值本身"),
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


def render(name: str, outcome: Json, lang: str) -> str:
    """The Markdown of a table and of the sentences under it.

    Args:
        name: of `TABLES`.
        outcome: what `bench.rungs` wrote.
        lang: ``en`` or ``zh``.
    """
    cells, note = TABLES[name](Source(outcome, lang))
    if not cells:  # nothing is measured yet, and the note says so
        return note
    head, *body = cells
    # The first column holds names, the others numbers.
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    text = "\n".join(("| " + " | ".join(line) + " |").replace("|  |", "| |") for line in lines)
    return text + (f"\n\n{note}" if note else "")


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


def biases(of: Source) -> tuple[Cells, str]:
    cells = [[of.say("model", "模型"), "K", "RMSE", of.say("iterations", "迭代次数")]]
    for row in of.quality("biases")["rows"]:
        name = of.say("p·q alone", "只有 p·q") if row["model"] == "plain" else "μ + b + c + p·q"
        cells.append([name, str(row["n_factors"]), f"{row['rmse']:.3f}", f"{row['iterations']:,}"])
    cells.append([of.say(*ENDS["floor"]), "", f"{_floor(of):.3f}", ""])
    return cells, of.say(
        "Validation RMSE at the minimum, and iterations until it is within 0.001 of that.",
        "最小值处的验证 RMSE，以及与之相差不超过 0.001 所需的迭代次数。",
    )


def penalty(of: Source) -> tuple[Cells, str]:
    entry = of.quality("penalty")
    few, many = (f"{entry[name]:.0f}" for name in ("few", "many"))
    head = [of.say("penalty", "惩罚项"), "λ", "RMSE", of.say(f"users with ≤ {few} ratings", f"评分 ≤ {few} 条的用户")]
    cells = [[*head, of.say(f"users with ≥ {many}", f"评分 ≥ {many} 条的用户")]]
    for row in entry["rows"]:
        post = row["penalty"] == "total" and row["reg"] == RECIPES["post"].config.reg
        if not row["best"] and not post:
            continue
        name = f"`{row['penalty']}`" + of.say(", best λ of five", "，五个 λ 中最好的") * row["best"]
        name += of.say(", the post's λ", "，原博文的 λ") * (post and not row["best"])
        errors = [f"{row[key]:.3f}" for key in ("rmse", "rmse_few", "rmse_many")]
        cells.append([name, f"{row['reg']:g}", *errors])
    return cells, of.say(
        f"Validation RMSE, biased model, K = {entry['n_factors']}.",
        f"验证 RMSE，带偏置的模型，K = {entry['n_factors']}。",
    )


def momentum(of: Source) -> tuple[Cells, str]:
    entry = of.quality("momentum")
    head = [of.say("momentum, β = 0.9", "动量，β = 0.9"), of.say("same effective step 1/L", "有效步长同为 1/L")]
    head += [of.say("at the best η", "最好的 η 下"), of.say("that η / bound (Eq. 21)", "该 η / 上界（式 21）")]
    cells = [[*head, of.say("diverged at", "发散于")]]
    for row in entry["rows"]:
        lost = [f"{tried['share']:g}" for tried in row["tried"] if tried["iterations"] is None]
        best = [_count(row["best"]), "–" if row["best_share"] is None else f"{row['best_share']:g}"]
        cells.append([of.say(*FORMS[row["form"]]), _count(row["equal_step"]), *best, ", ".join(lost) or "–"])
    return cells, of.say(
        "Iterations until J is within 0.001 of its minimum, for η chosen of five shares of the bound.",
        "J 与最小值相差不超过 0.001 所需的迭代次数；η 取上界的五种比例之一。",
    )


def batches(of: Source) -> tuple[Cells, str]:
    entry = of.quality("batches")
    head = [
        of.say("ratings a batch", "每批评分数"),
        of.say("updates an epoch", "每轮更新次数"),
        of.say("best η", "最好的 η"),
    ]
    cells = [[*head, of.say("epochs", "轮数"), of.say("seconds", "秒")]]
    for row in entry["rows"]:
        size = of.say("all", "全部") if row["batch_size"] is None else f"{row['batch_size']:,}"
        spent = "–" if row["epochs"] is None else digits(row["epochs"] * row["seconds_per_epoch"], 2)
        lr = "–" if row["lr"] is None else f"{row['lr']:g}"
        cells.append([size, f"{row['updates_per_epoch']:,}", lr, _count(row["epochs"]), spent])
    until = of.say(
        f"Until the validation RMSE is {entry['target_rmse']:.3f}; Nesterov, Numba, η chosen of six.",
        f"验证 RMSE 降到 {entry['target_rmse']:.3f} 为止；Nesterov，Numba，η 从六个值中选取。",
    )
    return cells, of.notes(until, _held(of, entry["others_busy_cores"], "the seconds", "所用秒数"))


def loss(of: Source) -> tuple[Cells, str]:
    entry = of.quality("loss")
    cells = [
        [
            of.say("training ratings replaced by noise", "训练评分中换成噪声的比例"),
            of.say("squared", "平方损失"),
            of.say(f"pseudo-Huber, δ = {entry['delta']:g}", f"伪 Huber，δ = {entry['delta']:g}"),
        ]
    ]
    found = {(row["replaced"], row["loss"]): f"{row['rmse']:.4f}" for row in entry["rows"]}
    shares = dict.fromkeys(row["replaced"] for row in entry["rows"])
    cells += [[f"{100 * share:g} %", found[share, "squared"], found[share, "pseudo_huber"]] for share in shares]
    return cells, of.say(
        "Validation RMSE on ratings that are as they were; the noise is uniform over the scale.",
        "在未被改动的验证评分上的 RMSE；噪声在评分范围上均匀分布。",
    )


def start(of: Source) -> tuple[Cells, str]:
    head = [of.say("start", "起点"), "K", of.say("RMSE before", "开始时的 RMSE")]
    cells = [[*head, of.say("after 50 iterations", "50 次迭代后")]]
    cells += [
        [of.say(*STARTS[row["init"]]), str(row["n_factors"]), f"{row['rmse_start']:.2f}", f"{row['rmse']:.3f}"]
        for row in of.quality("start")["rows"]
    ]
    return cells, of.say("Validation RMSE, plain model, one η for each K.", "验证 RMSE，朴素模型，每个 K 用同一个 η。")


def post(of: Source) -> tuple[Cells, str]:
    cells = [["", "RMSE", of.say("iterations", "迭代次数")]]
    rows = sorted(of.quality("post")["rows"], key=lambda row: -float(row["rmse"]))
    cells += [[of.say(*ENDS[row["name"]]), f"{row['rmse']:.3f}", _count(row.get("iterations") or None)] for row in rows]
    return cells, of.say("Validation RMSE on the planted ratings, 80/20.", "生成数据上的验证 RMSE，80/20 划分。")


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
    return cells, of.notes(_cpu(of), _held(of, lines["others_busy_cores"], "these", "以上各项"))


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
    "biases": biases,
    "penalty": penalty,
    "momentum": momentum,
    "batches": batches,
    "loss": loss,
    "start": start,
    "post": post,
    "machine": machine,
    "roofline": roofline,
    "accuracies": accuracy_tables.accuracies,
    "speeds": peer_tables.speeds,
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
}


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
    return of.say(f"{about['cpu']}, {cores} cores.", f"{about['cpu']}，{cores} 个核。")


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


def _held(of: Source, cores: float | None, english: str, chinese: str) -> str:
    """The same for a measurement on all threads that is no row."""
    row = {"timing": True, "n_threads": of.threads, "others_busy_cores": cores}
    words = of.say(f"Other programs disturbed {english}.", f"{chinese}受其他程序干扰。")
    return words * result.disturbed(of.outcome, row)


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


def _floor(of: Source) -> float:
    return next(float(row["rmse"]) for row in of.quality("post")["rows"] if row["name"] == "floor")


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def digits(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, without an exponent and without losing those before the point."""
    places = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{places}f}"
