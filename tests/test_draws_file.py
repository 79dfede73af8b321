"""Draws in a file of their own: the same bits as in memory, no room for them, and nothing half-written."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mf_numpy
import mf_torch
from mf_numpy import Config, ConfigError, FileFormatError, FitResult, draws_file, store
from mf_numpy.design import Design
from mf_numpy.features import Features, design_of
from mf_numpy.split import Split, random_split
from tests.cli_fixtures import Run
from tests.test_gibbs import _ratings

NAME = "chain.draws"


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(_ratings(), valid=0.2, seed=1)


@pytest.fixture(scope="module")
def design(split: Split) -> Design:
    return design_of(split.train, users=Features().id().rated())


def _config(**settings: Any) -> Config:
    return Config(**{"solver": "gibbs", "n_factors": 3, "n_epochs": 9, "burn_in": 2, "dtype": "float64", **settings})


def _asked(result: FitResult, split: Split) -> list[Any]:
    """The bits of all that is asked of a model of draws."""
    users, items = result.catalogue.user_ids.raw[:5], result.catalogue.item_ids.raw[:5]
    between = result.interval(users, items)
    of_features = result.of_features.tensors() if result.of_features is not None else {}
    rankings = result.score_ranking(split.valid).values
    return [
        {name: x.tobytes() for name, x in result.params.tensors().items()},
        {name: x.tobytes() for name, x in of_features.items()},
        {name: x.tobytes() for name, x in result.state.params.tensors().items()},
        result.predict(users, items).values.tobytes(),
        [x.tobytes() for x in (between.mean, between.low, between.high, between.spread)],
        result.recommend(users[0], with_seen=True).to_numpy().tobytes(),
        result.similar_items(items[0]).to_numpy().tobytes(),
        result.score(split.valid),
        {name: x.tobytes() for name, x in rankings.items()},
        [(r.objective, r.train_rmse, r.valid_rmse) for r in result.history],
    ]


def _is_mapped(array: Any) -> bool:
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array is not None


CHAINS: list[tuple[Callable[..., FitResult], dict[str, Any], bool]] = [
    (mf_numpy.fit, {"dtype": "float32"}, False),
    (mf_numpy.fit, {"model": "plain", "thin": 3}, False),
    (mf_numpy.fit, {}, True),
    (mf_numpy.fit, {"solver": "hmc", "n_factors": 2}, False),
    (mf_numpy.fit, {"loss": "ordinal", "dtype": "float32"}, False),
    (mf_numpy.fit, {"loss": "ordinal", "chain_length": 5}, True),
    (mf_torch.fit, {"dtype": "float32"}, False),
    (mf_torch.fit, {"model": "plain"}, True),
    (mf_torch.fit, {"loss": "ordinal"}, True),
    (mf_torch.fit, {"solver": "hmc", "dtype": "float32"}, False),
]


@pytest.mark.parametrize(("fit", "settings", "designed"), CHAINS)
def test_predictions_are_bit_for_bit_those_of_draws_in_memory(
    fit: Any,
    settings: dict[str, Any],
    designed: bool,
    split: Split,
    design: Design,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A few rows are arranged at once, and not all.
    monkeypatch.setattr(draws_file, "_BYTES_AT_ONCE", 1500)
    how = {"valid": split.valid, "design": design if designed else None}
    in_memory = fit(split.train, _config(**settings), **how)
    on_disk = fit(split.train, _config(**settings), **how, draws_to=tmp_path / NAME)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    store.save(on_disk, tmp_path / "model.safetensors")
    again = store.load(tmp_path / "model.safetensors")
    gold = _asked(in_memory, split)
    for result in (on_disk, again):
        assert _asked(result, split) == gold
        assert all(map(_is_mapped, (result.params.P, result.params.Q)))
        draws, one = result.state.draws, in_memory.state.draws
        assert draws is not None and one is not None and draws.precisions == one.precisions
        for mine, theirs in zip(draws.points, one.points, strict=True):
            assert all(_is_mapped(x) for x in mine.tensors().values())
            assert {k: x.tobytes() for k, x in mine.tensors().items()} == {
                k: x.tobytes() for k, x in theirs.tensors().items()
            }
    assert (tmp_path / "model.safetensors").stat().st_size < 40_000


def test_memory_does_not_grow_with_the_number_of_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws_file, "_BYTES_AT_ONCE", 1 << 16)
    train = _ratings(700, 700, 3000)
    design = Design.identity(train)
    users, items = train.user_ids.raw[:2], train.item_ids.raw[:2]

    def ask(count: int, path: Path | None, **how: Any) -> None:
        result = mf_numpy.fit(train, _config(n_epochs=count, burn_in=0), draws_to=path, **how)
        if path is not None:
            result.save(path.with_suffix(".model"))
            result = store.load(path.with_suffix(".model"))
        result.predict(users, items)
        result.interval(users, items)
        result.recommend(users[0])

    def peak(count: int, path: Path | None, **how: Any) -> int:
        tracemalloc.start()
        try:
            ask(count, path, **how)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = 10, 60
    size = (many - few) * 1400 * 4 * 8
    # Kernels and whatever else is made once.
    ask(1, None)
    ask(1, None, design=design)
    assert peak(many, None) - peak(few, None) > size
    assert peak(many, tmp_path / "many") - peak(few, tmp_path / "few") < size / 8
    assert peak(many, tmp_path / "most", design=design) - peak(few, tmp_path / "least", design=design) < size / 8


def test_a_chain_goes_on_from_its_file(split: Split, tmp_path: Path) -> None:
    straight = _asked(mf_numpy.fit(split.train, _config(), valid=split.valid), split)
    for at, (first, second) in enumerate(((True, True), (False, True), (True, False))):
        half = mf_numpy.fit(
            split.train, _config(n_epochs=5), valid=split.valid, draws_to=tmp_path / f"half{at}" if first else None
        )
        store.save(half, tmp_path / "model")
        whole = mf_numpy.fit(
            split.train,
            _config(),
            valid=split.valid,
            resume=store.load(tmp_path / "model"),
            draws_to=tmp_path / f"whole{at}" if second else None,
        )
        assert _asked(whole, split) == straight


def test_an_interrupted_chain_keeps_its_whole_epochs(split: Split, tmp_path: Path) -> None:
    def interrupt(record: Any) -> None:
        if record.epoch == 6:
            raise KeyboardInterrupt

    short = mf_numpy.fit(split.train, _config(n_epochs=6), valid=split.valid)
    stopped = mf_numpy.fit(split.train, _config(), valid=split.valid, callback=interrupt, draws_to=tmp_path / NAME)
    assert stopped.status == "stopped" and len(stopped.state.draws or ()) == 4
    assert _asked(stopped, split) == _asked(short, split)
    assert len(draws_file.read(tmp_path / NAME)) == 4


def test_a_failed_fit_leaves_nothing(split: Split, tmp_path: Path) -> None:
    def fail(record: Any) -> None:
        assert record.epoch < 6

    with pytest.raises(AssertionError):
        mf_numpy.fit(split.train, _config(), callback=fail, draws_to=tmp_path / NAME)
    assert not list(tmp_path.iterdir())
    # Nor does a chain that ends before it keeps anything.
    assert not mf_numpy.fit(split.train, _config(n_epochs=2), draws_to=tmp_path / NAME).state.draws
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
import numpy as np
from mf_numpy import Config, Ratings, fit
def kill(record):
    if record.epoch == 5:
        os.kill(os.getpid(), signal.SIGKILL)
train = Ratings.of_indices([1, 0, 0], [1, 0, 1], [3.0, 4.0, 1.0])
fit(train, Config(solver="gibbs", n_factors=2, burn_in=1), backend="loops", callback=kill, draws_to=sys.argv[1])
"""


