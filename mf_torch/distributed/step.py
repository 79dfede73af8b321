"""One iteration over the ratings of all processes: Eq. 6 in sums that each makes of its own, and its update.

Symbols: m_r, n_r the rows of P and of Q that this process keeps; N ratings of all processes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mf_numpy.config import Config
from mf_numpy.model import Params, check_range
from mf_numpy.ratings import Array
from mf_torch.batch import Batch
from mf_torch.distributed.group import Group
from mf_torch.distributed.items import Exchange, Rows
from mf_torch.distributed.shard import Pairs, Shard
from mf_torch.model import MatrixFactorization
from mf_torch.paths.layout import SparseBatch, compress
from mf_torch.paths.manual import loss_and_residual, penalty, sum_of_squares


@dataclass(frozen=True)
class Seen:
    """J (Eq. 2) and Σ (r̂ - r)² over all ratings, as the gradient saw them; the same on every process."""

    objective: float
    squared_error: float


class Stepper:
    """The part of a fit that one process computes.

    Attributes:
        module: P and b of its users, Q and c of `exchange.own`; after `look` their ``grad`` is ∇J.
        velocity: of each parameter by name, or None before the first step and without momentum.
    """

    def __init__(self, shard: Shard, params: Params, config: Config, exchange: Exchange, group: Group) -> None:
        self.config, self.exchange, self.group = config, exchange, group
        self.n_ratings = shard.n_ratings
        self.module = MatrixFactorization(params, group.device)
        self.velocity: dict[str, Tensor] | None = None
        self.pairs = self._laid_out(shard.ratings, shard)
        self.valid = None if shard.valid is None else self._laid_out(shard.valid, shard)
        of_items = shard.item_counts[exchange.own.start : exchange.own.stop]
        self.w_u, self.w_i = self._weights(shard.user_counts), self._weights(of_items)

    def look(self) -> Seen:
        """J at the parameters as they are; ∇J (Eq. 6) is left in their ``grad``, and nothing moves."""
        module, config, exchange = self.module, self.config, self.exchange
        of_users: Rows = ()
        loss = squared_error = module.mu.new_zeros(())
        with torch.no_grad():
            for block, rows in exchange.visits(self._rows()):
                pairs = self.pairs[block]
                each, e, squares = loss_and_residual(self._predicted(pairs, rows), pairs.values, config)
                loss, squared_error = loss + each, squared_error + squares
                # ∇Q first: it travels while ∇P is computed.
                exchange.give(block, pairs.pulled_items(e, module.P)[: len(rows)])  # Eq. 4
                pulled = pairs.pulled_users(e, rows[0])  # Eq. 4
                of_users = tuple(x.add_(y) for x, y in zip(of_users, pulled, strict=True)) if of_users else pulled
            counted = self.w_i if exchange.speaks else torch.zeros_like(self.w_i)
            local = torch.stack([loss, squared_error, penalty(module, self.w_u, counted, config)])
            wait = self.group.add_up(local)
            self._set_gradients(of_users, exchange.taken())
            wait()
        data, squared, norms = local.tolist()
        return Seen(data / self.n_ratings + norms, squared)  # Eq. 2

    @torch.no_grad()
    def move(self, lr: float) -> None:
        """One update along the gradient of the last `look`, which is used up; the twin of `mf_numpy.optim.update`.

        `torch.optim.SGD` does the same; making one has every process, at every restart, load torch's compiler.
        """
        beta, form = self.config.momentum, self.config.momentum_form
        first = self.velocity is None
        if beta and self.velocity is None:
            self.velocity = {name: _grad(theta).clone() for name, theta in self.module.named_parameters()}
        for name, theta in self.module.named_parameters():
            step = _grad(theta)
            if self.velocity is not None:
                v = self.velocity[name]
                if not first:
                    v.mul_(beta).add_(step, alpha=1 - beta if form == "ema" else 1.0)  # Eq. 12, Eq. 13
                step = step.add_(v, alpha=beta) if form == "nesterov" else v  # Eq. 14
            theta.sub_(step, alpha=lr)

    def check_replicas(self) -> None:
        """Look whether Q, where every process has one, has the same bits on each.

        Raises:
            RuntimeError: it has not.
        """
        q = self.module.Q.detach().cpu().numpy()
        if not self.exchange.sharded and not self.group.same(zlib.crc32(np.ascontiguousarray(q).data)):
            raise RuntimeError(
                "the processes have come to different Q; start all with one torch on machines of one kind"
            )

    def held_out(self) -> tuple[float, float]:
        """Σ (r̂ - r)² over the held-out pairs of all processes, and their number."""
        assert self.valid is not None
        squared, n = self.module.mu.new_zeros(()), 0
        with torch.no_grad():
            for block, rows in self.exchange.visits(self._rows()):
                squared = squared + sum_of_squares(self._predicted(self.valid[block], rows) - self.valid[block].values)
                n += len(self.valid[block])
        total, pairs = self.group.total(float(squared), float(n))
        return total, pairs

    def _rows(self) -> Rows:
        module = self.module
        return (module.Q.detach(),) if module.c is None else (module.Q.detach(), module.c.detach())

    def _predicted(self, pairs: SparseBatch, rows: Rows) -> Tensor:
        """r̂ of a block's pairs (Eq. 1)."""
        module = self.module
        predicted = pairs.predicted(module.P, rows[0], module.b, rows[1] if module.b is not None else None)
        predicted += module.mu.to(predicted.dtype)  # Eq. 1
        return predicted

    def _set_gradients(self, of_users: Rows, of_items: Rows) -> None:
        module, share, reg = self.module, 1 / self.n_ratings, 2 * self.config.reg
        module.P.grad = of_users[0].mul_(share).addcmul_((reg * self.w_u)[:, None], module.P)  # Eq. 6
        module.Q.grad = of_items[0].mul_(share).addcmul_((reg * self.w_i)[:, None], module.Q)  # Eq. 6
        if module.b is not None and module.c is not None:
            module.b.grad = of_users[1].mul_(share).addcmul_(reg * self.w_u, module.b)  # Eq. 6
            module.c.grad = of_items[1].mul_(share).addcmul_(reg * self.w_i, module.c)  # Eq. 6

    def _weights(self, counts: Array) -> Tensor:
        """w_u or w_i of Eq. 2: all 1, or n_u/N or n_i/N (Eq. 8)."""
        share = np.ones(len(counts)) if self.config.penalty == "total" else counts * (1.0 / self.n_ratings)  # Eq. 8
        return self.group.hold(share.astype(self.config.numpy_dtype))

    def _laid_out(self, pairs: Pairs, shard: Shard) -> list[SparseBatch]:
        """The pairs of each block, its first item being 0."""
        check_range("users", pairs.users, len(shard.users))
        check_range("items", pairs.items, shard.shape[1])
        out = []
        for block in self.exchange.blocks:
            within = (pairs.items >= block.start) & (pairs.items < block.stop)
            arrays = pairs.users[within], pairs.items[within] - block.start, pairs.values[within]
            batch = Batch(
                self.group.hold(arrays[0].astype(np.int64)),
                self.group.hold(arrays[1].astype(np.int64)),
                self.group.hold(arrays[2].astype(self.config.numpy_dtype)),
                (len(shard.users), len(block)),
                _in_range=True,
            )
            out.append(compress(batch))
        return out


def _grad(theta: Tensor) -> Tensor:
    assert theta.grad is not None
    return theta.grad
