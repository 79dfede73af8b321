"""Grids of the larger data sets: others than MovieLens 100K's, and of systems that are done with them within minutes.

They were laid around the best of a coarser one on the inner validation split of the first test's training ratings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.race import grid_of
from bench.systems import BESIDE_PEERS, OF_OURS, OURS, System

Grid = tuple[tuple[Mapping[str, Any], ...], tuple[int, ...]]

_SGD, _ALS, _SVDPP = tuple(range(4, 161, 2)), tuple(range(1, 31)), tuple(range(4, 161, 4))

GRIDS: Mapping[str, Mapping[str, Grid]] = {
    "anime-90-10": {
        "mf_numpy sgd": (grid_of(n_factors=(64,), lr=(0.007, 0.01), reg=(0.05, 0.065, 0.08)), _SGD),
        "mf_numpy SVD++": (grid_of(n_factors=(64,), lr=(0.005, 0.007), reg=(0.03, 0.045, 0.06)), _SVDPP),
        "mf_numpy SVD++, genres": (grid_of(n_factors=(64,), lr=(0.005, 0.007), reg=(0.05, 0.07, 0.09)), _SVDPP),
        "mf_numpy als": (grid_of(n_factors=(64,), reg=(0.08, 0.1, 0.13, 0.16)), _ALS),
        "mf_numpy gibbs": (grid_of(n_factors=(16, 32, 64)), (100, 150, 200, 250, 300)),
        "mf_numpy gibbs, ordinal": (grid_of(n_factors=(16, 32)), (100, 150, 200, 250, 300)),
        "LIBMF": (grid_of(n_factors=(64,), lr=(0.03, 0.05), reg=(0.08, 0.1, 0.12)), (20, 30, 40, 60, 80)),
        "Cornac": (grid_of(n_factors=(64,), lr=(0.003, 0.005), reg=(0.05, 0.065, 0.08)), tuple(range(10, 126, 5))),
        "cmfrec ALS": (grid_of(n_factors=(16, 32), reg=(12.0, 17.0, 24.0)), (5, 10, 20)),
        "cmfrec ALS, weighted λ": (grid_of(n_factors=(16, 32), reg=(0.1, 0.14, 0.19)), (5, 10, 20, 30)),
        "LensKit ALS": (grid_of(n_factors=(32,), reg=(0.08, 0.12, 0.16)), (5, 10, 20, 30)),
        "Surprise SVD": (grid_of(n_factors=(64,), lr=(0.005,), reg=(0.08, 0.1, 0.12)), (40, 60, 80)),
        "myFM": (grid_of(n_factors=(8, 16)), (100, 300)),
        "PyTorch loop": (grid_of(n_factors=(32,), lr=(0.005,), reg=(5e-5, 1e-4, 2e-4)), tuple(range(2, 17))),
    },
    "ml-1m-90-10": {
        "mf_numpy sgd": (grid_of(n_factors=(64,), lr=(0.007, 0.01), reg=(0.035, 0.042, 0.05)), _SGD),
        "mf_numpy SVD++": (grid_of(n_factors=(64,), lr=(0.005,), reg=(0.025, 0.035, 0.045)), _SVDPP),
        "mf_numpy als": (grid_of(n_factors=(64,), reg=(0.065, 0.08, 0.095)), _ALS),
        "mf_numpy cd": (grid_of(n_factors=(64,), reg=(0.065, 0.08, 0.095)), _ALS),
        "mf_numpy gibbs": (grid_of(n_factors=(32, 64)), (100, 150, 200, 250, 300)),
        "mf_numpy gibbs, chains": (grid_of(n_factors=(32,), chain_length=(100, 150)), (300, 450, 600)),
        # Chains of grades forget where they began more slowly, the more so the more ratings there are.
        "mf_numpy gibbs, ordinal": (grid_of(n_factors=(32, 64), burn_in=(50,)), (200, 300, 400, 500)),
        "mf_numpy gibbs, ordinal, chains": (grid_of(n_factors=(32,), burn_in=(50,), chain_length=(200,)), (400, 600)),
        "mf_numpy gibbs SVD++": (grid_of(n_factors=(16, 24)), (100, 150)),
        "mf_numpy gibbs SVD++, ordinal": (grid_of(n_factors=(24, 32), burn_in=(40,)), (150, 200, 250, 300)),
        "LIBMF": (grid_of(n_factors=(64,), lr=(0.03, 0.05), reg=(0.04, 0.05, 0.06)), (10, 20, 30, 40, 60, 80)),
        "Cornac": (grid_of(n_factors=(64,), lr=(0.003, 0.005), reg=(0.03, 0.04, 0.05)), tuple(range(20, 101, 5))),
        "cmfrec ALS": (grid_of(n_factors=(16,), reg=(8.0, 14.0, 20.0)), (10, 20)),
        "cmfrec ALS, weighted λ": (grid_of(n_factors=(16,), reg=(0.05, 0.07, 0.09)), (10, 20)),
        "LensKit ALS": (grid_of(n_factors=(32,), reg=(0.06, 0.08, 0.1)), (10, 20)),
        "myFM": (grid_of(n_factors=(8, 16)), (100, 200, 300)),
    },
    "planted-anime-full": {
        "mf_numpy sgd": (grid_of(n_factors=(16,), lr=(0.005, 0.01), reg=(0.03, 0.05)), tuple(range(4, 41, 4))),
        "mf_numpy gibbs": (grid_of(n_factors=(8, 16)), (50, 100, 150)),
        "LIBMF": (grid_of(n_factors=(16,), lr=(0.03,), reg=(0.03, 0.05)), (10, 20, 40)),
    },
}
"""By protocol and system: the grid and the numbers of epochs."""


def suited(protocol: str, *, peers: bool = True) -> tuple[System, ...]:
    """The systems that a run of a protocol is of, with its grids; of ours alone, all that it has a grid for."""
    chosen, own = BESIDE_PEERS if peers else OF_OURS, GRIDS.get(protocol)
    if own is None:
        return chosen
    return tuple(with_grid(system, protocol) for system in (BESIDE_PEERS if peers else OURS) if system.name in own)


def with_grid(system: System, protocol: str) -> System:
    """A system with the grid that a protocol has for it, or with its own."""
    grid, epochs = GRIDS.get(protocol, {}).get(system.name, (system.grid, system.epochs))
    return replace(system, grid=grid, epochs=epochs)
