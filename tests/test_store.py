"""A saved model is the model: every number, name and record, and the way it goes on training."""

from __future__ import annotations

import json
import os
import pickle
import stat
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from mf_numpy import Config, FileFormatError, FitResult, IdMap, Ratings, Split, fit, random_split, store
from mf_numpy.result import EpochRecord


def table(*, text: bool = False, titles: bool = True) -> Ratings:
    rng = np.random.default_rng(3)
    pairs = rng.choice(30 * 20, 260, replace=False)
    users, items = pairs // 20, pairs % 20
    users[:30], items[:20] = np.arange(30), np.arange(20)
    user_ids = IdMap(np.array([f"ü{i}" for i in range(30)], dtype=object) if text else np.arange(30) * 7 - 3)
    item_ids = IdMap(np.array(["", *[f"作品 {i}" for i in range(19)]], dtype=object) if text else np.arange(20) + 2**40)
    info = pd.DataFrame({"title": [f"Títle {i}" for i in range(18)]}, index=pd.Index(item_ids.raw[:18]))
    noise, user_bias, item_bias = rng.normal(0, 0.3, 260), rng.normal(0, 1, 30), rng.normal(0, 1, 20)
    return Ratings(
        users,
        items,
        np.clip(3 + user_bias[users] + item_bias[items] + noise, 1, 5),
        user_ids,
        item_ids,
        scale=(1, 5),
        item_info=info if titles else None,
    )


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(table(), valid=0.2, seed=1)


CONFIG = Config(n_factors=3, n_epochs=6, lr=5.0)


def same_arrays(a: dict[str, Any] | None, b: dict[str, Any] | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and a[k].tobytes() == b[k].tobytes() for k in a)


def untimed(history: tuple[EpochRecord, ...]) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in history]


def assert_same(a: FitResult, b: FitResult) -> None:
    assert same_arrays(a.params.tensors(), b.params.tensors())
    assert same_arrays(a.state.params.tensors(), b.state.params.tensors())
    assert same_arrays(a.state.velocity, b.state.velocity)
    assert a.params.mu == b.params.mu == b.state.params.mu
    assert a.state.epoch == b.state.epoch
    assert (a.config, a.history, a.status, a.message) == (b.config, b.history, b.status, b.message)
    assert (a.backend, a.device) == (b.backend, b.device)
    left, right = a.catalogue, b.catalogue
    assert left.user_ids == right.user_ids
    assert left.item_ids == right.item_ids
    assert left.user_ids.raw.dtype == right.user_ids.raw.dtype
    assert (left.mean, left.scale) == (right.mean, right.scale)
    assert (left.titles is None) == (right.titles is None)
    if left.titles is not None and right.titles is not None:
        assert left.titles.tolist() == right.titles.tolist()
    assert left.seen.indptr.tobytes() == right.seen.indptr.tobytes()
    assert left.seen.indices.tobytes() == right.seen.indices.tobytes()


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("titles", [False, True])
@pytest.mark.parametrize("patience", [None, 2])
@pytest.mark.parametrize("model", ["plain", "biased"])
def test_round_trip(tmp_path: Path, text: bool, titles: bool, patience: int | None, model: Any) -> None:
    parts = random_split(table(text=text, titles=titles), valid=0.2, seed=1)
    config = replace(
        CONFIG, model=model, lr=60.0, patience=patience, n_epochs=12, lr_schedule=((2, 0.1),), reg=0.1 + 0.2
    )
    result = fit(parts.train, config, valid=parts.valid, backend="numpy")
    result.save(tmp_path / "a.safetensors")
    again = store.load(tmp_path / "a.safetensors")
    assert_same(result, again)
    users, items = result.catalogue.user_ids.raw[:5], result.catalogue.item_ids.raw[:5]
    assert result.predict(users, items).values.tobytes() == again.predict(users, items).values.tobytes()
    pd.testing.assert_frame_equal(result.recommend(users[0]), again.recommend(users[0]))
    assert list(tmp_path.iterdir()) == [tmp_path / "a.safetensors"]


FORMS = [(0.0, "ema"), (0.9, "ema"), (0.5, "heavy_ball"), (0.5, "nesterov")]


