"""The plain objective under `torch.compile`, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

from mf_numpy.config import Config
from mf_torch.batch import Batch
from mf_torch.model import MatrixFactorization
from mf_torch.objective import Objective, objective
from mf_torch.paths.base import ByGraph

_MOST_VARIANTS = 256
"""Each model, loss, penalty, dtype and (m, n, K) compiles anew; past torch's own limit of 8 it would run uncompiled."""


class Compiled(ByGraph):
    """`mf_torch.objective` compiled: λ, δ and the length of a batch may change, (m, n, K) are built in."""

    name = "compiled"

    def lay_out(self, batch: Batch, config: Config) -> Batch:
        # The last batch of an epoch is shorter. A length of 1 is a case of its own to torch, hence "maybe".
        for pairs in (batch.users, batch.items, batch.values):
            torch._dynamo.maybe_mark_dynamic(pairs, 0)
        return batch

    def objective(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        if config.penalty == "per_rating":
            batch.shares(module.P.dtype)  # counted here: how long a count is depends on the data
        with torch._dynamo.config.patch(recompile_limit=_MOST_VARIANTS):
            return _function()(module, batch, config)


@cache
def _function() -> Callable[[MatrixFactorization, Batch, Config], Objective]:
    compiled: Callable[[MatrixFactorization, Batch, Config], Objective] = torch.compile(objective, fullgraph=True)
    return compiled
