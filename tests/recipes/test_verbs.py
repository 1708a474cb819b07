"""``evaluate`` and ``predict`` are made from the bundle's domain: its options, its inputs, its windows."""

import json
import re

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table whose columns have names of their own, and a bundle that was taught with it."""
    from recipes.cli import main

    root = tmp_path_factory.mktemp("table")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"rooms": rng.integers(1, 9, 120) / 2, "code": range(120)})
    frame["sold"] = np.where(frame["rooms"] + rng.normal(0, 0.3, 120) > 2.5, 1, 0)
    frame["part"] = ["train"] * 90 + ["test"] * 30
    frame["note"] = "x"
    frame.to_csv(root / "t.csv", index=False)
    given = ["--target", "sold", "--split-column", "part", "--ignore", "code, note", "--members", "linear"]
    arguments = ["run", "tabular", "--data", str(root / "t.csv"), *given, "--folds", "2", "--out", str(root / "run")]
    assert main(arguments) == 0
    return root


def test_a_bundle_is_evaluated_on_its_data_without_flags(table, here):
    code, out, err = here("evaluate", table / "run" / "bundle", "--data", table / "t.csv", "--json")
    assert code == 0, err
    metrics = json.loads((table / "run" / "metrics.json").read_text())
    assert json.loads(out) == {name: metrics[name] for name in json.loads(out)}
    assert json.loads(out)["accuracy"] > 0.8


def test_what_the_data_was_read_with_is_in_the_bundle(table):
    content = json.loads((table / "run" / "bundle" / "bundle.json").read_text())
    reading = {"target": "sold", "kind": "classification", "ignore": "code, note", "split_column": "part"}
    assert content["reading"] == reading


def test_a_flag_that_is_given_overrides_the_bundles(table, here):
    frame = pd.read_csv(table / "t.csv").rename(columns={"sold": "truth", "part": "half"})
    frame.to_csv("other.csv", index=False)
    arguments = ("evaluate", table / "run" / "bundle", "--data", "other.csv", "--json")
    code, _, err = here(*arguments)
    assert (code, "has no column 'sold' (target)" in err) == (1, True)
    code, out, err = here(*arguments, "--target", "truth", "--split-column=half")
    assert code == 0, err
    metrics = json.loads((table / "run" / "metrics.json").read_text())
    assert json.loads(out) == {name: metrics[name] for name in json.loads(out)}
    code, _, err = here(*arguments, "--target", "truth", "--kind", "regression")
    assert (code, "kind is the bundle's own, classification: leave it out" in err) == (1, True)


def test_help_of_a_bundle_lists_the_options_of_its_domain(table, digits_run, here):
    code, out, _ = here("evaluate", table / "run" / "bundle", "--help")
    assert code == 0
    assert "--target" in out
    assert "--image-column" not in out
    code, out, _ = here("evaluate", digits_run / "bundle", "--help")
    assert "--image-column" in out
    assert "--target" not in out
    assert "--window" not in here("predict", digits_run / "bundle", "--help")[1]
    assert "--target" not in here("evaluate", "--help")[1]


@pytest.mark.parametrize(
    ("verb", "options", "code", "says"),
    [
        ("evaluate", ["--target", "x"], 1, "--target is an option of tabular, this is a bundle of classification"),
        ("evaluate", ["--annotations=x"], 1, "--annotations is an option of detection, this is a bundle of class"),
        ("evaluate", ["--targte", "x"], 2, "--targte is not an option here"),
        ("evaluate", ["--label-colum", "x"], 2, "--label-colum is not an option here: did you mean --label-column"),
        ("predict", ["x.png", "--window", "64"], 1, "--window is an option of detection and segmentation, this is a"),
        ("predict", ["--json"], 2, "INPUT"),
    ],
)
def test_an_option_of_another_domain_is_one_sentence_that_says_whose(digits_run, here, verb, options, code, says):
    got, out, err = here(verb, digits_run / "bundle", *options)
    assert (got, out) == (code, "")
    assert len(err.strip().splitlines()) == 1
    assert says in err


def test_general_options_stand_before_or_behind_the_bundle(digits_run, here):
    before = here("evaluate", "--json", "--split", "test", digits_run / "bundle")
    assert before == here("evaluate", digits_run / "bundle", "--split", "test", "--json")
    assert before[0] == 0


def test_options_of_an_images_table_are_in_the_bundle(photos, here, tmp_path):
    data = photos(tmp_path / "photos", ("",), ("blue", "green", "red"), 8)
    files = sorted(data.rglob("*.png"))
    rows = [f"{f.relative_to(tmp_path)},{f.parent.name};{'even' if i % 2 else 'odd'}" for i, f in enumerate(files)]
    (tmp_path / "t.csv").write_text("file,kinds\n" + "\n".join(rows) + "\n")
    columns = ("--image-column", "file", "--label-column", "kinds", "--label-delim", ";")
    taught = ("run", "classification", "--data", "t.csv", *columns, "--size", 16, "--epochs", 1, "--out", "run")
    code, _, err = here(*taught, "--quick")
    assert code == 0, err
    code, out, err = here("evaluate", "run/bundle", "--data", "t.csv", "--json")
    assert code == 0, err
    assert 0 <= json.loads(out)["f1_micro"] <= 1


def test_classes_of_masks_are_the_bundles_own(rectangles, here, tmp_path):
    data = rectangles(count=8)
    (data / "classes.txt").unlink()
    run = ("run", "segmentation", "--data", data, "--classes", "grey,red,blue", "--ignore", 2, "--epochs", 1)
    code, _, err = here(*run, "--batch-size", 2, "--out", "run")
    assert code == 0, err
    code, out, err = here("evaluate", "run/bundle", "--data", data, "--json")
    assert code == 0, err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert json.loads(out) == {name: metrics[name] for name in json.loads(out)}
    code, _, err = here("evaluate", "run/bundle", "--data", data, "--ignore", 1)
    assert code == 1
    assert re.search(r"classes and ignore are the bundle's own, 'grey,red,blue' and 2", err)


def test_list_names_the_recipes_that_are_installed(here):
    from importlib.metadata import entry_points

    names = sorted(point.name for point in entry_points(group="cookbook.recipes"))
    assert [line.split()[0] for line in here("list")[1].splitlines()] == names
