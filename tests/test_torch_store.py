"""Parameters as state dicts, model files as modules, and a module put back among a fitted model's ids: bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mf_numpy
import mf_torch
from mf_numpy import Config, DataError, Split, store
from mf_numpy.model import Params
from mf_torch import MatrixFactorization
from mf_torch.store import from_state_dict, to_state_dict, with_module
from tests.cli_fixtures import Run


def same(a: Params, b: Params) -> bool:
    left, right = a.tensors(), b.tensors()
    return (
        left.keys() == right.keys()
        and all(left[k].dtype == right[k].dtype and left[k].tobytes() == right[k].tobytes() for k in left)
        and a.mu.hex() == b.mu.hex()
    )


def params(dtype: Any = "float32", *, biased: bool = True) -> Params:
    rng = np.random.default_rng(4)
    p, q = rng.normal(size=(5, 3)).astype(dtype), rng.normal(size=(4, 3)).astype(dtype)
    p[0, 0], p[1, 1], q[2, 2] = -0.0, 5e-324, np.float32(1e-42)  # a sign and numbers that float32 flushes easily
    if not biased:
        return Params(p, q)
    # A mean that float32 does not hold.
    return Params(p, q, rng.normal(size=5).astype(dtype), rng.normal(size=4).astype(dtype), mu=3.1 + 2**-50)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("biased", [False, True])
def test_a_state_dict_saved_as_tensors_alone_gives_every_bit_back(tmp_path: Path, dtype: Any, biased: bool) -> None:
    before = params(dtype, biased=biased)
    torch.save(to_state_dict(before), tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    assert same(from_state_dict(state), before)
    module = MatrixFactorization(from_state_dict(state))
    assert same(module.to_params(), before)
    assert same(from_state_dict(module.state_dict()), before)


def test_a_state_dict_shares_no_memory() -> None:
    before = params()
    state = to_state_dict(before)
    after = from_state_dict(state)
    state["P"].zero_()
    assert same(after, before) and same(before, params())


@pytest.mark.parametrize("trained_by", [mf_numpy.fit, mf_torch.fit])
@pytest.mark.parametrize("model", ["plain", "biased"])
def test_a_model_file_is_a_module_and_back(tmp_path: Path, small: Split, trained_by: Any, model: Any) -> None:
    result = trained_by(
        small.train, Config(model=model, n_factors=3, n_epochs=4, lr=2.0, patience=1), valid=small.valid
    )
    result.save(tmp_path / "a.safetensors")
    module = mf_torch.load(tmp_path / "a.safetensors")
    assert same(module.to_params(), result.params)
    back = with_module(store.load(tmp_path / "a.safetensors"), module)
    back.save(tmp_path / "b.safetensors")
    again, other = store.load(tmp_path / "a.safetensors"), store.load(tmp_path / "b.safetensors")
    assert same(again.params, other.params) and same(again.state.params, other.state.params)
    assert (again.history, again.status, again.message) == (other.history, other.status, other.message)


def test_the_command_line_writes_what_load_reads(mf: Run, model: str) -> None:
    module = mf_torch.load(model)
    result = store.load(model)
    users, items = result.catalogue.user_ids.encode([3, 7]), result.catalogue.item_ids.encode([4, 9])
    mine = module(torch.as_tensor(users), torch.as_tensor(items)).detach().numpy()
    np.testing.assert_allclose(mine, result.predict([3, 7], [4, 9]).values, rtol=1e-6)


def test_a_module_trained_further_goes_on_with_the_ids(tmp_path: Path, small: Split, quick: Config) -> None:
    result = mf_numpy.fit(small.train, quick)
    module = MatrixFactorization(result.params)
    assert with_module(result, module) is result
    with torch.no_grad():
        module.P.add_(0.25)
    moved = with_module(result, module)
    assert same(moved.params, module.to_params()) and same(moved.state.params, moved.params)
    assert moved.state.velocity is None and moved.state.epoch == result.state.epoch
    moved.save(tmp_path / "a")
    assert same(mf_torch.load(tmp_path / "a").to_params(), moved.params)
    on = mf_numpy.fit(small.train, replace(quick, n_epochs=quick.n_epochs + 1), resume=store.load(tmp_path / "a"))
    assert len(on.history) == quick.n_epochs + 1


def test_a_changed_mean_alone_is_a_change(small: Split, quick: Config) -> None:
    result = mf_numpy.fit(small.train, quick)
    module = MatrixFactorization(result.params)
    module.mu.add_(1e-9)
    assert with_module(result, module).params.mu == result.params.mu + 1e-9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_orig_mod.P": torch.zeros(1)}, "'_orig_mod.P', but P, Q, b, c and mu alone"),
        ({"c": None}, "lacks 'c'"),
        ({"mu": None}, "lacks 'mu'"),
        ({"Q": torch.zeros(4, 2)}, r"P has shape \(5, 3\) and Q \(4, 2\)"),
        ({"b": torch.zeros(4)}, r"b has shape \(4,\), but must be \(5,\)"),
        ({"c": torch.zeros(4, 1)}, r"c has shape \(4, 1\), but must be \(4,\)"),
        ({"mu": torch.zeros(2)}, r"mu has shape \(2,\)"),
        ({"c": torch.zeros(4, dtype=torch.float64)}, "c is torch.float64, but all"),
        ({"P": torch.zeros(5, 3, dtype=torch.bfloat16)}, "P is torch.bfloat16"),
    ],
)
def test_a_state_dict_of_something_else_is_refused(change: dict[str, Any], said: str) -> None:
    state = {k: v for k, v in (to_state_dict(params()) | change).items() if v is not None}
    with pytest.raises(DataError, match=said):
        from_state_dict(state)


def test_a_module_of_other_shapes_or_dtype_is_refused(small: Split, quick: Config) -> None:
    result = mf_numpy.fit(small.train, replace(quick, n_epochs=1))
    with pytest.raises(DataError, match=r"the module has P \(5, 3\), Q \(4, 3\).* but the fitted model P \(120, 3\)"):
        with_module(result, MatrixFactorization(params("float64")))
    with pytest.raises(DataError, match=r"torch\.float32|float32"):
        with_module(result, MatrixFactorization(result.params).float())
    with pytest.raises(DataError, match=r"the module has P .*, but the fitted model P .*, b \(120,\)"):
        with_module(result, MatrixFactorization(Params(result.params.P, result.params.Q)))


def test_a_file_that_is_not_there_or_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        mf_torch.load(tmp_path / "no.safetensors")
    torch.save({}, tmp_path / "a.pt")
    with pytest.raises(mf_numpy.FileFormatError, match="is not a model file"):
        mf_torch.load(tmp_path / "a.pt")


@pytest.mark.cuda
def test_a_model_file_on_the_gpu(tmp_path: Path, small: Split, quick: Config) -> None:
    result = mf_numpy.fit(small.train, replace(quick, n_epochs=2))
    result.save(tmp_path / "a")
    module = mf_torch.load(tmp_path / "a", device="cuda")
    assert module.P.is_cuda and module.mu.is_cuda
    assert same(module.to_params(), result.params)