def test_a_killed_fit_leaves_nothing(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / NAME)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Some draws fit one behind the other, or all of them do, but not the file that they are to make.
    for room in (5000, 15_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            with pytest.raises(OSError, match=r"cannot write draws for '.*chain\.draws': .*; make room on the disk"):
                mf_numpy.fit(split.train, _config(), draws_to=tmp_path / NAME)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not list(tmp_path.iterdir())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"7 draws take 0\.0 GiB, but the disk of .* has 0\.0 GiB free; make room"):
        mf_numpy.fit(split.train, _config(), draws_to=tmp_path / NAME)


def test_where_draws_cannot_go(split: Split, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"mine")
    for path, error, said in (
        (tmp_path / NAME, FileExistsError, "exists already; delete it, or give the draws another name"),
        (tmp_path, FileExistsError, "exists already"),
        (tmp_path / "no" / NAME, FileNotFoundError, "make it first"),
    ):
        with pytest.raises(error, match=said):
            mf_numpy.fit(split.train, _config(), draws_to=path)
    assert (tmp_path / NAME).read_bytes() == b"mine"
    for fit in (mf_numpy.fit, mf_torch.fit):
        with pytest.raises(ConfigError, match=r"with solver 'gd', which draws nothing; leave it out, or take 'gibbs'"):
            fit(split.train, Config(n_epochs=1), draws_to=tmp_path / "new")


