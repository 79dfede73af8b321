"""The comparison with peers: who takes part, what a row holds, and how ratios are taken; nothing here judges time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench import result, speed
from bench.cases import Case
from bench.launch import Json
from mf_numpy import Ratings
from mf_numpy.errors import ConfigError
from mf_numpy.planted import PlantedConfig, planted


@pytest.fixture(scope="module")
def train() -> Ratings:
    return planted(PlantedConfig(n_users=60, n_items=40, n_ratings=1500, n_factors=2)).ratings


def _here(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    return json.loads(json.dumps(speed.run_case(order, folder)[0])), {}


def _peer(name: str, train: Ratings, settings: Any, *, samples: int, limit: float) -> Json:
    """A peer whose epochs take 100 s with one thread and 50 s with two; Cornac is not installed."""
    if name == "cornac":
        return {"status": "not run", "reason": "not installed: python -m bench peers install cornac"}
    return {"status": "ok", "reason": None, "samples_ms": [1e5 / settings.threads] * samples, "version": "1"}


def _measure(train: Ratings, **given: Any) -> Json:
    settings: dict[str, Any] = {
        "factors": (3,),
        "threads": (1, 2),
        "rounds": 2,
        "launch": _here,
        "peers": _peer,
    } | given
    return speed.measure(train, "planted", **settings)


def test_every_system_has_its_turn_in_every_round(train: Ratings) -> None:
    said: list[str] = []
    found = _measure(train, say=said.append)
    each = [system.name for contest in speed.CONTESTS.values() for _ in (1, 2) for system in contest]
    assert [re.split("threads?, ", line)[1] for line in said] == each * 2
    assert result.clean(found) == json.loads(json.dumps(found)) and found["complete"]
    for row in found["rows"]:
        if row["system"] == "Cornac":
            assert row["status"] == "not run" and row["timing"] is None and "peers install" in row["reason"]
        else:
            assert [len(samples) for samples in row["samples_ms"]] == [5, 5]
            assert row["timing"]["ratings_per_s"] == pytest.approx(1e3 * len(train) / row["timing"]["median_ms"])
    lines = speed.summary(found)
    assert len([line for line in lines if "not run: not installed" in line]) == 2


def test_a_ratio_is_the_others_time_over_ours(train: Ratings) -> None:
    found = _measure(train, contests=("sgd",))
    assert {(r["against"], r["threads"]) for r in found["ratios"]} == {
        (name, n) for name in ("LIBMF, 10 bins", "LIBMF, 20 bins") for n in (1, 2)
    }
    for ratio in found["ratios"]:
        (mine,) = (
            row for row in found["rows"] if row["system"] == "mf_numpy sgd" and row["threads"] == ratio["threads"]
        )
        assert ratio["ratio"] == pytest.approx(1e5 / ratio["threads"] / mine["timing"]["median_ms"])
        assert ratio["low"] <= ratio["high"]


def test_a_failed_round_is_a_reason(train: Ratings) -> None:
    def failing(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        return {"status": "failed", "reason": "out of memory"}, {}

    found = _measure(train, contests=("gradient",), launch=failing)
    assert {row["reason"] for row in found["rows"]} == {"out of memory"} and found["ratios"] == []
    assert all("failed: out of memory" in line for line in speed.summary(found)[1:] if "mf_numpy" in line)


def test_a_round_that_fails_beside_others_is_told(train: Ratings) -> None:
    turns: list[int] = []

    def hanging(name: str, *args: Any, **kwargs: Any) -> Json:
        turns.append(1)
        if len(turns) == 1:
            return {"status": "failed", "reason": "no result after 240 s"}
        return _peer(name, *args, **kwargs)

    found = _measure(train, contests=("sgd",), threads=(1,), peers=hanging)
    row = next(row for row in found["rows"] if row["system"] == "LIBMF, 10 bins")
    assert row["status"] == "failed" and len(row["samples_ms"]) == 1 and row["timing"] is not None
    assert sum("a round failed: no result after 240 s" in line for line in speed.summary(found)) == 1


def test_ctrl_c_keeps_what_is_done(train: Ratings) -> None:
    said: list[str] = []

    def stopping(name: str, *args: Any, **kwargs: Any) -> Json:
        if name == "cornac":
            raise KeyboardInterrupt
        return _peer(name, *args, **kwargs)

    found = _measure(train, contests=("sgd",), peers=stopping, say=said.append)
    assert not found["complete"] and said[-1] == "interrupted: what was measured is kept"
    assert [row["system"] for row in found["rows"]] == ["mf_numpy sgd", "LIBMF, 10 bins", "LIBMF, 20 bins"]
    with pytest.raises(KeyboardInterrupt):
        _measure(train, contests=("sgd",), launch=lambda *args: stopping("cornac"))


def test_what_it_does_not_take(train: Ratings) -> None:
    with pytest.raises(ConfigError, match="contest is 'sgf'"):
        _measure(train, contests=("sgf",))
    for wrong in ({"rounds": 0}, {"factors": (0,)}, {"threads": (0,)}, {"factors": ()}):
        with pytest.raises(ConfigError, match="must be 1 or larger"):
            _measure(train, **wrong)
