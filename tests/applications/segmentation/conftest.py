"""Small images with masks in the layouts people have, for the tests of segmentation."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("Agg")
torch.set_num_threads(1)
SHARED = Path(__file__).resolve().parents[3].parent / "shared"
COLOURS = np.array([(90, 90, 90), (210, 40, 40), (40, 60, 210)])


def shapes(seed, size=(32, 40)):
    """A red and a blue rectangle on grey: pixels (H, W, 3) and class ids (H, W)."""
    rng = np.random.default_rng(seed)
    ids = np.zeros(size, np.uint8)
    for kind in (1, 2):
        height, width = rng.integers(8, 16, 2)
        y, x = rng.integers(0, size[0] - height), rng.integers(0, size[1] - width)
        ids[y : y + height, x : x + width] = kind
    noise = rng.normal(0, 10, (*size, 3))
    return np.clip(COLOURS[ids] + noise, 0, 255).astype(np.uint8), ids


@pytest.fixture(scope="session")
def toy():
    return shapes


@pytest.fixture()
def folder(tmp_path):
    """Makes images/ and masks/ (or other names) of ``count`` pairs below a folder."""

    def make(count=6, images="images", masks="masks", root="set", values=(0, 1, 2), suffix="", mode="L", first=0):
        place = tmp_path / root
        (place / images).mkdir(parents=True)
        (place / masks).mkdir(parents=True)
        for i in range(first, first + count):
            pixels, ids = shapes(i)
            Image.fromarray(pixels).save(place / images / f"{i}.jpg")
            mask = Image.fromarray(np.array(values, np.uint8)[ids])
            if mode == "RGB":
                mask = Image.fromarray(COLOURS[ids].astype(np.uint8))
            elif mode == "P":
                mask = mask.convert("P")
                mask.putdata(ids.reshape(-1).tolist())
                mask.putpalette(COLOURS.astype(np.uint8).reshape(-1).tolist())
            mask.save(place / masks / f"{i}{suffix}.png")
        return place

    return make


@pytest.fixture(scope="session")
def shared():
    return SHARED
