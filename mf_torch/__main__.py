"""``python -m mf_torch``: the same command line, trained by autograd."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from mf_numpy.cli import BACKEND_GROUP, build_app, run
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

if __name__ == "__main__":
    sys.exit(run(app))
