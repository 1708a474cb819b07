"""The assignment of objects to positions of the network's maps, and the loss that follows from it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from applications.detection.boxes import overlaps

TOP = 10  # positions that are assigned to one object
SCORE_POWER = 0.5
OVERLAP_POWER = 6.0
BOX_WEIGHT = 2.5
SLACK = 1.01


@dataclass(frozen=True)
class Assigned:
    """The training target of each position.

    Attributes:
        scores: float (B, A, classes): the target score of each class, 0 at unassigned positions.
        boxes: float (B, A, 4): the target box, arbitrary at unassigned positions.
        weight: float (B, A): the weight of the box loss, equal to the target score.
    """

    scores: Tensor
    boxes: Tensor
    weight: Tensor


@torch.no_grad()
def assign(
    scores: Tensor, found: Tensor, points: Tensor, strides: Tensor, boxes: Tensor, labels: Tensor, valid: Tensor
) -> Assigned:
    """Returns the target of each position: task-aligned assignment (Feng et al. 2021, TOOD, arXiv:2108.07755).

    Each object gets the ten positions within its box whose predicted score and box together fit it best; a position
    chosen by several objects goes to the one that its predicted box overlaps most. The target score is the fit,
    normalised to the object's largest IoU.

    Args:
        scores: float (B, A, classes): the predicted probabilities.
        found: float (B, A, 4): the predicted boxes.
        points: float (A, 2): the positions in pixels.
        strides: float (A,): the stride of each.
        boxes: float (B, N, 4): the true boxes.
        labels: int64 (B, N).
        valid: bool (B, N): False where padded.
    """
    things = labels.shape[1]
    if not things:
        nothing = scores.new_zeros(scores.shape[:2])
        return Assigned(torch.zeros_like(scores), torch.zeros_like(found), nothing)
    least = strides.min() * SLACK  # an object smaller than the finest stride would otherwise contain no position
    middle, half = (boxes[..., :2] + boxes[..., 2:]) / 2, ((boxes[..., 2:] - boxes[..., :2]) / 2).clamp(min=least / 2)
    inside = ((points[None, None] - middle[:, :, None]).abs() < half[:, :, None]).all(dim=-1)
    inside = inside & valid[..., None]
    iou = overlaps(boxes[:, :, None], found[:, None]) * inside
    given = scores.transpose(1, 2).gather(1, labels[..., None].expand(-1, -1, scores.shape[1]))
    fit = given.pow(SCORE_POWER) * iou.pow(OVERLAP_POWER) * inside
    # Early in training nothing overlaps: then the positions nearest to the centre rank first.
    near = 1 / (1 + (points[None, None] - middle[:, :, None]).square().sum(dim=-1) / strides.square())
    rank = torch.where(inside, fit + 1e-9 * near, torch.full_like(fit, -1.0))
    best = rank.topk(min(TOP, rank.shape[2]), dim=2)
    taken = torch.zeros_like(inside).scatter(2, best.indices, best.values > 0)
    several = taken.sum(dim=1, keepdim=True) > 1
    owner = torch.where(taken, iou + 1e-6, torch.full_like(iou, -1.0)).argmax(dim=1, keepdim=True)
    taken = taken & (~several | (torch.arange(things, device=labels.device)[None, :, None] == owner))
    which, answers = taken.to(torch.int64).argmax(dim=1), taken.any(dim=1)
    highest = (fit * taken).amax(dim=2, keepdim=True).clamp(min=1e-9)
    reached = (iou * taken).amax(dim=2, keepdim=True)
    weight = (fit * taken / highest * reached).amax(dim=1) * answers
    own = labels.gather(1, which)
    target = F.one_hot(own, scores.shape[2]).to(scores.dtype) * weight[..., None]
    return Assigned(target, boxes.gather(1, which[..., None].expand(-1, -1, 4)), weight)


def detection_losses(logits: Tensor, found: Tensor, goal: Assigned, *, whole: bool) -> Tensor:
    """Returns the loss of each image, (B,): binary cross-entropy of the scores and the GIoU loss of the boxes.

    Args:
        logits: float (B, A, classes).
        found: float (B, A, 4): the predicted boxes.
        goal: The target of each position.
        whole: Whether to normalise by the batch's mean sum of target scores (in training), or by each image's own.
    """
    scores = F.binary_cross_entropy_with_logits(logits, goal.scores, reduction="none").sum(dim=(1, 2))
    boxes = ((1 - overlaps(found, goal.boxes, generalized=True)) * goal.weight).sum(dim=1)
    total = goal.weight.sum(dim=1)
    scale = total.mean() if whole else total
    return (scores + BOX_WEIGHT * boxes) / scale.clamp(min=1.0)
