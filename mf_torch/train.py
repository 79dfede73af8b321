"""Training by autograd; the twin of `mf_numpy.train`, driven by the same loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from mf_numpy import train as by_hand
from mf_numpy.config import SAMPLERS, Config
from mf_numpy.design import Design
from mf_numpy.designed import check_loss
from mf_numpy.engine import State
from mf_numpy.errors import ConfigError
from mf_numpy.kernels import predict
from mf_numpy.metrics import Predictor
from mf_numpy.ratings import Ratings
from mf_numpy.result import FitResult
from mf_numpy.split import Holdout
from mf_torch import paths
from mf_torch.batch import Batch
from mf_torch.design_gibbs import DesignGibbsEngine
from mf_torch.gibbs import GibbsEngine
from mf_torch.hmc import HmcEngine
from mf_torch.model import MatrixFactorization
from mf_torch.objective import Objective
from mf_torch.optim import memory, optimizer_of, set_lr, set_memory
from mf_torch.paths import Path
from mf_torch.paths.graphed import Graphed
from mf_torch.paths.half import Half
from mf_torch.paths.sparse_grad import SparseGrad


@dataclass(frozen=True, eq=False)
class TorchState:
    """A point of the trajectory on the device; `step` moves module and optimiser in place.

    Attributes:
        module: the parameters; after a step their ``grad`` is what the step saw.
        optimizer: holds what the step rule remembers.
        epoch: epochs finished.
        seen: objective and squared error of the last step, before it moved.
    """

    module: MatrixFactorization
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    seen: Objective | None = None


def init(train: Ratings, config: Config, *, device: str = "cpu") -> TorchState:
    """The trajectory's first point: NumPy draws the parameters (Eq. 25), torch only converts."""
    return TorchEngine(device).start(by_hand.init(train, config), None, config)


def step(state: TorchState, batch: Batch, config: Config, *, path: str = "autograd") -> TorchState:
    """One gradient (Eq. 6), by autograd or another of `mf_torch.paths`, and one update by torch's optimiser (Eq. 12).

    Args:
        batch: in any layout; `TorchEngine` lays ratings out once and not in every step.
    """
    by = paths.get(path)
    return _advance(state, by, by.lay_out(batch, config), config)


def _advance(state: TorchState, path: Path, batch: Batch, config: Config) -> TorchState:
    set_lr(state.optimizer, config.lr_at(state.epoch + 1))
    return replace(state, seen=path.advance(state.module, state.optimizer, batch, config))


def fit(
    train: Ratings,
    config: Config | None = None,
    *,
    valid: Holdout | None = None,
    callback: by_hand.Callback | None = None,
    device: str = "cpu",
    path: str = "autograd",
    graph: bool = False,
    deterministic: bool = False,
    tf32: bool = False,
    sparse_grad: bool = False,
    storage: str | None = None,
    design: Design | None = None,
    resume: FitResult | None = None,
    draws_to: str | PathLike[str] | None = None,
) -> FitResult:
    """Minimise Eq. 2 over the training ratings; autograd finds the gradients. A sampler draws from the posterior.

    With ``sgd`` and a design each rating is a step of autograd's own: slow, and there to be compared with.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``; all ratings are moved there once.
        path: another way to the same gradients, one of `mf_torch.paths.PATHS`.
        graph: record a step of the full batch as a CUDA graph, and replay it.
        deterministic: use torch's deterministic algorithms only, for equal bits run after run on CUDA.
        tf32: let CUDA round the factors of dense float32 products to 10 bits; off, whatever torch is set to outside.
        sparse_grad: of a gradient keep the rows of the batch alone, with the path ``autograd``.
        storage: ``bfloat16`` or ``float16``, to which factors are rounded where ratings gather them, with the path
            ``fused`` and float32 parameters, sums and steps.

    Other arguments, the result and the errors are those of `mf_numpy.fit`.

    Raises:
        ConfigError: a device that torch does not see, no such path, a graph, sparse gradients or storage where none
            can be, a design with another path than ``autograd``, a solver other than ``gd``, the samplers and, with a
            design, ``sgd``; and as `mf_numpy.fit`.
    """
    config = config or Config()
    single = config.solver == "sgd"
    if config.solver not in ("gd", *SAMPLERS) and not (single and design is not None):
        so = " without a design" if single else ""
        raise ConfigError(
            f"solver is {config.solver!r}, which mf_torch does not have{so}; use solver='gd', 'gibbs' or 'hmc', or "
            "mf_numpy"
        )
    engine: Any
    if config.solver in SAMPLERS:
        if path != "autograd" or graph or sparse_grad or storage is not None:
            raise ConfigError(
                f"solver is {config.solver!r} with a path, graph, sparse_grad or storage, none of which it knows; "
                "leave them out, or use solver='gd'"
            )
        where = str(_usable(device))
        if config.solver == "hmc":
            if design is not None:
                raise ConfigError("solver is 'hmc' with a design, which it does not know; use solver='gibbs'")
            engine = HmcEngine(where)
        else:
            engine = GibbsEngine(where) if design is None else DesignGibbsEngine(design, where)
    elif design is None:
        engine = TorchEngine(device, path, graph=graph, sparse_grad=sparse_grad, storage=storage)
    else:
        # It is made of what stands below.
        from mf_torch.design_sgd import DesignSgdEngine
        from mf_torch.designed import DesignEngine

        if graph or sparse_grad or storage is not None:
            raise ConfigError("a design came with graph, sparse_grad or storage, which know none; leave them out")
        check_loss(config)
        engine = DesignSgdEngine(design, config, device, path) if single else DesignEngine(design, device, path)
    mode: AbstractContextManager[None] = _deterministic() if deterministic else nullcontext()
    with mode, _float32_products(tf32):
        result = by_hand.run(engine, train, config, valid=valid, callback=callback, resume=resume, draws_to=draws_to)
    details = {
        "path": path, "graph": graph, "deterministic": deterministic, "tf32": tf32, "sparse_grad": sparse_grad,
        "storage": storage,
    }  # fmt: skip
    if config.solver in SAMPLERS:
        details = {"deterministic": deterministic, "tf32": tf32}
    return replace(result, details=details)


