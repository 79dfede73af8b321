"""Two results beside each other: cases matched, intervals that hold what they promise, and the codes at the end."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import cli, committed, compare, compare_text, compared, intervals, result
from bench.compared import SCHEMAS, Case
from mf_numpy.errors import ConfigError, FileFormatError
from tests.compared_results import COMMITTED, SPEED, UNTIMED, both, scaled, suite_result, written

Json = dict[str, Any]


MODULES = {
    "mf-bench": "result", "mf-speed": "speed", "mf-paths": "paths", "mf-race": "race", "mf-scaling": "scaling",
    "mf-roofline": "kernels", "mf-rungs": "rungs", "mf-sweep": "sweep", "mf-links": "links", "mf-cuda": "cuda",
    "mf-defaults": "defaults", "mf-accuracy": "accuracy", "mf-newcomers": "newcomers", "mf-clicks": "clicks",
    "mf-search": "search",
}  # fmt: skip


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rougher bootstrap where only signs and ratios are looked at."""
    monkeypatch.setattr(intervals, "DRAWS", 200)


@pytest.mark.parametrize("name", COMMITTED)
def test_a_result_beside_itself_is_within_noise(name: str, few_draws: None) -> None:
    path = committed.path(name)
    found = compare.compare(path, path, slower=None if name in UNTIMED else 1.0, rmse=None)
    cases = list(SCHEMAS[found["of"]].cases(json.loads(path.read_text(encoding="utf-8"))))
    assert len({case.key for case in cases}) == len(cases) > 4
    ratios = [row for row in found["times"] if row["ratio"] is not None]
    assert len(ratios) == sum(1 for case in cases if case.rounds and not case.trouble)
    assert {(row["ratio"], row["verdict"]) for row in ratios} <= {(1.0, "within noise")}
    assert all(row["low"] < 1 < row["high"] and row["a_ms"] > 0 for row in ratios)
    assert {row["difference"] for row in found["rmse"]} <= {0.0}
    assert len(found["rmse"]) == sum(1 for case in cases if case.rmses)
    assert ratios or found["rmse"]
    assert found["same_code"] and found["times_compared"] and not found["only_a"] and not found["only_b"]
    assert compare.exit_code(found) == 0 and not found["failures"]
    assert max(map(len, compare_text.text(found))) <= 80


@pytest.mark.parametrize("name", [name for name in COMMITTED if name not in UNTIMED])
def test_twice_the_samples_are_a_ratio_of_two(name: str, tmp_path: Path, few_draws: None) -> None:
    path, slow = committed.path(name), written(tmp_path, name, lambda outcome: scaled(outcome, 2.0))
    found = compare.compare(path, slow, slower=1.1)
    ratios = [row["ratio"] for row in found["times"] if row["ratio"] is not None]
    assert ratios and np.allclose(ratios, 2.0, rtol=1e-12)
    assert found["mean"]["ratio"] == pytest.approx(2.0, rel=1e-12) and found["mean"]["verdict"] == "slower"
    assert found["mean"]["low"] < 2.0 < found["mean"]["high"]
    assert compare.exit_code(found) == 1 and found["failures"][0].startswith("the geometric mean is 2.00 times as slow")
    back = compare.compare(slow, path, slower=1.1)
    assert back["mean"]["ratio"] == pytest.approx(0.5, rel=1e-12) and compare.exit_code(back) == 0
    assert {row["verdict"] for row in back["times"]} <= {"faster", "within noise", None}


def test_versions_are_those_that_the_measuring_modules_write() -> None:
    assert set(MODULES) == set(SCHEMAS)
    for schema, name in MODULES.items():
        module = importlib.import_module(f"bench.{name}")
        written = module.SCHEMA, module.VERSION
        assert written == (schema, SCHEMAS[schema].version)


def draws(rng: Any, processes: int, samples: int, between: float) -> compared.Rounds:
    """Skewed samples of processes that differ, around a median of 1."""
    noise = rng.exponential(1, (processes, samples)) - math.log(2)
    each = np.exp(0.03 * noise + 0.03 * between * rng.standard_normal((processes, 1)))
    return tuple(tuple(row) for row in each.tolist())


