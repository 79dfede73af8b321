"""The command line of ``python -m bench``; `bench.suite` does the work and needs neither cyclopts nor rich."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from rich.console import Console

from bench import report as page
from bench import result, suite, table
from bench.cases import BACKENDS
from bench.peers import cli as peers

OUT = Path(__file__).resolve().parent / "out"

app = cyclopts.App(name="python -m bench", help="Check every backend for equality, then time it.", version_flags=[])
app.command(peers.app)

_Data = Annotated[str, Parameter(help="planted, planted-anime, anime, ml-100k, ml-1m, or a file of ratings")]
_Factors = Annotated[str, Parameter(help="comma-separated values of K")]


@app.default
def run(
    *,
    data: Annotated[
        str, Parameter(help="planted, planted-anime, anime, ml-100k, ml-1m, or a file of ratings")
    ] = "planted",
    suite_name: Annotated[
        str, Parameter(name="--suite", help="default, or smoke for CI: small, never judged by time")
    ] = "default",
    epochs: Annotated[int | None, Parameter(help="iterations of the full problem, 5 or more")] = None,
    n_factors: Annotated[int | None, Parameter(help="K")] = None,
    lr: Annotated[float | None, Parameter(help="η; by default it follows the largest row's share")] = None,
    threads: Annotated[int | None, Parameter(help="for every library; by default all usable cores")] = None,
    only: Annotated[
        str, Parameter(help=f"comma-separated backends of {', '.join(BACKENDS)}; the reference always runs")
    ] = "",
    roof: Annotated[
        bool, Parameter(name="--roofline", help="measure how near the kernels come to this machine's limit, too")
    ] = True,
    out: Annotated[Path, Parameter(help="folder for result.json and report.html", show_default=False)] = OUT,
) -> int:
    """Check every backend for equality with float64 NumPy, time it, and write a report.

    Exit code: 0, 1 when a row FAILED (never because of time), 2 for a wrong option, 130 after Ctrl-C.
    """
    progress, console = Console(stderr=True, highlight=False), Console(highlight=False)
    outcome = suite.run_suite(
        data,
        suite_name,
        epochs=epochs,
        n_factors=n_factors,
        lr=lr,
        threads=threads,
        only=tuple(name.strip() for name in only.split(",") if name.strip()),
        say=lambda text: progress.print(text, style="dim", markup=False),
    )
    if roof and suite_name != "smoke" and "full" in outcome["problems"] and not outcome["interrupted"]:
        outcome["roofline"] = _roofline(suite.load_data(data, suite_name), outcome, progress)
    paths = suite.write(outcome, out)
    # A pipe has no width of its own, and the table would be folded at 80 columns.
    if not console.is_terminal:
        console.width = 200
    console.print(table.rich(outcome))
    console.print()
    for path in paths:
        console.print(str(path), soft_wrap=True, markup=False)
    console.print(outcome["verdict"], soft_wrap=True, markup=False, style="bold")
    return suite.exit_code(outcome)


def _roofline(data: suite.Data, outcome: dict[str, Any], progress: Console) -> dict[str, Any] | None:
    """The part of the result that `bench.kernels` measures, or None after Ctrl-C."""
    from bench import kernels

    try:
        found = kernels.measure(
            data.train,
            data.name,
            factors=(outcome["problems"]["full"]["config"]["n_factors"],),
            samples=5,
            say=lambda text: progress.print(text, style="dim", markup=False),
        )
    except KeyboardInterrupt:
        return None
    return {key: found[key] for key in ("caches", "levels", "peaks", "problem", "rows", "others_busy_cores")}


@app.command
def report(source: Path, *, out: Annotated[Path | None, Parameter(help="the HTML file")] = None) -> int:
    """Render the report of an earlier result file again.

    Parameters
    ----------
    source
        A result.json.
    """
    target = source.with_name("report.html") if out is None else out
    result.write_atomically(target, page.render(result.load(source)))
    Console(highlight=False).print(str(target), soft_wrap=True, markup=False)
    return 0


@app.command
def rungs(
    *,
    rounds: Annotated[int, Parameter(help="fresh processes for each case")] = 3,
    epochs: Annotated[int, Parameter(help="timed iterations in each process")] = 6,
    only: Annotated[str, Parameter(help="comma-separated parts of rows, lines, quality; the rest is kept")] = "",
    out: Annotated[Path | None, Parameter(help="the result; by default the committed one", show_default=False)] = None,
) -> int:
    """Measure the rungs of the derivation, each against the one below, the machine's lines and what each idea gains."""
    from bench import rungs as measured

    progress, path = Console(stderr=True, highlight=False), out or measured.PATH
    outcome = measured.run_rungs(
        rounds=rounds,
        epochs=epochs,
        only=tuple(name.strip() for name in only.split(",") if name.strip()),
        before=measured.load(path) if only else None,
        say=lambda text: progress.print(text, style="dim", markup=False),
    )
    measured.write(outcome, path)
    console = Console(highlight=False)
    for line in measured.summary(outcome):
        console.print(line, soft_wrap=True, markup=False)
    console.print(str(path), soft_wrap=True, markup=False)
    return 0 if outcome["ok"] else 1


