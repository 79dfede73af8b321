"""Named starting points: the post's settings, and settings a user would really train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mf_numpy.config import Config


@dataclass(frozen=True)
class Recipe:
    """A configuration with the validation share it is meant for.

    Attributes:
        config: the settings.
        valid: share of the ratings held out.
        about: one sentence for a listing.
        larger: settings of larger tables, each with the least number of training ratings that it is for, ascending.
        ridge: Nλ, where that is what stays the same as N, the number of training ratings, changes.
    """

    config: Config
    valid: float
    about: str
    larger: tuple[tuple[int, Config], ...] = ()
    ridge: float | None = None

    def of_size(self, n_ratings: int) -> Config:
        """The settings for so many training ratings."""
        suited = [self.config, *(config for least, config in self.larger if n_ratings >= least)][-1]
        return suited if self.ridge is None else replace(suited, reg=self.ridge / max(n_ratings, 1))


RECIPES: Mapping[str, Recipe] = {
    "post": Recipe(
        Config(
            model="plain",
            n_factors=3,
            n_epochs=800,
            lr=1.0,
            reg=0.0002,
            penalty="total",
            momentum=0.9,
            momentum_form="ema",
            init="uniform",
            eval_every=10,
        ),
        valid=0.2,
        about="the blog post's: plain p·q, K = 3, U(0, 11/K), 800 steps of lr 1; it ends level with the mean",
    ),
    # λ and η were chosen by validation RMSE on a tenth of the training part of MovieLens 100K u1-u5, MovieLens 1M
    # and the anime sample. Trained until Eq. 2 stops falling: its minimum needs no lucky epoch to stop at.
    "biased": Recipe(
        Config(
            model="biased",
            n_factors=64,
            n_epochs=1000,
            lr=60.0,
            reg=0.1,
            penalty="per_rating",
            momentum=0.9,
            momentum_form="nesterov",
            init="normal",
            init_scale=0.05,
            tol=1e-5,
        ),
        valid=0.1,
        about="mean, biases and 64 factors by full-batch Nesterov; for explicit ratings on a scale of 1-5 or 1-10",
    ),
    # Of the points of `bench.search` on ratings held out of the training side of MovieLens 100K the best that takes no
    # more than 300 epochs; of the anime sample K and sweeps are those that `bench.accuracy` chose in the same way,
    # without several chains. The committed results have every point and what it took. Nothing was tried on larger
    # tables, which take those of the middle ones. Fewer draws are kept of more rows.
    "best": Recipe(
        Config(solver="gibbs", n_factors=48, n_epochs=300, chain_length=75, burn_in=10, thin=2),
        valid=0.1,
        about="draws from the posterior, with settings by the number of ratings: the best of "
        "300 epochs at most on ratings held out of MovieLens 100K, of 90 points, and of the anime sample, of 15",
        larger=(
            (300_000, Config(solver="gibbs", n_factors=32, n_epochs=300, thin=5)),
            (3_000_000, Config(solver="gibbs", n_factors=32, n_epochs=300, thin=20)),
        ),
    ),
    # What `bench.clicks` chose for all pairs on clicks of MovieLens 100K that were held out of the training side.
    "clicks": Recipe(
        Config(
            model="plain",
            loss="all_pairs",
            loss_scale=4.0,
            solver="als",
            n_factors=64,
            n_epochs=10,
            penalty="total",
        ),
        valid=0.2,
        about="choices by the squared error of all pairs, for tables of clicks or, with --clicks, of ratings: the best "
        "on clicks held out of MovieLens 100K, of 54 points",
        ridge=35.0,
    ),
}
