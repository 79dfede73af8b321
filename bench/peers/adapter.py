"""What every adapter shares; run by a peer's own Python, with NumPy, the standard library and `bench.energy`.

``python -m bench.peers.adapter_NAME ORDER.json OUT.json``. ORDER.json holds ``mode`` (``time``, ``fit`` or ``rank``),
``data`` (an npz beside it), ``n_factors``, ``threads``, ``n_epochs``, ``lr``, ``reg``, ``seed`` (or null), ``extra``
(those of one library), ``samples`` for ``time`` and ``epochs`` for ``fit`` and ``rank``. The npz has users, items (N,)
int32, values (N,) float32, test_users, test_items (M,) int32 and shape (2,): m, n.

OUT.json receives ``status`` (``ok``, ``failed`` or ``not run``) and ``reason``, ``peer``, ``version``, ``packages``,
``precision``, ``epochs_by`` (how an epoch's seconds are had), ``prepare_s``, ``peak_bytes`` (the most memory of the
process, or null), ``threads`` {asked, set, busy} and

    time  ``samples_s`` (seconds of one epoch, `samples` times) and ``warm_up_s``; of a library that ranks also
          ``scores`` {rated, random}: its mean score of some rated and of some random pairs
    fit   ``points`` [{epochs, seconds, joules, predictions}]: seconds of training up to there, the machine's energy
          meanwhile (null where it does not count any), and the name of an (M,) npy
    rank  the same of a library that ranks, with ``rows`` in place of the predictions: the name of an (m + n, F) npy of
          users, then items, whose products are the scores of all pairs

``busy`` is processor seconds by wall seconds while it trained: the threads that really worked, whatever was asked for.
An adapter scores nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.energy import Meter

Json = dict[str, Any]
Array = np.ndarray[Any, np.dtype[Any]]
Each = Callable[[int], None]

DIFFERENCE = "difference of two fits"


class RefusedError(ValueError):
    """Settings that this library cannot honour."""


@dataclass(frozen=True, eq=False)
class Order:
    """What is asked for; arrays and settings as the module says."""

    users: Array
    items: Array
    values: Array
    test_users: Array
    test_items: Array
    n_users: int
    n_items: int
    settings: Json

    @property
    def n_factors(self) -> int:
        """K."""
        return int(self.settings["n_factors"])

    @property
    def threads(self) -> int:
        """Threads asked for."""
        return int(self.settings["threads"])

    @property
    def lr(self) -> float:
        """η, as the library means it."""
        return float(self.settings["lr"])

    @property
    def reg(self) -> float:
        """λ, as the library means it."""
        return float(self.settings["reg"])

    @property
    def seed(self) -> int | None:
        """Of the start, or None."""
        seed: int | None = self.settings["seed"]
        return seed

    def options(self, **usual: Any) -> Json:
        """The library's own settings: `usual` with those of ``extra`` in their places.

        Raises:
            RefusedError: ``extra`` has a name that is not in `usual`.
        """
        extra: Json = self.settings["extra"]
        unknown = sorted(extra.keys() - usual.keys())
        if unknown:
            raise RefusedError(f"extra has {', '.join(unknown)}, but this adapter knows {', '.join(sorted(usual))}")
        return usual | extra

    def one_of(self, name: str, known: Iterable[str]) -> str:
        """The value of ``extra`` under a name, or the first that is known.

        Raises:
            RefusedError: a value that is not known.
        """
        known = tuple(known)
        value = self.settings["extra"].get(name, known[0])
        if value not in known:
            raise RefusedError(f"{name} is {value!r}, but must be one of {', '.join(known)}")
        return str(value)


class Library:
    """One library on one data set. Making it converts the data, which is not timed."""

    name: ClassVar[str]
    distribution: ClassVar[str]
    epochs_by = DIFFERENCE
    ranks: ClassVar[bool] = False
    precision = "float32"

    def __init__(self, order: Order) -> None:
        self.order = order

    def run(self, n_epochs: int, each: Each) -> None:
        """Train from the start; call `each` after every epoch, or once at the end where `epochs_by` is a difference."""
        raise NotImplementedError

    def predict(self, users: Array, items: Array) -> Array:
        """Predicted ratings, or scores where it `ranks`, (M,) of pairs (M,), by what was trained so far."""
        raise NotImplementedError

    def rows(self) -> tuple[Array, Array]:
        """Where it `ranks`: users (m, F) and items (n, F) whose products are all scores, by what was trained so far."""
        raise NotImplementedError

    def threads(self) -> int:
        """Threads that the library was set to."""
        return self.order.threads

    def cpu(self) -> float:
        """Processor seconds so far, of every process that trains."""
        return time.process_time()

    def peak(self) -> int | None:
        """The most memory so far, in bytes, of every process that trains; None where the system does not say."""
        return peak_of("self")

    def close(self) -> None:
        """Give back what would outlive the data."""


class Watch:
    """Wall and processor seconds and joules of training, without those between `stop` and `go`."""

    def __init__(self, cpu: Callable[[], float] = time.process_time, meter: Meter | None = None) -> None:
        self._cpu = cpu
        self._meter = Meter() if meter is None else meter
        self.wall = self.cpu = 0.0
        self.go()

    def go(self) -> None:
        """Count from here."""
        # Energy outside the seconds, which it must not lengthen.
        self._meter.go()
        self._since = time.perf_counter(), self._cpu()

    def stop(self) -> float:
        """Count until here; all wall seconds so far."""
        now = time.perf_counter(), self._cpu()
        self.wall, self.cpu = self.wall + now[0] - self._since[0], self.cpu + now[1] - self._since[1]
        self._since = now
        self._meter.stop()
        return self.wall

    @property
    def joules(self) -> float | None:
        """Of the whole machine; None where it does not count them."""
        return self._meter.joules

    @property
    def busy(self) -> float:
        """Threads that worked, on average."""
        return self.cpu / self.wall if self.wall else 0.0


def seconds_per_epoch(library: Library, samples: int, n_epochs: int) -> Json:
    """`samples` times an epoch: successive ones, or (fit of 1 + n_epochs less fit of 1) / n_epochs.

    Raises:
        RefusedError: a difference that is not positive: an epoch is too short beside what a fit needs besides.
    """
    warm = _run(library, 1)
    if library.epochs_by != DIFFERENCE:
        marks: list[float] = []
        watch = Watch(library.cpu)
        library.run(samples + 1, lambda epoch: marks.append(watch.stop()))
        taken = np.diff(marks).tolist()
        return {"warm_up_s": warm.wall, "samples_s": taken[:samples], "busy": watch.busy}
    taken, busy = [], []
    for _ in range(samples):
        short, long = _run(library, 1), _run(library, 1 + n_epochs)
        taken.append((long.wall - short.wall) / n_epochs)
        busy.append((long.cpu - short.cpu) / max(long.wall - short.wall, 1e-9))
    if min(taken) <= 0:
        raise RefusedError(
            f"a fit of {1 + n_epochs} epochs was no longer than one of 1, so an epoch cannot be told apart; "
            "ask for more epochs"
        )
    return {"warm_up_s": warm.wall, "samples_s": taken, "busy": float(np.median(busy))}


def curve(library: Library, epochs: list[int], save: Callable[[int, Array], str]) -> Json:
    """Predictions at some numbers of epochs, from one fit that pauses there, or from a fit for each of them.

    Of a library that ranks, rows.
    """
    points: list[Json] = []
    watch = Watch(library.cpu)
    pairs = library.order.test_users, library.order.test_items

    def keep(epoch: int) -> None:
        spent = {"seconds": watch.wall, "joules": watch.joules}
        if library.ranks:
            points.append({"epochs": epoch, **spent, "rows": save(epoch, np.concatenate(library.rows()))})
        else:
            points.append({"epochs": epoch, **spent, "predictions": save(epoch, library.predict(*pairs))})

    if library.epochs_by == DIFFERENCE:
        for n in epochs:
            watch = _run(library, n)
            keep(n)
        return {"points": points, "busy": watch.busy}

    def pause(epoch: int) -> None:
        if epoch in epochs:
            watch.stop()
            keep(epoch)
            watch.go()

    watch.go()
    library.run(max(epochs), pause)
    watch.stop()
    return {"points": points, "busy": watch.busy}


def mean_scores(library: Library, pairs: int = 10_000) -> dict[str, float]:
    """Mean score of some rated and of some random pairs: work that separates them was not idle."""
    order, rng = library.order, np.random.default_rng(0)
    at = rng.integers(0, len(order.users), pairs)
    users, items = rng.integers(0, order.n_users, pairs), rng.integers(0, order.n_items, pairs)
    rated, other = (order.users[at], order.items[at]), (users, items)
    return {"rated": float(library.predict(*rated).mean()), "random": float(library.predict(*other).mean())}


def peak_of(process: str) -> int | None:
    """The largest resident memory so far of a process, in bytes; None where the system does not say."""
    try:
        for line in Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _run(library: Library, n_epochs: int) -> Watch:
    watch = Watch(library.cpu)
    library.run(n_epochs, lambda epoch: None)
    watch.stop()
    return watch


def read(path: Path) -> Order:
    """ORDER.json and its data."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    with np.load(path.parent / settings["data"]) as file:
        m, n = file["shape"].tolist()
        ratings, test = (file["users"], file["items"], file["values"]), (file["test_users"], file["test_items"])
        return Order(*ratings, *test, m, n, settings)


