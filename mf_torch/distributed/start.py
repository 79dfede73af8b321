"""The rows of a process of the start that a single process draws (Eq. 25), bit for bit, and never the whole of it."""

from __future__ import annotations

import numpy as np

from mf_numpy import model
from mf_numpy.config import Config
from mf_numpy.model import Params
from mf_numpy.ratings import Array

_AT_ONCE = 1 << 20
"""Numbers that are drawn together."""


def start(shape: tuple[int, int], mean: float, config: Config, users: range, items: range) -> Params:
    """The rows `users` and `items` of what `mf_numpy.model.start` draws for m users and n items.

    Every process draws all numbers in turn, since how many bits a normal one takes is known only when it is drawn, and
    keeps its own.

    Args:
        shape: (m, n).
        mean: μ over all ratings.
    """
    rng = np.random.default_rng(config.seed)
    p, q = (_rows(rng, size, own, config, mean) for size, own in zip(shape, (users, items), strict=True))
    dtype = config.numpy_dtype
    if config.model == "plain":
        return Params(p.astype(dtype), q.astype(dtype))
    b, c = np.zeros(len(users), dtype), np.zeros(len(items), dtype)
    return Params(p.astype(dtype), q.astype(dtype), b, c, mu=mean)


def _rows(rng: np.random.Generator, size: int, own: range, config: Config, mean: float) -> Array:
    """Rows `own` of a table of `size` rows, drawn a few at a time."""
    k = config.n_factors
    if config.init == "truncated_normal":
        return config.start_scale * _truncated(rng, size * k, range(own.start * k, own.stop * k)).reshape(len(own), k)
    out = np.empty((len(own), k))
    for begin, end in _pieces(size, max(1, _AT_ONCE // k)):
        drawn = model.draw(rng, (end - begin, k), config, mean)
        low, high = max(begin, own.start), min(end, own.stop)
        if low < high:
            out[low - own.start : high - own.start] = drawn[low - begin : high - begin]
    return out


def _truncated(rng: np.random.Generator, size: int, own: range) -> Array:
    """Numbers `own` of `size` normal ones, of which those past two standard deviations are drawn again.

    Each round draws anew, in their order, all that were too far in the one before; `at` is where this process's stand
    among them, and `places` where they belong.
    """
    out = np.empty(len(own))
    at, places = np.arange(own.start, own.stop), np.arange(len(own))
    while size:
        n_far, again_at, again_places = 0, [at[:0]], [places[:0]]
        for begin, end in _pieces(size, _AT_ONCE):
            drawn = rng.normal(0.0, 1.0, end - begin)
            far = np.abs(drawn) > 2.0
            mine = slice(*np.searchsorted(at, [begin, end]))
            here = at[mine] - begin
            out[places[mine]] = drawn[here]
            again_at.append((n_far + np.cumsum(far) - 1)[here[far[here]]])
            again_places.append(places[mine][far[here]])
            n_far += int(far.sum())
        size, at, places = n_far, np.concatenate(again_at), np.concatenate(again_places)
    return out


def _pieces(size: int, at_once: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + at_once, size)) for begin in range(0, size, at_once)]
