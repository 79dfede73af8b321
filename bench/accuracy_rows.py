"""What an accuracy run says of its systems, from the fits that are done: a row each, compared, and in words."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np

from bench import installed, scores
from bench.accuracy_plan import Step, tuned
from bench.journal import Journal
from bench.launch import Json
from bench.peers import registry
from bench.protocols import Fold
from bench.race import in_words
from bench.systems import System
from mf_numpy.baselines import mean_and_bias_scores


def judged(folds: list[Fold], systems: tuple[System, ...], journal: Journal) -> Json:
    """``tests``, ``systems`` and ``pairs`` of a run, as far as it got (`bench.accuracy`)."""
    found: dict[str, list[scores.Errors]] = {}
    rows = []
    for system in systems:
        row, errors = _row(system, folds, journal)
        rows.append(row)
        if errors:
            found[system.name] = errors
    drawn = dict(zip(found, scores.draws(list(found.values())), strict=True))
    best = next(iter(ranked({"systems": rows})), None)
    for row in rows:
        if row["rmse"] is not None:
            mine = drawn[row["system"]].rmse
            row["interval"] = scores.interval(mine)
            if best is not None and row is not best:
                row["behind"] = {"of": best["system"]} | scores.versus(mine, drawn[best["system"]].rmse)
    return {"tests": [_test(fold) for fold in folds], "systems": rows, "pairs": scores.pairs(drawn)}


def _row(system: System, folds: list[Fold], journal: Journal) -> tuple[Json, list[scores.Errors]]:
    """A system's row, and its errors on each test where it has them all."""
    cases, keys = journal.cases, [Step(system, fold=k).key for k in range(len(folds))]
    done = [cases.get(key) for key in keys]
    bad = next((one for one in done if one is None or one["status"] != "ok"), None)
    good = [one for one in done if one and one["status"] == "ok"]
    status = {"status": "ok", "reason": None}
    if len(good) < len(done):
        status = {name: bad[name] for name in status} if bad else {"status": "not run", "reason": "interrupted"}
    peer = registry.PEERS.get(system.peer)
    row: Json = {
        "system": system.name,
        "method": peer.method if peer else "",
        "licence": peer.licence if peer else "",
        **{name: good[0].get(name) if good else None for name in ("version", "precision", "threads")},
        "install_mib": installed.mib_of(peer) if peer else installed.mib_of_ours(torch=system.backend == "torch"),
        **status,
        "tuned": tuned(system, cases),
        "folds": [
            {name: one.get(name) for name in ("rmse", "mae", "rmse_all", "seconds", "wall_s", "peak_bytes", "joules")}
            for one in good
        ],
        **dict.fromkeys(("rmse", "mae", "rmse_all", "interval", "seconds", "behind"), None),
    }
    if status["status"] != "ok":
        return row, []
    predicted = [journal.array(key, "predictions") for key in keys]
    sides = [fold.split for fold in folds]
    errors = [scores.errors(p, side.valid) for p, side in zip(predicted, sides, strict=True)]
    sizes = [side.valid.n_scored for side in sides]
    row |= {
        "rmse": float(np.sqrt(np.concatenate([one.square for one in errors]).mean())),
        "mae": float(np.average([one["mae"] for one in good], weights=sizes)),
        "rmse_all": float(
            np.sqrt(np.average([one["rmse_all"] ** 2 for one in good], weights=[len(side.valid) for side in sides]))
        ),
        "seconds": statistics.median(one["seconds"] for one in good),
        "calibration": scores.calibration(predicted, [side.valid for side in sides]),
    }
    for name, counts, place in (("by_user", "user_counts", "users"), ("by_item", "item_counts", "items")):
        row[name] = scores.by_activity(
            errors,
            [getattr(side.train, counts) for side in sides],
            [getattr(side.valid, place)[side.valid.known] for side in sides],
        )
    return row, errors


def _test(fold: Fold) -> Json:
    train, test = fold.split.train, fold.split.valid
    return {
        "n_train": len(train),
        "n_scored": test.n_scored,
        "n_cold": test.n_cold,
        "n_users": train.n_users,
        "n_items": train.n_items,
        "fingerprint": train.fingerprint,
        "noise_floor": fold.noise_floor,
        "baselines": {kind: s.rmse for kind, s in mean_and_bias_scores(train, test).items()},
    }


def ranked(outcome: Json) -> list[Json]:
    """The systems that were scored, the best first."""
    return sorted((row for row in outcome["systems"] if row["rmse"] is not None), key=lambda row: float(row["rmse"]))


def summary(outcome: Json) -> Iterator[str]:
    """A line a system, the best first."""
    yield f"{'system':26}{'test RMSE':>10}  {'95 % interval':17}{'MAE':>8}{'seconds':>9}   settings"
    for row in ranked(outcome) + [row for row in outcome["systems"] if row["rmse"] is None]:
        if row["rmse"] is None:
            yield f"{row['system']:26}{row['status']}: {row['reason']}"
            continue
        low, high = row["interval"]
        best = row["tuned"]
        yield (
            f"{row['system']:26}{row['rmse']:10.4f}  {low:.4f}-{high:.4f}    {row['mae']:8.4f}{row['seconds']:9.2f}   "
            f"{in_words(best['settings'])}, {best['epochs']} epochs"
        )
    for kind in ("mean", "bias-only"):
        found = [test["baselines"][kind] for test in outcome["tests"]]
        if found:
            yield f"{kind:26}{statistics.mean(found):10.4f}"
