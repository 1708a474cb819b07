"""Scenes: determined by their seed, and what they say of themselves agrees."""

import numpy as np
import pytest

from common.blocks.objects import BBoxBlock
from common.blocks.shapes import decode_rle
from common.errors import ConfigError
from common.vision import scenes
from common.vision.scenes import PARTS, embedded_scenes, make_scenes


def test_scenes_are_a_function_of_seed_part_and_position():
    first, again = make_scenes(6, seed=4), make_scenes(3, seed=4)
    for one, other in zip(first, again, strict=False):
        assert (one.pixels == other.pixels).all()
        assert (one.mask == other.mask).all()
        assert one.objects.boxes == other.objects.boxes
        assert one.caption == other.caption
    assert (first[0].pixels != make_scenes(1, seed=5)[0].pixels).any()
    assert (first[0].pixels != make_scenes(1, seed=4, part="valid")[0].pixels).any()
    assert (first[0].pixels != first[1].pixels).any()


def test_boxes_are_the_extents_of_their_masks_and_the_class_mask_is_their_union():
    for scene in make_scenes(40, seed=1, size=(96, 144)):
        things = scene.objects
        union = np.zeros((96, 144), np.uint8)
        assert things.size == (96, 144)
        for box, label, shape, area in zip(things.boxes, things.labels, things.shapes, things.areas, strict=True):
            inside = decode_rle(shape)
            rows, columns = np.nonzero(inside)
            assert tuple(box) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert area == inside.sum()
            assert (union[inside] == 0).all()
            union[inside] = 1 + int(label)
        assert (union == scene.mask).all()


def test_parts_share_no_digit_and_no_piece_of_a_photo():
    seen = [{image.tobytes() for image in scenes._digits(part)[0]} for part in PARTS]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert sum(map(len, seen)) > 1700
    edges = [round(edge * 640) for strip in scenes.STRIPS for edge in strip]
    assert edges == sorted(edges)
    assert sum(scenes._photos(part)[0].shape[1] for part in PARTS) == 640
    assert all(set(scenes._digits(part)[1]) == set(range(10)) for part in PARTS)


def test_no_two_digits_overlap_and_there_is_at_least_one():
    for scene in make_scenes(60, seed=2, most=6):
        boxes = scene.objects.boxes
        assert 1 <= len(boxes) <= 6
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_every_digit_has_pixels_at_the_smallest_size():
    rng = np.random.default_rng(0)
    for part in PARTS:
        for digit in scenes._digits(part)[0]:
            assert scenes._enlarged(rng, digit, 32).max() > 0.5


def test_a_digit_is_lighter_than_its_rim_on_any_photo():
    for scene in make_scenes(40, seed=3):
        grey = scene.pixels.astype(float).mean(axis=2)
        inside = np.pad(scene.mask > 0, 2)
        around = np.zeros_like(inside)
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                around |= np.roll(inside, (dy, dx), (0, 1))
        rim = (around & ~inside)[2:-2, 2:-2]
        assert grey[scene.mask > 0].mean() - grey[rim].mean() > 40


def test_captions_say_what_is_there():
    for scene in make_scenes(60, seed=5):
        words = scene.caption.replace(",", "").split()
        named = sorted(str(scenes.NAMES.index(word)) for word in words if word in scenes.NAMES)
        assert named == sorted(scene.objects.labels)
        assert not {"a eight", "an one"} & {" ".join(pair) for pair in zip(words, words[1:], strict=False)}
        if " above " in scene.caption:
            middles = [y0 + y1 for _, y0, _, y1 in scene.objects.boxes]
            upper = scene.objects.labels[int(np.argmin(middles))]
            assert scene.caption.split(" above ")[0].split()[-1] == scenes.NAMES[int(upper)]


def test_embedded_scenes_come_part_by_part():
    items, parts = embedded_scenes(3, 2, 1)
    assert parts.tolist() == ["train"] * 3 + ["valid"] * 2 + ["test"]
    assert (items[3].pixels == make_scenes(1, part="valid")[0].pixels).all()


def test_a_detector_can_read_them():
    scene = make_scenes(1, seed=7)[0]
    found = BBoxBlock(tuple("0123456789"), outlined=True).encode(scene.objects)
    assert found["boxes"].tolist() == [list(map(float, box)) for box in scene.objects.boxes]


@pytest.mark.parametrize(
    ("options", "said"), [({"part": "dev"}, "part"), ({"most": 0}, "most"), ({"size": (8, 8)}, "size must be 32")]
)
def test_a_wrong_number_is_named(options, said):
    with pytest.raises(ConfigError, match=said):
        make_scenes(1, **options)
