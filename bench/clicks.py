"""How well clicks are ranked: our losses of choices and `implicit`, each tuned, all scored by one scorer.

``python -m bench clicks`` writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment
    problem {data, threshold, n_users, n_items, n_ratings}: of the clicks; ratings of at least the threshold are those
    identity: what a run must share with a file that it resumes
    complete, cases {key: {status, reason, settings, points, wall_s, ...}}: the finished fits, in the order of the plan
    splits [{n_train, n_held_out, n_cold, n_users, n_relevant}]
    rows [{system, status, reason, version, tuned {settings, epochs, ndcg@10, like, tried [{settings, curve}]},
           splits [{ndcg@10, recall@10, map@10, coverage@10, seconds}], ndcg@10, recall@10, map@10, coverage@10,
           interval {ndcg@10, ...}, seconds, others_busy_cores,
           against [{system, ndcg@10 {difference, interval, p}, recall@10, map@10}]}]

A fifth of the clicks is held out at random, several times. Settings are chosen by NDCG@10 on a fifth of the first
split's training clicks, the mean over several draws of that fifth, as good settings differ by less than one draw does.
The best of each system are fitted to every split's, once, and scored on what it holds out: all items are ranked that
the user did not click in training. A curve is [epochs, seconds, NDCG@10]. A number is the mean over splits of the mean
over users; intervals are of a bootstrap that draws users, each with all that was scored of her in any split, and
differences are paired. ``seconds`` are of training, with all threads: the median over splits.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import machine, progress, scores
from bench.click_data import Clicks
from bench.click_systems import SYSTEMS, Point, Ranker, RankPeer, fitted
from bench.journal import Journal
from bench.launch import Json
from bench.peers import registry
from bench.peers.run import rank_peer
from mf_numpy import Split, bootstrap, random_split
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.ranking import RankingScores, score_ranking
from mf_numpy.ratings import Array

SCHEMA, VERSION = "mf-clicks", 1
K = 10
"""Length of the lists."""
BY = f"ndcg@{K}"
"""What settings are chosen by."""
MEANS = (BY, f"recall@{K}", f"map@{K}")
"""Means over users, which have intervals."""
METRICS = (*MEANS, f"coverage@{K}")
TITLES = {BY: f"NDCG@{K}", f"recall@{K}": f"Recall@{K}"}
"""What is compared in words."""
SHARE = 0.2
INNER = 3
"""Draws of what settings are chosen by."""
DRAWS = 4000
"""Of the bootstrap."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """A point of a system's grid inside the first split's training clicks, or a fit of the best point on a split."""

    ranker: Ranker
    split: int | None = None
    point: int | None = None

    @property
    def key(self) -> str:
        """Its name in the file."""
        what = f"point {self.point}" if self.split is None else f"split {self.split}"
        return f"{self.ranker.name}, {what}"

    @property
    def kind(self) -> str:
        """Steps of one kind take alike."""
        return self.ranker.name

    @property
    def work(self) -> float:
        """All of a kind do nearly the same."""
        return 1.0


@dataclass
class _Bench:
    """What all steps share; splits are kept."""

    data: Clicks
    splits: int
    rankers: tuple[Ranker, ...]
    threads: int
    peers: RankPeer
    _kept: dict[int, Split] = field(default_factory=dict)

    def split(self, number: int) -> Split:
        """A split of all clicks."""
        if number not in self._kept:
            self._kept[number] = random_split(self.data.ratings, valid=SHARE, seed=number)
        return self._kept[number]

    def inner(self) -> list[Split]:
        """What is held out inside the first one's training clicks, draw by draw."""
        return [random_split(self.split(0).train, valid=SHARE, seed=1 + draw) for draw in range(INNER)]

    def steps(self) -> Iterator[Step]:
        for ranker in self.rankers:
            if ranker.tunes:
                yield from (Step(ranker, point=point) for point in range(len(ranker.grid)))
            yield from (Step(ranker, split) for split in range(self.splits))

    def ranker(self, name: str) -> Ranker:
        return next(one for one in self.rankers if one.name == name)


