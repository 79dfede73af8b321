"""What ratings, ids, epochs and training must satisfy: named checks beside those of `mf_numpy.properties`."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mf_numpy import readers, train
from mf_numpy.batch import Batch, full_batch
from mf_numpy.check import Check
from mf_numpy.config import Config
from mf_numpy.duplicates import Pairs
from mf_numpy.model import Params
from mf_numpy.properties import FORMS, Ways, Worst, both_penalties, problem
from mf_numpy.ratings import Array, Ratings
from mf_numpy.result import FitResult
from mf_numpy.split import Holdout, k_fold, leave_last, random_split


def order_of_ratings(ways: Ways) -> list[Check]:
    """The order in which ratings stand in their file or batch changes neither J nor the gradient."""
    worst = Worst(1e-11)
    rng = np.random.default_rng(2)
    for label, ratings, params, config in both_penalties():
        shuffled = ratings.take(rng.permutation(len(ratings)))
        tables = {
            "sorted": ratings.take(np.argsort(ratings.users, kind="stable")),
            "shuffled": shuffled,
        }
        for name, way in ways.items():
            gold = way.evaluate(params, _as_it_stands(ratings), config)
            for order, table in tables.items():
                seen = way.evaluate(params, full_batch(table, config), config)
                worst.see(name, "J", seen.objective, gold.objective, f"{label}, {order}")
                worst.see_all(name, seen.gradient, gold.gradient, f"{label}, {order}")
    return worst.checks()


def _as_it_stands(ratings: Ratings) -> Batch:
    return Batch(ratings.users, ratings.items, ratings.values, (ratings.n_users, ratings.n_items))


def _many() -> Ratings:
    """20,000 ratings whose squares are exact in float32 and whose sum is not."""
    rng = np.random.default_rng(3)
    return Ratings.of_indices(
        rng.integers(0, 50, 20_000), rng.integers(0, 40, 20_000), rng.integers(1, 400, 20_000) / 4, m=50, n=40
    )


def renamed_ids(ways: Ways) -> list[Check]:
    """Other numbers for 300 users and 300 items permute their gradients and change nothing else."""
    worst = Worst(1e-11)
    rng = np.random.default_rng(4)
    ratings, params, config = problem(5, m=301, n=301, size=900)
    new_u, new_i = rng.permutation(301), rng.permutation(301)
    renamed = Ratings.of_indices(new_u[ratings.users], new_i[ratings.items], ratings.values, m=301, n=301)
    back = {"P": new_u, "b": new_u, "Q": new_i, "c": new_i}
    moved = params.with_tensors({key: theta[np.argsort(back[key])] for key, theta in params.tensors().items()})
    for name, way in ways.items():
        if name == "loops":
            continue  # slow here, and nothing in it depends on the number of ids
        one = way.evaluate(params, full_batch(ratings, config), config)
        two = way.evaluate(moved, full_batch(renamed, config), config)
        worst.see(name, "J", two.objective, one.objective, "300 users and items")
        worst.see_all(name, {k: g[back[k]] for k, g in two.gradient.items()}, one.gradient, "300 users and items")
    far = Pairs.find(np.array([0, 1 << 16], np.int32), np.array([5, 5], np.int32), np.ones(2), 1 << 16)
    near = Pairs.find(np.array([0, 1], np.int32), np.array([5, 5], np.int32), np.ones(2), 1 << 16)
    worst.see("ratings", "repeated pairs", far.n_duplicates, near.n_duplicates, "users 0 and 65,536")
    return worst.checks()


def grown_tables(ways: Ways) -> list[Check]:
    """A user and an item without ratings more change nothing for the others, nor what is said of a bad index."""
    worst = Worst(1e-12)
    ratings, params, config = problem(6)
    one = {key: np.concatenate([theta, np.full_like(theta[:1], 3.0)]) for key, theta in params.tensors().items()}
    grown = params.with_tensors(one)
    wider = Ratings.of_indices(
        ratings.users, ratings.items, ratings.values, m=ratings.n_users + 1, n=ratings.n_items + 1
    )
    for name, way in ways.items():
        before = way.evaluate(params, full_batch(ratings, config), config)
        after = way.evaluate(grown, full_batch(wider, config), config)
        worst.see(name, "J", after.objective, before.objective, "one row more")
        rows = {key: g[: len(before.gradient[key])] for key, g in after.gradient.items()}
        worst.see_all(name, rows, before.gradient, "one row more")
        for pair in ((-1, 0), (0, -1)):
            said = [_said(way.engine.predict, p, *pair) for p in (params, grown)]
            worst.note(name, "bad index", float(said[0] != said[1]), f"pair {pair}")
    return worst.checks()


def _said(predict: Any, params: Params, user: int, item: int) -> object:
    try:
        return float(predict(params, np.array([user]), np.array([item]))[0])
    except IndexError:
        return "refused"


def range_of_ids(ways: Ways) -> list[Check]:
    """An index outside 0..m-1 or 0..n-1, a negative one too, is refused and never wrapped."""
    worst = Worst(0.0)
    _, params, _ = problem()
    m, n, _ = params.shape
    for name, way in ways.items():
        for pair in ((-1, 0), (0, -1), (m, 0), (0, n)):
            refused = _said(way.engine.predict, params, *pair) == "refused"
            worst.note(name, "accepted", float(not refused), f"pair {pair}")
    return worst.checks()


def epochs(ways: Ways) -> list[Check]:
    """An epoch holds every rating once, whatever the batch size; two epochs and two seeds differ in order."""
    worst = Worst(0.0)
    ratings = Ratings.of_indices(np.arange(50) % 7, np.arange(50) % 5, np.arange(50.0))
    for size in (1, 7, 10, 49, 50, 51):
        config = Config(batch_size=size, dtype="float64")
        for name in ways:
            seen = _order(ways, name, ratings, 1, config)
            worst.see(name, "ratings seen", len(seen), 50, f"batch size {size}")
            worst.note(name, "ratings missed", float(len(set(range(50)) - set(seen))), f"batch size {size}")
            if size < 50:
                others = {
                    "epoch 2": _order(ways, name, ratings, 2, config),
                    "seed 1": _order(ways, name, ratings, 1, replace(config, seed=1)),
                }
                for what, other in others.items():
                    worst.note(name, "same order", float(other == seen), what)
    return worst.checks()


def _order(ways: Ways, name: str, ratings: Ratings, epoch: int, config: Config) -> list[int]:
    """The ratings of an epoch in the order of its batches, each by its value."""
    engine = ways[name].engine
    batches = engine.batches(engine.load(ratings, config), epoch, config)
    return [int(value) for batch in batches for value in np.asarray(batch.values.tolist())]


def fair_shuffle(ways: Ways) -> list[Check]:
    """Over 200 epochs each rating's mean place is the middle, within five standard deviations."""
    n_ratings, n_epochs = 20, 200
    deviation = math.sqrt((n_ratings**2 - 1) / 12 / n_epochs)
    worst = Worst(5 * deviation / ((n_ratings - 1) / 2))
    ratings = Ratings.of_indices(np.arange(20) % 4, np.arange(20) % 5, np.arange(20.0))
    config = Config(batch_size=8, dtype="float64")
    for name, way in ways.items():
        whole = way.engine.load(ratings, config)
        places = np.full((n_epochs, n_ratings), np.nan)
        for epoch in range(n_epochs):
            begin = 0
            for batch in way.engine.batches(whole, epoch + 1, config):
                # A rating's place is the middle of its batch, in which order means nothing.
                places[epoch, np.asarray(batch.values.tolist(), dtype=int)] = begin + (len(batch) - 1) / 2
                begin += len(batch)
        middle = np.full(n_ratings, (n_ratings - 1) / 2)
        worst.see(name, "mean place", places.mean(axis=0), middle, f"{n_epochs} epochs")
    return worst.checks()


