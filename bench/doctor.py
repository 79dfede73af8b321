"""What is here to measure with, and what would make timings wrong just now, each with a remedy.

``python -m bench doctor`` shows it; ``python -m bench.doctor`` does too, and needs neither cyclopts nor rich.
``--json`` prints {schema, schema_version, ok, here, timings}, both lists of {name, state, text, remedy}, which can be
pasted anywhere: it names no person, host or folder.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import inventory, machine, result
from bench.inventory import Finding
from bench.machine import Clock

Json = dict[str, Any]

SCHEMA, VERSION = "mf-doctor", 1
SECONDS = 0.5
"""For how long other programs are watched."""

INHERITED = (
    "MF_KERNELS", "NUMBA_DISABLE_JIT", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_OPT", "NUMBA_DEBUG",
    "NUMBA_BOUNDSCHECK", "NUMBA_THREADING_LAYER", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME",
    "PYTHONDEVMODE", "PYTHONPROFILEIMPORTTIME", "LD_PRELOAD",
)  # fmt: skip
"""Variables that change what is timed, and that workers inherit."""

IDLE, STOLEN = 0.25, 0.02
"""Cores that an idle desktop uses, and the share of all cores' time that may go to other virtual machines."""

LEAST_MEMORY, SWAPPED = 2 << 30, 64 << 20
"""Bytes of memory that should be free, and of swap that may be in use."""


