"""The command ``fit``: every setting, resuming, divergence, and where the model goes."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from mf_numpy import Config, store
from mf_numpy.cli import run
from mf_numpy.recipes import RECIPES
from mf_torch.__main__ import app as torch_app
from tests.cli_fixtures import QUICK, Run, quick


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
        others = (
            "solver",
            "step_rule",
            "cg_steps",
            "inner_sweeps",
            "history_size",
            "leapfrog_steps",
            "burn_in",
            "thin",
            "chain_length",
            "average_from",
        )
        if f.name in others or "negative" in f.name:
            # The other settings here are gd's, and those of a loss that draws nothing.
            continue
        value = getattr(config, f.name)
        assert value != getattr(default, f.name), f"{f.name} is not tried"
        text = "2:0.5,3:0.25" if f.name == "lr_schedule" else str(value)
        tokens += [f"--{f.name.replace('_', '-')}", text]
    assert mf("fit", data, *tokens)[0] == 0
    assert store.load("model.safetensors").config == config


def test_a_chain_is_fitted_saved_and_says_how_sure_it_is(mf: Run, data: str) -> None:
    code, out, err = mf("fit", data, "--solver", "gibbs", "--n-factors", "2", "--n-epochs", "30", "--burn-in", "10")
    assert (code, err) == (0, "")
    result = store.load("model.safetensors")
    assert result.state.draws is not None and len(result.state.draws) == 20
    assert f"{result.history[-1].valid_rmse:.4f}" in out.splitlines()[-2]
    out = mf("evaluate", "model.safetensors", data)[1]
    assert "% of them lie in their 90 % intervals" in out


def test_a_prediction_says_where_the_rating_lies(mf: Run, data: str) -> None:
    assert mf("fit", data, "--solver", "gibbs", "--n-factors", "2", "--n-epochs", "30", "--scale", "1", "5")[0] == 0
    result = store.load("model.safetensors")
    ends = result.interval([3, 5], [4, 1], 0.8)
    told = f"80 % interval: {ends.low[0]:.4f} to {ends.high[0]:.4f}"
    assert mf("predict", "model.safetensors", "3", "4", "--level", "0.8")[1].splitlines()[1:] == [told]
    wide = mf("predict", "model.safetensors", "3", "4", "--level", "0.9999", "--clip")[1].splitlines()[1]
    assert wide.startswith("99.99 % interval: 1.0000 to ")
    Path("pairs.csv").write_text("user,item\n3,4\n99,1\n5,1\n")
    code, out, err = mf("predict", "model.safetensors", "--pairs", "pairs.csv", "--level", "0.8")
    assert code == 0 and "the user of 1 pair was not in the training set" in err
    head, first, unknown, last = [line.split(",") for line in out.splitlines()]
    assert head == ["user", "item", "predicted", "low", "high"] and unknown[3:] == ["", ""]
    got = np.array([[float(x) for x in line[3:]] for line in (first, last)])
    np.testing.assert_allclose(got, np.column_stack([ends.low, ends.high]), rtol=1e-12)
    for tokens, said in (
        (("3", "4", "--level", "2"), "level is 2.0, but must lie between 0 and 1"),
        (("3", "444", "--level", "0.9"), "the item of pair 0 was not in the training set"),
    ):
        code, _, err = mf("predict", "model.safetensors", *tokens)
        assert code == 2 and said in err
    assert mf("fit", data, "--n-epochs", "2")[0] == 0
    assert "the model holds no draws" in mf("predict", "model.safetensors", "3", "4", "--level", "0.9")[2]


def test_recipe(mf: Run, data: str) -> None:
    assert mf("fit", data, "--recipe", "post", "--n-epochs", "3")[0] == 0
    config = store.load("model.safetensors").config
    assert (config.model, config.n_factors, config.n_epochs) == ("plain", 3, 3)


def test_the_recipe_best_needs_nothing_else_and_goes_by_the_number_of_ratings(
    mf: Run, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(torch_app, ["fit", data, "--recipe", "best"]) == 0
    assert store.load("model.safetensors").config == RECIPES["best"].config
    large = Config(solver="gibbs", n_factors=2, n_epochs=4, burn_in=1)
    for least, k in ((540, 2), (541, RECIPES["best"].config.n_factors)):
        monkeypatch.setitem(RECIPES, "best", replace(RECIPES["best"], larger=((least, large),)))
        assert mf("fit", data, "--recipe", "best", "--n-epochs", "4", "--burn-in", "2", "--backend", "loops")[0] == 0
        config = store.load("model.safetensors").config
        assert (config.n_factors, config.n_epochs, config.burn_in) == (k, 4, 2)
    code, out, _ = mf("recipes")
    assert code == 0 and "best from 541" in " ".join(out.split())


def test_clicks_are_fitted_by_their_recipe_and_ranked(mf: Run, data: str) -> None:
    code, out, err = mf("fit", data, "--clicks", "4", "--recipe", "clicks", "--n-factors", "3")
    assert (code, err) == (0, "") and "ndcg@10" in out
    result = store.load("model.safetensors")
    n_ratings = len(result.catalogue.seen.indices)
    assert result.catalogue.mean == 1.0 and result.config.loss == "all_pairs"
    assert result.config.reg == RECIPES["clicks"].ridge / n_ratings  # type: ignore[operator]
    code, out, err = mf("rank", "model.safetensors", data, "--clicks", "4")
    assert (code, err) == (0, "") and "rated 1 or more" in out
    assert "this is a score that items are ranked by" in mf("predict", "model.safetensors", "3", "4")[2]
    code, _, err = mf("fit", data, "--clicks", "9", "--recipe", "clicks")
    assert code == 2 and "no rating is 9 or higher, so there are no clicks; take less" in err
    assert "35/N" in mf("recipes")[1]


def test_another_rule_has_defaults_of_its_own(mf: Run, data: str) -> None:
    """The recipe's η, momentum and its form are not taken for Adam's; sgd's own are not AdaGrad's."""
    for tokens, expected in (
        (("--step-rule", "adam"), ("gd", "adam", 0.01, 0.0, "ema")),
        (("--solver", "sgd", "--step-rule", "adagrad"), ("sgd", "adagrad", 0.02, 0.0, "ema")),
        (("--step-rule", "adagrad", "--lr", "0.2"), ("gd", "adagrad", 0.2, 0.0, "ema")),
    ):
        assert mf("fit", data, *tokens, "--n-epochs", "2", "--n-factors", "3")[0] == 0
        c = store.load("model.safetensors").config
        assert (c.solver, c.step_rule, c.lr, c.momentum, c.momentum_form) == expected
    code, _, err = mf("fit", data, "--resume", "model.safetensors", "--n-epochs", "3", "--step-rule", "adam")
    assert code == 2 and "cannot resume: step_rule was 'adagrad' and is now 'adam'; keep it" in err
    assert mf("fit", data, "--resume", "model.safetensors", "--n-epochs", "3")[0] == 0


def test_sparse_gradients_are_asked_for_in_torch(mf: Run, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ["fit", data, "--step-rule", "adagrad", "--n-epochs", "2", "--n-factors", "3", "--batch-size", "100"]
    assert run(torch_app, [*tokens, "--sparse-grad"]) == 0
    assert store.load("model.safetensors").details["sparse_grad"] is True
    assert run(torch_app, ["fit", data, "--sparse-grad"]) == 2
    assert "sparse_grad is True with momentum 0.9" in capsys.readouterr().err


def test_factors_of_16_bits_are_asked_for_in_torch(mf: Run, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ["fit", data, "--n-epochs", "2", "--n-factors", "3", "--path", "fused", "--storage"]
    assert run(torch_app, [*tokens, "bfloat16"]) == 0
    assert store.load("model.safetensors").details["storage"] == "bfloat16"
    assert run(torch_app, [*tokens, "bfloat61"]) == 2
    assert "bfloat16" in capsys.readouterr().err
    assert "`python -m mf_torch fit` has it" in mf("fit", data, "--storage", "bfloat16")[2]


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
