"""The Gibbs sampler in batched Cholesky factors; the twin of `mf_numpy.gibbs` and of its solver.

Shapes: a side's rows are one table θ (rows, D), factors and then the bias, if there is one. Rows with about as many
ratings form a group, see `mf_torch.gibbs_groups`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mf_numpy import counting
from mf_numpy import gibbs as by_hand
from mf_numpy.config import Config
from mf_numpy.engine import State
from mf_numpy.grades import Cuts
from mf_numpy.kernels import predict
from mf_numpy.metrics import Predictor
from mf_numpy.model import Params
from mf_numpy.posterior import Draws, is_kept, so_far
from mf_numpy.ratings import Array, Ratings
from mf_numpy.solvers.probit import by_item
from mf_torch import probit
from mf_torch.gibbs_groups import Group, groups_of


@dataclass(frozen=True, eq=False)
class BothSides:
    """All N ratings, by user and by item, and σ of them.

    Where ratings are grades the groups are `numbered`, `values` (N,) holds the grades user by user, and σ is 1.
    """

    user: list[Group]
    item: list[Group]
    size: int
    scale: float
    values: Array | None = None

    def __len__(self) -> int:
        return self.size


@dataclass(frozen=True, eq=False)
class GibbsState:
    """A point of the chain on the device.

    Attributes:
        user, item: θ of the sides, (m, D) and (n, D).
        mu: μ.
        biased: whether the last number of a row is a bias.
        epoch: sweeps finished.
        squared_error: Σ (r̂ - r)² before the last sweep, float64.
        n_ratings: N.
        draws: what is kept of the chain so far.
        cuts: cut points, and `at` (N,) which grade each rating is, user by user; None where ratings are numbers.
        objective: of grades the mean of -log P before the last sweep.
    """

    user: Tensor
    item: Tensor
    mu: float
    biased: bool
    epoch: int
    squared_error: Tensor | None = None
    n_ratings: int = 0
    draws: Draws = field(default_factory=Draws)
    cuts: Cuts | None = None
    at: Tensor | None = None
    objective: float | None = None


class GibbsEngine:
    """Blocked Gibbs on one device; `mf_numpy.engine.Engine` says what each method does."""

    backend = "torch"
    predict: Predictor = staticmethod(predict)

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def load(self, train: Ratings, config: Config) -> Any:
        if config.loss == "ordinal":
            return self._graded(train, config)
        mu = train.mean if config.model == "biased" else 0.0
        values = train.values.astype(config.numpy_dtype)

        def groups(own: Array, others: Array, counts: Array) -> list[Group]:
            starts = counting.begins(counts)
            at = counting.order(own, starts)
            return list(groups_of(starts, others[at], (values[at] - mu).astype(values.dtype), self.device))

        return BothSides(
            groups(train.users, train.items, train.user_counts),
            groups(train.items, train.users, train.item_counts),
            len(train),
            by_hand.scale_of(values),
        )

    def _graded(self, train: Ratings, config: Config) -> BothSides:
        user, item, values = numbered_sides(train, config.dtype, self.device)
        return BothSides(user, item, len(train), 1.0, values)

    def start(self, state: State, whole: Any, config: Config) -> GibbsState:
        params = state.params

        def table(factors: Array, bias: Array | None) -> Tensor:
            theta = factors if bias is None else np.column_stack([factors, bias])
            return torch.tensor(theta, device=self.device)

        cuts, at = params.cuts, None
        if cuts is not None:
            at = probit.places(whole.values, cuts, self.device)
        return GibbsState(
            table(params.P, params.b),
            table(params.Q, params.c),
            params.mu,
            params.b is not None,
            state.epoch,
            n_ratings=len(whole),
            draws=so_far(state.draws),
            cuts=cuts,
            at=at,
        )

    def batches(self, whole: Any, epoch: int, config: Config) -> Iterator[Any]:
        yield whole

    def step(self, state: GibbsState, batch: Any, config: Config) -> GibbsState:
        """A sweep: α, or cut points and noise, then all users, then all items."""
        noise = by_hand.noise_of(state.epoch + 1, (len(state.user), len(state.item)), len(batch), config)
        if state.cuts is None:
            squared_error = squares(state.user, state.item, batch.user, state.biased)
            alpha = noise.precision / (by_hand.SHAPE * batch.scale**2 + squared_error / 2)  # Eq. 69
        else:
            scores = probit.scores_of(state.user, state.item, batch.user, len(batch), state.biased)
            state, latent = graded(state, scores, config)
            batch = replace(batch, user=probit.filled(batch.user, latent), item=probit.filled(batch.item, latent))
            assert state.squared_error is not None
            squared_error, alpha = state.squared_error, torch.ones_like(state.squared_error)
        user = draw_side(state.user, state.item, batch.user, alpha, noise.user, batch.scale, config)
        item = draw_side(state.item, user, batch.item, alpha, noise.item, batch.scale, config)
        after = replace(state, user=user, item=item, squared_error=squared_error)
        if is_kept(state.epoch + 1, config):
            after = replace(after, draws=state.draws.with_draw(params_at(after), float(alpha)))
        return after

    def seen(self, state: GibbsState) -> tuple[Tensor, Tensor]:
        assert state.squared_error is not None
        if state.objective is not None:
            return torch.tensor(state.objective, dtype=torch.float64), state.squared_error
        return state.squared_error / state.n_ratings, state.squared_error

    def next_epoch(self, state: GibbsState) -> GibbsState:
        return replace(state, epoch=state.epoch + 1)

    def synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)

    def export(self, state: GibbsState) -> State:
        return State(params_at(state), None, state.epoch, draws=state.draws)


def numbered_sides(train: Ratings, dtype: str, device: str) -> tuple[list[Group], list[Group], Array]:
    """Numbered groups of users and of items, and the ratings (N,) user by user."""
    n, places = len(train), by_item(train)

    def groups(own: Array, others: Array, counts: Array, number: Array) -> list[Group]:
        starts = counting.begins(counts)
        made = list(groups_of(starts, others[counting.order(own, starts)], number.astype(np.int64), device))
        return probit.numbered(made, n, getattr(torch, dtype))

    by_user = counting.order(train.users, counting.begins(train.user_counts))
    return (
        groups(train.users, train.items, train.user_counts, np.arange(n)),
        groups(train.items, train.users, train.item_counts, places),
        train.values[by_user],
    )


def graded(state: GibbsState, scores: Tensor, config: Config) -> tuple[GibbsState, Tensor]:
    """The state with cut points of the next epoch, given the scores (N,), and these with their noise (N + 1,)."""
    assert state.cuts is not None and state.at is not None
    drawn = probit.draw(scores, state.at, state.cuts, state.epoch + 1, config)
    squared_error = torch.tensor(drawn.squared_error, dtype=torch.float64, device=scores.device)
    objective = -drawn.log_chance / state.n_ratings
    return replace(state, cuts=drawn.cuts, squared_error=squared_error, objective=objective), drawn.latent


def given(theta: Tensor, group: Group, biased: bool) -> tuple[Tensor, Tensor]:
    """The other side's rows at each rating (R, L, D), 1 in the place of a bias, and what they leave to say (R, L)."""
    y, left = theta[group.others], group.left
    if biased:
        left = left - y[..., -1]
        y[..., -1] = 1
    return y * group.weight[..., None], left * group.weight