def exact_sums(ways: Ways) -> list[Check]:
    """Σ squared errors of 20,000 ratings is `math.fsum`'s, in float32 too: losses add up in float64."""
    worst = Worst(1e-14)
    ratings = _many()
    exact = math.fsum(value**2 for value in ratings.values.tolist())
    for dtype in ("float32", "float64"):
        config = Config(model="plain", n_factors=1, dtype=dtype)
        nothing = Params(np.zeros((50, 1), dtype), np.zeros((40, 1), dtype))
        batch = full_batch(ratings, config)
        for name, way in ways.items():
            seen = way.evaluate(nothing, batch, config)
            worst.see(name, "Σ error²", seen.squared_error, exact, dtype)
            if dtype == "float64":
                worst.see(name, "J", seen.objective, exact / len(batch), dtype)
    return worst.checks()


def pooled_epoch(ways: Ways) -> list[Check]:
    """With η next to 0 an epoch of uneven batches reports RMSE and J of the start, counted rating by rating."""
    worst = Worst(1e-9)
    for label, ratings, _, config in both_penalties(batch_size=11, n_epochs=1, lr=1e-14):
        start = train.init(ratings, config).params
        square, penalty = _by_hand(ratings, start, config)
        for name, way in ways.items():
            record = train.run(way.engine, ratings, config).history[0]
            worst.see(name, "RMSE", record.train_rmse, math.sqrt(square / len(ratings)), label)
            worst.see(name, "J", record.objective, square / len(ratings) + penalty, label)
    ratings = _many()
    config = Config(model="plain", n_factors=1, init_scale=0.0, n_epochs=1, lr=1e-14)
    exact = math.sqrt(math.fsum(value**2 for value in ratings.values.tolist()) / len(ratings))
    for name, way in ways.items():
        record = train.run(way.engine, ratings, config).history[0]
        worst.see(name, "RMSE", record.train_rmse, exact, "20,000 ratings in float32")
    return worst.checks()


