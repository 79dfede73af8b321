"""What of the adapters can be tried without their libraries: loops written here, settings refused, processes closed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import energy
from bench.peers import (
    adapter,
    adapter_cmfrec,
    adapter_cornac_torch,
    adapter_lenskit,
    adapter_pyspark,
    adapter_surprise,
)
from bench.peers.adapter import Order, RefusedError
from bench.peers.adapter_implicit import Implicit
from bench.peers.adapter_post import Post
from bench.peers.adapter_torch_loop import TorchLoop
from tests.fake_peer import Fake

Json = dict[str, Any]

M, N, K = 5, 4, 3
USERS = np.array([0, 1, 2, 3, 4, 0, 1, 2, 0], np.int32)
ITEMS = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0], np.int32)
VALUES = np.array([5, 3, 4, 1, 2, 4, 3, 5, 2], np.float32)


def order(lr: float = 0.1, reg: float = 0.1, seed: int | None = 0, **extra: Any) -> Order:
    """Nine ratings of five users and four items, one pair twice; three pairs to predict."""
    settings = {"n_factors": K, "threads": 1, "lr": lr, "reg": reg, "seed": seed, "extra": extra}
    return Order(USERS, ITEMS, VALUES, USERS[:3], ITEMS[1:4], M, N, settings)


def dense_step(p: Any, q: Any, v: tuple[Any, Any] | None, asked: Order) -> tuple[Any, Any, tuple[Any, Any]]:
    """One step of the post by loops over ratings and factors."""
    dp, dq = 2 * asked.reg * p, 2 * asked.reg * q
    for u, i, r in zip(USERS, ITEMS, VALUES, strict=True):
        error = float(p[u] @ q[i]) - float(r)
        for k in range(K):
            dp[u, k] += 2 / len(VALUES) * error * q[i, k]
            dq[i, k] += 2 / len(VALUES) * error * p[u, k]
    v = (dp, dq) if v is None else (0.9 * v[0] + 0.1 * dp, 0.9 * v[1] + 0.1 * dq)
    return p - asked.lr * v[0], q - asked.lr * v[1], v


def test_the_post_takes_its_steps() -> None:
    asked = order(steps=1)
    library, seen = Post(asked), list[tuple[Any, Any]]()
    library.run(4, lambda epoch: seen.append((library.p, library.q)))
    rng = np.random.default_rng(0)
    p, q = (rng.uniform(0, 11 / K, (size, K)) for size in (M, N))
    v = None
    for found_p, found_q in seen:
        p, q, v = dense_step(p, q, v, asked)
        np.testing.assert_allclose(found_p, p, rtol=1e-12)
        np.testing.assert_allclose(found_q, q, rtol=1e-12)
    assert len(seen) == 4
    users, items = np.array([4, 0]), np.array([3, 2])
    np.testing.assert_allclose(library.predict(users, items), [p[4] @ q[3], p[0] @ q[2]], rtol=1e-12)


def test_an_epoch_of_the_post_is_as_many_steps_as_asked_for() -> None:
    once, often = Post(order(steps=6)), Post(order(steps=2))
    epochs = list[int]()
    once.run(1, epochs.append)
    often.run(3, epochs.append)
    assert epochs == [1, 1, 2, 3]
    np.testing.assert_array_equal(once.p, often.p)


@pytest.mark.parametrize("loader", [False, True])
def test_the_torch_loop_sees_each_rating_once_an_epoch_in_a_new_order(loader: bool) -> None:
    torch = pytest.importorskip("torch")
    library = TorchLoop(order(batch_size=4, loader=loader))
    torch.manual_seed(0)
    batches = library._loader() if loader else library._slices
    epochs = [[np.stack([column.numpy() for column in batch]) for batch in batches()] for _ in range(2)]
    assert [[batch.shape[1] for batch in epoch] for epoch in epochs] == [[4, 4, 1], [4, 4, 1]]
    tables = [np.concatenate(epoch, axis=1) for epoch in epochs]
    assert not np.array_equal(tables[0], tables[1])
    for table in tables:
        assert sorted(map(tuple, table.T.tolist())) == sorted(zip(USERS, ITEMS, VALUES, strict=True))


def test_the_torch_loop_predicts_by_its_parameters_and_decays_them_all() -> None:
    pytest.importorskip("torch")
    library = TorchLoop(order(lr=0.05, reg=0.5))
    library.run(1, lambda epoch: None)
    b, c, p, q = (
        getattr(library.model, name).weight.detach().double().numpy()
        for name in ("user_biases", "item_biases", "user_factors", "item_factors")
    )
    by_hand = VALUES.mean(dtype=np.float64) + b[USERS, 0] + c[ITEMS, 0] + (p[USERS] * q[ITEMS]).sum(axis=1)
    np.testing.assert_allclose(library.predict(USERS, ITEMS), by_hand, rtol=1e-6)
    # Adam's first step is of length η against the gradient's sign: of the biases, which start at 0, that of the errors.
    assert np.abs(b).max() == pytest.approx(0.05, rel=1e-4)
    # With a weight decay beyond any error's gradient, factors shrink towards 0 wherever they are.
    start, heavy = (TorchLoop(order(lr=lr, reg=1e6)) for lr in (0.0, 0.001))
    for one in (start, heavy):
        one.run(1, lambda epoch: None)
    before, after = (one.model.user_factors.weight.detach().numpy() for one in (start, heavy))
    np.testing.assert_allclose(after, before - 0.001 * np.sign(before), atol=1e-6)


def test_the_torch_loop_learns() -> None:
    pytest.importorskip("torch")
    library, errors = TorchLoop(order(lr=0.05, reg=0.0, batch_size=3)), list[float]()
    library.run(30, lambda epoch: errors.append(float(np.square(library.predict(USERS, ITEMS) - VALUES).mean())))
    # One pair was rated 5 and 2, so that the least there can be is 2·1.5²/9.
    assert 0.5 < errors[-1] < 0.7 < errors[0]
    assert library.threads() == 1


@pytest.mark.parametrize(
    ("make", "extra", "reason"),
    [
        (adapter_surprise.Surprise, {"method": "svd++"}, r"method is 'svd\+\+', but must be one of svd, svdpp"),
        (adapter_surprise.Surprise, {"method": "svdpp", "biased": False}, "svdpp has biases always"),
        (adapter_lenskit.LensKit, {"method": "sgd"}, "method is 'sgd', but must be one of als, funksvd"),
        (adapter_cmfrec.Cmfrec, {"method": "sgd"}, "method is 'sgd', but must be one of als, lbfgs"),
        (
            adapter_cornac_torch.CornacTorch,
            {"optimizer": "adamw"},
            "optimizer is 'adamw', but must be one of sgd, adam",
        ),
        (Implicit, {"method": "lmf"}, "method is 'lmf', but must be one of als, bpr"),
        (Implicit, {"method": "bpr", "alpha": 2.0}, "extra has alpha, but this adapter knows method"),
        (Post, {"step": 1}, "extra has step, but this adapter knows momentum, steps"),
    ],
)
def test_an_adapter_refuses_what_it_does_not_know(make: Any, extra: Json, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        make(order(**extra))


def test_bpr_of_implicit_wants_a_learning_rate() -> None:
    with pytest.raises(RefusedError, match="lr is 0, but bpr needs one above 0"):
        Implicit(order(lr=0.0, method="bpr"))


def test_without_java_spark_did_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    out = adapter.carry_out(adapter_pyspark.Spark, order(), tmp_path / "out.json")
    assert out["status"] == "not run"
    assert out["reason"].startswith("Spark needs Java 17 or later")


@pytest.mark.parametrize(("steps", "joules"), [(True, [1.0, 2.0]), (False, [1.0, 1.0])])
def test_energy_is_of_training_alone(steps: bool, joules: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = order(steps=steps)
    monkeypatch.setattr(energy, "processors", lambda: ([], energy.NONE))
    without = adapter.curve(Fake(asked), [1, 3], lambda epoch, found: "")["points"]
    assert [point["joules"] for point in without] == [None, None]
    # A counter that moves by one joule from each reading to the next: up to each point there is one stretch more, or
    # one fit.
    ticks = iter(range(0, 10**9, 10**6))
    monkeypatch.setattr(energy, "processors", lambda: ([energy.Counter("package-0", lambda: next(ticks))], None))
    points = adapter.curve(Fake(asked), [1, 3], lambda epoch, found: "")["points"]
    assert [point["joules"] for point in points] == joules


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("steps", [False, True])
def test_a_library_is_closed_and_counts_its_own_processors(fails: bool, steps: bool, tmp_path: Path) -> None:
    class Other(Fake):
        closed = 0
        ticks = 0.0

        def run(self, n_epochs: int, each: adapter.Each) -> None:
            if fails:
                raise RuntimeError("out of order")
            super().run(n_epochs, each)

        def cpu(self) -> float:
            Other.ticks += 100.0
            return Other.ticks

        def close(self) -> None:
            Other.closed += 1

    asked = order(steps=steps)
    asked.settings.update(mode="fit", epochs=[2], n_epochs=2)
    if fails:
        with pytest.raises(RuntimeError, match="out of order"):
            adapter.carry_out(Other, asked, tmp_path / "out.json")
    else:
        assert adapter.carry_out(Other, asked, tmp_path / "out.json")["threads"]["busy"] > 1000
    assert Other.closed == 1
