"""The progress of a fit: one live line on a terminal, about ten plain lines anywhere else."""

from __future__ import annotations

import statistics
import time
from collections import deque
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mf_numpy.cli_output import decimals
from mf_numpy.result import EpochRecord

_PLAIN_LINES = 10
_REDRAWS_PER_SECOND = 8


class Progress:
    """A context in which a fit runs; hand it to ``fit`` as the callback.

    Args:
        console: where to show it; a terminal gets the live line.
        n_epochs: the epoch at which the fit ends if nothing stops it.
        first: epochs done before, by the fit that is resumed.
        waiting: what to say until the first epoch is done.
        rmse: whether the training RMSE says anything, which it does not of a loss that ranks.
    """

    def __init__(
        self, console: Console, n_epochs: int, *, first: int = 0, waiting: str = "first epoch …", rmse: bool = True
    ) -> None:
        self.console = console
        self.n_epochs = n_epochs
        self.first = first
        self.waiting = waiting
        self.rmse = rmse
        self.last: EpochRecord | None = None
        self.printed = first
        self.every = max(1, -(-(n_epochs - first) // _PLAIN_LINES))
        self.valid_rmse: float | None = None
        self.recent: deque[float] = deque(maxlen=50)
        self.began = time.perf_counter()
        self.live: Live | None = None

    def __enter__(self) -> Progress:
        self.began = time.perf_counter()
        if self.console.is_terminal:
            # Drawn by Live's own thread: an epoch of a millisecond must not wait for a terminal.
            self.live = Live(get_renderable=self._text, console=self.console, refresh_per_second=_REDRAWS_PER_SECOND)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()
        elif self.last is not None and self.last.epoch != self.printed:
            self._print_line()

    def __call__(self, record: EpochRecord) -> None:
        """Take note of an epoch."""
        self.last = record
        self.recent.append(record.seconds)
        if record.valid_rmse is not None:
            self.valid_rmse = record.valid_rmse
        if self.live is None and (record.epoch - self.first == 1 or record.epoch - self.printed >= self.every):
            self._print_line()

    def line(self) -> str:
        """Epoch, objective, RMSE in rating units, milliseconds an epoch, and the time left."""
        if self.last is None:
            return self.waiting
        record = self.last
        parts = [
            f"epoch {record.epoch:>{len(str(self.n_epochs))}}/{self.n_epochs}",
            f"objective {decimals(record.objective)}",
        ]
        if self.rmse:
            parts.append(f"train RMSE {decimals(record.train_rmse)}")
        if self.valid_rmse is not None:
            parts.append(f"valid RMSE {decimals(self.valid_rmse)}")
        parts.append(_pace(statistics.median(self.recent)))
        left = self.n_epochs - record.epoch
        if left:
            # Wall time, so that evaluation counts too.
            parts.append(f"ETA {_clock(left * (time.perf_counter() - self.began) / (record.epoch - self.first))}")
        return "  ".join(parts)

    def _text(self) -> Text:
        return Text(self.line(), no_wrap=True, overflow="ellipsis")

    def _print_line(self) -> None:
        assert self.last is not None
        self.printed = self.last.epoch
        self.console.print(self.line(), soft_wrap=True)
        self.console.file.flush()


def _pace(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms/epoch" if seconds < 0.9995 else f"{seconds:.2f} s/epoch"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
