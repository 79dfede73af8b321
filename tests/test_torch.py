"""The port: parameters both ways, devices, deterministic mode, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mf_numpy
import mf_torch
from mf_numpy import Config, ConfigError, Ratings, Split, store
from mf_numpy.batch import full_batch
from mf_numpy.check import GRADIENT_TOLERANCE, METHODS, Case, cases, relative_difference
from mf_numpy.optim import Memory
from mf_torch import MatrixFactorization, optim
from mf_torch.batch import to_device
from mf_torch.check import autograd, run


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", ["plain", "biased"])
def test_parameters_go_to_torch_and_back_without_loss(small: Split, dtype: Any, model: Any) -> None:
    params = mf_numpy.init(small.train, Config(dtype=dtype, model=model)).params
    back = MatrixFactorization(params).to_params()
    assert back.mu == params.mu
    assert back.tensors().keys() == params.tensors().keys()
    for name, theta in params.tensors().items():
        assert back.tensors()[name].dtype == theta.dtype
        assert np.array_equal(back.tensors()[name], theta)


def test_a_state_dict_round_trip(small: Split, quick: Config) -> None:
    fitted = MatrixFactorization(mf_torch.fit(small.train, quick).params)
    other = MatrixFactorization(mf_numpy.init(small.train, quick).params)
    other.load_state_dict(fitted.state_dict())
    assert np.array_equal(other.to_params().P, fitted.to_params().P)


def test_one_saved_file_for_both(tmp_path: Path, small: Split, quick: Config) -> None:
    result = mf_torch.fit(small.train, quick)
    store.save(result, tmp_path / "model.safetensors")
    loaded = store.load(tmp_path / "model.safetensors")
    on = replace(quick, n_epochs=quick.n_epochs + 5)
    by_hand = mf_numpy.fit(small.train, on, backend="numpy", resume=loaded)
    by_autograd = mf_torch.fit(small.train, on, resume=loaded)
    for name, theta in by_hand.params.tensors().items():
        assert relative_difference(by_autograd.params.tensors()[name], theta) <= 1e-10


def test_the_forward_pass_is_equation_one(small: Split, quick: Config) -> None:
    params = mf_numpy.fit(small.train, quick).params
    users, items = torch.tensor([0, 5, 5]), torch.tensor([1, 1, 2])
    predicted = MatrixFactorization(params)(users, items).detach().numpy()
    np.testing.assert_allclose(predicted, mf_numpy.model.predict(params, users.numpy(), items.numpy()), rtol=1e-14)


@pytest.mark.parametrize(("user", "item"), [(-1, 0), (0, -1), (10**6, 0), (0, 10**6)])
def test_ids_out_of_range_are_refused(small: Split, quick: Config, user: int, item: int) -> None:
    module = MatrixFactorization(mf_numpy.init(small.train, quick).params)
    with pytest.raises(IndexError):
        module(torch.tensor([user]), torch.tensor([item]))


def test_deterministic_mode_gives_equal_bits_and_leaves_torch_as_it_was(small: Split) -> None:
    config = Config(n_factors=4, n_epochs=5, lr=5.0, batch_size=300)
    before = torch.are_deterministic_algorithms_enabled()
    one, two = (mf_torch.fit(small.train, config, deterministic=True) for _ in range(2))
    assert np.array_equal(one.params.P, two.params.P)
    assert torch.are_deterministic_algorithms_enabled() == before


def test_the_optimiser_is_that_of_the_configuration(small: Split, quick: Config) -> None:
    module = MatrixFactorization(mf_numpy.init(small.train, quick).params)
    (group,) = optim.sgd(module, replace(quick, lr=7.0, momentum=0.25, momentum_form="ema")).param_groups
    settings = {name: group[name] for name in ("lr", "momentum", "dampening", "nesterov", "weight_decay")}
    assert settings == {"lr": 7.0, "momentum": 0.25, "dampening": 0.25, "nesterov": False, "weight_decay": 0}


def test_every_array_goes_to_the_device(small: Split, quick: Config) -> None:
    params = mf_numpy.init(small.train, quick).params
    module = MatrixFactorization(params, device="meta")
    optimizer = optim.sgd(module, quick)
    optim.set_memory(module, optimizer, Memory(params.tensors()))
    assert {optimizer.state[p]["momentum_buffer"].device.type for p in module.parameters()} == {"meta"}
    assert {name: t.device.type for name, t in module.state_dict().items()} == dict.fromkeys(
        ["P", "Q", "b", "c", "mu"], "meta"
    )


def test_a_device_that_is_not_there() -> None:
    ratings = mf_numpy.Ratings.of_indices([0], [0], [1.0])
    with pytest.raises(ConfigError, match="must be 'cpu', 'cuda' or 'cuda:N'"):
        mf_torch.fit(ratings, device="gpu")
    with pytest.raises(ConfigError, match="torch sees"):
        mf_torch.fit(ratings, device="cuda:99")


@pytest.mark.cuda
@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_cuda_gradients(case: Case) -> None:
    gold = METHODS["loops"](case.params, case.batch, case.config)
    mine = autograd(case.params, case.batch, case.config, "cuda")
    for name, expected in gold.items():
        assert relative_difference(mine[name], expected) <= GRADIENT_TOLERANCE


@pytest.mark.cuda
def test_cuda_trajectories() -> None:
    assert all(row.ok for row in run("cuda"))


@pytest.mark.cuda
@pytest.mark.parametrize("batch_size", [None, 300])
def test_cuda_fit_is_the_cpu_fit(small: Split, quick: Config, batch_size: int | None) -> None:
    config = replace(quick, batch_size=batch_size, lr=5.0 if batch_size is None else 0.5)
    gold = mf_numpy.fit(small.train, config, backend="numpy")
    mine = mf_torch.fit(small.train, config, device="cuda", deterministic=True)
    for name, theta in gold.params.tensors().items():
        assert relative_difference(mine.params.tensors()[name], theta) <= 1e-10


@pytest.mark.cuda
def test_cuda_holds_all_ratings_on_the_device(small: Split, quick: Config) -> None:
    batch = to_device(full_batch(small.train, quick), "cuda")
    assert batch.users.is_cuda and batch.items.is_cuda and batch.values.is_cuda


def test_a_solver_of_the_hand_written_version_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="solver is 'sgd', which mf_torch does not have"):
        mf_torch.fit(Ratings.of_indices([0], [0], [1.0]), Config(solver="sgd"))
