"""Timing a peer, or having it predict or rank, in a fresh process of its own environment; what it says is scored here.

>>> time_peer("libmf", train, Settings(n_factors=16, threads=2))["timing"]["ratings_per_s"]  # doctest: +SKIP
>>> fit_peer("libmf", train, valid, Settings(n_factors=16), epochs=(5, 10, 20))["points"]    # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import launch, machine, result, scores
from bench.peers import install, registry
from bench.peers.registry import Peer
from mf_numpy import Holdout, Ratings
from mf_numpy.baselines import mean_and_bias_scores
from mf_numpy.errors import ConfigError, counted
from mf_numpy.ratings import Array

Json = dict[str, Any]

LIMIT = 600.0
"""Seconds after which a peer counts as hung."""

SANITY = 0.99
"""A peer whose RMSE is above this share of the mean's has learnt nothing."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a peer is asked for.

    Attributes:
        n_factors: K.
        threads: for the library and for every library below it.
        n_epochs: epochs of a fit; where an epoch is the difference of two fits, how many of them the two differ by.
        lr, reg: η and λ as the peer means them; None takes the registry's.
        seed: of the start, or None. Cornac with a seed uses one thread.
        extra: settings of the one library, as its adapter names them.

    Raises:
        ConfigError: a size below 1.
    """

    n_factors: int = 16
    threads: int = 1
    n_epochs: int = 10
    lr: float | None = None
    reg: float | None = None
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("n_factors", "threads", "n_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, but must be 1 or larger")

    def of(self, peer: Peer) -> Json:
        """Plain values, with what the peer starts from where none was given.

        A peer without a learning rate gets 0, which its adapter does not read.
        """
        start = dict(peer.start)
        usual = {"lr": start.pop("lr", 0.0), "reg": start.pop("reg")}
        given = asdict(self)
        return given | {
            "lr": usual["lr"] if self.lr is None else self.lr,
            "reg": usual["reg"] if self.reg is None else self.reg,
            "extra": start | dict(self.extra),
        }


def time_peer(
    name: str | Peer,
    train: Ratings,
    settings: Settings,
    *,
    samples: int = 5,
    into: Path | None = None,
    limit: float = LIMIT,
) -> Json:
    """Seconds of an epoch of a peer.

    Args:
        name: of a peer, or one that the registry does not hold.
        samples: epochs, or differences of two fits, that are timed after the warm-up: 5 or more.
        into: the folder of the environments; by default `registry.folder`.
        limit: seconds for all of it.

    Returns:
        ``status`` (``ok``, ``failed``, ``not run``), ``reason``, ``peer``, ``version``, ``settings``, and where it ran
        ``samples_ms``, ``timing`` (see `bench.result.timing`), ``warm_up_s``, ``prepare_s``, ``epochs_by``,
        ``precision``, ``threads`` {asked, set, busy}, ``notes``, ``packages``, ``install``, ``others_busy_cores``. A
        library that ranks also has ``scores`` {rated, random}, and has ``failed`` where they do not differ.

    Raises:
        ConfigError: an unknown peer, or fewer than 5 samples.
    """
    if samples < 5:
        raise ConfigError(f"samples is {samples}, but a median with its spread needs at least 5; ask for 5 or more")
    peer = registry.find(name) if isinstance(name, str) else name
    nothing = Holdout(np.zeros(0), np.zeros(0), np.zeros(0))
    with _carried_out(peer, train, nothing, settings, {"mode": "time", "samples": samples}, into, limit) as (out, _):
        if out["status"] == "ok":
            out["samples_ms"] = [1e3 * s for s in out.pop("samples_s")]
            out["timing"] = result.timing(out["samples_ms"], len(train))
            scores = out.get("scores")
            if scores and not scores["rated"] > scores["random"]:
                reason = (
                    f"it scores rated pairs {scores['rated']:.3g} and random ones {scores['random']:.3g}: idle work"
                )
                out |= {"status": "failed", "reason": reason}
        return out


def fit_peer(
    name: str | Peer,
    train: Ratings,
    valid: Holdout,
    settings: Settings,
    *,
    epochs: Sequence[int] | None = None,
    clip: tuple[float, float] | None = None,
    predictions: bool = False,
    into: Path | None = None,
    limit: float = LIMIT,
) -> Json:
    """Train a peer and score what it predicts of held-out pairs, at one or several numbers of epochs.

    A cold pair is not shown to the peer: it is predicted by the training mean, and counts in ``rmse_all`` alone.

    Args:
        epochs: where to score, in any order; by default at ``settings.n_epochs`` alone.
        clip: the ends of the rating scale, to which predictions are clipped first; None leaves them as they are.
        predictions: have each point hold its ``predictions``, (n_scored,) as they came.

    Returns:
        As `time_peer`, but ``points`` [{epochs, seconds, joules, rmse, mae, rmse_all}] in place of the timing, and
        ``baselines`` {mean, bias-only: RMSE}, ``n_scored``, ``n_cold``. ``seconds`` are of training up to there, and
        ``joules`` what the machine spent meanwhile, or None where it does not count them (`bench.energy`). A peer
        whose best RMSE is within 1 % of the mean's has ``failed``, with that ``reason``.

    Raises:
        ConfigError: an unknown peer, one that predicts no ratings, or a number of epochs below 1.
    """
    peer = registry.find(name) if isinstance(name, str) else name
    if peer.data != "ratings":
        raise ConfigError(f"{peer.name} ranks items and predicts no ratings, so it has no RMSE; time it instead")
    order = {"mode": "fit", "epochs": _wanted(epochs, settings)}
    with _carried_out(peer, train, valid, settings, order, into, limit) as (out, folder):
        if out["status"] != "ok":
            return out
        points = []
        for point in out["points"]:
            predicted = np.load(folder / point.pop("predictions"))
            if predictions:
                point["predictions"] = predicted
            try:
                points.append(point | scored(predicted, train, valid, clip))
            except ConfigError as error:
                return _without_result(peer, settings, "failed", f"after {counted(point['epochs'], 'epoch')}: {error}")
        mean = {kind: s.rmse for kind, s in mean_and_bias_scores(train, valid).items()}
        out |= {"points": points, "baselines": mean, "n_scored": valid.n_scored, "n_cold": valid.n_cold}
        reason = insane(points, mean["mean"])
        return out | ({"status": "failed", "reason": reason} if reason else {})


def rank_peer(
    name: str | Peer,
    train: Ratings,
    settings: Settings,
    *,
    epochs: Sequence[int] | None = None,
    into: Path | None = None,
    limit: float = LIMIT,
) -> Json:
    """Train a peer that ranks, and have it hand over its rows at one or several numbers of epochs.

    Returns:
        As `fit_peer`, but ``points`` [{epochs, seconds, joules, rows}]: users (m, F) and items (n, F), whose products
        are the scores of all pairs; and no baselines.

    Raises:
        ConfigError: an unknown peer, one that predicts ratings, or a number of epochs below 1.
    """
    peer = registry.find(name) if isinstance(name, str) else name
    if peer.data == "ratings":
        raise ConfigError(f"{peer.name} predicts ratings and hands over no rows; use fit_peer")
    order = {"mode": "rank", "epochs": _wanted(epochs, settings)}
    nothing = Holdout(np.zeros(0), np.zeros(0), np.zeros(0))
    with _carried_out(peer, train, nothing, settings, order, into, limit) as (out, folder):
        if out["status"] != "ok":
            return out
        for point in out["points"]:
            both = np.load(folder / point["rows"])
            point["rows"] = both[: train.n_users], both[train.n_users :]
            if len(both) != train.n_users + train.n_items or not np.isfinite(both).all():
                reason = (
                    f"after {counted(point['epochs'], 'epoch')}: {train.n_users + train.n_items} rows of finite "
                    f"numbers were asked for, but {both.shape} came, {int((~np.isfinite(both)).sum())} not finite"
                )
                return _without_result(peer, settings, "failed", reason)
        return out


def _wanted(epochs: Sequence[int] | None, settings: Settings) -> list[int]:
    """Numbers of epochs in order, by default that of the settings."""
    wanted = sorted(set(epochs or (settings.n_epochs,)))
    if wanted[0] < 1:
        raise ConfigError(f"epochs has {wanted[0]}, but a fit has 1 or more")
    return wanted


def scored(predicted: Array, train: Ratings, valid: Holdout, clip: tuple[float, float] | None) -> Json:
    """RMSE and MAE of a peer's predictions of the pairs that are not cold, (n_scored,).

    Raises:
        ConfigError: another number of predictions, or one that is not finite.
    """
    return scores.scores(scores.checked(predicted, valid, clip), train, valid)


def insane(points: list[Json], mean: float) -> str | None:
    """Why a peer's RMSE cannot be believed, or None.

    Args:
        points: what `fit_peer` returns of them.
        mean: the RMSE of predicting the mean.
    """
    best = min(float(point["rmse"]) for point in points)
    if best <= SANITY * mean:
        return None
    return (
        f"its best RMSE is {best:.4f}, but that of the mean rating is {mean:.4f}: it has learnt nothing, or its "
        "predictions are not of the pairs that were asked for"
    )


@contextmanager
def _carried_out(
    peer: Peer, train: Ratings, valid: Holdout, settings: Settings, order: Json, into: Path | None, limit: float
) -> Iterator[tuple[Json, Path]]:
    """What the adapter answered, and the folder in which its arrays lie until the end of the block."""
    into = registry.folder() if into is None else into
    installed = install.record(peer, into)
    with tempfile.TemporaryDirectory(prefix="mf-peer-") as scratch:
        folder = Path(scratch)
        if installed is None:
            reason = f"not installed: python -m bench peers install {peer.name}"
            yield _without_result(peer, settings, "not run", reason), folder
            return
        _save(folder / "data.npz", train, valid)
        order = settings.of(peer) | order | {"data": "data.npz"}
        source, target = folder / "order.json", folder / "out.json"
        source.write_text(json.dumps(order), encoding="utf-8")
        began = machine.clock()
        failure = launch.run_to_end(
            [str(install.python_of(peer, into)), "-m", peer.adapter, str(source), str(target)],
            environment(settings.threads, folder),
            folder / "printed.txt",
            target,
            limit,
        )
        busy = machine.others_busy(began, machine.clock())
        if failure:
            yield _without_result(peer, settings, "failed", failure), folder
            return
        out: Json = json.loads(target.read_text(encoding="utf-8"))
        if out["status"] != "ok":
            yield _without_result(peer, settings, out["status"], out["reason"]), folder
            return
        about = {key: installed.get(key) for key in ("recipe", "python", "packages", "simd")}
        notes = []
        if out["threads"]["set"] != settings.threads:
            notes.append(f"asked for {counted(settings.threads, 'thread')}, it took {out['threads']['set']}")
        out["notes"] = notes
        yield out | {"settings": settings.of(peer), "install": about, "others_busy_cores": busy}, folder


def environment(threads: int, folder: Path, before: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables for an adapter: those of a worker, and nothing of another Python."""
    kept = {name: value for name, value in before.items() if name not in install.NOT_OURS}
    return machine.environment(threads, folder / "numba", kept) | {"PYTHONNOUSERSITE": "1"}


def _without_result(peer: Peer, settings: Settings, status: str, reason: str) -> Json:
    about = {"peer": peer.name, "version": peer.version, "settings": settings.of(peer)}
    return {"status": status, "reason": reason} | about


def _save(path: Path, train: Ratings, valid: Holdout) -> None:
    known = valid.known
    np.savez(
        path,
        users=train.users,
        items=train.items,
        values=train.values.astype(np.float32),
        test_users=valid.users[known].astype(np.int32),
        test_items=valid.items[known].astype(np.int32),
        shape=[train.n_users, train.n_items],
    )
