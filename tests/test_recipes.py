"""The recipes on real ratings, held to their bars and to the README's table; skipped without MF_DATA."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mf_numpy
from bench import accuracy, clicks, committed, result, search
from mf_numpy import Ratings, datasets, random_split
from mf_numpy.baselines import mean_and_bias_scores
from mf_numpy.metrics import Scores
from mf_numpy.recipes import RECIPES

README = Path(__file__).parent.parent / "README.md"


def _row(name: str) -> list[float | None]:
    """The figures of one row of the README's table: mean, bias-only, post, biased."""
    line = next(x for x in README.read_text(encoding="utf-8").splitlines() if x.startswith(f"| {name} |"))
    return [float(cell) if re.search(r"\d", cell) else None for cell in line.strip("|").split("|")[1:]]


def _same(stated: float | None, measured: float) -> None:
    # Half a unit of the last digit shown, and as much again for another machine's rounding.
    assert stated == pytest.approx(measured, abs=0.001)


@pytest.fixture(scope="module")
def anime(data_dir: Path) -> Ratings:
    return datasets.load(str(data_dir / "anime"))


def test_the_post_ends_level_with_the_mean(anime: Ratings) -> None:
    recipe = RECIPES["post"]
    split = random_split(anime, valid=recipe.valid, seed=0)
    result = mf_numpy.fit(split.train, recipe.config, valid=split.valid)
    baselines = mean_and_bias_scores(split.train, split.valid)
    rmse = result.score(split.valid).rmse
    assert baselines["mean"].rmse ** 2 == pytest.approx(2.51, abs=0.05)
    assert rmse**2 == pytest.approx(2.55, abs=0.05)
    assert rmse > 0.99 * baselines["mean"].rmse
    row = _row("anime sample, 80/20")
    _same(row[0], baselines["mean"].rmse)
    _same(row[1], baselines["bias-only"].rmse)
    _same(row[2], rmse)


@pytest.mark.parametrize(
    ("reg", "stated"), [(RECIPES["post"].config.reg, "end at RMSE 1.942"), (0.0, "at 1.249 without")]
)
def test_twenty_times_the_step_shows_what_the_penalty_of_the_post_does(anime: Ratings, reg: float, stated: str) -> None:
    recipe = RECIPES["post"]
    split = random_split(anime, valid=recipe.valid, seed=0)
    rmse = mf_numpy.fit(split.train, replace(recipe.config, reg=reg, lr=20.0)).score(split.valid).rmse
    assert stated in README.read_text(encoding="utf-8")
    _same(float(re.findall(r"\d\.\d+", stated)[0]), rmse)


def test_biased_on_the_anime_sample(anime: Ratings) -> None:
    recipe = RECIPES["biased"]
    split = random_split(anime, valid=recipe.valid, seed=0)
    scores = mf_numpy.fit(split.train, recipe.config).score(split.valid)
    assert scores.rmse <= 1.16
    assert scores.rmse_all <= 1.16
    baselines = mean_and_bias_scores(split.train, split.valid)
    row = _row("anime sample, 90/10")
    _same(row[0], baselines["mean"].rmse)
    _same(row[1], baselines["bias-only"].rmse)
    _same(row[3], scores.rmse)


def test_biased_on_the_five_official_folds(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MF_DATA", str(data_dir))
    scores: list[Scores] = []
    baselines: list[dict[str, Scores]] = []
    for fold in range(1, 6):
        split = datasets.ml_100k_fold(fold)
        scores.append(mf_numpy.fit(split.train, RECIPES["biased"].config).score(split.valid))
        baselines.append(mean_and_bias_scores(split.train, split.valid))
    assert np.mean([s.rmse for s in scores]) <= 0.915
    assert np.mean([s.rmse_all for s in scores]) <= 0.915
    row = _row("MovieLens 100K, u1–u5")
    _same(row[0], float(np.mean([b["mean"].rmse for b in baselines])))
    _same(row[1], float(np.mean([b["bias-only"].rmse for b in baselines])))
    _same(row[3], float(np.mean([s.rmse for s in scores])))


def test_best_is_what_was_chosen_on_held_out_ratings_of_tables_of_its_size() -> None:
    """By the committed results, which have every point that was tried."""
    recipe = RECIPES["best"]
    found = result.load(committed.path("search-ml-100k-official-5.json"), search.SCHEMA, search.VERSION)
    tried = [case for case in found["cases"].values() if case["solver"] == "gibbs"]
    short = [case for case in tried if case["settings"]["n_epochs"] <= recipe.config.n_epochs]
    config, best = recipe.of_size(found["problem"]["n_ratings"]), min(short, key=lambda case: float(case["rmse"]))
    assert config.solver == "gibbs" and {name: getattr(config, name) for name in best["settings"]} == best["settings"]
    assert f"MovieLens 100K, of {len(tried)} points" in recipe.about
    found = result.load(committed.path("accuracy-anime-90-10.json"), accuracy.SCHEMA, accuracy.VERSION)
    (row,) = (one for one in found["systems"] if one["system"] == "mf_numpy gibbs")
    points = {(one["settings"]["n_factors"], at): rmse for one in row["tuned"]["tried"] for at, _, rmse in one["curve"]}
    config = recipe.of_size(found["tests"][0]["n_train"])
    assert (config.n_factors, config.n_epochs) == min(points, key=lambda point: points[point])
    assert f"the anime sample, of {len(points)}" in recipe.about
    sizes = {n: recipe.of_size(n) for n in (0, 299_999, 300_000, 2_999_999, 3_000_000)}
    assert sizes[0] == sizes[299_999] == recipe.config != sizes[300_000] == sizes[2_999_999]
    assert sizes[3_000_000] == replace(sizes[300_000], thin=20)


def test_let_us_look_at_the_predictions(anime: Ratings) -> None:
    split = random_split(anime, valid=0.1, seed=0)
    result = mf_numpy.fit(split.train, RECIPES["biased"].config)
    user = int(split.train.user_ids.raw[np.argmax(split.train.user_counts)])
    rated = split.train.items[split.train.users == split.train.user_ids.encode([user])[0]]
    predicted = result.predict([user] * len(rated), split.train.item_ids.decode(rated), clip=True).values
    assert predicted.min() >= 1 and predicted.max() <= 10
    table = result.recommend(user, 10)
    assert len(table) == 10
    assert (table["title"].str.len() > 0).all()
    assert not set(table["item"]) & set(split.train.item_ids.decode(rated))
    assert table["predicted"].is_monotonic_decreasing


def test_the_recipe_for_clicks_is_what_a_committed_run_chose() -> None:
    outcome = result.load(committed.path("clicks-ml-100k.json"), clicks.SCHEMA, clicks.VERSION)
    (row,) = (one for one in outcome["rows"] if one["system"] == "mf_numpy all pairs")
    recipe, tuned = RECIPES["clicks"], row["tuned"]
    chosen = {"n_factors": recipe.config.n_factors, "loss_scale": recipe.config.loss_scale, "ridge": recipe.ridge}
    assert (tuned["settings"], tuned["epochs"]) == (chosen, recipe.config.n_epochs)
    points = sum(len(one["curve"]) for one in tuned["tried"])
    assert f"MovieLens 100K, of {points} points" in recipe.about
    assert recipe.of_size(700).reg == 0.05 and recipe.valid == clicks.SHARE
