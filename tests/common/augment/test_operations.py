"""The contract of every operation, and what each matrix or tone does."""

import math

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from common.augment import Augment, CutMix, Mixup, Mosaic, Normalize, SpecAugment, colours, geometry, moves
from common.augment import operations as ops
from common.augment.batch_transforms import BatchTransform
from common.augment.drawn import Drawn, Look
from common.augment.spectral import Spectral
from common.blocks.item_transforms import RandomCrop
from common.data import (
    BBoxBlock,
    CategoryBlock,
    ColumnsBlock,
    EpochSeed,
    ImageBlock,
    MaskBlock,
    PointBlock,
    RegressionBlock,
    SignalBlock,
    SpectrogramBlock,
    TextBlock,
)
from common.errors import ConfigError
from common.registry import names, resolve

ALL = Augment(
    flip=True, flip_vertical=True, symmetries=True, rotate=1, zoom=1.1, warp=0.1, translate=0.1, elastic=0.01, blur=1,
    sharpen=1, brightness=0.1, contrast=0.1, saturation=0.1, hue=0.1, grayscale=0.1, noise=0.1, salt_pepper=0.1,
    erase=0.1, size=8,
)  # fmt: skip
EVERY_TRANSFORM = (ALL, Mixup(), CutMix(), Mosaic(), SpecAugment(shift=0.1, gain=1), Normalize())
BLOCKS = {
    "image": ImageBlock(),
    "mask": MaskBlock(("a", "b")),
    "boxes": BBoxBlock(("a",)),
    "points": PointBlock(),
    "signal": SignalBlock(),
    "spectrogram": SpectrogramBlock(),
    "text": TextBlock(vocab=("<pad>", "<unk>")),
    "columns": ColumnsBlock(),
    "category": CategoryBlock(("a", "b")),
    "number": RegressionBlock(),
}


def every_operation():
    found, waiting = [], [ops.Operation]
    while waiting:
        for cls in waiting.pop().__subclasses__():
            waiting.append(cls)
            if "name" in cls.__dict__:
                found.append(cls)
    return sorted(found, key=lambda cls: cls.name)


EVERY = pytest.mark.parametrize("cls", every_operation())
GEOMETRIC = pytest.mark.parametrize(
    "cls", [c for c in every_operation() if issubclass(c, ops.Move) and c is not moves.Crop]
)


def drawn(operation, count=200, epoch=0):
    return operation.draw(torch.arange(count), EpochSeed(0, epoch))


def test_the_registered_transforms_use_every_operation():
    used = {type(op) for transform in EVERY_TRANSFORM for op in transform.operations()} | {moves.Crop}
    assert used == set(every_operation())


@pytest.mark.parametrize("name", names("batch_transform"))
def test_every_batch_transform_gives_operations_and_decides_once(name):
    cls = resolve("batch_transform", name)
    assert issubclass(cls, BatchTransform)
    first, second = cls().operations(), cls().operations()
    assert first == second
    assert all(isinstance(op, ops.Operation) for op in first)


@EVERY
def test_every_operation_declares_every_target(cls):
    assert set(cls.support) == set(ops.TARGETS) == set(BLOCKS)
    assert set(cls.support.values()) <= {"transforms", "invariant", "unsupported"}


def test_names_of_operations_are_unique():
    found = [cls.name for cls in every_operation()]
    assert len(set(found)) == len(found)


@EVERY
@pytest.mark.parametrize("target", BLOCKS)
def test_what_an_operation_does_not_support_is_refused_when_the_pipeline_is_built(cls, target, pipeline):
    class One(BatchTransform):
        def operations(self):
            return [cls()]

    first = BLOCKS["spectrogram" if issubclass(cls, Spectral) else "image"]
    blocks = (first, BLOCKS[target]) if target != first.target else (first, CategoryBlock(("a", "b")))
    if cls.support[target] == "unsupported":
        with pytest.raises(
            ConfigError, match=rf"{cls.name} does not support {target} \({type(BLOCKS[target]).__name__}\)"
        ):
            pipeline(One(), blocks=blocks)
    else:
        pipeline(One(), blocks=blocks)


