"""The pipeline: exact where nothing is interpolated, one map for all targets, one resample a tensor."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.utils._python_dispatch import TorchDispatchMode

from common.augment import Augment, CutMix, Mixup, Normalize, aug_transforms, geometry
from common.augment.colours import Brightness, Contrast
from common.blocks.batch import Batch
from common.blocks.values import Padded
from common.data import (
    BBoxBlock,
    CategoryBlock,
    EpochSeed,
    ImageBlock,
    MaskBlock,
    PointBlock,
    RandomResizedCrop,
    imagenet_stats,
)

STRONG = {"flip": True, "rotate": 25, "zoom": 1.3, "zoom_least": 0.8, "warp": 0.3, "translate": 0.1, "p_affine": 0.9}


def test_without_transforms_pixels_are_exact(pipeline, noise, unit):
    batch = noise(5, 17, 23)
    for train in (True, False):
        assert torch.equal(pipeline()(batch, EpochSeed(), train).x, unit(batch.x))


@pytest.mark.parametrize("block", [ImageBlock(), ImageBlock("RGB", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))])
def test_normalisation_is_exact(pipeline, noise, unit, block):
    batch = noise(3)
    mean, std = (torch.tensor(v)[:, None, None] for v in (block.mean, block.std))
    assert torch.equal(pipeline(blocks=(block,))(batch, EpochSeed(), True).x, (unit(batch.x) - mean) / std)


def test_normalize_goes_before_the_blocks_own(pipeline, noise):
    batch = noise(3)
    given = pipeline(Normalize.from_stats(*imagenet_stats))(batch, EpochSeed(), False).x
    assert torch.equal(given, pipeline(blocks=(ImageBlock(),))(batch, EpochSeed(), False).x)


def test_images_leave_with_channels_last_in_memory(pipeline, noise):
    found = pipeline(Augment(flip=True))(noise(3), EpochSeed(), True).x
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("option", "dims"),
    [({"flip": True}, [3]), ({"flip_vertical": True}, [2]), ({"flip": True, "flip_vertical": True}, [2, 3])],
)
@pytest.mark.parametrize(("size", "tolerance"), [((32, 64), 0.0), ((30, 50), 1e-5)])
def test_flips_equal_torchs(pipeline, noise, unit, option, dims, size, tolerance):
    batch = noise(64, *size)
    pipe = pipeline(Augment(**option))
    found, image = pipe(batch, EpochSeed(), True).x, unit(batch.x)
    matrix = pipe.draw(batch.ids, size, EpochSeed(), True).matrix
    flips = torch.stack([matrix[:, 0, 0] < 0, matrix[:, 1, 1] < 0], dim=1)
    for i in range(64):
        axes = [axis for axis, on in ((2, flips[i, 0]), (1, flips[i, 1])) if on]
        assert (found[i] - torch.flip(image[i], axes)).abs().max() <= tolerance
    for axis in dims:
        assert 16 < flips[:, 3 - axis].sum() < 48


def test_flip_twice_is_identity(pipeline, noise, unit):
    batch = noise(32)
    pipe = pipeline(Augment(flip=True, flip_vertical=True))
    once = pipe(batch, EpochSeed(), True).x
    pixels = (once * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    twice = pipe(Batch(x=pixels, ids=batch.ids), EpochSeed(), True).x
    torch.testing.assert_close(twice, unit(batch.x))
    assert not torch.equal(once, twice)


def test_flips_follow_masks_points_and_boxes(pipeline, noise):
    batch = noise(16, 20, 30)
    y = (
        batch.x[..., 0].clone(),
        torch.tensor([[3.0, 4.0], [29.0, 1.5]]).expand(16, 2, 2),
        Padded(
            {
                "boxes": torch.tensor([[1.0, 2.0, 11.0, 8.0]]).expand(16, 1, 4),
                "labels": torch.zeros(16, 1, dtype=torch.int64),
            },
            torch.ones(16, 1, dtype=torch.bool),
        ),
    )
    pipe = pipeline(Augment(flip=True), blocks=(ImageBlock(), MaskBlock(), PointBlock(), BBoxBlock(("a",))))
    mask, points, boxes = pipe(Batch(x=batch.x, y=y, ids=batch.ids), EpochSeed(), True).y
    flipped = pipe.draw(batch.ids, (20, 30), EpochSeed(), True).matrix[:, 0, 0] < 0
    for i in range(16):
        assert torch.equal(mask[i], y[0][i].flip(1) if flipped[i] else y[0][i])
        torch.testing.assert_close(points[i], torch.tensor([[27.0, 4.0], [1.0, 1.5]]) if flipped[i] else y[1][i])
        wanted = [19.0, 2.0, 29.0, 8.0] if flipped[i] else [1.0, 2.0, 11.0, 8.0]
        torch.testing.assert_close(boxes.values["boxes"][i, 0], torch.tensor(wanted))
    assert 0 < flipped.sum() < 16
    assert boxes.valid.all()


SIZE = 128


def scene(count):
    """Images with four spots (channel 0) and a filled box (channel 1), and the points, boxes and mask of the same."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    pixels = np.zeros((count, SIZE, SIZE, 3), np.uint8)
    points = rng.uniform(20, SIZE - 20, (count, 1, 2)).astype(np.float32)
    corner = rng.integers(20, 50, (count, 1, 2))
    boxes = np.concatenate([corner, corner + rng.integers(20, 50, (count, 1, 2))], axis=2).astype(np.float32)
    for i in range(count):
        x, y = points[i, 0]
        pixels[i, ..., 0] = np.round(255 * np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * 2.0**2)))
        x0, y0, x1, y1 = boxes[i, 0].astype(int)
        pixels[i, y0:y1, x0:x1, 1] = 255
    mask = torch.from_numpy(pixels[..., 1] // 255)
    things = {"boxes": torch.from_numpy(boxes), "labels": torch.zeros(count, 1, dtype=torch.int64)}
    y = (mask, torch.from_numpy(points), Padded(things, torch.ones(count, 1, dtype=torch.bool)))
    return Batch(x=torch.from_numpy(pixels), y=y, ids=torch.arange(count), sizes=torch.tensor([[SIZE, SIZE]] * count))


SPATIAL = (MaskBlock(), PointBlock(), BBoxBlock(("a",)))


@pytest.mark.parametrize(
    ("options", "item_tfms", "out"),
    [
        (STRONG, (), SIZE),
        ({**STRONG, "size": 100}, (), 100),
        ({**STRONG, "size": 96, "min_scale": 0.5}, (), 96),
        ({"flip": True, "rotate": 20}, (RandomResizedCrop(96, min_scale=0.5),), 96),
        ({"size": 60}, (), 60),
        ({"size": 40}, (), 40),
        ({"size": 50, "rotate": 45, "p_affine": 1}, (), 50),
    ],
)
def test_points_boxes_and_masks_stay_on_their_pixels(pipeline, raw_image, options, item_tfms, out):
    pipe = pipeline(Augment(padding="zeros", **options), blocks=(raw_image, *SPATIAL), item_tfms=item_tfms)
    checked = np.zeros(2, int)
    for epoch in range(2):
        batch = pipe(scene(40), EpochSeed(3, epoch), True)
        mask, points, boxes = batch.y
        assert batch.x.shape == (40, 3, out, out)
        image = batch.x.numpy()
        for i in range(40):
            x, y = points[i, 0].tolist()
            if min(x, y) > 9 and max(x, y) < out - 9:
                found_y, found_x = np.array(ndimage.center_of_mass(image[i, 0])) + 0.5
                assert max(abs(found_x - x), abs(found_y - y)) < 0.5
                checked[0] += 1
            seen = image[i, 1] > 0.5
            if seen.any():
                ys, xs = np.nonzero(seen)
                extent = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
                outside = (extent - boxes.values["boxes"][i, 0].numpy()) * [-1, -1, 1, 1]
                assert boxes.valid[i, 0]
                assert outside.max() <= 1
                if extent.min() > 0 and extent.max() < out:  # a turned box that is cut is larger than what is seen
                    assert outside.min() >= -1
                    checked[1] += 1
            assert (seen != (mask[i].numpy() == 1)).mean() < 0.03
    assert checked.min() > 30


def test_a_box_that_leaves_the_image_is_no_longer_valid(pipeline, raw_image):
    pipe = pipeline(Augment(size=32), blocks=(raw_image, BBoxBlock(("a",))))
    boxes = torch.tensor([[[0.0, 0, 10, 10], [50, 5, 70, 20], [20, 0, 60, 64]]])
    y = Padded({"boxes": boxes, "labels": torch.zeros(1, 3, dtype=torch.int64)}, torch.ones(1, 3, dtype=torch.bool))
    batch = Batch(x=torch.zeros(1, 64, 128, 3, dtype=torch.uint8), y=y, ids=torch.tensor([0]))
    found = pipe(batch, EpochSeed(), False).y
    assert found.valid.tolist() == [[False, True, True]]
    assert found.values["boxes"][0, 1:].tolist() == [[9, 2.5, 19, 10], [0, 0, 14, 32]]


@pytest.mark.parametrize("count", [1, 4])
def test_each_tensor_is_resampled_at_most_once(pipeline, monkeypatch, count):
    calls = []
    real = torch.nn.functional.grid_sample

    def counted(*args, **kwargs):
        calls.append(args[0].shape)
        return real(*args, **kwargs)

    monkeypatch.setattr(geometry.F, "grid_sample", counted)
    pipe = pipeline(
        *aug_transforms(size=24, min_scale=0.5), blocks=(ImageBlock(), *SPATIAL), item_tfms=(RandomResizedCrop(64),)
    )
    pipe(scene(count), EpochSeed(), True)
    assert len(calls) <= 2 * count
    assert len({shape[1:] for shape in calls}) == 2
    assert sum(shape[0] for shape in calls) == 2 * count
    calls.clear()
    pipeline(Augment(brightness=0.2))(scene(2), EpochSeed(), True)
    assert calls == []


def test_tone_is_the_plain_formula(pipeline, noise, unit):
    batch = noise(50, 6, 7)
    pipe = pipeline(Augment(brightness=0.4, contrast=0.5, p_lighting=0.8), blocks=(ImageBlock(),))
    found = pipe(batch, EpochSeed(2, 9), True).x
    image = unit(batch.x).double()
    for op in (Brightness(0.8, 0.4), Contrast(0.8, 0.5)):
        numbers, chosen = op.draw(batch.ids, EpochSeed(2, 9))
        for i in range(50):
            if chosen[i]:
                u = numbers[i, 0].item()
                if op.name == "brightness":
                    image[i] = image[i] * (1 + (2 * u - 1) * 0.4)
                else:
                    image[i] = (image[i] - 0.5) * (1 / (1 - 0.5)) ** (2 * u - 1) + 0.5
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in imagenet_stats)
    torch.testing.assert_close(found.double(), (image.clamp(0, 1) - mean) / std, atol=1e-5, rtol=0)


