"""The page of how good every system is: the same bytes again, a table that sorts and filters, and room on a phone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclopts")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from bench import (
    accuracy,
    accuracy_details,
    accuracy_figures,
    accuracy_page,
    accuracy_rows,
    accuracy_tables,
    cli,
    committed,
    figures,
    grid_ends,
    result,
    rungs,
    section,
    tables,
)
from bench.launch import Json
from bench.pages import plots
from tests.accuracy_killed import PROTOCOL, SYSTEMS, launch


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of the fake systems."""
    path = tmp_path_factory.mktemp("page") / "accuracy.json"
    accuracy.measure(PROTOCOL, path, systems=SYSTEMS, threads=1, launch=launch)
    return path


@pytest.fixture(scope="module")
def outcome(path: Path) -> Json:
    return result.load(path, accuracy.SCHEMA, accuracy.VERSION)


def test_the_same_result_gives_the_same_page_which_needs_nothing_else(
    path: Path, outcome: Json, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert cli.main(["report", str(path), "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text == accuracy_page.render([outcome]) and len(text) < 2_000_000
    assert text.count("<svg") == 5 == text.count("<desc")
    assert "http" not in text.replace("http://www.w3.org/", "")
    assert json.loads(text.split('id="result">')[1].split("</script>")[0]) == outcome
    assert "out of luck" in text


def test_several_protocols_are_sections_of_one_page(path: Path, outcome: Json, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert cli.main(["report", str(path), str(path), "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text == accuracy_page.render([outcome, outcome]) and text.count("<table id=") == 2


def test_results_of_other_kinds_share_the_page(
    path: Path, outcome: Json, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = next((Path(accuracy.__file__).parent / "results").rglob("links.json"))
    page = tmp_path / "page.html"
    assert cli.main(["report", str(path), str(other), "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("data-sortable>") == 2 and text.count("<svg") == 5 + 2
    assert json.loads(text.split('id="result">')[1].split("</script>")[0])["results"][0] == outcome
    assert accuracy_page.verdict(outcome) in text and text.count("Each system is tuned over a grid of its own") == 1
    (tmp_path / "x.json").write_text("no result", encoding="utf-8")
    assert cli.main(["report", str(path), str(tmp_path / "x.json")]) == 2
    assert "x.json is not JSON" in capsys.readouterr().err
    assert cli.main(["report"]) == 2
    assert "no file came" in capsys.readouterr().err


def test_the_verdict_says_who_is_best_and_whether_that_may_be_chance(outcome: Json) -> None:
    assert accuracy_page.verdict(outcome).startswith("tiny: good has the lowest test RMSE, 0.5000 (0.5000 to 0.5000), ")
    assert accuracy_page.verdict(outcome).endswith("0.2500 below worse.")
    behind = [row.cells[3] for row in accuracy_page.part(outcome).table.rows[:2]]
    assert [cell.text for cell in behind] == ["the best", "+0.2500 to +0.2500"]
    assert [cell.value for cell in behind] == [0.0, pytest.approx(0.25)]
    mine = json.loads(json.dumps(outcome).replace('"worse"', '"mf_numpy als"'))
    row = next(row for row in mine["systems"] if row["system"] == "mf_numpy als")
    assert "mf_numpy als, the best of ours, is 0.2500 above it (0.2500 to 0.2500)." in accuracy_page.verdict(mine)
    row["behind"]["interval"] = [-0.01, 0.3]
    assert accuracy_page.verdict(mine).endswith("(-0.0100 to 0.3000), which may be chance.")


def test_the_details_say_what_each_system_is_and_which_differences_are_sure(outcome: Json) -> None:
    about, sure = accuracy_details.folds(outcome)
    assert about.table is not None
    (good, worse) = ([cell.text for cell in row.cells] for row in about.table.rows)
    assert good[0] == "good" and good[3] == "float32" and worse[7] == "–"
    spent = [one["wall_s"] for key, one in outcome["cases"].items() if key.startswith("good, point ")]
    assert about.table.rows[0].cells[6].value == pytest.approx(sum(spent)) and len(spent) == 3
    assert _matrix(outcome) == [["1 good", "", "-0.2500"], ["2 worse", "+0.2500", ""]]
    assert "Of 1 pairs of systems 1 differ surely in RMSE and 1 in MAE" in sure.about
    close = json.loads(json.dumps(outcome))
    close["pairs"][0]["rmse"]["adjusted"] = 0.05
    assert _matrix(close) == [["1 good", "", ""], ["2 worse", "", ""]]
    assert accuracy_details.folds(outcome | {"systems": []}) == ()


def _matrix(outcome: Json) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in accuracy_details.matrix(outcome).rows]


def test_the_front_holds_those_that_none_beats_in_both() -> None:
    points = {"a": (1.0, 0.9), "b": (2.0, 0.8), "c": (3.0, 0.85), "d": (2.0, 0.95), "e": (4.0, 0.7)}
    rows = [{"system": name, "seconds": s, "rmse": rmse} for name, (s, rmse) in points.items()]
    assert [row["system"] for row in accuracy_figures.front(rows)] == ["a", "b", "e"]


def test_what_was_chosen_at_the_end_of_its_grid_is_said(outcome: Json) -> None:
    assert [grid_ends.ends(outcome, row) for row in outcome["systems"][:2]] == ["", ""]
    for settings, epochs, said in (
        ({"reg": 0.3}, 2, "reg 0.3"),
        ({"reg": 0.1}, 3, "reg 0.1, 3 epochs"),
        # There is nothing below one epoch, and one value is not tuned.
        ({"reg": 0.2}, 1, ""),
    ):
        row = outcome["systems"][0] | {
            "tuned": outcome["systems"][0]["tuned"] | {"settings": settings, "epochs": epochs}
        }
        assert grid_ends.ends(outcome, row) == said
        text = section.markdown([accuracy_page.part(outcome | {"systems": [row, *outcome["systems"][1:]]})])
        assert text.count("at the end of its grid: ") == bool(said)
        assert f"; 3 tried; at the end of its grid: {said} |" in text or not said
    # Of what was tried: a point that failed is no end.
    row = json.loads(json.dumps(outcome["systems"][0]))
    row["tuned"]["tried"].pop()
    assert grid_ends.ends(outcome, row) == "reg 0.2"
    late = json.loads(json.dumps(outcome))
    late["identity"]["systems"][0]["epochs"] = [2, 4, 6]
    assert grid_ends.ends(late, outcome["systems"][0]) == "2 epochs"


def test_the_note_under_the_table_of_the_readme_names_the_ends() -> None:
    cells, note = accuracy_tables.accuracies(tables.Source(rungs.load(), "en"))
    found = [result.load(path, accuracy.SCHEMA) for path in committed.paths("accuracy-ml-100k-*.json")]
    if not found:
        pytest.skip("no result of MovieLens 100K is committed")
    for library, *_ in cells[1:]:
        mine = [row for row in accuracy_rows.ranked(found[0]) if accuracy_tables._library(row["system"]) == library]
        at_end = grid_ends.ends(found[0], mine[0]) if mine else ""
        assert (f"{library} ({at_end})" in note) == bool(at_end)
    none = json.loads(json.dumps(found[0]))
    for row in none["systems"]:
        # A grid of one point has no ends.
        row["tuned"] |= {"tried": [{"settings": row["tuned"]["settings"]}], "epochs": 1}
    rows = {row["system"]: row for row in none["systems"]}
    name = found[0]["protocol"]["name"]
    assert accuracy_tables._at_ends(tables.Source(rungs.load(), "en"), name, none, rows) == ""
    chinese = accuracy_tables.accuracies(tables.Source(rungs.load(), "zh"))[1]
    assert ("Chosen at the end of its grid" in note) == ("位于网格边缘" in chinese)


def test_a_name_of_data_is_spelled_as_it_is_and_a_sentence_begins_with_a_capital(outcome: Json) -> None:
    made = accuracy_page.part(outcome)
    assert made.verdict.startswith("tiny: ") and made.sentence == made.verdict
    assert ">tiny: good has" in accuracy_page.render([outcome])
    other = replace(made, verdict="the best is good.")
    assert other.sentence == "The best is good." and "**The best" in section.markdown([other])
    assert replace(other, data="", verdict="").sentence == ""


def test_threads_of_a_peer_are_those_that_were_set_and_that_worked(outcome: Json) -> None:
    row = outcome["systems"][0] | {"threads": {"asked": 2, "set": 1, "busy": 0.9974}}
    (about, _) = accuracy_details.folds(outcome | {"systems": [row, outcome["systems"][1]]})
    assert about.table is not None
    assert [line.cells[4].text for line in about.table.rows] == ["1, 1.0 busy", "1"]


def test_a_system_looks_the_same_in_every_figure(outcome: Json) -> None:
    mine = json.loads(json.dumps(outcome).replace('"worse"', '"mf_numpy als"'))
    for made in accuracy_figures.pictures(mine):
        assert plots.OURS in made.svg and figures.HUES[0] in made.svg


def test_it_sorts_filters_and_fits_a_phone(browser: Any, path: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    page = tmp_path / "page.html"
    page.write_text(accuracy_page.render([result.load(path, accuracy.SCHEMA)]), encoding="utf-8")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    browser.get(page.as_uri())
    width, room = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= room == 390

    def names() -> list[str]:
        rows = browser.find_elements(By.CSS_SELECTOR, "#table-1 tbody tr")
        return [row.find_element(By.CSS_SELECTOR, "td").text for row in rows if row.is_displayed()]

    assert names() == ["good", "worse", "mean", "bias-only", "noise floor"]
    head = browser.find_elements(By.CSS_SELECTOR, "#table-1 th button")[1]
    browser.execute_script("arguments[0].click()", head)
    up = names()
    browser.execute_script("arguments[0].click()", head)
    assert names() == up[::-1] and up.index("good") < up.index("worse")
    browser.execute_script(
        "const box = document.getElementById('filter-1'); box.value = 'worse'; box.dispatchEvent(new Event('input'))"
    )
    assert names() == ["worse"]
    held = browser.execute_script("return JSON.parse(document.getElementById('result').textContent).schema")
    assert held == accuracy.SCHEMA and browser.find_element(By.ID, "download").get_attribute("href").startswith("blob:")
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if url.startswith(("http", "ws"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


LENGTHS = (12, 23, 24, 29, 30, 43)


@pytest.mark.parametrize("name", ["mf_numpy gibbs SVD++, genres, time, ordinal"[:length] for length in LENGTHS])
def test_a_legend_has_room_for_its_names(name: str) -> None:
    drawn: list[Any] = []

    def draw(axes: Any) -> None:
        drawn.append(axes)
        for k in range(4):
            axes.plot([0, 1], [k, k], label=name)

    figures.picture("A title", "What it shows.", draw, "key")
    figure = drawn[0].figure
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.width
