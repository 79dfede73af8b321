"""J and ∇J by Triton: one program for each piece of a row, and one that finishes each row. Needs Triton.

A program gathers TILE rows of the other side at a time, LANES numbers each; what is beyond K or beyond the piece is 0.
Nothing is added by two programs, so that bits are the same from run to run; losses add up in float64.

Symbols: E (B,) in the users' order; LANES, K rounded up to a power of 2.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc, no-untyped-call, unused-ignore"
from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mf_torch.paths import rows

_AT_ONCE = 2048
"""Numbers of a tile: enough loads under way, and few enough for the registers of four warps."""


@triton.jit
def users_kernel(
    indptr, items, first, row_of, values, P, Q, b, c, mu, numbers, e, parts, bias_parts, losses, squares,
    K: tl.constexpr, PIECE: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr,
    BIASED: tl.constexpr, LOSS: tl.constexpr,
):  # fmt: skip
    """Predict a piece of a user's ratings (Eq. 1), keep E (Eq. 3), and add up its rows of E Q and E 1 (Eq. 4)."""
    piece = tl.program_id(0)
    row = tl.load(row_of + piece)
    begin = tl.load(indptr + row) + (piece - tl.load(first + row)) * PIECE
    end = tl.minimum(begin + PIECE, tl.load(indptr + row + 1))
    lane = tl.arange(0, LANES)
    real = lane < K
    p = tl.load(P + row.to(tl.int64) * K + lane, mask=real, other=0.0).to(values.dtype.element_ty)
    base = tl.load(mu).to(p.dtype)
    delta = tl.load(numbers + 2).to(p.dtype)
    if BIASED:
        base += tl.load(b + row)
    pull = tl.zeros((TILE, LANES), p.dtype)
    bias_pull = tl.zeros((TILE,), p.dtype)
    loss = tl.zeros((TILE,), tl.float64)
    square = tl.zeros((TILE,), tl.float64)
    for at in range(begin, end, TILE):
        k = at + tl.arange(0, TILE)
        here = k < end
        item = tl.load(items + k, mask=here, other=0).to(tl.int64)
        q = tl.load(Q + item[:, None] * K + lane[None, :], mask=here[:, None] & real[None, :], other=0.0).to(p.dtype)
        value = tl.load(values + k, mask=here, other=0.0)
        predicted = base + tl.sum(q * p[None, :], axis=1)  # Eq. 1
        if BIASED:
            predicted += tl.load(c + item, mask=here, other=0.0)
        error = predicted - value
        error = tl.where(here, error, 0.0)
        slope = 2 * error  # Eq. 3
        if LOSS == "pseudo_huber":
            z = error / delta
            root = tl.sqrt(1 + z * z)
            wide = error.to(tl.float64)
            loss += 2 * wide * wide / (1 + root.to(tl.float64))  # Eq. 17
            slope = 2 * error / root  # Eq. 17
        if LOSS == "all_pairs":
            error = tl.where(here, predicted - 1, 0.0)
            sure = delta * value
            each = (sure * error).to(tl.float64) * error.to(tl.float64) + 1 - 2 * predicted.to(tl.float64)  # Eq. 46
            loss += tl.where(here, each, 0.0)
            slope = tl.where(here, 2 * sure * error - 2, 0.0)  # Eq. 46
        if LOSS == "logistic":
            sign = 1 - 2 * value
            away = sign * predicted
            small = tl.exp(-tl.abs(away))
            each = tl.maximum(away, 0.0).to(tl.float64) + tl.log(1 + small.to(tl.float64))  # Eq. 42
            loss += tl.where(here, each, 0.0)
            slope = tl.where(here, sign * tl.where(away > 0, 1.0, small) / (1 + small), 0.0)  # Eq. 42
            error = slope
        if LOSS == "poisson":
            rate = tl.exp(predicted)
            each = rate.to(tl.float64) - value.to(tl.float64) * predicted.to(tl.float64)  # Eq. 43
            loss += tl.where(here, each, 0.0)
            slope = tl.where(here, rate - value, 0.0)  # Eq. 43
            error = slope
        square += error.to(tl.float64) * error.to(tl.float64)
        tl.store(e + k, slope, mask=here)
        pull += slope[:, None] * q  # Eq. 4
        bias_pull += slope
    tl.store(parts + piece.to(tl.int64) * K + lane, tl.sum(pull, axis=0), mask=real)
    if BIASED:
        tl.store(bias_parts + piece, tl.sum(bias_pull, axis=0))
    tl.store(squares + piece, tl.sum(square, axis=0))
    if LOSS != "squared":
        tl.store(losses + piece, tl.sum(loss, axis=0))


