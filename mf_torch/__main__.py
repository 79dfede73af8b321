"""``python -m mf_torch``: the same command line, trained by autograd."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from mf_numpy.cli import BACKEND_GROUP, build_app, run
from mf_torch import check, fit
from mf_torch.paths import PATHS


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


app = build_app(
    "mf_torch",
    about="trained by autograd",
    fit=fit,
    fit_options=Where,
    check=check.suite,
    check_options=CheckedWhere,
)

if __name__ == "__main__":
    sys.exit(run(app))
