"""The report never costs a run: metrics first, and a section that fails leaves a note in its place."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from recipes.run import UNMADE

DOMAINS = ("classification", "detection", "segmentation", "tabular")


@pytest.fixture()
def ran(here, short):
    """Runs a recipe on the folder ``data``, and returns its metrics, its page, and what it said."""

    def run(domain, *options):
        given = ("--data", "data", "--device", "cpu", "--out", "run", *short[domain], *options)
        code, out, err = here("run", domain, *given)
        assert code == 0, err
        return json.loads(Path("run/metrics.json").read_text()), Path("run/report.html").read_text(), out + err

    return run


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_sound_run_has_every_section(domain, ran, make_data):
    for part, rows in (("train", range(24)), ("test", range(24, 36))):
        make_data(domain, "data", rows, part)
    _, page, said = ran(domain)
    assert UNMADE not in page + said


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_section_may_fail_and_the_run_is_good(domain, ran, make_data, monkeypatch):
    for part, rows in (("train", range(24)), ("test", range(24, 36))):
        make_data(domain, "data", rows, part)

    def fails(*_, **__):
        raise RuntimeError("no ink")

    monkeypatch.setattr("common.figures.Picture.save", fails)
    metrics, page, said = ran(domain)
    assert metrics["seconds"] > 0
    assert page.count(f"{UNMADE}: RuntimeError: no ink") == said.count(f"{UNMADE}: RuntimeError: no ink") > 1
    assert Path("run/bundle/bundle.json").exists()


def test_masks_that_are_ignored_altogether_end_no_run(ran, make_data):
    for part, rows in (("train", range(16)), ("valid", range(16, 20)), ("test", range(20, 24))):
        make_data("segmentation", "data", rows, part)
    for file in [*Path("data/valid/masks").iterdir(), *Path("data/test/masks").iterdir()]:
        Image.fromarray(np.full((40, 56), 255, np.uint8)).save(file)
    ran("segmentation", "--ignore", "255")


def test_a_column_that_is_empty_in_the_test_part_ends_no_run(ran, make_data):
    for part, rows in (("train", range(100)), ("test", range(100, 150))):
        make_data("tabular", "data", rows, part)
    frame = pd.read_csv("data/test.csv", dtype={"code": str})
    frame.assign(b=None).to_csv("data/test.csv", index=False)
    ran("tabular")


def test_four_photos_train(ran, make_data):
    for part, rows in (("train", range(4)), ("valid", range(4, 8)), ("test", range(8, 12))):
        make_data("classification", "data", rows, part)
    metrics, page, _ = ran("classification", "--batch-size", "2")
    assert 0 <= metrics["accuracy"] <= 1
    assert UNMADE not in page


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_class_that_a_part_lacks_ends_no_run(domain, ran, make_data):
    for part, rows in (("train", range(24)), ("valid", range(24, 36, 2)), ("test", range(24, 36, 2))):
        make_data(domain, "data", rows, part)
        if domain == "tabular" and part != "train":
            frame = pd.read_csv(f"data/{part}.csv", dtype={"code": str})
            frame[frame["kind"] == "up"].to_csv(f"data/{part}.csv", index=False)
    _, page, _ = ran(domain)
    assert UNMADE not in page


@pytest.mark.parametrize("domain", ["classification", "detection", "segmentation"])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_broken_file_is_found_before_the_first_epoch(domain, part, here, make_data, short, monkeypatch):
    for name, rows in (("train", range(8)), ("valid", range(8, 12)), ("test", range(12, 16))):
        make_data(domain, "data", rows, name)
    broken = next(file for file in sorted(Path("data", part).rglob("*.png")) if "masks" not in file.parts)
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr("common.train.trainer.Trainer.fit_one_cycle", lambda *_, **__: pytest.fail("it trained"))
    code, _, err = here("run", domain, "--data", "data", "--device", "cpu", "--out", "run", *short[domain])
    assert code == 1
    assert broken.name in err
    assert not Path("run").exists()


def test_what_was_read_is_said(ran, make_data):
    make_data("classification", "data", range(24), "")
    shutil.copy("data/red/0.png", "data/blue/copy.png")
    Path("data/red/a.heic").write_bytes(b"")
    _, page, said = ran("classification", "--seed", "1")
    for line in (
        "data: data, folder of class folders with 25 images; train 20, valid 5",
        "target: 2 classes: blue, red",
        "note: passed over: 1 .heic files (such as a.heic)",
        "same content and different labels",
    ):
        assert line in said
        assert line.removeprefix("note: ") in page


def test_items_with_one_content_on_two_sides_are_said(ran, make_data):
    for part, rows in (("train", range(24)), ("test", range(20, 36))):
        make_data("classification", "data", rows, part)
    _, page, said = ran("classification")
    assert "items have the same content as one of another part, such as" in said
    assert "(train)" in said
    assert "same content" in page
