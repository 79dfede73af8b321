"""Eq. 33 to 35 for autograd: users and items as sums of their features; the twin of `mf_numpy.design`.

Shapes: X (m, f) and Y (n, g) sparse buffers; P and b of the module are those of X's features, Q and c of Y's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mf_numpy.config import Config
from mf_numpy.design import Design, Side
from mf_numpy.model import Params
from mf_torch.batch import Batch
from mf_torch.model import MatrixFactorization
from mf_torch.objective import Objective, loss, squared_errors
from mf_torch.paths.layout import spend_the_warning


class FeatureFactorization(MatrixFactorization):
    """Eq. 1 of rows that are sums of features: p_u = Σ_a x_ua P_a, b_u = Σ_a x_ua b_a, and so on (Eq. 33).

    Attributes:
        P, Q: factors of the features, (f, K) and (g, K) parameters.
        b, c: biases of the features, (f,) and (g,), or None in the plain model.
        X, Y: what users and items are made of, (m, f) and (n, g) sparse buffers.
    """

    X: Tensor
    Y: Tensor

    def __init__(self, theta: Params, design: Design, device: torch.device | str = "cpu") -> None:
        super().__init__(theta, device)
        for name, side in (("X", design.users), ("Y", design.items)):
            self.register_buffer(name, sparse(side, self.P.dtype, device), persistent=False)

    def rows(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """P, Q, b and c of users and items (Eq. 33)."""
        b = None if self.b is None else torch.sparse.mm(self.X, self.b[:, None])[:, 0]
        c = None if self.c is None else torch.sparse.mm(self.Y, self.c[:, None])[:, 0]
        return torch.sparse.mm(self.X, self.P), torch.sparse.mm(self.Y, self.Q), b, c  # Eq. 33

    def forward(self, users: Int[Tensor, " B"], items: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        P, Q, b, c = self.rows()
        dot = (F.embedding(users, P) * F.embedding(items, Q)).sum(dim=1)
        predicted = self.mu.to(dot.dtype) + dot  # Eq. 1
        if b is not None and c is not None:
            predicted = predicted + b[users] + c[items]
        return predicted


@dataclass(frozen=True, eq=False)
class Weighted:
    """A batch with the weights of the features' penalty, (f,) and (g,) (Eq. 35)."""

    batch: Batch
    weights: tuple[Tensor, Tensor]

    def __len__(self) -> int:
        return len(self.batch)


def objective(module: FeatureFactorization, batch: Weighted, config: Config) -> Objective:
    """J (Eq. 2) with the penalty on the features; ``.value.backward()`` leaves ∇J (Eq. 34) in their ``grad``."""
    values = batch.batch.values
    predicted = module(batch.batch.users, batch.batch.items)
    data_term = loss(predicted, values, config).mean()
    return Objective(data_term + penalty(module, batch.weights, config), squared_errors(predicted, values, config))


def penalty(module: FeatureFactorization, weights: tuple[Tensor, Tensor], config: Config) -> Float[Tensor, ""]:
    """The penalty on the features, with weights (f,) and (g,) (Eq. 35)."""
    norms_f, norms_g = (module.P**2).sum(dim=1), (module.Q**2).sum(dim=1)
    if module.b is not None and module.c is not None:
        norms_f, norms_g = norms_f + module.b**2, norms_g + module.c**2
    w_f, w_g = weights
    return config.reg * (torch.dot(w_f, norms_f) + torch.dot(w_g, norms_g))  # Eq. 35


def sparse(side: Side, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """What the rows of a side are made of, (rows, features), as torch multiplies by it."""
    matrix = side.matrix
    spend_the_warning()
    return torch.sparse_csr_tensor(
        torch.as_tensor(matrix.indptr).long(), torch.as_tensor(matrix.indices).long(), torch.as_tensor(matrix.data),
        size=side.shape, dtype=dtype, device=device,
    )  # fmt: skip
