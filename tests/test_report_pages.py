"""The page of results of every kind: the same bytes again, what it shows, and what it refuses."""

from __future__ import annotations

import json
import re
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclopts")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from bench import cli, compared, cuda, figures, instructions, result, section
from bench.cuda_cases import Sizes
from bench.pages import book, plots, race, speed, words

Json = dict[str, Any]

EVERY = sorted((Path(book.__file__).parent.parent / "results").rglob("*.json"))
FILES = [path for path in EVERY if not path.name.startswith("features-")]
"""All that are whole: the others are a single contest of `bench.speed`."""
SCHEMAS = [(path, json.loads(path.read_text(encoding="utf-8"))["schema"]) for path in FILES]


def of(schema: str) -> Path:
    """A committed result of a schema, the smallest."""
    return min((path for path, here in SCHEMAS if here == schema), key=lambda path: path.stat().st_size)


def held(schema: str) -> Json:
    found: Json = json.loads(of(schema).read_text(encoding="utf-8"))
    return found


RACED = held("mf-race")["rows"][0]["n_factors"]
"""K of the first line of the race."""


def page_of(outcome: Json) -> str:
    return book.render([("x.json", outcome)])


@pytest.fixture(scope="module")
def results() -> list[tuple[str, Json]]:
    """A committed result of each kind."""
    return each()


@cache
def each() -> list[tuple[str, Json]]:
    """A committed result of each kind."""
    return book.read([of(schema) for schema in dict.fromkeys(schema for _, schema in SCHEMAS)])


@cache
def whole() -> str:
    """One page of a result of each kind."""
    return book.render(each())


@pytest.fixture(scope="module")
def page() -> str:
    """One page of a result of each kind."""
    return whole()


def carried(text: str) -> Json:
    found: Json = json.loads(text.split('id="result">')[1].split("</script>")[0])
    return found


def test_every_kind_of_result_has_a_section_and_its_version_is_the_one_written() -> None:
    assert set(book.KINDS) == set(compared.SCHEMAS) | {instructions.SCHEMA} == set(book.VERSIONS)
    assert book.VERSIONS[instructions.SCHEMA] == instructions.VERSION
    assert {name: book.VERSIONS[name] for name in compared.SCHEMAS} == {
        name: kind.version for name, kind in compared.SCHEMAS.items()
    }


def test_the_page_of_a_result_of_each_kind_is_small_whole_and_needs_nothing_else(
    page: str, results: list[tuple[str, Json]]
) -> None:
    assert len(page.encode()) < 2_000_000
    assert carried(page) == {"schema": "mf-results", "schema_version": 1, "results": [one for _, one in results]}
    assert "http" not in page.split('<script type="application/json"')[0].replace("http://www.w3.org/", "")
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    linked = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) | set(re.findall(r'(?:for|data-table)="(\S+)"', page))
    assert linked <= set(ids) and len(linked) > 150
    named = " ".join(re.findall(r'aria-labelledby="([^"]*)"', page)).split()
    assert set(named) <= set(ids) and len(named) == 2 * page.count("<svg") == 2 * page.count("<desc")
    assert page.count("<section ") == len(results) == page.count("data-sortable>")


def test_every_committed_result_can_be_shown() -> None:
    for name, one in book.read(FILES):
        made = book.KINDS[one["schema"]](one)
        assert made.verdict.endswith(".") and ".." not in made.verdict and made.verdict[0] != " ", name
        assert {len(row.cells) for row in made.table.rows if not row.reason} == {len(made.table.columns)}
        assert section.markdown([made]).count("\n| ") == 2 + len(made.table.rows)


def test_each_section_says_what_it_found_and_shows_every_row(page: str, results: list[tuple[str, Json]]) -> None:
    parts = page.split("<section ")[1:]
    for (_, one), text in zip(results, parts, strict=True):
        made = book.KINDS[one["schema"]](one)
        body = text.split("<tbody>")[1].split("</tbody>")[0]
        assert unescape(re.findall(r'class="verdict[^>]*>([^<]*)<', text)[0]) == made.sentence
        assert body.count("<tr") - body.count("data-with-above") == len(made.table.rows)
        assert one["machine"]["cpu"] in unescape(text) and one["created"] in text


