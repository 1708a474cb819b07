"""The tabular recipe as a person types it."""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "tabular"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "rooms": rng.integers(1, 9, 200) / 2,
            "town": rng.choice(["A", "B"], 200),
            "day": pd.date_range("2024", periods=200),
        }
    )
    frame["price"] = 3 * frame["rooms"] + 5 * (frame["town"] == "A") + rng.normal(0, 0.2, 200)
    file = tmp_path_factory.mktemp("rows") / "houses.csv"
    frame.to_csv(file, index=False)
    return file


QUICK = ("--members", "linear,xgboost", "--folds", "2")


def test_without_data_the_embedded_table_is_learned(here):
    code, out, err = here("run", "tabular", *QUICK)
    assert code == 0, err
    metrics = json.loads(Path("runs/tabular/metrics.json").read_text())
    assert metrics["accuracy"] > 0.9
    code, out, _ = here("evaluate", "runs/tabular/bundle", "--json")
    found = json.loads(out)
    assert found == {name: metrics[name] for name in found}
    report = Path("runs/tabular/report.html").read_text()
    for heading in ("beside a simple rule and each member alone", "Members, out of fold", "Columns", "Results"):
        assert heading in report


def test_a_table_of_ones_own_to_a_bundle_that_evaluates_and_predicts(here, rows):
    code, _, err = here("run", "tabular", "--data", rows, "--target", "price", "--quantiles", "0.1,0.9", *QUICK)
    assert code == 0, err
    metrics = json.loads(Path("runs/tabular/metrics.json").read_text())
    assert metrics["r2"] > 0.9
    assert {"rmse", "mae", "pinball", "coverage", "seconds", "items_per_second"} <= set(metrics)
    code, out, _ = here("evaluate", "runs/tabular/bundle", "--data", rows, "--json")
    assert json.loads(out)["r2"] > 0.9
    code, out, _ = here("predict", "runs/tabular/bundle", rows, "--json")
    lines = out.strip().splitlines()
    assert len(lines) == 200
    first = json.loads(lines[0])
    assert first["input"].endswith("row 0")
    assert first["quantiles"]["0.1"] <= first["quantiles"]["0.9"]


def test_the_latest_rows_validate_by_time(here, rows):
    code, _, err = here("run", "tabular", "--data", rows, "--target", "price", "--time", "day", *QUICK)
    assert code == 0, err
    split = pd.read_csv("runs/tabular/split.csv")
    assert split.query("split == 'valid'")["item"].min() > split.query("split == 'train'")["item"].max()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--target", "prise"), "no column 'prise' (target): did you mean 'price'?"),
        (("--members", "xgbost"), "members has no option 'xgbost': did you mean 'xgboost'"),
        (("--folds", "1"), "folds must lie in [2, 50], got 1"),
        (("--gap", "5"), "gap needs --time"),
        (("--quantiles", "low"), "quantiles must be numbers such as 0.05,0.95, got 'low'"),
        (("--places", "a"), "places must be latitude,longitude (several pairs one after another), got 'a'"),
        (("--quantiles", "0.5", "--target", "town"), "quantiles are for a target that is a number"),
        (("--group", "twon"), "no column 'twon': did you mean 'town'?"),
        (("--kind", "ranking"), "kind has no option 'ranking'"),
        (("--numbers", "romms"), "no column 'romms': did you mean 'rooms'?"),
    ],
)
def test_wrong_options_are_one_sentence_and_leave_nothing(here, rows, options, said):
    code, _, err = here("run", "tabular", "--data", rows, *options)
    assert code == 1
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("runs").exists()


def seconds_of_a_step():
    """This machine's seconds for a step of a plain network of about the size of the ensemble's."""
    layers = torch.nn.Sequential(torch.nn.Linear(200, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256))
    rows, times = torch.ones(1024, 200), []
    for _ in range(20):
        started = time.perf_counter()
        layers(rows).mean().backward()
        times.append(time.perf_counter() - started)
    return sorted(times)[10]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="the shared tables are not beside the project")
def test_titanic_and_penguins_in_seconds(here):
    step = seconds_of_a_step()
    for file, target, least in (("titanic.csv", "Survived", 0.75), ("penguins.csv", "species", 0.95)):
        frame = pd.read_csv(DATA / file)
        frame[frame[target].notna()].to_csv(file, index=False)
        code, _, err = here("run", "tabular", "--data", file, "--target", target, "--folds", "3")
        assert code == 0, err
        metrics = json.loads(Path("runs/tabular/metrics.json").read_text())
        assert metrics["accuracy"] > least
        assert metrics["seconds"] < 6_000 * step, (metrics["seconds"], step)
        print(metrics["seconds"], step)
