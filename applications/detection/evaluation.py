"""COCO's average precision of detections (Lin et al. 2014, arXiv:1405.0312)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from common.blocks.objects import Objects
from common.blocks.shapes import encode_rle, polygons
from common.errors import DataError, nearest, one_of
from common.task.task import Record

Overlap = Literal["bbox", "segm"]
AREAS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}
"""COCO's ranges of an object's area, in square pixels."""
MOST = 100  # per image and class, only this many predictions with the highest scores are evaluated
AT_50, AT_75 = 0, 5  # indices of the IoU thresholds 0.50 and 0.75 among 0.50, 0.55, … 0.95


@dataclass(frozen=True)
class ClassPrecision:
    """The average precision of one class; None where it has no objects.

    Attributes:
        label: The class.
        objects: The number of objects, without crowds.
        ap: The mean over the IoU thresholds 0.50, 0.55, … 0.95.
        ap50: At the IoU threshold 0.50.
        ar_100: The maximal recall with 100 predictions per image, mean over the thresholds.
    """

    label: str
    objects: int
    ap: float | None
    ap50: float | None
    ar_100: float | None


@dataclass(frozen=True)
class APTable:
    """COCO's average precisions, each from 0 to 1; None where there are no such objects.

    Attributes:
        ap: The mean over the classes and the IoU thresholds 0.50, 0.55, … 0.95.
        ap50: At the IoU threshold 0.50, as in Pascal VOC.
        ap75: At the IoU threshold 0.75.
        ap_small: For objects below 32 x 32 square pixels.
        ap_medium: For objects between these sizes.
        ap_large: For objects above 96 x 96 square pixels.
        ar_100: The maximal recall with 100 predictions per image, mean over classes and thresholds.
        classes: One row per class.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar_100: float | None
    classes: tuple[ClassPrecision, ...]


def ground_truth(
    targets: Sequence[Any],
    vocab: Sequence[str],
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    category_ids: Sequence[int] = (),
) -> dict[str, Any]:
    """Returns targets as a COCO data set: images 1, 2, …, annotations with stated areas, else those of their boxes.

    Args:
        targets: One per image, as `Objects.of` takes them.
        vocab: The classes.
        sizes: (height, width) of each image in pixels, where the targets do not state it.
        category_ids: The number of each class; 1, 2, … when empty.

    Raises:
        DataError: for a class that is not in ``vocab``, naming image and class.
    """
    numbers = _numbers(vocab, category_ids)
    images: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image, target in enumerate(targets, 1):
        things = Objects.of(target)
        size = things.size or (None if sizes is None else sizes[image - 1])
        images.append({"id": image} | ({} if size is None else {"height": size[0], "width": size[1]}))
        for row, (x0, y0, x1, y1) in enumerate(things.corners().reshape(-1, 4).tolist()):
            annotation: dict[str, Any] = {
                "id": len(found) + 1,
                "image_id": image,
                "category_id": _number(numbers, things.labels[row], f"the target of image {image}"),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0) if things.areas is None else float(things.areas[row]),
                "iscrowd": int(things.crowd is not None and bool(things.crowd[row])),
            }
            if things.shapes is not None:
                annotation["segmentation"] = _segmentation(things.shapes[row])
            found.append(annotation)
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    return {"info": {}, "images": images, "annotations": found, "categories": categories}


