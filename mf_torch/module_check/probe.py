"""A float64 copy of somebody else's module, whose predictions, residual and gradients are read at any parameters.

Shapes: users, items, ratings and predictions (B,).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mf_numpy.errors import ConfigError
from mf_numpy.model import Tensors
from mf_numpy.ratings import Array

Call = Callable[[Any, Tensor, Tensor], Tensor]
"""(module, users, items) → predictions."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""(predictions, ratings) → J."""
Objective = Callable[[Any, Tensor, Tensor, Tensor], Tensor]
"""(module, users, items, ratings) → J."""

_WRONG_OUTPUT = (
    "must give one prediction a pair, (B,) or (B, 1); pass call=lambda module, users, items: ... to say how it is asked"
)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a backward pass through the module gave, in float64.

    Attributes:
        predicted: r̂ (B,).
        value: J, as the loss or objective gives it.
        residual: E = N ∂J/∂r̂ (B,), or None where the objective does not ask the module once for all pairs.
        data: the gradient by parameter that flows through the predictions; zeros where none arrives. None with E.
        total: the whole gradient by parameter.
        reached: the parameters that any gradient reaches.
    """

    predicted: Array
    value: float
    residual: Array | None
    data: Tensors | None
    total: Tensors
    reached: frozenset[str]


class ModuleCopy:
    """The copy; the module itself is left alone: its values, gradients, modes, dtype and device.

    Attributes:
        module: the copy.
        trained: names of the parameters with ``requires_grad``.
        device: where it is: where the module is, or the CPU for a device without float64.
    """

    def __init__(self, module: nn.Module, call: Call | None) -> None:
        try:
            self.module = copy.deepcopy(module)
        except Exception as error:
            raise ConfigError(
                f"the module cannot be copied ({type(error).__name__}: {error}); make a fresh one, load the state dict "
                "into it, and check that"
            ) from error
        devices = {t.device for _, t in self._named()}
        if any(device.type == "meta" for device in devices):
            raise ConfigError(
                "the module is on the device 'meta' and holds no numbers; move it with to_empty and fill it"
            )
        self.device = next(iter(devices), torch.device("cpu"))
        if self.device.type == "mps":
            self.device = torch.device("cpu")
            self.module.to(self.device)
        self.module.double()
        self.trained = tuple(name for name, p in self.module.named_parameters() if p.requires_grad)
        self._call = call or _usual_call(module)

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        """Floating-point parameters and buffers, a shared one once."""
        for name, t in [*self.module.named_parameters(), *self.module.named_buffers()]:
            if t.is_floating_point():
                yield name, t

    def read(self) -> Tensors:
        """Copies of all floating-point parameters and buffers by name."""
        return {name: t.detach().cpu().numpy().copy() for name, t in self._named()}

    @torch.no_grad()
    def write(self, values: Mapping[str, Array]) -> None:
        """Put values into the tensors that have these names."""
        for name, t in self._named():
            if name in values:
                t.copy_(torch.as_tensor(values[name]))

    def ids(self, index: Array) -> Tensor:
        """Indices as int64 on the device."""
        return torch.as_tensor(index.astype(np.int64), device=self.device)

    def predict(self, users: Array, items: Array) -> Array:
        """r̂ (B,) of pairs."""
        with quiet(self.device), torch.no_grad():
            out = self.ask(self.ids(users), self.ids(items))
        array: Array = out.reshape(-1).double().cpu().numpy()
        return array

    def unsteadiness(self, users: Array, items: Array) -> float:
        """The largest difference between two answers for the same pairs; 0 without dropout and the like."""
        with quiet(self.device), torch.no_grad():
            one, two = (self.ask(self.ids(users), self.ids(items)).clone() for _ in range(2))
            # NaN twice is the same answer, and a matter of the comparisons.
            return float(torch.where(one.isnan() & two.isnan(), 0, one - two).abs().max()) if one.numel() else 0.0

    def ask(self, users: Tensor, items: Tensor) -> Tensor:
        """What the module gives for pairs of index tensors, (B,) or (B, 1).

        Raises:
            ConfigError: an output of another kind or shape.
        """
        try:
            out = self._call(self.module, users, items)
        except Exception as error:
            error.add_note(f"raised by the module when check_module asked it for {len(users)} pairs of int64 indices")
            raise
        if not isinstance(out, Tensor):
            raise ConfigError(f"the module gave a {type(out).__name__}, but {_WRONG_OUTPUT}")
        if out.numel() != len(users) or out.ndim > 2 or not out.is_floating_point():
            shape = tuple(out.shape)
            raise ConfigError(
                f"the module gave {out.dtype} of shape {shape} for {len(users)} pairs, but {_WRONG_OUTPUT}"
            )
        return out

    def backward(
        self, users: Array, items: Array, ratings: Array, loss: Loss | None, objective: Objective | None
    ) -> Seen:
        """J of the pairs by `loss` of the predictions or by the whole `objective`, and its gradients.

        Raises:
            ConfigError: a loss that is no single number.
        """
        u, i = self.ids(users), self.ids(items)
        r = torch.as_tensor(ratings, device=self.device)
        with quiet(self.device), torch.enable_grad():
            outs: list[Tensor] = []
            if objective is None:
                assert loss is not None
                out = self.ask(u, i)
                outs.append(out)
                value = loss(out, r.view_as(out))
            else:
                hook = self.module.register_forward_hook(lambda _module, _inputs, out: outs.append(out))
                try:
                    value = objective(self.module, u, i, r)
                finally:
                    hook.remove()
            what = "loss" if objective is None else "objective"
            if not isinstance(value, Tensor) or value.numel() != 1:
                got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
                raise ConfigError(f"the {what} gave {got}, but must give one number for all pairs; average over them")
            return self._gradients(value, outs, len(users))

    def _gradients(self, value: Tensor, outs: list[Tensor], n: int) -> Seen:
        named = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        whole = len(outs) == 1 and isinstance(outs[0], Tensor) and outs[0].numel() == n and outs[0].is_floating_point()
        out = outs[0] if whole else None
        total = _grad(value, named)
        residual, data = None, None
        if out is not None:
            e = _grad(value, {"out": out})["out"]
            residual = np.zeros(n) if e is None else _numpy(e).reshape(-1) * n  # Eq. 3: ∂J/∂r̂ = E/N
            data = _filled(dict.fromkeys(named) if e is None else _grad(out, named, e), named)
        return Seen(
            predicted=_numpy(out).reshape(-1) if out is not None else np.empty(0),
            value=float(value.detach()),
            residual=residual,
            data=data,
            total=_filled(total, named),
            reached=frozenset(name for name, g in total.items() if g is not None),
        )


def _grad(of: Tensor, by: Mapping[str, Tensor], weights: Tensor | None = None) -> dict[str, Tensor | None]:
    wanted = {name: t for name, t in by.items() if t.requires_grad}
    if not of.requires_grad or not wanted:
        return dict.fromkeys(by)
    grads = torch.autograd.grad(of, [*wanted.values()], weights, retain_graph=True, allow_unused=True)
    return dict.fromkeys(by) | dict(zip(wanted, grads, strict=True))


def _filled(grads: Mapping[str, Tensor | None], by: Mapping[str, Tensor]) -> Tensors:
    return {name: np.zeros(tuple(by[name].shape)) if g is None else _numpy(g) for name, g in grads.items()}


def _numpy(t: Tensor) -> Array:
    # The gradient of nn.Embedding(sparse=True) lists a row once for each pair; to_dense adds them up.
    dense = t.detach().to_dense() if t.layout != torch.strided else t.detach()
    array: Array = dense.double().cpu().numpy()
    return array


@contextmanager
def quiet(device: torch.device) -> Iterator[None]:
    """Random numbers that a module draws here are taken from nobody, and no autocast lowers the precision."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.autocast(device.type, enabled=False):
        yield


def _usual_call(module: nn.Module) -> Call:
    """``module(users, items)``, or ``module(pairs)`` with (B, 2) columns where forward takes one argument."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        parameters = inspect.signature(_two).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional if p.default is p.empty]
    takes_more = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    if len(needed) == 1 and len(positional) == 1 and not takes_more:
        return _in_columns
    return _two


def _two(module: nn.Module, users: Tensor, items: Tensor) -> Tensor:
    out: Tensor = module(users, items)
    return out


def _in_columns(module: nn.Module, users: Tensor, items: Tensor) -> Tensor:
    out: Tensor = module(torch.stack([users, items], dim=1))
    return out
