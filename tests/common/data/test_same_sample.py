"""A sample is augmented alike, bit for bit, in any batch, by any number of threads and in any process."""

import numpy as np
import pytest
import torch

from common.augment import Augment, CutMix, Mixup, Mosaic
from common.data import (
    BBoxBlock,
    CategoryBlock,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    MaskBlock,
    RandomResizedCrop,
    Resize,
)
from common.errors import DataError

COUNT = 70
ALL = Augment(
    flip=True, symmetries=True, rotate=20, zoom=1.2, zoom_least=0.7, translate=0.1, warp=0.2, elastic=0.03, blur=1.0,
    sharpen=1.0, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, grayscale=0.2, noise=0.1, salt_pepper=0.05,
    erase=0.3,
)  # fmt: skip


def photo(i):
    """Photos of differing shapes without any order."""
    generator = np.random.default_rng(i)
    return generator.integers(0, 256, (90 + i % 7, 80 + 3 * (i % 5), 3), dtype=np.uint8)


def dataloaders(item_tfms, *tfms, masks=False, **options):
    second = MaskBlock(tuple(map(str, range(4)))) if masks else CategoryBlock
    block = DataBlock(
        (ImageBlock, second), get_x=photo, splitter=IndexSplitter([0, 1]), item_tfms=item_tfms, batch_tfms=list(tfms),
        get_y=(lambda i: photo(i)[..., 0] % 4) if masks else (lambda i: "abc"[i % 3]),
    )  # fmt: skip
    return block.dataloaders(list(range(COUNT)), **{"bs": 16, "seed": 5, **options})


def samples(loader, epoch):
    """What each sample of an epoch became, by its id."""
    found = {}
    for batch in loader.batches(epoch):
        for i, sample in enumerate(batch.ids.tolist()):
            assert sample not in found
            found[sample] = (batch.x[i].clone(), batch.y[i].clone())
    return found


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    for sample, (x, y) in found.items():
        assert torch.equal(x, wanted[sample][0]), sample
        assert torch.equal(y, wanted[sample][1]), sample


WAYS = {
    "photos cut at random": (RandomResizedCrop(72, min_scale=0.4), (ALL,)),
    "photos": (Resize(80), (ALL,)),
    "small images cut at random": (RandomResizedCrop(24, min_scale=0.4), (ALL,)),
    "small images": (Resize(20), (ALL,)),
    "photos mixed": (Resize(80), (ALL, CutMix(p=0.4), Mixup())),
    "photos in mosaics": (Resize(80), (ALL, Mosaic())),
    "small images in mosaics": (RandomResizedCrop(24, min_scale=0.4), (ALL, Mosaic())),
    "small images mixed": (RandomResizedCrop(24, min_scale=0.4), (ALL, CutMix(p=0.4), Mixup())),
}


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("name", WAYS)
def test_a_sample_is_the_same_in_any_batch_by_any_threads_and_in_any_process(name, masks):
    item_tfms, tfms = WAYS[name]
    wanted = samples(dataloaders(item_tfms, *tfms, masks=masks).train.with_options(drop_last=False), 2)
    assert len(wanted) == COUNT - 2
    for size, workers in ((1, 0), (7, 1), (64, 2), (7, 2)):
        loader = dataloaders(item_tfms, *tfms, masks=masks, bs=size, num_workers=workers).train
        assert_same(samples(loader.with_options(drop_last=False), 2), wanted)
    both = {}
    for rank in range(2):
        loader = dataloaders(item_tfms, *tfms, masks=masks).train
        part = samples(loader.with_options(drop_last=False, rank=rank, world=2), 2)
        assert not set(part) & set(both)
        both.update(part)
    assert_same(both, wanted)


@pytest.mark.parametrize("name", WAYS)
def test_a_replayed_sample_is_the_one_that_was_trained_on(name):
    item_tfms, tfms = WAYS[name]
    train = dataloaders(item_tfms, *tfms).train.with_options(drop_last=False)
    wanted = samples(train, 3)
    for sample in (2, 41, 69):
        batch = train.replay(sample, 3)
        assert batch.ids.tolist() == [sample]
        assert torch.equal(batch.x[0], wanted[sample][0])
        assert torch.equal(batch.y[0], wanted[sample][1])
    with pytest.raises(DataError, match="no sample 0"):
        train.replay(0, 3)


def test_starting_in_the_middle_of_an_epoch_gives_the_same_mixed_samples():
    train = dataloaders(Resize(20), ALL, Mixup()).train.with_options(drop_last=False)
    whole = list(train.batches(1))
    for batch, wanted in zip(train.batches(1, 2), whole[2:], strict=True):
        assert torch.equal(batch.x, wanted.x)
        assert torch.equal(batch.ids, wanted.ids)


@pytest.mark.parametrize("side", [20, 72])
def test_a_sample_whose_mate_is_left_out_is_not_mixed_and_the_others_are_as_before(side):
    def block(broken):
        def get_x(i):
            return b"no image" if i in broken else photo(i)

        made = DataBlock(
            (ImageBlock, CategoryBlock), get_x=get_x, get_y=lambda i: "abc"[i % 3], splitter=IndexSplitter([0, 1]),
            item_tfms=Resize(side), batch_tfms=[Mixup(1.0)],
        )  # fmt: skip
        return made.dataloaders(list(range(COUNT)), bs=16, on_error="skip", seed=5).train.with_options(drop_last=False)

    wanted = samples(block(()), 1)
    train = block((7, 30))
    order = train.order.places(1, 0, train.n).tolist()
    for _ in range(2):  # when it is found, and when it is known
        found = samples(train, 1)
        assert set(wanted) - set(found) == {7, 30}
        for sample, (x, y) in found.items():
            mate = order[order.index(sample) - 1]
            if mate in (7, 30):
                assert y.max() == pytest.approx(1)
            else:
                assert torch.equal(x, wanted[sample][0])
                assert torch.equal(y, wanted[sample][1])


def test_boxes_travel_with_their_mates():
    block = DataBlock(
        (ImageBlock, BBoxBlock), get_x=photo, get_y=lambda i: ([[10, 10, 40, 50]] * (i % 3), ["a"] * (i % 3)),
        splitter=IndexSplitter([1, 2]), item_tfms=Resize(72), batch_tfms=[ALL, CutMix(), Mixup(p=0.5)],
    )  # fmt: skip
    for batch in block.dataloaders(list(range(COUNT)), bs=16).train.batches(0):
        assert len(batch.x) == len(batch.ids) == len(batch.y.valid)
        assert batch.y.values["boxes"][batch.y.valid].min() >= 0
        assert batch.y.values["boxes"][batch.y.valid].max() <= 72