def epoch_of_one_batch(ways: Ways) -> list[Check]:
    """With η next to 0 an epoch reports the same RMSE and J in batches of any size."""
    worst = Worst(1e-9)
    for label, ratings, _, config in both_penalties(n_epochs=1, lr=1e-14):
        for name, way in ways.items():
            whole = train.run(way.engine, ratings, config).history[0]
            for size in (7, 39):
                record = train.run(way.engine, ratings, replace(config, batch_size=size)).history[0]
                worst.see(name, "RMSE", record.train_rmse, whole.train_rmse, f"{label}, batches of {size}")
                worst.see(name, "J", record.objective, whole.objective, f"{label}, batches of {size}")
    return worst.checks()


def _by_hand(ratings: Ratings, params: Params, config: Config) -> tuple[float, float]:
    """Σ squared errors and the penalty of Eq. 2, one rating at a time."""
    tensors = {key: theta.tolist() for key, theta in params.tensors().items()}
    square = 0.0
    counts: Counter[tuple[str, int]] = Counter()
    triples = list(zip(ratings.users.tolist(), ratings.items.tolist(), ratings.values.tolist(), strict=True))
    for u, i, r in triples:
        guess = params.mu + sum(p * q for p, q in zip(tensors["P"][u], tensors["Q"][i], strict=True))
        if "b" in tensors:
            guess += tensors["b"][u] + tensors["c"][i]
        square += (guess - r) ** 2
        counts["user", u] += 1
        counts["item", i] += 1
    penalty = 0.0
    for side, keys in (("user", "Pb"), ("item", "Qc")):
        for key in set(keys) & tensors.keys():
            for row, theta in enumerate(tensors[key]):
                weight = 1.0 if config.penalty == "total" else counts[side, row] / len(triples)
                penalty += config.reg * weight * sum(x * x for x in (theta if isinstance(theta, list) else [theta]))
    return square, penalty


