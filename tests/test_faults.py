"""Each fault of the catalogue is rejected by every check that it names.

That all checks agree without a fault is what README's ``python -m mf_torch check`` says, which the tests run.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numba.core.caching import NullCache

import mf_numpy
from mf_numpy import batch, check, losses, optim
from mf_numpy.__main__ import app
from mf_numpy.catalogue import FAULTS
from mf_numpy.check import Check
from mf_numpy.cli import run
from mf_numpy.cli_check import check_broken
from mf_numpy.config import Config
from mf_numpy.errors import ConfigError
from mf_numpy.faults import Fault, broken, location, source_of
from mf_numpy.kernels import als, cd, cg, gradients, model, vector
from mf_numpy.properties import Worst
from mf_numpy.suite import CHECKS, Suite, Verdict, judge
from mf_torch.__main__ import app as torch_app
from mf_torch.check import suite as torch_suite
from mf_torch.faults import TORCH_FAULTS

ROOT = Path(mf_numpy.__file__).parent.parent
ALL = FAULTS | TORCH_FAULTS
NUMPY, TORCH = Suite(), torch_suite()
FEW = 2
"""How many checks must reject a fault at least."""


@cache
def _verdicts(name: str) -> Mapping[str, Verdict]:
    """What the checks that a fault names say of it; of one in the port, which no other way runs, those ways alone."""
    few = FEW if os.environ.get("MF_THOROUGH") == "0" else None
    fault, suite = ALL[name], TORCH if name in TORCH_FAULTS else NUMPY
    in_torch = {way: suite.ways[way] for way in suite.ways if way not in NUMPY.ways}
    ways = in_torch if fault.function.startswith("mf_torch.") else suite.ways
    with broken(fault):
        return {check: judge(check, suite.checks[check], ways) for check in fault.caught_by[:few]}


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        pytest.param(f.name, c, id=f"{f.name}: {c}", marks=[pytest.mark.thorough] * (k >= FEW))
        for f in ALL.values()
        for k, c in enumerate(f.caught_by)
    ],
)
def test_the_check_rejects_the_fault(fault: str, named: str) -> None:
    assert not _verdicts(fault)[named].ok


def test_all_checks_run_without_a_fault_where_the_tests_run_readme() -> None:
    assert "\n$ python -m mf_torch check\n" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("named", TORCH.checks)
def test_a_check_says_what_it_holds_equal(named: str) -> None:
    about = (TORCH.checks[named].__doc__ or "").partition("\n")[0]
    assert about.endswith(".")


def test_every_equation_is_attacked() -> None:
    """Some fault lies in a function that cites it. Eq. 27 and 28 count costs, not gradients."""
    text = (ROOT / "mf_numpy" / "derivation.md").read_text(encoding="utf-8")
    equations = {int(n) for n in re.findall(r"\\tag\{(\d+)\}", text)} - {27, 28}
    cited: set[int] = set()
    for fault in ALL.values():
        cited |= _cited(source_of(fault))
    assert equations <= cited, f"no fault lies where {sorted(equations - cited)} are computed"


def _cited(source: str) -> set[int]:
    return {int(n) for group in re.findall(r"Eq\. \d+(?:, \d+)*", source) for n in re.findall(r"\d+", group)}


def test_the_catalogue_is_whole() -> None:
    assert len(FAULTS) >= 30 and len(TORCH_FAULTS) >= 5
    assert len(ALL) == len(FAULTS) + len(TORCH_FAULTS)
    for fault in ALL.values():
        assert len(set(fault.caught_by)) >= 2, fault.name
        checks = (TORCH if fault.name in TORCH_FAULTS else NUMPY).checks
        assert set(fault.caught_by) <= checks.keys(), fault.name
        assert fault.origin.endswith(".") and fault.right.strip() != fault.wrong.strip()


def test_every_check_rejects_some_fault() -> None:
    assert set(TORCH.checks) <= {named for fault in ALL.values() for named in fault.caught_by}


@pytest.mark.parametrize("fault", ALL.values(), ids=lambda fault: fault.name)
def test_the_right_line_stands_once_in_the_source(fault: Fault) -> None:
    place = location(fault)
    module = sys.modules[fault.function.partition(":")[0]]
    assert str(module.__file__).endswith(place.file)
    with open(str(module.__file__), encoding="utf-8") as source:
        lines = source.read().splitlines()
    assert fault.right.splitlines()[0].strip() in lines[place.line - 1]


NO_FAULT = replace(FAULTS["dampening-forgotten"], name="no-fault", wrong=FAULTS["dampening-forgotten"].right)


def test_a_fault_that_changes_nothing_is_reported_as_not_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    some = {name: NUMPY.checks[name] for name in NO_FAULT.caught_by}
    suite = Suite(tables={"gradient": check.check_gradients}, checks=some, faults={"no-fault": NO_FAULT})
    assert check_broken(suite, "no-fault") == 1
    out, err = capsys.readouterr()
    assert "Nothing rejects it" in out
    assert err.count("must reject 'no-fault', and does not") == len(NO_FAULT.caught_by)


def test_a_line_that_has_gone_says_what_to_do() -> None:
    for right, times in (("kept = 2", 0), ("else:", 2)):
        fault = replace(FAULTS["lost-simd-lane"], function="mf_numpy.kernels.optim:_momentum_kernel", right=right)
        with pytest.raises(ConfigError, match=rf"{times} times; bring the fault's `right` in line"), broken(fault):
            pass
    with pytest.raises(ConfigError, match="which is not there"):
        location(replace(NO_FAULT, function="mf_numpy.optim:velocities"))


def _speed() -> float:
    return float(optim.velocity(np.array(1.0), np.array(1.0), Config(momentum=0.5)))


def _fail_while_broken(compiled: object) -> None:
    assert _speed() == 1.5
    assert gradients.block_kernel(vector.form(3), 0) is not compiled
    raise ZeroDivisionError


def test_everything_is_as_before_after_an_error() -> None:
    function, code, compiled = optim.velocity, optim.velocity.__code__, gradients.block_kernel(vector.form(3), 0)
    with pytest.raises(ZeroDivisionError), broken(FAULTS["dampening-forgotten"]), broken(FAULTS["off-by-one-indptr"]):
        _fail_while_broken(compiled)
    assert _speed() == 1.0
    assert optim.velocity is function and function.__code__ is code
    assert gradients.block_kernel(vector.form(3), 0) is compiled


def test_functions_that_call_a_broken_kernel_are_compiled_anew() -> None:
    fault = replace(
        NO_FAULT,
        function="mf_numpy.kernels.gradients:loss_and_residual",
        right="return np.float64(error) * np.float64(error), error + error",
        wrong="return np.float64(error) * np.float64(error), error",
    )
    before = gradients.loss_and_residual, gradients._finish_kernel
    with broken(fault):
        assert gradients.loss_and_residual is not before[0] and gradients._finish_kernel is before[1]
        assert not judge("loops").ok
    assert (gradients.loss_and_residual, gradients._finish_kernel) == before
    assert judge("loops").ok


@pytest.mark.parametrize(
    ("fault", "anew"),
    [
        ("off-by-one-indptr", {"gradients"}),
        # A step of conjugate gradients calls a function of `als`.
        ("own-bias-taken-off", {"als", "cg"}),
        ("steepest-descent", {"cg"}),
        ("residual-of-the-last-factor", {"cd"}),
        ("lost-simd-lane", {"gradients", "model", "als", "cg", "cd"}),
    ],
)
def test_kernels_are_compiled_anew_where_the_fault_has_a_part_in_them(fault: str, anew: set[str]) -> None:
    makers = {
        "gradients": gradients.block_kernel, "model": model.predict_kernel, "als": als.rows_kernel,
        "cg": cg.steps_kernel, "cd": cd.residual_kernel,
    }  # fmt: skip
    before = {name: make(vector.form(3)) for name, make in makers.items()}
    with broken(FAULTS[fault]):
        made = {name: make(vector.form(3)) for name, make in makers.items()}
    assert {name for name, kernel in made.items() if kernel is not before[name]} == anew
    # What is wrong stays off the disk.
    assert {name for name, kernel in made.items() if isinstance(kernel._cache, NullCache)} == anew
    assert {name: make(vector.form(3)) for name, make in makers.items()} == before


def test_lambdas_and_cached_references_follow() -> None:
    residual = losses.LOSSES["squared"].residual
    with broken(FAULTS["dropped-2"]):
        assert losses.LOSSES["squared"].residual is residual
        assert residual(np.array(3.0), np.array(0.0), 1.0) == 3.0
    assert residual(np.array(3.0), np.array(0.0), 1.0) == 6.0
    with broken(FAULTS["last-batch-dropped"]):
        assert not judge("epochs").ok
    assert batch.mini_batches.__code__.co_filename.endswith("batch.py")


def test_an_exception_in_a_check_is_a_rejection() -> None:
    def raises(ways: object) -> list[Check]:
        raise IndexError("no such user")

    verdict = judge("raises", raises)
    assert not verdict.ok and verdict.raised == "IndexError: no such user"
    assert not judge("nothing", lambda ways: []).ok


def test_a_nan_stays_the_worst() -> None:
    worst = Worst(1e-12)
    for difference in (0.1, float("nan"), 0.2):
        worst.note("numpy", "P", difference, f"{difference}")
    (row,) = worst.checks()
    assert np.isnan(row.difference) and not row.ok
    assert Verdict("a", "b", (replace(row, difference=1.0), row)).worst == row


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few checks, and trajectories of 10 steps in the table: enough to see them turn red."""
    few = {name: CHECKS[name] for name in ("loops", "worked example", "constant gradient", "exact sums")}
    monkeypatch.setattr(check, "N_STEPS", 10)
    monkeypatch.setattr("mf_numpy.suite.CHECKS", few)
    monkeypatch.setattr("mf_torch.check.CHECKS", few)


