"""Rows out of outcomes: differences from the reference, and which of them a row must not exceed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench import cost, equality, result
from bench.cases import Case
from mf_numpy import Config, Ratings
from mf_numpy.model import Params
from mf_numpy.ratings import Array

Json = dict[str, Any]


@dataclass(eq=False)
class Problem:
    """What the cases of one problem share, and what came of each.

    Attributes:
        train: ratings trained on.
        config: the reference's configuration.
        outcomes: by case, in running order.
        arrays: parameters by case and ``epoch/name``.
    """

    train: Ratings
    config: Config
    outcomes: dict[Case, Json] = field(default_factory=dict)
    arrays: dict[Case, dict[str, Array]] = field(default_factory=dict)

    def record(self) -> Json:
        """What the result file says of the problem."""
        return {
            "config": self.config.to_dict(),
            "n_ratings": len(self.train),
            "n_users": self.train.n_users,
            "n_items": self.train.n_items,
        }


def judge(problem: Problem, rmse_range: tuple[float, float] | None) -> tuple[list[Json], float | None]:
    """Rows of a problem, and its measured float64 drift.

    Args:
        rmse_range: lowest and highest allowed validation RMSE in rating units, or None where nothing is known.
    """
    reference = next((c for c in problem.outcomes if c.is_reference and problem.outcomes[c]["status"] == "ok"), None)
    differences = {case: _difference(problem, case, reference) for case in problem.outcomes}
    drifts = [
        d["largest"]
        for case, d in differences.items()
        if d is not None and case.dtype == "float64" and not case.is_reference
    ]
    # A float64 run out of its own bound measures a fault, not a drift.
    drifts = [drift for drift in drifts if drift <= equality.FLOAT64_BOUND]
    drift = max(drifts) if drifts else None
    top = None if reference is None else _last_params(problem, reference)
    rows = []
    for case, outcome in problem.outcomes.items():
        row = case.to_dict() | _blank() | outcome
        row["n_ratings"] = len(problem.train)
        if row["status"] == "ok":
            time(row, problem)
            row["difference"] = differences[case]
            reason = _fault(row, case, reference, drift, top, rmse_range, problem)
            if reason:
                row |= {"status": "FAILED", "reason": reason}
        elif row["status"] == "failed":
            row["status"] = "FAILED"
        rows.append(row)
    return rows, drift


def _blank() -> Json:
    names = ("check", "warm_up", "samples_ms", "timing", "cost", "history", "final", "difference")
    return dict.fromkeys(
        (*names, "peak_memory_bytes", "peak_cuda_bytes", "threads", "pools", "gpu", "others_busy_cores")
    )


def time(row: Json, problem: Problem) -> None:
    """Fill in the samples of the row's history, their median and spread, and the rates they amount to."""
    row["samples_ms"] = [record["seconds"] * 1e3 for record in row["history"]]
    row["timing"] = result.timing(row["samples_ms"], len(problem.train))
    work = cost.per_rating(
        row["backend"],
        problem.config.n_factors,
        row["dtype"],
        rows=problem.train.n_users + problem.train.n_items,
        n_ratings=len(problem.train),
        cells=problem.train.n_users * problem.train.n_items,
    )
    rate = row["timing"]["ratings_per_s"]
    row["cost"] = {
        "flops_per_rating": work.flops,
        "bytes_per_rating": work.bytes,
        "gflops_per_s": work.flops * rate / 1e9,
        "gbytes_per_s": work.bytes * rate / 1e9,
    }


def _difference(problem: Problem, case: Case, reference: Case | None) -> Json | None:
    """Relative differences from the reference: parameters at the kept epochs, the loss at every epoch."""
    if reference is None or problem.outcomes[case]["status"] != "ok":
        return None
    found, expected = _by_epoch(problem.arrays[case]), _by_epoch(problem.arrays[reference])
    history, wanted = problem.outcomes[case]["history"], problem.outcomes[reference]["history"]
    losses = equality.relative_each([r["objective"] for r in history], [r["objective"] for r in wanted])
    steps = [{"epoch": e, "params": equality.relative(found.get(e, {}), expected[e])} for e in sorted(expected)]
    return {
        "params": steps[-1]["params"],
        "loss": max(losses, default=math.inf),
        "largest": max([step["params"] for step in steps] + losses),
        "steps": steps,
        "losses": losses,
    }


def _fault(
    row: Json,
    case: Case,
    reference: Case | None,
    drift: float | None,
    top: Params | None,
    rmse_range: tuple[float, float] | None,
    problem: Problem,
) -> str | None:
    """Why a run that finished must not count, or None. Never a matter of time."""
    if reference is None or top is None:
        return "the reference (numpy float64) did not finish, so nothing shows that this run is right"
    difference = row["difference"]
    limit = equality.bound(case.dtype, drift)
    difference["bound"] = limit
    if limit is None:
        return "no second float64 backend agreed with the reference, so the float32 bound is unknown"
    if not difference["largest"] <= limit:
        off = difference["largest"]
        return f"parameters or loss differ from the reference by {off:.2e}, but at most {limit:.2e} is allowed"
    expected = problem.outcomes[reference]["final"]
    allowed = equality.rmse_bound(top, difference["params"], case.dtype)
    for side in ("train_rmse", "valid_rmse"):
        value, wanted = row["final"][side], expected[side]
        if (value is None) != (wanted is None) or (value is not None and not abs(value - wanted) <= allowed):
            return f"{side} is {value}, but the reference has {wanted}; at most {allowed:.1e} apart is allowed"
    valid = row["final"]["valid_rmse"]
    if case.problem == "full" and rmse_range is not None and not rmse_range[0] <= valid <= rmse_range[1]:
        low, high = rmse_range
        return f"validation RMSE is {valid:.4f}, but the noise floor allows {low:.4f} to {high:.4f}"
    return None


def _by_epoch(arrays: Mapping[str, Array]) -> dict[int, dict[str, Array]]:
    out: dict[int, dict[str, Array]] = {}
    for key, array in arrays.items():
        epoch, name = key.split("/", 1)
        out.setdefault(int(epoch), {})[name] = array
    return out


def _last_params(problem: Problem, case: Case) -> Params:
    points = _by_epoch(problem.arrays[case])
    return Params.of(points[max(points)], problem.train.mean)