@pytest.mark.parametrize(
    ("schema", "titles"),
    [
        ("mf-speed", ["Ratings a second against K: single steps", "How many times as long the others take"]),
        ("mf-race", [f"RMSE against seconds, K = {RACED}", f"The way of the best settings, K = {RACED}"]),
        ("mf-scaling", [f"Ratings a second against {over}" for over in ("N", "K", "threads")]),
        ("mf-roofline", ["Roofline", "Ratings a second of each kernel against K"]),
        ("mf-sweep", ["Speed with another value"]),
        ("mf-paths", ["Time of each path, K = 16", "Time of each path, K = 64"]),
        ("mf-links", ["What all processes send against their number"]),
        ("mf-instructions", ["Instructions a rating against K"]),
        ("mf-defaults", ["What other values add to the RMSE: ml-1m"]),
        ("mf-rungs", ["Ratings a second of each rung", "Ratings a second against the batch"]),
    ],
)
def test_a_kind_has_its_figures(page: str, schema: str, titles: list[str]) -> None:
    at = [one["schema"] for one in carried(page)["results"]].index(schema)
    shown = [unescape(title) for title in re.findall(r"<h3>([^<]*)</h3>\n<svg", page.split("<section ")[at + 1])]
    for title in titles:
        assert any(one.startswith(title) for one in shown), shown


def test_the_same_files_give_the_same_bytes_and_so_does_what_a_page_carries(tmp_path: Path) -> None:
    path, first, second = of("mf-links"), tmp_path / "a.html", tmp_path / "b.html"
    assert cli.main(["report", str(path), "--out", str(first)]) == 0
    again = tmp_path / "result.json"
    again.write_text(json.dumps(carried(first.read_text(encoding="utf-8"))), encoding="utf-8")
    assert cli.main(["report", str(again), "--out", str(second)]) == 0
    assert first.read_bytes() == second.read_bytes()


def test_two_results_of_one_kind_share_the_method_and_no_id(tmp_path: Path) -> None:
    outcome = held("mf-links")
    # As a page carries them.
    several = {"schema": "mf-results", "schema_version": 1, "results": [outcome, outcome]}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(several), encoding="utf-8")
    text = book.render(book.read([path]))
    assert carried(text) == several
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert text.count("an all-reduce as a ring") == 1 and text.count("<h3>What several processes send</h3>") == 1


def test_a_comparison_with_ids_alone_says_what_features_cost() -> None:
    for path in set(EVERY) - set(FILES):
        outcome = json.loads(path.read_text(encoding="utf-8"))
        ratios = [one["ratio"] for one in outcome["ratios"]]
        assert f"takes {words.span(ratios, '.2f')} times as long as one with ids alone" in speed.part(outcome).verdict
        assert book.render([(path.name, outcome)]).count("iteration with features") >= len(outcome["rows"]) / 4


def test_numbers_are_those_of_the_file() -> None:
    outcome = held("mf-speed")
    made = speed.part(outcome)
    for row, shown in zip(outcome["rows"], made.table.rows, strict=True):
        if row["timing"]:
            texts = [cell.text for cell in shown.cells]
            assert texts[2:4] == [str(row["n_factors"]), str(row["threads"])]
            assert shown.cells[4].value == row["timing"]["median_ms"]
            assert float(texts[4].replace(",", "")) == pytest.approx(row["timing"]["median_ms"], rel=6e-3)
            assert float(texts[6].replace(",", "")) == pytest.approx(row["timing"]["ratings_per_s"] / 1e6, rel=6e-3)
    groups: dict[Any, list[Json]] = {}
    for one in outcome["ratios"]:
        groups.setdefault((one["contest"], one["n_factors"], one["threads"]), []).append(one)
    nearest = [min(one["ratio"] for one in group) for group in groups.values()]
    assert f"of {len(nearest)} comparisons" in made.verdict
    assert f"takes {min(nearest):.2f}–{max(nearest):.2f} times as long." in made.verdict
    for row in outcome["rows"]:
        if row["system"].startswith("mf_"):
            row["timing"] |= {"q3_ms": 1e9}
    assert f"fastest in 0 of {len(nearest)} comparisons" in speed.part(outcome).verdict


