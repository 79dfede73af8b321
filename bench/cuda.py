"""What CUDA is worth: every path on a GPU and on the same machine's CPU, against the GPU's own lines.

``bash bench/cuda.sh`` (or ``python -m bench.cuda``, which needs neither cyclopts nor rich) writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment, others_busy_cores
    identity: what a run must share with a file that it resumes
    seconds: what the suite was given, all runs together
    complete: whether no case was left out for want of time, or by Ctrl-C; cases {case: row} until then
    cuda: the device as torch sees it {name, memory_bytes, cache_bytes, processors, capability, cuda}, or null
    roof: see `bench.cuda_roof`, or null
    limits {cache, memory}: bytes/s of the roof's triad, or null
    rows [{part, device, system, n_ratings, n_factors, batch_size, graph, storage, status (ok, failed, not run), reason,
           samples_ms, timing, check, warm_up_ms, load_s, transfer_s, transfer_bytes, peak_cuda_bytes, profile, traffic,
           share, ...}] as `bench.cuda_worker` has them
    crossings [{n_factors, n_ratings, ...}]: see `crossings`

An iteration is timed from launch to an idle device. ``share`` is how much of the bound that roof and ``traffic`` set
(Eq. 28) a full-batch case reaches. ``profile`` says how much of an iteration the device works at all.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench import machine, result
from bench.cases import Case
from bench.cost import Traffic
from bench.cuda_cases import UNUSABLE, CudaCase, Sizes, plan
from bench.journal import Journal
from bench.launch import Json, Launch, in_fresh_process
from mf_numpy.errors import ConfigError

SCHEMA, VERSION = "mf-cuda", 1
SECONDS = 480.0
CASE_LIMIT = 150
"""Seconds after which a case counts as hung."""

SMALL = 1_000_000
"""The largest N of a CPU case where there is no GPU to compare it with."""

FIRST = ("fused", "manual", "sparse", "autograd")
"""The order in which paths have their turn; others follow."""

LATE = "the time was up"
ROWS = "rows.jsonl"

Say = Callable[[str], None]


def measure(
    *,
    seconds: float = SECONDS,
    sizes: Sizes | None = None,
    launch: Launch | None = None,
    path: Path | None = None,
    resume: bool = False,
    say: Say = lambda text: None,
) -> Json:
    """All cases that the time allows, the most telling first; the others are rows that say so.

    Ctrl-C keeps what is done; a later run with `resume` goes on from there, and from where the time was up.

    Args:
        seconds: for all of it.
        sizes: what is tried.
        launch: how a group's process is started.
        path: the result file, which grows process by process; what a process has done lies beside it meanwhile.
        resume: go on with the file at `path`.

    Raises:
        ConfigError: no time, or a file that is there, unfinished, or of another run.
    """
    if not seconds > 0:
        raise ConfigError(f"seconds is {seconds:g}, but must be above 0")
    began, deadline = machine.clock(), time.time() + seconds
    device, threads = seen(), machine.usable_cores()
    sizes = sizes or Sizes()
    groups = plan(sizes, *_paths())
    with tempfile.TemporaryDirectory(prefix="mf-cuda-") as scratch:
        folder = Path(scratch)
        journal = Journal(path or folder / "cuda.json", _head(device, threads, sizes), resume=resume, anew=True)
        if journal.outcome["complete"]:
            say(f"{journal.path.name} is complete")
            return journal.outcome
        # From here on the file, and the rows beside it, are this run's.
        journal.note({"seconds": seconds + journal.outcome.get("seconds", 0.0)})
        _take_in(journal, groups)
        rows: dict[CudaCase, Json] = {}
        interrupted = False
        for group in groups:
            rows |= {case: journal.cases[case.label] for case in group if case.label in journal.cases}
            left = [case for case in group if case not in rows]
            try:
                for case, row in zip(
                    left, _group(left, device is not None, deadline, folder, launch, say, journal), strict=True
                ):
                    rows[case] = row
                    if row["status"] != "ok":
                        say(f"  {case.label}: {row['status']}, {row['reason']}")
            except KeyboardInterrupt:
                interrupted = True
                _take_in(journal, [left])
                rows |= {case: journal.cases[case.label] for case in left if case.label in journal.cases}
                say(f"interrupted: what was measured is kept{'; --resume goes on' if path else ''}")
                break
        before = journal.outcome.get("others_busy_cores") or 0.0
        busy = machine.others_busy(began, machine.clock())
        ordered = [dict(rows[case]) for group in groups for case in group if case in rows]
        more = {
            "others_busy_cores": None if busy is None else max(busy, before),
            "cuda": device,
            **_found(ordered),
        }
        if interrupted or any(row["reason"] == LATE for row in ordered):
            return journal.note(more)
        # The rows are the cases.
        return journal.finish(more | {"cases": {}})


def _head(device: Json | None, threads: int, sizes: Sizes) -> Json:
    about = machine.record(threads)
    identity = {
        "code": about["code"],
        "machine": about["machine"],
        "packages": about["packages"],
        "cuda": device,
        # Pairs are no keys of JSON.
        "sizes": asdict(sizes) | {"most_for": sorted([*pair, most] for pair, most in sizes.most_for.items())},
    }
    # A run that is killed has put nothing together yet.
    nothing: Json = {"cuda": device, "roof": None, "limits": None, "rows": [], "crossings": []}
    return {"schema": SCHEMA, "schema_version": VERSION, **about, "identity": identity} | nothing


def _found(rows: list[Json]) -> Json:
    """What follows from the rows."""
    roof = next((row.pop("roof") for row in rows if row.get("roof")), None)
    rates = None if roof is None else dict(zip(("cache", "memory"), limits(roof), strict=True))
    for row in rows:
        row["share"] = _share(row, rates)
    return {"roof": roof, "limits": rates, "rows": rows, "crossings": list(crossings(rows))}


def _take_in(journal: Journal, groups: list[list[CudaCase]]) -> None:
    """Keep the rows that a process had written when it, or whoever started it, was ended."""
    by_case = {json.dumps(case.to_dict(), sort_keys=True): case for group in groups for case in group}
    for row in _written(journal.parts / ROWS):
        about = {name: row.get(name) for name in CudaCase.__dataclass_fields__}
        case = by_case.get(json.dumps(about, sort_keys=True))
        if case is not None and row["reason"] != LATE:
            journal.keep(case.label, row)


def _written(path: Path) -> list[Json]:
    """The whole lines of a file of rows."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def seen() -> Json | None:
    """The GPU as torch sees it, or None."""
    import torch

    if not torch.cuda.is_available():
        return None
    about = torch.cuda.get_device_properties(0)
    return {
        "name": about.name,
        "memory_bytes": int(about.total_memory),
        "cache_bytes": int(about.L2_cache_size),
        "processors": int(about.multi_processor_count),
        "capability": f"{about.major}.{about.minor}",
        "cuda": str(torch.version.cuda),
    }


