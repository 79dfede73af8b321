"""Eq. 33 to 35: users and items described by features, and how the gradient finds its way back to these.

Symbols: X (m, f) and Y (n, g), sparse: what each user and each item is made of; W (f, K), Z (g, K), w (f,), z (g,): the
parameters of the features, kept as a `Params` whose P, Q, b and c they are. Everywhere here θ is such a `Params`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Inexact

from mf_numpy import grades, gradients, losses, model
from mf_numpy.batch import Batch, Counted
from mf_numpy.config import Config
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.model import Params, Tensors
from mf_numpy.objective import Evaluation, norms, total
from mf_numpy.ratings import Ratings

if TYPE_CHECKING:
    from mf_numpy.timed import Times


@dataclass(frozen=True, eq=False)
class Side:
    """What the rows of one side are made of.

    Attributes:
        matrix: (rows, features) sparse and float64: how much of each feature a row has.
        names: (features,) what each feature is called, such as ``genre=Drama``.
        blocks: how many features each block has, which are alike before any rating is seen; by default one has all.

    Raises:
        DataError: numbers that are not finite, another number of names, or blocks of another number of features.
    """

    matrix: sp.csr_array
    names: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # A copy: a matrix that is summed or sorted in place must not be the caller's.
        matrix = sp.csr_array(self.matrix, copy=True).astype(np.float64)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        if not np.isfinite(matrix.data).all():
            raise DataError("a design matrix holds numbers that are not finite; fill them in, or leave the row empty")
        names = self.names or tuple(f"feature {k}" for k in range(matrix.shape[1]))
        if len(names) != matrix.shape[1]:
            raise DataError(f"{len(names)} names came for {matrix.shape[1]} features; give one name a feature")
        blocks = tuple(map(int, self.blocks)) or (matrix.shape[1],)
        if sum(blocks) != matrix.shape[1] or min(blocks) < 0:
            raise DataError(f"blocks of {blocks} features came for {matrix.shape[1]}; give each feature to one block")
        object.__setattr__(self, "blocks", blocks)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "names", tuple(names))

    @classmethod
    def identity(cls, rows: int, names: tuple[str, ...] = ()) -> Side:
        """Each row a feature of its own: the factorisation without features."""
        return cls(sp.eye_array(rows, format="csr"), names)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, features)."""
        rows, features = self.matrix.shape
        return int(rows), int(features)

    @cached_property
    def transposed(self) -> sp.csr_array:
        """(features, rows)."""
        return self.matrix.T.tocsr()

    @cached_property
    def is_identity(self) -> bool:
        """Whether each row is its own feature and nothing else, so that rows and features are the same."""
        rows, features = self.shape
        return rows == features == self.matrix.nnz and bool(
            (self.matrix.indices == np.arange(rows)).all() and (self.matrix.data == 1).all()
        )

    @cached_property
    def has(self) -> sp.csr_array:
        """(features, rows): 1 where a row has the feature at all."""
        out = self.transposed.copy()
        out.data = np.ones_like(out.data)
        return out


@dataclass(frozen=True, eq=False)
class Design:
    """What users and items are made of: X and Y of Eq. 33.

    Attributes:
        users, items: the sides.
        times: what describes them at other times, where they are users and items at a time; else None.
    """

    users: Side
    items: Side
    times: Times | None = None

    @classmethod
    def identity(cls, train: Ratings) -> Design:
        """X = I and Y = I: the factorisation without features."""
        return cls(Side.identity(train.n_users), Side.identity(train.n_items))

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.users.shape[0], self.items.shape[0]

    def same_as(self, other: Design) -> bool:
        """Whether users and items are made of the same."""
        return all(
            a.names == b.names and a.shape == b.shape and a.blocks == b.blocks and abs(a.matrix - b.matrix).nnz == 0
            for a, b in ((self.users, other.users), (self.items, other.items))
        )

    def check(self, train: Ratings) -> None:
        """Refuse ratings of other users or items.

        Raises:
            DataError: another number of them.
        """
        if self.shape != train.shape:
            (m, n), (users, items) = self.shape, train.shape
            raise DataError(
                f"the design describes {m} users and {n} items, but the training ratings have {users} and {items}; "
                "make it from the ratings that are trained on"
            )


