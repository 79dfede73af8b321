"""One check: the module's copy, its roles, the pairs and the settings; and what is computed from them by hand.

Shapes: B pairs; P (m, K), Q (n, K), where m and n are the rows of the module's tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from mf_numpy import gradients, losses
from mf_numpy.batch import Batch
from mf_numpy.config import Config
from mf_numpy.model import Params, Tensors, predict
from mf_numpy.ratings import Array
from mf_torch.module_check import steps
from mf_torch.module_check.hints import Table
from mf_torch.module_check.probe import Loss, ModuleCopy, Objective, Seen
from mf_torch.module_check.roles import Roles


@dataclass(frozen=True, eq=False)
class Case:
    copy: ModuleCopy
    roles: Roles
    batch: Batch
    config: Config
    loss: Loss
    objective: Objective | None
    judged: bool
    optimizer: torch.optim.Optimizer | None
    by_config: bool
    n_steps: int
    tolerance: float
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that have a role, each once."""
        return tuple(dict.fromkeys(self.roles.names.values()))

    def draw(self, k: int, own: Tensors) -> Tensors:
        """The k-th draw of all that is trained or has a role: biases and mean of the ratings' size, p·q as well."""
        rng = np.random.default_rng([self.seed, k])
        ratings = self.batch.values
        spread = float(ratings.std()) or 1.0
        values: Tensors = dict(own)
        for name in dict.fromkeys([*self.names, *self.copy.trained]):
            values[name] = 0.5 * np.array(rng.normal(size=own[name].shape))
        for role, name in self.roles.names.items():
            if role == "mu":
                values[name] = np.full(own[name].shape, ratings.mean() + spread * rng.normal())
            elif role in ("P", "Q"):
                values[name] = rng.normal(size=own[name].shape) * spread**0.5 * own[name].shape[1] ** -0.25
            else:
                values[name] = 0.5 * spread * np.array(rng.normal(size=own[name].shape))
        return values

    def probe(self) -> tuple[Array, Array]:
        """Pairs whose ids are in the range of both tables, so that a module that swaps them can answer, too."""
        rng = np.random.default_rng([self.seed, 1 << 16])
        least, size = min(self.batch.shape), 256 + 4 * self.config.n_factors
        return rng.integers(0, least, size), rng.integers(0, least, size)

    def see(self) -> Seen:
        """A backward pass over the batch at the parameters written last."""
        batch = self.batch
        return self.copy.backward(batch.users, batch.items, batch.values, self.loss, self.objective)


def by_role(params: Params, batch: Batch, config: Config) -> dict[str, Array]:
    """The hand-written gradient, and that of μ, which Eq. 2 does not penalise: the mean of E."""
    out = dict(gradients.gradient(params, batch, config).gradient)
    e = losses.residual(predict(params, batch.users, batch.items), batch.values, config)
    return out | {"mu": np.array(e.mean())}  # Eq. 3: ∂r̂/∂μ = 1


def through(params: Params, batch: Batch, e: Array) -> dict[str, Array]:
    """The gradient that a given E (B,) makes (Eq. 4), by role."""
    sparse, share = batch.sparse(e), 1 / len(batch)
    return {
        "P": (sparse @ params.Q) * share,
        "Q": (sparse.T @ params.P) * share,
        "b": sparse.sum(axis=1) * share,
        "c": sparse.sum(axis=0) * share,
        "mu": np.array(e.mean()),
    }


def absolute(params: Params) -> Params:
    return replace(params.with_tensors({name: np.abs(a) for name, a in params.tensors().items()}), mu=abs(params.mu))


def terms(params: Params, users: Array, items: Array) -> Array:
    """Σ of the absolute values that a prediction adds up, (B,)."""
    return predict(absolute(params), users, items)


def sizes(params: Params, batch: Batch) -> Array:
    """The numbers that E is the difference of, (B,): where they cancel, digits are lost that nobody has."""
    return 2 * (terms(params, batch.users, batch.items) + np.abs(batch.values))


def relative(mine: Array, gold: Array, terms: Array | None = None) -> float:
    """max|mine - gold| over the largest sum of absolute terms."""
    scale = float(np.abs(gold if terms is None else terms).max(initial=0.0))
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.abs(mine - gold).max(initial=0.0)) / (scale if scale > 0 else 1.0)


def is_kept(batch: Batch, which: int) -> Array:
    """Whether a rating is the first (1) or last (-1) of its pair, (B,)."""
    at = np.arange(len(batch))[::which]
    keys = (batch.users * np.int64(batch.shape[1]) + batch.items)[::which]
    kept = np.zeros(len(batch), dtype=bool)
    kept[at[np.unique(keys, return_index=True)[1]]] = True
    return kept


def decay_of(case: Case, *, decoupled: bool = False) -> dict[str, float]:
    """The optimiser's weight decay by tensor: the part that is in the gradient, or the one beside it."""
    if case.optimizer is None:
        return {}
    return {
        name: float(group.get("weight_decay", 0.0))
        for name, group in steps.groups(case.copy, case.optimizer).items()
        if steps.is_decoupled(case.optimizer, group) == decoupled
    }


def table_of(case: Case, name: str, values: Tensors) -> Table:
    role = next(role for role, other in case.roles.names.items() if other == name)
    theta = values[name]
    counts = np.zeros_like(theta)
    if role != "mu":
        of_rows = (case.batch.user_counts if role in ("P", "b") else case.batch.item_counts).astype(float)
        counts = counts + (of_rows[:, None] if role in ("P", "Q") else of_rows.reshape(theta.shape))
    embedding = next((e for _, e in embeddings(case.copy, [name])), None)
    return Table(
        name=name,
        theta=theta,
        share=counts / len(case.batch),
        counts=counts,
        padding=None if embedding is None else embedding.padding_idx,
        by_frequency=embedding is not None and embedding.scale_grad_by_freq,
    )


def embeddings(copy: ModuleCopy, names: Iterable[str]) -> list[tuple[str, nn.Embedding]]:
    tensors = dict(copy.module.named_parameters())
    return [
        (name, e)
        for name in names
        for e in copy.module.modules()
        if isinstance(e, nn.Embedding) and name in tensors and e.weight is tensors[name]
    ]
