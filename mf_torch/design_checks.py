"""Features by autograd beside the hand-written ones: named checks that ask torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mf_numpy import design_sgd_checks, loops, train
from mf_numpy.batch import mini_batches
from mf_numpy.check import GRADIENT_TOLERANCE, TRAJECTORY_TOLERANCE, Check
from mf_numpy.design_checks import FORMS, design_for, fitted, problems
from mf_numpy.designed import design_engine
from mf_numpy.engine import Engine, State
from mf_numpy.properties import Ways, Worst, problem
from mf_torch.design import FeatureFactorization, objective
from mf_torch.design_sgd import DesignSgdEngine
from mf_torch.designed import DesignEngine


def features_by_autograd(ways: Ways) -> list[Check]:
    """J and ∇J of features by autograd are those of plain Python (Eq. 34)."""
    worst = Worst(GRADIENT_TOLERANCE)
    for label, theta, whole, design, config in problems():
        for batch in (whole, *mini_batches(whole, 1, replace(config, batch_size=25))):
            gold = loops.gradient_of_features(theta, batch, design, config)
            module = FeatureFactorization(theta, design)
            seen = objective(module, DesignEngine(design).weighted(batch, config), config)
            seen.value.backward()  # type: ignore[no-untyped-call]
            worst.see("autograd", "J", float(seen.value.detach()), gold.objective, label)
            worst.see("autograd", "Σ error²", float(seen.squared_error), gold.squared_error, label)
            grads = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
            worst.see_all("autograd", grads, gold.gradient, label)
    return worst.checks()


def features_in_torch_step(ways: Ways) -> list[Check]:
    """Fits of features by autograd are those of plain Python, by several rules, in batches and from whole tables."""
    worst = Worst(TRAJECTORY_TOLERANCE)
    for rule, given in FORMS.items():
        for batch_size in (None, 17):
            ratings, _, config = problem(45, **{"lr": 0.1, "n_epochs": 5, "batch_size": batch_size} | given)
            design = design_for(ratings)
            gold = fitted("loops", ratings, design, config)
            mine = train.run(DesignEngine(design), ratings, config).of_features
            assert mine is not None
            worst.see_all("autograd", mine.tensors(), gold.tensors(), f"{rule}, batch_size {batch_size}")
    return worst.checks()


def walks_in_torch_steps(ways: Ways) -> list[Check]:
    """A step for each rating, by the kernel or autograd, is torch's own on batches of one rating (Eq. 39)."""
    worst = Worst(1e-11)
    for label, ratings, theta, design, config in design_sgd_checks.problems(lr=0.002):
        engine = DesignEngine(design)
        state = engine.start(State(theta.copy()), None, config)
        for one in design_sgd_checks.one_by_one(ratings, design, config, epoch=1):
            state = engine.step(state, engine.weighted(one, config), config)
        gold = engine.export(state).params
        for name, mine in (("numba", design_engine(design, config)), ("autograd", DesignSgdEngine(design, config))):
            found = design_sgd_checks.driven(mine, ratings, theta, config, n_epochs=1)
            worst.see_all(name, found.tensors(), gold.tensors(), label)
    return worst.checks()


def walks_by_autograd(ways: Ways) -> list[Check]:
    """Epochs of single steps by autograd, and what they saw on the way, are those of plain Python (Eq. 39)."""
    worst = Worst(TRAJECTORY_TOLERANCE)
    for label, ratings, _, design, config in design_sgd_checks.problems(lr=0.02):
        few = replace(config, n_epochs=design_sgd_checks.N_EPOCHS)
        engines: tuple[Engine[Any], ...] = (DesignSgdEngine(design, few), design_engine(design, few, "loops"))
        mine, gold = (train.run(engine, ratings, few) for engine in engines)
        assert mine.of_features is not None and gold.of_features is not None
        worst.see_all("autograd", mine.of_features.tensors(), gold.of_features.tensors(), label)
        for name in ("objective", "train_rmse"):
            found, wanted = ([getattr(record, name) for record in fit.history] for fit in (mine, gold))
            worst.see("autograd", name, found, wanted, label)
    return worst.checks()
