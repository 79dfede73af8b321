"""The Gibbs sampler over features in batched Cholesky factors; the twin of `mf_numpy.solvers.design_gibbs`.

Shapes: a side's features are one table (features, D), factors and then the bias, if there is one; its rows' sums are
G (rows, D, D) and g (rows, D). Sums and draws are float64, whatever the parameters are kept in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mf_numpy import counting
from mf_numpy import gibbs as by_hand
from mf_numpy.config import Config
from mf_numpy.design import Design, Side
from mf_numpy.engine import OfFeatures
from mf_numpy.posterior import is_kept
from mf_numpy.ratings import Array, Ratings
from mf_numpy.solvers.design_gibbs import check_room, exclusive
from mf_torch.design import sparse
from mf_torch.gibbs import GibbsEngine, GibbsState, given, graded, numbered_sides, params_at, prior_of
from mf_torch.gibbs_groups import Group, groups_of
from mf_torch.probit import filled, scores_of


@dataclass(frozen=True, eq=False)
class Block:
    """Features of one side that are alike before any rating is seen.

    Attributes:
        at: where they are among the features of the side.
        feature, row, amount: (E,) each, which feature which row has, and how much of it, feature by feature.
        begins: where the E of each feature begin, (features + 1,), or None where no row has two of the features.
    """

    at: slice
    feature: Tensor
    row: Tensor
    amount: Tensor
    begins: list[int] | None


@dataclass(frozen=True, eq=False)
class Half:
    """One side: its rows with their ratings in groups, what the rows are made of (sparse), and the blocks of that."""

    groups: list[Group]
    made_of: Tensor
    blocks: list[Block]


@dataclass(frozen=True, eq=False)
class BothSides:
    """All N ratings, by user and by item, and σ of them; of grades as `mf_torch.gibbs.BothSides`."""

    user: Half
    item: Half
    size: int
    scale: float
    values: Array | None = None

    def __len__(self) -> int:
        return self.size


class DesignGibbsEngine(OfFeatures, GibbsEngine):
    """Gibbs over features on one device, whose rows are θ of a state; `mf_numpy.engine.Engine` says the rest."""

    def __init__(self, design: Design, device: str = "cpu") -> None:
        super().__init__(device)
        self.design = design

    def load(self, train: Ratings, config: Config) -> BothSides:
        self.design.check(train)
        check_room(self.design, config)
        if config.loss == "ordinal":
            users, items, grades = numbered_sides(train, "float64", self.device)
            both = (self._half(users, self.design.users), self._half(items, self.design.items))
            return BothSides(*both, len(train), 1.0, grades)
        mu = train.mean if config.model == "biased" else 0.0
        values = train.values.astype(np.float64)

        def half(own: Array, others: Array, counts: Array, made_of: Side) -> Half:
            starts = counting.begins(counts)
            at = counting.order(own, starts)
            return self._half(list(groups_of(starts, others[at], values[at] - mu, self.device)), made_of)

        return BothSides(
            half(train.users, train.items, train.user_counts, self.design.users),
            half(train.items, train.users, train.item_counts, self.design.items),
            len(train),
            by_hand.scale_of(values),
        )

    def _half(self, groups: list[Group], made_of: Side) -> Half:
        return Half(groups, sparse(made_of, torch.float64, self.device), list(_blocks(made_of, self.device)))

    def step(self, state: GibbsState, batch: BothSides, config: Config) -> GibbsState:
        """A sweep: α, or cut points and noise, then all features of the users, then all of the items."""
        sizes = self.design.users.blocks, self.design.items.blocks
        noise = by_hand.noise_of_features(state.epoch + 1, sizes, len(batch), config)
        items = batch.item.made_of @ state.item.double()  # Eq. 33
        users = batch.user.made_of @ state.user.double()  # Eq. 33
        if state.cuts is not None:
            scores = scores_of(users, items, batch.user.groups, len(batch), state.biased)
            state, latent = graded(state, scores, config)
            of_users, of_items = (replace(x, groups=filled(x.groups, latent)) for x in (batch.user, batch.item))
            batch = replace(batch, user=of_users, item=of_items)
        normal, left, squared_error = sums(batch.user, users, items, state.biased)
        alpha = noise.precision / (by_hand.SHAPE * batch.scale**2 + squared_error / 2)  # Eq. 69
        if state.cuts is not None:
            assert state.squared_error is not None
            squared_error, alpha = state.squared_error, torch.ones_like(alpha)
        user = draw_side(state.user, batch.user.blocks, normal, left, alpha, noise.user, batch.scale, config)
        users = batch.user.made_of @ user.double()  # Eq. 33
        normal, left, _ = sums(batch.item, items, users, state.biased)
        item = draw_side(state.item, batch.item.blocks, normal, left, alpha, noise.item, batch.scale, config)
        after = replace(state, user=user, item=item, squared_error=squared_error)
        if is_kept(state.epoch + 1, config):
            after = replace(after, draws=state.draws.with_draw(params_at(after), float(alpha)))
        return after


def _blocks(made_of: Side, device: str) -> Iterator[Block]:
    for at, apart in exclusive(made_of):
        part = made_of.transposed[at]
        indptr = np.asarray(part.indptr, np.int64)
        features = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        feature, row = (torch.as_tensor(x.astype(np.int64), device=device) for x in (features, part.indices))
        yield Block(at, feature, row, torch.tensor(part.data, device=device), None if apart else indptr.tolist())


def sums(half: Half, own: Tensor, others: Tensor, biased: bool) -> tuple[Tensor, Tensor, Tensor]:
    """G (rows, D, D) and g (rows, D) of a side's rows, and Σ (r̂ - r)²."""
    rows, width = own.shape
    normal, left = own.new_zeros((rows, width, width)), own.new_zeros((rows, width))
    total = own.new_zeros(())
    for group in half.groups:
        y, told = given(others, group, biased)
        error = told - torch.bmm(y, own[group.rows][..., None])[..., 0]
        normal[group.rows] = torch.bmm(y.mT, y)
        left[group.rows] = torch.bmm(y.mT, error[..., None])[..., 0]
        total += error.square().sum()
    return normal, left, total


