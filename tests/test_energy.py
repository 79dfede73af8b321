"""Energy by a made-up tree of counters: what is added up, where a counter begins anew, and what nobody can tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import accuracy_worker, energy, inventory, machine
from bench.energy import Counter, Meter
from mf_numpy import Config, Split

RANGE = 262_143_328_850


def zone(root: Path, folder: str, name: str, microjoules: int | str, wraps: int = RANGE) -> Path:
    """A zone of the powercap tree; its counter's file."""
    at = root / folder
    at.mkdir(parents=True, exist_ok=True)
    (at / "name").write_text(f"{name}\n")
    (at / "max_energy_range_uj").write_text(f"{wraps}\n")
    (at / "energy_uj").write_text(f"{microjoules}\n")
    return at / "energy_uj"


def tree(root: Path) -> Path:
    """Two processors with memory, and what is a part of them, contains them or repeats them."""
    zone(root, "intel-rapl:0", "package-0", 1_000_000)
    zone(root, "intel-rapl:0:0", "core", 500_000)
    zone(root, "intel-rapl:0:1", "dram", 200_000, wraps=65_712_999_613)
    zone(root, "intel-rapl:1", "package-1", 7)
    zone(root, "intel-rapl:2", "psys", 9_000_000)
    zone(root, "intel-rapl-mmio:0", "package-0", 1_000_000)
    (root / "intel-rapl").mkdir()
    return root


def set_to(root: Path, **microjoules: int) -> None:
    for folder, value in microjoules.items():
        (root / folder.replace("__", ":").replace("_", "-") / "energy_uj").write_text(f"{value}\n")


def test_packages_and_memory_are_added_up_once(tmp_path: Path) -> None:
    counters, why = energy.processors(tree(tmp_path))
    assert ([counter.name for counter in counters], why) == (["package-0", "dram", "package-1"], None)
    meter = Meter(counters)
    meter.go()
    set_to(tmp_path, intel_rapl__0=3_500_000, intel_rapl__0__1=300_000, intel_rapl__1=1_000_007)
    # Parts and repetitions move, too.
    set_to(tmp_path, intel_rapl__0__0=2_500_000, intel_rapl__2=99_000_000, intel_rapl_mmio__0=3_500_000)
    assert meter.stop() == pytest.approx(2.5 + 0.1 + 1.0)


