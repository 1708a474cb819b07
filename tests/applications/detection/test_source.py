"""The folders and files of boxes that people have, found out and read; and a sentence for every fault of one."""

import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from applications.detection.data import read_source, scene_source
from applications.detection.layout import image_size
from common.blocks.item_transforms import Resize
from common.blocks.objects import BBoxBlock, Objects
from common.blocks.spatial import ImageBlock
from common.data.datablock import DataBlock
from common.errors import ConfigError, DataError, ItemError
from common.sources.items import read_field

from .conftest import SHARED, coco_content, picture, voc_text

LISTS = {"train": "a\nb\n", "val": "c\n", "test": "d\n"}
needs_shared = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the shared data is not beside the project")


def targets_of(source):
    return list(read_field(source.get_y, source.items, "get_y"))


def names_of(source):
    return [item.name for item in source.items]


def block_of(source, size=32):
    return DataBlock(
        (ImageBlock, BBoxBlock(vocab=source.vocab)), get_x=source.get_x, get_y=source.get_y,
        splitter=source.splitter(0.25, 0), item_tfms=Resize(size, "squish"),
    )  # fmt: skip


# ------------------------------------------------------------------ Pascal VOC


def test_a_voc_folder_has_the_parts_of_its_lists(voc):
    source = read_source(voc(lists=LISTS))
    assert names_of(source) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert source.parts.tolist() == ["train", "train", "valid", "test"]
    assert [target.labels for target in targets_of(source)] == [["cat"]] * 4
    assert (source.vocab, source.numbers(("cat", "dog")), source.mirrored) == ((), (1, 2), True)
    assert source.kind == "Pascal VOC folder of 4 images"


def test_names_in_lists_may_have_endings_and_a_second_column(voc):
    lists = {"train": "a.jpg\n\nb.xml  \n", "val": "c  1\n", "test": "d -1", "cat_train": "a 1\nb -1\nc 0\n"}
    assert read_source(voc(lists=lists)).parts.tolist() == ["train", "train", "valid", "test"]


def test_names_may_have_blanks(voc):
    source = read_source(
        voc(names=("my photo 1", "my photo"), lists={"train": "my photo 1\n", "val": "my photo 1 \n"[:8]})
    )
    assert dict(zip(names_of(source), source.parts.tolist(), strict=True)) == {
        "my photo 1.jpg": "train",
        "my photo.jpg": "valid",
    }


@pytest.mark.parametrize(
    ("lists", "parts"),
    [
        ({"trainval": "a\nb\nc\n", "test": "d\n"}, ["train", "train", "train", "test"]),
        (LISTS | {"trainval": "a\nb\nc\n"}, ["train", "train", "valid", "test"]),
        ({"val": "c\n", "test": "d\n"}, ["train", "train", "valid", "test"]),
        ({"train": "", "val": "\n", "trainval": "", "cat_train": "a 1\n"}, None),
    ],
    ids=["trainval", "all of them", "only what is held out", "empty"],
)
def test_lists_that_people_have(voc, lists, parts):
    source = read_source(voc(lists=lists))
    assert (source.parts if source.parts is None else source.parts.tolist()) == parts


def test_what_is_in_no_list_is_left_out_and_told(voc):
    source = read_source(voc(lists={"train": "a\n", "val": "b\n"}))
    assert names_of(source) == ["a.jpg", "b.jpg"]
    assert source.kind.endswith("; 2 are in no split list")


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ({"train": "a\nx\n"}, r"train\.txt, line 2: there is no 'x': known: a, b, c, d"),
        ({"train": "a\nb\n", "val": "b\n"}, r"(train|val)\.txt, line \d: 'b' is in .*(train|val)\.txt, line \d too"),
        ({"train": "a\na\n"}, r"train\.txt, line 2: 'a' is in .*train\.txt, line 1 too"),
        ({"train": "a 5\n"}, r"train\.txt, line 1: there is no 'a 5'"),
    ],
)
def test_a_line_of_a_list_that_means_nothing_is_named(voc, lists, says):
    with pytest.raises(DataError, match=says):
        read_source(voc(lists=lists))