@pytest.mark.parametrize("min_delta", [None, 0.0, 0.1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [None, 50])
@pytest.mark.parametrize(("momentum", "form"), FORMS)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_resume_from_a_file_is_the_straight_run(
    tmp_path: Path,
    split: Split,
    backend: Any,
    momentum: float,
    form: Any,
    batch_size: int | None,
    dtype: Any,
    min_delta: float | None,
) -> None:
    config = replace(
        CONFIG,
        n_epochs=12,
        lr=0.5 if batch_size else 2.0,
        momentum=momentum,
        momentum_form=form,
        batch_size=batch_size,
        dtype=dtype,
        patience=None if min_delta is None else 4,
        min_delta=min_delta or 0.0,
        lr_decay=0.97,
    )
    straight = fit(split.train, config, valid=split.valid, backend=backend)
    half = fit(split.train, replace(config, n_epochs=5), valid=split.valid, backend=backend)
    assert half.status == "max_epochs"
    store.save(half, tmp_path / "half")
    resumed = fit(split.train, config, valid=split.valid, backend=backend, resume=store.load(tmp_path / "half"))
    assert same_arrays(straight.params.tensors(), resumed.params.tensors())
    assert same_arrays(straight.state.params.tensors(), resumed.state.params.tensors())
    assert same_arrays(straight.state.velocity, resumed.state.velocity)
    assert untimed(straight.history) == untimed(resumed.history)
    assert (straight.status, straight.message) == (resumed.status, resumed.message)


def test_last_parameters_are_kept_beside_the_best(tmp_path: Path, split: Split) -> None:
    config = replace(CONFIG, lr=60.0, n_epochs=60, patience=2, reg=0.0)
    result = fit(split.train, config, valid=split.valid, backend="numpy")
    assert result.status == "stopped"
    assert not same_arrays(result.params.tensors(), result.state.params.tensors())
    store.save(result, tmp_path / "a")
    assert "last.P" in load_file(tmp_path / "a")
    assert_same(result, store.load(tmp_path / "a"))
    store.save(fit(split.train, CONFIG), tmp_path / "b")
    assert "last.P" not in load_file(tmp_path / "b")


def test_odd_values_survive(tmp_path: Path, split: Split) -> None:
    result = fit(split.train, CONFIG)
    odd = EpochRecord(7, 5e-324, float("inf"), float("nan"), 0.1 + 0.2, 1 / 3)
    params = replace(result.params, P=np.asfortranarray(result.params.P), Q=-0.0 * result.params.Q)
    titles = np.array(["\udcff broken", "", *["ok\0"] * (len(result.catalogue.item_ids) - 2)], dtype=object)
    catalogue = replace(result.catalogue, titles=titles, scale=None)
    store.save(replace(result, history=(odd,), params=params, catalogue=catalogue, message='"\n'), tmp_path / "a")
    again = store.load(tmp_path / "a")
    assert np.array_equal(again.params.P, params.P)
    assert np.signbit(again.params.Q).any()
    assert again.catalogue.titles is not None
    assert again.catalogue.titles.tolist() == titles.tolist()
    assert again.catalogue.scale is None
    assert again.message == '"\n'
    assert str(asdict(again.history[0])) == str(asdict(odd))


def test_a_result_without_epochs(tmp_path: Path, split: Split) -> None:
    result = fit(split.train, replace(CONFIG, n_epochs=0))
    store.save(result, tmp_path / "a")
    assert_same(result, store.load(tmp_path / "a"))


def test_numpy_settings(tmp_path: Path, split: Split) -> None:
    config = replace(CONFIG, n_factors=np.int64(3), lr=np.float32(0.1))  # type: ignore[arg-type]
    store.save(replace(fit(split.train, CONFIG), config=config), tmp_path / "a")
    assert store.load(tmp_path / "a").config == config


@pytest.fixture
def saved(tmp_path: Path, split: Split) -> Path:
    path = tmp_path / "model.safetensors"
    fit(split.train, CONFIG).save(path)
    return path


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["store.save_file", "files._flush", "files.os.replace"])
def test_an_interrupted_save_leaves_the_old_file(
    saved: Path, split: Split, monkeypatch: pytest.MonkeyPatch, failure: BaseException, where: str
) -> None:
    before = saved.read_bytes()

    def fail(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(f"mf_numpy.{where}", fail)
    with pytest.raises(type(failure)):
        store.save(fit(split.train, replace(CONFIG, seed=2)), saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_link_stays_a_link(saved: Path, split: Split) -> None:
    link = saved.with_name("latest")
    link.symlink_to(saved.name)
    result = fit(split.train, replace(CONFIG, seed=2))
    store.save(result, link)
    assert link.is_symlink()
    assert_same(result, store.load(saved))


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_are_the_umask_s(tmp_path: Path, split: Split, umask: int) -> None:
    before = os.umask(umask)
    try:
        store.save(fit(split.train, CONFIG), tmp_path / "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


def test_save_says_where_it_cannot_write(tmp_path: Path, split: Split) -> None:
    result = fit(split.train, CONFIG)
    with pytest.raises(FileNotFoundError, match="make it first"):
        store.save(result, tmp_path / "no" / "a")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        store.save(result, tmp_path)


def test_missing_file_names_the_nearest(saved: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'model\.safetensors'"):
        store.load(saved.with_name("modle.safetensors"))
    with pytest.raises(FileNotFoundError, match="nor does its folder"):
        store.load(saved / "no" / "a")


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"user,item,rating\n1,2,3\n", pickle.dumps({"P": [1.0]}), b"\x04\0\0\0\0\0\0\0{abc", b"\xff" * 40],
)
def test_other_files_are_no_models(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="is not a model file"):
        store.load(path)


def test_other_safetensors_and_folders_are_no_models(tmp_path: Path) -> None:
    save_file({"x": np.zeros(3)}, tmp_path / "a")
    with pytest.raises(FileFormatError, match="is not a model file"):
        store.load(tmp_path / "a")
    with pytest.raises(FileFormatError, match="is a folder"):
        store.load(tmp_path)


@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
def test_truncated(saved: Path, left: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * left)])
    with pytest.raises(FileFormatError, match="is truncated"):
        store.load(saved)


