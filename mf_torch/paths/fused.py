"""One pass over the ratings that gathers, predicts, and adds up the gradient: by Numba on a CPU, by Triton on CUDA.

The operator is `mf_torch.paths.operator.fused`; a step of training calls what it calls, and keeps ``grad`` where it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from mf_numpy import batch as by_hand
from mf_numpy import kernels
from mf_numpy.config import Config
from mf_numpy.errors import ConfigError
from mf_numpy.kernels.gradients import Workspace
from mf_numpy.kernels.layout import Blocks, blocks, items_per_block
from mf_numpy.model import Params
from mf_numpy.objective import Evaluation
from mf_numpy.optim import Memory
from mf_numpy.ratings import Ratings
from mf_torch.batch import Batch, mini_batches
from mf_torch.model import MatrixFactorization
from mf_torch.objective import Objective
from mf_torch.optim import is_momentum
from mf_torch.paths import rows
from mf_torch.paths.base import ByGraph
from mf_torch.paths.operator import (
    by_rows,
    evaluate,
    fused,
    kernels_of_triton,
    params_of,
    settings_of,
    threads,
    to_tensors,
)
from mf_torch.paths.rows import RowBatch, in_pieces

Tables = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor]


@dataclass(eq=False, kw_only=True)
class BlockBatch(Batch):
    """`Batch` sorted by user, on the CPU; indices are int32 where they fit.

    Attributes:
        blocks: the same pairs as the kernels of `mf_numpy` walk them.
        room: their scratch arrays, for K factors; made by the first use.
    """

    blocks: Blocks = field(repr=False)
    room: Workspace | None = field(default=None, repr=False)

    def room_for(self, params: Params) -> Workspace:
        """`room`, made anew where K or the dtype is another than before."""
        if self.room is None or self.room.Q.shape != params.Q.shape or self.room.Q.dtype != params.Q.dtype:
            self.room = kernels.workspace(params, self.blocks)
        return self.room


class Fused(ByGraph):
    """J and ∇J by `mf::fused`; on a CPU the update is made in place by Numba as well."""

    name = "fused"
    capturable = True

    def load(self, train: Ratings, config: Config, device: torch.device | str) -> Batch:
        _refuse_grades(config)
        return super().load(train, config, device)

    def lay_out(self, batch: Batch, config: Config) -> Batch:
        _refuse_grades(config)
        if by_triton(batch):
            kernels_of_triton()
            return in_pieces(batch)
        return in_blocks(batch, config)

    def batches(self, whole: Batch, epoch: int, config: Config) -> Iterator[Batch]:
        if by_triton(whole):
            return super().batches(whole, epoch, config)
        # Pairs in any order have a kernel of their own; to sort each batch would take longer.
        return mini_batches(whole, epoch, config)

    def objective(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        """`mf_torch.objective` by the operator: a graph that differentiates once."""
        layout = rows.to_tensors(batch) if isinstance(batch, RowBatch) else to_tensors(_laid(batch))
        tables = module.P, module.Q, module.b, module.c, module.mu
        value, squared_error, *_ = fused(*tables, layout, *settings_of(config))
        return Objective(value, squared_error)

    def _differentiate(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        return gradient((module.P, module.Q, module.b, module.c, module.mu), module, batch, config)

    def advance(
        self, module: MatrixFactorization, optimizer: torch.optim.Optimizer, batch: Batch, config: Config
    ) -> Objective:
        here = not isinstance(batch, RowBatch) and all(p.is_contiguous() for p in module.parameters())
        if not here or not is_momentum(optimizer):
            return super().advance(module, optimizer, batch, config)
        batch.check(len(module.P), len(module.Q))
        params = params_of(module.P, module.Q, module.b, module.c, module.mu)
        seen = _on_cpu(params, module, batch, config)
        update(module, params, seen, optimizer, config)
        return _objective(seen)


def _refuse_grades(config: Config) -> None:
    if config.loss == "ordinal":
        raise ConfigError("loss is 'ordinal' with path 'fused', which knows no cut points; use path='manual'")


def gradient(tables: Tables, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
    """J and Σ squared errors at `tables`, and ∇J there in the module's ``grad``.

    Args:
        tables: P, Q, b, c and μ; the module's own, or numbers near them.
        batch: a `RowBatch` for Triton; any other is for Numba.
    """
    if not isinstance(batch, RowBatch):
        return _objective(_on_cpu(params_of(*tables), module, batch, config))
    grads = [_kept_grad(p) for p in module.parameters()]
    return Objective(*by_rows(*tables, rows.to_tensors(batch), *settings_of(config), grads))


def by_triton(batch: Batch) -> bool:
    """Whether a batch lies where Triton's kernels run."""
    return batch.values.is_cuda


