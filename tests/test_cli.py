"""The command line in process: what its commands print, where, and how they end."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from rich.text import Text

from mf_numpy import Config, IdMap, Ratings, store
from mf_numpy.progress import Progress
from mf_numpy.result import EpochRecord
from tests.cli_fixtures import QUICK, Run, write_table


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("ftt",), "Did you mean"),
        (("fit", "planted", "--n-factrs", "3"), "--n-factors"),
        (("fit", "planted", "--momentum-form", "emo"), "Did you mean"),
        (("fit", "planted", "--lr", "fast"), "--lr"),
        (("fit", "planted", "--recipe", "biasd"), "Did you mean 'biased'"),
        (("fit", "plantd"), "planted"),
        (("fit", "planted", "--lr-schedule", "3=1"), "epoch:factor"),
        (("fit", "planted", "--momentum", "1"), "momentum is 1.0"),
        (("fit",), "DATA"),
        (("predict", "model"), "USER and an ITEM"),
        (("recommend", "model", "3", "-n", "0"), "-n"),
        (("recommend", "nowhere.safetensors", "3"), "does not exist"),
        (("evaluate", "ratings.csv", "planted"), "is not a model file"),
    ],
)
def test_mistakes_are_one_clear_line(mf: Run, data: str, tokens: tuple[str, ...], said: str) -> None:
    code, out, err = mf(*tokens)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_an_option_of_the_other_package_is_said_to_be_there(mf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for tokens in (("fit", "planted", "--device", "cuda"), ("check", "--device=cuda")):
        code, _, err = mf(*tokens)
        assert code == 2
        assert f"`python -m mf_torch {tokens[0]}` has it" in err
        assert "Did you mean" not in err
    pytest.importorskip("torch")
    from mf_numpy.cli import run
    from mf_torch.__main__ import app

    assert run(app, ["fit", "planted", "--backend", "numba"]) == 2
    assert "`python -m mf_numpy fit` has it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("user,item,rating\n1,1,5\n1,1,3\n2,1,4\n", (), "pass --duplicates with one of 'last'"),
        ("user,item,grade\n1,1,5\n", (), "name it with --rating NAME"),
        ("user,movie,item,rating\n1,1,1,5\n", (), "say which with --item NAME"),
        ("user,item,rating\n1,1,5\n2,1,9\n", ("--scale", "1", "5"), "pass --scale LO HI"),
        ("user,item,rating\n1,1,5\n", ("--format", "npz"), "pass --format auto"),
    ],
)
def test_errors_name_options_not_arguments(mf: Run, text: str, options: tuple[str, ...], said: str) -> None:
    Path("t.csv").write_text(text)
    code, _, err = mf("describe", "t.csv", *options)
    assert code == 2
    assert said in err
    assert "=" not in err


def test_errors_of_a_fit_name_options(mf: Run, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "pass --valid, or" in mf("fit", data, *QUICK, "--valid", "0", "--patience", "3")[2]
    assert "use --init normal" in mf("fit", data, *QUICK, "--init", "mean")[2]
    pytest.importorskip("torch")
    from mf_numpy.cli import run
    from mf_torch.__main__ import app

    assert run(app, ["fit", data, "--device", "cuda:99"]) == 2
    assert "use --device cpu" in capsys.readouterr().err


def test_evaluate_tells_of_training_pairs(mf: Run, data: str, model: str) -> None:
    code, out, _ = mf("evaluate", model, data)
    assert code == 0
    assert "540 of these 600 pairs were in the training set" in out
    pd.DataFrame({"user": [1, 99], "item": [1, 1], "rating": [3, 4]}).to_csv("new.csv", index=False)
    code, out, _ = mf("evaluate", model, "new.csv")
    assert code == 0
    assert out.splitlines()[-1].split()[-1] == "2"


def test_predict_one(mf: Run, model: str) -> None:
    result = store.load(model)
    assert mf("predict", model, "3", "4") == (0, f"{result.predict([3], [4]).values[0]:.4f}\n", "")
    code, out, err = mf("predict", model, "3", "444")
    assert code == 0
    assert float(out)
    assert "item 444 was not in the training set" in err
    code, _, err = mf("predict", model, "ann", "4")
    assert code == 2
    assert "user is 'ann', but the users of this model are whole numbers, such as 1" in err


def test_predict_clips_to_the_scale(mf: Run, data: str, model: str) -> None:
    result = store.load(model)
    assert result.params.b is not None
    high = replace(result, params=replace(result.params, b=result.params.b + 9))
    high.save("high")
    assert mf("predict", "high", "3", "4", "--clip")[1] == "5.0000\n"
    no_scale = replace(result, catalogue=replace(result.catalogue, scale=None))
    no_scale.save("bare")
    assert "--scale" in mf("predict", "bare", "3", "4", "--clip")[2]


def test_predict_pairs(mf: Run, model: str) -> None:
    result = store.load(model)
    Path("pairs.csv").write_text("user,item,note\n3,4,NA\n5,1,\n")
    code, out, err = mf("predict", model, "--pairs", "pairs.csv", "-o", "out.csv")
    assert (code, out, err) == (0, "2 predictions saved to out.csv\n", "")
    lines = Path("out.csv").read_text().splitlines()
    assert lines[0] == "user,item,note,predicted"
    assert lines[1].startswith("3,4,NA,")
    got = np.array([np.float32(line.split(",")[-1]) for line in lines[1:]])
    assert got.tobytes() == result.predict([3, 5], [4, 1]).values.tobytes()
    assert mf("predict", model, "--pairs", "pairs.csv")[1].splitlines() == lines
    Path("named.tsv").write_text("who\tWhat\n3\t4\n")
    assert mf("predict", model, "--pairs", "named.tsv", "--user", "who", "--item", "What")[0] == 0
    assert "--item" in mf("predict", model, "--pairs", "named.tsv", "--user", "who")[2]
    Path("bad.csv").write_text("user,item\n3,x\n")
    assert "item is 'x'" in mf("predict", model, "--pairs", "bad.csv")[2]
    assert mf("predict", model, "--pairs", "none.csv")[0] == 2


def test_recommend(mf: Run, model: str) -> None:
    best = store.load(model).recommend(3, 4)
    code, out, err = mf("recommend", model, "3", "-n", "4")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()[2:]]
    assert rows == [[str(k), str(r["item"]), f"{r['predicted']:.4f}"] for k, r in best.astype(object).iterrows()]
    code, out, err = mf("recommend", model, "333")
    assert code == 0
    assert "highest bias" in err
    assert len(mf("recommend", model, "3", "-n", "99", "--with-seen")[1].splitlines()) == 2 + 25


def test_look(mf: Run, data: str, model: str) -> None:
    code, out, _ = mf("look", model, data, "3", "-n", "5")
    assert code == 0
    own = pd.read_csv(data).query("user == 3")
    assert f"{len(own)} ratings of user 3" in out
    assert "recommended to user 3" in out
    assert mf("look", model, data, "333")[0] == 2


def test_text_ids(mf: Run, tmp_path: Path) -> None:
    data = str(write_table(tmp_path / "text.csv", text=True))
    assert mf("fit", data, *QUICK)[0] == 0
    assert mf("predict", "model.safetensors", "ann3", "4")[0] == 0
    assert mf("recommend", "model.safetensors", "ann3")[0] == 0
    Path("pairs.csv").write_text("user,item\nann3,4\n")
    assert mf("predict", "model.safetensors", "--pairs", "pairs.csv")[0] == 0


def test_data_sets_are_listed_and_described(
    mf: Run, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sets" / "ml-1m").mkdir(parents=True)
    monkeypatch.setenv("MF_DATA", str(tmp_path / "sets"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, out, err = mf("data")
    assert (code, err) == (0, "")
    found = {line.split()[0]: line for line in out.splitlines()[2:]}
    assert "drawn when asked for" in found["planted"]
    assert str(tmp_path / "sets" / "ml-1m") in found["ml-1m"]
    assert "not here" in found["ml-100k"]
    code, _, err = mf("describe", "ml-100k")
    assert code == 2
    assert "pass --download" in err
    code, out, _ = mf("describe", data)
    assert code == 0
    assert "ratings per user, mean" in out
    new = tmp_path / "not" / "yet"
    assert mf("describe", data, "--plots", str(new))[0] == 0
    assert sorted(path.suffix for path in new.iterdir()) == [".svg", ".svg"]
    Path("plots").mkdir()
    assert mf("describe", data, "--plots", "plots")[0] == 0
    assert sorted(p.name for p in Path("plots").iterdir()) == ["counts.svg", "ratings.svg"]


def test_reader_options(mf: Run) -> None:
    Path("t.csv").write_text("who,what,stars\n1,1,3\n1,1,5\n2,1,4\n2,2,1\n")
    named = ("--user", "who", "--item", "what", "--rating", "stars")
    assert "rated" in mf("describe", "t.csv", *named)[2]
    code, out, _ = mf("describe", "t.csv", *named, "--duplicates", "mean", "--scale", "0", "5")
    assert code == 0
    assert "scale 0 to 5, 1 pair rated twice (policy: mean)" in out


def test_one_is_no_plural(mf: Run, data: str, model: str) -> None:
    Path("t.csv").write_text("user,item,rating\n1,1,3\n1,1,5\n2,1,4\n")
    assert "; 1 pair rated more than once" in mf("describe", "t.csv")[2]
    out = mf("describe", "t.csv", "--duplicates", "mean")[1]
    assert "2 ratings, 2 users, 1 item, density" in out
    Path("pairs.csv").write_text("user,item\n3,444\n")
    _, out, err = mf("predict", model, "--pairs", "pairs.csv", "-o", "out.csv")
    assert "the item of 1 pair was not" in err
    assert out == "1 prediction saved to out.csv\n"


def test_titles_are_shown(mf: Run) -> None:
    from mf_numpy import fit

    info = pd.DataFrame({"title": ["Éa", "[red]b", "c" * 300]}, index=[0, 1, 2])
    ratings = Ratings(
        np.array([0, 1, 1]),
        np.array([0, 1, 2]),
        np.array([1, 2, 3]),
        IdMap.of_range(2),
        IdMap.of_range(3),
        item_info=info,
    )
    fit(ratings, Config(n_epochs=1, n_factors=2), backend="numpy").save("m")
    _, out, _ = mf("recommend", "m", "0", "--with-seen")
    assert "Éa" in out
    assert "[red]b" in out
    assert "c" * 300 in out


def test_a_narrow_terminal_cuts_titles_not_numbers() -> None:
    from mf_numpy.cli_output import table

    file = io.StringIO()
    columns = ["rank", "item", "title", "predicted"]
    table(
        Console(file=file, width=40),
        columns,
        [(1, 20159, "A title of some length " * 3, "9.1234")],
        text=("item", "title"),
    )
    shown = file.getvalue()
    assert all(len(line) <= 40 for line in shown.splitlines())
    assert "…" in shown
    for word in ("rank", "20159", "predicted", "9.1234"):
        assert word in shown


@pytest.mark.parametrize("width", [12, 40, 60, 100])
def test_a_narrow_terminal_never_cuts_numbers(width: int) -> None:
    from mf_numpy.cli_output import table

    file = io.StringIO()
    columns = ["", "train RMSE", "valid RMSE", "scored", "about"]
    table(
        Console(file=file, width=width, force_terminal=True, color_system=None),
        columns,
        [("bias-only", "-", "0.9512", "40,000", "each user and item"), ("model", Text("5.3e-16"), "0.8", "40,000", "")],
    )
    shown = file.getvalue()
    assert all(len(line) <= width for line in shown.splitlines())
    assert shown.split().count("40,000") == 2
    for word in ("bias-only", "model", "0.9512", "5.3e-16", "RMSE", "scored", "item"):
        assert word in shown.replace(":", " ").split()


def test_recipes(mf: Run) -> None:
    code, out, _ = mf("recipes")
    assert code == 0
    assert all(f.name in out for f in fields(Config))


def test_a_failed_check_fails(mf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from mf_numpy.check import Check
    from mf_numpy.cli_check import check
    from mf_numpy.properties import Ways
    from mf_numpy.suite import Suite

    good, bad = Check("gradient", "P", "numpy", 1e-16, 1e-12, "a"), Check("gradient", "Q", "numpy", np.nan, 1e-12, "b")

    def holds(ways: Ways) -> list[Check]:
        """One thing."""
        return [good]

    def fails(ways: Ways) -> list[Check]:
        """Another."""
        raise ZeroDivisionError("nothing to divide by")

    assert check(Suite(tables={"gradient": lambda: [good]}, checks={"fine": holds})) == 0
    assert check(Suite(tables={}, checks={})) == 1
    capsys.readouterr()
    assert check(Suite(tables={"gradient": lambda: [good, bad]}, checks={"fine": holds})) == 1
    out, err = capsys.readouterr()
    assert "nan !" in out
    assert "gradient: Q by numpy differs" in err
    assert check(Suite(tables={"gradient": lambda: [good]}, checks={"one": fails})) == 1
    out, err = capsys.readouterr()
    assert "rejects !" in out
    assert "one raised ZeroDivisionError: nothing to divide by" in err


def test_about_ten_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    from mf_numpy.cli_output import console

    for first, n_epochs in ((0, 1), (0, 7), (0, 1000), (990, 1000), (3, 250)):
        with Progress(console(), n_epochs, first=first) as progress:
            for epoch in range(first + 1, n_epochs + 1):
                progress(EpochRecord(epoch, 1.0, 1.0, None, 1.0, 0.001))
        lines = capsys.readouterr().out.splitlines()
        assert 1 <= len(lines) <= 12
        assert lines[-1].startswith(f"epoch {n_epochs}/{n_epochs}")
