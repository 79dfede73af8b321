"""torch's optimisers with the settings that make them Eq. 10, 12 to 14 and 30; the twin of `mf_numpy.optim`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mf_numpy.adaptive import BETA1, BETA2, EPS, FLOOR
from mf_numpy.config import Config
from mf_numpy.optim import Memory
from mf_numpy.ratings import Array


def optimizer_of(module: nn.Module, config: Config) -> torch.optim.Optimizer:
    """The optimiser of a configuration.

    The penalty is part of the objective (Eq. 2), so ``weight_decay`` stays 0 in all of them.
    """
    given = module.parameters()
    if config.step_rule == "adam":
        return torch.optim.Adam(given, lr=config.lr, betas=(BETA1, BETA2), eps=EPS)  # Eq. 10
    if config.step_rule == "adagrad":
        # h begins at 0, and ε is outside of the root.
        return torch.optim.Adagrad(given, lr=config.lr, initial_accumulator_value=0.0, eps=FLOOR)  # Eq. 30
    return sgd(module, config)


def sgd(module: nn.Module, config: Config) -> torch.optim.SGD:
    """The optimiser of ``step_rule="momentum"``.

    torch adds (1 - dampening) g to the velocity, so ``ema`` (Eq. 12) is dampening β; its first velocity is g itself,
    as in the hand-written rule.
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


def is_momentum(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimiser is that of `sgd`, whose step `update` and the like can stand in for."""
    return type(optimizer) is torch.optim.SGD


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
    """Change η of every parameter; what the optimiser remembers stays as it is."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _kept_as(optimizer: torch.optim.Optimizer) -> tuple[str, str | None]:
    """Under which names torch keeps what `mf_numpy.optim.Memory` calls ``velocity`` and ``second``."""
    if isinstance(optimizer, torch.optim.Adam):
        return "exp_avg", "exp_avg_sq"
    return ("sum" if isinstance(optimizer, torch.optim.Adagrad) else "momentum_buffer"), None


def memory(module: nn.Module, optimizer: torch.optim.Optimizer) -> Memory | None:
    """A copy of what the optimiser remembers, or None before the first step and without momentum."""
    first, second = _kept_as(optimizer)
    states = {name: optimizer.state[p] for name, p in module.named_parameters()}
    if any(state.get(first) is None for state in states.values()):
        return None
    velocity = {name: _copied(state[first]) for name, state in states.items()}
    if second is None:
        return Memory(velocity)
    steps = {int(state["step"]) for state in states.values()}
    return Memory(velocity, {name: _copied(state[second]) for name, state in states.items()}, *steps)


def set_memory(module: nn.Module, optimizer: torch.optim.Optimizer, memory: Memory | None) -> None:
    """Put what was remembered back, so that a resumed run goes on as if it had never stopped."""
    if memory is None:
        return
    first, second = _kept_as(optimizer)
    for name, p in module.named_parameters():
        state = optimizer.state[p]
        state[first] = torch.tensor(memory.velocity[name], device=p.device)
        if second is not None and memory.second is not None:
            state[second] = torch.tensor(memory.second[name], device=p.device)
            # torch counts in float32, on the CPU unless it is asked otherwise.
            state["step"] = torch.tensor(float(memory.steps))


def _copied(tensor: Tensor) -> Array:
    out: Array = tensor.detach().cpu().numpy().copy()
    return out
