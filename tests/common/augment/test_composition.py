"""All moves of a pipeline are one resample: what the operations one after another give, but sharper."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.augment import Augment, geometry
from common.augment.drawn import Drawn, Look
from common.augment.moves import Elastic, Rotate, Translate, Warp, Zoom
from common.augment.render import moved
from common.data import EpochSeed

SIDE = 160
STEPS = [
    Rotate(degrees=25),
    Zoom(least=0.9, greatest=1.3),
    Translate(share=0.1),
    Warp(magnitude=0.3),
]


def picture(sigma):
    noise = np.random.default_rng(0).uniform(0, 255, (SIDE, SIDE, 3))
    soft = np.stack([ndimage.gaussian_filter(noise[..., c], sigma, mode="wrap") for c in range(3)], axis=2)
    return torch.from_numpy(((soft - soft.min()) / np.ptp(soft) * 255).round()).float().permute(2, 0, 1)[None]


def steps(seed):
    """The matrices of a few operations and a field, for one sample."""
    numbers = torch.rand(1, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrices = [op.matrix(numbers[:, : op.numbers], (SIDE, SIDE)) for op in STEPS]
    bend = Elastic(share=0.03)
    field = bend.field(
        torch.rand(1, bend.numbers, generator=torch.Generator().manual_seed(seed + 99), dtype=torch.float64)
    )
    return matrices, field.float()


def one_after_another(image, matrices, field):
    look = Look((SIDE, SIDE), (), ())
    for drawn in [*(Drawn(matrix=m) for m in matrices), Drawn(field=field)]:
        image = geometry.resample(image, drawn, look)
    return image


def at_once(matrices, field):
    whole = matrices[0]
    for matrix in matrices[1:]:
        whole = geometry.compose(whole, matrix)
    return Drawn(matrix=whole, field=field)


def psnr(found, wanted, mask):
    return 10 * torch.log10(255**2 / ((found - wanted) ** 2)[mask].mean()).item()


def seen(matrices, field):
    """Where no step looked outside the image, (1, 3, H, W)."""
    white = torch.full((1, 3, SIDE, SIDE), 255.0)
    look = Look((SIDE, SIDE), (), (), "zeros")
    for drawn in [*(Drawn(matrix=m) for m in matrices), Drawn(field=field)]:
        white = geometry.resample(white, drawn, look)
    return white > 254


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("path", ["torch", "opencv"])
def test_a_composition_equals_its_operations_on_a_smooth_picture_and_is_sharper_on_a_fine_one(path, seed):
    matrices, field = steps(seed)
    drawn, mask = at_once(matrices, field), seen(matrices, field)
    assert mask.float().mean() > 0.3

    def composed(image):
        look = Look((SIDE, SIDE), (), ())
        if path == "torch":
            return geometry.resample(image, drawn, look)
        pixels = image[0].permute(1, 2, 0).numpy().astype(np.uint8)
        slot = np.empty((SIDE, SIDE, 3), np.uint8)
        made = moved(pixels, drawn.matrix[0].numpy(), drawn.field[0].numpy(), look, slot)
        return torch.from_numpy(made.copy()).permute(2, 0, 1)[None].float()

    smooth = picture(6.0)
    assert psnr(composed(smooth), one_after_another(smooth, matrices, field), mask) >= 40
    fine = picture(0.8)

    def sharpness(image):
        return (image.diff(dim=3)[..., 1:, :] ** 2)[mask[..., 1:, 1:]].mean().item()

    assert sharpness(composed(fine)) > 1.3 * sharpness(one_after_another(fine, matrices, field))


def test_the_field_never_folds_and_points_come_back():
    for cells in (1, 4, 9):
        share = 0.999 / (4 * cells)
        bend = Elastic(share=share, cells=cells)
        worst = torch.rand(64, bend.numbers, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).round()
        field = bend.field(worst)
        there = torch.rand(64, 50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
        moved_on = there + geometry.displaced(field, there)
        source = (moved_on + 1) * 50
        back = geometry.move_points(source, Drawn(field=field), (100, 100), (100, 100))
        assert (back - (there + 1) * 50).abs().max() < 0.01
        step = 1e-5
        for axis in range(2):
            nudge = torch.zeros(2, dtype=torch.float64)
            nudge[axis] = step
            slope = (geometry.displaced(field, there + nudge) - geometry.displaced(field, there)) / step
            assert slope.abs().amax() < 0.5


def test_the_field_at_pixel_centres_is_the_field_at_those_places():
    field = torch.rand(3, 2, 7, 7, generator=torch.Generator().manual_seed(0)) - 0.5
    out = geometry.spread_out(field, (10, 14))
    y, x = torch.meshgrid((torch.arange(10) + 0.5) / 5 - 1, (torch.arange(14) + 0.5) / 7 - 1, indexing="ij")
    places = torch.stack([x, y], dim=-1).reshape(1, -1, 2).expand(3, -1, -1)
    wanted = geometry.displaced(field, places).transpose(1, 2).reshape(3, 2, 10, 14)
    torch.testing.assert_close(out, wanted, atol=1e-6, rtol=0)


def test_a_constant_field_is_a_shift():
    field = torch.full((1, 2, 7, 7), 0.25)
    xy = torch.rand(1, 9, 2) * 3 - 1.5
    torch.testing.assert_close(geometry.displaced(field, xy), torch.full((1, 9, 2), 0.25))


@pytest.mark.parametrize("options", [{"zoom_least": 0.3, "p_affine": 1.0}, {"size": 30, "rotate": 5, "p_affine": 1.0}])
def test_what_shrinks_is_averaged(pipeline, noise, options):
    """Noise that shrinks to a third or less loses most of its deviation instead of being picked from."""
    batch = noise(16, 120, 120) if "size" in options else noise(16, 60, 60)
    pipe = pipeline(Augment(**options))
    drawn = pipe.draw(batch.ids, tuple(batch.x.shape[1:3]), EpochSeed(0), True)
    out = pipe(batch, EpochSeed(0), True).x
    area = torch.linalg.det(drawn.matrix).abs() * (batch.x.shape[1] / out.shape[2]) ** 2
    plain = batch.x.float().std() / 255
    shrunk = area >= geometry.SHRINKS**2
    assert shrunk.sum() >= 3
    assert (out[shrunk].std(dim=(1, 2, 3)) < 0.62 * plain).all()
