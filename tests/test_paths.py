"""The paths to the gradient in torch: what each must do besides agreeing with the loops, which `test_torch` sees to."""

from __future__ import annotations

import shutil
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
from mf_numpy import Config, ConfigError, Ratings, Split
from mf_numpy import batch as by_hand
from mf_numpy.check import GRADIENT_TOLERANCE, METHODS, TRAJECTORY_TOLERANCE, Case, cases, relative_difference
from mf_numpy.faults import broken
from mf_numpy.suite import judge
from mf_torch import MatrixFactorization, paths
from mf_torch.batch import Batch, to_device
from mf_torch.check import COLUMNS, evaluate, run, suite
from mf_torch.curvature import hessian_vector
from mf_torch.faults import TORCH_FAULTS
from mf_torch.paths import PATHS, layout, manual
from mf_torch.paths.base import ByGraph
from mf_torch.train import TorchEngine

CASES = {case.name: case for case in cases()}
TWICE = [name for name, path in PATHS.items() if isinstance(path, ByGraph) and path.twice]
QUICK = [name for name in PATHS if name != "compiled"]
"""The paths that start at once."""


ROOT = Path(__file__).parent.parent
needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("g++", "clang++", "c++")), reason="torch.compile needs a C++ compiler here"
)


def _laid_out(name: str, case: Case) -> tuple[MatrixFactorization, Batch]:
    return MatrixFactorization(case.params), paths.get(name).lay_out(to_device(case.batch, "cpu"), case.config)


def _grads(module: MatrixFactorization) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_every_path_has_its_name_and_a_wrong_one_gets_the_nearest() -> None:
    assert next(iter(PATHS)) == "autograd" and {"compiled", "sparse", "manual", "fused"} <= set(PATHS)
    assert all(paths.get(name).name == name for name in PATHS)
    with pytest.raises(ConfigError, match=r"path is 'spars', .*'autograd'.* Did you mean 'sparse'"):
        TorchEngine(path="spars")
    with pytest.raises(ConfigError, match="path is 'by hand'"):
        mf_torch.fit(Ratings.of_indices([0], [0], [1.0]), path="by hand")


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_gradients_are_those_of_the_loops(case: Case, name: str) -> None:
    gold = METHODS["loops"](case.params, case.batch, case.config)
    mine = evaluate(case.params, case.batch, case.config, path=name).gradient
    assert mine.keys() == gold.keys()
    for tensor, expected in gold.items():
        assert relative_difference(mine[tensor], expected) <= GRADIENT_TOLERANCE, tensor


@pytest.mark.parametrize("name", QUICK)
def test_a_gradient_is_replaced_and_keeps_to_its_tensor(name: str) -> None:
    case = CASES["biased, per_rating, duplicate pairs, unsorted"]
    module, batch = _laid_out(name, case)
    path = paths.get(name)
    path.differentiate(module, batch, case.config)
    once = _grads(module)
    seen = path.differentiate(module, batch, case.config)
    assert not seen.value.requires_grad and not seen.squared_error.requires_grad
    for key, p in module.named_parameters():
        assert p.grad is not None and torch.equal(p.grad, once[key])
        assert (p.grad.shape, p.grad.dtype, p.grad.is_contiguous()) == (p.shape, p.dtype, True)
        assert not p.grad.requires_grad


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_runs_have_the_same_bits(small: Split, name: str, dtype: Any) -> None:
    config = Config(n_factors=4, n_epochs=4, lr=5.0, dtype=dtype, batch_size=300)
    one, two = (mf_torch.fit(small.train, config, path=name) for _ in range(2))
    for key, theta in one.params.tensors().items():
        assert theta.dtype == config.numpy_dtype and np.array_equal(theta, two.params.tensors()[key])


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("users", "items"), [([0, -1], [0, 0]), ([0, 9], [0, 0]), ([0, 0], [-1, 0]), ([0, 0], [0, 7])])
def test_ids_out_of_range_are_refused_by_every_path(name: str, users: list[int], items: list[int]) -> None:
    params = CASES["biased, total, single rating"].params
    module, config, path = MatrixFactorization(params), Config(dtype="float64"), paths.get(name)
    pairs = Batch(torch.tensor(users), torch.tensor(items), torch.zeros(2, dtype=torch.float64), (9, 7))
    side, at = ("users", 1) if users != [0, 0] else ("items", int(items[0] == 0))
    refused = pytest.raises(IndexError, match=rf"{side}\[{at}\] is -?\d+, outside 0\.\.")
    with refused:
        path.differentiate(module, path.lay_out(pairs, config), config)
    with refused:
        next(path.batches(pairs, 1, replace(config, batch_size=1)))
    with refused:
        to_device(by_hand.Batch(np.array(users), np.array(items), np.zeros(2), (9, 7)), "cpu")
    wide = Batch(torch.tensor([0]), torch.tensor([0]), torch.zeros(1, dtype=torch.float64), (10, 7))
    with pytest.raises(IndexError, match="the batch is of 10 users and 7 items, but the module has 9 and 7"):
        path.differentiate(module, path.lay_out(wide, config), config)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("batch_size", [None, 333])
