"""The commands that make lists and score rankings: what they print, and how they end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mf_numpy import Holdout, store
from tests.cli_fixtures import QUICK, Run, write_table


def _cells(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()[2:]]


def test_recommend_only_some_items(mf: Run, model: str) -> None:
    code, out, err = mf("recommend", model, "3", "--with-seen", "--items", "5", "9", "12", "--without", "9")
    wanted = store.load(model).recommend(3, with_seen=True, items=[5, 12])
    assert code == 0 and "2 items left" in err
    assert [row[1] for row in _cells(out)] == [str(item) for item in wanted["item"]]
    assert sorted(wanted["item"]) == [5, 12]
    code, _, err = mf("recommend", model, "3", "--items", "5", "777")
    assert code == 2 and "1 of 2 items not in the training set, such as 777" in err
    code, _, err = mf("recommend", model, "3", "--without", "five")
    assert code == 2 and "item is 'five', but the items of this model are whole numbers" in err


def test_recommend_diverse_items(mf: Run, model: str) -> None:
    wanted = store.load(model).recommend(3, 6, diversity=0.8)
    code, out, err = mf("recommend", model, "3", "-n", "6", "--diversity", "0.8")
    assert (code, err) == (0, "")
    assert [row[1] for row in _cells(out)] == [str(item) for item in wanted["item"]]
    assert "below 1" in mf("recommend", model, "3", "--diversity", "1")[2]


def test_similar_items_and_users(mf: Run, model: str) -> None:
    result = store.load(model)
    for command, wanted in (("items", result.similar_items(4, 3)), ("users", result.similar_users(4, 3))):
        code, out, err = mf(f"similar-{command}", model, "4", "-n", "3")
        assert (code, err) == (0, "")
        assert _cells(out) == [
            [str(k), str(int(name)), f"{value:.4f}"] for k, name, value in wanted.itertuples(name=None)
        ]
    assert mf("similar-users", model, "4", "--measure", "dot")[1] != mf("similar-users", model, "4")[1]
    for tokens, said in (
        (("similar-items", model, "777"), "item 777 was not in the training set"),
        (("similar-users", model, "ann"), "the users of this model are whole numbers"),
        (("similar-users", model, "4", "--measure", "dott"), "Did you mean 'dot'"),
        (("similar-items", model, "4", "-n", "0"), "-n"),
        (("similar-items", "none", "4"), "does not exist"),
    ):
        code, out, err = mf(*tokens)
        assert (code, out) == (2, "") and said in err


def test_rank(mf: Run, data: str, model: str) -> None:
    code, out, err = mf("rank", model, data, "-k", "3", "5", "--gain", "rating", "--threshold", "4")
    assert (code, err) == (0, "")
    ratings = pd.read_csv(data)
    result = store.load(model)
    ids = result.catalogue
    users, items = ids.user_ids.encode(ratings["user"]), ids.item_ids.encode(ratings["item"])
    pairs = Holdout(users, items, ratings["rating"].to_numpy())
    wanted = result.score_ranking(pairs, k=(3, 5), gain="rating", threshold=4.0)
    lines = out.splitlines()
    shown = {row[0]: row[1:] for row in map(str.split, lines[3:-1])}
    for name, row in wanted.table().iterrows():
        assert shown[str(name)] == ["-" if np.isnan(x) else f"{x:.4f}" for x in row]
    assert len(shown) == len(wanted.values) + 2
    assert f"rated 4 or more, of {len(wanted.users)} users, ranked among 25 items" in lines[-1]
    assert f"left out: {wanted.n_trained} pairs of the training set" in lines[-1]
    # Every user and item is known, and held-out pairs alone are ranked.
    assert wanted.n_cold == 0 and wanted.n_relevant + wanted.n_trained == (ratings["rating"] >= 4).sum()


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("--threshold", "6"), "no rating of 6 or more is left to rank by: 0 were in the training set, and 0 have"),
        (("-k", "0"), "k is [0]"),
        (("-k", "few"), "-k"),
        (("--gain", "expo"), "Did you mean 'exponential'"),
        (("--gain", "rating", "--threshold=-1"), "or use --gain binary"),
    ],
)
def test_mistakes_of_rank_are_one_clear_line(mf: Run, model: str, tokens: tuple[str, ...], said: str) -> None:
    pairs = {"user": np.repeat(np.arange(1, 41), 25), "item": np.tile(np.arange(1, 26), 40), "rating": 0}
    pd.DataFrame(pairs).to_csv("all.csv", index=False)
    code, out, err = mf("rank", model, "all.csv", *tokens)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert said in err


def test_lists_with_text_ids(mf: Run, tmp_path: Path) -> None:
    data = str(write_table(tmp_path / "text.csv", text=True))
    assert mf("fit", data, *QUICK)[0] == 0
    code, out, _ = mf("similar-users", "model.safetensors", "ann3", "-n", "2")
    assert code == 0 and all(row[1].startswith("ann") for row in _cells(out))
    assert mf("rank", "model.safetensors", data)[0] == 0
