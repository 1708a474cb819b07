"""Mixup and CutMix: each sample blended with its mate, or with a piece of it, and its targets too.

The mate of a sample is the augmented sample before it in the epoch's order (the loader delivers it with the batch); so
a mixed sample, too, is a function of the seed, the epoch and the sample's id.

Floor: augment; may import sources and below. Used by: its own room.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from common.augment.operations import Operation, Support, support
from common.augment.pixels import inside
from common.augment.textures import rectangle
from common.blocks.batch import Batch
from common.blocks.block import Block, CategoryBlock, Target
from common.blocks.spatial import MaskBlock
from common.blocks.values import Padded

TRIES = 16
MIXES = support(
    image="transforms",
    mask="transforms",
    boxes="transforms",
    category="transforms",
    number="transforms",
    points="unsupported",
    signal="unsupported",
    spectrogram="unsupported",
    text="unsupported",
    columns="unsupported",
)


@dataclass(frozen=True)
class Mix(Operation):
    """An operation that mixes a sample with another one."""

    alpha: float = 0.4
    support: ClassVar[dict[str, Support]] = MIXES
    draws: ClassVar[int] = 2 * TRIES + 2


@dataclass(frozen=True)
class Blend(Mix):
    """Blends each sample with its mate (Zhang et al. 2018, arXiv:1710.09412)."""

    name: ClassVar[str] = "mixup"
    label: ClassVar[str] = "mixup"


@dataclass(frozen=True)
class Paste(Mix):
    """Covers a rectangle of each sample with the same piece of its mate (Yun et al. 2019, arXiv:1905.04899)."""

    alpha: float = 1.0
    p: float = 0.5
    name: ClassVar[str] = "cutmix"
    label: ClassVar[str] = "CutMix"


@dataclass(frozen=True)
class Mixing:
    """How each sample of a batch is mixed.

    Attributes:
        mates: int64 (B,): the index of each sample's mate in the batch.
        share: float32 (B,): the sample's own share where the whole image is blended; 1 where it is not.
        box: int32 (B, 4): (top, left, bottom, right) of the mate's piece in pixels, empty where there is none; or None.
        weight: float32 (B,): the sample's own share in total, which weights the targets.
    """

    mates: Tensor
    share: Tensor
    box: Tensor | None
    weight: Tensor


def beta(numbers: Tensor, alpha: float, tries: int = TRIES) -> Tensor:
    """Returns Beta(alpha, alpha) numbers, float64 (B,), from uniform ones (B, 2 * tries).

    For alpha above 1/2 by Ulrich's polar method; else by Jöhnk's rejection method with the first accepted of ``tries``
    pairs, or one half where none is accepted (less than one in a million). A fixed number of uniform numbers is needed,
    since they are a function of the sample's id.
    """
    if alpha > 0.5:  # Ulrich's polar method (Devroye 1986, IX.4.3): exact, without rejection
        radius = torch.sqrt(1 - numbers[:, 0] ** (2 / (2 * alpha - 1)))
        return 0.5 + 0.5 * radius * torch.cos(2 * torch.pi * numbers[:, tries])
    u = numbers[:, :tries] ** (1 / alpha)
    v = numbers[:, tries : 2 * tries] ** (1 / alpha)
    total = u + v
    accepted = (total <= 1) & (total > 0)
    first = torch.argmax(accepted.to(torch.int64), dim=1, keepdim=True)
    share = (u / total.clamp(min=1e-300)).gather(1, first)[:, 0]
    return torch.where(accepted.any(dim=1), share, torch.full_like(share, 0.5))


Numbers = Callable[[Operation, Tensor], tuple[Tensor, Tensor]]
"""Returns an operation's uniform numbers (B, k) for samples (B,), and which of them it changes."""


def draw(batch: Batch, mixes: list[Mix], numbers_of: Numbers, size: tuple[int, int] | None) -> Mixing:
    """Draws how each sample is mixed; where several operations are drawn, the first one applies.

    Args:
        batch: A batch with ``ids``, and ``mates`` unless each sample's mate is the one before it in the batch.
        mixes: The operations.
        numbers_of: Gives each operation's random numbers.
        size: (height, width) of the images in pixels, or None where there is none.
    """
    all_ids = cast(Tensor, batch.ids)
    mates = batch.mates
    if mates is None:
        mates = torch.arange(len(all_ids), device=all_ids.device).roll(1)[:, None]
    ids = all_ids[: len(mates)]
    share = torch.ones(len(ids), dtype=torch.float64, device=ids.device)
    free = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    box, covered = None, torch.zeros_like(share)
    for mix in mixes:
        numbers, chosen = numbers_of(mix, ids)
        chosen, free = chosen & free, free & ~chosen
        own = beta(numbers, mix.alpha)
        if isinstance(mix, Blend):
            share = torch.where(chosen, torch.maximum(own, 1 - own), share)  # the sample's own share is the larger
        elif size is not None:
            side = torch.sqrt(1 - own)
            box = rectangle(side * size[0], side * size[1], numbers[:, 2 * TRIES :], size)
            box = box * chosen[:, None].to(torch.int32)
            covered = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])).to(torch.float64) / (size[0] * size[1])
    share = share.to(torch.float32)
    return Mixing(mates[:, 0], share, box, share * (1 - covered).to(torch.float32))


