"""What features, and rows found after training, must satisfy (Eq. 33 to 38): named checks, as in `properties`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from mf_numpy import curvature, fold_in, gradients, kernels, loops, train
from mf_numpy import design as by_hand
from mf_numpy.batch import Batch, full_batch, mini_batches
from mf_numpy.check import GRADIENT_TOLERANCE, TRAJECTORY_TOLERANCE, Check
from mf_numpy.config import Config
from mf_numpy.design import Design, Side
from mf_numpy.designed import design_engine
from mf_numpy.engine import Backend
from mf_numpy.features import Features, design_of
from mf_numpy.model import Params, predict
from mf_numpy.objective import Evaluation
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Ratings
from mf_numpy.result import FitResult

Differentiate = Callable[[Params, Batch, Design, Config], Evaluation]


def by_kernels(theta: Params, batch: Batch, design: Design, config: Config) -> Evaluation:
    """The kernels' gradient as the others are called."""
    weights = by_hand.penalty_weights(batch, design, config)
    return kernels.gradient_of_features(theta, batch, weights, config, kernels.design_room(theta, batch, design))


GRADIENTS: Mapping[str, Differentiate] = {
    "loops": loops.gradient_of_features,
    "numpy": by_hand.gradient,
    "numba": by_kernels,
}
FORMS: Mapping[str, dict[str, Any]] = {
    "ema": {"momentum": 0.5},
    "nesterov": {"momentum": 0.5, "momentum_form": "nesterov"},
    "adam": {"step_rule": "adam", "lr": 0.02},
}
"""Rules by which fits are compared."""


def features_in_loops(ways: Ways) -> list[Check]:
    """J and ∇J of features are those of plain Python, on all ratings and on batches in any order."""
    worst = Worst(GRADIENT_TOLERANCE)
    for label, theta, whole, design, config in problems():
        for batch in (whole, *mini_batches(whole, 1, replace(config, batch_size=25))):
            gold = GRADIENTS["loops"](theta, batch, design, config)
            for name, gradient in GRADIENTS.items():
                mine = gradient(theta, batch, design, config)
                worst.see(name, "J", mine.objective, gold.objective, label)
                worst.see(name, "Σ error²", mine.squared_error, gold.squared_error, label)
                worst.see_all(name, mine.gradient, gold.gradient, label)
    return worst.checks()


def features_by_complex_step(ways: Ways) -> list[Check]:
    """∇J of features is what a complex step finds."""
    worst = Worst(GRADIENT_TOLERANCE)
    step = 1e-30
    for label, theta, batch, design, config in problems():
        mine = {name: gradient(theta, batch, design, config).gradient for name, gradient in GRADIENTS.items()}
        for key, value in theta.tensors().items():
            gold = np.empty(value.shape)
            for at in np.ndindex(*value.shape):
                moved = {name: x.astype(complex) for name, x in theta.tensors().items()}
                moved[key][at] += 1j * step
                gold[at] = by_hand.objective(theta.with_tensors(moved), batch, design, config).imag / step
            for name, found in mine.items():
                worst.see(name, key, found[key], gold, label)
    return worst.checks()


def features_of_identity(ways: Ways) -> list[Check]:
    """Where each row is a feature of its own, J and ∇J are those without features (Eq. 6)."""
    worst = Worst(GRADIENT_TOLERANCE)
    for label, _, batch, _, config in problems():
        _, params, _ = problem(41, **_given(config))
        m, n = batch.shape
        design = Design(Side.identity(m), Side.identity(n))
        gold = gradients.gradient(params, batch, config)
        for name, gradient in GRADIENTS.items():
            mine = gradient(params, batch, design, config)
            worst.see(name, "J", mine.objective, gold.objective, label)
            worst.see_all(name, mine.gradient, gold.gradient, label)
    return worst.checks()


def scaled_feature(ways: Ways) -> list[Check]:
    """Twice as much of a feature with half its parameters is the same model: its slope doubles, others stay."""
    worst = Worst(GRADIENT_TOLERANCE)
    for label, theta, batch, design, with_penalty in problems():
        config = by_hand.without_penalty(with_penalty)
        factor = 2.0 ** np.arange(design.users.shape[1])
        scaled = replace(design, users=Side(design.users.matrix @ sp.diags_array(factor)))
        divided = {
            name: (value.T / factor).T if name in ("P", "b") else value for name, value in theta.tensors().items()
        }
        for name, gradient in GRADIENTS.items():
            gold = gradient(theta, batch, design, config)
            mine = gradient(theta.with_tensors(divided), batch, scaled, config)
            worst.see(name, "J", mine.objective, gold.objective, label)
            for key, expected in gold.gradient.items():
                found = (mine.gradient[key].T / factor).T if key in ("P", "b") else mine.gradient[key]
                worst.see(name, key, found, expected, label)
    return worst.checks()


