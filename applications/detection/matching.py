"""Which prediction is which object: hits, misses and false alarms at one overlap, and the score to act from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.blocks.objects import Objects
from common.errors import DataError, in_range
from common.task.task import Record

NEAR_ONE = 1 - 1e-10  # COCO's: an overlap of 1 is asked for with room for rounding


@dataclass(frozen=True)
class Matches:
    """What became of the predictions and objects of one image: positions, int64, in ascending order.

    Attributes:
        hits: (K,) positions of the predictions that found an object.
        found: (K,) positions of the objects that they found, in the order of ``hits``.
        misses: Positions of the objects that nothing found, crowds left out.
        false_alarms: Positions of the predictions that found nothing.
        ignored: Positions of the predictions that lie on a crowd: neither right nor wrong.
    """

    hits: np.ndarray
    found: np.ndarray
    misses: np.ndarray
    false_alarms: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class Threshold:
    """The score from which predictions are best acted on, by F1: the harmonic mean of precision and recall.

    Attributes:
        label: The class; None: all of them together.
        objects: How many there are, crowds left out.
        score: The threshold, half way to the next lower score; None where nothing is found, or nothing is there.
        precision: The share of the predictions from there on that are right; 0 where there is none.
        recall: The share of the objects that they find; 0 where there is none.
        f1: Their harmonic mean.
        scores: (T,) every distinct score, the highest first; the curve's points, for a plot.
        precisions: (T,) the precision of what has at least this score.
        recalls: (T,) the recall of it.
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
    """The best score overall, and of each class by itself.

    Attributes:
        overall: One threshold for all classes, their predictions pooled.
        classes: One for each class.
    """

    overall: Threshold
    classes: tuple[Threshold, ...]


def match(record: Record, target: Any, *, iou: float = 0.5, threshold: float = 0.0) -> Matches:
    """Returns what became of the predictions and objects of one image, as COCO matches them.

    The surest prediction comes first and takes the object of its class that it overlaps most, if enough and not taken.

    Args:
        record: ``objects`` with ``label``, ``bbox`` [x, y, width, height] in pixels and ``score``.
        target: What `Objects.of` takes.
        iou: The least overlap (intersection over union; with a crowd: the share of the prediction inside it).
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
            taken[free[np.flatnonzero(best == best.max())[-1]]] = i  # of equal ones the last, as COCO does
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
    """float64 (predictions, objects): the overlap of each pair, -1 where the classes differ."""
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
    """Returns the score with the best F1, over all classes together and of each, with the curves that led to it.

    One matching serves every threshold: what a prediction takes depends on surer ones only. Choose on validation
    images, never on those that the result is reported on.

    Args:
        records: What was found, one an image; see `match`.
        targets: What is there, one an image.
        vocab: The classes.
        iou: The least overlap of a hit.

    Raises:
        DataError: if there are not as many records as targets.
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
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # equal scores are acted on together
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
