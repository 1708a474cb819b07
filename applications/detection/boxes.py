"""Boxes as tensors: overlap, distances from points, and the suppression of what was found twice."""

import torch
from torch import Tensor

MOST_BEFORE = 1000
"""Boxes of an image, the surest ones, that go into the suppression."""


def areas(boxes: Tensor) -> Tensor:
    """Returns the areas (…) of boxes (…, 4) as (x0, y0, x1, y1); 0 for one without extent."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def overlaps(first: Tensor, second: Tensor, *, generalized: bool = False) -> Tensor:
    """Returns the intersection over union of boxes (…, 4) and (…, 4), which may be broadcast.

    Args:
        first: As (x0, y0, x1, y1).
        second: Likewise.
        generalized: Less what is empty of the box around both (Rezatofighi et al. 2019, arXiv:1902.09630), in (-1, 1].

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
    """Returns the boxes (…, 4) whose left, top, right and bottom sides lie at ``distances`` from points (…, 2)."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def suppressed(
    boxes: Tensor, scores: Tensor, *, least_score: float, most_overlap: float, most: int
) -> list[dict[str, Tensor]]:
    """Returns what is left of each image's boxes when of overlapping ones of a class only the surest stay.

    One call for the whole batch: boxes of different images and classes are kept apart by their group.

    Args:
        boxes: float (B, A, 4) in pixels.
        scores: float (B, A, classes), probabilities.
        least_score: Below it nothing counts as found.
        most_overlap: The intersection over union from which two boxes of a class are one thing.
        most: The most boxes of an image.

    Returns:
        For each image ``boxes`` (N, 4), ``scores`` (N,), surest first, and ``labels`` int64 (N,).
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
        own = torch.nonzero(image == i)[:, 0][:most]  # batched_nms gives the surest first
        result.append({"boxes": corners[own], "scores": value[own], "labels": label[own]})
    return result