@app.command
def roofline(
    *,
    data: _Data = "planted",
    factors: _Factors = "16,64",
    samples: Annotated[int, Parameter(help="timed calls of each kernel, 5 or more")] = 9,
    out: Annotated[Path, Parameter(help="folder for roofline.json and roofline.svg", show_default=False)] = OUT,
) -> int:
    """Measure caches, memory and multiply-adds of this machine, and how near to them each kernel comes."""
    from bench import kernels
    from bench.roof_figure import draw

    progress, console = Console(stderr=True, highlight=False), Console(highlight=False)
    loaded = suite.load_data(data)
    outcome = kernels.measure(
        loaded.train,
        loaded.name,
        factors=kernels.numbers(factors),
        samples=samples,
        say=lambda text: progress.print(text, style="dim", markup=False),
    )
    paths = out / "roofline.json", out / "roofline.svg"
    result.write_atomically(paths[0], result.to_text(outcome))
    result.write_atomically(paths[1], draw(outcome))
    for line in (*kernels.summary(outcome), *map(str, paths)):
        console.print(line, soft_wrap=True, markup=False)
    return 0


def _kept(outcome: dict[str, Any], path: Path, lines: list[str]) -> int:
    """Write a measurement and show it; 130 where Ctrl-C cut it short."""
    console = Console(highlight=False)
    result.write_atomically(path, result.to_text(outcome))
    for line in (*lines, str(path)):
        console.print(line, soft_wrap=True, markup=False)
    return 0 if outcome["complete"] else 130


@app.command
def speed(
    *,
    data: _Data = "planted-anime",
    only: Annotated[
        str, Parameter(help="comma-separated contests: gradient, sgd, als, als-cg")
    ] = "gradient,sgd,als,als-cg",
    factors: _Factors = "16,64",
    rounds: Annotated[int, Parameter(help="turns of each system, in a process of its own each time")] = 3,
    out: Annotated[Path | None, Parameter(help="the result file", show_default=False)] = None,
) -> int:
    """Time an epoch of our solvers and of the installed peers at equal K, threads and precision."""
    from bench import kernels
    from bench import speed as contest

    progress = Console(stderr=True, highlight=False)
    loaded = suite.load_data(data)
    outcome = contest.measure(
        loaded.train,
        loaded.name,
        contests=tuple(name.strip() for name in only.split(",") if name.strip()),
        factors=kernels.numbers(factors),
        rounds=rounds,
        say=lambda text: progress.print(text, style="dim", markup=False),
    )
    return _kept(outcome, out or OUT / "speed.json", contest.summary(outcome))


