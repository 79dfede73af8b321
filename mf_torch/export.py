"""A fitted model as a program of its own: a ``.pt2`` file that `torch.export.load` runs without this project.

    facts = {"mf.json": ""}
    program = torch.export.load("scorer.pt2", extra_files=facts).module()
    program(users, items)          # (B,) int64 each → predicted ratings (B,)

Programs take indices, not raw ids. ``mf.json``, within the file, says which id each index is.
"""

from __future__ import annotations

import io
import json
import os
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mf_numpy.errors import choose
from mf_numpy.files import check_writable, replacing
from mf_numpy.result import FitResult
from mf_torch.model import MatrixFactorization
from mf_torch.recommend import TopN, assert_in_range

FORMAT = "mf-program"
VERSION = 1
FACTS = "mf.json"

Exclude = Literal["seen", "mask", "nothing"]


class Scorer(nn.Module):
    """users (B,), items (B,) → predicted ratings (B,) (Eq. 1), with ids out of range refused wherever it runs."""

    def __init__(self, model: MatrixFactorization) -> None:
        super().__init__()
        self.model = model

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Predicted ratings (B,) of pairs of int64 indices (B,).

        Raises:
            RuntimeError: an index outside 0..m-1 or 0..n-1, negative ones too; on CUDA a device assertion.
        """
        assert_in_range("users", users, self.model.P.shape[0])
        assert_in_range("items", items, self.model.Q.shape[0])
        predicted: Tensor = self.model(users, items)
        return predicted


def export_scorer(result: FitResult, path: str | os.PathLike[str]) -> None:
    """Write the program users (B,) int64, items (B,) int64 → ratings (B,) in the model's dtype, for any B.

    The file appears under its name only when it is whole.

    Raises:
        OSError: the file cannot be written; as `mf_numpy.store.save`.
    """
    check_writable(path)
    pairs = (torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    _write(Scorer(_frozen(result)), pairs, result, path, {"kind": "scorer", "inputs": ["users", "items"]})


def export_top_n(result: FitResult, path: str | os.PathLike[str], n: int = 10, *, exclude: Exclude = "seen") -> None:
    """Write the program users (B,) int64 → items (B, n) int64 and predictions (B, n), best first, for any B.

    Ties go to the smaller index; where fewer than n items are left the rest is -1 and -inf.

    Args:
        n: length of the lists.
        exclude: ``seen`` leaves out what each user had rated in training, which the file then holds; ``mask`` makes
            the program take a second input, (B, n_items) bool, True where an item is left out; ``nothing`` ranks all.

    Raises:
        ConfigError: an `exclude` that is none of these.
        ValueError: n below 1.
        OSError: the file cannot be written; as `mf_numpy.store.save`.
    """
    choose("exclude", exclude, get_args(Exclude))
    check_writable(path)
    model = _frozen(result)
    lists = TopN(model, n, seen=result.catalogue.seen if exclude == "seen" else None)
    inputs: tuple[Tensor, ...] = (torch.zeros(2, dtype=torch.int64),)
    if exclude == "mask":
        inputs += (torch.zeros(2, len(model.Q), dtype=torch.bool),)
    names = ["users", "excluded"][: len(inputs)]
    _write(lists, inputs, result, path, {"kind": "top_n", "inputs": names, "n": n, "exclude": exclude})


def _frozen(result: FitResult) -> MatrixFactorization:
    return MatrixFactorization(result.params).eval().requires_grad_(False)


def _write(
    program: nn.Module,
    inputs: tuple[Tensor, ...],
    result: FitResult,
    path: str | os.PathLike[str],
    facts: dict[str, Any],
) -> None:
    size = torch.export.Dim("B", min=0)
    exported = torch.export.export(program, inputs, dynamic_shapes=tuple({0: size} for _ in inputs))
    for node in exported.graph.nodes:
        # It names the folder of this checkout.
        node.meta.pop("stack_trace", None)
    catalogue = result.catalogue
    about = {
        "format": FORMAT,
        "version": VERSION,
        **facts,
        "mean": catalogue.mean,
        "scale": catalogue.scale,
        "user_ids": catalogue.user_ids.raw.tolist(),
        "item_ids": catalogue.item_ids.raw.tolist(),
    }
    # Through memory: torch.export.save wants a name that ends in .pt2, and the half-written file has another.
    buffer = io.BytesIO()
    torch.export.save(exported, buffer, extra_files={FACTS: json.dumps(about)})
    with replacing(path) as partial:
        partial.write_bytes(buffer.getbuffer())
