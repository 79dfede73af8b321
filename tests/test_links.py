"""What processes send: as counted, as the formula says and as the loopback saw it; nothing here judges time."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from bench import link_tables, links, result
from bench.cost import spread
from mf_numpy.errors import ConfigError


def test_two_processes_send_what_the_model_says() -> None:
    found = links.measure(n_ratings=2000, n_factors=3, processes=(2,), forms=("replicated", "ring"), iterations=3)
    assert found["complete"] and json.loads(result.to_text(found)) == found
    problem = found["problem"]
    rows = {row["form"]: row for row in found["rows"]}
    for form, row in rows.items():
        assert row["status"] == "ok", row["reason"]
        model = spread(problem["n_users"], problem["n_items"], 2000, 3, 2, ring=form == "ring")
        # Three sums, in float64, go along: the objective's.
        assert row["sent_bytes"] == pytest.approx(model.sent + 3 * 8)
        assert row["item_rows"] == problem["n_items"] // (2 if form == "ring" else 1)
        if row["wire_bytes"] is not None:
            # Others may use the loopback meanwhile; headers come on top.
            assert row["wire_bytes"] >= 2 * row["sent_bytes"]
    assert rows["replicated"]["given"] == {"all-reduce": 4 * problem["n_items"] * 4 + 3 * 8}
    assert rows["ring"]["given"] == {"all-reduce": 3 * 8, "send": 4 * problem["n_items"] * 4}
    assert len(links.summary(found)) >= 3


def test_a_case_that_fails_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: dict[str, Any] = {"status": "failed", "reason": "out of memory", "samples_ms": [], "timing": None}
    monkeypatch.setattr(links, "_run", lambda *_: dict(failed))
    found = links.measure(n_ratings=2000, processes=(1,), forms=("ring",))
    assert links.summary(found)[1].endswith("failed: out of memory")


@pytest.mark.parametrize("given", [{"forms": ("rings",)}, {"processes": (4,)}])
def test_what_it_does_not_take(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must"):
        links.measure(**given)


def test_more_processes_hold_less_and_send_no_less() -> None:
    data = (1e6, 1e5, 1e8, 16)
    for ring in (False, True):
        few, many = (spread(*data, processes, ring=ring) for processes in (2, 8))
        assert many.held < few.held and many.passed < few.passed
        assert few.sent < many.sent < 2 * 1e5 * 17 * 4
    one = spread(*data, 1, ring=False)
    assert one.sent == 0 and one.held == 32e8 + 4 * 1e6 * 69 + 4 * 1e5 * 68


def test_the_fewest_gpus_are_just_enough() -> None:
    least = link_tables.fewest()
    given = link_tables.USERS, link_tables.ITEMS, link_tables.RATINGS, link_tables.FACTORS
    fits = [spread(*given, gpus, ring=True).held <= 72e9 for gpus in (least - 1, least)]
    assert fits == [False, True]
    # Q on every GPU does not fit on any number of them.
    assert spread(*given, 10**6, ring=False).held > 80e9
