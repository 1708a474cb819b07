"""Photos rendered one by one on the CPU against the same parameters in torch, and against each other."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.augment import Augment, geometry
from common.augment.pipeline import Drawn
from common.augment.render import Look, moved, render
from common.data import Counter, ImageBlock, MaskBlock, PointBlock, RandomResizedCrop
from common.data.batch import Batch

LEVELS = 3.0  # of 255: OpenCV works on uint8 with places rounded to 1/32 pixel
LARGE = (96, 80)  # above what is done by whole batches


def smooth(height, width, seed=0):
    """A photo-like image: noise without fine detail, uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3))
    soft = np.stack([ndimage.gaussian_filter(noise[..., c], 4, mode="reflect") for c in range(3)], axis=2)
    soft = (soft - soft.min()) / (soft.max() - soft.min()) * 255
    return soft.round().astype(np.uint8)


def made(image, matrix, look):
    slot = np.empty((*look.size, image.shape[2]), np.uint8)
    moved(image, matrix, look, slot)
    return slot


def reference(image, matrix, size, padding="reflection"):
    """The same resample by torch, uint8 levels."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    return geometry.resample(pixels, matrix[None], size, padding)[0].permute(1, 2, 0).numpy()


OPTIONS = {
    "flip": {"flip": True, "flip_vertical": True},
    "rotate": {"rotate": 30, "p_affine": 1.0},
    "zoom": {"zoom": 1.5, "zoom_least": 0.7, "p_affine": 1.0},
    "translate": {"translate": 0.2, "p_affine": 1.0},
    "warp": {"warp": 0.4, "p_affine": 1.0},
    "all": {"flip": True, "rotate": 20, "zoom": 1.2, "warp": 0.2, "translate": 0.1, "p_affine": 1.0},
}


@pytest.mark.parametrize("padding", ["reflection", "border", "zeros"])
@pytest.mark.parametrize("name", list(OPTIONS))
def test_an_image_is_moved_as_torch_moves_it(pipeline, name, padding):
    image = smooth(*LARGE)
    pipe = pipeline(Augment(**OPTIONS[name], padding=padding))
    drawn = pipe.draw(torch.arange(12), LARGE, Counter(), True)
    look = Look(LARGE, (0.0,) * 3, (1.0,) * 3, padding)
    for matrix in drawn.matrix:
        found, wanted = made(image, matrix.numpy(), look).astype(float), reference(image, matrix, LARGE, padding)
        off = np.abs(found - wanted)
        assert np.quantile(off, 0.98) <= LEVELS, name  # at the edge of what lies outside, 1/32 pixel is a lot
        assert off.mean() < 1


@pytest.mark.parametrize("source", [(150, 200), (200, 150), (110, 110)])
def test_a_crop_is_resized_as_torch_does_it(pipeline, source):
    image = smooth(*source)
    pipe = pipeline(Augment(flip=True), item_tfms=(RandomResizedCrop(LARGE, min_scale=0.4),))
    kept = torch.tensor([source]).expand(16, 2)
    drawn = pipe.draw(torch.arange(16), kept, Counter(), True)
    look = Look(LARGE, (0.0,) * 3, (1.0,) * 3, "reflection")
    for matrix in drawn.matrix:
        found = made(image, matrix.numpy(), look).astype(float)
        assert np.abs(found - reference(image, matrix, LARGE))[1:-1, 1:-1].max() <= LEVELS


def test_a_crop_of_the_outputs_size_is_the_pixels_themselves():
    image = smooth(120, 130)
    matrix = np.diag([80 / 130, 96 / 120, 1.0])
    matrix[0, 2], matrix[1, 2] = (2 * 20 + 80) / 130 - 1, (2 * 10 + 96) / 120 - 1
    look = Look(LARGE, (0.0,) * 3, (1.0,) * 3, "reflection")
    assert np.array_equal(made(image, matrix, look), image[10:106, 20:100])
    matrix[0, 0] *= -1
    assert np.array_equal(made(image, matrix, look), image[10:106, 20:100][:, ::-1])
    matrix[1, 1] *= -1
    assert np.array_equal(made(image, matrix, look), image[10:106, 20:100][::-1, ::-1])


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_strong_shrink_is_averaged_first(factor):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (96 * factor, 80 * factor, 3), dtype=np.uint8)
    look = Look(LARGE, (0.0,) * 3, (1.0,) * 3, "reflection")
    angle = np.deg2rad(0.5)
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    for matrix in (np.eye(3), turn):
        found = made(image, matrix, look)
        assert found.std() < image.std() / (factor * 0.8)  # noise is averaged away instead of being picked from


def test_light_and_normalisation_are_the_plain_formula():
    image = smooth(*LARGE)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    out = np.empty((2, *LARGE, 3), np.float32)
    factor, offset = np.array([1.4, 0.6]), np.array([-0.1, 0.3])
    render([image, image], None, factor, offset, Look(LARGE, mean, std, "zeros"), out)
    for i in range(2):
        wanted = (np.clip(image / 255 * factor[i] + offset[i], 0, 1) - mean) / std
        np.testing.assert_allclose(out[i], wanted, atol=2e-5)
    render([image], None, None, None, Look(LARGE, mean, std, "zeros"), out[:1])
    np.testing.assert_allclose(out[0], (image / 255 - mean) / std, atol=2e-5)


def test_grey_images_are_rendered_too():
    image = smooth(120, 100)[..., :1]
    out = np.empty((1, *LARGE, 1), np.float32)
    drawn = Drawn(torch.tensor([[[0.9, 0.1, 0], [-0.1, 0.9, 0], [0, 0, 1.0]]], dtype=torch.float64))
    look = Look(LARGE, (0.0,), (1.0,), "border")
    render([image], drawn.matrix.numpy(), None, None, look, out)
    wanted = reference(image, drawn.matrix[0], LARGE, "border") / 255
    assert np.abs(out[0] - wanted).max() * 255 <= LEVELS


def test_masks_and_points_follow_photos_of_differing_sizes(pipeline):
    """A bright square in each photo: its mask and its corners lie where it went."""
    sizes = [(120, 160), (160, 120), (110, 200)]
    pixels = torch.zeros(3, 160, 200, 3, dtype=torch.uint8)
    masks = torch.zeros(3, 160, 200, dtype=torch.uint8)
    points = torch.empty(3, 2, 2)
    for i, (height, width) in enumerate(sizes):
        box = (slice(height // 3, height // 3 + 40), slice(width // 3, width // 3 + 40))
        pixels[i][box], masks[i][box] = 255, 1
        points[i] = torch.tensor([[width // 3, height // 3], [width // 3 + 40, height // 3 + 40]])
    blocks = (ImageBlock("RGB", (0.0,) * 3, (1.0,) * 3), MaskBlock(), PointBlock())
    pipe = pipeline(
        Augment(flip=True, rotate=20, p_affine=1.0), blocks=blocks, item_tfms=(RandomResizedCrop(96, min_scale=0.7),)
    )
    batch = Batch(x=pixels, y=(masks, points), ids=torch.arange(3), kept=torch.tensor(sizes, dtype=torch.int32))
    for epoch in range(5):
        out = pipe(batch, Counter(0, epoch), True)
        mask, corner = out.y
        bright = out.x[:, 0] > 0.5
        assert ((bright == (mask == 1)).float().mean((1, 2)) > 0.99).all()
        for i in range(3):
            middle = corner[i].mean(0)
            seen = bright[i].nonzero().float().mean(0).flip(0) + 0.5
            if ((corner[i] > 10) & (corner[i] < 86)).all():
                assert (seen - middle).abs().max() < 1


@pytest.mark.parametrize("padding", ["reflection", "border", "zeros"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_an_image_in_a_larger_tensor_is_resampled_as_if_alone(padding, mode):
    generator = torch.Generator().manual_seed(0)
    kept = torch.tensor([[20, 30], [31, 17]])
    matrix = torch.tensor([[[1.3, 0.2, 0.1], [-0.3, 1.2, -0.2], [0.05, 0, 1.0]]], dtype=torch.float64).expand(2, 3, 3)
    padded = torch.rand(2, 3, 33, 40, generator=generator)
    found = geometry.resample(padded, matrix, (24, 26), padding, kept=kept, mode=mode)
    for i, (height, width) in enumerate(kept.tolist()):
        alone = geometry.resample(padded[i : i + 1, :, :height, :width], matrix[:1], (24, 26), padding, mode=mode)
        off = (found[i] - alone[0]).abs()
        assert (off > 1e-4).float().mean() < (0.002 if mode == "bilinear" else 0.02)  # nearest: ties
