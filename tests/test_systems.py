"""The systems that are compared by their predictions: known, named once, and tuned over settings that are accepted."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from bench.designs import DESIGNS, TIMED
from bench.peers import registry
from bench.systems import OURS, SYSTEMS, THEIRS, System
from mf_numpy.errors import ConfigError


def test_every_system_has_a_name_of_its_own() -> None:
    assert len({system.name for system in SYSTEMS}) == len(SYSTEMS)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_every_system_is_tuned_and_scored_somewhere(system: System) -> None:
    assert system.grid and all("n_factors" in point for point in system.grid)
    assert len({tuple(point.items()) for point in system.grid}) == len(system.grid)
    assert system.epochs and list(system.epochs) == sorted(set(system.epochs)) and system.epochs[0] >= 1
    assert bool(system.solver) != bool(system.peer)
    assert not system.design or (system.solver and system.design in {**DESIGNS, **TIMED})


@pytest.mark.parametrize("system", OURS, ids=lambda system: system.name)
def test_the_settings_of_ours_are_those_of_a_configuration(system: System) -> None:
    for point in system.grid:
        config = system.config(point, seed=3).to_dict()
        wanted = {"solver": system.solver, "n_epochs": system.epochs[-1], "seed": 3, **system.extra, **point}
        assert wanted.items() <= config.items()
    assert system.backend == "numba" or (system.backend, system.solver) == ("torch", "gd")


@pytest.mark.parametrize("system", THEIRS, ids=lambda system: system.name)
def test_a_peer_that_is_compared_predicts_ratings_and_is_asked_for_what_it_reads(system: System) -> None:
    peer = registry.find(system.peer)
    assert peer.data == "ratings"
    for point in system.grid:
        asked = system.settings(point, threads=2, seed=None)
        assert (asked.threads, asked.seed, asked.n_epochs) == (2, None, system.epochs[-1])
        assert asked.extra == system.extra
        # A peer that has no learning rate does not read one.
        assert ("lr" in point) <= ("lr" in peer.start or system.extra.get("method") == "funksvd")


def test_every_peer_that_predicts_ratings_is_compared() -> None:
    assert {system.peer for system in THEIRS} == {
        name for name, peer in registry.PEERS.items() if peer.data == "ratings"
    }


@pytest.mark.parametrize("peer", registry.PEERS.values(), ids=lambda peer: peer.name)
def test_every_method_of_a_peer_is_a_system_or_says_why_not(peer: registry.Peer) -> None:
    if peer.data == "confidence":
        assert any("another objective; no RMSE" in remark for remark in peer.remarks)
        return
    source = Path(importlib.import_module(peer.adapter).__file__ or "").read_text(encoding="utf-8")
    found = re.search(r'one_of\("method", \(([^)]*)\)\)', source)
    methods = re.findall(r'"(\w+)"', found[1]) if found else [""]
    compared = {system.extra.get("method", methods[0]) for system in THEIRS if system.peer == peer.name}
    assert compared == set(methods)


def test_settings_that_do_not_go_together_are_refused() -> None:
    wrong = System("wrong", ({"n_factors": 2, "lr": 0.1},), (1,), solver="als")
    with pytest.raises(ConfigError, match=r"lr is 0\.1 with solver 'als'"):
        wrong.config(wrong.grid[0])
