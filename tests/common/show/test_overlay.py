"""Predictions drawn on their images: size kept, boxes and masks where they belong."""

import base64
import io

import numpy as np
from PIL import Image

from common.show.overlay import overlay
from common.task.record_view import LegendEntry, RecordView, ViewBox

GREY = Image.new("RGB", (80, 120), (100, 100, 100))


def drawn(**view):
    return np.asarray(overlay(GREY, RecordView(title="a title", **view).plain())).astype(int)


def test_a_box_is_drawn_around_its_thing_in_its_colour():
    box = ViewBox(label="a", score=0.5, bbox=(10, 60, 30, 40), color="#ff0000")
    made = drawn(size=(120, 80), boxes=(box,))
    assert made.shape == (120, 80, 3)
    for y, x in ((60, 25), (100, 25), (80, 10), (80, 40)):
        assert made[y, x].tolist() == [255, 0, 0]
    assert made[80, 25].tolist() == made[110, 60].tolist() == [100, 100, 100]


def test_a_mask_is_painted_where_it_covers():
    runs = (50 * 120, 120 * 10, 80 * 120 - 60 * 120)  # the columns 50 to 59
    box = ViewBox(label="a", score=0.5, bbox=(50, 0, 10, 120), color="#00ff00", runs=runs)
    made = drawn(size=(120, 80), boxes=(box,))
    assert made[70, 55, 1] > 130 > made[70, 55, 0]
    assert made[70, 30].tolist() == [100, 100, 100]


def test_a_class_map_is_laid_over_the_pixels_in_its_palette():
    ids = Image.fromarray(np.repeat([[0] * 40 + [1] * 40], 120, axis=0).astype(np.uint8)).convert("P")
    ids.putpalette([0, 0, 0, 0, 0, 255])
    out = io.BytesIO()
    ids.save(out, "PNG")
    legend = (LegendEntry(label="sea", share=0.5, color="#0000ff"),)
    made = drawn(size=(120, 80), png=base64.b64encode(out.getvalue()).decode(), legend=legend)
    assert made[100, 70, 2] > 150 > made[100, 70, 0]
    assert made[100, 10, 2] < 100


def test_what_has_no_place_is_told_as_a_title():
    assert (drawn()[:20] != 100).any()
    assert (drawn()[60:] == 100).all()
