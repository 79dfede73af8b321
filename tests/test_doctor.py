"""The doctor on made-up machines: each fault is found and has a remedy, and what it prints names nobody."""

from __future__ import annotations

import getpass
import gzip
import importlib
import json
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench import cli, doctor, inventory, machine
from bench.inventory import Finding
from bench.peers import install, registry
from mf_numpy.sources import locate


def root(tmp_path: Path, **files: str) -> Path:
    """A file system in which ``a__b`` is the file a/b."""
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def states(found: Any) -> dict[str, str]:
    return {finding.name: finding.state for finding in found}


def only(found: Any) -> Finding:
    (finding,) = found
    assert isinstance(finding, Finding) and (finding.state != "warn" or finding.remedy)
    return finding


def test_work_of_others_and_of_other_machines() -> None:
    assert states(doctor.busy(0.25, 0.02)) == {"other work": "ok", "stolen time": "ok"}
    held, stolen = doctor.busy(0.26, 0.05)
    assert (held.state, held.text) == ("warn", "others keep 0.26 cores busy") and "close them" in held.remedy
    assert (stolen.state, stolen.text) == ("warn", "5% of the time goes to other virtual machines") and stolen.remedy
    assert only(doctor.busy(None, None)).state == "note"


def test_stolen_time_is_of_the_time_that_was_watched(tmp_path: Path) -> None:
    at = root(tmp_path, proc__stat="cpu  100 0 100 700 0 0 0 100 7 7\ncpu0 1 2 3 4 5 6 7 8\n")

    def later(seconds: float) -> None:
        assert seconds == 9.0
        root(tmp_path, proc__stat="cpu  110 0 110 760 0 0 0 120 9 9\n")

    before, after, stolen = doctor.watch(at, 9.0, later)
    assert stolen == pytest.approx(20 / 100) and before.wall <= after.wall
    # No time passed, no such file, another kind of file.
    assert doctor.watch(at, 0.0, lambda seconds: None)[2] is None
    assert doctor.watch(tmp_path / "none", 0.0, lambda seconds: None)[2] is None
    assert doctor.watch(root(tmp_path, proc__stat="cpu 1 2"), 0.0, lambda seconds: None)[2] is None


def test_cores_that_may_not_be_used() -> None:
    assert only(doctor.fewer_cores(4, 4)).state == "ok"
    found = only(doctor.fewer_cores(2, 4))
    assert found.state == "warn" and found.text.startswith("2 of the machine's 4")


@pytest.mark.parametrize("name", [*machine.THREADS, *machine.REMOVED, *doctor.INHERITED])
def test_every_variable_that_changes_times(name: str) -> None:
    assert states(doctor.variables({}, 2)) == {"threads": "ok"}
    found = [finding for finding in doctor.variables({name: "7"}, 2) if finding.state == "warn"]
    assert name in only(found).text and only(found).remedy == f"unset {name}"
    assert not [finding for finding in doctor.variables({name: ""}, 2) if finding.state == "warn"]