@pytest.mark.parametrize(("processes", "samples", "between"), [(1, 7, 0.0), (2, 5, 1.0), (3, 5, 1.0), (3, 1, 0.0)])
def test_the_interval_holds_the_truth_as_often_as_it_says(processes: int, samples: int, between: float) -> None:
    rng = np.random.default_rng(1)
    held, turns = 0, 200
    for _ in range(turns):
        a, b = (intervals.log_median(draws(rng, processes, samples, between)) for _ in "ab")
        assert a is not None and b is not None
        low, high = intervals.difference(a, b).ends()
        held += low <= 0 <= high
    # Three standard deviations of what 95 % of so many turns come to.
    assert held / turns >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / turns)
    assert processes == 3 or held < turns


def test_samples_of_a_process_are_no_independent_ones() -> None:
    rounds = ((1.0, 1.01, 0.99), (2.0, 2.01, 1.99), (3.0, 3.01, 2.99))
    together = intervals.log_median(rounds)
    flat = intervals.log_median((tuple(ms for one in rounds for ms in one),))
    assert together is not None and flat is not None
    assert (together.freedom, flat.freedom) == (2, 8)
    assert together.value == flat.value == math.log(2.0)
    assert together.error > 1.5 * flat.error


def test_errors_follow_from_their_formulas() -> None:
    one, two = intervals.Estimate(1.0, 0.3, 4), intervals.Estimate(3.0, 0.4, 4)
    apart = intervals.difference(one, two)
    assert apart.value == 2.0 and apart.error == pytest.approx(0.5)
    assert apart.freedom == pytest.approx(0.25**2 / (0.09**2 / 4 + 0.16**2 / 4))
    # Student's 97.5 % point of 10 degrees of freedom.
    assert intervals.Estimate(0.0, 1.0, 10).ends() == pytest.approx((-2.22814, 2.22814), abs=1e-5)
    together = intervals.average([one, two])
    assert together.value == 2.0 and together.error == pytest.approx(0.25) and together.freedom == apart.freedom
    assert intervals.Estimate(5.0, 0.0, math.inf).ends() == (5.0, 5.0)
    found = intervals.mean([1.0, 2.0, 3.0])
    assert found is not None and (found.value, found.freedom) == (2.0, 2)
    assert found.error == pytest.approx(1 / math.sqrt(3))
    assert intervals.mean([1.0]) is None


def test_the_error_of_a_median_is_the_bootstraps() -> None:
    # Of two units a bootstrap sample holds a, b or both, with the median of logs half-way: a standard deviation of
    # d/√8, of which √2 makes d/2, as of a mean.
    found = intervals.log_median(((1.0,), (math.e,)))
    assert found is not None and found.value == pytest.approx(0.5)
    assert found.error == pytest.approx(0.5, rel=0.03)
    ragged = intervals.log_median(((1.0, 1.0, 1.0, 1.0), (2.0,)))
    assert ragged is not None and ragged.value == 0.0
    for nothing in ((), ((1.0,),), ((1.0, 0.0, 2.0),), ((1.0, math.inf),), ((1.0,), (math.nan,))):
        assert intervals.log_median(nothing) is None


def test_another_machine_hides_times_and_shows_the_rmse(tmp_path: Path) -> None:
    a, b = (suite_result(full_numba={}, full_torch={}) for _ in "ab")
    b["machine"] = b["machine"] | {"cpu": "Two", "cores": {"logical": 4, "usable": 2}}
    b["rows"][0]["final"] = {"valid_rmse": 0.95}
    found = both(tmp_path, a, b)
    assert found["differences"]["machine"] == ["cpu One and Two", "logical cores 2 and 4"]
    assert not found["times_compared"] and found["mean"] is None
    assert {row[key] for row in found["times"] for key in ("ratio", "a_ms", "verdict")} == {None}
    assert [round(row["difference"], 9) for row in found["rmse"]] == [0.05, 0.0]
    assert compare.exit_code(found) == 0
    shown = "\n".join(compare_text.text(found))
    assert "DIFFERENT MACHINE: cpu One and Two; logical cores 2 and 4." in shown and "--force" in shown
    # A question that cannot be answered is no pass.
    asked = both(tmp_path, a, b, slower=1.1)
    assert compare.exit_code(asked) == 2 and "--force" in asked["unjudged"]
    forced = both(tmp_path, a, b, slower=1.1, force=True)
    assert forced["mean"]["ratio"] == 1.0 and compare.exit_code(forced) == 0
    assert "DIFFERENT MACHINE" in "\n".join(compare_text.text(forced))