def measure(
    data: Clicks,
    *,
    path: Path,
    splits: int = 5,
    systems: tuple[Ranker, ...] = SYSTEMS,
    resume: bool = False,
    peers: RankPeer = rank_peer,
    say: Say = lambda text: None,
) -> Json:
    """Tune, fit and score; `path` grows fit by fit.

    Ctrl-C keeps what is done; a later run with `resume` goes on from there.

    Args:
        splits: how often a fifth is held out, another one each time.
        peers: how a peer's process is started.

    Raises:
        ConfigError: no split, or a file that is there, unfinished, or of another run.
    """
    if splits < 1:
        raise ConfigError(f"splits is {splits}, but must be 1 or more")
    bench = _Bench(data, splits, systems, machine.usable_cores(), peers)
    steps = list(bench.steps())
    journal = Journal(path, _head(bench), resume=resume, anew=True)

    def carry_out(step: Step) -> None:
        outcome, arrays = _carried_out(step, bench, journal.cases)
        journal.keep(step.key, outcome, arrays)
        if outcome["status"] != "ok":
            say(f"  {step.key} {outcome['status']}: {outcome['reason']}")

    return progress.worked_off(steps, journal, carry_out, lambda: _judged(bench, journal), say)


def _head(bench: _Bench) -> Json:
    about, ratings = machine.record(bench.threads), bench.data.ratings
    sizes = {"n_users": ratings.n_users, "n_items": ratings.n_items, "n_ratings": len(ratings)}
    identity = {
        "data": ratings.fingerprint,
        "code": about["code"],
        "machine": about["machine"],
        "packages": about["packages"],
        "peers": {one.peer: registry.find(one.peer).version for one in bench.rankers if one.peer},
        "splits": bench.splits,
        "systems": [
            {"system": one.name, "grid": [dict(point) for point in one.grid], "epochs": one.epochs}
            | {"extra": dict(one.extra), "like": one.like}
            for one in bench.rankers
        ],
    }
    problem = {"data": bench.data.name, "threshold": bench.data.threshold, **sizes}
    nothing: Json = {"splits": [], "rows": []}
    return {"schema": SCHEMA, "schema_version": VERSION, **about, "problem": problem, "identity": identity} | nothing


def _carried_out(step: Step, bench: _Bench, cases: Json) -> tuple[Json, dict[str, Array] | None]:
    """The outcome of a fit; of one on a split with what every user got."""
    began, busy, ranker = time.perf_counter(), machine.clock(), step.ranker
    settings, epochs = _asked(step, bench, cases)
    if settings is None:
        tried = (cases.get(f"{name}, point 0") for name in (ranker.name, ranker.like))
        why = next(one for one in tried if one and one["status"] != "ok")
        return {"status": why["status"], "reason": why["reason"], "wall_s": 0.0}, None
    out: Json = {}
    curves: list[list[Json]] = []
    for split in bench.inner() if step.split is None else [bench.split(step.split)]:
        out, points = fitted(ranker, settings, split.train, epochs, threads=bench.threads, peers=bench.peers)
        found: list[RankingScores] = []
        try:
            found = [_scored(point, split) for point in points]
        except DataError as error:
            out |= {"status": "failed", "reason": str(error)}
        curves.append(
            [
                {"epochs": point.epochs, "seconds": point.seconds} | {name: one.mean(name) for name in METRICS}
                for point, one in zip(points, found, strict=False)
            ]
        )
        if out["status"] != "ok":
            break
    out |= {"settings": settings, "others_busy_cores": machine.others_busy(busy, machine.clock())}
    out |= {"points": _mean(curves), "wall_s": time.perf_counter() - began}
    if step.split is None or out["status"] != "ok":
        return out, None
    last = found[-1]
    out |= {"n_users": len(last.users), "n_relevant": last.n_relevant}
    raw = split.train.user_ids.raw[last.users]
    return out, {"users": bench.data.ratings.user_ids.encode(raw)} | {name: last.values[name] for name in MEANS}


