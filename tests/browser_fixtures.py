"""A browser for the pages that are made here: Chromium, headless, with a profile of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Chromium as Selenium drives it; skipped where it is not installed, unless MF_REQUIRE_CHROMIUM is set."""
    from selenium import webdriver

    path, driver = _chromium()
    options = webdriver.ChromeOptions()
    options.binary_location = path
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", f"user-data-dir={tmp_path / 'profile'}", "window-size=1280,900",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield running
    finally:
        running.quit()


def _chromium() -> tuple[str, str]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if browser and driver:
        return browser, driver
    missing = "chromium and chromedriver are not installed; Debian has them as chromium and chromium-driver"
    if os.environ.get("MF_REQUIRE_CHROMIUM"):
        pytest.fail(f"MF_REQUIRE_CHROMIUM is set, but {missing}")
    pytest.skip(missing)
