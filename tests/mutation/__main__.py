"""``python -m tests.mutation``: judge all mutants, write the result and its table, and fail if any is alive."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.mutation import report
from tests.mutation.judge import BaselineError, Judge, Verdict
from tests.mutation.mutants import Mutant, mutants_of


def main() -> int:
    """0: every mutant is noticed or declared equivalent; 1: one is alive, or a declaration is stale; 130: Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", action="append", metavar="MODULE", help="mutate this file only; repeatable")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="tests at a time; default: every core")
    parser.add_argument("--fresh", action="store_true", help="judge again what an earlier run has judged")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout; default: the current folder")
    args = parser.parse_args()
    root = args.root.resolve()
    settings = report.load_settings(root)
    unknown = [name for name in args.only or [] if name not in settings.modules]
    if unknown:
        parser.error(f"{unknown[0]!r} is not mutated; settings.toml has {', '.join(settings.modules)}")
    modules = [name for name in settings.modules if not args.only or name in args.only]
    console = Console(stderr=True, highlight=False)
    begin = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="mf-mutants-") as scratch:
        judge = Judge(settings, Path(scratch), args.jobs)
        try:
            console.print(f"Unmutated, the tests pass; {judge.prepare():.0f} s.")
        except BaselineError as failure:
            console.print(
                f"The tests fail without any mutation; mend that first.\n{failure}", markup=False, soft_wrap=True
            )
            return 1
        made = {name: mutants_of(judge.snapshot, name) for name in modules}
        mutants = [mutant for found, _ in made.values() for mutant in found]
        memory = report.Memory(root / ".mutation_cache/verdicts.jsonl", judge)
        held = {} if args.fresh else memory.recall()
        verdicts = {m: held[m.module, m.digest] for m in mutants if (m.module, m.digest) in held}
        with suppress(KeyboardInterrupt):
            _judge_all(judge, [m for m in mutants if m not in verdicts], verdicts, memory, console)
    declared = report.load_equivalents(root)
    judged = report.classify(verdicts.items(), declared)
    left = len(mutants) - len(judged)
    _tell(judged, left, time.monotonic() - begin, sum(v.seconds for v in verdicts.values()), console)
    if left:
        return 130
    old = list(report.stale(judged, declared, modules))
    for line in old:
        console.print(f"stale: {line}", markup=False, soft_wrap=True)
    summaries = {
        name: report.summary([j for j in judged if j.mutant.module == name], left_out, judge.originals[name])
        for name, (_, left_out) in made.items()
    }
    _write(root, settings.modules, summaries)
    return int(bool(old) or any(j.outcome == "survived" for j in judged))


def _judge_all(
    judge: Judge, waiting: list[Mutant], verdicts: dict[Mutant, Verdict], memory: report.Memory, console: Console
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # No refreshing thread: children are forked from this process.
    with Progress(*columns, TimeRemainingColumn(), console=console, auto_refresh=False) as progress:
        task = progress.add_task(f"{len(verdicts)} kept,", total=len(waiting))
        for mutant, verdict in judge.judge(waiting):
            verdicts[mutant] = verdict
            memory.keep(mutant, verdict)
            if verdict.outcome != "killed":
                place = f"{mutant.module}:{mutant.line} {mutant.operator}"
                console.print(
                    f"{verdict.outcome}: {place}\n  {mutant.before}\n  {mutant.after}", markup=False, soft_wrap=True
                )
            progress.update(task, advance=1, refresh=console.is_terminal)


def _tell(judged: list[report.Judged], left: int, seconds: float, used: float, console: Console) -> None:
    counts = Counter(one.outcome for one in judged)
    parts = ", ".join(f"{counts[name]} {name}" for name in ("killed", "timeout", "equivalent", "survived"))
    console.print(f"{len(judged)} mutants: {parts}.\n{seconds:.0f} s now; {used:.0f} processor seconds in all.")
    if left:
        console.print(f"{left} are not judged yet; the same command goes on.")


def _write(root: Path, order: list[str], summaries: dict[str, Any]) -> None:
    """Put these modules' entries into the result file, and the table beside it."""
    from mf_numpy.files import replacing

    path = root / "tests/mutation/result.json"
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["modules"] if path.exists() else {}
    entries = before | summaries
    result = {"schema": 1, "modules": {name: entries[name] for name in order if name in entries}}
    with replacing(path) as new:
        new.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with replacing(path.with_name("table.md")) as new:
        new.write_text(report.table(result), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
