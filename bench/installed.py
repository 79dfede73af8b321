"""What a library takes on disk, with everything that it needs: ours beside the peers'."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

from bench.peers import install, registry
from bench.peers.registry import Peer

PROJECT = "mf"


def mib_of(peer: Peer) -> int | None:
    """MiB of a peer's environment; None where it is not installed."""
    found = install.record(peer, registry.folder())
    return None if found is None else int(found["mib"])


def mib_of_ours(*, torch: bool) -> int | None:
    """MiB of what `mf_numpy` needs, or `mf_torch`; None where the project is not installed as a package."""
    try:
        sizes = [_size(name) for name in needed(PROJECT, {"torch"} if torch else set())]
    except (metadata.PackageNotFoundError, ImportError):
        return None
    return round(sum(sizes) / 2**20)


def needed(name: str, extras: set[str]) -> set[str]:
    """A distribution and all that it requires here, by name.

    Raises:
        PackageNotFoundError: one of them is not installed.
        ImportError: packaging is not installed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    out: set[str] = set()
    ahead = [(name, frozenset(extras))]
    seen = set()
    while ahead:
        one = ahead.pop()
        if one in seen:
            continue
        seen.add(one)
        distribution, asked = one
        out.add(canonicalize_name(distribution))
        for line in metadata.requires(distribution) or ():
            wanted = Requirement(line)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in {"", *asked}):
                ahead.append((wanted.name, frozenset(wanted.extras)))
    return out


@cache
def _size(name: str) -> int:
    """Bytes of a distribution's files, of which there may be tens of thousands."""
    paths = [Path(str(path.locate())) for path in metadata.files(name) or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())
