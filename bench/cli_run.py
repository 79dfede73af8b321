"""``python -m bench run --suite NAME``: every suite by its name, with where its result goes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from bench import cli_measure
from bench.cli_measure import OUT, names, say
from bench.result import write_atomically
from mf_numpy.errors import ConfigError, choose

SUITES = {
    "smoke": "every backend for equality, then timed, on a small set",
    "quick": "the same on the embedded data: what python -m bench does",
    "cpu": "an epoch of our solvers beside the installed peers' (speed)",
    "gpu": "every path on CUDA and on this machine's CPU (cuda)",
    "peers": "the installed peers and one of ours of each kind, tuned and scored on a protocol",
    "accuracy": "the same of all of ours, without the peers",
    "scaling": "time and memory against the ratings, K and threads (scaling)",
    "newcomers": "users and items that training has not seen, folded in with few ratings (newcomers)",
    "clicks": "how well clicks are ranked, by our losses of choices and by implicit (clicks)",
}

app = App(version_flags=[])


@app.command
def run(
    *,
    suite: Annotated[str, Parameter(help="; ".join(f"{name}: {about}" for name, about in SUITES.items()))] = "quick",
    data: Annotated[
        str, Parameter(help="a data set; for peers and accuracy a protocol, see protocols", show_default=False)
    ] = "",
    only: Annotated[
        str, Parameter(help="comma-separated backends, contests, solvers or systems of the suite", show_default=False)
    ] = "",
    threads: Annotated[int | None, Parameter(help="for every system; by default all usable cores")] = None,
    resume: Annotated[
        bool, Parameter(help="go on with the unfinished result at --out, of a run that was cut short", negative="")
    ] = False,
    out: Annotated[
        Path | None, Parameter(name=("--out", "-o"), help="the result file; of smoke and quick a folder")
    ] = None,
) -> int:
    """Run a suite. All but smoke and quick, which take minutes, can be killed at any moment, and resumed.

    Exit code: 0, 1 when something FAILED, 2 for a wrong option, 130 after Ctrl-C.
    """
    choose("suite", suite, SUITES)
    if suite in ("peers", "accuracy"):
        return _accuracy(suite, data or "ml-100k-official-5", names(only), threads, resume, out)
    if suite in ("smoke", "quick"):
        if resume:
            raise ConfigError(f"resume goes on with suites that take hours, not with {suite}; leave it out")
        from bench import cli

        kind = "smoke" if suite == "smoke" else "default"
        return cli.run(data=data or "planted", suite_name=kind, only=only, threads=threads, out=out or OUT)
    if threads is not None:
        raise ConfigError(f"threads is for smoke, quick, peers and accuracy; {suite} takes 1 and all")
    if suite == "cpu":
        from bench.speed import CONTESTS

        return cli_measure.speed(data=data or "planted-anime", only=only or ",".join(CONTESTS), resume=resume, out=out)
    if only and suite in ("gpu", "newcomers", "clicks"):
        raise ConfigError(f"only is {only!r}, but {suite} has no parts to choose from; leave it out")
    if suite == "newcomers":
        return cli_measure.newcomers(data=data or "ml-100k", resume=resume, out=out)
    if suite == "clicks":
        return cli_measure.clicks(data=data or "ml-100k", resume=resume, out=out)
    if data:
        raise ConfigError(f"data is {data!r}, but {suite} draws its own; leave it out")
    if suite == "scaling":
        from bench.scaling import SOLVERS

        return cli_measure.scaling(solvers=only or ",".join(SOLVERS), resume=resume, out=out)
    return cli_measure.cuda(resume=resume, out=out)


@app.command
def protocols() -> int:
    """Every protocol: which ratings are trained on, and which are scored."""
    from bench.protocols import PROTOCOLS

    console = Console(highlight=False)
    for protocol in PROTOCOLS.values():
        console.print(f"{protocol.name}\n    {protocol.about}", soft_wrap=True, markup=False)
    return 0


def listed(what: str, pieces: tuple[str, ...], known: Collection[str]) -> Iterator[str]:
    """The names in a list that was cut at its commas, some of which have commas of their own: the longest is meant.

    Raises:
        ConfigError: a piece that begins no name, with the nearest one.
    """
    while pieces:
        size = next((n for n in range(len(pieces), 0, -1) if ", ".join(pieces[:n]) in known), 1)
        yield choose(what, ", ".join(pieces[:size]), known)
        pieces = pieces[size:]


def _accuracy(
    suite: str, protocol: str, only: tuple[str, ...], threads: int | None, resume: bool, out: Path | None
) -> int:
    from bench import accuracy, accuracy_page, accuracy_rows
    from bench.grids import suited, with_grid
    from bench.protocols import find
    from bench.systems import OURS, SYSTEMS

    peers = suite == "peers"
    known = {system.name: system for system in (SYSTEMS if peers else OURS)}
    found = find(protocol)
    asked = tuple(with_grid(known[name], found.name) for name in listed("system", only, known))
    chosen = asked or suited(found.name, peers=peers)
    path = out or OUT / f"{suite}-{found.name}.json"
    if path.suffix == ".html":
        raise ConfigError(
            f"out is {path.name}, where the page will be; name the result {path.with_suffix('.json').name}"
        )
    outcome = accuracy.measure(found, path, systems=chosen, threads=threads, resume=resume, say=say())
    console = Console(highlight=False)
    target = path.with_suffix(".html")
    write_atomically(target, accuracy_page.render([outcome]))
    for line in (*accuracy_rows.summary(outcome), str(path), str(target), accuracy_page.verdict(outcome)):
        console.print(line, soft_wrap=True, markup=False)
    return 0 if outcome["complete"] else 130
