"""Time from the command line: features of time for ``fit``, ``--at`` for what uses the model, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mf_numpy import Features, FitResult, fit, store
from mf_numpy.cli import run
from mf_numpy.cli_times import timestamp_of
from mf_numpy.errors import ConfigError
from mf_numpy.readers import read_ratings
from mf_numpy.split import random_split
from mf_numpy.timed import DAY, timed
from mf_torch.__main__ import app as torch_app
from tests.cli_fixtures import Run, quick

WORDS = ["--user-features", "id,drift*0.5,day*0.3", "--item-features", "id,time_bins:3,popularity:2"]
FIRST, LAST = 10227, 10338
"""Days of the table: 1998-01-01 to 1998-04-22."""


@pytest.fixture
def dated(data: str, tmp_path: Path) -> str:
    """The table with a time: half the ratings have a whole second, the others fall to midnight."""
    table = pd.read_csv(data)
    days = np.random.default_rng(3).integers(FIRST, LAST + 1, len(table))
    days[:2] = FIRST, LAST
    path = tmp_path / "dated.csv"
    table.assign(timestamp=days * DAY + np.arange(len(table)) % 2 * 4321).to_csv(path, index=False)
    return str(path)


@pytest.fixture
def moving(mf: Run, dated: str) -> str:
    code, out, err = mf("fit", dated, *quick(lr="0.5", n_epochs="10"), "--valid", "0.1", *WORDS)
    assert (code, err) == (0, "") and "held out" in out and "users are made of" in out
    return "model.safetensors"


def seconds(day: int) -> int:
    return day * DAY


def test_a_fit_of_time_is_that_of_python_and_tells_of_any_day(mf: Run, dated: str, moving: str) -> None:
    split = random_split(read_ratings(dated), valid=0.1, seed=0)
    made = timed(
        split.train,
        Features().id().drift(weight=0.5).day(weight=0.3),
        Features().id().time_bins(3).popularity(2),
        valid=split.valid,
    )
    found = store.load(moving)
    gold = fit(made.train, found.config, design=made.design, valid=made.valid, backend="numpy")
    np.testing.assert_array_equal(found.params.P, gold.params.P)
    for text, day in (("1998-01-01", FIRST), ("1998-02-07T23:59", 10264), (str(seconds(10300)), 10300)):
        wanted = made.predict(gold, [7], [3], [seconds(day)]).values[0]
        code, out, err = mf("predict", moving, "7", "3", "--at", text)
        assert (code, out, err) == (0, f"{wanted:.4f}\n", "")
        best = gold.at(seconds(day)).recommend(7, 3)
        code, out, err = mf("recommend", moving, "7", "-n", "3", "--at", text)
        assert (code, err) == (0, "")
        assert [line.split()[1:] for line in out.splitlines()[2:]] == [
            [str(int(item)), f"{value:.4f}"] for item, value in best[["item", "predicted"]].itertuples(index=False)
        ]
    early, late = (mf("predict", moving, "7", "3", "--at", day)[1] for day in ("1998-01-02", "1998-04-20"))
    assert early != late


def test_without_a_date_it_is_the_last_day(mf: Run, dated: str, moving: str, tmp_path: Path) -> None:
    note = "note: as of 1998-04-22, the last day of training\n"
    for command in (["predict", moving, "7", "3"], ["recommend", moving, "7", "-n", "3"]):
        at_last = mf(*command, "--at", "1998-04-22")
        assert at_last[0] == 0 and mf(*command) == (0, at_last[1], note)
    for name, *rest in (["similar-items", "3"], ["similar-users", "7"], ["suggest-items", "-n", "3"]):
        code, out, err = mf(name, moving, *rest)
        assert (code, err) == (0, note) and " on 1998" not in out
    code, out, err = mf("rank", moving, dated, "-k", "5")
    assert (code, err) == (0, note) and "ndcg@5" in out
    code, out, err = mf("look", moving, dated, "7")
    assert (code, err) == (0, note) and "recommended to user 7" in out
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user,item\n7,3\n7,4\n")
    code, out, err = mf("predict", moving, "--pairs", str(pairs), "--at", "1998-04-22")
    assert (code, err) == (0, "") and out.splitlines()[0] == "user,item,predicted"
    assert f"{float(out.splitlines()[1].split(',')[2]):.4f}\n" == mf("predict", moving, "7", "3")[1]


def test_evaluate_predicts_each_rating_at_its_own_time(mf: Run, data: str, dated: str, moving: str) -> None:
    found, table = store.load(moving), read_ratings(dated)
    assert found.design is not None and found.design.times is not None and table.timestamps is not None
    raw = table.user_ids.decode(table.users), table.item_ids.decode(table.items)
    values = found.design.times.predict(found, *raw, table.timestamps).values
    wanted = float(np.sqrt(np.mean((values - table.values) ** 2)))
    code, out, err = mf("evaluate", moving, dated)
    assert (code, err) == (0, "") and f"{wanted:.4f}" in out
    assert "540 of these 600 pairs were in the training set" in out
    code, out, err = mf("evaluate", moving, data)
    assert code == 0 and err.startswith("note: as of 1998-04-22") and f"{wanted:.4f}" not in out


def test_a_resumed_fit_goes_on_bit_for_bit(mf: Run, dated: str, moving: str) -> None:
    longer = [*quick(lr="0.5", n_epochs="15"), "--valid", "0.1"]
    assert mf("fit", dated, *longer, *WORDS, "-o", "long.safetensors")[0] == 0
    code, out, err = mf("fit", dated, "--resume", moving, "--n-epochs", "15", "--backend", "numpy")
    assert (code, err) == (0, "") and "going on from model.safetensors after epoch 10" in out
    rest, long = store.load(moving), store.load("long.safetensors")
    assert rest.params.P.tobytes() == long.params.P.tobytes()
    assert rest.at(seconds(FIRST)).params.Q.tobytes() == long.at(seconds(FIRST)).params.Q.tobytes()
    code, _, err = mf("fit", dated, "--resume", moving, "--n-epochs", "20", *WORDS)
    assert code == 2 and "user_features and resume are both given" in err


def test_a_resumed_fit_of_other_times_is_refused(mf: Run, data: str, dated: str, moving: str) -> None:
    other = pd.read_csv(dated)
    other["timestamp"] += 40 * DAY * (np.arange(len(other)) % 3 == 0)
    other.to_csv("other.csv", index=False)
    again = ["--resume", moving, "--n-epochs", "12", "--backend", "numpy"]
    code, _, err = mf("fit", "other.csv", *again)
    assert code == 2 and "cannot resume" in err
    code, _, err = mf("fit", data, *again)
    assert code == 2 and "has no timestamps, which the feature 'drift' needs" in err


def test_autograd_has_the_same_command_line(
    mf: Run, dated: str, moving: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = mf("predict", moving, "7", "3", "--at", "1998-02-01")[1]
    options = ["--n-epochs", "10", "--n-factors", "3", "--lr", "0.5", "--tol", "0", "--valid", "0.1"]
    assert run(torch_app, ["fit", dated, *options, *WORDS, "-o", "torch.safetensors"]) == 0
    capsys.readouterr()
    assert run(torch_app, ["predict", "torch.safetensors", "7", "3", "--at", "1998-02-01"]) == 0
    assert float(capsys.readouterr().out) == pytest.approx(float(by_hand), abs=2e-4)
    exported: list[FitResult] = []
    monkeypatch.setattr("mf_torch.cli_export.export_scorer", lambda result, target: exported.append(result))
    assert run(torch_app, ["export", "torch.safetensors"]) == 0
    assert capsys.readouterr().err == "note: as of 1998-04-22, the last day of training\n"
    assert exported[0].params.shape == (40, 25, 3)


def test_what_time_cannot_be(mf: Run, data: str, model: str, dated: str, tmp_path: Path) -> None:
    for tokens, said in (
        (["predict", model, "7", "3", "--at", "1998-04-22"], "the model's users and items are the same at any time"),
        (["recommend", model, "7", "--at", "0"], "drop it, or fit with features of time, such as drift"),
        (["fit", data, "--user-features", "id,day"], "ratings.csv has no timestamps, which the feature 'day' needs"),
        (["fit", data, "--item-features", "id,time_bins:9"], "which the feature 'time_bins' needs; leave it out"),
        (["fit", dated, "--item-features", "id,time_bins"], "'time_bins' cannot be read; write it as time_bins:NUMBER"),
        (["fit", dated, "--item-features", "id,time_bins:0"], "n is 0 parts of the training period"),
        (["fit", dated, "--user-features", "id,day:3"], "'day:3' cannot be read; write it as day, with"),
        (["fit", dated, "--user-features", "id,day", "--solver", "als"], "solver is 'als' with a design"),
    ):
        code, _, err = mf(*tokens)
        assert code == 2 and said in err, err


def test_a_newcomer_has_no_time(mf: Run, moving: str) -> None:
    code, _, err = mf("predict", moving, "7", "3", "--at", "22.4.1998")
    assert code == 2 and err.startswith("error: at is '22.4.1998', but must be a date such as 1998-04-22, or seconds")
    code, _, err = mf("fold-in", moving)
    assert code == 2 and "the model's users and items are those at a time, where nobody is folded in" in err
    code, _, err = mf("predict", moving, "999", "3", "--at", "1998-04-22")
    assert code == 0 and err.startswith("note: user 999 was not in the training set")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("0", 0),
        ("-86400", -DAY),
        ("893203200", 893203200),
        ("1998-04-22", 893203200),
        ("1998-04-22T01:00:00+02:00", 893203200 - 3600),
        (" 1998-04-22 12:00 ", 893203200 + 12 * 3600),
        ("1969-12-31T23:59:59.5", -1),
    ],
)
def test_times_in_words(text: str, at: int) -> None:
    assert timestamp_of(text) == at


@pytest.mark.parametrize("text", ["", "soon", "1998-13-01", "1998-02-30", "1e9", "9" * 30, "22/04/1998"])
def test_words_that_are_no_time(text: str) -> None:
    with pytest.raises(ConfigError, match="but must be a date such as 1998-04-22, or seconds since 1970"):
        timestamp_of(text)
