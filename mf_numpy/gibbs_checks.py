"""What draws from a posterior must satisfy (Eq. 63 to 70): named checks beside `properties`.

Some of them are statistical tests. Under the right sampler each of their numbers is uniform on [0, 1], independently
from run to run, so that the largest distance between their distribution function and the diagonal exceeds ε in n runs
with probability 2 exp(-2nε²) at most (Massart 1990): ε is where that, times the number of quantities, is `ERROR_RATE`.
The seeds are fixed, so a verdict is always the same. Ranks alone are uniform only as far as a chain forgets within a
few sweeps where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
from scipy import stats

from mf_numpy import gibbs
from mf_numpy.check import Check
from mf_numpy.config import Config
from mf_numpy.engine import Backend, State
from mf_numpy.model import Params, predict
from mf_numpy.posterior import Draws
from mf_numpy.properties import Ways, Worst, problem
from mf_numpy.ratings import Array, Ratings
from mf_numpy.sgd_checks import after_epochs
from mf_numpy.solvers.gibbs import GibbsEngine, GibbsState
from mf_numpy.split import Holdout

ERROR_RATE = 1e-6
"""A right sampler is rejected once in so many draws of the seeds, for each of the statistical checks."""

SCALE = 1.3
"""σ where truths are drawn from the prior."""

Problem = tuple[str, Ratings, Params, Config]
"""A label, ratings, parameters to begin from, and settings."""

_BACKENDS: tuple[Backend, ...] = ("numba", "loops")


def draws_in_loops(ways: Ways) -> list[Check]:
    """Three sweeps by the kernels are those row by row in float64."""
    worst = Worst(1e-9)
    for label, ratings, params, config in _problems():
        mine, theirs = (after_epochs(backend, ratings, params, config, 3).params for backend in _BACKENDS)
        worst.see_all("numba", mine.tensors(), theirs.tensors(), label)
    return worst.checks()


def draws_by_inverses(ways: Ways) -> list[Check]:
    """Two sweeps are the conditionals written down with dense inverses, covariances in the place of precisions."""
    return two_sweeps(_problems(), _swept, 1e-9)


def two_sweeps(problems: Iterable[Problem], swept: Callable[..., Params], tolerance: float) -> list[Check]:
    """Hold two sweeps of each backend to those that `swept` (ratings, params, config, epoch) writes down."""
    worst = Worst(tolerance)
    for label, ratings, params, config in problems:
        expected = params
        for epoch in (1, 2):
            expected = swept(ratings, expected, config, epoch)
        for backend in _BACKENDS:
            found = after_epochs(backend, ratings, params, config, 2).params
            worst.see_all(backend, found.tensors(), expected.tensors(), label)
    return worst.checks()


def _swept(ratings: Ratings, params: Params, config: Config, epoch: int) -> Params:
    noise = gibbs.noise_of(epoch, params.shape[:2], len(ratings), config)
    scale = ratings.values.std()
    error = predict(params, ratings.users, ratings.items) - ratings.values
    variance = (scale**2 + error @ error / 2) / noise.precision
    return drawn_by_inverses(ratings, ratings.values, params, noise, scale, variance)


def drawn_by_inverses(
    ratings: Ratings, values: Array, params: Params, noise: gibbs.Noise, scale: float, variance: float
) -> Params:
    """Both sides' priors and rows (Eq. 64 to 68), by covariances, from the values (N,) of the ratings' pairs."""
    here, (m, n, k) = params.copy(), params.shape
    for own, other, own_bias, other_bias, rows, others, count, given in (
        (here.P, here.Q, here.b, here.c, ratings.users, ratings.items, m, noise.user),
        (here.Q, here.P, here.c, here.b, ratings.items, ratings.users, n, noise.item),
    ):
        theta, y, left = own, other[others], values - here.mu
        units = np.full(k, scale)
        if own_bias is not None and other_bias is not None:
            theta, y = np.column_stack([own, own_bias]), np.column_stack([y, np.ones(len(y))])
            left, units = left - other_bias[others], np.append(units, scale**2)
        center, prior_cov = prior_by_covariances(theta, units, given)
        for row in range(count):
            at = rows == row
            cov = np.linalg.inv(np.linalg.inv(prior_cov) + y[at].T @ y[at] / variance)
            middle = center + cov @ y[at].T @ (left[at] - y[at] @ center) / variance
            drawn = middle + upper_root(cov) @ given.rows[row]
            own[row] = drawn[:k]
            if own_bias is not None:
                own_bias[row] = drawn[k]
    return here


def prior_by_covariances(theta: Array, units: Array, given: gibbs.SideNoise) -> tuple[Array, Array]:
    """m and Λ⁻¹ of rows (Eq. 67, 68), by covariances; `units` is V's diagonal."""
    count, mean, spread = len(theta), theta.mean(axis=0), np.diag(units)
    for row in theta:
        spread = spread + np.outer(row - mean, row - mean)
    spread = spread + count / (count + 1) * np.outer(mean, mean)
    root = np.linalg.cholesky(spread) @ np.linalg.inv(given.wishart.T)
    return count / (count + 1) * mean + root @ given.mean / math.sqrt(count + 1), root @ root.T