def test_evaluation_draws_nothing(pipeline, noise, unit):
    batch = noise(8)
    pipe = pipeline(Augment(**STRONG, brightness=0.5, contrast=0.5))
    assert torch.equal(pipe(batch, EpochSeed(0, 0), False).x, unit(batch.x))


def test_another_epoch_or_seed_gives_other_changes(pipeline, noise):
    pipe = pipeline(Augment(**STRONG))
    found = [
        pipe(noise(4), epoch_seed, True).x
        for epoch_seed in (EpochSeed(0, 0), EpochSeed(0, 1), EpochSeed(1, 0), EpochSeed(0, 0))
    ]
    assert torch.equal(found[0], found[3])
    for other in found[1:3]:
        assert all(not torch.equal(found[0][i], other[i]) for i in range(4))


def test_targets_that_do_not_move_pass_unchanged(pipeline, noise):
    batch = noise(4)
    y = torch.tensor([0, 1, 1, 0])
    found = pipeline(Augment(**STRONG), blocks=(ImageBlock(), CategoryBlock(("a", "b"))))(
        Batch(x=batch.x, y=y, ids=batch.ids), EpochSeed(), True
    )
    assert torch.equal(found.y, y)
    assert torch.equal(found.ids, batch.ids)


@pytest.mark.parametrize("elastic", [0.0, 0.03])
@pytest.mark.parametrize("size", [96, 40])
def test_a_photo_and_its_mask_are_looked_at_once_each(pipeline, monkeypatch, size, elastic):
    """By OpenCV (a warp, a map or a resize) from 64 x 64 pixels on, below by grid_sample."""
    import cv2

    calls = []

    def counting(name, real):
        def counted(*args, **kwargs):
            calls.append(name)
            return real(*args, **kwargs)

        return counted

    for name in ("warpPerspective", "warpAffine", "remap", "resize"):
        monkeypatch.setattr(cv2, name, counting(name, getattr(cv2, name)))
    monkeypatch.setattr(geometry.F, "grid_sample", counting("grid_sample", torch.nn.functional.grid_sample))
    augment = Augment(**{**STRONG, "zoom_least": 1.0}, symmetries=True, size=size, min_scale=0.5, elastic=elastic)
    pipeline(augment, blocks=(ImageBlock(), *SPATIAL))(scene(6), EpochSeed(), True)
    assert len(calls) == (12 if size == 96 else 2)
    assert set(calls) <= ({"warpPerspective", "remap", "resize"} if size == 96 else {"grid_sample"})