def coco_results(
    records: Sequence[Record],
    image_ids: Sequence[Any] | None = None,
    category_ids: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Returns records in COCO's result format: one entry per detected object.

    Args:
        records: One per image, with ``objects``; boxes are [x, y, width, height] in the image's own pixels.
        image_ids: The id of each image; 1, 2, … when None.
        category_ids: The number of each class; each object's own ``category_id`` when None.

    Raises:
        DataError: if ids and records differ in number, or a class has no number.
    """
    ids = range(1, len(records) + 1) if image_ids is None else image_ids
    if len(ids) != len(records):
        raise DataError(f"{len(records)} records need as many image ids, got {len(ids)}")
    found: list[dict[str, Any]] = []
    for image, record in zip(ids, records, strict=True):
        for thing in record["objects"]:
            number = thing["category_id"]
            if category_ids is not None:
                number = _number(category_ids, thing["label"], f"the record of image {image}")
            entry = {"image_id": image, "category_id": number, "bbox": list(thing["bbox"]), "score": thing["score"]}
            found.append(entry | ({"segmentation": thing["segmentation"]} if "segmentation" in thing else {}))
    return found


def average_precision(
    records: Sequence[Record], targets: Sequence[Any], vocab: Sequence[str], iou_type: Overlap = "bbox"
) -> APTable:
    """Returns COCO's average precisions: crowds are ignored, classes without objects are left out.

    Give all detections, also those with low scores: a threshold would truncate the precision-recall curve. Ties in
    score are broken by the order of the images, as in COCO by their ids.

    Args:
        records: The detections, one record per image; see `coco_results`.
        targets: The true objects, one per image; see `Objects.of`.
        vocab: The classes; records are matched by ``label``.
        iou_type: IoU of boxes (``bbox``) or of masks (``segm``: records hold run lengths, targets shapes).

    Raises:
        DataError: if records and targets differ in number, one has another size than its image, or lacks a mask.
    """
    one_of("iou_type", iou_type, ("bbox", "segm"))
    truth = [Objects.of(target) for target in targets]
    _compare(records, truth, iou_type)
    numbers = _numbers(vocab, ())
    sizes = [(int(record["height"]), int(record["width"])) for record in records]
    results = coco_results(records, None, numbers)
    if iou_type == "segm":  # if there is a box, COCO uses its area instead of the mask's
        results = [{name: value for name, value in entry.items() if name != "bbox"} for entry in results]
    dataset = ground_truth(truth, vocab, sizes=sizes)
    there = np.array([a["category_id"] for a in dataset["annotations"] if not a["iscrowd"]], dtype=np.int64)
    counts = np.bincount(there, minlength=len(vocab) + 1)[1:].tolist()
    if not len(there):
        empty = tuple(ClassPrecision(name, 0, None, None, None) for name in vocab)
        return APTable(None, None, None, None, None, None, None, empty)
    precision, recall = _accumulated(dataset, results, iou_type)
    rows: list[ClassPrecision] = []
    for i, name in enumerate(vocab):
        ap, ap50 = _mean(precision[:, :, i, 0]), _mean(precision[AT_50, :, i, 0])
        rows.append(ClassPrecision(name, counts[i], ap, ap50, _mean(recall[:, i, 0])))
    every, *ranges = (_mean(precision[:, :, :, at]) for at in range(len(AREAS) + 1))
    ap50, ap75 = (_mean(precision[at, :, :, 0]) for at in (AT_50, AT_75))
    return APTable(every, ap50, ap75, ranges[0], ranges[1], ranges[2], _mean(recall[..., 0]), tuple(rows))


def _accumulated(
    dataset: dict[str, Any], results: list[dict[str, Any]], iou_type: Overlap
) -> tuple[np.ndarray, np.ndarray]:
    """Precision (IoUs, recalls, classes, areas) and recall (IoUs, classes, areas), -1 where there are no objects.

    All parameters are set explicitly: the library's defaults may change.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    def quiet(*_: object) -> None:
        return

    truth: Any = COCO(dataset, print_function=quiet)
    ranges: Any = {name: list(limits) for name, limits in AREAS.items()}
    judge: Any = COCOeval_faster(
        truth, truth.loadRes(results), iou_type, ranges=ranges, print_function=quiet, extra_calc=False,
        lvis_style=False, separate_eval=False,
    )  # fmt: skip
    judge.params.iouThrs = np.linspace(0.5, 0.95, 10)
    judge.params.recThrs = np.linspace(0.0, 1.0, 101)
    judge.params.maxDets = [1, 10, MOST]
    judge.params.useCats = 1
    judge.evaluate()
    judge.accumulate()
    return np.asarray(judge.eval["precision"])[..., -1], np.asarray(judge.eval["recall"])[..., -1]


def _mean(values: np.ndarray) -> float | None:
    """The mean of the values that are not -1, which marks a class or a range of areas without objects."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _compare(records: Sequence[Record], truth: Sequence[Objects], iou_type: str) -> None:
    if len(records) != len(truth):
        raise DataError(f"there must be one record an image: {len(records)} records, {len(truth)} targets")
    for image, (record, things) in enumerate(zip(records, truth, strict=True), 1):
        size = int(record["height"]), int(record["width"])
        if things.size is not None and size != tuple(things.size):
            raise DataError(f"record {image} is of {size[0]} x {size[1]} pixels, its target of {things.size}")
        if iou_type == "segm" and things.boxes and things.shapes is None:
            raise DataError(f"the target of image {image} has no shapes, which the overlap of masks needs")
        if iou_type == "segm" and any("segmentation" not in thing for thing in record["objects"]):
            raise DataError(f"record {image} has an object without segmentation, which the overlap of masks needs")


def _numbers(vocab: Sequence[str], category_ids: Sequence[int]) -> dict[str, int]:
    numbers = category_ids or range(1, len(vocab) + 1)
    if len(set(numbers)) != len(vocab) or len(set(vocab)) != len(vocab):
        raise DataError(f"{len(vocab)} classes must have one name and one number each, got {len(set(numbers))} numbers")
    return dict(zip(vocab, (int(number) for number in numbers), strict=True))


def _number(numbers: Mapping[str, int], label: Any, where: str) -> int:
    if label not in numbers:
        raise DataError(f"{where} has the class {label!r}, which is not among them: {nearest(str(label), numbers)}")
    return numbers[label]


def _segmentation(shape: Any) -> Any:
    """A shape in COCO's format: lists of numbers, or run lengths."""
    found = polygons(shape)
    if found is not None:
        return [corners.reshape(-1).tolist() for corners in found]
    return dict(shape) if isinstance(shape, Mapping) else encode_rle(np.asarray(shape))
