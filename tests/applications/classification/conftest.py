"""Small photos in the forms people have, for the tests of image classification."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("Agg")
torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared"
COLOURS = {"blue": (40, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}


def photo(colours, seed=0, size=(40, 44)):
    """A noisy picture of horizontal bands of named colours."""
    pixels = np.concatenate([np.full((size[0] // len(colours), size[1], 3), COLOURS[c]) for c in colours])
    noise = np.random.default_rng(seed).normal(0, 20, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def draw():
    return photo


@pytest.fixture()
def class_folders(tmp_path):
    """Makes class folders of photos below a folder, one for each part or none."""

    def make(parts=("",), classes=tuple(COLOURS), each=6, root="photos"):
        seed = 0
        for part in parts:
            for name in classes:
                folder = tmp_path / root / part / name
                folder.mkdir(parents=True)
                for _ in range(each):
                    seed += 1
                    photo([name], seed).save(folder / f"{name}_{seed}.jpg")
        return tmp_path / root

    return make


@pytest.fixture()
def untrained(monkeypatch):
    """Nothing is downloaded: a learner that asks for pretrained weights gets random ones."""
    from applications.classification import learner

    real = learner.create_model

    def create(name, classes, **options):
        return real(name, classes, **{**options, "pretrained": False, "weights": None})

    monkeypatch.setattr(learner, "create_model", create)


@pytest.fixture(scope="session")
def shared():
    return SHARED
