"""The normal matrix of one row (Eq. 26) and its Cholesky factor, as loops and in the tiles of `tiles`.

Shapes: a panel holds up to B partner rows of W numbers, K and zeros up to whole vectors; ``pairs`` (B, 2) what is left
of each rating, and 1. Sums over the panels are A (rows, W), the upper triangle of Σ q qᵀ, and B (2, W), Σ of q times
the pair. U is the factor, A = UᵀU, and takes A's place; S (rows, 2) solves Uᵀ S = Bᵀ.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated"
from __future__ import annotations

import numpy as np

from mf_numpy.kernels import lanes, tiles, vector


def form(n_factors: int) -> int:
    """The form of kernels for rows of any length: vectors, or `vector.LOOPS` where `vector.form` says so."""
    if vector.form(n_factors) == vector.LOOPS:
        return vector.LOOPS
    return lanes.pack(vector.fingerprint, 0)


def width(n_factors: int, itemsize: int, form: int) -> int:
    """W."""
    whole = 1 if form == vector.LOOPS else tiles.lanes_of(form, itemsize)
    return -(-n_factors // whole) * whole


def n_rows(n_factors: int, form: int) -> int:
    """Rows of A: K and, in tiles, what fills the last tile up."""
    whole = 1 if form == vector.LOOPS else tiles.rows_of(form)
    return -(-n_factors // whole) * whole


def accumulate(A, B, panel, pairs, count, form):
    """A += panelᵀ panel and B += pairsᵀ panel over `count` rows, a multiple of 4."""
    for j in range(count):
        for r in range(A.shape[0]):
            for c in range(r, A.shape[1]):
                A[r, c] += panel[j, r] * panel[j, c]
        for e in range(2):
            for c in range(A.shape[1]):
                B[e, c] += pairs[j, e] * panel[j, c]


def _accumulate(A, B, panel, pairs, count, form):
    width = A.shape[1]
    lanes = tiles.lanes_of(form, A.itemsize)
    rows = tiles.rows_of(form)
    for r in range(0, A.shape[0], rows):
        c = r // lanes * lanes
        while c < width:
            if width - c >= 2 * lanes:
                tiles.add_products(A, r, panel, c, panel, r, count, 2, form)
                c += 2 * lanes
            else:
                tiles.add_products(A, r, panel, c, panel, r, count, 1, form)
                c += lanes
    c = 0
    while c < width:
        if width - c >= 2 * lanes:
            tiles.add_pairs(B, 0, panel, c, pairs, 0, count, 2, form)
            c += 2 * lanes
        else:
            tiles.add_pairs(B, 0, panel, c, pairs, 0, count, 1, form)
            c += lanes


def factor(A, B, S, F, roots, least, form):
    """A = UᵀU in place and Uᵀ S = Bᵀ; `roots` get 1/U_kk, F is scratch.

    Returns whether every pivot was more than `least` of its diagonal. If one was not, what is written means nothing.
    """
    for k in range(A.shape[0]):
        diagonal = A[k, k]
        for j in range(k):
            for c in range(k, A.shape[1]):
                A[k, c] -= A[j, k] * A[j, c]
        if not A[k, k] > least * diagonal:
            return False
        roots[k] = 1 / np.sqrt(A[k, k])
        for c in range(k, A.shape[1]):
            A[k, c] *= roots[k]
        for e in range(2):
            total = B[e, k]
            for j in range(k):
                total -= S[j, e] * A[j, k]
            S[k, e] = total * roots[k]
    return True


def _factor(A, B, S, F, roots, least, form):
    width = A.shape[1]
    lanes = tiles.lanes_of(form, A.itemsize)
    rows = tiles.rows_of(form)
    least = A.dtype.type(least)
    for k in range(0, A.shape[0], rows):
        if k % lanes == 0:
            ok = tiles.pivots(A, B, S, F, roots, k, 0, least, form)
        else:
            ok = tiles.pivots(A, B, S, F, roots, k, 1, least, form)
        if not ok:
            return False
        c = (k // lanes + 1) * lanes
        while c < width:
            if width - c >= 2 * lanes:
                tiles.eliminate(A, F, roots, k, c, 2, form)
                c += 2 * lanes
            else:
                tiles.eliminate(A, F, roots, k, c, 1, form)
                c += lanes
    return True


def back_substitute(A, roots, z, x, form):
    """x of U x = z, 0 behind the rows of U."""
    x[:] = 0
    for k in range(A.shape[0] - 1, -1, -1):
        total = z[k]
        for c in range(k + 1, A.shape[0]):
            total -= A[k, c] * x[c]
        x[k] = total * roots[k]


def _back_substitute(A, roots, z, x, form):
    x[:] = 0
    rows = tiles.rows_of(form)
    for k in range(A.shape[0] - rows, -1, -rows):
        tiles.back(A, roots, z, x, k, A.shape[1], form)


def dots(panel, x, count, out, form):
    """out[j] = panel[j]·x of `count` rows, a multiple of 4."""
    for j in range(count):
        total = x[0] - x[0]
        for c in range(len(x)):
            total += panel[j, c] * x[c]
        out[j] = total


def _dots(panel, x, count, out, form):
    for j in range(0, count, 4):
        tiles.four_dots(panel, j, x, len(x), out, form)


def copy_row(panel, j, table, i, form):
    """panel[j] = table[i]."""
    for c in range(panel.shape[1]):
        panel[j, c] = table[i, c]


def _copy_row(panel, j, table, i, form):
    tiles.copy_row(panel, j, table, i, panel.shape[1], form)


def ask(table, i, form):
    """Ask for a row that will be read soon; loops do without."""


def _ask(table, i, form):
    tiles.ask(table, i, table.shape[1], form)


for _loops, _vectors in (
    (accumulate, _accumulate),
    (factor, _factor),
    (back_substitute, _back_substitute),
    (dots, _dots),
    (copy_row, _copy_row),
    (ask, _ask),
):
    vector.with_twin(_loops, _vectors, fast=False)
