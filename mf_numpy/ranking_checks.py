"""What losses of lists and their draws must satisfy (Eq. 48 to 53): named checks beside `properties`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mf_numpy import curvature, gradients, loops, losses, sampling
from mf_numpy.batch import Batch, full_batch, mini_batches
from mf_numpy.check import GRADIENT_TOLERANCE, Case, Check, complex_step
from mf_numpy.config import DRAWN, Config
from mf_numpy.model import Tensors
from mf_numpy.properties import Ways, Worst, moved, problem
from mf_numpy.ratings import Array

_WITH_LISTS = ("loops", "numpy", "numba", "autograd")
"""Ways that know lists; paths of torch that sort pairs do not."""


def lists() -> Iterator[Case]:
    """Lists of two and of four items, all alike and by popularity; both models and penalties, whole and in parts."""
    for loss in DRAWN:
        for kind, penalty in (("plain", "total"), ("biased", "per_rating")):
            for n_drawn, power, size in ((1, 0.0, None), (3, 0.75, 17)):
                given: dict[str, Any] = {"model": kind, "penalty": penalty, "loss": loss, "batch_size": size}
                given |= {"n_negatives": n_drawn, "negative_power": 0.0 if loss == "warp" else power}
                ratings, params, config = problem(51, n=12, **given)
                for k, batch in enumerate(mini_batches(full_batch(ratings, config), 1, config)):
                    yield Case(f"{loss}, {kind}, {penalty}, {n_drawn} drawn, batch {k}", params, batch, config)


def lists_in_loops(ways: Ways) -> list[Check]:
    """Gradient, J and squared errors of lists are those of plain loops (Eq. 48, 49, 53)."""
    worst = Worst(GRADIENT_TOLERANCE)
    for case in lists():
        gold = loops.gradient(case.params, case.batch, case.config)
        for name in ways.keys() & set(_WITH_LISTS):
            seen = ways[name].evaluate(case.params, case.batch, case.config)
            worst.see(name, "J", seen.objective, gold.objective, case.name)
            worst.see(name, "Σ error²", seen.squared_error, gold.squared_error, case.name)
            worst.see_all(name, seen.gradient, gold.gradient, case.name)
    return worst.checks()


def lists_by_complex_step(ways: Ways) -> list[Check]:
    """Gradient of lists is Im J(θ + ih)/h of the objective as written (Eq. 48, 49, 53)."""
    worst = Worst(GRADIENT_TOLERANCE)
    for case in lists():
        gold = complex_step(case.params, case.batch, case.config)
        for name in ways.keys() & set(_WITH_LISTS):
            # The biases of users cancel within a list, but for the penalty.
            mine = ways[name].evaluate(case.params, case.batch, case.config).gradient
            worst.see_all(name, mine, gold, case.name)
    return worst.checks()


def change_of_lists(ways: Ways) -> list[Check]:
    """How E of a list changes along a direction is its derivative by complex step (Eq. 48, 49)."""
    worst = Worst(1e-13)
    for loss, scores, offsets, along, config in _scores():
        mine = losses.change(scores, offsets, along, config)
        expected = np.imag(losses.residual(scores + 1e-30j * along, offsets, config)) / 1e-30
        worst.see("list_losses", "change of E", mine, expected, loss)
    return worst.checks()


def bend_of_lists(ways: Ways) -> list[Check]:
    """∇²J d of lists is the change of the gradient along d (Eq. 18)."""
    worst = Worst(1e-7)
    step = 1e-5
    rng = np.random.default_rng(52)
    for case in lists():
        d: Tensors = {key: np.array(rng.normal(size=x.shape)) for key, x in case.params.tensors().items()}
        ahead, back = (gradients.gradient(moved(case, d, h), case.batch, case.config).gradient for h in (step, -step))
        mine = curvature.hessian_vector(case.params, d, case.batch, case.config)
        worst.see_all("curvature", mine, {key: (ahead[key] - back[key]) / (2 * step) for key in mine}, case.name)
    return worst.checks()


def _scores() -> Iterator[tuple[str, Array, Array, Array, Config]]:
    rng = np.random.default_rng(53)
    for loss in DRAWN:
        for n_drawn in (1, 3):
            config = Config(loss=loss, n_negatives=n_drawn)  # type: ignore[arg-type]
            size = 8 * (1 + n_drawn)
            scores, offsets, along = 4 * rng.normal(size=size), rng.normal(size=size), rng.normal(size=size)
            yield f"{loss}, {n_drawn} drawn", scores, offsets, along, config


def strangers_alone(ways: Ways) -> list[Check]:
    """No item is drawn beside a rating of a user who has rated it, even where she has rated nearly all (Eq. 50)."""
    worst = Worst(0.0)
    for power in (0.0, 1.0):
        whole, config = _table(power)
        rated = set(zip(whole.users.tolist(), whole.items.tolist(), strict=True))
        for epoch in (1, 2):
            drawn = sampling.negatives(whole.users, whole.items, whole.shape[1], epoch, config)
            own = [(int(u), int(j)) in rated for u, row in zip(whole.users, drawn, strict=True) for j in row]
            worst.note("sampling", "own items", float(sum(own)), f"power {power:g}, epoch {epoch}")
    return worst.checks()


def frequency_of_draws(ways: Ways) -> list[Check]:
    """Beside a user's ratings an item comes as often as its n_i^α says among those she has not rated (Eq. 50)."""
    worst = Worst(0.1)
    for power in (0.0, 1.0):
        whole, config = _table(power)
        n = whole.shape[1]
        seen = np.zeros(n)
        for epoch in range(1, 61):
            drawn = sampling.negatives(whole.users, whole.items, n, epoch, config)
            seen += np.bincount(drawn[whole.users == 1].ravel(), minlength=n)
        price = np.bincount(whole.items, minlength=n).astype(float) ** power
        price[whole.items[whole.users == 1]] = 0
        worst.see("sampling", "frequency", seen / seen.sum(), price / price.sum(), f"power {power:g}")
    return worst.checks()