def test_a_list_in_no_encoding_is_named(voc):
    root = voc(lists=LISTS)
    (root / "ImageSets/Main/train.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(DataError, match=r"train\.txt: cannot be read as a list of names"):
        read_source(root)


def test_a_listed_image_without_annotation_fails_by_itself(voc):
    root = voc(lists=LISTS)
    (root / "Annotations/b.xml").unlink()
    source = read_source(root)
    failed: dict[int, ItemError] = {}
    found = read_field(source.get_y, source.items, "get_y", failed)
    assert [target is None for target in found] == [False, True, False, False]
    assert re.search(r"b\.jpg is in a split list and has no annotation b\.xml", str(failed[1]))


@pytest.mark.parametrize(
    ("images", "xmls"),
    [("", ""), ("images", "annotations"), ("JPEGImages", "Annotations"), ("", "xml"), ("images", "labels")],
)
def test_images_and_annotations_lie_where_people_put_them(voc, images, xmls):
    source = read_source(voc(images=images, xmls=xmls))
    assert names_of(source) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert source.parts is None
    assert len(targets_of(source)) == 4


@pytest.mark.parametrize(
    "place",
    [("{part}", "{part}"), ("images/{part}", "annotations/{part}"), ("{part}/images", "{part}/annotations")],
    ids=["beside", "below", "above"],
)
def test_folders_may_say_the_parts(voc, place):
    for i, part in enumerate(("train", "valid", "test")):
        images, xmls = (folder.format(part=part) for folder in place)
        root = voc(names=(f"{i}a", f"{i}b"), images=images, xmls=xmls)
    source = read_source(root)
    assert dict(zip(names_of(source), source.parts.tolist(), strict=True)) == {
        f"{i}{letter}.jpg": part for i, part in enumerate(("train", "valid", "test")) for letter in "ab"
    }
    assert [len(target.boxes) for target in targets_of(source)] == [1] * 6


def test_an_annotation_outside_the_parts_is_named(voc):
    voc(names=("a",), images="train", xmls="train")
    with pytest.raises(DataError, match=r"b\.xml lies in none of the folders train, valid, test"):
        read_source(voc(names=("b",), images="more", xmls="more"))


def test_the_folder_above_one_set_is_that_set_and_above_two_is_refused(voc):
    voc("kit/VOC2007", lists=LISTS)
    kit = voc("kit/VOC2007", names=("a",)).parent
    assert read_source(kit).parts.tolist() == ["train", "train", "valid", "test"]
    voc("kit/VOC2012", lists=LISTS)
    with pytest.raises(DataError, match=r"several sets with their own split lists: name one of .*VOC2007, .*VOC2012"):
        read_source(kit)


def test_the_folder_of_annotations_stands_for_the_set(voc):
    assert read_source(voc(lists=LISTS) / "Annotations").parts.tolist() == ["train", "train", "valid", "test"]


def test_the_stated_file_name_finds_the_image_and_else_the_own_name(voc):
    root = voc(names=("a", "b"))
    (root / "Annotations/a.xml").write_text(voc_text(filename="C:\\photos\\b.jpg"))
    (root / "Annotations/b.xml").unlink()
    (root / "JPEGImages/a.jpg").unlink()
    assert names_of(read_source(root)) == ["b.jpg"]
    (root / "Annotations/a.xml").write_text(voc_text(filename="long-gone.png"))
    (root / "JPEGImages/b.jpg").rename(root / "JPEGImages/a.jpg")
    assert names_of(read_source(root)) == ["a.jpg"]


def test_two_names_for_one_annotation_are_refused_for_its_image(voc):
    root = voc(names=("a", "b"))
    (root / "Annotations/a.xml").write_text(voc_text(filename="b.jpg"))
    (root / "Annotations/b.xml").unlink()
    source = read_source(root)
    with pytest.raises(DataError, match=r"a\.xml: its <filename> names b\.jpg, but a\.jpg is there too"):
        targets_of(source)


def test_two_images_of_one_name_are_refused_for_that_name(voc):
    root = voc(names=("a",))
    picture(root / "JPEGImages/a.png")
    with pytest.raises(DataError, match=r"a\.xml: which is its image, a\.jpg or a\.png\?"):
        targets_of(read_source(root))
    (root / "Annotations/a.xml").write_text(voc_text(filename="a.png"))
    assert names_of(read_source(root)) == ["a.png"]


def test_two_annotations_of_one_image_are_refused(voc):
    root = voc(names=("a",))
    (root / "Annotations/x.xml").write_text(voc_text(filename="a.jpg"))
    with pytest.raises(DataError, match=r"a\.xml and .*x\.xml are both of the image .*a\.jpg"):
        read_source(root)


def test_an_annotation_without_image_is_named_and_can_be_skipped(voc):
    root = voc()
    (root / "JPEGImages/c.jpg").unlink()
    source = read_source(root)
    with pytest.raises(
        DataError, match=r"c\.jpg: get_y failed: .*c\.xml: its image c\.jpg is missing \(looked in .*JPEGImages"
    ):
        targets_of(source)
    dls = block_of(source).dataloaders(source.items, bs=1, on_error="skip")
    assert dls.train.n + dls.valid.n == 3
    report = block_of(source).check(source.items)
    assert [failure.item for failure in report.failures] == [str(root / "JPEGImages/c.jpg")]


def test_a_broken_annotation_is_skipped_or_kept_in_quarantine(voc, tmp_path):
    root = voc()
    (root / "Annotations/b.xml").write_text(voc_text()[:-40])
    source = read_source(root)
    assert names_of(source) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    file = tmp_path / "quarantine.jsonl"
    dls = block_of(source).dataloaders(source.items, bs=1, on_error="quarantine", quarantine=file)
    assert dls.train.n + dls.valid.n == 3
    assert re.search(r"b\.xml, line \d+: is not whole XML", json.loads(file.read_text())["reason"])


def test_images_without_annotation_are_left_out_and_told(voc):
    root = voc(names=("a", "b"))
    (root / "Annotations/b.xml").unlink()
    source = read_source(root)
    assert names_of(source) == ["a.jpg"]
    assert source.kind == "folder of 1 images with XML files; 1 images have none and are left out"


def test_a_stated_size_is_compared_with_the_photo(voc):
    root = voc(names=("a",), size=(20, 30), objects=[("cat", (1, 1, 9, 9))])
    with pytest.raises(DataError, match=r"a\.xml: <size> says 30 x 20 pixels, the image has 60 x 40"):
        targets_of(read_source(root))
    assert targets_of(read_source(root, check_sizes=False))[0].size == (20, 30)


def test_the_size_of_a_photo_is_the_one_after_its_turn(tmp_path):
    image, exif = Image.new("RGB", (60, 40)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.save(tmp_path / "upright.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    sizes = [image_size(tmp_path / f"{name}.jpg") for name in ("turned", "upright", "broken", "absent")]
    assert sizes == [(60, 40), (40, 60), None, None]


def test_a_class_that_training_lacks_is_named(voc):
    root = voc(lists=LISTS)
    (root / "Annotations/c.xml").write_text(voc_text([("yeti", (1, 1, 9, 9))]))
    source = read_source(root)
    (failure,) = block_of(source).check(source.items).failures
    assert failure.item == str(root / "JPEGImages/c.jpg")
    assert "'yeti' is not among the 1 training classes" in failure.reason
    with pytest.raises(ItemError, match=r"c\.jpg: .*'yeti'"):
        list(block_of(source).dataloaders(source.items, bs=1).valid)


def test_an_image_without_objects_is_an_item(voc):
    root = voc()
    (root / "Annotations/b.xml").write_text(voc_text([]))
    source = read_source(root)
    report = block_of(source).check(source.items)
    assert report.ok
    assert sum(report.counts.values()) == 4


# ------------------------------------------------------------------------ COCO


def test_a_coco_folder_has_the_parts_of_its_files(coco, tmp_path):
    coco()
    coco("coco/annotations/instances_val2017.json", "coco/val2017", names=("c.png",))
    for name in ("captions_train2017", "person_keypoints_train2017"):
        shutil.copy(tmp_path / "coco/annotations/instances_train2017.json", tmp_path / f"coco/annotations/{name}.json")
    source = read_source(tmp_path / "coco")
    assert [item.parent.name for item in source.items] == ["train2017", "train2017", "val2017"]
    assert source.parts.tolist() == ["train", "train", "valid"]
    assert source.vocab == ("cat", "dog")
    assert (source.category_ids, source.numbers(source.vocab)) == ({"cat": 3, "dog": 7}, (3, 7))
    assert [target.labels for target in targets_of(source)] == [["cat"], ["dog"], ["cat"]]
    assert source.outlined
    with pytest.raises(ConfigError, match="vocab holds 'cow', which the source does not declare"):
        source.numbers(("cat", "cow"))


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("coco/annotations/instances_train2017.json", "coco/images/train2017"),
        ("coco/annotations/instances_train2017.json", "coco/train2017/train2017"),
        ("coco/annotations/instances_train2017.json", "coco/images"),
        ("coco/annotations/instances_train2017.json", "coco"),
        ("coco/annotations/train.json", "coco/train"),
        ("coco/annotations.json", "coco/images"),
        ("coco/annotations.json", "coco"),
        ("coco/zip/annotations/instances_train2017.json", "coco/train2017"),
    ],
)
def test_images_are_found_where_people_put_them(coco, tmp_path, file, images):
    coco(file, images)
    source = read_source(tmp_path / "coco")
    assert all(item.is_file() for item in source.items)
    assert source.parts is None
    assert len(targets_of(source)) == 2


def test_file_names_may_have_folders(coco, tmp_path):
    names = ("train/deep/a.png", "train/deep/b.png")
    coco("coco/all.json", "coco", names=names)
    assert all(item.is_file() for item in read_source(tmp_path / "coco").items)
    content = coco_content(names=[f"C:\\data\\{name}" for name in names])
    (tmp_path / "coco/all.json").write_text(json.dumps(content))
    source = read_source(tmp_path / "coco/all.json", images="train/deep")
    assert names_of(source) == ["a.png", "b.png"]
    assert all(item.is_file() for item in source.items)


def test_a_file_name_does_not_lead_out_of_the_folder(coco, tmp_path):
    picture(tmp_path / "outside.png")
    file = coco(
        "coco/all.json",
        "coco",
        content=json.dumps(coco_content(names=("../outside.png", str(tmp_path / "outside.png")))),
    )
    with pytest.raises(DataError, match="it is there twice"):  # both are outside.png in the folder of the file
        read_source(file)
    coco("coco/all.json", "coco", content=json.dumps(coco_content(names=("../outside.png",))))
    with pytest.raises(DataError, match=r"its file \.\./outside\.png is missing"):
        targets_of(read_source(file))


def test_one_file_stands_for_itself(coco, tmp_path):
    coco("one/boxes.json", "one")
    assert len(targets_of(read_source(tmp_path / "one/boxes.json"))) == 2
    coco("coco/annotations/instances_val2017.json", "coco/val2017")
    coco("coco/annotations/instances_train2017.json", "coco/train2017", names=("c.png",))
    source = read_source(tmp_path / "coco/annotations/instances_val2017.json")
    assert names_of(source) == ["a.png", "b.png"]
    assert all(item.is_file() for item in source.items)
    source = read_source(tmp_path / "coco", annotations="annotations/instances_train2017.json")
    assert names_of(source) == ["c.png"]
    assert source.parts is None


def test_roboflows_folders_are_parts(coco, tmp_path):
    for part in ("train", "valid", "test"):
        coco(f"robo/{part}/_annotations.coco.json", f"robo/{part}", names=(f"{part}.png",))
    source = read_source(tmp_path / "robo")
    assert names_of(source) == ["train.png", "valid.png", "test.png"]
    assert source.parts.tolist() == ["train", "valid", "test"]
    assert len(targets_of(source)) == 3


def test_files_of_other_kinds_do_not_confuse(coco, tmp_path):
    coco("coco/boxes.json", "coco/images")
    (tmp_path / "coco/settings.json").write_text('{"lr": 1}')
    (tmp_path / "coco/captions_val2017.json").write_text(json.dumps(coco_content()))
    assert len(targets_of(read_source(tmp_path / "coco"))) == 2


def test_two_files_of_one_part_are_refused(coco, tmp_path):
    coco()
    coco("coco/annotations/instances_train2014.json", "coco/train2014")
    with pytest.raises(
        DataError, match=r"train2014\.json and .*train2017\.json by their names are the train part: name"
    ):
        read_source(tmp_path / "coco")


def test_two_files_without_part_are_refused(coco, tmp_path):
    coco("coco/a.json", "coco")
    coco("coco/b.json", "coco")
    with pytest.raises(DataError, match=r"a\.json and .*b\.json by their names are no part \(train, valid, test\)"):
        read_source(tmp_path / "coco")


def test_an_image_of_two_parts_is_named(coco, tmp_path):
    coco("coco/annotations/instances_train.json", "coco/images")
    coco("coco/annotations/instances_val.json", "coco/images")
    with pytest.raises(DataError, match=r"a\.png is image 10 of .*train\.json and image 10 of .*val\.json"):
        read_source(tmp_path / "coco")


def test_categories_of_the_parts_must_agree(coco, tmp_path):
    coco()
    other = coco_content(names=("c.png",))
    other["categories"][1]["id"] = 8
    for entry in other["annotations"]:
        entry["category_id"] = 8
    coco("coco/annotations/instances_val2017.json", "coco/val2017", content=other)
    with pytest.raises(DataError, match=r"val2017\.json: the category 'dog' has id 8, in .*train2017\.json 7"):
        read_source(tmp_path / "coco")
    other["categories"][1]["name"], other["categories"][1]["id"] = "cow", 7
    (tmp_path / "coco/annotations/instances_val2017.json").write_text(json.dumps(other | {"annotations": []}))
    with pytest.raises(DataError, match="give one category id to different names"):
        read_source(tmp_path / "coco")


def test_a_declared_image_that_is_missing_fails_by_itself(coco, tmp_path):
    coco(names=("a.png", "b.png", "c.png", "d.png"))
    (tmp_path / "coco/train2017/b.png").unlink()
    source = read_source(tmp_path / "coco")
    says = r"b\.png: get_y failed: .*json: image 11: its file b\.png is missing \(looked in .*train2017"
    with pytest.raises(DataError, match=says):
        targets_of(source)
    dls = block_of(source).dataloaders(source.items, bs=1, on_error="skip")
    assert dls.train.n + dls.valid.n == 3


def test_a_broken_annotation_of_coco_is_skipped(coco, tmp_path):
    content = coco_content(names=("a.png", "b.png", "c.png", "d.png"))
    content["annotations"][2]["category_id"] = 99
    coco(content=content)
    source = read_source(tmp_path / "coco")
    report = block_of(source).check(source.items)
    (failure,) = report.failures
    assert failure.item.endswith("c.png")
    assert "annotation 102 of image 12: its category_id 99 is not declared" in failure.reason


def test_a_broken_file_is_named_at_once(coco, tmp_path):
    coco(content='{"images": [], "annotations": [')
    with pytest.raises(DataError, match=r"instances_train2017\.json, line 1, column \d+: is not JSON"):
        read_source(tmp_path / "coco")
    coco(content=coco_content() | {"images": [], "annotations": []})
    with pytest.raises(DataError, match="declares no images"):
        read_source(tmp_path / "coco")


def test_a_declared_size_is_compared_with_the_photo(coco, tmp_path):
    file = coco()
    content = coco_content(size=(20, 30))
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"image 10 \(a\.png\) is said to have 30 x 20 pixels and has 60 x 40"):
        targets_of(read_source(tmp_path / "coco"))
    assert targets_of(read_source(tmp_path / "coco", check_sizes=False))[0].size == (20, 30)


