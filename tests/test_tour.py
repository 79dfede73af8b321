"""The tour's cells run, the figures and tables say what is so, and the page works in a browser."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from mf_numpy import Config, check, curvature, tour_experiments, tour_figures, tour_table
from mf_numpy.datasets import load
from mf_numpy.planted import planted
from mf_numpy.suite import Suite
from mf_torch.check import COLUMNS, suite

tour = pytest.importorskip("mf_numpy.tour", reason="the tour needs marimo")

_TOUR = Path(tour.__file__)
_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    """What the cells define when the notebook runs from top to bottom, without real ratings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MF_DATA", raising=False)
        patch.setenv("XDG_CACHE_HOME", "/nowhere")
        _, definitions = tour.app.run()
    return dict(definitions)


@pytest.fixture(scope="module")
def checks() -> Suite:
    return suite()


@pytest.fixture(scope="module")
def minimum(defined: dict[str, Any]) -> tour_experiments.Minimum:
    found: tour_experiments.Minimum = defined["minimum"]
    return found


def test_the_notebook_is_well_formed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "marimo", "check", "--strict", str(_TOUR)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_cell_runs_and_both_versions_give_one_curve(defined: dict[str, Any]) -> None:
    by_hand, by_autograd = defined["by_hand"], defined["by_autograd"]
    assert (by_hand.backend, by_autograd.backend) == ("numpy", "torch")
    assert len(by_hand.history) == len(by_autograd.history) == len(defined["differences"]) == 60
    for mine, theirs in zip(by_hand.history, by_autograd.history, strict=True):
        assert theirs.objective == pytest.approx(mine.objective, rel=1e-10)
        assert theirs.valid_rmse == pytest.approx(mine.valid_rmse, rel=1e-10)
    assert 0 < defined["differences"].max() <= 1e-10
    levels = defined["levels"]
    assert levels["noise floor"] < by_hand.history[-1].valid_rmse < levels["bias-only"] < levels["mean"]
    assert defined["gradient_table"].ok and defined["step_table"].ok
    assert {row.method for row in defined["gradient_table"].rows} == {*check.METHODS, *COLUMNS}


@pytest.mark.parametrize(
    "changed",
    [
        {"loss": "pseudo_huber", "loss_scale": 0.4},
        {"model": "plain", "init": "uniform", "penalty": "total", "reg": 0.0002, "lr": 1},
        {"model": "plain", "init": "mean", "momentum_form": "heavy_ball", "momentum": 0.5, "lr": 2},
        {"momentum_form": "nesterov", "lr": 2, "n_factors": 8},
    ],
)
def test_moved_controls_move_both_curves(defined: dict[str, Any], changed: dict[str, Any]) -> None:
    _, seen = _learning(defined, changed)
    assert seen["by_hand"].status == "max_epochs"
    assert seen["by_hand"].history[-1].objective != defined["by_hand"].history[-1].objective
    assert len(seen["differences"]) == 60
    assert seen["differences"].max() <= 1e-10


def test_divergence_is_shown_with_its_remedy(defined: dict[str, Any]) -> None:
    _, seen = _learning(defined, {"lr": 1000})
    assert seen["by_hand"].status == seen["by_autograd"].status == "diverged"
    output, _ = tour.learning_curves.run(**seen, levels=defined["levels"])
    assert "It diverged" in output.text and "Lower lr" in output.text


def test_settings_that_do_not_go_together_are_explained(defined: dict[str, Any]) -> None:
    output, seen = _learning(defined, {"init": "mean", "model": "biased"})
    assert "starts at the mean anyway" in output.text
    assert "by_hand" not in seen


