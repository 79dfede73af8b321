"""What each idea of the derivation gains, in RMSE or in iterations, each against the rung below it.

Everything is drawn from seeds and the Numba kernels' sums do not depend on threads, so that the numbers can be had
again; seconds alone are the machine's. RMSE is that of the validation pairs in rating units; where λ or η is chosen,
each side of a comparison chooses from a grid. Common ground unless an entry says otherwise: planted ratings 80/20,
K of the planted factors, biased, per_rating with λ = 0.03, Nesterov with β = 0.9, normal start with σ = 0.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench import machine
from bench.whole_fit import fit
from mf_numpy import Config, FitResult, Ratings, Split, model, random_split
from mf_numpy.baselines import mean_and_bias_scores
from mf_numpy.batch import full_batch
from mf_numpy.curvature import largest_curvature, max_lr
from mf_numpy.metrics import predict_known_and_cold, rmse, score
from mf_numpy.planted import DEFAULT, Planted, PlantedConfig, planted
from mf_numpy.recipes import RECIPES
from mf_numpy.result import EpochRecord

Json = dict[str, Any]
Say = Callable[[str], None]

SHARES = (0.9, 0.5, 0.25, 0.125, 0.0625)
"""η in units of the bound of Eq. 21 that every momentum form tries."""
RATES = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""η that every batch size tries."""
BATCHES = (None, 65_536, 16_384, 4_096)
PENALTIES = {"per_rating": (0.03, 0.06, 0.1, 0.15, 0.2), "total": (1e-5, 3e-5, 6e-5, 1e-4, 2e-4)}
"""λ that each penalty tries; those of ``total`` are about m times smaller, as its weights are that much larger."""
NOISE = 0.05
DELTA = 2.0


@dataclass(frozen=True, eq=False)
class Ground:
    """What the entries share.

    Attributes:
        truth: the planted ratings.
        split: 80 % to train on, 20 % to score.
        base: the configuration that an entry changes in one thing.
        curvature: L at a minimum of `base`, from which η is taken by Eq. 21.
        lowest: J at that minimum.
        cap: most iterations of a fit.
    """

    truth: Planted
    split: Split
    base: Config
    curvature: float
    lowest: float
    cap: int

    def lr(self, share: float, config: Config) -> float:
        """`share` of the largest η of the configuration's momentum form (Eq. 21)."""
        return share * max_lr(self.curvature, config)

    def fit(self, config: Config, train: Ratings | None = None, **more: Any) -> FitResult:
        """A fit with validation."""
        return fit(train or self.split.train, config, valid=self.split.valid, **more)


def measure(drawn: PlantedConfig = DEFAULT, *, cap: int = 3_000, say: Say = lambda text: None) -> Json:
    """Every entry by name.

    Args:
        drawn: the ratings.
        cap: most iterations of any fit.
        say: called with a line of progress.
    """
    say("quality: common ground")
    ground = _ground(drawn, cap)
    out: Json = {"ground": _describe(ground)}
    for name, entry in ENTRIES.items():
        say(f"quality: {name}")
        out[name] = entry(ground)
    return out


def biases(ground: Ground) -> Json:
    """Plain against biased, each run to its minimum; the plain model also with the two factors that biases are.

    η is half the bound of Eq. 21 at the start; iterations are those until the RMSE stays within 0.001 of its end.
    """
    k = ground.base.n_factors
    rows = []
    for kind, factors in (("plain", k), ("plain", k + 2), ("biased", k)):
        config = replace(ground.base, model=kind, n_factors=factors, tol=1e-6)  # type: ignore[arg-type]
        if kind == "plain":
            config = replace(config, init="mean", init_scale=None)
        config = replace(config, lr=0.5 * max_lr(_curvature_at_start(ground, config), config))
        result = ground.fit(config)
        rows.append({"model": kind, "n_factors": factors} | _end(result) | {"iterations": _settled(result)})
    return {"rows": rows}


def penalty(ground: Ground) -> Json:
    """Total against per rating with K = 16, each with the λ of its grid that scores best; users apart by activity."""
    counts = ground.split.train.user_counts
    few, many = np.percentile(counts, (25, 75))
    rows = []
    for kind, grid in PENALTIES.items():
        tried: list[Json] = []
        for reg in grid:
            config = replace(ground.base, n_factors=16, penalty=kind, reg=reg, tol=1e-5)  # type: ignore[arg-type]
            result = ground.fit(replace(config, lr=ground.lr(0.25, config)))
            apart = {
                "rmse_few": _rmse_of(result, ground, counts <= few),
                "rmse_many": _rmse_of(result, ground, counts >= many),
            }
            tried.append({"penalty": kind, "reg": reg} | _end(result) | apart)
        best = min(tried, key=lambda row: float(row["rmse"]))
        rows += [row | {"best": row is best} for row in tried]
    return {"rows": rows, "n_factors": 16, "few": float(few), "many": float(many)}


