"""How soon and how far each system gets, tuned: seconds to the RMSE of a peer's best settings, and the final RMSE.

``python -m bench race`` writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment
    problem {data, n_users, n_items, n_train, n_valid, n_test, noise_floor}
    complete: whether every system had all its turns
    rows [{system, n_factors, status, reason, tried [{settings, curve}], best {settings, epochs, rmse},
           final {rmse, mae, rmse_all}}]
    targets [{peer, n_factors, rmse}]
    times [{system, target, n_factors, threads, settings, reason, seconds, joules, seeds [{seed, seconds, rmse}],
            seeding, median_s, range_s}]
    ratios [{system, target, n_factors, threads, ratio}]
    seeds, notes: how many seeds took part, and who was given none of them, and why
    baselines {mean, bias-only}: RMSE on the test pairs

All settings of a grid are tried on a validation split carved from the training side; a curve is [epochs, seconds, RMSE]
of it. The best point's RMSE is the peer's target. Then, round by round, every system runs again with the settings that
took it to the target soonest, and ``seconds`` are of training until its validation RMSE is no higher than that; ours
count the laying out of the ratings as well, a peer's do not count what its adapter converts. ``joules`` are of the same
stretches, null where the machine counts none. ``seconds`` has every turn that got there, ``seeds`` all of each seed
by round, and ``median_s`` is over the seeds (`bench.race_seeds`); files from before there were several have ``seconds``
and ``median_s`` alone. The test pairs are scored once, by a fit of the best settings on training and validation pairs
together. A ratio is our median over the peer's.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench import machine, race_seeds, result, worker
from bench.cases import Case
from bench.launch import Json, Launch, in_fresh_process
from bench.peers.run import Settings, fit_peer
from bench.suite import Data
from mf_numpy import Holdout, Ratings, random_split
from mf_numpy.baselines import mean_and_bias_scores
from mf_numpy.errors import ConfigError

SCHEMA, VERSION = "mf-race", 1
LIMIT = 600.0
"""Seconds of one fit of a peer."""

Say = Callable[[str], None]
FitPeer = Callable[..., Json]


@dataclass(frozen=True)
class Racer:
    """Who takes part: a solver of ours or a peer, the settings it is tuned over, and where its curve has points.

    Attributes:
        name: what it is called.
        grid: settings to try; of ours fields of `Config`, of a peer lr and reg.
        epochs: numbers of epochs at which it is scored.
        solver, peer: which of ours, or which peer; one of the two is empty.
    """

    name: str
    grid: tuple[Mapping[str, Any], ...]
    epochs: tuple[int, ...]
    solver: str = ""
    peer: str = ""


def grid_of(**values: tuple[Any, ...]) -> tuple[Mapping[str, Any], ...]:
    """Every combination of the values."""
    return tuple(dict(zip(values, point, strict=True)) for point in itertools.product(*values.values()))


def in_words(settings: Mapping[str, Any]) -> str:
    """A point of a grid for a line of text."""
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())


RACERS = (
    Racer(
        "mf_numpy sgd",
        grid_of(lr=(0.01, 0.02), lr_decay=(0.9, 0.95), reg=(0.03, 0.05, 0.07), init_scale=(0.001, 0.01)),
        tuple(range(1, 81)),
        solver="sgd",
    ),
    Racer(
        "mf_numpy als",
        grid_of(reg=(0.03, 0.05, 0.07, 0.1), init_scale=(0.01, 0.1)),
        tuple(range(1, 41)),
        solver="als",
    ),
    Racer("LIBMF", grid_of(lr=(0.05, 0.1, 0.2), reg=(0.02, 0.03, 0.05, 0.08)), (5, 10, 20, 40), peer="libmf"),
    Racer("Cornac", grid_of(lr=(0.005, 0.01, 0.02), reg=(0.02, 0.04, 0.06, 0.1)), tuple(range(1, 81)), peer="cornac"),
)


@dataclass
class _Track:
    """What all turns share."""

    folder: Path
    launch: Launch
    peers: FitPeer
    n_factors: int
    threads: int
    parts: dict[str, tuple[Ratings, Holdout]] = field(default_factory=dict)

    def put(self, name: str, train: Ratings, held_out: Holdout) -> None:
        """Have a problem ready under a name."""
        self.parts[name] = train, held_out
        worker.save_data(self.folder / f"{name}.npz", train, held_out)

    def run(
        self,
        racer: Racer,
        settings: Mapping[str, Any],
        part: str,
        epochs: tuple[int, ...],
        until: float,
        seed: int | None = None,
    ) -> Json:
        """``status``, ``reason`` and ``points`` [{epochs, seconds, joules, rmse, mae, rmse_all}] of one training."""
        if racer.solver:
            config = {"solver": racer.solver, "n_factors": self.n_factors, "n_epochs": max(epochs), "seed": seed or 0}
            config |= settings
            order = {"config": config, "epochs": epochs, "until": until, "threads": self.threads}
            out, _ = self.launch(Case("race", "numba", "cpu", "float32"), order | {"data": f"{part}.npz"}, self.folder)
            return out
        train, held_out = self.parts[part]
        asked = Settings(n_factors=self.n_factors, threads=self.threads, n_epochs=max(epochs), seed=seed, **settings)
        return self.peers(racer.peer, train, held_out, asked, epochs=epochs, limit=LIMIT)


@dataclass(frozen=True)
class _Way:
    """A system's way to a target: its row of the file, the RMSE, and the epochs it took; None of no way."""

    racer: Racer
    row: Json
    rmse: float
    n_epochs: int | None


