"""What the tests of the harness share: a case without a process of its own, and a machine that is always quiet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import machine, worker
from bench.cases import Case

Json = dict[str, Any]


def in_process(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """A case without a process of its own, so that a test can reach into it."""
    outcome, arrays = worker.run_case(order, folder)
    return json.loads(json.dumps(outcome)), arrays


@contextmanager
def quiet_machine() -> Iterator[pytest.MonkeyPatch]:
    """A machine that nobody else uses, whatever runs beside the tests; one thread, as two would wait for each other."""
    import numba
    import torch

    threads = numba.get_num_threads(), torch.get_num_threads()
    numba.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "others_busy", lambda before, after: 0.0)
        yield patch
    numba.set_num_threads(threads[0])
    torch.set_num_threads(threads[1])
