"""What users and items at a time must satisfy (Eq. 41): named checks, as in `properties`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mf_numpy import design as by_hand
from mf_numpy.check import GRADIENT_TOLERANCE, Check
from mf_numpy.config import Config
from mf_numpy.features import Features
from mf_numpy.model import Params, predict
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Array, Ratings
from mf_numpy.split import Holdout
from mf_numpy.timed import DAY, Timed, timed

FIRST, PERIOD, PARTS = 100, 24, 4
"""The first day of the training ratings, the days that there are, and parts of them."""

USERS = Features().id().rated().drift(weight=0.5).day()
ITEMS = Features().id().time_bins(PARTS, weight=2.0).popularity(PARTS)


def time_by_hand(ways: Ways) -> list[Check]:
    """r̂ is μ + b_u(t) + c_i(t) + p_u(t)·q_i(t), a drift, a day, a bin and a popularity at a time (Eq. 41)."""
    worst = Worst(GRADIENT_TOLERANCE)
    for label, made, held_out in problems():
        theta = _drawn(made)
        rows = by_hand.rows(theta, made.design)
        assert made.valid is not None
        for what, contexts, pairs in (("training", made.train, made.original), ("held out", made.valid, held_out)):
            mine = predict(rows, contexts.users, contexts.items)
            worst.see("timed", "r̂", mine, _predicted(made, theta, pairs), f"{label}, {what}")
    return worst.checks()


def drift_about_the_mean(ways: Ways) -> list[Check]:
    """Of a row's drifts, unbent again, the sum over its training ratings is 0, whatever is held out (Eq. 41)."""
    worst = Worst(1e-9)
    for label, made, _ in problems():
        at = [k for k, name in enumerate(made.design.users.names) if name.endswith("drift")]
        bent = made.design.users.matrix.tocsc()[:, at].toarray()[made.train.users]
        days_away = np.sign(bent) * np.abs(bent) ** 2.5
        worst.see("timed", "sum", days_away.sum(axis=0) / np.abs(days_away).max(), np.zeros(len(at)), label)
    return worst.checks()


def time_runs_backwards(ways: Ways) -> list[Check]:
    """With every day mirrored, drifts change their signs, bins their order, and nothing else (Eq. 41)."""
    worst = Worst(GRADIENT_TOLERANCE)
    for label, made, held_out in problems():
        ratings = made.original
        assert ratings.timestamps is not None and held_out.timestamps is not None
        turned = timed(
            replace(ratings, timestamps=(2 * FIRST + PERIOD) * DAY - ratings.timestamps),
            USERS,
            ITEMS,
            valid=replace(held_out, timestamps=(2 * FIRST + PERIOD) * DAY - held_out.timestamps),
        )
        theta, other = _drawn(made), _drawn(turned)
        for side, mirrored, P, b in (("users", _mirror_day, "P", "b"), ("items", _mirror_bin, "Q", "c")):
            names = {name: k for k, name in enumerate(getattr(made.design, side).names)}
            source = np.array([names[mirrored(name)] for name in getattr(turned.design, side).names])
            sign = np.array([-1.0 if name.endswith("drift") else 1.0 for name in getattr(turned.design, side).names])
            moved = {P: theta.tensors()[P][source] * sign[:, None], b: theta.tensors()[b][source] * sign}
            other = other.with_tensors({**other.tensors(), **moved})
        before, after = by_hand.rows(theta, made.design), by_hand.rows(other, turned.design)
        mine = predict(after, turned.train.users, turned.train.items)
        worst.see("timed", "r̂", mine, predict(before, made.train.users, made.train.items), label)
    return worst.checks()


def popularity_adds_up(ways: Ways) -> list[Check]:
    """An item's ratings in all parts of the period, read back from its popularity, are all its training ratings."""
    worst = Worst(1e-9)
    for label, made, _ in problems():
        largest = max(int(n) for n in _in_bins(made.original).ravel())
        (at,) = (k for k, name in enumerate(made.design.items.names) if name.startswith("popularity"))
        size = made.design.items.matrix.tocsc()[:, [at]].toarray()[:, 0]
        counts = np.expm1(size * np.log1p(largest))
        met = np.unique(made.train.items)
        owner = np.empty(made.train.n_items, np.int64)
        owner[made.train.items] = made.original.items
        mine = np.bincount(owner[met], counts[met], made.original.n_items)
        worst.see("timed", "ratings", mine, made.original.item_counts, label)
    return worst.checks()


