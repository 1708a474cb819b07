"""Mosaic: parts of four samples around a corner, with their masks and boxes (Bochkovskiy et al. 2020).

The other three are the augmented samples before a sample in the epoch's order (the loader delivers them with the
batch). Pieces are copied pixel by pixel, so nothing is resampled twice; their scale comes from the zoom before.

Floor: augment; may import sources and below. Used by: its own room.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from common.augment.mixing import MIXES, Numbers
from common.augment.operations import Operation, Support
from common.blocks.batch import Batch
from common.blocks.block import Block, CategoryBlock, Target
from common.blocks.values import Padded, map_tensors

PIECES = 4
MARGIN = 0.25  # the least distance of the corner from the edges, as a share of the sides


@dataclass(frozen=True)
class Mosaic(Operation):
    """Combines parts of four samples around a random corner (arXiv:2004.10934, section 3.4)."""

    name: ClassVar[str] = "mosaic"
    label: ClassVar[str] = "mosaic"
    support: ClassVar[dict[str, Support]] = MIXES
    draws: ClassVar[int] = 3 + 2 * PIECES


@dataclass(frozen=True)
class Pieces:
    """The source and the destination of each piece of each sample of a batch, in whole pixels.

    Attributes:
        sources: int64 (B, 4): the sample that each piece is cut from.
        places: int64 (B, 4, 4): (top, left, bottom, right) that it covers; three are empty in an unchanged sample.
        shifts: int64 (B, 4, 2): (down, right) from its place in the source to that in the mosaic.
    """

    sources: Tensor
    places: Tensor
    shifts: Tensor


def draw(batch: Batch, mosaic: Mosaic, numbers_of: Numbers, size: tuple[int, int]) -> Pieces:
    """Draws the pieces of each sample; an unchanged sample is a single piece, itself.

    Args:
        batch: A batch with ``ids``, and ``mates`` (B, 3) unless they are the three samples before each in the batch.
        mosaic: The operation.
        numbers_of: Gives its random numbers.
        size: (height, width) of the images in pixels.
    """
    ids, mates = cast(Tensor, batch.ids), batch.mates
    if mates is None:
        here = torch.arange(len(ids), device=ids.device)
        mates = torch.stack([here.roll(step + 1) for step in range(PIECES - 1)], dim=1)
    count = len(mates)
    numbers, chosen = numbers_of(mosaic, ids[:count])
    own = torch.arange(count, device=ids.device)[:, None]
    among = torch.cat([own, mates], dim=1)
    turn = torch.where(chosen, (numbers[:, 2] * PIECES).to(torch.int64), torch.zeros_like(own[:, 0]))
    order = (torch.arange(PIECES, device=ids.device) + turn[:, None]) % PIECES
    sides = ids.new_tensor(size) if ids.device.type == "cpu" else torch.stack([ids.new_full((), v) for v in size])
    share = MARGIN + (1 - 2 * MARGIN) * numbers[:, :2]
    corner = torch.where(chosen[:, None], (share * sides).to(torch.int64), sides)
    y, x = corner[:, 0], corner[:, 1]
    zero, height, width = torch.zeros_like(y), sides[0].expand(count), sides[1].expand(count)
    rows = ((zero, y), (zero, y), (y, height), (y, height))
    columns = ((zero, x), (x, width), (zero, x), (x, width))
    boxes = [torch.stack([t, left, b, r], dim=1) for (t, b), (left, r) in zip(rows, columns, strict=True)]
    places = torch.stack(boxes, dim=1)
    room = sides - (places[..., 2:] - places[..., :2])
    start = torch.floor(numbers[:, 3:].unflatten(1, (PIECES, 2)) * (room + 1)).to(torch.int64).minimum(room)
    return Pieces(among.gather(1, order), places, places[..., :2] - start)


def composed(batch: Batch, pieces: Pieces, blocks: tuple[Block, ...], min_visibility: float = 0.0) -> Batch:
    """Returns the batch with every sample composed of its pieces, without samples that are only mates.

    Categories and numbers become means weighted by area; boxes are shifted and clipped with their pieces.

    Args:
        batch: A batch with one image (B, C, H, W).
        pieces: The pieces of each sample.
        blocks: The blocks of the targets.
        min_visibility: The least share of a box that must remain, else the box and its label are dropped.
    """
    count = len(pieces.sources)
    targets = batch.y if isinstance(batch.y, tuple) else (batch.y,)
    made = tuple(_target(block, value, pieces, min_visibility) for block, value in zip(blocks, targets, strict=True))
    sizes, ids = (None if t is None else t[:count] for t in (batch.sizes, batch.ids))
    y = made if isinstance(batch.y, tuple) else made[0]
    return replace(batch, x=put_together(batch.x, pieces), y=y, ids=ids, sizes=sizes, mates=None)


def put_together(value: Tensor, pieces: Pieces) -> Tensor:
    """Returns composed images (N, C, H, W) or masks (N, H, W), (B, …): copied on a CPU, gathered elsewhere."""
    height, width = value.shape[-2:]
    if value.device.type != "cpu":
        return _looked_up(value, pieces, height, width)
    out = torch.empty((len(pieces.sources), *value.shape[1:]), dtype=value.dtype)
    if value.dim() == 4:
        out = out.contiguous(memory_format=torch.channels_last)
    everything = zip(pieces.sources.tolist(), pieces.places.tolist(), pieces.shifts.tolist(), strict=True)
    for i, (sources, places, shifts) in enumerate(everything):
        for source, (top, left, bottom, right), (down, across) in zip(sources, places, shifts, strict=True):
            part = value[source, ..., top - down : bottom - down, left - across : right - across]
            out[i, ..., top:bottom, left:right] = part
    return out


def _looked_up(value: Tensor, pieces: Pieces, height: int, width: int) -> Tensor:
    y, x = (torch.arange(n, device=value.device) for n in (height, width))
    corner = pieces.places[:, 0, 2:]
    which = 2 * (y >= corner[:, :1])[:, :, None] + (x >= corner[:, 1:])[:, None, :].to(torch.int64)
    flat = which.flatten(1)
    source = pieces.sources.gather(1, flat).view_as(which)
    down, across = (pieces.shifts[..., k].gather(1, flat).view_as(which) for k in range(2))
    rows, columns = y[None, :, None] - down, x[None, None, :] - across
    if value.dim() == 3:
        return value[source, rows, columns]
    return value.permute(0, 2, 3, 1)[source, rows, columns].permute(0, 3, 1, 2)


def _target(block: Block, value: Any, pieces: Pieces, min_visibility: float) -> Any:
    if block.target == Target.MASK:
        return put_together(value, pieces)
    if block.target == Target.BOXES:
        return _boxes(value, pieces, min_visibility)
    if isinstance(block, CategoryBlock) and not value.is_floating_point():
        value = F.one_hot(value, len(block.vocab)).to(torch.float32)
    area = (pieces.places[..., 2:] - pieces.places[..., :2]).prod(dim=-1)
    share = (area / area.sum(dim=1, keepdim=True)).to(value.dtype)
    parts = value[pieces.sources]
    return (parts * share.reshape(*share.shape, *[1] * (parts.dim() - 2))).sum(dim=1)


def _boxes(value: Padded, pieces: Pieces, min_visibility: float) -> Padded:
    """The boxes of all pieces, (B, 4 * N, …): shifted, clipped to their piece, dropped where too little is visible."""
    moved, valid = {n: t[pieces.sources] for n, t in value.values.items()}, value.valid[pieces.sources]
    shift = pieces.shifts.flip(-1).to(torch.float32)
    boxes = moved["boxes"] + shift.repeat(1, 1, 2)[:, :, None]
    place = pieces.places.to(torch.float32)[:, :, None]
    low = torch.maximum(boxes[..., :2], place[..., [1, 0]])
    high = torch.maximum(torch.minimum(boxes[..., 2:], place[..., [3, 2]]), low)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1).clamp(min=1e-12)
    seen = (high - low).prod(dim=-1) / area
    moved["boxes"] = torch.cat([low, high], dim=-1)
    valid = valid & (seen >= max(min_visibility, 1e-6))
    if "outlines" in moved:
        moved["outlines"] = moved["outlines"] + shift[:, :, None, None]
    return _compact(Padded({name: tensor.flatten(1, 2) for name, tensor in moved.items()}, valid.flatten(1, 2)))


def _compact(value: Padded) -> Padded:
    """Moves valid entries first and drops columns empty in all samples; on an accelerator that would wait, so as is."""
    valid = value.valid
    if valid.device.type != "cpu":
        return value
    order = torch.sort((~valid).to(torch.int8), dim=1, stable=True).indices[:, : max(int(valid.sum(dim=1).max()), 1)]
    return map_tensors(value, lambda tensor: tensor[torch.arange(len(order))[:, None], order])
