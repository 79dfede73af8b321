"""The kernels for every K, in vectors and in loops, and the order in which they walk the ratings."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from mf_numpy import Config, Ratings, gradients, kernels, model
from mf_numpy.batch import full_batch, mini_batches
from mf_numpy.errors import ConfigError
from mf_numpy.kernels import lanes, layout, vector
from mf_numpy.kernels import model as kernels_model
from tests.instruction_sets import NARROWER, compiling_for

LENGTHS = (1, 2, 7, 8, 9, 16, 33, 64, 100, 257, 512, 600)


def _ratings(m: int = 40, n: int = 30, size: int = 700, seed: int = 0) -> Ratings:
    rng = np.random.default_rng(seed)
    # Popularity falls steeply; the last user and the last item have no rating; pairs repeat.
    users, items = rng.integers(0, m - 1, size), np.minimum(rng.geometric(0.15, size) - 1, n - 2)
    return Ratings.of_indices(users, items, rng.integers(1, 11, size), m=m, n=n)


def _largest_difference(train: Ratings, config: Config) -> float:
    """Of all that a full pass and a mini-batch give, from the SciPy version, relative to the largest of each."""
    worst = 0.0
    whole, params = full_batch(train, config), model.start(train, config)
    for batch in (whole, next(iter(mini_batches(whole, 1, config)))):
        mine, theirs = kernels.gradient(params, batch, config), gradients.gradient(params, batch, config)
        pairs: list[Any] = [(mine.objective, theirs.objective), (mine.squared_error, theirs.squared_error)]
        pairs += [(g, theirs.gradient[name]) for name, g in mine.gradient.items()]
        pairs.append([predict(params, batch.users, batch.items) for predict in (kernels.predict, model.predict)])
        for found, expected in pairs:
            worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return worst


@pytest.mark.parametrize(
    "n_factors", [pytest.param(k, marks=[pytest.mark.thorough] * (k in (2, 64, 100, 257, 512))) for k in LENGTHS]
)
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-13), ("float32", 2e-5)])
def test_every_length_of_row(n_factors: int, dtype: Any, bound: float) -> None:
    config = Config(n_factors=n_factors, dtype=dtype, init_scale=0.8 / n_factors**0.5, batch_size=90)
    assert _largest_difference(_ratings(), config) < bound


@pytest.mark.parametrize("settings", [{"model": "plain", "penalty": "total"}, {"loss": "pseudo_huber"}])
def test_loops_are_the_same_function(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MF_KERNELS", "loops")
    assert vector.form(5) == vector.form(300) == vector.LOOPS
    for n_factors in (1, 5, 16):
        config = Config(n_factors=n_factors, dtype="float64", init_scale=0.5, batch_size=90, **settings)
        assert _largest_difference(_ratings(), config) < 1e-13


def test_an_unknown_choice_of_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MF_KERNELS", "loop")
    with pytest.raises(ConfigError, match=r"MF_KERNELS is 'loop'.*loops"):
        vector.form(5)


def test_a_form_holds_length_and_lanes() -> None:
    for dtype, size in ((numba.float32, 4), (numba.float64, 8)):
        row = lanes.Row(dtype, vector.form(37))
        assert row.length == 37 and row.lanes * size in (32, 64)
        assert row.n_vectors == -(-37 // row.lanes)
    assert vector.form(vector.MAX_FACTORS) != vector.LOOPS == vector.form(vector.MAX_FACTORS + 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ratings_in_any_order_are_laid_out_as_if_they_had_been_sorted(dtype: Any) -> None:
    """What a fit lays out straight from the table is what it would from a sorted copy of it."""
    ratings, config = _ratings(), Config(n_factors=3, dtype=dtype)
    assert (np.diff(ratings.users) < 0).any()
    batch = full_batch(ratings, config)
    straight = layout.full_blocks(ratings, config)
    sorted_first = layout.blocks(batch, straight.items_per_block)
    for f in fields(layout.Blocks):
        np.testing.assert_array_equal(getattr(straight, f.name), getattr(sorted_first, f.name), err_msg=f.name)
    assert straight.values.dtype == np.dtype(dtype) and straight.shape == batch.shape
    params = model.start(ratings, config)
    ours, theirs = (kernels.gradient(params, one, config) for one in (straight, batch))
    assert ours.objective == theirs.objective
    for name, g in theirs.gradient.items():
        np.testing.assert_array_equal(ours.gradient[name], g)


@pytest.mark.parametrize("per_block", [1, 4, 29, 30, 1000])
def test_blocks_hold_each_rating_once(per_block: int) -> None:
    train = _ratings()
    batch = full_batch(train, Config(dtype="float64"))
    laid = layout.blocks(batch, per_block)
    assert sorted(laid.item_of) == list(range(30))
    counts = batch.item_counts[laid.item_of]
    assert (np.diff(counts) <= 0).all()
    seen = []
    for block in range(len(laid.first_rating)):
        for chunk, k in enumerate(laid.first_rating[block]):
            for segment in range(*laid.seg_bounds[block, chunk : chunk + 2]):
                for _ in range(laid.seg_length[segment]):
                    item = laid.item_of[block * per_block + laid.items[k]]
                    seen.append((laid.seg_user[segment], item, laid.values[k]))
                    k += 1
    assert len(seen) == len(train)
    assert sorted(seen) == sorted(zip(train.users, train.items, train.values, strict=True))
    # A segment is one user's: of a block, no two are.
    for block in range(len(laid.first_rating)):
        users = laid.seg_user[laid.seg_bounds[block, 0] : laid.seg_bounds[block, -1]]
        assert len(set(users)) == len(users)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_change_no_more_than_rounding(dtype: Any) -> None:
    train, config = _ratings(), Config(n_factors=6, dtype=dtype)
    batch, params = full_batch(train, config), model.start(train, config)
    whole = kernels.gradient(params, batch, config, kernels.workspace(params, batch, 30))
    for per_block in (1, 7):
        cut = kernels.gradient(params, batch, config, kernels.workspace(params, batch, per_block))
        assert cut.objective == pytest.approx(whole.objective, rel=1e-6 if dtype == "float32" else 1e-14)
        for name, g in cut.gradient.items():
            np.testing.assert_allclose(g, whole.gradient[name], rtol=0, atol=1e-5 if dtype == "float32" else 1e-14)


def test_a_rating_takes_six_bytes_in_float32() -> None:
    laid = layout.blocks(full_batch(_ratings(), Config()), 8)
    assert laid.items.itemsize + laid.values.itemsize == 6


def test_a_block_has_one_item_at_least_and_no_more_than_there_are() -> None:
    assert [layout.items_per_block(n) for n in (0, 50, 10**6)] == [1, 50, layout.ITEMS_PER_BLOCK]


def test_more_items_than_a_block_has() -> None:
    """The blocks that a fit takes by itself, two whole ones and a rest, give the gradient of one block."""
    rng = np.random.default_rng(8)
    n = 2 * layout.ITEMS_PER_BLOCK + 7
    ratings = Ratings.of_indices(rng.integers(0, 30, 9000), rng.integers(0, n, 9000), rng.normal(size=9000), m=30, n=n)
    config = Config(n_factors=3, dtype="float64")
    params, batch = model.start(ratings, config), full_batch(ratings, config)
    laid = layout.full_blocks(ratings, config)
    assert laid.first_rating.shape[0] == 3
    cut = kernels.gradient(params, laid, config)
    whole = kernels.gradient(params, batch, config, kernels.workspace(params, batch, n))
    assert cut.objective == pytest.approx(whole.objective, rel=1e-13)
    for name, g in cut.gradient.items():
        np.testing.assert_allclose(g, whole.gradient[name], rtol=0, atol=1e-14)


def test_indices_of_any_type_take_one_kernel() -> None:
    train, config = _ratings(), Config(n_factors=3, dtype="float64")
    params, kernel = model.start(train, config), kernels_model.predict_kernel(vector.form(3))
    expected = model.predict(params, train.users, train.items)
    for users, items in ((np.int32, np.int32), (np.int64, np.int32), (np.int32, np.uint16), (np.intp, np.int64)):
        found = kernels.predict(params, train.users.astype(users), train.items.astype(items))
        np.testing.assert_allclose(found, expected, rtol=1e-14)
    indices = {signature[6:8] for signature in kernel.signatures}
    assert indices == {(numba.int32[::1], numba.int32[::1])}


def test_rows_begin_on_a_cache_line() -> None:
    for shape in ((3, 16), (1, 4), (5,)):
        assert vector.aligned_empty(shape, np.float32).ctypes.data % 64 == 0


def test_bits_are_those_of_one_thread() -> None:
    before = numba.get_num_threads()
    if before == 1:
        pytest.skip("Numba has one thread here")
    train, config = _ratings(300, 200, 30_000), Config(n_factors=9)
    batch, params = full_batch(train, config), model.start(train, config)
    try:
        numba.set_num_threads(1)
        one = kernels.gradient(params, batch, config, kernels.workspace(params, batch, 64))
        numba.set_num_threads(before)
        more = kernels.gradient(params, batch, config, kernels.workspace(params, batch, 64))
    finally:
        numba.set_num_threads(before)
    assert one.objective == more.objective
    for name, g in one.gradient.items():
        np.testing.assert_array_equal(g, more.gradient[name])


_ON_ANOTHER_MACHINE = """
from tests.test_kernels import _largest_difference, _ratings
from mf_numpy import Config
for dtype, bound in (("float64", 1e-13), ("float32", 2e-5)):
    for n_factors in (5, 16):
        assert _largest_difference(_ratings(), Config(n_factors=n_factors, dtype=dtype, batch_size=90)) < bound