def problems() -> Iterator[tuple[str, Timed, Holdout]]:
    """Ratings of some weeks, several a day, the first and the last among them; held-out pairs on days of their own."""
    for seed in (52, 53):
        ratings, _, _ = problem(seed, size=60)
        rng = np.random.default_rng(seed)
        days = rng.integers(0, PERIOD, len(ratings))
        days[:2] = 0, PERIOD - 1
        days += FIRST
        train = replace(ratings, timestamps=days * DAY + DAY // 2)
        kept = np.flatnonzero(train.user_counts), np.flatnonzero(train.item_counts)
        users, items = rng.choice(kept[0], 20), rng.choice(kept[1], 20)
        held_out = Holdout(users, items, np.full(20, 3.0), (FIRST + rng.integers(0, PERIOD, 20)) * DAY + DAY // 2)
        yield f"seed {seed}", timed(train, USERS, ITEMS, valid=held_out), held_out


def _drawn(made: Timed) -> Params:
    config = Config(n_factors=3, dtype="float64", init_scale=0.8)
    theta = by_hand.start(made.train, made.design, config)
    rng = np.random.default_rng(54)
    f, g, _ = theta.shape
    return replace(theta, b=rng.normal(size=f), c=rng.normal(size=g))


def _predicted(made: Timed, theta: Params, pairs: Ratings | Holdout) -> Array:
    """r̂ of each pair, from the features by name and from the days."""
    train = made.original
    assert train.timestamps is not None and pairs.timestamps is not None
    assert theta.b is not None and theta.c is not None
    days, then = train.timestamps // DAY, pairs.timestamps // DAY
    names_u = {name: k for k, name in enumerate(made.design.users.names)}
    names_i = {name: k for k, name in enumerate(made.design.items.names)}
    in_bins = _in_bins(train)

    def away(u: int, day: int) -> float:
        mean = float(np.mean(days[train.users == u]))
        return float(abs(day - mean) ** 0.4) * (1 if day > mean else -1)

    largest = max(abs(away(int(u), int(day))) for u, day in zip(train.users, days, strict=True))
    out = np.empty(len(then))
    for k, (u, i, day) in enumerate(zip(pairs.users.tolist(), pairs.items.tolist(), then.tolist(), strict=True)):
        part = (day - FIRST) * PARTS // PERIOD
        rated = sorted(set(train.items[train.users == u].tolist()))
        of_user = {f"id={u}": 1.0, f"id={u} drift": 0.5 * away(u, day) / largest, f"id={u} day {day}": 1.0}
        of_user |= {f"rated={j}": 1 / np.sqrt(len(rated)) for j in rated}
        of_item = {f"id={i}": 1.0, f"id={i} of {PARTS} {part}": 2.0}
        of_item |= {f"popularity in one of {PARTS}": np.log1p(in_bins[i, part]) / np.log1p(in_bins.max())}
        # On a day without training ratings nothing is known of the day.
        x = {names_u[name]: value for name, value in of_user.items() if name in names_u}
        y = {names_i[name]: value for name, value in of_item.items() if name in names_i}
        p, q = sum(v * theta.P[a] for a, v in x.items()), sum(v * theta.Q[a] for a, v in y.items())
        biases = sum(v * theta.b[a] for a, v in x.items()) + sum(v * theta.c[a] for a, v in y.items())
        out[k] = theta.mu + biases + float(np.dot(p, q))
    return out


def _in_bins(train: Ratings) -> Array:
    """(n, PARTS) training ratings of each item in each part of the period."""
    assert train.timestamps is not None
    out = np.zeros((train.n_items, PARTS))
    for i, day in zip(train.items.tolist(), (train.timestamps // DAY).tolist(), strict=True):
        out[i, (day - FIRST) * PARTS // PERIOD] += 1
    return out


def _mirror_day(name: str) -> str:
    head, day, number = name.partition(" day ")
    return f"{head}{day}{2 * FIRST + PERIOD - 1 - int(number)}" if day else name


def _mirror_bin(name: str) -> str:
    head, of, number = name.partition(f" of {PARTS} ")
    return f"{head}{of}{PARTS - 1 - int(number)}" if of else name