def test_a_race_is_won_by_who_needs_less_time_than_the_peer() -> None:
    outcome = held("mf-race")
    best = min((row["final"]["rmse"], row["system"]) for row in outcome["rows"] if row["final"])
    assert race.part(outcome).verdict.startswith(
        f"the lowest test RMSE, {best[0]:.4f}, is that of {best[1]} with K = {RACED};"
    )
    slow = json.loads(json.dumps(outcome))
    for one in slow["ratios"]:
        one["ratio"] = 2.0
    assert f"in 0 of {len(outcome['targets'])} races, in 2.00 of its time" in race.part(slow).verdict
    picture = race._fronts(outcome["rows"], outcome["targets"], RACED)
    every = [(s, rmse) for row in outcome["rows"] for one in row["tried"] for _, s, rmse in one["curve"]]
    low = min(rmse for _, rmse in every)
    soonest = min(s for s, rmse in every if rmse == low)
    assert f"to {low:.4f} after {soonest:.3g} s" in picture.about


def test_a_front_holds_what_none_beats_in_both() -> None:
    points = [(1.0, 0.9), (2.0, 0.8), (3.0, 0.85), (2.0, 0.95), (4.0, 0.7)]
    assert figures.pareto(points) == [(1.0, 0.9), (2.0, 0.8), (4.0, 0.7)]


def test_curves_are_rates_by_name_and_threads() -> None:
    rows = [
        {"of": name, "x": x, "threads": n, "timing": {"ratings_per_s": rate}}
        for name, x, n, rate in (("a", 64, 1, 1e6), ("a", 16, 1, 3e6), ("a", 16, 2, 5e6), ("b", 16, 2, 2e6))
    ]
    found = plots.rates(rows, "of", "x", (2, 1))
    assert [(curve.name, list(curve.points), curve.dash) for curve in found] == [
        ("a", [(16.0, 5.0)], 0),
        ("b", [(16.0, 2.0)], 0),
        ("a", [(16.0, 3.0), (64.0, 1.0)], 1),
    ]
    told = plots.told(found, ("2 threads", "1 thread"), " M")
    assert told == "a, 2 threads 5 M at 16; b, 2 threads 2 M at 16; a, 1 thread 3 M at 16 and 1 M at 64."


def test_words() -> None:
    assert words.span([2.0, 1.0, 3.0], ".1f") == "1.0–3.0" and words.span([2.0]) == "2"
    assert words.listed(()) == "" and words.listed("a") == "a" and words.listed("abc") == "a, b and c"
    assert [section.digits(x) for x in (0.01234, 12.345, 99.96, 12345.6)] == ["0.0123", "12.3", "100", "12,346"]
    assert [plots.short(x) for x in (0.05, 16.0, 2000.0, 1e5, 1e7)] == ["0.05", "16", "2,000", "0.1 M", "10 M"]


def test_what_failed_and_what_was_cut_short_is_said(tmp_path: Path) -> None:
    for schema in ("mf-speed", "mf-sweep", "mf-paths", "mf-scaling", "mf-links"):
        outcome = held(schema)
        outcome["rows"][0] |= {"status": "failed", "reason": "it hung", "timing": None}
        outcome["rows"][1] |= {"status": "failed", "reason": "a round hung"}
        outcome["complete"] = False
        made = book.KINDS[schema](outcome)
        shown = {row.reason: len(row.cells) for row in made.table.rows if row.reason}
        assert shown["failed: it hung"] < len(made.table.columns) == shown["failed: a round hung"]
        assert made.warnings[0].startswith("The run was cut short")
        text = section.markdown([made])
        assert "| failed: it hung |" in text and "; failed: a round hung |" in text and "cut short" in text
    assert '<tr data-with-above><td colspan="8" class="reason bad">failed: a round hung' in page_of(
        held("mf-speed") | {"rows": [held("mf-speed")["rows"][0] | {"status": "failed", "reason": "a round hung"}]}
    )


