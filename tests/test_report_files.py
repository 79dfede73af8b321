"""What the report takes and gives besides a page: files of any mixture, Markdown, JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("cyclopts")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from bench import cli, result, suite
from bench.pages import book
from mf_numpy.errors import ConfigError, FileFormatError
from tests.test_report_pages import held, of, page_of


def test_markdown_and_json_of_any_mixture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    links, sweep = of("mf-links"), of("mf-sweep")
    assert cli.main(["report", str(links), str(sweep), "--format", "md"]) == 0
    text = capsys.readouterr().out
    assert text.count("\n### ") + text.startswith("### ") == 2
    for schema in ("mf-links", "mf-sweep"):
        made = book.KINDS[schema](held(schema))
        assert f"**{made.sentence}**" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 4 + len(held("mf-links")["rows"]) + len(held("mf-sweep")["rows"])
    assert cli.main(["report", str(links), "--format", "json"]) == 0
    assert capsys.readouterr().out == result.to_text(held("mf-links"))
    out = tmp_path / "both.json"
    assert cli.main(["report", str(links), str(sweep), "--format", "json", "--out", str(out)]) == 0
    assert [one for _, one in book.read([out])] == [held("mf-links"), held("mf-sweep")]
    with pytest.raises(ConfigError, match="format is 'pdf', but must be one of 'html', 'md', 'json'"):
        book.render([], "pdf")


def test_files_that_cannot_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, whole, text = of("mf-links"), held("mf-links"), json.dumps
    several = {"schema": "mf-results", "schema_version": 1}
    for content, told in (
        (None, "x.json cannot be read: No such file or directory; give the path of a result file"),
        ("<html>", "x.json is not JSON"),
        ("[1]", "x.json has the schema None, but must have one of mf-bench, mf-accuracy"),
        (text(whole | {"schema": "mf-link"}), "x.json has the schema 'mf-link', but must have one of"),
        (
            text(whole | {"schema_version": 2}),
            "has version 2 of mf-links, but 1 is read here; report with the checkout",
        ),
        (text(whole | {"schema_version": 0}), "has version 0 of mf-links, but 1 is read here; measure again"),
        (
            text(whole | {"rows": [{}]}),
            "x.json is damaged: KeyError, 'wire_bytes'; give a file as the benchmark wrote it",
        ),
        (text(whole | {"machine": None}), "x.json is damaged: TypeError"),
        (text(several | {"results": [whole | {"schema": "no"}]}), "a result in x.json has the schema 'no'"),
        (text(several | {"results": []}), "x.json has no result; give one that the benchmark wrote"),
    ):
        path = tmp_path / "x.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content, encoding="utf-8")
        with pytest.raises(FileFormatError) as caught:
            book.render(book.read([path]), "md")
        assert told in str(caught.value) and str(tmp_path) not in str(caught.value)
        assert cli.main(["report", str(good), str(path), "--format", "md"]) == 2
        assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "report.html").exists()


def test_what_lacks_only_in_a_figure_is_damaged_too() -> None:
    outcome = held("mf-roofline") | {"peaks": []}
    assert book.render([("x.json", outcome)], "md").startswith("### How near")
    with pytest.raises(FileFormatError, match=r"x\.json is damaged: "):
        page_of(outcome)


@pytest.mark.parametrize(
    "words",
    [
        *(["race"], ["sweep"], ["paths"], ["defaults"], ["instructions"], ["links"], ["trend"], ["rungs"]),
        ["report", str(of("mf-links"))],
        *(["run", "--suite", name] for name in ("scaling", "gpu")),
        ["run", "--suite", "accuracy", "--data", "planted-small"],
    ],
    ids=" ".join,
)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "load_data", lambda *_: pytest.fail("data were read"))
    (tmp_path / "file").write_text("", encoding="utf-8")
    for place, told in (
        (tmp_path, "is a folder; name a file in it"),
        (tmp_path / "file" / "x.json", "cannot be written, as nothing can be made in"),
    ):
        assert cli.main([*words, "--out", str(place)]) == 2
        assert told in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "no.json", tmp_path):
        assert cli.main(["baseline", str(path)]) == 2
        assert f"{path.name} cannot be read: " in " ".join(capsys.readouterr().err.split())
