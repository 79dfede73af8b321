"""The trend page: what a file was at each commit that changed it, from a small repository and from this one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclopts")
pytest.importorskip("jinja2")

from bench import cli, committed, compared, machine, trend
from mf_numpy.errors import ConfigError

Json = dict[str, Any]

if shutil.which("git") is None:
    pytest.skip("git is not installed", allow_module_level=True)


def result(ms: float, schema: str = "mf-scaling", version: int = 2, cores: int = 2, **more: Any) -> Json:
    row = {"solver": "gd", "n_ratings": 1000, "n_users": 20, "n_items": 20, "n_factors": 8, "threads": 1}
    row |= {"status": "ok", "reason": None, "samples_ms": [ms, ms, ms]}
    about = {"cpu": "Some CPU", "cores": {"usable": cores}}
    return {"schema": schema, "schema_version": version, "created": "then", "machine": about, "rows": [row]} | more


class Repository:
    """A checkout in which results come and go."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.days = 0
        root.mkdir(exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> None:
        when = f"2026-01-{1 + self.days:02} 12:00:00 +0000"
        names = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        dates = {f"GIT_{who}_DATE": when for who in ("AUTHOR", "COMMITTER")}
        nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        subprocess.run(
            ["git", "-C", str(self.root), *arguments], check=True, env=os.environ | names | dates | nothing,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def commit(self, **files: Json | str | None) -> None:
        """Write files under bench/results, or take them away, and commit them a day later; ``__`` is a slash."""
        for name, held in files.items():
            path = self.root / "bench" / "results" / f"{name.replace('__', '/').replace('_', '-')}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            if held is None:
                path.unlink()
            else:
                path.write_text(held if isinstance(held, str) else json.dumps(held), encoding="utf-8")
        self.days += 1
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", f"Day {self.days}")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository(tmp_path_factory.mktemp("trend") / "checkout")
    made.commit(scaling=result(8.0), notes="no JSON")
    made.commit(old=result(1.0))
    made.commit(scaling=result(6.0))
    # As this repository once moved them.
    made.commit(scaling=None, notes=None, some_2_cores__scaling=result(6.0))
    made.commit(some_2_cores__scaling=result(3.0), some_4_cores__scaling=result(2.0, cores=4))
    return made


def test_a_file_is_one_from_commit_to_commit_wherever_it_lay(repository: Repository) -> None:
    found = trend.measure(repository.root)
    assert [(file["machine"], file["name"]) for file in found["files"]] == [
        ("some-2-cores", "scaling.json"),
        ("some-4-cores", "scaling.json"),
    ]
    first, other = found["files"]
    assert [point["date"] for point in first["points"]] == ["2026-01-02", "2026-01-04", "2026-01-06"]
    assert len({point["commit"] for point in first["points"]}) == 3
    (line,) = first["lines"]
    assert line["unit"] == "ms" and line["values"] == [8.0, 6.0, 3.0] and "gd" in line["case"]
    assert other["lines"][0]["values"] == [2.0] and not found["left_out"] and not found["shallow"]
    assert trend.verdict(found) == "2 results of 2 machines in 3 commits, 2026-01-02 to 2026-01-06."


def test_what_cannot_be_read_any_more_is_told(tmp_path: Path) -> None:
    made = Repository(tmp_path)
    made.commit(some_2_cores__scaling=result(9.0, version=1), some_2_cores__x={"rows": 1})
    made.commit(some_2_cores__scaling=result(4.0, rows=[{}]))
    made.commit(some_2_cores__scaling=result(4.0))
    counted = {"kernel": "sgd", "n_factors": 16, "instructions": 99.5}
    made.commit(some_2_cores__instructions=result(0.0, "mf-instructions", 1, rows=[counted]))
    found = trend.measure(tmp_path)
    assert [file["name"] for file in found["files"]] == ["instructions.json", "scaling.json"]
    assert found["files"][0]["lines"] == [{"case": "sgd, K = 16", "unit": "instructions", "values": [99.5]}]
    assert found["files"][1]["lines"][0]["values"] == [4.0]
    reasons = [lost["reason"] for lost in found["left_out"]]
    assert reasons[0] == "version 1 of mf-scaling is read no more" and reasons[1].startswith("it is damaged: KeyError")
    page = trend.render(found)
    assert all(reason.replace("'", "&#39;") in page for reason in reasons)


def test_a_merge_counts_where_it_is_neither_parent(tmp_path: Path) -> None:
    made = Repository(tmp_path)
    made.commit(some_2_cores__scaling=result(8.0))
    made.git("branch", "side")
    made.commit(some_2_cores__scaling=result(7.0))
    made.git("checkout", "--quiet", "side")
    made.commit(some_2_cores__other=result(1.0))
    made.git("checkout", "--quiet", "main")
    made.git("merge", "--quiet", "--no-commit", "side")
    made.commit(some_2_cores__scaling=result(5.0))
    values = {file["name"]: file["lines"][0]["values"] for file in trend.measure(tmp_path)["files"]}
    assert values == {"scaling.json": [8.0, 7.0, 5.0], "other.json": [1.0]}


def test_the_page_needs_nothing_else(repository: Repository) -> None:
    found = trend.measure(repository.root)
    page = trend.render(found)
    assert page == trend.render(found) and "2 results of 2 machines" in page
    assert [float(text) for text in re.findall(r'<td class="number">([\d.]+)</td>', page)] == [8, 6, 3, 2]
    assert "−62 %" in page and page.count("<polyline") == 1 and "2026-01-06" in page
    # Namespaces are names; nothing is loaded.
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page) and "@import" not in page
    embedded = re.search(r'id="result">(.*?)</script>', page, re.DOTALL)
    assert embedded is not None and json.loads(embedded[1]) == found


def test_lines_are_in_the_order_of_the_last_file_and_escaped(tmp_path: Path) -> None:
    made = Repository(tmp_path)

    def counts(*kernels: str) -> Json:
        rows = [{"kernel": name, "n_factors": 8, "instructions": 1000.0 + at} for at, name in enumerate(kernels)]
        return result(0.0, "mf-instructions", 1, rows=rows)

    made.commit(some_2_cores__x=counts("gone", "<b>", "z"))
    made.commit(some_2_cores__x=counts("z", "<b>", "a"), some_2_cores__old=result(1.0, version=1))
    found = trend.measure(tmp_path)
    (file,) = (one for one in found["files"] if one["name"] == "x.json")
    assert [line["case"] for line in file["lines"]] == [f"{name}, K = 8" for name in ("z", "<b>", "a", "gone")]
    assert [line["values"] for line in file["lines"]][2:] == [[None, 1002.0], [1000.0, None]]
    page = trend.render(found)
    assert "<b>" not in page and page.count("<td>instructions</td>") == 4
    assert 'title="measured then"' in page and "1,002" in page and "<li>old.json of some-2-cores at " in page


def test_an_rmse_is_the_mean_over_the_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Repository(tmp_path)
    made.commit(some_2_cores__x=result(1.0, seeds=[0.8, 0.9]))

    def seeds(outcome: Json) -> Any:
        yield compared.Case("x", ((2.0, 4.0),), tuple(outcome["seeds"]))

    monkeypatch.setitem(compared.SCHEMAS, "mf-scaling", compared.Schema(2, seeds))
    found = trend.measure(tmp_path)
    assert [(line["unit"], line["values"]) for line in found["files"][0]["lines"]] == [
        ("ms", [3.0]),
        ("RMSE", [pytest.approx(0.85)]),
    ]
    assert '<td class="number">0.8500</td>' in trend.render(found)


def test_lines_and_changes() -> None:
    drawn = trend.sparkline([8.0, None, 4.0], "a & b, ms")
    assert 'points="4.0,3.0 86.0,19.0"' in drawn and 'aria-label="a &amp; b, ms, by commit"' in drawn
    assert 'points="4.0,11.0 86.0,11.0"' in trend.sparkline([2.0, 2.0], "x")
    assert trend.sparkline([2.0, None], "x") == trend.change([2.0, None], "ms") == ""
    assert trend.change([1.0, 0.999], "ms") == "0 %" and trend.change([0.9, 0.90001], "RMSE") == "0.0000"
    assert trend.change([0.9, 0.91], "RMSE") == "+0.0100" and trend.change([2.0, None, 1.0], "ms") == "−50 %"
    # The last beside the first, whatever lies between.
    assert trend.change([0.9, 0.8, 0.91], "RMSE") == "+0.0100"


def test_without_history_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ConfigError, match="this is no git checkout; clone the repository"):
        trend.measure(tmp_path)
    made = Repository(tmp_path / "empty")
    made.commit()
    with pytest.raises(ConfigError, match="no commit has a result in a machine's folder of bench/results; commit one"):
        trend.measure(made.root)
    # A folder of a checkout is none.
    inside = made.root / "inside"
    inside.mkdir()
    with pytest.raises(ConfigError, match="no git checkout"):
        trend.measure(inside)
    monkeypatch.setattr(trend.measure, "__defaults__", (inside,))
    assert cli.main(["trend", "-o", str(tmp_path / "page.html")]) == 2
    assert "no git checkout" in capsys.readouterr().err and not (tmp_path / "page.html").exists()