def test_a_busy_machine_is_no_secret() -> None:
    outcome = held("mf-sweep") | {"others_busy_cores": 1.5}
    assert words.notices(outcome) == ("Others kept up to 1.50 cores busy meanwhile: measure again on a quiet machine.",)
    assert words.notices(outcome | {"others_busy_cores": 0.1}) == ()


def test_text_from_a_file_is_text() -> None:
    wicked = "</script><script>alert(1)</script><b>|\n\"'&"
    outcome = json.loads(json.dumps(held("mf-sweep")).replace('"gradient"', json.dumps(wicked)))
    outcome["problem"]["data"] = wicked
    outcome["machine"]["cpu"] = wicked
    outcome["rows"][0] |= {"status": "failed", "reason": wicked}
    text = page_of(outcome)
    assert "<script>alert" not in text and text.count("</script>") == 2 and "<b>" not in text
    assert carried(text)["problem"]["data"] == wicked
    plain = book.render([("x.json", outcome)], "md")
    assert "<script>" not in plain and "<b>" not in plain
    lines = [line for line in plain.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def on_cuda() -> Json:
    """A result of the CUDA suite as a GPU would give it, with made-up times."""
    sizes = Sizes(main=9000, ratings=(1000,), k_main=8, factors=(16,), batches=(500, 1000), k_target=2)
    found = cuda.measure(seconds=1e-9, sizes=sizes, launch=lambda *_: pytest.fail("nothing may start"))
    for row in found["rows"]:
        if row["part"] in ("full", "batch"):
            n = row["batch_size"] or row["n_ratings"]
            ms = 2.0 if row["device"] == "cuda" else n / 2000
            row |= {"status": "ok", "reason": None, "samples_ms": [ms] * 5, "timing": result.timing([ms] * 5, n)}
            row |= {"check": {"passed": True}, "peak_cuda_bytes": 2**20, "profile": {"busy_ms": 0.5}, "share": 0.25}
        elif row["part"] == "target":
            curve = [[1, 0.5, 1.2], [2, 0.5, 1.0]]
            row |= {"status": "ok", "reason": None, "target_rmse": 1.0, "seconds": 1.0, "epochs": 2, "curve": curve}
    lines = [{"kernel": "triad", "bytes": 2**20, "gbytes_per_s": 1000.0}]
    device = {"name": "A GPU", "memory_bytes": 2**33}
    return found | {
        "cuda": device, "crossings": list(cuda.crossings(found["rows"])), "roof": {"by": "torch", "lines": lines},
    }  # fmt: skip


def test_cuda_beside_the_cpu() -> None:
    outcome = on_cuda()
    text = page_of(outcome)
    made = book.KINDS["mf-cuda"](outcome)
    assert made.verdict == (
        "CUDA is ahead of the CPU with K = 8 from 9,000 ratings on (2.25 times as fast at 9,000); with K = 16 from "
        "9,000 ratings on (2.25 times as fast at 9,000)."
    )
    shown = [unescape(title) for title in re.findall(r"<h3>([^<]*)</h3>\n<svg", text)]
    assert shown == [
        "Ratings a second against N, CUDA and CPU",
        "Ratings a second against K, CUDA and CPU",
        "Ratings a second of each path, K = 8",
        "Ratings a second against the batch",
        "RMSE against seconds",
    ]
    assert "CUDA 0.5 M at 1,000 and 4.5 M at 9,000; CPU 2 M at 1,000 and 2 M at 9,000." in unescape(text)
    nothing = cuda.measure(seconds=1e-9, sizes=Sizes(main=9000), launch=lambda *_: pytest.fail("nothing may start"))
    text = page_of(nothing | {"cuda": None})
    assert "no CUDA device was there" in text and "<svg" not in text
