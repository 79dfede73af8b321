"""Tables of the paths of `mf_torch` on a CPU and on CUDA, in English and in Chinese; without a result, a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import committed, cuda, operators, paths, result

if TYPE_CHECKING:
    from bench.tables import Cells, Source

Json = dict[str, Any]

DATA = {"ml-100k": "MovieLens 100K", "ml-1m": "MovieLens 1M", "planted-anime": "planted"}
NAMES = {"numba": "`mf_numpy`, Numba"}


def _paths() -> dict[str, Json]:
    """The committed results of `bench.paths`, by data set."""
    return committed.results("paths", DATA, paths.SCHEMA, paths.VERSION)


def _cuda() -> list[Json]:
    """The committed results of `bench.cuda`, of every machine."""
    return [result.load(path, cuda.SCHEMA, cuda.VERSION) for path in committed.everywhere("cuda*.json")]


def speeds(of: Source) -> tuple[Cells, str]:
    """Ratings a second of every path by each number of threads, and how many times that of `autograd` and of Numba."""
    found = _paths()
    if not found:
        return [], of.say("No measurement of the paths is committed yet.", "尚未提交各路径的测量结果。")
    columns = [(name, k) for name, o in found.items() for k in sorted({row["n_factors"] for row in o["rows"]})]
    cells = [[of.say("path", "路径"), *(f"{DATA[name]}, K = {k}" for name, k in columns)]]
    systems = dict.fromkeys(row["system"] for outcome in found.values() for row in outcome["rows"])
    cells += [[_named(system), *(_beside(of, found[name], system, k) for name, k in columns)] for system in systems]
    busy = max((row["others_busy_cores"] or 0.0 for o in found.values() for row in o["rows"]), default=0.0)
    cores = sorted({(committed.processor(o["machine"]), o["machine"]["cores"]["usable"]) for o in found.values()})
    threads = sorted({row["threads"] for outcome in found.values() for row in outcome["rows"]})
    where = "; ".join(f"{cpu}, {n} cores" for cpu, n in cores)
    by = ", ".join(map(str, threads))
    return cells, of.say(
        f"A full-batch iteration, gradient and update, float32: ratings a second by {by} threads, and how many times "
        "the speed of `autograd` and of the Numba backend; medians, systems taking turns in processes of their own; "
        f"{where}; others kept at most {busy:.2f} cores busy. –: not measured.",
        f"一次全批量迭代（梯度与更新），float32：{by} 线程每秒的评分条数，以及为 `autograd` 与 Numba 后端速度的几倍；"
        f"取中位数，各系统在各自的进程里轮流运行；{where}；其他程序最多占用 {busy:.2f} 个核。–：未测。",
    )


def _named(system: str) -> str:
    return NAMES.get(system, f"`{system}`")


def _beside(of: Source, outcome: Json, system: str, n_factors: int) -> str:
    rows = [row for row in outcome["rows"] if (row["system"], row["n_factors"]) == (system, n_factors)]
    rows = sorted((row for row in rows if row["timing"]), key=lambda row: int(row["threads"]))
    if not rows:
        return "–"
    rates = ", ".join(f"{row['timing']['ratings_per_s'] / 1e6:.3g}" for row in rows)
    parts = [of.say(f"{rates} M/s", f"{rates} 百万条/秒")]
    for against in paths.AGAINST:
        key = system, n_factors, against
        same = [r for r in outcome["ratios"] if (r["system"], r["n_factors"], r["against"]) == key]
        times = ", ".join(f"{r['ratio']:.3g}×" for r in sorted(same, key=lambda r: int(r["threads"])))
        if times:
            parts.append(f"{times} {'Numba' if against == paths.NUMBA else against}")
    return "; ".join(parts)


def spent(of: Source) -> tuple[Cells, str]:
    """The operators that take most of an iteration of each path, at the largest K."""
    found = _paths()
    if not found:
        return [], of.say("No profile of the paths is committed yet.", "尚未提交各路径的剖析结果。")
    k = max(row["n_factors"] for outcome in found.values() for row in outcome["rows"])
    cells = [[of.say(f"path, K = {k}", f"路径，K = {k}"), *(DATA[name] for name in found)]]
    profiles = {
        (row["system"], name): row["profile"]
        for name, outcome in found.items()
        for row in outcome["rows"]
        if row["n_factors"] == k and row["profile"]
    }
    cells += [
        [_named(system), *(_largest(of, profiles.get((system, name))) for name in found)]
        for system in dict.fromkeys(system for system, _ in profiles)
    ]
    return cells, of.say(
        "Shares of one iteration's time by the operator of torch that spends it itself: torch's profiler, all threads.",
        "一次迭代的时间按 torch 算子自身耗时所占的比例，由 torch 的剖析器给出，使用全部线程。",
    )


def _largest(of: Source, profile: Json | None) -> str:
    if profile is None:
        return "–"
    lines = sorted(profile["operators"], key=lambda line: -float(line["share"]))
    names = {
        operators.REST: of.say("others", "其余算子"),
        operators.OUTSIDE: of.say("outside torch's operators", "torch 算子之外"),
    }
    parts = [(names.get(line["operator"], f"`{line['operator']}`"), line["share"]) for line in lines[:3]]
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in parts if share >= 0.01)


def on_cuda(of: Source) -> tuple[Cells, str]:
    """From what size on CUDA beats the CPU beside it, and how busy the device is below."""
    found = _cuda()
    if not found:
        return [], of.say(
            "From what size on does CUDA beat the CPU, and what makes it lose below? No CUDA result is committed yet, "
            "so that this is not answered here.",
            "从多大规模起 CUDA 胜过 CPU？规模更小时它为什么输？尚未提交 CUDA 的测量结果，因此这里还没有答案。",
        )
    head = [of.say("GPU, K", "GPU，K"), of.say("ratings", "评分条数"), of.say("CUDA, ms", "CUDA，毫秒")]
    head += [of.say("CPU, ms", "CPU，毫秒"), of.say("CPU / CUDA", "CPU / CUDA"), of.say("GPU busy", "GPU 忙碌比例")]
    cells, answers = [head], []
    for outcome in found:
        name = (outcome["cuda"] or {}).get("name", of.say("no GPU", "没有 GPU"))
        for k in dict.fromkeys(one["n_factors"] for one in outcome["crossings"]):
            lines = [one for one in outcome["crossings"] if one["n_factors"] == k]
            for one in lines:
                busy = "–" if one["busy"] is None else f"{100 * one['busy']:.0f} %"
                times = [f"{one['cuda_ms']:.3g} `{one['cuda']}`", f"{one['cpu_ms']:.3g} `{one['cpu']}`"]
                cells.append([f"{name}, {k}", f"{one['n_ratings']:,}", *times, f"{one['ratio']:.2g}×", busy])
            answers.append(_answer(of, name, k, lines))
    return cells, of.notes(
        of.say(
            "The fastest path of each device for a full-batch iteration, gradient and update, float32; the CPU is that "
            "of the same machine, on all its cores. GPU busy: the share of the iteration in which a kernel runs.",
            "每种设备上最快的路径做一次全批量迭代（梯度与更新），float32；CPU 是同一台机器的，使用全部核。"
            "GPU 忙碌比例：一次迭代中有核函数在运行的时间所占的比例。",
        ),
        *answers,
    )


def _answer(of: Source, name: str, n_factors: int, lines: list[Json]) -> str:
    """From where on CUDA is ahead, and what the largest size below says of why."""
    ahead = [one["n_ratings"] for one in lines if one["from_here"]]
    below = [one for one in lines if not one["from_here"] and one["busy"] is not None]
    where = f"K = {n_factors}, {name}: "
    if ahead:
        where += of.say(f"CUDA is ahead from {min(ahead):,} ratings on", f"从 {min(ahead):,} 条评分起 CUDA 领先")
    else:
        where += of.say("CUDA is ahead at no size", "CUDA 在任何规模都不领先")
    if not below:
        return where + of.say(".", "。")
    last = below[-1]
    idle = 100 - 100 * last["busy"]
    return where + of.say(
        f"; at {last['n_ratings']:,} no kernel runs in {idle:.0f} % of an iteration: the GPU waits for work.",
        f"；在 {last['n_ratings']:,} 条时，一次迭代有 {idle:.0f} % 的时间没有核函数在运行：GPU 在等待派给它的工作。",
    )
