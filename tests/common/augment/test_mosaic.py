"""Mosaic: four samples around a corner, every pixel, mask and box where its piece is."""

import numpy as np
import pytest
import torch

from common.augment import Augment, CutMix, Mixup, Mosaic, mosaic
from common.augment.batch_transforms import BatchTransform
from common.blocks.batch import Batch
from common.blocks.values import Padded
from common.data import BBoxBlock, CategoryBlock, EpochSeed, InstanceBlock, MaskBlock, PointBlock, RegressionBlock
from common.errors import ConfigError

SIDES = [(20, 26), (80, 70)]  # whole batches in torch, and photos one by one on the CPU
COUNT = 16


def numbered(size):
    """Images whose red tells the sample, green the row and blue the column."""
    x = torch.zeros(COUNT, *size, 3, dtype=torch.uint8)
    x[..., 0] = torch.arange(COUNT, dtype=torch.uint8)[:, None, None]
    x[..., 1] = torch.arange(size[0], dtype=torch.uint8)[None, :, None]
    x[..., 2] = torch.arange(size[1], dtype=torch.uint8)[None, None, :]
    return x


def run(pipeline, raw_image, size, block, y, p=1.0, epoch=0, train=True):
    pipe = pipeline(Mosaic(p), blocks=(raw_image, block))
    return pipe(Batch(x=numbered(size), y=y, ids=torch.arange(COUNT)), EpochSeed(0, epoch), train)


def levels(batch):
    return (batch.x * 255).round().to(torch.int64)


@pytest.mark.parametrize("size", SIDES)
def test_a_sample_is_four_whole_pieces_of_itself_and_the_three_before_it(pipeline, raw_image, size):
    found = levels(run(pipeline, raw_image, size, CategoryBlock(("a",)), torch.zeros(COUNT, dtype=torch.int64)))
    for i, (sample, rows, columns) in enumerate(found):
        assert set(sample.unique().tolist()) == {(i - k) % COUNT for k in range(4)}
        for which in sample.unique():
            there = sample == which
            ys, xs = torch.nonzero(there, as_tuple=True)
            assert there.sum() == (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)  # a rectangle
            assert (rows[there] - ys).unique().numel() == 1  # moved as a whole, pixel by pixel
            assert (columns[there] - xs).unique().numel() == 1


@pytest.mark.parametrize("size", SIDES)
def test_masks_and_boxes_follow_their_pieces(pipeline, raw_image, size):
    boxes = torch.tensor([[[3.0, 4.0, 15.0, 13.0]]]).expand(COUNT, 1, 4).contiguous()
    things = {"boxes": boxes, "labels": torch.arange(COUNT)[:, None]}
    y = Padded(things, torch.ones(COUNT, 1, dtype=torch.bool))
    found = run(pipeline, raw_image, size, BBoxBlock(tuple("abcdefghijklmnop")), y)
    image = levels(found)
    seen = 0
    for i in range(COUNT):
        valid = found.y.valid[i]
        for (x0, y0, x1, y1), label in zip(
            found.y.values["boxes"][i][valid].tolist(), found.y.values["labels"][i][valid], strict=True
        ):
            part = image[i, :, int(y0) : int(y1), int(x0) : int(x1)]
            assert (part[0] == label).all()
            assert part[1].min() >= 4
            assert part[1].max() < 13
            assert part[2].min() >= 3
            assert part[2].max() < 15
            seen += 1
        inside = (image[i, 1] >= 4) & (image[i, 1] < 13) & (image[i, 2] >= 3) & (image[i, 2] < 15)
        for label in range(COUNT):  # and no box of which a tenth is seen is missing
            share = (inside & (image[i, 0] == label)).sum() / (9 * 12)
            assert (label in found.y.values["labels"][i][valid].tolist()) == bool(share >= 0.1)
    assert seen > 4

    masks = torch.arange(COUNT, dtype=torch.uint8)[:, None, None].expand(COUNT, *size).contiguous()
    found = run(pipeline, raw_image, size, MaskBlock(tuple("abcdefghijklmnop")), masks)
    assert torch.equal(found.y.to(torch.int64), levels(found)[:, 0])


