"""SymPy differentiates Eq. 2 as it is written; the code's gradients must be those expressions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy

from mf_numpy import Config, Ratings, gradients, kernels, loops
from mf_numpy.batch import full_batch
from mf_numpy.check import relative_difference
from mf_numpy.model import Params

USERS, ITEMS, VALUES = [0, 0, 1, 2, 2, 2], [0, 1, 1, 0, 1, 1], [5, 3, 4, 1, 2, 4]  # the last pair is rated twice
M, N_ITEMS, K = 3, 2, 2


def _symbols(kind: str) -> dict[str, Any]:
    theta: dict[str, Any] = {
        "P": sympy.Matrix(M, K, lambda u, f: sympy.Symbol(f"p{u}{f}")),
        "Q": sympy.Matrix(N_ITEMS, K, lambda i, f: sympy.Symbol(f"q{i}{f}")),
    }
    if kind == "biased":
        theta["b"] = sympy.Matrix(M, 1, lambda u, _: sympy.Symbol(f"b{u}"))
        theta["c"] = sympy.Matrix(N_ITEMS, 1, lambda i, _: sympy.Symbol(f"c{i}"))
    return theta


def values_for(config: Config) -> list[int]:
    """The ratings, or which of them are high where the loss is for 0 and 1."""
    return [int(r >= 4) for r in VALUES] if config.loss == "logistic" else VALUES


def _objective(theta: dict[str, Any], config: Config, mu: Any) -> Any:
    """J of Eq. 2, from the text of the derivation and nothing of the package."""
    size, reg, delta = len(VALUES), sympy.nsimplify(config.reg), sympy.nsimplify(config.loss_scale)
    biased = "b" in theta
    j = sympy.Integer(0)
    for u, i, r in zip(USERS, ITEMS, values_for(config), strict=True):
        predicted = theta["P"].row(u).dot(theta["Q"].row(i))
        if biased:
            predicted += mu + theta["b"][u] + theta["c"][i]
        x = predicted - r
        j += {
            "squared": x**2,
            "pseudo_huber": 2 * delta**2 * (sympy.sqrt(1 + x**2 / delta**2) - 1),
            "logistic": sympy.log(1 + sympy.exp(predicted)) - r * predicted,
            "poisson": sympy.exp(predicted) - r * predicted,
        }[config.loss] / size
    for factors, bias, index in (("P", "b", USERS), ("Q", "c", ITEMS)):
        for row in range(theta[factors].rows):
            share = sympy.Rational(index.count(row), size)
            weight = sympy.Integer(1) if config.penalty == "total" else share
            norm = theta[factors].row(row).dot(theta[factors].row(row))
            if biased:
                norm += theta[bias][row] ** 2
            j += reg * weight * norm
    return j


@pytest.mark.parametrize("loss", ["squared", "pseudo_huber", "logistic", "poisson"])
@pytest.mark.parametrize("penalty", ["total", "per_rating"])
@pytest.mark.parametrize("kind", ["plain", "biased"])
def test_the_code_computes_the_derivative_of_the_text(kind: Any, penalty: Any, loss: Any) -> None:
    config = Config(model=kind, penalty=penalty, loss=loss, loss_scale=1.5, n_factors=K, reg=0.125, dtype="float64")
    ratings = Ratings.of_indices(USERS, ITEMS, values_for(config))
    rng = np.random.default_rng(8)
    p, q, b, c = rng.normal(size=(M, K)), rng.normal(size=(N_ITEMS, K)), rng.normal(size=M), rng.normal(size=N_ITEMS)
    params = Params(p, q, b, c, ratings.mean) if kind == "biased" else Params(p, q)

    theta = _symbols(kind)
    mu = sympy.Rational(sum(ratings.values.astype(int)), len(VALUES))
    j = _objective(theta, config, mu)
    values = {
        symbol: sympy.Float(float(number), 30)
        for name, array in params.tensors().items()
        for symbol, number in zip(theta[name], array.ravel(), strict=True)
    }
    exact = {
        name: np.array([float(sympy.diff(j, symbol).evalf(30, subs=values)) for symbol in theta[name]]).reshape(
            params.tensors()[name].shape
        )
        for name in theta
    }
    batch = full_batch(ratings, config)
    for module in (loops, gradients, kernels):
        seen = module.gradient(params, batch, config)
        assert seen.objective == pytest.approx(float(j.evalf(30, subs=values)), rel=1e-14)
        for name, expected in exact.items():
            assert relative_difference(seen.gradient[name], expected) < 1e-13, (module.__name__, name)
