"""Adam and AdaGrad in a fit: one trajectory on every backend, in batches too; and sparse gradients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import nn

import mf_numpy
import mf_torch
from mf_numpy import Config, ConfigError, FitResult, Ratings, Split, kernels, model
from mf_numpy.adaptive import EPS, FLOOR
from mf_numpy.check import ENGINES, TRAJECTORY_TOLERANCE, Observe, relative_difference
from mf_numpy.engine import Engine, State
from mf_numpy.optim import Memory
from mf_numpy.ratings import Array
from mf_torch import optim, paths
from mf_torch.check import observe
from mf_torch.paths import graphed
from mf_torch.train import TorchEngine

RULES: dict[str, dict[str, Any]] = {"adam": {"step_rule": "adam"}, "adagrad": {"step_rule": "adagrad"}}
ALL_ENGINES = {**ENGINES, "torch": (TorchEngine("cpu"), observe)}
N_UPDATES = 200


@pytest.fixture(scope="module")
def few() -> Ratings:
    rng = np.random.default_rng(1)
    return Ratings.of_indices(rng.integers(0, 6, 25), rng.integers(0, 5, 25), rng.integers(1, 6, 25), m=6, n=5)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On problems this small a second thread only waits."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def _updates(engine: Engine[Any], look: Observe, ratings: Ratings, config: Config) -> Iterator[dict[str, Array]]:
    """What an engine shows after each update, batch by batch."""
    whole = engine.load(ratings, config)
    state = engine.start(State(model.start(ratings, config)), whole, config)
    for epoch in range(1, config.n_epochs + 1):
        for batch in engine.batches(whole, epoch, config):
            state = engine.step(state, batch, config)
            yield {name: np.array(value) for name, value in look(state, batch, config).items()}
        state = engine.next_epoch(state)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch_size", [None, 9])
@pytest.mark.parametrize(("kind", "penalty"), [("plain", "total"), ("biased", "per_rating")])
def test_200_updates_are_those_of_the_loops(
    few: Ratings, rule: str, batch_size: int | None, kind: Any, penalty: Any
) -> None:
    n_epochs = N_UPDATES if batch_size is None else N_UPDATES // 3 + 1
    config = Config(
        model=kind, penalty=penalty, n_factors=2, lr=0.05, reg=0.02, dtype="float64", init_scale=0.5,
        batch_size=batch_size, n_epochs=n_epochs, lr_schedule=((n_epochs // 2, 0.5),), **RULES[rule],
    )  # fmt: skip
    gold = list(_updates(*ENGINES["loops"], few, config))
    assert len(gold) >= N_UPDATES and {"velocity P", "P"} <= gold[0].keys()
    assert ("second P" in gold[0]) == (rule == "adam")
    for name in ("numpy", "numba", "torch"):
        for step, (mine, expected) in enumerate(zip(_updates(*ALL_ENGINES[name], few, config), gold, strict=True)):
            assert mine.keys() == expected.keys()
            for quantity, y in expected.items():
                assert relative_difference(mine[quantity], y) <= TRAJECTORY_TOLERANCE, (name, quantity, step)


def _by(backend: Any) -> Callable[..., FitResult]:
    return lambda train, config, **more: mf_numpy.fit(train, config, backend=backend, **more)


FITTERS: dict[str, Callable[..., FitResult]] = {"numpy": _by("numpy"), "numba": _by("numba"), "torch": mf_torch.fit}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FITTERS)
def test_a_run_that_was_saved_goes_on_bit_for_bit(
    tmp_path: Path, small: Split, name: str, dtype: Any, rule: str
) -> None:
    pytest.importorskip("safetensors")
    config = Config(n_factors=3, n_epochs=5, lr=0.05, dtype=dtype, batch_size=500, **RULES[rule])
    straight = FITTERS[name](small.train, config)
    part = FITTERS[name](small.train, replace(config, n_epochs=2))
    part.save(tmp_path / "model")
    loaded = mf_numpy.store.load(tmp_path / "model")
    assert _same(loaded.state.memory, part.state.memory)
    resumed = FITTERS[name](small.train, config, resume=loaded)
    assert [r.objective for r in resumed.history] == [r.objective for r in straight.history]
    for key, theta in straight.params.tensors().items():
        assert np.array_equal(resumed.params.tensors()[key], theta), key
    assert _same(resumed.state.memory, straight.state.memory)
    assert straight.state.memory is not None
    n_updates = config.n_epochs * -(-len(small.train) // 500)
    assert straight.state.memory.steps == (n_updates if rule == "adam" else 0)


def _same(a: Memory | None, b: Memory | None) -> bool:
    assert a is not None and b is not None
    pairs = [(a.velocity, b.velocity), (a.second or {}, b.second or {})]
    return a.steps == b.steps and all(
        x.keys() == y.keys() and all(np.array_equal(x[key], y[key]) for key in x) for x, y in pairs
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", FITTERS)
def test_a_result_stays_as_it_is_when_a_run_goes_on_from_it(small: Split, name: str, rule: str) -> None:
    config = Config(n_factors=3, n_epochs=1, lr=0.05, **RULES[rule])
    part = FITTERS[name](small.train, config)
    assert part.state.memory is not None
    before = part.state.memory.copy()
    FITTERS[name](small.train, replace(config, n_epochs=2), resume=part)
    assert _same(part.state.memory, before)
    # One that shared its arrays would have moved with them.
    for mine, copied in ((part.state.memory.velocity, before.velocity), (part.state.memory.second, before.second)):
        for key, x in (mine or {}).items():
            assert copied is not None and not np.shares_memory(x, copied[key])


@pytest.mark.parametrize("rule", RULES)
def test_a_run_begun_by_hand_goes_on_in_torch_and_back(small: Split, rule: str) -> None:
    config = Config(n_factors=3, n_epochs=6, lr=0.05, dtype="float64", batch_size=700, **RULES[rule])
    straight = mf_numpy.fit(small.train, config)
    begun = mf_numpy.fit(small.train, replace(config, n_epochs=2))
    middle = mf_torch.fit(small.train, replace(config, n_epochs=4), resume=begun)
    ended = mf_numpy.fit(small.train, config, backend="numpy", resume=middle)
    for key, theta in straight.params.tensors().items():
        assert relative_difference(ended.params.tensors()[key], theta) <= TRAJECTORY_TOLERANCE


def test_a_file_without_second_means_is_damaged(tmp_path: Path, small: Split) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    mf_numpy.fit(small.train, Config(n_factors=3, n_epochs=1, step_rule="adam")).save(tmp_path / "a")
    raw = (tmp_path / "a").read_bytes()
    arrays = {k: v for k, v in safetensors.load_file(tmp_path / "a").items() if k != "second.Q"}
    texts = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    safetensors.save_file(arrays, tmp_path / "b", texts)
    with pytest.raises(mf_numpy.FileFormatError, match=r"lacks the array 'second\.Q'"):
        mf_numpy.store.load(tmp_path / "b")
    safetensors.save_file(
        safetensors.load_file(tmp_path / "a"), tmp_path / "c", {k: texts[k] for k in texts if k != "steps"}
    )
    with pytest.raises(mf_numpy.FileFormatError, match="lacks 'steps'"):
        mf_numpy.store.load(tmp_path / "c")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_compiled_update_is_the_plain_one_on_any_number_of_threads(rule: str, dtype: Any) -> None:
    config, rng = Config(step_rule=rule, dtype=dtype), np.random.default_rng(6)  # type: ignore[arg-type]
    start = {"P": rng.normal(size=(700, 5)).astype(dtype), "b": rng.normal(size=700).astype(dtype)}
    grads = [{name: rng.normal(size=x.shape).astype(dtype) for name, x in start.items()} for _ in range(3)]
    ends = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):  # type: ignore[attr-defined]
        numba.set_num_threads(threads)
        tensors = {name: x.copy() for name, x in start.items()}
        memory: Memory | None = None
        for g in grads:
            memory = kernels.update(tensors, memory, g, 0.1, config)
        ends.append((tensors, memory))
    plain: tuple[Any, Any] = (start, None)
    for g in grads:
        plain = mf_numpy.optim.update(*plain, g, 0.1, config)
    assert _same(ends[0][1], ends[1][1])
    rtol = 1e-13 if dtype == "float64" else 3e-6
    for name, x in ends[0][0].items():
        assert x.dtype == dtype and np.array_equal(x, ends[1][0][name])
        np.testing.assert_allclose(x, plain[0][name], rtol=rtol, atol=rtol)


def test_the_constants_are_those_of_torch() -> None:
    p = nn.Parameter(torch.zeros(1))
    assert torch.optim.Adam([p]).defaults["eps"] == EPS and torch.optim.Adam([p]).defaults["betas"] == (0.9, 0.999)
    adagrad = torch.optim.Adagrad([p]).defaults
    assert (adagrad["eps"], adagrad["initial_accumulator_value"], adagrad["lr_decay"]) == (FLOOR, 0, 0)


def test_the_optimiser_of_a_rule() -> None:
    module = nn.Linear(2, 1)
    kinds = {rule: optim.optimizer_of(module, Config(lr=0.3, momentum=0.0, **given)) for rule, given in RULES.items()}
    assert {rule: type(kind) for rule, kind in kinds.items()} == {
        "adam": torch.optim.Adam,
        "adagrad": torch.optim.Adagrad,
    }
    assert not any(optim.is_momentum(kind) for kind in kinds.values())
    assert optim.is_momentum(optim.optimizer_of(module, Config()))
    for kind in kinds.values():
        assert kind.param_groups[0]["lr"] == 0.3 and kind.param_groups[0]["weight_decay"] == 0


# What is given, and what is refused


def test_defaults_follow_the_rule() -> None:
    assert [(c.lr, c.momentum, c.lr_decay) for c in (Config(step_rule="adam"), Config(step_rule="adagrad"))] == [
        (0.01, 0.0, 1.0),
        (0.03, 0.0, 1.0),
    ]
    kept = Config(n_factors=7, lr=3.0, batch_size=10).with_solver("gd", "adam")
    assert (kept.n_factors, kept.lr, kept.momentum, kept.step_rule) == (7, 0.01, 0.0, "adam")
    assert kept.with_solver("als").step_rule == "momentum"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"step_rule": "adamw"}, "step_rule is 'adamw', .* Did you mean 'adam'"),
        ({"step_rule": "adam", "momentum": 0.9}, r"step_rule is 'adam' with momentum 0\.9; leave one of them out"),
        ({"step_rule": "adagrad", "momentum": 0.9}, r"step_rule is 'adagrad' with momentum 0\.9; leave"),
        ({"step_rule": "adam", "momentum_form": "nesterov"}, "'adam' with momentum_form 'nesterov'; leave one"),
        ({"step_rule": "adam", "solver": "sgd"}, "step_rule is 'adam' with solver 'sgd'; use solver='gd'$"),
        ({"step_rule": "adagrad", "solver": "als"}, "with solver 'als'; use solver='gd' or solver='sgd'$"),
    ],
)
def test_what_a_rule_does_not_take(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Config(**settings)


def test_another_rule_does_not_go_on_from_here(small: Split) -> None:
    part = mf_numpy.fit(small.train, Config(n_factors=3, n_epochs=1, step_rule="adam"))
    with pytest.raises(ConfigError, match="cannot resume: step_rule was 'adam' and is now 'adagrad'"):
        mf_numpy.fit(small.train, Config(n_factors=3, n_epochs=2, step_rule="adagrad"), resume=part)


def test_a_graph_holds_the_steps_of_momentum_alone(small: Split) -> None:
    held = graphed.Graphed(paths.get("autograd"))
    with pytest.raises(ConfigError, match="graph is True with step_rule 'adam'"):
        held.load(small.train, Config(step_rule="adam"), "cuda")


# Sparse gradients


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", [{"momentum": 0.0, "lr": 2.0}, {"step_rule": "adagrad"}], ids=["plain", "adagrad"])
def test_a_fit_by_sparse_gradients_is_that_by_dense_ones(small: Split, dtype: Any, settings: dict[str, Any]) -> None:
    config = Config(n_factors=3, n_epochs=4, batch_size=200, dtype=dtype, **settings)
    dense = mf_torch.fit(small.train, config, valid=small.valid)
    sparse = mf_torch.fit(small.train, config, valid=small.valid, sparse_grad=True)
    assert (dense.details["sparse_grad"], sparse.details["sparse_grad"]) == (False, True)
    within = 1e-12 if dtype == "float64" else 1e-4
    for key, theta in dense.params.tensors().items():
        assert relative_difference(sparse.params.tensors()[key], theta) <= within, key
    for a, b in zip(sparse.history, dense.history, strict=True):
        assert a.objective == pytest.approx(b.objective, rel=within)
        assert a.valid_rmse == pytest.approx(b.valid_rmse, rel=within)


@pytest.mark.parametrize("settings", [{"momentum": 0.0, "lr": 2.0}, {"step_rule": "adagrad"}], ids=["plain", "adagrad"])
def test_rows_without_a_rating_stay_where_they_are(settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(7)
    train = Ratings.of_indices(rng.integers(1, 5, 40), rng.integers(0, 3, 40), rng.normal(size=40), m=6, n=4)
    config = replace(Config(n_factors=2, n_epochs=3, batch_size=7, dtype="float64", **settings), lr=0.1)
    begin = mf_numpy.init(train, config).params
    ended = mf_torch.fit(train, config, sparse_grad=True).params
    assert np.array_equal(ended.P[[0, 5]], begin.P[[0, 5]]) and np.array_equal(ended.Q[3], begin.Q[3])
    assert (ended.P[1:5] != begin.P[1:5]).all()


def test_a_resumed_run_by_sparse_gradients_is_the_straight_one(small: Split) -> None:
    config = Config(n_factors=3, n_epochs=4, batch_size=300, step_rule="adagrad")
    straight = mf_torch.fit(small.train, config, sparse_grad=True)
    part = mf_torch.fit(small.train, replace(config, n_epochs=2), sparse_grad=True)
    resumed = mf_torch.fit(small.train, config, sparse_grad=True, resume=part)
    for key, theta in straight.params.tensors().items():
        assert np.array_equal(resumed.params.tensors()[key], theta), key


@pytest.mark.parametrize(
    ("settings", "how", "said"),
    [
        ({"penalty": "total", "momentum": 0.0}, {}, r"penalty 'total' and reg 0\.05, .*use penalty='per_rating'"),
        ({}, {}, r"momentum 0\.9, but a velocity .*use momentum=0 or step_rule='adagrad'"),
        ({"step_rule": "adam"}, {}, "step_rule 'adam', .*SparseAdam.*use step_rule='adagrad'"),
        ({"momentum": 0.0}, {"path": "manual"}, "sparse_grad is True with path 'manual'; .*path='autograd'"),
        ({"momentum": 0.0}, {"graph": True}, "sparse_grad is True with graph True"),
    ],
)
@pytest.mark.parametrize("batch_size", [None, 300])
def test_where_a_sparse_gradient_would_be_another_algorithm(
    small: Split, settings: dict[str, Any], how: dict[str, Any], said: str, batch_size: int | None
) -> None:
    with pytest.raises(ConfigError, match=said):
        mf_torch.fit(small.train, Config(batch_size=batch_size, **settings), sparse_grad=True, **how)


# On a GPU


@pytest.mark.cuda
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch_size", [None, 300])
def test_cuda_fit_is_the_cpu_fit(small: Split, rule: str, batch_size: int | None) -> None:
    config = Config(n_factors=3, n_epochs=20, lr=0.05, dtype="float64", batch_size=batch_size, **RULES[rule])
    gold = mf_numpy.fit(small.train, config, backend="numpy")
    mine = mf_torch.fit(small.train, config, device="cuda", deterministic=True)
    for key, theta in gold.params.tensors().items():
        assert relative_difference(mine.params.tensors()[key], theta) <= TRAJECTORY_TOLERANCE
    part = mf_torch.fit(small.train, replace(config, n_epochs=8), device="cuda", deterministic=True)
    resumed = mf_torch.fit(small.train, config, device="cuda", deterministic=True, resume=part)
    for key, theta in mine.params.tensors().items():
        assert np.array_equal(resumed.params.tensors()[key], theta), key


@pytest.mark.cuda
@pytest.mark.parametrize("settings", [{"momentum": 0.0, "lr": 2.0}, {"step_rule": "adagrad"}], ids=["plain", "adagrad"])
def test_cuda_sparse_gradients(small: Split, settings: dict[str, Any]) -> None:
    config = Config(n_factors=3, n_epochs=4, batch_size=200, dtype="float64", **settings)
    gold = mf_torch.fit(small.train, config)
    mine = mf_torch.fit(small.train, config, device="cuda", sparse_grad=True)
    for key, theta in gold.params.tensors().items():
        assert relative_difference(mine.params.tensors()[key], theta) <= TRAJECTORY_TOLERANCE
