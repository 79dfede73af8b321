"""Tables of the kernels: what they execute for a rating, and what other constants would do; English and Chinese."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import committed, instructions, result, sweep

if TYPE_CHECKING:
    from bench.tables import Cells, Source

Json = dict[str, Any]


def executed(of: Source) -> tuple[Cells, str]:
    """Instructions, reads, writes and misses of each kernel for a rating."""
    outcome = result.load(committed.path("instructions.json"), instructions.SCHEMA, instructions.VERSION)
    factors = sorted({row["n_factors"] for row in outcome["rows"]})
    numbers = ", ".join(map(str, factors))
    head = [
        of.say(f"for each rating, K = {numbers}", f"每条评分，K = {numbers}"),
        of.say("instructions", "指令"),
        of.say("reads", "读"),
        of.say("writes", "写"),
        of.say("L1 misses", "L1 未命中"),
    ]
    cells = [head]
    for kernel in dict.fromkeys(row["kernel"] for row in outcome["rows"]):
        rows = sorted((row for row in outcome["rows"] if row["kernel"] == kernel), key=lambda row: row["n_factors"])
        line = [", ".join(f"{row[name]:.1f}" for row in rows) for name in ("instructions", "reads", "writes")]
        cells.append([kernel, *line, ", ".join(f"{row['l1_misses']:.2f}" for row in rows)])
    n, data = f"{outcome['problem']['n_ratings']:,}", outcome["problem"]["data"]
    note = of.say(
        f"Counted by callgrind on {data} ({n} ratings), float32, one thread, compiled for AVX2 and fused "
        "multiply-adds; what a call does for rows is shared out among the ratings, and one read or write is of up to "
        "32 bytes.",
        f"由 callgrind 在 {data}（{n} 条评分）上计数，float32，单线程，按 AVX2 与 FMA 编译；"
        "对各行所做的工作摊到每条评分，一次读写最多 32 字节。",
    )
    return cells, note


def constants(of: Source) -> tuple[Cells, str]:
    """What each constant is, and the kernel's speed with other values of it over that with this one."""
    outcome = result.load(committed.path("sweep.json"), sweep.SCHEMA, sweep.VERSION)
    threads = max(row["threads"] for row in outcome["rows"])
    factors = sorted({row["n_factors"] for row in outcome["rows"]})
    head = [of.say("constant", "常数"), of.say("chosen", "取值"), *(f"K = {k}" for k in factors)]
    cells = [head]
    for constant in sweep.CONSTANTS:
        line = [f"`{constant.name}`", f"{constant.chosen:,}"]
        for k in factors:
            wanted = constant.name, k, threads
            rows = [r for r in outcome["rows"] if (r["constant"], r["n_factors"], r["threads"]) == wanted]
            others = [row for row in rows if not row["chosen"] and row["ratio"] is not None]
            line.append(", ".join(f"{row['value']:,}: {row['ratio']:.2f}×" for row in others) or "–")
        cells.append(line)
    n, cpu = f"{outcome['problem']['n_ratings']:,}", committed.processor(outcome["machine"])
    note = of.say(
        f"Speed with another value over that with the chosen one, {threads} threads, float32, {n} ratings; medians of "
        f"seven calls, each value in a process of its own; {cpu}.",
        f"换成其他取值时的速度与现取值之比，{threads} 线程，float32，{n} 条评分；"
        f"取七次调用的中位数，每个取值用单独的进程；{cpu}。",
    )
    return cells, note
