"""Factors rounded to 16 bits where ratings gather them: the step is the hand-written one at the rounded factors."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mf_numpy
import mf_torch
from mf_numpy import Config, ConfigError, Split, gradients, optim
from mf_numpy.batch import Batch, full_batch, mini_batches
from mf_numpy.check import cases, relative_difference
from mf_numpy.metrics import score
from mf_numpy.model import Params
from mf_torch import MatrixFactorization
from mf_torch.batch import to_device
from mf_torch.paths.half import STORAGES, Half
from mf_torch.train import TorchEngine, TorchState

ROOT = Path(__file__).parent.parent
CASES = [case for case in cases() if "unsorted" in case.name or "empty" in case.name]
TOLERANCE = 1e-5
"""Sums in float32 beside sums in float64; a factor that is not rounded is off by a thousandth or more."""


def rounded(params: Params, storage: str, dtype: Any = np.float64) -> Params:
    """The parameters with P and Q rounded, in another dtype; torch rounds to nearest, ties to even."""
    tables = {name: torch.from_numpy(np.array(x)).float() for name, x in params.tensors().items()}
    tables |= {name: tables[name].to(STORAGES[storage]).float() for name in ("P", "Q")}
    return params.with_tensors({name: x.numpy().astype(dtype) for name, x in tables.items()})


def narrow(params: Params, batch: Batch) -> tuple[Params, Batch]:
    """Both in float32."""
    tables = {name: x.astype(np.float32) for name, x in params.tensors().items()}
    return params.with_tensors(tables), replace(batch, values=batch.values.astype(np.float32))


def differences(case: Any, storage: str, device: str = "cpu") -> dict[str, float]:
    """Of J, Σ squared errors and every gradient, from the hand-written ones at the rounded factors."""
    params, batch = narrow(case.params, case.batch)
    module, path = MatrixFactorization(params, device), Half(storage)
    seen = path.differentiate(module, path.lay_out(to_device(batch, device), case.config), case.config)
    wide = replace(batch, values=batch.values.astype(np.float64))
    gold = gradients.gradient(rounded(params, storage), wide, case.config)
    assert all(p.dtype == torch.float32 and p.grad is not None for p in module.parameters())
    grads = {name: p.grad.cpu().numpy() for name, p in module.named_parameters() if p.grad is not None}
    return {name: relative_difference(grads[name], g) for name, g in gold.gradient.items()} | {
        "J": abs(float(seen.value) / gold.objective - 1),
        "squared error": abs(float(seen.squared_error) / gold.squared_error - 1),
    }


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradients_are_the_hand_written_ones_at_the_rounded_factors(case: Any, storage: str) -> None:
    assert max(differences(case, storage).values()) <= TOLERANCE


@pytest.mark.parametrize("storage", STORAGES)
def test_interpreted_kernels_read_16_bits_and_add_up_in_32(storage: str) -> None:
    pytest.importorskip("triton")
    code = f"""
from mf_torch.paths import fused, half, rows, triton_rows
from tests.test_half import CASES, TOLERANCE, differences
fused.by_triton = half.by_triton = lambda batch: True
rows.PIECE, triton_rows._AT_ONCE = 6, 64
for case in CASES[::3]:
    found = differences(case, {storage!r})
    assert max(found.values()) <= TOLERANCE, (case.name, found)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ, TRITON_INTERPRET="1"), capture_output=True, text=True,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("batch_size", [None, 100])
@pytest.mark.parametrize("rule", [{"momentum": 0.9}, {"step_rule": "adam", "momentum": 0.0, "lr": 0.01}])
def test_steps_start_from_what_is_not_rounded(small: Split, batch_size: int | None, rule: dict[str, Any]) -> None:
    config = Config(n_factors=5, n_epochs=3, lr=1.0, dtype="float32", batch_size=batch_size, seed=2)
    config = replace(config, **rule)
    found = mf_torch.fit(small.train, config, path="fused", storage="bfloat16").params
    params, memory = mf_numpy.init(small.train, config).params, None
    for epoch in range(1, 4):
        for batch in mini_batches(full_batch(small.train, config), epoch, config):
            seen = gradients.gradient(rounded(params, "bfloat16", np.float32), batch, config)
            lr = config.lr_at(epoch)
            moved, memory = optim.update(params.tensors(), memory, seen.gradient, lr, config)
            params = params.with_tensors(moved)
    for name, theta in params.tensors().items():
        # A last bit may tip a rounding the other way in the second step, for one number of some thousand.
        assert relative_difference(found.tensors()[name], theta) <= 2e-3, name
        assert np.median(abs(found.tensors()[name] - theta)) <= 1e-6 * abs(theta).max(), name