def test_other_data_hide_both(tmp_path: Path) -> None:
    a, b = suite_result(full_numba={}), suite_result(full_numba={})
    a["data"] = a["data"] | {"fingerprint": "a" * 64, "noise_floor": 1.0}
    b["data"] = b["data"] | {"fingerprint": "b" * 64, "noise_floor": 1.0 + 1e-15}
    found = both(tmp_path, a, b, rmse=0.1)
    assert found["differences"]["data"] == ["fingerprint aaaaaaaaaaaa… and bbbbbbbbbbbb…"]
    assert not found["times_compared"] and not found["rmse"] and compare.exit_code(found) == 2
    assert found["unjudged"] == "whether the RMSE rose cannot be said: the data differ"
    sizes = compare.compare(committed.path("speed-ml-100k.json"), committed.path(SPEED))
    assert "n_ratings 80000 and 800167" in sizes["differences"]["data"]


def test_another_configuration_hides_what_it_touches(tmp_path: Path) -> None:
    a, b = (suite_result(full_numba={}, slice_numba={}) for _ in "ab")
    b["problems"] = b["problems"] | {"full": {"config": {"n_factors": 8, "lr": 50.0, "new": 1}}}
    found = both(tmp_path, a, b)
    assert [row["ratio"] for row in found["times"]] == [None, 1.0]
    assert found["times"][0]["why"] == "configured otherwise: n_factors 4 and 8"
    assert [row["case"] for row in found["rmse"]] == ["full, numba, cpu, float32"]
    assert [row["ratio"] for row in both(tmp_path, a, b, force=True)["times"]] == [1.0, 1.0]
    b["environment"] = {"set": {"OMP_NUM_THREADS": 4}}
    assert both(tmp_path, a, b)["differences"]["configuration"] == ["at most 2 and 4 threads"]


def test_code_and_versions_are_stated_and_hide_nothing(tmp_path: Path) -> None:
    a, b = suite_result(full_numba={}), suite_result(full_numba={"others_busy_cores": 0.6})
    b |= {"code": "b", "packages": {"numpy": "2.5.0"}, "interrupted": True}
    found = both(tmp_path, a, b)
    assert found["times_compared"] and not found["same_code"]
    assert found["notes"] == [
        "Versions differ: numpy 2.4.6 and 2.5.0.",
        "While B was measured, others kept up to 0.60 cores busy.",
        "B was cut short.",
    ]
    assert "The code differs." in compare_text.text(found)


def test_one_case_must_be_beyond_doubt_among_many(tmp_path: Path) -> None:
    """Its interval of 95 % lies above the threshold, but one of a hundred might by chance; alone it is a failure."""
    rng = np.random.default_rng(2)
    slow = {"samples_ms": (12.5 + 0.5 * rng.standard_normal(6)).tolist()}
    alone = both(tmp_path, suite_result(full_x={}), suite_result(full_x=slow), slower=1.1)
    assert alone["times"][0]["low"] > 1.1
    assert alone["failures"] == ["full, x, cpu, float32 is 1.24 times as slow; allowed is 1.1"]
    others: dict[str, Json] = {f"full_{k}": {} for k in range(100)}
    many = both(tmp_path, suite_result(full_x={}, **others), suite_result(full_x=slow, **others), slower=1.1)
    assert many["times"][0]["verdict"] == "slower" and many["failures"] == [] and compare.exit_code(many) == 0
    assert "1 case over 1.1, but not beyond doubt among so many." in compare_text.text(many)


