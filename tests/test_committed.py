"""Where committed results lie: the folder follows from what each says of its machine, and no reader needs another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclopts")

from bench import cli, committed, machine, tables

Json = dict[str, Any]
H200 = {"name": "NVIDIA H200", "driver": "1", "memory_bytes": 1}


def about(cpu: str, cores: int, **more: Any) -> Json:
    machine: Json = {"cpu": cpu, "cores": {"logical": 64, "physical": None, "usable": cores}}
    if "kind" in more:
        machine["microarchitecture"] = more.pop("kind")
    return {"machine": machine, "gpu": None} | more


@pytest.mark.parametrize(
    ("cpu", "cores", "more", "slug"),
    [
        ("AMD EPYC", 2, {}, "amd-epyc-2-cores"),
        ("AMD EPYC 7763 64-Core Processor", 2, {}, "amd-epyc-2-cores"),
        ("AMD Ryzen 9 5950X 16-Core Processor", 16, {}, "amd-ryzen-16-cores"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", 1, {}, "intel-xeon-platinum-1-core"),
        ("Intel(R) Xeon(R) Processor @ 2.60GHz", 4, {}, "intel-xeon-4-cores"),
        ("13th Gen Intel(R) Core(TM) i7-13700K", 24, {}, "intel-core-24-cores"),
        ("Apple M2", 8, {}, "apple-8-cores"),
        ("aarch64", 4, {}, "aarch64-4-cores"),
        ("x86_64", 4, {}, "x86-64-4-cores"),
        ("", 4, {}, "unknown-4-cores"),
        ("AMD EPYC", 2, {"kind": "znver3"}, "amd-epyc-znver3-2-cores"),
        ("AMD EPYC", 2, {"kind": None}, "amd-epyc-2-cores"),
        ("Intel(R) Xeon(R) Processor @ 2.60GHz", 4, {"kind": "icelake-server"}, "intel-xeon-icelake-server-4-cores"),
        ("Apple M2", 8, {"kind": "apple-m2"}, "apple-m2-8-cores"),
        ("AMD EPYC", 16, {"gpu": [H200]}, "amd-epyc-16-cores-nvidia-h200"),
        ("AMD EPYC", 16, {"cuda": {"name": "NVIDIA A100-SXM4-80GB"}}, "amd-epyc-16-cores-nvidia-a100-sxm4-80gb"),
        ("AMD EPYC", 16, {"gpu": [H200, H200], "cuda": H200}, "amd-epyc-16-cores-2-nvidia-h200"),
        ("AMD EPYC", 16, {"cuda": None}, "amd-epyc-16-cores"),
    ],
)
def test_a_folder_is_named_by_family_cores_and_gpu(cpu: str, cores: int, more: Json, slug: str) -> None:
    assert committed.slug(about(cpu, cores, **more)) == slug


def test_every_result_lies_in_the_folder_that_it_names() -> None:
    found = committed.everywhere()
    assert found and not list(committed.FOLDER.glob("*.json")), "a result lies beside the machines' folders"
    for path in found:
        outcome = json.loads(path.read_text(encoding="utf-8"))
        assert committed.slug(outcome) == path.parent.name, path.name
        assert outcome["schema"] in committed.COMMANDS
        name = committed.data(outcome)
        # A file of one data set bears its name.
        assert name in path.name or outcome["schema"] in ("mf-sweep", "mf-instructions", "mf-defaults"), path.name


def test_documents_show_the_first_machine_that_has_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert committed.path("rungs.json") in committed.paths("*.json")
    assert {path.parent.name for path in committed.paths("*.json")} <= {*committed.SHOWN}
    with monkeypatch.context() as other:
        other.setattr(committed, "FOLDER", tmp_path)
        first, second, *_ = (tmp_path / folder for folder in committed.SHOWN)
        for place in (first / "a.json", second / "a.json", second / "b.json", tmp_path / "third" / "c.json"):
            place.parent.mkdir(exist_ok=True)
            place.write_text("{}", encoding="utf-8")
        assert committed.paths("*.json") == [first / "a.json", second / "b.json"]
        assert committed.path("c.json") == first / "c.json"
    here = committed.here("x.json")
    assert here.parent.parent == committed.FOLDER and here.name == "x.json"
    monkeypatch.setattr(machine, "machine", lambda: about("Any CPU", 3)["machine"])
    monkeypatch.setattr(machine, "gpus", lambda: [H200])
    assert committed.here("x.json").parent.name == "any-3-cores-nvidia-h200"


def test_a_table_tells_the_kind_of_a_processor_where_it_is_known() -> None:
    assert committed.processor(about("AMD EPYC", 2)["machine"]) == "AMD EPYC"
    assert committed.processor(about("AMD EPYC", 2, kind="znver3")["machine"]) == "AMD EPYC (znver3)"


@pytest.mark.parametrize("schema", list(committed.COMMANDS))
@pytest.mark.parametrize("system", ["mf_numpy sgd", "myFM"])
def test_the_commands_are_there(schema: str, system: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = committed.command({"schema": schema, "systems": [{"system": system}]}).split()
    assert ("accuracy" in words) == ((schema, system) == ("mf-accuracy", "mf_numpy sgd"))
    assert cli.main([*words, "--help"]) == 0
    assert f"python -m bench {words[0]}" in capsys.readouterr().out


def test_a_table_says_by_which_command_and_on_which_data() -> None:
    assert set(tables.MEASURED_IN) < set(tables.TABLES)
    names = [path.stem.removeprefix("speed-") for path in committed.paths("speed-*.json")]
    english, chinese = (tables.render("speeds", {}, lang) for lang in ("en", "zh"))
    assert english.endswith(f" By `python -m bench speed`, `--data` {', '.join(names)}.")
    assert chinese.endswith(f"由 `python -m bench speed` 测得，`--data` 为 {'、'.join(names)}。")
    assert tables.render("growth", {}, "en").endswith(" By `python -m bench scaling`.")
    assert "defaults`, `--data` ml-100k,anime,ml-1m." in tables.render("steps", {}, "en")
