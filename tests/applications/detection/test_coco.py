"""COCO files as people have them, and a sentence with file and id for every fault of one."""

import json
import tracemalloc

import numpy as np
import pytest

from applications.detection.coco import CocoFile
from common.blocks.objects import BBoxBlock, InstanceBlock
from common.errors import DataError

from .conftest import coco_content

RLE = {"size": [40, 60], "counts": [0, 40, 2360]}


@pytest.fixture()
def write(tmp_path):
    def make(content):
        path = tmp_path / "x.json"
        text = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def changed(index=0, **changes):
    """The file with one annotation changed; None takes a key away."""
    content = coco_content()
    entry = content["annotations"][index] | changes
    content["annotations"][index] = {name: value for name, value in entry.items() if value is not None}
    return content


def test_ids_may_have_gaps_and_any_order(write):
    content = coco_content()
    content["categories"] = [{"id": 90, "name": "zebra"}, *content["categories"]]
    file = CocoFile.read(write(content))
    assert file.vocab == ("cat", "dog", "zebra")
    assert file.category_ids == {"cat": 3, "dog": 7, "zebra": 90}
    assert [file.objects(key).labels for key in (10, 11)] == [["cat"], ["dog"]]


def test_an_image_has_what_is_stated_of_it(write):
    found = CocoFile.read(write(changed(iscrowd=1, segmentation=RLE, area=12.5))).objects(10, (40, 60))
    assert list(found.boxes) == [(2, 3, 20, 30)]
    assert (found.crowd, found.areas, found.size, found.notes) == ([True], [12.5], (40, 60), ())
    assert found.shapes == [RLE]


def test_polygons_are_what_the_blocks_take(write):
    found = CocoFile.read(write(coco_content())).objects(10)
    instances = InstanceBlock().encode(found)
    assert instances.sum() == 18 * 27
    assert BBoxBlock(vocab=("cat", "dog"), outlined=True).encode(found)["outlines"].shape == (1, 32, 2)


def test_an_image_without_annotations_has_no_objects(write):
    file = CocoFile.read(write(coco_content() | {"annotations": []}))
    assert list(file.objects(10).boxes) == []
    assert file.objects(10).shapes == []
    assert file.outlined


def test_half_of_the_shapes_are_none(write):
    content = coco_content(boxes=((2, 3, 18, 27), (5, 5, 9, 9)))
    content["annotations"][1]["segmentation"] = []
    file = CocoFile.read(write(content))
    assert file.objects(10).shapes is None
    assert "x.json: image 10: 1 of 2 annotations have no shape, so none is used" in file.objects(10).notes[0]
    assert len(file.objects(11).shapes) == 2
    assert not file.outlined
    for entry in content["annotations"]:
        del entry["segmentation"]
    assert CocoFile.read(write(content)).objects(10).notes == ()


def test_a_polygon_of_two_corners_is_left_out(write):
    found = CocoFile.read(write(changed(segmentation=[[1, 1, 2, 2], [1, 1, 5, 1, 5, 5]]))).objects(10)
    assert [part.tolist() for part in found.shapes[0]] == [[1, 1, 5, 1, 5, 5]]
    assert "annotation 100 of image 10: 1 of its polygons with fewer than three corners left out" in found.notes[0]


@pytest.mark.parametrize("box", [[5, 5, 0, 9], [5, 9, 7, 0], [70, 5, 9, 9]])
def test_a_box_without_extent_or_outside_is_left_out(write, box):
    found = CocoFile.read(write(changed(bbox=box))).objects(10)
    assert list(found.boxes) == []
    assert "annotation 100 of image 10: the box" in found.notes[0]
    assert found.notes[0].endswith("left out")


def test_a_box_partly_outside_is_cut_and_keeps_its_area(write):
    found = CocoFile.read(write(changed(bbox=[50, -4, 20, 20]))).objects(10)
    assert list(found.boxes) == [(50, 0, 60, 16)]
    assert found.areas == [18 * 27]
    assert "is cut to its image" in found.notes[0]


def test_areas_that_are_not_stated_are_those_of_the_boxes(write):
    content = coco_content(boxes=((2, 3, 18, 27), (5, 5, 9, 9)))
    del content["annotations"][0]["area"]
    file = CocoFile.read(write(content))
    assert file.objects(10).areas == [18 * 27, 81]
    for entry in content["annotations"]:
        entry.pop("area", None)
    assert CocoFile.read(write(content)).objects(10).areas is None


def test_annotations_may_lack_what_the_boxes_do_not_need(write):
    content = coco_content()
    for entry in content["annotations"]:
        for name in ("id", "area", "iscrowd", "segmentation"):
            del entry[name]
    for image in content["images"]:
        del image["height"], image["width"]
    found = CocoFile.read(write(content)).objects(11)
    assert (list(found.boxes), found.labels, found.size) == ([(2, 3, 20, 30)], ["dog"], None)