def mixed(
    batch: Batch, mixing: Mixing, blocks: tuple[Block, ...], *, blends: bool = True, min_visibility: float = 0.0
) -> Batch:
    """Returns the batch with each sample mixed with its mate, without samples that are only mates.

    Categories become float (B, classes); masks, where images are blended, float (B, classes, H, W).

    Args:
        batch: A batch with one float input, images (B, C, H, W) or numbers (B, …).
        mixing: How each sample is mixed.
        blocks: The blocks of the targets.
        blends: Whether whole images are blended (of any sample).
        min_visibility: The least share of a box that must remain, else the box and its label are dropped.
    """
    targets = batch.y if isinstance(batch.y, tuple) else (batch.y,)
    made = tuple(
        _target(block, value, mixing, blends, min_visibility) for block, value in zip(blocks, targets, strict=True)
    )
    count = len(mixing.mates)
    sizes, ids = (None if t is None else t[:count] for t in (batch.sizes, batch.ids))
    y = made if isinstance(batch.y, tuple) else made[0]
    return replace(batch, x=_input(batch.x, mixing), y=y, ids=ids, sizes=sizes, mates=None)


def _input(x: Tensor, mixing: Mixing) -> Tensor:
    """Returns the mixed inputs; images on a CPU are mixed in place, so that no new memory is touched.

    They are processed from the last to the first: a mate usually comes before its sample, or after all samples, and so
    is read before it is overwritten. Mates later in the batch are copied first.
    """
    count, box = len(mixing.mates), mixing.box
    if x.device.type != "cpu" or x.dim() != 4:
        return _pasted(_blended(x, mixing), x, mixing)
    boxes, mates = None if box is None else box.tolist(), mixing.mates.tolist()
    aside = {mate: x[mate].clone() for i, mate in enumerate(mates) if i < mate < count}
    for i, share in reversed(list(enumerate(mixing.share.tolist()))):
        other = aside[mates[i]] if i < mates[i] < count else x[mates[i]]
        if share < 1:
            torch.lerp(other, x[i], share, out=x[i])
        if boxes is not None:
            top, left, bottom, right = boxes[i]
            x[i, :, top:bottom, left:right] = other[:, top:bottom, left:right]
    return x[:count]


def _blended(value: Tensor, mixing: Mixing) -> Tensor:
    share = mixing.share.reshape(-1, *[1] * (value.dim() - 1))
    return value[: len(share)] * share + value[mixing.mates] * (1 - share)


def _pasted(value: Tensor, source: Tensor, mixing: Mixing) -> Tensor:
    """Pastes the mate's piece into values whose last two axes are rows and columns."""
    if mixing.box is None:
        return value
    there = inside(mixing.box, (value.shape[-2], value.shape[-1]))
    return torch.where(there if value.dim() == 3 else there[:, None], source[mixing.mates], value)


def _target(block: Block, value: Any, mixing: Mixing, blends: bool, min_visibility: float) -> Any:
    if isinstance(block, MaskBlock):
        if not blends:
            return _pasted(value[: len(mixing.mates)], value, mixing)
        classes = torch.arange(len(block.codes), device=value.device)[:, None, None]
        soft = (value[:, None] == classes).to(torch.float32)
        return _pasted(_blended(soft, mixing), soft, mixing)
    if block.target == Target.BOXES:
        return _boxes(value, mixing, min_visibility)
    if isinstance(block, CategoryBlock) and not value.is_floating_point():
        value = F.one_hot(value, len(block.vocab)).to(torch.float32)
    return _blended(value, replace(mixing, share=mixing.weight))


def _boxes(value: Padded, mixing: Mixing, min_visibility: float) -> Padded:
    """The boxes of both samples: the mate's that are visible in its piece, and the sample's own not hidden by it."""
    count = len(mixing.mates)
    own, other = ({n: t[rows] for n, t in value.values.items()} for rows in (slice(count), mixing.mates))
    valid, other_valid = value.valid[:count], value.valid[mixing.mates]
    theirs = (mixing.share < 1)[:, None]
    if mixing.box is not None:
        top, left, bottom, right = mixing.box.to(torch.float32).unbind(1)
        piece = torch.stack([left, top, right, bottom], dim=1)
        hidden, _ = _overlap(own["boxes"], piece)
        seen, cut = _overlap(other["boxes"], piece)
        pasted = ((bottom > top) & (right > left))[:, None]
        valid = valid & ~(pasted & (1 - hidden < max(min_visibility, 1e-6)))
        other["boxes"] = torch.where(pasted[..., None], cut, other["boxes"])
        theirs = theirs | (pasted & (seen >= max(min_visibility, 1e-6)))
    both = {name: torch.cat([own[name], other[name]], dim=1) for name in own}
    return Padded(both, torch.cat([valid, other_valid & theirs], dim=1))


def _overlap(boxes: Tensor, piece: Tensor) -> tuple[Tensor, Tensor]:
    """The share of boxes (B, N, 4) that lies within one piece (B, 4) per sample, and the intersections."""
    low = torch.maximum(boxes[..., :2], piece[:, None, :2])
    high = torch.maximum(torch.minimum(boxes[..., 2:], piece[:, None, 2:]), low)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1).clamp(min=1e-12)
    return (high - low).prod(dim=-1) / area, torch.cat([low, high], dim=-1)
