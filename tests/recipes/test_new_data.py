"""A bundle meets data that was not there at its training, and data of which it has seen a part; in every domain."""

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

DOMAINS = ("classification", "detection", "segmentation", "tabular")


@pytest.fixture(scope="module")
def ran(tmp_path_factory, make_data, short):
    """One run a domain on its train and test parts: the folder of the data and that of the results."""
    from recipes.cli import main

    known = {}

    def run(domain, parts=("train", "test")):
        if (domain, parts) not in known:
            root = tmp_path_factory.mktemp(domain)
            for part, rows in zip(parts, (range(24), range(24, 36)), strict=False):
                make_data(domain, root / "data", rows, part)
            arguments = ["--data", str(root / "data"), "--out", str(root / "run"), "--device", "cpu"]
            assert main(["run", domain, *arguments, *short[domain]]) == 0
            known[domain, parts] = root / "data", root / "run"
        return known[domain, parts]

    return run


def measured(here, bundle, data, *options):
    code, out, err = here("evaluate", bundle, "--data", data, "--json", *options)
    assert code == 0, err
    return json.loads(out), err


def same(found, run):
    told = json.loads((run / "metrics.json").read_text())
    return all(value == pytest.approx(told[name], abs=1e-6) for name, value in found.items())


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_test_part_alone_is_measured_as_in_the_run(domain, ran, here, make_data):
    _, run = ran(domain)
    make_data(domain, "new", range(24, 36), "test")
    found, err = measured(here, run / "bundle", "new")
    assert same(found, run)
    assert "measured on 12 items (test)" in err


@pytest.mark.parametrize("domain", DOMAINS)
def test_data_without_parts_is_measured_whole(domain, ran, here, make_data):
    _, run = ran(domain)
    make_data(domain, "new", range(24, 36), "")
    found, err = measured(here, run / "bundle", "new")
    assert same(found, run)
    assert "measured on 12 items" in err


@pytest.mark.parametrize("domain", DOMAINS)
def test_data_of_one_class_is_measured(domain, ran, here, make_data):
    _, run = ran(domain)
    rows = range(24, 36, 2)
    make_data(domain, "new", rows, "")
    if domain == "tabular":
        frame = pd.read_csv("new/rows.csv", dtype={"code": str})
        frame[frame["kind"] == "up"].to_csv("new/rows.csv", index=False)
    assert measured(here, run / "bundle", "new")[0]


@pytest.mark.parametrize("domain", DOMAINS)
def test_after_a_random_split_what_trained_is_known_again(domain, ran, here, make_data):
    data, run = ran(domain, ("",))
    found, err = measured(here, run / "bundle", data)
    assert same(found, run)  # the run's own validation part, not the training items
    assert "(valid); the parts are those of run/split.csv" in err
    with (run / "split.csv").open() as file:
        parts = [row["split"] for row in csv.DictReader(file)]
    assert f"measured on {parts.count('valid')} of {len(parts)} items" in err
    assert measured(here, run / "bundle", data, "--split", "valid")[0] == found
    trained, err = measured(here, run / "bundle", data, "--split", "train")
    assert trained != found
    assert "may have been trained" in err


@pytest.mark.parametrize("domain", DOMAINS)
def test_items_that_moved_are_known_again_and_new_ones_are_new(domain, ran, here, make_data):
    data, run = ran(domain, ("",))
    shutil.copytree(data, "moved")
    if domain == "tabular":
        make_data(domain, "moved", [*range(24), *range(60, 70)], "")
    else:
        make_data(domain, "moved", range(60, 70), "")
    _, err = measured(here, run / "bundle", "moved")
    assert "(valid and new); the parts are those of run/split.csv" in err


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_bundle_that_left_its_run_says_that_nothing_is_known(domain, ran, here, make_data):
    data, run = ran(domain, ("",))
    shutil.copytree(run / "bundle", "bundle")
    _, err = measured(here, "bundle", data)
    assert "nothing tells whether it was trained on some of them (no split.csv beside the bundle)" in err


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_run_needs_a_part_to_learn_from(domain, here, make_data):
    make_data(domain, "new", range(12), "test")
    code, _, err = here("run", domain, "--data", "new")
    assert code == 1
    assert "train" in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("runs").exists()
