"""Segmentation losses: cross-entropy, focal and Dice, for hard masks and for the soft targets of mixup."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NO_CLASS = -100
"""The ignore index of torch's losses, for ignored pixels."""


class Pixelwise(NamedTuple):
    """The loss and the weight of each pixel.

    Attributes:
        value: Weighted losses, float32 (B, H, W); 0 at ignored pixels.
        weight: float32 (B, H, W); 0 at ignored pixels.
    """

    value: Tensor
    weight: Tensor

    def mean(self) -> Tensor:
        """Returns the weighted mean over the batch's pixels that are not ignored, a scalar; 0 if all are."""
        return self.value.sum() / self.weight.sum().clamp(min=1e-8)

    def by_sample(self) -> Tensor:
        """Returns the weighted mean over each sample's pixels that are not ignored, (B,); 0 if all are."""
        return self.value.sum(dim=(1, 2)) / self.weight.sum(dim=(1, 2)).clamp(min=1e-8)


def pixel_loss(
    logits: Tensor, target: Tensor, *, void: int | None = None, class_weights: Tensor | None = None, gamma: float = 0.0
) -> Pixelwise:
    """Returns each pixel's cross-entropy; with ``gamma`` above 0 its focal loss (Lin et al. 2017, arXiv:1708.02002).

    Args:
        logits: float (B, classes, H, W).
        target: Class ids, integer (B, H, W); or soft targets, float (B, classes, H, W), which sum to 1 or, where a part
            of a mixed pixel is ignored, to less.
        void: The ignored id, or None.
        class_weights: float (classes,), or None for equal ones.
        gamma: The focusing parameter: larger values reduce the loss of well classified pixels more.
    """
    logits = logits.float()
    if target.is_floating_point():
        log_p = logits.log_softmax(dim=1)
        share = target if class_weights is None else target * class_weights[:, None, None]
        factor = 1.0 if gamma == 0 else (1 - log_p.exp()).pow(gamma)
        return Pixelwise(-(share * factor * log_p).sum(dim=1), share.sum(dim=1))
    ids = target.long() if void is None else target.long().masked_fill(target == void, NO_CLASS)
    plain = F.cross_entropy(logits, ids, reduction="none", ignore_index=NO_CLASS)
    counted = (ids != NO_CLASS).to(plain.dtype)
    weight = counted if class_weights is None else class_weights[ids.clamp(min=0)] * counted
    value = plain * weight
    return Pixelwise(value if gamma == 0 else value * (1 - torch.exp(-plain)).pow(gamma), weight)


def dice_loss(logits: Tensor, target: Tensor, *, void: int | None = None) -> Tensor:
    """Returns one minus the mean soft Dice coefficient of the classes in each sample, (B,); 0 if it has none.

    Args:
        logits: float (B, classes, H, W).
        target: Class ids or soft targets; see `pixel_loss`.
        void: The ignored id, or None.
    """
    p = logits.float().softmax(dim=1)
    if target.is_floating_point():
        truth, counted = target, target.sum(dim=1, keepdim=True)
    else:
        ids = target.long()
        seen = torch.ones_like(ids, dtype=torch.bool) if void is None else ids != void
        counted = seen[:, None].to(p.dtype)
        truth = F.one_hot(ids.masked_fill(~seen, 0), p.shape[1]).movedim(3, 1) * counted
    both = (p * truth).sum(dim=(2, 3))
    sides = (p * counted).sum(dim=(2, 3)) + truth.sum(dim=(2, 3))
    there = (truth.sum(dim=(2, 3)) > 0).to(p.dtype)
    lost = (1 - 2 * both / sides.clamp(min=1e-8)) * there
    return lost.sum(dim=1) / there.sum(dim=1).clamp(min=1)
