"""Programs that run without this project, top-N lists on the device, and compiled inference: all the same numbers."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mf_numpy import ConfigError, files, recommend
from mf_numpy import model as by_hand
from mf_numpy.cli import run
from mf_numpy.result import FitResult
from mf_torch import MatrixFactorization
from mf_torch import recommend as on_device
from mf_torch.export import Scorer, export_scorer, export_top_n
from mf_torch.recommend import TopN, best_first, top_n
from tests.test_recommend import M, N, brute, table, tied

ELSEWHERE = """
import json, sys
import numpy as np, torch
said = {}
for name in sys.argv[1:]:
    facts = {"mf.json": ""}
    program = torch.export.load(f"../{name}.pt2", extra_files=facts).module()
    facts = json.loads(facts["mf.json"])
    given = np.load(f"{name}.npz")
    inputs = [torch.as_tensor(given[x]) for x in facts["inputs"]]
    with torch.no_grad():
        out = program(*inputs)
        refused = []
        for at, ids in enumerate(["user_ids", "item_ids"][: sum(x.dtype == torch.int64 for x in inputs)]):
            for bad in (-1, len(facts[ids]), -len(facts[ids]), 2**40):
                wrong = [x[:3].clone() for x in inputs]
                wrong[at][1] = bad
                try:
                    program(*wrong)
                    refused.append("went through")
                except RuntimeError as error:
                    refused.append(str(error))
        sizes = [program(*[x[:b] for x in inputs]) for b in (0, 1, 5)]
    sizes = [len(x[0] if isinstance(x, tuple) else x) for x in sizes]
    np.savez(f"{name}.out.npz", *[x.numpy() for x in (out if isinstance(out, tuple) else (out,))])
    said[name] = {"facts": facts, "refused": refused, "sizes": sizes}