def upper_root(cov: Array) -> Array:
    """The upper triangular root of a covariance: A = L Lᵀ has L⁻ᵀ for one, and it is unique."""
    out: Array = np.linalg.cholesky(cov[::-1, ::-1])[::-1, ::-1]
    return out


def resumed_chain(ways: Ways) -> list[Check]:
    """A chain begun anew from a point of another goes where that one goes: all that a sweep needs is in the point."""
    worst = Worst(1e-12)
    for label, ratings, params, config in _problems():
        straight, half = (after_epochs("loops", ratings, params, config, epochs) for epochs in (4, 2))
        engine = GibbsEngine("loops")
        whole = engine.load(ratings, config)
        state = engine.start(half, whole, config)
        for _ in range(2):
            state = cast(GibbsState, engine.next_epoch(engine.step(state, whole, config)))
        worst.see_all("loops", state.params.tensors(), straight.params.tensors(), label)
    return worst.checks()


def standard_draws(ways: Ways) -> list[Check]:
    """What a sweep draws are independent standard normals, roots of χ² and a Gamma variate (Eq. 66, 68, 69)."""
    worst, runs = Worst(1.0), 300
    config = Config(solver="gibbs", n_factors=2)
    drawn = [gibbs.noise_of(epoch, (3, 4), 10, config) for epoch in range(1, runs + 1)]
    seen: dict[str, Any] = {"precision": stats.gamma.cdf([one.precision for one in drawn], gibbs.SHAPE + 5)}
    for side, count in (("user", 3), ("item", 4)):
        of_side: list[gibbs.SideNoise] = [getattr(one, side) for one in drawn]
        rows = np.array([one.rows for one in of_side])
        diagonal = np.array([np.diag(one.wishart) for one in of_side]) ** 2
        seen |= {
            f"{side}: rows": stats.norm.cdf(rows[:, 0, 0]),
            f"{side}: two rows": stats.norm.cdf((rows[:, 0, 1] - rows[:, 1, 1]) / math.sqrt(2)),
            f"{side}: numbers of a row": stats.norm.cdf((rows[:, 1, 0] + rows[:, 1, 2]) / math.sqrt(2)),
            f"{side}: mean": stats.norm.cdf([one.mean[0] for one in of_side]),
            f"{side}: below": stats.norm.cdf([one.wishart[2, 1] for one in of_side]),
            f"{side}: first root": stats.chi2.cdf(diagonal[:, 0], 3 + count),
            f"{side}: last root": stats.chi2.cdf(diagonal[:, 2], 1 + count),
        }
    uniform(worst, seen)
    return worst.checks()


