"""Views: the deterministic presize of images, masks, boxes and points."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from common.blocks.item_transforms import View
from common.data import ImageBlock, MaskBlock, PointBlock, RandomResizedCrop, Resize, ResizeMethod
from common.errors import ConfigError


def torchvision_resize(pixels, size):
    """Antialiased bilinear resize by torchvision's tensor code, (H, W, C) float."""
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    return tv.resize(tensor, list(size), antialias=True).permute(1, 2, 0).numpy().astype(float)


@pytest.mark.parametrize("source", [(60, 90), (90, 60), (20, 30)])
@pytest.mark.parametrize("size", [(40, 40), (30, 48)])
def test_squish_equals_torchvisions_resize(picture, source, size):
    pixels = picture(*source)
    found = ImageBlock().encode(pixels, Resize(size, ResizeMethod.Squish).view(*source)).numpy()
    assert np.abs(found - torchvision_resize(pixels, size)).max() <= 1


@pytest.mark.parametrize("source", [(60, 90), (90, 60), (60, 60)])
def test_crop_is_the_centre_resized(picture, source):
    pixels = picture(*source)
    found = ImageBlock().encode(pixels, Resize(30).view(*source)).numpy()
    top, left = (source[0] - 60) // 2, (source[1] - 60) // 2
    wanted = torchvision_resize(pixels[top : top + 60, left : left + 60], (30, 30))
    assert np.abs(found - wanted)[2:-2, 2:-2].max() <= 1  # at the rim ours sees the pixels beyond the crop
    assert np.abs(found - wanted).max() <= 12


