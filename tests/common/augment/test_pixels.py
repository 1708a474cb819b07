"""Blur, colours, noise and erasing of the torch path against plain formulas and other libraries."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torchvision.transforms.v2 import functional as tv

from common.augment import Augment, Drawn
from common.augment.colours import Grayscale, Hue, Saturation, chain
from common.augment.pixels import SALT, coloured, gaussian, halves, normal_noise, salted, softened
from common.blocks.batch import Batch
from common.counter import words, words_alone
from common.data import EpochSeed


def one(value):
    return torch.full((1, 1), value, dtype=torch.float64)


def colours(count=50):
    return torch.rand(1, 3, count, 1, generator=torch.Generator().manual_seed(0))


def test_words_are_wellons_lowbias32_by_hand():
    def plain(x):
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ x >> 16

    starts = [0, 1, 0xDEADBEEF, 2**32 - 1]
    found = words(torch.tensor(starts), 100)
    for row, start in zip(found.tolist(), starts, strict=True):
        assert row == [plain(k ^ start) for k in range(100)]
        assert words_alone(start, 100).tolist() == row


def test_noise_is_normal_and_of_each_channel_and_sample_its_own():
    drawn = Drawn(word=torch.tensor([5, 6]))
    found = normal_noise(drawn, torch.Size([2, 3, 200, 200]))
    for sample in found:
        assert stats.kstest(sample.flatten().numpy(), "norm").pvalue > 1e-3
        assert abs(sample.mean()) < 0.01
        assert sample.std().item() == pytest.approx(1, abs=0.01)
        assert np.abs(np.corrcoef(sample.flatten(1).numpy()) - np.eye(3)).max() < 0.02
        flat = sample.permute(1, 2, 0).flatten()
        assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(found[0].flatten(), found[1].flatten())[0, 1]) < 0.01


def test_noise_of_a_pixel_is_a_number_of_its_place_by_hand():
    drawn = Drawn(word=torch.tensor([77]))
    found = normal_noise(drawn, torch.Size([1, 3, 5, 7]))
    word = words(torch.tensor([77]), 60)[0]
    for y, x, c in [(0, 0, 0), (3, 4, 1), (4, 6, 2)]:
        element = (y * 7 + x) * 3 + c
        half = (int(word[element // 2]) >> (16 * (element % 2))) & 0xFFFF
        assert found[0, c, y, x].item() == pytest.approx(stats.norm.ppf((half + 0.5) / 65536), abs=1e-5)


def test_salt_and_pepper_strike_their_share_half_black_half_white():
    pixels = torch.full((1, 3, 300, 300), 0.5)
    found = salted(pixels, torch.tensor([0.1]), Drawn(word=torch.tensor([9])))
    assert (found != 0.5).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert ((found == 1).sum() / (found == 0).sum()).item() == pytest.approx(1, abs=0.1)
    assert torch.equal(found[:, 0], found[:, 2])
    assert torch.equal(salted(pixels, torch.tensor([0.0]), Drawn(word=torch.tensor([9]))), pixels)
    assert SALT != 0
    assert not torch.equal(halves(torch.tensor([9]), 50), halves(torch.tensor([9 ^ SALT]), 50))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.5])
def test_blur_is_scipys_gaussian(sigma):
    image = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(0)) * 255
    found = softened(image, torch.tensor([sigma]), None, 9)
    wanted = ndimage.gaussian_filter(image[0].numpy(), (0, sigma, sigma), mode="nearest", radius=9)
    np.testing.assert_allclose(found[0].numpy(), wanted, atol=0.01)


def test_sharpening_is_the_unsharp_mask_and_with_blur_one_after_the_other():
    image = torch.rand(1, 3, 60, 60, generator=torch.Generator().manual_seed(0)) * 60 + 100
    amount, sigma = torch.tensor([1.5]), torch.tensor([1.2])

    def gauss(pixels, s):
        return ndimage.gaussian_filter(pixels, (0, s, s), mode="nearest", radius=12)

    plain = image[0].numpy()
    found = softened(image, None, amount, 12)[0].numpy()
    np.testing.assert_allclose(found, plain + 1.5 * (plain - gauss(plain, 1.0)), atol=0.05)
    both = softened(image, sigma, amount, 12)[0].numpy()
    blurred = gauss(plain, 1.2)
    wanted = blurred + 1.5 * (blurred - gauss(blurred, 1.0))
    np.testing.assert_allclose(both[:, 12:-12, 12:-12], wanted[:, 12:-12, 12:-12], atol=0.1)


def test_a_blur_of_nothing_leaves_each_pixel_exactly():
    image = torch.randint(0, 256, (2, 3, 20, 20)).float()
    assert torch.equal(softened(image, torch.zeros(2), torch.zeros(2), 3), image)
    assert gaussian(torch.zeros(1), 2).tolist() == [[0, 0, 1, 0, 0]]


def test_saturation_is_torchvisions():
    image = colours()
    for number in (0.0, 0.5, 1.0):
        factor = (1 / (1 - 0.4)) ** (2 * number - 1)
        found = coloured(image, Saturation(change=0.4).colour(one(number)))
        torch.testing.assert_close(found, tv.adjust_saturation(image, factor), atol=2e-3, rtol=0)


def test_grayscale_is_torchvisions():
    image = colours()
    found = coloured(image, Grayscale().colour(one(0.0)[:, :0]))
    torch.testing.assert_close(found, tv.rgb_to_grayscale(image, 3), atol=2e-3, rtol=0)


def test_hue_keeps_light_and_grey_and_a_whole_turn_is_none():
    image = 0.25 + 0.5 * colours()
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    for number in (0.1, 0.7, 1.0):
        matrix = Hue(turn=0.5).colour(one(number))
        turned = matrix[0, :, :3].float() @ image[0, :, :, 0]
        torch.testing.assert_close((turned[..., None] * luma).sum(0), (image[0] * luma).sum(0), atol=1e-5, rtol=0)
        assert (matrix[0, :, :3].sum(1) - 1).abs().max() < 1e-5
    there, back = (Hue(turn=0.3).colour(one(v)) for v in (0.9, 0.1))
    torch.testing.assert_close(chain(there, back)[0, :, :3], torch.eye(3).double(), atol=1e-4, rtol=0)
    half = Hue(turn=0.5).colour(one(1.0))
    red = coloured(torch.tensor([0.8, 0.2, 0.2])[None, :, None, None], half)[0, :, 0, 0]
    assert red[0] < red[1]  # on the other side of the wheel, red is a cyan
    assert red[0] < red[2]


def test_grey_images_take_the_part_of_a_colour_change_that_is_light():
    pixels = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    matrix = chain(
        Saturation(change=0.5).colour(torch.rand(4, 1).double()), Hue(turn=0.4).colour(torch.rand(4, 1).double())
    )
    torch.testing.assert_close(coloured(pixels, matrix), pixels, atol=1e-5, rtol=0)


def test_colour_operations_in_a_chain_are_one_after_the_other():
    image = 0.4 + 0.2 * colours()
    numbers = torch.rand(3, 1, 1, dtype=torch.float64)
    steps = [op.colour(n) for op, n in zip((Saturation(), Hue(), Saturation(change=0.5)), numbers, strict=True)]
    at_once = coloured(image, chain(chain(steps[0], steps[1]), steps[2]))
    for step in steps:
        image = coloured(image, step)
    torch.testing.assert_close(at_once, image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [40, 100])
def test_an_erased_rectangle_is_the_mean_and_of_the_share_asked(pipeline, noise, side):
    batch = noise(200, side, side)
    pipe = pipeline(Augment(erase=0.3, p_erase=0.6), blocks=(pipeline().encoder.blocks[0],))
    drawn = pipe.draw(batch.ids, (side, side), EpochSeed(), True)
    box = drawn.erase.double()
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / side**2
    assert 0.45 < (area > 0).float().mean() < 0.75
    held = area[area > 0]
    assert 0.005 < held.min() < 0.08
    assert 0.25 < held.max() < 0.34
    assert ((box[:, :2] >= 0) & (box[:, 2:] <= side)).all()
    few = Batch(x=batch.x[:12], ids=batch.ids[:12])
    found, plain = pipe(few, EpochSeed(), True).x, few.x.permute(0, 3, 1, 2) / 255
    for i in range(12):
        top, left, bottom, right = drawn.erase[i].tolist()
        assert (found[i, :, top:bottom, left:right] == 0).all()
        outside = torch.ones(side, side, dtype=torch.bool)
        outside[top:bottom, left:right] = False
        torch.testing.assert_close(found[i][:, outside], plain[i][:, outside])
