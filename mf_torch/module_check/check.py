"""Somebody else's `nn.Module` held to the hand-written model: predictions, E, gradients, penalty and steps.

Everything happens in float64 on a copy of the module, at drawn parameters first, since a fresh model's zeros hide what
is missing, and then at the module's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mf_numpy.batch import Batch
from mf_numpy.check import GRADIENT_TOLERANCE
from mf_numpy.config import RANKING, Config, Penalty
from mf_numpy.errors import ConfigError, DataError, counted
from mf_numpy.model import Tensors
from mf_numpy.ratings import Array, Ratings
from mf_torch.module_check.case import Case
from mf_torch.module_check.probe import Loss, ModuleCopy, Objective
from mf_torch.module_check.report import DRAWN, OWN, ModuleReport, Row
from mf_torch.module_check.roles import find
from mf_torch.module_check.rows import rows_at, step_rows
from mf_torch.module_check.steps import MakeOptimizer
from mf_torch.objective import loss as usual_loss

M = TypeVar("M", bound=nn.Module)

_N_DRAWS = 6
_N_TWICE = 16


def check_module(
    module: M,
    ratings: Ratings | tuple[Any, Any, Any],
    *,
    names: Mapping[str, str | None] | None = None,
    mu: float | None = None,
    call: Callable[[M, Tensor, Tensor], Tensor] | None = None,
    loss: Loss | None = None,
    objective: Callable[[M, Tensor, Tensor, Tensor], Tensor] | None = None,
    optimizer: Callable[[M], torch.optim.Optimizer] | None = None,
    reg: float = 0.0,
    penalty: Penalty = "total",
    config: Config | None = None,
    n_steps: int = 10,
    n_pairs: int = 20_000,
    tolerance: float = GRADIENT_TOLERANCE,
    seed: int = 0,
) -> ModuleReport:
    """Compare a module with r̂_ui = μ + b_u + c_i + p_u·q_i and its hand-written gradients.

    The module is left as it is: values, gradients, modes, dtype and device. It is checked in the mode it is in.

    Args:
        module: asked as ``module(users, items)`` with int64 indices (B,), or as ``module(pairs)`` with (B, 2) columns
            where its forward takes one argument; it gives (B,) or (B, 1).
        ratings: `Ratings`, or (users, items, values) with the indices that the module takes, (N,) each.
        names: tensor of the module by role, such as ``{"P": "user_factors.weight", "b": "user_bias.weight"}``; None
            for a role that the module lacks. Roles not named are found by shape.
        mu: μ where it is no parameter or buffer of the module.
        call: how the module is asked, where it is neither of the above: (module, users, items) → predictions.
        loss: (predictions, ratings) → J, such as ``nn.MSELoss()``; ratings get the predictions' shape.
        objective: (module, users, items, ratings) → J with any penalty, as the training loop has it; instead of `loss`.
        optimizer: module → its optimiser: SGD, Adam or AdamW. Its weight decay counts as penalty, and `n_steps` steps
            of the loop are compared.
        reg, penalty: λ and how it weighs rows in Eq. 2; torch's weight_decay is 2λ of ``total``.
        config: settings of the hand-written version that loss, penalty and steps must be those of, instead of `reg`,
            `penalty`, the squared loss and whatever form the optimiser says it has.
        n_steps: full-batch steps to compare.
        n_pairs: the most ratings to use; more are sampled.
        tolerance: relative difference allowed to predictions and gradients.
        seed: of the drawn parameters and the sample.

    Returns:
        A `ModuleReport`: true where all agrees, readable as text, with a hint beside each failure.

    Raises:
        ConfigError: tensors that cannot be told apart, wrong arguments, or a module that cannot be asked: one that
            answers differently each time (dropout in training mode), or that gives no prediction a pair.
        DataError: no ratings, wrong indices, or parameters that are no numbers.
    """
    _check_arguments(module, n_steps, n_pairs, tolerance)
    settings = _settings(loss, objective, optimizer, reg, penalty, config)
    given = _ratings(ratings)
    users, items, values = _sample(given, n_pairs, seed)
    roles = find(module, given.n_users, given.n_items, names, mu)
    copy = ModuleCopy(module, call)
    make_optimizer: MakeOptimizer | None = optimizer
    own = copy.read()
    (m, n_factors), n = own[roles.names["P"]].shape, len(own[roles.names["Q"]])
    settings = replace(settings, n_factors=n_factors)
    case = Case(
        copy=copy,
        roles=roles,
        batch=Batch(users, items, values, (m, n)),
        config=settings,
        loss=loss or (lambda out, r: usual_loss(out.reshape(-1), r.reshape(-1), settings).mean()),
        objective=objective,
        judged=loss is not None or objective is not None,
        optimizer=None if make_optimizer is None else make_optimizer(copy.module),
        by_config=config is not None,
        n_steps=n_steps,
        tolerance=tolerance,
        seed=seed,
    )
    _check_copy(case, own)
    drawn = case.draw(0, own)
    rows = rows_at(case, [drawn, *(case.draw(k, own) for k in range(1, _N_DRAWS))], DRAWN)
    if rows[0].ok:
        rows = _merged([*rows, *rows_at(case, [own], OWN)])
    if case.optimizer is not None and rows[0].ok:
        upstream = [row.quantity for row in rows if not row.ok and row.quantity != "J"]
        rows += step_rows(case, drawn, upstream)
    n_used = min(len(given), n_pairs)
    about = f"{counted(n_used, 'rating')}, K = {n_factors}, in float64"
    if "mu" not in roles.names and roles.mu:
        about += f", μ = {roles.mu:.6g}"
    return ModuleReport(type(module).__name__, roles.names, about, tuple(rows), tuple(_notes(module, given, n_used)))


def _merged(rows: list[Row]) -> list[Row]:
    """One row a quantity: the first that fails, else the largest difference."""
    out: dict[str, Row] = {}
    for row in rows:
        before = out.get(row.quantity)
        if before is None or (before.ok and (not row.ok or row.difference > before.difference)):
            out[row.quantity] = row
    return list(out.values())


def _notes(module: nn.Module, given: Ratings, n_used: int) -> Iterable[str]:
    if len(given) > n_used:
        yield f"{n_used:,} of the {len(given):,} ratings were used"
    hooked = [name for name, p in module.named_parameters() if getattr(p, "_backward_hooks", None)]
    if hooked:
        yield f"{', '.join(map(repr, hooked))} has gradient hooks, which a copy does not keep: they were not checked"


def _ratings(ratings: Any) -> Ratings:
    if not isinstance(ratings, Ratings):
        if not isinstance(ratings, tuple | list) or len(ratings) != 3:
            raise DataError(
                f"ratings are a {type(ratings).__name__}, but must be Ratings (of a Split, its train), or a tuple "
                "(users, items, values)"
            )
        arrays = [x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in ratings]
        for name, array in zip(("users", "items", "values"), arrays, strict=True):
            if array.ndim != 1:
                raise DataError(f"{name} has shape {array.shape}, but must be (N,); flatten it")
        table = Ratings.of_indices(*arrays)
    else:
        table = ratings
    if not len(table):
        raise DataError("there are no ratings to check on; give at least one")
    return table


def _settings(
    loss: Loss | None,
    objective: Objective | None,
    optimizer: MakeOptimizer | None,
    reg: float,
    penalty: Penalty,
    config: Config | None,
) -> Config:
    if loss is not None and objective is not None:
        raise ConfigError("loss and objective are both given; put the loss into the objective, and give that alone")
    if config is not None and (reg, penalty) != (0.0, "total"):
        raise ConfigError("config is given beside reg or penalty, which it has, too; give config alone")
    settings = Config(reg=reg, penalty=penalty) if config is None else config
    if settings.loss in RANKING:
        raise ConfigError(f"loss is {settings.loss!r}, which is not of single pairs; use 'logistic', or pass loss=")
    if settings.loss == "ordinal":
        raise ConfigError("loss is 'ordinal', whose cut points no module of yours has; use 'squared', or pass loss=")
    if settings.reg and objective is None and optimizer is None:
        raise ConfigError(
            f"reg is {settings.reg:g}, but a penalty is in neither module nor loss; pass objective=, the loss with its "
            "penalty, or optimizer=, whose weight_decay is one"
        )
    return replace(settings, dtype="float64")


def _check_arguments(module: Any, n_steps: int, n_pairs: int, tolerance: float) -> None:
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"module is a {type(module).__name__}, but must be an nn.Module, an instance and not the class"
        )
    for name, value in (("n_steps", n_steps), ("n_pairs", n_pairs)):
        if value < 1:
            raise ConfigError(f"{name} is {value}, but must be 1 or larger")
    if not 0 < tolerance < 1:
        raise ConfigError(f"tolerance is {tolerance}, but must be between 0 and 1, as 1e-12 is")


def _sample(ratings: Ratings, n_pairs: int, seed: int) -> tuple[Array, Array, Array]:
    """Some ratings, the first few twice with another value: gradients of duplicate pairs must add up (Eq. 7)."""
    at = np.arange(len(ratings))
    if len(ratings) > n_pairs:
        at = np.random.default_rng(seed).choice(len(ratings), n_pairs, replace=False)
    again = np.concatenate([at, at[:_N_TWICE]])
    values = np.concatenate([ratings.values[at], np.roll(ratings.values[at], 1)[:_N_TWICE]])
    return ratings.users[again].astype(np.int64), ratings.items[again].astype(np.int64), values


def _check_copy(case: Case, own: Tensors) -> None:
    for name in case.names:
        if not np.isfinite(own[name]).all():
            raise DataError(f"{name!r} holds numbers that are not finite; check a module before it diverges")
    if not set(case.names) & set(case.copy.trained):
        raise ConfigError("nothing is trained: no tensor with a role has requires_grad; set it where torch trains")
    u, i = case.probe()
    case.copy.write(own)
    if unsteady := case.copy.unsteadiness(u, i):
        raise ConfigError(
            f"the module gives two answers to the same question, up to {unsteady:.3g} apart: dropout in training mode, "
            "or noise; call module.eval() before the check"
        )
