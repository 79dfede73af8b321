"""Triton's kernels of the path `fused`: interpreted on the CPU, compiled without a GPU, and run on one."""

from __future__ import annotations

import os
import re
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
from mf_numpy import Config, ConfigError, Ratings, Split, kernels
from mf_numpy.batch import full_batch
from mf_numpy.check import GRADIENT_TOLERANCE, cases, relative_difference
from mf_torch import MatrixFactorization
from mf_torch.batch import to_device
from mf_torch.check import evaluate
from mf_torch.paths import operator, rows
from mf_torch.paths.operator import fused, settings_of

ROOT = Path(__file__).parent.parent


def _interpreted(code: str, *arguments: str) -> None:
    """In a process of its own: Triton looks at TRITON_INTERPRET when a kernel is defined."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", _START + code, *arguments],
        env=dict(os.environ, TRITON_INTERPRET="1"), capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


_START = """
import importlib.util, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from mf_numpy import gradients
from mf_numpy.batch import Batch
from mf_numpy.check import GRADIENT_TOLERANCE, TRAJECTORY_TOLERANCE, METHODS, ENGINES
from mf_numpy.check import cases, relative_difference, trajectory, trajectory_configs
from mf_numpy.ratings import Ratings
from mf_torch.check import evaluate, observe
from mf_torch.paths import fused, operator, rows, triton_rows
from mf_torch.train import TorchEngine

fused.by_triton = lambda batch: True
CASES = {case.name: case for case in cases()}

def small_pieces(kernels=triton_rows):
    # Rows of several pieces, and pieces of several tiles that do not fill the last one.
    rows.PIECE, kernels._AT_ONCE = 6, 64
"""


def test_interpreted_gradients_are_those_of_the_loops() -> None:
    _interpreted("""
some = [name for name in CASES if name.startswith(("plain, total", "biased, per_rating")) and "unsorted" in name]
assert len(some) == 13
for at, name in enumerate(some):
    case = CASES[name]
    if at == 2:
        small_pieces()
    gold = METHODS["loops"](case.params, case.batch, case.config)
    seen = evaluate(case.params, case.batch, case.config, path="fused")
    known = gradients.gradient(case.params, case.batch, case.config)
    for key, expected in gold.items():
        assert relative_difference(seen.gradient[key], expected) <= GRADIENT_TOLERANCE, (name, key)
    assert abs(seen.objective / known.objective - 1) <= 1e-14, name
    assert abs(seen.squared_error / known.squared_error - 1) <= 1e-13, name
""")


@pytest.mark.thorough
def test_interpreted_gradients_in_float32() -> None:
    """Within what rounding can do: K + 4 roundings of an error, whose terms add up to s, and B of a sum."""
    _interpreted("""
small_pieces()
for name in ("biased, per_rating, duplicate pairs, unsorted", "plain, total, empty user and item"):
    case = CASES[name]
    narrow = case.params.with_tensors({k: x.astype(np.float32) for k, x in case.params.tensors().items()})
    params = narrow.with_tensors({k: x.astype(np.float64) for k, x in narrow.tensors().items()})
    batch = case.batch
    short = Batch(batch.users, batch.items, batch.values.astype(np.float32), batch.shape)
    seen = evaluate(narrow, short, case.config, path="fused")
    gold = gradients.gradient(params, batch, case.config)
    P, Q = abs(params.P), abs(params.Q)
    s = abs(params.mu) + (P[batch.users] * Q[batch.items]).sum(1) + abs(batch.values)
    if params.b is not None:
        s += abs(params.b[batch.users]) + abs(params.c[batch.items])
    B, roundings = len(batch), 2 * (P.shape[1] + 4 + len(batch))
    S = np.zeros(batch.shape)
    np.add.at(S, (batch.users, batch.items), s)
    sums = {"P": S @ Q, "Q": S.T @ P, "b": S.sum(1), "c": S.sum(0)}
    for key, x in params.tensors().items():
        bound = np.finfo(np.float32).eps * (roundings * sums[key] / B + 8 * case.config.reg * abs(x))
        assert seen.gradient[key].dtype == np.float32
        assert (abs(seen.gradient[key] - gold.gradient[key]) <= bound).all(), (name, key)
    assert abs(seen.objective - gold.objective) <= np.finfo(np.float32).eps * roundings * (s**2).sum() / B
