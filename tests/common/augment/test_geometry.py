"""Matrices, grids and resampling against plain loops."""

import pytest
import torch
import torch.nn.functional as F

from common.augment import geometry
from common.augment.drawn import Drawn, Look


@pytest.fixture
def matrices():
    generator = torch.Generator().manual_seed(0)
    eye = torch.eye(3, dtype=torch.float64)
    return eye + 0.2 * (torch.rand(20, 3, 3, dtype=torch.float64, generator=generator) - 0.5)


def test_compose_is_the_matrix_product(matrices):
    torch.testing.assert_close(geometry.compose(matrices, matrices.flip(0)), matrices @ matrices.flip(0))


def test_inverse_is_the_inverse_up_to_a_factor(matrices):
    found = geometry.inverse(matrices)
    wanted = torch.linalg.inv(matrices)
    torch.testing.assert_close(found / found[:, 2:, 2:], wanted / wanted[:, 2:, 2:])


def test_the_grid_equals_a_plain_loop(matrices):
    size = (5, 7)
    found = geometry.grid(Drawn(matrix=matrices[:3]), size)
    for b in range(3):
        for i in range(5):
            for j in range(7):
                place = torch.tensor([(j + 0.5) * 2 / 7 - 1, (i + 0.5) * 2 / 5 - 1, 1], dtype=torch.float64)
                x, y, w = matrices[b] @ place
                assert found[b, i, j].tolist() == pytest.approx([(x / w).item(), (y / w).item()], abs=1e-5)


def test_an_affine_grid_equals_torchs(matrices):
    affine = matrices.clone()
    affine[:, 2] = torch.tensor([0.0, 0.0, 1.0])
    wanted = F.affine_grid(affine[:, :2].float(), [20, 1, 6, 9], align_corners=False)
    torch.testing.assert_close(geometry.grid(Drawn(matrix=affine), (6, 9)), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (16, 4), (31, 57), (224, 333)])
def test_the_identity_keeps_each_pixel(size):
    image = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0)).float()
    still = Drawn(matrix=torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
    assert torch.equal(geometry.resample(image, still, Look(size, (), ())), image)
    ids = (image[:, 0]).to(torch.uint8)
    assert torch.equal(geometry.resample_mask(ids, still, Look(size, (), ())), ids)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_masks_hold_only_ids_that_were_there(matrices, dtype):
    ids = torch.tensor([0, 3, 200, 255])[torch.randint(0, 4, (20, 9, 9), generator=torch.Generator().manual_seed(0))]
    found = geometry.resample_mask(ids.to(dtype), Drawn(matrix=matrices), Look((12, 7), (), ()))
    assert (found.dtype, tuple(found.shape)) == (dtype, (20, 12, 7))
    assert set(found.unique().tolist()) <= {0, 3, 200, 255}


def test_points_move_against_the_grid(matrices):
    """The pixel that stands at a moved point comes from where the point was."""
    source, size = (20, 30), (16, 24)
    points = torch.tensor([[3.5, 4.5], [15.0, 10.0], [22.25, 17.0]]).expand(20, 3, 2)
    moved = geometry.move_points(points, Drawn(matrix=matrices), source, size)
    place = moved.double() / torch.tensor([size[1], size[0]]) * 2 - 1
    back = (geometry.apply(matrices, place) + 1) / 2 * torch.tensor([source[1], source[0]])
    torch.testing.assert_close(back, points.double(), atol=1e-4, rtol=0)


def test_points_keep_their_type(matrices):
    assert geometry.move_points(torch.zeros(20, 1, 2), Drawn(matrix=matrices), (4, 4), (4, 4)).dtype == torch.float32


def test_boxes_are_flipped_and_cut_by_hand():
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))[None]
    boxes = torch.tensor([[[0.0, 1.0, 3.0, 4.0], [8.0, 2.0, 12.0, 9.0]]])
    found, share, _ = geometry.move_boxes(boxes, Drawn(matrix=flip), (8, 10), (8, 10))
    assert found.tolist() == [[[7, 1, 10, 4], [0, 2, 2, 8]]]
    assert share.tolist() == [[1.0, pytest.approx(2 * 6 / (4 * 7))]]
    assert geometry.move_boxes(boxes, Drawn(matrix=flip), (8, 10), (16, 20))[0].tolist() == [
        [[14, 2, 20, 8], [0, 4, 4, 16]]
    ]


def test_a_batch_gives_what_each_sample_gives_alone(matrices):
    image = 255 * torch.rand(20, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    look, field = Look((7, 11), (), (), taps=2), 0.1 * torch.rand(20, 2, 6, 6)
    drawn = Drawn(matrix=matrices, field=field)
    whole = geometry.resample(image, drawn, look)
    product = geometry.compose(matrices, matrices)
    for i in range(20):
        alone = geometry.resample(image[i : i + 1], drawn.rows(slice(i, i + 1)), look)
        assert torch.equal(alone, whole[i : i + 1])
        assert torch.equal(geometry.compose(matrices[i : i + 1], matrices[i : i + 1]), product[i : i + 1])
