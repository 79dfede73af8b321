"""Every number of a page is the one of the file, in the unit that its heading says; verdicts are computed anew."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

import pytest

pytest.importorskip("cyclopts")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from bench import accuracy_figures, accuracy_page
from bench.defaults import beside
from bench.pages import book, words
from bench.section import Cell
from tests.test_report_pages import held

Json = dict[str, Any]
Number = Callable[[Json], float | None]

MEDIAN: Number = lambda row: row["timing"]["median_ms"]  # noqa: E731
RATE: Number = lambda row: row["timing"]["ratings_per_s"] / 1e6  # noqa: E731
K: Number = lambda row: row["n_factors"]  # noqa: E731

COLUMNS: dict[str, dict[str, Number]] = {
    "mf-sweep": {"value": lambda row: row["value"], "K": K, "ms a call": MEDIAN, "M ratings/s": RATE},
    "mf-links": {
        "ms an iteration": MEDIAN,
        "M ratings/s": RATE,
        "a process sends, MB": lambda row: _over(row["sent_bytes"], 1e6),
        "loopback, all, MB": lambda row: _over(row["wire_bytes"], 1e6),
        "rows of Q a process keeps": lambda row: row["item_rows"],
        "items touched": lambda row: 100 * row["touched_share"],
    },
    "mf-roofline": {
        "K": K,
        "ms": MEDIAN,
        "flops a byte": lambda row: row["flops_per_rating"] / row["bytes_per_rating"],
        "GFLOP/s": lambda row: row["gflops_per_s"],
        "GB/s": lambda row: row["gbytes_per_s"],
        "of its bound": lambda row: 100 * row["share"],
    },
    "mf-scaling": {
        "ratings": lambda row: row["n_ratings"],
        "K": K,
        "threads": lambda row: row["threads"],
        "ms an epoch": MEDIAN,
        "B a rating": lambda row: row["spare_bytes_per_rating"],
        "B a rating, unsorted": lambda row: row["unsorted_spare_bytes_per_rating"],
    },
    "mf-paths": {
        "K": K,
        "ms an iteration": MEDIAN,
        "M ratings/s": RATE,
        "warm-up s": lambda row: max(row["warm_up_s"]),
        "peak MiB": lambda row: row["peak_bytes"] / 2**20,
    },
    "mf-race": {
        "K": K,
        "validation RMSE": lambda row: row["best"]["rmse"],
        "test RMSE": lambda row: row["final"]["rmse"],
        "test MAE": lambda row: row["final"]["mae"],
    },
    "mf-instructions": {
        "K": K,
        "instructions": lambda row: row["instructions"],
        "reads": lambda row: row["reads"],
        "writes": lambda row: row["writes"],
        "L1 misses": lambda row: row["l1_misses"],
        "last-level misses": lambda row: row["last_level_misses"],
    },
    "mf-accuracy": {
        "test RMSE": lambda row: row["rmse"],
        "MAE": lambda row: row["mae"],
        "RMSE, all pairs": lambda row: row["rmse_all"],
        "fit, s": lambda row: row["seconds"],
        "peak MiB": lambda row: max(one["peak_bytes"] for one in row["folds"]) / 2**20,
    },
}


def _over(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _read(cell: Cell) -> float:
    return float(cell.text.replace(",", "").rstrip("%×"))


@pytest.mark.parametrize("schema", list(COLUMNS))
def test_cells_are_the_numbers_of_the_file(schema: str) -> None:
    outcome = held(schema)
    made = book.KINDS[schema](outcome)
    rows = outcome["systems" if schema == "mf-accuracy" else "rows"]
    if schema == "mf-accuracy":
        rows = sorted(rows, key=lambda row: float(row["rmse"]))
    elif schema == "mf-scaling":
        rows = sorted(rows, key=lambda row: str(row["solver"]))
    titles = [column.title for column in made.table.columns]
    for row, line in zip(rows, made.table.rows[: len(rows)], strict=True):
        for title, number in COLUMNS[schema].items():
            cell, expected = line.cells[titles.index(title)], number(row)
            if expected is None:
                assert cell.text == "–"
                continue
            # Half of the last digit that is shown.
            last = len(cell.text.rstrip("%×").partition(".")[2])
            assert _read(cell) == pytest.approx(expected, rel=6e-3, abs=0.51 * 10**-last), (title, row)
            if cell.value is not None and "%" not in cell.text:
                assert cell.value * (2**-20 if "MiB" in title else 1) == pytest.approx(expected), title
        if "middle half" in titles:
            cell = line.cells[titles.index("middle half")]
            low, high = (float(part.replace(",", "")) for part in cell.text.split("–"))
            assert low <= high and cell.value == row["timing"]["q1_ms"] == pytest.approx(low, rel=6e-3)
            assert high == pytest.approx(row["timing"]["q3_ms"], rel=6e-3)


def test_times_have_their_quartiles_in_order() -> None:
    cell = words.times({"ratio": 2.0, "low": 1.5, "high": 2.5})
    assert (cell.text, cell.value) == ("2.00 (1.50–2.50)", 2.0)
    assert words.times({"ratio": 2.0, "low": 2.0, "high": 2.0}).text == "2.00" and words.times(None).text == "–"


def said(schema: str) -> str:
    return book.KINDS[schema](held(schema)).verdict


def test_verdicts_are_computed_anew() -> None:
    sweep = [row for row in held("mf-sweep")["rows"] if row["ratio"] is not None and not row["chosen"]]
    ratios = [row["ratio"] for row in sweep]
    assert f"the best is {max(ratios):.2f} times" in said("mf-sweep")
    assert f"the worst {min(ratios):.2f} times" in said("mf-sweep")
    sent = [row for row in held("mf-links")["rows"] if row["processes"] == 3]
    assert all(f"{row['wire_bytes'] / 1e6:.2f} MB ({row['form']})" in said("mf-links") for row in sent)
    slopes = [one for one in held("mf-scaling")["slopes"] if one["threads"] == 1]
    assert all(
        f"as {over} to the {words.span((one['slope'] for one in slopes if one['over'] == over), '.2f')}"
        in said("mf-scaling")
        for over in "NK"
    )
    shares = [row["share"] for row in held("mf-roofline")["rows"] if (row["threads"], row["dtype"]) == (2, "float32")]
    assert f"from {min(shares):.0%} of" in said("mf-roofline") and f"to {max(shares):.0%} of" in said("mf-roofline")
    counts = [row for row in held("mf-instructions")["rows"] if row["n_factors"] == 64]
    assert all(f"{row['kernel']} {row['instructions']:,.0f}" in said("mf-instructions") for row in counts)
    rates = [entry["ratings_per_s"] for entry in held("mf-rungs")["ladder"]["K64"] if entry["ratings_per_s"]]
    assert f"with K = 64 from {rates[0] / 1e6:.2g} M ratings/s" in said("mf-rungs")
    assert f"to {max(rates) / 1e6:.3g} M of" in said("mf-rungs")
    paths = [row for row in held("mf-paths")["rows"] if (row["threads"], row["n_factors"]) == (2, 64)]
    best = min((row["timing"]["median_ms"], row["system"]) for row in paths if row["system"] != "numba")
    assert f"{best[1]} is the fastest path of mf_torch" in said("mf-paths")


def test_what_another_value_adds_is_its_rmse_less_the_defaults() -> None:
    rows = held("mf-defaults")["rows"]
    pairs = [(other, row) for row, others in beside(rows) for other in others if other["rmse"] is not None]
    change, other, row = min(((other["rmse"] - row["rmse"], other, row) for other, row in pairs), key=lambda p: p[0])
    verdict = said("mf-defaults")
    assert verdict.startswith(f"{sum(o['rmse'] < r['rmse'] for o, r in pairs)} of {len(pairs)} other values lower")
    assert f"is {change:+.4f} ({row['solver']}, {row['setting']} {other['value']:g} for {row['value']:g}" in verdict
    (drawn, *_) = book.KINDS["mf-defaults"](held("mf-defaults")).draw()
    data = drawn.title.partition(": ")[2]
    one, others = next(pair for pair in beside([row for row in rows if row["data"] == data]))
    added = [1e3 * (other["rmse"] - one["rmse"]) for other in others]
    assert f"{one['solver']}, {one['setting']} {min(added):+.1f} to {max(added):+.1f}" in drawn.about


def test_yardsticks_are_means_over_the_tests_and_may_be_chance_is_by_the_low_end() -> None:
    outcome = held("mf-accuracy")
    lines = {row.cells[0].text: row.cells[1].text for row in accuracy_page.part(outcome).table.rows if row.off}
    for kind in ("mean", "bias-only"):
        assert lines[kind] == f"{statistics.mean(test['baselines'][kind] for test in outcome['tests']):.4f}"
    first, second = sorted(outcome["systems"], key=lambda row: float(row["rmse"]))[:2]
    theirs = [first | {"system": "A"}, second | {"system": "B", "behind": {"interval": [-0.001, 0.002]}}]
    assert accuracy_page.verdict(outcome | {"systems": theirs}).endswith("below B, which may be chance.")


def test_curves_of_the_accuracy_figures_are_those_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = held("mf-accuracy")
    drawn: dict[str, list[tuple[list[float], list[float]]]] = {}

    def spy(axes: Any, few: list[Json], row: Json, xs: Iterable[float], ys: Iterable[float]) -> None:
        drawn.setdefault(row["system"], []).append((list(xs), list(ys)))

    monkeypatch.setattr(accuracy_figures, "_line", spy)
    accuracy_figures.pictures(outcome)
    for row in outcome["systems"]:
        if row["system"] in drawn:
            ways, users, items, calibrated = drawn[row["system"]]
            assert min(ways[1]) == row["tuned"]["rmse"]
            assert users[1] == [part["rmse"] for part in row["by_user"]]
            assert items[1] == [part["rmse"] for part in row["by_item"]]
            parts = row["calibration"]["parts"]
            assert calibrated == ([p["predicted"] for p in parts], [p["rated"] - p["predicted"] for p in parts])
    assert len(drawn) == min(4, len(outcome["systems"]))