def test_categories_and_numbers_become_shares_of_the_area(pipeline, raw_image):
    names = tuple("abcdefghijklmnop")
    found = run(pipeline, raw_image, (80, 70), CategoryBlock(names), torch.arange(COUNT))
    for i, sample in enumerate(levels(found)[:, 0]):
        wanted = torch.bincount(sample.flatten(), minlength=COUNT) / sample.numel()
        torch.testing.assert_close(found.y[i], wanted)
    numbers = run(pipeline, raw_image, (80, 70), RegressionBlock(), torch.arange(COUNT).float())
    torch.testing.assert_close(numbers.y, found.y @ torch.arange(COUNT).float())


@pytest.mark.parametrize("size", SIDES)
def test_one_that_is_not_chosen_stays_as_it_is(pipeline, raw_image, size):
    y = torch.zeros(COUNT, dtype=torch.int64)
    still = run(pipeline, raw_image, size, CategoryBlock(("a",)), y, p=0.0)
    assert torch.equal(levels(still).permute(0, 2, 3, 1), numbered(size).to(torch.int64))
    some = levels(run(pipeline, raw_image, size, CategoryBlock(("a",)), y, p=0.5))[:, 0]
    whole = [len(sample.unique()) == 1 for sample in some]
    assert 2 < sum(whole) < COUNT - 2
    plain = run(pipeline, raw_image, size, CategoryBlock(("a",)), y, train=False)
    assert torch.equal(plain.y, y)


def test_the_look_up_of_an_accelerator_gives_what_the_copies_of_a_cpu_give(pipeline, raw_image):
    pipe = pipeline(Mosaic(1.0), blocks=(raw_image, CategoryBlock(("a",))))
    batch = Batch(x=torch.rand(COUNT, 3, 30, 40), ids=torch.arange(COUNT))
    pieces = mosaic.draw(batch, pipe.mosaics[0], lambda op, ids: pipe.numbers(op, ids, EpochSeed()), (30, 40))
    for value in (batch.x, batch.x[:, 0]):
        wanted = mosaic.put_together(value, pieces)
        assert torch.equal(mosaic._looked_up(value, pieces, 30, 40), wanted)


def test_corners_spread_over_the_middle_and_every_piece_turns_up_everywhere(pipeline, raw_image):
    pipe = pipeline(Mosaic(1.0), blocks=(raw_image, CategoryBlock(("a",))))
    batch = Batch(x=torch.empty(0), ids=torch.arange(4000))
    pieces = mosaic.draw(batch, pipe.mosaics[0], lambda op, ids: pipe.numbers(op, ids, EpochSeed()), (100, 200))
    corner = pieces.places[:, 0, 2:].numpy()
    assert corner[:, 0].min() == 25
    assert corner[:, 0].max() == 74
    assert np.abs(corner.mean(axis=0) - [49.5, 99.5]).max() < 2
    own = (pieces.sources == torch.arange(4000)[:, None]).double().mean(dim=0)
    assert (own - 0.25).abs().max() < 0.03
    low = pieces.places[..., :2] - pieces.shifts
    assert low.min() == 0
    assert (low + pieces.places[..., 2:] - pieces.places[..., :2]).amax(dim=(0, 1)).tolist() == [100, 200]


@pytest.mark.parametrize(
    ("transforms", "block", "reason"),
    [
        ((Mosaic(), Mixup()), CategoryBlock(("a",)), "mosaic goes with no other mixing"),
        ((CutMix(), Mosaic()), CategoryBlock(("a",)), "mosaic goes with no other mixing"),
        ((Mosaic(),), PointBlock(), "mosaic does not support points"),
        ((Mosaic(),), InstanceBlock(), "mosaic does not support instances"),
        ((Mixup(),), InstanceBlock(), "mixup does not support instances"),
    ],
)
def test_what_cannot_be_put_together_is_refused_when_the_pipeline_is_built(
    pipeline, raw_image, transforms: tuple[BatchTransform, ...], block, reason
):
    with pytest.raises(ConfigError, match=reason):
        pipeline(Augment(), *transforms, blocks=(raw_image, block))


def test_mosaic_needs_an_image(pipeline):
    with pytest.raises(ConfigError, match="mosaic needs an image"):
        pipeline(Mosaic(), blocks=(RegressionBlock(), RegressionBlock()))
