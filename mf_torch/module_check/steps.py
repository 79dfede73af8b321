"""Steps of somebody else's module by somebody's optimiser, beside the same steps by hand.

The hand-written side takes the gradient of Eq. 6 and moves by Eq. 12, 13, 14, or Adam's Eq. 10 and 11, whichever the
optimiser says it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mf_numpy import gradients, losses, optim
from mf_numpy.adaptive import adam
from mf_numpy.batch import Batch
from mf_numpy.config import Config, MomentumForm
from mf_numpy.errors import ConfigError
from mf_numpy.model import Tensors, predict
from mf_numpy.ratings import Array
from mf_torch.module_check.hints import nothing_left
from mf_torch.module_check.probe import Loss, ModuleCopy, Objective, quiet
from mf_torch.module_check.roles import Roles

Rule = Callable[[Array, Any, Array], tuple[Array, Any]]
"""(θ, what it remembers, gradient) → the same after a step."""

MakeOptimizer = Callable[[Any], torch.optim.Optimizer]
"""module → the optimiser of its parameters."""

_FORMS: tuple[MomentumForm, ...] = ("ema", "heavy_ball", "nesterov")


def momentum_rule(lr: float, momentum: float, form: MomentumForm) -> Rule:
    """θ moved by `mf_numpy.optim.update`."""
    form = form if momentum else "ema"
    config = Config(momentum=momentum, momentum_form=form, dtype="float64")

    def rule(theta: Array, memory: Any, grad: Array) -> tuple[Array, Any]:
        moved, memory = optim.update({"θ": theta}, memory, {"θ": grad}, lr, config)
        return moved["θ"], memory

    return rule


def _adam_rule(lr: float, group: Mapping[str, Any], decoupled: bool) -> Rule:
    # The coupled decay is a penalty, which the gradient by hand has from λ.
    decay = float(group["weight_decay"]) if decoupled else 0.0
    beta1, beta2 = map(float, group["betas"])

    def rule(theta: Array, memory: Any, grad: Array) -> tuple[Array, Any]:
        return adam(
            theta, memory, grad, lr, beta1=beta1, beta2=beta2, eps=float(group["eps"]), decay=decay, decoupled=decoupled
        )

    return rule


def is_decoupled(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> bool:
    """Whether weight decay shrinks parameters beside the gradient (Eq. 11)."""
    return isinstance(optimizer, torch.optim.AdamW) or bool(group.get("decoupled_weight_decay"))


def groups(copy: ModuleCopy, optimizer: torch.optim.Optimizer) -> dict[str, Mapping[str, Any]]:
    """The optimiser's settings of each trained tensor, by name.

    Raises:
        ConfigError: an optimiser of another module's parameters.
    """
    name_of = {id(p): name for name, p in copy.module.named_parameters()}
    found: dict[str, Mapping[str, Any]] = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            if id(p) not in name_of:
                raise ConfigError(
                    "the optimiser holds tensors that are not the checked copy's; make it from its argument: "
                    "optimizer=lambda module: torch.optim.SGD(module.parameters(), lr=...)"
                )
            found[name_of[id(p)]] = group
    return found


def rule_of(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> Rule:
    """The hand-written form of an optimiser's settings.

    Raises:
        ConfigError: an optimiser, or a setting of it, that has none.
    """
    if group.get("maximize"):
        raise ConfigError("the optimiser has maximize=True and climbs; minimise instead")
    lr = float(group["lr"])
    if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        if group.get("amsgrad"):
            raise ConfigError("the optimiser has amsgrad=True, which has no hand-written form here; use amsgrad=False")
        return _adam_rule(lr, group, is_decoupled(optimizer, group))
    if not isinstance(optimizer, torch.optim.SGD):
        raise ConfigError(
            f"the optimiser is {type(optimizer).__name__}, but SGD, Adam and AdamW have hand-written forms; use one of "
            "them, or check without an optimizer"
        )
    beta, dampening = float(group["momentum"]), float(group["dampening"])
    if beta and dampening not in (0.0, beta):
        raise ConfigError(
            f"the optimiser has momentum {beta:g} and dampening {dampening:g}, but hand-written forms are dampening 0 "
            f"(heavy ball, Nesterov) and {beta:g}, the momentum (average)"
        )
    form: MomentumForm = "nesterov" if group["nesterov"] else "ema" if dampening else "heavy_ball"
    return momentum_rule(lr, beta, form)


def by_hand(
    roles: Roles, values: Tensors, batch: Batch, config: Config, rules: Mapping[str, Rule], n_steps: int
) -> Iterator[Tensors]:
    """All tensors after each of `n_steps` full-batch steps; those without a rule stay."""
    values = dict(values)
    memory: dict[str, Any] = dict.fromkeys(rules)
    share = 1 / len(batch)
    for _ in range(n_steps):
        params = roles.params(values)
        grads = gradients.gradient(params, batch, config).gradient
        e = losses.residual(predict(params, batch.users, batch.items), batch.values, config)
        by_role = grads | {"mu": np.array(e.sum() * share)}  # Eq. 3: ∂r̂/∂μ = 1
        named = roles.by_name({role: by_role[role] for role in roles.names}, values)
        for name, rule in rules.items():
            values[name], memory[name] = rule(values[name], memory[name], named[name])
        yield dict(values)


def by_torch(
    copy: ModuleCopy,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    loss: Loss | None,
    objective: Objective | None,
    n_steps: int,
) -> Iterator[Tensors]:
    """The module's tensors after each step of its own training loop."""
    u, i = copy.ids(batch.users), copy.ids(batch.items)
    r = torch.as_tensor(batch.values, device=copy.device)
    for _ in range(n_steps):
        with quiet(copy.device), torch.enable_grad():
            optimizer.zero_grad()
            if objective is not None:
                value = objective(copy.module, u, i, r)
            else:
                assert loss is not None
                out = copy.ask(u, i)
                value = loss(out, r.view_as(out))
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        yield copy.read()


def of_steps(
    mine: Sequence[Tensors],
    roles: Roles,
    values: Tensors,
    batch: Batch,
    config: Config,
    settings: Mapping[str, Mapping[str, Any]],
    within: float,
) -> str:
    """Which other update the steps are, where they are one of those that people take for another."""
    names = list(settings)
    for form in _FORMS:
        for times in (1.0, 0.5, 2.0):
            rules = {}
            for name, group in settings.items():
                beta = float(group.get("momentum") or 0.0)
                if form == "nesterov" and not beta:
                    break
                rules[name] = momentum_rule(float(group["lr"]) * times, beta, form)
            if len(rules) < len(names):
                continue
            steps = by_hand(roles, values, batch, config, rules, len(mine))
            pairs = zip(mine, steps, strict=True)
            if all(nothing_left({k: a[k] for k in names}, {k: b[k] for k in names}, within) for a, b in pairs):
                lr = "" if times == 1 else f", with {times:g} times the lr"
                return f"it moves as momentum_form={form!r} does{lr} (Eq. 12 to 14)"
    return "neither the average, nor the heavy ball, nor Nesterov's form moves like this"