def start(train: Ratings, design: Design, config: Config) -> Params:
    """Starting parameters of the features, drawn as those of rows are (Eq. 25): W before Z.

    Raises:
        ConfigError: a start whose mean prediction is the mean rating, which sums of features do not have.
    """
    if config.init == "mean":
        raise ConfigError("init is 'mean', but with a design a row is a sum of features; use init='normal'")
    rng = np.random.default_rng(config.seed)
    f, g = design.users.shape[1], design.items.shape[1]
    dtype = config.numpy_dtype
    cuts = grades.begun(train, config) if config.loss == "ordinal" else None
    w, z = (model.draw(rng, (k, config.n_factors), config, train.mean).astype(dtype) for k in (f, g))
    if config.model == "plain":
        return Params(w, z, cuts=cuts)
    mu = losses.prediction_of(train.mean, config)
    return Params(w, z, np.zeros(f, dtype), np.zeros(g, dtype), mu, cuts)


def rows(theta: Params, design: Design) -> Params:
    """The parameters of users and items that those of their features make (Eq. 33)."""
    dtype = theta.P.dtype
    x, y = design.users.matrix, design.items.matrix
    p, q = (x @ theta.P).astype(dtype), (y @ theta.Q).astype(dtype)  # Eq. 33
    if theta.b is None or theta.c is None:
        return Params(p, q, mu=theta.mu, cuts=theta.cuts)
    return Params(p, q, (x @ theta.b).astype(dtype), (y @ theta.c).astype(dtype), theta.mu, theta.cuts)  # Eq. 33


def penalty_weights(
    batch: Counted, design: Design, config: Config
) -> tuple[Inexact[np.ndarray, " f"], Inexact[np.ndarray, " g"]]:
    """Weights of the features' penalty (Eq. 35): all 1, or the share of the ratings whose row has the feature."""
    dtype = batch.values.dtype
    if config.penalty == "total":
        return np.ones(design.users.shape[1], dtype), np.ones(design.items.shape[1], dtype)
    n_f, n_g = design.users.has @ batch.user_counts, design.items.has @ batch.item_counts  # Eq. 35
    return (n_f / len(batch)).astype(dtype), (n_g / len(batch)).astype(dtype)


def objective(theta: Params, batch: Batch, design: Design, config: Config) -> Any:
    """J (Eq. 2) of the rows that the features make, with the penalty on them; complex for complex parameters."""
    loss = losses.value(model.predict(rows(theta, design), batch.users, batch.items), batch.values, config)
    return total(loss) / len(batch) + config.reg * norms(theta, *penalty_weights(batch, design, config))


def collect(of_rows: Tensors, design: Design) -> Tensors:
    """The gradient of the features from that of the rows, without penalty (Eq. 34)."""
    back = {"P": design.users, "b": design.users, "Q": design.items, "c": design.items}
    return {name: (back[name].transposed @ g).astype(g.dtype) for name, g in of_rows.items()}  # Eq. 34


def gradient(theta: Params, batch: Batch, design: Design, config: Config) -> Evaluation:
    """J and ∇J by the features' parameters over the batch (Eq. 34), in their shapes and dtype.

    ∇W = Xᵀ ∇P of the data term alone, plus the pull of the penalty on W itself.
    """
    seen = gradients.gradient(rows(theta, design), batch, without_penalty(config))
    w_f, w_g = penalty_weights(batch, design, config)
    grads = collect(seen.gradient, design)
    for name, value in theta.tensors().items():
        weight = w_f if name in ("P", "b") else w_g
        grads[name] += 2 * config.reg * (weight[:, None] if value.ndim == 2 else weight) * value  # Eq. 34
    return Evaluation(seen.objective + config.reg * norms(theta, w_f, w_g), seen.squared_error, grads)


@cache
def without_penalty(config: Config) -> Config:
    """The same data term alone."""
    return replace(config, reg=0.0)
