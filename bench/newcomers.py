"""Users and items that training has not seen: a tenth is hidden whole, and folded in with few ratings.

``python -m bench newcomers`` writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment
    problem {data, n_users, n_items, n_ratings, n_factors}
    identity: what a run must share with a file that it resumes
    complete, cases {key: {settings, rmse, wall_s}}: the finished fits, in the order of the plan
    sides [{side, facts, draws [{n_train, n_warm, n_hidden, n_rows, n_pairs}], tuned {system: [settings a draw]}}]
    rows [{side, system, way, given, n_rows, n_pairs, rmse, interval, against {system, way, interval, p}}]

A tenth of the users, or of the items, is hidden with all its ratings, and a tenth of what is left is held out: the
``warm`` ratings, whose row has no ``given``. Half of each hidden row's ratings may be given to a system, which then
predicts the other half; how many it is given is ``given``, and by which way they were picked ``way``: in a drawn
order, those of the most rated items (by the most active users), or those that the system suggests to ask for (Eq. 61).
Rows that have fewer to give than the most that is asked for are hidden, and not scored. Settings are chosen by doing
all of this once more inside the training ratings: by the mean of the RMSEs over warm ratings and over every number of
given ones. Intervals are of a bootstrap over the hidden rows, and over the users of warm ratings; differences are
paired.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench import machine, progress, scores
from bench.journal import Journal
from bench.launch import Json
from bench.newcomer_data import PARTS, SIDES, Data, Division, Hidden, Side, hide
from bench.newcomer_systems import BASELINE, PLAIN, SYSTEMS, Fitted, Predictor, System
from mf_numpy import Config
from mf_numpy.errors import ConfigError
from mf_numpy.ratings import Array

SCHEMA, VERSION = "mf-newcomers", 1
GIVEN = (0, 1, 5, 20)
WARM, DRAWN, MOST_RATED, SUGGESTED = "warm", "drawn", "most rated", "suggested"
WAYS = (DRAWN, MOST_RATED, SUGGESTED)
"""How the ratings that are given are picked out of those that may be."""
DRAWS = 4000
"""Of the bootstrap."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is hidden, and how much is given.

    Attributes:
        draws: how often a tenth is hidden, another one each time.
        given: numbers of ratings.
        n_factors, n_epochs: of every fit.
    """

    draws: int = 3
    given: tuple[int, ...] = GIVEN
    n_factors: int = 16
    n_epochs: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.draws <= PARTS or self.n_factors < 1:
            raise ConfigError(
                f"draws {self.draws} and n_factors {self.n_factors} came; draws must be 1 to {PARTS}, and K 1 or more"
            )
        if not self.given or min(self.given) < 0 or sorted(set(self.given)) != list(self.given):
            raise ConfigError(f"given is {self.given}, but must be numbers from 0 on, each larger than the last")

    @property
    def config(self) -> Config:
        """What all fits share."""
        return Config(solver="lbfgs", n_factors=self.n_factors, n_epochs=self.n_epochs, dtype="float64")


@dataclass(frozen=True)
class Step:
    """A fit: a point of a system's grid inside the training ratings of a draw, or the best point on that draw."""

    side: Side
    draw: int
    system: System
    point: int | None = None

    @property
    def key(self) -> str:
        """Its name in the file."""
        what = "best" if self.point is None else f"point {self.point}"
        return f"{self.side}, draw {self.draw}, {self.system.name}, {what}"

    @property
    def kind(self) -> str:
        """Steps of one kind take alike."""
        return f"{self.side}, {self.system.name}"

    @property
    def work(self) -> float:
        """All of a kind do the same."""
        return 1.0


