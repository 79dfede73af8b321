"""Eq. 1 as one sampled product and its derivative as two sparse ones, for autograd to put together.

Symbols: `left` (m, C) and `right` (n, C) are the factors and, in the biased model, two columns more; x (B,) numbers of
the pairs; E (m, n) the sparse matrix of such numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mf_numpy.config import Config
from mf_torch.batch import Batch
from mf_torch.model import MatrixFactorization
from mf_torch.objective import Objective, objective
from mf_torch.paths.base import ByGraph
from mf_torch.paths.layout import SparseBatch, compress


class Dots(torch.autograd.Function):
    """x of a pair is row u of `left` times row i of `right`; d left = E right and d right = Eᵀ left (Eq. 4).

    With `Product` it is closed: each is the derivative of the other, so that both differentiate any number of times.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, batch: SparseBatch) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.batch = batch
        return batch.dots(left, right)

    @staticmethod
    def backward(ctx: Any, e: Tensor) -> tuple[Tensor | None, ...]:
        left, right = ctx.saved_tensors
        of_left, of_right, _ = ctx.needs_input_grad
        return (
            product(e, right, ctx.batch, transposed=False) if of_left else None,  # Eq. 4
            product(e, left, ctx.batch, transposed=True) if of_right else None,  # Eq. 4
            None,
        )


class Product(torch.autograd.Function):
    """E times a table (n, C), or Eᵀ times a table (m, C), where E holds x of each pair."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, batch: SparseBatch, transposed: bool) -> Tensor:
        ctx.save_for_backward(x, table)
        ctx.batch, ctx.transposed = batch, transposed
        return batch.transposed_residual_times(x, table) if transposed else batch.residual_times(x, table)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        x, table = ctx.saved_tensors
        left, right = (table, d) if ctx.transposed else (d, table)
        of_x, of_table, _, _ = ctx.needs_input_grad
        return (
            dots(left, right, ctx.batch) if of_x else None,
            product(x, d, ctx.batch, transposed=not ctx.transposed) if of_table else None,
            None,
            None,
        )


def dots(left: Tensor, right: Tensor, batch: SparseBatch) -> Tensor:
    """`Dots` of two tables: (B,)."""
    return Dots.apply(left.contiguous(), right.contiguous(), batch)  # type: ignore[no-any-return, no-untyped-call]


def product(x: Tensor, table: Tensor, batch: SparseBatch, *, transposed: bool) -> Tensor:
    """`Product` of numbers of the pairs with a table: (m, C), or (n, C) where transposed."""
    return Product.apply(x.contiguous(), table.contiguous(), batch, transposed)  # type: ignore[no-any-return, no-untyped-call]


def tables(module: MatrixFactorization) -> tuple[Tensor, Tensor]:
    """`left` and `right`, whose rows' dot product is r̂ (Eq. 1): a bias is one factor more, beside a constant 1."""
    if module.b is None or module.c is None:
        return module.P, module.Q
    one_u, one_i = torch.ones_like(module.b), torch.ones_like(module.c)
    left = torch.cat([module.P, (module.mu.to(module.b.dtype) + module.b)[:, None], one_u[:, None]], dim=1)  # Eq. 1
    right = torch.cat([module.Q, one_i[:, None], module.c[:, None]], dim=1)  # Eq. 1
    return left, right


class Sparse(ByGraph):
    """Autograd through `Dots`: nothing of size (B, K) is ever held, and no gradient is scattered."""

    name = "sparse"
    capturable = True
    twice = True

    def lay_out(self, batch: Batch, config: Config) -> Batch:
        return compress(batch)

    def objective(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        assert isinstance(batch, SparseBatch)
        return objective(module, batch, config, predicted=dots(*tables(module), batch))
