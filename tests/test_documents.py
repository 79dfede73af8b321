"""Every block of README and derivation runs; every equation is cited by the code, and every citation exists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [p for name in ("mf_numpy", "mf_torch", "bench") for p in sorted((ROOT / name).rglob("*.py"))]


def _numbers() -> list[int]:
    text = (ROOT / "mf_numpy" / "derivation.md").read_text(encoding="utf-8")
    return [int(n) for n in re.findall(r"\\tag\{(\d+)\}", text)]


def _cited() -> set[int]:
    cited: set[int] = set()
    for path in SOURCES:
        for group in re.findall(r"Eq\. (\d+(?:(?:, | and | to )\d+)*)", path.read_text(encoding="utf-8")):
            numbers = [int(n) for n in re.findall(r"\d+", group)]
            cited |= set(range(numbers[0], numbers[-1] + 1)) if " to " in group else set(numbers)
    return cited


def test_no_equation_number_is_used_twice() -> None:
    assert [n for n, times in Counter(_numbers()).items() if times > 1] == []


def test_every_citation_names_an_equation() -> None:
    assert _cited() <= set(_numbers())


def test_every_equation_is_cited_by_the_code() -> None:
    assert set(_numbers()) <= _cited()


def test_equations_are_numbered_in_the_order_of_the_text() -> None:
    assert _numbers() == list(range(1, len(_numbers()) + 1))
    assert f"{len(_numbers())} numbered equations" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_equation_is_followed_by_a_block_in_its_own_section() -> None:
    text = (ROOT / "mf_numpy" / "derivation.md").read_text(encoding="utf-8")
    for section in re.split(r"^##+ ", text, flags=re.MULTILINE):
        for tag in re.finditer(r"\\tag\{(\d+)\}", section):
            assert "```python" in section[tag.end() :], f"no block runs Eq. {tag[1]} after it"


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "mf_numpy/derivation.md",
        "mf_torch/README.md",
        "mf_torch/guide.md",
    ],
)
def test_document_is_there_and_says_something(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8")) > 300


def test_links_of_the_documents_lead_somewhere() -> None:
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "mf_numpy/derivation.md",
        "mf_torch/README.md",
        "mf_torch/guide.md",
        "docs/performance.md",
    ):
        here = ROOT / name
        for target in re.findall(r"\]\(([^)#]+)\)", here.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (here.parent / target).exists(), f"{name} links to {target}"


def test_tables_figures_and_shared_blocks_are_up_to_date() -> None:
    pytest.importorskip("matplotlib")
    from bench import docs, rungs

    assert docs.stale(rungs.load(), docs.documents()) == []
