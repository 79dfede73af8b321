"""``python -m bench``: check every backend, time it, and write a report."""

from __future__ import annotations

import sys
from pathlib import Path

OUT = Path(__file__).resolve().parent / "out"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; returns the exit code: 0, 1 when a row FAILED, 2 for a wrong option, 130 after Ctrl-C."""
    from typing import Annotated

    import cyclopts
    from cyclopts import Parameter
    from rich.console import Console

    from bench import result, suite, table
    from bench.cases import BACKENDS
    from mf_numpy.errors import FileFormatError

    app = cyclopts.App(name="python -m bench", help="Check every backend for equality, then time it.", version_flags=[])

    @app.default
    def run(
        *,
        data: Annotated[str, Parameter(help="planted, anime, ml-100k, ml-1m, or a file of ratings")] = "planted",
        suite_name: Annotated[
            str, Parameter(name="--suite", help="default (under 3 minutes) or smoke (under 1, for CI)")
        ] = "default",
        epochs: Annotated[int | None, Parameter(help="iterations of the full problem, 5 or more")] = None,
        n_factors: Annotated[int | None, Parameter(help="K")] = None,
        lr: Annotated[float | None, Parameter(help="η; by default it follows the largest row's share")] = None,
        threads: Annotated[int | None, Parameter(help="for every library; by default all usable cores")] = None,
        only: Annotated[
            str, Parameter(help=f"comma-separated backends of {', '.join(BACKENDS)}; the reference always runs")
        ] = "",
        out: Annotated[Path, Parameter(help="folder for result.json and report.html")] = OUT,
    ) -> int:
        """Run a suite: the default one on planted ratings, or on DATA."""
        progress, console = Console(stderr=True, highlight=False), Console(highlight=False)
        outcome = suite.run_suite(
            data,
            suite_name,
            epochs=epochs,
            n_factors=n_factors,
            lr=lr,
            threads=threads,
            only=tuple(name.strip() for name in only.split(",") if name.strip()),
            say=lambda text: progress.print(text, style="dim"),
        )
        paths = suite.write(outcome, out)
        # A pipe has no width; rich would fold every cell at 80 columns.
        console.width = max(console.width, 40) if console.is_terminal else 200
        console.print(table.rich(outcome))
        for path in paths:
            console.print(str(path), soft_wrap=True)
        console.print(outcome["verdict"], soft_wrap=True, markup=False)
        return suite.exit_code(outcome)

    @app.command
    def report(source: Path, *, out: Annotated[Path | None, Parameter(help="the HTML file")] = None) -> int:
        """Render the report of an earlier result file again."""
        from bench import report as page

        target = source.with_name("report.html") if out is None else out
        result.write_atomically(target, page.render(result.load(source)))
        Console(highlight=False).print(str(target), soft_wrap=True)
        return 0

    try:
        return int(app(arguments, exit_on_error=False, result_action="return_value") or 0)
    except cyclopts.CycloptsError:
        return 2
    except (ValueError, OSError, FileFormatError) as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", style="red", markup=False)
        return 2


if __name__ == "__main__":
    sys.exit(main())
