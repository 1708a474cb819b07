"""Evaluation knows the way back: from pixels of the images it makes to pixels of their files."""

import numpy as np
import pytest
import torch

from common.augment import Augment
from common.data import (
    BBoxBlock,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    MaskBlock,
    PointBlock,
    RandomResizedCrop,
    Resize,
)

SIZES = [(40, 60), (90, 50), (64, 64), (33, 128)]


def pictures(height, width):
    return np.full((height, width, 3), 128, np.uint8)


def loaders(block, get_y, item_tfms, batch_tfms=(), bs=2):
    made = DataBlock(
        (ImageBlock, block), get_x=lambda i: pictures(*SIZES[i % 4]), get_y=get_y, splitter=IndexSplitter([4, 5, 6, 7]),
        item_tfms=item_tfms, batch_tfms=batch_tfms,
    )  # fmt: skip
    return made.dataloaders(range(8), bs=bs, val_bs=4, num_workers=0)


WAYS = {
    "squeezed": (Resize((32, 48), "squish"), ()),
    "the centre": (Resize((32, 48)), ()),
    "padded": (Resize((32, 48), "pad", "zeros"), ()),
    "a random crop": (RandomResizedCrop(32, min_scale=0.5), ()),
    "a part of the batch": (Resize((40, 40), "squish"), (Augment(size=(24, 32), min_scale=0.5),)),
    "both": (RandomResizedCrop((40, 36), min_scale=0.5), (Augment(size=24, min_scale=0.7, rotate=10),)),
}


@pytest.mark.parametrize("name", WAYS)
def test_points_come_back_to_where_they_were(name):
    points = [[[0.31 * w, 0.62 * h], [0.5 * w, 0.5 * h]] for h, w in SIZES]
    dls = loaders(PointBlock, lambda i: points[i % 4], *WAYS[name])
    batch = dls.valid.one_batch()
    assert batch.source.shape == (4, 3, 3)
    there = torch.cat([batch.y.double(), torch.ones(4, 2, 1)], dim=2) @ batch.source.transpose(1, 2)
    torch.testing.assert_close(there[..., :2], torch.tensor(points, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(there[..., 2], torch.ones(4, 2, dtype=torch.float64))


def test_without_transforms_the_way_back_is_no_way():
    made = DataBlock(
        (ImageBlock, PointBlock),
        get_x=lambda i: pictures(20, 30),
        get_y=lambda i: [[1, 2]],
        splitter=IndexSplitter([0]),
    )
    batch = made.dataloaders(range(3), bs=1, num_workers=0).valid.one_batch()
    torch.testing.assert_close(batch.source, torch.eye(3, dtype=torch.float64)[None])


def test_training_batches_have_no_way_back():
    assert loaders(PointBlock, lambda i: [[1, 1]], Resize(32)).train.one_batch().source is None


def test_parts_are_trained_on_and_the_whole_is_evaluated():
    parts = Augment(size=(24, 32), min_scale=0.5, whole=True, flip=True)
    dls = loaders(MaskBlock, lambda i: np.zeros(SIZES[i % 4], np.uint8), Resize((48, 64), "squish"), parts)
    train, valid = dls.train.one_batch(), dls.valid.one_batch()
    assert tuple(train.x.shape[1:]) == (3, 24, 32)
    assert tuple(train.y.shape[1:]) == (24, 32)
    assert tuple(valid.x.shape[1:]) == (3, 48, 64)
    assert tuple(valid.y.shape[1:]) == (48, 64)
    again = dls.valid.with_options(train=True)  # as test-time augmentation asks
    assert tuple(again.one_batch().x.shape[1:]) == (3, 24, 32)
    assert tuple(dls.train.with_options(train=False).one_batch().x.shape[1:]) == (3, 48, 64)


def test_boxes_of_the_whole_lie_in_the_whole():
    parts = Augment(size=16, min_scale=0.5, whole=True)
    dls = loaders(BBoxBlock(("a",)), lambda i: ([[0, 0, 10, 12]], ["a"]), Resize((48, 64), "squish"), parts)
    batch = dls.valid.one_batch()
    for i, (height, width) in enumerate(SIZES):
        wanted = torch.tensor([0, 0, 10 * 64 / width, 12 * 48 / height])
        torch.testing.assert_close(batch.y.values["boxes"][i, 0], wanted)