""")


def test_interpreted_steps_are_those_of_the_loops() -> None:
    _interpreted("""
rng = np.random.default_rng(1)
ratings = Ratings.of_indices(rng.integers(0, 4, 12), rng.integers(0, 3, 12), rng.integers(1, 6, 12), m=4, n=3)
((_, config),) = [pair for pair in trajectory_configs() if pair[0] == "nesterov, biased, per_rating"]
config = replace(config, n_epochs=4, lr_schedule=((3, 0.5),))
engine = TorchEngine(path="fused")
gold = trajectory(*ENGINES["loops"], ratings, config)
for mine, expected in zip(trajectory(engine, observe, ratings, config), gold, strict=True):
    for key in expected:
        assert relative_difference(mine[key], expected[key]) <= TRAJECTORY_TOLERANCE, key
""")


def test_wrong_lines_of_the_kernels_are_seen(tmp_path: Path) -> None:
    _interpreted(
        """
small_pieces()
case = CASES["biased, per_rating, duplicate pairs, unsorted"]
gold = gradients.gradient(case.params, case.batch, case.config)
text = Path(triton_rows.__file__).read_text(encoding="utf-8")

def difference(text, name):
    path = Path(sys.argv[1]) / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels)
    small_pieces(kernels)
    operator.kernels_of_triton = lambda: kernels
    seen = evaluate(case.params, case.batch, case.config, path="fused")
    parts = [relative_difference(seen.gradient[key], g) for key, g in gold.gradient.items()]
    return max(*parts, abs(seen.objective / gold.objective - 1))

WRONG = {
    "tail_counted": ("error = tl.where(here, error, 0.0)", "error = error * 1.0"),
    "residual_not_permuted": ("tl.load(e + tl.load(order + k, mask=here, other=0), mask", "tl.load(e + k, mask"),
    "mean_forgotten": ("scale, pull = share.to(x.dtype),", "scale, pull = (share * 0 + 1).to(x.dtype),"),
    "first_piece_alone": ("begin, end = tl.load(first + row), tl.load(first + row + 1)",
        "begin, end = tl.load(first + row), tl.load(first + row) + 1"),
}
assert difference(text, "right") <= 1e-12
for name, (right, wrong) in WRONG.items():
    assert text.count(right) == 1, name
    assert difference(text.replace(right, wrong), name) > 1e-3, name
