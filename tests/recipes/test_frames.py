"""The frame of a recipe that looks at whole images: what was asked for, else what the images are like."""

import pytest

from applications.segmentation import read_source
from common.errors import ConfigError
from recipes.frames import frame_of, size_of

MOST = 360 * 480


def test_the_frame_is_the_images_own_where_they_are_alike(rectangles):
    assert frame_of(None, read_source(rectangles()), MOST) == ((40, 60), "squish")


def test_a_frame_that_was_asked_for_is_padded_where_its_shape_is_another(rectangles):
    source = read_source(rectangles())
    assert frame_of("32x48", source, MOST) == ((32, 48), "squish")
    assert frame_of("48", source, MOST) == ((48, 48), "pad")


def test_large_frames_are_made_smaller(rectangles):
    (height, width), _ = frame_of(None, read_source(rectangles(4, (800, 1200))), MOST)
    assert height * width <= 1.01 * MOST
    assert width / height == pytest.approx(1.5, rel=0.01)


def test_portraits_among_landscapes_are_padded(rectangles):
    (height, width), method = frame_of(None, read_source(rectangles(8, sizes=[(40, 60), (60, 40)])), MOST)
    assert (height, method) == (width, "pad")


def test_sizes_are_numbers_or_pairs():
    assert size_of("size", "64") == (64, 64)
    assert size_of("size", "64X96") == (64, 96)
    assert size_of("size", None) is None


@pytest.mark.parametrize("text", ["3,4", "1x2x3", "x", "-4", "8", "5000"])
def test_other_sizes_are_refused(text):
    with pytest.raises(ConfigError, match="size must"):
        size_of("size", text)
