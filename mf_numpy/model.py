"""Eq. 1: what a rating is predicted to be, and Eq. 25: where the parameters start.

Shapes: P (m, K), Q (n, K), b (m,), c (n,), μ scalar, t (G - 1,); ``users`` and ``items`` are (B,) indices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Inexact, Integer

from mf_numpy import grades, losses
from mf_numpy.config import Config
from mf_numpy.errors import DataError
from mf_numpy.grades import Cuts
from mf_numpy.ratings import Array, Ratings

Tensors = dict[str, Array]
"""Arrays by parameter name: ``P``, ``Q``, in the biased model ``b`` and ``c``, and ``t`` where ratings are grades."""

_CELLS_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Params:
    """The parameters of Eq. 1. The plain model has no biases and μ = 0.

    Attributes:
        P: (m, K) user factors.
        Q: (n, K) item factors.
        b: (m,) user biases in rating units, or None.
        c: (n,) item biases in rating units, or None.
        mu: training mean in rating units, or what predicts it where the loss has another scale (Eq. 44), frozen; 0 in
            the plain model, and where cut points hold the level.
        cuts: what tells grades apart (Eq. 54), its ``t`` a parameter, or None with every loss but ``ordinal``.

    Raises:
        DataError: biases on one side only.
    """

    P: Inexact[np.ndarray, "m K"]
    Q: Inexact[np.ndarray, "n K"]
    b: Inexact[np.ndarray, " m"] | None = None
    c: Inexact[np.ndarray, " n"] | None = None
    mu: float = 0.0
    cuts: Cuts | None = None

    def __post_init__(self) -> None:
        if (self.b is None) != (self.c is None):
            missing = "b" if self.b is None else "c"
            raise DataError(f"{missing} is None and the other side has biases; give both b and c, or neither")

    @classmethod
    def of(cls, tensors: Tensors, mu: float, cuts: Cuts | None = None) -> Params:
        """Parameters of arrays by name, and of what is not trained; the inverse of `tensors`."""
        rows = {name: array for name, array in tensors.items() if name != "t"}
        return cls(**rows, mu=mu, cuts=cuts and replace(cuts, t=tensors["t"]))

    def tensors(self) -> Tensors:
        """The trained arrays by name, not copied."""
        named = {"P": self.P, "Q": self.Q, "b": self.b, "c": self.c, "t": self.cuts.t if self.cuts else None}
        return {name: array for name, array in named.items() if array is not None}

    def with_tensors(self, tensors: Tensors) -> Params:
        """The same μ and grades with other arrays."""
        return Params.of(tensors, self.mu, self.cuts)

    def copy(self) -> Params:
        """Parameters that share no memory with these."""
        return self.with_tensors({name: array.copy() for name, array in self.tensors().items()})

    @property
    def shape(self) -> tuple[int, int, int]:
        """(m, n, K)."""
        return self.P.shape[0], self.Q.shape[0], self.P.shape[1]


def predict(
    params: Params, users: Integer[np.ndarray, " B"], items: Integer[np.ndarray, " B"]
) -> Inexact[np.ndarray, " B"]:
    """r̂_ui of each pair (Eq. 1), (B,) in rating units, in chunks so that no (B, K) array is held.

    Raises:
        IndexError: an index outside 0..m-1 or 0..n-1; negative ones too, which NumPy would wrap.
    """
    m, n, _ = params.shape
    check_range("users", users, m)
    check_range("items", items, n)
    out = np.empty(len(users), dtype=params.P.dtype)
    for part in chunks(len(users), params.P.shape[1]):
        u, i = users[part], items[part]
        out[part] = params.mu + (params.P[u] * params.Q[i]).sum(axis=1)  # Eq. 1
        if params.b is not None and params.c is not None:
            out[part] += params.b[u] + params.c[i]
    return out


def start(train: Ratings, config: Config) -> Params:
    """Starting parameters (Eq. 25): drawn in float64 from ``config.seed``, P before Q, then cast.

    Biases start at 0, so that every pair is predicted near μ.
    """
    rng = np.random.default_rng(config.seed)
    shape_p, shape_q = (train.n_users, config.n_factors), (train.n_items, config.n_factors)
    p, q = draw(rng, shape_p, config, train.mean), draw(rng, shape_q, config, train.mean)
    dtype = config.numpy_dtype
    cuts = grades.begun(train, config) if config.loss == "ordinal" else None
    if config.model == "plain":
        return Params(p.astype(dtype), q.astype(dtype), cuts=cuts)
    b, c = np.zeros(train.n_users, dtype), np.zeros(train.n_items, dtype)
    return Params(p.astype(dtype), q.astype(dtype), b, c, losses.prediction_of(train.mean, config), cuts)


def draw(rng: np.random.Generator, shape: tuple[int, int], config: Config, mean: float) -> Float[np.ndarray, "rows K"]:
    """Factors of a start (Eq. 25) in float64, the next of the generator."""
    if config.init == "uniform":
        return rng.uniform(0.0, config.start_scale, shape)
    if config.init == "mean":
        # Eq. 25: E[p·q] = K (a/2)² = μ for U(0, a) factors; the sign of μ is all that a plain start cannot match.
        return rng.uniform(0.0, 2.0 * np.sqrt(max(mean, 0.0) / config.n_factors), shape)
    if config.init == "normal":
        return rng.normal(0.0, config.start_scale, shape)
    return _truncated(rng, shape, config.start_scale)


def _truncated(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Float[np.ndarray, "rows K"]:
    """Normal draws, those past two standard deviations drawn again."""
    out = rng.normal(0.0, 1.0, shape)
    while (far := np.abs(out) > 2.0).any():
        out[far] = rng.normal(0.0, 1.0, int(far.sum()))
    return sigma * out


def chunks(length: int, width: int) -> Iterator[slice]:
    """Slices of 0..length whose rows of `width` numbers stay within a few MiB."""
    size = max(1, _CELLS_AT_ONCE // max(1, width))
    for begin in range(0, length, size):
        yield slice(begin, begin + size)


def check_range(name: str, index: Any, size: int) -> None:
    """Refuse indices outside 0..size-1.

    Raises:
        IndexError: with the first offending position and value.
    """
    array = np.asarray(index)
    if array.size and (array.min() < 0 or array.max() >= size):
        at = np.argmax((array < 0) | (array >= size))
        raise IndexError(f"{name}[{at}] is {array[at]}, outside 0..{size - 1}; encode raw ids with the id map first")
