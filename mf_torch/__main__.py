"""``python -m mf_torch``: the same command line, trained by autograd."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from mf_numpy.cli import BACKEND_GROUP, MODELS_GROUP, build_app, run
from mf_torch import check, fit


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where torch computes."""

    device: Annotated[str, Parameter(group=BACKEND_GROUP, help="cpu, cuda or cuda:N; all ratings are moved there.")] = (
        "cpu"
    )
    deterministic: Annotated[
        bool, Parameter(group=BACKEND_GROUP, negative="", help="Use torch's deterministic algorithms only.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class CheckedWhere:
    """Where autograd is checked."""

    device: Annotated[str, Parameter(group=BACKEND_GROUP, help="cpu, cuda or cuda:N.")] = "cpu"


app = build_app(
    "mf_torch",
    about="trained by autograd",
    fit=fit,
    fit_options=Where,
    check=check.suite,
    check_options=CheckedWhere,
)


@app.command(group=MODELS_GROUP)
def export(
    model: Annotated[str, Parameter(help="Model file that `fit` saved.")],
    /,
    *,
    output: Annotated[
        str | None, Parameter(name=("--output", "-o"), help="File to write; default: scorer.pt2, or top-n.pt2.")
    ] = None,
    top_n: Annotated[
        int | None, Parameter(validator=Number(gte=1), help="Rank this many items for each user, not score pairs.")
    ] = None,
    exclude: Annotated[
        str | None,
        Parameter(
            help="What a ranking leaves out: seen (each user's ratings, kept in the file; the default), mask (what a "
            "second input marks) or nothing."
        ),
    ] = None,
) -> None:
    """Write a program that torch.export.load runs where this project is not installed."""
    from mf_torch import cli_export

    cli_export.export(model, output, top_n=top_n, exclude=exclude)


if __name__ == "__main__":
    sys.exit(run(app))