def rewrite(path: Path, *, metadata: dict[str, Any] | None = None, **tensors: Any) -> None:
    """Save again with some arrays or texts replaced, or dropped where None."""
    arrays = load_file(path) | tensors
    raw = path.read_bytes()
    texts = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"] | (metadata or {})
    save_file(
        {k: v for k, v in arrays.items() if v is not None}, path, {k: v for k, v in texts.items() if v is not None}
    )


def test_newer_version(saved: Path) -> None:
    rewrite(saved, metadata={"version": "8"})
    with pytest.raises(FileFormatError, match=r"format version 8.*reads up to 7.*upgrade"):
        store.load(saved)


@pytest.mark.parametrize(
    ("tensors", "metadata", "match"),
    [
        ({"params.Q": None}, {}, r"lacks the array 'params\.Q'"),
        ({"velocity.b": None}, {}, r"lacks the array 'velocity\.b'"),
        ({"seen.indptr": None}, {}, r"lacks the array 'seen\.indptr'"),
        ({"user_ids": None}, {}, "lacks the array 'user_ids'"),
        ({"params.P": np.zeros((2, 3), np.float32)}, {}, r"shape \(2, 3\)"),
        ({"params.c": np.zeros(20)}, {}, "dtype float64"),
        ({"seen.indices": np.full(208, 99, np.int32)}, {}, r"outside 0\.\.19"),
        ({"seen.indices": np.zeros(3, np.int32)}, {}, "does not rise"),
        ({"titles.offsets": np.array([0, 9, 4], np.int64)}, {}, "does not rise"),
        ({}, {"mean": None}, "lacks 'mean'"),
        ({}, {"history": "[1"}, "is damaged"),
        ({}, {"status": '"maybe"'}, "status is 'maybe'"),
        ({}, {"config": '{"n_factor": 3}'}, "Did you mean 'n_factors'"),
    ],
)
def test_damage_is_named(saved: Path, tensors: dict[str, Any], metadata: dict[str, Any], match: str) -> None:
    rewrite(saved, metadata=metadata, **tensors)
    with pytest.raises(FileFormatError, match=match):
        store.load(saved)