def training_mean(ways: Ways) -> list[Check]:
    """μ is the mean of the training ratings, before and after training, with validation pairs or without."""
    worst = Worst(1e-14)
    ratings, _, config = problem(7, n_epochs=3, lr=0.5)
    mean = math.fsum(ratings.values.tolist()) / len(ratings)
    for name, way in ways.items():
        for label, valid in (("no validation", None), ("with validation", _held_out(1.0))):
            fitted = train.run(way.engine, ratings, config, valid=valid)
            worst.see(name, "μ", fitted.params.mu, mean, label)
    return worst.checks()


def _held_out(value: float) -> Holdout:
    return Holdout(np.array([0, 1, 2]), np.array([1, 2, 3]), np.full(3, value))


def held_out_values(ways: Ways) -> list[Check]:
    """Other values of the held-out ratings change nothing that training finds."""
    worst = Worst(0.0)
    ratings, _, config = problem(8, m=5, n=5, n_epochs=3, lr=0.5, batch_size=17)
    at = random_split(replace(ratings, values=np.arange(len(ratings)))).valid.values.astype(np.int64)
    changed = ratings.values.copy()
    changed[at] += 9.0
    splits = [random_split(table) for table in (ratings, replace(ratings, values=changed))]
    for name, way in ways.items():
        one, two = (train.run(way.engine, split.train, config, valid=split.valid) for split in splits)
        worst.see(name, "μ", two.params.mu, one.params.mu, "held-out ratings higher by 9")
        worst.see_all(name, two.params.tensors(), one.params.tensors(), "held-out ratings higher by 9")
    return worst.checks()


def two_sides(ways: Ways) -> list[Check]:
    """Every rating is on exactly one side of a split: a random one, each fold, and the latest of each user."""
    worst = Worst(0.0)
    ratings, _, _ = problem(15)
    ratings = replace(ratings, values=np.arange(len(ratings)), timestamps=np.arange(len(ratings)) % 7)
    splits = {"random": random_split(ratings), "latest": leave_last(ratings)}
    splits |= {f"fold {k + 1}": split for k, split in enumerate(k_fold(ratings))}
    for name, split in splits.items():
        both = np.sort(np.concatenate([split.train.values, split.valid.values]))
        worst.note("split", "ratings", float(not np.array_equal(both, ratings.values)), name)
    return worst.checks()


def resumed_run(ways: Ways) -> list[Check]:
    """A run that stops and is resumed is the straight run, bit for bit."""
    worst = Worst(0.0)
    forms: list[tuple[str, dict[str, Any], int | None]] = [
        (form, {"momentum": beta, "momentum_form": form, "lr": 0.3}, size)
        for form, beta in FORMS.items()
        for size in (None, 15)
    ]
    rules = [(rule, {"step_rule": rule, "lr": 0.1}, 15) for rule in ("adam", "adagrad")]
    for label, settings, size in forms + rules:
        ratings, _, config = problem(9, n_epochs=5, lr_decay=0.9, batch_size=size, **settings)
        for name, way in ways.items():
            straight = train.run(way.engine, ratings, config)
            part = train.run(way.engine, ratings, replace(config, n_epochs=2))
            resumed = train.run(way.engine, ratings, config, resume=part)
            where = f"{label}, {'full batch' if size is None else f'batches of {size}'}"
            worst.see_all(name, _end(resumed), _end(straight), where)
    return worst.checks()


def _end(result: FitResult) -> dict[str, Array]:
    speeds = {f"velocity {key}": v for key, v in (result.state.velocity or {}).items()}
    return {**result.params.tensors(), **speeds, "J": np.array([record.objective for record in result.history])}


def velocity_at_rest(ways: Ways) -> list[Check]:
    """With η next to 0 the gradient stays the same, so a resumed run ends with a geometric sum of it as velocity."""
    worst = Worst(1e-9)
    for form, beta in FORMS.items():
        ratings, _, config = problem(10, n_epochs=6, lr=1e-14, momentum=beta, momentum_form=form)
        for name, way in ways.items():
            params = train.init(ratings, config).params
            g = way.evaluate(params, full_batch(ratings, config), config).gradient
            part = train.run(way.engine, ratings, replace(config, n_epochs=2))
            speed = train.run(way.engine, ratings, config, resume=part).state.velocity or {}
            factor = 1.0 if form == "ema" else (1 - beta**6) / (1 - beta)
            worst.see_all(name, speed, {key: factor * x for key, x in g.items()}, form)
    return worst.checks()


