"""Commands of ``python -m bench`` that look and judge, but measure nothing: doctor, compare, baseline, trend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

app = App(version_flags=[])

SMOKE = Path(__file__).resolve().parent / "out" / "smoke" / "result.json"
STYLES = {"": "bold", "ok": "", "note": "dim", "warn": "yellow"}


@app.command
def doctor(
    *,
    as_json: Annotated[bool, Parameter(name="--json", help="the same as JSON, to paste anywhere", negative="")] = False,
) -> int:
    """Say what is here to measure with, and what would make timings wrong just now, each with a remedy.

    Exit code: 0 when nothing would make timings wrong, 1 with warnings.
    """
    from bench import doctor as examining
    from bench import result

    found = examining.examine()
    console = Console(highlight=False)
    if as_json:
        console.print(result.to_text(found.to_dict()).rstrip(), soft_wrap=True, markup=False)
    else:
        for state, line in examining.lines(found, min(console.width, 100)):
            console.print(line, style=STYLES[state], soft_wrap=True, markup=False)
    return examining.exit_code(found)


@app.command
def compare(
    a: Path,
    b: Path,
    /,
    *,
    fail_slower: Annotated[
        str, Parameter(help="10% or 1.1x: end with 1 where the mean or a case of B is beyond doubt slower than that")
    ] = "",
    fail_rmse: Annotated[
        float | None, Parameter(help="such as 0.001: end with 1 where an RMSE of B is higher by more than that")
    ] = None,
    force: Annotated[
        bool, Parameter(help="compare times of another machine, data or configuration, too", negative="")
    ] = False,
    form: Annotated[str, Parameter(name="--format", help="text, md or json")] = "text",
) -> int:
    """Compare two result files of one kind, case by case: ratios of times with intervals, and the RMSE.

    Exit code: 0, 1 when a threshold is crossed, 2 for a file that cannot be used or a threshold that cannot be judged.

    Parameters
    ----------
    a, b
        Result files, before and after.
    """
    from bench import compare as comparing
    from bench import compare_text, result

    comparing.check_options(form, fail_rmse)
    slower = comparing.threshold(fail_slower) if fail_slower else None
    outcome = comparing.compare(a, b, slower=slower, rmse=fail_rmse, force=force)
    if form == "json":
        lines = [result.to_text(outcome).rstrip()]
    else:
        lines = compare_text.markdown(outcome) if form == "md" else compare_text.text(outcome)
    console = Console(highlight=False)
    for line in lines:
        style = "bold" if line.startswith(("FAILED", "DIFFERENT", "Geometric", "Not judged")) and form == "text" else ""
        console.print(line, soft_wrap=True, markup=False, style=style)
    return comparing.exit_code(outcome)


@app.command
def baseline(
    run: Annotated[Path, Parameter(show_default=False)] = SMOKE,
    /,
    *,
    write: Annotated[bool, Parameter(help="make the run the new baseline, on purpose", negative="")] = False,
) -> int:
    """Hold a run of the smoke suite to the committed baseline: its RMSE and its checks of equality, never its times.

    Exit code: 0, 1 where the run is worse, 2 for a file that cannot be used.

    Parameters
    ----------
    run
        The result; by default what make smoke wrote.
    """
    from bench import baseline as base
    from bench import result

    outcome = result.load(run)
    console = Console(highlight=False)
    if write:
        result.write_atomically(base.PATH, result.to_text(base.of(outcome)))
        console.print(str(base.PATH), soft_wrap=True, markup=False)
        return 0
    lines = base.summary(outcome, base.load())
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
    return 1 if lines[0].startswith("FAILED") else 0


@app.command
def trend(
    *,
    out: Annotated[
        Path, Parameter(name=("--out", "-o"), help="the HTML file; one that ends in .json holds the numbers alone")
    ] = Path("trend.html"),
) -> int:
    """Show the committed results by commit: every case of every result, wherever its file changed. Needs git."""
    from bench import result
    from bench import trend as history

    result.target(out)
    outcome = history.measure()
    text = result.to_text(outcome) if out.suffix == ".json" else history.render(outcome)
    result.write_atomically(out, text)
    console = Console(highlight=False)
    for line in (str(out), history.verdict(outcome)):
        console.print(line, soft_wrap=True, markup=False)
    return 0