def test_whole_fits_agree_with_numpy(small: Split, quick: Config, name: str, batch_size: int | None) -> None:
    config = replace(quick, batch_size=batch_size, n_epochs=10, lr=5.0 if batch_size is None else 0.5)
    gold = mf_numpy.fit(small.train, config, valid=small.valid, backend="numpy")
    mine = mf_torch.fit(small.train, config, valid=small.valid, path=name)
    for a, b in zip(mine.history, gold.history, strict=True):
        assert a.objective == pytest.approx(b.objective, rel=TRAJECTORY_TOLERANCE)
        assert a.train_rmse == pytest.approx(b.train_rmse, rel=TRAJECTORY_TOLERANCE)
    for key, theta in gold.params.tensors().items():
        assert relative_difference(mine.params.tensors()[key], theta) <= TRAJECTORY_TOLERANCE


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("batch_size", [None, 500])
def test_a_resumed_run_is_the_straight_run(small: Split, quick: Config, name: str, batch_size: int | None) -> None:
    config = replace(quick, batch_size=batch_size, n_epochs=6, lr=1.0, dtype="float32")
    straight = mf_torch.fit(small.train, config, path=name)
    part = mf_torch.fit(small.train, replace(config, n_epochs=2), path=name)
    resumed = mf_torch.fit(small.train, config, path=name, resume=part)
    assert [r.objective for r in resumed.history] == [r.objective for r in straight.history]
    for key, theta in straight.params.tensors().items():
        assert np.array_equal(resumed.params.tensors()[key], theta)


def test_a_step_takes_a_batch_in_any_layout(small: Split, quick: Config) -> None:
    batch = to_device(by_hand.full_batch(small.train, quick), "cpu")
    states = [mf_torch.step(mf_torch.init(small.train, quick), batch, quick, path=name) for name in QUICK]
    for state in states[1:]:
        for key, theta in states[0].module.to_params().tensors().items():
            assert relative_difference(state.module.to_params().tensors()[key], theta) <= 1e-12


def test_how_a_model_was_trained_is_kept_with_it(tmp_path: Path, small: Split, quick: Config) -> None:
    pytest.importorskip("safetensors")
    from mf_numpy import store

    result = mf_torch.fit(small.train, replace(quick, n_epochs=2), path="manual", deterministic=True)
    expected: dict[str, Any] = dict.fromkeys(("graph", "tf32", "sparse_grad"), False)
    expected |= {"path": "manual", "deterministic": True, "storage": None}
    assert (result.backend, result.details) == ("torch", expected)
    store.save(result, tmp_path / "model.safetensors")
    assert store.load(tmp_path / "model.safetensors").details == expected


