"""The command line of ``python -m bench``; `bench.suite` does the work and needs neither cyclopts nor rich."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from rich.console import Console

from bench import cli_look, cli_measure, cli_run, result, suite, table
from bench.cases import BACKENDS
from bench.cli_measure import OUT, Data, names, say
from bench.peers import cli as peers
from mf_numpy.errors import ConfigError, choose

app = cyclopts.App(name="python -m bench", help="Check every backend for equality, then time it.", version_flags=[])
app.command(peers.app)
app.update(cli_measure.app)
app.update(cli_look.app)
app.update(cli_run.app)


@app.default
def run(
    *,
    data: Data = "planted",
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
    console = Console(highlight=False)
    result.target(out / "result.json")
    outcome = suite.run_suite(
        data,
        suite_name,
        epochs=epochs,
        n_factors=n_factors,
        lr=lr,
        threads=threads,
        only=names(only),
        say=say(),
    )
    if roof and suite_name != "smoke" and "full" in outcome["problems"] and not outcome["interrupted"]:
        outcome["roofline"] = _roofline(suite.load_data(data, suite_name), outcome)
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


def _roofline(data: suite.Data, outcome: dict[str, Any]) -> dict[str, Any] | None:
    """The part of the result that `bench.kernels` measures, or None after Ctrl-C."""
    from bench import kernels

    try:
        found = kernels.measure(
            data.train,
            data.name,
            factors=(outcome["problems"]["full"]["config"]["n_factors"],),
            samples=5,
            say=say(),
        )
    except KeyboardInterrupt:
        return None
    return {key: found[key] for key in ("caches", "levels", "peaks", "problem", "rows", "others_busy_cores")}


@app.command
def report(
    *sources: Path,
    form: Annotated[
        str, Parameter(name="--format", help="html, md (verdicts and tables) or json (the results)")
    ] = "html",
    out: Annotated[
        Path | None,
        Parameter(
            name=("--out", "-o"),
            help="the file; by default report.html beside the first result, and standard output for md and json",
        ),
    ] = None,
) -> int:
    """Make one page of earlier result files, of any kind and in any mixture.

    Parameters
    ----------
    sources
        Results that this program wrote, a section each.
    """
    from bench.pages import book

    if not sources:
        raise ConfigError("no file came; give the path of a result, such as bench/out/result.json")
    target = sources[0].with_name("report.html") if out is None and form == "html" else out
    if target is not None:
        result.target(target)
    text = book.render(book.read(sources), form)
    if target is None:
        Console(highlight=False).out(text, end="", highlight=False)
        return 0
    result.write_atomically(target, text)
    console = Console(highlight=False)
    console.print(str(target), soft_wrap=True, markup=False)
    size = len(text.encode())
    if form == "html" and size > book.LIMIT:
        console.print(f"{size / 1e6:.1f} MB are much for a page; give fewer files for a smaller one", soft_wrap=True)
    return 0


@app.command
def rungs(
    *,
    rounds: Annotated[int, Parameter(help="fresh processes for each case")] = 3,
    epochs: Annotated[int, Parameter(help="timed iterations in each process")] = 6,
    only: Annotated[str, Parameter(help="comma-separated parts of rows, lines, quality; the rest is kept")] = "",
    out: Annotated[
        Path | None, Parameter(help="the result; by default this machine's committed one", show_default=False)
    ] = None,
) -> int:
    """Measure the rungs of the derivation, each against the one below, the machine's lines and what each idea gains."""
    from bench import committed
    from bench import rungs as measured

    path = result.target(out or committed.here("rungs.json"))
    outcome = measured.run_rungs(
        rounds=rounds,
        epochs=epochs,
        only=names(only),
        before=measured.load(path) if only else None,
        say=say(),
    )
    measured.write(outcome, path)
    console = Console(highlight=False)
    for line in measured.summary(outcome):
        console.print(line, soft_wrap=True, markup=False)
    console.print(str(path), soft_wrap=True, markup=False)
    return 0 if outcome["ok"] else 1


@app.command
def figures(
    *,
    check: Annotated[bool, Parameter(help="write nothing; exit 1 and name what is stale")] = False,
    source: Annotated[Path | None, Parameter(help="a result of rungs", show_default=False)] = None,
    out: Annotated[
        Path | None, Parameter(help="a folder for the figures alone; by default docs/figures", show_default=False)
    ] = None,
) -> int:
    """Draw every figure of the documents for light and for dark pages, and fill in their tables: all that is measured.

    Figures that another matplotlib drew are not checked.
    """
    from bench import canvas, drawings, rungs
    from bench import docs as documents

    outcome, paths = rungs.load(source), documents.documents() if out is None else []
    folder = out or documents.FIGURES
    if check:
        lines = [*canvas.stale(outcome, folder), *documents.stale(outcome, paths)]
    else:
        lines = [str(path) for path in (*drawings.write(outcome, folder), *documents.update(outcome, paths))]
    for line in lines:
        Console(highlight=False).print(line, soft_wrap=True, markup=False)
    return 1 if check and lines else 0


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
        _check_command(sys.argv[1:] if arguments is None else arguments)
        code = app(arguments, exit_on_error=False, print_error=True, result_action="return_value")
    except cyclopts.CycloptsError:
        return 2
    except (ValueError, OSError, RuntimeError) as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    return code if isinstance(code, int) else 0


def _check_command(arguments: list[str]) -> None:
    """The default command takes options alone: a first word that is none of them was to be a command.

    Raises:
        ConfigError: it names none, with the nearest one.
    """
    if arguments and not arguments[0].startswith("-"):
        choose("command", arguments[0], [name for name in app if not name.startswith("-")])
