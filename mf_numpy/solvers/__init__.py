"""What minimises Eq. 2: one engine a solver, all driven by the loop of `mf_numpy.train`.

``gd`` is `mf_numpy.engine.NumpyEngine`, and with Numba that of `mf_numpy.solvers.gd`; the others are here, one file
each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from mf_numpy.config import Config
from mf_numpy.engine import Backend, Engine, NumpyEngine
from mf_numpy.errors import ConfigError, choose
from mf_numpy.solvers.als import AlsEngine
from mf_numpy.solvers.cd import CdEngine
from mf_numpy.solvers.gd import CompiledEngine
from mf_numpy.solvers.gibbs import GibbsEngine
from mf_numpy.solvers.hmc import HmcEngine
from mf_numpy.solvers.lbfgs import LbfgsEngine
from mf_numpy.solvers.sgd import SgdEngine

Make = Callable[[Backend], Engine[Any]]


def engine_for(config: Config, backend: Backend) -> Engine[Any]:
    """The engine of the configured solver.

    Raises:
        ConfigError: a backend that there is none of, or that the solver does not run on.
    """
    choose("backend", backend, get_args(Backend))
    backends, make = _SOLVERS[config.solver]
    if backend not in backends:
        ways = " or ".join(repr(name) for name in backends)
        raise ConfigError(f"backend is {backend!r} with solver {config.solver!r}, which runs on {ways}")
    return make(backend)


def _gradient_descent(backend: Backend) -> Engine[Any]:
    return CompiledEngine(backend) if backend == "numba" else NumpyEngine(backend)


_SOLVERS: Mapping[str, tuple[tuple[Backend, ...], Make]] = {
    "gd": (("numba", "numpy", "loops"), _gradient_descent),
    "sgd": (("numba", "loops"), SgdEngine),
    "als": (("numba", "loops"), AlsEngine),
    "cd": (("numba", "loops"), CdEngine),
    "lbfgs": (("numba", "numpy", "loops"), LbfgsEngine),
    "gibbs": (("numba", "loops"), GibbsEngine),
    "hmc": (("numba", "numpy", "loops"), HmcEngine),
}
