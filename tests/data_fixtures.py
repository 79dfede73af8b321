"""Where tests find real ratings: the folder MF_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets (anime, ml-100k, ml-1m)."""
    named = os.environ.get("MF_DATA")
    if not named:
        pytest.skip("MF_DATA is not set: tests on real ratings need the folder that holds anime/, ml-100k/ and ml-1m/")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"MF_DATA is {named!r}, which is not a folder")
    return folder
