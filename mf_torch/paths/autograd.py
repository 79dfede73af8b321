"""Gather, dot, loss, and autograd's own backward: the plain reference."""

from __future__ import annotations

from mf_numpy.config import Config
from mf_torch.batch import Batch
from mf_torch.model import MatrixFactorization
from mf_torch.objective import Objective, objective
from mf_torch.paths.base import ByGraph


class Autograd(ByGraph):
    """Eq. 2 as `mf_torch.objective` writes it; ∇J (Eq. 6) is autograd's to find."""

    name = "autograd"
    capturable = True
    twice = True

    def objective(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        return objective(module, batch, config)
