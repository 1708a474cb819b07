"""The page of pictures shows every operation as the pipeline gives it, at the strengths that stand below."""

import io
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from common.augment import gallery
from common.augment.table import operations

STRIPS = gallery.strips()
SPATIAL = [op.name for op in operations() if op.support["points"] == "transforms"]


def captions(name):
    """The numbers below the panels, whatever stands around them."""
    return [float(re.search(r"-?[\d.]+", caption)[0]) for caption in STRIPS[name].captions]


def inputs(name):
    _, operation = gallery.pipeline_of(STRIPS[name])
    return operation, torch.tensor(STRIPS[name].numbers, dtype=torch.float64)


def test_the_page_says_what_the_code_says():
    assert gallery.PAGE.read_text("utf-8") == gallery.page()


def test_every_operation_is_on_the_page_in_the_order_of_the_table():
    assert list(STRIPS) == [op.name for op in operations()]
    text = gallery.PAGE.read_text("utf-8")
    for op in operations():
        assert f"## {op.label}\n" in text
        assert f"(pictures/{op.name}.jpg)" in text


def test_every_picture_is_there_and_small_and_none_is_left_over():
    found = {file.name for file in gallery.FOLDER.iterdir()}
    assert found == {"original.jpg", *(f"{name}.jpg" for name in STRIPS)}
    for file in gallery.FOLDER.iterdir():
        assert file.stat().st_size < gallery.MOST_BYTES
        with Image.open(file) as image:
            image.load()


def test_the_photos_are_credited():
    text = gallery.PAGE.read_text("utf-8")
    assert "danielbuechele" in text
    assert "https://creativecommons.org/licenses/by/2.0/" in text


def test_a_picture_drawn_anew_is_the_one_on_the_page(tmp_path):
    file = tmp_path / "rotate.jpg"
    file.write_bytes(gallery.jpeg(gallery.picture(STRIPS["rotate"])))
    wide = 5 * (gallery.SIDE + gallery.GAP) - gallery.GAP
    with Image.open(file) as new, Image.open(gallery.FOLDER / "rotate.jpg") as kept:
        assert new.size == kept.size == (wide, gallery.SIDE + gallery.CAPTION)
        there = slice(0, gallery.SIDE)  # words may be drawn by another font
        apart = np.abs(np.asarray(new, dtype=float) - np.asarray(kept, dtype=float))[there]
    assert apart.mean() < 1


def test_rotations_are_what_stands_below():
    operation, numbers = inputs("rotate")
    turned = operation.matrix(numbers, (gallery.SIDE, gallery.SIDE))
    angles = [math.degrees(math.atan2(sin, cos)) for cos, sin in turned[:, 0, :2].tolist()]
    assert angles == pytest.approx(captions("rotate"), abs=1e-6)


@pytest.mark.parametrize(("name", "unit"), [("blur", 1), ("sharpen", 1), ("noise", 1), ("salt_pepper", 0.01)])
def test_textures_are_as_strong_as_stands_below(name, unit):
    operation, numbers = inputs(name)
    assert operation.strength(numbers).tolist() == pytest.approx([unit * c for c in captions(name)])


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_light_is_multiplied_by_what_stands_below(name):
    operation, numbers = inputs(name)
    assert operation.colour(numbers)[:, 0, 0].tolist() == pytest.approx(captions(name), abs=0.01)


@pytest.mark.parametrize("name", SPATIAL)
def test_mask_and_points_lie_where_the_picture_shows_them(name):
    strip = STRIPS[name]
    batch, _ = gallery.changed(strip)
    assert batch.x.shape == (len(strip.captions), 3, gallery.SIDE, gallery.SIDE)
    mask, boxes, points = batch.y
    for i in range(len(strip.captions)):
        x0, y0, x1, y1 = boxes.values["boxes"][i, 0].tolist()
        shown = [(x, y) for x, y in points[i].tolist() if 2 <= x < gallery.SIDE - 2 and 2 <= y < gallery.SIDE - 2]
        assert shown
        for x, y in shown:
            assert x0 - 3 <= x <= x1 + 3
            assert y0 - 3 <= y <= y1 + 3
            near = mask[i, int(y) - 2 : int(y) + 4, int(x) - 2 : int(x) + 4]
            assert (near == 1).any()


def test_jpegs_open():
    made = gallery.jpeg(gallery.row([gallery.heat(gallery.sound()[0])], ["as it is"]))
    with Image.open(io.BytesIO(made)) as image:
        assert image.size == (gallery.FRAMES, gallery.BANDS + gallery.CAPTION)