def test_slower_by_less_than_the_threshold_is_no_failure(tmp_path: Path) -> None:
    a, b = suite_result(full_x={}), scaled(suite_result(full_x={}), 1.05)
    found = both(tmp_path, a, b, slower=1.1)
    assert found["times"][0]["verdict"] == "slower" and compare.exit_code(found) == 0
    assert compare.exit_code(both(tmp_path, a, b, slower=1.0)) == 1
    # Above it by a hair, the interval reaching below.
    assert compare.exit_code(both(tmp_path, a, scaled(a, 1.101), slower=1.1)) == 0


def test_a_case_that_no_longer_runs_is_a_failure(tmp_path: Path) -> None:
    broken = {"status": "FAILED", "reason": "parameters differ"}
    a, b = suite_result(full_x={}, full_y={}), suite_result(full_x=broken, full_y={})
    found = both(tmp_path, a, b)
    assert found["times"][0]["why"] == "B FAILED: parameters differ" and compare.exit_code(found) == 0
    assert compare.exit_code(both(tmp_path, a, b, slower=1.5)) == 1
    assert compare.exit_code(both(tmp_path, b, a, slower=1.5)) == 0


def test_a_rise_of_the_rmse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = suite_result(full_x={}), suite_result(full_x={"final": {"valid_rmse": 0.902}})
    assert compare.exit_code(both(tmp_path, a, b, rmse=0.001)) == 1
    assert compare.exit_code(both(tmp_path, a, b, rmse=0.003)) == 0
    assert compare.exit_code(both(tmp_path, b, a, rmse=0.0)) == 0

    def seeds(outcome: Json) -> Any:
        yield Case("x", rmses=tuple(outcome["data"]["rmses"]))

    monkeypatch.setitem(SCHEMAS, "mf-bench", compared.Schema(1, seeds, ""))
    a["data"], b["data"] = {"rmses": [0.90, 0.91, 0.92]}, {"rmses": [0.91, 0.92, 0.93]}
    found = both(tmp_path, a, b, rmse=0.001)
    (row,) = found["rmse"]
    assert (row["difference"], compare.exit_code(found)) == (pytest.approx(0.01), 0)
    # Student's 97.5 % point of 4 degrees of freedom, and a standard error of 0.01 √(2/3).
    half = 2.776445 * 0.01 * math.sqrt(2 / 3)
    assert (row["low"], row["high"]) == (pytest.approx(0.01 - half), pytest.approx(0.01 + half))
    b["data"] = {"rmses": [1.01, 1.02, 1.03]}
    assert compare.exit_code(both(tmp_path, a, b, rmse=0.001)) == 1


def test_cases_of_one_file_are_listed(tmp_path: Path) -> None:
    found = both(tmp_path, suite_result(full_x={}, full_y={}), suite_result(full_y={}, full_z={}))
    assert (found["only_a"], found["only_b"]) == (["full, x, cpu, float32"], ["full, z, cpu, float32"])
    shown = compare_text.text(found)
    assert "only in A" in shown and "  full, z, cpu, float32" in shown
    nothing = both(tmp_path, suite_result(full_x={}), suite_result(full_z={}))
    assert compare.exit_code(nothing) == 2 and nothing["unjudged"] == "the two files have no case in common"


def test_samples_that_have_no_interval(tmp_path: Path) -> None:
    one, odd = {"samples_ms": [10.0]}, {"samples_ms": [10.0, -1.0]}
    found = both(tmp_path, suite_result(full_x={}, full_y={}), suite_result(full_x=one, full_y=odd), slower=1.1)
    assert [(row["ratio"], row["why"]) for row in found["times"]] == [
        (pytest.approx(10 / 10.05), "one sample has no interval"),
        (None, "a sample is not above zero"),
    ]
    assert compare.exit_code(found) == 2 and found["unjudged"].endswith("no case has a ratio")


