"""Commands of ``python -m bench`` that measure one thing each; `bench.cli` has the comparison and what writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console

from bench import result, suite

OUT = Path(__file__).resolve().parent / "out"

Data = Annotated[str, Parameter(help="planted, planted-anime, anime, ml-100k, ml-1m, or a file of ratings")]
_Factors = Annotated[str, Parameter(help="comma-separated values of K")]

_Resume = Annotated[
    bool, Parameter(help="go on with the unfinished result at --out, of a run that was cut short", negative="")
]
_Out = Annotated[Path | None, Parameter(name=("--out", "-o"), help="the result file", show_default=False)]

app = App(version_flags=[])


def say() -> Callable[[str], None]:
    """Lines of progress on standard error."""
    progress = Console(stderr=True, highlight=False)
    return lambda text: progress.print(text, style="dim", markup=False)


def names(text: str) -> tuple[str, ...]:
    """What a comma-separated option names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def kept(outcome: dict[str, Any], path: Path, lines: list[str]) -> int:
    """Write a measurement and show it; 130 where Ctrl-C cut it short."""
    console = Console(highlight=False)
    result.write_atomically(path, result.to_text(outcome))
    for line in (*lines, str(path)):
        console.print(line, soft_wrap=True, markup=False)
    return 0 if outcome["complete"] else 130


@app.command
def roofline(
    *,
    data: Data = "planted",
    factors: _Factors = "16,64",
    samples: Annotated[int, Parameter(help="timed calls of each kernel, 5 or more")] = 9,
    out: Annotated[Path, Parameter(help="folder for roofline.json and roofline.svg", show_default=False)] = OUT,
) -> int:
    """Measure caches, memory and multiply-adds of this machine, and how near to them each kernel comes."""
    from bench import kernels
    from bench.roof_figure import draw

    console = Console(highlight=False)
    paths = tuple(result.target(out / name) for name in ("roofline.json", "roofline.svg"))
    loaded = suite.load_data(data)
    outcome = kernels.measure(
        loaded.train,
        loaded.name,
        factors=kernels.numbers(factors),
        samples=samples,
        say=say(),
    )
    result.write_atomically(paths[0], result.to_text(outcome))
    result.write_atomically(paths[1], draw(outcome))
    for line in (*kernels.summary(outcome), *map(str, paths)):
        console.print(line, soft_wrap=True, markup=False)
    return 0


@app.command
def speed(
    *,
    data: Data = "planted-anime",
    only: Annotated[
        str, Parameter(help="comma-separated contests: gradient, sgd, features, als, als-cg")
    ] = "gradient,sgd,features,als,als-cg",
    factors: _Factors = "16,64",
    rounds: Annotated[int, Parameter(help="turns of each system, in a process of its own each time")] = 3,
    resume: _Resume = False,
    out: _Out = None,
) -> int:
    """Time an epoch of our solvers and of the installed peers at equal K, threads and precision."""
    from bench import kernels
    from bench import speed as contest

    loaded, path = suite.load_data(data), out or OUT / "speed.json"
    outcome = contest.measure(
        loaded.train,
        loaded.name,
        contests=names(only),
        factors=kernels.numbers(factors),
        rounds=rounds,
        path=path,
        resume=resume,
        say=say(),
    )
    return kept(outcome, path, contest.summary(outcome))


@app.command
def paths(
    *,
    data: Data = "planted-anime",
    only: Annotated[
        str, Parameter(help="comma-separated: numba, and paths of mf_torch; by default all", show_default=False)
    ] = "",
    factors: _Factors = "16,64",
    threads: Annotated[
        str, Parameter(help="comma-separated numbers; by default 1 and every core", show_default=False)
    ] = "",
    rounds: Annotated[int, Parameter(help="turns of each system, in a process of its own each time")] = 3,
    out: _Out = None,
) -> int:
    """Time a full-batch iteration of every path of mf_torch beside the Numba backend, and say where its time goes."""
    from bench import kernels
    from bench import paths as beside

    path = result.target(out or OUT / "paths.json")
    loaded = suite.load_data(data)
    outcome = beside.measure(
        loaded.train,
        loaded.name,
        only=names(only),
        factors=kernels.numbers(factors),
        threads=kernels.numbers(threads, "threads") if threads else (),
        rounds=rounds,
        say=say(),
    )
    return kept(outcome, path, beside.summary(outcome))