def price_of_features(ways: Ways) -> list[Check]:
    """Each rating pays λ/N for every feature of its user and item, or each feature λ once (Eq. 35)."""
    worst = Worst(GRADIENT_TOLERANCE)
    for label, theta, batch, design, config in problems():
        assert isinstance(batch, Batch)
        sizes = [(theta.P**2).sum(axis=1), (theta.Q**2).sum(axis=1)]
        if theta.b is not None and theta.c is not None:
            sizes = [sizes[0] + theta.b**2, sizes[1] + theta.c**2]
        price = config.reg * (sizes[0].sum() + sizes[1].sum())
        if config.penalty == "per_rating":
            has_x, has_y = design.users.matrix.toarray() != 0, design.items.matrix.toarray() != 0
            paid = [
                sizes[0][has_x[u]].sum() + sizes[1][has_y[i]].sum()
                for u, i in zip(batch.users, batch.items, strict=True)
            ]
            price = config.reg * float(np.mean(paid))
        for name, gradient in GRADIENTS.items():
            with_it = gradient(theta, batch, design, config).objective
            without = gradient(theta, batch, design, by_hand.without_penalty(config)).objective
            worst.see(name, "price", with_it - without, price, label)
    return worst.checks()


def svdpp_by_hand(ways: Ways) -> list[Check]:
    """With ids and rated items r̂ is μ + b_u + c_i + q_i·(p_u + |R(u)|^(-1/2) Σ_j y_j), as SVD++ has it (Eq. 36)."""
    worst = Worst(GRADIENT_TOLERANCE)
    ratings, _, config = problem(42)
    design = design_of(ratings, users=Features().id().rated())
    theta = _drawn(design, config, ratings, seed=43)
    assert theta.b is not None and theta.c is not None
    m, n = ratings.shape
    users, items = (np.ravel(x) for x in np.meshgrid(np.arange(m), np.arange(n), indexing="ij"))
    expected = np.empty(len(users))
    for k, (u, i) in enumerate(zip(users, items, strict=True)):
        rated = sorted(set(ratings.items[ratings.users == u].tolist()))
        p, b = theta.P[u].copy(), float(theta.b[u])
        for j in rated:
            p += theta.P[m + j] / np.sqrt(len(rated))
            b += theta.b[m + j] / np.sqrt(len(rated))
        expected[k] = theta.mu + b + theta.c[i] + p @ theta.Q[i]
    worst.see("features", "r̂", predict(by_hand.rows(theta, design), users, items), expected, "all pairs")
    return worst.checks()


def length_of_rated(ways: Ways) -> list[Check]:
    """What a user rated, and who rated an item, has length 1, or 0 where there is nothing (Eq. 36)."""
    worst = Worst(GRADIENT_TOLERANCE)
    ratings, _, _ = problem(44)
    for which, counts in (("users", ratings.user_counts), ("items", ratings.item_counts)):
        matrix = Features().rated().fit(ratings, which).side.matrix  # type: ignore[arg-type]
        worst.see("features", which, (matrix.toarray() ** 2).sum(axis=1), (counts > 0).astype(float), which)
    return worst.checks()


def newcomer_at_rest(ways: Ways) -> list[Check]:
    """The row found for a newcomer has no gradient in the whole table's J, whatever loss and penalty (Eq. 37)."""
    worst = Worst(1e-9)
    for label, params, batch, config in _newcomers(("squared", "pseudo_huber", "logistic", "poisson")):
        moved = _settled(params, batch, config)
        slope, before = (gradients.gradient(at, batch, config).gradient for at in (moved, params))
        for key in slope.keys() & {"P", "b"}:
            size = float(abs(before[key][0]).max())
            worst.see("fold_in", key, slope[key][0] / size, np.zeros_like(slope[key][0]), label)
    return worst.checks()


def newcomer_by_ridge(ways: Ways) -> list[Check]:
    """For the squared loss it is the minimiser that a half-step of ALS would find in the whole table (Eq. 26, 37)."""
    worst = Worst(1e-10)
    for label, params, batch, config in _newcomers(("squared",)):
        found = _settled(params, batch, config)
        mine = found.P[0] if found.b is None else np.append(found.P[0], found.b[0])
        worst.see("fold_in", "row", mine, curvature.row_minimiser(params, "user", 0, batch, config), label)
    return worst.checks()


def parts_add_up(ways: Ways) -> list[Check]:
    """The parts of a newcomer's ratings are together all that they change of a prediction (Eq. 38)."""
    worst = Worst(1e-9)
    for label, found, given, item in _explained():
        newcomer, nobody = found.fold_in_user(given), found.fold_in_user({})
        change = newcomer.predict([item])[0] - nobody.predict([item])[0]
        worst.see("fold_in", "sum of parts", newcomer.why(item)["part"].sum(), change, label)
    return worst.checks()


