"""Eq. 33 to 35 in parallel: the twin of `mf_numpy.design`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import prange

from mf_numpy.batch import Batch
from mf_numpy.config import Config
from mf_numpy.design import Design, without_penalty
from mf_numpy.kernels.compiling import jit, per_form
from mf_numpy.kernels.gradients import Workspace, _finish_kernel, columns, gradient, workspace
from mf_numpy.kernels.layout import CHUNKS, Blocks
from mf_numpy.kernels.vector import LOOPS, add, aligned_empty, form, load, store
from mf_numpy.model import Params, Tensors
from mf_numpy.objective import Evaluation
from mf_numpy.ratings import Array

MOST_IN_PAIRS = 64
"""Largest K whose sums are kept twice."""


@per_form
def product_kernel(form: int) -> Any:
    """The kernel of a sparse matrix times a table (features, K) and a bias: each row by one thread, in order."""
    # A sum of few registers waits for itself; two take turns.
    in_pairs = form != LOOPS and (form & 0xFFF) <= MOST_IN_PAIRS
    two = np.uint64(2)

    @jit
    def kernel(bounds, indptr, indices, data, table, bias, biased, one, out, out_bias):  # type: ignore[no-untyped-def]
        for chunk in prange(len(bounds) - 1):
            for row in range(bounds[chunk], bounds[chunk + 1]):
                for f in range(out.shape[1]):
                    out[row, f] = 0
                total, total_b = load(out, np.uint64(row), form), one - one
                # Unsigned places need no check for negative ones.
                first, last = np.uint64(indptr[row]), np.uint64(indptr[row + 1])
                if in_pairs:
                    other, other_b = total, total_b
                    paired = last - (last - first) % two
                    for k in range(first, paired, two):
                        at, beside = np.uint64(indices[k]), np.uint64(indices[k + np.uint64(1)])
                        total = add(total, data[k], load(table, at, form))  # Eq. 33, Eq. 34
                        other = add(other, data[k + np.uint64(1)], load(table, beside, form))
                        if biased:
                            total_b += data[k] * bias[at]  # Eq. 33, Eq. 34
                            other_b += data[k + np.uint64(1)] * bias[beside]
                    total, total_b, first = add(total, one, other), total_b + other_b, paired
                for k in range(first, last):
                    at = np.uint64(indices[k])
                    total = add(total, data[k], load(table, at, form))  # Eq. 33, Eq. 34
                    if biased:
                        total_b += data[k] * bias[at]  # Eq. 33, Eq. 34
                store(out, np.uint64(row), total)
                if biased:
                    out_bias[row] = total_b

    return kernel


@dataclass(frozen=True, eq=False)
class Product:
    """A sparse matrix in the precision of the parameters, cut into chunks of rows with about as many numbers each."""

    indptr: Array
    indices: Array
    data: Array
    bounds: Array

    @classmethod
    def of(cls, matrix: sp.csr_array, dtype: Any) -> Product:
        """Lay a matrix out."""
        rows = int(matrix.shape[0])
        # A row costs something, too, however empty it is.
        begins = np.asarray(matrix.indptr, np.int64) + np.arange(rows + 1)
        goals = np.arange(CHUNKS + 1) * begins[-1] // CHUNKS
        bounds = np.maximum.accumulate(np.searchsorted(begins, goals))
        bounds[-1] = rows
        # What is read once an iteration is best small: the tables of parameters stay near.
        narrow = np.uint16 if matrix.shape[1] <= 1 << 16 else np.uint32
        return cls(matrix.indptr, matrix.indices.astype(narrow), matrix.data.astype(dtype), bounds)

    def times(self, table: Array, bias: Array | None, out: Array, out_bias: Array | None) -> None:
        """Write the product with (features, K) and (features,) to (rows, K) and (rows,)."""
        none = np.empty(0, table.dtype)
        biased = bias is not None and out_bias is not None
        product_kernel(form(table.shape[1]))(
            self.bounds, self.indptr, self.indices, self.data, table, bias if biased else none, biased,
            table.dtype.type(1), out, out_bias if biased else none,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class DesignRoom:
    """Arrays that every iteration reuses.

    Attributes:
        rows: the parameters of the rows.
        inner: room for their gradient.
        gradient: of the features, one array a parameter.
        norms: float64, weight |θ|² of each feature.
        users, items: X and Y; `of_users` and `of_items` are their transposes. None where rows are features.
    """

    rows: Params
    inner: Workspace
    gradient: Tensors
    norms: Tensors
    users: Product | None
    items: Product | None
    of_users: Product | None
    of_items: Product | None


def design_room(theta: Params, batch: Batch | Blocks, design: Design) -> DesignRoom:
    """Room for `gradient_of_features` over batches of this shape."""
    dtype, n_factors = theta.P.dtype, theta.shape[2]
    (m, n), biased = design.shape, theta.b is not None
    rows = Params(
        aligned_empty((m, n_factors), dtype),
        aligned_empty((n, n_factors), dtype),
        np.empty(m, dtype) if biased else None,
        np.empty(n, dtype) if biased else None,
        theta.mu,
    )
    sizes = {name: value.shape for name, value in theta.tensors().items()}
    sides = design.users, design.items
    return DesignRoom(
        rows,
        workspace(rows, batch),
        {name: aligned_empty(shape, dtype) for name, shape in sizes.items()},
        {name: np.empty(shape[0]) for name, shape in sizes.items()},
        *(None if side.is_identity else Product.of(side.matrix, dtype) for side in sides),
        *(None if side.is_identity else Product.of(side.transposed, dtype) for side in sides),
    )


def rows_of_features(theta: Params, room: DesignRoom) -> Params:
    """The parameters of the rows (Eq. 33): the features' own where rows are features, else in the room's arrays."""
    rows = room.rows
    p, b, q, c = theta.P, theta.b, theta.Q, theta.c
    if room.users is not None:
        room.users.times(theta.P, theta.b, rows.P, rows.b)
        p, b = rows.P, rows.b
    if room.items is not None:
        room.items.times(theta.Q, theta.c, rows.Q, rows.c)
        q, c = rows.Q, rows.c
    return Params(p, q, b, c, theta.mu)


def gradient_of_features(
    theta: Params, batch: Batch | Blocks, weights: tuple[Array, Array], config: Config, room: DesignRoom
) -> Evaluation:
    """J and ∇J by the features' parameters (Eq. 34); the twin of `mf_numpy.design.gradient`.

    The gradient arrays belong to `room` and are overwritten by the next call that is given it.

    Args:
        weights: of the penalty (Eq. 35), (f,) and (g,).
    """
    seen = gradient(rows_of_features(theta, room), batch, without_penalty(config), room.inner)
    of_rows = seen.gradient
    grads = dict(of_rows)
    for product, factors, bias in ((room.of_users, "P", "b"), (room.of_items, "Q", "c")):
        if product is not None:
            product.times(of_rows[factors], of_rows.get(bias), room.gradient[factors], room.gradient.get(bias))
            grads |= {name: room.gradient[name] for name in (factors, bias) if name in room.gradient}
    as_type = theta.P.dtype.type
    norms = 0.0
    for name, value in theta.tensors().items():
        weight = weights[0] if name in ("P", "b") else weights[1]
        _finish_kernel(
            columns(grads[name]), columns(value), weight, as_type(1), as_type(2 * config.reg), room.norms[name]
        )
        norms += float(room.norms[name].sum())
    return Evaluation(seen.objective + config.reg * norms, seen.squared_error, grads)
