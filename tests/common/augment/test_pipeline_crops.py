"""Crops of the pipeline, the resample that shrinks, and the replay of one sample (common/augment/pipeline.py)."""

import numpy as np
import pytest
import torch

from common.augment import Augment, geometry
from common.augment.drawn import Look
from common.blocks.batch import Batch
from common.blocks.item_transforms import View
from common.data import EpochSeed, ImageBlock, RandomResizedCrop

STRONG = {"flip": True, "rotate": 25, "zoom": 1.3, "zoom_least": 0.8, "warp": 0.3, "translate": 0.1, "p_affine": 0.9}


@pytest.mark.parametrize(("kept", "out"), [(439, 40), (299, 100), (127, 32), (64, 32)])
def test_a_resample_that_shrinks_keeps_every_place(pipeline, raw_image, kept, out):
    """A ramp over the whole source is a ramp over the whole output."""
    ramp = (torch.arange(kept) * 255 / kept).round().to(torch.uint8)
    pixels = ramp[None, None, :, None].expand(1, kept, kept, 3).contiguous()
    batch = Batch(x=pixels, ids=torch.tensor([0]))
    found = pipeline(Augment(size=out))(batch, EpochSeed(), False).x[0, 0, out // 2]
    wanted = (torch.arange(out) + 0.5) / out - 0.5 / kept
    assert (found - wanted)[2:-2].abs().max() * out < 0.5


def position_batch(view, count, source):
    """Sources whose first two channels say where a pixel is, as the presize keeps them."""
    height, width = source
    rows, cols = np.mgrid[0:height, 0:width]
    pixels = np.stack([cols * 255 / (width - 1), rows * 255 / (height - 1), 0 * rows], axis=2).round().astype(np.uint8)
    kept = ImageBlock().encode(pixels, view)
    sizes = torch.tensor([source] * count, dtype=torch.int32)
    return Batch(x=kept.expand(count, *kept.shape).contiguous(), ids=torch.arange(count), sizes=sizes)


def test_random_resized_crop_covers_different_parts_by_epoch_and_all_in_the_end(pipeline):
    transform = RandomResizedCrop(32, min_scale=0.2)
    pipe = pipeline(item_tfms=(transform,))
    batch = position_batch(transform.view(80, 120), 8, (80, 120))
    parts = []
    for epoch in range(30):
        x = pipe(batch, EpochSeed(0, epoch), True).x
        parts.append(
            torch.stack([x[:, 0].amin((1, 2)), x[:, 0].amax((1, 2)), x[:, 1].amin((1, 2)), x[:, 1].amax((1, 2))], 1)
        )
    assert len({tuple(part[3].tolist()) for part in parts}) == 30
    parts = torch.cat(parts)
    assert parts[:, [0, 2]].amin(0).max() < 0.02
    assert parts[:, [1, 3]].amax(0).min() > 0.98
    area = (parts[:, 1] - parts[:, 0]) * (parts[:, 3] - parts[:, 2])
    assert 0.15 < area.min() < 0.35


@pytest.mark.parametrize("source", [(80, 160), (160, 80), (100, 100)])
def test_the_crop_of_evaluation_is_the_centre_in_the_sources_proportions(pipeline, source):
    transform = RandomResizedCrop(40, min_scale=0.3)
    pipe = pipeline(item_tfms=(transform,))
    batch = position_batch(transform.view(*source), 2, source)
    found = pipe(batch, EpochSeed(0, 4), False).x[1]
    reference = position_batch(View((0, 0, source[1], source[0]), source), 1, source).x[0].numpy()
    side = min(source)
    top, left = (source[0] - side) // 2, (source[1] - side) // 2
    centre = reference[top : top + side, left : left + side]
    wanted = ImageBlock().encode(np.ascontiguousarray(centre), View((0, 0, side, side), (40, 40))).numpy() / 255
    assert np.abs(found.permute(1, 2, 0).numpy() - wanted)[1:-1, 1:-1].max() < 0.02


@pytest.mark.parametrize("item_tfms", [(), (RandomResizedCrop(24, min_scale=0.4),)])
def test_replay_of_an_id_is_what_the_batch_used(pipeline, noise, item_tfms):
    batch = noise(6, 45, 90)
    kept = torch.tensor([[40 + i, 90 - i] for i in range(6)], dtype=torch.int32) if item_tfms else None
    batch = Batch(x=batch.x, ids=torch.tensor([5, 900, 3, 77, 12345678901, 0]), extents=kept)
    pipe = pipeline(Augment(**STRONG, brightness=0.3), item_tfms=item_tfms)
    epoch_seed = EpochSeed(7, 11)
    found = pipe(batch, epoch_seed, True).x
    drawn = pipe.draw(batch.ids, (45, 90) if kept is None else kept, epoch_seed, True)
    for i, sample in enumerate(batch.ids.tolist()):
        height, width = (45, 90) if kept is None else kept[i].tolist()
        again = pipe.replay(sample, epoch_seed, (height, width))
        assert torch.equal(again.matrix[0], drawn.matrix[i])
        assert torch.equal(again.colour[0], drawn.colour[i])
        pixels = batch.x[i : i + 1, :height, :width].permute(0, 3, 1, 2).float()
        image = geometry.resample(pixels, again, Look(found.shape[2:], (), ())) / 255
        factor = again.colour[0, 0, 0].float()
        torch.testing.assert_close(found[i], (image[0] * factor).clamp(0, 1), atol=3e-4, rtol=0)