""",
        str(tmp_path),
    )


@pytest.mark.parametrize(("dtype", "stored"), [("fp32", "fp32"), ("fp64", "fp64"), ("fp32", "bf16"), ("fp32", "fp16")])
@pytest.mark.parametrize("n_factors", [3, 64])
def test_kernels_compile_for_a_gpu_that_is_not_here(
    dtype: str, stored: str, n_factors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none of them has an atomic instruction, so that nothing is added in an order that chance decides."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mf_torch.paths import triton_rows

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    types: dict[str, str] = dict.fromkeys(("indptr", "items", "users", "first", "row_of", "order"), "*i32")
    types |= dict.fromkeys(("P", "Q", "theta"), f"*{stored}")
    types |= dict.fromkeys(("mu", "numbers", "losses", "squares", "norms"), "*fp64")
    shape = {"K": n_factors, "LANES": max(16, n_factors), "TILE": 32, "BIASED": True}
    for kernel, more in (
        (triton_rows.users_kernel, {"PIECE": 512, "LOSS": "logistic"}),
        (triton_rows.items_kernel, {"PIECE": 512}),
        (triton_rows.finish_kernel, {"PER_RATING": True}),
    ):
        constants: dict[str, Any] = shape | more
        names = {name: "constexpr" if name in constants else types.get(name, f"*{dtype}") for name in kernel.arg_names}
        source = ASTSource(kernel, signature=names, constexprs=constants)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})
        assert "st.global" in made.asm["ptx"] and not re.search(r"\b(atom|red)\.", made.asm["ptx"])


@pytest.mark.parametrize("size", [1, 3, 100])
def test_every_pair_is_in_one_piece(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PIECE", size)
    for case in cases():
        batch = rows.in_pieces(to_device(case.batch, "cpu"))
        assert rows.in_pieces(batch) is batch
        for view, pieces in ((batch.by_user, batch.user_pieces), (batch.by_item, batch.item_pieces)):
            begins = (
                pieces.indptr[pieces.row.long()]
                + (torch.arange(len(pieces.row)) - pieces.first[pieces.row.long()]) * size
            )
            ends = torch.minimum(begins + size, pieces.indptr[pieces.row.long() + 1])
            seen = [k for begin, end in zip(begins.tolist(), ends.tolist(), strict=True) for k in range(begin, end)]
            assert seen == list(range(len(batch)))
            assert sorted(set(pieces.row.tolist())) == list(range(view.shape[0]))


def test_without_triton_the_path_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="path is 'fused', which needs Triton on CUDA; install triton, or use"):
        operator.kernels_of_triton()


# On a GPU


@pytest.mark.cuda
@pytest.mark.parametrize("case", [case for case in cases() if "unsorted" in case.name], ids=lambda case: case.name)
def test_cuda_operator(case: Any) -> None:
    module, batch = MatrixFactorization(case.params, "cuda"), to_device(case.batch, "cuda")
    layout = rows.to_tensors(rows.in_pieces(batch))
    arguments = module.P, module.Q, module.b, module.c, module.mu, layout, *settings_of(case.config)
    assert set(torch.library.opcheck(fused, arguments).values()) == {"SUCCESS"}
    fused(*arguments)[0].backward()
    gold = mf_numpy.check.METHODS["loops"](case.params, case.batch, case.config)
    for key, p in module.named_parameters():
        assert p.grad is not None and relative_difference(p.grad.cpu().numpy(), gold[key]) <= GRADIENT_TOLERANCE


@pytest.mark.cuda
@pytest.mark.parametrize("n_factors", [1, 16, 64, 100, 600])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cuda_rows_longer_than_a_piece(n_factors: int, dtype: Any) -> None:
    """A few rows have most of the ratings; the same bits twice, without asking torch for them."""
    rng = np.random.default_rng(6)
    users, items = rng.geometric(0.02, 30_000) - 1, rng.geometric(0.05, 30_000) - 1
    ratings = Ratings.of_indices(users, items, rng.normal(size=30_000), m=1500, n=700)
    assert int(ratings.item_counts.max()) > 2 * rows.PIECE
    config = Config(n_factors=n_factors, dtype=dtype, init_scale=0.1)
    params, batch = mf_numpy.init(ratings, config).params, full_batch(ratings, config)
    one, two = (evaluate(params, batch, config, "cuda", "fused") for _ in range(2))
    gold = kernels.gradient(params, batch, config)
    # As many roundings as a sum has terms, in both.
    tolerance = 2 * float(ratings.item_counts.max()) * np.finfo(config.numpy_dtype).eps
    for key, g in gold.gradient.items():
        assert np.array_equal(one.gradient[key], two.gradient[key])
        assert relative_difference(one.gradient[key], g) <= tolerance
    assert one.objective == two.objective == pytest.approx(gold.objective, rel=tolerance)


@pytest.mark.cuda
@pytest.mark.parametrize("graph", [False, True])
def test_cuda_fits_have_the_same_bits_with_and_without_being_asked(small: Split, quick: Config, graph: bool) -> None:
    config = replace(quick, dtype="float32")
    runs = [
        mf_torch.fit(small.train, config, device="cuda", path="fused", graph=graph, deterministic=asked).params
        for asked in (False, False, True)
    ]
    for key, theta in runs[0].tensors().items():
        assert all(np.array_equal(run.tensors()[key], theta) for run in runs[1:])
