"""Every figure of the documents is what the code draws today, has labelled axes, and is used."""

from __future__ import annotations

import importlib.metadata
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

import matplotlib as mpl

from bench import canvas, docs, drawings, rungs

Json = dict[str, Any]
FILES = [f"{name}-{theme.name}" for name in drawings.DRAWINGS for theme in drawings.THEMES]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def outcome() -> Json:
    return rungs.load()


def drawn_by_this_matplotlib(svg: str) -> None:
    found = re.search(r"Matplotlib v([\w.]+)", svg)
    assert found is not None, "the SVG does not say which matplotlib drew it"
    if not canvas.drawn_here(svg):
        installed = importlib.metadata.version("matplotlib")
        pytest.skip(f"drawn by matplotlib {found[1]}, and {installed} is installed, whose layout may differ")


@pytest.mark.parametrize("name", FILES)
def test_committed_figure_is_what_the_code_draws(name: str, outcome: Json) -> None:
    committed = (docs.FIGURES / f"{name}.svg").read_text(encoding="utf-8")
    drawn_by_this_matplotlib(committed)
    figure, theme = name.rsplit("-", 1)
    fresh = drawings.svg(figure, next(t for t in drawings.THEMES if t.name == theme), outcome)
    assert canvas.same(committed, fresh), f"docs/figures/{name}.svg is out of date; run make figures"


def test_a_figure_drawn_twice_is_the_same_file(outcome: Json) -> None:
    assert drawings.svg("ladder", drawings.LIGHT, outcome) == drawings.svg("ladder", drawings.LIGHT, outcome)


def test_the_comparison_sees_what_matters_and_no_more() -> None:
    old = '<path id="m1f" d="M 1.00 2.00" style="fill: #0072b2"/><use href="#m1f"/><text>12 ms</text>'
    assert canvas.same(old, old.replace("1.00", "1.01").replace("m1f", "c9e"))
    for change in (("1.00", "1.40"), ("#0072b2", "#0072b3"), ("12 ms", "13 ms"), ("path", "line"), ("M", "L")):
        assert not canvas.same(old, old.replace(*change)), change


@pytest.mark.parametrize("name", list(drawings.DRAWINGS))
def test_axes_are_labelled_and_described(name: str, outcome: Json) -> None:
    with mpl.rc_context():
        figure = drawings.made(name, drawings.LIGHT, outcome)
    assert figure.axes
    for axes in figure.axes:
        first = axes.get_subplotspec()
        assert first is not None
        # Panels that share an axis carry its label at the edge alone.
        assert axes.get_xlabel() or not first.is_last_row()
        named = bool(axes.get_yticklabels()) and not axes.get_yticklabels()[0].get_text().lstrip("−").isdigit()
        assert axes.get_ylabel() or named or not first.is_first_col()
    english, chinese = drawings.DRAWINGS[name].alt
    for alt in (english, chinese):
        assert len(alt) > 20
        assert not set(alt) & set('"<>\n')
    assert re.search(r"[\u4e00-\u9fff]", chinese) and not re.search(r"[\u4e00-\u9fff]", english)


@pytest.mark.parametrize("name", FILES)
def test_file_is_small_valid_and_needs_nothing_else(name: str) -> None:
    path = docs.FIGURES / f"{name}.svg"
    assert path.stat().st_size < 60_000
    text = path.read_text(encoding="utf-8")
    tree = ET.fromstring(text)
    assert tree.findall(f".//{SVG}text")
    assert not tree.findall(f".//{SVG}image")
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', text))
    assert "<dc:date>" not in text


def used() -> dict[str, set[str]]:
    """Names of figure files that each document shows."""
    return {
        path.name: set(re.findall(r"figures/([\w-]+)\.svg", path.read_text(encoding="utf-8")))
        for path in docs.documents()
    }


def test_every_figure_is_used_and_every_used_one_is_there() -> None:
    there = {path.stem for path in docs.FIGURES.glob("*")}
    shown = set().union(*used().values())
    assert shown - there == set(), "a document shows figures that are not committed"
    assert there - shown == set(), "committed figures that no document shows"
    assert there == set(FILES)


def test_the_command_draws_fills_and_checks(
    tmp_path: Path, outcome: Json, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One figure and one table of each kind: what is drawn again is the same, and what was changed is named."""
    cli = pytest.importorskip("bench.cli")
    monkeypatch.setattr(canvas, "DRAWINGS", {"one-rating": drawings.DRAWINGS["one-rating"]})
    monkeypatch.setattr(docs, "FIGURES", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("<!-- measured: post -->\n<!-- end -->\n", encoding="utf-8")
    monkeypatch.setattr(docs, "documents", lambda: [page])
    assert cli.main(["figures", "--check"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "one-rating-light.svg: is missing; run make figures"
    assert said[2].startswith("page.md:2: measured post is stale")
    assert cli.main(["figures"]) == 0
    assert "| noise floor, the truth itself |" in page.read_text(encoding="utf-8")
    assert cli.main(["figures", "--check"]) == 0
    figure = tmp_path / "one-rating-dark.svg"
    text = figure.read_text(encoding="utf-8")
    figure.write_text(text.replace(drawings.DARK.ink, drawings.LIGHT.ink), encoding="utf-8")
    capsys.readouterr()
    assert cli.main(["figures", "--check"]) == 1
    assert capsys.readouterr().out == "one-rating-dark.svg: is stale; run make figures\n"
    figure.write_text(re.sub(r"Matplotlib v[\w.]+", "Matplotlib v0.1", figure.read_text(encoding="utf-8")))
    assert cli.main(["figures", "--check"]) == 0


def test_writing_draws_all(tmp_path: Path, outcome: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "DRAWINGS", {"one-rating": drawings.DRAWINGS["one-rating"]})
    assert sorted(path.name for path in drawings.write(outcome, tmp_path)) == [
        "one-rating-dark.svg",
        "one-rating-light.svg",
    ]
    light, dark = ((tmp_path / f"one-rating-{theme}.svg").read_text(encoding="utf-8") for theme in ("light", "dark"))
    assert drawings.LIGHT.ink in light and drawings.LIGHT.ink not in dark