class TorchEngine:
    """One path on one device; `mf_numpy.engine.Engine` says what each method does."""

    backend = "torch"
    predict: Predictor = staticmethod(predict)

    def __init__(
        self,
        device: str = "cpu",
        path: str = "autograd",
        *,
        graph: bool = False,
        sparse_grad: bool = False,
        storage: str | None = None,
    ) -> None:
        self.device = str(_usable(device))
        self.path: Path = _with_sparse_grad(path, graph) if sparse_grad else paths.get(path)
        if storage is not None:
            self.path = _with_storage(self.path, storage)
        if graph:
            self.path = Graphed(self.path)

    def load(self, train: Ratings, config: Config) -> Batch:
        return self.path.load(train, config, self.device)

    def start(self, state: State, whole: Batch | None, config: Config) -> TorchState:
        module = MatrixFactorization(state.params, self.device)
        optimizer = optimizer_of(module, config)
        set_memory(module, optimizer, state.memory)
        return TorchState(module, optimizer, state.epoch)

    def batches(self, whole: Batch, epoch: int, config: Config) -> Iterator[Batch]:
        return self.path.batches(whole, epoch, config)

    def step(self, state: TorchState, batch: Batch, config: Config) -> TorchState:
        return _advance(state, self.path, batch, config)

    def seen(self, state: TorchState) -> tuple[Tensor, Tensor]:
        assert state.seen is not None
        return state.seen.value.double(), state.seen.squared_error

    def next_epoch(self, state: TorchState) -> TorchState:
        return replace(state, epoch=state.epoch + 1)

    def synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)

    def export(self, state: TorchState) -> State:
        return State(state.module.to_params(), memory(state.module, state.optimizer), state.epoch)


def _with_sparse_grad(path: str, graph: bool) -> Path:
    if paths.get(path).name != "autograd":
        raise ConfigError(f"sparse_grad is True with path {path!r}; leave it out, or use path='autograd'")
    if graph:
        raise ConfigError(
            "sparse_grad is True with graph True, but a graph's tensors keep their sizes; leave one of them out"
        )
    return SparseGrad()


def _with_storage(path: Path, storage: str) -> Path:
    if path.name != "fused":
        raise ConfigError(f"storage is {storage!r} with path {path.name!r}; leave it out, or use path='fused'")
    return Half(storage)


def _usable(device: str) -> torch.device:
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device is {device!r}, but must be 'cpu', 'cuda' or 'cuda:N'") from None
    if wanted.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {device!r}, but must be 'cpu', 'cuda' or 'cuda:N'")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        raise ConfigError(f"device is {device!r}, but torch sees {seen} CUDA devices; use device='cpu'")
    return wanted


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def _float32_products(tf32: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