class Copies(TorchDispatchMode):
    """Notes every tensor made from numbers of the host, which an accelerator would have to be sent, and every read."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("lift_fresh", "_local_scalar_dense", "nonzero", "is_nonzero", "equal"):
            self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mixes", [(), (Mixup(), CutMix())])
@pytest.mark.parametrize("sized", [False, True])
def test_a_batch_is_transformed_without_a_word_between_host_and_device(pipeline, noise, sized, mixes):
    blocks = (ImageBlock(), MaskBlock(), PointBlock(), BBoxBlock(("a",)))
    tfms = (RandomResizedCrop(24, min_scale=0.4),) if sized else ()
    strong = {"elastic": 0.05, "blur": 1, "sharpen": 1, "noise": 0.1, "salt_pepper": 0.1, "erase": 0.3, "hue": 0.1}
    augment = Augment(**STRONG, **strong, brightness=0.3, contrast=0.2, size=20, padding="zeros")
    pipe = pipeline(augment, *mixes, blocks=blocks if not mixes else (blocks[0], *blocks[3:]), item_tfms=tfms)
    things = {"boxes": torch.rand(4, 3, 4), "labels": torch.zeros(4, 3, dtype=torch.int64)}
    boxes = Padded(things, torch.ones(4, 3) > 0)
    y = (torch.zeros(4, 40, 60, dtype=torch.uint8), torch.rand(4, 2, 2), boxes)
    kept = torch.tensor([[40, 60], [30, 50], [40, 20], [25, 60]], dtype=torch.int32) if sized else None
    batch = Batch(x=noise(4, 40, 60).x, y=boxes if mixes else y, ids=torch.arange(4), extents=kept)
    pipe(batch, EpochSeed(0, 1), True)  # the keys of an epoch are sent once
    for train in (True, False):
        with Copies() as copies:
            pipe(batch, EpochSeed(0, 1), train)
        assert copies.names == []


def test_the_watch_for_copies_sees_one():
    with Copies() as copies:
        torch.tensor([1.0, 2.0])
        torch.zeros(2).new_tensor([1.0])
        float(torch.ones(()))
    assert copies.names.count("lift_fresh") >= 1
    assert copies.names[-1] == "_local_scalar_dense"
