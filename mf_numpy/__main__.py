"""``python -m mf_numpy``: train and use models with hand-written gradients."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from mf_numpy import fit
from mf_numpy.cli import BACKEND_GROUP, build_app, run
from mf_numpy.engine import Backend

if TYPE_CHECKING:
    from mf_numpy.suite import Suite


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which of the hand-written forms of the gradient runs."""

    backend: Annotated[
        Backend,
        Parameter(group=BACKEND_GROUP, help="Compiled by Numba, SciPy's sparse products, or loops in plain Python."),
    ] = "numba"


def _suite() -> Suite:
    # What the checks need is slow to import, and no other command needs it.
    from mf_numpy.suite import Suite

    return Suite()


app = build_app(
    "mf_numpy",
    about="trained by gradients derived and written out by hand",
    fit=fit,
    fit_options=Where,
    check=_suite,
)

if __name__ == "__main__":
    sys.exit(run(app))
