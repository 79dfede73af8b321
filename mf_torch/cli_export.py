"""The command ``export``: a model file as a program; `mf_torch.__main__` gives it its arguments."""

from __future__ import annotations

from typing import Any

from mf_numpy import store
from mf_numpy.cli_output import console
from mf_numpy.cli_times import as_of
from mf_numpy.errors import ConfigError
from mf_numpy.files import check_writable
from mf_torch.export import export_scorer, export_top_n


def export(model: str, output: str | None, *, top_n: int | None, exclude: Any) -> None:
    """Write the scorer of a model file, or its `top_n` lists, and say what the program takes and gives."""
    if exclude is not None and top_n is None:
        raise ConfigError(f"exclude is {exclude!r} for a scorer, which ranks nothing; give --top-n, or drop it")
    target = output or ("scorer.pt2" if top_n is None else "top-n.pt2")
    check_writable(target)
    result = as_of(store.load(model))
    if top_n is None:
        export_scorer(result, target)
        about = "users (B,), items (B,) → ratings (B,)"
    else:
        exclude = exclude or "seen"
        export_top_n(result, target, top_n, exclude=exclude)
        mask = f", excluded (B, {len(result.catalogue.item_ids)})" if exclude == "mask" else ""
        about = f"users (B,){mask} → items (B, {top_n}), predictions (B, {top_n})"
    console().print(f"{about}, saved to {target}", soft_wrap=True)