# ---------------------------------------------------------------- what is none


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: root / "nowhere", "nowhere does not exist"),
        (lambda root: root, r"holds no boxes: looked for Pascal VOC \(\*\.xml, as in Annotations/\) and COCO"),
        (lambda root: picture(root / "a.png").parent, "holds no boxes"),
        (lambda root: picture(root / "a.png"), r"a\.png is no COCO file \(\.json\): name that, or the folder"),
    ],
)
def test_what_holds_no_boxes_is_named(tmp_path, make, says):
    with pytest.raises(DataError, match=says):
        read_source(make(tmp_path))


def test_the_embedded_scenes_have_three_parts():
    source = scene_source((6, 3, 2), size=(64, 64))
    assert Counter(source.parts.tolist()) == {"train": 6, "valid": 3, "test": 2}
    assert source.vocab == tuple("0123456789")
    assert source.numbers(source.vocab) == tuple(range(1, 11))
    assert (source.outlined, source.mirrored) == (True, False)
    pixels = read_field(source.get_x, source.items, "get_x")
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image in pixels)
    assert all(isinstance(target, Objects) and len(target.boxes) for target in targets_of(source))
    assert block_of(source).check(source.items).ok


def test_without_a_path_the_scenes_are_read(monkeypatch):
    scenes = scene_source((2, 1, 1), size=(64, 64))
    monkeypatch.setattr("applications.detection.data.scene_source", lambda: scenes)
    assert read_source(None) is scenes


