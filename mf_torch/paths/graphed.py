"""A step over all ratings as one CUDA graph: recorded once, then replayed by one launch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mf_numpy.config import DRAWN, Config
from mf_numpy.errors import ConfigError
from mf_numpy.ratings import Ratings
from mf_torch.batch import Batch, in_parts
from mf_torch.model import MatrixFactorization
from mf_torch.objective import Objective
from mf_torch.optim import update
from mf_torch.paths.base import Path


class Graphed(Path):
    """Another path's gradient, and the update, without the host's part of each step.

    Unlike other paths it belongs to one run at a time: a graph holds the addresses of its parameters and ratings.

    Raises:
        ConfigError: a path whose work cannot be recorded.
    """

    def __init__(self, path: Path) -> None:
        if not path.capturable:
            raise ConfigError(
                f"path is {path.name!r}, which no CUDA graph can hold; leave graph out, or take another path"
            )
        self.path = path
        self.name = path.name  # type: ignore[misc]
        self._warm: tuple[object, ...] = ()
        self._recorded: _Step | None = None

    def load(self, train: Ratings, config: Config, device: torch.device | str) -> Batch:
        if torch.device(device).type != "cuda":
            raise ConfigError(f"graph is True on device {str(device)!r}; leave it out, or use device='cuda'")
        if config.loss in DRAWN:
            raise ConfigError(f"graph is True with loss {config.loss!r}, whose lists change; leave one of them out")
        if config.step_rule != "momentum":
            raise ConfigError(
                f"graph is True with step_rule {config.step_rule!r}, but a graph holds the velocity's steps alone; "
                "leave one of them out"
            )
        whole = self.path.load(train, config, device)
        if in_parts(whole, config):
            raise ConfigError(
                f"graph is True with batch_size {config.batch_size}, but a graph holds one batch; leave one of them out"
            )
        return whole

    def lay_out(self, batch: Batch, config: Config) -> Batch:
        return self.path.lay_out(batch, config)

    def _differentiate(self, module: MatrixFactorization, batch: Batch, config: Config) -> Objective:
        return self.path._differentiate(module, batch, config)

    def advance(
        self, module: MatrixFactorization, optimizer: torch.optim.Optimizer, batch: Batch, config: Config
    ) -> Objective:
        with torch.cuda.device(module.P.device):
            return self._advance(module, optimizer, batch, config)

    def _advance(
        self, module: MatrixFactorization, optimizer: torch.optim.Optimizer, batch: Batch, config: Config
    ) -> Objective:
        subject = (module, optimizer, batch, config)
        if not _same(self._warm, subject):
            # The first step makes what a recording must find: velocities, counts, the libraries' handles.
            self._warm, self._recorded = subject, None
            return beside(lambda: self.path.advance(module, optimizer, batch, config))
        if self._recorded is None:
            self._recorded = _Step(self.path, module, optimizer, batch, config)
        return self._recorded.replay()


class _Step:
    """One recorded step. Its inputs and outputs stay where they are: η, the parameters, their ``grad``, J."""

    def __init__(
        self,
        path: Path,
        module: MatrixFactorization,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        config: Config,
    ) -> None:
        self.optimizer = optimizer
        like = module.P.detach()
        self.lr = like.new_zeros(())
        self.seen: Objective | None = None

        def step() -> None:
            self.seen = path.differentiate(module, batch, config)
            update(optimizer, self.lr)

        self.run = record(step)

    def replay(self) -> Objective:
        (group,) = self.optimizer.param_groups
        self.lr.fill_(group["lr"])
        self.run()
        assert self.seen is not None
        # The next replay writes over these.
        return Objective(self.seen.value.clone(), self.seen.squared_error.clone())


def beside(work: Callable[[], Objective]) -> Objective:
    """Run work on a stream of its own, as is asked for before a recording, between what came and what comes."""
    stream, here = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        seen = work()
    here.wait_stream(stream)
    return seen


def record(work: Callable[[], None]) -> Callable[[], None]:
    """Record what work puts on the device, without running it; the result runs it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _same(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
