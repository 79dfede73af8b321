"""``python -m bench peers``: which libraries there are, installing them, and trying what was installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from rich.console import Console

from bench import suite
from bench.peers import install as installing
from bench.peers import registry, run

Json = dict[str, Any]
Into = Annotated[
    Path | None,
    Parameter(help="folder of the environments; by default MF_PEERS, or the user's cache", show_default=False),
]

app = cyclopts.App(name="peers", help="Other libraries, each in an environment of its own.", version_flags=[])


@app.command(name="list")
def show(*, into: Into = None) -> int:
    """Every peer with its version, licence, method and what must be known of it, and whether it is installed."""
    into = registry.folder() if into is None else into
    console = Console(highlight=False)
    for peer in registry.PEERS.values():
        there = installing.record(peer, into)
        state = "not installed" if there is None else describe(there)
        lines = [f"{peer.name} {peer.version}  {peer.licence}  {state}", f"    {peer.method}"]
        for line in (*lines, *(f"    - {remark}" for remark in peer.remarks)):
            console.print(line, soft_wrap=True, markup=False)
    return 0


@app.command
def install(
    *names: str,
    into: Into = None,
    again: Annotated[bool, Parameter(help="also where it is there", negative="")] = False,
) -> int:
    """Make an environment for each peer, install it there, and try to import it.

    Exit code: 0, 1 when one could not be installed, 2 for an unknown name.

    Parameters
    ----------
    names
        Peers; none means all.
    """
    peers = [registry.find(name) for name in names] or list(registry.PEERS.values())
    progress, console = Console(stderr=True, highlight=False), Console(highlight=False)
    code = 0
    for peer in peers:
        try:
            done = installing.install(
                peer,
                registry.folder() if into is None else into,
                again=again,
                say=lambda text: progress.print(text, style="dim", markup=False, soft_wrap=True),
            )
        except installing.InstallError as error:
            progress.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
            code = 1
        else:
            console.print(f"{peer.name} {peer.version}: {describe(done)}", markup=False, soft_wrap=True)
    return code


@app.command
def check(*names: str, into: Into = None) -> int:
    """Run installed peers on small planted ratings: those that predict must beat the mean, those that rank must learn.

    Exit code: 0, 1 when one failed or is not installed, 2 for an unknown name.

    Parameters
    ----------
    names
        Peers; none means all.
    """
    peers = [registry.find(name) for name in names] or list(registry.PEERS.values())
    data, console = suite.load_data("planted", "smoke"), Console(highlight=False)
    code = 0
    for peer in peers:
        outcome = tried(peer, data, into)
        code = code if outcome["status"] == "ok" else 1
        console.print(f"{peer.name} {peer.version}: {verdict(outcome, data)}", markup=False, soft_wrap=True)
    return code


def tried(peer: registry.Peer, data: suite.Data, into: Path | None) -> Json:
    """What a peer makes of a small data set, with few factors and one thread."""
    small = run.Settings(n_factors=4, n_epochs=20, seed=0)
    if peer.data == "ratings":
        return run.fit_peer(peer, data.train, data.valid, small, into=into)
    return run.time_peer(peer, data.train, small, into=into)


def verdict(outcome: Json, data: suite.Data) -> str:
    """One line of what `tried` returned."""
    if outcome["status"] != "ok":
        return f"{outcome['status']}: {outcome['reason']}"
    if "points" in outcome:
        point, mean = outcome["points"][-1], outcome["baselines"]["mean"]
        floor = "" if data.noise_floor is None else f", noise floor {data.noise_floor:.4f}"
        return f"ok, RMSE {point['rmse']:.4f} (mean {mean:.4f}{floor}) in {point['seconds']:.2f} s"
    return f"ok, {outcome['timing']['median_ms']:.1f} ms an iteration"


def describe(done: Json) -> str:
    """An installation in a few words."""
    simd = {True: ", 256-bit code", False: ", no 256-bit code", None: ""}[done["simd"]]
    return f"installed in {done['seconds']:.0f} s, {done['mib']} MiB{simd}"
