"""Runs of the command line, in this process and in fresh ones."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

matplotlib.use("Agg")
torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def cookbook():
    """The command as a person starts it: the installed script where there is one, else the module."""
    script = Path(sys.executable).parent / "cookbook"
    return [str(script)] if script.exists() else [sys.executable, "-m", "recipes.cli"]


@pytest.fixture(scope="session")
def fresh(cookbook):
    """Runs a command in a fresh process and returns what it said."""

    def run(*arguments, cwd, timeout=120, **options):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        environment.pop("COOKBOOK_DEBUG", None)
        return subprocess.run(
            [*cookbook, *map(str, arguments)],
            cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, **options,
        )  # fmt: skip

    return run


@pytest.fixture()
def here(monkeypatch, capsys, tmp_path):
    """Runs a command in this process, in an empty folder, and returns exit code, output and errors."""
    from recipes.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COOKBOOK_DEBUG", raising=False)

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """One run of the recipe on the embedded digits, with its folder."""
    from recipes.cli import main

    out = tmp_path_factory.mktemp("digits") / "run"
    assert main(["run", "classification", "--epochs", "2", "--out", str(out), "--device", "cpu"]) == 0
    return out


def colour_photos(root, parts=("train", "test"), classes=("blue", "red"), each=16):
    """Writes noisy photos of one colour into class folders."""
    numbers = np.random.default_rng(0)
    for part in parts:
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(each):
                centre = {"blue": (50, 60, 190), "red": (190, 60, 50), "green": (40, 180, 60)}[name]
                pixels = numbers.normal(centre, 25, (28, 32, 3))
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{i:02}.png")
    return root


@pytest.fixture(scope="session")
def photos():
    return colour_photos


COLOURS = np.array([(90, 90, 90), (210, 40, 40), (40, 60, 210)])


@pytest.fixture()
def rectangles(tmp_path):
    """Makes a folder of images and masks of red and blue rectangles, with split lists and names."""

    def make(count=16, size=(40, 60), sizes=None):
        root = tmp_path / "data"
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True)
        for i in range(count):
            height, width = sizes[i % len(sizes)] if sizes else size
            ids = np.zeros((height, width), np.uint8)
            ids[4 : height // 2, 5 + i % 7 : width // 2] = 1
            ids[height // 2 + 2 : height - 4, width // 2 : width - 3 - i % 5] = 2
            noise = np.random.default_rng(i).normal(0, 8, (height, width, 3))
            Image.fromarray(np.clip(COLOURS[ids] + noise, 0, 255).astype(np.uint8)).save(root / "images" / f"{i}.png")
            Image.fromarray(ids).save(root / "masks" / f"{i}.png")
        (root / "classes.txt").write_text("grey\nred\nblue\n")
        (root / "test.txt").write_text("\n".join(map(str, range(count - 3, count))))
        return root

    return make


OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def rectangle(i, size=(40, 56)):
    """An image of one red or blue rectangle on grey, its mask, and its box."""
    kind, (height, width) = 1 + i % 2, size
    ids = np.zeros(size, np.uint8)
    box = 4 + i % 5, 5 + i % 3, width // 2 + i % 5, height // 2 + i % 3
    ids[box[1] : box[3], box[0] : box[2]] = kind
    colors = np.array([(90, 90, 90), (210, 40, 40), (40, 60, 210)])
    noise = np.random.default_rng(i).normal(0, 8, (*size, 3))
    return np.clip(colors[ids] + noise, 0, 255).astype(np.uint8), ids, box, ("red", "blue")[kind - 1]


def images(folder, rows, part):
    place = folder / part
    for i in rows:
        pixels, _, _, name = rectangle(i)
        (place / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / name / f"{i}.png")


def boxes(folder, rows, part):
    place = folder / part
    place.mkdir(parents=True, exist_ok=True)
    for i in rows:
        pixels, _, (x0, y0, x1, y1), name = rectangle(i)
        Image.fromarray(pixels).save(place / f"{i}.png")
        text = OBJECT.format(name, x0 + 1, y0 + 1, x1, y1)
        (place / f"{i}.xml").write_text(f"<annotation>{text}</annotation>")


def masks(folder, rows, part):
    for i in rows:
        pixels, ids, _, _ = rectangle(i)
        for kind, array in (("images", pixels), ("masks", ids)):
            (folder / part / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / part / kind / f"{i}.png")


def table(folder, rows, part):
    numbers = np.random.default_rng(7).normal(size=(200, 2)).round(3)
    frame = pd.DataFrame({"a": numbers[:, 0], "code": [f"{i % 7:02}" for i in range(200)], "b": numbers[:, 1]})
    frame["kind"] = np.where(frame["a"] + frame["b"] > 0, "up", "down")
    folder.mkdir(parents=True, exist_ok=True)
    frame.iloc[list(rows)].to_csv(folder / f"{part or 'rows'}.csv", index=False)


MAKE = {"classification": images, "detection": boxes, "segmentation": masks, "tabular": table}
OPTIONS = {
    "classification": ("--epochs", "2", "--size", "32", "--batch-size", "8"),
    "detection": ("--epochs", "2", "--batch-size", "4"),
    "segmentation": ("--epochs", "2", "--batch-size", "4"),
    "tabular": ("--members", "linear", "--folds", "2"),
}


@pytest.fixture(scope="session")
def make_data():
    """Writes toy data of a domain, some rows of it as one part (``""``: without parts) below a folder."""
    return lambda domain, folder, rows, part: MAKE[domain](Path(folder), rows, part)


@pytest.fixture(scope="session")
def short():
    """Options of each recipe with which a run on that data is short."""
    return OPTIONS