def joint_distribution(ways: Ways) -> list[Check]:
    """Truth from the prior, then ratings and a sweep in turns: what comes out is as the prior has it (Geweke 2004)."""
    worst, runs, turns = Worst(1.0), 60, 3
    seen: dict[str, list[float]] = {}
    rng = np.random.default_rng(0)
    for run in range(runs):
        truth, alpha = _truth(rng, 3, 2)
        chain = Chain(truth, Config(solver="gibbs", n_factors=1, dtype="float64", burn_in=0, seed=run))
        left = 0.0
        for _ in range(turns):
            chain.rate(alpha, rng)
            left = float(np.square(chain.errors(chain.params)).sum())
            alpha = chain.sweep()
        given = stats.gamma.cdf(alpha * (gibbs.SHAPE * SCALE**2 + left / 2), gibbs.SHAPE + len(chain.values) / 2)
        for name, value in ({"α given the errors": float(given)} | by_prior(chain, alpha)).items():
            seen.setdefault(name, []).append(value)
    uniform(worst, {name: np.array(values) for name, values in seen.items()})
    return worst.checks()


def block_by_block(ways: Ways) -> list[Check]:
    """Truth and ratings from the prior, and one block drawn anew: squares by its precision are χ² (Geweke 2004)."""
    worst, runs = Worst(1.0), 300
    rng, config = np.random.default_rng(2), Config(solver="gibbs", n_factors=1)
    units = np.array([SCALE, SCALE**2])
    seen: dict[str, list[float]] = {}
    for run in range(runs):
        noise = gibbs.noise_of(run + 1, (3, 2), 6, config).user
        center, root, theta = side_of(rng, 3)
        drawn = gibbs.prior_of(3, theta.sum(axis=0), theta.T @ theta, SCALE, noise, config)
        y = np.column_stack([side_of(rng, 2)[2][:, 0], np.ones(2)])
        alpha = rng.standard_gamma(gibbs.SHAPE) / SCALE**2
        given = gibbs.Prior(center, root.T @ root)
        left = theta[:2] @ y.T + rng.normal(size=(2, 2)) / math.sqrt(alpha)
        one, two = (
            gibbs.row_draw(*gibbs.row_conditional(y, of_row, given, alpha), z)
            for of_row, z in zip(left, noise.rows[:2], strict=True)
        )
        for name, square, freedom in (
            ("rows, by m and Λ drawn", _size(theta - drawn.mean, drawn.precision), 6),
            ("m drawn, by Λ drawn", gibbs.MEAN_WEIGHT * _size(drawn.mean, drawn.precision), 2),
            ("Λ drawn", float(units @ np.diag(drawn.precision)), 4),
            ("row drawn", _size(one - center, given.precision), 2),
            ("two rows drawn", _size(one - two, given.precision) / 2, 2),
            ("errors by row drawn", float(alpha * np.square(left[0] - y @ one).sum()), 2),
        ):
            seen.setdefault(name, []).append(float(stats.chi2.cdf(square, freedom)))
    uniform(worst, seen)
    return worst.checks()


def ranks_of_the_truth(ways: Ways) -> list[Check]:
    """Among draws given ratings that a truth made, the truth has any rank as often (Talts et al. 2018)."""
    worst, runs, warm, kept, apart = Worst(1.0), 60, 8, 7, 2
    ranks: dict[str, list[float]] = {}
    rng = np.random.default_rng(1)
    for run in range(runs):
        truth, alpha = _truth(rng, 4, 3)
        chain = Chain(truth, Config(solver="gibbs", n_factors=1, dtype="float64", burn_in=0, seed=run))
        chain.rate(alpha, rng)
        wanted = _to_rank(chain, truth, alpha)
        below = dict.fromkeys(wanted, 0)
        for sweep in range(1, warm + kept * apart + 1):
            alpha = chain.sweep()
            if sweep > warm and (sweep - warm) % apart == 0:
                for name, value in _to_rank(chain, chain.params, alpha).items():
                    below[name] += value < wanted[name]
        for name, count in below.items():
            # A rank among 0, ..., `kept` and a fraction: uniform, and nothing is rounded.
            ranks.setdefault(name, []).append((count + rng.random()) / (kept + 1))
    uniform(worst, {name: np.array(values) for name, values in ranks.items()})
    return worst.checks()