def measure(
    data: Data,
    *,
    factors: tuple[int, ...] = (16, 64),
    threads: int | None = None,
    rounds: int = 3,
    seeds: int = 1,
    racers: tuple[Racer, ...] = RACERS,
    launch: Launch | None = None,
    peers: FitPeer = fit_peer,
    say: Say = lambda text: None,
) -> Json:
    """Tune every racer, race them to the peers' best, score their final RMSE.

    Ctrl-C keeps what is done.

    Args:
        data: its validation side is the test here.
        threads: of every system; by default every core.
        rounds: turns of each system and seed in the race.
        seeds: how many take part, from 0. With one, a peer is given none.
        launch, peers: how our processes and the peers' are started.

    Raises:
        ConfigError: no round or seed, or a K or number of threads below 1.
    """
    threads = machine.usable_cores() if threads is None else threads
    if not factors or min(*factors, threads, rounds, seeds) < 1:
        came = f"rounds {rounds}, seeds {seeds}, factors {factors} and threads {threads} came"
        raise ConfigError(f"{came}; each must be 1 or larger")
    start = launch or partial(in_fresh_process, module="bench.race_worker")
    split = random_split(data.train, valid=0.1, seed=1)
    rows: list[Json] = []
    targets: list[Json] = []
    times: list[Json] = []
    complete = False
    with tempfile.TemporaryDirectory(prefix="mf-race-") as scratch:
        try:
            for k in factors:
                track = _Track(Path(scratch), start, peers, k, threads)
                track.put("tune", split.train, split.valid)
                track.put("final", data.train, data.valid)
                here = [_tuned(track, racer, say) for racer in racers]
                rows += here
                targets += _targets(here, racers)
                for racer, row in zip(racers, here, strict=True):
                    row["final"] = _final(track, racer, row, say)
                ways = _ways(track, racers, here, [t for t in targets if t["n_factors"] == k], seeds)
                times += [way.row for way in ways]
                for turn, number, way in itertools.product(range(rounds), range(seeds), ways):
                    _take(track, way, turn, number, say)
            complete = True
        except KeyboardInterrupt:
            if not rows:
                raise
            say("interrupted: what was measured is kept")
    for one in times:
        one |= race_seeds.settled(one["seeds"])
        if one["reason"] is None:
            one["reason"] = race_seeds.missed(one["seeds"])
    cleaned: Json = result.clean(
        {
            "schema": SCHEMA,
            "schema_version": VERSION,
            **machine.record(threads),
            "problem": {
                "data": data.name,
                "n_users": data.train.n_users,
                "n_items": data.train.n_items,
                "n_train": len(split.train),
                "n_valid": len(split.valid),
                "n_test": len(data.valid),
                "noise_floor": data.noise_floor,
            },
            "complete": complete,
            "rows": rows,
            "targets": targets,
            "times": times,
            "ratios": list(ratios(times)),
            "seeds": seeds,
            "notes": race_seeds.notes(times),
            "baselines": {kind: s.rmse for kind, s in mean_and_bias_scores(data.train, data.valid).items()},
        }
    )
    return cleaned


