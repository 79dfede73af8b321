"""The command line, in process and as a program: what it prints, where, and how it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from mf_numpy import Config, FitResult, IdMap, Ratings, store
from mf_numpy.__main__ import app
from mf_numpy.cli import run
from mf_numpy.progress import Progress
from mf_numpy.result import EpochRecord

Run = Callable[..., tuple[int, str, str]]


def write_table(path: Path, *, text: bool = False) -> Path:
    rng = np.random.default_rng(2)
    pairs = rng.choice(40 * 25, 600, replace=False)
    users, items = pairs // 25, pairs % 25
    values = np.clip(np.round(3 + rng.normal(0, 1, 40)[users] + rng.normal(0, 1, 25)[items]), 1, 5)
    names = [f"ann{u}" if text else u + 1 for u in users]
    pd.DataFrame({"user": names, "item": items + 1, "rating": values}).to_csv(path, index=False)
    return path


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(write_table(tmp_path / "ratings.csv"))


@pytest.fixture
def mf(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command line in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*tokens: str) -> tuple[int, str, str]:
        code = run(app, tokens)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert "\x1b" not in out + err
        return code, out, err

    return call


def quick(**changes: str) -> list[str]:
    options = {"n-epochs": "25", "n-factors": "3", "lr": "2", "tol": "0", "backend": "numpy"}
    options |= {name.replace("_", "-"): value for name, value in changes.items()}
    return [token for name, value in options.items() for token in (f"--{name}", value)]


QUICK = quick()


@pytest.fixture
def model(mf: Run, data: str) -> str:
    assert mf("fit", data, *QUICK, "--scale", "1", "5")[0] == 0
    return "model.safetensors"


def test_fit_prints_progress_baselines_and_where_it_saved(mf: Run, data: str) -> None:
    code, out, err = mf("fit", data, *QUICK, "--output", "my model", "--valid", "0.25")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "600 ratings, 40 users, 25 items" in lines[0]
    assert lines[1].startswith("150 ratings (25 %) are held out")
    epochs = [line for line in lines if line.startswith("epoch")]
    assert 8 <= len(epochs) <= 12
    assert epochs[0].startswith("epoch  1/25")
    assert epochs[-1].startswith("epoch 25/25")
    for word in ("objective", "train RMSE", "valid RMSE", "ms/epoch", "ETA"):
        assert word in epochs[0]
    rows = {line.split()[0]: line.split() for line in lines[-6:] if line.split()}
    assert rows["mean"][-2:] == rows["bias-only"][-2:] == rows["model"][-2:]
    assert lines[-1] == "saved to my model"
    result = store.load("my model")
    assert result.backend == "numpy"
    assert result.config == replace(result.config, n_epochs=25, n_factors=3, lr=2.0)
    assert rows["model"][2] == f"{result.history[-1].valid_rmse:.4f}"


def test_every_setting_is_an_option(mf: Run, data: str) -> None:
    config = Config(
        model="plain",
        loss="pseudo_huber",
        loss_scale=0.5,
        n_factors=2,
        n_epochs=4,
        lr=0.25,
        reg=0.01,
        penalty="total",
        momentum=0.5,
        momentum_form="heavy_ball",
        batch_size=100,
        init="uniform",
        init_scale=0.3,
        dtype="float64",
        seed=7,
        lr_decay=0.9,
        lr_schedule=((2, 0.5), (3, 0.25)),
        patience=3,
        min_delta=0.001,
        tol=0.0001,
        eval_every=2,
    )
    default = Config()
    tokens = []
    for f in fields(Config):
        value = getattr(config, f.name)
        assert value != getattr(default, f.name), f"{f.name} is not tried"
        text = "2:0.5,3:0.25" if f.name == "lr_schedule" else str(value)
        tokens += [f"--{f.name.replace('_', '-')}", text]
    assert mf("fit", data, *tokens)[0] == 0
    assert store.load("model.safetensors").config == config


def test_recipe(mf: Run, data: str) -> None:
    assert mf("fit", data, "--recipe", "post", "--n-epochs", "3")[0] == 0
    config = store.load("model.safetensors").config
    assert (config.model, config.n_factors, config.n_epochs) == ("plain", 3, 3)


def test_without_held_out_ratings(mf: Run, data: str) -> None:
    code, out, _ = mf("fit", data, *QUICK, "--valid", "0")
    assert code == 0
    assert "valid" not in out
    assert "bias-only" in out


def test_resume_is_the_straight_run(mf: Run, data: str) -> None:
    assert mf("fit", data, *QUICK, "-o", "straight", "--valid", "0.3")[0] == 0
    assert mf("fit", data, *quick(n_epochs="10"), "-o", "half", "--valid", "0.3")[0] == 0
    code, out, _ = mf("fit", data, "--resume", "half", "--n-epochs", "25", "--backend", "numpy")
    assert code == 0
    assert out.splitlines()[-1] == "saved to half"
    straight, resumed = store.load("straight"), store.load("half")
    assert straight.config == resumed.config
    for name, array in straight.params.tensors().items():
        assert array.tobytes() == resumed.params.tensors()[name].tobytes()


def test_resume_refuses_what_does_not_fit(mf: Run, data: str, model: str) -> None:
    for tokens, problem in (
        ((), "n_epochs is 25; raise it"),
        (("--n-epochs", "30", "--valid", "0.5"), "not the model's training ratings"),
        (("--n-epochs", "30", "--seed", "5"), "not the model's training ratings"),
        (("--n-epochs", "30", "--recipe", "post"), "drop the recipe"),
        (("--n-epochs", "30", "--n-factors", "4"), "n_factors was 3 and is now 4"),
    ):
        code, _, err = mf("fit", data, "--resume", model, *tokens)
        assert code == 2
        assert err.startswith("error: ")
        assert problem in err


def test_divergence_is_saved_and_fails(mf: Run, data: str) -> None:
    code, out, err = mf("fit", data, *quick(lr="3000"))
    assert code == 1
    assert err.startswith("diverged: ")
    assert "Lower lr" in err
    assert "saved to model.safetensors" in out
    assert store.load("model.safetensors").status == "diverged"


def test_nothing_learned_leaves_the_old_model(mf: Run, data: str, model: str) -> None:
    before = Path(model).read_bytes()
    code, _, err = mf("fit", data, *quick(lr="1e300", init_scale="1e200", dtype="float64"))
    assert code == 1
    assert "nothing was saved" in err
    assert Path(model).read_bytes() == before


def test_a_place_that_cannot_be_written_is_found_before_the_fit(mf: Run, data: str) -> None:
    code, out, err = mf("fit", data, *QUICK, "-o", "no/model")
    assert (code, out) == (2, "")
    assert err.startswith("error: folder 'no' does not exist")


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
    assert "scale 0 to 5, 1 pairs rated twice (policy: mean)" in out


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


def test_recipes_and_check(mf: Run) -> None:
    code, out, _ = mf("recipes")
    assert code == 0
    assert all(f.name in out for f in fields(Config))
    code, out, err = mf("check")
    assert (code, err) == (0, "")
    assert "complex step" in out


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


def program(*tokens: str, cwd: Path, **more: Any) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    return subprocess.Popen(
        [sys.executable, "-m", "mf_numpy", *tokens],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


def test_program_help_and_version(tmp_path: Path) -> None:
    out, err = program("fit", "--help", cwd=tmp_path).communicate(timeout=60)
    assert err == ""
    assert "\x1b" not in out
    for f in fields(Config):
        assert f"--{f.name.replace('_', '-')}" in out
    assert program("--version", cwd=tmp_path).communicate(timeout=60)[0].startswith("mf_numpy ")


def test_program_mistake(tmp_path: Path) -> None:
    with program("recommend", "no.safetensors", "3", cwd=tmp_path) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("error: 'no.safetensors' does not exist")


def test_program_in_a_pipe_has_no_escape_codes(data: str, tmp_path: Path) -> None:
    with program("fit", data, *QUICK, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert "\r" not in out
    assert "bias-only" in out


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_ctrl_c_saves_what_was_learned(data: str, tmp_path: Path) -> None:
    def obey_ctrl_c() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    long = quick(n_epochs="1000000000", momentum="0", momentum_form="ema", lr="0.01", eval_every="1000000")
    with program("fit", data, *long, cwd=tmp_path, preexec_fn=obey_ctrl_c) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("stopped: interrupted; the parameters after epoch")
    assert out.splitlines()[-1] == "saved to model.safetensors"
    result: FitResult = store.load(tmp_path / "model.safetensors")
    assert result.status == "stopped"
    assert len(result.history) == result.state.epoch >= 1


@pytest.mark.skipif(os.name == "nt", reason="pipes are POSIX's")
def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    with program("recipes", cwd=tmp_path) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1