assert not [name for name in sys.modules if name.startswith(("mf_", "numba"))], "the project was imported"
print(json.dumps(said))
"""

USERS, ITEMS = np.repeat(np.arange(M), N), np.tile(np.arange(N), M)
ASKED = np.array([5, 2, 3, 13, 2, *range(M)])


def _rated(result: FitResult) -> Any:
    """What each of the users `ASKED` rated, (B, n_items) bool."""
    seen = result.catalogue.seen
    mask = np.zeros((len(ASKED), N), dtype=bool)
    for row, u in enumerate(ASKED):
        mask[row, seen.indices[seen.indptr[u] : seen.indptr[u + 1]]] = True
    return mask


Ran = Mapping[str, tuple[list[Any], dict[str, Any]]]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Outputs of each program, and what was said, in a Python that cannot import this project."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "elsewhere").mkdir()
    result = table()
    inputs: dict[str, dict[str, Any]] = {"plain": {"users": USERS, "items": ITEMS}}
    inputs["biased"] = inputs["plain"]
    inputs |= {exclude: {"users": ASKED} for exclude in ("seen", "nothing")}
    inputs["mask"] = {"users": ASKED, "excluded": _rated(result)}
    for name, given in inputs.items():
        if name in ("plain", "biased"):
            export_scorer(table(name), folder / f"{name}.pt2")
        else:
            export_top_n(result, folder / f"{name}.pt2", 4, exclude=name)  # type: ignore[arg-type]
        np.savez(folder / "elsewhere" / f"{name}.npz", **given)
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", ELSEWHERE, *inputs],
        cwd=folder / "elsewhere", capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    ran = {}
    for name in inputs:
        with np.load(folder / "elsewhere" / f"{name}.out.npz") as out:
            ran[name] = [out[part] for part in out.files], said[name]
    return ran


@pytest.mark.parametrize("model", ["plain", "biased"])
def test_the_scorer_runs_without_the_project(elsewhere: Ran, model: str) -> None:
    (mine,), said = elsewhere[model]
    result = table(model)
    gold = by_hand.predict(result.params, USERS, ITEMS)
    assert mine.dtype == gold.dtype
    np.testing.assert_allclose(mine, gold, rtol=1e-14)
    users, items = f"users must lie in 0..{M - 1}", f"items must lie in 0..{N - 1}"
    assert [text.partition(";")[0] for text in said["refused"]] == [users] * 4 + [items] * 4
    assert said["sizes"] == [0, 1, 5]
    facts, catalogue = said["facts"], result.catalogue
    assert facts["user_ids"] == catalogue.user_ids.raw.tolist() and facts["item_ids"] == catalogue.item_ids.raw.tolist()
    assert (facts["kind"], facts["mean"]) == ("scorer", catalogue.mean)


@pytest.mark.parametrize("exclude", ["seen", "mask", "nothing"])
def test_the_lists_run_without_the_project(elsewhere: Ran, exclude: str) -> None:
    (items, values), said = elsewhere[exclude]
    result = table()
    gold = recommend.top_n(result.params, result.catalogue, ASKED, 4, with_seen=exclude == "nothing")
    assert np.array_equal(items, gold[0])
    np.testing.assert_allclose(values, gold[1], rtol=1e-12)
    assert [text.partition(";")[0] for text in said["refused"]] == [f"users must lie in 0..{M - 1}"] * 4
    assert said["sizes"] == [0, 1, 5]
    assert (said["facts"]["n"], said["facts"]["exclude"]) == (4, exclude)


@pytest.mark.parametrize("at_once", [1, 3 * N, 1 << 23])
@pytest.mark.parametrize("with_seen", [False, True])
@pytest.mark.parametrize("n", [1, 4, N, N + 5])
@pytest.mark.parametrize("kind", ["plain", "biased", "ties"])
def test_lists_in_blocks_are_the_hand_written_ones(
    monkeypatch: pytest.MonkeyPatch, kind: str, n: int, with_seen: bool, at_once: int
) -> None:
    monkeypatch.setattr(on_device, "_SCORES_AT_ONCE", at_once)
    result = table("plain" if kind == "plain" else "biased")
    params, catalogue = tied(result.catalogue) if kind == "ties" else (result.params, result.catalogue)
    users = ASKED.astype(np.int32)
    items, values = top_n(MatrixFactorization(params), catalogue, users, n, with_seen=with_seen)
    gold = recommend.top_n(params, catalogue, users, n, with_seen=with_seen)
    assert np.array_equal(items, gold[0]) and items.dtype == gold[0].dtype
    np.testing.assert_allclose(values, gold[1], rtol=1e-12)
    for row, user in enumerate(users[:5]):
        wanted = [i for i, _ in brute(params, catalogue, int(user), n, with_seen)]
        assert items[row, : len(wanted)].tolist() == wanted


def test_the_best_of_scores_that_tie_come_from_the_left() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (200, 37)).astype(float)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    for k in (1, 2, 10, 36, 37):
        items, found = best_first(torch.tensor(scores), k)
        gold = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        assert np.array_equal(items.numpy(), gold)
        assert np.array_equal(found.numpy(), np.take_along_axis(scores, gold, axis=1))


def test_nobody_and_wrong_arguments() -> None:
    result = table()
    model = MatrixFactorization(result.params)
    items, values = top_n(model, result.catalogue, np.empty(0, np.int64), 3)
    assert items.shape == values.shape == (0, 3) and values.dtype == np.float64
    with pytest.raises(ValueError, match="n is 0"):
        top_n(model, result.catalogue, np.array([0]), 0)
    with pytest.raises(IndexError, match=r"outside 0\.\.13"):
        top_n(model, result.catalogue, np.array([-1]), 3)
    with pytest.raises(RuntimeError, match=r"users must lie in 0\.\.13"):
        TopN(model, 3)(torch.tensor([14]))
    # Nobody rated anything: nothing is left out, and no list of seen items is empty by accident.
    nothing = type(result.catalogue.seen)(np.zeros(M + 1, np.int64), np.empty(0, np.int32), None)
    seen, _ = TopN(model, 3, seen=nothing)(torch.tensor([2]))
    assert torch.equal(seen, TopN(model, 3)(torch.tensor([2]))[0])


def test_what_is_exported_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    result = table()
    with pytest.raises(ConfigError, match=r"exclude is 'sen'.* Did you mean 'seen'"):
        export_top_n(result, tmp_path / "a.pt2", exclude="sen")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n is 0"):
        export_top_n(result, tmp_path / "a.pt2", 0)
    with pytest.raises(FileNotFoundError, match="make it first"):
        export_scorer(result, tmp_path / "no" / "a.pt2")
    assert list(tmp_path.iterdir()) == []


def test_an_older_program_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pt2").write_bytes(b"old")

    def fails(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files, "_flush", fails)
    with pytest.raises(OSError, match="disk full"):
        export_scorer(table(), tmp_path / "a.pt2")
    assert (tmp_path / "a.pt2").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt2"]


def test_no_folder_of_this_checkout_is_in_a_program(tmp_path: Path) -> None:
    export_scorer(table(), tmp_path / "a.pt2")
    assert str(Path(__file__).parents[1]).encode() not in (tmp_path / "a.pt2").read_bytes()


def test_compiled_inference_is_the_plain_one_and_refuses_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests check shapes by a wrapper that torch cannot compile.
    monkeypatch.setattr(MatrixFactorization, "forward", inspect.unwrap(MatrixFactorization.forward))
    result = table()
    scorer = Scorer(MatrixFactorization(result.params).requires_grad_(False))
    users, items = torch.as_tensor(USERS), torch.as_tensor(ITEMS)
    compiled = torch.compile(scorer, fullgraph=True, dynamic=True)
    np.testing.assert_allclose(compiled(users, items), by_hand.predict(result.params, USERS, ITEMS), rtol=1e-14)
    for bad in (-1, N, 2**40):
        with pytest.raises(RuntimeError, match=rf"items must lie in 0\.\.{N - 1}"):
            compiled(users[:3], torch.tensor([0, bad, 1]))


def test_the_command_writes_programs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from mf_torch.__main__ import app

    result = table(text=True)
    model = str(tmp_path / "m.safetensors")
    result.save(model)
    target = str(tmp_path / "s.pt2")
    assert run(app, ["export", model, "-o", target]) == 0
    assert capsys.readouterr().out == f"users (B,), items (B,) → ratings (B,), saved to {target}\n"
    mine = torch.export.load(target).module()(torch.tensor([3]), torch.tensor([6]))
    assert mine.item() == pytest.approx(result.predict([103], ["item 6"]).values[0], rel=1e-14)
    assert run(app, ["export", model, "-o", target, "--top-n", "3", "--exclude", "mask"]) == 0
    assert "users (B,), excluded (B, 11) → items (B, 3), predictions (B, 3)" in capsys.readouterr().out
    for tokens, said in (
        (["--exclude", "seen"], "give --top-n"),
        (["--top-n", "3", "--exclude", "al"], "must be one of 'seen', 'mask', 'nothing'"),
        (["--top-n", "0"], "--top-n"),
        (["-o", str(tmp_path / "no" / "a")], "does not exist"),
    ):
        assert run(app, ["export", model, *tokens]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.cuda
def test_lists_on_the_gpu() -> None:
    result = table()
    users = np.arange(M)
    items, values = top_n(MatrixFactorization(result.params, "cuda"), result.catalogue, users, 4)
    gold = recommend.top_n(result.params, result.catalogue, users, 4)
    assert np.array_equal(items, gold[0])
    np.testing.assert_allclose(values, gold[1], rtol=1e-12)
