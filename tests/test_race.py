"""The race to the peers' best: tuning, targets, turns and ratios; nothing here judges time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from bench import committed, peer_tables, race, race_seeds, race_worker, result
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
    return json.loads(json.dumps(race_worker.run_case(order, folder)[0])), {}


class Peers:
    """A peer whose RMSE is its λ at 10 epochs and twice that at 5, in λ seconds an epoch; Cornac is not installed."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float, tuple[int, ...], int]] = []
        self.seeds: list[int | None] = []

    def __call__(self, name: str, train: Any, valid: Any, settings: Any, *, epochs: Any, limit: float) -> Json:
        self.asked.append((name, settings.reg, tuple(epochs), len(train)))
        self.seeds.append(settings.seed)
        if name == "cornac":
            return {"status": "not run", "reason": "not installed"}
        points = [
            {
                "epochs": n,
                "seconds": n * settings.reg,
                "joules": 9.0 * n,
                "rmse": settings.reg * (2 if n == 5 else 1),
                "mae": 0.5,
            }
            for n in epochs
        ]
        return {"status": "ok", "reason": None, "points": [p | {"rmse_all": p["rmse"]} for p in points]}


class Seeds:
    """One of ours that gets to 1.4 in as many seconds as its seed's number says, or never."""

    def __init__(self, *seconds: float | None) -> None:
        self.seconds = seconds
        self.asked: list[int] = []

    def __call__(self, case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        seed = order["config"]["seed"]
        self.asked.append(seed)
        taken = self.seconds[seed]
        rmse = 2.5 if taken is None else 1.4
        point = {"epochs": 1, "seconds": taken or 99.0, "rmse": rmse, "mae": 1.0, "rmse_all": rmse}
        return {"status": "ok", "reason": None, "points": [point]}, {}


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


def test_with_one_seed_ours_is_seed_zero_and_a_peer_has_none(data: Data) -> None:
    peers, ours = Peers(), Seeds(3.0)
    found = _measure(data, peers, launch=ours)
    assert set(ours.asked) == {0} and set(peers.seeds) == {None}
    mine, slow = found["times"]
    assert mine["seeds"] == [{"seed": 0, "seconds": [3.0, 3.0], "rmse": [1.4, 1.4]}]
    assert slow["seeds"] == [{"seed": None, "seconds": [15.0, 15.0], "rmse": [1.5, 1.5]}]
    assert [one["range_s"] for one in found["times"]] == [None, None]
    assert (found["seeds"], found["notes"], slow["joules"], mine["joules"]) == (1, [], [90.0, 90.0], [None, None])


def test_several_seeds_take_turns_and_all_of_them_are_kept(data: Data) -> None:
    peers, ours = Peers(), Seeds(5.0, 1.0, 9.0, 2.0, 4.0)
    found = _measure(data, peers, launch=ours, seeds=5, racers=(OURS, SLOW))
    # Two settings tried and a last fit, then two rounds of all seeds.
    assert ours.asked[3:] == [0, 1, 2, 3, 4] * 2
    mine, slow = found["times"]
    assert [one["seed"] for one in mine["seeds"]] == [0, 1, 2, 3, 4]
    assert [one["seconds"] for one in mine["seeds"]] == [[5.0] * 2, [1.0] * 2, [9.0] * 2, [2.0] * 2, [4.0] * 2]
    assert mine["seconds"] == [5.0, 1.0, 9.0, 2.0, 4.0] * 2
    # Without 1 and 9 the range is that of 2, 4 and 5.
    assert (mine["median_s"], mine["range_s"], mine["reason"]) == (4.0, [2.0, 5.0], None)
    # LIBMF takes no seed, and says so.
    assert set(peers.seeds) == {None} and {one["seed"] for one in slow["seeds"]} == {None}
    assert slow["seeding"] == "none" and mine["seeding"] is None
    assert found["notes"] == [f"Slow: {race_seeds.UNSEEDED['none'][0]}"]
    assert found["ratios"][0]["ratio"] == pytest.approx(4.0 / 15.0)
    text = "\n".join(race.summary(found))
    assert "2.00–5.00" in text and "over 5 seeds without the best and the worst" in text and "Slow: it takes no" in text


def test_a_seed_that_never_gets_there_is_the_slowest(data: Data) -> None:
    (mine, _) = _measure(data, launch=Seeds(3.0, None, 1.0, None, 2.0), seeds=5, rounds=1, racers=(OURS, SLOW))["times"]
    assert (mine["median_s"], mine["range_s"]) == (3.0, [2.0, None]) and mine["seconds"] == [3.0, 1.0, 2.0]
    assert mine["reason"] == "2 of 5 turns did not reach it"
    assert mine["seeds"][1] == {"seed": 1, "seconds": [None], "rmse": [2.5]}
    never = _measure(data, launch=Seeds(3.0, None, None), seeds=3, rounds=1, racers=(OURS, SLOW))
    assert never["times"][0]["median_s"] is None and not never["ratios"]
    assert any("2 of 3 turns did not reach it" in line for line in race.summary(never))


def test_a_median_over_seeds_is_of_their_medians_over_rounds() -> None:
    def seeds(*seconds: list[float | None]) -> list[Json]:
        return [{"seed": k, "seconds": one} for k, one in enumerate(seconds)]

    assert race_seeds.settled(seeds([1, 8, 2], [3, 3, 3], [9, 4, 5])) == {"median_s": 3, "range_s": [3, 3]}
    assert race_seeds.settled(seeds([1, 3], [6, 8])) == {"median_s": 4.5, "range_s": [2, 7]}
    assert race_seeds.settled(seeds([1, None, 2])) == {"median_s": 2, "range_s": None}
    assert race_seeds.settled(seeds([1, None])) == {"median_s": None, "range_s": None}
    # A seed whose process failed every time says nothing.
    assert race_seeds.settled(seeds([], [2, 4])) == {"median_s": 3, "range_s": None}
    assert race_seeds.settled(seeds([], [])) == {"median_s": None, "range_s": None}


@pytest.mark.parametrize(
    ("peer", "threads", "given"),
    [
        ("", 2, (3, None)),
        ("cornac", 2, (None, "one thread")),
        ("cornac", 1, (3, None)),
        ("libmf", 1, (None, "none")),
        ("surprise", 2, (3, None)),
    ],
)
def test_a_peer_is_given_a_seed_where_that_changes_nothing_else(peer: str, threads: int, given: Any) -> None:
    assert race_seeds.given(peer, 3, threads) == given


class Told:
    """Where a table is for: its language."""

    def __init__(self, lang: str) -> None:
        self.lang = lang

    def say(self, english: str, chinese: str) -> str:
        return chinese if self.lang == "zh" else english

    def notes(self, *parts: str) -> str:
        return " ".join(part for part in parts if part)


@pytest.mark.parametrize(("lang", "brackets"), [("en", "In brackets the range over 5 seeds"), ("zh", "5 个种子")])
def test_tables_show_ranges_of_files_that_have_them(
    data: Data, lang: str, brackets: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(committed, "FOLDER", tmp_path)
    (tmp_path / committed.SHOWN[0]).mkdir()
    found = _measure(data, launch=Seeds(5.0, 1.0, 9.0, 2.0, 4.0), seeds=5, rounds=1, racers=(OURS, SLOW))
    (tmp_path / committed.SHOWN[0] / "race-ml-1m.json").write_text(result.to_text(found), encoding="utf-8")
    cells, note = peer_tables.races(Told(lang))  # type: ignore[arg-type]
    assert cells[1] == ["MovieLens 1M, 2", "1.4000; 4.00 (2.00–5.00) s", "1.5000; 15.00 (15.00–15.00) s"]
    assert brackets in note and race_seeds.UNSEEDED["none"][lang == "zh"] in note
    # A file from before there were seeds.
    old = found | {
        "times": [{k: v for k, v in t.items() if k != "range_s" and "seed" not in k} for t in found["times"]]
    }
    del old["seeds"], old["notes"]
    (tmp_path / committed.SHOWN[0] / "race-ml-1m.json").write_text(result.to_text(old), encoding="utf-8")
    cells, note = peer_tables.races(Told(lang))  # type: ignore[arg-type]
    assert cells[1] == ["MovieLens 1M, 2", "1.4000; 4.00 s", "1.5000; 15.00 s"] and brackets not in note
    assert race.summary(old)


def test_ours_counts_energy_where_the_machine_does(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import energy, worker

    worker.save_data(tmp_path / "tune.npz", data.train, data.valid)
    config = {"solver": "sgd", "n_factors": 2, "n_epochs": 2, "reg": 0.02}
    order = {"config": config, "epochs": [1, 2], "data": "tune.npz", "threads": 1, "until": 0.0}
    monkeypatch.setattr(energy, "processors", lambda: ([], energy.NONE))
    (one, other) = race_worker.run_case(order, tmp_path)[0]["points"]
    assert one["joules"] is other["joules"] is None
    # A counter that moves by one joule from each reading to the next: laying out and each epoch are a stretch.
    ticks = itertools.count()
    counter = energy.Counter("package-0", lambda: 1_000_000 * next(ticks))
    monkeypatch.setattr(energy, "processors", lambda: ([counter], None))
    (one, other) = race_worker.run_case(order, tmp_path)[0]["points"]
    assert (one["joules"], other["joules"]) == (pytest.approx(2.0), pytest.approx(3.0))


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
    whole = race_worker.run_case(order | {"until": 0.0}, tmp_path)[0]["points"]
    assert len(whole) < 60 and min(p["rmse"] for p in whole) == whole[-5]["rmse"]
    target = whole[3]["rmse"]
    short = race_worker.run_case(order | {"until": target}, tmp_path)[0]["points"]
    assert short[-1]["rmse"] <= target and all(p["rmse"] > target for p in short[:-1])
    assert all(b["seconds"] > a["seconds"] for a, b in itertools.pairwise(short))


def test_ctrl_c_keeps_what_is_done(data: Data) -> None:
    def interrupted(text: str) -> None:
        if text.startswith("final fit"):
            raise KeyboardInterrupt

    found = _measure(data, say=interrupted)
    assert not found["complete"] and [row["system"] for row in found["rows"]] == ["mf_numpy sgd", "Slow", "Gone"]
    assert race.summary(found)


@pytest.mark.parametrize("given", [{"rounds": 0}, {"seeds": 0}, {"threads": 0}, {"factors": ()}, {"factors": (0,)}])
def test_sizes_below_one_are_refused(data: Data, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be 1 or larger"):
        _measure(data, **given)
