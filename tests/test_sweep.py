"""Other values of the kernels' constants: each compiled in, each beside the chosen one; nothing here judges time."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import result, sweep
from bench.cases import Case
from bench.launch import Json, in_fresh_process
from mf_numpy import ConfigError, Ratings
from mf_numpy.planted import PlantedConfig, planted

TRAIN = planted(PlantedConfig(n_users=40, n_items=30, n_ratings=600, n_factors=2)).ratings
AHEAD = sweep.chosen_of("AHEAD_BYTES")


def _halves(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
    """A kernel that takes as many milliseconds as its constant says, by each thread its share."""
    keys = [(k, n) for k in order["factors"] for n in order["each"]]
    return {
        "status": "ok",
        "reason": None,
        "samples_ms": {f"{k}/{n}": [(512 + order["value"]) / n] * 5 for k, n in keys},
    }, {}


def test_every_value_stands_beside_the_chosen_one() -> None:
    said: list[str] = []
    found = sweep.measure(TRAIN, "planted", constants=AHEAD, factors=(4,), rounds=2, launch=_halves, say=said.append)
    assert result.clean(found) == json.loads(json.dumps(found)) and found["complete"]
    assert len(said) == 2 * 4 and said[0] == "round 1 of 2: sgd, AHEAD_BYTES = 2,048"
    one = [row for row in found["rows"] if row["threads"] == 1]
    assert {row["value"]: row["ratio"] for row in one} == {2048: 1.0, 0: 5.0, 512: 2.5, 8192: 2560 / 8704}
    assert [row["value"] for row in one if row["chosen"]] == [2048]
    lines = sweep.summary(found)
    assert sum("5.00×" in line for line in lines) == len(found["rows"]) // 4


def test_constants_are_where_the_kernels_take_them_from() -> None:
    for constant in sweep.CONSTANTS:
        assert constant.chosen == getattr(importlib.import_module(constant.module), constant.name)
        assert set(constant.values) - {constant.chosen}, f"{constant.name} is swept over its own value alone"


def test_a_value_that_fails_is_a_row_with_its_reason_and_ctrl_c_keeps_what_is_done() -> None:
    def failing(case: Case, order: Json, folder: Path) -> tuple[Json, dict[str, Any]]:
        return {"status": "failed", "reason": "out of memory"}, {}

    found = sweep.measure(TRAIN, "planted", constants=AHEAD, factors=(4,), rounds=1, launch=failing)
    assert {row["reason"] for row in found["rows"]} == {"out of memory"}

    def interrupted(text: str) -> None:
        if "AHEAD_BYTES = 512" in text:
            raise KeyboardInterrupt

    found = sweep.measure(TRAIN, "planted", constants=AHEAD, factors=(4,), rounds=1, launch=_halves, say=interrupted)
    assert not found["complete"] and {row["value"] for row in found["rows"]} == {2048, 0}


def test_a_process_computes_the_same_with_another_value(tmp_path: Path) -> None:
    """In a process of its own, since a compiled kernel keeps the constants that it was compiled with."""
    from bench import worker
    from bench.cases import as_holdout

    worker.save_data(tmp_path / "data.npz", TRAIN, as_holdout(TRAIN.take(np.arange(1))))
    order = {"kernel": "sgd", "module": "mf_numpy.kernels.grid", "name": "USERS_AT_ONCE", "value": 4}
    order |= {"factors": (3,), "threads": 1, "each": (1,), "data": "data.npz"}
    found, _ = in_fresh_process(Case("sweep", "numba", "cpu", "float32"), order, tmp_path, module="bench.sweep")
    assert found["status"] == "ok", found["reason"]
    assert len(found["samples_ms"]["3/1"]) == sweep.SAMPLES


@pytest.mark.parametrize("given", [{"rounds": 0}, {"factors": (0,)}, {"factors": ()}])
def test_what_it_does_not_take(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be 1 or larger"):
        sweep.measure(TRAIN, "planted", launch=_halves, **given)
    with pytest.raises(ConfigError, match="ITEMS_PER_BLOCK"):
        sweep.chosen_of("BLOCKBYTES")


def test_ratings_laid_out_as_they_are_give_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    from mf_numpy import Config, kernels, model
    from mf_numpy.batch import full_batch
    from mf_numpy.kernels import layout

    config = Config(n_factors=3, dtype="float64")
    batch, params = full_batch(_shuffled(), config), model.start(TRAIN, config)
    expected = {name: g.copy() for name, g in kernels.gradient(params, batch, config).gradient.items()}
    monkeypatch.setattr(layout, "BY_POPULARITY", 0)
    found = kernels.gradient(params, batch, config).gradient
    for name, g in expected.items():
        np.testing.assert_allclose(found[name], g, rtol=1e-12, atol=1e-15)


def _shuffled() -> Ratings:
    return TRAIN.take(np.random.default_rng(0).permutation(len(TRAIN)))
