"""Modules as tutorials and courses write them, right and wrong, to be held to the hand-written model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mf_numpy import Ratings

M, N, K = 30, 20, 4


def table(size: int = 400) -> Ratings:
    """Ratings of 1 to 5, every id asked for, some pairs twice, some users and items with none."""
    rng = np.random.default_rng(8)
    users, items = rng.integers(0, M - 1, size), rng.integers(0, N - 1, size)
    return Ratings.of_indices(users, items, rng.integers(1, 6, size), m=M, n=N)


class Dot(nn.Module):
    """Two embeddings and their product: the first thing that every tutorial shows."""

    def __init__(self, m: int = M, n: int = N, k: int = K, **users: Any) -> None:
        super().__init__()
        self.user_factors = nn.Embedding(m, k, **users)
        self.item_factors = nn.Embedding(n, k, sparse=bool(users.get("sparse")))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        p: Tensor = self.user_factors(users)
        q: Tensor = self.item_factors(items)
        return (p * q).sum(1)


class Biased(Dot):
    """With biases (m, 1) and a global one, fresh: all three are 0."""

    def __init__(self, **users: Any) -> None:
        super().__init__(**users)
        self.user_bias, self.item_bias = nn.Embedding(M, 1), nn.Embedding(N, 1)
        self.global_bias = nn.Parameter(torch.zeros(1))
        nn.init.zeros_(self.user_bias.weight)
        nn.init.zeros_(self.item_bias.weight)

    def terms(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return (
            self.global_bias,
            self.user_bias(users).squeeze(1),
            self.item_bias(items).squeeze(1),
            (self.user_factors(users) * self.item_factors(items)).sum(1),
        )

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        mu, b, c, dot = self.terms(users, items)
        return mu + b + c + dot


class EmbeddingDotBias(nn.Module):
    """As fastai has it: pairs in two columns, no μ, and a sigmoid onto `y_range` where one is given."""

    def __init__(self, n_factors: int, n_users: int, n_items: int, y_range: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.y_range = y_range
        sizes = [(n_users, n_factors), (n_items, n_factors), (n_users, 1), (n_items, 1)]
        self.u_weight, self.i_weight, self.u_bias, self.i_bias = (nn.Embedding(*size) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        users, items = x[:, 0], x[:, 1]
        dot = self.u_weight(users) * self.i_weight(items)
        res: Tensor = dot.sum(1) + self.u_bias(users).squeeze() + self.i_bias(items).squeeze()
        if self.y_range is None:
            return res
        out: Tensor = torch.sigmoid(res) * (self.y_range[1] - self.y_range[0]) + self.y_range[0]
        return out


class Column(Biased):
    """Keeps a dimension of one, and μ as a buffer: predictions (B, 1)."""

    def __init__(self) -> None:
        super().__init__()
        del self.global_bias
        self.register_buffer("mean", torch.tensor(3.25))
        self.mean: Tensor

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        dot = (self.user_factors(users) * self.item_factors(items)).sum(1, keepdim=True)
        out: Tensor = self.mean + dot + self.user_bias(users) + self.item_bias(items)
        return out


class Matrices(nn.Module):
    """Bare parameters, rows looked up by indexing; biases (m,); μ a number that no state dict holds."""

    def __init__(self, mean: float = 3.5) -> None:
        super().__init__()
        self.mean = mean
        self.p, self.q = nn.Parameter(torch.randn(M, K)), nn.Parameter(torch.randn(N, K))
        self.b, self.c = nn.Parameter(torch.randn(M)), nn.Parameter(torch.randn(N))

    def forward(self, u: Tensor, i: Tensor) -> Tensor:
        return self.mean + self.b[u] + self.c[i] + torch.einsum("bk,bk->b", self.p[u], self.q[i])


class Perceptron(Dot):
    """A network beside the product, its last layer 0 at the start: right today, another model tomorrow."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * K, 8), nn.ReLU(), nn.Linear(8, 1))
        nn.init.zeros_(self.layers[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[2].bias)  # type: ignore[arg-type]

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        both = torch.cat([self.user_factors(users), self.item_factors(items)], dim=1)
        out: Tensor = super().forward(users, items) + self.layers(both).squeeze(1)
        return out


class _LastOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, at: Tensor) -> Tensor:
        ctx.save_for_backward(at)
        ctx.shape = table.shape
        return table[at]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (at,) = ctx.saved_tensors
        out = torch.zeros(ctx.shape, dtype=grads[0].dtype)
        for row, g in zip(at.tolist(), grads[0], strict=True):
            out[row] = g  # overwrites where it must add
        return out, None


class Overwriting(Dot):
    """A hand-made lookup whose backward loses all but the last rating of a user."""

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        p: Tensor = _LastOnly.apply(self.user_factors.weight, users)  # type: ignore[no-untyped-call]
        q: Tensor = self.item_factors(items)
        return (p * q).sum(1)


class _PairsOnce(torch.autograd.Function):
    """p·q, whose backward counts a pair that comes twice once."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(p, q, kept)
        return (p * q).sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        p, q, kept = ctx.saved_tensors
        g = (grads[0] * kept)[:, None]
        return g * q, g * p, None


class PairsOnce(Dot):
    """Ratings kept in a dictionary by pair: a pair that was rated twice counts with its last rating."""

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        last = {pair: at for at, pair in enumerate(zip(users.tolist(), items.tolist(), strict=True))}
        kept = torch.zeros(len(users), dtype=self.user_factors.weight.dtype)
        kept[list(last.values())] = 1
        out: Tensor = _PairsOnce.apply(self.user_factors(users), self.item_factors(items), kept)  # type: ignore[no-untyped-call]
        return out
