"""Top-N items of users on the device; the twin of `mf_numpy.recommend`, with the same order of ties.

Shapes: B users; P (m, K), Q (n_items, K); scores (B, n_items).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mf_numpy.diversity import CANDIDATES, check_diversity, diversify
from mf_numpy.model import check_range
from mf_numpy.ranking import Scorer
from mf_numpy.ratings import Array, Layout
from mf_numpy.recommend import check_length, hidden_items
from mf_numpy.result import Catalogue
from mf_torch.model import MatrixFactorization

_SCORES_AT_ONCE = 1 << 23


class TopN(nn.Module):
    """users (B,) → their best items: indices (B, n) int64 and predictions (B, n), best first.

    Ties go to the smaller index. Where a user has fewer than n items left the rest is index -1 and -inf. There is no
    branch on data, so it exports, and compiles to one graph, for any B.

    Attributes:
        model: the parameters.
        n: length of the lists.
        indptr, indices: the items that each user rated, buffers (m + 1,) and (N,) int64, or None to leave none out.
        most: the largest number of ratings of a user.
    """

    indptr: Tensor | None
    indices: Tensor | None

    def __init__(self, model: MatrixFactorization, n: int, *, seen: Layout | None = None) -> None:
        """Raises ValueError for n below 1; `seen` is what is left out of the lists."""
        super().__init__()
        check_length(n)
        self.model = model
        self.n = n
        self.most = 0 if seen is None else int(np.diff(seen.indptr).max(initial=0))

        def buffer(array: Array) -> Tensor:
            return torch.as_tensor(array.astype(np.int64), device=model.P.device)

        # Not in the state dict: they are the training set's, not the model's.
        self.register_buffer(
            "indptr", buffer(seen.indptr) if seen is not None and self.most else None, persistent=False
        )
        self.register_buffer(
            "indices", buffer(seen.indices) if seen is not None and self.most else None, persistent=False
        )

    def forward(self, users: Tensor, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The lists of `users` (B,) int64, without items marked in `excluded`, a bool mask (B, n_items) or (n_items,).

        Raises:
            RuntimeError: a user outside 0..m-1, negative ones too; on CUDA a device assertion.
        """
        assert_in_range("users", users, self.model.P.shape[0])
        scores = score_all(self.model, users)
        if self.indptr is not None and self.indices is not None:
            scores = self._without_seen(scores, users, self.indptr, self.indices)
        if excluded is not None:
            scores = scores.masked_fill(excluded, -torch.inf)
        items, found = best_first(scores, min(self.n, scores.shape[1]))
        items = torch.where(torch.isneginf(found), -1, items)
        missing = self.n - items.shape[1]
        return F.pad(items, (0, missing), value=-1), F.pad(found, (0, missing), value=-torch.inf)

    def _without_seen(self, scores: Tensor, users: Tensor, indptr: Tensor, indices: Tensor) -> Tensor:
        """Scores (B, n_items) with -inf at the items that each user rated.

        Every user gets a row of as many places as the busiest needs, so that no shape depends on the data; places left
        over point to a column past the last item, which is cut off.
        """
        n_items = scores.shape[1]
        begin, end = indptr[users][:, None], indptr[users + 1][:, None]
        at = begin + torch.arange(self.most, device=users.device)
        places = torch.where(at < end, indices[at.clamp(max=len(indices) - 1)], n_items)
        return F.pad(scores, (0, 1)).scatter(1, places, -torch.inf)[:, :n_items]


def assert_in_range(name: str, index: Tensor, size: int) -> None:
    """Refuse indices outside 0..size-1 by an operation of the graph, so that exported and compiled programs do, too."""
    # A compiled gather would take -1 for the last row.
    inside = ((index >= 0) & (index < size)).all()
    torch._assert_async(inside, f"{name} must lie in 0..{size - 1}; encode raw ids with the id map first")


def score_all(model: MatrixFactorization, users: Tensor) -> Tensor:
    """r̂ of every item for `users` (B,): (B, n_items), by one matrix product (Eq. 1)."""
    scores = F.embedding(users, model.P) @ model.Q.T + model.mu.to(model.P.dtype)
    if model.b is not None and model.c is not None:
        scores = scores + model.b[users][:, None] + model.c
    return scores


def best_first(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Column indices (B, k) of the k largest of each row, largest first, ties by index; and their scores (B, k)."""
    columns = scores.shape[1]
    # topk leaves the order of ties open: take what lies above the k-th score, then ties from the left.
    border = scores.topk(k, dim=1).values[:, -1:]
    above, level = scores > border, scores == border
    chosen = above | (level & (level.cumsum(1) <= k - above.sum(1, keepdim=True)))
    from_the_left = torch.where(chosen, torch.arange(columns, 0, -1, device=scores.device), 0)
    items = from_the_left.topk(k, dim=1).indices
    found, order = scores.gather(1, items).sort(dim=1, descending=True, stable=True)
    return items.gather(1, order), found


@torch.no_grad()
def top_n(
    model: MatrixFactorization,
    catalogue: Catalogue,
    users: Array,
    n: int,
    *,
    with_seen: bool = False,
    items: Array | None = None,
    without: Array | None = None,
    diversity: float = 0.0,
) -> tuple[Array, Array]:
    """Best items of many users, in blocks on the model's device: the twin of `mf_numpy.recommend.top_n`.

    Candidates are found on the device; with a diversity, `mf_numpy.diversity` chooses among them.

    Args:
        items: the only items to rank: indices, or a mask (n_items,) bool; all if None.
        without: items to leave out, likewise.
        diversity: in [0, 1), as in `mf_numpy.recommend.top_n`.

    Returns:
        Indices (B, n) int64 and predictions (B, n), best first, as NumPy arrays.

    Raises:
        ConfigError: a diversity outside [0, 1).
        IndexError: a user index outside 0..m-1, or an item index outside 0..n_items-1.
        ValueError: n below 1, or a mask of another length.
    """
    (n_items, k), device = model.Q.shape, model.P.device
    check_range("users", users, len(model.P))
    check_length(n)
    check_diversity(diversity)
    hidden = hidden_items(n_items, items, without)
    excluded = None if hidden is None else torch.as_tensor(hidden, device=device)
    length = CANDIDATES * n if diversity else n
    lists = TopN(model, length, seen=None if with_seen else catalogue.seen)
    q = model.Q.detach().cpu().numpy()
    size = max(1, _SCORES_AT_ONCE // max(1, n_items, length * k if diversity else 0))
    best, values = [np.empty((0, n), np.int64)], [np.empty((0, n), q.dtype)]
    for begin in range(0, len(users), size):
        block = torch.as_tensor(users[begin : begin + size].astype(np.int64), device=device)
        order, found = (x.cpu().numpy() for x in lists(block, excluded))
        if diversity:
            order, found = diversify(q, order, found, n, diversity)
        best.append(order)
        values.append(found)
    return np.concatenate(best), np.concatenate(values)


def scorer(model: MatrixFactorization) -> Scorer:
    """What `mf_numpy.ranking.score_ranking` scores: users (B,) → the model's scores (B, n_items), from its device."""

    @torch.no_grad()
    def scores(users: Array) -> Array:
        on_device = torch.as_tensor(users.astype(np.int64), device=model.P.device)
        return score_all(model, on_device).cpu().numpy()

    return scores