@dataclass
class _Bench:
    """What all steps share; the division that is at work is kept."""

    data: Data
    plan: Plan
    all_systems: tuple[System, ...]
    _kept: dict[tuple[Side, int, bool], Division] = field(default_factory=dict)

    def division(self, side: Side, draw: int, *, tuning: bool) -> Division:
        """A draw, or for `tuning` what is hidden inside its training ratings."""
        key = side, draw, tuning
        if key not in self._kept:
            most = self.plan.given[-1]
            if tuning:
                train = self.division(side, draw, tuning=False).train
                self._kept[key] = hide(train, side, 0, most=most, seed=1 + draw)
            else:
                self._kept[key] = hide(self.data.ratings, side, draw, most=most)
        return self._kept[key]

    def systems(self, side: Side) -> list[System]:
        """Those that can be fitted with what is known of a side."""
        return [system for system in self.all_systems if side in self.data.facts or not system.facts]

    def steps(self) -> Iterator[Step]:
        for side in SIDES:
            for draw in range(self.plan.draws):
                for system in self.systems(side):
                    points = range(len(system.grid)) if len(system.grid) > 1 else ()
                    yield from (Step(side, draw, system, point) for point in points)
                    yield Step(side, draw, system)

    def squares(self, predictor: Predictor, division: Division, ways: tuple[str, ...]) -> dict[str, Array]:
        """Squared errors by column: of the warm ratings, and of the hidden rows' for each number of given ones."""
        warm = division.warm
        out = {WARM: self._squares(predictor.warm(), warm.values[warm.known])}
        for way in ways:
            orders = [_ordered(predictor, division, one, way, self.plan.given[-1]) for one in division.hidden]
            # Nobody picks what is not given.
            for given in (n for n in self.plan.given if n or way == DRAWN):
                told = [order.iloc[:given] for order in orders]
                predicted = [predictor.cold(*pair) for pair in zip(division.hidden, told, strict=True)]
                out[column(way, given)] = self._squares(np.concatenate(predicted), division.values)
        return out

    def _squares(self, predicted: Array, values: Array) -> Array:
        scale = self.data.ratings.scale
        return np.square((predicted if scale is None else np.clip(predicted, *scale)).astype(np.float64) - values)


def _ordered(predictor: Predictor, division: Division, hidden: Hidden, way: str, most: int) -> pd.Series[float]:
    """The offered ratings of a hidden row, in the order in which they are given."""
    if way == SUGGESTED:
        assert isinstance(predictor, Fitted)
        return predictor.suggested(hidden, most)
    if way == MOST_RATED:
        train = division.train
        ids, counts = (
            (train.item_ids, train.item_counts) if division.side == "user" else (train.user_ids, train.user_counts)
        )
        return hidden.offered.iloc[np.argsort(-counts[ids.encode(hidden.offered.index)], kind="stable")]
    return hidden.offered


def column(way: str, given: int | None) -> str:
    """The name of a number of given ratings that were picked by a way."""
    return way if given is None else f"{way} {given}"


def measure(
    data: Data,
    plan: Plan | None = None,
    *,
    path: Path,
    systems: tuple[System, ...] = SYSTEMS,
    resume: bool = False,
    say: Say = lambda text: None,
) -> Json:
    """Hide, fit, fold in and score; `path` grows fit by fit.

    Ctrl-C keeps what is done; a later run with `resume` goes on from there.

    Raises:
        ConfigError: a file that is there, unfinished, or of another run.
        DataError: too few ratings to hide any row.
    """
    bench = _Bench(data, plan or Plan(), systems)
    steps = list(bench.steps())
    journal = Journal(path, _head(bench), resume=resume, anew=True)
    return progress.worked_off(
        steps, journal, lambda step: _carry_out(step, bench, journal), lambda: _judged(bench, journal), say
    )


def _head(bench: _Bench) -> Json:
    about, ratings, plan = machine.record(machine.usable_cores()), bench.data.ratings, bench.plan
    sizes = {"n_users": ratings.n_users, "n_items": ratings.n_items, "n_ratings": len(ratings)}
    identity = {
        "data": ratings.fingerprint,
        "code": about["code"],
        "machine": about["machine"],
        "packages": about["packages"],
        "draws": plan.draws,
        "given": plan.given,
        "n_factors": plan.n_factors,
        "n_epochs": plan.n_epochs,
        "facts": {side: facts.about for side, facts in bench.data.facts.items()},
        "systems": [{"system": one.name, "grid": [dict(point) for point in one.grid]} for one in bench.all_systems],
    }
    problem = {"data": bench.data.name, **sizes, "n_factors": plan.n_factors}
    nothing: Json = {"sides": [], "rows": []}
    return {"schema": SCHEMA, "schema_version": VERSION, **about, "problem": problem, "identity": identity} | nothing


def _carry_out(step: Step, bench: _Bench, journal: Journal) -> None:
    began = time.perf_counter()
    settings = step.system.grid[step.point] if step.point is not None else _tuned(step, journal.cases)
    division = bench.division(step.side, step.draw, tuning=step.point is not None)
    predictor = step.system.make(division, bench.data.facts.get(step.side), settings, bench.plan.config)
    asked = step.system.asks and step.point is None
    found = bench.squares(predictor, division, WAYS if asked else (DRAWN,))
    rmse = {name: float(np.sqrt(squares.mean())) for name, squares in found.items()}
    outcome = {"settings": dict(settings), "rmse": rmse, "wall_s": time.perf_counter() - began}
    journal.keep(step.key, outcome, found if step.point is None else None)


