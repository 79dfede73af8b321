"""`torch.optim.SGD` with the settings that make it Eq. 12, 13 or 14; the twin of `mf_numpy.optim`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mf_numpy.config import Config
from mf_numpy.model import Tensors


def sgd(module: nn.Module, config: Config) -> torch.optim.SGD:
    """The optimiser of a configuration.

    torch adds (1 - dampening) g to the velocity, so ``ema`` (Eq. 12) is dampening β; its first velocity is g itself,
    as in the hand-written rule.
    The penalty is part of the objective (Eq. 2), so ``weight_decay`` stays 0.
    """
    dampening = config.momentum if config.momentum_form == "ema" else 0.0  # Eq. 15
    return torch.optim.SGD(
        module.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        dampening=dampening,
        nesterov=config.momentum_form == "nesterov",
        # torch's default on CUDA adds Nesterov's part to ``grad`` itself, where a step's gradient is looked up.
        foreach=False,
    )


@torch.no_grad()
def update(optimizer: torch.optim.Optimizer, lr: Tensor) -> None:
    """The step of `sgd` after its first (Eq. 12 to 14), with η a number on the device, as a CUDA graph needs it."""
    (group,) = optimizer.param_groups
    beta = group["momentum"]
    for p in group["params"]:
        step = p.grad
        if beta:
            v = optimizer.state[p]["momentum_buffer"]
            v.mul_(beta).add_(p.grad, alpha=1 - group["dampening"])  # Eq. 15
            step = p.grad.add(v, alpha=beta) if group["nesterov"] else v  # Eq. 14
        p.addcmul_(step, lr, value=-1)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Change η of every parameter; the velocities stay as they are."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def velocities(module: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors | None:
    """Copies of the velocities by parameter name, or None before the first step and without momentum."""
    buffers = {name: optimizer.state[p].get("momentum_buffer") for name, p in module.named_parameters()}
    if any(buffer is None for buffer in buffers.values()):
        return None
    return {name: buffer.detach().cpu().numpy().copy() for name, buffer in buffers.items()}


def set_velocities(module: nn.Module, optimizer: torch.optim.Optimizer, velocity: Tensors | None) -> None:
    """Put saved velocities back, so that a resumed run goes on as if it had never stopped."""
    for name, p in module.named_parameters():
        if velocity is not None:
            optimizer.state[p]["momentum_buffer"] = torch.tensor(velocity[name], device=p.device)
