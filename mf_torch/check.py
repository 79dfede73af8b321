"""`mf_numpy.check` with a column more for each path of `mf_torch.paths`, and named checks that ask torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from mf_numpy import batch as by_hand
from mf_numpy import check
from mf_numpy import curvature as by_hand_curvature
from mf_numpy.catalogue import FAULTS
from mf_numpy.check import Case
from mf_numpy.config import Config
from mf_numpy.engine import State
from mf_numpy.model import Params, Tensors
from mf_numpy.objective import Evaluation
from mf_numpy.properties import FORMS, WAYS, Way, Ways, Worst, problem
from mf_numpy.ratings import Array
from mf_numpy.suite import CHECKS, Suite
from mf_torch import design_checks, paths, rule_checks
from mf_torch.batch import Batch, to_device
from mf_torch.curvature import hessian_vector
from mf_torch.faults import TORCH_FAULTS
from mf_torch.model import MatrixFactorization
from mf_torch.objective import loss, objective
from mf_torch.optim import memory, optimizer_of, set_lr
from mf_torch.paths.base import ByGraph
from mf_torch.train import TorchEngine, TorchState


def autograd(params: Params, batch: by_hand.Batch, config: Config, device: str = "cpu") -> Tensors:
    """∇J by autograd at `params`, as NumPy arrays by parameter name."""
    module = MatrixFactorization(params, device)
    objective(module, to_device(batch, device), config).value.backward()  # type: ignore[no-untyped-call]
    return gradients(module)


def gradients(module: MatrixFactorization) -> Tensors:
    """Copies of the parameters' ``grad`` by name."""
    return {name: p.grad.to_dense().cpu().numpy().copy() for name, p in module.named_parameters() if p.grad is not None}


def residual(module: MatrixFactorization, batch: Batch, config: Config) -> Array:
    """E = ∂ℓ/∂r̂ (Eq. 3) of each pair by autograd, (B,)."""
    predicted = module(batch.users, batch.items).detach().requires_grad_()
    (e,) = torch.autograd.grad(loss(predicted, batch.values, config, module).sum(), predicted)
    out: Array = e.cpu().numpy()
    return out


def observe(state: TorchState, batch: Batch, config: Config) -> dict[str, Array]:
    """The twin of `mf_numpy.check.observe`."""
    assert state.seen is not None
    seen = {"objective": np.array(float(state.seen.value)), "E": residual(state.module, batch, config)}
    kept = memory(state.module, state.optimizer)
    return seen | check.by_name(gradients(state.module), kept, state.module.to_params().tensors())


def evaluate(
    params: Params, batch: by_hand.Batch, config: Config, device: str = "cpu", path: str = "autograd"
) -> Evaluation:
    """The twin of `mf_numpy.gradients.gradient`, by one of `mf_torch.paths`."""
    module, by = MatrixFactorization(params, device), paths.get(path)
    seen = by.differentiate(module, by.lay_out(to_device(batch, device), config), config)
    return Evaluation(float(seen.value), float(seen.squared_error), gradients(module))


def moves(config: Config, theta: Array, grads: list[Array], lrs: list[float]) -> list[tuple[Array, Array]]:
    """Parameter and velocity after each update by the optimiser of `config` with given gradients."""
    module = nn.Module()
    module.P = nn.Parameter(torch.tensor(theta))
    optimizer = optimizer_of(module, config)
    seen = []
    for g, lr in zip(grads, lrs, strict=True):
        set_lr(optimizer, lr)
        module.P.grad = torch.tensor(g)
        optimizer.step()
        kept = memory(module, optimizer)
        seen.append((module.P.detach().numpy().copy(), (kept.velocity if kept else {"P": g})["P"]))
    return seen


COLUMNS = tuple(name for name in paths.PATHS if name != "compiled")
"""The paths that are checked when none is asked for: ``compiled`` takes minutes to compile for every case."""


def ways(device: str = "cpu", names: Iterable[str] = COLUMNS) -> Ways:
    """The implementations by hand, and the paths of these names on `device`."""

    def way(path: str) -> Way:
        return Way(lambda p, b, c: evaluate(p, b, c, device, path), TorchEngine(device, path), observe, moves)

    return {**WAYS, **{name: way(name) for name in names}}


def by_autograd(ways: Ways) -> list[check.Check]:
    """Gradient is the one that autograd finds for Eq. 2."""
    worst = Worst(check.GRADIENT_TOLERANCE)
    for case in check.cases():
        gold = autograd(case.params, case.batch, case.config)
        for name, way in ways.items():
            worst.see_all(name, way.evaluate(case.params, case.batch, case.config).gradient, gold, case.name)
    return worst.checks()


def by_torch_optim(ways: Ways) -> list[check.Check]:
    """Updates are those of `torch.optim.SGD` called directly, with dampening = β for the average (Eq. 15)."""
    worst = Worst(1e-12)
    rng = np.random.default_rng(30)
    theta, grads = rng.normal(size=(3, 2)), list(rng.normal(size=(6, 3, 2)))
    lrs = [0.1] * 3 + [0.05] * 3
    for form, beta in FORMS.items():
        p = torch.tensor(theta, requires_grad=True)
        dampening = beta if form == "ema" else 0.0
        optimizer = torch.optim.SGD([p], 1.0, momentum=beta, dampening=dampening, nesterov=form == "nesterov")
        gold = []
        for g, lr in zip(grads, lrs, strict=True):
            p.grad, optimizer.param_groups[0]["lr"] = torch.tensor(g), lr
            optimizer.step()
            gold.append((p.detach().numpy().copy(), optimizer.state[p]["momentum_buffer"].numpy().copy()))
        config = Config(momentum=beta, momentum_form=form, dtype="float64")  # type: ignore[arg-type]
        for name, way in ways.items():
            for t, mine in enumerate(way.moves(config, theta, grads, lrs)):
                for what, x, y in zip(("θ", "v"), mine, gold[t], strict=True):
                    worst.see(name, what, x, y, f"{form}, step {t + 1}")
    return worst.checks()


