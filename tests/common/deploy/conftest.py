"""One small bundle, and what is needed to tamper with a copy of it."""

import hashlib
import json
import shutil

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from applications.classification import vision_learner
from common.augment import Augment
from common.data import CategoryBlock, DataBlock, ImageBlock, RandomSplitter, Resize
from common.deploy.bundle import seal
from common.train import TrainerOptions

matplotlib.use("Agg")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 24 PNG photos of three classes, of differing sizes."""
    root = tmp_path_factory.mktemp("photos")
    numbers = np.random.default_rng(0)
    for i in range(24):
        name = ("dark", "grey", "light")[i % 3]
        (root / name).mkdir(exist_ok=True)
        pixels = numbers.normal(50 + 70 * (i % 3), 20, (20 + i % 5, 24 + i % 3, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"{i:02}.png")
    return root


@pytest.fixture(scope="session")
def make_trainer(photos):
    """Makes a trained Trainer of the small residual net on the photos."""

    def make(seed=0, epochs=2):
        from common.data import get_image_files, parent_label

        block = DataBlock(
            blocks=(ImageBlock, CategoryBlock),
            get_items=get_image_files,
            get_y=parent_label,
            splitter=RandomSplitter(0.25, seed=1),
            item_tfms=Resize(16),
            batch_tfms=Augment(flip=True, rotate=5),
        )
        dls = block.dataloaders(photos, bs=6, num_workers=0)
        options = TrainerOptions(seed=seed, device="cpu", progress=False)
        trainer = vision_learner(dls, "small_resnet", pretrained=False, options=options)
        trainer.fit(epochs, 5e-3)
        return trainer

    return make


@pytest.fixture(scope="session")
def trainer(make_trainer):
    return make_trainer()


@pytest.fixture(scope="session")
def exported(trainer, tmp_path_factory):
    return trainer.export(tmp_path_factory.mktemp("exported") / "bundle")


@pytest.fixture()
def bundle(exported, tmp_path):
    """A copy of the bundle that a test may spoil."""
    return shutil.copytree(exported, tmp_path / "bundle")


@pytest.fixture(scope="session")
def reseal():
    """Changes a bundle's content by a function and seals it again, hashes of the files too: a careful forger."""

    def change(folder, edit=lambda content: None):
        content = json.loads((folder / "bundle.json").read_text("utf-8"))
        for name, entry in content["files"].items():
            file = folder / name
            if file.is_file():
                data = file.read_bytes()
                entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        edit(content)
        (folder / "bundle.json").write_text(seal(content), "utf-8")

    return change
