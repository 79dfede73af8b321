"""How documents are filled in: marks, figures, blocks that two languages share, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from bench import cli, docs, rungs, tables

Json = dict[str, Any]
WITHOUT_A_RESULT = {"cuda"}
"""Tables that are a sentence until somebody commits what they are made of."""

ENGLISH = """# Text

<!-- measured: biases -->
<!-- end -->

$$
a = b \\tag{1}
$$

```python
>>> 1 + 1
2

```

<!-- figure: start -->
something old
<!-- end -->
The end.
"""
CHINESE = ENGLISH.replace("Text", "文").replace("a = b", "a = c").replace("1 + 1", "1 + 2").replace("The end", "完")


@pytest.fixture(scope="module")
def outcome() -> Json:
    return rungs.load()


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "x.md", tmp_path / "x.zh.md"]
    for path, text in zip(paths, (ENGLISH, CHINESE), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def test_filled_twice_is_filled_once(pair: list[Path], outcome: Json) -> None:
    figures = pair[0].parent / "docs" / "figures"
    assert docs.stale(outcome, pair, figures) == [
        "x.md:4: measured biases is stale; run make docs",
        "x.md:17: figure start is stale; run make docs",
        "x.zh.md:4: measured biases is stale; run make docs",
        "x.zh.md:17: figure start is stale; run make docs",
        "x.zh.md:10: Python block 1 is stale; run make docs",
        "x.zh.md:6: display equation 1 is stale; run make docs",
    ]
    assert docs.update(outcome, pair, figures) == pair
    assert docs.stale(outcome, pair, figures) == []
    assert docs.update(outcome, pair, figures) == []
    english, chinese = (path.read_text(encoding="utf-8") for path in pair)
    for text in (english, chinese):
        assert 'srcset="docs/figures/start-dark.svg"' in text
        assert 'src="docs/figures/start-light.svg"' in text
        assert "something old" not in text
        assert "a = b" in text and ">>> 1 + 1" in text
    assert "| model | K | RMSE | iterations |" in english and english.endswith("<!-- end -->\nThe end.\n")
    assert "| 模型 | K | RMSE | 迭代次数 |" in chinese and chinese.endswith("<!-- end -->\n完.\n")
    assert 'alt="Starting' in english and 'alt="U(0' in chinese


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("measured: biases", "measured: bias", r"x.md:3: measured is 'bias', .*'ladder'.* Did you mean 'biases'"),
        ("figure: start", "figure: strat", r"figure is 'strat', .*'roofline'"),
        ("measured: biases", "table: biases", r"x.md:3: .* is no mark; there are measured, figure and end"),
        ("<!-- end -->\nThe end", "The end", r"has no <!-- end --> after it"),
        ("<!-- end -->\n\n$$", "\n$$", r"x.md:15: <!-- measured: biases --> has no <!-- end --> before this mark"),
        ("# Text", "<!-- end -->", r"x.md:1: <!-- end --> ends nothing"),
        ("```python", "```text", r"x.zh.md has 1 of a Python block, but x.md has 0"),
    ],
)
def test_what_cannot_be_filled_is_refused_and_nothing_written(
    pair: list[Path], outcome: Json, old: str, new: str, words: str
) -> None:
    pair[0].write_text(ENGLISH.replace(old, new), encoding="utf-8")
    before = [path.read_bytes() for path in pair]
    with pytest.raises(docs.DocumentError, match=words):
        docs.update(outcome, pair)
    assert [path.read_bytes() for path in pair] == before


@pytest.mark.parametrize("name", list(tables.TABLES))
def test_tables_are_small_whole_and_in_their_language(name: str, outcome: Json) -> None:
    for lang in ("en", "zh"):
        text = tables.render(name, outcome, lang)
        rows = [line for line in text.splitlines() if line.startswith("|")]
        if name in WITHOUT_A_RESULT:
            assert not rows and len(text) > 10
            continue
        columns = {line.count("|") - 1 for line in rows}
        assert len(columns) == 1 and 2 <= columns.pop() <= 5
        assert 4 <= len(rows) <= 11
        assert any("\u4e00" <= letter <= "\u9fff" for letter in text) == (lang == "zh")
        assert "nan" not in text and "None" not in text


def test_digits() -> None:
    shown = [tables.digits(value) for value in (0.0, 0.0001234, 0.0968, 9.996, 12.34, 1234.5, 1e6)]
    assert shown == ["0", "0.000123", "0.0968", "10.00", "12.3", "1,234", "1,000,000"]


def test_command_line(monkeypatch: pytest.MonkeyPatch, pair: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(docs, "documents", lambda: pair)
    assert cli.main(["docs", "--check"]) == 1
    assert "x.md:4: measured biases is stale" in capsys.readouterr().out
    assert cli.main(["docs"]) == 0
    assert cli.main(["docs", "--check"]) == 0
    pair[0].write_text("<!-- measured: nothing -->\n<!-- end -->\n", encoding="utf-8")
    assert cli.main(["docs", "--check"]) == 2