def test_a_race_knows_its_targets(tmp_path: Path) -> None:
    def harder(outcome: Json) -> None:
        outcome["targets"][0]["rmse"] -= 0.01

    found = compare.compare(committed.path("race-ml-1m.json"), written(tmp_path, "race-ml-1m.json", harder))
    why = {row["case"]: row["why"] for row in found["times"]}
    assert why["LIBMF to LIBMF, K = 16, 2 threads"] == "configured otherwise: target RMSE 0.858 and 0.848"
    assert why["Cornac to Cornac, K = 16, 2 threads"] is None
    times = json.loads((committed.path("race-ml-1m.json")).read_text(encoding="utf-8"))["times"]
    medians = {row["case"]: row["a_ms"] for row in found["times"]}
    for one in times:
        if one["median_s"]:
            name = f"{one['system']} to {one['target']}, K = {one['n_factors']}, 2 threads"
            assert medians[name] == pytest.approx(1e3 * one["median_s"])


@pytest.mark.parametrize(("text", "ratio"), [("10%", 1.1), ("1.1x", 1.1), (" 0% ", 1.0), ("1x", 1.0), ("150%", 2.5)])
def test_thresholds(text: str, ratio: float) -> None:
    assert compare.threshold(text) == pytest.approx(ratio)


@pytest.mark.parametrize("text", ["0.1", "10", "-5%", "0.9x", "%", "x", "nan%", "infx", "10 %%", "ten%"])
def test_thresholds_that_may_mean_anything_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a share such as 10% or a ratio such as 1\.1x"):
        compare.threshold(text)


def test_files_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, text = committed.path(SPEED), json.dumps
    whole = json.loads(good.read_text(encoding="utf-8"))
    for content, words in (
        (None, "x.json cannot be read: No such file or directory; give the path of a result file"),
        ("<html>", "x.json is not JSON"),
        ("[1]", "x.json has the schema None, but must have one of mf-bench, mf-speed"),
        (text({"schema": "mf-sped"}), "x.json has the schema 'mf-sped'"),
        (
            text(whole | {"schema_version": 2}),
            "has version 2 of mf-speed, but 1 is read here; compare with the checkout",
        ),
        (text(whole | {"schema_version": 0}), "has version 0 of mf-speed, but 1 is read here; measure again"),
        (text(whole | {"rows": [{}]}), "x.json is damaged: KeyError, 'about'"),
        (text({k: v for k, v in whole.items() if k != "machine"}), "x.json is damaged: KeyError, 'machine'"),
        (
            (committed.path("scaling.json")).read_text(encoding="utf-8"),
            "is a result of schema mf-speed, but x.json of mf-sca",
        ),
        ((committed.path("instructions.json")).read_text(encoding="utf-8"), "has the schema 'mf-instructions'"),
    ):
        path = tmp_path / "x.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content, encoding="utf-8")
        with pytest.raises(FileFormatError) as caught:
            compare.compare(good, path)
        assert words in str(caught.value) and str(tmp_path) not in str(caught.value)
        assert cli.main(["compare", str(good), str(path)]) == 2
        assert words in capsys.readouterr().err


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, slow = str(committed.path(SPEED)), str(written(tmp_path, SPEED, lambda outcome: scaled(outcome, 2.0)))
    assert cli.main(["compare", a, slow]) == 0
    assert cli.main(["compare", a, slow, "--fail-slower", "150%"]) == 0
    capsys.readouterr()
    assert cli.main(["compare", a, slow, "--fail-slower", "10%"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    assert "Geometric mean of 60 ratios: 2.000" in "\n".join(shown)
    assert shown[-1].startswith(("FAILED: ", "  "))
    assert cli.main(["compare", a, slow, "--fail-slower", "10%", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(result.to_text(compare.compare(Path(a), Path(slow), slower=1.1)))
    assert cli.main(["compare", a, slow, "--format", "md"]) == 0
    markdown = capsys.readouterr().out.splitlines()
    assert markdown[0] == "### mf-speed of ml-1m: B beside A"
    assert "| slower | A ms | B ms | B/A | 95 % |" in markdown
    assert all(line.count("|") == 6 for line in markdown if line.startswith("|"))
    for wrong in (["--format", "xml"], ["--fail-slower", "0.1"], ["--fail-rmse", "-1"], ["--fail-rmse", "nan"]):
        assert cli.main(["compare", a, slow, *wrong]) == 2
    assert cli.main(["compare", "--help"]) == 0
    assert "Exit code: 0, 1 when a threshold is crossed, 2" in " ".join(capsys.readouterr().out.split())
