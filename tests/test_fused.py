"""The operator `mf::fused` and the path that trains by it: what they must do besides what every path does."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

import mf_numpy
import mf_torch
from mf_numpy import Config, Split
from mf_numpy import batch as by_hand
from mf_numpy.check import METHODS, TRAJECTORY_TOLERANCE, Case, cases, relative_difference
from mf_torch import MatrixFactorization
from mf_torch.batch import Batch, to_device
from mf_torch.paths import PATHS, operator
from mf_torch.paths.fused import BlockBatch, Fused, in_blocks
from mf_torch.paths.operator import fused, params_of, to_tensors

CASES = {case.name: case for case in cases()}
FUSED = PATHS["fused"]
assert isinstance(FUSED, Fused)
ANY_ORDER = "biased, per_rating, empty user and item, unsorted, pseudo-Huber"
PLAIN = "plain, total, duplicate pairs, unsorted"


def _by_hand(batch: Batch) -> by_hand.Batch:
    """The same arrays, so that the same compiled kernel takes them."""
    return by_hand.Batch(batch.users.numpy(), batch.items.numpy(), batch.values.numpy(), batch.shape)


def _arguments(case: Case, in_any_order: bool) -> tuple[MatrixFactorization, Batch, tuple[object, ...]]:
    module, batch = MatrixFactorization(case.params), to_device(case.batch, "cpu")
    batch = batch if in_any_order else in_blocks(batch, case.config)
    laid = batch.blocks if isinstance(batch, BlockBatch) else _by_hand(batch)
    config = case.config
    settings = config.reg, config.penalty, config.loss, config.loss_scale
    return module, batch, (module.P, module.Q, module.b, module.c, module.mu, to_tensors(laid), *settings)


@pytest.mark.parametrize("in_any_order", [False, True])
@pytest.mark.parametrize("name", [PLAIN, ANY_ORDER])
def test_the_operator_is_one_that_torch_accepts(name: str, in_any_order: bool) -> None:
    _, _, arguments = _arguments(CASES[name], in_any_order)
    done = torch.library.opcheck(fused, arguments)
    assert set(done.values()) == {"SUCCESS"} and len(done) == 4


@pytest.mark.parametrize("in_any_order", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_a_step_of_training_is_the_operator(case: Case, in_any_order: bool) -> None:
    module, batch, arguments = _arguments(case, in_any_order)
    assert isinstance(FUSED, Fused)
    seen = FUSED.differentiate(module, batch, case.config)
    value, squared_error, *grads = fused(*arguments)
    assert torch.equal(seen.value, value.detach()) and torch.equal(seen.squared_error, squared_error)
    value.backward()  # adds to what the step left
    gold = METHODS["loops"](case.params, case.batch, case.config)
    for (key, p), g in zip(module.named_parameters(), grads, strict=False):
        assert p.grad is not None and torch.equal(p.grad, 2 * g)
        assert relative_difference(g.numpy(), gold[key]) <= 1e-12
    assert [len(g) for g in grads[2:]] == ([0, 0] if module.b is None else [9, 7])


def test_the_operator_s_graph() -> None:
    case = CASES[ANY_ORDER]
    module, batch, arguments = _arguments(case, in_any_order=False)
    assert isinstance(FUSED, Fused)

    def j(*_: Tensor) -> Tensor:
        return FUSED.objective(module, batch, case.config).value

    assert torch.autograd.gradcheck(j, tuple(module.parameters()))
    (g,) = torch.autograd.grad(j(), module.P, create_graph=True)
    assert not g.requires_grad  # rather than a Hessian of 0
    assert [x.requires_grad for x in fused(*arguments)] == [True] + [False] * 5


def test_a_layout_of_other_tables_is_refused() -> None:
    module, _, (_, *others) = _arguments(CASES[PLAIN], in_any_order=False)
    with pytest.raises(IndexError, match="the layout is of 9 users and 7 items, but P and Q have 8 and 7"):
        fused(module.P[:8], *others)


def test_gradients_and_velocities_stay_where_they_are(small: Split, quick: Config) -> None:
    state = mf_torch.init(small.train, quick)
    whole = FUSED.load(small.train, quick, "cpu")
    places = []
    for _ in range(3):
        before = [p._version for p in state.module.parameters()]
        state = mf_torch.step(state, whole, quick, path="fused")
        assert all(p._version > old for p, old in zip(state.module.parameters(), before, strict=True))
        buffers = [state.optimizer.state[p]["momentum_buffer"] for p in state.module.parameters()]
        grads = [p.grad for p in state.module.parameters() if p.grad is not None]
        places.append([x.data_ptr() for x in (*grads, *buffers)])
    assert places[0] == places[1] == places[2] and len(set(places[0])) == 8


@pytest.mark.parametrize(("form", "momentum"), [("ema", 0.0), ("ema", 0.8), ("heavy_ball", 0.8), ("nesterov", 0.8)])
def test_the_update_leaves_what_the_optimiser_would(small: Split, quick: Config, form: str, momentum: float) -> None:
    config = replace(quick, momentum=momentum, momentum_form=form)  # type: ignore[arg-type]
    one, two = (mf_torch.init(small.train, config) for _ in range(2))
    whole = FUSED.load(small.train, config, "cpu")
    for _ in range(3):
        FUSED.advance(one.module, one.optimizer, whole, config)
        FUSED.differentiate(two.module, whole, config)
        two.optimizer.step()
        for p, q in zip(one.module.parameters(), two.module.parameters(), strict=True):
            assert p.grad is not None and q.grad is not None
            torch.testing.assert_close(p, q, rtol=1e-13, atol=1e-15)
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-15)
            mine, theirs = (s.optimizer.state[x].get("momentum_buffer") for s, x in ((one, p), (two, q)))
            assert (mine is None) == (theirs is None) == (momentum == 0)
            if mine is not None:
                torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-15)


def test_tables_in_another_memory_order(small: Split, quick: Config) -> None:
    gold, state = (mf_torch.init(small.train, quick) for _ in range(2))
    state.module.P.data = state.module.P.data.t().contiguous().t()
    assert not state.module.P.is_contiguous()
    whole = FUSED.load(small.train, quick, "cpu")
    for _ in range(2):
        for s in (gold, state):
            FUSED.advance(s.module, s.optimizer, whole, quick)
    for key, theta in gold.module.to_params().tensors().items():
        assert relative_difference(state.module.to_params().tensors()[key], theta) <= TRAJECTORY_TOLERANCE


def test_two_modules_share_a_batch_and_nothing_else(small: Split, quick: Config) -> None:
    whole = FUSED.load(small.train, quick, "cpu")
    one = MatrixFactorization(mf_numpy.init(small.train, quick).params)
    wide = MatrixFactorization(mf_numpy.init(small.train, replace(quick, n_factors=5)).params)
    FUSED.differentiate(one, whole, quick)
    kept = [p.grad.clone() for p in one.parameters() if p.grad is not None]
    FUSED.differentiate(wide, whole, quick)
    assert all(torch.equal(p.grad, g) for p, g in zip(one.parameters(), kept, strict=True))  # type: ignore[arg-type]
    FUSED.differentiate(one, whole, quick)
    assert all(torch.equal(p.grad, g) for p, g in zip(one.parameters(), kept, strict=True))  # type: ignore[arg-type]


def test_threads_are_those_that_both_allow() -> None:
    torch_s, numba_s = torch.get_num_threads(), numba.get_num_threads()
    try:
        torch.set_num_threads(1)
        with operator.threads():
            assert numba.get_num_threads() == 1
        assert numba.get_num_threads() == numba_s
        torch.set_num_threads(numba_s + 3)
        with operator.threads():
            assert numba.get_num_threads() == numba_s
    finally:
        torch.set_num_threads(torch_s)


def test_the_layout_shares_memory_with_what_it_was_made_of(small: Split, quick: Config) -> None:
    module = MatrixFactorization(mf_numpy.init(small.train, quick).params)
    params = params_of(module.P, module.Q, module.b, module.c, module.mu)
    assert params.P.ctypes.data == module.P.data_ptr() and params.mu == float(module.mu)
    whole = by_hand.full_batch(small.train, quick)
    batch = in_blocks(to_device(whole, "cpu"), quick)
    assert in_blocks(batch, quick) is batch and np.array_equal(batch.items.numpy(), whole.items)
    tensors = to_tensors(batch.blocks)
    assert tensors[2].data_ptr() == batch.blocks.values.ctypes.data
    again = operator.from_tensors(tensors, params)
    assert not isinstance(again, by_hand.Batch) and again.items.dtype == np.uint16
