"""Users and items hidden whole: what training sees of them, what is folded in, and how it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("cyclopts")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("sklearn")

import mf_numpy
from bench import cli, committed, newcomer_data, newcomer_tables, newcomers, result, tables, whole_fit
from bench.newcomer_data import Data, drawn, hide
from bench.newcomer_systems import SYSTEMS, Fitted, System
from bench.newcomers import DRAWN, WARM, Plan, Step
from bench.pages import book
from mf_numpy import ConfigError, Design, Features, FitResult, fit
from mf_numpy.baselines import bias_only
from mf_numpy.design import Side
from mf_numpy.errors import DataError
from mf_numpy.result import EpochRecord
from tests.bench_fixtures import quiet_machine

Json = dict[str, Any]

PLAN = Plan(draws=2, given=(0, 1, 4), n_factors=2, n_epochs=12)
GRIDS: Json = {
    "ids": ({"reg": 0.03}, {"reg": 0.3}),
    "half-step": ({"reg": 0.03},),
    "features alone": ({"reg": 0.03, "weight": 1.0},),
    "ids and features": ({"reg": 0.03, "weight": 1.0},),
}
FEW = tuple(System(s.name, s.make, GRIDS.get(s.name, s.grid), s.facts, s.asks) for s in SYSTEMS)


IDS = next(system for system in FEW if system.name == "ids")


@pytest.fixture(scope="module")
def data() -> Data:
    """Facts of the users alone."""
    whole = drawn(80, 50, 2_000)
    return Data(whole.name, whole.ratings, {"user": whole.facts["user"]})


@pytest.fixture(scope="module")
def outcome(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Json:
    with quiet_machine():
        return newcomers.measure(data, PLAN, path=tmp_path_factory.mktemp("newcomers") / "run.json", systems=FEW)


def rows_of(outcome: Json, **wanted: Any) -> list[Json]:
    return [row for row in outcome["rows"] if all(row[key] == value for key, value in wanted.items())]


@pytest.mark.parametrize("side", ["user", "item"])
def test_training_sees_nothing_of_who_is_hidden(data: Data, side: newcomer_data.Side) -> None:
    ratings = data.ratings
    table = pd.DataFrame({"user": ratings.users, "item": ratings.items, "value": ratings.values})
    other = "item" if side == "user" else "user"
    divisions = [hide(ratings, side, part, most=4) for part in range(2)]
    hidden = [{int(str(one.raw)) for one in division.hidden} for division in divisions]
    assert not hidden[0] & hidden[1] and all(len(raw) <= d.n_hidden for raw, d in zip(hidden, divisions, strict=True))
    for division, raws in zip(divisions, hidden, strict=True):
        ids = division.train.user_ids if side == "user" else division.train.item_ids
        assert not raws & set(ids.raw.tolist())
        visible = len(division.train) + len(division.warm)
        assert len(division.warm) == int(visible / 10 + 0.5)
        known = (division.train.item_ids if side == "user" else division.train.user_ids).raw
        for one in division.hidden:
            own = table[(table[side] == one.raw) & table[other].isin(known)]
            assert len(one.offered) == len(own) // 2 >= 4 and len(one.values) == len(own) - len(one.offered)
            both = {**one.offered.to_dict(), **dict(zip(one.others, one.values, strict=True))}
            assert both == dict(zip(own[other], own["value"], strict=True))
        assert division.rows.tolist() == [k for k, one in enumerate(division.hidden) for _ in one.values]
    with pytest.raises(DataError, match=f"no hidden {side} has 2000 ratings"):
        hide(ratings, side, 0, most=1000)


def test_settings_are_chosen_inside_the_training_ratings(data: Data, outcome: Json) -> None:
    bench = newcomers._Bench(data, PLAN, FEW)
    for draw in range(2):
        outer, inner = (bench.division("user", draw, tuning=tuning) for tuning in (False, True))
        seen = set(outer.train.user_ids.raw.tolist())
        assert set(inner.train.user_ids.raw.tolist()) | {one.raw for one in inner.hidden} <= seen
        assert not {one.raw for one in outer.hidden} & seen
    for side in newcomer_data.SIDES:
        for draw in range(2):
            tried = [outcome["cases"][Step(side, draw, IDS, point).key] for point in range(2)]
            least = min(tried, key=lambda one: sum(one["rmse"].values()))
            best = outcome["cases"][Step(side, draw, IDS).key]
            assert best["settings"] == least["settings"] and len(least["rmse"]) == 1 + len(PLAN.given)
            assert len(best["rmse"]) == 1 + len(PLAN.given) + 2 * (len(PLAN.given) - 1)


def test_rows_follow_from_what_each_system_is_given(data: Data, outcome: Json) -> None:
    """Every number of one side, once more by hand."""
    divisions = [hide(data.ratings, "user", part, most=4) for part in range(2)]
    facts = data.facts["user"]
    errors: dict[tuple[str, int], list[float]] = {}
    for draw, division in enumerate(divisions):
        train = division.train
        biases = bias_only(train)
        assert biases.c is not None
        chosen = outcome["cases"][Step("user", draw, IDS).key]["settings"]
        plain = fit(train, replace(PLAN.config, **chosen))
        priced = replace(PLAN.config, reg=0.03)
        half_step = fit(train, priced)
        both = Features().id().category("group").fit(train, "users", facts.table)
        with_facts = fit(train, priced, design=Design(both.side, Side.identity(train.n_items)))
        for one in division.hidden:
            scored = train.item_ids.encode(one.others)
            for given in PLAN.given:
                told = one.offered.iloc[:given]
                c = biases.c[train.item_ids.encode(told.index)]
                own = (told.to_numpy() - train.mean - c).sum() / (given + 5.0)
                made = both.rows(facts.table.loc[[one.raw]])
                for name, predicted in (
                    ("mean", np.full(len(scored), train.mean)),
                    ("biases", train.mean + biases.c[scored] + own),
                    ("half-step", half_step.fold_in_user(told).predict(one.others)),
                    ("ids", plain.fold_in_user(told, prior="rows").predict(one.others)),
                    ("ids and features", with_facts.fold_in_user(told, made, prior="rows").predict(one.others)),
                ):
                    errors.setdefault((name, given), []).extend((predicted - one.values) ** 2)
    for (name, given), squares in errors.items():
        (row,) = rows_of(outcome, side="user", system=name, given=given, way=DRAWN)
        assert row["rmse"] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6) and row["n_pairs"] == len(squares)
        assert row["n_rows"] == sum(len(d.hidden) for d in divisions)
        assert row["interval"][0] < row["rmse"] < row["interval"][1]


def test_features_speak_where_ratings_do_not(outcome: Json) -> None:
    without, one, few = (rows_of(outcome, side="user", system="features alone", given=n)[0]["rmse"] for n in (0, 1, 4))
    assert without == one == few
    (newcomer,) = rows_of(outcome, side="user", system="ids and features", given=0)
    assert newcomer["against"]["system"] == "biases" and newcomer["against"]["interval"][1] < 0
    # Of items nothing is known, and nothing with features is fitted.
    assert {row["system"] for row in rows_of(outcome, side="item")} == {"mean", "biases", "half-step", "ids"}
    (warm,) = rows_of(outcome, side="user", system="ids and features", way=WARM)
    assert warm["given"] is None and warm["against"]["system"] == "ids"
    assert rows_of(outcome, side="user", system="ids", way=WARM)[0]["against"] is None
    lines, heads = list(newcomers.summary(outcome)), ["0", "given", "1", "given", "4", "given", "warm"]
    assert len(lines) == 1 + 6 + 4 and lines[0].split() == [
        "hidden",
        "system",
        *heads,
    ]
    assert f"{newcomer['rmse']:.4f}" in lines[6]


def test_what_is_asked_for_is_picked_out_of_what_may_be_given(data: Data, outcome: Json) -> None:
    division = hide(data.ratings, "user", 0, most=4)
    predictor = Fitted(division, None, {"reg": 0.03}, PLAN.config)
    for one in division.hidden:
        drawn_, most, asked = (
            newcomers._ordered(predictor, division, one, way, 4) for way in (DRAWN, "most rated", "suggested")
        )
        assert drawn_ is one.offered and sorted(most.index) == sorted(one.offered.index)
        counts = division.train.item_counts[division.train.item_ids.encode(most.index)]
        assert (np.diff(counts) <= 0).all() and most.to_dict() == one.offered.to_dict()
        wanted = predictor.result.suggest_items_to_rate(4, items=one.offered.index, sure=True)["item"].tolist()
        assert asked.index.tolist() == wanted and asked.to_dict().items() <= one.offered.to_dict().items()
    picked = rows_of(outcome, side="user", system="ids", given=4)
    against = {row["way"]: (row["against"]["system"], row["against"]["way"]) for row in picked}
    assert against == {
        "drawn": ("biases", "drawn"), "most rated": ("ids", "drawn"), "suggested": ("ids", "most rated"),
    }  # fmt: skip
    assert not rows_of(outcome, way="suggested", given=0) and len(rows_of(outcome, way="suggested")) == 2 * 3


def test_ctrl_c_keeps_what_is_done_and_resume_goes_on(data: Data, tmp_path: Path) -> None:
    some = tuple(system for system in FEW if system.name in ("mean", "biases", "half-step"))
    plan = replace(PLAN, draws=1)
    path, begun = tmp_path / "run.json", []

    def say(text: str) -> None:
        begun.append(text)
        if text.startswith("4 of "):
            raise KeyboardInterrupt

    with quiet_machine():
        straight = newcomers.measure(data, plan, path=tmp_path / "straight.json", systems=some)
        half = newcomers.measure(data, plan, path=path, systems=some, say=say)
    assert not half["complete"] and len(half["cases"]) == 3 == len(begun) - 2
    assert {row["side"] for row in half["rows"]} == {"user"} and json.loads(path.read_text())["rows"] == half["rows"]
    with pytest.raises(ConfigError, match="draws was 1 and is 2"):
        newcomers.measure(data, PLAN, path=path, systems=some, resume=True)
    with quiet_machine():
        whole = newcomers.measure(data, plan, path=path, systems=some, resume=True)
    assert whole["complete"] and whole["rows"] == straight["rows"] and whole["sides"] == straight["sides"]
    assert newcomers.measure(data, plan, path=path, systems=some, resume=True, say=begun.append) == whole
    assert begun[-1] == "run.json is complete"


def test_the_page_says_what_was_found(outcome: Json, tmp_path: Path) -> None:
    made = book.KINDS[newcomers.SCHEMA](outcome)
    assert made.title.endswith(": planted-facts") and len(made.table.rows) == len(outcome["rows"])
    (best,) = rows_of(outcome, side="user", system="ids and features", given=4, way=DRAWN)
    low, high = best["against"]["interval"]
    assert f"{low:+.4f} to {high:+.4f} with 4 ratings; warm ratings" in made.verdict
    assert "; of hidden items, ids change the RMSE of biases by" in made.verdict and made.verdict.endswith(" ratings.")
    assert made.folds[0].table is not None and len(made.folds[0].table.rows) == 6
    path = tmp_path / "run.json"
    path.write_text(result.to_text(outcome), encoding="utf-8")
    page = book.render(book.read([path]))
    assert "RMSE of hidden users against the ratings given" in page and page.count("<svg") == 4
    assert cli.main(["compare", str(path), str(path)]) == 0


def test_documents_show_what_is_committed(outcome: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committed, "FOLDER", tmp_path)
    assert tables.render("newcomers", {}, "en") == "Not measured yet: `python -m bench newcomers` does it."
    place = committed.path("newcomers-planted-facts.json")
    place.parent.mkdir()
    place.write_text(result.to_text(outcome), encoding="utf-8")
    english, chinese = (tables.render("newcomers", {}, lang) for lang in ("en", "zh"))
    shown = {(row["side"], row["system"]) for row in outcome["rows"] if row["system"] in newcomer_tables.SHOWN}
    assert english.count("\n| ") == chinese.count("\n| ") == 1 + len(shown)
    (row,) = rows_of(outcome, side="user", system="ids and features", given=0)
    low, high = (f"{1000 * end:+.0f}".replace("-", "−") for end in row["against"]["interval"])
    assert f"| users; ids and features | {row['rmse']:.3f} ({low} to {high}) |" in english
    (warm,) = rows_of(outcome, side="user", system="ids", given=None)
    assert f"Not hidden, planted: users, ids {warm['rmse']:.3f}" in english
    assert english.endswith("By `python -m bench newcomers`, `--data` planted-facts.")


def test_commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cli.main(["newcomers", "--data", "no-such-data"]) == 2
    assert "'no-such-data', but must be one of 'planted-facts', 'ml-100k'" in " ".join(capsys.readouterr().err.split())
    assert cli.main(["run", "--suite", "newcomers", "--only", "ids"]) == 2
    assert "newcomers has no parts to choose from" in " ".join(capsys.readouterr().err.split())
    asked: list[Any] = []

    def measured(data: Data, plan: Plan, **more: Any) -> Json:
        asked.append((data.name, plan, more["path"].name, more["resume"]))
        return {"complete": True, "rows": [], "identity": {"given": [0]}}

    monkeypatch.setattr(newcomers, "measure", measured)
    out = str(tmp_path / "x.json")
    assert cli.main(["newcomers", "--data", "planted-facts", "--draws", "2", "--out", out]) == 0
    assert cli.main(["run", "--suite", "newcomers", "--data", "planted-facts", "--resume", "--out", out]) == 0
    assert asked == [("planted-facts", Plan(draws=2), "x.json", False), ("planted-facts", Plan(), "x.json", True)]
    for draws, n_factors in ((0, 2), (11, 2), (1, 0)):
        with pytest.raises(ConfigError, match="draws must be 1 to 10, and K 1 or more"):
            Plan(draws=draws, n_factors=n_factors)
    with pytest.raises(ConfigError, match=r"given is \(1, 1\)"):
        Plan(given=(1, 1))


def test_facts_of_real_data(data_dir: Path) -> None:
    found = newcomer_data.load_data("ml-100k")
    assert set(found.facts) == {"user", "item"} and found.facts["user"].about == "gender, occupation, age in 6 bins"
    names = found.facts["user"].features.fit(found.ratings, "users", found.facts["user"].table).names
    assert "gender=F" in names and "occupation=writer" in names and len(names) == 2 + 21 + 6
    anime = newcomer_data.load_data("anime")
    assert set(anime.facts) == {"item"} and anime.facts["item"].about == "genres, type"
    heavier = anime.facts["item"].weighted(3.0).fit(anime.ratings, "items", anime.facts["item"].table)
    assert heavier.side.matrix.max() == pytest.approx(3.0) and "type=TV" in heavier.names


def test_a_fit_that_ctrl_c_cut_short_is_no_case(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit hears of it first, and returns what it has learned; what a callback stops is a fit like any other."""
    stopped = whole_fit.fit(data.ratings, PLAN.config, callback=lambda record: record.epoch == 2)
    assert (stopped.status, len(stopped.history)) == ("stopped", 2)
    seen: list[int] = []

    def interrupted(*given: Any, **more: Any) -> FitResult:
        def each(record: EpochRecord) -> bool:
            seen.append(record.epoch)
            if len(seen) == 3:
                raise KeyboardInterrupt
            return False

        return fit(*given, callback=each, **more)

    monkeypatch.setattr(mf_numpy, "fit", interrupted)
    found = newcomers.measure(data, replace(PLAN, draws=1), path=tmp_path / "run.json", systems=(IDS,))
    assert not found["complete"] and not found["cases"] and len(seen) == 3
