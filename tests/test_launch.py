"""A case in a process of its own is ended, with its reason, when it takes too much of anything or nothing at all."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("psutil")

from bench.launch import run_to_end

SPIN = "import time; t = time.process_time()\nwhile time.process_time() - t < 3: pass"


def run(code: str, folder: Path, **limits: float) -> str | None:
    target = folder / "out"
    code = code + f"\nopen({str(target)!r}, 'w').close()"
    return run_to_end([sys.executable, "-c", code], os.environ, folder / "said", target, **limits)


def test_one_that_ends_has_no_reason(tmp_path: Path) -> None:
    assert run("print('done')", tmp_path, limit=60, idle_limit=60) is None


def test_one_that_waits_for_nothing_counts_as_hung(tmp_path: Path) -> None:
    assert run("import time; time.sleep(60)", tmp_path, limit=60, idle_limit=2) == "hung: no processor time for 2 s"


def test_one_that_works_longer_than_it_may_wait_does_not(tmp_path: Path) -> None:
    assert run(SPIN, tmp_path, limit=60, idle_limit=2) is None


def test_work_below_it_counts_as_its_own(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}])"
    assert run(code, tmp_path, limit=60, idle_limit=2) is None


def test_memory_is_counted_with_what_lies_below_it(tmp_path: Path) -> None:
    take = "x = b'1' * 2**28; import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {take!r}])"
    reason = run(code, tmp_path, limit=60, memory_limit=2**27)
    assert reason is not None
    took = float(reason.removeprefix("it took ").split(" GiB of memory, and may take 0.125")[0])
    assert 0.25 <= took < 1


def test_what_it_started_is_ended_with_it(tmp_path: Path) -> None:
    wrote = tmp_path / "pid"
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(wrote)!r}, 'w').write(str(child.pid))\n"
        "child.wait()"
    )
    assert run(code, tmp_path, limit=3) == "no result after 3 s"
    child = int(wrote.read_text(encoding="ascii"))
    for _ in range(50):
        try:
            os.kill(child, 0)
            state = Path(f"/proc/{child}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return
        # Ended, and not yet waited for by whoever inherits it.
        if state == "Z":
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("what the case started went on without it")
