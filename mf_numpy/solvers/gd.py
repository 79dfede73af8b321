"""``gd`` by the compiled kernels: of the ratings it keeps the kernels' own layout alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mf_numpy import kernels
from mf_numpy.batch import in_parts
from mf_numpy.config import Config
from mf_numpy.engine import NumpyEngine, State
from mf_numpy.kernels.layout import full_blocks
from mf_numpy.ratings import Ratings


class CompiledEngine(NumpyEngine):
    """`mf_numpy.engine.NumpyEngine` with the backend ``numba``, in less memory where a batch is all ratings."""

    def load(self, train: Ratings, config: Config) -> Any:
        return super().load(train, config) if in_parts(len(train), config) else full_blocks(train, config)

    def start(self, state: State, whole: Any, config: Config) -> State:
        if in_parts(len(whole), config):
            return super().start(state, whole, config)
        return replace(state, room=kernels.workspace(state.params, whole))