@pytest.mark.usefixtures("short")
def test_break_shows_the_red_table_and_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    place = location(FAULTS["penalty-2-dropped"])
    assert run(app, ["check", "--break", "penalty-2-dropped"]) == 1
    out, err = capsys.readouterr()
    assert err.count("failed: ") == 3  # the checks that it names and that did not run here
    assert f"which line lies: mf_numpy/gradients.py:{place.line} (Eq. 6)" in out
    assert "- reg = 2 * config.reg\n+ reg = config.reg\n" in out
    assert "e-02 !" in out or "e-01 !" in out
    assert "rejects !" in out and "agrees" in out
    assert "2 of 4 checks reject it; the other 2 stay green" in out


@pytest.mark.usefixtures("short")
def test_break_shows_what_a_check_raised(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["check", "--break", "transposed-residual"]) == 1
    out, _ = capsys.readouterr()
    assert "gradient: raised ValueError" in out
    assert "rejects !" in out


@pytest.mark.usefixtures("short")
def test_break_a_line_of_the_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(torch_app, ["check", "--break", "dampening-1-minus-beta"]) == 1
    out, _ = capsys.readouterr()
    assert "which line lies: mf_torch/optim.py" in out and "(Eq. 15)" in out


def test_an_unknown_fault_gets_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["check", "--break", "droped-2"]) == 2
    assert "Did you mean 'dropped-2'?" in capsys.readouterr().err
    assert run(app, ["check", "--break", "zero-grad-forgotten"]) == 2


def test_the_faults_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for door, faults in ((app, FAULTS), (torch_app, ALL)):
        assert run(door, ["check", "--list-faults"]) == 0
        out, _ = capsys.readouterr()
        assert all(fault.name in out and fault.origin in out for fault in faults.values())