@EVERY
def test_a_draw_is_a_function_of_seed_epoch_id_and_operation(cls):
    numbers, chosen = drawn(cls())
    assert numbers.shape == (200, cls().numbers)
    rows = torch.tensor([7, 199, 0])
    again, picked = cls().draw(rows, EpochSeed(0, 0))
    assert torch.equal(again, numbers[rows])
    assert torch.equal(picked, chosen[rows])
    for other in (cls().draw(torch.arange(200), EpochSeed(1, 0)), drawn(cls(), epoch=1)):
        assert not torch.equal(
            torch.cat([other[0], other[1][:, None]], 1), torch.cat([numbers, chosen[:, None]], 1)
        ) or (cls().numbers == 0 and cls().p == 1)


@EVERY
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_the_share_of_changed_samples_is_p(cls, p):
    chosen = drawn(cls(p=p), 10_000)[1].float().mean().item()
    assert abs(chosen - p) <= 4 * math.sqrt(p * (1 - p) / 10_000)


@GEOMETRIC
@pytest.mark.parametrize("size", [(32, 32), (20, 30)])
def test_every_geometric_operation_can_be_undone(cls, size):
    operation = cls()
    matrix = operation.matrix(drawn(operation)[0], size)
    assert (matrix.dtype, tuple(matrix.shape)) == (torch.float64, (200, 3, 3))
    xy = torch.rand(200, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    back = geometry.apply(geometry.inverse(matrix), geometry.apply(matrix, xy))
    torch.testing.assert_close(back, xy, atol=1e-9, rtol=0)


def resampled(image, matrix, padding="reflection"):
    """Images between 0 and 1, rounded to a 64th of a level."""
    return geometry.resample(image * 255, Drawn(matrix=matrix), Look(image.shape[2:], (), (), padding)) / 255


def one(value, count=1):
    return torch.full((1, count), value, dtype=torch.float64)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize(("number", "degrees"), [(1.0, 30), (0.0, 30), (0.75, 80)])
def test_rotation_equals_torchvisions(number, degrees, size):
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    matrix = moves.Rotate(degrees=degrees).matrix(one(number), size)
    found = geometry.resample(image * 255, Drawn(matrix=matrix), Look(size, (), (), "zeros")) / 255
    angle = (number * 2 - 1) * degrees
    wanted = [tv.rotate(image, a, tv.InterpolationMode.BILINEAR) for a in (angle, -angle)]
    errors = [(found - w)[..., 3:-3, 3:-3].abs().max().item() for w in wanted]
    assert min(errors) < 2e-4
    assert max(errors) > 0.1


@pytest.mark.parametrize("number", [0.0, 1.0])
def test_a_quarter_turn_moves_each_pixel_whole(number):
    image = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    found = resampled(image, moves.Rotate(degrees=90).matrix(one(number), (16, 16)))
    turns = [torch.rot90(image, k, (2, 3)) for k in (1, -1)]
    assert min((found - t).abs().max().item() for t in turns) < 2e-4


def test_zoom_shows_a_part_within_the_image():
    operation = moves.Zoom(least=1.0, greatest=2.0)
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64).expand(500, 2, 2)
    seen = geometry.apply(operation.matrix(drawn(operation, 500)[0], (32, 32)), corners)
    assert seen.abs().max() <= 1 + 1e-12
    width = (seen[:, 1] - seen[:, 0]) / 2
    assert torch.allclose(width[:, 0], width[:, 1])
    assert width.min() >= 0.5
    assert width.min() < 0.51
    assert width.max() > 0.98


def test_the_greatest_zoom_doubles_the_centre():
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    numbers = torch.tensor([[1.0, 0.5, 0.5]], dtype=torch.float64)
    found = resampled(image, moves.Zoom(greatest=2.0).matrix(numbers, (8, 8)))
    wanted = torch.nn.functional.interpolate(image, scale_factor=2, mode="bilinear")[:, :, 4:12, 4:12]
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=0)


def test_translation_moves_by_its_share_of_width_and_height():
    image = torch.rand(1, 1, 10, 20, generator=torch.Generator().manual_seed(0))
    matrix = moves.Translate(share=0.2).matrix(torch.tensor([[0.999, 0.0]], dtype=torch.float64), (10, 20))
    found = resampled(image, matrix, "zeros")
    wanted = torch.zeros_like(image)
    wanted[..., 2:, :-4] = image[..., :-2, 4:]
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=0)


def test_translation_moves_whole_pixels_of_every_amount_alike():
    operation = moves.Translate(share=0.1)
    pixels = operation.matrix(drawn(operation, 5000)[0], (30, 50))[:, :2, 2] * torch.tensor([25.0, 15.0])
    assert torch.allclose(pixels, pixels.round(), atol=1e-9)
    for column, most in zip(pixels.round().T, (5, 3), strict=True):
        values, counts = column.unique(return_counts=True)
        assert values.tolist() == list(range(-most, most + 1))
        assert counts.min() > 0.8 * 5000 / (2 * most + 1)


