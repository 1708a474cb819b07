"""Mixup: each sample blended with another, its target too (Zhang et al. 2018, arXiv:1710.09412)."""

from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from common.augment.operations import Mix
from common.data.batch import Batch
from common.data.blocks import Block, CategoryBlock, Counter
from common.errors import ConfigError


def beta(numbers: Tensor, alpha: float, tries: int) -> Tensor:
    """Returns Beta(alpha, alpha) numbers, float64 (B,), from uniform ones (B, 2 * tries).

    Above one half by Ulrich's polar method; up to there by Jöhnk's, where the first accepted of ``tries`` pairs counts
    and, where none is (less than one in a million), one half.
    """
    if alpha > 0.5:  # Ulrich's polar method (Devroye 1986, IX.4.3): exact, nothing is rejected
        radius = torch.sqrt(1 - numbers[:, 0] ** (2 / (2 * alpha - 1)))
        return 0.5 + 0.5 * radius * torch.cos(2 * torch.pi * numbers[:, tries])
    u = numbers[:, :tries] ** (1 / alpha)
    v = numbers[:, tries:] ** (1 / alpha)
    total = u + v
    accepted = (total <= 1) & (total > 0)
    first = torch.argmax(accepted.to(torch.int64), dim=1, keepdim=True)
    share = (u / total.clamp(min=1e-300)).gather(1, first)[:, 0]
    return torch.where(accepted.any(dim=1), share, torch.full_like(share, 0.5))


def mix(batch: Batch, operation: Mix, blocks: tuple[Block, ...], counter: Counter) -> Batch:
    """Returns the batch with sample i blended with sample i - 1; category targets become float (B, classes).

    Raises:
        ConfigError: unless the batch has one float input and one category or number target.
    """
    if not isinstance(batch.x, Tensor) or not batch.x.is_floating_point() or batch.ids is None or len(blocks) != 1:
        raise ConfigError("mixup blends one float input with one category or number target")
    numbers, chosen = operation.draw(batch.ids, counter)
    share = beta(numbers, operation.alpha, operation.tries)
    share = torch.where(chosen, torch.maximum(share, 1 - share), torch.ones_like(share)).to(torch.float32)

    def blend(value: Tensor) -> Tensor:
        weight = share.reshape(-1, *[1] * (value.dim() - 1))
        return value * weight + value.roll(1, 0) * (1 - weight)

    block, target = blocks[0], cast(Tensor, batch.y)
    if isinstance(block, CategoryBlock) and not target.is_floating_point():
        target = F.one_hot(target, len(block.vocab)).to(torch.float32)
    return replace(batch, x=blend(batch.x), y=blend(target))
