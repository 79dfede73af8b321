"""Eq. 29 and 30: stochastic gradient descent, a step for each rating, in parallel and without races.

Blocks of one diagonal of the grid share no row, so that the bits are those of one thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from mf_numpy.adaptive import FLOOR
from mf_numpy.config import Config
from mf_numpy.kernels import grades as cutting
from mf_numpy.kernels.compiling import jit, per_form
from mf_numpy.kernels.gradients import error_of_mean, loss_and_residual
from mf_numpy.kernels.vector import add, add_squares, copy, dot, exchange, load, over_root, prefetch, scale, store

PLAIN, VELOCITY, ADAGRAD = range(3)
"""θ ← θ - ηg; the velocities of Eq. 12 to 14; AdaGrad (Eq. 30)."""

AHEAD_BYTES = 2048
"""Rows of a side that are asked for before their turn, in bytes: fewer ratings ahead where rows are wide."""


def rule_of(config: Config) -> int:
    """Which of the three rules a configuration asks for."""
    if config.step_rule == "adagrad":
        return ADAGRAD
    return VELOCITY if config.momentum else PLAIN


@per_form
def epoch_kernel(form: int, rule: int, graded: int = 0) -> Any:
    """The kernel of one epoch, diagonal after diagonal: Eq. 29 for every rating, and ℓ of each before its step.

    `losses` and `squares` (D, D) receive the sums over the blocks, a row a turn. Where it is `graded` by cut points,
    these stand still; `of_grades` (D, 3, G) is room for sums that nobody asks for.
    """

    @jit
    def kernel(  # type: ignore[no-untyped-def]
        order, begins, user_bounds, item_bounds, users, items, values, P, Q, b, c, V_p, V_q, v_b, v_c, mu, biased,
        pull_u, pull_i, lr, beta, kept, ahead, kind, delta, losses, squares, grades, points, own, of_grades,
    ):  # fmt: skip
        side = len(losses)
        ahead_by = AHEAD_BYTES // (P.shape[1] * P.itemsize)
        for turn in range(side):
            diagonal = order[turn]
            for share in prange(side):
                other = (share + diagonal) % side
                # Unsigned places need no check for negative ones.
                begin, end = np.uint64(begins[share * side + other]), np.uint64(begins[share * side + other + 1])
                first_u, first_i = np.uint64(user_bounds[share]), np.uint64(item_bounds[other])
                loss = square = 0.0
                for k in range(begin, end):
                    soon = min(k + np.uint64(ahead_by), end - np.uint64(1))
                    prefetch(P, first_u + np.uint64(users[soon]), form)
                    prefetch(Q, first_i + np.uint64(items[soon]), form)
                    u, i = first_u + np.uint64(users[k]), first_i + np.uint64(items[k])
                    # Both moves begin from the old rows.
                    p, q = copy(load(P, u, form)), copy(load(Q, i, form))
                    predicted = mu + dot(p, q)  # Eq. 1
                    if biased:
                        predicted += b[u] + c[i]
                    if graded:
                        cost, e, error = cutting.of_grade(predicted, values[k], grades, points, own, of_grades[share])
                    else:
                        cost, e = loss_and_residual(predicted, values[k], kind, delta)  # Eq. 3
                        error = error_of_mean(predicted, values[k], e, kind)
                    loss += cost
                    square += np.float64(error) * np.float64(error)
                    r_u, r_i = pull_u[u], pull_i[i]
                    if rule == PLAIN:
                        exchange(P, u, 1 - lr * r_u, Q, i, 1 - lr * r_i, -lr * e, form)  # Eq. 29
                        if biased:
                            b[u] -= lr * (e + r_u * b[u])
                            c[i] -= lr * (e + r_i * c[i])
                        continue
                    g_p = add(scale(copy(q), e), r_u, p)  # Eq. 29
                    g_q = add(scale(copy(p), e), r_i, q)  # Eq. 29
                    if rule == ADAGRAD:
                        h_p = add_squares(load(V_p, u, form), g_p)  # Eq. 30
                        h_q = add_squares(load(V_q, i, form), g_q)
                        store(V_p, u, h_p)
                        store(V_q, i, h_q)
                        store(P, u, add(p, -lr, over_root(g_p, h_p, FLOOR)))  # Eq. 30
                        store(Q, i, add(q, -lr, over_root(g_q, h_q, FLOOR)))
                        if biased:
                            g_b, g_c = e + r_u * b[u], e + r_i * c[i]
                            v_b[u] += g_b * g_b
                            v_c[i] += g_c * g_c
                            b[u] -= lr * g_b / (np.sqrt(v_b[u]) + FLOOR)
                            c[i] -= lr * g_c / (np.sqrt(v_c[i]) + FLOOR)
                        continue
                    v_p = add(scale(load(V_p, u, form), beta), kept, g_p)  # Eq. 12, Eq. 13
                    v_q = add(scale(load(V_q, i, form), beta), kept, g_q)
                    store(V_p, u, v_p)
                    store(V_q, i, v_q)
                    if ahead:
                        store(P, u, add(p, -lr, add(g_p, beta, v_p)))  # Eq. 14
                        store(Q, i, add(q, -lr, add(g_q, beta, v_q)))
                    else:
                        store(P, u, add(p, -lr, v_p))
                        store(Q, i, add(q, -lr, v_q))
                    if biased:
                        g_b, g_c = e + r_u * b[u], e + r_i * c[i]
                        v_b[u] = beta * v_b[u] + kept * g_b
                        v_c[i] = beta * v_c[i] + kept * g_c
                        if ahead:
                            b[u] -= lr * (g_b + beta * v_b[u])
                            c[i] -= lr * (g_c + beta * v_c[i])
                        else:
                            b[u] -= lr * v_b[u]
                            c[i] -= lr * v_c[i]
                losses[turn, share], squares[turn, share] = loss, square

    return kernel
