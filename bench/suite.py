"""Runs the cases of a suite one after the other, judges them, and writes result and report.

Needs neither cyclopts nor rich: on a bare machine ``python -m bench.suite`` takes its options from the variables
BENCH_DATA, BENCH_SUITE, BENCH_ONLY (comma-separated), BENCH_EPOCHS, BENCH_FACTORS and OUT.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bench import equality, machine, result, worker
from bench.cases import (
    PRESETS,
    Case,
    Preset,
    as_holdout,
    check_epochs,
    choose_cases,
    full_config,
    slice_config,
    sliced,
    snapshots,
)
from bench.judge import Problem, judge
from bench.launch import Json, Launch, in_fresh_process
from mf_numpy import Holdout, Ratings, random_split
from mf_numpy.baselines import mean_and_bias_scores
from mf_numpy.errors import choose
from mf_numpy.planted import ANIME_FULL, DEFAULT, PlantedConfig, planted

SMOKE_DATA = PlantedConfig(n_users=300, n_items=200, n_ratings=24_000, n_factors=2)
"""The small set of the smoke suite."""

SPLIT = {"kind": "random", "valid": 0.2, "seed": 0}
NAMED = ("planted", "planted-anime", "anime", "ml-100k", "ml-1m", "ml-10m", "ml-25m", "ml-32m", "netflix")

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Data:
    """What is trained on and scored.

    Attributes:
        name: of the data set; a file of the user's own has none that may be written down.
        train, valid: the two sides of the split.
        noise_floor: RMSE of the truth on the scored pairs in rating units, or None where nobody knows it.
    """

    name: str
    train: Ratings
    valid: Holdout
    noise_floor: float | None

    def record(self) -> Json:
        """What the result file says of the data."""
        return {
            "name": self.name,
            "fingerprint": self.train.fingerprint,
            "split": SPLIT,
            "n_users": self.train.n_users,
            "n_items": self.train.n_items,
            "n_train": len(self.train),
            "n_valid": len(self.valid),
            "n_scored": self.valid.n_scored,
            "n_cold": self.valid.n_cold,
            "noise_floor": self.noise_floor,
        }


def load_data(name: str, suite: str = "default", *, drawn: PlantedConfig | None = None) -> Data:
    """The data set of a name or file, split at random; planted data with its noise floor.

    ``planted-anime`` has the size and shape of the full anime table.

    Args:
        drawn: for ``planted``, what to draw instead of the suite's own set.

    Raises:
        ConfigError, DataError, OSError: as `mf_numpy.datasets.load`.
    """
    if name in ("planted", "planted-anime"):
        usual = ANIME_FULL if name == "planted-anime" else SMOKE_DATA if suite == "smoke" else DEFAULT
        truth = planted(drawn or usual)
        split = random_split(truth.ratings, valid=0.2, seed=0)
        return Data(name, split.train, split.valid, truth.noise_floor_of(split.train, split.valid))
    from mf_numpy.datasets import load

    split = random_split(load(name), valid=0.2, seed=0)
    return Data(name if name in NAMED else "a file of the user's own", split.train, split.valid, None)


def run_suite(
    data: str | Data = "planted",
    suite: Literal["default", "smoke"] | str = "default",
    *,
    epochs: int | None = None,
    n_factors: int | None = None,
    lr: float | None = None,
    only: tuple[str, ...] = (),
    threads: int | None = None,
    seed: int = 0,
    launch: Launch = in_fresh_process,
    say: Say = lambda text: None,
) -> Json:
    """Check and time every case; the result has a row for each, whatever became of it.

    Args:
        data: a data set's name, a file, or loaded `Data`.
        suite: ``default`` or ``smoke`` (small, never judged by time).
        epochs, n_factors, lr: override the suite's iterations, K and η.
        only: backends to keep, see `bench.cases.choose_cases`.
        threads: for every library; by default all usable cores.
        launch: how a case is run.
        say: called with a line of progress.

    Returns:
        The result as `bench.result` describes it; ``ok`` is False when a row FAILED. Ctrl-C ends the case under
        way, keeps the finished ones and sets ``interrupted``.

    Raises:
        ConfigError: a setting outside what is allowed.
    """
    preset = PRESETS[choose("suite", suite, PRESETS)]
    cases = choose_cases(only)
    preset = replace(
        preset,
        n_epochs=check_epochs(preset.n_epochs if epochs is None else epochs),
        n_factors=preset.n_factors if n_factors is None else n_factors,
    )
    threads = machine.usable_cores() if threads is None else threads
    loaded = load_data(data, suite) if isinstance(data, str) else data
    problems = _problems(loaded, preset, seed=seed, lr=lr)
    # Set by the data and K alone; a run cut short has not had the epochs to get there.
    converged = preset.n_epochs >= PRESETS[suite].n_epochs and lr is None
    allowed = _rmse_range(loaded, preset) if converged else None

    interrupted = False
    with tempfile.TemporaryDirectory(prefix="mf-bench-") as name:
        folder = Path(name)
        try:
            _write_problems(folder, loaded, problems, preset)
            for at, case in enumerate(cases, 1):
                say(f"{at}/{len(cases)} {case.problem}: {case.backend} on {case.device}, {case.dtype}")
                _run_one(case, problems, threads, folder, launch)
                outcome = problems[case.problem].outcomes[case]
                if outcome["status"] != "ok":
                    say(f"  {outcome['status']}: {outcome['reason']}")
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted; finished cases are kept")
    for case in cases:
        problems[case.problem].outcomes.setdefault(case, {"status": "not run", "reason": "interrupted"})
    ran: Json = {"threads": threads, "seed": seed, "interrupted": interrupted}
    return _result(loaded, suite, problems, allowed, converged, **ran)


def _problems(data: Data, preset: Preset, *, seed: int, lr: float | None) -> dict[str, Problem]:
    config = full_config(data.train, preset, seed=seed, lr=lr)
    part = sliced(data.train, preset.slice_ratings)
    small = sliced(data.train, preset.check_ratings)
    return {
        "full": Problem(data.train, config),
        "slice": Problem(part, slice_config(config, part, preset, preset.slice_epochs)),
        "check": Problem(small, slice_config(config, small, preset, preset.check_epochs)),
    }


def _write_problems(folder: Path, data: Data, problems: dict[str, Problem], preset: Preset) -> None:
    for name, problem in problems.items():
        valid = data.valid if name == "full" else as_holdout(problem.train)
        worker.save_data(folder / f"{name}.npz", problem.train, valid)


def _run_one(case: Case, problems: dict[str, Problem], threads: int, folder: Path, launch: Launch) -> None:
    problem = problems[case.problem]
    for done, outcome in problem.outcomes.items():
        # One answer is enough where the machine has no such device.
        if (done.backend, done.device) == (case.backend, case.device) and outcome["status"] == "not run":
            problem.outcomes[case] = dict(outcome)
            return
    order = {
        "case": case.to_dict(),
        "config": problem.config.to_dict(),
        "data": f"{case.problem}.npz",
        "check": {"config": problems["check"].config.to_dict(), "data": "check.npz"},
        "snapshots": snapshots(problem.config.n_epochs),
        "threads": threads,
    }
    before = machine.clock()
    outcome, arrays = launch(case, order, folder)
    busy = machine.others_busy(before, machine.clock())
    problem.outcomes[case], problem.arrays[case] = outcome | {"others_busy_cores": busy}, arrays


def _rmse_range(data: Data, preset: Preset) -> tuple[float, float] | None:
    if data.noise_floor is None:
        return None
    parameters = (data.train.n_users + data.train.n_items) * (preset.n_factors + 1)
    return equality.rmse_range(data.noise_floor, len(data.train), parameters, data.valid.n_scored)


def _result(
    data: Data,
    suite: str,
    problems: dict[str, Problem],
    allowed: tuple[float, float] | None,
    converged: bool,
    *,
    threads: int,
    seed: int,
    interrupted: bool,
) -> Json:
    rows: list[Json] = []
    described = {}
    for name in ("slice", "full"):
        if problems[name].outcomes:
            found, drift = judge(problems[name], allowed)
            rows += found
            described[name] = problems[name].record() | {"float64_drift": drift}
    scores = mean_and_bias_scores(data.train, data.valid)
    gpu = machine.gpus() or [row["gpu"] for row in rows if row["gpu"]][:1] or None
    reasons = [row for row in rows if row["status"] == "FAILED"]
    out: Json = {
        "schema": result.SCHEMA,
        "schema_version": result.VERSION,
        **machine.record(threads),
        "suite": suite,
        "ok": not reasons and not interrupted,
        "interrupted": interrupted,
        "verdict": "",
        "gpu": gpu,
        "data": data.record(),
        "baselines": {
            name: {"rmse": s.rmse, "mae": s.mae, "n_scored": s.n_scored, "n_cold": s.n_cold}
            for name, s in scores.items()
        },
        "seed": seed,
        "problems": described,
        "rules": {
            "float64_bound": equality.FLOAT64_BOUND,
            "safety": equality.SAFETY,
            "eps32_over_eps64": equality.EPS["float32"] / equality.EPS["float64"],
            "rmse_range": allowed,
            "rmse_judged": allowed is not None,
            "rmse_not_judged_because": _unjudged(data, allowed, converged),
        },
        "rows": rows,
    }
    out["verdict"] = result.verdict(out)
    cleaned: Json = result.clean(out)
    return cleaned


def _unjudged(data: Data, allowed: tuple[float, float] | None, converged: bool) -> str | None:
    if allowed is not None:
        return None
    if data.noise_floor is None:
        return "nobody knows the noise floor of real data"
    if not converged:
        return "fewer epochs than the suite's own, or another learning rate"
    return "more parameters than ratings"


def write(outcome: Json, folder: Path) -> tuple[Path, Path]:
    """Write ``result.json`` and ``report.html`` into `folder`, each in one step; returns their paths."""
    from bench import report

    json_path, html_path = folder / "result.json", folder / "report.html"
    result.write_atomically(json_path, result.to_text(outcome))
    result.write_atomically(html_path, report.render(outcome))
    return json_path, html_path


def exit_code(outcome: Json) -> int:
    """0; 1 when a row FAILED; 130 after Ctrl-C."""
    if any(row["status"] == "FAILED" for row in outcome["rows"]):
        return 1
    return 130 if outcome["interrupted"] else 0


def main() -> int:
    """The suite without a command line: see the module."""
    from bench import table

    value = os.environ.get
    numbers = {name: int(text) if (text := value(name)) else None for name in ("BENCH_EPOCHS", "BENCH_FACTORS")}
    outcome = run_suite(
        value("BENCH_DATA") or "planted",
        value("BENCH_SUITE") or "default",
        epochs=numbers["BENCH_EPOCHS"],
        n_factors=numbers["BENCH_FACTORS"],
        only=tuple(name for name in (value("BENCH_ONLY") or "").split(",") if name),
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    json_path, html_path = write(outcome, Path(value("OUT") or machine.ROOT / "bench" / "out"))
    print(table.plain(outcome))
    print(f"{json_path}\n{html_path}\n{outcome['verdict']}")
    return exit_code(outcome)


if __name__ == "__main__":
    sys.exit(main())