def _mean(curves: list[list[Json]]) -> list[Json]:
    """The means of curves at the epochs that all of them have."""
    shared = set.intersection(*({point["epochs"] for point in curve} for curve in curves))
    at = [{point["epochs"]: point for point in curve} for curve in curves]
    return [
        {name: statistics.mean(points[epochs][name] for points in at) for name in ("epochs", "seconds", *METRICS)}
        for epochs in sorted(shared)
    ]


def _scored(point: Point, split: Split) -> RankingScores:
    return score_ranking(point.scorer, split.valid, split.train.csr, split.train.n_items, threshold=1.0, k=K)


def _asked(step: Step, bench: _Bench, cases: Json) -> tuple[Json | None, tuple[int, ...]]:
    """Settings of a fit and the numbers of epochs at which it is scored; None where tuning found no settings."""
    ranker = step.ranker
    if step.point is None:
        best = _tuned(ranker, bench, cases)
        return (best["settings"], (best["epochs"],)) if best else (None, ())
    settings = dict(ranker.grid[step.point])
    if ranker.like:
        base = _tuned(bench.ranker(ranker.like), bench, cases)
        return (base["settings"] | settings, ranker.epochs) if base else (None, ())
    return settings, ranker.epochs


def _tuned(ranker: Ranker, bench: _Bench, cases: Json) -> Json | None:
    """The settings and number of epochs with the highest NDCG inside the first split, and all that was tried.

    None where no point could be fitted.
    """
    about: Json = {"like": ranker.like or None, BY: None, "tried": []}
    if not ranker.tunes:
        base = _tuned(bench.ranker(ranker.like), bench, cases) if ranker.like else {"settings": {}}
        if base is None:
            return None
        n_epochs = ranker.epochs[0] if ranker.epochs else base["epochs"]
        return about | {"settings": base["settings"] | dict(ranker.grid[0]), "epochs": n_epochs}
    for point in range(len(ranker.grid)):
        one = cases.get(Step(ranker, point=point).key)
        if one and one["status"] == "ok":
            curve = [[p["epochs"], p["seconds"], p[BY]] for p in one["points"]]
            about["tried"].append({"settings": one["settings"], "curve": curve})
    points = [(ndcg, -epochs, one["settings"]) for one in about["tried"] for epochs, _, ndcg in one["curve"]]
    if not points:
        return None
    # Of equals the one with fewer epochs.
    ndcg, epochs, settings = max(points, key=lambda point: point[:2])
    return about | {"settings": settings, "epochs": -epochs, BY: ndcg}


def _judged(bench: _Bench, journal: Journal) -> Json:
    """Splits and rows, of systems that have every split."""
    cases, numbers = journal.cases, range(bench.splits)
    of: dict[str, list[Json]] = {
        one.name: [cases.get(Step(one, number).key, {}) for number in numbers] for one in bench.rankers
    }
    done = [one for one in bench.rankers if all(of[one.name])]
    scored = [one for one in done if all(case["status"] == "ok" for case in of[one.name])]
    drawn = _drawn(scored, bench, journal) if scored else {}
    splits = [
        {"n_train": len(split.train), "n_held_out": len(split.valid), "n_cold": split.valid.n_cold}
        | {name: case[name] for name in ("n_users", "n_relevant")}
        for one in scored[:1]
        for split, case in zip(map(bench.split, numbers), of[one.name], strict=True)
    ]
    return {"splits": splits, "rows": [_row(one, of[one.name], drawn, bench, cases) for one in done]}