def _paths() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All paths, the most telling first, and those that a CUDA graph can hold."""
    from mf_torch.paths import PATHS

    names = sorted(PATHS, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    return tuple(names), tuple(name for name in names if PATHS[name].capturable)


def limits(roof: Json) -> tuple[float, float]:
    """Bytes/s of the triad from the cache, the best that half of it gives, and from the memory, at the largest size."""
    triads = [line for line in roof["lines"] if line["kernel"] == "triad"]
    held = (roof["cache_bytes"] or 0) / 2
    near = [line["gbytes_per_s"] for line in triads if line["bytes"] <= held] or [triads[0]["gbytes_per_s"]]
    return 1e9 * max(near), 1e9 * float(max(triads, key=lambda line: int(line["bytes"]))["gbytes_per_s"])


def _group(
    group: list[CudaCase],
    on_cuda: bool,
    deadline: float,
    folder: Path,
    launch: Launch | None,
    say: Say,
    journal: Journal | None = None,
) -> list[Json]:
    """A row for each case; a process for as many as it lives through. What was measured goes into the journal."""
    rows: dict[CudaCase, Json] = {}
    for case in group:
        absent = _not_here(case, on_cuda)
        if absent or time.time() > deadline:
            rows[case] = _without(case, "not run", absent or LATE)
    left = [case for case in group if case not in rows]
    while left:
        say(f"{max(0.0, deadline - time.time()):.0f} s left: {len(left)} of {left[0].label}")
        # In a temporary folder they would go with this process, if it is killed.
        place = journal.parts.resolve() if journal else folder
        place.mkdir(parents=True, exist_ok=True)
        path = place / ROWS
        path.unlink(missing_ok=True)
        order = {"cases": [case.to_dict() for case in left], "n_ratings": left[0].n_ratings, "rows": str(path)}
        order |= {"deadline": deadline, "limit": CASE_LIMIT, "threads": machine.usable_cores()}
        order |= {"parent": os.getpid()}
        # A case that has begun may end; one that hangs ends by itself, by the limit of its own.
        limit = max(1.0, deadline - time.time()) + CASE_LIMIT
        start = launch or partial(in_fresh_process, module="bench.cuda_worker", limit=limit)
        outcome, _ = start(Case("cuda", "group", "cuda", "float32"), order, folder)
        done = dict(zip(left, _written(path), strict=False))
        left = left[len(done) :]
        if left and not str(outcome["reason"]).startswith(UNUSABLE):
            done[left[0]] = _without(left[0], "failed", outcome["reason"] or "the process left no row")
            left = left[1:]
        rows |= done
        for case, row in done.items():
            if journal and row["reason"] != LATE:
                journal.keep(case.label, row)
    return [rows[case] for case in group]


def _not_here(case: CudaCase, on_cuda: bool) -> str | None:
    """Why a case has nothing to say on this machine, or None."""
    if on_cuda:
        return None
    if case.device == "cuda":
        return "no CUDA device"
    return "no CUDA device to compare with" if case.n_ratings > SMALL else None


def _without(case: CudaCase, status: str, reason: str) -> Json:
    return case.to_dict() | {"status": status, "reason": reason}


def _share(row: Json, limits: Json | None) -> float | None:
    """How much of the bound of Eq. 28 a full-batch case reaches, 0 to 1."""
    if limits is None or not row.get("traffic") or not row.get("timing"):
        return None
    traffic = Traffic(row["traffic"]["cache_bytes"], row["traffic"]["memory_bytes"])
    return 1e3 * traffic.least_seconds(limits["cache"], limits["memory"]) / float(row["timing"]["median_ms"])  # Eq. 28


def best(rows: list[Json], device: str, n_ratings: int, n_factors: int) -> Json | None:
    """The fastest full-batch case of a device and size in float32, or None."""
    wanted = "full", device, n_ratings, n_factors, None
    keys = "part", "device", "n_ratings", "n_factors", "storage"
    same = [row for row in rows if tuple(row.get(key) for key in keys) == wanted and row.get("timing")]
    return min(same, key=lambda row: float(row["timing"]["median_ms"]), default=None)


def crossings(rows: list[Json]) -> Iterator[Json]:
    """For each K, every N that both devices were timed with: the fastest of each, and whether CUDA is ahead.

    Yields:
        {n_factors, n_ratings, cuda, cpu (system), cuda_ms, cpu_ms, ratio (CPU over CUDA), busy (share of the iteration
        in which the device works), from_here (whether CUDA is ahead at this N and at all larger ones)}, by K, then N.
    """
    sizes = sorted({(row["n_factors"], row["n_ratings"]) for row in rows if row["part"] == "full"})
    for k in dict.fromkeys(k for k, _ in sizes):
        found = []
        for n in (n for other, n in sizes if other == k):
            cuda, cpu = (best(rows, device, n, k) for device in ("cuda", "cpu"))
            if cuda is None or cpu is None:
                continue
            times = [row["timing"]["median_ms"] for row in (cuda, cpu)]
            about = {"n_factors": k, "n_ratings": n, "cuda": cuda["system"], "cpu": cpu["system"]}
            about |= {"cuda_ms": times[0], "cpu_ms": times[1], "ratio": times[1] / times[0]}
            profile = cuda.get("profile")
            found.append(about | {"busy": profile and min(1.0, profile["busy_ms"] / times[0])})
        for at, one in enumerate(found):
            yield one | {"from_here": all(later["ratio"] > 1 for later in found[at:])}


def summary(outcome: Json) -> list[str]:
    """The roof, a line a row, then where CUDA overtakes."""
    out = []
    if outcome["roof"]:
        by = outcome["roof"]["by"]
        out += [
            f"{line['kernel']:6}{line['bytes'] / 2**20:8.0f} MiB{line['gbytes_per_s']:9.0f} GB/s, {by}"
            for line in outcome["roof"]["lines"]
        ]
    head = (
        f"{'part':7}{'on':5}{'system':16}{'graph':6}{'ratings':>12}{'batch':>10}{'K':>4}{'ms':>10}{'M ratings/s':>12}"
    )
    out.append(head + f"{'bound':>7}{'busy':>6}{'MiB':>8}")
    for row in outcome["rows"]:
        size = f"{row['batch_size']:,}" if row["batch_size"] else ""
        system = f"{row['system']} {row['storage'] or ''}".strip()
        begin = f"{row['part']:7}{row['device']:5}{system:16}{'yes' if row['graph'] else '':6}"
        begin += f"{row['n_ratings']:12,}{size:>10}{row['n_factors']:4}"
        if row["status"] != "ok":
            out.append(f"{begin}  {row['status']}: {row['reason']}")
        elif row["part"] == "target":
            took = "not reached" if row["seconds"] is None else f"{row['seconds']:.3f} s in {row['epochs']} epochs"
            out.append(f"{begin}  RMSE {row['target_rmse']:.4f}: {took}")
        elif row["timing"]:
            profile, share, peak = row.get("profile"), row["share"], row.get("peak_cuda_bytes")
            median = row["timing"]["median_ms"]
            ends = "" if share is None else f"{share:.0%}", f"{profile['busy_ms'] / median:.0%}" if profile else ""
            end = f"{ends[0]:>7}{ends[1]:>6}" + (f"{peak / 2**20:8.0f}" if peak else "")
            out.append(f"{begin}{median:10.3f}{row['timing']['ratings_per_s'] / 1e6:12.1f}{end}".rstrip())
    for k in dict.fromkeys(one["n_factors"] for one in outcome["crossings"]):
        ahead = [one["n_ratings"] for one in outcome["crossings"] if one["n_factors"] == k and one["from_here"]]
        where = f"from {min(ahead):,} ratings on" if ahead else "at no size"
        out.append(f"K = {k}: CUDA is ahead of this machine's CPU {where}")
    return out


def main() -> int:
    """The suite without a command line: BENCH_CUDA_SECONDS, BENCH_RESUME and OUT are its options."""
    path = Path(os.environ.get("OUT") or machine.ROOT / "bench" / "out") / "cuda.json"
    resume = bool(os.environ.get("BENCH_RESUME"))
    if not resume:
        path.unlink(missing_ok=True)
    outcome = measure(
        seconds=float(os.environ.get("BENCH_CUDA_SECONDS") or SECONDS),
        path=path,
        resume=resume,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    result.write_atomically(path, result.to_text(outcome))
    for line in (*summary(outcome), str(path)):
        print(line)
    return exit_code(outcome)


def exit_code(outcome: Json) -> int:
    """1 where a case gave other numbers than the Numba backend; a lack of memory, time or a device is no failure."""
    wrong = [row for row in outcome["rows"] if row.get("check") and not row["check"]["passed"]]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
