"""The race to the peers' best: tuning, targets, turns and ratios; nothing here judges time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from bench import race, result
from bench.cases import Case
from bench.launch import Json
from bench.race import Racer
from bench.suite import Data
from mf_numpy import random_split
from mf_numpy.errors import ConfigError
from mf_numpy.planted import PlantedConfig, planted

OURS = Racer("mf_numpy sgd", ({"lr": 0.02, "reg": 0.02}, {"lr": 1e-6, "reg": 0.02}), tuple(range(1, 31)), solver="sgd")
SLOW = Racer("Slow", ({"lr": 0.1, "reg": 1.5}, {"lr": 0.1, "reg": 2.0}), (5, 10), peer="libmf")
GONE = Racer("Gone", ({"lr": 0.1, "reg": 1.5}, {"lr": 0.1, "reg": 2.0}), (1, 2), peer="cornac")


@pytest.fixture(scope="module")
def data() -> Data:
    split = random_split(planted(PlantedConfig(n_users=80, n_items=50, n_ratings=2500, n_factors=2)).ratings)
    return Data("planted", split.train, split.valid, 0.5)


def _here(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    return json.loads(json.dumps(race.run_case(order, folder)[0])), {}


class Peers:
    """A peer whose RMSE is its λ at 10 epochs and twice that at 5, in λ seconds an epoch; Cornac is not installed."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float, tuple[int, ...], int]] = []

    def __call__(self, name: str, train: Any, valid: Any, settings: Any, *, epochs: Any, limit: float) -> Json:
        self.asked.append((name, settings.reg, tuple(epochs), len(train)))
        if name == "cornac":
            return {"status": "not run", "reason": "not installed"}
        points = [
            {"epochs": n, "seconds": n * settings.reg, "rmse": settings.reg * (2 if n == 5 else 1), "mae": 0.5}
            for n in epochs
        ]
        return {"status": "ok", "reason": None, "points": [p | {"rmse_all": p["rmse"]} for p in points]}


def _measure(data: Data, peers: Any = None, **given: Any) -> Json:
    settings: dict[str, Any] = {
        "factors": (2,),
        "threads": 1,
        "rounds": 2,
        "racers": (OURS, SLOW, GONE),
        "launch": _here,
        "peers": peers or Peers(),
    } | given
    return race.measure(data, **settings)


def test_everyone_is_tuned_and_the_test_pairs_are_scored_once(data: Data) -> None:
    peers = Peers()
    found = _measure(data, peers)
    ours, slow, gone = found["rows"]
    assert result.clean(found) == json.loads(json.dumps(found)) and found["complete"]
    assert ours["best"]["settings"] == {"lr": 0.02, "reg": 0.02}
    assert slow["best"] == {"settings": {"lr": 0.1, "reg": 1.5}, "epochs": 10, "rmse": 1.5}
    assert gone["status"] == "not run" and gone["best"] is None and gone["final"] is None
    assert found["targets"] == [{"peer": "Slow", "n_factors": 2, "rmse": 1.5}]
    # Two settings tried, one fit on training and validation pairs, and two turns.
    n_tune, n_final = found["problem"]["n_train"], len(data.train)
    assert n_tune + found["problem"]["n_valid"] == n_final
    assert [(name, n) for name, _, _, n in peers.asked] == [
        ("libmf", n_tune), ("libmf", n_tune), ("cornac", n_tune), ("libmf", n_final), ("libmf", n_tune),
        ("libmf", n_tune),
    ]  # fmt: skip
    assert ours["final"]["rmse"] < found["baselines"]["mean"]
    assert [len(one["seconds"]) for one in found["times"]] == [2, 2]


def test_a_ratio_is_our_seconds_over_those_of_the_peer(data: Data) -> None:
    found = _measure(data)
    (ratio,) = found["ratios"]
    mine = next(one for one in found["times"] if one["system"] == "mf_numpy sgd")
    assert ratio["ratio"] == pytest.approx(mine["median_s"] / 15.0) and ratio["target"] == "Slow"
    assert any("0.00" in line and "Slow" in line for line in race.summary(found))


def test_a_target_out_of_reach_is_told(data: Data) -> None:
    lame = Racer("mf_numpy sgd", ({"lr": 1e-9, "reg": 0.02},), (1, 2, 3), solver="sgd")
    low = Racer("Slow", ({"lr": 0.1, "reg": 1e-4},), (5, 10), peer="libmf")
    found = _measure(data, racers=(lame, low))
    mine = next(one for one in found["times"] if one["system"] == "mf_numpy sgd")
    assert mine["median_s"] is None and mine["reason"] == "no settings of the grid reach it"
    assert not found["ratios"]
    assert any("no settings of the grid reach it" in line for line in race.summary(found))


def test_the_way_that_takes_the_fewest_seconds_is_taken() -> None:
    tried = [
        {"settings": {"lr": 1}, "curve": [[1, 5.0, 0.9], [2, 10.0, 0.8]]},
        {"settings": {"lr": 2}, "curve": [[1, 1.0, 0.95], [9, 6.0, 0.85]]},
    ]
    assert race.soonest(tried, 0.85) == ({"lr": 2}, 9)
    assert race.soonest(tried, 0.9) == ({"lr": 1}, 1)
    assert race.soonest(tried, 0.8) == ({"lr": 1}, 2)
    assert race.soonest(tried, 0.7) is None


def test_ours_stops_at_the_target_and_when_it_gets_worse(data: Data, tmp_path: Path) -> None:
    from bench import worker

    worker.save_data(tmp_path / "tune.npz", data.train, data.valid)
    config = {"solver": "sgd", "n_factors": 2, "n_epochs": 60, "lr": 0.05, "lr_decay": 1.0, "reg": 0.0}
    order = {"config": config, "epochs": list(range(1, 61)), "data": "tune.npz", "threads": 1}
    whole = race.run_case(order | {"until": 0.0}, tmp_path)[0]["points"]
    assert len(whole) < 60 and min(p["rmse"] for p in whole) == whole[-5]["rmse"]
    target = whole[3]["rmse"]
    short = race.run_case(order | {"until": target}, tmp_path)[0]["points"]
    assert short[-1]["rmse"] <= target and all(p["rmse"] > target for p in short[:-1])
    assert all(b["seconds"] > a["seconds"] for a, b in itertools.pairwise(short))


def test_ctrl_c_keeps_what_is_done(data: Data) -> None:
    def interrupted(text: str) -> None:
        if text.startswith("final fit"):
            raise KeyboardInterrupt

    found = _measure(data, say=interrupted)
    assert not found["complete"] and [row["system"] for row in found["rows"]] == ["mf_numpy sgd", "Slow", "Gone"]
    assert race.summary(found)


@pytest.mark.parametrize("given", [{"rounds": 0}, {"threads": 0}, {"factors": ()}, {"factors": (0,)}])
def test_sizes_below_one_are_refused(data: Data, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be 1 or larger"):
        _measure(data, **given)
