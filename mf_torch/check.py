"""`mf_numpy.check` with one column more: autograd."""

from __future__ import annotations

import numpy as np
import torch

from mf_numpy import batch as by_hand
from mf_numpy import check
from mf_numpy.config import Config
from mf_numpy.model import Params, Tensors
from mf_numpy.ratings import Array
from mf_torch.batch import Batch, to_device
from mf_torch.model import MatrixFactorization
from mf_torch.objective import loss, objective
from mf_torch.optim import velocities
from mf_torch.train import TorchEngine, TorchState


def autograd(params: Params, batch: by_hand.Batch, config: Config, device: str = "cpu") -> Tensors:
    """∇J by autograd at `params`, as NumPy arrays by parameter name."""
    module = MatrixFactorization(params, device)
    objective(module, to_device(batch, device), config).value.backward()  # type: ignore[no-untyped-call]
    return gradients(module)


def gradients(module: MatrixFactorization) -> Tensors:
    """Copies of the parameters' ``grad`` by name."""
    return {name: p.grad.cpu().numpy().copy() for name, p in module.named_parameters() if p.grad is not None}


def residual(module: MatrixFactorization, batch: Batch, config: Config) -> Array:
    """E = ∂ℓ/∂r̂ (Eq. 3) of each pair by autograd, (B,)."""
    predicted = module(batch.users, batch.items).detach().requires_grad_()
    (e,) = torch.autograd.grad(loss(predicted - batch.values, config).sum(), predicted)
    out: Array = e.cpu().numpy()
    return out


def observe(state: TorchState, batch: Batch, config: Config) -> dict[str, Array]:
    """The twin of `mf_numpy.check.observe`."""
    assert state.seen is not None
    seen = {"objective": np.array(float(state.seen.value)), "E": residual(state.module, batch, config)}
    velocity = velocities(state.module, state.optimizer)
    return seen | check.by_name(gradients(state.module), velocity, state.module.to_params().tensors())


def run(device: str = "cpu") -> list[check.Check]:
    """All checks, with autograd on `device` among the methods."""
    methods = {**check.METHODS, "autograd": lambda p, b, c: autograd(p, b, c, device)}
    engines = {**check.ENGINES, "autograd": (TorchEngine(device), observe)}
    return check.check_gradients(methods) + check.check_trajectories(engines)
