"""Eq. 1 by one sampled product, and its derivative by two sparse ones, for autograd to put together.

Symbols: x (B,) numbers of the pairs, such as r̂; E (m, n) the sparse matrix of such numbers e (B,).
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


class Predicted(torch.autograd.Function):
    """x = p_u·q_i + b_u + c_i of each pair; what e does to the parameters is `Pulled`.

    The two are closed: each is made of the other when it is differentiated, so that both differentiate at will.
    """

    @staticmethod
    def forward(ctx: Any, P: Tensor, Q: Tensor, b: Tensor | None, c: Tensor | None, batch: SparseBatch) -> Tensor:
        ctx.save_for_backward(P, Q)
        ctx.batch, ctx.biased = batch, b is not None
        return batch.predicted(P, Q, b, c)

    @staticmethod
    def backward(ctx: Any, e: Tensor) -> tuple[Tensor | None, ...]:
        P, Q = ctx.saved_tensors
        of_p, of_q, of_b, of_c = pulled(e, P, Q, ctx.batch)
        return of_p, of_q, of_b if ctx.biased else None, of_c if ctx.biased else None, None


class Pulled(torch.autograd.Function):
    """E Q, Eᵀ P, E 1 and Eᵀ 1: the derivative of ⟨e, x⟩ by P, Q, b and c (Eq. 4)."""

    @staticmethod
    def forward(ctx: Any, e: Tensor, P: Tensor, Q: Tensor, batch: SparseBatch) -> tuple[Tensor, ...]:
        ctx.save_for_backward(e, P, Q)
        ctx.batch = batch
        return batch.pulled(e, P, Q)

    @staticmethod
    def backward(ctx: Any, *direction: Tensor) -> tuple[Tensor | None, ...]:
        e, P, Q = ctx.saved_tensors
        d_p, d_q, d_b, d_c = direction
        of_e = predicted(d_p, Q, d_b, d_c, ctx.batch) + predicted(P, d_q, None, None, ctx.batch)
        of_p, of_q, _, _ = pulled(e, d_p, d_q, ctx.batch)  # E times a direction of Q, and Eᵀ times one of P (Eq. 18)
        return of_e, of_p, of_q, None


def predicted(P: Tensor, Q: Tensor, b: Tensor | None, c: Tensor | None, batch: SparseBatch) -> Tensor:
    """`Predicted` of tables in any memory order: (B,)."""
    out: Tensor = Predicted.apply(P.contiguous(), Q.contiguous(), b, c, batch)  # type: ignore[no-untyped-call]
    return out


def pulled(e: Tensor, P: Tensor, Q: Tensor, batch: SparseBatch) -> tuple[Tensor, ...]:
    """`Pulled` of tables in any memory order: (m, K), (n, K), (m,) and (n,)."""
    out: tuple[Tensor, ...] = Pulled.apply(e.contiguous(), P.contiguous(), Q.contiguous(), batch)  # type: ignore[no-untyped-call]
    return out


class Sparse(ByGraph):
    """Autograd through `Predicted`: nothing of size (B, K) is ever held, and no gradient is scattered."""

    name = "sparse"
    capturable = True
    twice = True

    def lay_out(self, batch: Batch, config: Config) -> Batch:
        return compress(batch)

    def objective(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        assert isinstance(batch, SparseBatch)
        x = predicted(module.P, module.Q, module.b, module.c, batch)
        return objective(module, batch, config, predicted=module.mu.to(x.dtype) + x)  # Eq. 1
