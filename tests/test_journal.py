"""A result file that grows: nothing finished is lost, and a run goes on only as it was begun."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.journal import Journal
from mf_numpy.errors import ConfigError, FileFormatError

HEAD = {"schema": "mf-try", "schema_version": 1, "created": "now", "identity": {"threads": 2, "data": "abc"}}


def test_each_case_is_on_disk_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    journal = Journal(path, HEAD)
    journal.keep("first", {"status": "ok", "rmse": float("nan")}, {"predictions": np.arange(3.0)})
    held = json.loads(path.read_text())
    assert held["cases"] == {"first": {"status": "ok", "rmse": None}} and not held["complete"]
    resumed = Journal(path, HEAD | {"created": "later"}, resume=True)
    assert resumed.outcome["created"] == "now" and list(resumed.cases) == ["first"]
    assert resumed.array("first", "predictions").tolist() == [0.0, 1.0, 2.0]
    done = resumed.finish({"rows": (1, 2)})
    assert done["complete"] and done["rows"] == [1, 2] and not resumed.parts.exists()
    before = path.read_bytes()
    assert Journal(path, HEAD, resume=True).outcome == done and path.read_bytes() == before


def test_a_file_is_neither_overwritten_nor_gone_on_with_as_another_run(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    Journal(path, HEAD)
    with pytest.raises(ConfigError, match=r"run\.json is there already; resume it, or name another file"):
        Journal(path, HEAD)
    other = HEAD | {"identity": {"threads": 1, "data": "abc"}}
    with pytest.raises(ConfigError, match=r"run\.json is of another run: threads was 2 and is 1"):
        Journal(path, other, resume=True)
    path.write_text("{")
    with pytest.raises(FileFormatError, match=r"run\.json is not JSON"):
        Journal(path, HEAD, resume=True)


def test_resuming_what_is_not_there_begins_it(tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    (tmp_path / "new.json.parts").mkdir()
    (tmp_path / "new.json.parts" / "old.npy").write_bytes(b"")
    journal = Journal(path, HEAD, resume=True)
    assert path.exists() and not journal.parts.exists()


def test_a_lost_array_is_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.json", HEAD)
    journal.keep("first", {}, {"predictions": np.zeros(2)})
    next(journal.parts.iterdir()).write_bytes(b"half")
    with pytest.raises(FileFormatError, match=r"run\.json\.parts has lost an array of first"):
        journal.array("first", "predictions")


def test_arrays_of_other_cases_and_names_stay_what_they_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.json", HEAD)
    journal.keep("first", {}, {"a": np.zeros(1), "b": np.ones(2)})
    journal.keep("second", {}, {"a": np.ones(3)})
    found = [journal.array(*where).tolist() for where in (("first", "a"), ("first", "b"), ("second", "a"))]
    assert found == [[0.0], [1.0, 1.0], [1.0, 1.0, 1.0]]


def test_what_one_of_two_runs_does_not_say_is_a_difference(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    Journal(path, HEAD | {"identity": {"threads": 2, "data": "abc", "rounds": 3}})
    with pytest.raises(ConfigError, match=r"of another run: rounds was 3 and is null"):
        Journal(path, HEAD, resume=True)
    path.write_text(json.dumps(HEAD | {"identity": None, "complete": False, "cases": {}}))
    with pytest.raises(ConfigError, match="it does not say what it was a run of"):
        Journal(path, HEAD, resume=True)


def test_what_takes_the_place_of_a_file(tmp_path: Path) -> None:
    """Of a finished one, or one that is no such file, with the first case; never of one that was cut short."""
    path = tmp_path / "run.json"
    for held in ('{"complete": true}', "[]", "{", '{"other": 1}'):
        path.write_text(held)
        (tmp_path / "run.json.parts").mkdir(exist_ok=True)
        journal = Journal(path, HEAD, anew=True)
        assert path.read_text() == held and not journal.parts.exists()
        journal.keep("first", {"status": "ok"})
        assert json.loads(path.read_text())["cases"] == {"first": {"status": "ok"}}
    with pytest.raises(ConfigError, match="is there already; resume it"):
        Journal(path, HEAD, anew=True)