def by_weight_decay(ways: Ways) -> list[check.Check]:
    """Plain steps on the total penalty are those on the data alone with torch's ``weight_decay`` = 2λ (Eq. 9)."""
    worst = Worst(1e-12)
    ratings, params, config = problem(31, penalty="total", momentum=0.0, lr=0.1)
    for name, way in ways.items():
        whole = way.engine.load(ratings, config)
        moved = way.engine.export(way.engine.step(way.engine.start(State(params.copy()), whole, config), whole, config))
        gold = {key: torch.tensor(theta, requires_grad=True) for key, theta in params.tensors().items()}
        u, i = torch.tensor(ratings.users, dtype=torch.long), torch.tensor(ratings.items, dtype=torch.long)
        predicted = params.mu + (gold["P"][u] * gold["Q"][i]).sum(1) + gold["b"][u] + gold["c"][i]
        ((predicted - torch.tensor(ratings.values)) ** 2).mean().backward()  # type: ignore[no-untyped-call]
        torch.optim.SGD(list(gold.values()), lr=0.1, weight_decay=2 * config.reg).step()
        expected = {key: theta.detach().numpy() for key, theta in gold.items()}
        worst.see_all(name, moved.params.tensors(), expected, "one step")
    return worst.checks()


def by_gradcheck(ways: Ways) -> list[check.Check]:
    """Torch's own gradcheck and gradgradcheck agree with the paths that differentiate twice."""
    worst = Worst(0.0)
    for case in check.cases():
        if "unsorted" not in case.name:
            continue  # where something is wrong, a check goes through every number for its message
        for name, by in _twice(ways):
            module = MatrixFactorization(case.params)
            batch = by.lay_out(to_device(case.batch, "cpu"), case.config)

            # gradcheck moves the very tensors that it is given, which are the module's.
            def j(
                *_: Tensor, by: ByGraph = by, module: MatrixFactorization = module, batch: Batch = batch, c: Case = case
            ) -> Tensor:
                return by.objective(module, batch, c.config).value

            for what, agrees in (("∇J", torch.autograd.gradcheck), ("∇²J", torch.autograd.gradgradcheck)):
                passed = agrees(j, tuple(module.parameters()), fast_mode=True, raise_exception=False)
                worst.note(name, what, 0.0 if passed else math.inf, case.name)
    return worst.checks()


def by_hessian(ways: Ways) -> list[check.Check]:
    """∇²J d of a path that differentiates twice is that by hand (Eq. 18)."""
    worst = Worst(1e-11)
    rng = np.random.default_rng(33)
    for case in (*check.cases(), *check.graded()):
        d = {name: np.array(rng.normal(size=theta.shape)) for name, theta in case.params.tensors().items()}
        gold = by_hand_curvature.hessian_vector(case.params, d, case.batch, case.config)
        for name, _ in _twice(ways):
            module = MatrixFactorization(case.params)
            mine = hessian_vector(module, d, to_device(case.batch, "cpu"), case.config, path=name)
            worst.see_all(name, mine, gold, case.name)
    return worst.checks()


def _twice(ways: Ways) -> Iterator[tuple[str, ByGraph]]:
    for name in ways:
        by = paths.PATHS.get(name)
        if isinstance(by, ByGraph) and by.twice:
            yield name, by


def suite(device: str = "cpu", path: str | None = None) -> Suite:
    """What the command ``check`` runs, with the paths on `device` among the methods, and torch's own optimisers.

    Args:
        path: the one path to check, instead of those of `COLUMNS`.

    Raises:
        ConfigError: a device that torch does not see, or no such path.
    """
    judged = ways(device, COLUMNS if path is None else (paths.get(path).name,))
    here = {name: way for name, way in judged.items() if name in paths.PATHS}
    methods = {**check.METHODS, **{name: _gradient_of(way) for name, way in here.items()}}
    engines = {**check.ENGINES, **{name: (way.engine, way.look) for name, way in here.items()}}
    second = {"torch.autograd.gradcheck": by_gradcheck, "Hessian by torch": by_hessian}
    return Suite(
        tables={
            "gradient": lambda: check.check_gradients(methods),
            "trajectory": lambda: check.check_trajectories(engines),
        },
        ways=judged,
        checks={
            **CHECKS,
            "autograd": by_autograd,
            "torch.optim.SGD": by_torch_optim,
            "weight_decay": by_weight_decay,
            **(second if any(_twice(judged)) else {}),
            "torch.optim.Adam": rule_checks.adam_of_torch,
            "torch.optim.Adagrad": rule_checks.adagrad_of_torch,
            "sparse gradients": rule_checks.sparse_gradients,
            "sparse steps": rule_checks.sparse_steps,
            "features by autograd": design_checks.features_by_autograd,
            "features in torch's step": design_checks.features_in_torch_step,
            "walks in torch's steps": design_checks.walks_in_torch_steps,
            "walks by autograd": design_checks.walks_by_autograd,
        },
        faults={**FAULTS, **TORCH_FAULTS},
    )


def _gradient_of(way: Way) -> check.Method:
    return lambda params, batch, config: way.evaluate(params, batch, config).gradient


def run(device: str = "cpu", path: str | None = None) -> list[check.Check]:
    """The equality tables of `suite`."""
    return [row for table in suite(device, path).tables.values() for row in table()]
