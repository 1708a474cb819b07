"""Two simple baselines for segmentation: the most frequent class overall, and at each position of the frame."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from applications.segmentation.task import SegmentationTask
from common.blocks.item_transforms import View
from common.task.task import Outputs

CELLS = 64  # positions per side of the second baseline
LIMIT = 500


def _looked_at(count: int, limit: int) -> range:
    return range(0, count, max(1, -(-count // limit)))


def ignored_share(counts: np.ndarray, masks: int, limit: int = LIMIT) -> float:
    """Returns the share of the pixels that count in no loss or metric, in [0, 1].

    Args:
        counts: What `pixel_counts` gave.
        masks: How many masks it was given.
        limit: As there.
    """
    return 1 - float(counts.sum()) / (CELLS * CELLS * len(_looked_at(masks, limit)))


def pixel_counts(task: SegmentationTask, masks: Sequence[Any], limit: int = LIMIT) -> np.ndarray:
    """Returns the counts of each class at 64 x 64 positions of the frame, int64 (classes, 64, 64).

    Args:
        task: The task with the classes.
        masks: Raw masks of the source.
        limit: The most masks used, evenly spread over all.
    """
    block, counts = task.block, torch.zeros(len(task.codes), CELLS, CELLS, dtype=torch.int64)
    for i in _looked_at(len(masks), limit):
        whole = block.encode(masks[i])
        view = View((0, 0, whole.shape[1], whole.shape[0]), (CELLS, CELLS))
        ids = torch.from_numpy(np.array(view.pixels(whole.numpy(), nearest=True))).long()
        seen = ids < len(task.codes)
        counts += F.one_hot(torch.where(seen, ids, 0), len(task.codes)).movedim(2, 0) * seen
    return counts.numpy()


def baseline(task: SegmentationTask, counts: np.ndarray, masks: Sequence[Any]) -> dict[str, dict[str, float]]:
    """Returns the metrics of two simple baselines: the most frequent class overall, and at each position.

    Args:
        task: The task with the classes.
        counts: The `pixel_counts` of the training masks.
        masks: The raw masks to evaluate on.
    """
    truth = [task.block.encode(mask) for mask in masks]
    common = int(counts.sum(axis=(1, 2)).argmax())
    placed = torch.from_numpy(counts.argmax(axis=0))[None, None].float()

    def at_each_place(shape: torch.Size) -> torch.Tensor:
        return F.interpolate(placed, size=tuple(shape), mode="nearest")[0, 0].to(torch.uint8)

    return {
        "most_frequent_class": task.report(Outputs([torch.full_like(ids, common) for ids in truth], truth)),
        "most_frequent_at_each_place": task.report(Outputs([at_each_place(ids.shape) for ids in truth], truth)),
    }


def class_weights(counts: np.ndarray, power: float = 0.25, most: float = 4.0) -> tuple[float, ...]:
    """Returns class weights that are larger for rare classes: a power of the inverse frequency.

    The mean over pixels is one; a class that does not occur gets the weight of the rarest that does.

    Args:
        counts: The `pixel_counts` of the training masks.
        power: 0: equal weights; 1: inverse frequencies.
        most: The largest ratio of the greatest to the least weight.
    """
    share = counts.sum(axis=(1, 2)) / max(counts.sum(), 1)
    raw = np.where(share > 0, share, share[share > 0].min(initial=1.0)) ** -power
    raw = np.minimum(raw, most * raw.min())
    return tuple((raw / (raw * share).sum()).round(4).tolist())