def _tuned(track: _Track, racer: Racer, say: Say) -> Json:
    """Every point of the grid tried on the validation split, and the best."""
    row: Json = {"system": racer.name, "n_factors": track.n_factors, "status": "ok", "reason": None, "tried": []}
    row["final"] = None
    for settings in racer.grid:
        say(f"tuning K = {track.n_factors}, {racer.name}: {in_words(settings)}")
        out = track.run(racer, settings, "tune", racer.epochs, 0.0)
        if out["status"] == "ok":
            curve = [[p["epochs"], p["seconds"], p["rmse"]] for p in out["points"]]
            row["tried"].append({"settings": dict(settings), "curve": curve})
        else:
            row |= {"status": out["status"], "reason": out["reason"]}
            if out["status"] == "not run":
                break
    every = [(rmse, epochs, one["settings"]) for one in row["tried"] for epochs, _, rmse in one["curve"]]
    best = min(every, key=lambda point: point[:2], default=None)
    row["best"] = None if best is None else {"settings": best[2], "epochs": best[1], "rmse": best[0]}
    return row


def _targets(rows: list[Json], racers: tuple[Racer, ...]) -> list[Json]:
    return [
        {"peer": row["system"], "n_factors": row["n_factors"], "rmse": row["best"]["rmse"]}
        for racer, row in zip(racers, rows, strict=True)
        if racer.peer and row["best"]
    ]


def _final(track: _Track, racer: Racer, row: Json, say: Say) -> Json | None:
    """The test pairs' scores by the best settings, trained on training and validation pairs together."""
    if row["best"] is None:
        return None
    say(f"final fit of K = {track.n_factors}, {racer.name}")
    out = track.run(racer, row["best"]["settings"], "final", (row["best"]["epochs"],), 0.0)
    if out["status"] != "ok":
        return {"reason": out["reason"]}
    return {name: out["points"][-1][name] for name in ("rmse", "mae", "rmse_all")}


def _ways(track: _Track, racers: tuple[Racer, ...], rows: list[Json], targets: list[Json], seeds: int) -> list[_Way]:
    """Every system's way to each target, with no turn taken yet."""
    ways = []
    for target, (racer, row) in itertools.product(targets, zip(racers, rows, strict=True)):
        # A peer runs for its own target: how soon it reaches another's is no question here.
        if racer.peer and racer.name != target["peer"]:
            continue
        found = soonest(row["tried"], target["rmse"])
        given = [race_seeds.given(racer.peer, number, track.threads) for number in range(seeds)]
        if seeds == 1 and racer.peer:
            given = [(None, None)]
        one: Json = {
            "system": racer.name,
            "target": target["peer"],
            "n_factors": track.n_factors,
            "threads": track.threads,
            "settings": found and found[0],
            "reason": None if found else "no settings of the grid reach it",
            "seconds": [],
            "joules": [],
            "seeds": [{"seed": seed, "seconds": [], "rmse": []} for seed, _ in given],
            "seeding": given[0][1],
        }
        ways.append(_Way(racer, one, target["rmse"], found and found[1]))
    return ways