def _learning(defined: dict[str, Any], changed: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What the cell that trains shows and defines with some controls moved."""
    settings = SimpleNamespace(value={**defined["settings"].value, **changed})
    output, seen = tour.learning_runs.run(settings=settings, split=defined["split"])
    return output, {name: seen[name] for name in ("by_hand", "by_autograd", "differences") if name in seen}


def test_one_ratings_step_goes_along_the_other_factor() -> None:
    # p·q = 1·3 + 2·½ = 4, so E = 2(4 - 5) = -2, and the steps are 0.1 · 2 of the other's factors.
    seen = tour_experiments.one_rating((1, 2), (3, 0.5), rating=5, lr=0.1)
    np.testing.assert_allclose(seen.step_p, [0.6, 0.1])
    np.testing.assert_allclose(seen.step_q, [0.2, 0.4])
    assert seen.predicted == pytest.approx((4, 1.6 * 3.2 + 2.1 * 0.9))
    assert seen.residual == pytest.approx((-2, 2 * (1.6 * 3.2 + 2.1 * 0.9 - 5)))
    assert seen.loss[0] == pytest.approx(1)


def test_paths_start_together_and_end_at_the_least_value() -> None:
    config = Config(model="plain", n_factors=1, penalty="total", reg=0.2, lr=0.02, momentum=0.8, dtype="float64")
    place, least = tour_experiments.least(3.0, 0.2)
    _, height = tour_experiments.surface(3.0, 0.2, 4.0, n=401)
    assert least == pytest.approx(height.min(), abs=1e-3)
    taken = {rule: tour_experiments.path(rule, (3.2, -0.6), 3.0, config, 1200) for rule in tour_experiments.RULES}
    for path in taken.values():
        assert path.points[0].tolist() == [3.2, -0.6]
        assert len(path.points) == len(path.loss) == 1201
        np.testing.assert_allclose(path.points[-1], [place, place], atol=1e-6)
        assert path.loss[-1] == pytest.approx(least, abs=1e-10)
    assert len({round(path.loss[20], 6) for path in taken.values()}) == 4
    assert len(tour_experiments.path("gradient descent", (3.2, -0.6), 3.0, replace(config, lr=1.0), 200).loss) < 20


@pytest.mark.parametrize(("reg", "rating"), [(5.0, 3.0), (0.5, 2.0), (0.0, 4.0)])
def test_least_value_is_where_the_surface_is_lowest(reg: float, rating: float) -> None:
    place, least = tour_experiments.least(rating, reg)
    assert (place**2 - rating) ** 2 + 2 * reg * place**2 == pytest.approx(least)
    _, height = tour_experiments.surface(rating, reg, 4.0, n=401)
    assert least <= height.min() + 1e-12


@pytest.mark.parametrize("rule", tour_experiments.RULES)
def test_the_bound_on_the_learning_rate_is_a_cliff(minimum: tour_experiments.Minimum, rule: str) -> None:
    form, with_momentum = tour_experiments.RULES[rule]
    config = replace(minimum.config, momentum_form=form, momentum=0.8 if with_momentum else 0.0)
    bound = curvature.max_lr(minimum.curvature, config)
    below, above = (tour_experiments.departures(minimum, config, f * bound, 200)[-1] for f in (0.95, 1.05))
    assert below < 1e-2
    assert above > 1e3


def test_the_ends_of_the_scan_stand_on_either_side(defined: dict[str, Any]) -> None:
    fractions, ends = defined["fractions"], defined["ends"]
    assert (ends[fractions < 0.97] < 1e-2).all()
    assert (ends[fractions > 1.03] > 1e2).all()


def test_axes_of_the_map_are_orthogonal_and_the_stronger_first() -> None:
    placed = tour_experiments.title_map(planted(tour_experiments.NAMELESS).ratings, n_shown=120)
    assert len(placed.titles) == 120 and placed.titles[0].startswith("item ")
    cross = placed.places.T @ placed.places
    assert abs(cross[0, 1]) < 1e-4 * cross[0, 0]
    np.testing.assert_allclose(np.diag(cross), placed.strength, rtol=1e-4)
    assert placed.strength[0] > placed.strength[1]
    assert placed.rmse[0] < placed.rmse[1]
    assert [(end.axis, end.sign) for end in placed.ends] == [(0, 1), (0, -1), (1, 1), (1, -1)]
    assert placed.ends[0].titles[0] == placed.titles[int(placed.places[:, 0].argmax())]


def test_titles_of_real_ratings_stand_apart(data_dir: Path) -> None:
    placed = tour_experiments.title_map(load("anime"))
    assert "Death Note" in placed.titles
    assert any(end.genres for end in placed.ends)
    picture = tour_figures.titles(placed)
    assert "Death Note" in picture


@pytest.mark.parametrize("name", ["penalty-2-dropped", "torch-sum-for-mean"])
def test_a_fault_turns_cells_red_and_is_gone_afterwards(checks: Suite, name: str) -> None:
    fault = checks.faults[name]
    broken = tour_table.table(checks, "gradient", fault)
    assert not broken.ok
    wrong = sum(not row.ok for row in broken.rows)
    assert tour_table.equality(broken, "gradient of").count('class="mf-bad"') == wrong > 0
    assert tour_table.table(checks, "gradient", None).ok

    named = tour_table.named_checks(checks, fault)
    assert tuple(verdict.name for verdict in named) == fault.caught_by
    assert not any(verdict.ok for verdict in named)
    assert tour_table.verdicts(named).count(">rejects<") == len(named)

    line = tour_table.line(fault)
    assert 'class="mf-wrong"' in line and fault.function.partition(":")[0].replace(".", "/") in line


def test_every_figure_is_well_formed_and_takes_the_pages_ink(defined: dict[str, Any]) -> None:
    figures = [
        tour_figures.learning(defined["by_hand"], defined["by_autograd"]),
        tour_figures.held_out(defined["by_hand"], defined["by_autograd"], defined["levels"]),
        tour_figures.difference(defined["differences"], 60, 1e-10),
        tour_figures.one_rating(defined["one"]),
        tour_figures.titles(defined["titles"]),
    ]
    for figure in figures:
        root = ET.fromstring(figure)
        svg = root if root.tag == f"{_SVG}svg" else next(root.iter(f"{_SVG}svg"))
        assert svg.get("aria-label")
        assert "currentColor" in figure and "#010203" not in figure
        assert 'style="fill: #ffffff' not in figure


def test_labels_are_put_where_nothing_stands() -> None:
    from matplotlib.transforms import Bbox

    frame = Bbox.from_bounds(0, 0, 400, 400)
    taken = [Bbox.from_bounds(196, 196, 8, 8)]
    for _ in range(12):
        box = tour_figures._free_place(200, 200, 80, 12, taken, frame)
        assert not any(tour_figures._common(box, other) for other in taken)
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        taken.append(box)


# The page in a browser


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a running tour, without real ratings, and the file that holds what it prints."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    environment.pop("MF_DATA", None)
    command = [sys.executable, "-m", "marimo", "run", "--headless", "--no-token", "--port", str(port), str(_TOUR)]
    log = tmp_path / "server.log"
    with log.open("w") as printed:
        running = subprocess.Popen(
            command, stdout=printed, stderr=subprocess.STDOUT, env=environment, cwd=_TOUR.parents[1]
        )
    try:
        for _ in range(300):
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert running.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", log
    finally:
        running.terminate()
        running.wait(timeout=20)


def test_the_page_answers_in_a_browser_without_the_network(browser: Any, server: tuple[str, Path]) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait

    url, log = server
    browser.get(url)
    wait = WebDriverWait(browser, 200, poll_frequency=0.1)

    def curves() -> list[str]:
        """The longest lines of the first figure: by hand, and by autograd."""
        paths = browser.find_elements(By.CSS_SELECTOR, 'svg[aria-label^="objective by epoch"] g[id^="line2d"] > path')
        return sorted((path.get_attribute("d") for path in paths), key=len)[-2:]

    def control(tag: str, label: str) -> Any:
        hosts = browser.find_elements(By.CSS_SELECTOR, f"marimo-{tag}")
        return next(host for host in hosts if label in (host.get_attribute("data-label") or "")).shadow_root

    wait.until(lambda _: len(browser.find_elements(By.CSS_SELECTOR, ".mf-table")) == 2)
    assert len(browser.find_elements(By.CSS_SELECTOR, "svg[role=img]")) == 9
    before = curves()
    assert before[0] == before[1]  # autograd's line has the very points of the other

    control("slider", "K, factors").find_element(By.CSS_SELECTOR, "[role=slider]").send_keys(Keys.ARROW_RIGHT)
    wait.until(lambda _: len(curves()) == 2 and curves() != before)
    after = curves()
    assert after[0] == after[1]

    assert not browser.find_elements(By.CSS_SELECTOR, ".mf-bad")
    fault = Select(control("dropdown", "fault").find_element(By.CSS_SELECTOR, "select"))
    fault.select_by_visible_text("penalty-2-dropped")
    wait.until(lambda _: "worked example" in browser.page_source)
    red = browser.find_elements(By.CSS_SELECTOR, "td.mf-bad")
    assert len(red) > 4
    assert red[0].value_of_css_property("background-color") == "rgba(198, 40, 40, 1)"
    assert "reg = config.reg" in browser.find_element(By.CSS_SELECTOR, ".mf-wrong").text

    fault = Select(control("dropdown", "fault").find_element(By.CSS_SELECTOR, "select"))
    fault.select_by_visible_text("none")
    wait.until(lambda _: not browser.find_elements(By.CSS_SELECTOR, ".mf-bad"))
    assert not [line for line in log.read_text().splitlines() if "Traceback" in line or "error_id" in line]
    hosts = {address.split("/")[2] for address in _requested(browser) if address.startswith(("http", "ws"))}
    assert hosts == {url.removeprefix("http://")}


def _requested(browser: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