ITEM_FAULTS = {
    "unknown category": ({"category_id": 4}, r"its category_id 4 is not declared: known: 3, 7"),
    "no category": ({"category_id": None}, r"its category_id None is not declared"),
    "odd category": ({"category_id": [3]}, r"its category_id \[3\] is not declared"),
    "NaN": ({"bbox": [1, float("nan"), 3, 4]}, r"its bbox must be four finite numbers \[x, y, width, height\], got"),
    "infinite": ({"bbox": [1, 2, float("inf"), 4]}, r"its bbox must be four finite numbers"),
    "text": ({"bbox": [1, "2", 3, 4]}, r"its bbox must be four finite numbers"),
    "three": ({"bbox": [1, 2, 3]}, r"its bbox must be four finite numbers"),
    "none": ({"bbox": None}, r"its bbox must be four finite numbers .* got None"),
    "negative width": ({"bbox": [9, 9, -4, 4]}, r"has a negative extent: \[9\.0, 9\.0, -4\.0, 4\.0\]"),
    "odd crowd": ({"iscrowd": 2}, r"its iscrowd must be 0 or 1, got 2"),
    "odd area": ({"area": "big"}, r"its area must be a number of square pixels, got 'big'"),
    "area below zero": ({"area": -1}, r"its area must be a number"),
    "odd corner": ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, r"its segmentation must be lists of finite numbers"),
    "words": ({"segmentation": [["a", "b"]]}, r"its segmentation must be lists of finite numbers"),
    "shape of NaN": ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, r"its segmentation must be lists"),
    "nested": ({"segmentation": [[[1, 2], [3, 4], [5, 6]]]}, r"its segmentation must be lists of finite numbers"),
    "number": ({"segmentation": 5}, r"its segmentation must be lists of finite numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "says"), ITEM_FAULTS.values(), ids=list(ITEM_FAULTS))
def test_a_fault_of_one_annotation_is_named_when_its_image_is_asked_for(write, changes, says):
    file = CocoFile.read(write(changed(**changes)))
    with pytest.raises(DataError, match=rf"x\.json: annotation 100 of image 10: .*{says}|{says}") as caught:
        file.objects(10)
    assert str(caught.value).split(": ")[1] == "annotation 100 of image 10"
    assert len(str(caught.value).splitlines()) == 1
    assert file.objects(11).labels == ["dog"]


def replaced(part, index=0, **changes):
    content = coco_content()
    entry = content[part][index] | changes
    content[part][index] = {key: value for key, value in entry.items() if value is not None}
    return content


def without(name):
    return {key: value for key, value in coco_content().items() if key != name}


FILE_FAULTS = {
    "truncated": (json.dumps(coco_content(), indent=1)[:500], r"x\.json, line \d+, column \d+: is not JSON \("),
    "empty": ("", r"x\.json, line 1, column 1: is not JSON"),
    "binary": (b"\xff\xfe\xfd\x00\x80", r"x\.json: is not JSON"),
    "deep": ("[" * 100_000, r"x\.json: is not JSON"),
    "list": ([], r"x\.json: a COCO file is an object with images, annotations and categories"),
    "no images": (without("images"), r"has no list 'images'"),
    "no annotations": (without("annotations"), r"has no list 'annotations'"),
    "no categories": (without("categories"), r"has no list 'categories'"),
    "odd images": (coco_content() | {"images": {}}, r"has no list 'images'"),
    "nothing declared": (coco_content() | {"categories": []}, r"declares no categories"),
    "unknown image": (changed(1, image_id=99), r"annotation 101: its image_id 99 is not among the 2 images"),
    "no image": (changed(1, image_id=None), r"annotation 101: its image_id must be a whole number, got None"),
    "odd annotation": (coco_content() | {"annotations": [5]}, r"annotations\[0\] has neither image_id nor category_id"),
    "annotation twice": (changed(1, id=100), r"annotation 100: this id is there twice"),
    "image twice": (replaced("images", 1, id=10), r"images\[1\]: the image id 10 is there twice"),
    "no file": (replaced("images", 1, file_name=None), r"images\[1\] has no 'file_name'"),
    "odd file": (replaced("images", 1, file_name=7), r"images\[1\]: file_name must be the name of a file, got 7"),
    "no id": (replaced("images", 1, id=None), r"images\[1\] has no 'id'"),
    "odd id": (replaced("images", 1, id=[1]), r"images\[1\]: its id must be a whole number, got \[1\]"),
    "odd size": (replaced("images", 0, height="tall"), r"images\[0\]: height and width must be numbers of pixels"),
    "category twice": (replaced("categories", 1, name="cat"), r"the category 'cat' is there twice \(ids 3 and 7\)"),
    "category id twice": (replaced("categories", 1, id=3), r"categories\[1\]: the category id 3 is there twice"),
    "category without name": (replaced("categories", 1, name=None), r"categories\[1\] has no 'name'"),
    "odd category": (replaced("categories", 1, id="b"), r"categories\[1\]: its id must be a whole number, got 'b'"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "says"), FILE_FAULTS.values(), ids=list(FILE_FAULTS))
def test_a_fault_of_the_file_is_named_at_once(write, content, says):
    with pytest.raises(DataError, match=says) as caught:
        CocoFile.read(write(content))
    assert "x.json" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no\.json: cannot be read: No such file"):
        CocoFile.read(tmp_path / "no.json")


def test_a_size_that_is_not_the_images_is_refused(write):
    file = CocoFile.read(write(coco_content()))
    says = r"x\.json: image 10 \(a\.png\) is said to have 60 x 40 pixels and has 30 x 20: its boxes would lie elsewhere"
    with pytest.raises(DataError, match=says):
        file.objects(10, (20, 30))


def test_reading_takes_little_more_memory_than_the_file(write):
    polygon = np.round(np.random.default_rng(0).uniform(0, 40, 80), 2).tolist()
    content = coco_content(names=[f"{i}.png" for i in range(50)], boxes=((2, 3, 18, 27),) * 40)
    for entry in content["annotations"]:
        entry["segmentation"] = [polygon]
    path = write(content)
    del content
    tracemalloc.start()
    CocoFile.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * path.stat().st_size