def test_a_shallow_clone_says_so(repository: Repository, tmp_path: Path) -> None:
    subprocess.run(
        ["git", "clone", "--quiet", "--depth", "1", repository.root.as_uri(), str(tmp_path / "clone")], check=True
    )
    found = trend.measure(tmp_path / "clone")
    assert found["shallow"] and found["files"][0]["lines"][0]["values"] == [3.0]
    assert "git fetch --unshallow" in trend.render(found)


def test_of_this_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if machine.git() is None or trend._git(machine.ROOT, "rev-parse", "--is-shallow-repository") != "false\n":
        pytest.skip("the history of this repository is not here")
    if int(trend._git(machine.ROOT, "rev-list", "--count", "HEAD", "--", trend.WHERE) or 0) < 10:
        pytest.skip("the history of this repository is short")
    target = tmp_path / "trend.json"
    assert cli.main(["trend", "-o", str(target)]) == 0
    said = capsys.readouterr().out.splitlines()
    found = json.loads(target.read_text(encoding="utf-8"))
    assert said == [str(target), trend.verdict(found)]
    there = {(path.parent.name, path.name) for path in committed.everywhere()}
    # What is not committed yet has no history.
    assert there >= {(file["machine"], file["name"]) for file in found["files"]}
    # Files have moved into their folders, and kept what was before.
    assert max(len(file["points"]) for file in found["files"]) > 1
    for file in found["files"]:
        assert file["lines"] and all(len(line["values"]) == len(file["points"]) for line in file["lines"])


def test_counts_are_those_of_the_module_that_counts() -> None:
    from bench import instructions

    assert trend.INSTRUCTIONS == (instructions.SCHEMA, instructions.VERSION)
