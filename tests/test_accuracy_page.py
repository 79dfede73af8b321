"""The page of how good every system is: the same bytes again, a table that sorts and filters, and room on a phone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclopts")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from bench import accuracy, accuracy_details, accuracy_figures, accuracy_page, cli, result
from bench.launch import Json
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
