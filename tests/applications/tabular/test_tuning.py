"""Settings of trees that are sought: what is found, its time, and its way through a bundle."""

import sys
import time

import numpy as np
import pytest
import torch

from applications.tabular import EnsembleConfig
from applications.tabular.booster import BoosterConfig
from applications.tabular.fold import BOOSTERS, TUNED
from applications.tabular.tuning import settings
from common.deploy import Predictor, load
from common.errors import ConfigError

pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'applications-cookbook[tuning]'")


@pytest.fixture(scope="module")
def tuned(fit, frames):
    return fit(frames["regression"](), ("forest",), folds=2, tune=4)


def test_the_tuned_trees_are_a_member_that_was_fitted_in_every_fold(tuned):
    assert tuned.model.config.members == (TUNED, "forest")
    assert TUNED in {record["member"] for record in tuned.model.chosen.table}


def test_what_is_found_is_at_least_as_good_as_the_settings_it_began_with(fit, frames, capsys):
    fit(frames["classification"](), ("forest",), folds=2, tune=4, progress=True)
    line = next(line for line in capsys.readouterr().out.splitlines() if "settings tried" in line)
    first, best = float(line.split("loss ")[1].split(" ")[0]), float(line.split(", ")[2].split(" ")[0])
    assert line.startswith(f"{TUNED}: 4 settings tried")
    assert best <= first


def test_one_seed_finds_the_same_settings(tuned, fit, frames):
    again = fit(frames["regression"](), ("forest",), folds=2, tune=4)
    assert again.model.chosen.tuned == tuned.model.chosen.tuned
    assert isinstance(again.model.chosen.tuned, BoosterConfig)


def test_the_settings_travel_with_the_bundle_and_predictions_are_the_same_bits(tuned, frames, tmp_path):
    rows = frames["regression"](40, seed=5)
    before = tuned.predictor().outputs(rows).output
    path = tuned.export(tmp_path / "bundle")
    assert load(path).model.chosen.tuned == tuned.model.chosen.tuned != BOOSTERS["xgboost"]
    assert torch.equal(Predictor(path).outputs(rows).output, before)


def test_the_search_ends_when_half_of_the_budget_is_gone(fit, frames):
    def seconds(tune, budget_s):
        started = time.perf_counter()
        fit(frames["regression"](2000), ("forest",), folds=2, tune=tune, budget_s=budget_s)
        return time.perf_counter() - started

    least = seconds(0, 100.0)  # what is not the search's: reading, encoding, the forest, validation
    assert seconds(10_000, 4.0) < 4.0 * 1.1 + 2 * least


def test_the_space_holds_the_settings_that_a_search_begins_with():
    class Asked:
        """A trial that answers with the settings of xgboost, and says where a range does not hold them."""

        def suggest_float(self, name, low, high, log=False):
            value = getattr(BOOSTERS["xgboost"], name)
            assert low <= value <= high, name
            return value

        suggest_int = suggest_float

        def suggest_categorical(self, name, choices):
            assert getattr(BOOSTERS["xgboost"], name) in choices
            return getattr(BOOSTERS["xgboost"], name)

    assert settings(Asked()) == BOOSTERS["xgboost"]


def test_without_optuna_the_remedy_is_named(fit, frames, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'applications-cookbook\[tuning\]'"):
        fit(frames["regression"](60), ("forest",), folds=2, tune=2)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"tune": -1}, "tune must lie in"), ({"members": (TUNED,)}, "say with tune how many are to be tried")],
)
def test_wrong_options_are_one_sentence(options, match):
    with pytest.raises(ConfigError, match=match):
        EnsembleConfig(**options)


def test_estimators_take_it(frames):
    from applications.tabular import TabularRegressor

    frame = frames["regression"](80)
    model = TabularRegressor(members=("forest",), folds=2, tune=2).fit(frame.drop(columns="price"), frame["price"])
    assert model.table_["member"].tolist() == [TUNED, "forest", "ensemble"]
    assert np.isfinite(model.predict(frame.drop(columns="price"))).all()
