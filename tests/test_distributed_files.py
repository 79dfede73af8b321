"""What a fit on several processes reads and writes: data sets in parts, starts, checkpoints; and its command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mf_numpy
from mf_numpy import Config, ConfigError, DataError, Ratings, Split
from mf_numpy.check import relative_difference
from mf_numpy.errors import FileFormatError
from mf_numpy.readers import from_frame

pytest.importorskip("pyarrow")
pytest.importorskip("safetensors")

from mf_numpy import store
from mf_torch import distributed
from mf_torch.distributed import checkpoint, shard, start
from mf_torch.distributed.group import Group
from mf_torch.distributed.partition import cut, partition
from tests.test_distributed import BROKEN, FORMS, FULL, PARTS, SINGLE, fitted, folder

__all__ = ["folder"]


# A data set in parts


def _alone(rank: int, size: int) -> Group:
    """What a process knows of a group, for work in which it asks nobody."""
    group = Group()
    group.rank, group.size = rank, size
    return group


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 40])
def test_parts_hold_about_as_many_ratings_each_and_a_user_at_least(parts: int) -> None:
    rng = np.random.default_rng(8)
    for counts in (np.ones(40, int), rng.geometric(0.05, 40), np.array([5000] + [1] * 39), np.array([0] * 39 + [9])):
        begins = cut(counts, parts)
        assert begins[0] == 0 and begins[-1] == 40 and (np.diff(begins) >= 1).all()
        held = np.add.reduceat(counts, begins[:-1])
        # A user is not divided, and every part has one.
        assert held.max() <= counts.sum() / parts + counts.max()


def test_a_process_opens_its_own_parts_and_no_other(small: Split, folder: Path, tmp_path: Path) -> None:
    whole = small.train.csr
    for rank in range(3):
        mine = tmp_path / str(rank)
        for file in folder.rglob("*.*"):
            target = mine / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            part = int(file.parent.name.partition("=")[2] or -1)
            # What is not its own is not even Parquet.
            target.write_bytes(file.read_bytes() if part in (-1, 2 * rank, 2 * rank + 1) else b"not yours")
        found = shard._own(mine, _alone(rank, 3))
        low, high = whole.indptr[found.users.start], whole.indptr[found.users.stop]
        assert np.array_equal(found.ratings.items, whole.indices[low:high])
        assert np.array_equal(found.ratings.values, whole.arranged(small.train.values)[low:high])
        users = np.repeat(np.arange(len(found.users)), small.train.user_counts[found.users.start : found.users.stop])
        assert np.array_equal(found.ratings.users, users)
        assert found.n_ratings == len(small.train) and found.mean == small.train.mean
        assert np.array_equal(found.item_counts, small.train.item_counts)


def test_rows_in_any_order_are_put_into_that_of_a_single_process(small: Split, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    partition(small.train, tmp_path / "parts", parts=12)
    file = tmp_path / "parts/ratings/part=10/data.parquet"
    table = pq.read_table(file)
    # Stably by item: a user's ratings keep their order, and the users lose theirs.
    order = np.argsort(table["user"].to_numpy() % 2, kind="stable")
    pq.write_table(table.take(order), file)
    found = shard.read(tmp_path / "parts", Group())
    assert np.array_equal(found.ratings.items, small.train.csr.indices) and found.valid is None


def _drop(path: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / path).unlink()

    return damage


def _say(**facts: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        (folder / "manifest.json").write_text(json.dumps(manifest | facts), encoding="utf-8")

    return damage


def _column(path: str, name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(folder / path)
        columns = {key: table[key].to_numpy() for key in table.column_names}
        columns[name] = change(columns[name].copy())
        pq.write_table(pa.table(columns), folder / path)

    return damage


def _second_to(value: Any) -> Callable[[Any], Any]:
    def change(x: Any) -> Any:
        x[1] = value
        return x

    return change


_RATINGS = "ratings/part=1/data.parquet"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            _drop("manifest.json"),
            "holds no manifest.json; give a folder that `python -m mf_torch.distributed partition`",
        ),
        (_drop("items.parquet"), r"items.parquet' is missing; copy it there"),
        (_drop(_RATINGS), r"says [\d,]+ ratings in parts 0 to 5, but has [\d,]+; partition the ratings again"),
        (_say(version=9), "is of format 'mf-parts', version 9, but 'mf-parts', version 1, is read here"),
        (_say(n_ratings=9), "do not add up to its users and ratings"),
        (_say(n_users=9), "do not add up to its users and ratings"),
        (_say(parts=[{}]), r"is damaged \('users'\)"),
        (_say(mean=3.5), "says mean 3.5, but it is "),
        (_column("items.parquet", "count", _second_to(0)), r"gives item 1 0 ratings, but the parts have \d+"),
        (_column("users/part=2/data.parquet", "count", _second_to(0)), "other numbers of ratings than 'users' says"),
        (_column(_RATINGS, "item", _second_to(60)), r"have a item outside 0\.\.59"),
        (_column(_RATINGS, "user", _second_to(-1)), r"have a user outside 0\.\.119"),
        (_column(_RATINGS, "rating", _second_to(np.nan)), "are not all finite; drop those first"),
        (lambda folder: (folder / _RATINGS).write_bytes(b"PAR1 but no table"), "cannot be read"),
    ],
)
def test_a_data_set_that_does_not_add_up_is_refused(
    small: Split, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    partition(small.train, tmp_path / "parts", parts=PARTS)
    damage(tmp_path / "parts")
    with pytest.raises(DataError, match=said):
        shard.read(tmp_path / "parts", Group())


def test_processes_that_do_not_divide_the_parts_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="4 processes came for 6 parts; start 1, 2, 3, 6 of them, or partition"):
        shard._own(folder, _alone(0, 4))


def test_what_partition_does_not_take(small: Split, folder: Path, tmp_path: Path) -> None:
    for parts in (0, 121):
        with pytest.raises(ConfigError, match=f"parts is {parts}, but must be between 1 and the 120 users"):
            partition(small.train, tmp_path / "parts", parts=parts)
    with pytest.raises(ConfigError, match="is there already; give the name of a new folder"):
        partition(small.train, folder, parts=2)
    with pytest.raises(DataError, match="no training ratings"):
        partition(small.train.take(np.arange(0)), tmp_path / "parts", parts=2)
    assert list(tmp_path.iterdir()) == []


def test_text_ids_titles_and_scale_come_back(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"user": list("cab"), "item": ["x", "y", "x"], "rating": [1.0, 2.0, 5.0]})
    info = pd.DataFrame({"title": ["A title"]}, index=pd.Index(["y"]))
    ratings = from_frame(frame, scale=(1, 5), item_info=info)
    partition(ratings, tmp_path / "parts", parts=3)
    found = fitted(tmp_path / "parts", Config(n_factors=2, n_epochs=2)).catalogue
    assert found.user_ids == ratings.user_ids and found.item_ids == ratings.item_ids
    assert found.scale == (1.0, 5.0) and found.titles is not None and found.titles.tolist() == ["", "A title"]


# The start


@pytest.mark.parametrize("init", ["normal", "uniform", "truncated_normal", "mean"])
def test_a_start_in_pieces_has_the_bits_of_the_whole(monkeypatch: pytest.MonkeyPatch, init: Any) -> None:
    monkeypatch.setattr(start, "_AT_ONCE", 7)
    ratings = Ratings.of_indices([0, 40], [0, 30], [2.0, 4.0])
    model: Any = "plain" if init == "mean" else "biased"
    for seed in range(3):
        config = Config(n_factors=3, init=init, model=model, seed=seed, dtype="float64")
        gold = mf_numpy.init(ratings, config).params
        for users, items in ((range(41), range(31)), (range(5, 17), range(30, 31)), (range(40, 41), range(0))):
            mine = start.start(ratings.shape, ratings.mean, config, users, items)
            assert np.array_equal(mine.P, gold.P[users.start : users.stop]) and mine.mu == gold.mu
            assert np.array_equal(mine.Q, gold.Q[items.start : items.stop])
            assert mine.b is None or len(mine.b) == len(users)


# Checkpoints, one process


def _points(path: Path) -> list[str]:
    return sorted(place.name for place in path.iterdir())


@pytest.fixture
def written(folder: Path, tmp_path: Path) -> Path:
    """Checkpoints after epochs 6 and 8."""
    fitted(folder, replace(Config(**SINGLE), n_epochs=8), checkpoint=tmp_path / "points", checkpoint_every=2)
    assert _points(tmp_path / "points") == ["epoch-00000006", "epoch-00000008"]
    return tmp_path / "points"


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest's name", "none"])
def test_a_checkpoint_is_read_when_it_is_whole(folder: Path, written: Path, damage: str) -> None:
    last = written / "epoch-00000008"
    if damage != "none":
        (last / "manifest.json").rename(last / ".manifest.json.1.tmp")
    if damage == "no manifest":
        (last / ".manifest.json.1.tmp").unlink()
        # A file that was being written when its process was killed.
        (last / "users-0-of-1.safetensors").write_bytes(b"\0" * 100)
    straight = fitted(folder, Config(**SINGLE))
    seen: list[int] = []
    resumed = fitted(
        folder, Config(**SINGLE), checkpoint=written, checkpoint_every=50, callback=lambda r: seen.append(r.epoch)
    )
    assert seen[0] == (9 if damage == "none" else 7)
    for key, theta in straight.params.tensors().items():
        assert np.array_equal(resumed.params.tensors()[key], theta)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("users-0-of-1.safetensors", lambda b: b[:-8], r"has \d+ bytes, not \d+; take that folder away"),
        ("items-0-of-1.safetensors", lambda b: b"\xff" * len(b), "is damaged: .*; take that folder away"),
        ("items-0-of-1.safetensors", None, "is damaged: .*; take that folder away"),
        ("manifest.json", lambda b: b[:-9], "is damaged: .*; take that folder away"),
        (
            "manifest.json",
            lambda b: b.replace(b'"version": 1', b'"version": 2'),
            "version 2, but 'mf-checkpoint', version",
        ),
    ],
)
def test_a_damaged_checkpoint_is_named(
    folder: Path, written: Path, name: str, change: Callable[[bytes], bytes] | None, said: str
) -> None:
    file = written / "epoch-00000008" / name
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change(file.read_bytes()))
    with pytest.raises(FileFormatError, match=said):
        fitted(folder, Config(**SINGLE), checkpoint=written)


def test_checkpoints_of_another_fit_are_refused(folder: Path, written: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoints of another fit: lr was 5\.0 and is now 4\.0; keep it, or"):
        fitted(folder, replace(Config(**SINGLE), lr=4.0), checkpoint=written)
    with pytest.raises(ConfigError, match="shard_items was False and is now True"):
        fitted(folder, Config(**SINGLE), checkpoint=written, shard_items=True)


def test_a_point_that_failed_half_way_leaves_the_one_before(
    folder: Path, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="no space left"):
        fitted(folder, Config(**SINGLE), checkpoint=written, checkpoint_every=3)
    monkeypatch.undo()
    seen: list[int] = []
    fitted(folder, Config(**SINGLE), checkpoint=written, callback=lambda r: seen.append(r.epoch))
    assert seen[0] == 9


# The loop and the command line


def test_a_divergence_keeps_finite_parameters_and_says_so(small: Split, folder: Path) -> None:
    config = replace(Config(**FULL), lr=500.0)
    gold = mf_numpy.fit(small.train, config, valid=small.valid, backend="numpy")
    for sharded in FORMS.values():
        mine = fitted(folder, config, shard_items=sharded)
        assert (mine.status, mine.message) == (gold.status, gold.message)
        assert len(mine.history) == len(gold.history)
        for key, theta in gold.params.tensors().items():
            assert relative_difference(mine.params.tensors()[key], theta) <= 1e-6


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Config(solver="als"), "solver 'als' came, but several processes take the full gradient alone"),
        (Config(average_from=3), "average_from is 3, but several processes average none; leave it out"),
        (Config(step_rule="adam"), "step_rule is 'adam', but several processes take 'momentum' alone"),
        (Config(batch_size=10), "batch_size 10 came"),
        (Config(patience=3), "patience is set, but the parts hold no pairs to watch"),
    ],
)
def test_settings_that_several_processes_do_not_have(small: Split, tmp_path: Path, config: Config, said: str) -> None:
    partition(small.train, tmp_path / "parts", parts=2)
    with pytest.raises(ConfigError, match=said):
        distributed.fit(tmp_path / "parts", config)
    with pytest.raises(ConfigError, match="device is 'cuda:1', but must be 'cpu' or 'cuda', which is each"):
        distributed.fit(tmp_path / "parts", device="cuda:1")
    with pytest.raises(ConfigError, match="checkpoint_every is 0, but must be 1 or larger"):
        distributed.fit(tmp_path / "parts", checkpoint_every=0)


def test_without_gathering_a_process_has_its_share(folder: Path) -> None:
    share = distributed.fit(folder, Config(**BROKEN), gather=False)
    assert isinstance(share, distributed.Share)
    assert (share.users, share.items, share.epoch) == (range(120), range(60), 6)
    assert share.params is share.last and share.velocity is not None
    gold = fitted(folder, Config(**BROKEN))
    assert np.array_equal(share.params.P, gold.params.P)


def test_the_command_line_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cyclopts")
    from mf_torch.distributed.__main__ import main

    monkeypatch.chdir(tmp_path)
    assert main(["partition", "planted", "parts", "--parts", "4", "--valid", "0.2"]) == 0
    assert "written to parts in 4 parts" in capsys.readouterr().out
    quick = ["--n-factors", "2", "--n-epochs", "4"]
    assert main(["fit", "parts", *quick, "--output", "model.safetensors", "--checkpoint", "points"]) == 0
    out = capsys.readouterr().out
    assert "epoch 4/4" in out and "valid RMSE" in out and "saved to model.safetensors" in out
    assert store.load("model.safetensors").details == {"processes": 1, "shard_items": False}
    # Another process of a group says nothing, and ends with the same code.
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert main(["fit", "nowhere", *quick]) == 2
        assert len(capsys.readouterr().err.splitlines()) == lines
    monkeypatch.setenv("RANK", "0")
    assert main(["fit", "parts", *quick, "--lr", "3", "--checkpoint", "points"]) == 2
    assert "error: 'points' has checkpoints of another fit: lr was " in capsys.readouterr().err
    assert main(["fit", "parts", *quick, "--output", "no/such/folder.safetensors"]) == 2
    assert "does not exist; make it first" in capsys.readouterr().err
    assert main(["fit", "parts", "--n-epochs", "9", "--lr", "1e9"]) == 1
    assert "diverged: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the checkpoints in 'points' stay"),
        (RuntimeError("Connection closed by peer"), 1, "process 0 ends because another is gone (Connection closed"),
    ],
)
def test_an_interrupted_fit_says_what_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException, code: int, said: str
) -> None:
    pytest.importorskip("cyclopts")
    from mf_torch.distributed.__main__ import main

    def fails(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(distributed, "fit", fails)
    assert main(["fit", "parts", "--checkpoint", "points"]) == code
    assert said in capsys.readouterr().err