def mean_of_predictions(ways: Ways) -> list[Check]:
    """The parameters that stand for S draws predict the mean of the draws' predictions (Eq. 70)."""
    worst = Worst(1e-12)
    for label, _, params, _ in _problems():
        rng = np.random.default_rng(5)
        points = [
            params.with_tensors({k: np.array(rng.normal(size=x.shape)) for k, x in params.tensors().items()})
            for _ in range(4)
        ]
        users, items = np.indices(params.shape[:2]).reshape(2, -1)
        mean = np.mean([predict(point, users, items) for point in points], axis=0)
        draws = Draws(tuple(points), (1.0,) * 4)
        worst.see("posterior", "mean", predict(draws.mean(), users, items), mean, label)
    return worst.checks()


def score_of_a_chain(ways: Ways) -> list[Check]:
    """A fit's last validation RMSE is that of the model which it returns, and of the draws it kept (Eq. 70)."""
    from mf_numpy.train import fit

    worst = Worst(1e-9)
    for label, ratings, _, config in _problems():
        held = Holdout(ratings.users[::3], ratings.items[::3], ratings.values[::3])
        result = fit(ratings, replace(config, n_epochs=6), valid=held, backend="loops")
        assert result.state.draws is not None
        each = [predict(point, held.users, held.items) for point in result.state.draws.points]
        rmse = math.sqrt(np.mean((np.mean(each, axis=0) - held.values) ** 2))
        worst.see("loops", "by history", result.history[-1].valid_rmse, rmse, label)
        worst.see("loops", "by parameters", result.score(held).rmse, rmse, label)
    return worst.checks()


def _problems() -> Iterator[Problem]:
    """`problem` for both models, with rows and columns without a rating."""
    for kind in ("plain", "biased"):
        yield kind, *problem(3, size=60, model=kind, solver="gibbs", reg=0.0, burn_in=2)


def uniform(worst: Worst, seen: dict[str, Any], way: str = "gibbs") -> None:
    """Note how far each sample is from uniform, by what `ERROR_RATE` allows all of them together."""
    for name, values in seen.items():
        far = float(stats.kstest(values, "uniform").statistic)
        bound = math.sqrt(math.log(2 * len(seen) / ERROR_RATE) / (2 * len(values)))
        worst.note(way, name, far / bound, f"{len(values)} runs")


def side_of(rng: np.random.Generator, count: int, scale: float = SCALE) -> tuple[Array, Array, Array]:
    """m (2,), a root X (2, 2) of Λ = XᵀX, and rows (count, 2) of one factor and a bias, from the prior (Eq. 63)."""
    # Of D rows XᵀX is Wishart by definition, and X⁻¹ makes what has its inverse for a covariance.
    root = rng.normal(size=(2, 2)) / np.sqrt([scale, scale**2])
    z = rng.normal(size=(count + 1, 2))
    z[0] /= math.sqrt(gibbs.MEAN_WEIGHT)
    center, *away = np.linalg.solve(root, z.T).T
    return center, root, center + np.array(away)


def _size(rows: Array, precision: Array) -> float:
    """Σ xᵀΛx."""
    return float(((rows @ precision) * rows).sum())


def _truth(rng: np.random.Generator, m: int, n: int) -> tuple[Params, float]:
    """Parameters and α, drawn from the prior (Eq. 63)."""
    users, items = side_of(rng, m)[2], side_of(rng, n)[2]
    alpha = rng.standard_gamma(gibbs.SHAPE) / (gibbs.SHAPE * SCALE**2)
    return Params(users[:, :1], items[:, :1], users[:, 1].copy(), items[:, 1].copy(), mu=2.0), float(alpha)


