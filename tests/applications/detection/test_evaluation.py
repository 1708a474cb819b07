"""COCO's average precision is pycocotools', to the sixth digit; what has nothing to find is None."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest

from applications.detection.coco import CocoFile
from applications.detection.evaluation import average_precision, coco_results, ground_truth
from common.blocks.objects import Objects
from common.blocks.shapes import encode_rle
from common.errors import ConfigError, DataError

from .conftest import SHARED

REAL = SHARED / "data" / "coco_mini" / "annotations"
SAME = pytest.approx
FIELDS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
SIZE = (150, 200)


def box_rle(box, size):
    x, y, w, h = (round(v) for v in box)
    mask = np.zeros(size, np.uint8)
    mask[max(y, 0) : y + h, max(x, 0) : x + w] = 1
    return encode_rle(mask)


def made_up(seed=0, images=14, categories=(2, 5, 9)):
    """A COCO file of boxes of every size with polygons, areas that are not the boxes', and gaps in the ids."""
    rng = np.random.default_rng(seed)
    content = {"images": [], "annotations": [], "categories": [{"id": c, "name": f"c{c}"} for c in (*categories, 11)]}
    for i in range(images):
        content["images"].append({"id": 7 * i + 1, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]})
        for _ in range(int(rng.integers(1, 9))):
            w, h = np.exp(rng.uniform(np.log(8), np.log(140), 2))
            x, y = rng.uniform(0, SIZE[1] - w), rng.uniform(0, SIZE[0] - h)
            polygon = [x, y, x + w, y, x + w, y + h, x + w / 2, y + 0.8 * h, x, y + h]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": 7 * i + 1,
                    "category_id": int(rng.choice(categories)),
                }
                | {"bbox": [x, y, w, h], "area": 0.8 * w * h, "iscrowd": 0, "segmentation": [polygon]}
            )
    return content


def harder(content, seed=0):
    """Some images lose their annotations, and some annotations become crowds (run lengths, as COCO has them)."""
    rng = np.random.default_rng(seed)
    content = copy.deepcopy(content)
    bare = {image["id"] for image in content["images"][::6]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in bare]
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for entry in content["annotations"]:
        if rng.random() < 0.1:
            x, y, w, h = entry["bbox"]
            entry |= {"bbox": [x / 2, y / 2, min(2 * w, 140), min(2 * h, 140)], "iscrowd": 1}
            mask = np.zeros(sizes[entry["image_id"]], np.uint8)
            x, y, w, h = (round(v) for v in entry["bbox"])
            mask[y : y + h, x : x + w] = 1
            flat = mask.T.reshape(-1)
            ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
            runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
            counts = [0, *runs] if flat[0] else runs
            entry["segmentation"] = {"size": list(mask.shape), "counts": counts}
    return content


def guesses(content, seed=0, masks=False):
    """Records near what is there: missed, doubled, of the wrong class, with equal scores, and 150 in the first image."""
    rng = np.random.default_rng(seed)
    names = {c["id"]: c["name"] for c in content["categories"]}
    records = []
    for number, image in enumerate(content["images"]):
        size = image["height"], image["width"]
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        found = []

        def add(category, box, size=size, found=found):
            entry = {"label": names[category], "category_id": category, "bbox": [float(v) for v in box]}
            entry["score"] = round(float(rng.random()), 1 + int(rng.integers(0, 3)))
            found.append(entry | ({"segmentation": box_rle(box, size)} if masks else {}))

        for entry in own * 2:
            if rng.random() < 0.75:
                box = np.asarray(entry["bbox"]) * (1 + rng.normal(0, 0.08, 4)) + rng.normal(0, 1, 4)
                box[2:] = np.clip(box[2:], 2, None)
                box[:2] = np.clip(box[:2], 0, None)
                add(entry["category_id"] if rng.random() < 0.85 else int(rng.choice(list(names))), box)
        for _ in range(150 if number == 1 else 2):
            add(int(rng.choice(list(names)[:2])), [*rng.uniform(0, 90, 2), *rng.uniform(4, 90, 2)])
        records.append({"height": size[0], "width": size[1], "objects": found})
    return records