@triton.jit
def items_kernel(
    indptr, users, first, row_of, order, P, e, parts, bias_parts,
    K: tl.constexpr, PIECE: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Add up a piece of an item's row of Eᵀ P and Eᵀ 1 (Eq. 4)."""
    piece = tl.program_id(0)
    row = tl.load(row_of + piece)
    begin = tl.load(indptr + row) + (piece - tl.load(first + row)) * PIECE
    end = tl.minimum(begin + PIECE, tl.load(indptr + row + 1))
    lane = tl.arange(0, LANES)
    real = lane < K
    pull = tl.zeros((TILE, LANES), e.dtype.element_ty)
    bias_pull = tl.zeros((TILE,), e.dtype.element_ty)
    for at in range(begin, end, TILE):
        k = at + tl.arange(0, TILE)
        here = k < end
        user = tl.load(users + k, mask=here, other=0).to(tl.int64)
        slope = tl.load(e + tl.load(order + k, mask=here, other=0), mask=here, other=0.0)
        p = tl.load(P + user[:, None] * K + lane[None, :], mask=here[:, None] & real[None, :], other=0.0)
        pull += slope[:, None] * p.to(slope.dtype)  # Eq. 4
        bias_pull += slope
    tl.store(parts + piece.to(tl.int64) * K + lane, tl.sum(pull, axis=0), mask=real)
    if BIASED:
        tl.store(bias_parts + piece, tl.sum(bias_pull, axis=0))


@triton.jit
def finish_kernel(
    indptr, first, parts, bias_parts, theta, bias, numbers, grad, bias_grad, norms,
    K: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr, BIASED: tl.constexpr, PER_RATING: tl.constexpr,
):  # fmt: skip
    """∇ = share · sums + 2λ w θ of a row (Eq. 6), its pieces first to last; norms[row] = w |θ_row|² (Eq. 2)."""
    row = tl.program_id(0)
    lane = tl.arange(0, LANES)
    real = lane < K
    at_row = row.to(tl.int64) * K + lane
    x = tl.load(theta + at_row, mask=real, other=0.0).to(parts.dtype.element_ty)
    total = tl.zeros((TILE, LANES), x.dtype)
    bias_total = tl.zeros((TILE,), x.dtype)
    begin, end = tl.load(first + row), tl.load(first + row + 1)
    for at in range(begin, end, TILE):
        piece = at + tl.arange(0, TILE)
        here = piece < end
        place = piece.to(tl.int64)[:, None] * K + lane[None, :]
        total += tl.load(parts + place, mask=here[:, None] & real[None, :], other=0.0)
        if BIASED:
            bias_total += tl.load(bias_parts + piece, mask=here, other=0.0)
    share = tl.load(numbers)
    pull = tl.load(numbers + 1)
    weight = share * 0 + 1
    if PER_RATING:
        weight = (tl.load(indptr + row + 1) - tl.load(indptr + row)).to(tl.float64) * share  # Eq. 8
    scale, pull = share.to(x.dtype), (pull * weight).to(x.dtype)
    tl.store(grad + at_row, scale * tl.sum(total, axis=0) + pull * x, mask=real)  # Eq. 6
    wide = x.to(tl.float64)
    norm = tl.sum(wide * wide, axis=0)
    if BIASED:
        y = tl.load(bias + row)
        tl.store(bias_grad + row, scale * tl.sum(bias_total, axis=0) + pull * y)  # Eq. 6
        norm += y.to(tl.float64) * y.to(tl.float64)
    tl.store(norms + row, norm * weight)


def gradient(
    P: Tensor,
    Q: Tensor,
    b: Tensor | None,
    c: Tensor | None,
    mu: Tensor,
    layout: Sequence[Tensor],
    reg: float,
    penalty: str,
    loss: str,
    loss_scale: float,
    grads: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """J (Eq. 2) and Σ (r̂ - r)², both float64 on the device; ∇J (Eq. 6) is left in `grads`, one a parameter.

    Args:
        P, Q, b, c: contiguous, as are `grads`. P and Q may be of 16 bits; all else is in the ratings' dtype.
        layout: of `mf_torch.paths.rows`.
    """
    with torch.cuda.device(P.device) if P.is_cuda else nullcontext():
        return _gradient(P, Q, b, c, mu, list(layout), reg, penalty, loss, loss_scale, grads)


def _gradient(
    P: Tensor, Q: Tensor, b: Tensor | None, c: Tensor | None, mu: Tensor, layout: list[Tensor],
    reg: float, penalty: str, loss: str, loss_scale: float, grads: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    users, items, values, order = rows.from_tensors(layout)
    n_ratings, n_factors = len(values), P.shape[1]
    share = 1 / n_ratings
    numbers = P.new_empty(3, dtype=torch.float64)
    # A number that Triton is given is rounded to float32; these are filled in by the device, as CUDA graphs ask for.
    for at, number in enumerate((share, 2 * reg, loss_scale)):
        numbers[at].fill_(number)
    lanes = max(16, triton.next_power_of_2(n_factors))
    shape: dict[str, Any] = {"K": n_factors, "LANES": lanes, "BIASED": b is not None}
    # Triton's own default for products that run into sums changes between versions, and it says so.
    shape["enable_fp_fusion"] = True
    tile = {"TILE": max(1, min(32, _AT_ONCE // lanes)), "PIECE": rows.PIECE}
    e = torch.empty_like(values)
    sums = P.new_zeros((2, len(users.row)), dtype=torch.float64)
    parts, bias_parts = _room(values, len(users.row), n_factors)
    users_kernel[len(users.row),](
        users.indptr, users.others, users.first, users.row, values, P, Q, b, c, mu, numbers, e, parts, bias_parts,
        sums[0], sums[1], **shape, **tile, LOSS=loss,
    )  # fmt: skip
    item_parts, item_bias_parts = _room(values, len(items.row), n_factors)
    items_kernel[len(items.row),](
        items.indptr, items.others, items.first, items.row, order, P, e, item_parts, item_bias_parts, **shape, **tile
    )
    norms = P.new_empty(len(P) + len(Q), dtype=torch.float64)
    for pieces, sums_of, theta, bias, of_theta, of_bias, norm in (
        (users, (parts, bias_parts), P, b, grads[0], grads[2:3], norms[: len(P)]),
        (items, (item_parts, item_bias_parts), Q, c, grads[1], grads[3:4], norms[len(P) :]),
    ):
        finish_kernel[len(theta),](
            pieces.indptr, pieces.first, *sums_of, theta, bias, numbers, of_theta, *(of_bias or (None,)), norm,
            **shape, TILE=min(8, tile["TILE"]), PER_RATING=penalty == "per_rating", num_warps=1,
        )  # fmt: skip
    cost, squared_error = sums.sum(dim=1)
    cost = squared_error if loss == "squared" else cost
    if loss == "all_pairs":
        p, q = P.to(values.dtype), Q.to(values.dtype)
        of_p, of_q = q.T @ q, p.T @ p
        grads[0].add_(p @ of_p, alpha=2 * share)  # Eq. 47
        grads[1].add_(q @ of_q, alpha=2 * share)  # Eq. 47
        cost = cost + (of_p * of_q).sum(dtype=torch.float64)  # Eq. 46
    return cost * share + reg * norms.sum(), squared_error.clone()


def _room(values: Tensor, n_pieces: int, n_factors: int) -> tuple[Tensor, Tensor]:
    """Where sums of pieces lie, in the dtype of the ratings, which factors of 16 bits do not have."""
    return values.new_empty(n_pieces, n_factors), values.new_empty(n_pieces)
