"""Photos rendered one by one on the CPU against the same parameters in torch, and against each other."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.augment import Augment, geometry
from common.augment.drawn import Drawn, Look
from common.augment.pixels import develop
from common.augment.render import moved, render
from common.blocks.batch import Batch
from common.data import EpochSeed, ImageBlock, MaskBlock, PointBlock, RandomResizedCrop

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
    return moved(image, matrix, None, look, slot).copy()


def reference(image, matrix, size, padding="reflection"):
    """The same resample by torch, uint8 levels."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    look = Look(size, (), (), padding)
    return geometry.resample(pixels, Drawn(matrix=matrix[None]), look)[0].permute(1, 2, 0).numpy()


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
    drawn = pipe.draw(torch.arange(12), LARGE, EpochSeed(), True)
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
    drawn = pipe.draw(torch.arange(16), kept, EpochSeed(), True)
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


def test_colour_and_normalisation_are_the_plain_formula():
    image = smooth(*LARGE)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    out = np.empty((2, *LARGE, 3), np.float32)
    colour = torch.tensor(np.random.default_rng(1).uniform(-0.3, 0.8, (2, 3, 4)))
    render([image, image], Drawn(colour=colour), Look(LARGE, mean, std), out)
    for i in range(2):
        wanted = np.clip(image / 255 @ colour[i, :, :3].numpy().T + colour[i, :, 3].numpy(), 0, 1)
        assert np.abs(out[i] * std + mean - wanted).max() * 255 <= 1  # colours are rounded to whole levels
    render([image], Drawn(), Look(LARGE, mean, std), out[:1])
    np.testing.assert_allclose(out[0], (image / 255 - mean) / std, atol=2e-5)


def test_grey_images_are_rendered_too():
    image = smooth(120, 100)[..., :1]
    out = np.empty((1, *LARGE, 1), np.float32)
    drawn = Drawn(matrix=torch.tensor([[[0.9, 0.1, 0], [-0.1, 0.9, 0], [0, 0, 1.0]]], dtype=torch.float64))
    render([image], drawn, Look(LARGE, (0.0,), (1.0,), "border"), out)
    wanted = reference(image, drawn.matrix[0], LARGE, "border") / 255
    assert np.abs(out[0] - wanted).max() * 255 <= LEVELS


STRENGTHS = {
    "elastic": {"elastic": 0.05},
    "elastic and all moves": {"elastic": 0.05, **OPTIONS["all"]},
    "blur": {"blur": 2.0},
    "sharpen": {"sharpen": 2.0},
    "blur and sharpen": {"blur": 2.0, "sharpen": 2.0},
    "colours": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.5, "hue": 0.2, "grayscale": 0.3},
    "noise": {"noise": 0.2},
    "salt and pepper": {"salt_pepper": 0.2},
    "erase": {"erase": 0.4},
    "everything": {
        "elastic": 0.03, "blur": 1.0, "sharpen": 1.0, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2,
        "hue": 0.1, "grayscale": 0.2, "noise": 0.1, "salt_pepper": 0.1, "erase": 0.3, **OPTIONS["all"],
    },
}  # fmt: skip


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", list(STRENGTHS))
def test_both_paths_give_the_same_picture(pipeline, name, mode):
    """Within 2 levels on average of a level's hundredth part, and a few levels anywhere but at a hard edge."""
    block = ImageBlock(mode)
    channels = block.channels
    images = np.stack([smooth(*LARGE, seed=i)[..., :channels] for i in range(8)])
    pipe = pipeline(Augment(**{"p_affine": 1.0, "p_texture": 0.8, "p_erase": 0.8, **STRENGTHS[name]}), blocks=(block,))
    drawn = pipe.draw(torch.arange(8), LARGE, EpochSeed(1, 2), True)
    look = pipe.look(LARGE, block)
    out = np.empty((8, *LARGE, channels), np.float32)
    render(list(images), drawn, look, out)
    wanted = develop(torch.from_numpy(images), drawn, look).permute(0, 2, 3, 1).numpy()
    off = np.abs(out - wanted) * 255 * np.array(look.std)
    limit = LEVELS + (3 if "sharpen" in name or name == "everything" else 0)  # sharpening enlarges what rounding left
    assert np.quantile(off, 0.99) <= limit
    assert off.mean() < 0.8


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
    batch = Batch(x=pixels, y=(masks, points), ids=torch.arange(3), extents=torch.tensor(sizes, dtype=torch.int32))
    for epoch in range(5):
        out = pipe(batch, EpochSeed(0, epoch), True)
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
    drawn, look = Drawn(matrix=matrix), Look((24, 26), (), (), padding)
    padded = torch.randint(0, 256, (2, 3, 33, 40), generator=generator).float()

    def made(pixels, rows, own):
        if mode == "bilinear":
            return geometry.resample(pixels, rows, look, extents=own)
        return geometry.resample_mask(pixels[:, 0], rows, look, extents=own, fill=7)[:, None]

    found = made(padded, drawn, kept)
    for i, (height, width) in enumerate(kept.tolist()):
        alone = made(padded[i : i + 1, :, :height, :width], drawn.rows(slice(0, 1)), None)
        off = (found[i] - alone[0]).abs()
        assert (off > 0.05).float().mean() < (0.002 if mode == "bilinear" else 0.02)  # nearest: ties
