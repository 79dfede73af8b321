"""The sweep of the solvers' defaults: what is fitted, what is reported, and that the committed one is of today's."""

from __future__ import annotations

import json

import pytest

from bench import cli, committed, default_tables, defaults, result
from bench.defaults import SETTINGS, Setting
from bench.suite import Data, load_data
from mf_numpy import Config, ConfigError, fit, random_split
from mf_numpy.planted import PlantedConfig

DRAWN = PlantedConfig(n_users=60, n_items=40, n_ratings=1500, n_factors=2)
FEW = (Setting("als", "reg", (0.1, 0.4)), Setting("als", "n_epochs", (2,)), Setting("gd", "lr", (1e6,)))


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("planted", drawn=DRAWN)


def test_every_value_is_scored_beside_the_default(data: Data) -> None:
    said: list[str] = []
    found = defaults.measure([data], settings=FEW, say=said.append)
    assert result.clean(found) == json.loads(json.dumps(found)) and found["complete"]
    assert said[0] == "planted: als momentum, reg = 0.1" and len(said) == len(found["rows"]) == 6
    split = random_split(data.train, valid=0.1, seed=1)
    chosen, other = found["rows"][:2]
    assert chosen["chosen"] and not other["chosen"] and other["value"] == 0.4
    for row, config in ((chosen, Config(solver="als")), (other, Config(solver="als", reg=0.4))):
        assert row["rmse"] == fit(split.train, config).score(split.valid).rmse and row["epochs"] == config.n_epochs
    assert found["rows"][3]["value"] == 15 and found["rows"][3]["rmse"] == chosen["rmse"]
    assert found["rows"][-1]["status"] == "diverged" and found["rows"][-1]["rmse"] is None
    lines = defaults.summary(found)
    assert len(lines) == 1 + 3 and "1e+06: diverged" in lines[-1]
    assert f"0.4: {other['rmse'] - chosen['rmse']:+.4f}" in lines[1]


def test_ctrl_c_keeps_what_is_done(data: Data) -> None:
    def interrupted(text: str) -> None:
        if text.startswith("again"):
            raise KeyboardInterrupt

    again = Data("again", data.train, data.valid, None)
    found = defaults.measure([data, again], settings=FEW[:1], say=interrupted)
    assert not found["complete"] and {row["data"] for row in found["rows"]} == {"planted"}
    with pytest.raises(KeyboardInterrupt):
        defaults.measure([again], settings=FEW[:1], say=interrupted)
    with pytest.raises(ConfigError, match="no data came"):
        defaults.measure([])


def test_the_command_takes_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["defaults", "--data", "no-such-data"]) == 2
    assert "no-such-data" in capsys.readouterr().err


def test_the_committed_sweep_is_of_the_defaults_as_they_are() -> None:
    """And none of its values is better than the default by more than a hundredth on all data sets."""
    outcome = result.load(committed.path("defaults.json"), defaults.SCHEMA, defaults.VERSION)
    assert outcome["complete"] and {p["data"] for p in outcome["problems"]} == set(default_tables.DATA)
    keys = "solver", "step_rule", "setting"
    chosen = {tuple(row[key] for key in keys): row["value"] for row in outcome["rows"] if row["chosen"]}
    assert chosen == {(s.solver, s.step_rule, s.name): s.chosen for s in SETTINGS}
    gains: dict[tuple[object, ...], list[float]] = {}
    for row, others in defaults.beside(outcome["rows"]):
        for other in others:
            key = *(row[key] for key in keys), other["value"]
            gains.setdefault(key, []).append(float("-inf") if other["rmse"] is None else row["rmse"] - other["rmse"])
    assert not {key: gain for key, gain in gains.items() if min(gain) > 0.01}