# Sparse products


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_products_and_counts_of_the_layout(case: Case) -> None:
    plain = to_device(case.batch, "cpu")
    batch = layout.compress(plain)
    assert layout.compress(batch) is batch and len(batch) == len(plain)
    assert batch.users.dtype == batch.items.dtype == batch.by_item.indptr.dtype == torch.int32
    assert bool((batch.users.diff() >= 0).all())
    pairs = sorted(zip(batch.users.tolist(), batch.items.tolist(), batch.values.tolist(), strict=True))
    assert pairs == sorted(zip(plain.users.tolist(), plain.items.tolist(), plain.values.tolist(), strict=True))
    for mine, theirs in zip(batch.shares(torch.float64), plain.shares(torch.float64), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-15, atol=0)
    P, Q = torch.tensor(case.params.P), torch.tensor(case.params.Q)
    dense = torch.zeros(batch.shape, dtype=torch.float64)
    dense.index_put_((plain.users, plain.items), plain.values, accumulate=True)
    expected = dense @ Q, dense.t() @ P, dense.sum(dim=1), dense.sum(dim=0)
    torch.testing.assert_close(batch.pulled(batch.values, P, Q), expected, rtol=1e-13, atol=1e-13)
    # What stands in for cuSPARSE where equal bits are asked for.
    in_order = batch.by_user.summed(batch.values, Q)
    torch.testing.assert_close(in_order, expected[0], rtol=1e-13, atol=1e-13)
    dots = (P[batch.users.long()] * Q[batch.items.long()]).sum(dim=1)
    torch.testing.assert_close(batch.predicted(P, Q, None, None), dots, rtol=1e-13, atol=1e-13)


def test_more_pairs_than_cells() -> None:
    """torch's sampled product refuses them, and so does cuSPARSE."""
    rng = np.random.default_rng(5)
    config = Config(n_factors=2, dtype="float64")
    ratings = Ratings.of_indices(rng.integers(0, 3, 50), rng.integers(0, 4, 50), rng.normal(size=50), m=3, n=4)
    batch = by_hand.full_batch(ratings, config)
    params = mf_numpy.init(ratings, config).params
    gold = METHODS["loops"](params, batch, config)
    for name in QUICK:
        for key, mine in evaluate(params, batch, config, path=name).gradient.items():
            assert relative_difference(mine, gold[key]) <= GRADIENT_TOLERANCE, (name, key)


def test_squares_add_up_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.linspace(-3, 4, 1001)
    whole = manual.sum_of_squares(x)
    monkeypatch.setitem(manual._AT_ONCE, "cpu", 100)
    assert manual.sum_of_squares(x).item() == pytest.approx(whole.item(), rel=1e-15)
    assert whole.item() == pytest.approx((x.double() ** 2).sum().item(), rel=1e-15) and whole.dtype == torch.float64


# Second derivatives


@pytest.mark.parametrize("name", TWICE)
@pytest.mark.parametrize("label", ["duplicate pairs, unsorted", "empty user and item, pseudo-Huber"])
@pytest.mark.parametrize("kind", ["plain, total", "biased, per_rating"])
def test_gradcheck_and_gradgradcheck_of_every_number(kind: str, label: str, name: str) -> None:
    case = CASES[f"{kind}, {label}"]
    module, batch = _laid_out(name, case)
    path = PATHS[name]
    assert isinstance(path, ByGraph)

    def j(*_: torch.Tensor) -> torch.Tensor:
        return path.objective(module, batch, case.config).value

    # Both move the very tensors that they are given.
    assert torch.autograd.gradcheck(j, tuple(module.parameters()))
    assert torch.autograd.gradgradcheck(j, tuple(module.parameters()))


def test_a_path_that_differentiates_once_has_no_hessian() -> None:
    case = CASES["plain, total, single rating"]
    module, batch = _laid_out("autograd", case)
    with pytest.raises(ConfigError, match="path is 'manual', whose gradient is no graph"):
        hessian_vector(module, case.params.tensors(), batch, case.config, path="manual")


# Faults


