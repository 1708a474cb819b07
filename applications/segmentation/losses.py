"""Losses of class maps: cross-entropy, focal and Dice, of hard masks and of the shares that mixing makes."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NO_CLASS = -100
"""The id under which pixels that do not count reach torch's own losses."""


class Pixelwise(NamedTuple):
    """A loss a pixel and how much each counts.

    Attributes:
        value: Weighted losses, float32 (B, H, W); 0 where a pixel does not count.
        weight: float32 (B, H, W); 0 where it does not count.
    """

    value: Tensor
    weight: Tensor

    def mean(self) -> Tensor:
        """Returns the weighted mean over the pixels of the whole batch that count, a scalar; 0 where none does."""
        return self.value.sum() / self.weight.sum().clamp(min=1e-8)

    def by_sample(self) -> Tensor:
        """Returns the weighted mean over each sample's pixels that count, (B,); 0 where none does."""
        return self.value.sum(dim=(1, 2)) / self.weight.sum(dim=(1, 2)).clamp(min=1e-8)


def pixel_loss(
    logits: Tensor, target: Tensor, *, void: int | None = None, class_weights: Tensor | None = None, gamma: float = 0.0
) -> Pixelwise:
    """Returns cross-entropy a pixel; with ``gamma`` above 0 the focal loss (Lin et al. 2017, arXiv:1708.02002).

    Args:
        logits: float (B, classes, H, W).
        target: Class ids, integer (B, H, W); or shares, float (B, classes, H, W), which sum to 1 or, where a part of a
            pixel does not count, to less.
        void: The id that does not count, or None.
        class_weights: float (classes,), or None for equal ones.
        gamma: How much less a pixel counts the surer its class already is.
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
    """Returns one minus the mean soft Dice coefficient of the classes that a sample shows, (B,); 0 where none counts.

    Args:
        logits: float (B, classes, H, W).
        target: Class ids or shares; see `pixel_loss`.
        void: The id that does not count, or None.
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
