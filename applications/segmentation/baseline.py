"""Two simple rules to judge a segmenter beside: what is most frequent everywhere, and at each place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from applications.segmentation.task import SegmentationTask
from common.blocks.item_transforms import View
from common.task.task import Outputs

CELLS = 64  # places a side at which the second rule counts
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
    """Returns how often each class occurs at each of 64 x 64 places of the frame, int64 (classes, 64, 64).

    Args:
        task: Whose classes they are.
        masks: Masks as the source gives them.
        limit: The most masks that are looked at, evenly spread over all.
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
    """Returns the metrics of two simple rules: the most frequent class everywhere, and the one at each place.

    Args:
        task: Whose classes they are.
        counts: Of the training masks; see `pixel_counts`.
        masks: Those to judge on, as the source gives them.
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
    """Returns how much a pixel of each class counts, so that rare ones count more: a power of one over their share.

    The mean over pixels is one; a class that does not occur counts as the rarest that does.

    Args:
        counts: Of the training masks; see `pixel_counts`.
        power: 0: all the same; 1: each class counts as much as any other.
        most: The greatest weight over the least.
    """
    share = counts.sum(axis=(1, 2)) / max(counts.sum(), 1)
    raw = np.where(share > 0, share, share[share > 0].min(initial=1.0)) ** -power
    raw = np.minimum(raw, most * raw.min())
    return tuple((raw / (raw * share).sum()).round(4).tolist())
