"""Which systems a run is of: those of a protocol with its grids, and those that are asked for by name."""

from __future__ import annotations

import pytest

from bench.cli_measure import names
from bench.cli_run import listed
from bench.grids import GRIDS, suited, with_grid
from bench.protocols import PROTOCOLS
from bench.systems import BESIDE_PEERS, OF_OURS, OURS, SYSTEMS, THEIRS
from mf_numpy.errors import ConfigError


@pytest.mark.parametrize("protocol", GRIDS)
def test_every_point_is_one_that_its_system_takes(protocol: str) -> None:
    beside_peers = suited(PROTOCOLS[protocol].name)
    systems = {system.name: system for system in (*beside_peers, *suited(protocol, peers=False))}.values()
    assert {system.name for system in systems} == set(GRIDS[protocol])
    assert len(beside_peers) >= 10 or PROTOCOLS[protocol].scale is None
    for system in systems:
        assert (system.grid, system.epochs) == GRIDS[protocol][system.name]
        assert list(system.epochs) == sorted(set(system.epochs))
        for point in system.grid:
            asked = system.config(point) if system.solver else system.settings(point)
            assert asked.n_epochs == max(system.epochs)


def test_a_protocol_without_grids_of_its_own_is_for_all_peers_beside_some_of_ours_or_for_all_of_ours() -> None:
    beside = suited("ml-100k-official-5")
    assert beside == BESIDE_PEERS and {system.peer for system in beside} == {"", *(system.peer for system in THEIRS)}
    assert {system.solver for system in beside if system.solver} == {"sgd", "als", "gibbs"}
    assert suited("ml-100k-official-5", peers=False) == OF_OURS
    assert {system.name for system in OURS} - {system.name for system in OF_OURS} == {
        "mf_numpy gibbs SVD++", "mf_numpy gibbs SVD++, ordinal",
    }  # fmt: skip
    assert with_grid(SYSTEMS[0], "ml-100k-official-5") == SYSTEMS[0]


def test_a_system_without_a_grid_for_the_protocol_can_be_asked_for_by_name() -> None:
    post = next(system for system in SYSTEMS if system.name == "the post")
    assert post not in suited("anime-90-10") and with_grid(post, "anime-90-10") == post


def test_systems_with_a_comma_in_their_name_are_asked_for_like_others() -> None:
    known = [system.name for system in SYSTEMS]
    asked = ["Cornac", "mf_numpy SVD++, genres, time", "mf_numpy sgd", "cmfrec ALS, weighted λ", "mf_numpy SVD++"]
    assert list(listed("system", names(",".join(asked)), known)) == asked
    with pytest.raises(ConfigError, match="system is 'genre'"):
        list(listed("system", names("mf_numpy SVD++, genre"), known))