@pytest.mark.parametrize("name", COLUMNS)
def test_the_catalogue_turns_the_path_red(name: str) -> None:
    """Two faults at least, each rejected in this path's column by two checks at least."""
    whole = suite(path=name)
    checks = ("loops", "worked example", "exact minimiser", "every rating twice")
    caught = []
    for fault in TORCH_FAULTS.values():
        with broken(fault):
            verdicts = [judge(check, whole.checks[check], {name: whole.ways[name]}) for check in checks]
        if sum(not verdict.ok for verdict in verdicts) >= 2:
            caught.append(fault.name)
        if len(caught) == 2:
            break
    assert len(caught) == 2
    assert all(judge(check, whole.checks[check], {name: whole.ways[name]}).ok for check in checks)


# torch.compile


def _in_a_fresh_process(code: str) -> None:
    """Where no hook checks shapes: what it puts around functions cannot be compiled."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_compiler
def test_compiled_gradients_in_batches_of_any_length() -> None:
    """Lengths share one compilation; another λ is not built in; a wrong line is seen."""
    _in_a_fresh_process("""
from dataclasses import replace
import torch
from mf_numpy.batch import Batch
from mf_numpy.check import GRADIENT_TOLERANCE, METHODS, cases, relative_difference
from mf_numpy.faults import broken
from mf_torch.check import evaluate
from mf_torch.faults import TORCH_FAULTS

def difference(size, reg):
    config = replace(case.config, reg=reg)
    part = Batch(case.batch.users[:size], case.batch.items[:size], case.batch.values[:size], (9, 7))
    gold = METHODS["loops"](case.params, part, config)
    mine = evaluate(case.params, part, config, path="compiled").gradient
    return max(relative_difference(mine[key], gold[key]) for key in gold)

(case,) = (c for c in cases() if c.name == "biased, per_rating, empty user and item, unsorted")
for size in (30, 17, 5):
    assert difference(size, 0.07) <= GRADIENT_TOLERANCE, size
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
assert difference(17, 0.3) <= GRADIENT_TOLERANCE
torch.compiler.reset()  # compiled code does not follow an edit
with broken(TORCH_FAULTS["mean-counted-twice"]):
    assert difference(17, 0.3) > 0.01
""")


# Precision


def test_products_round_as_asked_and_torch_is_left_as_it_was(small: Split, quick: Config) -> None:
    during = []
    before = torch.get_float32_matmul_precision()
    for tf32 in (False, True):
        result = mf_torch.fit(
            small.train, replace(quick, n_epochs=1), tf32=tf32,
            callback=lambda record: during.append(torch.get_float32_matmul_precision()),
        )  # fmt: skip
        assert result.details["tf32"] is tf32
    assert during == ["highest", "high"] and torch.get_float32_matmul_precision() == before


# On a GPU


@pytest.mark.cuda
@pytest.mark.parametrize("name", QUICK)
def test_cuda_tables(name: str) -> None:
    assert all(row.ok for row in run("cuda", name))


@pytest.mark.cuda
def test_cuda_gradients_compiled() -> None:
    _in_a_fresh_process("""
from mf_torch.check import suite

assert all(row.ok for row in suite("cuda", "compiled").tables["gradient"]())
""")


@pytest.mark.cuda
@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("batch_size", [None, 300])
def test_cuda_deterministic_runs_have_the_same_bits(small: Split, name: str, batch_size: int | None) -> None:
    config = Config(n_factors=16, n_epochs=5, lr=5.0 if batch_size is None else 0.5, batch_size=batch_size)
    one, two = (mf_torch.fit(small.train, config, device="cuda", path=name, deterministic=True) for _ in range(2))
    for key, theta in one.params.tensors().items():
        assert np.array_equal(theta, two.params.tensors()[key])


@pytest.mark.cuda
@pytest.mark.parametrize("name", QUICK)
def test_cuda_products_of_these_paths_do_not_depend_on_tf32(small: Split, name: str) -> None:
    config = Config(n_factors=16, n_epochs=5, lr=5.0)
    one, two = (
        mf_torch.fit(small.train, config, device="cuda", path=name, deterministic=True, tf32=tf32)
        for tf32 in (False, True)
    )
    for key, theta in one.params.tensors().items():
        assert np.array_equal(theta, two.params.tensors()[key])
