"""``python -m mf_torch``: the same command line, trained by autograd."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from mf_numpy.cli import BACKEND_GROUP, MODELS_GROUP, build_app, run
from mf_torch import fit
from mf_torch.paths import PATHS

if TYPE_CHECKING:
    from mf_numpy.suite import Suite


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where torch computes, and how."""

    device: Annotated[str, Parameter(group=BACKEND_GROUP, help="cpu, cuda or cuda:N; all ratings are moved there.")] = (
        "cpu"
    )
    path: Annotated[str, Parameter(group=BACKEND_GROUP, help=f"how torch finds the gradients: {', '.join(PATHS)}.")] = (
        "autograd"
    )
    graph: Annotated[
        bool,
        Parameter(
            name="--cuda-graph",
            group=BACKEND_GROUP,
            negative="",
            help="Replay a step of the full batch as one CUDA graph.",
        ),
    ] = False
    deterministic: Annotated[
        bool, Parameter(group=BACKEND_GROUP, negative="", help="Use torch's deterministic algorithms only.")
    ] = False
    tf32: Annotated[
        bool,
        Parameter(
            group=BACKEND_GROUP, negative="", help="Let CUDA round the factors of dense float32 products to 10 bits."
        ),
    ] = False
    sparse_grad: Annotated[
        bool,
        Parameter(
            group=BACKEND_GROUP,
            negative="",
            help="Of a gradient keep the rows of the mini-batch alone; for per_rating, and plain or adagrad steps.",
        ),
    ] = False
    storage: Annotated[
        str | None,
        Parameter(
            group=BACKEND_GROUP,
            help="bfloat16 or float16: round factors to it where ratings gather them, with --path fused.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CheckedWhere:
    """Where and by which paths the port is checked."""

    device: Annotated[str, Parameter(group=BACKEND_GROUP, help="cpu, cuda or cuda:N.")] = "cpu"
    path: Annotated[
        str | None,
        Parameter(
            group=BACKEND_GROUP,
            help=f"the one path to check, of {', '.join(PATHS)}; all but compiled, which is slow to start, by default.",
        ),
    ] = None


def _suite(device: str, path: str | None) -> Suite:
    # What the checks need is slow to import, and no other command needs it.
    from mf_torch.check import suite

    return suite(device, path)


app = build_app(
    "mf_torch",
    about="trained by autograd",
    fit=fit,
    fit_options=Where,
    check=_suite,
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
