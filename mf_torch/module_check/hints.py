"""What kind of mistake a difference looks like: hypotheses, each tested on the numbers, none guessed.

A hypothesis is a form with a few unknown coefficients. It is named only where least squares leaves nothing over:
less than `EXACT` of the largest number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from mf_numpy.model import Params, Tensors
from mf_numpy.ratings import Array

EXACT = 1e-9
FLOAT32, HALF = 1e-5, 3e-2


def fitted(wanted: Array, *forms: Array) -> Array | None:
    """The coefficients with which the forms add up to `wanted`, or None where they do not, or are not unique."""
    y = np.ravel(wanted)
    design = np.stack([np.ravel(form) for form in forms], axis=1)
    norms = np.linalg.norm(design, axis=0)
    if not np.isfinite(design).all() or not np.isfinite(y).all() or (norms == 0).any():
        return None
    solved, _, rank, _ = np.linalg.lstsq(design / norms, y, rcond=1e-10)
    if rank < design.shape[1]:
        return None
    out: Array = solved / norms
    return out if _nothing_left(y - design @ out, y) else None


def _nothing_left(rest: Array, y: Array, least: float = EXACT) -> bool:
    largest = float(np.abs(y).max(initial=0.0))
    return float(np.abs(rest).max(initial=0.0)) <= least * (largest or 1.0)


def near(x: float, y: float, within: float = 1e-6) -> bool:
    """Whether a coefficient found by least squares is a number."""
    return abs(x - y) <= within * max(abs(x), abs(y)) if y else abs(x) <= within


def named(ratio: float, known: Iterable[tuple[float, str]], what: str) -> str:
    """The first known ratio that this one is, in its words; else the number."""
    for value, words in known:
        if near(ratio, value):
            return words
    return f"{what} is {ratio:.6g} times the hand-written one"


@dataclass(frozen=True, eq=False)
class Asked:
    """Pairs asked of the module at several draws of its parameters, end to end, with the parts of Eq. 1.

    Attributes:
        answered: what the module says, (B,).
        equation: μ + b_u + c_i + p_u·q_i, (B,).
        swapped: the same with the two ids exchanged, (B,).
        p, q: factors of each pair, (B, K).
        parts: the terms of Eq. 1, and biases looked up by the other id, by name; each (B,).
    """

    answered: Array
    equation: Array
    swapped: Array
    p: Array
    q: Array
    parts: Mapping[str, Array]

    @classmethod
    def of(cls, answers: Sequence[tuple[Params, Array, Array, Array]], equation: Any) -> Asked:
        """From (parameters, users, items, answers) of each draw, where either id is in the range of both tables."""
        rows: dict[str, list[Array]] = {}
        for params, u, i, answered in answers:
            parts = {"μ": np.full(len(u), params.mu), "p·q": (params.P[u] * params.Q[i]).sum(axis=1)}
            if params.b is not None and params.c is not None:
                parts |= {"b": params.b[u], "c": params.c[i], "b by item": params.b[i], "c by user": params.c[u]}
            found = {"equation": equation(params, u, i), "swapped": equation(params, i, u), "answered": answered}
            for name, row in (found | {"p": params.P[u], "q": params.Q[i]} | parts).items():
                rows.setdefault(name, []).append(row)
        joined = {name: np.concatenate(parts) for name, parts in rows.items()}
        own = {name: joined.pop(name) for name in ("answered", "equation", "swapped", "p", "q")}
        return cls(**own, parts={name: part for name, part in joined.items() if part.any()})


def of_prediction(asked: Asked) -> str:
    """What the module predicts instead of Eq. 1."""
    y, s = asked.answered, asked.equation
    if not np.isfinite(y).all():
        return "some predictions are no numbers; look for a division or a logarithm in forward"
    if _nothing_left(y - asked.swapped, y):
        return "users and items are swapped: the module is Eq. 1 of (items, users)"
    one = np.ones_like(y)
    for tests in (_by_terms, _by_factor, _by_transform):
        if hint := tests(asked, one):
            return hint
    for least, precision in ((FLOAT32, "float32"), (HALF, "half precision")):
        if _nothing_left(y - s, y, least):
            return f"Eq. 1 to the digits of {precision}: some of forward is computed in that, by a cast or a constant"
    order = np.argsort(s, kind="stable")
    steps = np.diff(y[order])
    if (steps >= 0).all() or (steps <= 0).all():
        return "another model: an increasing or decreasing function of Eq. 1, not Eq. 1 itself"
    return "another model: no sum of μ, b, c and p·q, nor a function of Eq. 1"


def _by_terms(asked: Asked, one: Array) -> str | None:
    """Eq. 1 with other coefficients, a constant, or biases of the wrong id."""
    parts = dict(asked.parts)
    varied = {name: part for name, part in parts.items() if np.ptp(part) > 0}
    constant = {name for name in parts if name not in varied}
    found = fitted(asked.answered, one, *varied.values())
    if found is None:
        return None
    n_factors = asked.p.shape[1]
    known = {"by item": 0.0, "by user": 0.0}
    said: list[str] = []
    rest = float(found[0]) - sum(float(parts[name][0]) for name in constant)
    for name, times in zip(varied, map(float, found[1:]), strict=True):
        wrong_id = any(name.endswith(end) for end in known)
        if near(times, 0.0 if wrong_id else 1.0):
            continue
        if wrong_id:
            said.append(f"{name[0]} is looked up {name[2:]}" + ("" if near(times, 1) else f", {times:.6g} times"))
        elif name == "p·q":
            said.append(
                named(
                    times,
                    [
                        (0, "p·q is left out"),
                        (1 / n_factors, "p·q is a mean over the factors; Eq. 1 sums them"),
                        (n_factors**-0.5, "p·q is divided by √K"),
                        (-1, "p·q is subtracted"),
                    ],
                    "p·q",
                )
            )
        else:
            side = {"b": "the user bias b", "c": "the item bias c", "μ": "μ"}[name]
            words = [(0, f"{side} is left out"), (2, f"{side} is added twice"), (-1, f"{side} is subtracted")]
            said.append(named(times, words, side))
    if not near(rest, 0.0, 1e-6 * max(1.0, float(np.abs(asked.answered).max()))):
        known_mu = sum(float(parts[name][0]) for name in constant)
        if near(rest, -known_mu) and known_mu:
            said.append(f"μ = {known_mu:.6g} is left out")
        else:
            said.append(f"every prediction is {rest:+.6g} beside Eq. 1: pass mu={rest + known_mu:.6g} if that is its μ")
    return "; ".join(said) or None


def _by_factor(asked: Asked, one: Array) -> str | None:
    """Single factors left out of the dot product."""
    n_factors = asked.p.shape[1]
    varied = [part for name, part in asked.parts.items() if np.ptp(part) > 0 and name != "p·q" and " by " not in name]
    if len(asked.answered) < 2 * (n_factors + len(varied) + 1):
        return None
    found = fitted(asked.answered, one, *varied, *(asked.p * asked.q).T)
    if found is None:
        return None
    times = found[1 + len(varied) :]
    missing = [k for k in range(n_factors) if near(float(times[k]), 0.0)]
    if missing and all(near(float(times[k]), 1.0) for k in range(n_factors) if k not in missing):
        return f"of {n_factors} factors those at {missing} take no part in p·q"
    return "the factors have weights in p·q that Eq. 1 has not: another model"


def _by_transform(asked: Asked, one: Array) -> str | None:
    """Functions of Eq. 1, and distances and cosines for its dot product."""
    y, s = asked.answered, asked.equation
    lo, hi = float(y.min()), float(y.max())
    if _nothing_left(y - np.clip(s, lo, hi), y):
        ends = [f"at least {lo:.6g}"] * bool(s.min() < lo) + [f"at most {hi:.6g}"] * bool(s.max() > hi)
        return (
            f"another model: predictions are clamped to {' and '.join(ends)}; clamp them after training, not in forward"
        )
    if (found := fitted(y, one, expit(s))) is not None:
        ends = [f"{round(x, 9) + 0.0:.6g}" for x in (float(found[0]), float(found[0] + found[1]))]
        return f"another model: Eq. 1 goes through a sigmoid onto the range {ends[0]} to {ends[1]}"
    for name, form in (("tanh", np.tanh(s)), ("exp", np.exp(np.minimum(s, 50.0)))):
        if fitted(y, one, form) is not None:
            return f"another model: Eq. 1 goes through {name}"
    others = [part for name, part in asked.parts.items() if np.ptp(part) > 0 and name != "p·q" and " by " not in name]
    norms = np.linalg.norm(asked.p, axis=1) * np.linalg.norm(asked.q, axis=1)
    cosine = (asked.p * asked.q).sum(axis=1) / np.where(norms > 0, norms, 1)
    for name, form in (("the cosine of p and q", cosine), ("|p - q|²", ((asked.p - asked.q) ** 2).sum(axis=1))):
        if fitted(y, one, *others, form) is not None:
            return f"another model: {name} stands for p·q"
    return None


def of_residual(e: Array, gold: Array, predicted: Array, ratings: Array) -> str:
    """What E = N ∂J/∂r̂ (B,) is instead of the hand-written one (Eq. 3)."""
    n, error = len(e), predicted - ratings
    if not np.isfinite(e).all():
        return "the loss has no derivative that is a number"
    if not e.any():
        return "no gradient of the loss reaches the predictions: they are detached, or leave torch on the way"
    rmse = float(np.sqrt(np.mean(error**2)))
    if (found := fitted(e, gold)) is not None:
        known = [
            (0.5, "the factor 2 is missing: it is ½(r̂ - r)², whose derivative is r̂ - r (Eq. 3)"),
            (2.0, "twice the loss of Eq. 2"),
            (n, "a sum over the pairs where Eq. 2 has their mean: reduction='sum'"),
            (n / 2, "half the sum over the pairs where Eq. 2 has the mean of squares"),
            (1 / n, "divided by the number of pairs twice"),
            (-1.0, "the sign is turned round, so that steps lead uphill"),
            (1 / (2 * rmse), "the RMSE is minimised, the root of the mean square of Eq. 2"),
        ]
        return named(float(found[0]), known, "E")
    one = np.ones(n)
    if (found := fitted(e, predicted, ratings, one)) is not None:
        a, b, rest = map(float, found)
        if near(b, 0.0, 1e-6 * abs(a)) and near(rest, -a * float(ratings.mean())):
            return (
                "every prediction is compared with every rating: (B, 1) against (B,) broadcasts to (B, B); give both "
                "one shape"
            )
        if near(b, -a):
            return f"the loss compares r̂ with r {-rest / a:+.6g}: one of the two is shifted" + (
                ", by the mean rating" if near(abs(rest / a), abs(float(ratings.mean())), 1e-3) else ""
            )
        return f"the loss compares r̂ with {-b / a:.6g} r {-rest / a:+.6g}: one of the two is scaled"
    return _other_loss(e, gold, error)


def _other_loss(e: Array, gold: Array, error: Array) -> str:
    if fitted(e, np.sign(error)) is not None:
        return "another loss: the absolute error |r̂ - r|"
    top = float(np.abs(e).max())
    small = np.abs(e) < top * (1 - 1e-9)
    if small.any() and (slope := fitted(e[small], error[small])) is not None:
        delta = top / abs(float(slope[0]))
        if _nothing_left(e - np.clip(slope[0] * error, -top, top), e):
            return f"another loss: Huber's, a square up to errors of {delta:.6g} and straight past them"
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.where(error == 0, 1.0, (2 * error / e) ** 2)  # Eq. 17: 1 + (error/δ)²
    if (found := fitted(root, np.ones_like(e), error**2)) is not None and near(float(found[0]), 1.0) and found[1] > 0:
        return f"another loss: pseudo-Huber with δ = {float(found[1]) ** -0.5:.6g}"
    if _nothing_left(e - gold, e, FLOAT32):
        return "right to the digits of float32: the loss, or the ratings in it, are cast to that"
    return "another loss: its derivative is no multiple of r̂ - r"


@dataclass(frozen=True, eq=False)
class Table:
    """What a hint about the gradient of one tensor needs to know.

    Attributes:
        name: of the tensor in the module.
        theta: its values, as a table of rows.
        share: n_u/N or n_i/N of its rows, in the shape of `theta`; zeros for μ.
        counts: n_u or n_i, likewise.
        padding: the row that ``padding_idx`` keeps from moving, or None.
        by_frequency: whether ``scale_grad_by_freq`` is on.
    """

    name: str
    theta: Array
    share: Array
    counts: Array
    padding: int | None = None
    by_frequency: bool = False


def of_data_gradient(mine: Array, gold: Array, table: Table, alternatives: Mapping[str, Array], reached: bool) -> str:
    """What the gradient of one tensor through the predictions is instead of Eq. 4.

    Args:
        alternatives: gradients that a known mistake would give, by what to say of it.
    """
    if not np.isfinite(mine).all():
        return "some of it is no number"
    if not reached or not mine.any():
        return f"no gradient reaches {table.name!r}: a detach(), .data or no_grad() lies between it and the loss"
    for words, other in alternatives.items():
        if _nothing_left(mine - other, mine):
            return words
    if table.padding is not None:
        without = gold.copy()
        without[table.padding] = 0
        if _nothing_left(mine - without, mine):
            return (
                f"row {table.padding} is the padding_idx of {table.name!r}, so torch drops its gradient; no real id "
                "may be there"
            )
    if table.by_frequency and _nothing_left(mine * table.counts - gold, gold):
        return f"scale_grad_by_freq divides each row of {table.name!r} by its number of ratings; switch it off"
    if (found := fitted(mine, gold)) is not None:
        return named(float(found[0]), [(0.5, "half the gradient"), (2.0, "twice the gradient")], "it")
    return _of_rest(mine, gold, table)


def _of_rest(mine: Array, gold: Array, table: Table) -> str:
    rest = mine - gold
    if (found := fitted(rest, table.theta)) is not None:
        return f"{float(found[0]):.6g} θ is in it: a penalty with λ = {float(found[0]) / 2:.6g}"
    if (found := fitted(rest, table.share * table.theta)) is not None:
        return f"{float(found[0]):.6g} (n/N) θ is in it: a per_rating penalty with λ = {float(found[0]) / 2:.6g}"
    if _nothing_left(rest, gold, FLOAT32):
        return "right to the digits of float32: some of the way is computed in that"
    differ = np.flatnonzero(np.abs(rest).reshape(len(rest), -1).max(axis=1) > EXACT * np.abs(gold).max(initial=0.0))
    shown = ", ".join(map(str, differ[:5])) + (", …" if len(differ) > 5 else "")
    return f"{len(differ)} of {len(rest)} rows differ ({shown}); none of the mistakes tried here explains it"


def of_penalty(mine: Array, table: Table, reg: float, penalty: str, n: int, decoupled: float) -> str:
    """What the gradient of the penalty on one tensor is instead of 2λ w θ (Eq. 6).

    Args:
        decoupled: the weight decay that AdamW applies beside the gradient, else 0.
    """
    theta, share = table.theta, table.share
    if _nothing_left(mine, theta, EXACT):
        beside = f"; AdamW's weight_decay of {decoupled:.6g} is no part of any gradient (Eq. 11)" if decoupled else ""
        return f"{table.name!r} is not penalised: neither the objective nor a weight_decay = 2λ pulls at it{beside}"
    found = fitted(mine, theta)
    by_rating = fitted(mine, share * theta) if share.any() else None
    if reg == 0 or not share.any():
        if found is not None:
            return (
                f"{float(found[0]):.6g} θ pulls at it: a penalty with λ = {float(found[0]) / 2:.6g}, where none belongs"
            )
        if by_rating is not None:
            return f"a per_rating penalty with λ = {float(by_rating[0]) / 2:.6g} pulls at it, where none belongs"
    for kind, coefficient in (("total", found), ("per_rating", by_rating)):
        if coefficient is not None:
            ratio = float(coefficient[0]) / (2 * reg) if reg else np.inf
            other = "" if kind == penalty else f"rows weigh {'alike' if kind == 'total' else 'n/N'}: penalty={kind!r}"
            if near(ratio, 1.0):
                return other or f"its pull is {ratio:.12g} times the hand-written one: a matter of precision"
            words = named(ratio, _penalty_ratios(table, reg, n), "its pull")
            return f"{other}; {words}" if other else words
    if (signs := fitted(mine, np.sign(theta))) is not None:
        return f"λ|θ| with λ = {float(signs[0]):.6g} is penalised, not the square of Eq. 2"
    return "it is no multiple of θ: another penalty than Eq. 2"


def _penalty_ratios(table: Table, reg: float, n: int) -> list[tuple[float, str]]:
    theta = table.theta
    norm = float(np.linalg.norm(theta))
    columns = theta.shape[1] if theta.ndim == 2 else 1
    return [
        (
            0.5,
            f"the factor 2 is missing: λ/2 |θ|², or weight_decay = λ; the λ of Eq. 2 is weight_decay/2 = {reg / 2:.6g}",
        ),
        (2.0, f"twice too much: Eq. 2's gradient is 2λθ, so weight_decay = 2λ = {2 * reg:.6g}"),
        (1 / (2 * norm) if norm else 0.0, "the norm is penalised, not its square as in Eq. 2"),
        (1 / theta.size, "a mean over the numbers of the table, where Eq. 2 has their sum"),
        (1 / len(theta), "a mean over the rows of the table, where Eq. 2 has their sum"),
        (n, "a sum over the pairs, where Eq. 2 has their mean"),
        (1 / n, "divided by the number of pairs, which Eq. 2's penalty is not"),
        (1 / columns, "a mean over the factors, where Eq. 2 has their sum"),
        (-1.0, "the sign is turned round, so that it pushes parameters away from 0"),
    ]


def nothing_left(mine: Tensors, other: Mapping[str, Array], least: float) -> bool:
    """Whether all tensors agree."""
    return all(_nothing_left(mine[name] - other[name], other[name], least) for name in other)
