"""A small loader of pictures, for the tests of what is shown."""

import matplotlib
import numpy as np
import pytest
import torch

from common.augment import Augment
from common.data import CategoryBlock, DataBlock, ImageBlock, IndexSplitter

matplotlib.use("Agg")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def loaders():
    """Loaders of 24 pictures of two classes, augmented in training."""
    numbers = np.random.default_rng(0)
    pixels = [numbers.integers(0, 256, (12, 14, 3), dtype=np.uint8) for _ in range(24)]
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_x=pixels.__getitem__,
        get_y=lambda i: ("cat", "dog")[i % 2],
        splitter=IndexSplitter(range(16, 24)),
        batch_tfms=Augment(flip=True, brightness=0.4),
    )
    return block.dataloaders(list(range(24)), bs=8, num_workers=0)
