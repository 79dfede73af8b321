"""Shapes in annotations are checked while the tests run; CUDA tests run where there is a GPU."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest

if importlib.util.find_spec("beartype"):
    from jaxtyping import install_import_hook

    # Modules by name: the hook must not reach functions that Numba compiles.
    _SHAPED = ["mf_numpy.model", "mf_numpy.objective", "mf_numpy.gradients", "mf_torch.model", "mf_torch.objective"]
    install_import_hook(_SHAPED, "beartype.beartype")

from mf_numpy import Config, Ratings, Split, random_split
from tests.browser_fixtures import browser
from tests.data_fixtures import data_dir

__all__ = ["browser", "data_dir"]

# A bare CUDA machine has no command line.
if importlib.util.find_spec("cyclopts"):
    from tests.cli_fixtures import data, mf, model

    __all__ += ["data", "mf", "model"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-cuda", action="store_true", help="fail, rather than skip, CUDA tests without a GPU")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("thorough") is not None and os.environ.get("MF_THOROUGH") == "0":
        pytest.skip("MF_THOROUGH is 0")
    if item.get_closest_marker("cuda") is None:
        return
    import torch

    if torch.cuda.is_available():
        return
    if item.config.getoption("--require-cuda"):
        pytest.fail("--require-cuda was given, but torch sees no CUDA device")
    pytest.skip("torch sees no CUDA device")


@pytest.fixture(scope="session")
def small() -> Split:
    """Some 3,000 ratings of 120 users and 60 items with biases and two factors in them, 80/20."""
    rng = np.random.default_rng(3)
    m, n, size = 120, 60, 3000
    users, items = rng.integers(0, m, size), np.minimum(rng.geometric(0.05, size) - 1, n - 1)
    p, q = rng.normal(size=(m, 2)), rng.normal(size=(n, 2))
    values = 3 + 0.5 * rng.normal(size=m)[users] + 0.7 * rng.normal(size=n)[items] + (p[users] * q[items]).sum(axis=1)
    return random_split(Ratings.of_indices(users, items, values + 0.3 * rng.normal(size=size), m=m, n=n))


@pytest.fixture
def quick() -> Config:
    """A configuration that learns the `small` ratings in a few epochs."""
    return Config(n_factors=3, n_epochs=30, lr=5.0, reg=0.01, momentum_form="nesterov", dtype="float64")