def test_warp_keeps_straight_lines_and_changes_the_edges():
    numbers = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    matrix = moves.Warp(magnitude=0.4).matrix(numbers, (32, 32))
    line = torch.stack([torch.arange(9.0) / 4 - 1, torch.arange(9.0) / 8 - 0.25], dim=1).double()[None]
    moved = geometry.apply(matrix, line)[0]
    steps = moved[1:] - moved[0]
    cross = steps[:, 0] * steps[-1, 1] - steps[:, 1] * steps[-1, 0]
    assert cross.abs().max() < 1e-12
    edges = geometry.apply(matrix, torch.tensor([[[-1.0, -1], [-1, 1], [1, -1], [1, 1]]]).double())[0, :, 1]
    left, right = edges[1] - edges[0], edges[3] - edges[2]
    assert left / 2 == pytest.approx(1 / (1 - 0.2))
    assert right / 2 == pytest.approx(1 / (1 + 0.2))


def one_factor(operation, number):
    """The factor and the offset of an operation that treats the three channels alike."""
    matrix = operation.colour(one(number))[0]
    factor, offset = matrix[0, 0].item(), matrix[0, 3].item()
    wanted = torch.cat([factor * torch.eye(3), torch.full((3, 1), offset)], dim=1).double()
    torch.testing.assert_close(matrix, wanted, atol=1e-6, rtol=0)
    return [factor, offset]


@pytest.mark.parametrize(("number", "factor"), [(0.0, 0.7), (0.5, 1.0), (1.0, 1.3)])
def test_brightness_multiplies(number, factor):
    assert one_factor(colours.Brightness(change=0.3), number) == pytest.approx([factor, 0.0])


@pytest.mark.parametrize(("number", "factor"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.25)])
def test_contrast_stretches_about_the_middle_grey(number, factor):
    assert one_factor(colours.Contrast(change=0.2), number) == pytest.approx([factor, 0.5 * (1 - factor)])


@pytest.mark.parametrize("size", [(100, 100), (100, 200), (300, 100)])
def test_random_crops_keep_to_their_area_and_shape(size):
    crop = moves.Crop(crop=RandomCrop((32, 32), (0.2, 0.5), (0.75, 4 / 3)))
    sizes = torch.tensor([size]).expand(1000, 2)
    matrix = crop.region(drawn(crop, 1000)[0], sizes)
    width, height = matrix[:, 0, 0], matrix[:, 1, 1]
    assert ((width > 0) & (width <= 1) & (height > 0) & (height <= 1)).all()
    assert (matrix[:, 0, 2].abs() <= 1 - width + 1e-12).all()
    assert (matrix[:, 1, 2].abs() <= 1 - height + 1e-12).all()
    area, shape = width * height, width * size[1] / (height * size[0])
    fits = (width < 1) & (height < 1)
    assert fits.float().mean() > 0.5
    pixel = 1 / (min(size) * 0.3)  # of the smallest side: a crop has whole pixels
    assert ((area[fits] >= 0.2 * (1 - pixel)) & (area[fits] <= 0.5 * (1 + pixel))).all()
    assert ((shape[fits] >= 0.75 * (1 - pixel)) & (shape[fits] <= 4 / 3 * (1 + pixel))).all()
    assert area.max() / area.min() > 2
    sides = torch.stack([width * size[1], height * size[0]])
    edges = torch.stack([(matrix[:, 0, 2] - width + 1) * size[1] / 2, (matrix[:, 1, 2] - height + 1) * size[0] / 2])
    for numbers in (sides, edges):
        torch.testing.assert_close(numbers, numbers.round(), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("source", "out", "width", "height"),
    [
        ((100, 200), (32, 32), 0.5, 1),
        ((200, 100), (32, 32), 1, 0.5),
        ((100, 200), (32, 64), 1, 1),
        ((100, 100), (32, 64), 1, 0.5),
    ],
)
def test_the_centre_crop_is_the_largest_of_its_shape(source, out, width, height):
    matrix = moves.Crop(crop=RandomCrop(out, (0.3, 1), (1, 1))).centre(torch.tensor([source]))
    torch.testing.assert_close(matrix[0], torch.diag(torch.tensor([width, height, 1], dtype=torch.float64)))