def carry_out(make: Callable[[Order], Library], order: Order, target: Path) -> Json:
    """What OUT.json holds; arrays are written beside it."""
    began = time.perf_counter()
    try:
        library = make(order)
    except ImportError as error:
        return {"status": "not run", "reason": f"{error}"}
    try:
        return _carried_out(library, target, time.perf_counter() - began)
    finally:
        library.close()


def _carried_out(library: Library, target: Path, prepare_s: float) -> Json:
    order, out = library.order, Json(prepare_s=prepare_s)

    def save(epoch: int, made: Array) -> str:
        name = f"{target.stem}-{epoch}.npy"
        np.save(target.with_name(name), np.asarray(made, np.float64))
        return name

    settings = order.settings
    if settings["mode"] == "time":
        out |= seconds_per_epoch(library, settings["samples"], settings["n_epochs"])
        if library.ranks:
            out["scores"] = mean_scores(library)
    elif library.ranks != (settings["mode"] == "rank"):
        does = "ranks items; it predicts no ratings" if library.ranks else "predicts ratings; it hands over no rows"
        raise RefusedError(f"{library.name} {does}")
    else:
        out |= curve(library, settings["epochs"], save)
    return out | {
        "status": "ok",
        "reason": None,
        "peer": library.name,
        # Without the label of a build, such as +cpu of PyTorch, which packages shows.
        "version": importlib.metadata.version(library.distribution).partition("+")[0],
        "packages": {name: _version(name) for name in ("numpy", "scipy", "torch", "numba")},
        "precision": library.precision,
        "epochs_by": library.epochs_by,
        "peak_bytes": library.peak(),
        "threads": {"asked": order.threads, "set": library.threads(), "busy": out.pop("busy")},
    }


def dots(p: Array, q: Array, users: Array, items: Array) -> Array:
    """p_u·q_i of pairs (M,), summed in float64."""
    out: Array = (p[users].astype(np.float64) * q[items].astype(np.float64)).sum(axis=1)
    return out


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def main(make: Callable[[Order], Library], arguments: list[str]) -> int:
    """Carry ORDER.json out into OUT.json; whatever is raised becomes an outcome with its reason."""
    if len(arguments) != 2:
        print("usage: python -m bench.peers.adapter_NAME ORDER.json OUT.json", file=sys.stderr)
        return 2
    source, target = Path(arguments[0]), Path(arguments[1])
    try:
        outcome = carry_out(make, read(source), target)
    except Exception as error:
        said = str(error) if isinstance(error, RefusedError) else f"{type(error).__name__}: {error}"
        outcome = {"status": "failed", "reason": said}
    part = target.with_suffix(".part")
    part.write_text(json.dumps(outcome), encoding="utf-8")
    os.replace(part, target)
    return 0