@pytest.fixture
def model(split: Split, tmp_path: Path) -> Path:
    result = mf_numpy.fit(split.train, _config(), draws_to=tmp_path / NAME)
    store.save(result, tmp_path / "model")
    with pytest.raises(FileExistsError, match="is the file of the model's draws; save the model under another name"):
        store.save(result, tmp_path / NAME)
    return tmp_path / "model"


def test_the_draws_are_found_where_they_are(model: Path, tmp_path: Path) -> None:
    gold = store.load(model).params.P.tobytes()
    (tmp_path / "there").mkdir()
    for name in ("model", NAME):
        (tmp_path / name).rename(tmp_path / "there" / name)
    assert store.load(tmp_path / "there" / "model").params.P.tobytes() == gold
    (tmp_path / "there" / NAME).rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"chain\.draws', which does not exist; put it back there, or in "):
        store.load(tmp_path / "there" / "model")
    moved = store.load(tmp_path / "there" / "model", draws=tmp_path / "moved")
    assert moved.params.P.tobytes() == gold
    # Its place is that of where it was found.
    store.save(moved, tmp_path / "again")
    assert store.load(tmp_path / "again").params.P.tobytes() == gold


def test_other_files_are_no_draws_of_the_model(model: Path, split: Split, tmp_path: Path) -> None:
    in_memory = mf_numpy.fit(split.train, _config())
    store.save(in_memory, tmp_path / "other")
    with pytest.raises(ConfigError, match="has none in another file; leave it out"):
        store.load(tmp_path / "other", draws=tmp_path / NAME)
    (tmp_path / "table").write_text("user,item,rating\n")
    for name in ("other", "table"):
        with pytest.raises(FileFormatError, match="is not a file of draws; give one that fit"):
            store.load(model, draws=tmp_path / name)
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-9])
    with pytest.raises(FileFormatError, match="cut' is truncated"):
        store.load(model, draws=tmp_path / "cut")
    (tmp_path / "newer").write_bytes(whole.replace(b'"version": "1"', b'"version": "2"', 1))
    with pytest.raises(FileFormatError, match=r"format version 2.*reads up to 1; upgrade"):
        store.load(model, draws=tmp_path / "newer")
    (tmp_path / "less").write_bytes(whole.replace(b'"mean.Q"', b'"mean.R"', 1))
    with pytest.raises(FileFormatError, match=r"less' is damaged: it lacks 'mean\.Q'; fit the model again"):
        store.load(model, draws=tmp_path / "less")
    mf_numpy.fit(split.train, _config(n_epochs=8), draws_to=tmp_path / "fewer")
    with pytest.raises(FileFormatError, match=r"its P has shape \[39, 6, 3\], not \[39, 7, 3\]; give the file of its"):
        store.load(model, draws=tmp_path / "fewer")
    mf_numpy.fit(split.train, _config(seed=1), draws_to=tmp_path / "another")
    with pytest.raises(FileFormatError, match=r"another' has draws of another fit than .*model'; give the file of its"):
        store.load(model, draws=tmp_path / "another")


def test_on_the_command_line(mf: Run, data: str) -> None:
    how = ["fit", data, "--solver", "gibbs", "--burn-in", "2", "--n-epochs", "8", "--n-factors", "3"]
    assert mf(*how, "--backend", "loops", "-o", "one")[0] == 0
    assert mf(*how, "--backend", "loops", "-o", "two", "--draws", NAME)[0] == 0
    assert mf("predict", "one", "1", "2") == mf("predict", "two", "1", "2")
    assert mf("recommend", "one", "3") == mf("recommend", "two", "3")
    for more, said in (
        (["--draws", NAME], "exists already; delete it, or give the draws another name"),
        (["--draws", "x", "-o", "x"], "output and draws are both 'x'; give the draws a name of their own"),
    ):
        code, _, err = mf(*how, *more)
        assert code == 2 and said in err, err
    code, _, err = mf("fit", data, "--solver", "als", "--draws", "x")
    assert code == 2 and "with solver 'als', which draws nothing; leave it out" in err
    on = ["fit", data, "--resume", "two", "--n-epochs", "9", "-o", "three"]
    assert f"{NAME}, and go on in memory; to keep them on disk give --draws NEW_FILE" in mf(*on)[2]
    assert mf(*on, "--draws", "further")[2] == ""