@dataclass(frozen=True)
class Examination:
    """What is `here`, and what was found of that which makes `timings` wrong."""

    here: list[Finding]
    timings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether nothing would make timings wrong."""
        return all(finding.state != "warn" for finding in (*self.here, *self.timings))

    def to_dict(self) -> Json:
        """As ``--json`` prints it, without any folder."""
        lists = {name: [one.to_dict() for one in getattr(self, name)] for name in ("here", "timings")}
        cleaned: Json = result.clean({"schema": SCHEMA, "schema_version": VERSION, "ok": self.ok, **lists})
        return cleaned


def examine(
    environment: Mapping[str, str] = os.environ, root: Path = Path("/"), seconds: float = SECONDS
) -> Examination:
    """Look at everything.

    Args:
        environment: the variables that a benchmark would be started with.
        root: where ``proc`` and ``sys`` are.
        seconds: for how long other programs are watched.
    """
    # Watched first, before what is loaded below has threads of its own.
    before, after, stolen = watch(root, seconds)
    about = machine.machine()
    gpus, torch = machine.gpus(), inventory.torch()
    here = inventory.processor(about) + inventory.numba(environment) + torch
    here += inventory.blas(machine.thread_pools()) + inventory.cuda(gpus, _sees_cuda())
    here += inventory.energy(root / "sys/class/powercap")
    here += inventory.data() + inventory.peers() + inventory.tools()
    cores = about["cores"]
    return Examination(
        here=here,
        timings=[
            *busy(machine.others_busy(before, after), stolen),
            *fewer_cores(int(cores["usable"]), int(cores["logical"] or cores["usable"])),
            *variables(environment, int(cores["usable"])),
            *frequency(root),
            *memory(root),
            *interpreter(bool(sysconfig.get_config_var("Py_DEBUG"))),
            *checkout(machine.git()),
        ],
    )


def watch(root: Path, seconds: float, sleep: Callable[[float], None] = time.sleep) -> tuple[Clock, Clock, float | None]:
    """Readings before and after some idle time, and the share of it that went to other virtual machines."""
    before, ticks = machine.clock(), _stolen(root)
    sleep(seconds)
    after, later = machine.clock(), _stolen(root)
    if ticks is None or later is None or later[1] <= ticks[1]:
        return before, after, None
    return before, after, (later[0] - ticks[0]) / (later[1] - ticks[1])


def busy(others: float | None, stolen: float | None) -> Iterator[Finding]:
    """Other programs and other virtual machines."""
    if others is None:
        yield Finding("other work", "note", "this system does not say what other programs do")
    elif others > IDLE:
        text = f"others keep {others:.2f} cores busy"
        yield Finding("other work", "warn", text, "close them, or wait; top shows them")
    else:
        yield Finding("other work", "ok", f"others keep {others:.2f} cores busy")
    if stolen is not None and stolen > STOLEN:
        text = f"{stolen:.0%} of the time goes to other virtual machines"
        yield Finding("stolen time", "warn", text, "measure at another hour, or on a machine of your own")
    elif stolen is not None:
        yield Finding("stolen time", "ok", f"{stolen:.0%} goes to other virtual machines")


def fewer_cores(usable: int, logical: int) -> Iterator[Finding]:
    """An affinity or a control group that keeps cores from this process."""
    if usable < logical:
        text = f"{usable} of the machine's {logical}: times are not those of the machine"
        yield Finding("cores", "warn", text, "start without taskset, outside a limited container")
    else:
        yield Finding("cores", "ok", "all may be used")


def variables(environment: Mapping[str, str], usable: int) -> Iterator[Finding]:
    """Variables that set threads, choose other code, or pretend another processor."""
    threads = {name: environment[name] for name in machine.THREADS if environment.get(name)}
    wrong = {name: value for name, value in threads.items() if value != str(usable)}
    if wrong:
        shown = ", ".join(f"{name}={value}" for name, value in wrong.items())
        text = f"{shown}: workers set their own, but a fit or a notebook has these"
        yield Finding("threads", "warn", text, f"unset {' '.join(wrong)}")
    elif threads:
        yield Finding("threads", "ok", f"{', '.join(threads)} set to all usable cores")
    else:
        yield Finding("threads", "ok", "no variable sets them")
    other = [name for name in machine.REMOVED if environment.get(name)]
    if other:
        text = f"{', '.join(other)} set: OpenBLAS runs as on another processor, except in workers"
        yield Finding("OpenBLAS", "warn", text, f"unset {' '.join(other)}")
    inherited = [name for name in INHERITED if environment.get(name)]
    if inherited:
        text = f"{', '.join(inherited)} set, which workers inherit: other code is timed than usual"
        yield Finding("variables", "warn", text, f"unset {' '.join(inherited)}")


def frequency(root: Path) -> Iterator[Finding]:
    """Governors that lower the clock, and batteries; nothing where the system has neither."""
    cores = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = {text for path in cores if (text := _read(path).strip())}
    if governors - {"performance"}:
        text = f"the governor is {', '.join(sorted(governors))}: the clock follows the load"
        yield Finding("clock", "warn", text, "sudo cpupower frequency-set -g performance")
    elif governors:
        yield Finding("clock", "ok", "the governor is performance")
    supplies = sorted((root / "sys/class/power_supply").glob("*"))
    # A mouse has a battery, too.
    own = [path for path in supplies if _read(path / "scope").strip() != "Device"]
    if any(_read(path / "status").strip() == "Discharging" for path in own):
        yield Finding("power", "warn", "on battery: the clock is lower than usual", "plug it in")


def memory(root: Path) -> Iterator[Finding]:
    """Memory that is free, and swap that is in use; nothing where the system does not say."""
    lines = [line.split() for line in _read(root / "proc/meminfo").splitlines()]
    sizes = {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if len(line) > 1 and line[1].isdigit()}
    free, whole = sizes.get("MemAvailable"), sizes.get("MemTotal")
    if free is not None and whole is not None:
        text = f"{_gib(free)} of {_gib(whole)} free"
        low = free < LEAST_MEMORY
        yield Finding("memory", "warn" if low else "ok", text, "close what holds the rest" if low else "")
    swapped = sizes.get("SwapTotal", 0) - sizes.get("SwapFree", 0)
    if swapped > SWAPPED:
        text = f"{_gib(swapped)} in use: pages may come back in the middle of a timing"
        yield Finding("swap", "warn", text, "close what needs the memory, then sudo swapoff -a and sudo swapon -a")


def interpreter(debug: bool) -> Iterator[Finding]:
    """A Python that is built for finding faults."""
    if debug:
        yield Finding("Python", "warn", "a debug build", "use a release build")


def checkout(git: Json | None) -> Iterator[Finding]:
    """Whether a result could say from which sources it came."""
    if git is None:
        yield Finding("sources", "note", "no git checkout: a result cannot say which commit it timed")
    elif git["dirty"]:
        text = f"changed since {git['commit'][:7]}: nobody could measure a result again"
        yield Finding("sources", "warn", text, "commit or stash the changes")
    else:
        yield Finding("sources", "ok", f"commit {git['commit'][:7]}")


def lines(found: Examination, width: int = 80) -> Iterator[tuple[str, str]]:
    """(state, line) for a terminal; the state of a heading is empty."""
    yield "", "What is here"
    yield from _listed(found.here, width)
    yield "", ""
    yield "", "What would make timings wrong"
    yield from _listed(found.timings, width)
    yield "", ""
    count = sum(finding.state == "warn" for finding in (*found.here, *found.timings))
    yield "", "Nothing would make timings wrong." if found.ok else f"{count} to mend before anything is measured."


def _listed(findings: list[Finding], width: int) -> Iterator[tuple[str, str]]:
    last = ""
    for finding in findings:
        name = "" if finding.name == last else finding.name
        last = finding.name
        begin, indent = f"  {finding.state:<6}{name:<13}", " " * 21
        yield from ((finding.state, line) for line in textwrap.wrap(finding.text, width, **_at(begin, indent)))
        if finding.remedy:
            arrow = textwrap.wrap(finding.remedy, width, **_at(f"{indent}→ ", f"{indent}  "))
            yield from ((finding.state, line) for line in arrow)


def _at(first: str, later: str) -> Json:
    return {"initial_indent": first, "subsequent_indent": later, "break_long_words": False, "break_on_hyphens": False}


def _sees_cuda() -> bool:
    module = sys.modules.get("torch")
    return module is not None and bool(module.cuda.is_available())


def _stolen(root: Path) -> tuple[int, int] | None:
    """Ticks that other virtual machines took, and all ticks of all cores."""
    first = _read(root / "proc/stat").split("\n", 1)[0].split()
    ticks = [int(x) for x in first[1:9] if x.isdigit()]
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def exit_code(found: Examination) -> int:
    """0, or 1 where something would make timings wrong."""
    return 0 if found.ok else 1


def main(arguments: list[str]) -> int:
    """Without a command line: ``--json`` is the only option."""
    found = examine()
    if "--json" in arguments:
        print(result.to_text(found.to_dict()), end="")
    else:
        print("\n".join(line for _, line in lines(found)))
    return exit_code(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