def test_only_stretches_between_go_and_stop_count(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = Meter(energy.processors(tmp_path)[0])
    assert meter.stop() == 0.0
    for before, after in ((1_000_000, 2_000_000), (50_000_000, 50_250_000)):
        set_to(tmp_path, intel_rapl__0=before)
        meter.go()
        set_to(tmp_path, intel_rapl__0=after)
        meter.stop()
    assert meter.joules == pytest.approx(1.25)
    # Without another start it counts on from the last stop.
    set_to(tmp_path, intel_rapl__0=52_250_000)
    assert meter.stop() == pytest.approx(3.25)


def test_a_counter_that_began_anew_is_carried_over(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 400_000)
    meter = Meter(energy.processors(tmp_path)[0])
    meter.go()
    set_to(tmp_path, intel_rapl__0=600_000)
    assert meter.stop() == pytest.approx(1.0)


@pytest.mark.parametrize(("seconds", "told"), [(99.0, True), (101.0, False)])
def test_a_counter_that_may_have_begun_anew_twice_tells_nothing(seconds: float, told: bool) -> None:
    times, values = iter([0.0, seconds, seconds + 1]), iter([5, 1_000_005, 2_000_005])
    counter = Counter("package-0", lambda: next(values), wraps=int(100 * energy.MOST_WATTS * 1e6))
    meter = Meter([counter], clock=lambda: next(times))
    meter.go()
    assert meter.stop() == (1.0 if told else None)
    # What was lost once is lost for the whole fit.
    assert meter.stop() == (2.0 if told else None)


def test_without_counters_there_are_no_joules_and_a_reason(tmp_path: Path) -> None:
    for root in (tmp_path / "none", tmp_path):
        assert energy.processors(root) == ([], energy.NONE)
    (tmp_path / "dtpm").mkdir()
    assert energy.processors(tmp_path) == ([], energy.NONE)
    meter = Meter([])
    meter.go()
    assert meter.stop() is None


@pytest.mark.parametrize("content", ["", "no number", None])
def test_one_counter_that_cannot_be_read_hides_them_all(tmp_path: Path, content: str | None) -> None:
    path = zone(tree(tmp_path), "intel-rapl:1", "package-1", 1)
    path.unlink()
    # Nobody may read a folder as a file, not even root.
    path.mkdir() if content is None else path.write_text(content)
    assert energy.processors(tmp_path) == ([], energy.LOCKED)


def test_a_counter_that_goes_away_meanwhile_is_told(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    meter = Meter(energy.processors(tmp_path)[0])
    meter.go()
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert meter.stop() is None


def nvml(monkeypatch: pytest.MonkeyPatch, *millijoules: Any) -> None:
    """A driver whose GPUs have these counters; None of one that has none."""

    def total(handle: int) -> Any:
        if millijoules[handle] is None:
            raise RuntimeError("not supported")
        return millijoules[handle]

    made = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(millijoules),
        nvmlDeviceGetHandleByIndex=lambda k: k,
        nvmlDeviceGetName=lambda k: b"NVIDIA H200",
        nvmlDeviceGetTotalEnergyConsumption=total,
    )
    monkeypatch.setitem(sys.modules, "pynvml", made)


def test_gpus_count_in_thousandths_of_a_joule(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(monkeypatch, 12, None)
    (counter,) = energy.gpus()
    assert (counter.name, counter.read(), counter.wraps) == ("NVIDIA H200", 12_000, None)
    values = iter([12_000, 3_012_000, 9, 5])
    meter = Meter([Counter("NVIDIA H200", lambda: next(values))])
    meter.go()
    assert meter.stop() == pytest.approx(3.0)
    # Its driver was loaded anew.
    meter.go()
    assert meter.stop() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.gpus() == []


def test_the_doctor_says_what_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (found,) = inventory.energy(tmp_path)
    assert (found.name, found.state, found.text, found.remedy) == ("energy", "note", energy.NONE, "")
    (found,) = inventory.energy(tree(tmp_path))
    assert (found.state, found.text) == ("ok", "counted of package-0, dram, package-1")
    nvml(monkeypatch, 12)
    assert inventory.energy(tmp_path)[0].text == "counted of package-0, dram, package-1, NVIDIA H200"
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("")
    locked, gpu = inventory.energy(tmp_path)
    assert (locked.state, locked.text, locked.remedy) == ("note", energy.LOCKED, energy.ALLOW)
    assert (gpu.state, gpu.text) == ("ok", "counted of NVIDIA H200")


def test_ours_counts_the_energy_of_its_epochs_alone(small: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(n_factors=2, n_epochs=3)
    monkeypatch.setattr(energy, "processors", lambda: ([], energy.NONE))
    without, _ = accuracy_worker.fitted(small.train, small.valid, config, "numpy", [1, 3], None)
    assert [point["joules"] for point in without] == [None, None]
    # A counter that moves by one joule from each reading to the next, and by a thousand while predictions are scored.
    joules = [0]
    engine = accuracy_worker._engine(config, "numpy")
    predict = engine.predict

    def read() -> int:
        joules[0] += 1
        return 1_000_000 * joules[0]

    def dear(*given: Any) -> Any:
        joules[0] += 1000
        return predict(*given)

    engine.predict = dear
    monkeypatch.setattr(accuracy_worker, "_engine", lambda config, backend: engine)
    monkeypatch.setattr(energy, "processors", lambda: ([Counter("package-0", read)], None))
    points, _ = accuracy_worker.fitted(small.train, small.valid, config, "numpy", [1, 3], None)
    assert [point["joules"] for point in points] == [pytest.approx(1.0), pytest.approx(3.0)]


def test_a_peers_python_needs_nothing_for_it() -> None:
    code = "import sys; import bench.energy; print({'numpy', 'mf_numpy', 'pynvml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=machine.ROOT, check=True)
    assert done.stdout.strip() == "set()"