@app.command
def paths(
    *,
    data: _Data = "planted-anime",
    only: Annotated[
        str, Parameter(help="comma-separated: numba, and paths of mf_torch; by default all", show_default=False)
    ] = "",
    factors: _Factors = "16,64",
    threads: Annotated[
        str, Parameter(help="comma-separated numbers; by default 1 and every core", show_default=False)
    ] = "",
    rounds: Annotated[int, Parameter(help="turns of each system, in a process of its own each time")] = 3,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"), help="the result file", show_default=False)] = None,
) -> int:
    """Time a full-batch iteration of every path of mf_torch beside the Numba backend, and say where its time goes."""
    from bench import kernels
    from bench import paths as beside

    progress = Console(stderr=True, highlight=False)
    loaded = suite.load_data(data)
    outcome = beside.measure(
        loaded.train,
        loaded.name,
        only=tuple(name.strip() for name in only.split(",") if name.strip()),
        factors=kernels.numbers(factors),
        threads=kernels.numbers(threads, "threads") if threads else (),
        rounds=rounds,
        say=lambda text: progress.print(text, style="dim", markup=False),
    )
    return _kept(outcome, out or OUT / "paths.json", beside.summary(outcome))


@app.command
def cuda(
    *,
    seconds: Annotated[float, Parameter(help="for all of it; cases that the time does not allow are left out")] = 480.0,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"), help="the result file", show_default=False)] = None,
) -> int:
    """Time every path on CUDA and on this machine's CPU, from small tables to large, against the GPU's own lines.

    Exit code: 0, 1 when a case gave other numbers than the Numba backend, 2 for a wrong option.
    """
    from bench import cuda as device

    progress = Console(stderr=True, highlight=False)
    outcome = device.measure(seconds=seconds, say=lambda text: progress.print(text, style="dim", markup=False))
    _kept(outcome, out or OUT / "cuda.json", device.summary(outcome))
    return device.exit_code(outcome)


@app.command
def race(
    *,
    data: _Data = "ml-1m",
    factors: _Factors = "16,64",
    rounds: Annotated[int, Parameter(help="turns of each system, tuned, to each target")] = 3,
    out: Annotated[Path | None, Parameter(help="the result file", show_default=False)] = None,
) -> int:
    """Tune our solvers and the installed peers; time them to the RMSE of each peer's best, and score all on a test."""
    from bench import kernels
    from bench import race as course

    progress = Console(stderr=True, highlight=False)
    outcome = course.measure(
        suite.load_data(data),
        factors=kernels.numbers(factors),
        rounds=rounds,
        say=lambda text: progress.print(text, style="dim", markup=False),
    )
    return _kept(outcome, out or OUT / "race.json", course.summary(outcome))


@app.command
def scaling(
    *,
    ratings: Annotated[str, Parameter(help="comma-separated values of N, a million among them")] = (
        "100000,1000000,10000000"
    ),
    factors: _Factors = "8,16,32,64,128,256",
    solvers: Annotated[str, Parameter(help="comma-separated: gd, sgd, als, als-cg, cd")] = "gd,sgd,als,als-cg,cd",
    out: Annotated[Path | None, Parameter(help="the result file", show_default=False)] = None,
) -> int:
    """Measure how time and memory of our solvers grow with the ratings, with K and with the threads."""
    from bench import kernels
    from bench import scaling as growth

    progress = Console(stderr=True, highlight=False)
    outcome = growth.measure(
        growth.Plan(ratings=kernels.numbers(ratings, "ratings"), factors=kernels.numbers(factors)),
        solvers=tuple(name.strip() for name in solvers.split(",") if name.strip()),
        say=lambda text: progress.print(text, style="dim", markup=False),
    )
    return _kept(outcome, out or OUT / "scaling.json", growth.summary(outcome))


