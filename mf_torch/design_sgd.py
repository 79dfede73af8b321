"""``sgd`` of features by autograd: one step for each rating (Eq. 39); the twin of `mf_numpy.solvers.design_sgd`.

Slow: each rating is a graph, a backward pass and a step of torch's optimiser. It knows no Eq. 40, and says in torch
what the kernel which does must come to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mf_numpy.config import Config
from mf_numpy.design import Design, Side
from mf_numpy.designed import design_engine
from mf_numpy.ratings import Ratings
from mf_numpy.solvers.design_sgd import Walk
from mf_torch.design import FeatureFactorization, penalty
from mf_torch.designed import DesignEngine
from mf_torch.objective import Objective, loss, squared_errors
from mf_torch.optim import set_lr
from mf_torch.train import TorchState


class DesignSgdEngine(DesignEngine):
    """Single steps through a design, in the order in which NumPy draws them for the hand-written ones.

    Raises:
        ConfigError: a path other than ``autograd``; and as the hand-written engine.
    """

    def __init__(self, design: Design, config: Config, device: str = "cpu", path: str = "autograd") -> None:
        super().__init__(design, device, path)
        self.by_hand = design_engine(design, config, "loops")

    def load(self, train: Ratings, config: Config) -> Any:
        return self.by_hand.load(train, config)

    def batches(self, whole: Any, epoch: int, config: Config) -> Iterator[Any]:
        yield whole

    def step(self, state: TorchState, batch: Any, config: Config) -> TorchState:
        """An epoch: every rating once."""
        module, optimizer = state.module, state.optimizer
        assert isinstance(module, FeatureFactorization) and isinstance(batch, Walk)
        set_lr(optimizer, config.lr_at(state.epoch + 1))
        w_f, w_g = (torch.as_tensor(w, device=self.device) for w in batch.weights)
        with torch.no_grad():
            penalised = penalty(module, (w_f, w_g), config).double()
        total, squares = torch.zeros_like(penalised), torch.zeros_like(penalised)
        # Torch warns once of sparse gradients that nobody has said whether to check.
        with torch.sparse.check_sparse_tensor_invariants(False):  # type: ignore[no-untyped-call]
            for user, item, value in batch.sequence(state.epoch + 1, config):
                module.zero_grad(set_to_none=True)
                objective, seen = self._of_one(module, user, item, value, config)
                objective.backward()  # type: ignore[no-untyped-call]
                optimizer.step()  # Eq. 39
                total, squares = total + seen.value.double(), squares + seen.squared_error
        return replace(state, seen=Objective(total / len(batch) + penalised, squares))

    def _of_one(
        self, module: FeatureFactorization, user: int, item: int, rating: float, config: Config
    ) -> tuple[Float[Tensor, ""], Objective]:
        """J of a table that holds one rating, whose gradient has the features that it meets; and ℓ alone."""
        of_user, x = _made_of(module.X, self.design.users, user)
        of_item, y = _made_of(module.Y, self.design.items, item)
        W, Z = F.embedding(of_user, module.P, sparse=True), F.embedding(of_item, module.Q, sparse=True)
        predicted = module.mu.to(W.dtype) + (x @ W) @ (y @ Z)[:, None]  # Eq. 1, Eq. 33
        norms = (W**2).sum() + (Z**2).sum()
        if module.b is not None and module.c is not None:
            w = torch.gather(module.b, 0, of_user, sparse_grad=True)
            z = torch.gather(module.c, 0, of_item, sparse_grad=True)
            predicted, norms = predicted + x @ w + y @ z, norms + (w**2).sum() + (z**2).sum()
        value = torch.tensor([rating], dtype=W.dtype, device=W.device)
        cost = loss(predicted, value, config).mean()
        return cost + config.reg * norms, Objective(cost.detach(), squared_errors(predicted, value, config))


def _made_of(matrix: Tensor, side: Side, row: int) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """The features of one row on the device, and how much it has of each."""
    own = slice(int(side.matrix.indptr[row]), int(side.matrix.indptr[row + 1]))
    return matrix.col_indices()[own], matrix.values()[own]
