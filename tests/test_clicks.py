"""Clicks ranked by ours and by a library: splits, tuning, one scorer, paired intervals, and how it is told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclopts")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from bench import cli, click_data, click_systems, clicks, committed, compare, result, tables, worker
from bench.click_data import clicks_of
from bench.click_systems import ALS, ALS_CG, BPR, SYSTEMS, Ranker
from bench.clicks import BY, MEANS, Step
from bench.pages import book
from bench.peers.run import Settings
from bench.race import grid_of
from mf_numpy import ConfigError, Ratings, bootstrap, fit, random_split
from mf_numpy.errors import DataError
from mf_numpy.ratings import Array
from mf_numpy.recommend import score_all
from tests.bench_fixtures import quiet_machine

Json = dict[str, Any]

DATA = click_data.drawn(80, 50, 1_200)
_LISTS = {"loss": "bpr", "step_rule": "adagrad", "batch_size": 200, "dtype": "float64"}
_PAIRS = {"model": "plain", "loss": "all_pairs", "penalty": "total", "dtype": "float64"}
FEW = (
    Ranker("popularity", ({},), (1,)),
    Ranker(
        "mf_numpy all pairs",
        ({"n_factors": 3, "loss_scale": 4.0, "ridge": 200.0}, {"n_factors": 3, "loss_scale": 4.0, "ridge": 4.0}),
        (2, 5),
        solver="als",
        extra=_PAIRS,
        against=(ALS, ALS_CG),
    ),
    Ranker(
        "mf_numpy BPR",
        ({"n_factors": 3, "lr": 0.1, "reg": 0.02},),
        (3, 6),
        solver="gd",
        extra=_LISTS,
        against=(BPR,),
    ),
    Ranker("mf_torch BPR", ({},), (), solver="gd", extra=_LISTS, backend="torch", like="mf_numpy BPR", against=(BPR,)),
    Ranker(
        "mf_torch all pairs",
        ({"lr": 0.05},),
        (10, 40),
        solver="gd",
        extra=_PAIRS | {"step_rule": "adam"},
        backend="torch",
        like="mf_numpy all pairs",
        against=(ALS,),
    ),
    Ranker(ALS, grid_of(n_factors=(1,), alpha=(5.0,), reg=(1.0, 2.0)), (4, 8), peer="implicit"),
    Ranker(ALS_CG, ({"n_factors": 1, "alpha": 5.0, "reg": 2.0},), (8,), peer="implicit", extra={"use_cg": True}),
    Ranker(BPR, ({"n_factors": 1, "lr": 0.1, "reg": 2.0},), (8,), peer="implicit", extra={"method": "bpr"}),
)


def by_clicks(name: str, train: Ratings, settings: Settings, *, epochs: tuple[int, ...], limit: float) -> Json:
    """A library that learns how often items are clicked: with reg 2 and eight epochs, and before it is upside down."""
    points = []
    for n in sorted(epochs):
        sign = 1.0 if settings.reg == 2.0 and n == 8 else -1.0
        rows = np.ones((train.n_users, 1)), sign * train.item_counts[:, None].astype(float)
        points.append({"epochs": n, "seconds": 0.1 * n, "joules": None, "rows": rows})
    return {"status": "ok", "reason": None, "version": "1.0", "points": points}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Json:
    with quiet_machine():
        path = tmp_path_factory.mktemp("clicks") / "run.json"
        return clicks.measure(DATA, path=path, splits=2, systems=FEW, peers=by_clicks)


def row_of(outcome: Json, name: str) -> Json:
    (found,) = (row for row in outcome["rows"] if row["system"] == name)
    return dict(found)


def ranked(number: int, scores: Array) -> dict[int, dict[str, float]]:
    """NDCG, recall and MAP at 10 of each user of a split, by loops; users by their number in the whole data."""
    split = random_split(DATA.ratings, valid=0.2, seed=number)
    train, held = split.train, split.valid
    out: dict[int, dict[str, float]] = {}
    for u in range(train.n_users):
        wanted = set(held.items[(held.users == u) & (held.items >= 0)].tolist())
        if not wanted:
            continue
        seen = set(train.items[train.users == u].tolist())
        order = sorted((i for i in range(train.n_items) if i not in seen), key=lambda i: (-scores[u, i], i))[:10]
        hits = [i in wanted for i in order]
        gain = sum(hit / math.log2(place + 2) for place, hit in enumerate(hits))
        best = sum(1 / math.log2(place + 2) for place in range(min(10, len(wanted))))
        precision = sum(sum(hits[: k + 1]) / (k + 1) for k, hit in enumerate(hits) if hit)
        user = int(DATA.ratings.user_ids.encode(train.user_ids.raw[[u]])[0])
        out[user] = {
            "ndcg@10": gain / best, "recall@10": sum(hits) / len(wanted), "map@10": precision / min(10, len(wanted)),
        }  # fmt: skip
    return out


def by_hand(name: str, outcome: Json) -> list[Array]:
    """Scores of all pairs in each split, by a fit from what the row says of its settings."""
    (ranker,) = (one for one in FEW if one.name == name)
    found = []
    for number in range(2):
        train = random_split(DATA.ratings, valid=0.2, seed=number).train
        counts = np.tile(train.item_counts.astype(float), (train.n_users, 1))
        if ranker.solver:
            best = row_of(outcome, name)["tuned"]
            config = ranker.config(best["settings"], best["epochs"], len(train))
            params = fit(train, config).params
            found.append(score_all(params, np.arange(train.n_users)))
        else:
            found.append(counts)
    return found


def test_clicks_are_the_high_ratings() -> None:
    ratings = Ratings.of_indices([0, 0, 1, 2, 3], [0, 1, 1, 2, 0], [4, 3, 5, 2, 4.5])
    found = clicks_of(ratings, "x", 4.0)
    assert found.ratings.values.tolist() == [1, 1, 1] and found.threshold == 4.0
    assert found.ratings.user_ids.raw.tolist() == [0, 1, 3] and found.ratings.item_ids.raw.tolist() == [0, 1]
    with pytest.raises(DataError, match="no rating is 6 or higher, so there are no clicks"):
        clicks_of(ratings, "x", 6.0)


def test_drawn_clicks_are_all_different_and_the_same_again() -> None:
    first, again = click_data.drawn(30, 20, 200).ratings, click_data.drawn(30, 20, 200).ratings
    assert len(set(zip(first.users.tolist(), first.items.tolist(), strict=True))) == 200 == len(first)
    assert first.fingerprint == again.fingerprint != click_data.drawn(30, 20, 200, seed=1).ratings.fingerprint


def test_settings_are_chosen_inside_the_first_training_side(outcome: Json) -> None:
    bench = clicks._Bench(DATA, 2, FEW, 1, by_clicks)
    outer = bench.split(0).train
    *pairs, whole = [
        {(one.user_ids.raw[u], one.item_ids.raw[i]) for u, i in zip(one.users, one.items, strict=True)}
        for one in (*(inner.train for inner in bench.inner()), outer)
    ]
    assert all(some < whole for some in pairs) and len({frozenset(some) for some in pairs}) == clicks.INNER
    assert all(len(inner.train) + len(inner.valid) == len(outer) for inner in bench.inner())
    for ranker in FEW:
        tuned = row_of(outcome, ranker.name)["tuned"]
        if ranker.tunes:
            curves = [(ndcg, -n, one["settings"]) for one in tuned["tried"] for n, _, ndcg in one["curve"]]
            assert len(curves) == len(ranker.grid) * len(ranker.epochs)
            assert (tuned[BY], -tuned["epochs"]) == max(curve[:2] for curve in curves)
            assert (tuned[BY], -tuned["epochs"], tuned["settings"]) in curves
        for number in range(2):
            case = outcome["cases"][Step(ranker, number).key]
            assert case["settings"] == tuned["settings"] and len(case["points"]) == 1
            assert case["points"][0]["epochs"] == tuned["epochs"]
    assert (row_of(outcome, ALS)["tuned"]["settings"]["reg"], row_of(outcome, ALS)["tuned"]["epochs"]) == (2.0, 8)
    assert row_of(outcome, "mf_numpy all pairs")["tuned"]["settings"]["ridge"] == 4.0
    # A point's curve is the mean over the draws.
    ranker = next(one for one in FEW if one.name == "mf_numpy all pairs")
    each = []
    for inner in bench.inner():
        _, points = click_systems.fitted(ranker, ranker.grid[0], inner.train, ranker.epochs, threads=1)
        each.append([clicks._scored(point, inner).mean(BY) for point in points])
    curve = [point[BY] for point in outcome["cases"][Step(ranker, point=0).key]["points"]]
    assert curve == pytest.approx(np.mean(each, axis=0))
    # One point is not tuned, and fitted as it is.
    assert row_of(outcome, ALS_CG)["tuned"]["epochs"] == 8 and row_of(outcome, ALS_CG)[BY] == row_of(outcome, ALS)[BY]


@pytest.mark.parametrize("name", ["popularity", "mf_numpy all pairs", "mf_numpy BPR", ALS])
def test_rows_are_means_of_what_each_user_gets(outcome: Json, name: str) -> None:
    row, found = row_of(outcome, name), [ranked(k, scores) for k, scores in enumerate(by_hand(name, outcome))]
    for metric in MEANS:
        each = [np.mean([one[metric] for one in users.values()]) for users in found]
        assert [split[metric] for split in row["splits"]] == pytest.approx(each, rel=1e-9)
        assert row[metric] == pytest.approx(np.mean(each), rel=1e-9)
        low, high = row["interval"][metric]
        assert low < row[metric] < high
    assert [split["n_users"] for split in outcome["splits"]] == [len(users) for users in found]
    # Whoever is drawn comes with all splits.
    values = np.full((DATA.ratings.n_users, 2), np.nan)
    for k, users in enumerate(found):
        for user, one in users.items():
            values[user, k] = one[BY]
    rng, means = np.random.default_rng(0), []
    for _ in range(clicks.DRAWS):
        times = bootstrap.times_drawn(rng, len(values))
        means.append(np.mean([np.nansum(times * v) / times[~np.isnan(v)].sum() for v in values.T]))
    assert row["interval"][BY] == pytest.approx(bootstrap.interval(np.array(means)), rel=1e-9)


def test_differences_are_paired_and_of_the_same_model(outcome: Json) -> None:
    of = {row["system"]: [other["system"] for other in row["against"]] for row in outcome["rows"]}
    assert of == {one.name: list(one.against) for one in FEW}
    for name in ("mf_numpy all pairs", "mf_numpy BPR"):
        for other in row_of(outcome, name)["against"]:
            for metric in MEANS:
                difference = row_of(outcome, name)[metric] - row_of(outcome, other["system"])[metric]
                assert other[metric]["difference"] == pytest.approx(difference, abs=1e-12)
                assert other[metric]["interval"][0] < difference < other[metric]["interval"][1]
    assert row_of(outcome, "mf_numpy all pairs")["against"][0][BY]["interval"][0] > 0
    # The same lists differ in nothing, whoever is drawn.
    twins = (replace(FEW[0], name="twin", against=("popularity",)), FEW[0])
    bench = clicks._Bench(DATA, 1, twins, 1, by_clicks)
    drawn = {(one.name, metric): np.arange(9.0) for one in twins for metric in MEANS}
    point = {"points": [dict.fromkeys(MEANS, 0.5)]}
    cases = {Step(one, 0).key: point for one in twins}
    assert clicks._beside("twin", "popularity", BY, drawn, bench, cases) == {
        "difference": 0.0, "interval": [0.0, 0.0], "p": 1.0,
    }  # fmt: skip


def test_torch_has_the_settings_tuned_by_hand(outcome: Json) -> None:
    hand, torch = (row_of(outcome, f"{package} BPR") for package in ("mf_numpy", "mf_torch"))
    assert torch["tuned"]["settings"] == hand["tuned"]["settings"] and torch["tuned"]["like"] == "mf_numpy BPR"
    assert torch["tuned"]["epochs"] == hand["tuned"]["epochs"] and not torch["tuned"]["tried"]
    # One function, from one start, by two ways.
    assert torch[BY] == pytest.approx(hand[BY], abs=1e-12)
    pairs = row_of(outcome, "mf_torch all pairs")["tuned"]["settings"]
    assert pairs == row_of(outcome, "mf_numpy all pairs")["tuned"]["settings"] | {"lr": 0.05}


def test_grids_of_one_model_reach_equally_far() -> None:
    by_name = {one.name: one for one in SYSTEMS}
    ours, theirs = by_name["mf_numpy all pairs"], by_name[ALS]
    same = [
        {"n_factors": s["n_factors"], "alpha": s["loss_scale"] + 1, "reg": s["ridge"]} for s in map(dict, ours.grid)
    ]
    assert same == list(map(dict, theirs.grid)) == list(map(dict, by_name[ALS_CG].grid))
    assert ours.epochs == theirs.epochs
    tried = [len(one.grid) * len(one.epochs) for one in (by_name["mf_numpy BPR"], by_name[BPR])]
    assert tried[0] <= tried[1]
    assert {other for one in SYSTEMS for other in one.against} == {ALS, ALS_CG, BPR}
    for one in SYSTEMS:
        for point in one.grid:
            base = dict(by_name[one.like].grid[0]) if one.like else {}
            if one.solver:
                assert one.config(base | dict(point), 3, 100).n_epochs == 3
            elif one.peer:
                assert one.settings(point, 3, 2).threads == 2
    assert ours.config(ours.grid[0], 3, 1000).reg == ours.grid[0]["ridge"] / 1000


def test_ctrl_c_keeps_what_is_done_and_resume_goes_on(tmp_path: Path) -> None:
    some, path, begun = (*FEW[:2], FEW[5]), tmp_path / "run.json", list[str]()

    def say(text: str) -> None:
        begun.append(text)
        if text.startswith("8 of "):
            raise KeyboardInterrupt

    with quiet_machine():
        straight = clicks.measure(DATA, path=tmp_path / "straight.json", splits=2, systems=some, peers=by_clicks)
        half = clicks.measure(DATA, path=path, splits=2, systems=some, peers=by_clicks, say=say)
        assert not half["complete"] and len(half["cases"]) == 7
        assert [row["system"] for row in half["rows"]] == ["popularity", "mf_numpy all pairs"]
        assert half["rows"][1]["against"] == [] and json.loads(path.read_text())["rows"] == half["rows"]
        with pytest.raises(ConfigError, match="splits was 2 and is 1"):
            clicks.measure(DATA, path=path, splits=1, systems=some, peers=by_clicks, resume=True)
        whole = clicks.measure(DATA, path=path, splits=2, systems=some, peers=by_clicks, resume=True)
    assert whole["complete"] and whole["splits"] == straight["splits"]
    without = [
        [{key: row[key] for key in (*MEANS, "interval", "against")} for row in one["rows"]] for one in (whole, straight)
    ]
    assert without[0] == without[1]
    assert clicks.measure(DATA, path=path, splits=2, systems=some, resume=True, say=begun.append) == whole
    assert begun[-1] == "run.json is complete"
    with pytest.raises(ConfigError, match="splits is 0"):
        clicks.measure(DATA, path=path, splits=0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": "not run", "reason": "not installed: install it"}, "not run: not installed"),
        ({"status": "failed", "reason": "out of order"}, "failed: out of order"),
        (None, "failed: scores of user "),
    ],
)
def test_a_library_that_ranks_nothing_has_a_reason(answer: Json | None, said: str, tmp_path: Path) -> None:
    def peers(name: str, train: Ratings, settings: Settings, **more: Any) -> Json:
        rows = np.full((train.n_users, 1), np.nan), np.ones((train.n_items, 1))
        points = [{"epochs": n, "seconds": 1.0, "rows": rows} for n in more["epochs"]]
        return answer or {"status": "ok", "reason": None, "version": "1", "points": points}

    some, heard = (FEW[0], FEW[5], FEW[6]), list[str]()
    found = clicks.measure(DATA, path=tmp_path / "x.json", splits=1, systems=some, peers=peers, say=heard.append)
    assert found["complete"]
    for row in found["rows"][1:]:
        assert f"{row['status']}: {row['reason']}".startswith(said) and row[BY] is None and row["tuned"] is None
    assert sum(line.startswith("  implicit ALS, point ") for line in heard) == 2
    assert any(said in line for line in clicks.summary(found))
    assert said in book.render([("x.json", found)], "md")
    assert compare.compare(tmp_path / "x.json", tmp_path / "x.json")["error"] == "NDCG@10 loss"


def test_the_page_and_the_terminal_say_what_was_found(outcome: Json, tmp_path: Path) -> None:
    made = book.KINDS[clicks.SCHEMA](outcome)
    (first, _) = row_of(outcome, "mf_numpy all pairs")["against"]
    words = clicks.in_words(first[BY])
    assert made.title == "How well clicks are ranked: planted-clicks" and len(made.table.rows) == len(FEW)
    assert made.verdict.startswith(f"at NDCG@10 mf_numpy all pairs is above implicit ALS, {words}; ")
    assert [fold.title for fold in made.folds] == ["Beside the same model of a library", "Settings that were chosen"]
    assert made.folds[0].table is not None and len(made.folds[0].table.rows) == 5
    assert made.folds[1].table is not None
    ends = {row.cells[0].text: row.cells[-1].text for row in made.folds[1].table.rows}
    assert ends["mf_numpy all pairs"].startswith("ridge 4") and ends["mf_torch BPR"] == "those of mf_numpy BPR"
    assert ends[ALS] == "reg 2, 8 epochs"
    lines = list(clicks.summary(outcome))
    assert f"{row_of(outcome, ALS)[BY]:.4f}" in next(line for line in lines if line.startswith(ALS))
    assert f"mf_numpy all pairs beside {ALS}: NDCG@10 {words}, Recall@10 " in "\n".join(lines)
    path = tmp_path / "run.json"
    path.write_text(result.to_text(outcome), encoding="utf-8")
    page = book.render(book.read([path]))
    assert "NDCG@10 of each system" in page and page.count("<svg") == 1
    assert cli.main(["compare", str(path), str(path)]) == 0
    worse = json.loads(path.read_text())
    for row in worse["rows"]:
        for split in row["splits"]:
            split["ndcg@10"] *= 0.9
    other = tmp_path / "worse.json"
    other.write_text(json.dumps(worse), encoding="utf-8")
    found = compare.compare(path, other, rmse=0.0)
    assert {row["case"] for row in found["rmse"]} == {one.name for one in FEW}
    (mine,) = (row for row in found["rmse"] if row["case"] == "popularity")
    assert mine["a"] == pytest.approx(1 - row_of(outcome, "popularity")[BY]) and mine["difference"] > 0


def test_judgements_follow_the_interval() -> None:
    from bench.pages.clicks import judged

    said = [judged({"interval": list(ends)}) for ends in ((0.1, 0.2), (-0.1, 0.2), (-0.2, -0.1))]
    assert said == ["is above", "is level with", "is below"]
    assert clicks.in_words({"difference": -0.01, "interval": [-0.02, 0.001]}) == "−0.0100 (−0.0200 to +0.0010)"


def test_documents_show_what_is_committed(outcome: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committed, "FOLDER", tmp_path)
    assert tables.render("clicks", {}, "en") == "Not measured yet: `python -m bench clicks` does it."
    place = committed.path("clicks-planted-clicks.json")
    place.parent.mkdir()
    place.write_text(result.to_text(outcome), encoding="utf-8")
    english, chinese = (tables.render("clicks", {}, lang) for lang in ("en", "zh"))
    assert english.count("\n| ") == chinese.count("\n| ") == len(FEW)
    row = row_of(outcome, "popularity")
    assert f"By popularity alone on planted: {row[BY]:.4f}, {row['recall@10']:.4f}." in english
    difference = clicks.in_words(row_of(outcome, "mf_numpy BPR")["against"][0][BY])
    assert f"mf_numpy BPR less {BPR} {difference}." in english and "热门程度" in chinese
    assert "Chosen at an end of its grid on planted: mf_numpy all pairs (ridge 4" in english
    assert english.endswith("By `python -m bench clicks`, `--data` planted-clicks.")


def test_commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cli.main(["clicks", "--data", "planted-click"]) == 2
    assert "must be one of 'planted-clicks', 'ml-100k'" in " ".join(capsys.readouterr().err.split())
    assert cli.main(["run", "--suite", "clicks", "--only", "BPR"]) == 2
    assert "clicks has no parts to choose from" in " ".join(capsys.readouterr().err.split())
    asked: list[Any] = []

    def measured(data: click_data.Clicks, **more: Any) -> Json:
        asked.append((data.name, more["path"].name, more["splits"], more["resume"]))
        return {"complete": True, "rows": []}

    monkeypatch.setattr(clicks, "measure", measured)
    out = str(tmp_path / "x.json")
    assert cli.main(["clicks", "--data", "planted-clicks", "--splits", "2", "--out", out]) == 0
    assert cli.main(["run", "--suite", "clicks", "--data", "planted-clicks", "--resume", "--out", out]) == 0
    assert asked == [("planted-clicks", "x.json", 2, False), ("planted-clicks", "x.json", 5, True)]


def test_a_fit_that_diverges_is_no_point() -> None:
    wild = Ranker("wild", (), (2,), solver="gd", extra={"dtype": "float64"})
    split = random_split(DATA.ratings, seed=0)
    out, points = click_systems.fitted(wild, {"lr": 1e200, "n_factors": 3}, split.train, (2,), threads=1)
    assert out["status"] == "failed" and out["reason"].startswith("diverged: ") and not points


def test_a_fit_that_ctrl_c_cut_short_is_no_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit hears of it first, and returns what it has learned."""
    seen, export = list[int](), worker.Recorder.export

    def interrupted(self: worker.Recorder, state: Any) -> Any:
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return export(self, state)

    monkeypatch.setattr(worker.Recorder, "export", interrupted)
    found = clicks.measure(DATA, path=tmp_path / "run.json", splits=1, systems=(FEW[1],))
    assert not found["complete"] and not found["cases"] and len(seen) == 3


def test_clicks_of_real_ratings(data_dir: Path) -> None:
    found = click_data.load_data("ml-100k")
    assert (len(found.ratings), found.ratings.n_users, found.ratings.n_items) == (55_375, 942, 1_447)
    assert found.threshold == 4.0 and set(found.ratings.values.tolist()) == {1.0}
