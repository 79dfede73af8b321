"""Other libraries beside ours: registry, installing, running and scoring; none needs to be there."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclopts")

from bench import cli, machine
from bench.peers import adapter, install, registry, run
from bench.peers.registry import Peer
from bench.peers.run import Settings, fit_peer, rank_peer, time_peer
from mf_numpy import Holdout, Split, datasets
from mf_numpy.errors import ConfigError
from mf_numpy.metrics import rmse
from tests.fake_peer import Fake

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class FakePeer(Peer):
    """A peer whose adapter is a test's."""

    @property
    def adapter(self) -> str:
        return "tests.fake_peer"


FAKE = FakePeer(
    name="fake", version="1.0", distribution="fake", module="json", licence="MIT", method="means", start={"reg": 0.1}
)


@pytest.fixture(scope="module")
def into(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the fake is installed: with this very Python."""
    folder = tmp_path_factory.mktemp("peers")
    python = install.python_of(FAKE, folder)
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    (folder / "fake" / install.RECORD).write_text(json.dumps({"recipe": install.recipe(FAKE)}), encoding="utf-8")
    return folder


def fake(how: str = "good", **extra: Any) -> Settings:
    return Settings(n_epochs=4, extra={"how": how, **extra})


def test_an_unknown_peer_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'cornak', but must be one of .*Did you mean 'cornac'\?"):
        registry.find("cornak")
    assert registry.find("libmf") is registry.PEERS["libmf"]


@pytest.mark.parametrize("peer", registry.PEERS.values(), ids=lambda peer: peer.name)
def test_every_peer_is_pinned_and_has_an_adapter_that_imports_without_it(peer: Peer) -> None:
    for package in (*peer.first, *peer.packages):
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+", package)
    assert peer.data in ("ratings", "confidence")
    assert peer.seeding in ("honoured", "one thread", "none")
    module = importlib.import_module(peer.adapter)
    made = next(x for x in vars(module).values() if isinstance(x, type) and getattr(x, "name", None) == peer.name)
    assert issubclass(made, adapter.Library)
    assert made.ranks == (peer.data == "confidence")
    assert made.distribution == peer.distribution
    assert Settings().of(peer)["reg"] == peer.start["reg"]


def test_environments_lie_where_a_variable_says_or_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MF_PEERS", "elsewhere")
    assert registry.folder() == Path("elsewhere")
    monkeypatch.delenv("MF_PEERS")
    assert registry.folder() == datasets.cache_dir() / "peers"


class Shell:
    """Notes commands instead of running them; the one whose words hold `fails` fails."""

    def __init__(self, fails: str = "nothing") -> None:
        self.fails = fails
        self.seen: list[tuple[list[str], Mapping[str, str]]] = []

    def __call__(self, command: list[str], variables: Mapping[str, str]) -> tuple[int, str]:
        self.seen.append((command, variables))
        if self.fails in command:
            return 1, "\n".join(f"line {k}" for k in range(40))
        if command[0] == "objdump":
            return 0, "vmovaps %ymm0,%ymm1"
        return 0, "noise\n" + json.dumps({"python": "3.11", "packages": {"x": "1"}, "compiled": ["x.so"]})

    def make(self, folder: Path, **options: Any) -> None:
        python = folder / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_bytes(bytes(2**20))


FULL = Peer(
    name="full", version="2", distribution="full", module="full", licence="MIT", method="", companions=("numpy==1",),
    first=("torch==2",), options=("--no-binary", "full"), variables={"CFLAGS": "-O9"}, start={"reg": 1.0},
)  # fmt: skip


def test_install_takes_what_comes_first_first_and_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "ours")
    monkeypatch.setenv("CXXFLAGS", "of another project")
    shell, said = Shell(), list[str]()
    done = install.install(FULL, tmp_path, run=shell, make=shell.make, say=said.append)
    commands = [command for command, _ in shell.seen]
    assert commands[0][-1] == "torch==2"
    assert commands[1][-4:] == ["--no-binary", "full", "full==2", "numpy==1"]
    assert commands[2][-1] == "full"
    assert all(("CFLAGS" in env) == ("pip" in command) for command, env in shell.seen)
    assert not any(name in env for name in ("PYTHONPATH", "CXXFLAGS") for _, env in shell.seen)
    assert (done["simd"], done["mib"], done["packages"]) == (True, 1, {"x": "1"})
    assert install.record(FULL, tmp_path) == done
    assert install.install(FULL, tmp_path, run=shell, make=shell.make) == done
    assert len(shell.seen) == len(commands)
    install.install(FULL, tmp_path, again=True, run=shell, make=shell.make)
    assert len(shell.seen) == 2 * len(commands)
    assert install.record(replace(FULL, version="3"), tmp_path) is None
    assert install.record(replace(FULL, variables={}), tmp_path) is None


@pytest.mark.parametrize(
    ("fails", "reason"), [("full==2", "pip could not install"), ("-c", "it is installed, but does not import")]
)
def test_a_failed_installation_says_its_last_lines_and_is_not_there(tmp_path: Path, fails: str, reason: str) -> None:
    with pytest.raises(install.InstallError, match=reason) as caught:
        install.install(FULL, tmp_path, run=Shell(fails), make=Shell().make)
    assert "line 39" in str(caught.value)
    assert "line 20" not in str(caught.value)
    assert install.record(FULL, tmp_path) is None


def test_nobody_knows_the_registers_without_objdump(tmp_path: Path) -> None:
    def run(command: list[str], variables: Mapping[str, str]) -> tuple[int, str]:
        if command[0] == "objdump":
            raise FileNotFoundError("objdump")
        return shell(command, variables)

    shell = Shell()
    assert install.install(FULL, tmp_path, run=run, make=shell.make)["simd"] is None


def test_a_command_gives_its_code_and_both_outputs() -> None:
    code, text = install.run(
        [sys.executable, "-c", "import sys; print(1, flush=True); sys.exit('two')"], {"PATH": os.environ["PATH"]}
    )
    assert (code, text.split()) == (1, ["1", "two"])


def test_the_command_line_lists_installs_and_checks(
    into: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "PEERS", {"fake": FAKE, "full": FULL})
    done = {"seconds": 9.6, "mib": 3, "simd": False, "recipe": install.recipe(FAKE)}
    monkeypatch.setattr(install, "record", lambda peer, into: done if peer is FAKE else None)
    assert cli.main(["peers", "list", "--into", str(into)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "fake 1.0  MIT  installed in 10 s, 3 MiB, no 256-bit code"
    assert "full 2  MIT  not installed" in lines
    assert cli.main(["peers", "install", "fake", "--into", str(into)]) == 0
    assert "fake 1.0: installed in 10 s" in capsys.readouterr().out
    assert cli.main(["peers", "install", "fale"]) == 2
    assert "Did you mean 'fake'?" in capsys.readouterr().err
    assert cli.main(["peers", "check", "--into", str(into)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"fake 1.0: ok, RMSE 1\.\d+ \(mean 1\.\d+, noise floor 1\.\d+\) in \d\.\d\d s", lines[0])
    assert lines[1] == "full 2: not run: not installed: python -m bench peers install full"


def test_install_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(peer: Peer, into: Path, **options: Any) -> Json:
        raise install.InstallError(f"{peer.name} is not to be had")

    monkeypatch.setattr(install, "install", refuse)
    assert cli.main(["peers", "install", "libmf", "cornac"]) == 1
    assert re.findall(r"error: (\w+) is", capsys.readouterr().err) == ["libmf", "cornac"]


def test_a_curve_is_scored_here(small: Split, into: Path) -> None:
    out = fit_peer(FAKE, small.train, small.valid, fake(), epochs=(9, 1, 3), into=into)
    assert (out["status"], out["reason"], out["peer"], out["epochs_by"]) == ("ok", None, "fake", "steps")
    assert [point["epochs"] for point in out["points"]] == [1, 3, 9]
    seconds = [point["seconds"] for point in out["points"]]
    assert seconds == sorted(seconds)
    # Null where the machine counts no energy, as most do not.
    assert all(point["joules"] is None or point["joules"] >= 0 for point in out["points"])
    train, valid = small.train, small.valid
    values = train.values.astype(np.float32)
    mean = float(values.mean(dtype=np.float64))
    means = np.bincount(train.items, values - mean, train.n_items) / np.bincount(train.items, minlength=train.n_items)
    for point in out["points"]:
        share = point["epochs"] / (point["epochs"] + 1)
        error = mean + means[valid.items] * share - valid.values
        assert point["rmse"] == pytest.approx(rmse(error), rel=1e-9)
        assert point["rmse_all"] == point["rmse"]
    assert out["settings"] == {
        "n_factors": 16, "threads": 1, "n_epochs": 4, "lr": 0.0, "reg": 0.1, "seed": None, "extra": {"how": "good"},
    }  # fmt: skip
    assert out["precision"] == "float32"
    assert out["notes"] == []
    assert out["baselines"].keys() == {"mean", "bias-only"}


def test_a_fit_for_each_point_where_the_library_tells_no_epochs(small: Split, into: Path) -> None:
    out = fit_peer(FAKE, small.train, small.valid, fake(steps=False), epochs=(1, 5), into=into)
    assert out["epochs_by"] == adapter.DIFFERENCE
    assert [point["epochs"] for point in out["points"]] == [1, 5]
    assert out["points"][1]["rmse"] < out["points"][0]["rmse"]


def test_cold_pairs_are_not_shown_to_a_peer(small: Split, into: Path) -> None:
    users = small.valid.users.copy()
    users[:50] = -1
    valid = Holdout(users, small.valid.items, small.valid.values)
    out = fit_peer(FAKE, small.train, valid, fake(), predictions=True, into=into)
    (point,) = out["points"]
    assert rmse(point["predictions"] - valid.values[50:]) == pytest.approx(point["rmse"])
    assert (out["n_scored"], out["n_cold"]) == (len(users) - 50, 50)
    assert point["epochs"] == 4
    cold = small.train.mean - valid.values[:50]
    squares = point["rmse"] ** 2 * out["n_scored"] + np.square(cold).sum()
    assert point["rmse_all"] == pytest.approx(np.sqrt(squares / len(users)))


def test_predictions_are_clipped_where_asked(small: Split, into: Path) -> None:
    out = fit_peer(FAKE, small.train, small.valid, fake(), clip=(2.0, 2.0), into=into)
    # A failure of sanity keeps its numbers.
    assert out["status"] == "failed"
    assert out["points"][0]["rmse"] == pytest.approx(rmse(2.0 - small.valid.values))


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("mean", "failed", r"its best RMSE is (\d\.\d{4}), but that of the mean rating is \1: it has learnt nothing"),
        ("nan", "failed", "after 4 epochs: 2 predictions not finite"),
        ("short", "failed", r"after 4 epochs: 600 predictions were asked for, but \(599,\) came"),
        ("raises", "failed", "RuntimeError: the fake is out of order"),
        ("absent", "not run", "No module named 'fake'"),
        ("dies", "failed", "the worker was ended by SIGKILL: a last word"),
        ("leaves", "failed", "the worker ended with code 3"),
        ("hangs", "failed", "no result after 3 s"),
    ],
)
def test_whatever_becomes_of_a_peer_has_its_reason(
    small: Split, into: Path, how: str, status: str, reason: str
) -> None:
    out = fit_peer(FAKE, small.train, small.valid, fake(how), into=into, limit=3 if how == "hangs" else 60)
    assert out["status"] == status
    assert re.match(reason, out["reason"])


def test_a_curve_is_judged_by_its_best_point() -> None:
    early = [{"rmse": 1.2}, {"rmse": 0.98}]
    assert run.insane(early, mean=1.0) is None
    assert run.insane([{"rmse": 0.991}], mean=1.0) is not None


def test_a_peer_that_is_not_installed_did_not_run(small: Split, tmp_path: Path) -> None:
    for out in (
        time_peer("libmf", small.train, Settings(), into=tmp_path),
        fit_peer("libmf", small.train, small.valid, Settings(), into=tmp_path),
    ):
        assert (out["status"], out["version"]) == ("not run", registry.find("libmf").version)
        assert out["reason"] == "not installed: python -m bench peers install libmf"


@pytest.mark.parametrize("steps", [True, False])
def test_epochs_are_timed_apart_from_the_warm_up(small: Split, into: Path, steps: bool) -> None:
    out = time_peer(FAKE, small.train, replace(fake(steps=steps), n_epochs=10), samples=6, into=into)
    assert (out["status"], out["reason"]) == ("ok", None)
    assert len(out["samples_ms"]) == 6
    # Each epoch of the fake sleeps 4 ms.
    assert out["timing"]["median_ms"] > 3.5
    assert out["timing"]["ratings_per_s"] == pytest.approx(len(small.train) / out["timing"]["median_ms"] * 1e3)
    assert out["warm_up_s"] > 0.0039
    assert out["threads"]["busy"] < 0.9
    assert out["peak_bytes"] is None or out["peak_bytes"] > 2**20
    assert "scores" not in out


def test_an_epoch_that_cannot_be_told_apart_is_no_sample(small: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Fake(order_of(small, steps=False))
    walls = iter([1.0] * 99)
    monkeypatch.setattr(adapter.Watch, "stop", lambda self: setattr(self, "wall", next(walls)))
    with pytest.raises(adapter.RefusedError, match="a fit of 4 epochs was no longer than one of 1"):
        adapter.seconds_per_epoch(library, 5, 3)


def test_a_library_that_ranks_must_tell_rated_from_random_pairs(small: Split, into: Path) -> None:
    out = time_peer(FAKE, small.train, fake("ranks", ranks=True), into=into)
    assert out["status"] == "ok"
    assert out["scores"]["rated"] == 1.0 > out["scores"]["random"]
    idle = time_peer(FAKE, small.train, fake("idle", ranks=True), into=into)
    assert idle["status"] == "failed"
    assert "idle work" in idle["reason"]
    assert fit_peer(FAKE, small.train, small.valid, fake(ranks=True), into=into)["status"] == "failed"


@pytest.mark.parametrize("steps", [True, False])
def test_a_library_that_ranks_hands_over_its_rows_and_scores_nothing(small: Split, into: Path, steps: bool) -> None:
    ranks = replace(FAKE, data="confidence")
    out = rank_peer(ranks, small.train, fake(ranks=True, steps=steps), epochs=(9, 3), into=into)
    assert (out["status"], out["reason"], out["version"]) == ("ok", None, np.__version__)
    train = small.train
    values = train.values.astype(np.float32)
    mean = float(values.mean(dtype=np.float64))
    means = np.bincount(train.items, values - mean, train.n_items) / np.bincount(train.items, minlength=train.n_items)
    assert [point["epochs"] for point in out["points"]] == [3, 9] and "rmse" not in out["points"][0]
    for point in out["points"]:
        p, q = point["rows"]
        share = point["epochs"] / (point["epochs"] + 1)
        assert p.shape == (train.n_users, 1)
        np.testing.assert_allclose((p @ q.T)[0], mean + means * share, rtol=1e-9)
    (only,) = rank_peer(ranks, small.train, fake(ranks=True), into=into)["points"]
    assert only["epochs"] == 4


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("nan", r"after 4 epochs: \d+ rows of finite numbers were asked for, but \(\d+, 1\) came, 2 not finite"),
        ("short", r"after 4 epochs: (\d+) rows of finite numbers were asked for, but \((?!\1)\d+, 1\) came"),
        ("raises", "RuntimeError: the fake is out of order"),
    ],
)
def test_rows_that_cannot_be_ranked_by_have_a_reason(small: Split, into: Path, how: str, reason: str) -> None:
    out = rank_peer(replace(FAKE, data="confidence"), small.train, fake(how, ranks=True), into=into)
    assert out["status"] == "failed" and re.match(reason, out["reason"])


def test_who_predicts_ratings_hands_over_no_rows(small: Split, into: Path) -> None:
    with pytest.raises(ConfigError, match="fake predicts ratings and hands over no rows; use fit_peer"):
        rank_peer(FAKE, small.train, fake(ranks=True), into=into)
    with pytest.raises(ConfigError, match="epochs has 0"):
        rank_peer("implicit", small.train, Settings(), epochs=(0,), into=into)
    out = rank_peer(replace(FAKE, data="confidence"), small.train, fake(), into=into)
    assert (out["status"], out["reason"]) == ("failed", "fake predicts ratings; it hands over no rows")


def test_other_threads_than_asked_for_are_noted(small: Split, into: Path) -> None:
    out = time_peer(FAKE, small.train, replace(fake(set=1), threads=2), into=into)
    assert (out["threads"]["asked"], out["threads"]["set"]) == (2, 1)
    assert out["notes"] == ["asked for 2 threads, it took 1"]


def test_settings_outside_what_is_allowed_are_refused(small: Split, into: Path) -> None:
    with pytest.raises(ConfigError, match="threads is 0"):
        Settings(threads=0)
    with pytest.raises(ConfigError, match="samples is 4"):
        time_peer(FAKE, small.train, Settings(), samples=4, into=into)
    with pytest.raises(ConfigError, match="epochs has 0"):
        fit_peer(FAKE, small.train, small.valid, Settings(), epochs=(0, 3), into=into)
    with pytest.raises(ConfigError, match="implicit ranks items and predicts no ratings"):
        fit_peer("implicit", small.train, small.valid, Settings())
    out = time_peer(FAKE, small.train, fake(bins=3), into=into)
    assert out["reason"] == "extra has bins, but this adapter knows how, ranks, set, steps"


def test_a_peer_sees_its_threads_and_nothing_of_another_python(tmp_path: Path) -> None:
    before = {"PYTHONPATH": "x", "OPENBLAS_CORETYPE": "y", "OPENBLAS_L2_SIZE": "1", "HOME": "z"}
    seen = run.environment(2, tmp_path, before)
    assert not {"PYTHONPATH", *machine.REMOVED} & seen.keys()
    assert seen["HOME"] == "z"
    assert {seen[name] for name in machine.THREADS} == {"2"}


def test_an_adapter_needs_two_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert adapter.main(Fake, ["one"]) == 2
    assert "usage" in capsys.readouterr().err


def order_of(data: Split, **extra: Any) -> adapter.Order:
    train, valid = data.train, data.valid
    settings = Settings(n_factors=8, n_epochs=5, extra=extra).of(FAKE) | {"lr": 0.1}
    return adapter.Order(
        train.users, train.items, train.values.astype(np.float32), valid.users, valid.items, train.n_users,
        train.n_items, settings,
    )  # fmt: skip