def theirs(path, content, records, iou_type):
    """pycocotools' COCOeval of the file and the records."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = coco_results(records, [image["id"] for image in content["images"]])
    if iou_type == "segm":
        results = [{k: v for k, v in entry.items() if k != "bbox"} for entry in results]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        judge = COCOeval(truth, truth.loadRes(results), iou_type)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def mean(values):
    return float(values[values > -1].mean()) if (values > -1).any() else None


def compare(path, content, records, iou_type):
    path.write_text(json.dumps(content))
    file = CocoFile.read(path)
    targets = [file.objects(image["id"]) for image in content["images"]]
    ours = average_precision(records, targets, file.vocab, iou_type)
    judge = theirs(path, content, records, iou_type)
    for name, value in zip((*FIELDS, "ar_100"), judge.stats[[0, 1, 2, 3, 4, 5, 8]], strict=True):
        assert getattr(ours, name) == SAME(None if value == -1 else value, abs=1e-6), name
    precision, recall = judge.eval["precision"][..., 0, 2], judge.eval["recall"][..., 0, 2]
    assert [row.label for row in ours.classes] == list(file.vocab)
    for i, row in enumerate(ours.classes):
        assert row.ap == SAME(mean(precision[:, :, i]), abs=1e-6)
        assert row.ap50 == SAME(mean(precision[0, :, i]), abs=1e-6)
        assert row.ar_100 == SAME(mean(recall[:, i]), abs=1e-6)
        number = file.category_ids[row.label]
        assert row.objects == sum(a["category_id"] == number and not a["iscrowd"] for a in content["annotations"])
    return ours


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_pycocotools(tmp_path, iou_type, seed, capfd):
    content = harder(made_up(seed), seed)
    records = guesses(content, seed, masks=iou_type == "segm")
    assert max(sum(o["label"] == "c2" for o in r["objects"]) for r in records) > 60
    assert max(len(r["objects"]) for r in records) > 140
    table = compare(tmp_path / "x.json", content, records, iou_type)
    assert 0.02 < table.ap < 0.95
    assert table.classes[-1].ap is None  # declared, and nowhere to be found
    assert capfd.readouterr() == ("", "")


def test_the_surest_hundred_of_a_class_count(tmp_path):
    content = made_up(3, images=2)
    records = guesses(content, 3)
    one = records[0]["objects"]
    one += [{**one[0], "bbox": [1.0, 1.0, 3.0, 3.0], "score": 0.9} for _ in range(120)]
    compare(tmp_path / "x.json", content, records, "bbox")


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared coco_mini is not beside the project")
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("change", [lambda content: content, harder], ids=["as it is", "harder"])
def test_average_precision_of_real_truth_is_that_of_pycocotools(tmp_path, iou_type, part, change):
    content = change(json.loads((REAL / f"instances_{part}2017.json").read_text()))
    content["images"].sort(
        key=lambda image: image["id"]
    )  # of equal scores COCO takes the image with the lower id first
    compare(tmp_path / "x.json", content, guesses(content, masks=iou_type == "segm"), iou_type)


# --------------------------------------------------------------------- by hand


def found(label, box, score=0.9, **more):
    return {"label": label, "category_id": 1, "bbox": box, "score": score} | more


def of(*objects, size=SIZE):
    return {"height": size[0], "width": size[1], "objects": list(objects)}


CAT = Objects([(10, 10, 60, 60)], ["cat"], size=SIZE)


def test_finding_everything_exactly_is_one():
    table = average_precision([of(found("cat", [10, 10, 50, 50]))], [CAT], ("cat",))
    assert (table.ap, table.ap50, table.ap75, table.ap_medium, table.ar_100) == (1, 1, 1, SAME(1), 1)
    assert (table.ap_small, table.ap_large) == (None, None)


def test_an_overlap_of_two_thirds_counts_at_four_of_ten_overlaps():
    table = average_precision([of(found("cat", [10, 10, 50, 33.4]))], [CAT], ("cat",))
    assert (table.ap, table.ap50, table.ap75, table.ar_100) == (SAME(0.4), 1, 0, SAME(0.4))


def test_one_of_two_with_a_false_alarm_below_is_half():
    truth = Objects([(10, 10, 60, 60), (100, 10, 150, 60)], ["cat", "cat"])
    record = of(found("cat", [10, 10, 50, 50], 0.9), found("cat", [10, 90, 50, 50], 0.5))
    table = average_precision([record], [truth], ("cat",))
    assert table.ap == SAME(51 / 101)  # the recalls 0, 0.01, … 0.50 of 101 are reached, all with precision 1


def test_without_predictions_it_is_zero():
    table = average_precision([of()], [CAT], ("cat", "dog"))
    assert (table.ap, table.ap50, table.ar_100, table.ap_small, table.ap_medium) == (0, 0, 0, None, 0)
    assert [(row.ap, row.objects) for row in table.classes] == [(0, 1), (None, 0)]


@pytest.mark.parametrize("targets", [[Objects()], [Objects([(0, 0, 9, 9)], ["cat"], crowd=[True])], []])
def test_without_objects_it_is_none(targets):
    records = [of(found("cat", [0, 0, 9, 9])) for _ in targets]
    table = average_precision(records, targets, ("cat", "dog"))
    assert [getattr(table, name) for name in FIELDS] == [None] * 6
    assert [(row.label, row.ap, row.objects) for row in table.classes] == [("cat", None, 0), ("dog", None, 0)]


def test_a_class_without_objects_does_not_count_and_its_false_alarms_neither():
    table = average_precision([of(found("cat", [10, 10, 50, 50]), found("dog", [0, 0, 9, 9]))], [CAT], ("cat", "dog"))
    assert (table.ap, table.classes[1].ap) == (1, None)


def test_the_inputs_stay_as_they_are():
    records, targets = [of(found("cat", [10, 10, 50, 50]))], [CAT]
    before = copy.deepcopy((records, targets))
    average_precision(records, targets, ("cat",))
    assert (records, targets) == before


def test_masks_of_any_form_are_compared():
    mask = np.zeros(SIZE, bool)
    mask[10:60, 10:60] = True
    polygon = [(10, 10), (60, 10), (60, 60), (10, 60)]
    record = of(found("cat", [0, 0, 1, 1], segmentation=encode_rle(mask)))
    for shape in (mask, polygon, [polygon], [[v for corner in polygon for v in corner]], encode_rle(mask)):
        target = Objects([(10, 10, 60, 60)], ["cat"], [shape])
        assert average_precision([record], [target], ("cat",), "segm").ap == 1
        assert average_precision([record], [target], ("cat",)).ap == 0


def test_ground_truth_is_a_coco_data_set():
    target = Objects([(1, 2, 4, 6)], ["dog"], crowd=[True], areas=[7.5], size=(10, 20))
    made = ground_truth(
        [target, ([[0, 0, 2, 3]], ["cat"])], ("cat", "dog"), sizes=[(1, 1), (30, 40)], category_ids=(3, 7)
    )
    assert made["images"] == [{"id": 1, "height": 10, "width": 20}, {"id": 2, "height": 30, "width": 40}]
    assert made["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "area": 7.5, "iscrowd": 1},
        {"id": 2, "image_id": 2, "category_id": 3, "bbox": [0, 0, 2, 3], "area": 6, "iscrowd": 0},
    ]
    assert made["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    assert json.loads(json.dumps(made)) == made


def test_results_are_what_cocos_server_takes():
    records = [of(), of(found("cat", [1, 2, 3, 4], 0.5, segmentation={"size": [1, 1], "counts": "x"}))]
    assert coco_results(records, [40, 41], {"cat": 17}) == [
        {
            "image_id": 41,
            "category_id": 17,
            "bbox": [1, 2, 3, 4],
            "score": 0.5,
            "segmentation": {"size": [1, 1], "counts": "x"},
        }
    ]
    assert coco_results(records)[0]["image_id"] == 2
    assert coco_results(records)[0]["category_id"] == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: average_precision([of()], [], ("cat",)), "1 records, 0 targets"),
        (lambda: average_precision([of(size=(9, 9))], [CAT], ("cat",)), r"record 1 is of 9 x 9 pixels, its target of \(150"),
        (lambda: average_precision([of()], [CAT], ("dog",)), "the target of image 1 has the class 'cat', which is not among"),
        (lambda: average_precision([of(found("cow", [0, 0, 1, 1]))], [CAT], ("cat",)), "record of image 1 has the class 'cow'"),
        (lambda: average_precision([of()], [CAT], ("cat",), "segm"), "the target of image 1 has no shapes"),
        (
            lambda: average_precision([of(found("cat", [0, 0, 1, 1]))], [Objects()], ("cat",), "segm"),
            "record 1 has an object without segmentation",
        ),
        (lambda: average_precision([of()], [CAT], ("cat", "cat")), "must have one name and one number each"),
        (lambda: coco_results([of()], [1, 2]), "1 records need as many image ids, got 2"),
        (lambda: ground_truth([CAT], ("cat",), category_ids=(1, 2)), "1 classes must have one name and one number each"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_named(call, says):
    with pytest.raises(DataError, match=says):
        call()


def test_an_unknown_overlap_is_refused():
    with pytest.raises(ConfigError, match="iou_type has no option 'box': did you mean 'bbox'"):
        average_precision([], [], ("cat",), "box")