def dense_table(ways: Ways) -> list[Check]:
    """Sorted by user or by item, ratings of 300 users and items fill the same dense table as they stand."""
    worst = Worst(1e-13)
    ratings, _, config = problem(11, m=301, n=301, size=900)
    dense = np.zeros((301, 301))
    np.add.at(dense, (_raw(11, 0), _raw(11, 1)), ratings.values)
    batch = full_batch(ratings, config)
    views = {
        "to_scipy": ratings.to_scipy().toarray(),
        "csr": _filled(ratings.csr.indptr, ratings.csr.indices, ratings.csr.arranged(ratings.values), 301),
        "csc": _filled(ratings.csc.indptr, ratings.csc.indices, ratings.csc.arranged(ratings.values), 301).T,
        "batch": _as_dense(batch.users, batch.items, batch.values),
        "sparse batch": batch.sparse(batch.values).toarray(),
    }
    for view, table in views.items():
        worst.see("ratings", view, table, dense, "900 ratings")
    return worst.checks()


def _raw(seed: int, side: int) -> Array:
    """The indices that `problem` drew, not through `Ratings`."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 300, 900), rng.integers(0, 300, 900)][side]


def _as_dense(rows: Array, columns: Array, values: Array) -> Array:
    out = np.zeros((301, 301))
    np.add.at(out, (rows, columns), values)
    return out


def _filled(indptr: Array, indices: Array, values: Array, size: int) -> Array:
    return _as_dense(np.repeat(np.arange(size), np.diff(indptr)), indices, values)


def id_round_trip(ways: Ways) -> list[Check]:
    """40,000 raw ids, read and mapped back, are the ids of the table, row by row."""
    worst = Worst(0.0)
    rng = np.random.default_rng(12)
    users, items = rng.permutation(40_000) * 7 - 50, rng.permutation(40_000) * 3
    table = pd.DataFrame({"user": users, "item": items, "rating": rng.integers(1, 6, 40_000)})
    for kind, rows in (("integers", table), ("text", table.iloc[:400].astype({"user": str, "item": str}))):
        read = readers.read_ratings(rows)
        same = read.user_ids.decode(read.users) == rows["user"].to_numpy()
        worst.note("ratings", "wrong users", float((~same).sum()), kind)
        same = read.item_ids.decode(read.items) == rows["item"].to_numpy()
        worst.note("ratings", "wrong items", float((~same).sum()), kind)
        unknown = read.user_ids.encode(rows["user"]) != read.users
        worst.note("ratings", "wrong indices", float(unknown.sum()), kind)
    return worst.checks()


def repeated_pairs(ways: Ways) -> list[Check]:
    """Repeated pairs are those that a dictionary counts, where u·n + i passes 2³¹ too."""
    worst = Worst(0.0)
    rng = np.random.default_rng(13)
    for label, n_users, n_items in (("small ids", 40, 30), ("u·n + i up to 2³³", 1 << 17, 1 << 16)):
        users, items = rng.integers(0, n_users, 3000), rng.integers(0, n_items, 3000)
        users[1500:] = users[:1500]
        # Half of the second 1,500 repeat a pair; the others lie 2³² further in u·n + i, or anywhere.
        items[1500:2250] = items[:750]
        users[2250:], items[2250:] = (users[750:1500] + (1 << 16)) % n_users, items[750:1500]
        counted = Counter(zip(users.tolist(), items.tolist(), strict=True))
        found = Pairs.find(users.astype(np.int32), items.astype(np.int32), np.ones(3000), n_items)
        worst.see("ratings", "repeated pairs", found.n_duplicates, sum(k > 1 for k in counted.values()), label)
    return worst.checks()
