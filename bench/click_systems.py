"""Who ranks clicks: solvers of ours and methods of `implicit`, each with a grid of its own, and what is fitted of them.

The grids suit MovieLens 100K. Those of one model reach equally far on both sides, and have as many points or more on
that of the library: α = alpha - 1 and Nλ = regularization make all pairs (Eq. 45) the very function of implicit's ALS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bench import whole_fit, worker
from bench.launch import Json
from bench.peers.run import Settings, rank_peer
from bench.race import Racer, grid_of
from mf_numpy import Config, Ratings
from mf_numpy.model import Params
from mf_numpy.ranking import Scorer
from mf_numpy.ratings import Array
from mf_numpy.recommend import score_all

RankPeer = Callable[..., Json]
LIMIT = 600.0
"""Seconds of one fit of a peer."""


@dataclass(frozen=True)
class Ranker(Racer):
    """A way to rank: a solver of ours, a method of a peer, or with neither the clicks that an item has.

    In the grid of one of ours, ``ridge`` is Nλ.

    Attributes:
        extra: what no point of the grid changes; of ours fields of `Config`, of a peer settings of its adapter.
        backend: of ours: ``numba`` or ``torch``.
        like: whose tuned settings it has, beside those of its own grid; without epochs of its own, that number as well.
        against: the same models of a library, with which it is compared.
    """

    extra: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "numba"
    like: str = ""
    against: tuple[str, ...] = ()

    @property
    def tunes(self) -> bool:
        """Whether it has more than one point to choose from."""
        return len(self.grid) * len(self.epochs) > 1

    def config(self, settings: Mapping[str, Any], n_epochs: int, n_clicks: int) -> Config:
        """Of one of ours, what settings are on so many clicks."""
        given = {"solver": self.solver, "n_epochs": n_epochs, **self.extra, **settings}
        if "ridge" in given:
            given["reg"] = given.pop("ridge") / n_clicks
        return Config.from_dict(given)

    def settings(self, settings: Mapping[str, Any], n_epochs: int, threads: int) -> Settings:
        """Of a peer, the same."""
        own = {name: value for name, value in settings.items() if name in ("n_factors", "lr", "reg")}
        more = {name: value for name, value in settings.items() if name not in own}
        return Settings(threads=threads, n_epochs=n_epochs, seed=0, extra={**self.extra, **more}, **own)


@dataclass(frozen=True, eq=False)
class Point:
    """A fit after some epochs: seconds of training until there, and what scores all items for users."""

    epochs: int
    seconds: float
    scorer: Scorer


def fitted(
    ranker: Ranker,
    settings: Mapping[str, Any],
    train: Ratings,
    epochs: tuple[int, ...],
    *,
    threads: int,
    peers: RankPeer = rank_peer,
) -> tuple[Json, list[Point]]:
    """``status`` and ``reason`` of a fit, of a peer its ``version`` as well, and its points.

    Ours are fitted here, with an epoch before in which kernels are compiled, and a peer in a process of its own.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    if ranker.peer:
        return _theirs(ranker, settings, train, epochs, threads, peers)
    if not ranker.solver:
        counts = train.item_counts.astype(np.float64)
        return _ok(), [Point(1, 0.0, lambda users: np.tile(counts, (len(users), 1)))]
    config = ranker.config(settings, max(epochs), len(train))
    whole_fit.run(_engine(ranker, config), train, replace(config, n_epochs=1))
    recorder = worker.Recorder(_engine(ranker, config), list(epochs))
    found = whole_fit.run(recorder, train, config)
    if found.status == "diverged":
        return {"status": "failed", "reason": f"diverged: {found.message}"}, []
    seconds = np.cumsum([record.seconds for record in found.history])
    params = {epoch: point.params for epoch, point in recorder.points.items()} or {len(seconds): found.params}
    points = [Point(epoch, float(seconds[epoch - 1]), _scorer(theta)) for epoch, theta in params.items()]
    return _ok(), points


