"""Matching predictions to objects (hits, misses and false alarms at one IoU), and choosing score thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.blocks.objects import Objects
from common.errors import DataError, in_range
from common.task.task import Record

NEAR_ONE = 1 - 1e-10  # as in COCO: an IoU threshold of 1 allows for rounding


@dataclass(frozen=True)
class Matches:
    """The matching of the predictions and objects of one image: indices, int64, in ascending order.

    Attributes:
        hits: (K,) indices of the predictions that match an object (true positives).
        found: (K,) indices of the matched objects, in the order of ``hits``.
        misses: Indices of the unmatched objects, without crowds (false negatives).
        false_alarms: Indices of the unmatched predictions (false positives).
        ignored: Indices of the predictions on a crowd: neither right nor wrong.
    """

    hits: np.ndarray
    found: np.ndarray
    misses: np.ndarray
    false_alarms: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class Threshold:
    """The score threshold with the best F1, the harmonic mean of precision and recall.

    Attributes:
        label: The class; None: all classes together.
        objects: The number of objects, without crowds.
        score: The threshold, half way to the next lower score; None without predictions or objects.
        precision: The share of correct predictions at or above it; 0 where there is none.
        recall: The share of the objects that they find; 0 where there is none.
        f1: Their harmonic mean.
        scores: (T,) every distinct score in descending order; the points of the curve, for a plot.
        precisions: (T,) the precision of the predictions with at least this score.
        recalls: (T,) their recall.
    """

    label: str | None
    objects: int
    score: float | None
    precision: float
    recall: float
    f1: float
    scores: np.ndarray
    precisions: np.ndarray
    recalls: np.ndarray

    @property
    def f1s(self) -> np.ndarray:
        """(T,) the harmonic mean of each point of the curve."""
        return _f1(self.precisions, self.recalls)


@dataclass(frozen=True)
class Thresholds:
    """The best score threshold overall, and of each class.

    Attributes:
        overall: One threshold for all classes, their predictions pooled.
        classes: One for each class.
    """

    overall: Threshold
    classes: tuple[Threshold, ...]


def match(record: Record, target: Any, *, iou: float = 0.5, threshold: float = 0.0) -> Matches:
    """Returns the matching of the predictions and objects of one image, by COCO's rule.

    In order of descending score, each prediction takes the free object of its class with the largest sufficient IoU.

    Args:
        record: ``objects`` with ``label``, ``bbox`` [x, y, width, height] in pixels and ``score``.
        target: The true objects, as `Objects.of` takes them.
        iou: The IoU threshold (for a crowd: the least share of the prediction inside it).
        threshold: Predictions below this score are left out.

    Examples:
        >>> record = {"objects": [{"label": "a", "bbox": [0, 0, 4, 4], "score": 0.9}]}
        >>> found = match(record, ([[0, 0, 4, 3], [6, 6, 8, 8]], ["a", "a"]))
        >>> found.hits.tolist(), found.found.tolist(), found.misses.tolist()
        ([0], [0], [1])
    """
    in_range("iou", iou, 0, 1, open_low=True)
    things = Objects.of(target)
    objects: list[Record] = record["objects"]
    scores = np.array([thing["score"] for thing in objects], dtype=np.float64)
    crowd = np.zeros(len(things.boxes), dtype=bool) if things.crowd is None else np.asarray(things.crowd, dtype=bool)
    overlaps = _overlaps(objects, things, crowd)
    taken = np.full(len(things.boxes), -1)
    ignored: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] < threshold:
            break
        row = overlaps[i] >= min(iou, NEAR_ONE)
        free = np.flatnonzero(row & ~crowd & (taken < 0))
        if len(free):
            best = overlaps[i, free]
            taken[free[np.flatnonzero(best == best.max())[-1]]] = i  # the last one on a tie, as in COCO
        elif (row & crowd).any():
            ignored.append(int(i))
    found = np.flatnonzero(taken >= 0)
    found = found[np.argsort(taken[found], kind="stable")]
    counted = np.setdiff1d(np.flatnonzero(scores >= threshold), ignored)
    return Matches(
        hits=taken[found],
        found=found,
        misses=np.flatnonzero((taken < 0) & ~crowd),
        false_alarms=np.setdiff1d(counted, taken[found]),
        ignored=np.array(sorted(ignored), dtype=np.int64),
    )


def _overlaps(objects: list[Record], things: Objects, crowd: np.ndarray) -> np.ndarray:
    """The IoU of each pair, float64 (predictions, objects); -1 where the classes differ."""
    boxes = np.array([thing["bbox"] for thing in objects], dtype=np.float64).reshape(-1, 4)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    truth = things.corners().reshape(-1, 4)
    low = np.maximum(corners[:, None, :2], truth[None, :, :2])
    high = np.minimum(corners[:, None, 2:], truth[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    own, theirs = boxes[:, 2] * boxes[:, 3], (truth[:, 2:] - truth[:, :2]).prod(axis=1)
    union = np.where(crowd[None], own[:, None], own[:, None] + theirs[None] - shared)
    overlaps = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    ids = {name: i for i, name in enumerate(dict.fromkeys([*things.labels, *(t["label"] for t in objects)]))}
    kinds = np.array([ids[thing["label"]] for thing in objects], dtype=np.int64)
    same = kinds[:, None] == np.array([ids[name] for name in things.labels], dtype=np.int64)[None]
    return np.where(same, overlaps, -1.0)


def choose_thresholds(
    records: Sequence[Record], targets: Sequence[Any], vocab: Sequence[str], iou: float = 0.5
) -> Thresholds:
    """Returns the score thresholds with the best F1, for all classes together and for each, with their curves.

    One matching serves every threshold, since a prediction's match depends only on those with higher scores. Choose
    thresholds on validation images, never on those on which results are reported.

    Args:
        records: The detections, one record per image; see `match`.
        targets: The true objects, one per image.
        vocab: The classes.
        iou: The IoU threshold of a hit.

    Raises:
        DataError: if records and targets differ in number.
    """
    if len(records) != len(targets):
        raise DataError(f"there must be one record an image: {len(records)} records, {len(targets)} targets")
    ids = {name: i for i, name in enumerate(vocab)}
    scores: list[float] = []
    right: list[bool] = []
    kinds: list[int] = []
    objects = np.zeros(len(vocab), dtype=np.int64)
    for record, target in zip(records, targets, strict=True):
        things, found = Objects.of(target), match(record, target, iou=iou)
        for rows, good in ((found.hits, True), (found.false_alarms, False)):
            for row in rows.tolist():
                thing = record["objects"][row]
                if thing["label"] in ids:
                    scores.append(float(thing["score"]))
                    right.append(good)
                    kinds.append(ids[thing["label"]])
        for row, label in enumerate(things.labels):
            if label in ids and not (things.crowd is not None and things.crowd[row]):
                objects[ids[label]] += 1
    values, good, kind = np.array(scores), np.array(right, dtype=bool), np.array(kinds, dtype=np.int64)
    rows = [_best(name, int(objects[i]), values[kind == i], good[kind == i]) for name, i in ids.items()]
    return Thresholds(_best(None, int(objects.sum()), values, good), tuple(rows))


def _best(label: str | None, objects: int, scores: np.ndarray, right: np.ndarray) -> Threshold:
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # a threshold cannot separate equal scores
    points, hits = scores[last], hits[last].astype(np.float64)
    precisions, recalls = hits / (last + 1), hits / max(objects, 1)
    f1s = _f1(precisions, recalls)
    if not len(f1s) or not f1s.any():
        return Threshold(label, objects, None, 0.0, 0.0, 0.0, points, precisions, recalls)
    at = int(f1s.argmax())
    score = float(points[at])
    if at + 1 < len(points) and (between := (score + float(points[at + 1])) / 2) > points[at + 1]:
        score = between
    best = float(precisions[at]), float(recalls[at]), float(f1s[at])
    return Threshold(label, objects, score, *best, points, precisions, recalls)


def _f1(precisions: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    both = precisions + recalls
    return np.divide(2 * precisions * recalls, both, out=np.zeros_like(both), where=both > 0)
