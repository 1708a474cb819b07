"""Makers of batches and pipelines, for the tests of this folder."""

import numpy as np
import pytest
import torch

from common.augment import BatchPipeline
from common.blocks.batch import Batch
from common.blocks.sample import SampleEncoder
from common.data import ImageBlock

RAW = ImageBlock("RGB", (0.0,) * 3, (1.0,) * 3)


@pytest.fixture(scope="session")
def raw_image():
    """An image block that leaves pixels between 0 and 1."""
    return RAW


@pytest.fixture(scope="session")
def noise():
    """Makes uint8 (B, H, W, 3) pixels without any order, ids 0 … B - 1."""

    def make(count, height=32, width=32, channels=3, **fields):
        pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
        return Batch(x=torch.from_numpy(pixels), ids=torch.arange(count), **fields)

    return make


@pytest.fixture(scope="session")
def pipeline():
    """Makes the pipeline of some blocks, the first the input (an image between 0 and 1 if none is given)."""

    def make(*transforms, blocks=(RAW,), item_tfms=(), n_inp=1):
        return BatchPipeline(SampleEncoder(tuple(blocks), n_inp, tuple(item_tfms)), transforms)

    return make


@pytest.fixture(scope="session")
def unit():
    """Turns uint8 (B, H, W, C) into float (B, C, H, W) between 0 and 1."""
    return lambda pixels: pixels.permute(0, 3, 1, 2).to(torch.float32) * (1 / 255)