def test_thread_variables_that_say_what_is_so_anyway() -> None:
    found = only(doctor.variables({"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}, 2))
    assert (found.state, found.text) == ("ok", "OMP_NUM_THREADS, MKL_NUM_THREADS set to all usable cores")
    found = only(doctor.variables({"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "1"}, 2))
    assert found.remedy == "unset MKL_NUM_THREADS" and found.text.startswith("MKL_NUM_THREADS=1: ")


def test_a_clock_that_is_lowered(tmp_path: Path) -> None:
    assert list(doctor.frequency(tmp_path)) == []
    governor = "sys__devices__system__cpu__cpu{}__cpufreq__scaling_governor"
    at = root(tmp_path, **{governor.format(0): "performance\n", governor.format(1): "performance\n"})
    assert only(doctor.frequency(at)).state == "ok"
    root(tmp_path, **{governor.format(11): "powersave\n"})
    found = only(doctor.frequency(at))
    assert found.state == "warn" and found.text.startswith("the governor is performance, powersave")
    assert found.remedy == "sudo cpupower frequency-set -g performance"


def test_a_battery_but_not_a_mouse(tmp_path: Path) -> None:
    supply = "sys__class__power_supply__{}__{}"
    at = root(tmp_path, **{supply.format("hid", "status"): "Discharging\n", supply.format("hid", "scope"): "Device\n"})
    assert list(doctor.frequency(at)) == []
    root(tmp_path, **{supply.format("BAT0", "status"): "Full\n"})
    assert list(doctor.frequency(at)) == []
    root(tmp_path, **{supply.format("BAT0", "status"): "Discharging\n"})
    assert (only(doctor.frequency(at)).name, only(doctor.frequency(at)).state) == ("power", "warn")


def test_memory_and_swap(tmp_path: Path) -> None:
    assert list(doctor.memory(tmp_path)) == []
    sizes = "MemTotal: 16777216 kB\nMemAvailable: {} kB\nSwapTotal: 4194304 kB\nSwapFree: {} kB\nHugePages_Total: 0\n"
    at = root(tmp_path, proc__meminfo=sizes.format(2 << 20, (4 << 20) - (64 << 10)))
    assert (only(doctor.memory(at)).state, only(doctor.memory(at)).text) == ("ok", "2.0 GiB of 16.0 GiB free")
    root(tmp_path, proc__meminfo=sizes.format((2 << 20) - 1, (4 << 20) - (64 << 10) - 1))
    free, swap = doctor.memory(at)
    assert (free.name, free.state, swap.name, swap.state) == ("memory", "warn", "swap", "warn")
    assert free.remedy and "swapoff" in swap.remedy


def test_debug_builds_and_changed_sources() -> None:
    assert list(doctor.interpreter(False)) == [] and only(doctor.interpreter(True)).state == "warn"
    commit = "0123456789abcdef"
    assert only(doctor.checkout({"commit": commit, "dirty": False})).text == "commit 0123456"
    assert only(doctor.checkout({"commit": commit, "dirty": True})).state == "warn"
    assert only(doctor.checkout(None)).state == "note"


def test_torch_as_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(**about: Any) -> Callable[[], Any]:
        version = SimpleNamespace(**({"cuda": None, "debug": False} | about))
        return lambda: SimpleNamespace(__version__="2.9", version=version, get_num_threads=lambda: 1)

    assert inventory.torch(built())[0] == Finding("torch", "ok", "2.9, built for the CPU, 1 thread")
    assert inventory.torch(built(cuda="13.0"))[0].text == "2.9, built for CUDA 13.0, 1 thread"
    assert inventory.torch(built(debug=True))[0].state == "warn"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert only(inventory.torch()).text.startswith("not installed")


def test_gpus() -> None:
    gpu = {"name": "NVIDIA H200", "driver": "570.1", "memory_bytes": 141 << 30}
    assert only(inventory.cuda(None, False)) == Finding("CUDA", "note", "no CUDA device")
    assert only(inventory.cuda([gpu], True)).text == "NVIDIA H200 (141 GiB), driver 570.1"
    assert only(inventory.cuda([gpu], False)).state == "note" and only(inventory.cuda(None, True)).state == "note"


def test_libraries_of_linear_algebra() -> None:
    pools = [
        {"user_api": "openmp", "internal_api": "openmp", "num_threads": 1, "version": None},
        {"user_api": "blas", "internal_api": "openblas", "num_threads": 2, "version": "0.3.30", "architecture": "Zen"},
    ]
    assert [(one.name, one.text) for one in inventory.blas(pools)] == [
        ("BLAS", "openblas 0.3.30, for Zen: 2 threads"),
        ("OpenMP", "openmp: 1 thread"),
    ]
    assert only(inventory.blas(None)).remedy == inventory.EXTRA and only(inventory.blas([])).state == "note"


def test_numba_and_where_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    version, vectors, kept = inventory.numba({}, tmp_path)
    assert version.text.startswith(numba.__version__) and "bytes" in vectors.text
    assert (kept.state, kept.text) == ("ok", "kept beside their sources")
    assert inventory.numba({"NUMBA_CACHE_DIR": str(tmp_path / "new")})[2].text == "kept where NUMBA_CACHE_DIR says"
    blocked = tmp_path / "file"
    blocked.write_text("")
    found = inventory.numba({"NUMBA_CACHE_DIR": str(blocked / "cache")})[2]
    assert found.state == "note" and "NUMBA_CACHE_DIR" in found.remedy and str(tmp_path) not in found.text
    # The layer is that which a parallel loop would start.
    loadable = {"numba.np.ufunc.omppool", "numba.np.ufunc.workqueue"}

    def load(name: str) -> Any:
        if name not in loadable:
            raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", load)
    asked = SimpleNamespace(THREADING_LAYER="default", THREADING_LAYER_PRIORITY=["tbb", "omp", "workqueue"])
    assert inventory.threading_layer(SimpleNamespace(config=asked)) == "omp"
    asked.THREADING_LAYER = "workqueue"
    assert inventory.threading_layer(SimpleNamespace(config=asked)) == "workqueue"
    loadable.clear()
    assert inventory.threading_layer(SimpleNamespace(config=asked)) == "no layer that can be loaded"


def test_rows_of_files_of_every_kind(tmp_path: Path) -> None:
    def rows(name: str) -> int:
        return inventory.rows_of(locate(tmp_path / name))

    (tmp_path / "a.data").write_text("1\t2\t3\n1\t2\t3")
    (tmp_path / "b.csv").write_text("user,item,rating\n1,2,3\n1,2,3\n1,2,3\n")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"user,item,rating\n1,2,3\n"))
    np.savez(tmp_path / "d.npz", users=np.arange(5), items=np.arange(5))
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("e/ratings.dat", "1::2::3::4\n" * 7)
    assert [rows(name) for name in ("a.data", "b.csv", "c.csv.gz", "d.npz", "e.zip")] == [2, 3, 1, 5, 7]


def test_data_sets_of_the_right_size_and_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MF_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(inventory, "ROWS", {"ml-100k": (3,), "ml-1m": (3,), "anime": (3, 2), "ml-10m": (3,)})
    assert only(inventory.data()).remedy == "set it to the folder of the data"
    for path, text in (
        ("data/ml-100k/u.data", "1\t1\t1\n" * 3),
        ("cache/mf/ml-1m/ratings.dat", "1::1::1\n" * 2),
        ("data/anime/rating.csv", "user_id,anime_id,rating\n1,1,1\n1,1,1\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = inventory.data()
    assert [(one.name, one.state, one.text) for one in found] == [
        ("ml-100k", "ok", "3 rows of u.data in MF_DATA"),
        ("ml-1m", "warn", "2 rows of ratings.dat in the user's cache, but it has 3"),
        ("anime", "ok", "2 rows of rating.csv in MF_DATA"),
        ("data", "note", "not here: ml-10m"),
    ]
    (tmp_path / "data" / "ml-10m.zip").write_text("no archive")
    (tmp_path / "data" / "ml-100k" / "other.data").write_text("")
    (tmp_path / "data" / "ml-100k" / "u.data").unlink()
    (tmp_path / "data" / "ml-100k" / "more.data").write_text("")
    broken = {one.name: one for one in inventory.data()}
    assert broken["ml-100k"].text == "in MF_DATA, but cannot be read: DataError"
    assert broken["ml-100k"].state == "warn" and "fetch" in broken["ml-100k"].remedy


def test_official_sizes_are_those_of_the_files_at_hand(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MF_DATA", str(data_dir))
    here = [one for one in inventory.data() if one.name != "data"]
    assert here and {one.state for one in here} == {"ok"}


def test_peers_as_their_records_say(tmp_path: Path) -> None:
    nothing = only(inventory.peers(tmp_path))
    assert nothing.state == "note" and nothing.text == f"not installed: {', '.join(registry.PEERS)}"
    peer = registry.PEERS["libmf"]
    python = install.python_of(peer, tmp_path)
    python.parent.mkdir(parents=True)
    python.write_text("")
    (tmp_path / "libmf" / install.RECORD).write_text(json.dumps({"recipe": install.recipe(peer)}))
    here, absent = inventory.peers(tmp_path)
    assert (here.state, here.text) == ("ok", f"libmf {peer.version}")
    assert absent.remedy == " ".join(["python -m bench peers install", *list(registry.PEERS)[1:]])


def test_tools() -> None:
    assert states(inventory.tools(lambda name: "/x" if name == "chromium-browser" else None)) == {
        "valgrind": "note",
        "chromium": "ok",
    }


def examined(*timings: Finding) -> doctor.Examination:
    return doctor.Examination([Finding("machine", "ok", "One")], list(timings))


def test_lines_are_calm_and_narrow() -> None:
    warn = Finding("variables", "warn", "word " * 40, "unset " + "NAME " * 30)
    shown = list(doctor.lines(examined(Finding("cores", "note", "two"), warn, Finding("variables", "ok", "more"))))
    assert max(len(line) for _, line in shown) <= 80
    texts = [line for _, line in shown]
    assert texts[:5] == [
        "What is here",
        "  ok    machine      One",
        "",
        "What would make timings wrong",
        "  note  cores        two",
    ]
    assert texts[-1] == "1 to mend before anything is measured."
    assert texts[-3] == "  ok                 more"
    assert sum("→ unset" in line for line in texts) == 1
    assert [state for state, _ in doctor.lines(examined())] == ["", "ok", "", "", "", ""]


@pytest.mark.parametrize("state", ["ok", "note", "warn"])
def test_the_exit_code_is_that_of_the_worst(state: str) -> None:
    found = examined(Finding("x", state, "", "do"))
    assert doctor.exit_code(found) == (state == "warn") and found.ok == (state != "warn")
    assert doctor.exit_code(doctor.Examination(found.timings, [])) == (state == "warn")


def test_the_whole_of_it_names_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["doctor", "--json"]) == 1
    text = capsys.readouterr().out
    found = json.loads(text)
    assert (found["schema"], found["schema_version"], found["ok"]) == ("mf-doctor", 1, False)
    names = [one["name"] for one in found["here"] + found["timings"]]
    assert {"machine", "Python", "cores", "Numba", "torch", "CUDA", "peers", "valgrind", "OpenBLAS"} <= set(names)
    assert all(set(one) == {"name", "state", "text", "remedy"} for one in found["here"] + found["timings"])
    assert all(one["remedy"] for one in found["here"] + found["timings"] if one["state"] == "warn")
    for private in (str(Path.home()), str(machine.ROOT), str(tmp_path), "/tmp/"):
        assert private not in text
    for name in (getpass.getuser(), socket.gethostname()):
        assert not re.search(rf"[\"/ ]{re.escape(name)}[\"/ ]", text)
    assert cli.main(["doctor"]) == 1
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    assert cli.main(["doctor", "--help"]) == 0
    assert "Exit code: 0 when nothing would make timings wrong, 1 with warnings" in " ".join(
        capsys.readouterr().out.split()
    )


def test_doctor_and_compare_need_no_command_line() -> None:
    code = (
        "import sys; import bench.doctor, bench.compare_text; print({'cyclopts', 'rich', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=machine.ROOT, check=True)
    assert done.stdout.strip() == "set()"