def _theirs(
    ranker: Ranker,
    settings: Mapping[str, Any],
    train: Ratings,
    epochs: tuple[int, ...],
    threads: int,
    peers: RankPeer,
) -> tuple[Json, list[Point]]:
    asked = ranker.settings(settings, max(epochs), threads)
    out = peers(ranker.peer, train, asked, epochs=epochs, limit=LIMIT)
    if out["status"] != "ok":
        return {"status": out["status"], "reason": out["reason"]}, []
    points = [Point(one["epochs"], one["seconds"], products(*one["rows"])) for one in out["points"]]
    return _ok() | {"version": out["version"]}, points


def _ok() -> Json:
    return {"status": "ok", "reason": None}


def _engine(ranker: Ranker, config: Config) -> Any:
    if ranker.backend == "torch":
        return worker.engine_for("torch", "cpu")
    from mf_numpy.solvers import engine_for

    return engine_for(config, "numba")


def _scorer(params: Params) -> Scorer:
    return lambda users: score_all(params, users)


def products(p: Array, q: Array) -> Scorer:
    """Scores by users' rows (m, F) and items' (n, F)."""
    return lambda users: p[users] @ q.T


_SWEEPS = (5, 10, 20)
_WEIGHTS = tuple(
    (alpha, reg)
    for alpha, regs in ((3.0, (20.0, 25.0)), (5.0, (30.0, 35.0, 40.0)), (10.0, (50.0, 65.0)), (15.0, (70.0, 85.0)))
    for reg in regs
)
"""Confidences and penalties that suit each other: a heavier click takes a heavier penalty."""
_FACTORS = (32, 64)
_OURS = tuple({"n_factors": k, "loss_scale": alpha - 1, "ridge": reg} for k in _FACTORS for alpha, reg in _WEIGHTS)
_THEIRS = tuple({"n_factors": k, "alpha": alpha, "reg": reg} for k in _FACTORS for alpha, reg in _WEIGHTS)
_ALL_PAIRS = {"model": "plain", "loss": "all_pairs", "penalty": "total"}
_LISTS = {"step_rule": "adagrad", "batch_size": 1000}

ALS, ALS_CG, BPR = "implicit ALS", "implicit ALS, CG", "implicit BPR"

SYSTEMS = (
    Ranker("popularity", ({},), (1,)),
    Ranker("mf_numpy all pairs", _OURS, _SWEEPS, solver="als", extra=_ALL_PAIRS, against=(ALS, ALS_CG)),
    Ranker(
        "mf_numpy BPR",
        grid_of(n_factors=(64,), lr=(0.05, 0.1), reg=(0.01, 0.02, 0.03, 0.05)),
        (10, 20, 30, 40),
        solver="gd",
        extra=_LISTS | {"loss": "bpr"},
        against=(BPR,),
    ),
    Ranker(
        "mf_numpy softmax",
        grid_of(n_factors=(64,), lr=(0.1,), reg=(0.02, 0.03, 0.05), n_negatives=(8,), negative_power=(0.0, 0.5)),
        (10, 20, 40),
        solver="gd",
        extra=_LISTS | {"loss": "softmax"},
    ),
    Ranker(
        "mf_numpy WARP",
        grid_of(n_factors=(64,), lr=(0.05, 0.1), reg=(0.2, 0.3, 0.5), n_negatives=(10,)),
        (10, 20, 40),
        solver="gd",
        extra=_LISTS | {"loss": "warp"},
    ),
    Ranker(
        "mf_torch all pairs",
        grid_of(lr=(0.01, 0.03)),
        (50, 100, 200),
        solver="gd",
        extra=_ALL_PAIRS | {"step_rule": "adam"},
        backend="torch",
        like="mf_numpy all pairs",
        against=(ALS, ALS_CG),
    ),
    Ranker(
        "mf_torch BPR",
        ({},),
        (),
        solver="gd",
        extra=_LISTS | {"loss": "bpr"},
        backend="torch",
        like="mf_numpy BPR",
        against=(BPR,),
    ),
    Ranker(ALS, _THEIRS, _SWEEPS, peer="implicit", extra={"use_cg": False}),
    Ranker(ALS_CG, _THEIRS, _SWEEPS, peer="implicit", extra={"use_cg": True}),
    Ranker(
        BPR,
        grid_of(n_factors=(16, 32, 64), lr=(0.001, 0.002, 0.005), reg=(0.005, 0.02)),
        (100, 150, 200, 300, 400, 600),
        peer="implicit",
        extra={"method": "bpr"},
    ),
)