def _drawn(rankers: list[Ranker], bench: _Bench, journal: Journal) -> dict[tuple[str, str], Array]:
    """Means over splits of means over users, (D,) in each draw of the bootstrap, by system and metric."""
    size, names = bench.data.ratings.n_users, [(one.name, name) for one in rankers for name in MEANS]
    # A user who has nothing to be scored by in a split has no value there.
    values = np.full((size, bench.splits, len(names)), np.nan)
    for number in range(bench.splits):
        for at, (ranker, name) in enumerate((one, name) for one in rankers for name in MEANS):
            key = Step(ranker, number).key
            values[journal.array(key, "users"), number, at] = journal.array(key, name)
    means = bootstrap.means(values.reshape(size, -1), draws=DRAWS).reshape(DRAWS, bench.splits, len(names))
    return dict(zip(names, means.mean(axis=1).T, strict=True))


def _row(ranker: Ranker, found: list[Json], drawn: dict[tuple[str, str], Array], bench: _Bench, cases: Json) -> Json:
    """What is said of a system that has every split."""
    wrong = next((case for case in found if case["status"] != "ok"), None)
    about: Json = {"system": ranker.name, "status": "ok", "reason": None, "version": None, "tuned": None, "splits": []}
    nothing = about | dict.fromkeys((*METRICS, "interval", "seconds", "others_busy_cores")) | {"against": []}
    if wrong:
        return nothing | {"status": wrong["status"], "reason": wrong["reason"]}
    points = [case["points"][-1] for case in found]
    busy = [case["others_busy_cores"] for case in found if case["others_busy_cores"] is not None]
    name = ranker.name
    return nothing | {
        "version": found[0].get("version"),
        "tuned": _tuned(ranker, bench, cases),
        "splits": [{key: point[key] for key in (*METRICS, "seconds")} for point in points],
        **{metric: statistics.mean(point[metric] for point in points) for metric in METRICS},
        "interval": {metric: bootstrap.interval(drawn[name, metric]) for metric in MEANS},
        "seconds": statistics.median(point["seconds"] for point in points),
        "others_busy_cores": max(busy, default=None),
        "against": [
            {"system": other} | {metric: _beside(name, other, metric, drawn, bench, cases) for metric in MEANS}
            for other in ranker.against
            if (other, BY) in drawn
        ],
    }


def _beside(
    name: str, other: str, metric: str, drawn: dict[tuple[str, str], Array], bench: _Bench, cases: Json
) -> Json:
    """The paired difference of two systems, and how sure it is."""
    mine, theirs = (
        statistics.mean(cases[Step(bench.ranker(one), k).key]["points"][-1][metric] for k in range(bench.splits))
        for one in (name, other)
    )
    return {"difference": mine - theirs} | scores.versus(drawn[name, metric], drawn[other, metric])


def summary(outcome: Json) -> Iterator[str]:
    """A line for each system, and one for each two that are compared."""
    width = max((len(row["system"]) for row in outcome["rows"]), default=0) + 2
    yield f"{'':{width}}{'NDCG@10':>9}{'95 % interval':>18}" + "".join(
        f"{name:>11}" for name in ("Recall@10", "MAP@10", "coverage", "seconds")
    )
    for row in outcome["rows"]:
        if row["status"] != "ok":
            yield f"{row['system']:{width}}{row['status']}: {row['reason']}"
            continue
        low, high = row["interval"][BY]
        rest = (row[name] for name in METRICS[1:])
        yield (
            f"{row['system']:{width}}{row[BY]:>9.4f}{f'{low:.4f}–{high:.4f}':>18}"
            + "".join(f"{value:>11.4f}" for value in rest)
            + f"{row['seconds']:>11.2f}"
        )
    for row in outcome["rows"]:
        for other in row["against"]:
            said = ", ".join(f"{title} {in_words(other[name])}" for name, title in TITLES.items())
            yield f"{row['system']} beside {other['system']}: {said}"
    busy = [row["others_busy_cores"] for row in outcome["rows"] if row["others_busy_cores"] is not None]
    yield from machine.disturbance(max(busy, default=None))


def in_words(found: Json) -> str:
    """A difference with its interval: ``+0.0012 (−0.0010 to +0.0034)``."""
    difference, low, high = (f"{x:+.4f}".replace("-", "−") for x in (found["difference"], *found["interval"]))
    return f"{difference} ({low} to {high})"
