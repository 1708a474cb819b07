"""``cookbook predict`` and ``cookbook check``: folders, broken inputs, tables of answers, thresholds, drawings."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

IMAGES = ("classification", "detection", "segmentation")
DOMAINS = (*IMAGES, "tabular")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, make_data, short):
    """A bundle a domain."""
    from recipes.cli import main

    known = {}

    def made(domain):
        if domain not in known:
            root = tmp_path_factory.mktemp(domain)
            for part, rows in (("train", range(24)), ("test", range(24, 36))):
                make_data(domain, root / "data", rows, part)
            given = ["--data", str(root / "data"), "--out", str(root / "run"), "--device", "cpu", *short[domain]]
            assert main(["run", domain, *given]) == 0
            known[domain] = root / "run" / "bundle"
        return known[domain]

    return made


@pytest.fixture()
def files(make_data):
    """A folder with three inputs of a domain, and in it a file that is none."""

    def made(domain):
        make_data(domain, "in", range(40, 43), "")
        Path("in/notes.md").write_text("hello")
        if domain == "segmentation":
            shutil.rmtree("in/masks")
        return sorted(file for file in Path("in").rglob("*") if file.suffix in (".png", ".csv"))

    return made


def broken(files, domain):
    """Spoils the second of the files (of a table: the file as a whole, beside a good one)."""
    if domain == "tabular":
        Path("in/a.csv").write_bytes(b"\x00\xff\xfe")
        return "a.csv"
    files[1].write_bytes(files[1].read_bytes()[:40])
    return files[1].name


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_folder_is_an_input_and_what_is_passed_over_is_counted(domain, bundle, files, here):
    found = files(domain)
    code, out, err = here("predict", bundle(domain), "in")
    assert code == 0, err
    assert len(out.splitlines()) == (3 if domain == "tabular" else len(found))
    assert "passed over: " in err
    assert "1 .md files (such as notes.md)" in err


@pytest.mark.parametrize("domain", DOMAINS)
def test_an_input_that_cannot_be_used_is_skipped_where_asked(domain, bundle, files, here):
    found = files(domain)
    name = broken(found, domain)
    whole = here("predict", bundle(domain), "in")
    assert whole[0] == 1
    assert name in whole[2].splitlines()[-1]
    code, out, err = here("predict", bundle(domain), "in", "--on-error", "skip")
    assert code == 0, err
    assert len(out.splitlines()) == (3 if domain == "tabular" else len(found) - 1)
    assert "cookbook: note: passed over: " in err
    assert name in err


@pytest.mark.parametrize("domain", IMAGES)
def test_answers_before_a_broken_input_are_given(domain, bundle, files, here):
    found = files(domain)
    broken(found, domain)
    code, out, err = here("predict", bundle(domain), *found)
    assert code == 1
    assert out.startswith(f"{found[0]}: ")
    assert len(out.splitlines()) == 1
    assert str(found[1]) in err


@pytest.mark.parametrize("domain", DOMAINS)
def test_answers_go_to_a_table_and_to_json_lines(domain, bundle, files, here):
    from common.deploy import Predictor

    found = files(domain)
    code, out, err = here("predict", bundle(domain), "in", "--json")
    printed = [json.loads(line) for line in out.splitlines()]
    assert here("predict", bundle(domain), "in", "--out", "a.jsonl")[:2] == (0, "")
    assert [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()] == printed
    code, out, err = here("predict", bundle(domain), "in", "--out", "a.csv")
    assert (code, out) == (0, "")
    assert "rows in a.csv" in err
    with open("a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["input"] for row in rows} == {one["input"] for one in printed}
    if domain == "classification":
        records = [Predictor(bundle(domain))(file) for file in found]
        assert [row["label"] for row in rows] == [record["label"] for record in records]
        assert [float(row["probabilities.red"]) for row in rows] == [r["probabilities"]["red"] for r in records]


def test_a_skipped_input_has_a_row_with_its_reason(bundle, files, here):
    found = files("classification")
    broken(found, "classification")
    assert here("predict", bundle("classification"), "in", "--on-error", "skip", "--out", "a.csv")[0] == 0
    frame = pd.read_csv("a.csv")
    assert frame["input"].tolist() == [str(file) for file in found]
    assert frame["error"].notna().tolist() == [False, True, False]


def test_nothing_is_written_where_an_input_ends_it(bundle, files, here):
    broken(files("classification"), "classification")
    assert here("predict", bundle("classification"), "in", "--out", "a.csv")[0] == 1
    assert not Path("a.csv").exists()


@pytest.mark.parametrize("domain", IMAGES)
def test_predictions_are_drawn_on_the_images(domain, bundle, files, here):
    found = files(domain)
    code, _, err = here("predict", bundle(domain), "in", "--draw", "drawn")
    assert code == 0, err
    assert sorted(file.name for file in Path("drawn").iterdir()) == sorted(f"{file.stem}.png" for file in found)
    for file in found:
        drawn, plain = (np.asarray(Image.open(p).convert("RGB")) for p in (Path("drawn", f"{file.stem}.png"), file))
        assert drawn.shape == plain.shape
        assert domain == "detection" or (drawn != plain).any()


def test_inputs_of_one_name_are_drawn_apart(bundle, files, here):
    files("classification")
    Path("in/other").mkdir()
    Path("in/other/40.png").write_bytes(next(Path("in").rglob("40.png")).read_bytes())
    assert here("predict", bundle("classification"), "in", "--draw", "drawn")[0] == 0
    assert {"40.png", "40-2.png"} < {file.name for file in Path("drawn").iterdir()}


@pytest.mark.parametrize(("domain", "low", "high"), [("classification", "0", "1"), ("detection", "0", "1")])
def test_a_threshold_decides_what_is_told(domain, low, high, bundle, files, here):
    files(domain)

    def told(threshold):
        _, out, _ = here("predict", bundle(domain), "in", "--json", "--threshold", threshold)
        records = [json.loads(line) for line in out.splitlines()]
        return [record.get("label", record.get("objects")) for record in records]

    assert all(told(low))
    assert not any(told(high))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--out", "a.txt"), "out must end in .csv or .jsonl, got a.txt"),
        (("--threshold", "1.5"), "threshold must lie in [0, 1], got 1.5"),
        (("--draw", "in/notes.md"), "draw=in/notes.md is a file: name a folder"),
        (("nothing",), "nothing: the file does not exist"),
    ],
)
def test_a_wrong_option_is_one_sentence_before_the_first_answer(options, says, bundle, files, here):
    files("classification")
    code, out, err = here("predict", bundle("classification"), "in", *options)
    assert (code, out) == (1, "")
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_a_number_has_no_threshold(here, tmp_path):
    frame = pd.DataFrame({"a": np.arange(60.0), "price": np.arange(60.0) * 2})
    frame.to_csv("rows.csv", index=False)
    given = ("--data", "rows.csv", "--members", "linear", "--folds", "2", "--out", "run", "--kind", "regression")
    assert here("run", "tabular", *given)[0] == 0
    code, _, err = here("predict", "run/bundle", "rows.csv", "--threshold", "0.5")
    assert code == 1
    assert "threshold is for predictions that have a confidence" in err


# ------------------------------------------------------------ check


@pytest.mark.parametrize("domain", DOMAINS)
def test_check_is_a_verb_with_an_exit_code(domain, make_data, here):
    for part, rows in (("train", range(24)), ("test", range(24, 36))):
        make_data(domain, "data", rows, part)
    code, out, err = here("check", domain, "--data", "data")
    assert code == 0, err
    assert out.startswith("items: train ")
    assert out.splitlines()[-1] == "ok"


def test_check_finds_what_a_run_would_stumble_over(make_data, here):
    make_data("classification", "data", range(24), "")
    Path("data/red/0.png").write_bytes(b"no picture")
    code, out, err = here("check", "data")
    assert code == 1
    assert "unusable: data/red/0.png" in out
    assert "1 items cannot be used" in err


def test_check_asks_where_several_recipes_can_read_the_data(make_data, here):
    make_data("segmentation", "data", range(12), "")
    code, _, err = here("check", "data")
    assert code == 1
    assert "can be read as classification and as segmentation: say cookbook check" in err
    code, _, err = here("check", "nowhere")
    assert code == 1
    assert "no recipe can make sense of nowhere: classification: nowhere does not exist" in err


def test_inputs_of_which_none_can_be_used_are_named(bundle, here):
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(b"no picture")
    code, out, err = here("predict", bundle("classification"), "a.png", "b.png", "--on-error", "skip")
    assert (code, out) == (0, "")
    assert "passed over: a.png" in err
    assert "passed over: b.png" in err
    code, _, err = here("predict", bundle("classification"), "a.png", "b.png")
    assert code == 1
    assert "a.png" in err


@pytest.mark.parametrize("domain", IMAGES)
def test_evaluating_what_cannot_be_used_at_all_is_one_sentence(domain, bundle, make_data, here):
    make_data(domain, "new", range(40, 43), "test")
    for file in Path("new").rglob("*.png"):
        if "masks" not in file.parts:
            file.write_bytes(b"no picture")
    code, _, err = here("evaluate", bundle(domain), "--data", "new", "--on-error", "skip")
    assert code == 1
    assert "none of its items can be used" in err
    assert len(err.strip().splitlines()) == 1