@app.command
def sweep(
    *,
    data: _Data = "planted-anime",
    constants: Annotated[str, Parameter(help="comma-separated names; by default all", show_default=False)] = "",
    factors: _Factors = "16,64",
    rounds: Annotated[int, Parameter(help="processes of each value")] = 3,
    out: Annotated[Path | None, Parameter(help="the result file", show_default=False)] = None,
) -> int:
    """Time the kernels with other block sizes, chunks and prefetch distances than those they have."""
    from bench import kernels
    from bench import sweep as values

    progress = Console(stderr=True, highlight=False)
    loaded = suite.load_data(data)
    outcome = values.measure(
        loaded.train,
        loaded.name,
        constants=values.chosen_of(constants) or values.CONSTANTS,
        factors=kernels.numbers(factors),
        rounds=rounds,
        say=lambda text: progress.print(text, style="dim", markup=False),
    )
    return _kept(outcome, out or OUT / "sweep.json", values.summary(outcome))


@app.command
def instructions(
    *,
    data: _Data = "ml-1m",
    factors: _Factors = "16,64",
    only: Annotated[str, Parameter(help="comma-separated kernels: gradient, scipy, predict, sgd, als")] = "",
    out: Annotated[Path | None, Parameter(help="the result file", show_default=False)] = None,
) -> int:
    """Count what each kernel executes for a rating: instructions, reads, writes, cache misses. Needs valgrind."""
    from bench import instructions as counted
    from bench import kernels

    progress = Console(stderr=True, highlight=False)
    loaded = suite.load_data(data)
    outcome = counted.measure(
        loaded.train,
        loaded.name,
        factors=kernels.numbers(factors),
        only=tuple(name.strip() for name in only.split(",") if name.strip()) or counted.COUNTED,
        say=lambda text: progress.print(text, style="dim", markup=False),
    )
    return _kept(outcome, out or OUT / "instructions.json", counted.summary(outcome))


@app.command
def links(
    *,
    ratings: Annotated[int, Parameter(help="N, planted")] = 1_000_000,
    n_factors: Annotated[int, Parameter(help="K")] = 64,
    processes: Annotated[str, Parameter(help="comma-separated divisors of 6")] = "1,2,3",
    out: Annotated[
        Path | None,
        Parameter(name=("--out", "-o"), help="the result; by default the committed one", show_default=False),
    ] = None,
) -> int:
    """Count what an iteration on several processes sends, with Q on each, going round, and by DTensor."""
    from bench import kernels
    from bench import links as between

    progress = Console(stderr=True, highlight=False)
    outcome = between.measure(
        n_ratings=ratings,
        n_factors=n_factors,
        processes=kernels.numbers(processes, "processes"),
        say=lambda text: progress.print(text, style="dim", markup=False),
    )
    return _kept(outcome, out or between.PATH, between.summary(outcome))


@app.command
def figures(
    *,
    source: Annotated[Path | None, Parameter(help="a result of rungs", show_default=False)] = None,
    out: Annotated[Path | None, Parameter(help="the folder; by default docs/figures", show_default=False)] = None,
) -> int:
    """Draw every figure of README and derivation for light and for dark pages."""
    from bench import docs, drawings, rungs

    for path in drawings.write(rungs.load(source or rungs.PATH), out or docs.FIGURES):
        Console(highlight=False).print(str(path), soft_wrap=True, markup=False)
    return 0


@app.command
def docs(*, check: Annotated[bool, Parameter(help="write nothing; exit 1 and name what is stale")] = False) -> int:
    """Fill in the measured tables, the figures and the blocks that both languages of the derivation share."""
    from bench import docs as documents
    from bench import rungs

    console = Console(highlight=False)
    outcome, paths = rungs.load(), documents.documents()
    if check:
        found = documents.stale(outcome, paths)
        for line in found:
            console.print(line, soft_wrap=True, markup=False)
        return 1 if found else 0
    for path in documents.update(outcome, paths):
        console.print(str(path), soft_wrap=True, markup=False)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        code = app(arguments, exit_on_error=False, print_error=True, result_action="return_value")
    except cyclopts.CycloptsError:
        return 2
    except (ValueError, OSError, RuntimeError) as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    return code if isinstance(code, int) else 0
