"""What a browser makes of a page with a result of each kind: sorted, filtered, on a phone, in the dark, on paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclopts")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from tests.test_report_pages import carried, whole


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """One page of a result of each kind."""
    path = tmp_path / "page.html"
    path.write_text(whole(), encoding="utf-8")
    return path


def screen(browser: Any, width: int, height: int = 844) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def media(browser: Any, scheme: str, medium: str = "") -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": features})


def test_it_sorts_filters_and_fits_a_phone(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.by import By

    screen(browser, 390)
    browser.get(page.as_uri())
    width, room = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= room == 390
    at = 1 + [one["schema"] for one in carried(whole())["results"]].index("mf-sweep")

    def shown(column: int) -> list[str]:
        script = (
            "return [...document.querySelectorAll(arguments[0])].filter((row) => !row.hidden)"
            ".map((row) => (row.cells[arguments[1]] ?? row.cells[0]).textContent)"
        )
        found: list[str] = browser.execute_script(script, f"#table-{at} tbody tr", column)
        return found

    def click(column: int) -> None:
        head = browser.find_elements(By.CSS_SELECTOR, f"#table-{at} th button")[column]
        browser.execute_script("arguments[0].click()", head)

    rates = [float(text.replace(",", "")) for text in shown(5)]
    click(5)
    assert [float(text.replace(",", "")) for text in shown(5)] == sorted(rates)
    click(5)
    assert [float(text.replace(",", "")) for text in shown(5)] == sorted(rates, reverse=True)
    assert (
        browser.find_element(By.CSS_SELECTOR, f"#table-{at} th[aria-sort]").get_attribute("aria-sort") == "descending"
    )
    click(1)
    assert shown(1) == sorted(shown(1))
    browser.execute_script(
        "const box = document.getElementById(arguments[0]); box.value = 'SIDE chosen, AHEAD chosen';"
        "box.dispatchEvent(new Event('input'))",
        f"filter-{at}",
    )
    assert set(shown(1)) == {"SIDE", "AHEAD_BYTES"} and set(shown(8)) == {"chosen"}
    colours = []
    for scheme in ("light", "dark"):
        media(browser, scheme)
        colours.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]
    closed = "return document.querySelectorAll('details:not([open])').length"
    assert browser.execute_script(closed) > 0
    assert browser.execute_script(f"dispatchEvent(new Event('beforeprint')); {closed}") == 0
    link = browser.find_element(By.ID, "download")
    assert link.get_attribute("href").startswith("blob:") and link.get_attribute("download") == "results.json"
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if url.startswith(("http", "ws"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


OVERLAPS = """
const found = [];
for (const svg of document.querySelectorAll("figure svg")) {
  // Of slanted text the box holds more than the text.
  const texts = [...svg.querySelectorAll("text")].filter((one) => one.textContent.trim() && !/rotate/.test(one.getAttribute("transform")));
  const boxes = texts.map((one) => one.getBoundingClientRect()), room = svg.getBoundingClientRect();
  boxes.forEach((a, i) => {
    const name = `${svg.querySelector("title").textContent}: ${texts[i].textContent}`;
    if (a.left < room.left - 1 || a.right > room.right + 1 || a.top < room.top - 1 || a.bottom > room.bottom + 1) found.push(`${name} is cut`);
    boxes.slice(0, i).forEach((b, j) => {
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left), down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Boxes of letters are higher than what is drawn of them.
      if (across > 0.5 && down > 0.3 * Math.min(a.height, b.height)) found.push(`${name} is on ${texts[j].textContent}`);
    });
  });
}
return found;
"""  # noqa: E501


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_no_text_of_a_figure_hides_another_or_is_cut(browser: Any, page: Path, width: int, scheme: str) -> None:
    screen(browser, width)
    media(browser, scheme)
    browser.get(page.as_uri())
    assert browser.execute_script(OVERLAPS) == []
    # Letters that bear the colour of the page's text, on its ground.
    colours = "return [...document.querySelectorAll('figure svg text')].map((one) => getComputedStyle(one).fill)"
    ink, paper = ("rgb(27, 31, 36)" if scheme == "light" else "rgb(230, 233, 237)"), "rgb(255, 255, 255)"
    assert {ink} <= set(browser.execute_script(colours)) <= {ink, paper}


def test_on_paper_all_is_open_dark_on_white_and_within_the_margins(browser: Any, page: Path) -> None:
    # A4 at 96 px an inch, less margins of a centimetre.
    screen(browser, 718, 1046)
    media(browser, "dark", "print")
    browser.get(page.as_uri())
    shut = "return document.querySelectorAll('details:not([open])').length"
    before = browser.execute_script(shut)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert before > browser.execute_script(shut) == 0
    ink, ground = browser.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    assert (ink, ground) == ("rgb(27, 31, 36)", "rgb(255, 255, 255)")
    beyond, sticky, scrolled, broken, controls = browser.execute_script("""
        const all = (what) => [...document.querySelectorAll(what)], name = (one) => one.textContent.slice(0, 60);
        const lines = (cell) => { const text = document.createRange(); text.selectNodeContents(cell); return new Set([...text.getClientRects()].map((box) => box.top)).size; };
        return [
          all("table, figure, dl, p").filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(name),
          all("th, thead").filter((one) => getComputedStyle(one).position !== "static").map(name),
          all(".wide").filter((one) => getComputedStyle(one).overflowY !== "visible" || one.scrollHeight > one.clientHeight + 2).map(name),
          all("td.number").filter((cell) => lines(cell) > 1).map(name),
          all("input, label, #download").filter((one) => one.checkVisibility()).length,
        ];
    """)  # noqa: E501
    assert (beyond, sticky, scrolled, broken, controls) == ([], [], [], [], 0)
    heads = (
        "return [...document.querySelectorAll('thead')].every((one) => getComputedStyle(one).breakInside === 'avoid')"
    )
    assert browser.execute_script(heads)
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(shut) == before
