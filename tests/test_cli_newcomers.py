"""Features and newcomers from the command line: what a model remembers, and what it says of somebody new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sklearn")

from mf_numpy import Design, Features, FitResult, feature_words, fit, store
from mf_numpy.design import Side
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.readers import read_ratings
from tests.cli_fixtures import Run, quick

WORDS = "id,tags:genres:|*0.5,bins:year:3"
LONG = [*quick(lr="0.5"), "--valid", "0"]


@pytest.fixture
def films(tmp_path: Path) -> str:
    """Facts of the 25 items of the table, one of them without any."""
    genres = ["drama", "drama|war", "comedy", "comedy|drama", ""]
    years = [str(1990 + k) if k % 6 else "" for k in range(24)]
    lines = [f"{k + 1},{genres[k % 5]},{years[k]}" for k in range(24)]
    path = tmp_path / "films.csv"
    path.write_text("\n".join(["film,genres,year", *lines]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def featured(mf: Run, data: str, films: str) -> str:
    code, out, err = mf("fit", data, *LONG, "--item-features", WORDS, "--item-facts", films)
    assert (code, err) == (0, "") and "users are made of 40 features, items of 31 features" in out
    return "model.safetensors"


def reference(data: str, films: str) -> FitResult:
    """The same fit from Python."""
    ratings = read_ratings(data).compact()
    facts = pd.read_csv(films, index_col="film")
    made = Features().id().tags("genres", separator="|", weight=0.5).bins("year", 3).fit(ratings, "items", facts)
    design = Design(Side.identity(ratings.n_users), made.side)
    return fit(ratings, store.load("model.safetensors").config, design=design, backend="numpy")


def told(path: Path, **columns: list[object]) -> str:
    pd.DataFrame(columns).to_csv(path, index=False)
    return str(path)


def test_a_fit_with_features_is_that_of_python_and_remembers_them(featured: str, data: str, films: str) -> None:
    found, wanted = store.load(featured), reference(data, films)
    assert found.design is not None and wanted.design is not None
    assert abs(found.design.items.matrix - wanted.design.items.matrix).nnz == 0
    assert found.design.items.names == wanted.design.items.names and "genres=war" in found.design.items.names
    np.testing.assert_array_equal(found.params.P, wanted.params.P)
    again = feature_words.described(found, "items")
    assert again is not None and abs(again.side.matrix - found.design.items.matrix).nnz == 0
    assert again.names == found.design.items.names and feature_words.described(found, "users") is None
    assert found.details["features"]["items"]["words"] == WORDS
    assert set(found.details["features"]["items"]["facts"]) == {"genres", "year"}
    with pytest.raises(DataError, match="given as a design, which says nothing of new rows"):
        feature_words.described(wanted, "items")


def test_fold_in_of_an_item_with_facts(mf: Run, featured: str, tmp_path: Path) -> None:
    result = store.load(featured)
    file = told(tmp_path / "new.csv", user=[3, 5], rating=[5, 1])
    described = feature_words.described(result, "items")
    assert described is not None
    row = described.rows(pd.DataFrame({"genres": ["war|drama"], "year": [1993.0]}, index=[999]))
    wanted = result.fold_in_item({3: 5.0, 5: 1.0}, row, prior="rows").recommend(4)
    asked = ["fold-in", featured, file, "--of", "item", "--facts", "genres=war|drama", "year=1993", "-n", "4"]
    code, out, err = mf(*asked)
    assert (code, err) == (0, "") and out.startswith("found from 2 ratings and 2 facts\n")
    assert [line.split()[1:] for line in out.splitlines()[3:]] == [
        [str(user), f"{value:.4f}"] for user, value in wanted.itertuples(index=False)
    ]
    half = result.fold_in_item({3: 5.0, 5: 1.0}, row).recommend(1)["predicted"].iloc[0]
    assert f"{half:.4f}" in mf(*asked, "--prior", "penalty")[1] and f"{half:.4f}" not in out
    nothing = mf("fold-in", featured, "--of", "item", "--facts", "genres=war|drama", "year=1993", "-n", "1")[1]
    alone = result.fold_in_item({}, row).recommend(1)["predicted"].iloc[0]
    assert f"{alone:.4f}" in nothing
    for facts, said in (
        (["genre=war"], "the fact 'genre' is none of the model's, which are genres, year"),
        (["year=late"], "the fact 'late' is no number"),
        (["war"], "the fact 'war' cannot be read; write it as NAME=VALUE"),
    ):
        code, _, err = mf("fold-in", featured, file, "--of", "item", "--facts", *facts)
        assert code == 2 and said in err
    code, _, err = mf("fold-in", featured, "--facts", "age=3")
    assert code == 2 and "the model's users are made of ids alone" in err


def test_fold_in_of_a_user_by_ratings_alone(mf: Run, model: str, tmp_path: Path) -> None:
    result = store.load(model)
    file = told(tmp_path / "mine.tsv.csv", film=[4, 9, 777], stars=[5, 1, 3])
    columns = ["--id-column", "film", "--rating", "stars"]
    code, out, err = mf("fold-in", model, file, *columns, "-n", "3")
    newcomer = result.fold_in_user({4: 5.0, 9: 1.0}, prior="rows")
    assert code == 0 and err == "note: 1 item of 3 not in the training set, and left out\n"
    assert [line.split()[1] for line in out.splitlines()[3:]] == [str(i) for i in newcomer.recommend(3)["item"]]
    code, out, _ = mf("fold-in", model, file, *columns, "--why", "7")
    assert [line.split()[1:] for line in out.splitlines()[2:]] == [
        [str(int(i)), f"{part:.4f}"] for i, part in newcomer.why(7).itertuples(index=False)
    ]
    for tokens, said in (
        ([file], "has no column 'item'; it has 'film', 'stars'; name the right one with --id-column"),
        ([file, "--of", "users"], "of is 'users', but must be one of 'user', 'item'"),
        ([file, *columns, "--facts", "a=b"], "the model was trained without features; drop them"),
        ([file, *columns, "--prior", "row"], "Did you mean 'rows'"),
        ([told(tmp_path / "bad.csv", item=[4], rating=["x"])], "bad.csv has the rating 'x', which is no number"),
    ):
        code, _, err = mf("fold-in", model, *tokens)
        assert code == 2 and said in err


def test_suggest_items(mf: Run, model: str) -> None:
    result = store.load(model)
    code, out, err = mf("suggest-items", model, "-n", "3", "--rated", "4", "9", "--sure", "--without", "2")
    wanted = result.suggest_items_to_rate(3, rated=[4, 9], without=[2], sure=True)
    assert (code, err) == (0, "")
    assert [line.split()[1:] for line in out.splitlines()[2:]] == [
        [str(int(i)), f"{left:.4f}"] for i, left in wanted.itertuples(index=False)
    ]
    code, _, err = mf("suggest-items", model, "--rated", "777")
    assert code == 2 and "item 777 was not in the training set" in err


def test_a_resumed_model_keeps_its_features(mf: Run, data: str, films: str, featured: str) -> None:
    straight = [*LONG[:1], "40", *LONG[2:]]
    assert mf("fit", data, *straight, "--item-features", WORDS, "--item-facts", films, "-o", "long.safetensors")[0] == 0
    code, _, err = mf("fit", data, "--resume", featured, "--n-epochs", "40", "--valid", "0", "--backend", "numpy")
    assert code == 0, err
    rest, long = store.load(featured), store.load("long.safetensors")
    assert rest.params.P.tobytes() == long.params.P.tobytes() and rest.details["features"] == long.details["features"]
    code, _, err = mf("fit", data, "--resume", featured, "--n-epochs", "50", "--item-features", WORDS)
    assert code == 2 and "item_features and resume are both given" in err


def test_what_features_cannot_be(mf: Run, data: str, films: str) -> None:
    for tokens, said in (
        (["--item-facts", films], "item_facts is given, but no features"),
        (["--item-features", "id,tags:genre", "--item-facts", films], "Did you mean 'genres'?"),
        (["--user-features", "id,category:town"], "column 'town', but the table of facts has none"),
        (["--item-features", "id", "--solver", "als"], "solver is 'als' with a design"),
    ):
        code, _, err = mf("fit", data, *tokens)
        assert code == 2 and said in err, err


@pytest.mark.parametrize(
    ("words", "blocks"),
    [
        ("id", Features().id()),
        (" rated*2 , id ", Features().rated(weight=2.0).id()),
        ("category:type,number:year*0.5", Features().category("type").number("year", weight=0.5)),
        ("tags:genres:|*3,bins:age:6", Features().tags("genres", separator="|", weight=3.0).bins("age", 6)),
    ],
)
def test_features_in_words(words: str, blocks: Features) -> None:
    assert feature_words.features_of(words) == blocks


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "names none; begin with id"),
        ("tag:genres", "a feature is 'tag', but must be one of .* Did you mean 'tags'"),
        ("bins:age", "'bins:age' cannot be read; write it as bins:COLUMN:NUMBER"),
        ("bins:age:many", "write it as bins:COLUMN:NUMBER"),
        ("category", "write it as category:COLUMN"),
        ("id:x", "write it as id,"),
        ("id*heavy", r"write it as id, with \*WEIGHT behind it"),
        ("id*0", "weight is 0.0"),
        ("id,id", "came twice"),
    ],
)
def test_words_that_are_none(words: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        feature_words.features_of(words)