def _take(track: _Track, way: _Way, turn: int, number: int, say: Say) -> None:
    """One turn of a system with one of the seeds, where it has a way at all."""
    racer, row, n_epochs = way.racer, way.row, way.n_epochs
    if n_epochs is None:
        return
    which = f", seed {number}" if len(row["seeds"]) > 1 else ""
    where = f"to the RMSE {way.rmse:.4f} of {row['target']}"
    say(f"round {turn + 1}{which}: K = {track.n_factors}, {racer.name} {where}")
    # Seeds differ, and runs do a little where threads share rows without locks: more epochs, stopped at the target.
    last = n_epochs if racer.peer else 2 * n_epochs
    at = tuple(e for e in racer.epochs if e <= last)
    if racer.peer and len(racer.epochs) < max(racer.epochs):
        at = (n_epochs,)
    one = row["seeds"][number]
    out = track.run(racer, row["settings"], "tune", at, way.rmse, one["seed"])
    if out["status"] != "ok":
        row["reason"] = out["reason"]
        return
    # A peer that falls short of its own best by a hair this time has still run its settings to their end.
    end = out["points"][-1] if racer.peer else None
    point = next((p for p in out["points"] if p["rmse"] <= way.rmse), end)
    one["seconds"].append(point and point["seconds"])
    one["rmse"].append((point or out["points"][-1])["rmse"])
    if point:
        row["seconds"].append(point["seconds"])
        row["joules"].append(point.get("joules"))


def soonest(tried: list[Json], rmse: float) -> tuple[Json, int] | None:
    """Settings and epochs that took the fewest seconds to an RMSE no higher than `rmse`; None where none got there."""
    ways = [
        (seconds, epochs, one["settings"])
        for one in tried
        for epochs, seconds, reached in one["curve"]
        if reached <= rmse
    ]
    if not ways:
        return None
    _, epochs, settings = min(ways, key=lambda way: way[:2])
    return settings, epochs


def ratios(times: list[Json]) -> Iterator[Json]:
    """Our median seconds to each target over those of the peer whose best it is."""
    for mine, other in itertools.product(times, times):
        same = all(mine[key] == other[key] for key in ("target", "n_factors", "threads"))
        if not same or other["system"] != mine["target"] or mine["system"] == mine["target"]:
            continue
        if mine["median_s"] and other["median_s"]:
            yield {key: mine[key] for key in ("system", "target", "n_factors", "threads")} | {
                "ratio": mine["median_s"] / other["median_s"]
            }


def in_range(ends: list[float | None] | None) -> str:
    """The least and the most seconds over several seeds; empty of one."""
    return "" if ends is None else "–".join("∞" if end is None else f"{end:.2f}" for end in ends)


def summary(outcome: Json) -> list[str]:
    """Final RMSEs and seconds to the targets, for a terminal."""
    out = [f"{'K':>4}  {'system':18}{'best valid':>11}{'test RMSE':>11}   settings"]
    for row in outcome["rows"]:
        if row["best"] is None:
            out.append(f"{row['n_factors']:4}  {row['system']:18}  {row['status']}: {row['reason']}")
            continue
        final, best = row["final"] or {}, row["best"]
        test = f"{final['rmse']:11.4f}" if "rmse" in final else f"{'–':>11}"
        out.append(
            f"{row['n_factors']:4}  {row['system']:18}{best['rmse']:11.4f}{test}   "
            f"{in_words(best['settings'])}, {best['epochs']} epochs"
        )
    found = {(r["system"], r["target"], r["n_factors"]): r["ratio"] for r in outcome["ratios"]}
    out += ["", f"{'K':>4}  {'system':18}{'target of':>10}{'seconds':>9}   {'range':11}   over the peer's"]
    for one in outcome["times"]:
        begin = f"{one['n_factors']:4}  {one['system']:18}{one['target']:>10}"
        if one["median_s"] is None:
            out.append(f"{begin}   {one['reason']}")
            continue
        ratio = found.get((one["system"], one["target"], one["n_factors"]))
        spread = in_range(one.get("range_s"))
        out.append(f"{begin}{one['median_s']:9.2f}   {spread:11}   {'' if ratio is None else f'{ratio:.2f}'}".rstrip())
    if outcome.get("seeds", 1) > 2:
        out.append(f"medians and ranges over {outcome['seeds']} seeds without the best and the worst")
    out += outcome.get("notes", [])
    baselines = ", ".join(f"{kind} {rmse:.4f}" for kind, rmse in outcome["baselines"].items())
    out.append(f"test RMSE of predicting {baselines}")
    return out