def squares(user: Tensor, item: Tensor, groups: list[Group], biased: bool) -> Tensor:
    """Σ (r̂ - r)², float64."""
    total = torch.zeros((), dtype=torch.float64, device=user.device)
    for group in groups:
        y, left = given(item, group, biased)
        error = torch.bmm(y, user[group.rows][..., None])[..., 0] - left
        total += error.double().square().sum()
    return total


def prior_of(theta: Tensor, scale: float, noise: by_hand.SideNoise, config: Config) -> tuple[Tensor, Tensor]:
    """m (D,) and Λ (D, D) given the rows of a side, float64 (Eq. 67, 68)."""
    wide, device = theta.double(), theta.device
    sure = by_hand.MEAN_WEIGHT + len(theta)
    center = wide.sum(dim=0) / sure
    begin = [scale] * config.n_factors + [scale**2] * (config.model == "biased")
    units = torch.tensor(begin, dtype=torch.float64, device=device)
    spread = torch.diag(units) + wide.T @ wide - sure * torch.outer(center, center)  # Eq. 67
    # Where that fails, numbers that are none follow, which the training loop reports.
    root, _ = torch.linalg.cholesky_ex(spread)
    drawn, z = (torch.tensor(x, device=device) for x in (noise.wishart, noise.mean))
    half = torch.linalg.solve_triangular(root.mT, drawn, upper=True)
    along = torch.linalg.solve_triangular(drawn.mT, z[:, None], upper=True)[:, 0]
    return center + root @ along / sure**0.5, half @ half.mT  # Eq. 68


def draw_side(
    theta: Tensor,
    other: Tensor,
    groups: list[Group],
    alpha: Tensor,
    noise: by_hand.SideNoise,
    scale: float,
    config: Config,
) -> Tensor:
    """All rows of a side, drawn given the other side's (Eq. 64, 66); (rows, D)."""
    mean, precision = prior_of(theta, scale, noise, config)
    out, dtype = torch.empty_like(theta), theta.dtype
    # In units of the ratings' noise a rating weighs 1, as by hand.
    weight = (precision / alpha).to(dtype)
    pull, z = (precision @ mean / alpha).to(dtype), torch.tensor(noise.rows, device=theta.device)
    z = (z / alpha.sqrt()).to(dtype)
    for group in groups:
        y, left = given(other, group, config.model == "biased")
        A = torch.baddbmm(weight.expand(len(y), -1, -1), y.mT, y)  # Eq. 64
        h = pull[:, None] + torch.bmm(y.mT, left[..., None])  # Eq. 64
        root, failed = torch.linalg.cholesky_ex(A)
        along = torch.linalg.solve_triangular(root, h, upper=False) + z[group.rows][..., None]
        drawn = torch.linalg.solve_triangular(root.mT, along, upper=True)[..., 0]  # Eq. 66
        out[group.rows] = torch.where(failed[:, None] == 0, drawn, torch.nan)
    return out


def params_at(state: GibbsState) -> Params:
    """The tables of both sides as parameters on the host."""
    user, item = (theta.cpu().numpy() for theta in (state.user, state.item))
    n_factors = user.shape[1] - state.biased
    P, Q = user[:, :n_factors].copy(), item[:, :n_factors].copy()
    if not state.biased:
        return Params(P, Q, mu=state.mu, cuts=state.cuts)
    return Params(P, Q, user[:, n_factors].copy(), item[:, n_factors].copy(), state.mu, state.cuts)