"""


@pytest.mark.parametrize("cpu", NARROWER)
def test_other_instruction_sets(cpu: str) -> None:
    """What the vectors become where the machine has narrower registers, or no multiply-add."""
    env = os.environ | compiling_for(cpu)
    done = subprocess.run([sys.executable, "-c", _ON_ANOTHER_MACHINE], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


_FOR_AARCH64 = r"""
import re
import llvmlite.binding as llvm
from mf_numpy import Config, kernels, model
from mf_numpy.batch import full_batch
from mf_numpy.kernels import gradients, vector
from tests.test_kernels import _ratings

config = Config(n_factors=16)
kernels.gradient(model.start(_ratings(), config), full_batch(_ratings(), config), config)
kernel = gradients.block_kernel(vector.form(16), 0)
code = kernel.inspect_llvm(kernel.signatures[0])
# Numba's own counting of references is x86's; the kernel's code is no machine's.
code = re.sub(r'"target-(cpu|features)"="[^"]*"|target (triple|datalayout) = .*', "", code).replace("llvm.x86.", "x86.")
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
machine = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(opt=2, cpu="cortex-a72")
module = llvm.parse_assembly(code)
module.triple, module.data_layout = machine.triple, str(machine.target_data)
assembly = machine.emit_assembly(module)
print(len(re.findall(r"\bfmla\s+v\d+\.4s", assembly)), len(re.findall(r"\bfmadd\s+s\d+", assembly)))
"""


def test_the_vectors_are_those_of_aarch64_too(tmp_path: Path) -> None:
    """Assembled for it, not run: multiply-adds of four numbers, and hardly one that is of a single number."""
    # A kernel that was read from disk has no code to inspect: it is compiled anew.
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", _FOR_AARCH64], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    vectors, singles = map(int, done.stdout.split())
    # A row of 16 is four registers: its dot product, its gradient and its item's, at least once each.
    assert vectors >= 12 and singles <= vectors // 10


def test_a_workspace_keeps_nothing_of_the_batch() -> None:
    batch = full_batch(_ratings(), Config())
    room = kernels.workspace(model.start(_ratings(), Config()), batch)
    assert room.blocks is not None
    for f in fields(room.blocks):
        array = getattr(room.blocks, f.name)
        if isinstance(array, np.ndarray):
            assert not any(np.shares_memory(array, x) for x in (batch.users, batch.items, batch.values))