def momentum(ground: Ground) -> Json:
    """Iterations until J is 0.001 above the minimum: at one effective step 1/L, and at the best η of a grid."""
    target = ground.lowest + 1e-3
    rows = []
    for name, form, beta in (
        ("gradient_descent", "ema", 0.0),
        ("ema", "ema", 0.9),
        ("heavy_ball", "heavy_ball", 0.9),
        ("nesterov", "nesterov", 0.9),
    ):
        config = replace(ground.base, momentum=beta, momentum_form=form)  # type: ignore[arg-type]
        # v tends to g in the averaged form and to g/(1-β) in the others: η is set so that η v is alike.
        equal = (1.0 if form == "ema" else 1.0 - beta) / ground.curvature
        tried = {share: _until(ground, replace(config, lr=ground.lr(share, config)), target) for share in SHARES}
        reached = {share: n for share, n in tried.items() if n is not None}
        best = min(reached, key=lambda share: reached[share]) if reached else None
        rows.append(
            {
                "form": name,
                "beta": beta,
                "equal_step": _until(ground, replace(config, lr=equal), target),
                "best_share": best,
                "best": None if best is None else reached[best],
                "tried": [{"share": share, "iterations": n} for share, n in tried.items()],
            }
        )
    return {"rows": rows, "curvature": ground.curvature, "lowest": ground.lowest, "target": target}


def batches(ground: Ground) -> Json:
    """Epochs until the validation RMSE is within 0.004 of the full batch's minimum, at the best η of a grid."""
    aim = score(_minimum(ground).params, ground.split.valid, ground.split.train.mean).rmse + 0.004
    rows = []
    began = machine.clock()
    for size in BATCHES:
        best: Json | None = None
        for lr in RATES:
            config = replace(ground.base, batch_size=size, lr=lr, n_epochs=min(ground.cap, 100))
            result = ground.fit(config, callback=lambda record: _reached(record.valid_rmse, aim))
            if result.status == "stopped" and (best is None or len(result.history) < best["epochs"]):
                seconds = [record.seconds for record in result.history]
                best = {"epochs": len(result.history), "lr": lr, "seconds_per_epoch": float(np.median(seconds))}
        n = len(ground.split.train)
        updates = 1 if size is None else math.ceil(n / size)
        blank = {"epochs": None, "lr": None, "seconds_per_epoch": None}
        rows.append({"batch_size": size, "updates_per_epoch": updates} | (best or blank))
    held = machine.others_busy(began, machine.clock())
    return {"rows": rows, "target_rmse": aim, "others_busy_cores": held}


def start(ground: Ground) -> Json:
    """The plain model from three starts: RMSE before the first iteration and after 50, at one η for a K."""
    rows = []
    for factors in (3, 16):
        common = replace(ground.base, model="plain", n_factors=factors, init_scale=None, n_epochs=50)
        at_mean = replace(common, init="mean")
        lr = 0.25 * max_lr(_curvature_at_start(ground, at_mean), common)
        for init in ("uniform", "mean", "normal"):
            config = replace(common, init=init, lr=lr)
            begun = model.start(ground.split.train, config)
            first = score(begun, ground.split.valid, ground.split.train.mean).rmse
            rows.append(
                {"init": init, "n_factors": factors, "rmse_start": first} | _end(ground.fit(config)) | {"lr": lr}
            )
    return {"rows": rows, "mean_rating": ground.split.train.mean}


def post(ground: Ground) -> Json:
    """The post's recipe and the recipe `biased` beside what needs no factors, with their curves."""
    baselines = mean_and_bias_scores(ground.split.train, ground.split.valid)
    rows: list[Json] = [{"name": name, "rmse": s.rmse, "iterations": 0} for name, s in baselines.items()]
    curves = {}
    for name in ("post", "biased"):
        config = RECIPES[name].config
        result = ground.fit(replace(config, n_epochs=min(config.n_epochs, ground.cap), eval_every=1))
        rows.append({"name": name} | _end(result))
        curves[name] = _thinned([(r.epoch, r.valid_rmse) for r in result.history if r.valid_rmse is not None])
    rows.append({"name": "floor", "rmse": ground.truth.noise_floor_of(ground.split.train, ground.split.valid)})
    return {"rows": rows, "curves": curves}