def draw_side(
    table: Tensor,
    blocks: list[Block],
    normal: Tensor,
    left: Tensor,
    alpha: Tensor,
    noise: tuple[by_hand.SideNoise, ...],
    scale: float,
    config: Config,
) -> Tensor:
    """All features of a side, drawn block by block (Eq. 66, 73); (features, D). `left` follows them (Eq. 74)."""
    out = table.double()
    for block, drawn in zip(blocks, noise, strict=True):
        mean, precision = prior_of(out[block.at], scale, drawn, config)
        pull, z = precision @ mean, torch.tensor(drawn.rows, device=table.device)
        own = out[block.at]
        if block.begins is None:
            # No row has two of them: all are drawn at once.
            count, width = own.shape
            G, x = normal[block.row], block.amount[:, None]
            bend = own.new_zeros((count, width, width)).index_add_(0, block.feature, x[..., None] ** 2 * G)  # Eq. 73
            told = own.new_zeros((count, width)).index_add_(0, block.feature, x * left[block.row])  # Eq. 73
            step = _draw(own, bend, told, precision, pull, z, alpha)
            own += step
            left[block.row] -= x * torch.bmm(G, step[block.feature][..., None])[..., 0]  # Eq. 74
            continue
        for j, (begin, end) in enumerate(zip(block.begins[:-1], block.begins[1:], strict=True)):
            rows, x = block.row[begin:end], block.amount[begin:end]
            G = normal[rows]
            bend, told = torch.tensordot(x.square(), G, dims=1), x @ left[rows]  # Eq. 73
            step = _draw(own[j : j + 1], bend[None], told[None], precision, pull, z[j : j + 1], alpha)[0]
            own[j] += step
            left[rows] -= x[:, None] * (G @ step)  # Eq. 74
    return out.to(table.dtype)


def _draw(own: Tensor, bend: Tensor, told: Tensor, precision: Tensor, pull: Tensor, z: Tensor, alpha: Tensor) -> Tensor:
    """By how much features (F, D) that do not meet move when they are drawn (Eq. 66, 73)."""
    h = pull + alpha * (told + torch.bmm(bend, own[..., None])[..., 0])  # Eq. 73
    root, failed = torch.linalg.cholesky_ex(precision + alpha * bend)  # Eq. 73
    along = torch.linalg.solve_triangular(root, h[..., None], upper=False) + z[..., None]
    drawn = torch.linalg.solve_triangular(root.mT, along, upper=True)[..., 0]  # Eq. 66
    return torch.where(failed[:, None] == 0, drawn - own, torch.nan)