@app.command
def cuda(
    *,
    seconds: Annotated[float, Parameter(help="for all of it; cases that the time does not allow are left out")] = 480.0,
    resume: _Resume = False,
    out: _Out = None,
) -> int:
    """Time every path on CUDA and on this machine's CPU, from small tables to large, against the GPU's own lines.

    Exit code: 0, 1 when a case gave other numbers than the Numba backend, 2 for a wrong option.
    """
    from bench import cuda as device

    path = out or OUT / "cuda.json"
    outcome = device.measure(seconds=seconds, path=path, resume=resume, say=say())
    kept(outcome, path, device.summary(outcome))
    return device.exit_code(outcome)


@app.command
def race(
    *,
    data: Data = "ml-1m",
    factors: _Factors = "16,64",
    rounds: Annotated[int, Parameter(help="turns of each system, tuned, to each target, with each seed")] = 3,
    seeds: Annotated[int, Parameter(help="how many; of 3 and more the best and the worst are dropped")] = 1,
    out: _Out = None,
) -> int:
    """Tune our solvers and the installed peers; time them to the RMSE of each peer's best, and score all on a test."""
    from bench import kernels
    from bench import race as course

    path = result.target(out or OUT / "race.json")
    outcome = course.measure(
        suite.load_data(data),
        factors=kernels.numbers(factors),
        rounds=rounds,
        seeds=seeds,
        say=say(),
    )
    return kept(outcome, path, course.summary(outcome))


@app.command
def scaling(
    *,
    ratings: Annotated[str, Parameter(help="comma-separated values of N, a million among them")] = (
        "100000,1000000,10000000"
    ),
    factors: _Factors = "8,16,32,64,128,256",
    solvers: Annotated[str, Parameter(help="comma-separated: gd, sgd, als, als-cg, cd")] = "gd,sgd,als,als-cg,cd",
    resume: _Resume = False,
    out: _Out = None,
) -> int:
    """Measure how time and memory of our solvers grow with the ratings, with K and with the threads."""
    from bench import kernels
    from bench import scaling as growth

    path = out or OUT / "scaling.json"
    outcome = growth.measure(
        growth.Plan(ratings=kernels.numbers(ratings, "ratings"), factors=kernels.numbers(factors)),
        solvers=names(solvers),
        path=path,
        resume=resume,
        say=say(),
    )
    return kept(outcome, path, growth.summary(outcome))


@app.command
def sweep(
    *,
    data: Data = "planted-anime",
    constants: Annotated[str, Parameter(help="comma-separated names; by default all", show_default=False)] = "",
    factors: _Factors = "16,64",
    rounds: Annotated[int, Parameter(help="processes of each value")] = 3,
    out: _Out = None,
) -> int:
    """Time the kernels with other block sizes, chunks and prefetch distances than those they have."""
    from bench import kernels
    from bench import sweep as values

    path = result.target(out or OUT / "sweep.json")
    loaded = suite.load_data(data)
    outcome = values.measure(
        loaded.train,
        loaded.name,
        constants=values.chosen_of(constants) or values.CONSTANTS,
        factors=kernels.numbers(factors),
        rounds=rounds,
        say=say(),
    )
    return kept(outcome, path, values.summary(outcome))


@app.command
def defaults(
    *,
    data: Annotated[str, Parameter(help="comma-separated data sets")] = "ml-100k,anime,ml-1m",
    out: _Out = None,
) -> int:
    """Fit with each solver's defaults, and with other values of each, and score both on held-out ratings."""
    from bench import defaults as values

    path = result.target(out or OUT / "defaults.json")
    outcome = values.measure((suite.load_data(name) for name in names(data)), say=say())
    return kept(outcome, path, values.summary(outcome))


