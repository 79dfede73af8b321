"""Adam, AdaGrad and sparse gradients: named checks that ask torch, beside those of `mf_torch.check`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mf_numpy import adaptive, loops, train
from mf_numpy.batch import Batch, full_batch, mini_batches
from mf_numpy.check import GRADIENT_TOLERANCE, Check
from mf_numpy.config import Config
from mf_numpy.model import Params
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Array, Ratings
from mf_torch.batch import to_device
from mf_torch.model import MatrixFactorization
from mf_torch.paths.sparse_grad import SparseGrad
from mf_torch.train import TorchEngine


def adam_of_torch(ways: Ways) -> list[Check]:
    """Adam's steps are those of `torch.optim.Adam`, and of `AdamW` where decay is outside (Eq. 10, 11)."""
    worst = Worst(1e-12)
    rng = np.random.default_rng(32)
    for decoupled, kind in ((False, torch.optim.Adam), (True, torch.optim.AdamW)):
        theta, moments = rng.normal(size=4), None
        p = torch.tensor(theta, requires_grad=True)
        optimizer = kind([p], lr=0.1, weight_decay=0.3)
        for t, g in enumerate(rng.normal(size=(6, 4))):
            theta, moments = adaptive.adam(theta, moments, g, 0.1, decay=0.3, decoupled=decoupled)
            p.grad = torch.tensor(g)
            optimizer.step()
            worst.see("adaptive", "θ", theta, p.detach().numpy(), f"{kind.__name__}, step {t + 1}")
    _moves(worst, ways, Config(step_rule="adam", dtype="float64"), torch.optim.Adam, "exp_avg")
    return worst.checks()


def adagrad_of_torch(ways: Ways) -> list[Check]:
    """AdaGrad's steps are those of `torch.optim.Adagrad` as it comes: h begins at 0, and ε is 1e-10 (Eq. 30)."""
    worst = Worst(1e-12)
    _moves(worst, ways, Config(step_rule="adagrad", dtype="float64"), torch.optim.Adagrad, "sum")
    return worst.checks()


def _moves(worst: Worst, ways: Ways, config: Config, kind: Any, kept_as: str) -> None:
    """The rule's updates beside those of an optimiser that nobody has given any settings but η."""
    rng = np.random.default_rng(34)
    theta, grads = rng.normal(size=(3, 2)), list(rng.normal(size=(6, 3, 2)) * np.array([1.0, 1e-8]))
    lrs = [0.1] * 3 + [0.05] * 3
    p = torch.tensor(theta, requires_grad=True)
    optimizer = kind([p], lr=1.0)
    gold: list[tuple[Array, Array]] = []
    for g, lr in zip(grads, lrs, strict=True):
        p.grad, optimizer.param_groups[0]["lr"] = torch.tensor(g), lr
        optimizer.step()
        gold.append((p.detach().numpy().copy(), optimizer.state[p][kept_as].numpy().copy()))
    for name, way in ways.items():
        for t, mine in enumerate(way.moves(config, theta, grads, lrs)):
            for what, x, y in zip(("θ", "memory"), mine, gold[t], strict=True):
                worst.see(name, what, x, y, f"step {t + 1}")


def sparse_gradients(ways: Ways) -> list[Check]:
    """Sparse gradients are those of the loops, row for row, where a row has many pairs, and where it has none."""
    worst = Worst(GRADIENT_TOLERANCE)
    for label, _, params, config, batch in _batches():
        gold = loops.gradient(params, batch, config)
        module, path = MatrixFactorization(params), SparseGrad()
        seen = path.differentiate(module, path.lay_out(to_device(batch, "cpu"), config), config)
        worst.see("sparse gradients", "J", float(seen.value), gold.objective, label)
        worst.see("sparse gradients", "Σ error²", float(seen.squared_error), gold.squared_error, label)
        for name, p in module.named_parameters():
            assert p.grad is not None
            worst.see("sparse gradients", name, p.grad.to_dense().numpy(), gold.gradient[name], label)
            # A row that no pair names has no place in the tensor, not a 0.
            named = np.unique(batch.users if name in ("P", "b") else batch.items)
            rows = p.grad.coalesce().indices()[0].tolist()
            worst.note("sparse gradients", "rows held", float(rows != named.tolist()), label)
    return worst.checks()


def sparse_steps(ways: Ways) -> list[Check]:
    """A run in batches by sparse gradients is that by dense ones, by plain steps and by AdaGrad's."""
    worst = Worst(1e-12)
    for label, ratings, _, config, _ in _batches(n_epochs=3, batch_size=7):
        for rule, lr in (("momentum", 0.3), ("adagrad", 0.1)):
            at = replace(config, step_rule=rule, lr=lr)  # type: ignore[arg-type]
            mine, gold = (train.run(TorchEngine(sparse_grad=sparse), ratings, at) for sparse in (True, False))
            worst.see_all("sparse gradients", mine.params.tensors(), gold.params.tensors(), f"{label}, {rule}")
            if gold.state.velocity is not None:
                kept = mine.state.velocity or {}
                worst.see_all("sparse gradients", kept, gold.state.velocity, f"{label}, {rule}, memory")
    return worst.checks()


def _batches(**settings: Any) -> Iterator[tuple[str, Ratings, Params, Config, Batch]]:
    """Problems whose gradient is sparse, with a batch of theirs: both models, losses and penalties; pairs repeat."""
    for kind, penalty, reg in (("plain", "per_rating", 0.07), ("biased", "per_rating", 0.07), ("biased", "total", 0.0)):
        for loss in ("squared", "pseudo_huber", "poisson"):
            given: dict[str, Any] = {"model": kind, "penalty": penalty, "reg": reg, "loss": loss, "momentum": 0.0}
            ratings, params, config = problem(35, **given | {"batch_size": 11} | settings)
            batch = next(mini_batches(full_batch(ratings, config), 1, config))
            yield f"{kind}, {penalty}, {loss}", ratings, params, config, batch
