"""A step as one CUDA graph: recorded and replayed on the CPU, where work is kept and run again, and on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import mf_numpy
import mf_torch
from mf_numpy import Config, ConfigError, Split
from mf_numpy.check import TRAJECTORY_TOLERANCE, cases, relative_difference
from mf_torch import MatrixFactorization, optim, paths
from mf_torch.paths import PATHS, graphed
from mf_torch.train import TorchEngine

CAPTURABLE = [name for name, path in PATHS.items() if path.capturable]


def _forms() -> Iterator[Config]:
    for form, beta in (("ema", 0.0), ("ema", 0.9), ("heavy_ball", 0.8), ("nesterov", 0.8)):
        yield Config(momentum_form=form, momentum=beta, lr=0.3, dtype="float64")  # type: ignore[arg-type]


@pytest.mark.parametrize("config", _forms(), ids=lambda config: f"{config.momentum_form} {config.momentum}")
def test_the_update_on_the_device_is_the_optimiser_s(config: Config) -> None:
    case = next(case for case in cases() if case.name == "biased, total, single rating")
    one, two = MatrixFactorization(case.params), MatrixFactorization(case.params)
    ours, theirs = optim.sgd(one, config), optim.sgd(two, config)
    rng = np.random.default_rng(4)
    for step in range(4):
        for p, q in zip(one.parameters(), two.parameters(), strict=True):
            p.grad = torch.tensor(rng.normal(size=p.shape))
            q.grad = p.grad.clone()
        lr = 0.3 / (step + 1)
        optim.set_lr(ours, lr)
        optim.set_lr(theirs, lr)
        theirs.step()
        # The first step makes the velocities.
        if step:
            optim.update(ours, torch.tensor(lr, dtype=torch.float64))
        else:
            ours.step()
        for p, q in zip(one.parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-15, atol=1e-15)
            assert torch.equal(p.grad, q.grad)  # type: ignore[arg-type]


def test_an_update_leaves_the_gradient_as_it_was_seen(small: Split, quick: Config) -> None:
    """torch's default on CUDA, one kernel for many tensors, adds Nesterov's part to ``grad``."""
    state = mf_torch.init(small.train, quick)
    assert quick.momentum_form == "nesterov" and state.optimizer.param_groups[0]["foreach"] is False


def _at_once(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Recording and replaying on the CPU, where work is kept and run again; what was done, in order."""
    done: list[str] = []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        done.append("record")

        def replay() -> None:
            done.append("replay")
            work()

        return replay

    def beside(work: Callable[[], Any]) -> Any:
        done.append("warm up")
        return work()

    monkeypatch.setattr(graphed, "record", record)
    monkeypatch.setattr(graphed, "beside", beside)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    return done


@pytest.mark.parametrize("name", CAPTURABLE)
def test_a_graph_is_recorded_after_the_first_step_and_follows_the_schedule(
    monkeypatch: pytest.MonkeyPatch, small: Split, quick: Config, name: str
) -> None:
    done = _at_once(monkeypatch)
    config = replace(quick, lr_schedule=((3, 0.1),), n_epochs=5)
    plain, held = TorchEngine(path=name), TorchEngine(path=name)
    held.path = graphed.Graphed(paths.get(name))
    whole = plain.load(small.train, config)
    for _ in range(2):  # another run by the same engine records anew
        done.clear()
        a, b = (engine.start(mf_numpy.init(small.train, config), whole, config) for engine in (plain, held))
        for _ in range(5):
            a, b = plain.next_epoch(plain.step(a, whole, config)), held.next_epoch(held.step(b, whole, config))
            assert float(plain.seen(a)[0]) == pytest.approx(float(held.seen(b)[0]), rel=1e-14)
            for key, theta in plain.export(a).params.tensors().items():
                assert relative_difference(held.export(b).params.tensors()[key], theta) <= 1e-14
        assert done == ["warm up", "record"] + ["replay"] * 4


def test_a_graph_where_none_can_be_is_refused(small: Split) -> None:
    with pytest.raises(ConfigError, match="graph is True on device 'cpu'"):
        mf_torch.fit(small.train, graph=True)
    with pytest.raises(ConfigError, match="path is 'compiled', which no CUDA graph can hold"):
        mf_torch.fit(small.train, graph=True, path="compiled")


# On a GPU


@pytest.mark.cuda
@pytest.mark.parametrize("name", CAPTURABLE)
def test_cuda_graph_is_the_same_trajectory(small: Split, quick: Config, name: str) -> None:
    for config in (quick, replace(quick, momentum=0.0, momentum_form="ema", lr_schedule=((7, 0.5),))):
        gold = mf_numpy.fit(small.train, config, backend="numpy")
        mine = mf_torch.fit(small.train, config, device="cuda", path=name, graph=True)
        for a, b in zip(mine.history, gold.history, strict=True):
            assert a.objective == pytest.approx(b.objective, rel=TRAJECTORY_TOLERANCE)
        for key, theta in gold.params.tensors().items():
            assert relative_difference(mine.params.tensors()[key], theta) <= TRAJECTORY_TOLERANCE


@pytest.mark.cuda
def test_cuda_graph_needs_the_full_batch(small: Split, quick: Config) -> None:
    with pytest.raises(ConfigError, match="graph is True with batch_size 300"):
        mf_torch.fit(small.train, replace(quick, batch_size=300), device="cuda", graph=True)
