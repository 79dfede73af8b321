"""The recorded search: what it tries, when it ends, how it goes on."""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import search as looked
from bench.protocols import PROTOCOLS, Protocol
from bench.search import SPACES, Search, Space
from mf_numpy import Config, Split, fit, random_split
from mf_numpy.errors import ConfigError

Json = dict[str, Any]

FEW: Mapping[str, Space] = {
    "als": {"n_factors": (1, 2), "reg": (0.1, 0.2, 0.4)},
    "gibbs": {"n_epochs": (4, 6), "burn_in": (1, 2)},
}
SMALL = Search(seconds=1e6, sampler="random", spaces=FEW)
tpe = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return PROTOCOLS["planted-small"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Fits that take a second each and end where λ or the burn-in says."""
    asked: list[Config] = []

    def fitted(split: Split, solver: str, settings: Json) -> Json:
        asked.append(Config(solver=solver, **settings))  # type: ignore[arg-type]
        rmse = None if settings.get("reg") == 0.4 else sum(settings.values()) / 10
        status = "diverged" if rmse is None else "max_epochs"
        return {"status": status, "rmse": rmse, "seconds": 0.5, "wall_s": 1.0 if solver == "als" else 2.0}

    monkeypatch.setattr(looked, "_fitted", fitted)
    return asked


def test_every_point_is_tried_once_and_the_best_is_named(
    protocol: Protocol, quick: list[Config], tmp_path: Path
) -> None:
    said: list[str] = []
    found = looked.measure(protocol, SMALL, path=tmp_path / "x.json", say=said.append)
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == found and found["complete"]
    assert len(quick) == len(said) == len(found["cases"]) == 6 + 4
    points = {(case["solver"], *case["settings"].values()) for case in found["cases"].values()}
    assert points == {("als", *p) for p in itertools.product((1, 2), (0.1, 0.2, 0.4))} | {
        ("gibbs", *p) for p in itertools.product((4, 6), (1, 2))
    }
    # The one that has had less time has its turn.
    turns = [case["solver"] for case in found["cases"].values()]
    assert turns[:7] == ["als", "gibbs", "als", "als", "gibbs", "als", "als"]
    assert found["rows"] == [
        {"solver": "als", "points": 6, "seconds": 6.0, "best": "als, n_factors 1, reg 0.1"},
        {"solver": "gibbs", "points": 4, "seconds": 8.0, "best": "gibbs, n_epochs 4, burn_in 1"},
    ]
    lines = list(looked.summary(found))
    assert lines[0] == "als: 6 points in 6 s" and lines[1].split()[0] == "0.1100" and len(lines) == 2 + 4 + 4


def test_it_ends_when_the_time_is_spent_and_goes_on_where_it_was(
    protocol: Protocol, quick: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = replace(SMALL, seconds=6.0)
    whole = looked.measure(protocol, search, path=tmp_path / "whole.json")
    # 5 s are spent before the last fit begins.
    assert looked.spent(whole["cases"].values()) == 7.0

    once, count = looked._fitted, itertools.count()

    def interrupted(*how: Any) -> Json:
        if next(count) == 3:
            raise KeyboardInterrupt
        return once(*how)

    with monkeypatch.context() as cut:
        cut.setattr(looked, "_fitted", interrupted)
        part = looked.measure(protocol, search, path=tmp_path / "x.json")
    assert not part["complete"] and len(part["cases"]) == 3 and part["rows"][0]["points"] == 2
    with pytest.raises(ConfigError, match=r"search was .* and is"):
        looked.measure(protocol, replace(search, seed=1), path=tmp_path / "x.json", resume=True)
    resumed = looked.measure(protocol, search, path=tmp_path / "x.json", resume=True)
    assert (resumed["cases"], resumed["rows"]) == (whole["cases"], whole["rows"])
    done = len(quick)
    assert looked.measure(protocol, search, path=tmp_path / "x.json", resume=True) == resumed and len(quick) == done


def test_what_is_fitted_and_scored_is_inside_the_first_training_side(protocol: Protocol, tmp_path: Path) -> None:
    search = Search(1e6, "random", spaces={"als": {"n_factors": (3,), "n_epochs": (2,)}})
    found = looked.measure(protocol, search, path=tmp_path / "x.json")
    split = random_split(protocol.fold(0).split.train, valid=0.1, seed=1)
    ((key, case),) = found["cases"].items()
    assert key == "als, n_factors 3, n_epochs 2" and case["status"] == "max_epochs" and case["wall_s"] > case["seconds"]
    config = Config(solver="als", n_factors=3, n_epochs=2)
    assert case["rmse"] == fit(split.train, config).score(split.valid).rmse
    sizes = {"n_ratings": len(split.train), "n_valid": len(split.valid)}
    assert {name: found["problem"][name] for name in sizes} == sizes


@tpe
def test_optuna_proposes_what_follows_from_the_points_so_far(
    protocol: Protocol, quick: list[Config], tmp_path: Path
) -> None:
    search = Search(1e6, "tpe", spaces={"als": {**SPACES["sgd"], "reg": (0.1, 0.2, 0.4)}})
    some = {"n_factors": 8, "lr": 0.01, "reg": 0.1, "n_epochs": 20}
    cases = [
        {"solver": "als", "settings": some | {"n_factors": k}, "rmse": None if k == 16 else k / 10, "wall_s": 1.0}
        for k in (96, 64, 32, 16, 8)
    ]
    point = looked.propose(search, "als", cases)
    assert point == looked.propose(search, "als", cases) and point is not None and point.keys() == some.keys()
    assert point != looked.propose(replace(search, seed=1), "als", cases)
    found = looked.measure(protocol, replace(SMALL, sampler="tpe"), path=tmp_path / "x.json")
    assert len(found["cases"]) == 10 and found["search"]["sampler"] == "tpe"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seconds": 0.0}, "seconds is 0.0, but must be a finite number above 0"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"sampler": "grid"}, "sampler is 'grid', but must be one of 'tpe', 'random'"),
    ],
)
def test_what_a_search_does_not_take(settings: Json, said: str) -> None:
    asked: Json = {"sampler": "random", **settings}
    with pytest.raises(ConfigError, match=said):
        Search(**asked)


def test_without_optuna_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="install the extra 'search', or take 'random'"):
        Search()