class Chain:
    """A chain on a table in which every pair is rated, begun where the truth is."""

    def __init__(self, truth: Params, config: Config) -> None:
        self.params, self.config = truth, config
        m, n, _ = self.rows(truth).shape
        self.users, self.items = np.indices((m, n)).reshape(2, -1)
        self.values = np.zeros(m * n)
        self.begin(Ratings.of_indices(self.users, self.items, self.values))

    def begin(self, ratings: Ratings) -> None:
        """Make the engine and its first state, at the truth."""
        self.engine: Any = GibbsEngine("loops")
        self.whole = self.engine.load(ratings, self.config)
        self.state: Any = replace(self.engine.start(State(self.params), self.whole, self.config), scale=SCALE)

    def rows(self, params: Params) -> Params:
        """The parameters of users and items."""
        return params

    def rate(self, alpha: float, rng: np.random.Generator) -> None:
        """Ratings anew, given parameters and α."""
        made = self.rows(self.params)
        mean = predict(made, self.users, self.items)
        self.values = mean + rng.normal(size=len(mean)) / math.sqrt(alpha)
        m, n, _ = made.shape
        self.whole.user.values[:] = self.values
        self.whole.item.values[:] = self.values.reshape(m, n).T.ravel()

    def sweep(self) -> float:
        """Parameters and α anew, given the ratings; returns α."""
        self.state = self.engine.next_epoch(self.engine.step(self.state, self.whole, self.config))
        self.params = self.engine.export(self.state).params
        return float(self.state.precision)

    def errors(self, params: Params) -> Array:
        error: Array = self.values - predict(self.rows(params), self.users, self.items)
        return error


def by_prior(chain: Chain, alpha: float) -> dict[str, float]:
    """What is uniform when parameters, α and ratings come from the prior: each number's own distribution function.

    Given Λ a row is normal, and over Λ it is Cauchy: Student's t of as many degrees as Λ's, less D - 1.
    """
    out, error = rows_by_prior(chain.params, SCALE), chain.errors(chain.params)
    out["α"] = float(stats.gamma.cdf(alpha * gibbs.SHAPE * SCALE**2, gibbs.SHAPE))
    out["α Σ (r̂ - r)²"] = float(stats.chi2.cdf(alpha * error @ error, len(error)))
    return out


def rows_by_prior(p: Params, scale: float) -> dict[str, float]:
    """Of `by_prior` what is said of rows."""
    assert p.b is not None and p.c is not None
    wide, narrow = 1 + 1 / gibbs.MEAN_WEIGHT, 2.0
    numbers: dict[str, tuple[Any, float]] = {
        "p": (p.P[0, 0], wide * scale),
        "q": (p.Q[0, 0], wide * scale),
        "b": (p.b[0], wide * scale**2),
        "c": (p.c[0], wide * scale**2),
        "p of two users": (p.P[1, 0] - p.P[2, 0], narrow * scale),
        "b of two users": (p.b[1] - p.b[2], narrow * scale**2),
        "c of two items": (p.c[0] - p.c[1], narrow * scale**2),
    }
    return {name: float(stats.cauchy.cdf(x / math.sqrt(size))) for name, (x, size) in numbers.items()}


def _to_rank(chain: Chain, params: Params, alpha: float) -> dict[str, float]:
    """Numbers whose rank among draws is looked at: what does not depend on the gauge."""
    m, n, _ = params.shape
    whole = predict(params, *np.indices((m, n)).reshape(2, -1))
    error = chain.errors(params)
    return {"α": alpha, "r̂": float(whole[0]), "mean r̂": float(whole.mean()), "Σ (r̂ - r)²": float(error @ error)}