def test_small_steps_are_not_lost(small: Split) -> None:
    config = Config(n_factors=4, n_epochs=1, lr=1e-3, momentum=0.0, dtype="float32")
    begun = mf_numpy.init(small.train, config).params
    ended = mf_torch.fit(small.train, config, path="fused", storage="bfloat16").params
    changed = ended.P != begun.P
    assert changed.mean() > 0.9
    assert (rounded(ended, "bfloat16").P == rounded(begun, "bfloat16").P).mean() > 0.9


@pytest.mark.parametrize("storage", STORAGES)
def test_a_fit_ends_where_that_of_float32_does(small: Split, quick: Config, storage: str) -> None:
    config = replace(quick, dtype="float32", n_factors=8, n_epochs=60)
    exact = mf_torch.fit(small.train, config, path="fused", valid=small.valid)
    half = mf_torch.fit(small.train, config, path="fused", storage=storage, valid=small.valid)
    assert half.details["storage"] == storage and exact.details["storage"] is None
    ends = [score(fit.params, small.valid, small.train.mean).rmse for fit in (exact, half)]
    assert ends[0] < 0.9 * score(mf_numpy.init(small.train, config).params, small.valid, small.train.mean).rmse
    assert ends[1] == pytest.approx(ends[0], abs=2e-3) and ends[1] != ends[0]


def test_a_resumed_run_is_the_straight_one(small: Split, quick: Config) -> None:
    config = replace(quick, dtype="float32", n_epochs=6)
    straight = mf_torch.fit(small.train, config, path="fused", storage="float16")
    part = mf_torch.fit(small.train, replace(config, n_epochs=2), path="fused", storage="float16")
    resumed = mf_torch.fit(small.train, config, path="fused", storage="float16", resume=part)
    for name, theta in straight.params.tensors().items():
        assert np.array_equal(resumed.params.tensors()[name], theta)


@pytest.mark.parametrize(
    ("settings", "how", "message"),
    [
        ({}, {"path": "manual"}, "storage is 'bfloat16' with path 'manual'; leave it out, or use path='fused'"),
        ({}, {"sparse_grad": True}, "storage is 'bfloat16' with path 'autograd'"),
        ({"dtype": "float64"}, {"path": "fused"}, "with dtype 'float64', but .*; use dtype='float32', or leave"),
        ({}, {"path": "fused", "storage": "bf16"}, "storage is 'bf16', but must be .*bfloat16"),
    ],
)
def test_where_it_cannot_be(small: Split, settings: dict[str, Any], how: dict[str, Any], message: str) -> None:
    config = Config(n_epochs=1, **settings)
    with pytest.raises(ConfigError, match=message):
        mf_torch.fit(small.train, config, **{"storage": "bfloat16"} | how)


# On a GPU


def _first(small: Split, config: Config, device: str, storage: str | None, graph: bool = False) -> TorchState:
    engine = TorchEngine(device, "fused", storage=storage, graph=graph)
    whole = engine.load(small.train, config)
    return engine.step(engine.start(mf_numpy.init(small.train, config), whole, config), whole, config)


@pytest.mark.cuda
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cuda_gradients(case: Any, storage: str) -> None:
    assert max(differences(case, storage, "cuda").values()) <= TOLERANCE


@pytest.mark.cuda
@pytest.mark.parametrize("n_factors", [1, 16, 64, 100, 256])
@pytest.mark.parametrize("storage", STORAGES)
def test_cuda_steps(small: Split, quick: Config, storage: str, n_factors: int) -> None:
    config = replace(quick, dtype="float32", n_factors=n_factors)
    here, there = (_first(small, config, device, storage).module.to_params() for device in ("cpu", "cuda"))
    for name, theta in here.tensors().items():
        assert relative_difference(there.tensors()[name], theta) <= TOLERANCE


@pytest.mark.cuda
def test_cuda_fits_have_the_same_bits_with_and_without_a_graph(small: Split, quick: Config) -> None:
    config = replace(quick, dtype="float32")
    one, two = (
        mf_torch.fit(small.train, config, device="cuda", path="fused", storage="bfloat16", graph=graph).params
        for graph in (False, True)
    )
    for name, theta in one.tensors().items():
        assert relative_difference(two.tensors()[name], theta) <= 1e-4