def _tuned(step: Step, cases: Json) -> Json:
    """The settings of a draw with the least mean of RMSEs inside its training ratings."""
    grid = step.system.grid
    if len(grid) == 1:
        return dict(grid[0])
    tried = [cases[Step(step.side, step.draw, step.system, point).key] for point in range(len(grid))]
    chosen: Json = min(tried, key=lambda one: float(np.mean(list(one["rmse"].values()))))["settings"]
    return chosen


def _judged(bench: _Bench, journal: Journal) -> Json:
    """Sides and rows, of systems that have every draw."""
    sides: list[Json] = []
    rows: list[Json] = []
    for side in SIDES:
        draws = range(bench.plan.draws)
        done = [
            system
            for system in bench.systems(side)
            if all(Step(side, draw, system).key in journal.cases for draw in draws)
        ]
        if not done:
            continue
        divisions = [bench.division(side, draw, tuning=False) for draw in draws]
        facts = bench.data.facts.get(side)
        sides.append(
            {
                "side": side,
                "facts": facts.about if facts else None,
                "draws": [
                    {
                        "n_train": len(one.train),
                        "n_warm": one.warm.n_scored,
                        "n_hidden": one.n_hidden,
                        "n_rows": len(one.hidden),
                        "n_pairs": len(one.values),
                    }
                    for one in divisions
                ],
                "tuned": {
                    one.name: [journal.cases[Step(side, draw, one).key]["settings"] for draw in draws] for one in done
                },
            }
        )
        rows += _rows(side, done, divisions, journal)
    return {"sides": sides, "rows": rows}


def _rows(side: Side, systems: list[System], divisions: list[Division], journal: Journal) -> Iterator[Json]:
    """A row for each system and column, with its interval and its difference from what it is compared with."""
    found: dict[tuple[str, str], list[scores.Errors]] = {}
    for system in systems:
        keys = [Step(side, draw, system).key for draw in range(len(divisions))]
        for name in journal.cases[keys[0]]["rmse"]:
            found[system.name, name] = [
                scores.Errors(one.warm.users[one.warm.known] if name == WARM else one.rows, journal.array(key, name))
                for one, key in zip(divisions, keys, strict=True)
            ]
    drawn: dict[tuple[str, str], Array] = {}
    for warm in (True, False):
        group = {key: errors for key, errors in found.items() if (key[1] == WARM) == warm}
        each = scores.draws(list(group.values()), n=DRAWS)
        drawn |= {key: one.rmse for key, one in zip(group, each, strict=True)}
    for (name, at), errors in found.items():
        way, _, given = at.rpartition(" ") if at != WARM else (WARM, "", None)
        squares = np.concatenate([one.square for one in errors])
        other, of_way = _against(name, way)
        against = other, of_way if given is None else f"{of_way} {given}"
        yield {
            "side": side,
            "system": name,
            "way": way,
            "given": None if given is None else int(given),
            "n_rows": sum(len(np.unique(one.users)) for one in errors),
            "n_pairs": len(squares),
            "rmse": float(np.sqrt(squares.mean())),
            "interval": scores.interval(drawn[name, at]),
            "against": None
            if against not in drawn
            else {"system": other, "way": of_way} | scores.versus(drawn[name, at], drawn[against]),
        }


def as_drawn(rows: Sequence[Json], side: str, system: str, given: int | None) -> Json | None:
    """The row of a system with so many ratings as they were drawn, or of its warm ones for None; None without."""
    way = WARM if given is None else DRAWN
    wanted = side, system, way, given
    return next((r for r in rows if tuple(r[key] for key in ("side", "system", "way", "given")) == wanted), None)


def summary(outcome: Json) -> Iterator[str]:
    """A line for each system on each side: RMSE with each number of given ratings, and of warm ones."""
    names = list(dict.fromkeys((row["side"], row["system"]) for row in outcome["rows"]))
    given = outcome["identity"]["given"]
    yield f"{'hidden':8}{'system':18}" + "".join(f"{f'{n} given':>10}" for n in given) + f"{WARM:>10}"
    for side, system in names:
        found = [as_drawn(outcome["rows"], side, system, n) for n in (*given, None)]
        yield f"{side + 's':8}{system:18}" + "".join(
            f"{'-' if x is None else format(x['rmse'], '.4f'):>10}" for x in found
        )


def _against(system: str, way: str) -> tuple[str, str]:
    """System and way that a column is compared with; nothing for what the others are compared with."""
    if way in (MOST_RATED, SUGGESTED):
        return system, MOST_RATED if way == SUGGESTED else DRAWN
    other = PLAIN if way == WARM else BASELINE
    return ("", "") if system in ("mean", other) else (other, way)