def part_of_a_surprise(ways: Ways) -> list[Check]:
    """A rating's part is what a prediction loses where it is as expected, which says nothing (Eq. 38)."""
    worst = Worst(1e-9)
    for label, found, given, item in _explained():
        newcomer = found.fold_in_user(given)
        parts = newcomer.why(item).set_index("item")["part"]
        for other, surprise in zip(given, newcomer.surprises, strict=True):
            without = found.fold_in_user(given | {other: given[other] - surprise})
            lost = newcomer.predict([item])[0] - without.predict([item])[0]
            worst.see("fold_in", "a part", parts[other], lost, label)
    return worst.checks()


def _explained() -> Iterator[tuple[str, FitResult, dict[int, float], int]]:
    """Models by both penalties, a newcomer's ratings by item, and items whose prediction is to be explained."""
    for penalty, reg in (("total", 0.002), ("per_rating", 0.07)):
        ratings, _, config = problem(49, penalty=penalty, reg=reg, n_epochs=3, lr=0.1)
        found = train.fit(ratings, config, backend="numpy")
        for item in (0, 3, 5):
            yield f"{penalty}, item {item}", found, {0: 9.0, 2: 1.0, 4: 3.0}, item


def _newcomers(of_losses: tuple[str, ...]) -> Iterator[tuple[str, Params, Batch, Config]]:
    """Tables whose user 0 shall be found anew; both models and penalties."""
    for kind, penalty in (("plain", "total"), ("biased", "per_rating"), ("biased", "total")):
        for loss in of_losses:
            ratings, params, config = problem(48, model=kind, penalty=penalty, loss=loss)
            yield f"{kind}, {penalty}, {loss}", params, full_batch(ratings, config), config


def _settled(params: Params, batch: Batch, config: Config) -> Params:
    """The parameters with user 0 where a newcomer with the same ratings would be."""
    at = batch.users == 0
    items, values, k = batch.items[at], batch.values[at], params.shape[2]
    others, base = params.Q, np.zeros(len(items))
    if params.c is not None:
        others, base = np.column_stack([params.Q, np.ones(len(params.Q))]), params.mu + params.c[items]
    ridge = fold_in.price(len(batch), len(items), config)
    row = fold_in.minimiser(others[items], values, base, ridge, config)
    moved = params.copy()
    moved.P[0] = row[:k]
    if moved.b is not None:
        moved.b[0] = row[k]
    return moved


def features_in_step(ways: Ways) -> list[Check]:
    """Fits by all backends are those of plain Python, by several rules, in batches and from whole tables."""
    worst = Worst(TRAJECTORY_TOLERANCE)
    for rule, given in FORMS.items():
        for batch_size in (None, 17):
            ratings, _, config = problem(45, **{"lr": 0.1, "n_epochs": 5, "batch_size": batch_size} | given)
            design = design_for(ratings)
            gold = fitted("loops", ratings, design, config)
            for backend in ("numpy", "numba"):
                mine = fitted(backend, ratings, design, config)
                worst.see_all(backend, mine.tensors(), gold.tensors(), f"{rule}, batch_size {batch_size}")
    return worst.checks()


def fitted(backend: Backend, ratings: Ratings, design: Design, config: Config) -> Params:
    """The parameters of the features at the end of a fit."""
    found = train.run(design_engine(design, config, backend), ratings, config).of_features
    assert found is not None
    return found


def problems() -> Iterator[tuple[str, Params, Batch, Design, Config]]:
    """Features that overlap, of any size and sign, unused ones and empty rows; both models, penalties and losses."""
    for kind, penalty, loss in (
        ("plain", "total", "squared"),
        ("biased", "per_rating", "squared"),
        ("biased", "total", "pseudo_huber"),
        ("plain", "per_rating", "pseudo_huber"),
        ("biased", "per_rating", "logistic"),
    ):
        ratings, _, config = problem(41, model=kind, penalty=penalty, loss=loss)
        design = design_for(ratings)
        yield f"{kind}, {penalty}, {loss}", _drawn(design, config, ratings), full_batch(ratings, config), design, config


def _given(config: Config) -> dict[str, Any]:
    return {"model": config.model, "penalty": config.penalty, "loss": config.loss}


def design_for(ratings: Ratings) -> Design:
    """Ids of the users beside features of any size; items that are features alone."""
    rng = np.random.default_rng(46)

    def some(rows: int, columns: int) -> sp.csr_array:
        kept = rng.random((rows, columns)) < 0.4
        kept[0], kept[:, 0] = False, False
        return sp.csr_array(rng.normal(size=kept.shape) * kept)

    m, n = ratings.shape
    users = sp.csr_array(sp.hstack([sp.eye_array(m, format="csr"), some(m, 4)], format="csr"))
    return Design(Side(users), Side(some(n, 5)))


def _drawn(design: Design, config: Config, ratings: Ratings, seed: int = 47) -> Params:
    """Parameters of the features, with biases of any size."""
    theta = by_hand.start(ratings, design, config)
    if theta.b is None or theta.c is None:
        return theta
    rng = np.random.default_rng(seed)
    return replace(theta, b=rng.normal(size=theta.b.shape), c=rng.normal(size=theta.c.shape))
