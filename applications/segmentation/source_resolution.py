"""Resampling of logits from the model's input to the resolution of the source image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.blocks.batch import Batch

MOST_NUMBERS = 1 << 24  # the most logits that are resampled at a time: a large photo is processed in bands of rows


def source_logits(logits: Tensor, source: Tensor, size: tuple[int, int], rows: slice | None = None) -> Tensor:
    """Returns one sample's logits at pixels of its source image, float (classes, rows, W), by bilinear interpolation.

    Pixels that the model did not see (outside a centre crop) take the logits of the nearest edge.

    Args:
        logits: float (classes, h, w).
        source: float64 (3, 3) on the CPU: maps (x, y, 1) in pixels of the logits' image to pixels of the source; it
            only scales and shifts.
        size: (height, width) of the source in pixels.
        rows: The rows of the source to compute; all when None.
    """
    height, width = logits.shape[1:]
    rows = slice(0, size[0]) if rows is None else rows
    if size == (height, width) and torch.equal(source, torch.eye(3, dtype=source.dtype)):
        return logits[:, rows]
    scale_x, scale_y, left, top = (float(source[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    y = (torch.arange(rows.start, rows.stop, dtype=torch.float64) + 0.5 - top) / scale_y  # centres of pixels
    x = (torch.arange(size[1], dtype=torch.float64) + 0.5 - left) / scale_x
    x, y = (2 * x / width - 1).to(logits), (2 * y / height - 1).to(logits)
    grid = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)
    return F.grid_sample(logits[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]


def source_ids(logits: Tensor, batch: Batch) -> list[Tensor]:
    """Returns each sample's class ids at the resolution of its source image, uint8 (H, W), on the logits' device.

    Args:
        logits: float (B, classes, h, w), in pixels of the batch's images.
        batch: The batch; without ``sizes`` and ``source`` the ids stay in pixels of its images.
    """
    if batch.sizes is None or batch.source is None:
        return list(logits.argmax(dim=1).to(torch.uint8))
    found: list[Tensor] = []
    maps, sizes = batch.source.cpu(), batch.sizes.tolist()
    for own, source, (height, width) in zip(logits.float(), maps, sizes, strict=True):
        step = max(1, MOST_NUMBERS // (len(own) * width))
        bands = [slice(row, min(row + step, height)) for row in range(0, height, step)]
        parts = [source_logits(own, source, (height, width), band) for band in bands]
        found.append(torch.cat([part.argmax(dim=0).to(torch.uint8) for part in parts]))
    return found