def loss(ground: Ground) -> Json:
    """Squared against pseudo-Huber on training ratings as they are and with some replaced by uniform noise."""
    train = ground.split.train
    rng = np.random.default_rng(1)
    low, high = ground.truth.config.scale
    replaced = rng.random(len(train)) < NOISE
    noisy = replace(train, values=np.where(replaced, rng.uniform(low, high, len(train)), train.values))
    rows = []
    for share, ratings in ((0.0, train), (NOISE, noisy)):
        for name in ("squared", "pseudo_huber"):
            config = replace(ground.base, loss=name, loss_scale=DELTA, tol=1e-6)
            result = ground.fit(replace(config, lr=ground.lr(0.5, config)), ratings)
            rows.append({"replaced": share, "loss": name} | _end(result))
    return {"rows": rows, "delta": DELTA}


ENTRIES: Mapping[str, Callable[[Ground], Json]] = {
    "biases": biases,
    "penalty": penalty,
    "momentum": momentum,
    "batches": batches,
    "start": start,
    "post": post,
    "loss": loss,
}


def _ground(drawn: PlantedConfig, cap: int) -> Ground:
    truth = planted(drawn)
    split = random_split(truth.ratings, valid=0.2, seed=0)
    base = Config(
        n_factors=max(1, drawn.n_factors), n_epochs=cap, reg=0.03, momentum_form="nesterov", init_scale=0.3, lr=1.0,
        dtype="float64",
    )  # fmt: skip
    ground = Ground(truth, split, base, math.nan, math.nan, cap)
    # Half of Nesterov's bound where the fit begins; L is hardly larger where it ends.
    config = replace(base, lr=0.5 * max_lr(_curvature_at_start(ground, base), base), tol=1e-12)
    result = fit(split.train, config)
    curvature = largest_curvature(result.params, full_batch(split.train, base), base)
    return replace(ground, curvature=curvature, lowest=result.history[-1].objective)


def _describe(ground: Ground) -> Json:
    train = ground.split.train
    return {
        "config": ground.base.to_dict(),
        "n_train": len(train),
        "n_valid": len(ground.split.valid),
        "fingerprint": train.fingerprint,
        "curvature": ground.curvature,
        "lowest": ground.lowest,
    }


def _curvature_at_start(ground: Ground, config: Config) -> float:
    train = ground.split.train
    return largest_curvature(model.start(train, config), full_batch(train, config), config)


def _minimum(ground: Ground) -> FitResult:
    return fit(ground.split.train, replace(ground.base, lr=ground.lr(0.5, ground.base), tol=1e-9))


def _end(result: FitResult) -> Json:
    last = result.history[-1]
    return {"rmse": last.valid_rmse, "train_rmse": last.train_rmse, "iterations": last.epoch, "status": result.status}


def _settled(result: FitResult) -> int:
    """The first epoch from which the validation RMSE stays within 0.001 of its last value."""
    last = result.history[-1].valid_rmse
    assert last is not None
    far = [r.epoch for r in result.history if r.valid_rmse is None or abs(r.valid_rmse - last) > 1e-3]
    return max(far, default=0) + 1


def _until(ground: Ground, config: Config, target: float) -> int | None:
    """Iterations until J is at `target` or below; None where it never is."""

    def there(record: EpochRecord) -> bool:
        return record.objective <= target

    result = fit(ground.split.train, config, callback=there)
    return len(result.history) if result.status == "stopped" else None


def _reached(value: float | None, aim: float) -> bool:
    return value is not None and value <= aim


def _rmse_of(result: FitResult, ground: Ground, users: Any) -> float:
    """RMSE over the scored pairs of the marked users, (m,) bool."""
    valid = ground.split.valid
    predicted, known = predict_known_and_cold(result.params, valid.users, valid.items, ground.split.train.mean)
    of_them = known & users[np.maximum(valid.users, 0)]
    return rmse((predicted - valid.values)[of_them])


def _thinned(curve: list[tuple[int, float]], points: int = 60) -> list[list[float]]:
    """About so many points, closer together at the start, as the axis is logarithmic."""
    last = curve[-1][0]
    wanted = {1, last} | {round(last ** (k / points)) for k in range(points + 1)}
    return [[epoch, value] for epoch, value in curve if epoch in wanted]