# ------------------------------------------------------------- real data beside


@pytest.mark.data
@needs_shared
@pytest.mark.parametrize(
    ("name", "parts", "labels", "left_out"),
    [
        ("bccd", {"train": 205, "valid": 87}, {"RBC": 3348, "WBC": 301, "Platelets": 292}, 2),
        ("raccoon", {"train": 160, "test": 40}, {"raccoon": 217}, 0),
    ],
)
def test_real_voc_folders_have_the_counts_of_their_readme(shared, name, parts, labels, left_out):
    source = read_source(shared / "data" / name)
    targets = targets_of(source)
    assert Counter(source.parts.tolist()) == parts
    assert Counter(label for target in targets for label in target.labels) == labels
    notes = [note for target in targets for note in target.notes]
    assert len(notes) == left_out
    assert all(
        re.search(r"BloodImage_003\d\d\.xml, line \d+: the box of 'RBC' .* has no extent", note) for note in notes
    )


@pytest.mark.data
@needs_shared
def test_a_real_coco_folder_has_the_counts_of_its_readme(shared):
    source = read_source(shared / "data" / "coco_mini")
    counts = Counter()
    for part, target in zip(source.parts.tolist(), targets_of(source), strict=True):
        counts[part] += len(target.boxes)
        assert target.shapes is not None
        assert not target.notes
    assert Counter(source.parts.tolist()) == {"train": 80, "valid": 79}
    assert counts == {"train": 731, "valid": 619}
    assert len(source.vocab) == 80
    assert source.numbers(source.vocab)[-1] == 90


@pytest.mark.data
@needs_shared
def test_check_tells_counts_classes_and_notes_of_real_data(shared):
    source = read_source(shared / "data" / "bccd")
    block = DataBlock(
        (ImageBlock, BBoxBlock), get_x=source.get_x, get_y=source.get_y, splitter=source.splitter(0.2, 0),
        item_tfms=Resize((240, 320), "squish"),
    )  # fmt: skip
    report = block.check(source.items, bs=8)
    assert report.ok
    assert report.counts == {"train": 205, "valid": 87}
    assert report.classes["train"] == {"Platelets": 209, "RBC": 2381, "WBC": 214}
    assert sum("has no extent: left out" in warning and ", line " in warning for warning in report.warnings) == 2
