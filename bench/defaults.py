"""What the solvers' defaults are worth: each set to other values, by the RMSE of ratings that were held out.

``python -m bench defaults`` writes version 1 of:
    schema, schema_version, created, git, code, machine, gpu, packages, environment
    problems [{data, n_users, n_items, n_train, n_valid}]
    complete: whether every value had its turn
    rows [{data, solver, step_rule, setting, value, chosen, n_factors, status (of the fit), epochs, rmse, seconds}]

One setting is moved at a time, all others being the solver's defaults. Fitted is what is left of the training side of
the data after a tenth of it is held out for this; the test side of other benchmarks is not looked at. ``rmse`` is that
after the last epoch, as a user gets it who gives nothing but the data; it is null where the fit diverged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from bench import machine, result
from bench.launch import Json
from bench.suite import Data
from bench.whole_fit import fit
from mf_numpy import Config, Split, random_split
from mf_numpy.errors import ConfigError

SCHEMA, VERSION = "mf-defaults", 1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """A default and the values that are tried beside it.

    Attributes:
        solver, step_rule: whose default it is.
        name: a field of `Config`.
        values: what is tried.
    """

    solver: str
    name: str
    values: tuple[float, ...]
    step_rule: str = "momentum"

    @property
    def config(self) -> Config:
        """The defaults of the solver and the step rule."""
        return Config(solver=self.solver, step_rule=self.step_rule)  # type: ignore[arg-type]

    @property
    def chosen(self) -> float:
        """The default."""
        config = self.config
        value: float = config.start_scale if self.name == "init_scale" else getattr(config, self.name)
        return value


REGS = (0.025, 0.05, 0.1, 0.2)
SETTINGS = (
    Setting("gd", "lr", (12.5, 25, 100)),
    Setting("gd", "momentum", (0.0, 0.8, 0.95)),
    Setting("gd", "n_epochs", (50, 100, 400)),
    Setting("gd", "lr", (0.003, 0.03, 0.1), "adam"),
    Setting("gd", "lr", (0.01, 0.1, 0.3), "adagrad"),
    Setting("sgd", "lr", (0.0025, 0.005, 0.02)),
    Setting("sgd", "lr_decay", (0.9, 0.97, 1.0)),
    Setting("sgd", "init_scale", (0.001, 0.03, 0.1)),
    Setting("sgd", "n_epochs", (12, 25, 100)),
    Setting("sgd", "lr", (0.01, 0.05, 0.1), "adagrad"),
    Setting("als", "init_scale", (0.01, 0.03, 0.3)),
    Setting("als", "n_epochs", (4, 8, 30)),
    Setting("cd", "n_epochs", (4, 8, 30)),
    Setting("lbfgs", "n_epochs", (25, 50, 200)),
    *(Setting(solver, "reg", REGS) for solver in ("gd", "sgd", "als", "cd", "lbfgs")),
)


def measure(data: Iterable[Data], *, settings: tuple[Setting, ...] = SETTINGS, say: Say = lambda text: None) -> Json:
    """Fit with every value of every setting, on all data. Ctrl-C keeps what is done.

    Raises:
        ConfigError: no data.
    """
    problems: list[Json] = []
    rows: list[Json] = []
    complete = False
    try:
        for one in data:
            split = random_split(one.train, valid=0.1, seed=1)
            about = {"data": one.name, "n_users": one.train.n_users, "n_items": one.train.n_items}
            problems.append(about | {"n_train": len(split.train), "n_valid": len(split.valid)})
            rows += _rows(one.name, split, settings, say)
        complete = True
    except KeyboardInterrupt:
        if not rows:
            raise
        say("interrupted: what was measured is kept")
    if not problems:
        raise ConfigError("no data came; give one or more names")
    cleaned: Json = result.clean(
        {
            "schema": SCHEMA,
            "schema_version": VERSION,
            **machine.record(machine.usable_cores()),
            "problems": problems,
            "complete": complete,
            "rows": rows,
        }
    )
    return cleaned


def _rows(name: str, split: Split, settings: tuple[Setting, ...], say: Say) -> Iterator[Json]:
    # A solver's defaults come up with each of its settings; they are fitted once.
    known: dict[Config, Json] = {}
    for setting in settings:
        for value in sorted({setting.chosen, *setting.values}):
            say(f"{name}: {setting.solver} {setting.step_rule}, {setting.name} = {value:g}")
            config = setting.config
            if value != setting.chosen:
                config = Config.from_dict(config.to_dict() | {setting.name: value})
            found = known.get(config) or _fitted(split, config)
            known[config] = found
            about = {"data": name, "solver": setting.solver, "step_rule": setting.step_rule, "setting": setting.name}
            yield about | {"value": value, "chosen": value == setting.chosen, "n_factors": config.n_factors} | found


def _fitted(split: Split, config: Config) -> Json:
    began = time.perf_counter()
    # Only the last epoch's score is asked for.
    found = fit(split.train, replace(config, eval_every=config.n_epochs), valid=split.valid)
    spent = time.perf_counter() - began
    rmse = None if found.status == "diverged" else found.score(split.valid).rmse
    return {"status": found.status, "epochs": len(found.history), "rmse": rmse, "seconds": spent}


def beside(rows: list[Json]) -> Iterator[tuple[Json, list[Json]]]:
    """Every default's row, and the rows of the other values of that setting on that data."""
    keys = "data", "solver", "step_rule", "setting"
    for row in rows:
        if row["chosen"]:
            yield row, [other for other in rows if other is not row and all(other[k] == row[k] for k in keys)]


def summary(outcome: Json) -> list[str]:
    """A line for each default on each data set: its RMSE, and what other values add to it."""
    out = [f"{'data':14}{'solver':8}{'rule':10}{'default':20}{'RMSE':>8}   other values"]
    for row, others in beside(outcome["rows"]):
        name = f"{row['setting']} {row['value']:g}"
        rmse = "diverged" if row["rmse"] is None else f"{row['rmse']:.4f}"
        line = f"{row['data']:14}{row['solver']:8}{row['step_rule']:10}{name:20}{rmse:>8}"
        out.append(line + "   " + ", ".join(f"{other['value']:g}: {difference(other, row)}" for other in others))
    return out


def difference(other: dict[str, Any], row: dict[str, Any]) -> str:
    """What another value adds to the RMSE of the default."""
    if other["rmse"] is None or row["rmse"] is None:
        return "diverged" if other["rmse"] is None else f"{other['rmse']:.4f}"
    return f"{other['rmse'] - row['rmse']:+.4f}"
