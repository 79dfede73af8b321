"""`mf::fused`: J and ∇J as one operator of torch, which autograd, `torch.compile` and `torch.export` know how to take.

A layout is a list of tensors, since an operator takes nothing else: on a CPU the pairs in any order (users, items,
values), or the fields of `mf_numpy.kernels.layout.Blocks`; on CUDA those of `mf_torch.paths.rows.Rows`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from mf_numpy import batch as by_hand
from mf_numpy import kernels
from mf_numpy.config import Config
from mf_numpy.errors import ConfigError
from mf_numpy.kernels.gradients import Workspace
from mf_numpy.kernels.layout import Blocks
from mf_numpy.model import Params
from mf_numpy.objective import Evaluation

_SCHEMA = (
    "(Tensor P, Tensor Q, Tensor? b, Tensor? c, Tensor mu, Tensor[] layout, "
    "float reg, str penalty, str loss, float loss_scale) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.custom_op("mf::fused", mutates_args=(), device_types="cpu", schema=_SCHEMA)
def fused(
    P: Tensor,
    Q: Tensor,
    b: Tensor | None,
    c: Tensor | None,
    mu: Tensor,
    layout: Sequence[Tensor],
    reg: float,
    penalty: str,
    loss: str,
    loss_scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """J (Eq. 2), Σ (r̂ - r)², ∂J by P, Q, b and c (Eq. 6); J alone differentiates, once.

    Returns:
        Two float64 numbers, (m, K), (n, K), (m,) and (n,); the last two are empty in the plain model.
    """
    model = "plain" if b is None else "biased"
    config = Config(model=model, reg=reg, penalty=penalty, loss=loss, loss_scale=loss_scale)  # type: ignore[arg-type]
    params = params_of(P, Q, b, c, mu)
    seen = evaluate(params, from_tensors(layout, params), config)
    numbers = (torch.tensor(x, dtype=torch.float64) for x in (seen.objective, seen.squared_error))
    grads = {name: torch.from_numpy(g) for name, g in seen.gradient.items()}
    return *numbers, grads["P"], grads["Q"], grads.get("b", P.new_empty(0)), grads.get("c", P.new_empty(0))  # type: ignore[return-value]


@fused.register_fake
def _(
    P: Tensor, Q: Tensor, b: Tensor | None, c: Tensor | None, mu: Tensor, layout: Sequence[Tensor], *_: Any
) -> tuple[Tensor, ...]:
    numbers = (P.new_empty((), dtype=torch.float64) for _ in range(2))
    biases = (P.new_empty(0 if x is None else len(table)) for x, table in ((b, P), (c, Q)))
    return *numbers, P.new_empty(P.shape), Q.new_empty(Q.shape), *biases


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[2:])
    ctx.biased, ctx.n_layout = inputs[2] is not None, len(inputs[5])
    ctx.mark_non_differentiable(*output[1:])


def _pull_back(ctx: Any, of_j: Tensor, *_: Tensor) -> tuple[Any, ...]:
    of_p, of_q, of_b, of_c = (of_j.to(g.dtype) * g for g in ctx.saved_tensors)
    nothing = [None] * ctx.n_layout
    return of_p, of_q, of_b if ctx.biased else None, of_c if ctx.biased else None, None, nothing, *[None] * 4


fused.register_autograd(_pull_back, setup_context=_keep)


def settings_of(config: Config) -> tuple[float, str, str, float]:
    """What `fused` takes of a configuration."""
    return config.reg, config.penalty, config.loss, config.loss_scale


# On CUDA


@fused.register_kernel("cuda")
def _(
    P: Tensor, Q: Tensor, b: Tensor | None, c: Tensor | None, mu: Tensor, layout: Sequence[Tensor], *settings: Any
) -> tuple[Tensor, ...]:
    grads = [x.new_empty(x.shape) for x in (P, Q, b, c) if x is not None]
    numbers = by_rows(P, Q, b, c, mu, layout, *settings, grads)
    return *numbers, *grads, *(P.new_empty(0) for _ in range(4 - len(grads)))


def by_rows(P: Tensor, Q: Tensor, b: Tensor | None, c: Tensor | None, *others: Any) -> tuple[Tensor, Tensor]:
    """`mf_torch.paths.triton_rows.gradient` of tables in any memory order."""
    tables = (None if x is None else x.detach().contiguous() for x in (P, Q, b, c))
    seen: tuple[Tensor, Tensor] = kernels_of_triton().gradient(*tables, *others)
    return seen


def kernels_of_triton() -> Any:
    """The module `mf_torch.paths.triton_rows`.

    Raises:
        ConfigError: Triton is not installed.
    """
    if importlib.util.find_spec("triton") is None:
        raise ConfigError("path is 'fused', which needs Triton on CUDA; install triton, or use path='manual'")
    return importlib.import_module("mf_torch.paths.triton_rows")


# On a CPU


def params_of(P: Tensor, Q: Tensor, b: Tensor | None, c: Tensor | None, mu: Tensor) -> Params:
    """The parameters as NumPy sees them: in the tensors' own memory where it is contiguous, which kernels ask for."""
    tables = {"P": P, "Q": Q, "b": b, "c": c}
    arrays = {name: x.detach().contiguous().numpy() for name, x in tables.items() if x is not None}
    return Params.of(arrays, mu.item())


def evaluate(params: Params, laid: by_hand.Batch | Blocks, config: Config, room: Workspace | None = None) -> Evaluation:
    """`mf_numpy.kernels.gradient` on as many threads as both torch and Numba are told to take."""
    with threads(), np.errstate(over="ignore", invalid="ignore"):
        return kernels.gradient(params, laid, config, room)


@contextmanager
def threads() -> Iterator[None]:
    """Numba on no more threads than torch."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(before, torch.get_num_threads()))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def to_tensors(laid: by_hand.Batch | Blocks) -> list[Tensor]:
    """A layout as `fused` takes it, in the same memory."""
    if isinstance(laid, Blocks):
        arrays = [np.asarray(getattr(laid, field.name)) for field in fields(laid)]
    else:
        arrays = [laid.users, laid.items, laid.values]
    # torch can do little with 16 unsigned bits: the same bits, signed.
    return [torch.from_numpy(a.view(np.int16) if a.dtype == np.uint16 else a) for a in arrays]


def from_tensors(layout: Sequence[Tensor], params: Params) -> by_hand.Batch | Blocks:
    """The layout of `to_tensors`.

    Raises:
        IndexError: blocks of another number of users or items than the parameters have.
    """
    arrays = [tensor.numpy() for tensor in layout]
    if len(arrays) == 3:
        users, items, values = arrays
        return by_hand.Batch(users, items, values, params.shape[:2])
    named: dict[str, Any] = {field.name: array for field, array in zip(fields(Blocks), arrays, strict=True)}
    named["items"] = named["items"].view(np.uint16)
    named["items_per_block"] = int(named["items_per_block"])
    laid = Blocks(**named)
    if laid.shape != params.shape[:2]:
        came, has = laid.shape, params.shape
        raise IndexError(
            f"the layout is of {came[0]} users and {came[1]} items, but P and Q have {has[0]} and {has[1]}"
        )
    return laid
