"""`autograd` with sparse gradients: of a table they hold the rows that the batch names, and no others."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from mf_numpy.config import RANKING, Config
from mf_numpy.errors import ConfigError
from mf_numpy.ratings import Ratings
from mf_torch.batch import Batch
from mf_torch.model import MatrixFactorization
from mf_torch.objective import Objective, loss, squared_errors
from mf_torch.paths.base import ByGraph


class SparseGrad(ByGraph):
    """Eq. 2 with the penalty inside the mean, where it asks each pair for its own rows alone (Eq. 8).

    Each ``grad`` is a sparse tensor. A row outside of the batch has none, which torch's optimisers take for "stay":
    without a velocity and under AdaGrad that is what they do to it for a gradient of 0, too.
    """

    name = "autograd"

    def load(self, train: Ratings, config: Config, device: torch.device | str) -> Batch:
        check(config)
        return super().load(train, config, device)

    def lay_out(self, batch: Batch, config: Config) -> Batch:
        check(config)
        return batch

    def objective(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        p, q = F.embedding(batch.users, module.P, sparse=True), F.embedding(batch.items, module.Q, sparse=True)
        predicted = module.mu.to(p.dtype) + (p * q).sum(dim=1)  # Eq. 1
        norms = (p**2).sum(dim=1) + (q**2).sum(dim=1)
        if module.b is not None and module.c is not None:
            b = torch.gather(module.b, 0, batch.users, sparse_grad=True)
            c = torch.gather(module.c, 0, batch.items, sparse_grad=True)
            predicted, norms = predicted + b + c, norms + b**2 + c**2
        squared_error = squared_errors(predicted, batch.values, config)
        each = loss(predicted, batch.values, config) + config.reg * norms
        return Objective(each.mean(), squared_error)  # Eq. 2, Eq. 8

    def advance(
        self, module: MatrixFactorization, optimizer: torch.optim.Optimizer, batch: Batch, config: Config
    ) -> Objective:
        # Adagrad makes sparse tensors of its own, and torch warns once that nobody has said whether to check them.
        with torch.sparse.check_sparse_tensor_invariants(False):  # type: ignore[no-untyped-call]
            return super().advance(module, optimizer, batch, config)

    def _differentiate(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        seen = super()._differentiate(module, batch, config)
        for p in module.parameters():
            assert p.grad is not None
            p.grad = p.grad.coalesce()  # Eq. 7: what a row gets from its pairs adds up
        return seen


def check(config: Config) -> None:
    """Refuse what moves rows outside of a batch, and so needs all rows of a gradient.

    Raises:
        ConfigError: a penalty on all rows, a loss that ranks or learns cut points, momentum, or Adam.
    """
    asked = "sparse_grad is True with"
    if config.loss in (*RANKING, "ordinal"):
        raise ConfigError(f"{asked} loss {config.loss!r}; leave sparse_grad out")
    if config.penalty == "total" and config.reg:
        raise ConfigError(
            f"{asked} penalty 'total' and reg {config.reg:g}, whose gradient has every row in every batch; "
            "use penalty='per_rating', or leave sparse_grad out"
        )
    if config.momentum:
        raise ConfigError(
            f"{asked} momentum {config.momentum:g}, but a velocity goes on moving rows that a batch does not name; "
            "use momentum=0 or step_rule='adagrad', or leave sparse_grad out"
        )
    if config.step_rule == "adam":
        raise ConfigError(
            f"{asked} step_rule 'adam', whose means go on moving rows that a batch does not name (torch's SparseAdam "
            "lets them rest, which is another algorithm); use step_rule='adagrad', or leave sparse_grad out"
        )
