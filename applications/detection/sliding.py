"""Detection in images larger than the model's input: by overlapping windows, with merged results."""

from typing import Any

import torch
from torch import Tensor

from applications.detection.boxes import areas
from applications.detection.task import DetectionTask
from common.deploy.predictor import Predictor
from common.errors import ConfigError
from common.task.task import Record
from common.vision.windows import windows_of

SAME = 0.6  # a box cut off by a window is a duplicate if more than this share of the smaller one overlaps another
SAME_WHOLE = 0.6  # two whole boxes are duplicates above this IoU
EDGE_PX = 1.0


def predict_sliding(
    predictor: Predictor, image: Any, window_px: int | tuple[int, int] | None = None, overlap: float = 0.25
) -> Record:
    """Returns the record of an image, predicted through overlapping windows at its own resolution.

    An object at the edge of a window is cut off there; that box is dropped if another window shows more of the object.
    Objects larger than the overlap can remain in pieces: use larger windows for them.

    Args:
        predictor: A predictor of a detection bundle.
        image: A path, bytes, a PIL image or an array.
        window_px: The windows' size in pixels, one number for a square or (height, width); the model's input when None.
        overlap: The least share of a window that overlaps with the next one, in [0, 1).

    Raises:
        ConfigError: if the predictor does not predict boxes, or a number is out of its range.
    """
    task = predictor.task
    if not isinstance(task, DetectionTask) or task.masks:
        raise ConfigError(f"predict_sliding needs a predictor of boxes without masks, got a {type(task).__name__}")
    cut = windows_of(predictor, image, window_px, overlap)
    found: list[dict[str, Tensor]] = predictor.outputs(cut.pieces).output
    return task.decode([together(found, cut.corners, [piece.shape[:2] for piece in cut.pieces], cut.size)])[0]


def together(
    found: list[dict[str, Tensor]], corners: list[tuple[int, int]], shapes: list[Any], size: tuple[int, int]
) -> dict[str, Tensor]:
    """Returns the merged detections of all windows, without duplicates, by descending score.

    Args:
        found: For each window ``boxes`` (N, 4), ``scores`` (N,) and ``labels`` (N,); see `DetectionTask.condense`.
        corners: (y, x) of each window in the image, in pixels.
        shapes: (height, width) of each window in pixels.
        size: (height, width) of the image in pixels.
    """
    boxes, cut, window = list[Tensor](), list[Tensor](), list[Tensor]()
    for i, (one, (y, x), (height, width)) in enumerate(zip(found, corners, shapes, strict=True)):
        own = one["boxes"].to(torch.float64) + torch.tensor([x, y, x, y], dtype=torch.float64)
        edges = torch.tensor([x, y, x + width, y + height], dtype=torch.float64)
        inner = torch.tensor([x > 0, y > 0, x + width < size[1], y + height < size[0]])
        boxes.append(own)
        cut.append((((own - edges).abs() < EDGE_PX) & inner).any(dim=1))
        window.append(torch.full((len(own),), i))
    corners_of, cut_off, of = torch.cat(boxes), torch.cat(cut), torch.cat(window)
    scores, labels = (torch.cat([one[name] for one in found]) for name in ("scores", "labels"))
    kept = _kept(corners_of, scores, labels, cut_off, of)
    kept = kept[scores[kept].argsort(descending=True, stable=True)]
    return {
        "boxes": corners_of[kept].float(),
        "scores": scores[kept],
        "labels": labels[kept],
        "size": torch.tensor(size),
    }


def _kept(boxes: Tensor, scores: Tensor, labels: Tensor, cut: Tensor, window: Tensor) -> Tensor:
    """Indices of the boxes to keep: greedy, whole boxes before those cut off, then by score, without duplicates."""
    # Scores are at most 1: minus 2 puts every box that was cut off behind all whole ones.
    order = (scores.double() - 2 * cut.double()).argsort(descending=True, stable=True)
    space = areas(boxes)
    gone = torch.zeros(len(boxes), dtype=torch.bool)
    kept: list[int] = []
    for place in order.tolist():
        if gone[place]:
            continue
        kept.append(place)
        low, high = torch.maximum(boxes[:, :2], boxes[place, :2]), torch.minimum(boxes[:, 2:], boxes[place, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        union = shared / (space + space[place] - shared).clamp(min=1e-9)
        part = shared / torch.minimum(space, space[place]).clamp(min=1e-9)
        same = (union > SAME_WHOLE) | ((cut | cut[place]) & (part > SAME))
        gone |= same & (labels == labels[place]) & (window != window[place])
    return torch.tensor(kept, dtype=torch.int64)