@pytest.mark.parametrize(
    ("pad_mode", "numpy_mode"), [("zeros", "constant"), ("border", "edge"), ("reflection", "reflect")]
)
@pytest.mark.parametrize("source", [(20, 32), (32, 20)])
def test_pad_fills_the_shorter_side_as_numpy_does(picture, source, pad_mode, numpy_mode):
    pixels = picture(*source)
    found = ImageBlock().encode(pixels, Resize(32, "pad", pad_mode).view(*source)).numpy()
    rim = [((32 - s) // 2, (32 - s) // 2) for s in source]
    assert np.array_equal(found, np.pad(pixels, [*rim, (0, 0)], mode=numpy_mode))


@pytest.mark.parametrize("pad_mode", ["zeros", "border", "reflection"])
def test_pad_of_a_very_long_photo_has_the_wanted_size(picture, pad_mode):
    for source in ((3, 200), (200, 3), (1, 64)):
        found = ImageBlock().encode(picture(*source), Resize((24, 32), "pad", pad_mode).view(*source))
        assert found.shape == (24, 32, 3)


def test_an_image_of_the_wanted_size_is_not_resampled(picture):
    pixels = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    for method in ("crop", "squish", "pad"):
        found = ImageBlock().encode(pixels, Resize((17, 23), method).view(17, 23))
        assert np.array_equal(found.numpy(), pixels)


def test_masks_are_resampled_by_the_nearest_pixel():
    ids = np.kron(np.array([[0, 7], [200, 3]], dtype=np.uint8), np.ones((10, 10), dtype=np.uint8))
    found = MaskBlock().encode(ids, Resize(8).view(20, 20)).numpy()
    assert np.array_equal(found, np.kron(np.array([[0, 7], [200, 3]]), np.ones((4, 4))))
    padded = MaskBlock().encode(ids[:10], Resize(20, "pad", "zeros").view(10, 20)).numpy()
    assert np.array_equal(padded[5:15], ids[:10])
    assert padded[:5].max() == padded[15:].max() == 0


def blob(height, width, x, y, sigma):
    """A grey uint8 (H, W) picture with a bright spot at (x, y), measured from the corner of the first pixel."""
    rows, cols = np.mgrid[0:height, 0:width] + 0.5
    return np.round(255 * np.exp(-((rows - y) ** 2 + (cols - x) ** 2) / (2 * sigma**2))).astype(np.uint8)


def found_at(pixels):
    weight = pixels.astype(float)
    rows, cols = np.mgrid[0 : weight.shape[0], 0 : weight.shape[1]] + 0.5
    return np.array([(weight * cols).sum(), (weight * rows).sum()]) / weight.sum()


TRANSFORMS = [
    Resize(64),
    Resize((48, 80)),
    Resize(64, "squish"),
    Resize((80, 48), "squish"),
    Resize(64, "pad", "zeros"),
    Resize((48, 90), "pad", "zeros"),
    Resize(300, "squish"),
    Resize((301, 333), "pad", "zeros"),
    RandomResizedCrop(40, min_scale=0.3),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
@pytest.mark.parametrize("source", [(120, 181), (150, 100)])
def test_points_stay_on_the_pixels_they_mark(transform, source):
    height, width = source
    view = transform.view(height, width)
    for x, y in [(width / 2, height / 2), (width / 2 + 20, height / 2 - 12), (width / 2 - 15.5, height / 2 + 11.25)]:
        pixels = ImageBlock("L").encode(blob(height, width, x, y, 4), view).numpy()[..., 0]
        point = PointBlock().encode([[x, y]], view).numpy()[0]
        assert np.abs(found_at(pixels) - point).max() < 0.5


def test_inverse_points_undo_points():
    for transform in TRANSFORMS:
        view = transform.view(120, 181)
        xy = np.random.default_rng(0).uniform(0, 100, (20, 2))
        np.testing.assert_allclose(view.inverse_points(view.points(xy)), xy, atol=1e-9)


def test_the_corners_of_the_box_are_the_corners_of_the_output():
    view = View((10.5, -3, 50.5, 37), (20, 60))
    assert view.points(np.array([[10.5, -3], [50.5, 37]])).tolist() == [[0, 0], [60, 20]]


def test_a_view_is_a_function_of_the_size_alone():
    for transform in TRANSFORMS:
        assert transform.view(77, 99) == transform.view(77, 99)


def test_random_resized_crop_keeps_the_whole_photo_and_leaves_a_crop_to_the_batch():
    transform = RandomResizedCrop((30, 40), min_scale=0.25, ratio=(0.5, 2), max_scale=0.9)
    view = transform.view(100, 150)
    assert view.box == (0, 0, 150, 100)
    assert view.size == (57, 85)  # four times the output's pixels: a quarter of the area is not enlarged
    assert transform.view(60, 90).size == (60, 90)  # so little above that a resample would not pay
    assert transform.view(240, 320).size == (60, 80)  # a quarter, as a JPEG is decoded
    assert transform.view(20, 30).size == (20, 30)  # never enlarged
    assert transform.ragged
    assert not Resize(8).ragged
    crop = transform.batch_crop()
    assert (crop.size, crop.scale, crop.ratio) == ((30, 40), (0.25, 0.9), (0.5, 2))
    assert Resize(8).batch_crop() is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(0), r"size must lie in \[1, 16384\], got 0"),
        (lambda: Resize((8, 20_000)), r"size must lie in \[1, 16384\], got 20000"),
        (lambda: Resize(8.5), r"size must be a number of pixels or \(height, width\), got 8\.5"),
        (lambda: Resize((1, 2, 3)), "size must be a number of pixels"),
        (lambda: Resize(True), "size must be a number of pixels"),
        (lambda: Resize(8, "cut"), "method has no option 'cut'"),
        (lambda: Resize(8, pad_mode="zero"), "pad_mode has no option 'zero': did you mean 'zeros'"),
        (lambda: RandomResizedCrop(8, min_scale=0), r"min_scale must lie in \(0, 1\], got 0"),
        (lambda: RandomResizedCrop(8, min_scale=0.5, max_scale=0.4), r"max_scale must lie in \[0\.5, 1\]"),
        (lambda: RandomResizedCrop(8, ratio=(2, 1)), "ratio must be"),
        (lambda: RandomResizedCrop(8, ratio=(0, 1)), "ratio must be"),
    ],
)
def test_a_wrong_option_is_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_image_given_is_not_changed(picture):
    image = Image.fromarray(picture(20, 30))
    before = np.asarray(image).copy()
    ImageBlock("L").encode(image, Resize(8, "pad").view(20, 30))
    assert image.size == (30, 20)
    assert np.array_equal(np.asarray(image), before)
