"""The Gibbs sampler in batched Cholesky factors; the twin of `mf_numpy.gibbs` and of its solver.

Shapes: a side's rows are one table θ (rows, D), factors and then the bias, if there is one. Rows with about as many
ratings form a group: R rows of at most L ratings, filled up to L by ratings that weigh nothing.
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
from mf_numpy.kernels import predict
from mf_numpy.metrics import Predictor
from mf_numpy.model import Params
from mf_numpy.posterior import Draws, is_kept, so_far
from mf_numpy.ratings import Array, Ratings

CELLS = 1 << 22
"""Ratings of a group at most, fill included."""

FILL = 1.25
"""Ratings of a group at most, fill included, for each that it has."""


@dataclass(frozen=True, eq=False)
class Group:
    """R rows and their ratings.

    Attributes:
        rows: (R,).
        others: (R, L), the row of the other side.
        left: (R, L), r - μ.
        weight: (R, L), 1, or 0 for what fills up.
    """

    rows: Tensor
    others: Tensor
    left: Tensor
    weight: Tensor


@dataclass(frozen=True, eq=False)
class BothSides:
    """All N ratings, by user and by item, and σ of them."""

    user: list[Group]
    item: list[Group]
    size: int
    scale: float

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
    """

    user: Tensor
    item: Tensor
    mu: float
    biased: bool
    epoch: int
    squared_error: Tensor | None = None
    n_ratings: int = 0
    draws: Draws = field(default_factory=Draws)


class GibbsEngine:
    """Blocked Gibbs on one device; `mf_numpy.engine.Engine` says what each method does."""

    backend = "torch"
    predict: Predictor = staticmethod(predict)

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def load(self, train: Ratings, config: Config) -> Any:
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

    def start(self, state: State, whole: Any, config: Config) -> GibbsState:
        params = state.params

        def table(factors: Array, bias: Array | None) -> Tensor:
            theta = factors if bias is None else np.column_stack([factors, bias])
            return torch.tensor(theta, device=self.device)

        return GibbsState(
            table(params.P, params.b),
            table(params.Q, params.c),
            params.mu,
            params.b is not None,
            state.epoch,
            n_ratings=len(whole),
            draws=so_far(state.draws),
        )

    def batches(self, whole: Any, epoch: int, config: Config) -> Iterator[Any]:
        yield whole

    def step(self, state: GibbsState, batch: Any, config: Config) -> GibbsState:
        """A sweep: α, all users, then all items."""
        noise = by_hand.noise_of(state.epoch + 1, (len(state.user), len(state.item)), len(batch), config)
        squared_error = squares(state.user, state.item, batch.user, state.biased)
        alpha = noise.precision / (by_hand.SHAPE * batch.scale**2 + squared_error / 2)  # Eq. 66
        user = draw_side(state.user, state.item, batch.user, alpha, noise.user, batch.scale, config)
        item = draw_side(state.item, user, batch.item, alpha, noise.item, batch.scale, config)
        after = replace(state, user=user, item=item, squared_error=squared_error)
        if is_kept(state.epoch + 1, config):
            after = replace(after, draws=state.draws.with_draw(params_at(after), float(alpha)))
        return after

    def seen(self, state: GibbsState) -> tuple[Tensor, Tensor]:
        assert state.squared_error is not None
        return state.squared_error / state.n_ratings, state.squared_error

    def next_epoch(self, state: GibbsState) -> GibbsState:
        return replace(state, epoch=state.epoch + 1)

    def synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)

    def export(self, state: GibbsState) -> State:
        return State(params_at(state), None, state.epoch, draws=state.draws)


def groups_of(starts: Array, others: Array, left: Array, device: str) -> Iterator[Group]:
    """Groups of rows, in the order of their lengths."""
    lengths = np.diff(starts)
    order = np.argsort(lengths, kind="stable")
    begin = 0
    while begin < len(order):
        end, taken = begin, 0
        while end < len(order):
            longest = int(lengths[order[end]])
            filled = longest * (end + 1 - begin)
            if end > begin and (filled > CELLS or filled > FILL * (taken + longest) + 64):
                break
            taken, end = taken + longest, end + 1
        rows = order[begin:end]
        places = np.arange(int(lengths[rows[-1]]))
        there = places < lengths[rows][:, None]
        at = np.where(there, starts[rows][:, None] + places, 0)
        yield Group(
            torch.tensor(rows, device=device),
            torch.tensor(others[at].astype(np.int64), device=device),
            torch.tensor(left[at], device=device),
            torch.tensor(there.astype(left.dtype), device=device),
        )
        begin = end


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
    """m (D,) and Λ (D, D) given the rows of a side, float64 (Eq. 64, 65)."""
    wide, device = theta.double(), theta.device
    sure = by_hand.MEAN_WEIGHT + len(theta)
    center = wide.sum(dim=0) / sure
    begin = [scale] * config.n_factors + [scale**2] * (config.model == "biased")
    units = torch.tensor(begin, dtype=torch.float64, device=device)
    spread = torch.diag(units) + wide.T @ wide - sure * torch.outer(center, center)  # Eq. 64
    # Where that fails, numbers that are none follow, which the training loop reports.
    root, _ = torch.linalg.cholesky_ex(spread)
    drawn, z = (torch.tensor(x, device=device) for x in (noise.wishart, noise.mean))
    half = torch.linalg.solve_triangular(root.mT, drawn, upper=True)
    along = torch.linalg.solve_triangular(drawn.mT, z[:, None], upper=True)[:, 0]
    return center + root @ along / sure**0.5, half @ half.mT  # Eq. 65


def draw_side(
    theta: Tensor,
    other: Tensor,
    groups: list[Group],
    alpha: Tensor,
    noise: by_hand.SideNoise,
    scale: float,
    config: Config,
) -> Tensor:
    """All rows of a side, drawn given the other side's (Eq. 61, 63); (rows, D)."""
    mean, precision = prior_of(theta, scale, noise, config)
    out, dtype = torch.empty_like(theta), theta.dtype
    # In units of the ratings' noise a rating weighs 1, as by hand.
    weight = (precision / alpha).to(dtype)
    pull, z = (precision @ mean / alpha).to(dtype), torch.tensor(noise.rows, device=theta.device)
    z = (z / alpha.sqrt()).to(dtype)
    for group in groups:
        y, left = given(other, group, config.model == "biased")
        A = torch.baddbmm(weight.expand(len(y), -1, -1), y.mT, y)  # Eq. 61
        h = pull[:, None] + torch.bmm(y.mT, left[..., None])  # Eq. 61
        root, failed = torch.linalg.cholesky_ex(A)
        along = torch.linalg.solve_triangular(root, h, upper=False) + z[group.rows][..., None]
        drawn = torch.linalg.solve_triangular(root.mT, along, upper=True)[..., 0]  # Eq. 63
        out[group.rows] = torch.where(failed[:, None] == 0, drawn, torch.nan)
    return out


def params_at(state: GibbsState) -> Params:
    """The tables of both sides as parameters on the host."""
    user, item = (theta.cpu().numpy() for theta in (state.user, state.item))
    n_factors = user.shape[1] - state.biased
    P, Q = user[:, :n_factors].copy(), item[:, :n_factors].copy()
    if not state.biased:
        return Params(P, Q, mu=state.mu)
    return Params(P, Q, user[:, n_factors].copy(), item[:, n_factors].copy(), mu=state.mu)
