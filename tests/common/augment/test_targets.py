"""What moves, moves everything alike: markers drawn into images are found again where points, boxes and masks say."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision.transforms.v2 import functional as tv

from common.augment import Augment, Normalize
from common.augment.drawn import Drawn
from common.blocks.batch import Batch
from common.blocks.shapes import outline
from common.blocks.values import Padded
from common.data import BBoxBlock, EpochSeed, MaskBlock, PointBlock, RandomResizedCrop

MOVES = {
    "flip_horizontal": {"flip": True},
    "flip_vertical": {"flip_vertical": True},
    "symmetry": {"symmetries": True},
    "rotate": {"rotate": 40, "p_affine": 1.0},
    "zoom": {"zoom": 1.6, "zoom_least": 0.6, "p_affine": 1.0},
    "translate": {"translate": 0.2, "p_affine": 1.0},
    "warp": {"warp": 0.4, "p_affine": 1.0},
    "elastic": {"elastic": 0.05, "p_affine": 1.0},
    "crop": {"size": 96, "min_scale": 0.5},
    "every one": {
        "flip": True, "flip_vertical": True, "rotate": 20, "zoom": 1.3, "zoom_least": 0.8, "translate": 0.1, "warp": 0.2,
        "elastic": 0.04, "p_affine": 1.0,
    },
}  # fmt: skip
PIXELS_ONLY = {
    "brightness": {"brightness": 0.4},
    "contrast": {"contrast": 0.4},
    "saturation": {"saturation": 0.4},
    "hue": {"hue": 0.2},
    "grayscale": {"grayscale": 1.0},
    "blur": {"blur": 2.0},
    "sharpen": {"sharpen": 2.0},
    "noise": {"noise": 0.2},
    "salt_pepper": {"salt_pepper": 0.2},
    "erase": {"erase": 0.4},
}
COUNT = 24
SIZES = [(224, 224), (180, 240), (62, 62)]  # photos, one by one by OpenCV; and below 64 x 64 the whole batch in torch


def ellipse(size, generator):
    """The corners of a many-sided turned ellipse."""
    height, width = size
    centre = generator.uniform(0.4, 0.6, 2) * [width, height]
    axes, turn = generator.uniform(0.2, 0.3, 2) * min(size), generator.uniform(0, np.pi)
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    local = np.stack([axes[0] * np.cos(angle), axes[1] * np.sin(angle)], axis=1)
    return local @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]] + centre


def inside(polygon, size):
    """Which pixels lie in a convex polygon."""
    x, y = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    filled = np.ones(size, bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        filled &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0
    return filled


def scene(size):
    """Images with a spot (red), a filled box (green) and a filled ellipse (blue), and all that says where they are."""
    generator = np.random.default_rng(0)
    height, width = size
    rows, cols = np.mgrid[0:height, 0:width] + 0.5
    pixels = np.zeros((COUNT, height, width, 3), np.uint8)
    points = generator.uniform(0.25, 0.75, (COUNT, 1, 2)) * [width, height]
    low = np.floor(generator.uniform(0.15, 0.4, (COUNT, 2)) * [width, height])
    high = low + np.floor(generator.uniform(0.3, 0.45, (COUNT, 2)) * [width, height])
    boxes, outlines = np.empty((COUNT, 2, 4)), np.empty((COUNT, 2, 32, 2))
    for i in range(COUNT):
        x, y = points[i, 0]
        pixels[i, ..., 0] = np.round(255 * np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * 2.0**2)))
        (x0, y0), (x1, y1) = low[i].astype(int), high[i].astype(int)
        pixels[i, y0:y1, x0:x1, 1] = 255
        around = ellipse(size, generator)
        oval = inside(around, size)
        pixels[i, ..., 2] = 255 * oval
        boxes[i] = [[x0, y0, x1, y1], extent(1.0 * oval)]
        outlines[i] = [outline([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), outline(oval)]
    mask = torch.from_numpy(pixels[..., 2] // 255)
    things = {
        "boxes": torch.from_numpy(boxes).float(),
        "labels": torch.zeros(COUNT, 2, dtype=torch.int64),
        "outlines": torch.from_numpy(outlines).float(),
    }
    y = Padded(things, torch.ones(COUNT, 2, dtype=torch.bool))
    return Batch(x=torch.from_numpy(pixels), y=(mask, torch.from_numpy(points).float(), y), ids=torch.arange(COUNT))


def extent(light):
    """The box around what is light, its edges where the light is half, between pixels."""
    ends = []
    for profile in (light.max(axis=0), light.max(axis=1)):
        first, last = np.nonzero(profile >= 0.5)[0][[0, -1]]
        low, high = first + 0.5, last + 0.5
        low -= 0.5 if not first else (profile[first] - 0.5) / (profile[first] - profile[first - 1])
        high += 0.5 if last == len(profile) - 1 else (profile[last] - 0.5) / (profile[last] - profile[last + 1])
        ends.append((low, high))
    return np.array([ends[0][0], ends[1][0], ends[0][1], ends[1][1]])


@pytest.fixture(scope="module")
def scenes():
    return {size: scene(size) for size in SIZES}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MOVES)
def test_points_boxes_and_masks_are_where_the_picture_is(pipeline, raw_image, scenes, name, size):
    options = {**MOVES[name], "padding": "zeros"}
    if name == "crop":
        options["size"] = (size[0] * 3 // 4, size[1] * 3 // 4)
    blocks = (raw_image, MaskBlock(), PointBlock(), BBoxBlock(("a",), outlined=True))
    pipe = pipeline(Augment(**options), blocks=blocks)
    found = dict.fromkeys(("points", "boxes", "masks"), 0)
    for epoch in range(2):
        out = pipe(scenes[size], EpochSeed(0, epoch), True)
        mask, points, boxes = out.y
        height, width = out.x.shape[2:]
        for i in range(COUNT):
            spot, square, oval = out.x[i].numpy()
            x, y = points[i, 0].tolist()
            if 8 < x < width - 8 and 8 < y < height - 8:
                place = np.array(ndimage.center_of_mass(spot))[::-1] + 0.5
                assert np.abs(place - [x, y]).max() < 0.5
                found["points"] += 1
            for k, light in enumerate((square, oval)):
                if light.max() < 0.5:
                    continue
                around = extent(light)
                if around[:2].min() > 1 and around[2] < width - 1 and around[3] < height - 1:
                    assert boxes.valid[i, k]
                    assert np.abs(around - boxes.values["boxes"][i, k].numpy()).max() <= 1
                    found["boxes"] += 1
            seen, said = oval > 0.5, mask[i].numpy() == 1
            if seen.sum() > (6000 if size[0] > 62 else 500):  # of a small thing, every tenth pixel lies on its edge
                assert (seen & said).sum() / (seen | said).sum() >= (0.99 if size[0] > 62 else 0.95)
                found["masks"] += 1
    assert found["points"] > 10
    assert found["boxes"] > 10
    assert found["masks"] > 10


@pytest.mark.parametrize("name", PIXELS_ONLY)
def test_what_changes_pixels_only_leaves_the_rest_as_it_was(pipeline, raw_image, scenes, name):
    batch = scenes[224, 224]
    blocks = (raw_image, MaskBlock(), PointBlock(), BBoxBlock(("a",), outlined=True))
    sure = {"p_lighting": 1.0, "p_texture": 1.0, "p_erase": 1.0}
    out = pipeline(Augment(**PIXELS_ONLY[name], **sure), blocks=blocks)(batch, EpochSeed(), True)
    assert torch.equal(out.y[0], batch.y[0])
    assert torch.equal(out.y[1], batch.y[1])
    assert all(torch.equal(out.y[2].values[key], value) for key, value in batch.y[2].values.items())
    assert torch.equal(out.y[2].valid, batch.y[2].valid)
    changed = (out.x - batch.x.permute(0, 3, 1, 2) / 255).abs().amax((1, 2, 3)) > 0.01
    assert changed.float().mean() > 0.8


@pytest.mark.parametrize("size", [(160, 160), (131, 131), (47, 47), (100, 61), (37, 50)])
def test_the_symmetries_are_torchvisions_exactly(pipeline, raw_image, noise, size):
    batch = noise(64, *size)
    mask = batch.x[..., 0].clone()
    pipe = pipeline(Augment(symmetries=True), blocks=(raw_image, MaskBlock()))
    batch = Batch(x=batch.x, y=mask, ids=batch.ids)
    out, image = pipe(batch, EpochSeed(), True), batch.x.permute(0, 3, 1, 2)
    square = size[0] == size[1]
    wanted = [
        flipped
        for k in ((0, 90, 180, 270) if square else (0, 180))
        for turned in [tv.rotate(image, k, expand=True)]
        for flipped in (turned, tv.horizontal_flip(turned))
    ]
    kinds = set()
    for i in range(64):
        fits = [k for k, whole in enumerate(wanted) if torch.equal((out.x[i] * 255).round().to(torch.uint8), whole[i])]
        assert len(fits) == 1
        assert torch.equal(out.y[i], wanted[fits[0]][i, 0])
        if size[0] * size[1] < 64 * 64:
            assert torch.equal(out.x[i], wanted[fits[0]][i].float() * (1 / 255))
        kinds |= set(fits)
    assert len(kinds) == len(wanted)


@pytest.mark.parametrize(
    ("least", "valid"),
    [(0.0, [False, True, True]), (0.1, [False, False, True]), (0.5, [False, False, True]), (0.8, [False] * 3)],
)
def test_a_box_under_the_least_visibility_goes_with_its_label(pipeline, raw_image, least, valid):
    """The middle 80 of 160 columns are cut out: of the three boxes nothing, 2 and 30 of 40 columns are left."""
    boxes = torch.tensor([[[0.0, 0, 40, 40], [2.0, 0, 42, 40], [30.0, 0, 70, 40]]])
    y = Padded({"boxes": boxes, "labels": torch.tensor([[0, 1, 0]])}, torch.ones(1, 3, dtype=torch.bool))
    batch = Batch(x=torch.zeros(1, 80, 160, 3, dtype=torch.uint8), y=y, ids=torch.tensor([0]))
    pipe = pipeline(Augment(size=80, min_visibility=least), blocks=(raw_image, BBoxBlock(("a", "b"))))
    assert pipe(batch, EpochSeed(), False).y.valid[0].tolist() == valid


def test_outside_the_image_a_mask_is_what_no_loss_counts(pipeline, raw_image):
    options = {"rotate": 45, "zoom_least": 0.6, "p_affine": 1.0, "padding": "zeros"}
    for side in (40, 96):
        batch = Batch(
            x=torch.full((8, side, side, 3), 255, dtype=torch.uint8),
            y=torch.ones(8, side, side, dtype=torch.uint8),
            ids=torch.arange(8),
        )
        out = pipeline(Augment(**options), blocks=(raw_image, MaskBlock(("a", "b"), ignore=255)))(
            batch, EpochSeed(), True
        )
        black = out.x[:, 0] < 0.01
        assert black.float().mean() > 0.05
        assert (out.y[black] == 255).float().mean() > 0.999
        assert (out.y[out.x[:, 0] > 0.99] == 1).float().mean() > 0.999


def test_photos_of_differing_sizes_carry_their_targets(pipeline, raw_image, scenes):
    """Each photo at the top left of a larger tensor, cut at random: its spot is where its point is."""
    blocks = (raw_image, PointBlock())
    pipe = pipeline(Augment(rotate=20), blocks=blocks, item_tfms=(RandomResizedCrop(96, min_scale=0.6),))
    source = scenes[180, 240]
    kept = torch.tensor([[180, 240]] * COUNT, dtype=torch.int32)
    padded = torch.zeros(COUNT, 200, 260, 3, dtype=torch.uint8)
    padded[:, :180, :240] = source.x
    out = pipe(Batch(x=padded, y=source.y[1], ids=source.ids, extents=kept), EpochSeed(), True)
    checked = 0
    for i in range(COUNT):
        x, y = out.y[i, 0].tolist()
        if min(x, y) > 9 and max(x, y) < 87:
            place = np.array(ndimage.center_of_mass(out.x[i, 0].numpy()))[::-1] + 0.5
            assert np.abs(place - [x, y]).max() < 0.5
            checked += 1
    assert checked > 8


def test_a_picture_without_changes_is_only_normalised(pipeline, noise):
    batch = noise(3, 80, 70)
    assert torch.equal(
        pipeline(Normalize((0.0,) * 3, (1.0,) * 3))(batch, EpochSeed(), True).x,
        pipeline()(batch, EpochSeed(), True).x,
    )
    assert not Drawn().moves
