"""Boxes as tensors: IoU, boxes from distances to points, and non-maximum suppression."""

import torch
from torch import Tensor

MOST_BEFORE = 1000
"""The most boxes of an image, the highest scores first, that enter the suppression."""


def areas(boxes: Tensor) -> Tensor:
    """Returns the areas (…) of boxes (…, 4) as (x0, y0, x1, y1); 0 for an empty box."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def overlaps(first: Tensor, second: Tensor, *, generalized: bool = False) -> Tensor:
    """Returns the intersection over union of boxes (…, 4) and (…, 4), which may be broadcast.

    Args:
        first: Boxes as (x0, y0, x1, y1).
        second: Likewise.
        generalized: Whether to return the generalized IoU (Rezatofighi et al. 2019, arXiv:1902.09630), in (-1, 1]:
            minus the share of the enclosing box that neither covers.

    Examples:
        >>> overlaps(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 0, 3, 2]))
        tensor(0.3333)
    """
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    union = areas(first) + areas(second) - shared
    iou = shared / union.clamp(min=1e-9)
    if not generalized:
        return iou
    outer = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    around = outer.clamp(min=0).prod(dim=-1)
    return iou - (around - union) / around.clamp(min=1e-9)


def around_points(points: Tensor, distances: Tensor) -> Tensor:
    """Returns boxes (…, 4) from ``distances`` of points (…, 2) to their left, top, right and bottom sides."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def suppressed(
    boxes: Tensor, scores: Tensor, *, least_score: float, most_overlap: float, most: int
) -> list[dict[str, Tensor]]:
    """Returns each image's boxes after class-wise non-maximum suppression.

    One call serves the whole batch: boxes of different images and classes are separated by a group index.

    Args:
        boxes: float (B, A, 4) in pixels.
        scores: float (B, A, classes), probabilities.
        least_score: Boxes below this score are dropped.
        most_overlap: The IoU threshold of the suppression.
        most: The most boxes of an image.

    Returns:
        For each image ``boxes`` (N, 4), ``scores`` (N,), in descending order, and ``labels`` int64 (N,).
    """
    from torchvision.ops import batched_nms

    count, _, classes = scores.shape
    flat = scores.reshape(count, -1)
    values, best = flat.topk(min(MOST_BEFORE, flat.shape[1]), dim=1)
    image, rank = torch.nonzero(values > least_score, as_tuple=True)
    found, value = best[image, rank], values[image, rank]
    place, label = found // classes, found % classes
    corners = boxes[image, place].float()
    kept = batched_nms(corners, value.float(), image * classes + label, most_overlap)
    image, corners, value, label = image[kept], corners[kept], value[kept], label[kept]
    result: list[dict[str, Tensor]] = []
    for i in range(count):
        own = torch.nonzero(image == i)[:, 0][:most]  # batched_nms sorts by descending score
        result.append({"boxes": corners[own], "scores": value[own], "labels": label[own]})
    return result