def price_of_draws(ways: Ways) -> list[Check]:
    """What is taken off a score is the logarithm of the probability to be drawn, up to one number (Eq. 49, 50)."""
    worst = Worst(1e-12)
    for power in (0.0, 0.75, 1.0):
        whole, config = _table(power)
        some = np.unique(whole.items)
        offsets = sampling.offsets(whole.items, whole.shape[1], config)[some]
        price = np.log(sampling.weights(whole.items, whole.shape[1], config)[some])
        worst.see("sampling", "log q", offsets - offsets[0], price - price[0], f"power {power:g}")
        worst.see("sampling", "power", offsets, power * np.log(np.bincount(whole.items)[some]), f"power {power:g}")
    return worst.checks()


def first_that_is_near(ways: Ways) -> list[Check]:
    """Of items drawn for a choice, the first that is less than 1 behind is pushed, by its worth (Eq. 51, 53)."""
    worst = Worst(1e-15)
    config, worths = Config(loss="warp", n_negatives=3, dtype="float64"), np.array([0.0, 4.0, 2.0, 1.0])
    for scores, pushed, cost in (
        ([2.0, 5.0, 0.0, 9.0], [-4.0, 4.0, 0.0, 0.0], 16.0),
        ([2.0, 0.5, 1.25, 9.0], [-2.0, 0.0, 2.0, 0.0], 0.5),
        ([2.0, 1.0, -3.0, 1.5], [-1.0, 0.0, 0.0, 1.0], 0.5),
        ([2.0, 1.0, 0.5, -1.0], [0.0, 0.0, 0.0, 0.0], 0.0),
    ):
        mine = losses.residual(np.array(scores), worths, config)
        worst.see("list_losses", "E", mine, np.array(pushed), str(scores))
        worst.see("list_losses", "ℓ", losses.value(np.array(scores), worths, config), np.array([cost]), str(scores))
    return worst.checks()


def rank_by_draws(ways: Ways) -> list[Check]:
    """Where two of five strangers are too near, a push is L over geometric numbers of draws (Eq. 51, 52)."""
    worst = Worst(0.03)
    config = Config(loss="warp", n_negatives=20, dtype="float64")
    users, items, n = np.repeat(np.arange(2000), 2), np.tile([1, 2], 2000), 7
    # Her own are ahead of her choices, and no draw may meet them.
    scores = np.array([0.5, 1.0, 1.0, 3.0, -1.0, -2.0, -3.0])
    lists = next(mini_batches(Batch(users, items, np.ones(len(users)), (2000, n)), 1, config))
    pushed = -losses.residual(scores[lists.items], lists.values, config)[:: lists.per_list]
    wanted = 0.0
    for k in range(1, 21):
        wanted += 0.4 * 0.6 ** (k - 1) * sum(1 / place for place in range(1, (n - 1) // k + 1))
    worst.see("sampling", "push", pushed.mean(), wanted, "two of five")
    return worst.checks()


def _table(power: float) -> tuple[Batch, Config]:
    """User 0 has rated all of 7 items but one, user 1 two of them, others some; item 6 less often than item 0."""
    users = np.repeat([0, 1, 2, 3, 4], [6, 2, 3, 3, 4])
    items = np.array([0, 1, 2, 3, 4, 5, 1, 2, 0, 3, 6, 0, 4, 5, 0, 3, 4, 6])
    config = Config(loss="softmax", n_negatives=20, negative_power=power, dtype="float64")
    return Batch(users, items, np.ones(len(users)), (5, 7)), config