@app.command
def newcomers(
    *,
    data: Annotated[
        str, Parameter(help="planted-facts, ml-100k, ml-1m or anime: data whose users or items are known by facts")
    ] = "ml-100k",
    draws: Annotated[int, Parameter(help="how often a tenth is hidden, another one each time")] = 3,
    n_factors: Annotated[int, Parameter(help="K")] = 16,
    resume: _Resume = False,
    out: _Out = None,
) -> int:
    """Hide a tenth of the users, then of the items, and fold them in with few ratings, with and without features."""
    from bench import newcomer_data
    from bench import newcomers as hidden

    path = out or OUT / f"newcomers-{data}.json"
    plan = hidden.Plan(draws=draws, n_factors=n_factors)
    outcome = hidden.measure(newcomer_data.load_data(data), plan, path=path, resume=resume, say=say())
    return kept(outcome, path, list(hidden.summary(outcome)))


@app.command
def clicks(
    *,
    data: Annotated[
        str, Parameter(help="planted-clicks, ml-100k, ml-1m or anime; high ratings are clicks")
    ] = "ml-100k",
    splits: Annotated[int, Parameter(help="how often a fifth is held out, another one each time")] = 5,
    resume: _Resume = False,
    out: _Out = None,
) -> int:
    """Tune our losses of choices and the library implicit on clicks, and score how each ranks what is held out."""
    from bench import click_data
    from bench import clicks as ranked

    path = out or OUT / f"clicks-{data}.json"
    outcome = ranked.measure(click_data.load_data(data), path=path, splits=splits, resume=resume, say=say())
    return kept(outcome, path, list(ranked.summary(outcome)))


@app.command
def search(
    *,
    data: Annotated[str, Parameter(help="a protocol, which `protocols` lists, or its data set")] = "ml-100k",
    minutes: Annotated[float, Parameter(help="when no further fit is begun, over all runs of a file")] = 6.0,
    sampler: Annotated[str, Parameter(help="tpe, which needs the extra `search` (Optuna), or random")] = "tpe",
    seed: Annotated[int, Parameter(help="of the points")] = 0,
    resume: _Resume = False,
    out: _Out = None,
) -> int:
    """Look for settings of gibbs and of sgd on ratings held out of a training side; every point is recorded."""
    from bench import protocols
    from bench import search as looked

    protocol, asked = protocols.find(data), looked.Search(60 * minutes, sampler, seed)
    path = out or OUT / f"search-{protocol.name}.json"
    outcome = looked.measure(protocol, asked, path=path, resume=resume, say=say())
    return kept(outcome, path, list(looked.summary(outcome)))


@app.command
def instructions(
    *,
    data: Data = "ml-1m",
    factors: _Factors = "16,64",
    only: Annotated[str, Parameter(help="comma-separated kernels: gradient, scipy, predict, sgd, als")] = "",
    out: _Out = None,
) -> int:
    """Count what each kernel executes for a rating: instructions, reads, writes, cache misses. Needs valgrind."""
    from bench import instructions as counted
    from bench import kernels

    path = result.target(out or OUT / "instructions.json")
    loaded = suite.load_data(data)
    outcome = counted.measure(
        loaded.train,
        loaded.name,
        factors=kernels.numbers(factors),
        only=names(only) or counted.COUNTED,
        say=say(),
    )
    return kept(outcome, path, counted.summary(outcome))


@app.command
def links(
    *,
    ratings: Annotated[int, Parameter(help="N, planted")] = 1_000_000,
    n_factors: Annotated[int, Parameter(help="K")] = 64,
    processes: Annotated[str, Parameter(help="comma-separated divisors of 6")] = "1,2,3",
    out: Annotated[
        Path | None,
        Parameter(name=("--out", "-o"), help="the result; by default this machine's committed one", show_default=False),
    ] = None,
) -> int:
    """Count what an iteration on several processes sends, with Q on each, going round, and by DTensor."""
    from bench import committed, kernels
    from bench import links as between

    path = result.target(out or committed.here("links.json"))
    outcome = between.measure(
        n_ratings=ratings,
        n_factors=n_factors,
        processes=kernels.numbers(processes, "processes"),
        say=say(),
    )
    return kept(outcome, path, between.summary(outcome))
