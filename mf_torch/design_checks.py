"""Features by autograd beside the hand-written ones: named checks that ask torch."""

from __future__ import annotations

from dataclasses import replace

from mf_numpy import design_sgd_checks, loops, train
from mf_numpy.batch import mini_batches
from mf_numpy.check import GRADIENT_TOLERANCE, TRAJECTORY_TOLERANCE, Check
from mf_numpy.design_checks import FORMS, design_for, fitted, problems
from mf_numpy.engine import State
from mf_numpy.properties import Ways, Worst, problem
from mf_torch.design import FeatureFactorization, objective
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
    """A step for each rating by the kernel is autograd's, and torch's own, on batches of one rating (Eq. 39)."""
    worst = Worst(1e-11)
    for label, ratings, theta, design, config in design_sgd_checks.problems(lr=0.002):
        engine = DesignEngine(design)
        state = engine.start(State(theta.copy()), None, config)
        for one in design_sgd_checks.one_by_one(ratings, design, config, epoch=1):
            state = engine.step(state, engine.weighted(one, config), config)
        gold = engine.export(state).params
        mine = design_sgd_checks.after_epochs("numba", ratings, theta, design, config, n_epochs=1)
        worst.see_all("numba", mine.tensors(), gold.tensors(), label)
    return worst.checks()