def in_blocks(batch: Batch, config: Config) -> BlockBatch:
    """Sort the pairs by user, stably, unless they come so, and lay them out.

    Raises:
        IndexError: an index outside the batch's shape.
    """
    if isinstance(batch, BlockBatch):
        return batch
    m, n = batch.shape
    batch.check(m, n)
    users, items, values = batch.users, batch.items, batch.values
    if bool((users.diff() < 0).any()):
        users, at = torch.sort(users, stable=True)
        items, values = torch.index_select(items, 0, at), torch.index_select(values, 0, at)
    index = torch.int32 if len(batch) < 2**31 else torch.int64
    users, items = users.to(index), items.to(index)
    indptr = np.concatenate([[0], np.cumsum(torch.bincount(users, minlength=m).numpy())])
    sorted_pairs = by_hand.Batch(users.numpy(), items.numpy(), values.numpy(), (m, n), indptr)
    per_block = items_per_block(n)
    return BlockBatch(users, items, values, (m, n), _in_range=True, blocks=blocks(sorted_pairs, per_block))


def _laid(batch: Batch) -> by_hand.Batch | Blocks:
    if isinstance(batch, BlockBatch):
        return batch.blocks
    return by_hand.Batch(batch.users.numpy(), batch.items.numpy(), batch.values.numpy(), batch.shape)


def _on_cpu(params: Params, module: MatrixFactorization, batch: Batch, config: Config) -> Evaluation:
    """J and ∇J at the parameters; the gradient lies in the module's ``grad``."""
    laid = _laid(batch)
    room = batch.room_for(params) if isinstance(batch, BlockBatch) else kernels.workspace(params, laid)
    grads = {name: _kept_grad(p).numpy() for name, p in module.named_parameters()}
    return evaluate(params, laid, config, replace(room, gradient=grads))


def _objective(seen: Evaluation) -> Objective:
    return Objective(*(torch.from_numpy(np.array(x)) for x in (seen.objective, seen.squared_error)))


def _kept_grad(p: nn.Parameter) -> Tensor:
    """``grad`` to be written over, from the last step where there is one."""
    if p.grad is None or p.grad.requires_grad or not p.grad.is_contiguous():
        p.grad = p.new_empty(p.shape)
    return p.grad


def update(
    module: MatrixFactorization, params: Params, seen: Evaluation, optimizer: torch.optim.Optimizer, config: Config
) -> None:
    """The step of `mf_torch.optim.sgd` by `mf_numpy.kernels.update`, in place on `params`, the module's own memory."""
    (group,) = optimizer.param_groups
    buffers = {name: optimizer.state[p].get("momentum_buffer") for name, p in module.named_parameters()}
    velocity = {name: buffer.numpy() for name, buffer in buffers.items() if buffer is not None}
    old = Memory(velocity) if velocity else None
    with threads(), np.errstate(over="ignore", invalid="ignore"):
        new = kernels.update(params.tensors(), old, seen.gradient, group["lr"], config)
    for name, p in module.named_parameters():
        torch.autograd.graph.increment_version(p)
        if new is not None and old is None:
            optimizer.state[p]["momentum_buffer"] = torch.from_numpy(new.velocity[name])
